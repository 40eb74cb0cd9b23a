"""What if fewer seeds had been run: who would have won, and what would have flipped?

Everything is enumerated from y[l, s, f], the cell means (loss, seed, fold).  A world is one sweep
that could have been run with fewer seeds: a choice of seeds, and each loss's mean over them.  A
label seed draws a fresh generator in every fold, so a seed means nothing across folds: the paired
lottery keeps label seeds together as a paper would, the full lottery picks seeds fold by fold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from analysis.statistics.ladder import Ladder
from analysis.statistics.order import SAME
from analysis.statistics.pairs import cell_means
from analysis.statistics.subjects import number_of

EXACT_UP_TO = 200_000
"""Lotteries with more outcomes than this are drawn at random instead of enumerated."""
DRAWS = 10_000


@dataclass(frozen=True, eq=False)
class CompleteCells:
    """The part of a cohort that a seed lottery can be played on: complete for every loss in it."""

    losses: list[int]
    seeds: list[int]
    """Indices of the seeds that every loss completed in every fold."""
    values: np.ndarray
    """[L, S, F] cell means."""
    weights: np.ndarray
    """[F] share of the subjects with a case that every loss and seed in it defines."""
    left_out: list[int]
    """Losses that lack so many trials that no two seeds would be left with them."""


def complete_cells(
    scores: np.ndarray, fold_of: np.ndarray, shown: list[int], subject_of: np.ndarray | None = None
) -> CompleteCells:
    """The seeds that are complete for all losses, of scores [L, S, P].

    Losses are given up, worst first, until two seeds are left or one loss; cases that are undefined
    for some loss or seed are left out.
    """
    losses, left_out = list(shown), []
    while True:
        own = scores[losses]
        flat = own.reshape(-1, own.shape[-1])
        cells = cell_means(flat, fold_of, subject_of).reshape(len(losses), own.shape[1], -1)
        missing = np.isnan(cells)
        seeds = [s for s in range(own.shape[1]) if not missing[:, s].any()]
        if len(seeds) >= min(2, own.shape[1]) or len(losses) <= 1:
            break
        worst = int(np.argmax(missing.sum((1, 2))))
        left_out.append(losses.pop(worst))
    # Cells and weights from the same cases, those that the ladder would use.
    own = own[:, seeds]
    cells = cell_means(own.reshape(-1, own.shape[-1]), fold_of, subject_of).reshape(
        len(losses), len(seeds), cells.shape[-1]
    )
    usable = ~np.any(np.isnan(own), axis=(0, 1))
    folds = [usable & (fold_of == fold) for fold in np.unique(fold_of)]
    sizes = np.array([number_of(subject_of, of) for of in folds], float)
    return CompleteCells(losses, seeds, cells, sizes / max(sizes.sum(), 1.0), left_out)


def paired_lottery(values: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """[worlds, L] means over every set of k label seeds, the same set for all losses and folds."""
    by_seed = values @ weights
    sets = list(combinations(range(values.shape[1]), k))
    return np.array([by_seed[:, list(chosen)].mean(1) for chosen in sets])


def full_lottery(
    values: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """[worlds, L] means over a set of k seeds per fold, the same sets for all losses.

    Every combination of sets if there are at most EXACT_UP_TO, else DRAWS random ones.
    """
    num_seeds, num_folds = values.shape[1:]
    sets = list(combinations(range(num_seeds), k))
    subset = np.array([values[:, list(chosen)].mean(1) for chosen in sets])  # [sets, L, F]
    if len(sets) ** num_folds <= EXACT_UP_TO:
        worlds = np.zeros((1, values.shape[0]))
        for fold in range(num_folds):
            step = weights[fold] * subset[:, :, fold]
            worlds = (worlds[:, None] + step[None]).reshape(-1, values.shape[0])
        return worlds
    drawn = rng.integers(len(sets), size=(DRAWS, num_folds))
    chosen = (weights[f] * subset[drawn[:, f], :, f] for f in range(num_folds))
    return sum(chosen, start=np.zeros((DRAWS, values.shape[0])))


def one_paper_lottery(values: np.ndarray) -> np.ndarray:
    """[worlds, L] scores of papers with one seed and one train-test split: one per cell."""
    return values.reshape(values.shape[0], -1).T


def winner_shares(worlds: np.ndarray) -> np.ndarray:
    """[L] share of worlds [n, L] in which a loss has the highest mean; ties are split.

    >>> winner_shares(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.75, 0.25]
    """
    best = worlds >= worlds.max(1, keepdims=True) - SAME
    return (best / best.sum(1, keepdims=True)).mean(0)


def unpaired_shares(values: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """[L] winner shares when every loss draws its own k label seeds.

    As when a paper copies its rivals' numbers from elsewhere.  Exact, by independence; ties are
    split.
    """
    worlds = paired_lottery(values, weights, k)
    count, losses = worlds.shape
    shares = np.zeros(losses)
    for loss in range(losses):
        for value in worlds[:, loss]:
            tied = np.array([1.0])  # tied[j]: probability that j others tie and the rest are below
            for other in range(losses):
                if other == loss:
                    continue
                below = (worlds[:, other] < value - SAME).mean()
                same = (abs(worlds[:, other] - value) <= SAME).mean()
                tied = np.append(tied * below, 0.0) + np.append(0.0, tied * same)
            shares[loss] += (tied / np.arange(1, len(tied) + 1)).sum() / count
    return shares


def flip_share(difference: np.ndarray, weights: np.ndarray, k: int) -> float:
    """How often k of our own label seeds alone would name the other winner of two losses.

    difference [S, F]: one loss minus the other.  The share of all sets of k seeds whose mean has
    another sign than the mean of all seeds; a tie names either, so it counts half.  Of losses that
    differ it is 0 when k is all seeds, so it says less than fresh seeds would (`fresh_flip`).

    >>> flip_share(np.zeros((2, 1)), np.ones(1), 1), flip_share(np.ones((2, 1)), np.ones(1), 1)
    (0.5, 0.0)
    """
    worlds = paired_lottery(difference[None], weights, k)[:, 0]
    overall = float((difference @ weights).mean())
    return float(disagreement(worlds, np.full(worlds.shape, overall)).mean())


def disagreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether two differences name different winners: 1, 0, or a half where one is a tie."""
    a, b = (np.where(abs(part) <= SAME, 0.0, np.sign(part)) for part in (a, b))
    return np.where((a == 0) | (b == 0), 0.5, (a != b).astype(float))


