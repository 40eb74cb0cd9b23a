"""How a network is called: unet3d, monai:NAME(field=value), module:name; loads without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lesion_core.spelling import read_call, write_call

PAPER_NETWORK = "unet3d"
"""The paper's 3D U-Net (`lesion_core.unet`)."""

FILTERS_OF: dict[str, str] = {"DynUNet": "filters", "UNet": "channels", "AttentionUnet": "channels"}
"""MONAI's networks whose levels are as wide as ``TrainSettings.filters`` says, and their argument
of that meaning."""

EXPECTED = (
    "unet3d, a network of MONAI's such as monai:DynUNet or 'monai:SegResNet(init_filters=16)', or "
    "module:name of your own"
)


@dataclass(frozen=True, kw_only=True)
class NetworkName:
    """A network's name in parts."""

    kind: Literal["unet3d", "monai", "own"]
    path: str
    """unet3d; the class in monai.networks.nets; or module:name."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Plain values behind the name."""

    def __str__(self) -> str:
        """The one spelling of it, which is part of a trial's identity.

        >>> print(network_name("my_nets.py:Net( depth = 3 )"))
        my_nets:Net(depth=3)
        """
        prefix = "monai:" if self.kind == "monai" else ""
        return write_call(f"{prefix}{self.path}", self.arguments)

    @property
    def reads_filters(self) -> bool | None:
        """Whether ``TrainSettings.filters`` are its widths; None: only its code can tell."""
        if self.kind == "own":
            return None
        return self.kind == "unet3d" or FILTERS_OF.get(self.path, "") not in ("", *self.arguments)

    @property
    def module(self) -> str | None:
        """The user's module that has it; None of all other networks."""
        return self.path.partition(":")[0] if self.kind == "own" else None


def network_name(text: str) -> NetworkName:
    """The network that a text names; whether there is one of that name is not asked here.

    Raises:
        ValueError: the text is no name of a network.
    """
    path, arguments = read_call(text, "network", EXPECTED)
    if path == PAPER_NETWORK:
        if arguments:
            raise ValueError(
                f"network {text!r}: unet3d has no field {next(iter(arguments))!r}; its widths are "
                "--filters"
            )
        return NetworkName(kind="unet3d", path=path)
    module, colon, name = path.partition(":")
    if not (module and colon and name.isidentifier()):
        raise ValueError(f"unknown network {text!r}; expected {EXPECTED}")
    if module == "monai":
        return NetworkName(kind="monai", path=name, arguments=arguments)
    return NetworkName(kind="own", path=f"{module.removesuffix('.py')}:{name}", arguments=arguments)
