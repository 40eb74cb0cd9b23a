"""From a case's files to checked, normalised arrays of its brain box.

Every check raises one line that names the file.  Images must share one grid, hold finite numbers
and vary inside the brain; masks hold whole labels only; nothing is repaired.  What is odd but
usable (lesion outside the brain, no lesion at all) is kept and listed in `Image.warnings`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from scipy import ndimage

from lesion_core import cache
from lesion_core.cohorts import Case, Cohort, brain_methods
from lesion_core.metrics import components
from lesion_core.nifti import File, by, finite_values, mask_labels, read, read_on_grid, unreadable
from lesion_core.windows import WindowGrid, three

FORMAT_VERSION = 1
"""Raise it when the same files give other arrays: it is part of every fingerprint."""

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
    """See `fingerprint`."""


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
    methods = brain_methods(cohort, data, cases)
    digests = _digests(cases)
    images = []
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))  # gzip releases the GIL
    try:
        loading = pool.map(lambda case: _load_cached(case, digests), cases)
        for number, image in enumerate(loading, start=1):
            images.append(replace(image, brain_method=methods[image.case]))
            if on_case is not None:
                on_case(number, len(cases), image.case)
    finally:
        pool.shutdown(cancel_futures=True)
    if _digests(cases) != digests:
        raise ValueError(
            f"{Path(data) / cohort.name}: the files change while they are read; wait until they "
            "are complete"
        )
    return LoadedCohort(
        name=cohort.name,
        channels=tuple(cohort.channels),
        images=images,
        fingerprint=_fingerprint(cases, tuple(cohort.channels), Path(data) / cohort.name, digests),
    )


def load_case(case: Case) -> Image:
    """Read, check, cut to the brain box and normalise one case.

    Raises:
        ValueError: with the file and what is wrong with it.
    """
    if case.brain is None and not case.nonzero_brain:
        raise ValueError(
            f"{case.lesion.parent}: no brain mask (brain.nii.gz) for {case.id}; make one with "
            "`python -m lesion_core.prepare`, or put :nonzero behind the name of an nnU-Net or "
            "BIDS cohort whose images are skull-stripped"
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
        left_right_axis=_axis_and_sign(first.affine, LEFT_RIGHT)[0],
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


# -------------------------------------------------------------------------------- fingerprint
def fingerprint(cohort: Cohort, data: Path) -> str:
    """SHA-256 (hex) over every file of the cohort and its path below the cohort's folder.

    The order of the channels and `FORMAT_VERSION` count too; where the folder lies does not.
    Files that have not changed since they were last read (`cache.Digests`) are not read again.
    """
    cases = cohort.cases(data)
    channels, root = tuple(cohort.channels), Path(data) / cohort.name
    return _fingerprint(cases, channels, root, _digests(cases))


def _fingerprint(
    cases: list[Case], channels: tuple[str, ...], root: Path, digests: Mapping[Path, str]
) -> str:
    total = hashlib.sha256(f"{FORMAT_VERSION}\n{' '.join(channels)}\n".encode())
    if any(case.nonzero_brain for case in cases):
        total.update(b"brain: nonzero\n")
    files = {path.relative_to(root).as_posix(): path for case in cases for path in case.files}
    for name in sorted(files):
        total.update(f"{digests[files[name]]} {name}\n".encode())
    return total.hexdigest()


def _digests(cases: list[Case]) -> dict[Path, str]:
    """SHA-256 of every file of these cases."""
    digests, found = cache.Digests(), {}
    for path in dict.fromkeys(path for case in cases for path in case.files):
        try:
            found[path] = digests.of(path)
        except OSError as error:
            raise ValueError(unreadable(path, error)) from None
    digests.save()
    return found


# -------------------------------------------------------------------------------------- caching
def _load_cached(case: Case, digests: Mapping[Path, str]) -> Image:
    """`load_case`, or what it once returned for the same bytes."""
    key = _cache_key(case, digests)
    found = cache.load(key)
    if found is None:
        image = load_case(case)
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
    rule = [FORMAT_VERSION, CACHE_VERSION, case.has_other, case.nonzero_brain]
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
    """Inverse of `_to_store`; who the case is comes from its cohort."""
    tuples: dict[str, Any] = {
        name: tuple(values[name]) for name in ("shape", "origin", "spacing_mm", "warnings")
    }
    outside = np.array(values["lesion_outside_box"], dtype=np.int32).reshape(-1, 4)
    affine = np.array(values["affine"], dtype=np.float64)
    defaults: dict[str, Any] = {"other": None}
    restored: dict[str, Any] = {"lesion_outside_box": outside, "affine": affine}
    return Image(
        case=case.id,
        site=case.site,
        channels=tuple(case.channels),
        **(defaults | arrays | values | tuples | restored),
    )


# ------------------------------------------------------------------------------------ pictures
PATCH_SIZE = 32
"""Side of the paper's training patches, which overlap by half, for Table 1."""

