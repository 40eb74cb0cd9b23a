"""Which loss has the highest mean, over what all that can be compared have?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import CohortScores
from analysis.statistics.absence import compared
from analysis.statistics.ladder import RATE, Ladder, ladder


def best_first(scores: np.ndarray, cohort: CohortScores) -> list[int]:
    """The losses that can be compared by mean over what all of them have (`shared_means`);
    undefined last."""
    fits = shared_means(scores, cohort)
    losses = list(fits)
    means = [fits[loss].estimate for loss in losses]
    order = np.argsort([-value if value == value else np.inf for value in means], kind="stable")
    return [losses[i] for i in order]


def shared_means(scores: np.ndarray, cohort: CohortScores) -> dict[int, Ladder]:
    """Loss -> its mean over the (seed, fold) cells and cases that all losses have that can be
    compared (`absence.complete_grid`), with cells and folds weighed as in a difference.  A loss
    without any value does not count; if nothing is shared, every loss is over what it has itself.
    """
    losses = compared(cohort)
    own = scores[losses]
    known = ~np.isnan(own).all((1, 2))
    absent = np.isnan(own[known]).any(0)
    if not absent.all():
        own = np.where(absent, np.nan, own)
    return {
        loss: ladder(part, cohort.fold_of, cohort.subject_of, bounds=RATE)
        for loss, part in zip(losses, own, strict=True)
    }
