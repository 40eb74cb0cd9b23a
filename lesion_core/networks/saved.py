"""model.pt: which network it is, and its weights; written by a trial, and read from anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lesion_core.networks import own
from lesion_core.networks.named import build, on_device
from lesion_core.networks.names import NetworkName, network_name
from lesion_core.own_code import refuse_changed
from lesion_core.saved import check_shapes, read_saved
from lesion_core.settings import TrainSettings
from lesion_core.training.randomness import globally_seeded
from lesion_core.unet import UNet3d

WHAT = "model.pt"

MOST_WIDTH, MOST_LEVELS, MOST_PATCH = 2**16, 16, 2**10
"""Limits of what a received file may ask for."""


def model_content(
    network: nn.Module, settings: TrainSettings, in_channels: int, sha256: str | None
) -> dict[str, Any]:
    """What model.pt holds: ``in_channels``, ``filters``, ``weights``; of another network than the
    paper's also ``network`` (its name), ``patch_size``, and, of the user's own, ``network_sha256``.
    """
    content = {"in_channels": in_channels, "filters": list(settings.filters)}
    name = network_name(settings.network)
    if name.kind != "unet3d":
        content |= {"network": str(name), "patch_size": settings.patch_size}
    if name.kind == "own":
        content |= {"network_sha256": sha256}
    return content | {"weights": network.state_dict()}


def load_network(
    model: bytes, device: str = "cpu", *, own_network: str = "", channels: Sequence[str] = ()
) -> nn.Module:
    """The network in a trial's ``model.pt``, to be evaluated.

    Of MONAI's, only those that `monai_nets` knows are made, of plain values, and no larger than the
    weights in the file.  Code of the user's own is imported only if ``own_network`` names it.

    Args:
        model: the file's bytes.
        device: where it is put.
        own_network: module:name of a network of the user's own that may be imported.
        channels: the images that it will see, whose number is then compared.

    Raises:
        ValueError: the bytes are damaged, are no network of ours, or of one that may not be
            imported or has other code; or it is for another number of images.
    """
    state = read_saved(model, WHAT)
    in_channels: Any = state.get("in_channels")
    filters: Any = state.get("filters")
    widths = [in_channels, *filters] if isinstance(filters, list | tuple) else [None]
    if not all(type(width) is int and 0 < width <= MOST_WIDTH for width in widths[:MOST_LEVELS]):
        raise ValueError(f"{WHAT}: is damaged, or holds no network")
    if channels and len(channels) != in_channels:
        raise ValueError(
            f"{WHAT}: is of a network for {in_channels} images, not for {len(channels)} "
            f"({' '.join(channels)})"
        )
    filters = filters[:MOST_LEVELS]
    if "network" in state:
        network = _other(state, in_channels, filters, own_network)
    else:
        with torch.device("meta"):  # takes no memory, whatever the file says
            expected = UNet3d(in_channels, filters).state_dict()
        weights = check_shapes(state.get("weights"), expected, WHAT)
        network = UNet3d(in_channels, filters)
        network.load_state_dict(weights)
    for name, values in network.state_dict().items():
        if not values.isfinite().all():
            raise ValueError(f"{WHAT}: {name} holds values that are no numbers")
    return on_device(network, device).eval()


def _other(
    state: Mapping[str, Any], in_channels: int, filters: Sequence[int], own_network: str
) -> nn.Module:
    """A network that is not the paper's, with its weights."""
    text, patch_size, weights = (state.get(key) for key in ("network", "patch_size", "weights"))
    if not (
        isinstance(text, str)
        and type(patch_size) is int
        and 0 < patch_size <= MOST_PATCH
        and isinstance(weights, dict)
        and all(isinstance(value, torch.Tensor) for value in weights.values())
    ):
        raise ValueError(f"{WHAT}: is damaged, or holds no network")
    try:
        name = network_name(text)
    except ValueError as error:
        raise ValueError(f"{WHAT}: {error}") from None
    if name.kind == "own":
        _refuse_unnamed(name, own_network, state.get("network_sha256"))
    with globally_seeded(0, 0, 0, "loading"):
        if name.kind == "own":
            network = build(name, in_channels, filters, patch_size)
        else:
            with _no_larger_than(weights):
                network = build(name, in_channels, filters, patch_size)
    network.load_state_dict(check_shapes(weights, network.state_dict(), WHAT))
    return network


def _refuse_unnamed(name: NetworkName, own_network: str, stored: object) -> None:
    """Raise ValueError unless the user named this very code, and it is what was trained."""
    if not own_network or network_name(own_network).path != name.path:
        raise ValueError(
            f"{WHAT}: is of network {name.path}, which is code of whoever trained it; if you have "
            f"that code here and trust it, say --own-network {name.path}"
        )
    refuse_changed("network", name.path, own.source_sha256(name), stored)


@contextmanager
def _no_larger_than(weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """In this block, tensors that are made have little more elements than a file's weights, and
    are not many more; else ValueError: a file must not ask for more memory or time than it takes.
    """
    with _Budget(
        elements=2 * sum(value.numel() for value in weights.values()) + 2**20,
        tensors=20 * len(weights) + 1000,
    ):
        yield


class _Budget(TorchFunctionMode):
    """Counts what functions that make tensors are asked for, before they do."""

    MAKERS = frozenset(
        (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange,
         torch.linspace, torch.eye, torch.tensor)
    )  # fmt: skip

    def __init__(self, elements: int, tensors: int) -> None:
        super().__init__()
        self.elements, self.tensors = elements, tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.MAKERS:
            self.tensors -= 1
            self.elements -= _elements(args, kwargs)
            if self.tensors < 0 or self.elements < 0:
                raise ValueError("it would be larger than the weights in the file")
        return func(*args, **kwargs)


def _elements(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many elements a call of a function that makes tensors asks for, at most."""
    sizes = [kwargs[key] for key in ("size", "steps", "n", "m") if key in kwargs]
    numbers = [abs(int(v)) for v in _flat([*args, *sizes]) if isinstance(v, int | float)]
    product = 1
    for number in numbers:
        product *= max(number, 1)
    return product


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
