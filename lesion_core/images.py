"""From a case's files to checked, normalised arrays of its brain box.

Every check raises one line that names the file.  Images must share one grid, hold finite numbers
and vary inside the brain; masks hold whole labels only; nothing is repaired.  What is odd but
usable (lesion outside the brain, no lesion at all) is kept and listed in `Image.warnings`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from lesion_core import cache, memory
from lesion_core.cohorts import (
    PREPARED,
    Activity,
    Case,
    CaseActivity,
    Cohort,
    activity_in,
    brain_cure,
    brain_methods,
    cases_as_read,
)
from lesion_core.cohorts.files import ORIGINAL_LESION, required
from lesion_core.fingerprint import FORMAT_VERSION, digests_of, fingerprint_of
from lesion_core.marks import Marks, read_marks
from lesion_core.metrics import components
from lesion_core.nifti import (
    LEFT_RIGHT,
    AxesAndSigns,
    File,
    axes_and_signs,
    binary_mask,
    finite_values,
    read,
    read_on_grid,
)
from lesion_core.placement import oddities_of
from lesion_core.resampling import Grid
from lesion_core.windows import three

LARGEST_BRAIN_ML = 2000.0
"""No human brain is larger; what is, is a head."""

IMPOSSIBLE_BRAIN_ML = (0.002, 10_000.0)
"""A stray voxel, or a whale's: a brain mask outside these is a mistake, of units for one.  What is
odd but may be meant (a newborn, a crop of a brain) is kept and reported (`unusual`)."""

MOST_NONZERO = 0.9
"""A skull-stripped image has background; one with hardly any zeros was not stripped."""

CHANGED = 0.05
"""Part of the lesions' volume, or of their number, above which resampling is said to change it."""

MAX_LESIONS = np.iinfo(np.uint16).max

