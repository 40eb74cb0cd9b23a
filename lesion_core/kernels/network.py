"""The network of `unet.UNet3d` by these kernels: channels last from its input to its logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lesion_core.kernels.head import head
from lesion_core.kernels.language import LAST
from lesion_core.kernels.norm import rectified_norm
from lesion_core.kernels.pooling import skipped_and_halved
from lesion_core.kernels.weights import folded, padded, rounded

CHANNELS_AT_ONCE = 8
"""Tensor cores take 8 bf16 channels together; an input with fewer gets empty ones."""


def logits_of(network: Any, volumes: Tensor) -> Tensor:
    """What the network's own ``forward`` returns, in fp32 under autocast too.

    ``network`` is a `unet.UNet3d` whose sides fit; ``volumes [B, C, X, Y, Z]``.
    """
    dtype = _precision(volumes)
    volumes = _with_empty_channels(volumes, dtype)
    *encoder, bottleneck = [*network.encoder, network.bottleneck]
    first, *others = [level.conv.weight for level in [*encoder, bottleneck]]
    weights = rounded([padded(first, volumes.shape[1]), *others], dtype)
    skips = []
    for level, weight in zip(encoder, weights, strict=False):
        skip, volumes = skipped_and_halved(_level(level, F.conv3d(volumes, weight, padding=1)))
        skips.append(skip)
    volumes = _level(bottleneck, F.conv3d(volumes, weights[-1], padding=1))
    for level in network.decoder:
        up, skip = folded(level.conv.weight, level.low, dtype)
        volumes = F.conv_transpose3d(volumes, up, stride=2, padding=1)
        volumes = _level(level, F.conv3d(skips.pop(), skip, padding=1), volumes)
    return head(volumes, network.head.weight, network.head.bias)


def _level(level: Any, values: Tensor, other: Tensor | None = None) -> Tensor:
    norm = level.norm
    return rectified_norm(
        values, other, level.conv.bias, norm.weight, norm.bias, norm.num_groups, norm.eps
    )


def _precision(volumes: Tensor) -> torch.dtype:
    kind = volumes.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else volumes.dtype


def _with_empty_channels(volumes: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded, and with channels of zeros up to a multiple of 8: one fill and one copy."""
    batch, channels, *sides = volumes.shape
    more = -channels % CHANNELS_AT_ONCE
    out = torch.empty(
        batch, channels + more, *sides, dtype=dtype, device=volumes.device, memory_format=LAST
    )
    out[:, :channels] = volumes
    out[:, channels:] = 0
    return out
