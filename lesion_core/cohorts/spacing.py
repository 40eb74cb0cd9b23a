"""Which voxel size the cases of a cohort are resampled to: what was asked for, or the median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lesion_core.cohorts.case import Case, Layout

MEDIAN = "median"


def spacing_asked(spacing: Sequence[str]) -> tuple[str, ...]:
    """The words of ``--spacing`` in the one way in which they are stored.

    >>> spacing_asked(["1", "1.0", "3"]), spacing_asked(["median"]), spacing_asked([])
    (('1', '1', '3'), ('median',), ())

    Raises:
        ValueError: neither three voxel sides that a brain can have, nor median.
    """
    from lesion_core.nifti import LARGEST_VOXEL_MM, SMALLEST_VOXEL_MM

    if not spacing or list(spacing) == [MEDIAN]:
        return tuple(spacing)
    said = f"--spacing {' '.join(spacing)}"
    try:
        sides_mm = [float(side) for side in spacing]
    except ValueError:
        raise ValueError(f"{said}: expected three numbers, mm, or median; such as 1 1 3") from None
    if len(sides_mm) != 3:
        fix = " ".join([spacing[0]] * 3) if len(sides_mm) == 1 else "1 1 3"
        raise ValueError(
            f"{said}: {len(sides_mm)} numbers; expected three, mm, left-right, back-front and "
            f"foot-head; did you mean {fix}?"
        )
    for side_mm in sides_mm:
        if not SMALLEST_VOXEL_MM <= side_mm <= LARGEST_VOXEL_MM:  # also NaN
            raise ValueError(
                f"{said}: a voxel side of {side_mm:g} mm; expected {SMALLEST_VOXEL_MM:g} to "
                f"{LARGEST_VOXEL_MM:g} mm"
            )
    return tuple(f"{side_mm:g}" for side_mm in sides_mm)


def cases_as_read(cohort: Layout, data: Path) -> list[Case]:
    """The cohort's cases, each with the voxel size that it is resampled to, if any.

    Raises:
        ValueError: as `Layout.cases`; or a header that the median needs cannot be read.
    """
    cases = cohort.cases(data)
    spacing_mm = _spacing_mm(cohort, cases)
    return [replace(case, spacing_mm=spacing_mm) for case in cases] if spacing_mm else cases


def spacing_lines(cases: Sequence[Case]) -> list[str]:
    """The line that says to which voxel size a cohort's cases are resampled; none if to none."""
    if not cases or (spacing_mm := cases[0].spacing_mm) is None:
        return []
    size = " x ".join(f"{side_mm:g}" for side_mm in spacing_mm)
    return [f"resampled to {size} mm (left-right, back-front, foot-head)"]


def _spacing_mm(cohort: Layout, cases: Sequence[Case]) -> tuple[float, float, float] | None:
    """Voxel size that the cases are resampled to, mm (left-right, back-front, foot-head).

    The median is one for each direction, over the cases' first channels by their headers, to 0.1
    micron.  None: each case keeps its own.
    """
    asked = spacing_asked(cohort.spacing)
    if not asked:
        return None
    if asked != (MEDIAN,):
        x, y, z = map(float, asked)
        return x, y, z
    import numpy as np

    from lesion_core.nifti import read_header

    found = [read_header(next(iter(case.channels.values()))).body_spacing_mm for case in cases]
    x, y, z = (round(float(side), 4) for side in np.median(found, axis=0))
    return x, y, z
