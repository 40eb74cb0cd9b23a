"""Is the primary question decided: does each loss differ from the reference, for new training sets?
If not, would more seeds decide it?

Decided is a comparison that is called better, worse or practically equal; and one that seeds could
hardly get there, up to the cap: the patients and training sets that there are leave it open.  Words
hold whenever one looks (`looks`), so a sweep may stop at the first look at which all are decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.statistics import confidence, looks
from analysis.statistics.ladder import with_training_sets
from analysis.statistics.pairs import Family, Judgement, Pair

HOPELESS = 0.05
"""Chance of a verdict by the cap below which more seeds are not worth it."""


@dataclass(frozen=True)
class Comparison:
    """A loss against the reference, in a sweep that may go on."""

    loss: int
    word: str
    """`Judgement.in_words`."""
    chance: float
    """That it is called better, worse or practically equal at the cap, if it is not now."""

    @property
    def decided(self) -> bool:
        """Whether more seeds are not worth it."""
        return self.clear or self.chance < HOPELESS

    @property
    def clear(self) -> bool:
        """Whether it has a verdict for new training sets."""
        return self.word in ("better", "worse", "practically equal")


def comparisons(judged: Family, rope: float, seeds_at_cap: float) -> list[Comparison]:
    """Every other loss against the reference, and whether it is decided."""
    return [
        Comparison(
            loss=pair.a,
            word=judgement.in_words,
            chance=chance(pair, judgement, rope, seeds_at_cap),
        )
        for pair, judgement in judged.against_reference
    ]


def decided(found: Sequence[Comparison]) -> bool:
    """Whether all comparisons are; there must be one."""
    return bool(found) and all(one.decided for one in found)


def chance(pair: Pair, judgement: Judgement, rope: float, seeds_at_cap: float) -> float:
    """Probability that a comparison has a verdict at the cap, given what is there; 1 while nobody
    can tell."""
    fit = pair.fit
    if not fit.df["L3"] > 0 or np.isnan(fit.seed_se) or np.isnan(judgement.level):
        return 1.0
    return float(
        chances(
            np.array(fit.estimate),
            base=np.array(fit.base_se**2),
            seed_variance=np.array(fit.seed_se**2),
            seed_df=np.array(fit.df["L1"]),
            patient_df=float(fit.num_subjects - fit.num_folds),
            overlap=fit.overlap,
            tau=fit.tau,
            level=np.array(judgement.level),
            rope=rope,
            seeds=fit.seeds,
            seeds_at_cap=max(seeds_at_cap, fit.seeds),
        )
    )


def chances(
    estimate: np.ndarray,
    *,
    base: np.ndarray,
    seed_variance: np.ndarray,
    seed_df: np.ndarray,
    patient_df: float,
    overlap: float,
    tau: float,
    level: np.ndarray,
    rope: float,
    seeds: float,
    seeds_at_cap: float,
) -> np.ndarray:
    """`chance` of many at once, arrays of one shape.

    At the cap the part of the variance that seeds bring has shrunk; the estimate will have moved
    from where it is by what shrank, as Student's t with the seeds' degrees of freedom says.
    ``level`` is of the interval that must exclude 0, or, where losses are equal, lie inside the
    rope: there without adjustment, which gives it the better chance.
    """
    left = seed_variance * seeds / seeds_at_cap
    moves = np.sqrt(seed_variance - left)
    at_cap = np.maximum(base - seed_variance + left, left)
    df = np.maximum(patient_df, seed_df * seeds_at_cap / seeds)
    errors = (at_cap, df), with_training_sets(at_cap, df, overlap, tau)

    def half(asked: np.ndarray | float) -> np.ndarray:
        widths = [
            looks.critical_t(asked, own, looks.drawn_once(variance, left), seeds_at_cap)
            * np.sqrt(variance)
            for variance, own in errors
        ]
        return np.maximum(*widths)

    def below(limit: np.ndarray) -> np.ndarray:
        """P(the estimate at the cap is below)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            away = (limit - estimate) / moves
        return np.where(moves > 0, special.stdtr(seed_df, away), (limit > estimate) * 1.0)

    apart, within = half(level), rope - half(confidence.equivalence())
    differs = below(-apart) + 1 - below(apart)
    return differs + np.where(within > 0, below(within) - below(-within), 0.0)