CACHE_VERSION = 4
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
    ignore: np.ndarray | None = None
    """bool ``[X, Y, Z]``: left out of training and of every score, and neither lesion nor other;
    None if the case has no such region."""
    ignore_outside_box: int = 0
    """Ignored voxels outside the box."""
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
    raw: tuple[tuple[float, float, float], ...] = ()
    """Of each channel inside the brain before it was normalised: mean, standard deviation, and
    which part of the voxels was negative."""
    source_shape: tuple[int, int, int] | None = None
    """Voxels of the files; None unless they were resampled (`resampling`), in which case everything
    else here is of the resampled images."""
    source_spacing_mm: tuple[float, float, float] | None = None
    """Voxel size of the files; None unless they were resampled."""
    warnings: tuple[str, ...] = ()
    num_with_other: int | None = None
    """Components of labels 1 and 2 taken together, in the whole image; None: not counted."""
    brain_method: str = "shipped"
    """How the brain mask was made (`cohorts.brain_methods`)."""
    subject: str = ""
    """`Case.subject`: the case's id unless several cases can be of one person."""
    activity: CaseActivity | None = None
    """What the lesion mask was sorted out of; None: it is as it came."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", self.subject or self.case)

    @cached_property
    def axes(self) -> AxesAndSigns:
        """Array axes and signs of `nifti.WORLD_AXES`."""
        return axes_and_signs(self.affine)

    @property
    def lesion(self) -> np.ndarray:
        """bool ``[X, Y, Z]``: label 1 inside the brain box."""
        return self.labels > 0

    @property
    def background(self) -> np.ndarray:
        """bool ``[X, Y, Z]``: neither lesion nor ignored."""
        return ~self.lesion if self.ignore is None else ~(self.lesion | self.ignore)

    @property
    def ignored_voxels(self) -> int:
        """Ignored voxels in the whole image."""
        inside = 0 if self.ignore is None else np.count_nonzero(self.ignore)
        return int(inside) + self.ignore_outside_box

    @property
    def ignored_brain_voxels(self) -> int:
        """Ignored voxels in the brain mask."""
        return 0 if self.ignore is None else int(np.count_nonzero(self.ignore & self.brain))

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
        return _volume_mm3(self.affine)


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
    """Load every case, as many at a time as there is memory for; the order and the values do not
    depend on that.

    A case that was loaded before, from the same bytes, comes from the cache (`cache`): its arrays
    are then mapped from disk and read-only.

    ``on_case(number, of, case_id)`` hears of each case in order, numbered from 1.

    Raises:
        ValueError: the first case that cannot be used, with its file and reason; or one that
            cannot fit into memory.
    """
    cases = cases_as_read(cohort, data)
    _check_masks(cases)
    methods = brain_methods(cohort, data, cases)
    digests = digests_of(cases)
    channels, root = tuple(cohort.channels), Path(data) / cohort.name
    activity = activity_in(root)
    images = []
    cure = brain_cure(cohort, data)
    at_a_time = memory.cases_at_a_time(cases, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(max_workers=at_a_time)  # gzip releases the GIL
    try:
        loading = pool.map(
            lambda case: _load_cached(case, digests, cohort.brain_place(data, case), cure), cases
        )
        for number, (case, image) in enumerate(zip(cases, loading, strict=True), start=1):
            image = replace(image, brain_method=methods[image.case])
            images.append(image if activity is None else _of_activity(case, image, activity))
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


def load_case(
    case: Case,
    brain_place: Path | None = None,
    cure: str = "make one with `python -m lesion_core.prepare brains COHORT DATA`",
) -> Image:
    """Read, check, cut to the brain box and normalise one case.

    ``brain_place``, where its layout looks for a brain mask, is named if there is none, and with
    it the cure (`cohorts.brain_cure`).

    Raises:
        ValueError: with the file and what is wrong with it.
    """
    if case.brain is None and not case.nonzero_brain:
        raise ValueError(
            f"{brain_place or case.lesion.parent}: no brain mask for {case.id}; {cure}"
        )
    first = read(next(iter(case.channels.values())))
    files, grid = [first], Grid.of(first, case.spacing_mm)
    if case.brain is None:
        cure = f"leave out ':nonzero' and {cure}"
        brain = grid.mask(nonzero_brain(case.channels.values(), first, cure))
    else:
        files.append(read_on_grid(case.brain, first))
        brain = grid.mask(binary_mask(files[-1])) == 1
    box = bounding_box(brain)
    if box is None:
        raise ValueError(
            f"{case.brain or first.path}: the brain mask is empty; expected 1 inside the brain"
        )
    in_brain = np.ascontiguousarray(brain[box])
    voxel_mm3 = _volume_mm3(grid.affine)
    check_brain_size(case.brain or first.path, np.count_nonzero(brain) * voxel_mm3 / 1000)

    voxels = np.empty((len(case.channels), *in_brain.shape), dtype=np.float32)
    raw = []
    for channel, path in enumerate(case.channels.values()):
        file = first if channel == 0 else read_on_grid(path, first)
        voxels[channel] = grid.image(finite_values(file))[box]
        raw.append(normalise(path, voxels[channel], in_brain))
        if channel > 0:
            files.append(file)

    marks = read_marks(case, first)
    files.extend(marks.files)
    drawn = marks.lesion
    marks = marks.on(grid)
    if marks.ignore is not None and not (brain & ~marks.ignore).any():
        raise ValueError(
            f"{case.ignore or case.lesion}: the whole brain is to be ignored; leave the case out"
        )
    labels, num_lesions = components(marks.lesion)
    if num_lesions > MAX_LESIONS:
        raise ValueError(
            f"{case.lesion}: {num_lesions} separate lesions; expected {MAX_LESIONS} at most, so "
            "this looks like noise rather than a lesion mask"
        )
    outside = labels > 0
    outside[box] = False
    coordinates = np.argwhere(outside)
    lesion_outside_box = np.column_stack([coordinates, labels[outside]]).astype(np.int32)
    other, other_outside_box = _cut(marks.other, box)
    num_with_other = num_lesions
    if other is not None and (other_outside_box or other.any()):
        num_with_other = components(marks.lesion_or_other)[1]
    ignore, ignore_outside_box = _cut(marks.ignore, box)
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
        ignore=ignore,
        ignore_outside_box=ignore_outside_box,
        brain=in_brain,
        shape=grid.shape,
        origin=three([side.start for side in box]),
        spacing_mm=three(voxel_sizes(grid.affine).tolist()),
        affine=grid.affine,
        left_right_axis=axes_and_signs(grid.affine)[LEFT_RIGHT][0],
        raw=tuple(raw),
        source_shape=first.shape if grid.resampled else None,
        source_spacing_mm=three(first.spacing_mm.tolist()) if grid.resampled else None,
        warnings=(
            *_warnings(case, files, marks, brain, voxel_mm3),
            *(_lost(case, grid, drawn, labels, num_lesions) if grid.resampled else ()),
        ),
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


def normalise(
    path: Path | str, channel: np.ndarray, brain: np.ndarray
) -> tuple[float, float, float]:
    """Give a channel mean 0 and standard deviation 1 inside the brain, in place.

    Returns what it was there: mean, standard deviation, part of negative voxels.

    Raises:
        ValueError: it is the same everywhere inside; ``path`` is named.
    """
    inside = channel[brain]
    if inside.min() == inside.max():
        raise ValueError(
            f"{path}: every voxel inside the brain mask is {inside[0]:g}, so there is nothing to "
            "learn from it; check the image and the brain mask"
        )
    mean, sd = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    channel -= np.float32(mean)
    channel /= np.float32(sd)
    return float(mean), float(sd), float(np.count_nonzero(inside < 0) / inside.size)


def check_brain_size(path: Path | str, brain_ml: float) -> None:
    """Raise ValueError if no mask of a brain has that volume."""
    smallest, largest = IMPOSSIBLE_BRAIN_ML
    if not smallest <= brain_ml <= largest:
        raise ValueError(
            f"{path}: {brain_ml:.3g} ml of brain; expected {smallest:g} to {largest:g} ml; "
            "correct the voxel size in the header, or the brain mask"
        )


def nonzero_brain(channels: Iterable[Path], first: File, cure: str) -> np.ndarray:
    """Where any channel is not 0, holes filled: the brain of skull-stripped images.

    Raises:
        ValueError: there is hardly any background; ``cure`` says what to do then.
    """
    inside = np.zeros(first.shape, dtype=bool)
    for path in channels:
        inside |= finite_values(first if path == first.path else read_on_grid(path, first)) != 0
    filled = ndimage.binary_fill_holes(inside)
    assert filled is not None
    if filled.mean() > MOST_NONZERO:
        raise ValueError(
            f"{first.path}: {filled.mean():.0%} of the voxels are not 0, so it is not skull-"
            f"stripped; {cure}"
        )
    return filled


# -------------------------------------------------------------------------------------- caching
def _load_cached(case: Case, digests: Mapping[Path, str], brain_place: Path, cure: str) -> Image:
    """`load_case`, or what it once returned for the same bytes."""
    key = _cache_key(case, digests)
    found = cache.load(key)
    if found is None:
        image = load_case(case, brain_place, cure)
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
    labels = case.labels
    meanings = [labels.lesion, labels.other, labels.ignore, labels.background]
    rule = [FORMAT_VERSION, CACHE_VERSION, meanings, *case.rules]
    names = [f"{path.parent.name}/{path.name}" for path in case.files]  # they are in the warnings
    parts = [rule, [digests[path] for path in case.files], list(case.channels), names]
    parts += [case.brain is not None, case.ignore is not None]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _to_store(image: Image) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays = {"voxels": image.voxels, "labels": image.labels, "brain": image.brain}
    for name in ("other", "ignore"):
        if (mask := getattr(image, name)) is not None:
            arrays[name] = mask
    values = {
        "num_lesions": image.num_lesions,
        "num_with_other": image.num_with_other,
        "lesion_outside_box": image.lesion_outside_box.tolist(),
        "other_outside_box": image.other_outside_box,
        "ignore_outside_box": image.ignore_outside_box,
        "shape": image.shape,
        "origin": image.origin,
        "spacing_mm": image.spacing_mm,
        "affine": image.affine.tolist(),
        "left_right_axis": image.left_right_axis,
        "warnings": image.warnings,
        "raw": image.raw,
        "source_shape": image.source_shape,
        "source_spacing_mm": image.source_spacing_mm,
    }
    return arrays, values


def _from_store(case: Case, arrays: dict[str, Any], values: dict[str, Any]) -> Image:
    """The image that `_to_store` took apart; who the case is comes from its cohort."""
    tuples: dict[str, Any] = {
        name: tuple(value) for name, value in values.items() if isinstance(value, list)
    }
    outside = np.array(values["lesion_outside_box"], dtype=np.int32).reshape(-1, 4)
    affine = np.array(values["affine"], dtype=np.float64)
    defaults: dict[str, Any] = {"other": None}
    raw = tuple(tuple(channel) for channel in values["raw"])
    restored: dict[str, Any] = {"lesion_outside_box": outside, "affine": affine, "raw": raw}
    return Image(
        case=case.id,
        subject=case.subject,
        site=case.site,
        channels=tuple(case.channels),
        **(defaults | arrays | values | tuples | restored),
    )


# ------------------------------------------------------------------------------------- helpers
def _of_activity(case: Case, image: Image, activity: Activity) -> Image:
    """The image with what is recorded of its mask, and a warning if it is not that mask.

    Recorded are the files' voxels, ignored ones too; what the image keeps is counted as it is used.
    """
    counts, voxels = activity.cases.get(case.id), image.lesion_voxels
    if counts and (image.source_shape or image.ignore is not None):
        first = read(next(iter(case.channels.values())))
        original = required(case.lesion.parent, ORIGINAL_LESION)
        change = read_marks(replace(case, lesion=original), first).on(
            Grid.of(first, case.spacing_mm)
        )
        voxels = int(np.count_nonzero(binary_mask(read(case.lesion))))
        used = replace(
            counts,
            lesions=image.num_lesions,
            voxels=image.lesion_voxels,
            all_lesions=components(change.lesion)[1],
            all_voxels=int(np.count_nonzero(change.lesion)),
        )
    else:
        used = counts
    warnings = image.warnings
    if counts is None or counts.voxels != voxels:
        expected = "no mask" if counts is None else f"one of {counts.voxels} voxels"
        warnings += (
            f"{case.lesion.parent.name}/{case.lesion.name}: holds {voxels} voxels, but {PREPARED} "
            f"records {expected} as positive activity; sort out the cohort again",
        )
    return replace(image, activity=used, warnings=warnings)


def _check_masks(cases: Sequence[Case]) -> None:
    """Every case has masks of its own: a layout that gives one to two cases is mistaken."""
    owners: dict[Path, str] = {}
    for case in cases:
        for mask in {case.lesion, case.brain or case.lesion, case.ignore or case.lesion}:
            if mask in owners:
                raise ValueError(
                    f"{mask}: is a mask of {owners[mask]} and of {case.id}; expected a file of its "
                    "own for every case"
                )
            owners[mask] = case.id


def _cut(mask: np.ndarray | None, box: Box) -> tuple[np.ndarray | None, int]:
    """A mask's part in the box, and how many of its voxels are outside; None and 0 of none."""
    if mask is None:
        return None, 0
    inside = np.ascontiguousarray(mask[box])
    return inside, int(np.count_nonzero(mask) - np.count_nonzero(inside))


