"""Group norm and the last convolution of volumes that lie channels last, on a CPU: by formulas that
are faster there than PyTorch's own (2.13), or more accurate, or both.

Volumes are seen as ``[B, voxels, C]``.  All of this is limited by memory, so every pass over the
voxels counts.
"""

# pyright: reportIncompatibleMethodOverride=false
# (PyTorch's own stubs of `torch.autograd.Function` name no arguments.)

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

VALUES_PER_ROW = 1024
"""Of the bf16 values that share a row of coefficients: an inner loop over the channels alone is too
short for vectors of 32."""

MOST_SUMMED = 128
"""Values whose sum is rounded to bf16, before such sums are added up in fp32."""


# ------------------------------------------------------------------------------------- group norm
def group_norm(
    volumes: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
) -> Tensor:
    """Group norm of ``[B, C, X, Y, Z]``, channels last, in fp32 or bf16; parameters in fp32.

    fp32: by two passes.  PyTorch's kernel for that layout adds up a whole group in one running fp32
    sum and takes the variance as a difference of squares: errors of 1e-3 where a volume is mostly
    background.  bf16: PyTorch's kernel, whose errors are below those of bf16, but another backward:
    its own takes channels of a group one by one.
    """
    norm = _Norm if volumes.dtype != torch.bfloat16 else _NormBf16
    return norm.apply(volumes, weight, bias, num_groups, eps)


