"""Where do sensitivity and precision end, and which DSC do they make?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import CohortScores


def last_means(cohort: CohortScores) -> np.ndarray:
    """[L, views, metrics] mean over trials of their last epoch."""
    values = cohort.last_by_fold(cohort.curves)
    number = (~np.isnan(values)).sum((1, 2))
    return np.divide(
        np.nansum(values, (1, 2)), number, out=np.full(number.shape, np.nan), where=number > 0
    )


def harmonic(sensitivity: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """DSC of one case with this sensitivity and precision: their harmonic mean."""
    total = sensitivity + precision
    return np.divide(2 * sensitivity * precision, total, out=np.zeros_like(total), where=total > 0)
