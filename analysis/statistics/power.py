"""How many seeds are enough: half-widths and detectable differences for more or fewer of them, of
intervals and words that hold at any look (`looks`)."""

from __future__ import annotations

import math
from functools import cache
from typing import cast

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.optimize import brentq

from analysis.statistics import confidence, looks
from analysis.statistics.ladder import Ladder, with_training_sets
from analysis.statistics.pairs import MEANINGFUL

FRESH_SEEDS = tuple(range(1, 31))
POWER = 0.8
"""Share of sweeps that should find a difference that is there."""


def needed_seeds(
    fit: Ladder, num_seeds: int, counts: tuple[int, ...] = FRESH_SEEDS, power: float = POWER
) -> pd.DataFrame:
    """Half-width and smallest detectable difference of a pair for k seeds per fold.

    Var(D; k) = s_patient / P + s_run / (k F) + s_rest / (k P), with the components of the ladder,
    and the given training-set effect on L3; a rung keeps the terms that it generalises over.
    Detectable: found at `confidence.error` with the given power (non-central t).  Degrees of
    freedom: F (k - 1) on L1, P - F on L2 and, with the known term, on L3; a single seed has none on
    L1.  As in `Ladder.interval`, one rung's interval is never wider than that of the next; NaN
    where so few trainings can refute nothing.
    """
    part = fit.components
    rows = []
    for k in counts:
        seed_part = part.run * fit.run_share / k + part.residual * fit.patient_share / k
        both = seed_part + part.patient * fit.patient_share
        patients = float(fit.num_subjects - fit.num_folds)
        everything, more = with_training_sets(both, patients, fit.overlap, fit.tau)
        beyond = float("nan"), float("nan")
        own = []
        for rung, variance, df in (
            ("L3", float(everything), float(more) if fit.tau == fit.tau else 0.0),
            ("L2", both, patients),
            ("L1", seed_part, float(fit.num_folds * (k - 1))),
        ):
            se = math.sqrt(variance) if variance >= 0 else float("nan")
            once = float(looks.drawn_once(variance, seed_part if k > 1 else variance))
            critical = _critical(df, once, k, confidence.CONFIDENCE)
            half, found = critical * se, _detectable(se, df, power, critical)
            if df > 0:
                beyond = float(np.fmin(half, beyond[0])), float(np.fmin(found, beyond[1]))
                half, found = beyond
            row = {"seeds": k, "rung": rung, "se": se, "half_width": half, "detectable": found}
            own.append(row)
        rows += own[::-1]
    return pd.DataFrame(rows)


def detectable(se: float, df: float, power: float = POWER, level: float | None = None) -> float:
    """Smallest difference that a two-sided t-test finds with that power, at a confidence level
    (None: the usual one)."""
    if not df > 0:
        return float("nan")
    return _detectable(se, df, power, confidence.t_factor(df, level))


def detectable_for_new_training_sets(fit: Ladder, level: float | None = None) -> float:
    """The same of a pair, for new training sets; NaN where the design cannot tell, infinite where
    no possible difference would be found."""
    if not fit.df["L3"] > 0:
        return float("nan")
    level = confidence.CONFIDENCE if level is None else level
    found = [
        _detectable(se, df, POWER, _critical(df, once, fit.seeds, level))
        for se, df in ((fit.se["L3"], fit.df["L3"]), (fit.base_se, fit.base_df))
        for once in [float(looks.drawn_once(se**2, fit.seed_se**2))]
    ]
    return max(found) if all(each <= fit.bounds[1] for each in found) else math.inf


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


def _critical(df: float, once: float, seeds: float, level: float) -> float:
    """Standard errors in half of the interval that holds at any look; NaN if none does."""
    if not df > 0:
        return float("nan")
    found = looks.one_critical_t(level, df, once, seeds)
    return found if math.isfinite(found) else float("nan")


def _detectable(se: float, df: float, power: float, critical: float) -> float:
    """The difference that is more than so many standard errors in that share of sweeps."""
    if not df > 0 or math.isnan(se) or math.isnan(critical):
        return float("nan")
    return se * _shift(float(df), power, critical)


@cache
def _shift(df: float, power: float, critical: float) -> float:
    """Non-centrality at which the t-test has that power; kept, since it is slow to find."""
    if critical < 20:
        root = brentq(lambda shift: stats.nct.sf(critical, df, shift) - power, 0.1, 60)
        return cast(float, root)  # the tuple comes with full_output alone
    # Beyond, scipy's distribution gives no numbers: P(Z + shift > critical chi / sqrt(df)).
    chi = np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, df) / df)
    root = brentq(
        lambda shift: special.ndtr(shift - critical * chi).mean() - power, 0, 10 * critical
    )
    return cast(float, root)
