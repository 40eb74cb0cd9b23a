"""Which of two losses is better, on the cells and cases that both have, and how sure is that?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import special

from analysis.flags import ROPE
from analysis.statistics import confidence, looks
from analysis.statistics.ladder import (
    DIFFERENCE,
    RUNGS,
    Ladder,
    holm,
    holm_factors,
    ladder,
    with_training_sets,
)
from analysis.statistics.subjects import by_subject, part_of

MEANINGFUL = 0.75
"""Bouthillier et al. 2021: a win rate that could be this high is worth caring about."""
DECLARED = 0.8
"""Share of the error that is spent on comparisons with the reference, which are declared before
the sweep is seen; all other pairs have the rest."""
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
        """P(A > B): share of cells that a wins; ties are split."""
        total = self.won_cells + self.tied_cells + self.lost_cells
        return (self.won_cells + self.tied_cells / 2) / total if total else float("nan")

    @property
    def win_interval(self) -> tuple[float, float]:
        """Clopper and Pearson's interval over cells, as if they were independent."""
        total = self.won_cells + self.tied_cells + self.lost_cells
        return confidence.exact_share(self.won_cells + self.tied_cells / 2, total)

    def reversed(self) -> Pair:
        """The same pair, b against a."""
        low, high = self.fit.bounds
        fit = replace(self.fit, estimate=-self.fit.estimate, bounds=(-high, -low))
        return Pair(self.b, self.a, fit, self.lost_cells, self.tied_cells, self.won_cells)


@dataclass(frozen=True)
class Judgement:
    """What a family of comparisons allows to say of one of them."""

    word: str
    """One of WORDS."""
    p: dict[str, float]
    """Adjusted p of "no difference" on every rung."""
    p_equal: float
    """Adjusted p of "the difference is the rope or more", for new training sets."""
    survives: float
    """Robustness: the largest training-set effect under which there is a difference; NaN if it is
    not shown without any."""
    level: float
    """Of the interval for new training sets that excludes 0 where the adjusted p refutes it."""
    sign: int
    """1 where the first loss has the higher mean, -1 where the lower."""

    @property
    def survives_rounded(self) -> float:
        """`survives` with three decimals, rounded down: what is printed is survived."""
        return float(np.floor(1000 * self.survives + 1e-9) / 1000)

    @property
    def in_words(self) -> str:
        """The word with its direction, of the first loss against the second.

        >>> Judgement("suggestive", {}, 1.0, 0.004, 0.99, -1).in_words
        'perhaps worse'
        """
        better = "better" if self.sign > 0 else "worse"
        return {"separated": better, "suggestive": f"perhaps {better}"}.get(self.word, self.word)

    @property
    def holds(self) -> str:
        """The highest rung that the adjusted p refutes, as all below it that the design can tell;
        "" for none."""
        highest = ""
        for rung in RUNGS:
            if self.p[rung] >= confidence.error():
                break
            if self.p[rung] == self.p[rung]:
                highest = rung
        return highest

    def reversed(self) -> Judgement:
        """The same of the second loss against the first."""
        return replace(self, sign=-self.sign)


@dataclass(frozen=True, eq=False)
class Family:
    """All comparisons of a cohort's losses, judged together: a pair has one verdict."""

    pairs: list[Pair]
    judgements: list[Judgement]
    reference: int

    def of(self, a: int, b: int) -> tuple[Pair, Judgement]:
        """Loss a against loss b."""
        for pair, judgement in zip(self.pairs, self.judgements, strict=True):
            if (pair.a, pair.b) == (a, b):
                return pair, judgement
            if (pair.a, pair.b) == (b, a):
                return pair.reversed(), judgement.reversed()
        raise KeyError((a, b))

    @property
    def losses(self) -> list[int]:
        """The losses, in the sweep's order."""
        return sorted({loss for pair in self.pairs for loss in (pair.a, pair.b)})

    @property
    def against_reference(self) -> list[tuple[Pair, Judgement]]:
        """Every other loss against the reference."""
        return [self.of(loss, self.reference) for loss in self.losses if loss != self.reference]


def compare(
    scores: np.ndarray,
    fold_of: np.ndarray,
    a: int,
    b: int,
    subject_of: np.ndarray | None = None,
    *,
    tau: float = float("nan"),
    num_subjects: int | None = None,
    bounds: tuple[float, float] = DIFFERENCE,
) -> Pair:
    """One pair from scores [L, S, P] at the reported epoch, NaN where absent or undefined; cases
    of one subject, by ``subject_of`` [P], count once.  ``tau`` and ``num_subjects`` as in
    `ladder.ladder`.

    Only the two losses themselves matter: adding a third to the sweep changes nothing here.
    """
    difference = scores[a] - scores[b]
    fit = ladder(difference, fold_of, subject_of, tau=tau, num_subjects=num_subjects, bounds=bounds)
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


