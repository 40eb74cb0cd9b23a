"""What the voxels of a case's masks are: lesion, other pathology, ignored, or background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesion_core.cohorts import Case
from lesion_core.nifti import File, mask_labels, read_on_grid, stored_values, whole_numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """Masks of a whole image, bool ``[X, Y, Z]``; no voxel is in two of them."""

    lesion: np.ndarray
    other: np.ndarray | None
    """Other pathology; None if the case cannot have any."""
    ignore: np.ndarray | None
    """Left out of training and of every score; None if the case cannot have any."""
    lesion_ignored: int = 0
    """Voxels that the lesion mask marks as lesion where another file says to ignore them."""

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
    numbers = whole_numbers(read_on_grid(case.lesion, grid), case.labels.expected)
    _check_known(case, numbers)
    lesion = np.isin(numbers, case.labels.lesion)
    other = np.isin(numbers, case.labels.other) if case.labels.other else None
    ignore = np.isin(numbers, case.labels.ignore) if case.labels.ignore else None
    if case.ignore is not None:
        also = mask_labels(read_on_grid(case.ignore, grid), highest=1) == 1
        ignore = also if ignore is None else ignore | also
    if ignore is None:
        return Marks(lesion=lesion, other=other, ignore=None)
    return Marks(
        lesion=lesion & ~ignore,
        other=None if other is None else other & ~ignore,
        ignore=ignore,
        lesion_ignored=int(np.count_nonzero(lesion & ignore)),
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
