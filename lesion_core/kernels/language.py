"""Triton, or nothing where it is not installed: kernels can then be read, but not launched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

try:
    import triton  # pyright: ignore[reportMissingImports] # not where there is no GPU
    import triton.language as tl  # pyright: ignore[reportMissingImports]
except ImportError:  # pragma: no cover
    triton = tl = None

__all__ = ["LAST", "class_of_kernels", "jit", "launched_on", "num_blocks", "power_of_two", "tl"]

LAST = torch.channels_last_3d
"""How all volumes and weights lie here: channels last."""


def jit(function: Callable[..., None]) -> Any:
    """A kernel: ``kernel[grid](arguments)`` launches it."""
    return function if triton is None else triton.jit(function)


def class_of_kernels() -> Any:
    """Triton's class of whatever can be launched; None where it is not installed."""
    return None if triton is None else triton.runtime.jit.KernelInterface


def launched_on(tensor: Tensor) -> AbstractContextManager[object]:
    """Kernels in this block are launched on the GPU of ``tensor``; Triton takes the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def num_blocks(size: int, block: int) -> int:
    """How many blocks cover so many values."""
    return -(-size // block)


def power_of_two(size: int) -> int:
    """The least power of two that is not less: what a side of a block must be."""
    return 1 << (size - 1).bit_length()
