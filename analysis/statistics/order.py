"""What is the mean of every loss, over what all that can be compared have, and which is highest?

Every mean of a report that sets losses side by side is made here: over the seeds of a (seed, fold)
grid that all of them completed, then over patients, who weigh alike.
"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import METRICS, VIEWS, CohortScores
from analysis.statistics.absence import comparable, compared
from analysis.statistics.ladder import RATE, Ladder, ladder
from analysis.statistics.selection import mean_over
from analysis.statistics.subjects import number_of
from lesion_core import standing

SAME = 1e-12
"""Scores that differ by less are the same: what is left is the order in which they were added."""


def best_first(scores: np.ndarray, cohort: CohortScores) -> list[int]:
    """The losses that can be compared by mean over what all of them have (`shared_means`);
    undefined last.  The rule is `standing.best_first`, by which networks are chosen too."""
    return list(standing.best_first(scores, cohort.done, cohort.fold_of, cohort.subject_of))


def shared_means(scores: np.ndarray, cohort: CohortScores) -> dict[int, Ladder]:
    """Loss -> its mean over the (seed, fold) cells and cases that all losses have that can be
    compared (`standing.complete_grid`), with cells and folds weighed as in a difference.  A loss
    without any value does not count; if nothing is shared, every loss is over what it has itself.
    """
    losses = compared(cohort)
    return {
        loss: ladder(part, cohort.fold_of, cohort.subject_of, bounds=RATE)
        for loss, part in zip(losses, standing.shared(scores[losses]), strict=True)
    }


def every_mean(scores: np.ndarray, cohort: CohortScores) -> dict[int, Ladder]:
    """`shared_means`, and of a loss that is given up its mean over what it has itself."""
    shared = shared_means(scores, cohort)
    return {
        loss: shared[loss]
        if loss in shared
        else ladder(scores[loss], cohort.fold_of, cohort.subject_of, bounds=RATE)
        for loss in cohort.shown
    }


def last_means(cohort: CohortScores) -> np.ndarray:
    """[L, views, metrics] mean of every loss at its last epoch.

    Test images: `every_mean`.  Training images and patches, which are not kept case by case: the
    same cells, epoch means weighed by the patients of their fold (`over_folds`).
    """
    own = comparable(cohort)
    means = over_folds(own.last_by_fold(own.curves), own)
    test = cohort.last_by_case(cohort.test)
    for place in range(len(METRICS)):
        for loss, fit in every_mean(test[..., place], cohort).items():
            means[loss, VIEWS.index("test"), place] = fit.estimate
    return means


def over_folds(values: np.ndarray, cohort: CohortScores) -> np.ndarray:
    """[L, ...] mean of [L, S, F, ...] over the seeds of a fold, then over folds by the patients
    that they test; what is NaN is left out."""
    by_fold = mean_over(values, 1)
    weight = fold_weights(cohort).reshape(-1, *[1] * (by_fold.ndim - 2))
    known = ~np.isnan(by_fold)
    total = (known * weight).sum(1)
    summed = np.where(known, by_fold * weight, 0.0).sum(1)
    return np.divide(summed, total, out=np.full(total.shape, np.nan), where=total > 0)


def fold_weights(cohort: CohortScores) -> np.ndarray:
    """[F] number of patients that a fold tests."""
    folds = range(len(cohort.folds))
    return np.array([number_of(cohort.subject_of, cohort.fold_of == f) for f in folds], float)


def best_of(values: np.ndarray) -> np.ndarray:
    """Places of the highest value, all of them where several are the same.

    >>> best_of(np.array([0.2, 0.5, 0.5, np.nan])).tolist()
    [1, 2]
    """
    if np.isnan(values).all():
        return np.empty(0, int)
    return np.flatnonzero(values >= np.nanmax(values) - SAME)
