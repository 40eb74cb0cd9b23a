"""What a results folder keeps of a cohort: rows about its cases, and a slice of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesion_core.images import Image, LoadedCohort
from lesion_core.nifti import BACK_FRONT, LEFT_RIGHT, axis_and_sign
from lesion_core.pictures import picture, shown_slice, slice_view
from lesion_core.windows import WindowGrid

PATCH_SIZE = 32
"""Side of the paper's training patches, which overlap by half, for Table 1."""


def describe(cohort: LoadedCohort) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for `results.COHORT_CASES` and `results.COHORT_SLICES`."""
    cases = [_case_row(cohort.name, image) for image in cohort.images]
    slices = [_slice_row(cohort.name, image) for image in cohort.images]
    return cases, slices


def _case_row(cohort: str, image: Image) -> dict[str, Any]:
    outside_brain = np.count_nonzero(image.lesion & ~image.brain) + len(image.lesion_outside_box)
    other = 0 if image.other is None else np.count_nonzero(image.other)
    return {
        "cohort": cohort,
        "case": image.case,
        "site": image.site,
        "shape": list(image.shape),
        "box_shape": list(image.box_shape),
        "spacing_mm": list(image.spacing_mm),
        "brain_voxels": int(np.count_nonzero(image.brain)),
        "lesion_voxels": image.lesion_voxels,
        "other_voxels": int(other) + image.other_outside_box,
        "n_lesions": image.num_lesions,
        "lesion_outside_brain_voxels": int(outside_brain),
        "warnings": list(image.warnings),
        "brain_method": image.brain_method,
        "n_lesions_with_other": image.num_with_other,
        "patch_voxels": PATCH_SIZE**3,
        "patch_lesion_voxels": _lesion_in_patches(image.lesion),
        "activity": "positive" if image.activity else None,
        "lesion_voxels_all_change": image.activity.all_voxels if image.activity else None,
        "n_lesions_all_change": image.activity.all_lesions if image.activity else None,
    }


def _lesion_in_patches(lesion: np.ndarray) -> list[int]:
    """Lesion voxels of every training patch of the paper: the windows that hold any."""
    counts = WindowGrid.of(lesion.shape, PATCH_SIZE, PATCH_SIZE // 2).counts(lesion)
    return counts[counts > 0].tolist()


def _slice_row(cohort: str, image: Image) -> dict[str, Any]:
    axis, index = shown_slice(image)
    reference = slice_view(image.lesion, image)
    height, width = reference.shape
    rows, _ = axis_and_sign(image.affine, BACK_FRONT)
    columns, _ = axis_and_sign(image.affine, LEFT_RIGHT)
    return {
        "cohort": cohort,
        "case": image.case,
        "axis": axis,
        "index": index,
        "height": height,
        "width": width,
        "row_mm": image.spacing_mm[rows],
        "column_mm": image.spacing_mm[columns],
        "channels": list(image.channels),
        "images": [picture(channel, image).tobytes() for channel in image.voxels],
        "reference": np.packbits(reference).tobytes(),
        "other": None
        if image.other is None
        else np.packbits(slice_view(image.other, image)).tobytes(),
    }
