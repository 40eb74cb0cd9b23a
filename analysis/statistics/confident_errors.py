"""How many voxels are surely wrong: lesion given p <= 0.1, background given p >= 0.9?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import VIEWS, CohortScores


def confident_share(cohort: CohortScores) -> np.ndarray:
    """[L, S, F, E + 1, 2] test images, all cases of a fold together: lesion voxels given p <= 0.1
    (of all lesion voxels) and background voxels given p >= 0.9 (of all predicted voxels)."""
    tp, fp, fn, _, fp_sure, fn_sure = np.moveaxis(cohort.pooled[..., VIEWS.index("test"), :], -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        missed = np.where(tp + fn > 0, fn_sure / (tp + fn), np.nan)
        invented = np.where(tp + fp > 0, fp_sure / (tp + fp), np.nan)
    return np.stack([missed, invented], -1)


def sure_of_errors(cohort: CohortScores) -> np.ndarray:
    """[L, 2] at the last epoch, all test images together: share of false negatives with
    p <= 0.1, and of false positives with p >= 0.9."""
    final = cohort.last_by_fold(cohort.pooled)[..., VIEWS.index("test"), :]
    _tp, fp, fn, _, fp_sure, fn_sure = np.moveaxis(np.nansum(final, (1, 2)), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [np.where(fn > 0, fn_sure / fn, np.nan), np.where(fp > 0, fp_sure / fp, np.nan)], -1
        )
