"""What a results folder keeps of a cohort: rows about its cases, and a slice of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesion_core.images import Image, LoadedCohort
from lesion_core.nifti import BACK_FRONT, LEFT_RIGHT, orientation_code
from lesion_core.pictures import picture, shown_slice, slice_view
from lesion_core.windows import WindowGrid

PATCH_SIZE = 32
"""Side of the paper's training patches, which overlap by half, for Table 1."""


def describe(cohort: LoadedCohort) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for `results.COHORT_CASES` and `results.COHORT_SLICES`."""
    cases = [_case_row(cohort.name, image) for image in cohort.images]
    slices = [_slice_row(cohort.name, image) for image in cohort.images]
    return cases, slices


def ignored_lines(cohort: LoadedCohort) -> list[str]:
    """The line that says how much of a cohort is ignored; none if nothing is."""
    images = [image for image in cohort.images if image.ignored_voxels]
    if not images:
        return []
    ml = sum(image.ignored_voxels * image.voxel_mm3 for image in images) / 1000
    brain = sum(int(np.count_nonzero(image.brain)) for image in cohort.images)
    share = sum(image.ignored_brain_voxels for image in images) / brain
    return [
        f"ignored: {ml:.1f} ml in {len(images)} of {len(cohort.images)} cases, {share:.1%} of all "
        "brain voxels; left out of training and of every score"
    ]


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
        "subject": image.subject,
        "patch_lesion_voxels": _in_patches(image.lesion, image.lesion),
        "ignore_voxels": image.ignored_voxels,
        "ignore_brain_voxels": image.ignored_brain_voxels,
        "patch_ignore_voxels": None
        if image.ignore is None
        else _in_patches(image.ignore, image.lesion),
        "source_shape": None if image.source_shape is None else list(image.source_shape),
        "source_spacing_mm": (
            None if image.source_spacing_mm is None else list(image.source_spacing_mm)
        ),
        "voxel_mm3": image.voxel_mm3,
        "activity": "positive" if image.activity else None,
        "lesion_voxels_all_change": image.activity.all_voxels if image.activity else None,
        "n_lesions_all_change": image.activity.all_lesions if image.activity else None,
        "orientation": orientation_code(image.axes),
    }


def _in_patches(mask: np.ndarray, lesion: np.ndarray) -> list[int]:
    """A mask's voxels in every training patch of the paper: the windows that hold lesion."""
    grid = WindowGrid.of(lesion.shape, PATCH_SIZE, PATCH_SIZE // 2)
    return grid.counts(mask)[grid.counts(lesion) > 0].tolist()


def _slice_row(cohort: str, image: Image) -> dict[str, Any]:
    axis, index = shown_slice(image)
    reference = slice_view(image.lesion, image)
    height, width = reference.shape
    rows, _ = image.axes[BACK_FRONT]
    columns, _ = image.axes[LEFT_RIGHT]
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
        **{
            name: None if mask is None else np.packbits(slice_view(mask, image)).tobytes()
            for name, mask in (("other", image.other), ("ignore", image.ignore))
        },
    }
