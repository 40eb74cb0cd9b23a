"""The network's last convolution, 1x1x1 to one channel: a sum over the channels of each voxel."""

# pyright: reportIncompatibleMethodOverride=false
# (PyTorch's own stubs of `torch.autograd.Function` name no arguments.)

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lesion_core.kernels.language import LAST, jit, launched_on, num_blocks, power_of_two, tl

VALUES_PER_BLOCK = 4096
MOST_PROGRAMS = 1024
"""Eight for each of an H100's 132 multiprocessors."""


def head(volumes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits ``[B, 1, X, Y, Z]`` of volumes ``[B, C, X, Y, Z]``, in the weights' precision (fp32).

    ``weight [1, C, 1, 1, 1]`` is not rounded to the precision of the volumes, and the logits are
    not either.
    """
    return _Head.apply(volumes, weight, bias)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(volumes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        volumes = volumes.contiguous(memory_format=LAST)
        batch, _, *sides = volumes.shape
        out = torch.empty(batch, 1, *sides, dtype=weight.dtype, device=volumes.device)
        if volumes.numel():
            grid, arguments = _cut(volumes)
            with launched_on(volumes):
                _dot[grid](volumes, weight, bias, out, **arguments)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        volumes, weight, _ = inputs
        ctx.save_for_backward(volumes, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        volumes, weight = ctx.saved_tensors
        volumes = volumes.contiguous(memory_format=LAST)
        gradient = gradient.contiguous()
        out = torch.empty_like(volumes)
        (programs,), arguments = _cut(volumes)
        sums = torch.empty(programs, volumes.shape[1] + 1, dtype=weight.dtype, device=weight.device)
        if volumes.numel():
            with launched_on(volumes):
                _dot_gradient[(programs,)](volumes, weight, gradient, out, sums, **arguments)
        total = sums.sum(0)
        return out, total[:-1].view_as(weight), total[-1:]


def _cut(volumes: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """How many programs there are, and what is told to each."""
    batch, channels, *sides = volumes.shape
    num_voxels = batch * sides[0] * sides[1] * sides[2]
    channel_block = power_of_two(channels)
    voxel_block = max(1, VALUES_PER_BLOCK // channel_block)
    blocks = power_of_two(max(1, num_blocks(num_blocks(num_voxels, voxel_block), MOST_PROGRAMS)))
    arguments = {
        "num_voxels": num_voxels,
        "CHANNELS": channels,
        "BLOCKS": blocks,  # compiled into a kernel: a power of two, lest every batch size has one
        "VOXEL_BLOCK": voxel_block,
        "CHANNEL_BLOCK": channel_block,
    }
    return (num_blocks(num_voxels, blocks * voxel_block),), arguments


# Kernels.  Volumes lie as [voxels of the batch, channels], logits as [voxels of the batch].


@jit
def _dot(
    volumes_at, weight_at, bias_at, out_at, num_voxels,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, VOXEL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Logits of a program's voxels."""
    channel = tl.arange(0, CHANNEL_BLOCK)
    is_channel = channel < CHANNELS
    weight = tl.load(weight_at + channel, mask=is_channel, other=0.0).to(tl.float32)
    bias = tl.load(bias_at).to(tl.float32)
    begin = tl.program_id(0).to(tl.int64) * (BLOCKS * VOXEL_BLOCK)
    for block in range(BLOCKS):
        voxel = begin + block * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
        is_voxel = voxel < num_voxels
        mask = is_voxel[:, None] & is_channel[None, :]
        offset = voxel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(volumes_at + offset, mask=mask, other=0.0).to(tl.float32)
        logits = tl.sum(values * weight[None, :], 1) + bias
        tl.store(out_at + voxel, logits.to(out_at.dtype.element_ty), mask=is_voxel)


@jit
def _dot_gradient(
    volumes_at, weight_at, gradient_at, out_at, sums_at, num_voxels,
    CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, VOXEL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of a program's voxels, and its sums for those of the weights and the bias."""
    channel = tl.arange(0, CHANNEL_BLOCK)
    is_channel = channel < CHANNELS
    weight = tl.load(weight_at + channel, mask=is_channel, other=0.0).to(tl.float32)
    program = tl.program_id(0)
    begin = program.to(tl.int64) * (BLOCKS * VOXEL_BLOCK)
    products = tl.zeros([CHANNEL_BLOCK], tl.float32)
    total = tl.zeros([VOXEL_BLOCK], tl.float32)
    for block in range(BLOCKS):
        voxel = begin + block * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
        is_voxel = voxel < num_voxels
        mask = is_voxel[:, None] & is_channel[None, :]
        offset = voxel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(volumes_at + offset, mask=mask, other=0.0).to(tl.float32)
        gradient = tl.load(gradient_at + voxel, mask=is_voxel, other=0.0).to(tl.float32)
        found = gradient[:, None] * weight[None, :]
        tl.store(out_at + offset, found.to(out_at.dtype.element_ty), mask=mask)
        products += tl.sum(gradient[:, None] * values, 0)
        total += gradient
    at = program * (CHANNELS + 1)
    tl.store(sums_at + at + channel, products, mask=is_channel)
    tl.store(sums_at + at + CHANNELS, tl.sum(total, 0))
