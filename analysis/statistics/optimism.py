"""How much of a score is the choosing of its epoch, and can three rates belong to one network?"""

from __future__ import annotations

import numpy as np

from analysis.reading.scores import CohortScores, at_epoch
from analysis.statistics import selection

# Reported in Table 2 of Cabezas & Diez 2024 (CC BY): DSC, sensitivity, precision, each for
# patch, train, test.  WMH is coherent; LIT is not (17 of 21 cells exceed 2PR / (P + R)).
SLACK = 0.005
"""Rounding slack of a table with two decimals."""


def coherence_excess(dice: float, sensitivity: float, precision: float) -> float:
    """By how much a mean DSC exceeds the most that its mean sensitivity and precision allow.

    DSC is the harmonic mean of sensitivity R and precision P, which is jointly concave, so for
    one set of cases mean DSC <= 2 PR / (P + R) of the mean P and R (Jensen).  Positive: the three
    columns are not the same networks on the same cases.

    >>> round(coherence_excess(0.6, 0.5, 0.5), 3)
    0.1
    """
    if np.isnan([dice, sensitivity, precision]).any():
        return float("nan")
    total = sensitivity + precision
    return float(dice - (2 * sensitivity * precision / total if total > 0 else 0.0))


def mean_over_folds(cohort: CohortScores, selector: str) -> tuple[np.ndarray, np.ndarray]:
    """[L, views, metrics] mean over the folds that have a value, and [L] how many have one."""
    values = selection.by_fold(cohort.curves, cohort.last_epoch, selector)
    number = (~np.isnan(values)).sum(1)
    mean = np.divide(
        np.nansum(values, 1), number, out=np.full(number.shape, np.nan), where=number > 0
    )
    return mean, cohort.done.any(1).sum(1)


def numbers_behind(cohort: CohortScores, selector: str, view: int, metric: int) -> tuple[int, int]:
    """Cases (patches) asked for and defined, summed over the networks behind a column."""
    asked, defined = cohort.asked[..., view], cohort.defined[..., view, metric]
    if selector == "oracle":
        flat = (len(cohort.losses), len(cohort.folds), -1)
        values, asked, defined = (
            np.moveaxis(part[:, :, :, 1:], 2, 1).reshape(flat)
            for part in (cohort.curves[..., view, metric], asked, defined)
        )
        chosen = np.argmax(np.nan_to_num(values, nan=-np.inf), -1) if values.size else None
        if chosen is None:
            return 0, 0
        # A fold without any defined value has no network behind it: count what it asked for.
        asked, defined = (at_epoch(part, chosen) for part in (asked, defined))
    else:
        epochs = selection.epochs(cohort.curves, cohort.last_epoch, selector)
        asked, defined = (at_epoch(part, epochs) for part in (asked, defined))
    return int(np.nansum(asked)), int(np.nansum(defined))
