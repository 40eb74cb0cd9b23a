"""Do predicted lesion volumes agree with the reference: bias, limits of agreement, and by load?

Bland & Altman (1986, 1999), on patients: the difference of a patient is predicted minus reference
volume, in ml, of one training; seeds and sessions of a patient are no patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.reading.scores import COUNTS, CohortScores
from analysis.statistics import confidence
from analysis.statistics.ladder import Ladder, ladder
from analysis.statistics.subjects import by_subject, part_of

LOADS_ML = (5.0, 15.0)
"""Edges between small, middle and large reference loads, the same for every cohort and loss."""
LOAD_NAMES = ("< 5", "5 to 15", "> 15")


@dataclass(frozen=True)
class Agreement:
    """Bland and Altman's numbers of one loss, in ml; NaN where the design cannot tell."""

    bias: float
    bias_half: float
    """Half of the interval of the bias, for new seeds and patients."""
    lower: float
    upper: float
    """Limits of agreement: bias -+ 1.96 standard deviations of the difference that one training has
    for one patient."""
    limit_half: float
    """Half of the interval of either limit."""
    sd: float
    num_cases: int
    num_subjects: int


def volumes_ml(cohort: CohortScores) -> tuple[np.ndarray, np.ndarray]:
    """[L, S, P] predicted and reference lesion volumes of the test images at the last epoch, ml."""
    final = cohort.last_by_case(cohort.counts)
    tp, fp, fn = (final[..., COUNTS.index(name)] for name in ("tp", "fp", "fn"))
    ml = cohort.voxel_mm3 / 1000
    return (tp + fp) * ml, (tp + fn) * ml


def agreement(
    difference: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray | None = None
) -> Agreement:
    """Bias and limits of agreement of differences [S, P], predicted minus reference.

    The variance of one training's difference for one patient is patient + run + rest, the
    components of the ladder; with one seed, the variance between patients of a fold.  Var(limit) =
    SE(bias)^2 + z^2 s^2 / (2 df), df by Satterthwaite from patients and runs; Student's t.

    >>> d = np.array([[1.0, 3.0, 1.0, 3.0]])
    >>> found = agreement(d, np.array([0, 0, 1, 1]))
    >>> round(found.bias, 3), round(found.sd, 3), round(found.upper, 3)
    (2.0, 1.414, 4.772)
    """
    fit = ladder(difference, fold_of, subject_of)
    variance, df = _of_one(fit, difference, fold_of, subject_of)
    if not df > 0 or math.isnan(variance):
        nan = float("nan")
        return Agreement(
            fit.estimate, fit.half_width("L2"), nan, nan, nan, nan, fit.num_cases, fit.num_subjects
        )
    sd, z = math.sqrt(variance), confidence.normal_factor()
    half = float("nan")
    if fit.df["L2"] > 0:
        error = math.sqrt(fit.se["L2"] ** 2 + z**2 * variance / (2 * df))
        half = confidence.t_factor(min(fit.df["L2"], df)) * error
    return Agreement(
        bias=fit.estimate,
        bias_half=fit.half_width("L2"),
        lower=fit.estimate - z * sd,
        upper=fit.estimate + z * sd,
        limit_half=half,
        sd=sd,
        num_cases=fit.num_cases,
        num_subjects=fit.num_subjects,
    )


def load_class(reference: np.ndarray) -> np.ndarray:
    """[P] index into LOAD_NAMES of reference volumes [L, S, P] in ml, which are one per case; -1
    where a case has none."""
    known = ~np.isnan(reference)
    load = np.where(known, reference, 0.0).max((0, 1))
    return np.where(known.any((0, 1)), np.digitize(load, LOADS_ML), -1)


def _of_one(
    fit: Ladder, difference: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray | None
) -> tuple[float, float]:
    """Variance of the difference of one training for one patient, and its degrees of freedom."""
    part, patients = fit.components, fit.num_subjects - fit.num_folds
    if not math.isnan(part.residual):
        runs = fit.num_cells - fit.num_folds
        # Between the patients of a fold, patient and rest come together.
        terms = [(part.patient + part.residual, patients), (part.run, runs)]
        total = sum(value for value, _ in terms)
        squares = sum(value**2 / df for value, df in terms if df > 0)
        return total, total**2 / squares if squares > 0 else 0.0
    squares, patients = 0.0, 0
    for fold in np.unique(fold_of):
        here = fold_of == fold
        for row in difference[:, here]:
            known = ~np.isnan(row)
            if known.sum() > 1:
                whose = part_of(subject_of, np.flatnonzero(here)[known])
                own = by_subject(row[known], whose)
                squares += float(((own - own.mean()) ** 2).sum())
                patients += len(own) - 1
    return (squares / patients, patients) if patients else (float("nan"), 0.0)
