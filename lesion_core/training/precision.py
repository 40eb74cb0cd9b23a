"""In what precision a network computes, fp32, tf32 or bf16; and whether equal runs are equal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.deterministic

from lesion_core import kernels


def check_precision(precision: str, device: str) -> None:
    """Refuse a precision that this device lacks, rather than compute in another (ValueError).

    Refuses an environment that would change it unasked, too.
    """
    on_gpu = device.startswith("cuda")
    _refuse_overrides(precision, on_gpu)
    if precision == "tf32" and not on_gpu:
        raise ValueError("precision tf32 without a GPU: CPUs do not have it; use fp32 or bf16")
    if precision != "fp32" and on_gpu and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f"precision {precision} on {torch.cuda.get_device_name(device)}: GPUs of compute "
            "capability below 8.0 do not have it; use fp32"
        )


def check_deterministic(deterministic: bool, device: str) -> None:
    """Refuse to be asked for what cannot be otherwise: trials would have two names (ValueError)."""
    if deterministic and not device.startswith("cuda"):
        raise ValueError(
            "--deterministic without a GPU: on a CPU equal trials give equal bits anyway; "
            "leave it out"
        )


@contextmanager
def algorithms(deterministic: bool, device: str) -> Iterator[None]:
    """In this block, if ``deterministic``, equal inputs give equal bits on one kind of GPU.

    cuDNN's algorithms are then not chosen by speed, and none that adds up in whatever order is
    used.  An operation of a user's own loss that has no such form is an error that names it; where
    PyTorch's own max pooling is used it is a warning, for that is listed as such an operation,
    though its windows do not overlap here.
    """
    if not deterministic:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    warn_only = not kernels.are_used(torch.device(device))
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    memory.fill_uninitialized_memory = False  # nothing reads it; it takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled


def _refuse_overrides(precision: str, on_gpu: bool) -> None:
    """Libraries read these variables, and nothing in a result would show it."""
    if not on_gpu:
        names = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
        allowed = dict.fromkeys(names, ("", "STRICT"))
    elif precision == "tf32":
        allowed = {"NVIDIA_TF32_OVERRIDE": ("", "1")}
    else:
        names = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
        allowed = dict.fromkeys(names, ("", "0"))
    for name, values in allowed.items():
        value = os.environ.get(name, "")
        if value.upper() not in values:
            raise ValueError(
                f"{name}={value} lets a library compute otherwise than in precision {precision}, "
                "without a trace in the results; unset it, and say with --precision what you want"
            )


@contextmanager
def convolutions(precision: str, *, search: bool = True) -> Iterator[None]:
    """How a GPU convolves in this block, forward and backward.

    By the algorithm that proves fastest for each shape (unless PyTorch is told to be deterministic:
    two processes may prove different ones fastest), without ``search`` only by what has proved so
    before; and in fp32 proper unless ``precision`` says tf32, which PyTorch would use unasked.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.benchmark = search and not torch.are_deterministic_algorithms_enabled()
    cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which the network runs.

    It keeps no rounded weights: a pass needs each once, and a recorded step (`step.Step`) must
    round them again whenever it is replayed.
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return nullcontext()