def every_pair(
    scores: np.ndarray,
    fold_of: np.ndarray,
    shown: Sequence[int],
    subject_of: np.ndarray | None = None,
    *,
    tau: float = float("nan"),
    num_subjects: int | None = None,
) -> list[Pair]:
    """All pairs, first minus second, in the sweep's order."""
    return [
        compare(scores, fold_of, a, b, subject_of, tau=tau, num_subjects=num_subjects)
        for a, b in combinations(shown, 2)
    ]


def judge(
    pairs: Sequence[Pair], rope: float = ROPE, reference: int | None = None
) -> list[Judgement]:
    """What can be said of each pair of a family, Holm-adjusted inside it.

    With a ``reference``, comparisons with it share `DECLARED` of the error; without, or where there
    are no others, all share it alike.

    practically equal: two one-sided tests refute a difference of the rope or more, for new
        training sets (L3).
    separated: "no difference" is refuted for new training sets: the difference survives the given
        training-set effect.
    suggestive: it survives a smaller one, or none.
    not separated: it is not refuted even without.  cannot tell: the design has too few seeds or
        folds in common, or no training-set effect is given.
    """
    weight = error_shares([(pair.a, pair.b) for pair in pairs], reference)
    adjusted = {
        rung: holm(np.array([pair.fit.p_value(rung) for pair in pairs]), weight) for rung in RUNGS
    }
    equal = holm(np.array([pair.fit.p_equal(rope) for pair in pairs]), weight)
    factors = holm_factors(np.array([pair.fit.p_value("L3") for pair in pairs]), weight)
    survived, error = survives(pairs, weight), confidence.error()
    found = []
    for index, pair in enumerate(pairs):
        p = {rung: float(adjusted[rung][index]) for rung in RUNGS}
        if equal[index] < error:
            word = "practically equal"
        elif np.isnan(p["L3"]):
            word = "cannot tell"
        elif p["L3"] < error:
            word = "separated"
        else:
            word = "suggestive" if survived[index] == survived[index] else "not separated"
        found.append(
            Judgement(
                word=word,
                p=p,
                p_equal=float(equal[index]),
                survives=float(survived[index]),
                level=float(1 - error / factors[index]),
                sign=1 if pair.fit.estimate > 0 else -1,
            )
        )
    return found


def survives(pairs: Sequence[Pair], weight: np.ndarray | None = None) -> np.ndarray:
    """[pairs] the largest tau at which Holm's procedure still refutes "no difference"; NaN where it
    does not without any training-set effect, or the design cannot tell.

    All pairs get the same tau.  An effect of "up to tau" may be none, so p never falls with tau.
    """
    estimate, se, df, k, seed_se, seeds = (
        np.array([values(pair.fit) for pair in pairs], float)
        for values in (
            lambda fit: fit.estimate,
            lambda fit: fit.base_se,
            lambda fit: fit.base_df if fit.base_df > 0 else np.nan,
            lambda fit: fit.overlap,
            lambda fit: fit.seed_se,
            lambda fit: fit.seeds,
        )
    )
    error = confidence.error()

    def p_at(tau: float) -> np.ndarray:
        variance, own = with_training_sets(se**2, df, k, tau)
        return looks.p_value(estimate, variance, own, seed_se**2, seeds)

    without = p_at(0.0)

    def refuted(tau: float) -> np.ndarray:
        return holm(np.maximum(without, p_at(tau)), weight) < error

    found = np.where(refuted(0.0), 0.0, np.nan)
    for index in np.flatnonzero(found == 0):
        low, high = 0.0, float(np.abs(estimate[index]) / np.sqrt(k[index]))
        while high - low > 1e-5 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if refuted(middle)[index] else (low, middle)
        found[index] = low
    return found


def equality_limit(fit: Ladder, rope: float) -> float:
    """The training-set effect from which no data, however much, could show a difference to be
    smaller than the rope.

    The normal quantile of the two one-sided tests, without any adjustment, times sqrt(k) tau must
    be below the rope.
    """
    return rope / (float(special.ndtri(1 - confidence.error())) * float(np.sqrt(fit.overlap)))


def error_shares(pairs: Sequence[tuple[int, int]], reference: int | None) -> np.ndarray:
    """How the error is shared among pairs: `DECLARED` of it by those with the reference.

    >>> error_shares([(0, 1), (0, 2), (1, 2)], 0).round(2).tolist()
    [0.4, 0.4, 0.2]
    """
    declared = np.array([reference in pair for pair in pairs], bool)
    if declared.all() or not declared.any():
        return np.ones(len(pairs))
    return np.where(declared, DECLARED / declared.sum(), (1 - DECLARED) / (~declared).sum())
