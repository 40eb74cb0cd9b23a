"""Kernels of our own for a GPU, written in Triton, and when they are used.

They compute what `unet.UNet3d` computes, in channels-last memory throughout and with less of it
moved: `network.py` is the whole network, `norm.py` bias, ReLU and group norm, `pooling.py` max
pooling, `weights.py` what convolutions need of the weights, `head.py` the last convolution.
`language.py` is where Triton comes from.

They are used on NVIDIA GPUs of compute capability 8.0 and more where Triton can launch them (it
comes with PyTorch's builds for CUDA), and nowhere else: `disabled` turns them off.  Where a GPU
goes without them, a line of the log says why.  They add up in fp32 and in a fixed order, without
atomics: equal inputs give equal bits.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

logger = logging.getLogger(__name__)

LEAST_CAPABILITY = (8, 0)
"""Ampere: the first that computes in bf16 and tf32."""

_disabled: ContextVar[bool] = ContextVar("kernels_disabled", default=False)


@contextmanager
def disabled() -> Iterator[None]:
    """In this block a GPU computes by PyTorch's own modules, for comparison.

    A network is to be made, moved to its device (`unet.to_device`) and used inside it: its memory
    lies otherwise there.
    """
    before = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(before)


def are_used(device: torch.device) -> bool:
    """Whether networks on this device compute by these kernels; the log says why a GPU does not."""
    why = why_not(device)
    if why is not None and device.type == "cuda":
        _say_once(why)
    return why is None


def why_not(device: torch.device) -> str | None:
    """Why networks on this device do without these kernels; None if they do not."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return "no GPU is usable here, and they are for GPUs"
    if _disabled.get():
        return "they are disabled"
    if torch.version.hip is not None:
        return "a GPU of another maker; they were written for NVIDIA's"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return (
            f"compute capability {'.'.join(map(str, capability))}; they need "
            f"{'.'.join(map(str, LEAST_CAPABILITY))} or more"
        )
    return _cannot_be_launched(device)


@functools.cache
def _cannot_be_launched(device: torch.device) -> str | None:
    """Why; found by launching the smallest of them.

    Triton builds a kernel when it is first launched, for which it needs a C compiler and Python's
    headers, and says what it lacks only then.
    """
    if importlib.util.find_spec("triton") is None:
        return "no Triton; install it as PyTorch's builds for CUDA do"
    from lesion_core.kernels.head import head

    ones = torch.ones(9, device=device)
    try:
        found = head(ones[:8].view(1, 8, 1, 1, 1), ones[:8].view(1, 8, 1, 1, 1), ones[8:])
    except Exception as error:  # whatever a compiler may say
        first_line = str(error).partition("\n")[0]
        return f"Triton cannot launch them ({type(error).__name__}: {first_line})"
    return None if found.item() == 9 else f"Triton computes 9 as {found.item():g}"


@functools.cache
def _say_once(why: str) -> None:
    logger.warning("the network computes without this project's GPU kernels: %s", why)
