"""Which of two losses is better, on the cells and cases that both have, and how sure is that?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from analysis.flags import ROPE
from analysis.statistics import confidence
from analysis.statistics.ladder import Ladder, holm, ladder
from analysis.statistics.subjects import by_subject, part_of

MEANINGFUL = 0.75
"""Bouthillier et al. 2021: a win rate that could be this high is worth caring about."""
WORDS = ("separated", "suggestive", "practically equal", "not separated", "cannot tell")


@dataclass(frozen=True)
class Pair:
    """Loss a against loss b, on the cells and cases that both have."""

    a: int
    b: int
    fit: Ladder
    won_cells: int
    tied_cells: int
    lost_cells: int
    """Cells (seed, fold) where a's mean is higher, equal, lower."""

    @property
    def win_rate(self) -> float:
        """P(A > B): share of cells that a wins; a tie is no win."""
        total = self.won_cells + self.tied_cells + self.lost_cells
        return self.won_cells / total if total else float("nan")

    @property
    def win_interval(self) -> tuple[float, float]:
        """Percentile bootstrap interval over cells, in closed form: resampling n cells with
        replacement makes the number of wins binomial."""
        total = self.won_cells + self.tied_cells + self.lost_cells
        if total == 0:
            return float("nan"), float("nan")
        low, high = stats.binom.ppf(confidence.quantiles(), total, self.win_rate)
        return float(low) / total, float(high) / total


def compare(
    scores: np.ndarray, fold_of: np.ndarray, a: int, b: int, subject_of: np.ndarray | None = None
) -> Pair:
    """One pair from scores [L, S, P] at the reported epoch, NaN where absent or undefined; cases
    of one subject, by ``subject_of`` [P], count once.

    Only the two losses themselves matter: adding a third to the sweep changes nothing here.
    """
    difference = scores[a] - scores[b]
    fit = ladder(difference, fold_of, subject_of)
    cells = cell_means(difference, fold_of, subject_of)
    return Pair(a, b, fit, int((cells > 0).sum()), int((cells == 0).sum()), int((cells < 0).sum()))


def cell_means(
    difference: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray | None = None
) -> np.ndarray:
    """[S, F] mean over the subjects of the cases that are defined in every cell of their fold; NaN
    if none."""
    folds = np.unique(fold_of)
    cells = np.full((len(difference), len(folds)), np.nan)
    for column, fold in enumerate(folds):
        here = np.flatnonzero(fold_of == fold)
        block = difference[:, here]
        present = ~np.isnan(block).all(1)
        usable = ~np.isnan(block[present]).any(0)
        if present.any() and usable.any():
            own = by_subject(block[present][:, usable], part_of(subject_of, here[usable]))
            cells[present, column] = own.mean(1)
    return cells


def against(
    scores: np.ndarray,
    fold_of: np.ndarray,
    shown: list[int],
    reference: int,
    subject_of: np.ndarray | None = None,
) -> list[Pair]:
    """Every shown loss minus the reference."""
    others = [loss for loss in shown if loss != reference]
    return [compare(scores, fold_of, loss, reference, subject_of) for loss in others]


def every_pair(
    scores: np.ndarray, fold_of: np.ndarray, shown: list[int], subject_of: np.ndarray | None = None
) -> list[Pair]:
    """All pairs, first minus second, in the sweep's order."""
    return [compare(scores, fold_of, a, b, subject_of) for a, b in combinations(shown, 2)]


def adjusted(pairs: list[Pair]) -> list[tuple[float, float]]:
    """Holm-adjusted p for new patients (L2) and for new training sets (L3), per pair."""
    p2 = holm(np.array([pair.fit.p_value("L2") for pair in pairs]))
    p3 = holm(np.array([pair.fit.p_value("L3") for pair in pairs]))
    return [(float(a), float(b)) for a, b in zip(p2, p3, strict=True)]


def judge(pairs: list[Pair], rope: float = ROPE) -> list[str]:
    """One of WORDS for each pair of a family, Holm-adjusted inside it.

    practically equal: the interval for new training sets (L3) at `confidence.equivalence` lies
        inside +-rope, which is two one-sided tests at `confidence.error`.
    separated: no difference is refuted (adjusted p below `confidence.error`) for new patients (L2)
        and for new training sets (L3).
    suggestive: refuted for new patients only.
    not separated: neither.  cannot tell: the design has fewer than two seeds or two folds in
        common.
    """
    words, error = [], confidence.error()
    for pair, (patients, training) in zip(pairs, adjusted(pairs), strict=True):
        low, high = pair.fit.interval("L3", confidence.equivalence())
        if low >= -rope and high <= rope:
            words.append("practically equal")
        elif patients < error and training < error:
            words.append("separated")
        elif np.isnan(patients) or np.isnan(training):
            words.append("cannot tell")
        elif patients < error:
            words.append("suggestive")
        else:
            words.append("not separated")
    return words
