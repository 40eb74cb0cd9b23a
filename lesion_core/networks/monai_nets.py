"""MONAI's networks by their names, and what of their arguments follows from data and settings.

MONAI is imported when one of them is asked for, and not before.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from lesion_core.networks.names import FILTERS_OF, NetworkName
from lesion_core.own_code import did_you_mean, one_line

FOLLOWS = ("spatial_dims", "in_channels", "out_channels", "img_size")
"""Arguments that follow from the data: 3, the number of images, 1, and the patch size."""


def network_class(name: NetworkName) -> type[nn.Module]:
    """The class of ``monai.networks.nets`` that has this name.

    Raises:
        ValueError: there is none that makes volumes of volumes, or it does not take the arguments.
    """
    from monai.networks import nets

    known = {
        found.__name__: found
        for found in vars(nets).values()
        if isinstance(found, type)
        and issubclass(found, nn.Module)
        and {"in_channels", "out_channels"} <= inspect.signature(found).parameters.keys()
    }
    found: Any = known.get(name.path)
    if found is None:
        alias: Any = getattr(nets, name.path, None)
        other = getattr(alias, "__name__", "")
        if other in known and other != name.path:
            raise ValueError(f"network monai:{name.path} is called monai:{other}")
        raise ValueError(
            f"network monai:{name.path}: monai.networks.nets has no such network from images to "
            f"masks; expected one such as {', '.join(EXAMPLES)}{did_you_mean(name.path, known)}"
        )
    parameters = inspect.signature(found).parameters
    for argument in name.arguments:
        if argument in FOLLOWS:
            raise ValueError(
                f"network {name}: {argument} follows from the data; leave it out of the name"
            )
        if argument == "pretrained":
            raise ValueError(
                f"network {name}: initial weights come from seed and fold alone; leave out "
                "pretrained"
            )
        if argument not in parameters:
            choices = [each for each in parameters if each not in FOLLOWS]
            raise ValueError(
                f"network monai:{name.path} has no argument {argument!r}; it has "
                f"{', '.join(choices)}{did_you_mean(argument, choices)}"
            )
    return found


EXAMPLES = ("DynUNet", "SegResNet", "UNet", "BasicUNet", "SwinUNETR", "MedNeXt")


def build(
    name: NetworkName, in_channels: int, filters: Sequence[int], patch_size: int
) -> nn.Module:
    """The network, with its own weights drawn from global generators.

    What its name does not say is MONAI's default, but for what follows from the data (`FOLLOWS`)
    and for the levels of DynUNet, UNet and AttentionUnet, which MONAI has none for: as nnU-Net has
    them, each level halves the one above (stride 2), ``filters`` are the widths, and kernels are 3
    wide.

    Raises:
        ValueError: MONAI refuses the arguments.
    """
    kind = network_class(name)
    parameters = inspect.signature(kind).parameters
    filled = {
        "spatial_dims": 3,
        "in_channels": in_channels,
        "out_channels": 1,
        "img_size": patch_size,
        "pretrained": False,
    }
    arguments = {key: value for key, value in filled.items() if key in parameters}
    if name.path in FILTERS_OF:
        arguments |= _levels(name.path, list(filters))
    try:
        network = kind(**(arguments | name.arguments))
    except Exception as error:  # MONAI's own checks raise all sorts of things
        raise ValueError(f"network {name} cannot be made: {one_line(error)}") from error
    object.__setattr__(network, "recordable", True)  # see training.step
    return network


def _levels(path: str, filters: list[int]) -> dict[str, Any]:
    halvings = [2] * (len(filters) - 1)
    if path == "DynUNet":
        if len(filters) < 3:
            raise ValueError(
                f"network monai:DynUNet with filters {' '.join(map(str, filters))}: expected three "
                "levels or more"
            )
        return {
            "filters": filters,
            "kernel_size": [3] * len(filters),
            "strides": [1, *halvings],
            "upsample_kernel_size": halvings,
        }
    return {"channels": filters, "strides": halvings}
