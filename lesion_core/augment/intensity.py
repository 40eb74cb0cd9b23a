"""What is done to the intensities of a batch, channel by channel; masks know nothing of it.

Every function takes contiguous images ``[B, C, p, p, p]``, which may be overwritten, and numbers
``[B, C]``, one for each channel of each patch, and leaves the bits of those alone whose number says
so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def with_noise(images: Tensor, deviation: Tensor, seed: Tensor) -> Tensor:
    """Add normal noise of this standard deviation (0: none) to each voxel by itself.

    ``seed`` int64 in [0, 2^32).  A voxel's noise is a hash of it and the voxel's place: so many
    numbers would take longer to draw and to bring to a GPU than a step does.
    """

    def change(some: Tensor, deviation: Tensor, seed: Tensor) -> Tensor:
        return some + deviation * normals(seed, some[0].numel()).view_as(some)

    return _changed(images, deviation > 0, change, deviation, seed)


def smoothed(images: Tensor, matrix: Tensor, chosen: Tensor) -> Tensor:
    """Apply ``matrix [B, C, p, p]`` along each of the three axes, where ``chosen``."""

    def change(some: Tensor, matrix: Tensor) -> Tensor:
        size = some.shape[-1]
        along = matrix.view(-1, size, size)
        some = torch.bmm(along, some.view(-1, size, size * size)).view(-1, size, size, size)
        some = torch.matmul(along[:, None], some)
        some = torch.bmm(some.view(-1, size * size, size), along.transpose(1, 2))
        return some.view(-1, size, size, size)

    return _changed(images, chosen, change, matrix.flatten(2))


def scaled(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply z-scores (1: none), so about the mean of the brain."""
    return _changed(images, factor != 1, lambda some, factor: some * factor, factor)


def shifted(images: Tensor, by: Tensor) -> Tensor:
    """Add to z-scores (0: none)."""
    return _changed(images, by != 0, lambda some, by: some + by, by)


def contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """Spread about the patch's mean (1: not), but not beyond the range that it had."""

    def change(some: Tensor, factor: Tensor) -> Tensor:
        mean, low, high = _mean(some), some.amin((1, 2, 3), True), some.amax((1, 2, 3), True)
        return ((some - mean) * factor + mean).clamp(low, high)

    return _changed(images, factor != 1, change, factor)


def gamma_of(images: Tensor, gamma: Tensor, *, inverted: bool = False) -> Tensor:
    """Take the patch's range as [0, 1] to a power (1: none); its mean and deviation stay.

    ``inverted``: of the negative of the image.
    """

    def change(some: Tensor, gamma: Tensor) -> Tensor:
        some = -some if inverted else some
        low, high = some.amin((1, 2, 3), True), some.amax((1, 2, 3), True)
        part = (some - low) / (high - low).clamp_min(1e-7)
        new = part.pow(gamma)
        spread, found = _deviation(some), _deviation(new)
        new = (new - _mean(new)) * (spread / found.clamp_min(1e-7)) + _mean(some)
        return -new if inverted else new

    return _changed(images, gamma != 1, change, gamma)


# ------------------------------------------------------------------------------------- matrices
def blur_matrices(deviation: Tensor, size: int) -> Tensor:
    """Gaussian smoothing of ``size`` voxels, as ``[n, size, size]``.

    ``deviation [n]`` in voxels; 0: the identity.  Weights beyond the ends are dealt out to those
    inside, so that what is constant stays so.
    """
    place = torch.arange(size, dtype=torch.float64)
    distance = (place[:, None] - place) ** 2
    sure = deviation.double().clamp_min(1e-3)[:, None, None]
    weights = torch.exp(-0.5 * distance / sure**2)
    return (weights / weights.sum(2, keepdim=True)).float()


@cache
def low_resolution_matrix(coarse: int, size: int) -> Tensor:
    """``size`` voxels from every so-many-th alone, ``coarse`` of them, and back: ``[size, size]``.

    The nearest is taken on the way down, and between them is interpolated on the way back.
    """
    identity = torch.eye(size)[:, None]
    few = F.interpolate(identity, size=coarse, mode="nearest-exact")
    back = F.interpolate(few, size=size, mode="linear", align_corners=False)
    return back[:, 0].T.contiguous()


# ---------------------------------------------------------------------------------------- numbers
def normals(seed: Tensor, number: int) -> Tensor:
    """So many standard normal numbers ``[n, number]`` of each seed ``[n, 1, 1, 1]``, by hashing.

    Box and Muller's transform of two 32-bit hashes (the finaliser of MurmurHash3) of seed and
    place; each pair of numbers comes from one pair of hashes.
    """
    half = (number + 1) // 2
    place = torch.arange(2 * half, device=seed.device).view(2, 1, half)
    bits = _hashed(_hashed(place) ^ seed.view(1, -1, 1)).float()
    uniform = (bits + 0.5) * 2.0**-32
    radius = torch.sqrt(-2 * torch.log(uniform[0].clamp(max=1 - 2.0**-24)))
    angle = 2 * math.pi * uniform[1]
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :number]


def _hashed(values: Tensor) -> Tensor:
    """32 mixed bits of 32, in int64."""
    mask = 0xFFFFFFFF
    values = (values + 0x9E3779B9) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values = ((values ^ (values >> shift)) * factor) & mask
    return values ^ (values >> 16)


# ------------------------------------------------------------------------------------ which of them
def _changed(
    images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *numbers: Tensor
) -> Tensor:
    """``change`` where ``chosen [B, C]``: given planes ``[m, p, p, p]`` and their numbers.

    Numbers ``[B, C]`` come as ``[m, 1, 1, 1]``, longer ones as ``[m, ...]``.  Those that are not
    chosen keep their bits.
    """
    planes = images.view(-1, *images.shape[2:])
    each = [
        number.view(-1, 1, 1, 1) if number.ndim == 2 else number.flatten(0, 1) for number in numbers
    ]
    chosen = chosen.flatten()
    if _may_choose(images):
        rows = torch.nonzero(chosen)[:, 0]
        if not len(rows):
            return images
        planes[rows] = change(planes[rows], *(number[rows] for number in each))
    else:
        planes = torch.where(chosen.view(-1, 1, 1, 1), change(planes, *each), planes)
    return planes.view(images.shape)


def _may_choose(images: Tensor) -> bool:
    """Whether only what is chosen may be computed: a GPU would be waited for to know which, and a
    recorded step must have the same shapes always."""
    return images.device.type == "cpu"


def _mean(planes: Tensor) -> Tensor:
    return planes.mean((1, 2, 3), keepdim=True)


def _deviation(planes: Tensor) -> Tensor:
    return planes.std((1, 2, 3), correction=0, keepdim=True)
