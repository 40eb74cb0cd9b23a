"""Which loss takes which rank: under other patients and seeds, and under other ways to rank?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import stats

from analysis.reading.scores import CohortScores
from analysis.statistics import confidence
from analysis.statistics.absence import lacking
from analysis.statistics.ladder import holm
from analysis.statistics.order import SAME
from analysis.statistics.subjects import by_subject, part_of

DRAWS = 2000
SCHEMES = {
    "mean": "mean, then rank",
    "rank": "rank, then mean",
    "median": "median, then rank",
    "iqm": "middle half, then rank",
    "test": "test, then rank",
}


@dataclass(frozen=True, eq=False)
class SharedScores:
    """What all losses share: per fold, the seeds that all completed and the cases all define."""

    losses: list[int]
    left_out: list[int]
    """Losses given up because some fold would have had no seed in common with them."""
    blocks: list[np.ndarray]
    """[L, seeds, subjects] per fold, without NaN."""
    folds: list[int]
    """Index of each block's fold."""
    num_cases: int
    """Number of cases in common; those of one subject are averaged."""

    @property
    def patients(self) -> np.ndarray:
        """[L, P] scores of every patient: means over seeds."""
        return np.concatenate([block.mean(1) for block in self.blocks], 1)

    @property
    def num_cells(self) -> int:
        """Number of (seed, fold) cells in common."""
        return sum(block.shape[1] for block in self.blocks)

    @property
    def num_subjects(self) -> int:
        """Number of subjects in common."""
        return sum(block.shape[2] for block in self.blocks)

    def counted(self, cohort: CohortScores) -> str:
        """How many of the cohort's cases, cells and losses are in it, and who is absent."""
        cells = len(cohort.seeds) * len(cohort.folds)
        text = (
            f"{cohort.part(self.num_cases, self.num_subjects)} and {self.num_cells} of {cells} "
            f"(seed, fold) cells that {len(self.losses)} of {len(cohort.shown)} losses share"
        )
        left = [loss for loss in cohort.shown if loss not in self.losses]
        if left:
            names = ", ".join(cohort.losses[loss] for loss in left)
            text += f"; left out for {lacking(cohort, left)}: {names}"
        return text + "."


def shared_scores(
    scores: np.ndarray, fold_of: np.ndarray, shown: list[int], subject_of: np.ndarray | None = None
) -> SharedScores:
    """What the shown losses share of scores [L, S, P]; losses are given up, the one with the most
    gaps first, until every fold that anybody has is shared, or one loss is left."""
    losses, left_out = list(shown), []
    while True:
        own = scores[losses]
        blocks, folds, num_cases, empty = [], [], 0, 0
        for fold in np.unique(fold_of):
            here = np.flatnonzero(fold_of == fold)
            block = own[:, :, here]
            block = block[:, ~np.isnan(block).all(2).any(0)]
            usable = ~np.isnan(block).any((0, 1))
            block = block[:, :, usable]
            if block.size:
                blocks.append(by_subject(block, part_of(subject_of, here[usable])))
                folds.append(int(fold))
                num_cases += block.shape[2]
            else:
                empty += not np.isnan(own[:, :, here]).all()
        if not empty or len(losses) <= 1:
            return SharedScores(losses, left_out, blocks, folds, num_cases)
        left_out.append(losses.pop(int(np.argmax(np.isnan(own).sum((1, 2))))))


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis, 1 for the highest, ties (`order.SAME`) shared.

    >>> ranks(np.array([0.2, 0.9, 0.2])).tolist()
    [2.5, 1.0, 2.5]
    """
    return stats.rankdata(-np.round(values / SAME), axis=-1)


def resampled_patients(
    blocks: list[np.ndarray], rng: np.random.Generator, draws: int = DRAWS
) -> np.ndarray:
    """[draws, L, P] patient means under two-way resampling: in every fold, seeds and patients
    are drawn with replacement; all losses get the same draw, so differences stay paired."""
    parts = []
    for block in blocks:
        losses, seeds, subjects = block.shape
        times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
        scores = np.einsum("ds,lsp->dlp", times / seeds, block)
        drawn = rng.integers(subjects, size=(draws, 1, subjects))
        parts.append(np.take_along_axis(scores, np.repeat(drawn, losses, 1), 2))
    return np.concatenate(parts, 2)


def rank_frequencies(resampled: np.ndarray) -> np.ndarray:
    """[L, L] share of draws in which a loss (row) has rank 1, 2, ... (column); a shared rank is
    split between its places."""
    found = ranks(resampled.mean(2))
    places = np.arange(1, found.shape[1] + 1)
    return np.maximum(0, 1 - np.abs(found[:, :, None] - places)).mean(0)


def order_agreement(reference: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """[draws] Kendall's tau-b between the reference's order and each draw's, from mean scores.

    >>> order_agreement(np.array([3.0, 2.0, 1.0]), np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]))
    array([ 1., -1.])
    """
    a, b = np.triu_indices(len(reference), 1)
    here, there = np.sign(reference[a] - reference[b]), np.sign(resampled[:, a] - resampled[:, b])
    norm = np.sqrt((here**2).sum() * (there**2).sum(1))
    return np.divide((here * there).sum(1), norm, out=np.full(len(there), np.nan), where=norm > 0)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis (25 % trimmed mean)."""
    return stats.trim_mean(values, 0.25, axis=-1)


def rank_by(patients: np.ndarray, scheme: str) -> np.ndarray:
    """[L] ranks of patient means [L, P] under one of SCHEMES.

    test: rank by how many other losses are beaten in a one-sided Wilcoxon signed-rank test over
    patients, Holm-adjusted over all ordered pairs (challengeR's test-then-rank).  It treats
    patients of one fold as independent, which they are not: a scheme, not evidence.
    """
    if scheme == "mean":
        return ranks(patients.mean(1))
    if scheme == "rank":
        return ranks(-ranks(patients.T).mean(0))
    if scheme == "median":
        return ranks(np.median(patients, 1))
    if scheme == "iqm":
        return ranks(interquartile_mean(patients))
    p = wilcoxon_matrix(patients)
    off = ~np.eye(len(p), dtype=bool)
    adjusted = np.ones_like(p)
    adjusted[off] = holm(p[off])
    return ranks((adjusted < confidence.error()).sum(1).astype(float))


def wilcoxon_matrix(patients: np.ndarray) -> np.ndarray:
    """[L, L] one-sided p that row is higher than column; 1 where they are the same throughout."""
    size = len(patients)
    p = np.ones((size, size))
    for a in range(size):
        for b in range(size):
            if a != b and (patients[a] != patients[b]).any():
                with warnings.catch_warnings():  # ties and few patients: the normal approximation
                    warnings.simplefilter("ignore")
                    result = stats.wilcoxon(patients[a], patients[b], alternative="greater")
                # scipy makes the class of the result at run time: (statistic, p).
                _, p[a, b] = cast(tuple[float, float], result)
    return p
