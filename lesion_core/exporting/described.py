"""What a stranger must know to use exported networks, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lesion_core
from lesion_core.segmentation.ensemble import Ensemble
from lesion_core.segmentation.networks import SELECTOR
from lesion_core.versions import installed_versions

NORMALISATION = (
    "per channel: (value - mean) / standard deviation, both over the voxels inside the brain mask "
    "(population standard deviation), applied to every voxel"
)
"""In words what `images.normalise` computes."""

STEPS = (
    "turn the axes to `orientation`",
    "resample, linearly, each axis whose voxels are smaller or larger than `spacing_mm` allows to "
    "the nearest size that it does; masks to the nearest voxel",
    "cut the box around the brain mask",
    "normalise",
    "predict windows of `patch_size` every `stride` voxels, the last one flush with the border; "
    "images smaller than a window are padded with 0 evenly on both sides",
    "average overlapping windows, all weights equal; 0 outside the box",
    "take the probability back to the image's grid, linearly; lesion from `threshold` on, without "
    "26-connected lesions of less than `min_lesion_mm3`",
)
"""From images to a mask; the bundle's configs/inference.json does these."""


def description(
    ensemble: Ensemble, *, threshold: float, min_lesion_mm3: float = 0.0
) -> dict[str, Any]:
    """What the networks take, what they give, and which they are; without paths or patients."""
    choice, training = ensemble.choice, ensemble.training
    settings = choice.members[0].settings
    size = settings.patch_size
    return {
        "format": "lesion-seed-sweep export 1",
        "input": ["batch", len(choice.channels), size, size, size],
        "channels": list(choice.channels),
        "normalisation": NORMALISATION,
        "output": "probability of lesion, mean over the networks: [batch, 1, X, Y, Z], 0 to 1",
        "threshold": threshold,
        "min_lesion_mm3": min_lesion_mm3,
        "orientation": training.orientation,
        "spacing_mm": {
            "smallest": _listed(training.smallest_mm),
            "largest": _listed(training.largest_mm),
        },
        "patch_size": size,
        "stride": settings.window_stride,
        "steps": list(STEPS),
        "cohort": choice.cohort,
        "loss": choice.loss,
        "loss_params": choice.loss_params,
        "settings": settings.to_dict(),
        "selector": SELECTOR,
        "chosen": choice.why,
        "networks": [
            {
                "trial": member.trial,
                "seed": member.seed,
                "fold": member.fold,
                "sha256": ensemble.sha256[member.trial],
            }
            for member in choice.members
        ],
        "absent": list(choice.absent),
        "precision": "fp32",
        "versions": versions(),
    }


def versions() -> Mapping[str, str]:
    """Of what computed the file."""
    return {"lesion_core": lesion_core.__version__} | installed_versions(
        "torch", "numpy", "monai", "nibabel", "scipy"
    )


def _listed(sides: tuple[float, float, float] | None) -> list[float] | None:
    return None if sides is None else list(sides)  # every digit: it decides which voxel is nearest
