"""From a case's files to checked, normalised arrays of its brain box.

Every check raises one line that names the file.  Images must share one grid, hold finite numbers
and vary inside the brain; masks hold whole labels only; nothing is repaired.  What is odd but
usable (lesion outside the brain, no lesion at all) is kept and listed in `Image.warnings`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from lesion_core import cache
from lesion_core.cohorts import Case, Cohort, brain_methods
from lesion_core.fingerprint import FORMAT_VERSION, digests_of, fingerprint_of
from lesion_core.metrics import components
from lesion_core.nifti import (
    LEFT_RIGHT,
    File,
    axis_and_sign,
    by,
    finite_values,
    mask_labels,
    read,
    read_on_grid,
)
from lesion_core.windows import three

LARGEST_BRAIN_ML = 2000.0
"""No human brain is larger; what is, is a head."""

MOST_NONZERO = 0.9
"""A skull-stripped image has background; one with hardly any zeros was not stripped."""

MAX_LESIONS = np.iinfo(np.uint16).max

CACHE_VERSION = 1
"""Raise it when an `Image` has other fields: it is part of the cache's keys alone."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """One case in memory: its brain box, last plane included."""

    case: str
    site: str
    channels: tuple[str, ...]
    voxels: np.ndarray
    """float32 ``[C, X, Y, Z]``: z-scores by the mean and deviation inside the brain mask, also
    outside it."""
    labels: np.ndarray
    """uint16 ``[X, Y, Z]``: lesions of the whole image (26-connected, from 1), cut to the box."""
    num_lesions: int
    """In the whole image; may exceed ``labels.max()``."""
    lesion_outside_box: np.ndarray
    """int32 ``[n, 4]``: x, y, z in the whole image and lesion number of every lesion voxel outside
    the box.  No prediction reaches them; they count as missed."""
    other: np.ndarray | None
    """bool ``[X, Y, Z]``: WMH label 2; None if the cohort has no such label."""
    other_outside_box: int = 0
    """Voxels of label 2 outside the box."""
    brain: np.ndarray
    """bool ``[X, Y, Z]``."""
    shape: tuple[int, int, int]
    """Voxels of the whole image along each axis."""
    origin: tuple[int, int, int]
    """First voxel of the box in the whole image."""
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    """float64 ``[4, 4]``: voxel indices of the whole image to mm (right, anterior, superior)."""
    left_right_axis: int
    """Array axis closest to left-right."""
    warnings: tuple[str, ...] = ()
    num_with_other: int | None = None
    """Components of labels 1 and 2 taken together, in the whole image; None: not counted."""
    brain_method: str = "shipped"
    """How the brain mask was made (`cohorts.brain_methods`)."""
    subject: str = ""
    """`Case.subject`: the case's id unless several cases can be of one person."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", self.subject or self.case)

    @property
    def lesion(self) -> np.ndarray:
        """bool ``[X, Y, Z]``: label 1 inside the brain box."""
        return self.labels > 0

    @property
    def lesion_voxels(self) -> int:
        """Voxels of label 1 in the whole image."""
        return int(np.count_nonzero(self.labels)) + len(self.lesion_outside_box)

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Voxels of the brain box along each axis."""
        return three(self.brain.shape)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm))


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedCohort:
    """All images of a cohort, in its natural order."""

    name: str
    channels: tuple[str, ...]
    images: list[Image]
    fingerprint: str
    """See `fingerprint.fingerprint`."""


def load_cohort(
    cohort: Cohort, data: Path, on_case: Callable[[int, int, str], None] | None = None
) -> LoadedCohort:
    """Load every case, several at a time; the order and the values do not depend on that.

    A case that was loaded before, from the same bytes, comes from the cache (`cache`): its arrays
    are then mapped from disk and read-only.

    ``on_case(number, of, case_id)`` hears of each case in order, numbered from 1.

    Raises:
        ValueError: the first case that cannot be used, with its file and reason.
    """
    cases = cohort.cases(data)
    _check_masks(cases)
    methods = brain_methods(cohort, data, cases)
    digests = digests_of(cases)
    channels, root = tuple(cohort.channels), Path(data) / cohort.name
    images = []
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))  # gzip releases the GIL
    try:
        loading = pool.map(
            lambda case: _load_cached(case, digests, cohort.brain_place(data, case)), cases
        )
        for number, image in enumerate(loading, start=1):
            images.append(replace(image, brain_method=methods[image.case]))
            if on_case is not None:
                on_case(number, len(cases), image.case)
    finally:
        pool.shutdown(cancel_futures=True)
    if digests_of(cases) != digests:
        raise ValueError(
            f"{root}: the files change while they are read; wait until they are complete"
        )
    return LoadedCohort(
        name=cohort.name,
        channels=channels,
        images=images,
        fingerprint=fingerprint_of(cases, channels, root, digests),
    )


