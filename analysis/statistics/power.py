"""How many seeds are enough: half-widths and detectable differences for more or fewer of them, of
intervals and words that hold at any look (`looks`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import cast

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.optimize import brentq

from analysis.statistics import confidence, looks
from analysis.statistics.ladder import FEWEST_RUN_DF, RUNGS, Ladder, with_training_sets
from analysis.statistics.pairs import MEANINGFUL

FRESH_SEEDS = tuple(range(1, 31))
POWER = 0.8
"""Share of sweeps that should find a difference that is there."""


def needed_seeds(
    fit: Ladder, num_seeds: float, counts: Sequence[float] = FRESH_SEEDS, power: float = POWER
) -> pd.DataFrame:
    """Half-width and smallest detectable difference of a pair for k seeds per fold, of which
    ``num_seeds`` were run.

    The errors of this sweep (`Ladder.interval`), times what another number of seeds does to them:
    on L1 the variance falls as 1 / k; on L2 as s_patient / P + s_run / (k F) + s_rest / (k P) does,
    with the components of the ladder; L3 adds the given training-set effect to that.  So k =
    ``num_seeds`` gives the intervals that this sweep has, and one rung's is never wider than that
    of the next.  Detectable: found at `confidence.error`, not adjusted for other pairs, with the
    given power (non-central t).  Degrees of freedom: those of this sweep, on L1 as k - 1, on L2 and
    L3 at most as twice those between k seeds; of a single seed, those between folds.  NaN where so
    few trainings can refute nothing.
    """
    part, folds = fit.components, fit.num_folds
    by_seed = part.run * fit.run_share + part.residual * fit.patient_share
    by_patient = part.patient * fit.patient_share

    def modelled(k: float) -> float:
        return by_seed / k + by_patient

    rows = []
    for k in counts:
        ratio = modelled(k) / modelled(num_seeds) if modelled(num_seeds) > 0 else num_seeds / k
        runs = fit.df["L1"] * (k - 1) / (num_seeds - 1) if num_seeds > 1 else 0.0
        share = 1.0
        if fit.df["L2"] > 0 and k != num_seeds:
            share = min(1.0, (2 * folds * (k - 1) if k > 1 else folds - 1) / fit.df["L2"])
        base, base_df = fit.base_se**2 * ratio, fit.base_df * share
        of_rung: dict[str, list[tuple[float, float]]] = {
            "L1": [(fit.se["L1"] ** 2 * num_seeds / k, runs)],
            "L2": [(fit.se["L2"] ** 2 * ratio, fit.df["L2"] * share)],
            "L3": [],
        }
        if fit.df["L3"] > 0:  # as in the ladder, an effect "up to tau" may also be none
            everything, more = with_training_sets(base, base_df, fit.overlap, fit.tau)
            of_rung["L3"] = [(float(everything), float(more)), (base, base_df)]
        seeds_alone = of_rung["L1"][0][0] if runs >= FEWEST_RUN_DF else float("nan")
        beyond = float("nan"), float("nan")
        own = []
        for rung in reversed(RUNGS):
            known = [(variance, df) for variance, df in of_rung[rung] if df > 0 and variance >= 0]
            half, found = [], []
            for variance, df in known:
                once = float(looks.drawn_once(variance, seeds_alone))
                critical = _critical(df, once, k, confidence.CONFIDENCE)
                half.append(critical * math.sqrt(variance))
                found.append(_detectable(math.sqrt(variance), df, power, critical))
            if known:
                beyond = float(np.fmin(max(half), beyond[0])), float(np.fmin(max(found), beyond[1]))
            own.append(
                {
                    "seeds": k,
                    "rung": rung,
                    "se": math.sqrt(known[0][0]) if known else float("nan"),
                    "half_width": beyond[0] if known else float("nan"),
                    "detectable": beyond[1] if known else float("nan"),
                }
            )
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
