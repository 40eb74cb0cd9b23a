"""Max pooling by 2 in channels-last memory, and the sum of both gradients that a skip has."""

# pyright: reportIncompatibleMethodOverride=false
# (PyTorch's own stubs of `torch.autograd.Function` name no arguments.)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lesion_core.kernels.language import LAST, jit, launched_on, num_blocks, power_of_two, tl

VALUES_PER_BLOCK = 2048
"""Of a program at once: 16 a thread, in 16-byte loads of bf16; each maximum is of eight voxels."""
MOST_CHANNELS = 64
"""Of a program: 128 bytes of bf16, a line of the cache."""


def skipped_and_halved(volumes: Tensor) -> tuple[Tensor, Tensor]:
    """The volumes ``[B, C, X, Y, Z]`` themselves, and their maxima over 2x2x2 voxels.

    An odd side loses its last voxel, as in PyTorch's.  Both come from one operation, whose backward
    adds both gradients while it writes them.  Of equal values the first counts; NaN goes through.
    """
    if not torch.is_grad_enabled():
        volumes = volumes.contiguous(memory_format=LAST)
        return volumes, _halve(volumes, keep_place=False)[0]
    skip, halved, _ = _SkippedAndHalved.apply(volumes)
    return skip, halved


class _SkippedAndHalved(torch.autograd.Function):
    @staticmethod
    def forward(volumes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        volumes = volumes.contiguous(memory_format=LAST)
        halved, place = _halve(volumes, keep_place=True)
        assert place is not None
        return volumes.view_as(volumes), halved, place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        place = output[2]
        ctx.mark_non_differentiable(place)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(place)
        ctx.shape = inputs[0].shape

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, skip: Tensor | None, halved: Tensor | None, _: None) -> Tensor | None:
        if halved is None:
            return skip
        (place,) = ctx.saved_tensors
        halved = halved.contiguous(memory_format=LAST)
        skip = None if skip is None else skip.contiguous(memory_format=LAST)
        out = torch.empty(ctx.shape, dtype=halved.dtype, device=halved.device, memory_format=LAST)
        batch, channels, *sides = out.shape
        num_voxels = batch * sides[0] * sides[1] * sides[2]
        if out.numel():
            blocks, grid = _blocks(num_voxels, channels)
            with launched_on(out):
                _spread[grid](
                    halved, place, skip, out, num_voxels, **blocks, **_sizes(sides),
                    HAS_SKIP=skip is not None,
                )  # fmt: skip
        return out


