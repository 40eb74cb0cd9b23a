"""How sure is that, whenever one looks?  p and intervals that hold over all looks at a sweep that
grows by seeds.

A report of an unfinished sweep invites more seeds, and then another look.  Student's t holds for
one look; over many, chance gets many turns.  What is here holds over all of them at once: the
probability that an interval ever misses, however many seeds come in and whatever made somebody
stop, is the level's.

new seeds (L1): the anytime-valid t-test of linear models, whose nuisance parameters are the fold
    means and the variance.  Its p is one over a mixture of likelihood ratios, under a true
    difference that is normal around 0 with a multiple of the error's variance (right-Haar mixture;
    Lindon, Ham, Tingley & Bojinov 2022, arXiv:2210.08589; Perez-Ortiz et al. 2022; Wang & Ramdas
    2023, arXiv:2310.03722): a martingale if all is equal, so Ville's inequality bounds every look.
new patients, new training sets (L2, L3): of the error's variance only the part that seeds bring
    changes between looks.  The other part, of these patients and training sets, is drawn once, and
    once is what Student's t pays for.  So p is between the two, on a logarithmic scale, by the
    parts' shares of the variance; the once-drawn part pays a little (`surcharge`), because it is
    seen through seeds at every look.  That mixture has no proof; `tests.support.simulations` looks
    after every cell, and docs/statistics.md says what it found.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import special

SPREAD = 4.0
"""Variance of the mixture's true difference, in variances of the mean over one seed per fold: what
loses least on the paper's grid of five seeds, at 5 % and where seven losses share it."""


def anytime_p(
    t: np.ndarray | float,
    df: np.ndarray | float,
    drawn_once: np.ndarray | float,
    seeds: np.ndarray | float,
) -> np.ndarray:
    """Two-sided p of "no difference" that holds at any look.

    Args:
        t: the difference in standard errors.
        df: the error's degrees of freedom, above 0.
        drawn_once: share of the error's variance that seeds do not change, from 0 to 1.
        seeds: trainings per fold behind the mean.

    >>> [round(float(anytime_p(3.0, 20.0, part, 5)), 4) for part in (0.0, 0.5, 1.0)]
    [0.1157, 0.0454, 0.0178]
    """
    t, df, part, seeds = (np.asarray(value, float) for value in (t, df, drawn_once, seeds))
    with np.errstate(divide="ignore", invalid="ignore"):
        once = np.log(2 * special.stdtr(df, -np.abs(t)) * surcharge(seeds))
        grown = 1 + SPREAD * seeds
        # In logarithms of 1 + t^2 / df, which may be beyond what squares can hold.
        much = np.log1p(t**2 / df / grown) - np.log1p(t**2 / df)
        much = np.where(np.isinf(t), -np.log(grown), much)
        mixture = np.minimum(0.0, 0.5 * np.log(grown) + (df + 1) / 2 * much)
        both = np.where(part > 0, part * once, 0.0) + np.where(part < 1, (1 - part) * mixture, 0.0)
    return np.exp(np.minimum(both, 0.0))


def p_value(
    distance: np.ndarray | float,
    variance: np.ndarray | float,
    df: np.ndarray | float,
    seed_variance: np.ndarray | float,
    seeds: np.ndarray | float,
) -> np.ndarray:
    """Two-sided p at any look of a distance whose error has this variance; 1 where both are 0, NaN
    where there are no degrees of freedom.

    ``seed_variance``: the part of the variance that seeds bring; NaN where a single seed cannot
    tell, which counts as all of it.
    """
    distance, variance, df = (np.asarray(value, float) for value in (distance, variance, df))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(distance) / np.sqrt(variance)
    found = anytime_p(t, np.where(df > 0, df, np.nan), drawn_once(variance, seed_variance), seeds)
    return np.where(variance == 0, np.where(distance == 0, 1.0, 0.0), found)


def drawn_once(variance: np.ndarray | float, seed_variance: np.ndarray | float) -> np.ndarray:
    """Share of an error's variance that more seeds would not change.

    >>> drawn_once(4.0, np.array([1.0, 5.0, np.nan])).tolist()
    [0.75, 0.0, 0.0]
    """
    variance, seed = np.asarray(variance, float), np.asarray(seed_variance, float)
    known = ~np.isnan(seed) & (variance > seed)
    return np.where(known, 1 - np.divide(seed, variance, out=np.ones(known.shape), where=known), 0)


def surcharge(seeds: np.ndarray | float) -> np.ndarray:
    """By how much p of the part that is drawn once is multiplied: it grows as the number of looks
    that are unlike each other does, with the logarithm of the number of seeds.

    >>> surcharge(np.array([1, 5, 20])).round(2).tolist()
    [1.8, 2.52, 3.2]
    """
    return 1 + np.log1p(SPREAD * np.asarray(seeds, float)) / 2


def critical_t(
    level: np.ndarray | float,
    df: np.ndarray | float,
    drawn_once: np.ndarray | float,
    seeds: np.ndarray | float,
) -> np.ndarray:
    """Standard errors in half of the interval that holds at any look; infinite where so few degrees
    of freedom can refute nothing.

    >>> critical_t(0.95, 20.0, np.array([0.0, 1.0]), 5).round(2).tolist()
    [3.41, 2.53]
    """
    error = 1 - np.asarray(level, float)
    shape = np.broadcast(error, df, drawn_once, seeds).shape
    # On a logarithmic scale from a thousandth of a standard error to a million of them.
    low, high = np.full(shape, -7.0), np.full(shape, 14.0)
    beyond = ~(anytime_p(np.exp(high), df, drawn_once, seeds) < error)
    for _ in range(40):
        middle = (low + high) / 2
        refuted = anytime_p(np.exp(middle), df, drawn_once, seeds) < error
        low, high = np.where(refuted, low, middle), np.where(refuted, middle, high)
    return np.where(beyond, np.inf, np.exp(high))


@cache
def one_critical_t(level: float, df: float, drawn_once: float, seeds: float) -> float:
    """`critical_t` of one interval, kept: it takes a millisecond to find."""
    return float(critical_t(level, df, drawn_once, seeds))
