"""The paper's 3D U-Net, with a faster exact form of its decoder.

Per level one 3x3x3 convolution, ReLU and group norm in groups of 8 channels; max pooling by 2 on
the way down; nearest upsampling, concatenation (upsampled, skip) and a convolution on the way up;
a 1x1x1 head.  Section 2.2 of the paper gives 2,906,913 parameters, which this has for two channels.

What is written here is what a CPU computes, and a GPU without `kernels`; with them it is the same
sums in fewer passes over the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesion_core import channels_last, kernels

GROUP_CHANNELS = 8


class UNet3d(nn.Module):
    """Logits of the lesion class for every voxel.

    Input ``[B, in_channels, X, Y, Z]``, output ``[B, 1, X, Y, Z]``; X, Y and Z must be multiples
    of ``2 ** (len(filters) - 1)``.  Parameters are ordered encoder levels, bottleneck, decoder
    levels from deep to shallow, head; within a level conv.weight, conv.bias, norm.weight,
    norm.bias; so they load by order into a plain formulation of the same network.

    Raises:
        ValueError: fewer than two levels, filters that are not multiples of 8, or (in forward) a
            size that the pooling cannot halve exactly.
    """

    recordable = True
    """It reads no tensor's value (`training.step`)."""

    def __init__(self, in_channels: int = 2, filters: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        if len(filters) < 2 or any(width < 1 or width % GROUP_CHANNELS for width in filters):
            raise ValueError(
                f"filters {tuple(filters)}: expected two or more multiples of {GROUP_CHANNELS}, "
                "such as 32 64 128 256 (the paper's) or 8 16 32 64 (narrow)"
            )
        *encoder, bottleneck = filters
        self.encoder = nn.ModuleList(
            Level(before, after)
            for before, after in zip([in_channels, *encoder[:-1]], encoder, strict=True)
        )
        self.bottleneck = Level(encoder[-1], bottleneck)
        self.decoder = nn.ModuleList(
            UpLevel(low, skip)
            for low, skip in zip([bottleneck, *encoder[:0:-1]], encoder[::-1], strict=True)
        )
        self.head = Head(encoder[0])

    @property
    def multiple(self) -> int:
        """Every side of the input must be a multiple of this."""
        return 2 ** len(self.encoder)

    def forward(self, volumes: Tensor) -> Tensor:
        if any(size % self.multiple for size in volumes.shape[2:]):
            raise ValueError(
                f"input of {tuple(volumes.shape[2:])} voxels: expected multiples of "
                f"{self.multiple}; choose another patch size"
            )
        by_kernels = volumes.dtype == torch.float32 and not is_exported()
        if by_kernels and kernels.are_used(volumes.device):
            from lesion_core.kernels.network import logits_of

            return logits_of(self, volumes)
        volumes = volumes.contiguous(memory_format=layout(volumes.device))
        skips = []
        for level in self.encoder:
            skips.append(level(volumes))
            volumes = halved(skips[-1])
        volumes = self.bottleneck(volumes)
        for level in self.decoder:
            volumes = level(volumes, skips.pop())
        return self.head(volumes)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> UNet3d:
        """Draw every weight anew from PyTorch's default distribution, using this generator alone.

        Convolution weights and biases are uniform in +-1 / sqrt(fan in); norms are 1 and 0.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                bound = module.weight[0].numel() ** -0.5
                for parameter in module.parameters():  # weight, bias
                    values = torch.empty(parameter.shape).uniform_(
                        -bound, bound, generator=generator
                    )
                    parameter.copy_(values)
            elif isinstance(module, nn.GroupNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        return self


def layout(device: torch.device) -> torch.memory_format:
    """How volumes and weights lie in memory: channels last on a CPU, twice as fast there.

    On a GPU too, but where it does without our `kernels`: PyTorch's group norm has channels first
    there, and would turn everything back at every level.  Nor in a file for other programs, which
    choose for themselves.
    """
    fast = device.type == "cpu" or kernels.are_used(device)
    return torch.channels_last_3d if fast and not is_exported() else torch.contiguous_format


def is_exported() -> bool:
    """Whether a network is being recorded for other programs (`exporting`), in plain operations."""
    return torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()


def to_device(network: UNet3d, device: str) -> UNet3d:
    """The network itself, moved, in the layout that is fast there."""
    form = layout(torch.device(device))
    return network.to(device, memory_format=form)  # pyright: ignore[reportCallIssue] # not in stubs


class Level(nn.Module):
    """Convolution, ReLU, group norm."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(before, after, kernel_size=3, padding=1)
        self.norm = GroupNorm(after // GROUP_CHANNELS, after)

    def forward(self, volumes: Tensor) -> Tensor:
        return self.norm(F.relu(convolved(volumes, self.conv.weight, self.conv.bias), inplace=True))


class UpLevel(nn.Module):
    """Doubles the resolution of ``low`` and merges it with ``skip``: convolution, ReLU, norm.

    Equal to ``conv(cat([upsample_nearest(low), skip]))``, computed as a convolution of the skip
    plus a transposed convolution of the low-resolution volume.  An output voxel sees each low
    voxel through at most two taps per axis, so the upsampling folds into a 4x4x4 kernel: 1.75x
    fewer multiplications and neither the upsampled nor the concatenated volume in memory.
    """

    def __init__(self, low: int, skip: int) -> None:
        super().__init__()
        self.low = low
        self.conv = nn.Conv3d(low + skip, skip, kernel_size=3, padding=1)
        self.norm = GroupNorm(skip // GROUP_CHANNELS, skip)

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        for_low, for_skip = self.conv.weight.split([self.low, skip.shape[1]], dim=1)
        merged = convolved(skip, for_skip, self.conv.bias)
        merged += F.conv_transpose3d(low, upsampling_kernel(for_low), stride=2, padding=1)
        return self.norm(F.relu(merged, inplace=True))


def convolved(volumes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3x3 convolution to the same size; on a CPU never in bf16 where the first side is 2 voxels.

    For that size alone PyTorch 2.13 (its oneDNN) leaves part of the weights' bf16 gradient
    unwritten: it is whatever the memory held before.
    """
    if volumes.device.type == "cpu" and volumes.shape[2] == 2:
        with torch.autocast("cpu", enabled=False):
            return F.conv3d(volumes.to(weight.dtype), weight, bias, padding=1)
    return F.conv3d(volumes, weight, bias, padding=1)


def halved(volumes: Tensor) -> Tensor:
    """Max pooling by 2, in the precision that the volumes have: a maximum rounds nothing.

    Autocast would have it in fp32 on a CPU, at twice the memory and with two conversions; on a GPU
    it has no opinion.
    """
    with torch.autocast("cpu", enabled=False):
        return F.max_pool3d(volumes, kernel_size=2)


def upsampling_kernel(weight: Tensor) -> Tensor:
    """The 4x4x4 transposed-convolution kernel of "nearest upsampling by 2, then ``weight``".

    ``[out, in, 3, 3, 3]`` -> ``[in, out, 4, 4, 4]``: flipped (a transposed convolution correlates
    backwards) and box-filtered by 2 per axis (both copies of a low voxel contribute), which is one
    matrix product.  Differentiable in ``weight``; autocast does not round it.
    """
    out, low = weight.shape[:2]
    kind = weight.device.type
    casts = torch.amp.is_autocast_available(kind)  # not on "meta"
    with torch.autocast(kind, enabled=False) if casts else nullcontext():
        flipped = weight.new_ones(3).diag().flip(0)  # where the weight is, in exported code too
        axis = F.pad(flipped, [0, 0, 0, 1]) + F.pad(flipped, [0, 0, 1, 0])
        taps = torch.kron(torch.kron(axis, axis), axis)  # 64 x 27, of zeros and ones
        kernel = taps @ weight.permute(2, 3, 4, 1, 0).reshape(27, low * out)
        return kernel.view(4, 4, 4, low, out).permute(3, 4, 0, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group norm, by our own formulas for channels-last volumes on a CPU (`channels_last`)."""

    def forward(self, input: Tensor) -> Tensor:
        """In the precision of ``input``, as convolutions want it; a GPU's autocast gives fp32."""
        usual = (
            input.dtype in (torch.float32, torch.bfloat16) and self.weight.dtype == torch.float32
        )
        if usual and are_last(input):
            return channels_last.group_norm(
                input, self.weight, self.bias, self.num_groups, self.eps
            )
        return super().forward(input).to(input.dtype)


class Head(nn.Conv3d):
    """The last convolution, 1x1x1 to one channel."""

    def __init__(self, before: int) -> None:
        super().__init__(before, 1, kernel_size=1)

    def forward(self, input: Tensor) -> Tensor:
        if are_last(input):
            assert self.bias is not None
            return channels_last.weighted_sum(input, self.weight, self.bias)
        return super().forward(input)


def are_last(volumes: Tensor) -> bool:
    """Whether these are channels-last volumes on a CPU, whose network is not being exported."""
    lie_last = volumes.is_contiguous(memory_format=torch.channels_last_3d)
    return volumes.device.type == "cpu" and lie_last and not is_exported()