def load_case(case: Case, brain_place: Path | None = None) -> Image:
    """Read, check, cut to the brain box and normalise one case.

    ``brain_place``, where its layout looks for a brain mask, is named if there is none.

    Raises:
        ValueError: with the file and what is wrong with it.
    """
    if case.brain is None and not case.nonzero_brain:
        raise ValueError(
            f"{brain_place or case.lesion.parent}: no brain mask for {case.id}; make one with "
            "`python -m lesion_core.prepare brains COHORT DATA`, or put :nonzero behind the name "
            "of an nnU-Net or BIDS cohort whose images are skull-stripped"
        )
    first = read(next(iter(case.channels.values())))
    if case.brain is None:
        brain = _nonzero(case, first)
    else:
        brain = mask_labels(read_on_grid(case.brain, first), highest=1) == 1
    box = bounding_box(brain)
    if box is None:
        raise ValueError(
            f"{case.brain or first.path}: the brain mask is empty; expected 1 inside the brain"
        )
    in_brain = np.ascontiguousarray(brain[box])

    voxels = np.empty((len(case.channels), *in_brain.shape), dtype=np.float32)
    for channel, path in enumerate(case.channels.values()):
        file = first if channel == 0 else read_on_grid(path, first)
        voxels[channel] = finite_values(file)[box]
        _normalise(path, voxels[channel], in_brain)

    marked = mask_labels(read_on_grid(case.lesion, first), highest=2 if case.has_other else 1)
    labels, num_lesions = components(marked == 1)
    if num_lesions > MAX_LESIONS:
        raise ValueError(
            f"{case.lesion}: {num_lesions} separate lesions; expected {MAX_LESIONS} at most, so "
            "this looks like noise rather than a lesion mask"
        )
    outside = labels > 0
    outside[box] = False
    coordinates = np.argwhere(outside)
    lesion_outside_box = np.column_stack([coordinates, labels[outside]]).astype(np.int32)
    other, other_outside_box, num_with_other = None, 0, num_lesions
    if case.has_other:
        other = np.ascontiguousarray(marked[box] == 2)
        other_outside_box = int(np.count_nonzero(marked == 2) - np.count_nonzero(other))
        if other_outside_box or other.any():
            num_with_other = components(marked > 0)[1]
    return Image(
        case=case.id,
        subject=case.subject,
        site=case.site,
        channels=tuple(case.channels),
        voxels=voxels,
        labels=labels[box].astype(np.uint16, order="C"),
        num_lesions=num_lesions,
        lesion_outside_box=lesion_outside_box,
        other=other,
        other_outside_box=other_outside_box,
        brain=in_brain,
        shape=first.shape,
        origin=three([side.start for side in box]),
        spacing_mm=three(first.spacing_mm.tolist()),
        affine=first.affine,
        left_right_axis=axis_and_sign(first.affine, LEFT_RIGHT)[0],
        warnings=tuple(_warnings(case, first, labels > 0, brain)),
        num_with_other=num_with_other,
    )


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box that holds every voxel of a mask; None if it has none.

    >>> mask = np.zeros((4, 4, 4), dtype=bool)
    >>> mask[1, 2, 0] = mask[3, 2, 1] = True
    >>> bounding_box(mask)
    (slice(1, 4, None), slice(2, 3, None), slice(0, 2, None))
    """
    sides = []
    for axis in range(3):
        across = tuple(other for other in range(3) if other != axis)
        (planes,) = np.nonzero(mask.any(axis=across))
        if not len(planes):
            return None
        sides.append(slice(int(planes[0]), int(planes[-1]) + 1))
    return three(sides)


# -------------------------------------------------------------------------------------- caching
def _load_cached(case: Case, digests: Mapping[Path, str], brain_place: Path) -> Image:
    """`load_case`, or what it once returned for the same bytes."""
    key = _cache_key(case, digests)
    found = cache.load(key)
    if found is None:
        image = load_case(case, brain_place)
        arrays, values = _to_store(image)
        if not cache.store(key, arrays, values):
            return image
        found = cache.load(key)  # mapped from disk, so that the memory can be given back
        if found is None:
            return image
    arrays, values = found
    return _from_store(case, arrays, values)


def _cache_key(case: Case, digests: Mapping[Path, str]) -> str:
    """Changes with whatever decides what `load_case` returns."""
    rule = [FORMAT_VERSION, CACHE_VERSION, case.has_other, *case.rules]
    names = [f"{path.parent.name}/{path.name}" for path in case.files]  # they are in the warnings
    parts = [rule, [digests[path] for path in case.files], list(case.channels), names]
    parts.append(case.brain is not None)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _to_store(image: Image) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays = {"voxels": image.voxels, "labels": image.labels, "brain": image.brain}
    if image.other is not None:
        arrays["other"] = image.other
    values = {
        "num_lesions": image.num_lesions,
        "num_with_other": image.num_with_other,
        "lesion_outside_box": image.lesion_outside_box.tolist(),
        "other_outside_box": image.other_outside_box,
        "shape": image.shape,
        "origin": image.origin,
        "spacing_mm": image.spacing_mm,
        "affine": image.affine.tolist(),
        "left_right_axis": image.left_right_axis,
        "warnings": image.warnings,
    }
    return arrays, values


def _from_store(case: Case, arrays: dict[str, Any], values: dict[str, Any]) -> Image:
    """The image that `_to_store` took apart; who the case is comes from its cohort."""
    tuples: dict[str, Any] = {
        name: tuple(values[name]) for name in ("shape", "origin", "spacing_mm", "warnings")
    }
    outside = np.array(values["lesion_outside_box"], dtype=np.int32).reshape(-1, 4)
    affine = np.array(values["affine"], dtype=np.float64)
    defaults: dict[str, Any] = {"other": None}
    restored: dict[str, Any] = {"lesion_outside_box": outside, "affine": affine}
    return Image(
        case=case.id,
        subject=case.subject,
        site=case.site,
        channels=tuple(case.channels),
        **(defaults | arrays | values | tuples | restored),
    )


# ------------------------------------------------------------------------------------- helpers
def _check_masks(cases: Sequence[Case]) -> None:
    """Every case has masks of its own: a layout that gives one to two cases is mistaken."""
    owners: dict[Path, str] = {}
    for case in cases:
        for mask in {case.lesion, case.brain or case.lesion}:
            if mask in owners:
                raise ValueError(
                    f"{mask}: is a mask of {owners[mask]} and of {case.id}; expected a file of its "
                    "own for every case"
                )
            owners[mask] = case.id


def _normalise(path: Path, channel: np.ndarray, brain: np.ndarray) -> None:
    """Give a channel mean 0 and standard deviation 1 inside the brain, in place."""
    inside = channel[brain]
    if inside.min() == inside.max():
        raise ValueError(
            f"{path}: every voxel inside the brain mask is {inside[0]:g}, so there is nothing to "
            "learn from it; check the image and the brain mask"
        )
    channel -= np.float32(inside.mean(dtype=np.float64))
    channel /= np.float32(inside.std(dtype=np.float64))


def _warnings(case: Case, first: File, lesion: np.ndarray, brain: np.ndarray) -> list[str]:
    lesion_name, first_name, brain_name = (
        f"{path.parent.name}/{path.name}"
        for path in (case.lesion, first.path, case.brain or first.path)
    )
    found = []
    total, outside = np.count_nonzero(lesion), np.count_nonzero(lesion & ~brain)
    if outside:
        found.append(
            f"{lesion_name}: {outside} of {total} lesion voxels lie outside the brain mask"
        )
    if not total:
        found.append(f"{lesion_name}: no lesion voxel; tested on, but never trained on")
    brain_ml = np.count_nonzero(brain) * np.prod(first.spacing_mm) / 1000
    if brain_ml > LARGEST_BRAIN_ML:
        found.append(
            f"{brain_name}: {brain_ml:.0f} ml of brain, more than anybody has; a whole head?"
        )
    if not first.oriented:
        found.append(
            f"{first_name}: the header states no orientation; the first axis is taken as left-right"
        )
    if not np.allclose(first.header_mm, first.spacing_mm, rtol=0.01):
        found.append(
            f"{first_name}: voxel size {by(first.header_mm)} mm in the header, "
            f"{by(first.spacing_mm)} mm by the affine, which is used"
        )
    return found


def _nonzero(case: Case, first: File) -> np.ndarray:
    """Where any channel is not 0, holes filled: the brain of skull-stripped images."""
    inside = np.zeros(first.shape, dtype=bool)
    for path in case.channels.values():
        inside |= finite_values(first if path == first.path else read_on_grid(path, first)) != 0
    filled = ndimage.binary_fill_holes(inside)
    assert filled is not None
    if filled.mean() > MOST_NONZERO:
        raise ValueError(
            f"{first.path}: {filled.mean():.0%} of the voxels are not 0, so it is not skull-"
            "stripped; leave out ':nonzero' and make brain masks with "
            "`python -m lesion_core.prepare brains`"
        )
    return filled
