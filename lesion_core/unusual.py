"""What is unusual in a cohort: cases unlike the others, and cases unlike any brain.

Nothing here is an error: such a case is used as it is, and named wherever the cohort is looked at
(`cohorts check`, the start of a sweep, the report).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from nibabel.affines import voxel_sizes

from lesion_core.images import Image, LoadedCohort
from lesion_core.nifti import WORLD_AXES, by, orientation_code

SPACING = 1.1
"""Factor by which the voxels' sides of a cohort may differ."""

SMALL_BRAIN_ML = 100.0
"""A newborn at term has 300."""

LARGE_LOAD = 0.3
"""Part of the brain that lesions may fill."""

SIZE, INTENSITY = 1.4, 4.0
"""Factors by which a brain's extent or volume, and its intensities, may differ from the median;
further where the cohort itself scatters (`ROBUST`)."""

ROBUST = 5.0
"""Robust standard deviations (1.4826 times the median distance from the median, of logarithms)."""

NEGATIVE = 0.01
"""Part of a brain's voxels that may be negative where other cases have none."""


def noted(cohort: LoadedCohort, patch_size: int | None = None) -> LoadedCohort:
    """The cohort with what is unusual behind the warnings of each of its images.

    ``patch_size``, voxels, is that of the trainings that shall see it; None: not known.
    """
    found: list[list[str]] = [list(_alone(image, patch_size)) for image in cohort.images]
    for compare in (_spacing, _orientation, _size, _intensity):
        for number, line in compare(cohort.images):
            found[number].append(line)
    images = [
        replace(image, warnings=(*image.warnings, *lines)) if lines else image
        for image, lines in zip(cohort.images, found, strict=True)
    ]
    return replace(cohort, images=images)


# --------------------------------------------------------------------------------- one by itself
def _alone(image: Image, patch_size: int | None) -> Iterator[str]:
    brain_ml = np.count_nonzero(image.brain) * image.voxel_mm3 / 1000
    if brain_ml < SMALL_BRAIN_ML:
        yield (f"{brain_ml:.3g} ml of brain, less than a newborn's; a crop, or a wrong voxel size?")
    load = image.lesion_voxels / np.count_nonzero(image.brain)
    if load > LARGE_LOAD:
        yield f"lesions fill {load:.0%} of the brain; is it the lesion mask?"
    if patch_size is not None:
        sides = zip(_by_direction(image.box_shape, image), WORLD_AXES, strict=True)
        if short := [f"{size:.0f} voxels {name}" for size, name in sides if size < patch_size]:
            yield (
                f"the brain is {', '.join(short)}, a patch {patch_size}: patches are filled up "
                "with zeros; smaller ones (--patch-size) or --spacing help"
            )


# ------------------------------------------------------------------------------ against the others
def _spacing(images: Sequence[Image]) -> Iterator[tuple[int, str]]:
    sides_mm = np.array([_by_direction(image.spacing_mm, image) for image in images])
    logs = np.log(sides_mm)
    away = np.abs(logs - np.median(logs, axis=0)) > np.log(SPACING) / 2
    apart = np.ptp(logs, axis=0) > np.log(SPACING)
    for number in np.flatnonzero((away & apart).any(axis=1)):
        yield (
            int(number),
            f"voxels of {_sizes(sides_mm[number])} mm ({', '.join(WORLD_AXES)}), the cohort's "
            f"median is {_sizes(np.median(sides_mm, axis=0))}; --spacing median makes them alike",
        )


def _orientation(images: Sequence[Image]) -> Iterator[tuple[int, str]]:
    codes = [orientation_code(image.axes) for image in images]
    usual, _ = Counter(codes).most_common(1)[0]
    for number, code in enumerate(codes):
        if code != usual:
            yield (
                number,
                f"axes run {code}, in most cases {usual}; mirroring and pictures follow that, but "
                "the network sees the brain turned or mirrored",
            )


def _size(images: Sequence[Image]) -> Iterator[tuple[int, str]]:
    volumes_ml = np.array([np.count_nonzero(i.brain) * i.voxel_mm3 / 1000 for i in images])
    for number in np.flatnonzero(_far(volumes_ml, SIZE)):
        yield (
            int(number),
            f"{volumes_ml[number]:.0f} ml of brain, the cohort's median is "
            f"{np.median(volumes_ml):.0f}",
        )
    extents_mm = np.array(
        [_by_direction(np.multiply(i.box_shape, voxel_sizes(i.affine)), i) for i in images]
    )
    for world, column in enumerate(extents_mm.T):
        for number in np.flatnonzero(_far(column, SIZE)):
            yield (
                int(number),
                f"the brain is {column[number]:.0f} mm {WORLD_AXES[world]}, the cohort's median is "
                f"{np.median(column):.0f}; is it whole?",
            )


def _intensity(images: Sequence[Image]) -> Iterator[tuple[int, str]]:
    for channel, name in enumerate(images[0].channels):
        known = [n for n, image in enumerate(images) if image.raw]
        if not known:
            continue
        mean, sd, negative = np.array([images[n].raw[channel] for n in known]).T
        level = np.maximum(np.abs(mean), sd)
        far = _far(level, INTENSITY) | _far(sd, INTENSITY) | _far(level / sd, INTENSITY)
        far |= (negative > NEGATIVE) & (np.median(negative) <= NEGATIVE / 10)
        for place in np.flatnonzero(far):
            minus = f", {negative[place]:.0%} of it negative" if negative[place] > NEGATIVE else ""
            yield (
                known[place],
                f"{name}: intensity {_short(mean[place])} ± {_short(sd[place])} in the brain"
                f"{minus}, the cohort's medians are {_short(np.median(mean))} ± "
                f"{_short(np.median(sd))}; is it of the same kind?",
            )


def _far(values: np.ndarray, factor: float) -> np.ndarray:
    """Which of positive numbers lie by more than a factor from their median; of two, from each
    other.

    >>> _far(np.array([1.0, 1.2, 1.1, 9.0]), 2).tolist()
    [False, False, False, True]
    """
    logs = np.log(values)
    centre = logs[::-1] if len(logs) == 2 else np.median(logs)
    away = np.abs(logs - centre)
    scatter = 1.4826 * np.median(away) if len(logs) > 2 else 0.0
    return away > max(np.log(factor), ROBUST * scatter)


def _short(number: float) -> str:
    """
    >>> _short(1060.4), _short(1.667)
    ('1060', '1.67')
    """
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _by_direction(per_axis: Sequence[float] | np.ndarray, image: Image) -> list[float]:
    """Numbers of the array axes in the order of `WORLD_AXES`."""
    return [float(per_axis[axis]) for axis, _ in image.axes]


def _sizes(sides_mm: np.ndarray) -> str:
    return by([float(f"{side:.3g}") for side in sides_mm])
