"""Networks of the user's own, found by import path: ``my_nets:Net``.

It is code, and is imported only where the user names it: in the flags of a sweep, of `train_one`,
or of `predict`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from lesion_core.networks.names import NetworkName
from lesion_core.own_code import import_own, one_line
from lesion_core.settings import TrainSettings


def source_sha256(name: NetworkName) -> str | None:
    """Hash of the file that has its code: other code is another network.

    Raises:
        ValueError: it cannot be imported.
    """
    return import_own(name.path, "network")[1]


def build(
    name: NetworkName, in_channels: int, filters: Sequence[int], patch_size: int
) -> nn.Module:
    """The network, with its own weights drawn from global generators.

    A class or function that returns an ``nn.Module``.  Of ``in_channels``, ``out_channels`` (1),
    ``spatial_dims`` (3), ``filters`` and ``patch_size`` it is given those that it has parameters
    for, and what its name says.

    Raises:
        ValueError: it cannot be imported or made, or has no use for ``filters`` that were given.
    """
    found, _ = import_own(name.path, "network")
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):
        raise ValueError(
            f"network {name.path} is a {type(found).__name__}; expected a class or a function that "
            "returns a torch.nn.Module"
        ) from None
    filled: dict[str, Any] = {
        "in_channels": in_channels,
        "out_channels": 1,
        "spatial_dims": 3,
        "filters": tuple(filters),
        "patch_size": patch_size,
    }
    arguments = {key: value for key, value in filled.items() if key in parameters}
    reads_filters = "filters" in parameters and "filters" not in name.arguments
    if not reads_filters and tuple(filters) != TrainSettings.filters:
        raise ValueError(
            f"filters {' '.join(map(str, filters))}: network {name} has no use for them; leave "
            "--filters out, or give it a parameter called filters"
        )
    try:
        network = found(**(arguments | name.arguments))
    except Exception as error:  # a user's class can fail in any way
        raise ValueError(f"network {name} cannot be made: {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"network {name.path} made a {type(network).__name__}; expected a torch.nn.Module"
        )
    return network
