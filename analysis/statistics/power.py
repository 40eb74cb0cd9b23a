"""How many seeds are enough: half-widths and detectable differences for more or fewer of them."""

from __future__ import annotations

import math
from functools import cache
from typing import cast

import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from analysis.statistics import confidence
from analysis.statistics.ladder import Ladder
from analysis.statistics.pairs import MEANINGFUL

FRESH_SEEDS = tuple(range(1, 31))
POWER = 0.8
"""Share of sweeps that should find a difference that is there."""


def needed_seeds(
    fit: Ladder, num_seeds: int, counts: tuple[int, ...] = FRESH_SEEDS, power: float = POWER
) -> pd.DataFrame:
    """Half-width and smallest detectable difference of a pair for k seeds per fold.

    Var(D; k) = s_patient / P + s_training / F + s_run / (k F) + s_rest / (k P), with the
    components of the ladder; a rung keeps the terms that it generalises over.  Detectable: found
    at `confidence.error` with the given power (non-central t).  Degrees of freedom: F (k - 1) on
    L1, P - F on L2, F - 1 on L3; a single seed has none on L1.
    """
    part = fit.components
    rows = []
    for k in counts:
        seed_part = part.run * fit.run_share / k + part.residual * fit.patient_share / k
        patient_part = part.patient * fit.patient_share
        fold_part = part.training_set * fit.run_share
        for rung, variance, df in (
            ("L1", seed_part, fit.num_folds * (k - 1)),
            ("L2", seed_part + patient_part, fit.num_subjects - fit.num_folds),
            ("L3", seed_part + patient_part + fold_part, fit.num_folds - 1),
        ):
            se = math.sqrt(variance) if variance >= 0 else float("nan")
            half = confidence.t_factor(df) * se if df > 0 else float("nan")
            rows.append(
                {
                    "seeds": k,
                    "rung": rung,
                    "se": se,
                    "half_width": half,
                    "detectable": detectable(se, df, power),
                }
            )
    return pd.DataFrame(rows)


def detectable(se: float, df: float, power: float = POWER) -> float:
    """Smallest difference that a two-sided t-test at `confidence.error` finds with that power."""
    if not df > 0 or math.isnan(se):
        return float("nan")
    return se * _shift(float(df), power, confidence.upper())


def seeds_until_patients_dominate(fit: Ladder) -> float:
    """k* where the variance of k seeds equals that of the patients: more seeds stop helping."""
    part = fit.components
    seed_part = part.run * fit.run_share + part.residual * fit.patient_share
    patient_part = part.patient * fit.patient_share
    return seed_part / patient_part if patient_part > 0 else float("nan")


def pairs_for_win_rate() -> int:
    """Noether's sample size for a win rate P(A>B) of `pairs.MEANINGFUL`, error and power at the
    confidence level (Bouthillier et al. 2021).

    >>> pairs_for_win_rate()
    29
    """
    both = 2 * float(stats.norm.ppf(confidence.CONFIDENCE))
    return math.ceil(both**2 / (6 * (MEANINGFUL - 0.5) ** 2))


@cache
def _shift(df: float, power: float, upper: float) -> float:
    """Non-centrality at which the t-test has that power; kept, since it is slow to find."""
    critical = stats.t.ppf(upper, df)
    root = brentq(lambda shift: stats.nct.sf(critical, df, shift) - power, 0.1, 60)
    return cast(float, root)  # the tuple comes with full_output alone
