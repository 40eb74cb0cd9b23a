"""Does a network fit its patches and its loss, and what does one patch cost it?  Asked on nothing.

The question is put on PyTorch's meta device, where tensors have shapes and no values, so a network
of any size answers in a moment; one that reads values there is asked on the CPU.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lesion_core.networks.named import build
from lesion_core.networks.names import network_name
from lesion_core.own_code import one_line
from lesion_core.settings import TrainSettings
from lesion_core.training.randomness import globally_seeded


@dataclass(frozen=True)
class NetworkSize:
    """How large a network is."""

    parameters: int
    """Trainable weights."""
    flops_per_patch: int
    """Of the convolutions and matrix products of one patch's forward pass, as they are computed; a
    multiplication and an addition are two."""
    halves_to_two: bool
    """Whether it convolves volumes whose first side is 2 voxels; of others than the paper's."""

    def __str__(self) -> str:
        return f"{self.parameters:,} parameters, {self.flops_per_patch / 1e9:.3g} GFLOP per patch"


def check(settings: TrainSettings, in_channels: int, *, on_gpu: bool) -> NetworkSize:
    """The size of the settings' network, if it can be trained on their patches.

    Raises:
        ValueError: it cannot be made, cannot take the patch size (with the nearest one that it
            takes, where there is one), returns anything but logits ``[B, 1, X, Y, Z]``, or has
            nothing to learn; or its precision is not safe where it is trained.
    """
    size = size_of(settings, in_channels)
    paper = network_name(settings.network).kind == "unet3d"
    if settings.precision == "bf16" and not on_gpu and not paper and size.halves_to_two:
        # PyTorch 2.13 (its oneDNN) leaves part of the weights' gradient unwritten: unet.convolved.
        raise ValueError(
            f"network {settings.network} in bf16 on a CPU: it convolves volumes of 2 voxels' width "
            "at this patch size, where PyTorch's bf16 gradients are wrong; use --precision fp32, "
            "another --patch-size, or a GPU"
        )
    return size


def check_loss(loss: Callable[[Tensor, Tensor], Tensor], patch_size: int) -> None:
    """Raise ValueError unless the loss of one patch's logits can be differentiated."""
    sides = [patch_size] * 3
    logits = torch.zeros(1, 1, *sides, requires_grad=True)
    target = torch.zeros(1, 1, *sides)
    target[:, :, 0, 0, 0] = 1
    try:
        loss(logits, target).backward()
    except Exception as error:  # a user's loss can fail in any way
        raise ValueError(
            f"loss {loss} fails on logits of {list(logits.shape)}: {one_line(error):.200}"
        ) from None


@lru_cache(maxsize=64)
def size_of(settings: TrainSettings, in_channels: int) -> NetworkSize:
    """The size of the settings' network; raises ValueError as `check` does for any device."""
    if network_name(settings.network).kind == "unet3d":  # its settings are checked already
        return paper_size(settings, in_channels)
    try:
        return _tried(settings, in_channels, settings.patch_size)
    except _WrongSize as problem:
        raise ValueError(f"{problem}{_nearest(settings, in_channels)}") from None


def paper_size(settings: TrainSettings, in_channels: int) -> NetworkSize:
    """The same of the paper's network in closed form: to ask the meta device takes seconds.

    A convolution with k taps from a to b channels takes 2 k a b operations per voxel; a level of
    the decoder convolves the skip with 27 taps, and each low voxel with 64 (`unet.UpLevel`).
    """
    filters = settings.filters
    voxels = [settings.patch_size**3 / 8**level for level in range(len(filters))]
    flops = 2.0 * filters[0] * voxels[0]  # the head
    weights = filters[0] + 1
    for level, (before, after) in enumerate(zip((in_channels, *filters), filters, strict=False)):
        flops += 2 * 27 * before * after * voxels[level]
        weights += (27 * before + 3) * after  # bias, and scale and shift of the norm
    for level, (skip, low) in enumerate(itertools.pairwise(filters)):
        flops += 2 * 27 * skip * skip * voxels[level] + 2 * 64 * low * skip * voxels[level + 1]
        weights += (27 * (low + skip) + 3) * skip
    return NetworkSize(parameters=weights, flops_per_patch=int(flops), halves_to_two=False)


