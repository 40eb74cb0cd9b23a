"""Bias, ReLU and group norm behind a convolution: forward and backward, as one operation.

A level's ``group_norm(relu(values + bias))`` reads ``values`` twice and writes the result once;
its backward reads values and gradient twice and writes once.  Nothing in between is stored: ReLU
is computed again.  Where the convolution was computed in two parts, they are added on the way.

Moments are fp32 and never a difference of squares: every block of voxels is centred by its own
mean, and blocks are merged as Chan, Golub and LeVeque do (1983), so that mostly constant volumes
keep their digits.  What a sample gets does not depend on the samples beside it.
"""

# pyright: reportIncompatibleMethodOverride=false
# (PyTorch's own stubs of `torch.autograd.Function` name no arguments.)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lesion_core.kernels.language import LAST, jit, launched_on, num_blocks, power_of_two, tl

VALUES_PER_BLOCK = 4096
"""Of a program at once: 32 a thread, in 16-byte loads of bf16."""
MOST_CHANNELS = 64
"""Of a program: 128 bytes of bf16, a line of the cache."""
MOST_SPLITS = 64
"""Programs that share the voxels of a sample: with the paper's 16 samples of 32^3 there are 1024 of
them at the first level, 8 for each of an H100's 132 multiprocessors."""


def rectified_norm(
    values: Tensor,
    other: Tensor | None,
    conv_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
) -> Tensor:
    """``group_norm(relu(values + other + conv_bias))`` in the precision and shape of ``values``.

    ``values`` and ``other`` (or None) are ``[B, C, X, Y, Z]``, the others ``[C]`` and fp32.  NaN
    goes through.  Differentiable once.
    """
    out, *_ = _RectifiedNorm.apply(values, other, conv_bias, weight, bias, num_groups, eps)
    return out


