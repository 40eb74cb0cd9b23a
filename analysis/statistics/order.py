"""Which loss has the highest mean, over what all of them have?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import CohortScores
from analysis.statistics.ladder import Ladder, ladder


def best_first(scores: np.ndarray, cohort: CohortScores) -> list[int]:
    """Shown losses by mean over what all of them have (`shared_means`); undefined last."""
    fits = shared_means(scores, cohort)
    means = [fits[loss].estimate for loss in cohort.shown]
    order = np.argsort([-value if value == value else np.inf for value in means], kind="stable")
    return [cohort.shown[i] for i in order]


def shared_means(scores: np.ndarray, cohort: CohortScores) -> dict[int, Ladder]:
    """Shown loss -> its mean over the (seed, fold) cells and cases that all of them have, with
    cells and folds weighed as in a difference.  A loss without any value does not count; if
    nothing is shared, every loss is over what it has itself."""
    own = scores[cohort.shown]
    known = ~np.isnan(own).all((1, 2))
    absent = np.isnan(own[known]).any(0)
    if not absent.all():
        own = np.where(absent, np.nan, own)
    return {
        loss: ladder(part, cohort.fold_of, cohort.subject_of)
        for loss, part in zip(cohort.shown, own, strict=True)
    }
