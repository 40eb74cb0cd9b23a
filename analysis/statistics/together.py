"""What do seeds gain together, and how far does that hold: for other seeds, for other patients?

All n networks of a fold are averaged once: an ensemble of n seeds is one draw of n seeds.  How much
another draw would differ is told by leaving out one network at a time (the jackknife, Tukey 1958):
theta is a score of all, theta_(s) of all but s, and

    theta + (n - 1) (mean of theta_(.) - theta_(s))

is what seed s contributes.  The mean over s is theta, and the variance between the s, divided by n,
is the jackknife's of theta.  So an ensemble is [seeds, cases] as single networks are, paired with
them seed by seed, and `ladder` has both errors: of new seeds, and of new patients.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.reading.scores import METRICS, CohortScores
from analysis.reading.together import Together
from analysis.statistics.calibration import brier, calibration_error
from analysis.statistics.ladder import ANYWHERE, DIFFERENCE, RATE, Ladder, ladder
from analysis.statistics.lesions import lesion_rates
from analysis.statistics.selection import mean_over
from lesion_core import results, standing

SCORES = (*METRICS, "lesion_f1")

FEWEST = 3
"""Networks from which on leaving one out tells anything: of two, what is left is a network alone,
and a gain over networks alone would seem to have no error."""


def contributions(whole: np.ndarray, without: np.ndarray, member: np.ndarray) -> np.ndarray:
    """[S, P] contributions of the seeds to a score of all [P], from those without one [S, P].

    NaN where a seed is no member [S, P], and for a case that some of the scores leave undefined.

    >>> whole, member = np.array([0.9]), np.ones((3, 1), bool)
    >>> contributions(whole, np.array([[0.8], [0.85], [0.9]]), member).ravel().round(3).tolist()
    [1.0, 0.9, 0.8]
    """
    number = member.sum(0)
    undefined = (member & np.isnan(without)).any(0) | np.isnan(whole)
    total = np.where(member, without, 0.0).sum(0)
    mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    found = whole + (number - 1) * (mean - without)
    found[~member] = np.nan
    found[:, undefined] = np.nan
    return found


def score_rows(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rates and lesion F1 of each row, and its exact Brier score over the brain box."""
    found = {name: values.to_numpy(float) for name, values in results.rates(rows).items()}
    found["lesion_f1"] = lesion_rates(rows)["lesion_f1"].to_numpy(float)
    found["brier"] = (rows["brier_sum"] / rows["brier_voxels"]).to_numpy(float)
    return {str(name): values for name, values in found.items()}


def of_all(own: Together, values: np.ndarray, loss: int) -> np.ndarray:
    """[S, P] what each seed contributes to a score of all networks of a loss, of values along the
    rows; [1, P] the score itself, a single draw, where some fold has fewer than `FEWEST` networks
    or nothing is known of all but one."""
    whole, member = own.all(values)[loss], own.member[loss]
    if own.networks[loss][own.networks[loss] > 0].min() >= FEWEST:
        found = contributions(whole, own.without(values)[loss], member)
        if not np.isnan(found).all():
            return found
    return whole[None]


def own_error(
    own: Together,
    values: np.ndarray,
    loss: int,
    cohort: CohortScores,
    bounds: tuple[float, float] = ANYWHERE,
) -> Ladder:
    """The mean over patients of a score of all networks of a loss together, and its errors; of
    values along the rows."""
    return ladder(of_all(own, values, loss), cohort.fold_of, cohort.subject_of, bounds=bounds)


def gain(
    own: Together,
    values: np.ndarray,
    loss: int,
    cohort: CohortScores,
    of_one: np.ndarray | None = None,
    bounds: tuple[float, float] = DIFFERENCE,
) -> tuple[Ladder, float]:
    """All networks of a loss together minus one alone, of values along the rows (of one alone, of
    others if they are given); and the mean of one alone, over the same cases."""
    found = of_all(own, values, loss)
    alone = own.alone(values if of_one is None else of_one)[loss]
    if len(found) < len(alone):  # a draw of all, so against the mean of all its networks
        undefined = (own.member[loss] & np.isnan(alone)).any(0)
        alone = np.where(undefined, np.nan, mean_over(alone, 0))[None]
    difference = found - alone
    fit = ladder(difference, cohort.fold_of, cohort.subject_of, bounds=bounds)
    single = np.where(np.isnan(difference), np.nan, alone)
    return fit, ladder(single, cohort.fold_of, cohort.subject_of).estimate


def curve(own: Together, values: np.ndarray, loss: int, cohort: CohortScores) -> dict[int, float]:
    """Mean over patients of so many networks together, by their number; those numbers that every
    fold has that was scored."""
    folds = np.flatnonzero(own.networks[loss])
    rows = own.rows[own.rows["loss_index"] == loss]
    sizes = [set(rows["size"][np.isin(cohort.fold_of[rows["case_index"]], fold)]) for fold in folds]
    return {
        int(size): standing.weighed_mean(
            own.by_size(values, size)[loss][None], cohort.fold_of, cohort.subject_of
        ).value
        for size in sorted(set.intersection(*sizes))
    }


def calibration_together(
    own: Together, cohort: CohortScores
) -> tuple[np.ndarray, np.ndarray, dict[int, dict[str, Ladder]]]:
    """Histograms [L, 1, P, bins] of lesion and background voxels by the mean probability of all,
    and by loss the error and the Brier score (`calibration`) with their errors."""
    lesion, background = own.column("lesion"), own.column("background")
    values = {"error": calibration_error(lesion, background), "brier": brier(lesion, background)[0]}
    found = {
        loss: {name: own_error(own, value, loss, cohort, RATE) for name, value in values.items()}
        for loss in own.losses
    }
    return own.all(lesion)[:, None], own.all(background)[:, None], found


def off_the_ledger(own: Together, cohort: CohortScores) -> float:
    """The largest difference in DSC between a network alone here and in its trial's own rows."""
    here = own.alone(score_rows(own.rows)["dice"])
    there = cohort.last_by_case(cohort.test[..., METRICS.index("dice")])
    off = np.abs(here - there)
    return float(np.nanmax(off)) if not np.isnan(off).all() else float("nan")


def mean_over_seeds(values: np.ndarray) -> np.ndarray:
    """[L, P] mean over the seeds of [L, S, P]."""
    return mean_over(values, 1)