LEFT_RIGHT, BACK_FRONT, FOOT_HEAD = range(3)
"""World axes of a NIfTI affine: they grow to the right, anterior and superior."""


def shown_slice(image: Image) -> tuple[int, int]:
    """Array axis closest to foot-head, and the index in the whole image of the slice to show.

    The slice through the brain box with the most lesion voxels (the first of equals), counted in
    the whole image; without any, the middle of the box.
    """
    axis, _ = _axis_and_sign(image.affine, FOOT_HEAD)
    across = tuple(other for other in range(3) if other != axis)
    area = np.count_nonzero(image.labels, axis=across)
    beside = image.lesion_outside_box[:, axis] - image.origin[axis]
    beside = beside[(beside >= 0) & (beside < len(area))]
    area = area + np.bincount(beside, minlength=len(area))
    index = int(area.argmax()) if area.any() else len(area) // 2
    return axis, image.origin[axis] + index


def slice_view(volume_box: np.ndarray, image: Image) -> np.ndarray:
    """The shown slice of a box-shaped volume as a picture ``[height, width]``.

    Anterior is up and the subject's left on the right of the picture (radiological), whatever
    the order of the array's axes.
    """
    axis, index = shown_slice(image)
    plane = volume_box.take(index - image.origin[axis], axis=axis)
    rows, rows_sign = _axis_and_sign(image.affine, BACK_FRONT)
    columns, columns_sign = _axis_and_sign(image.affine, LEFT_RIGHT)
    if rows > columns:
        plane = plane.T
    # The first row is the most anterior, the first column the subject's rightmost.
    return np.ascontiguousarray(plane[::-rows_sign, ::-columns_sign])


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
    }


def _lesion_in_patches(lesion: np.ndarray) -> list[int]:
    """Lesion voxels of every training patch of the paper: the windows that hold any."""
    counts = WindowGrid.of(lesion.shape, PATCH_SIZE, PATCH_SIZE // 2).counts(lesion)
    return counts[counts > 0].tolist()


def _slice_row(cohort: str, image: Image) -> dict[str, Any]:
    axis, index = shown_slice(image)
    reference = slice_view(image.lesion, image)
    height, width = reference.shape
    rows, _ = _axis_and_sign(image.affine, BACK_FRONT)
    columns, _ = _axis_and_sign(image.affine, LEFT_RIGHT)
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
        "images": [_picture(channel, image).tobytes() for channel in image.voxels],
        "reference": np.packbits(reference).tobytes(),
        "other": None
        if image.other is None
        else np.packbits(slice_view(image.other, image)).tobytes(),
    }


def _picture(channel: np.ndarray, image: Image) -> np.ndarray:
    """uint8: black at the 1st percentile inside the brain, white at the 99th."""
    black, white = np.percentile(channel[image.brain], [1, 99])
    scaled = (slice_view(channel, image) - black) / max(white - black, np.finfo(np.float32).tiny)
    return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)


def _axis_and_sign(affine: np.ndarray, world_axis: int) -> tuple[int, int]:
    """The array axis closest to a world axis, and 1 if both grow together, else -1."""
    orientation = io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == world_axis)[0])
    return axis, int(orientation[axis, 1])


# ------------------------------------------------------------------------------------- helpers
def _normalise(path: Path, channel: np.ndarray, brain: np.ndarray) -> None:
    """In place: mean 0 and standard deviation 1 inside the brain."""
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
