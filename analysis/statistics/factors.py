"""What does each factor of a full product do on its own, and do two factors change each other?

An arm has one level of every factor.  A main effect is the difference between a level and the
factor's first one, averaged over every combination of the other factors; an interaction is how much
a main effect differs between two levels of another factor: (x11 - x01) - (x10 - x00), averaged over
the rest.  Both are paired: per seed and case first, then the ladder of `ladder.ladder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from analysis.flags import ROPE
from analysis.statistics.ladder import RATE, ladder
from analysis.statistics.pairs import Judgement, Pair, compare, judge

INTERACTION = (-2.0, 2.0)
"""Where a difference of two differences of rates can lie."""


@dataclass(frozen=True, eq=False)
class Product:
    """Arms that have every level of every factor with every other."""

    levels: dict[str, list[str]]
    """Of every factor with two levels or more; the first is what others are compared with."""
    arms: np.ndarray
    """An axis per factor of `levels`: the arm that has these levels."""
    left_out: tuple[tuple[str, str], ...]
    """Levels, as (factor, level), that not all others occur with: their arms are in no effect."""


@dataclass(frozen=True)
class Effect:
    """One level against the first, or how much that differs between two levels of another."""

    factors: tuple[str, ...]
    """One: a main effect; two: an interaction."""
    levels: tuple[str, ...]
    first: tuple[str, ...]
    """The levels that they are compared with."""
    pair: Pair
    judgement: Judgement

    @property
    def is_interaction(self) -> bool:
        """Whether it is between two factors."""
        return len(self.factors) == 2

    @property
    def in_words(self) -> str:
        """What can be said of it: of an interaction, whether the effects add up."""
        word, sign = self.judgement.word, self.judgement.sign
        if not self.is_interaction:
            return self.judgement.in_words
        which = "raises it" if sign > 0 else "lowers it"
        return {
            "separated": which,
            "suggestive": f"perhaps {which}",
            "practically equal": "practically additive",
            "not separated": "not found",
        }.get(word, word)


def balanced(levels: Mapping[int, Mapping[str, str]]) -> Product | None:
    """The product that arms are, by the levels that each has of every factor.

    Where combinations are absent, the level that most of them lack is left out, until all are
    there; of equal ones the last.  None if no factor is left with two levels.

    >>> found = balanced({0: {"a": "1", "b": "1"}, 1: {"a": "2", "b": "1"}})
    >>> found.levels, found.arms.tolist()
    ({'a': ['1', '2']}, [0, 1])
    """
    names = list(dict.fromkeys(name for own in levels.values() for name in own))
    by_level = {tuple(own[name] for name in names): arm for arm, own in levels.items()}
    if len(by_level) < len(levels):  # two arms that differ by more than their levels
        return None
    kept = [list(dict.fromkeys(key[axis] for key in by_level)) for axis in range(len(names))]
    left_out: list[tuple[str, str]] = []
    while absent := [key for key in product(*kept) if key not in by_level]:
        shares = [
            (sum(key[axis] == level for key in absent) * len(own), place, axis, level)
            for axis, own in enumerate(kept)
            for place, level in enumerate(own)
            if len(own) > 1
        ]
        if not shares:
            return None
        _, _, axis, level = max(shares, key=lambda each: each[:3])
        kept[axis].remove(level)
        left_out.append((names[axis], level))
    several = [axis for axis, own in enumerate(kept) if len(own) > 1]
    if not several:
        return None
    arms = np.array([by_level[key] for key in product(*kept)])
    return Product(
        {names[axis]: kept[axis] for axis in several},
        arms.reshape([len(kept[axis]) for axis in several]),
        tuple(left_out),
    )


def effects(
    scores: np.ndarray,
    found: Product,
    fold_of: np.ndarray,
    subject_of: np.ndarray | None = None,
    *,
    tau: float = float("nan"),
    num_subjects: int | None = None,
    rope: float = ROPE,
) -> list[Effect]:
    """Every main effect and every two-way interaction, Holm-adjusted as one family.

    Args:
        scores: [A, S, P] of arms, NaN where a trial is absent or a case undefined.
        found: which arms have which levels.
        fold_of, subject_of, num_subjects: as of `ladder.ladder`.
        tau: training-set effect on a difference of two arms.  An average of differences has that at
            most, a difference of two differences twice that at most, whatever their correlation:
            so much is assumed.
        rope: differences up to this count as none.

    All are over the same scores: those that every arm of the product has.
    """
    own = scores[found.arms.ravel()]
    own = np.where(np.isnan(own).any(0), np.nan, own).reshape(*found.arms.shape, *scores.shape[1:])
    names = list(found.levels)
    parts: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((axis,), (level,))
        for axis, name in enumerate(names)
        for level in range(1, len(found.levels[name]))
    ]
    parts += [
        ((*a, *b), (*of_a, *of_b)) for (a, of_a), (b, of_b) in combinations(parts, 2) if a != b
    ]
    pairs = []
    for axes, chosen in parts:
        higher, lower = _contrast(own, axes, chosen)
        pair = compare(
            np.stack([higher, lower]), fold_of, 0, 1, subject_of,
            tau=len(axes) * tau, num_subjects=num_subjects,
            **({"bounds": INTERACTION} if len(axes) == 2 else {}),
        )  # fmt: skip
        pairs.append(pair)
    return [
        Effect(
            tuple(names[axis] for axis in axes),
            tuple(
                found.levels[names[axis]][level] for axis, level in zip(axes, chosen, strict=True)
            ),
            tuple(found.levels[names[axis]][0] for axis in axes),
            pair,
            judgement,
        )
        for (axes, chosen), pair, judgement in zip(parts, pairs, judge(pairs, rope), strict=True)
    ]


def means(
    scores: np.ndarray,
    found: Product,
    fold_of: np.ndarray,
    subject_of: np.ndarray | None = None,
) -> np.ndarray:
    """The mean of every arm of a product over what all of them have, in the shape of its arms."""
    own = scores[found.arms.ravel()]
    own = np.where(np.isnan(own).any(0), np.nan, own)
    every = [ladder(each, fold_of, subject_of, bounds=RATE).estimate for each in own]
    return np.array(every).reshape(found.arms.shape)


def _contrast(
    own: np.ndarray, axes: Sequence[int], chosen: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Two [S, P] whose difference is the effect, averaged over all other factors."""

    def at(levels: Sequence[int]) -> np.ndarray:
        index: list[slice | int] = [slice(None)] * (own.ndim - 2)
        for axis, level in zip(axes, levels, strict=True):
            index[axis] = level
        part = own[tuple(index)]
        return part.reshape(-1, *part.shape[-2:]).mean(0)

    if len(axes) == 1:
        return at(chosen), at((0,))
    a, b = chosen
    return at((a, b)) + at((0, 0)), at((a, 0)) + at((0, b))
