"""Which losses can be compared, how often does training fail, and did some trainings collapse?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def comparable(cohort: CohortScores) -> CohortScores:
    """The cohort with those trainings alone that set its losses side by side: of the losses that
    can be compared, the (seed, fold) cells that all of them completed.

    Every number of a report that sets losses side by side is over these, but for differences of
    two losses, which are over what both have.  A loss that is given up keeps what it has.
    """
    losses = compared(cohort)
    cells = shared_cells(cohort, losses)
    out = np.zeros(cohort.done.shape, bool)
    out[losses] = cohort.done[losses] & ~cells
    if not out.any():
        return cohort
    of_case = out[:, :, cohort.fold_of]

    def without(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        left = values.astype(float)
        left[where] = np.nan
        return left

    at = tuple(cohort.final[f"{axis}_index"].to_numpy(int) for axis in ("loss", "seed", "fold"))
    return replace(
        cohort,
        status=np.where(out, "", cohort.status),
        last_epoch=np.where(out, -1, cohort.last_epoch),
        curves=without(cohort.curves, out),
        defined=np.where(out[..., None, None, None], 0, cohort.defined),
        asked=np.where(out[..., None, None], 0, cohort.asked),
        test=without(cohort.test, of_case),
        counts=without(cohort.counts, of_case),
        pooled=without(cohort.pooled, out),
        final=cohort.final[~out[at]],
    )


def side_by_side(cohort: CohortScores) -> str:
    """Which trainings of a cohort are in its `comparable` part, in words: n of N."""
    losses, left = complete_grid(cohort.done, cohort.shown)
    own = cohort.done[losses]
    cells = own.all(0)
    if not cells.any() or (own.any(0) == cells).all():
        return cohort.presence
    text = (
        f"{int(cells.sum())} of {len(cohort.seeds) * len(cohort.folds)} (seed, fold) cells, those "
        f"that {'the' if left else 'all'} {len(losses)} losses {'compared ' if left else ''}have: "
        f"{int(cells.sum()) * len(losses)} of {int(own.sum())} trainings"
    )
    if left:
        text += f"; {', '.join(cohort.losses[loss] for loss in left)}: all complete trainings"
    return text


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
