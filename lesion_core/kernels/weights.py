"""What the convolutions need of the weights: rounded once a step, and folded in the decoder."""

# pyright: reportIncompatibleMethodOverride=false
# (PyTorch's own stubs of `torch.autograd.Function` name no arguments.)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lesion_core.kernels.language import LAST, jit, launched_on, num_blocks, tl

BLOCK = 32


def rounded(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """All of them in another precision, by one kernel; gradients come back by one more."""
    if all(weight.dtype == dtype for weight in weights):
        return list(weights)
    return list(_Rounded.apply(dtype, *weights))


def padded(weight: Tensor, channels: int) -> Tensor:
    """A weight ``[out, in, ...]`` for an input with so many channels, the new ones of weight 0."""
    more = channels - weight.shape[1]
    return F.pad(weight, [0, 0] * 3 + [0, more]).contiguous(memory_format=LAST)


def folded(weight: Tensor, low: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two convolutions that a decoder's weight ``[out, low + skip, 3, 3, 3]`` is.

    ``[low, out, 4, 4, 4]`` is for `torch.nn.functional.conv_transpose3d` of the coarse volume, as
    `unet.upsampling_kernel` explains it; ``[out, skip, 3, 3, 3]`` for the skip's.  Folded in fp32,
    then rounded.
    """
    return _Folded.apply(weight, low, dtype)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        return _copied(weights, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.dtype = inputs[1].dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_copied(gradients, ctx.dtype)


def _copied(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    copy: Any = getattr(torch, "_foreach_copy_")  # noqa: B009 # not in stubs
    copy(copies, tensors)
    return copies


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(weight: Tensor, low: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        weight = weight.contiguous(memory_format=LAST)
        out, both = weight.shape[:2]
        options: Any = {"dtype": dtype, "device": weight.device, "memory_format": LAST}
        up = torch.empty(low, out, 4, 4, 4, **options)
        skip = torch.empty(out, both - low, 3, 3, 3, **options).copy_(weight[:, low:])
        with launched_on(weight):
            _fold[(64, num_blocks(low, BLOCK), num_blocks(out, BLOCK))](
                weight, up, LOW=low, BOTH=both, OUT=out, BLOCK=BLOCK
            )
        return up, skip

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        weight, ctx.low, _ = inputs
        ctx.shape, ctx.dtype = weight.shape, weight.dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor, skip: Tensor) -> tuple[Tensor, None, None]:
        up = up.contiguous(memory_format=LAST)
        gradient = torch.empty(ctx.shape, dtype=ctx.dtype, device=up.device, memory_format=LAST)
        gradient[:, ctx.low :] = skip
        out, both = ctx.shape[:2]
        with launched_on(up):
            _unfold[(27, num_blocks(ctx.low, BLOCK), num_blocks(out, BLOCK))](
                up, gradient, LOW=ctx.low, BOTH=both, OUT=out, BLOCK=BLOCK
            )
        return gradient, None, None


# Kernels.  A weight lies as [out, 27 taps, low + skip], its folded form as [low, 64 taps, out].
# Along one axis tap t of the weight is in taps 2 - t and 3 - t of the folded form.


@jit
def _fold(
    weight_at, up_at, LOW: tl.constexpr, BOTH: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr
):
    """One tap of the folded form, for a block of channels: up to eight taps of the weight."""
    tap = tl.program_id(0)
    x, y, z = tap // 16, tap // 4 % 4, tap % 4
    inner = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    outer = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    mask = (inner < LOW)[:, None] & (outer < OUT)[None, :]
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for corner in tl.static_range(8):
        from_x = 2 - x + corner // 4
        from_y = 2 - y + corner // 2 % 2
        from_z = 2 - z + corner % 2
        exists = (from_x >= 0) & (from_x < 3) & (from_y >= 0) & (from_y < 3)
        exists = exists & (from_z >= 0) & (from_z < 3)
        offset = (outer[None, :] * 27 + (from_x * 9 + from_y * 3 + from_z)) * BOTH + inner[:, None]
        total += tl.load(weight_at + offset, mask=mask & exists, other=0.0).to(tl.float32)
    offset = (inner[:, None] * 64 + tap) * OUT + outer[None, :]
    tl.store(up_at + offset, total.to(up_at.dtype.element_ty), mask=mask)


@jit
def _unfold(
    up_at, weight_at, LOW: tl.constexpr, BOTH: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of one tap of the weight: the sum of eight taps of the folded form's."""
    tap = tl.program_id(0)
    x, y, z = tap // 9, tap // 3 % 3, tap % 3
    inner = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    outer = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    mask = (inner < LOW)[:, None] & (outer < OUT)[None, :]
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for corner in tl.static_range(8):
        to_x = 2 - x + corner // 4
        to_y = 2 - y + corner // 2 % 2
        to_z = 2 - z + corner % 2
        offset = (inner[:, None] * 64 + (to_x * 16 + to_y * 4 + to_z)) * OUT + outer[None, :]
        total += tl.load(up_at + offset, mask=mask, other=0.0).to(tl.float32)
    offset = (outer[None, :] * 27 + tap) * BOTH + inner[:, None]
    tl.store(weight_at + offset, total.to(weight_at.dtype.element_ty), mask=mask)