class _RectifiedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        values: Tensor,
        other: Tensor | None,
        conv_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        num_groups: int,
        eps: float,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        values = values.contiguous(memory_format=LAST)
        merged = None if other is None else torch.empty_like(values)
        other = None if other is None else other.contiguous(memory_format=LAST)
        out = torch.empty_like(values)
        cut = _Cut.of(values)
        fp32 = {"dtype": torch.float32, "device": values.device}
        parts = torch.empty(2, cut.batch * cut.splits, cut.channels, **fp32)
        mean, inverse_sd = torch.empty(2, cut.batch, num_groups, **fp32)
        per_group = cut.channels // num_groups
        if values.numel():
            with launched_on(values):
                _moments[cut.grid](
                    values, other, merged, conv_bias, parts[0], parts[1], **cut.arguments,
                    HAS_OTHER=other is not None,
                )  # fmt: skip
                _merge_moments[(cut.batch, num_groups)](
                    parts[0], parts[1], mean, inverse_sd, eps,
                    cut.num_voxels, cut.splits, cut.blocks * cut.voxel_block,
                    CHANNELS=cut.channels, PER_GROUP=per_group,
                    SPLIT_BLOCK=power_of_two(cut.splits), GROUP_BLOCK=power_of_two(per_group),
                )  # fmt: skip
                _normalise[cut.grid](
                    values if merged is None else merged, conv_bias, weight, bias, mean,
                    inverse_sd, out, **cut.arguments, PER_GROUP=per_group,
                )  # fmt: skip
        return out, merged, mean, inverse_sd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        values, _, conv_bias, weight, *_ = inputs
        _, merged, mean, inverse_sd = output
        ctx.has_other = merged is not None
        ctx.mark_non_differentiable(mean, inverse_sd, *([] if merged is None else [merged]))
        ctx.set_materialize_grads(False)  # theirs would be filled with zeros
        ctx.save_for_backward(
            values if merged is None else merged, conv_bias, weight, mean, inverse_sd
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 7
        values, conv_bias, weight, mean, inverse_sd = ctx.saved_tensors
        values = values.contiguous(memory_format=LAST)
        gradient = gradient.contiguous(memory_format=LAST)
        out = torch.empty_like(values)
        cut = _Cut.of(values)
        num_groups = mean.shape[1]
        per_group = cut.channels // num_groups
        fp32 = {"dtype": torch.float32, "device": values.device}
        # Of the gradient, of its product with the normalised values, and of the gradient found:
        sums = torch.empty(3, cut.batch * cut.splits, cut.channels, **fp32)
        slopes = torch.empty(2, cut.batch, num_groups, **fp32)
        if values.numel():
            with launched_on(values):
                _gradient_sums[cut.grid](
                    values, conv_bias, gradient, mean, inverse_sd, sums[0], sums[1],
                    **cut.arguments, PER_GROUP=per_group,
                )  # fmt: skip
                _merge_gradients[(cut.batch, num_groups)](
                    sums[0], sums[1], weight, slopes[0], slopes[1], cut.num_voxels, cut.splits,
                    CHANNELS=cut.channels, PER_GROUP=per_group,
                    SPLIT_BLOCK=power_of_two(cut.splits), GROUP_BLOCK=power_of_two(per_group),
                )  # fmt: skip
                _gradient[cut.grid](
                    values, conv_bias, gradient, mean, inverse_sd, weight, slopes[0], slopes[1],
                    out, sums[2], **cut.arguments, PER_GROUP=per_group,
                )  # fmt: skip
        bias_grad, weight_grad, conv_bias_grad = sums.sum(1)
        other_grad = out if ctx.has_other else None  # both parts of a sum have the same
        return out, other_grad, conv_bias_grad, weight_grad, bias_grad, None, None


@dataclass(frozen=True)
class _Cut:
    """How the voxels and channels of a batch are dealt to programs."""

    batch: int
    channels: int
    num_voxels: int
    splits: int
    """Parts of a sample's voxels; none is empty."""
    blocks: int
    """Of voxels, in each part."""
    voxel_block: int
    channel_block: int

    @staticmethod
    def of(values: Tensor) -> _Cut:
        """By the shape of a sample alone: a sample is added up alike in any batch."""
        batch, channels, *sides = values.shape
        num_voxels = sides[0] * sides[1] * sides[2]
        channel_block = min(MOST_CHANNELS, power_of_two(channels))
        voxel_block = VALUES_PER_BLOCK // channel_block
        blocks = num_blocks(num_blocks(num_voxels, voxel_block), MOST_SPLITS)
        splits = num_blocks(num_voxels, blocks * voxel_block)
        return _Cut(batch, channels, num_voxels, splits, blocks, voxel_block, channel_block)

    @property
    def grid(self) -> tuple[int, int]:
        """Programs: parts of samples (up to 2^31), and blocks of channels."""
        return self.batch * self.splits, num_blocks(self.channels, self.channel_block)

    @property
    def arguments(self) -> dict[str, int]:
        """That kernels over voxels and channels share."""
        return {
            "num_voxels": self.num_voxels,
            "splits": self.splits,
            "CHANNELS": self.channels,
            "BLOCKS": self.blocks,
            "VOXEL_BLOCK": self.voxel_block,
            "CHANNEL_BLOCK": self.channel_block,
        }


# Kernels.  Values lie as [batch, voxels, channels], per-split sums as [batch * splits, channels],
# per-group numbers as [batch, groups].  Offsets into values are 64-bit: a batch may have more than
# 2^31 of them.


@jit
def _rectified(values, bias):
    """ReLU of values with their bias; unlike a maximum, NaN stays."""
    values = values.to(tl.float32) + bias
    return tl.where(values < 0, 0.0, values)


@jit
def _moments(
    values_at, other_at, merged_at, bias_at, mean_at, square_at,
    num_voxels, splits, CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, VOXEL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
    HAS_OTHER: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of a split's voxels, by channel; and the merged values."""
    row = tl.program_id(0)
    sample = row // splits
    split = row - sample * splits
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    is_channel = channel < CHANNELS
    bias = tl.load(bias_at + channel, mask=is_channel, other=0.0)
    base = sample.to(tl.int64) * num_voxels * CHANNELS
    begin = split * (BLOCKS * VOXEL_BLOCK)
    end = tl.minimum(begin + BLOCKS * VOXEL_BLOCK, num_voxels)
    mean = tl.zeros([CHANNEL_BLOCK], tl.float32)
    square = tl.zeros([CHANNEL_BLOCK], tl.float32)
    for block in range(BLOCKS):
        voxel = begin + block * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
        mask = (voxel < end)[:, None] & is_channel[None, :]
        offset = base + voxel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(values_at + offset, mask=mask, other=0.0).to(tl.float32)
        if HAS_OTHER:
            values += tl.load(other_at + offset, mask=mask, other=0.0).to(tl.float32)
            merged = values.to(merged_at.dtype.element_ty)
            tl.store(merged_at + offset, merged, mask=mask)
            values = merged.to(tl.float32)  # as they are read again
        values = tl.where(mask, _rectified(values, bias[None, :]), 0.0)
        first = tl.minimum(begin + block * VOXEL_BLOCK, end)
        before = (first - begin).to(tl.float32)
        number = tl.minimum(end - first, VOXEL_BLOCK).to(tl.float32)  # 0 behind the end
        block_mean = tl.sum(values, 0) / tl.maximum(number, 1.0)
        centred = tl.where(mask, values - block_mean[None, :], 0.0)
        step = block_mean - mean
        share = number / (before + number)
        mean += step * share
        square += tl.sum(centred * centred, 0) + step * step * (before * share)
    at = row.to(tl.int64) * CHANNELS + channel
    tl.store(mean_at + at, mean, mask=is_channel)
    tl.store(square_at + at, square, mask=is_channel)


@jit
def _merge_moments(
    part_mean_at, part_square_at, mean_at, inverse_sd_at, eps,
    num_voxels, splits, voxels_per_split,
    CHANNELS: tl.constexpr, PER_GROUP: tl.constexpr,
    SPLIT_BLOCK: tl.constexpr, GROUP_BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean and inverse standard deviation of a sample's group, of all splits and its channels."""
    sample = tl.program_id(0)
    group = tl.program_id(1)
    split = tl.arange(0, SPLIT_BLOCK)
    member = tl.arange(0, GROUP_BLOCK)
    mask = (split < splits)[:, None] & (member < PER_GROUP)[None, :]
    at = (sample.to(tl.int64) * splits + split)[:, None] * CHANNELS
    at += group * PER_GROUP + member[None, :]
    part_mean = tl.load(part_mean_at + at, mask=mask, other=0.0)
    part_square = tl.load(part_square_at + at, mask=mask, other=0.0)
    left = tl.minimum(num_voxels - split * voxels_per_split, voxels_per_split)
    number = tl.where(mask, left[:, None], 0).to(tl.float32)
    total = tl.sum(tl.sum(number, 1), 0)
    mean = tl.sum(tl.sum(number * part_mean, 1), 0) / total
    step = part_mean - mean
    squares = tl.sum(tl.sum(part_square + number * step * step, 1), 0)
    at_group = sample * (CHANNELS // PER_GROUP) + group
    tl.store(mean_at + at_group, mean)
    tl.store(inverse_sd_at + at_group, 1.0 / tl.sqrt(squares / total + eps))


@jit
def _normalise(
    values_at, conv_bias_at, weight_at, bias_at, mean_at, inverse_sd_at, out_at,
    num_voxels, splits, CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, VOXEL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
    PER_GROUP: tl.constexpr,
):  # fmt: skip
    """The normalised values of a split's voxels."""
    row = tl.program_id(0)
    sample = row // splits
    split = row - sample * splits
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    is_channel = channel < CHANNELS
    at_group = sample * (CHANNELS // PER_GROUP) + channel // PER_GROUP
    conv_bias = tl.load(conv_bias_at + channel, mask=is_channel, other=0.0)
    mean = tl.load(mean_at + at_group, mask=is_channel, other=0.0)
    scale = tl.load(inverse_sd_at + at_group, mask=is_channel, other=0.0)
    scale *= tl.load(weight_at + channel, mask=is_channel, other=0.0)
    bias = tl.load(bias_at + channel, mask=is_channel, other=0.0)
    base = sample.to(tl.int64) * num_voxels * CHANNELS
    begin = split * (BLOCKS * VOXEL_BLOCK)
    end = tl.minimum(begin + BLOCKS * VOXEL_BLOCK, num_voxels)
    for block in range(BLOCKS):
        voxel = begin + block * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
        mask = (voxel < end)[:, None] & is_channel[None, :]
        offset = base + voxel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(values_at + offset, mask=mask, other=0.0)
        values = _rectified(values, conv_bias[None, :])
        out = (values - mean[None, :]) * scale[None, :] + bias[None, :]
        tl.store(out_at + offset, out.to(out_at.dtype.element_ty), mask=mask)


@jit
def _gradient_sums(
    values_at, conv_bias_at, gradient_at, mean_at, inverse_sd_at, sum_at, product_at,
    num_voxels, splits, CHANNELS: tl.constexpr, BLOCKS: tl.constexpr, VOXEL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
    PER_GROUP: tl.constexpr,
):  # fmt: skip
    """Sums over a split's voxels, by channel: gradient, and gradient times normalised value."""
    row = tl.program_id(0)
    sample = row // splits
    split = row - sample * splits
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    is_channel = channel < CHANNELS
    at_group = sample * (CHANNELS // PER_GROUP) + channel // PER_GROUP
    conv_bias = tl.load(conv_bias_at + channel, mask=is_channel, other=0.0)
    mean = tl.load(mean_at + at_group, mask=is_channel, other=0.0)
    inverse_sd = tl.load(inverse_sd_at + at_group, mask=is_channel, other=0.0)
    base = sample.to(tl.int64) * num_voxels * CHANNELS
    begin = split * (BLOCKS * VOXEL_BLOCK)
    end = tl.minimum(begin + BLOCKS * VOXEL_BLOCK, num_voxels)
    total = tl.zeros([CHANNEL_BLOCK], tl.float32)
    product = tl.zeros([CHANNEL_BLOCK], tl.float32)
    for block in range(BLOCKS):
        voxel = begin + block * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
        mask = (voxel < end)[:, None] & is_channel[None, :]
        offset = base + voxel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(values_at + offset, mask=mask, other=0.0)
        gradient = tl.load(gradient_at + offset, mask=mask, other=0.0).to(tl.float32)
        normalised = (_rectified(values, conv_bias[None, :]) - mean[None, :]) * inverse_sd[None, :]
        total += tl.sum(gradient, 0)
        # Masked once more: where the group holds infinities, 0 times its values is NaN.
        product += tl.sum(tl.where(mask, gradient * normalised, 0.0), 0)
    at = row.to(tl.int64) * CHANNELS + channel
    tl.store(sum_at + at, total, mask=is_channel)
    tl.store(product_at + at, product, mask=is_channel)


@jit
def _merge_gradients(
    sum_at, product_at, weight_at, offset_at, slope_at, num_voxels, splits,
    CHANNELS: tl.constexpr, PER_GROUP: tl.constexpr,
    SPLIT_BLOCK: tl.constexpr, GROUP_BLOCK: tl.constexpr,
):  # fmt: skip
    """Means over a sample's group: of w g, and of w g times the normalised value."""
    sample = tl.program_id(0)
    group = tl.program_id(1)
    split = tl.arange(0, SPLIT_BLOCK)
    member = tl.arange(0, GROUP_BLOCK)
    is_member = member < PER_GROUP
    mask = (split < splits)[:, None] & is_member[None, :]
    channel = group * PER_GROUP + member
    at = (sample.to(tl.int64) * splits + split)[:, None] * CHANNELS + channel[None, :]
    weight = tl.load(weight_at + channel, mask=is_member, other=0.0)
    sums = tl.sum(tl.load(sum_at + at, mask=mask, other=0.0), 0)
    products = tl.sum(tl.load(product_at + at, mask=mask, other=0.0), 0)
    number = num_voxels * 1.0 * PER_GROUP  # as an integer it could exceed 31 bits
    at_group = sample * (CHANNELS // PER_GROUP) + group
    tl.store(offset_at + at_group, tl.sum(weight * sums, 0) / number)
    tl.store(slope_at + at_group, tl.sum(weight * products, 0) / number)


@jit
def _gradient(
    values_at, conv_bias_at, gradient_at, mean_at, inverse_sd_at, weight_at, offset_at, slope_at,
    out_at, sum_at, num_voxels, splits, CHANNELS: tl.constexpr, BLOCKS: tl.constexpr,
    VOXEL_BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    PER_GROUP: tl.constexpr,
):  # fmt: skip
    """The gradient in the values, and its sums over a split's voxels, by channel.

    Through the norm it is (w g - mean(w g) - x_hat mean(w g x_hat)) / sd, with means over the
    group; through ReLU it is 0 where the value is 0.
    """
    row = tl.program_id(0)
    sample = row // splits
    split = row - sample * splits
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    is_channel = channel < CHANNELS
    at_group = sample * (CHANNELS // PER_GROUP) + channel // PER_GROUP
    conv_bias = tl.load(conv_bias_at + channel, mask=is_channel, other=0.0)
    mean = tl.load(mean_at + at_group, mask=is_channel, other=0.0)
    inverse_sd = tl.load(inverse_sd_at + at_group, mask=is_channel, other=0.0)
    weight = tl.load(weight_at + channel, mask=is_channel, other=0.0)
    offset_of_group = tl.load(offset_at + at_group, mask=is_channel, other=0.0)
    slope = tl.load(slope_at + at_group, mask=is_channel, other=0.0)
    base = sample.to(tl.int64) * num_voxels * CHANNELS
    begin = split * (BLOCKS * VOXEL_BLOCK)
    end = tl.minimum(begin + BLOCKS * VOXEL_BLOCK, num_voxels)
    total = tl.zeros([CHANNEL_BLOCK], tl.float32)
    for block in range(BLOCKS):
        voxel = begin + block * VOXEL_BLOCK + tl.arange(0, VOXEL_BLOCK)
        mask = (voxel < end)[:, None] & is_channel[None, :]
        offset = base + voxel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        values = tl.load(values_at + offset, mask=mask, other=0.0)
        gradient = tl.load(gradient_at + offset, mask=mask, other=0.0).to(tl.float32)
        values = _rectified(values, conv_bias[None, :])
        normalised = (values - mean[None, :]) * inverse_sd[None, :]
        found = gradient * weight[None, :] - offset_of_group[None, :] - normalised * slope[None, :]
        found = tl.where(values <= 0, 0.0, found * inverse_sd[None, :])
        tl.store(out_at + offset, found.to(out_at.dtype.element_ty), mask=mask)
        total += tl.sum(tl.where(mask, found, 0.0), 0)
    tl.store(sum_at + row.to(tl.int64) * CHANNELS + channel, total, mask=is_channel)