def _warnings(
    case: Case, files: Sequence[File], marks: Marks, brain: np.ndarray, voxel_mm3: float
) -> list[str]:
    first = files[0]
    lesion_name, brain_name, ignore_name = (
        f"{path.parent.name}/{path.name}"
        for path in (case.lesion, case.brain or first.path, case.ignore or case.lesion)
    )
    found = []
    lesion = marks.lesion
    total, outside = np.count_nonzero(lesion), np.count_nonzero(lesion & ~brain)
    if marks.lesion_ignored is not None:
        ignored = np.count_nonzero(marks.lesion_ignored)
        found.append(
            f"{ignore_name}: {ignored} of {total + ignored} lesion voxels are to be ignored and "
            "count for nothing"
        )
    if outside:
        found.append(
            f"{lesion_name}: {outside} of {total} lesion voxels lie outside the brain mask"
        )
    if not total:
        found.append(f"{lesion_name}: no lesion voxel; tested on, but never trained on")
    brain_ml = np.count_nonzero(brain) * voxel_mm3 / 1000
    if brain_ml > LARGEST_BRAIN_ML:
        found.append(
            f"{brain_name}: {brain_ml:.0f} ml of brain, more than anybody has; a whole head?"
        )
    return found + oddities_of(files)


def _lost(
    case: Case, grid: Grid, drawn: np.ndarray, labels: np.ndarray, num_lesions: int
) -> Iterator[str]:
    """What resampling did to the lesions, if that is more than `CHANGED`."""
    before = components(drawn)[1], np.count_nonzero(drawn) / np.prod(grid.step)
    after = num_lesions, np.count_nonzero(labels)
    change = [now / old - 1 if old else 0.0 for now, old in zip(after, before, strict=True)]
    if max(map(abs, change)) > CHANGED:
        yield (
            f"{case.lesion.parent.name}/{case.lesion.name}: resampling changed the lesions' volume "
            f"by {change[1]:+.1%} and their number from {before[0]} to {after[0]}"
        )


def _volume_mm3(affine: np.ndarray) -> float:
    """Volume of a voxel, sheared or not."""
    return float(abs(np.linalg.det(affine[:3, :3])))
