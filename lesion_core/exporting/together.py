"""Several networks as one: windows in, mean lesion probability out, in plain operations."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Together(nn.Module):
    """Mean probability of networks that return logits ``[B, 1, X, Y, Z]``.

    Its copies of them are on the CPU, in fp32, without gradients and in the layout of memory that
    every program has.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(_plain(network) for network in networks)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Normalised windows ``[B, C, X, Y, Z]`` -> ``[B, 1, X, Y, Z]``, 0 to 1."""
        total = torch.sigmoid(self.members[0](image))
        for member in self.members[1:]:
            total = total + torch.sigmoid(member(image))
        return total / len(self.members)


def example_windows(channels: int, patch_size: int, number: int = 2) -> Tensor:
    """Windows ``[number, channels, p, p, p]`` of normal noise, which z-scores resemble."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((number, channels, *3 * [patch_size]), generator=generator)


def _plain(network: nn.Module) -> nn.Module:
    own = copy.deepcopy(network).to("cpu", torch.float32).eval()
    for parameter in own.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.contiguous()
    return own