class _WrongSize(ValueError):
    """A network cannot take patches of this size."""


def _tried(settings: TrainSettings, in_channels: int, patch_size: int) -> NetworkSize:
    """The same for another patch size."""
    try:
        return _tried_on("meta", settings, in_channels, patch_size)
    except _Refused as problem:
        raise problem.error from None
    except Exception:  # it reads values, which the meta device has none of; or it is truly wrong
        pass
    try:
        return _tried_on("cpu", settings, in_channels, patch_size)
    except _Refused as problem:
        raise problem.error from None


class _Refused(Exception):
    """What is wrong has nothing to do with the device."""

    def __init__(self, error: ValueError) -> None:
        super().__init__(str(error))
        self.error = error


def _tried_on(
    device: str, settings: TrainSettings, in_channels: int, patch_size: int
) -> NetworkSize:
    name = network_name(settings.network)
    with globally_seeded(0, 0, 0, "fitting"), torch.device(device):
        network = _made(device, settings, in_channels, patch_size)
        volumes = torch.zeros(2, in_channels, *[patch_size] * 3)
        network.train()
        with _widths(network) as widths:
            try:
                logits: Any = network(volumes)
            except Exception as error:  # others' code
                if device == "meta":
                    raise
                raise _Refused(
                    _WrongSize(
                        f"network {name} cannot take patches of {patch_size}³ voxels "
                        f"({one_line(error):.200})"
                    )
                ) from None
        if not isinstance(logits, Tensor) or logits.shape != (2, 1, *volumes.shape[2:]):
            shown = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise _Refused(
                ValueError(
                    f"network {name} makes {shown} of {list(volumes.shape)}; expected logits "
                    f"{[2, 1, *volumes.shape[2:]]}, without deep supervision"
                )
            )
        learned = [p for p in network.parameters() if p.requires_grad]
        if not learned or not logits.requires_grad:
            raise _Refused(ValueError(f"network {name} has nothing to learn: no weights reach it"))
        logits.float().sum().backward()
        network.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(volumes[:1])
    return NetworkSize(
        parameters=sum(p.numel() for p in learned),
        flops_per_patch=counter.get_total_flops(),
        halves_to_two=2 in widths,
    )


def _made(device: str, settings: TrainSettings, in_channels: int, patch_size: int) -> nn.Module:
    name = network_name(settings.network)
    try:
        return build(name, in_channels, settings.filters, patch_size)
    except ValueError as error:
        if device == "meta" and name.kind != "unet3d":
            raise
        raise _Refused(error) from None


@contextmanager
def _widths(network: nn.Module) -> Iterator[set[int]]:
    """The first sides of all volumes that are convolved in this block."""
    found: set[int] = set()

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 5:
            found.add(inputs[0].shape[2])

    kinds = (nn.Conv3d, nn.ConvTranspose3d)
    hooks = [m.register_forward_pre_hook(note) for m in network.modules() if isinstance(m, kinds)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


MOST_TRIES, MOST_SECONDS = 16, 10.0


def _nearest(settings: TrainSettings, in_channels: int) -> str:
    """The end of a message: the nearest patch size that the network takes, if one is found."""
    asked = settings.patch_size
    steps = [multiple for multiple in (8, 16, 32) if multiple <= max(asked, 32)]
    near = {asked // step * step + more for step in steps for more in (0, step)}
    near |= {32, 64, 96, 128} if asked >= 16 else {8, 16, 32}
    begun = time.monotonic()
    for size in sorted(near - {0, asked}, key=lambda size: (abs(size - asked), size))[:MOST_TRIES]:
        if time.monotonic() - begun > MOST_SECONDS:
            break
        try:
            _tried_on("meta", settings, in_channels, size)
        except Exception:  # it is looked for, no more
            continue
        return f"; nearest --patch-size that fits: {size}"
    return ""
