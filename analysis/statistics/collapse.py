"""Which losses learnt too little for a single good number of theirs to mean anything?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import METRICS, CohortScores

SHARE = 0.5
"""Of the best loss's mean DSC; below it, a loss counts as collapsed."""


def collapsed(cohort: CohortScores) -> list[str]:
    """Losses whose mean test DSC at the last epoch is less than half of the best loss's.

    A network that finds one voxel in twenty can have a precision of 1 and no false lesion: no
    merit.  Undefined scores, where nothing was predicted and nothing was there, do not count.
    """
    dice = cohort.last_by_case(cohort.test)[..., METRICS.index("dice")]
    known = ~np.isnan(dice)
    number = known.sum((1, 2))
    means = np.where(known, dice, 0.0).sum((1, 2)) / np.maximum(number, 1)
    best = max((means[loss] for loss in cohort.shown if number[loss]), default=0.0)
    return [
        cohort.losses[loss] for loss in cohort.shown if number[loss] and means[loss] < SHARE * best
    ]
