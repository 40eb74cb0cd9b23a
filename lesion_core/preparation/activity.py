"""Which changes between two time points are positive activity: new and enlarging lesions.

The public masks of the Ljubljana archive mark every change; the paper's, which are not public,
positive activity alone.  Here a change is positive where the follow-up is brighter: both images
become z-scores by their mean and standard deviation inside the brain, the mask is taken apart into
26-connected components, and one is kept if the mean difference of its z-scores is above 0.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from lesion_core.cohorts import natural_key
from lesion_core.cohorts.files import ORIGINAL_LESION, optional, required, subfolders
from lesion_core.metrics import components
from lesion_core.nifti import (
    binary_mask,
    finite_values,
    read,
    read_header,
    read_on_grid,
    write_like,
)
from lesion_core.preparation.flags import UNCERTAIN_SD, Uncertain

METHOD = "positive-zscore-1"
"""Recorded wherever such masks are used; ends in a number that grows when masks change."""

EXCLUDED = ".excluded"
"""Folder inside the cohort for patients without any positive activity; no layout looks into it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A component of the mask of all change."""

    lesion: int
    """Number in the mask, from 1."""
    voxels: int
    difference_sd: float
    """Mean over its voxels of the follow-up's z-scores minus the baseline's."""
    centre_vox: tuple[int, ...]
    """Centre of mass, rounded to a voxel index."""
    in_brain_voxels: int
    """Outside the brain a skull-stripped image is 0, so there the difference says nothing."""
    kept: bool

    @property
    def uncertain(self) -> bool:
        """Whether the difference is so small that its sign may be chance."""
        return abs(self.difference_sd) < UNCERTAIN_SD


def positive(
    change: np.ndarray,
    baseline: np.ndarray,
    followup: np.ndarray,
    brain: np.ndarray,
    uncertain: Uncertain = "sign",
) -> tuple[np.ndarray, list[Change]]:
    """The part of a mask of change that is positive, and every component of it.

    Args:
        change: bool ``[X, Y, Z]``; voxels outside the brain count like all others.
        baseline: the first image, ``[X, Y, Z]``, any unit.
        followup: the second image, on the same grid.
        brain: bool ``[X, Y, Z]``; its voxels alone define mean and standard deviation.
        uncertain: components closer to 0 than `UNCERTAIN_SD` follow their sign like the others,
            are kept, or are dropped.

    Raises:
        ValueError: the brain is empty, or an image is constant inside it.
    """
    labels, number = components(change)
    difference = _z_scores(followup, brain) - _z_scores(baseline, brain)
    inside = labels[change]
    voxels = np.bincount(inside, minlength=number + 1)
    sums = np.bincount(inside, difference[change], minlength=number + 1)
    in_brain = np.bincount(labels[change & brain], minlength=number + 1)
    centres = ndimage.center_of_mass(change, labels, range(1, number + 1))
    found = []
    for lesion, centre in enumerate(centres, start=1):
        mean = float(sums[lesion] / voxels[lesion])
        by_rule = {"sign": mean > 0, "keep": True, "drop": False}[uncertain]
        found.append(
            Change(
                lesion=lesion,
                voxels=int(voxels[lesion]),
                difference_sd=mean,
                centre_vox=tuple(round(float(index)) for index in centre),
                in_brain_voxels=int(in_brain[lesion]),
                kept=by_rule if abs(mean) < UNCERTAIN_SD else mean > 0,
            )
        )
    kept = np.isin(labels, [each.lesion for each in found if each.kept])
    return kept, found


def _z_scores(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    values = image.astype(np.float64)
    if not brain.any():
        raise ValueError("the brain mask is empty; expected 1 inside the brain")
    deviation = values[brain].std()
    if deviation == 0:
        raise ValueError(f"every voxel inside the brain mask is {values[brain][0]:g}")
    return (values - values[brain].mean()) / deviation


# ------------------------------------------------------------------------------- a prepared cohort
def keep_all(root: Path) -> None:
    """Undo `keep_positive` in a prepared cohort: original masks, every patient."""
    for folder in subfolders(root / EXCLUDED) if (root / EXCLUDED).is_dir() else []:
        folder.rename(root / folder.name)
    shutil.rmtree(root / EXCLUDED, ignore_errors=True)
    for folder in subfolders(root):
        original = optional(folder, ORIGINAL_LESION)
        if original is not None:
            required(folder, "lesion").unlink()
            original.rename(folder / original.name.replace(ORIGINAL_LESION, "lesion"))


def keep_positive(
    root: Path, channels: Sequence[str], uncertain: Uncertain, say: Callable[[str], None]
) -> dict[str, Any]:
    """Replace the masks of a prepared cohort of all change by their positive part.

    The original stays beside it (`ORIGINAL_LESION`).  Patients without positive activity move to
    `EXCLUDED`.  Returns what prepared.json shall say (`lesion_core.cohorts.activity`).

    Raises:
        ValueError: an image cannot be used, or no patient has positive activity.
    """
    record: dict[str, Any] = {}
    excluded = []
    for folder in sorted(subfolders(root), key=lambda place: natural_key(place.name)):
        lesion = required(folder, "lesion")
        grid = read(required(folder, channels[0]))
        baseline, followup = (
            finite_values(read_on_grid(required(folder, name), grid)) for name in channels
        )
        brain = binary_mask(read_on_grid(required(folder, "brain"), grid)) == 1
        change = binary_mask(read_on_grid(lesion, grid)) == 1
        try:
            mask, changes = positive(change, baseline, followup, brain, uncertain)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        original = folder / lesion.name.replace("lesion", ORIGINAL_LESION)
        lesion.rename(original)
        write_like(lesion, mask.astype(np.uint8), read_header(original))
        record[folder.name] = _of_case(changes)
        for line in _lines(changes):
            say(f"{folder.name}: {line}")
        if not mask.any():
            excluded.append(folder.name)
            say(f"{folder.name}: no positive activity; left out, as in the paper")
    if len(excluded) == len(record):
        raise ValueError(f"{root.name}: no patient has positive activity; expected one at least")
    for name in excluded:
        (root / EXCLUDED).mkdir(exist_ok=True)
        (root / name).rename(root / EXCLUDED / name)
    return {
        "kept": "positive",
        "method": METHOD,
        "uncertain_sd": UNCERTAIN_SD,
        "uncertain": uncertain,
        "excluded": excluded,
        "cases": record,
    }


def _of_case(changes: Sequence[Change]) -> dict[str, Any]:
    kept = [each for each in changes if each.kept]
    return {
        "lesions": len(kept),
        "voxels": sum(each.voxels for each in kept),
        "all_lesions": len(changes),
        "all_voxels": sum(each.voxels for each in changes),
        "uncertain": [
            {
                "lesion": each.lesion,
                "voxels": each.voxels,
                "centre_vox": list(each.centre_vox),
                "difference_sd": round(each.difference_sd, 4),
                "kept": each.kept,
            }
            for each in changes
            if each.uncertain
        ],
    }


def _lines(changes: Sequence[Change]) -> list[str]:
    """What is said of a patient: what was kept, and what a person should look at."""
    kept = [each for each in changes if each.kept]
    lines = [
        f"positive activity: {len(kept)} of {len(changes)} lesions, "
        f"{sum(each.voxels for each in kept)} of {sum(each.voxels for each in changes)} voxels"
    ]
    if doubtful := [each for each in changes if each.uncertain]:
        lines.append(f"uncertain, within {UNCERTAIN_SD} SD of 0: {_listed(doubtful)}")
    if outside := [each for each in changes if not each.in_brain_voxels]:
        lines.append(
            "warning: wholly outside the brain mask, where images are 0 and the difference says "
            f"nothing: {_listed(outside)}"
        )
    return lines


def _listed(changes: Sequence[Change]) -> str:
    return "; ".join(
        f"{each.voxels} voxels at {' '.join(map(str, each.centre_vox))} "
        f"({each.difference_sd:+.2f}, {'kept' if each.kept else 'left out'})"
        for each in changes
    )
