"""Which losses can be compared, how often does training fail, and did some trainings collapse?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.reading.scores import CohortScores
from analysis.statistics import confidence
from analysis.statistics.pairs import cell_means
from lesion_core.standing import complete_grid

ODD = 6.0
"""Robust standard deviations from the median of its fold's seeds at which a training is odd."""
FEWEST_SEEDS = 3
"""Seeds of a fold among which one can be told to be odd."""


def compared(cohort: CohortScores) -> list[int]:
    """The losses of a cohort that are complete enough to be compared."""
    return complete_grid(cohort.done, cohort.shown)[0]


def given_up(cohort: CohortScores) -> str:
    """A sentence about the losses that are not compared, with a space before it; "" if none."""
    left = complete_grid(cohort.done, cohort.shown)[1]
    if not left:
        return ""
    total = (cohort.status != "").sum((1, 2))
    names = ", ".join(
        f"{cohort.losses[loss]} ({cohort.done[loss].sum()} of {total[loss]} trials)"
        for loss in left
    )
    return f" Too incomplete to be compared: {names}."


def lacking(cohort: CohortScores, losses: Sequence[int]) -> str:
    """What these losses lack, in words: trials, or else cases that define their score."""
    asked = cohort.status[list(losses)] != ""
    return "missing trials" if (asked & ~cohort.done[list(losses)]).any() else "undefined cases"


def shared_cells(cohort: CohortScores, losses: Sequence[int]) -> np.ndarray:
    """[S, F] whether all these losses completed the cell; all True if they share none."""
    cells = np.asarray(cohort.done[list(losses)].all(0))
    return cells if cells.any() else np.ones_like(cells)


def failures_as_zero(scores: np.ndarray, cohort: CohortScores) -> np.ndarray:
    """Scores [L, S, P] with 0 for every test case of a training that diverged: the worst DSC."""
    diverged = (cohort.status == "diverged")[:, :, cohort.fold_of]
    return np.where(diverged, 0.0, scores)


@dataclass(frozen=True)
class Failures:
    """How many of a loss's trainings went wrong, of those that came to an end."""

    diverged: int
    ended: int
    """Complete or diverged."""
    odd: int
    judged: int
    """Complete trainings in folds with enough seeds to tell an odd one."""

    @property
    def diverged_interval(self) -> tuple[float, float]:
        """Exact interval of the rate at which trainings diverge."""
        return confidence.exact_share(self.diverged, self.ended)

    @property
    def odd_interval(self) -> tuple[float, float]:
        """Exact interval of the rate of odd trainings."""
        return confidence.exact_share(self.odd, self.judged)


def failures(cohort: CohortScores, scores: np.ndarray) -> dict[int, Failures]:
    """By loss that was asked for, from scores [L, S, P]."""
    cells = np.stack([cell_means(own, cohort.fold_of, cohort.subject_of) for own in scores])
    odd, judged = odd_cells(cells)
    asked = np.flatnonzero((cohort.status != "").any((1, 2)))
    diverged = (cohort.status == "diverged").sum((1, 2))
    ended = diverged + cohort.done.sum((1, 2))
    return {
        int(loss): Failures(
            int(diverged[loss]), int(ended[loss]), int(odd[loss].sum()), int(judged[loss].sum())
        )
        for loss in asked
    }


def odd_cells(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[L, S, F] which trainings ended far from their siblings, and which could be judged.

    Far: more than `ODD` robust standard deviations (1.4826 times the median absolute residual of
    the loss's own trainings) from the median over the seeds of the same loss and fold.
    """
    known = ~np.isnan(cells)
    judged = known & (known.sum(1, keepdims=True) >= FEWEST_SEEDS)
    odd = np.zeros_like(known)
    for loss in range(len(cells)):
        folds = judged[loss].any(0)
        if not folds.any():
            continue
        own = cells[loss][:, folds]
        left = own - np.nanmedian(own, 0)
        away = np.abs(left[judged[loss][:, folds]])
        # The median over few seeds is one of them: their own zeros say nothing of the spread.
        spread = 1.4826 * np.median(away[away > 0]) if (away > 0).any() else 0.0
        if spread > 0:
            odd[loss][:, folds] = np.abs(np.nan_to_num(left)) > ODD * spread
    return odd & judged, judged