class _Norm(torch.autograd.Function):
    """Sums over voxels are PyTorch's pairwise ones, of centred values."""

    @staticmethod
    def forward(
        ctx: Any, volumes: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        values = _voxels_by_channel(volumes)
        batch, num_voxels, channels = values.shape
        means = values.sum(1) / num_voxels
        squares = F.mse_loss(values, means[:, None].expand_as(values), reduction="none")
        variances = (squares.sum(1) / num_voxels).view(batch, num_groups, -1)
        means = means.view(batch, num_groups, -1)
        mean = means.mean(2, keepdim=True)
        # Variance of a group: mean of its channels' variances plus variance of their means.
        spread = (means - mean).square().mean(2, keepdim=True)
        inverse_sd = (variances.mean(2, keepdim=True) + spread + eps).rsqrt()
        scale = (weight.view(num_groups, -1) * inverse_sd).view(batch, 1, channels)
        shift = bias - (mean * scale.view(batch, num_groups, -1)).view(batch, 1, channels)
        ctx.save_for_backward(values, weight, mean, inverse_sd)
        ctx.shape = volumes.shape
        out = torch.addcmul(shift, values, scale, out=squares)  # into memory that is already there
        return _volumes_by_voxel(out, volumes.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, weight, mean, inverse_sd = ctx.saved_tensors
        channels = values.shape[2]
        gradient = _voxels_by_channel(gradient)
        centre, scale = (_per_channel(each, channels)[:, None] for each in (mean, inverse_sd))
        work = (values - centre).mul_(gradient)
        weight_grad = work.sum(1) * scale[:, 0]
        bias_grad = gradient.sum(1)
        slope, offset = _line(weight_grad, bias_grad, weight, mean, inverse_sd, values.shape[1])
        offset = offset - slope * centre[:, 0]
        torch.addcmul(offset[:, None], values, slope[:, None], out=work)
        work.addcmul_(gradient, scale * weight)
        return _volumes_by_voxel(work, ctx.shape), weight_grad.sum(0), bias_grad.sum(0), None, None


class _NormBf16(torch.autograd.Function):
    """Coefficients and sums are fp32, but for the slope and for sums of a few products."""

    @staticmethod
    def forward(
        ctx: Any, volumes: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        batch, channels, *sides = volumes.shape
        num_voxels = sides[0] * sides[1] * sides[2]
        out, mean, inverse_sd = torch.native_group_norm(
            volumes, weight, bias, batch, channels, num_voxels, num_groups, eps
        )
        ctx.save_for_backward(volumes, weight, mean[..., None], inverse_sd[..., None])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        volumes, weight, mean, inverse_sd = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        values, gradient = _voxels_by_channel(volumes), _voxels_by_channel(gradient)
        channels = values.shape[2]
        centre, scale = (_per_channel(each, channels) for each in (mean, inverse_sd))
        near = centre.bfloat16()  # values less their mean have digits left where it is large
        rows, near_rows = _in_rows(values, near)
        centred = (rows - near_rows).view_as(values)
        work = centred * gradient
        bias_grad = gradient.float().sum(1)  # what is off here is off in every voxel
        weight_grad = (_sum_of_voxels(work) - (centre - near) * bias_grad) * scale
        slope, offset = _line(weight_grad, bias_grad, weight, mean, inverse_sd, values.shape[1])
        slope = slope.bfloat16()  # and the offset fits it: in a group they leave a sum of 0
        offset = offset - slope * (centre - near)
        _scaled_and_shifted(gradient, scale * weight, offset, out=work)
        rows, slopes = _in_rows(centred, slope)
        work.view_as(rows).addcmul_(rows, slopes)
        found = _volumes_by_voxel(work, volumes.shape)
        return found, weight_grad.sum(0), bias_grad.sum(0), None, None


def _line(
    weight_grad: Tensor,
    bias_grad: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse_sd: Tensor,
    num_voxels: int,
) -> tuple[Tensor, Tensor]:
    """What is added to a gradient, besides its own multiple: slope times centred value, and offset.

    d/dx is (w g - mean(w g) - x_hat mean(w g x_hat)) / sd, with means over the group: linear in x
    and g.  Both ``[B, C]``, as the sums that they come from.
    """
    batch, num_groups, _ = mean.shape

    def group_mean(total: Tensor) -> Tensor:
        return (total * weight).view(batch, num_groups, -1).mean(2, keepdim=True) / num_voxels

    channels = weight.shape[0]
    slope = -(inverse_sd**2) * group_mean(weight_grad)
    offset = -inverse_sd * group_mean(bias_grad)
    return _per_channel(slope, channels), _per_channel(offset, channels)


def _per_channel(group: Tensor, channels: int) -> Tensor:
    """``[B, groups, 1]`` -> ``[B, C]``."""
    batch, num_groups, _ = group.shape
    return group.expand(-1, -1, channels // num_groups).reshape(batch, channels)


def _in_rows(values: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """bf16 ``values [B, voxels, C]`` and ``coefficients [B, C]``, with several voxels a row."""
    batch, num_voxels, channels = values.shape
    together = 1
    while together * channels < VALUES_PER_ROW and num_voxels % (2 * together) == 0:
        together *= 2
    rows = values.view(batch, num_voxels // together, together * channels)
    return rows, coefficients.to(values.dtype)[:, None].repeat(1, 1, together)


def _sum_of_voxels(values: Tensor) -> Tensor:
    """``[B, voxels, C]`` in bf16 -> ``[B, C]`` in fp32."""
    batch, num_voxels, channels = values.shape
    together = num_voxels
    while together > MOST_SUMMED and together % 2 == 0:
        together //= 2
    parts = values.view(batch, num_voxels // together, together, channels).sum(2)
    return parts.sum(1, dtype=torch.float32)


def _scaled_and_shifted(values: Tensor, scale: Tensor, shift: Tensor, *, out: Tensor) -> None:
    """``values [B, voxels, C]`` in bf16 by coefficients ``[B, C]`` in fp32, rounded once.

    As a batch norm of each sample, which is what PyTorch has for that in one pass.
    """
    zeros, ones = torch.zeros_like(shift[0]), torch.ones_like(shift[0])
    unused = shift.new_empty(0)
    for sample, weight, bias, found in zip(values, scale, shift, out, strict=True):
        torch.native_batch_norm(
            _one_row(sample), weight, bias, zeros, ones, False, 0.0, 0.0,
            out=(_one_row(found), unused, unused),
        )  # fmt: skip


def _one_row(sample: Tensor) -> Tensor:
    """``[voxels, C]`` -> ``[1, C, 1, voxels]``, an image that lies channels last."""
    return sample[None, None].permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------- one convolution
def weighted_sum(volumes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The 1x1x1 convolution of ``[B, C, X, Y, Z]`` to one channel, as a sum for every voxel.

    PyTorch has an fp32 convolution of one output channel done by its slowest kernel, which turns
    the volumes round and adds up a batch's bias gradient in one running sum (errors of 1e-3).
    Logits have the precision of the volumes, as a convolution's would.
    """
    return _WeightedSum.apply(volumes, weight.to(volumes.dtype), bias.to(volumes.dtype))


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volumes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(volumes, weight)
        values = _voxels_by_channel(volumes).flatten(0, 1)
        out = torch.addmv(bias.expand(len(values)), values, weight.view(-1))
        return out.view(len(volumes), 1, *volumes.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        volumes, weight = ctx.saved_tensors
        values = _voxels_by_channel(volumes)
        gradient = gradient.reshape(*values.shape[:2], 1)
        found = _volumes_by_voxel(gradient * weight.view(-1), volumes.shape)
        products = torch.bmm(gradient.transpose(1, 2), values).sum(0)  # a sample's sums are short
        return found, products.view_as(weight), gradient.sum().view(1)


def _voxels_by_channel(volumes: Tensor) -> Tensor:
    """``[B, C, X, Y, Z]`` -> ``[B, X * Y * Z, C]``, a view if channels lie last in memory."""
    return volumes.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _volumes_by_voxel(values: Tensor, shape: torch.Size) -> Tensor:
    return values.view(shape[0], *shape[2:], shape[1]).permute(0, 4, 1, 2, 3)
