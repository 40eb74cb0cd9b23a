"""Which loss has the highest mean, over what all that can be compared have?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import CohortScores
from analysis.statistics.absence import compared
from analysis.statistics.ladder import RATE, Ladder, ladder
from lesion_core import standing


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