def fresh_flip(fit: Ladder, num_seeds: float, k: int) -> float:
    """Predicted share of repeats with k *fresh* seeds whose sign differs from ours.

    T_nu(-|D| / sqrt(s^2 (1/k + 1/S))) with s^2 / S = SE(L1)^2: the predictive distribution of a
    mean of k seeds under a flat prior.  If the losses are really equal the truth is 0.5.
    """
    if not fit.df["L1"] > 0:
        return float("nan")
    variance = fit.se["L1"] ** 2 * num_seeds
    spread = math.sqrt(variance * (1 / k + 1 / num_seeds))
    if spread == 0:
        return 0.0 if fit.estimate != 0 else 0.5
    return float(stats.t.cdf(-abs(fit.estimate) / spread, fit.df["L1"]))


def split_half_disagreement(difference: np.ndarray, weights: np.ndarray) -> tuple[float, int]:
    """Share of pairs of disjoint halves of the seeds that name different winners (`disagreement`),
    and their number.

    There are 15 such pairs for five seeds.  Assumes nothing.
    """
    by_seed = difference @ weights
    half = len(by_seed) // 2
    if half == 0:
        return float("nan"), 0
    disagree, total = 0.0, 0
    for first in combinations(range(len(by_seed)), half):
        rest = [s for s in range(len(by_seed)) if s not in first]
        for second in combinations(rest, half):
            if first < second:
                total += 1
                one, other = by_seed[list(first)].mean(), by_seed[list(second)].mean()
                disagree += float(disagreement(one, other))
    return disagree / total, total


def can_win(values: np.ndarray, weights: np.ndarray, k: int = 1) -> np.ndarray:
    """[L, L] whether some set of k label seeds makes row beat column: what could be published."""
    worlds = paired_lottery(values, weights, k)
    return np.any(worlds[:, :, None] > worlds[:, None, :] + SAME, axis=0)
