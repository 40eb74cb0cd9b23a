"""What does every test image score at the threshold that its loss would have chosen without it?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import METRICS, CohortScores
from analysis.statistics.thresholds import fold_curves, own_thresholds, rates_at_thresholds

LEFT = 0.25
"""Share of a difference at 0.5 that may be left at own thresholds if it is one of threshold."""


def own_threshold_scores(
    cohort: CohortScores, lesion: np.ndarray, background: np.ndarray
) -> np.ndarray | None:
    """DSC [L, S, P] at each loss's own threshold, which the other folds choose (`thresholds`).

    From histograms [L, S, P, bins]; NaN where there is none.  None where nothing can be chosen:
    no histograms, or a single fold.
    """
    if np.isnan(lesion).all() or len(np.unique(cohort.fold_of)) < 2:
        return None
    rates = rates_at_thresholds(cohort, lesion, background)[..., METRICS.index("dice")]
    chosen = own_thresholds(fold_curves(rates, cohort.fold_of, cohort.subject_of))
    if not (chosen >= 0).any():
        return None
    place = np.searchsorted(np.unique(cohort.fold_of), cohort.fold_of)
    at = chosen[:, None, place, None]  # [L, 1, P, 1]
    at = np.broadcast_to(np.maximum(at, 0), (*rates.shape[:3], 1))
    own = np.take_along_axis(rates, at, -1)[..., 0]
    return np.where((chosen[:, place] >= 0)[:, None], own, np.nan)
