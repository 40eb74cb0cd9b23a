"""Between which values do the trials lie, and what is their mean?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.reading.scores import METRICS, VIEWS, CohortScores


def band(curves: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Lowest, mean and highest over the given axes, and how many trials are behind each point.

    NaN is a trial that is absent or an epoch mean that no case defines; it is left out, and the
    fourth array says how many were left in.

    >>> low, mean, high, n = band(np.array([[0.2, 0.4], [0.6, np.nan]]), (0,))
    >>> low.tolist(), mean.tolist(), high.tolist(), n.tolist()
    ([0.2, 0.4], [0.4, 0.4], [0.6, 0.4], [2, 1])
    """
    number = (~np.isnan(curves)).sum(axes)
    with warnings.catch_warnings():  # all-NaN points stay NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmin(curves, axes), np.nanmean(curves, axes), np.nanmax(curves, axes), number


def band_frame(
    cohort: CohortScores,
    bands: Sequence[np.ndarray],
    *,
    by_fold: bool = False,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """What `band` gives: a row per loss, (fold,) epoch, view and metric that a trial is behind."""
    axes = {"loss": cohort.losses} | ({"fold": cohort.folds} if by_fold else {})
    axes |= {"epoch": range(cohort.num_epochs + 1), "view": VIEWS, "metric": metrics}
    names = ("lowest", "mean", "highest", "trials")
    frame = pd.DataFrame(
        {name: part.ravel() for name, part in zip(names, bands, strict=True)},
        index=pd.MultiIndex.from_product(list(axes.values()), names=list(axes)),
    ).reset_index()
    frame.insert(0, "cohort", cohort.name)
    return frame[frame["trials"] > 0]