def _halve(volumes: Tensor, *, keep_place: bool) -> tuple[Tensor, Tensor | None]:
    """Maxima, and which of its eight voxels each is (uint8)."""
    batch, channels, *sides = volumes.shape
    shape = batch, channels, *(side // 2 for side in sides)
    out = torch.empty(shape, dtype=volumes.dtype, device=volumes.device, memory_format=LAST)
    place = torch.empty_like(out, dtype=torch.uint8) if keep_place else None
    if out.numel():
        num_voxels = batch * shape[2] * shape[3] * shape[4]
        blocks, grid = _blocks(num_voxels, channels)
        with launched_on(volumes):
            _maxima[grid](
                volumes, out, place, num_voxels, **blocks, **_sizes(sides), KEEP_PLACE=keep_place
            )  # fmt: skip
    return out, place


def _blocks(num_voxels: int, channels: int) -> tuple[dict[str, int], tuple[int, int]]:
    channel_block = min(MOST_CHANNELS, power_of_two(channels))
    voxel_block = VALUES_PER_BLOCK // channel_block
    blocks = {
        "CHANNELS": channels,
        "VOXEL_BLOCK": voxel_block,
        "CHANNEL_BLOCK": channel_block,
    }
    return blocks, (num_blocks(num_voxels, voxel_block), num_blocks(channels, channel_block))


def _sizes(sides: Sequence[int]) -> dict[str, int]:
    """Compiled into kernels, so that dividing by them is cheap: a patch has few different ones."""
    return dict(zip(("SIZE_X", "SIZE_Y", "SIZE_Z"), sides, strict=True))


# Kernels.  Volumes lie as [batch, X, Y, Z, channels]; voxels are counted over the whole batch, in
# 64 bits.


@jit
def _maxima(
    volumes_at, out_at, place_at, num_voxels, CHANNELS: tl.constexpr, VOXEL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr, SIZE_X: tl.constexpr, SIZE_Y: tl.constexpr, SIZE_Z: tl.constexpr,
    KEEP_PLACE: tl.constexpr,
):  # fmt: skip
    """Of a block of the halved voxels."""
    voxel = tl.program_id(0).to(tl.int64) * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    mask = (voxel < num_voxels)[:, None] & (channel < CHANNELS)[None, :]
    half_x: tl.constexpr = SIZE_X // 2
    half_y: tl.constexpr = SIZE_Y // 2
    half_z: tl.constexpr = SIZE_Z // 2
    z = voxel % half_z
    y = voxel // half_z % half_y
    x = voxel // (half_z * half_y) % half_x
    sample = voxel // (half_z * half_y) // half_x
    first = ((sample * SIZE_X + 2 * x) * SIZE_Y + 2 * y) * SIZE_Z + 2 * z
    best = tl.full([VOXEL_BLOCK, CHANNEL_BLOCK], float("-inf"), tl.float32)
    place = tl.zeros([VOXEL_BLOCK, CHANNEL_BLOCK], tl.int32)
    for corner in tl.static_range(8):
        at = first + (corner // 4 * SIZE_Y + corner // 2 % 2) * SIZE_Z + corner % 2
        offset = at[:, None] * CHANNELS + channel[None, :]
        value = tl.load(volumes_at + offset, mask=mask, other=0.0).to(tl.float32)
        takes = (value > best) | (value != value)
        best = tl.where(takes, value, best)
        place = tl.where(takes, corner, place)
    offset = voxel[:, None] * CHANNELS + channel[None, :]
    tl.store(out_at + offset, best.to(out_at.dtype.element_ty), mask=mask)
    if KEEP_PLACE:
        tl.store(place_at + offset, place.to(tl.uint8), mask=mask)


@jit
def _spread(
    halved_at, place_at, skip_at, out_at, num_voxels,
    CHANNELS: tl.constexpr, VOXEL_BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    SIZE_X: tl.constexpr, SIZE_Y: tl.constexpr, SIZE_Z: tl.constexpr,
    HAS_SKIP: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of voxels: that of their maximum if they are it, and the skip's."""
    voxel = tl.program_id(0).to(tl.int64) * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    mask = (voxel < num_voxels)[:, None] & (channel < CHANNELS)[None, :]
    half_x: tl.constexpr = SIZE_X // 2
    half_y: tl.constexpr = SIZE_Y // 2
    half_z: tl.constexpr = SIZE_Z // 2
    z = voxel % SIZE_Z
    y = voxel // SIZE_Z % SIZE_Y
    x = voxel // (SIZE_Z * SIZE_Y) % SIZE_X
    sample = voxel // (SIZE_Z * SIZE_Y) // SIZE_X
    is_pooled = (x // 2 < half_x) & (y // 2 < half_y) & (z // 2 < half_z)
    at = ((sample * half_x + x // 2) * half_y + y // 2) * half_z + z // 2
    pooled = mask & is_pooled[:, None]
    half_offset = at[:, None] * CHANNELS + channel[None, :]
    place = tl.load(place_at + half_offset, mask=pooled, other=8).to(tl.int32)
    corner = (x % 2 * 4 + y % 2 * 2 + z % 2).to(tl.int32)
    gradient = tl.load(halved_at + half_offset, mask=pooled, other=0.0).to(tl.float32)
    gradient = tl.where(pooled & (place == corner[:, None]), gradient, 0.0)
    offset = voxel[:, None] * CHANNELS + channel[None, :]
    if HAS_SKIP:
        gradient += tl.load(skip_at + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_at + offset, gradient.to(out_at.dtype.element_ty), mask=mask)
