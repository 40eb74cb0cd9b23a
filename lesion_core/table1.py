"""Table 1 of the paper: how rare lesions are in a cohort, from its table of cases.

Per cent of the brain and of the training patches as mean +- standard deviation, and pooled over
all voxels; mean size and number of the 26-connected lesions.  Label 1 counts; what the numbers
would be if label 2, other pathology, counted as well stands beside them (the paper's code counted
both labels everywhere but in the patches).  Where the masks are the positive part of masks of all
change, the same cases with all change stand below them.  Ignored voxels are neither part nor whole.
pandas and numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lesion_core.spreadsheets import not_a_formula


@dataclass(frozen=True, kw_only=True)
class Share:
    """A percentage over several things: cases, or patches."""

    mean: float
    sd: float
    """Between them, with n - 1; NaN for a single one."""
    pooled: float
    """The share of all voxels together."""

    @staticmethod
    def of(part: np.ndarray, whole: np.ndarray) -> Share:
        """NaN where there is nothing.

        >>> Share.of(np.array([1, 3]), np.array([100, 300]))
        Share(mean=1.0, sd=0.0, pooled=1.0)
        """
        percent = 100 * part / whole
        return Share(
            mean=float(percent.mean()) if len(percent) else float("nan"),
            sd=float(percent.std(ddof=1)) if len(percent) > 1 else float("nan"),
            pooled=float(100 * part.sum() / whole.sum()) if len(percent) else float("nan"),
        )

    def __str__(self) -> str:
        """The numbers as the paper writes them.

        >>> str(Share(mean=1.5, sd=float("nan"), pooled=1.25))
        '1.50 ± - [1.25]'
        """
        sd = "-" if np.isnan(self.sd) else f"{self.sd:.2f}"
        return f"{self.mean:.2f} ± {sd} [{self.pooled:.2f}]"


POSITIVE = "positive activity"
ALL_CHANGE = "all change"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of Table 1."""

    cohort: str
    labels: str
    """Which labels count as lesion: 1, or 1+2; or which changes: POSITIVE, or ALL_CHANGE."""
    cases: int
    brain: Share
    patches: Share | None
    """None: the table of cases has no patches, or training never sees these lesions: label 2, or
    change that is not positive."""
    num_patches: int | None
    mean_size_voxels: float
    """NaN without a lesion."""
    mean_size_mm3: float
    lesions: int


def rows(cases: pd.DataFrame) -> list[Row]:
    """Rows of one cohort, from its `results.COHORT_CASES`.

    One of label 1, and one of labels 1 and 2 together if there is a label 2.  Of a cohort of
    positive activity one of that, and one of all change if its counts are there.
    """
    lesion, other = (
        np.asarray(cases[name], np.int64) for name in ("lesion_voxels", "other_voxels")
    )
    number, with_other = (
        np.asarray(cases[name], np.float64) for name in ("n_lesions", "n_lesions_with_other")
    )
    if "activity" in cases and (cases["activity"] == "positive").all():
        found = [_row(cases, POSITIVE, lesion, number)]
        change = cases[["lesion_voxels_all_change", "n_lesions_all_change"]]
        if not change.isna().any(axis=None):
            voxels, lesions = (np.asarray(change[name], np.int64) for name in change)
            found.append(_row(cases, ALL_CHANGE, voxels, lesions.astype(np.float64)))
        return found
    found = [_row(cases, "1", lesion, number)]
    if other.any() and not np.isnan(with_other).any():
        found.append(_row(cases, "1+2", lesion + other, with_other))
    return found


def judged_brain_voxels(cases: pd.DataFrame) -> np.ndarray:
    """Voxels of each brain that are not ignored."""
    ignored = [0 if n is None or np.isnan(n) else n for n in _older(cases, "ignore_brain_voxels")]
    return np.asarray(cases["brain_voxels"], np.int64) - np.asarray(ignored, np.int64)


def _older(cases: pd.DataFrame, name: str) -> list:
    """A column that tables of earlier releases lack: then None, for nothing could be ignored."""
    return list(cases[name]) if name in cases else [None] * len(cases)


def _row(cases: pd.DataFrame, labels: str, lesion: np.ndarray, number: np.ndarray) -> Row:
    count = int(number.sum())
    boxes_mm3 = np.array([np.prod(spacing) for spacing in cases["spacing_mm"]])
    mm3 = boxes_mm3
    if "voxel_mm3" in cases:  # null in older folders
        mm3 = cases["voxel_mm3"].astype(np.float64).fillna(pd.Series(boxes_mm3, cases.index))
    mm3 = np.asarray(mm3, np.float64)
    patches, num_patches = None, None
    if labels in ("1", POSITIVE) and all(part is not None for part in cases["patch_lesion_voxels"]):
        parts = [np.asarray(part, dtype=np.int64) for part in cases["patch_lesion_voxels"]]
        wholes = [
            np.full(len(part), voxels) - (0 if ignored is None else np.asarray(ignored, np.int64))
            for part, voxels, ignored in zip(
                parts, cases["patch_voxels"], _older(cases, "patch_ignore_voxels"), strict=True
            )
        ]
        patches = Share.of(np.concatenate(parts), np.concatenate(wholes))
        num_patches = sum(map(len, parts))
    return Row(
        cohort=str(cases["cohort"].iloc[0]),
        labels=labels,
        cases=len(cases),
        brain=Share.of(lesion, judged_brain_voxels(cases)),
        patches=patches,
        num_patches=num_patches,
        mean_size_voxels=float(lesion.sum() / count) if count else float("nan"),
        mean_size_mm3=float((lesion * mm3).sum() / count) if count else float("nan"),
        lesions=count,
    )


HEADER = (
    "Dataset", "Labels", "Cases", "% (brain)", "% (batch)", "Mean lesion size", "Lesion number"
)  # fmt: skip


def _cells(row: Row) -> list[str]:
    return [
        row.cohort,
        row.labels,
        str(row.cases),
        str(row.brain),
        "-" if row.patches is None else str(row.patches),
        "-" if np.isnan(row.mean_size_voxels) else f"{row.mean_size_voxels:.2f}",
        str(row.lesions),
    ]


def as_text(table: Sequence[Row]) -> str:
    """The table in aligned columns, for a terminal."""
    lines = [list(HEADER), *map(_cells, table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_latex(table: Sequence[Row]) -> str:
    """The table as a booktabs tabular."""
    lines = [r"\begin{tabular}{llrcccr}", r"\toprule", _tex(HEADER), r"\midrule"]
    lines += [_tex(_cells(row)) for row in table]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex(cells: Sequence[str]) -> str:
    row = " & ".join("".join(_TEX.get(letter, letter) for letter in cell) for cell in cells)
    # At the start of a row, these would be an option of the row's end before.
    return rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\"


_TEX = {
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def as_frame(table: Sequence[Row]) -> pd.DataFrame:
    """The table in plain numbers, for a CSV file."""
    return pd.DataFrame(
        [
            {
                "cohort": not_a_formula(row.cohort),
                "labels": row.labels,
                "cases": row.cases,
                "brain_percent_mean": row.brain.mean,
                "brain_percent_sd": row.brain.sd,
                "brain_percent_pooled": row.brain.pooled,
                "patch_percent_mean": row.patches.mean if row.patches else None,
                "patch_percent_sd": row.patches.sd if row.patches else None,
                "patch_percent_pooled": row.patches.pooled if row.patches else None,
                "patches": row.num_patches,
                "mean_lesion_voxels": row.mean_size_voxels,
                "mean_lesion_mm3": row.mean_size_mm3,
                "lesions": row.lesions,
            }
            for row in table
        ]
    )
