"""A network by its name: made, with its initial weights, on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lesion_core.networks import monai_nets, own
from lesion_core.networks.names import NetworkName, network_name
from lesion_core.settings import TrainSettings
from lesion_core.training.randomness import generator, globally_seeded
from lesion_core.unet import UNet3d, to_device


def check_name(settings: TrainSettings) -> None:
    """Raise ValueError where there is no such network, or it cannot have these filters.

    Code of the user's own is imported for that; whether it fits the data is `fitting.check`'s.
    """
    name = network_name(settings.network)
    if name.kind == "unet3d":
        UNet3d(1, settings.filters)  # refuses widths that it cannot have
    elif name.kind == "monai":
        monai_nets.network_class(name)
    else:
        own.source_sha256(name)


def build(
    name: NetworkName, in_channels: int, filters: Sequence[int], patch_size: int
) -> nn.Module:
    """The network, with weights from PyTorch's global generator.

    Raises:
        ValueError: it cannot be made.
    """
    if name.kind == "unet3d":
        return UNet3d(in_channels, filters)
    make = monai_nets.build if name.kind == "monai" else own.build
    return make(name, in_channels, filters, patch_size)


def initialised(settings: TrainSettings, in_channels: int, seed: int, fold: int) -> nn.Module:
    """The network that the settings name, with initial weights that seed and fold alone decide.

    The paper's draws them from a generator of its own; others draw from the global ones, which are
    seeded for that and then put back, on one thread.
    """
    name = network_name(settings.network)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # some initialisations are matrix products
    try:
        with globally_seeded(seed, fold, 0, "weights"):
            network = build(name, in_channels, settings.filters, settings.patch_size)
    finally:
        torch.set_num_threads(threads)
    if isinstance(network, UNet3d):
        network.initialise(generator(seed, fold, 0, "weights"))
    return network


def on_device(network: nn.Module, device: str) -> nn.Module:
    """The network itself, moved; the paper's in the layout that is fast there."""
    return to_device(network, device) if isinstance(network, UNet3d) else network.to(device)
