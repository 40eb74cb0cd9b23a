"""How are scores distributed, over all epochs (as the authors pool them) or over patients?"""

from __future__ import annotations

import numpy as np
from scipy.stats import gaussian_kde

from analysis.reading.scores import CohortScores
from analysis.statistics.subjects import by_subject


def pooled_epochs(curves: np.ndarray) -> np.ndarray:
    """[L, S F E, views, metrics]: every epoch mean after epoch 0, flattened.

    As in the authors' notebook: seeds x folds x epochs.
    """
    values = curves[:, :, :, 1:]
    return values.reshape(values.shape[0], -1, *values.shape[4:])


def patient_scores(cohort: CohortScores) -> np.ndarray:
    """[L, subjects, metrics]: mean over seeds, then over sessions, of a patient's rates at the last
    epoch.

    A case whose rate is undefined or absent for some seed counts with the others; NaN when there
    is none, and left out of its patient's mean.
    """
    final = cohort.last_by_case(cohort.test)
    number = (~np.isnan(final)).sum(1)
    total = np.nansum(final, 1)
    by_case = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return by_subject(by_case, cohort.subject_of, axis=1)


def outline(values: np.ndarray, points: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density (Scott's rule) between the extremes, scaled to a peak of 1.

    Fewer than three different values give no outline.
    """
    values = values[~np.isnan(values)]
    if len(np.unique(values)) < 3:
        return np.empty(0), np.empty(0)
    grid = np.linspace(values.min(), values.max(), points)
    density = gaussian_kde(values)(grid)
    return grid, density / density.max()
