"""What the voxels of a case's masks are: lesion, other pathology, ignored, or background."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lesion_core.cohorts import Case
from lesion_core.nifti import File, binary_mask, read_on_grid, stored_values, whole_numbers
from lesion_core.resampling import Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """Masks of a whole image, bool ``[X, Y, Z]``; no voxel is in two of them."""

    lesion: np.ndarray
    other: np.ndarray | None
    """Other pathology; None if the case cannot have any."""
    ignore: np.ndarray | None
    """Left out of training and of every score; None if the case cannot have any."""
    lesion_ignored: np.ndarray | None = None
    """What the lesion mask marks as lesion where another file says to ignore it; None: nothing."""
    files: tuple[File, ...] = ()
    """Where it was read from."""

    def on(self, grid: Grid) -> Marks:
        """The same on the grid that the case is used on: those of the nearest voxel."""
        if not grid.resampled:
            return self
        masks = {name: getattr(self, name) for name in ("other", "ignore", "lesion_ignored")}
        moved = {name: grid.mask(mask) for name, mask in masks.items() if mask is not None}
        return replace(self, lesion=grid.mask(self.lesion), **moved)

    @property
    def lesion_or_other(self) -> np.ndarray:
        """bool ``[X, Y, Z]``."""
        return self.lesion if self.other is None else self.lesion | self.other


def read_marks(case: Case, grid: File) -> Marks:
    """Read the lesion mask, and the mask of ignored voxels if there is one.

    Ignored voxels are neither lesion nor other pathology, whatever is marked there: a lesion that
    is partly ignored is what is left of it, and two if that is in two pieces.

    Raises:
        ValueError: a mask is on another grid, or holds what it should not.
    """
    files = [read_on_grid(case.lesion, grid)]
    numbers = whole_numbers(files[0], case.labels.expected)
    _check_known(case, numbers)
    lesion = np.isin(numbers, case.labels.lesion)
    other = np.isin(numbers, case.labels.other) if case.labels.other else None
    ignore = np.isin(numbers, case.labels.ignore) if case.labels.ignore else None
    if case.ignore is not None:
        files.append(read_on_grid(case.ignore, grid))
        also = binary_mask(files[-1]) == 1
        ignore = also if ignore is None else ignore | also
    if ignore is None:
        return Marks(lesion=lesion, other=other, ignore=None, files=tuple(files))
    both = lesion & ignore
    return Marks(
        lesion=lesion & ~ignore,
        other=None if other is None else other & ~ignore,
        ignore=ignore,
        lesion_ignored=both if both.any() else None,
        files=tuple(files),
    )


def _check_known(case: Case, numbers: np.ndarray) -> None:
    known = case.labels.known
    if known is None or set(range(int(numbers.max()) + 1)) <= known:
        return
    found = np.unique(numbers)
    if not set(found.tolist()) <= known:
        cure = (
            "correct the mask, or declare what is missing"
            if case.labels.names
            else "binarise it first, or say with --lesion-label which numbers are the lesion"
        )
        raise ValueError(
            f"{case.lesion}: the mask holds {stored_values(found)}; expected "
            f"{case.labels.expected} only; {cure}"
        )
