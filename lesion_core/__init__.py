"""Lesion segmentation by 3D U-Nets: losses, cohorts, training, evaluation, and what is stored.

The names below are loaded when they are first used, so that importing one file of this package
does not load PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

__all__ = [
    "LOSSES",
    "Arm",
    "Trial",
    "UNet3d",
    "__version__",
    "load_ensemble",
    "load_network",
    "predict_volume",
    "read_sweep",
    "run",
]

_HOMES = {
    "Arm": "arms",
    "LOSSES": "losses",
    "Trial": "trial",
    "UNet3d": "unet",
    "load_ensemble": "segmentation.ensemble",
    "load_network": "segmentation.networks",
    "predict_volume": "evaluate",
    "read_sweep": "results",
    "run": "trial",
}
"""Which module has it."""

if TYPE_CHECKING:
    from lesion_core.arms import Arm
    from lesion_core.evaluate import predict_volume
    from lesion_core.losses import LOSSES
    from lesion_core.results import read_sweep
    from lesion_core.segmentation.ensemble import load_ensemble
    from lesion_core.segmentation.networks import load_network
    from lesion_core.trial import Trial, run
    from lesion_core.unet import UNet3d
else:  # or type checkers would believe in any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found  # from now on without this function
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
