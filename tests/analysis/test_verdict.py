"""The sentences of a cohort say what the numbers say, also where trials or seeds are absent."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from analysis.sections import verdict
from analysis.statistics.lottery import fresh_flip
from analysis.statistics.order import best_first
from analysis.statistics.pairs import Pair, against, compare, judge

RNG = np.random.default_rng(0)
FOLD = np.arange(60) % 5
BASE = RNG.uniform(0.5, 0.9, (5, 60))


def small(losses: int, seeds: int = 5, fold_of: np.ndarray = FOLD) -> SimpleNamespace:
    return SimpleNamespace(
        losses=[f"l{i}" for i in range(losses)],
        seeds=list(range(seeds)),
        folds=list(range(len(np.unique(fold_of)))),
        part=lambda cases, _subjects: f"{cases} of 60 cases",
        shown=list(range(losses)),
        fold_of=fold_of,
        subject_of=None,
    )


def noisy(values: np.ndarray, shift: float, spread: float = 0.01) -> np.ndarray:
    return values + shift + np.random.default_rng(1).normal(0, spread, values.shape)


def difference(scores: np.ndarray, fold_of: np.ndarray, pairs: list[Pair] | None = None) -> str:
    cohort = small(len(scores), scores.shape[1], fold_of)
    pairs = pairs or [compare(scores, fold_of, 1, 0)]
    return verdict._difference_sentence(cohort, pairs[0], judge(pairs)[0], 0.01, pairs)


def test_loss_without_the_hard_fold_is_not_the_best() -> None:
    hard = BASE - 0.4 * (FOLD == 0)
    scores = np.stack([hard, noisy(hard, -0.05)])
    scores[1, 2:, FOLD == 0] = np.nan  # three of five seeds lack it
    scores[1][:, (FOLD == 0) & (np.arange(60) > 4)] = np.nan
    cohort = small(2)
    assert np.nanmean(scores[1]) > np.nanmean(scores[0])
    assert best_first(scores, cohort) == [0, 1]
    assert "**l0** has the highest mean" in verdict._best_sentence(cohort, scores, 0, 1)
    assert "these means are over what all have" in verdict._best_sentence(cohort, scores, 0, 1)
    for pair in (compare(scores, FOLD, 0, 1), compare(scores, FOLD, 1, 0)):
        text = verdict._seed_sentence(cohort, scores, pair)
        assert "would put l1 above l0 in about **0%**" in text


def test_losses_that_share_nothing_are_still_ordered() -> None:
    scores = np.stack([BASE, BASE + 0.1])
    scores[0, 2:], scores[1, :2] = np.nan, np.nan
    assert best_first(scores, small(2)) == [1, 0]
    assert "no trial in common" in verdict._best_sentence(small(2), scores, 1, 0)


def test_adjusted_values_decide_what_holds_after_adjusting() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.005, 1e-4), noisy(BASE, 0.0, 0.05)])
    pairs = against(scores, FOLD, [0, 1, 2], 0)
    assert judge(pairs)[0] == "practically equal"
    text = difference(scores, FOLD, pairs)
    assert "also after adjusting" in text and "but not after" not in text


def test_one_fold_or_one_seed_cannot_tell_and_says_no_more() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    one_fold = np.zeros(60, int)
    assert judge([compare(scores, one_fold, 1, 0)]) == ["cannot tell"]
    text = difference(scores, one_fold)
    assert "for new seeds and new patients;" in text and "but not for" not in text
    assert judge([compare(scores[:, :1], FOLD, 1, 0)]) == ["cannot tell"]


def test_fresh_seed_is_predicted_from_the_seeds_that_are_there() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.01, 0.05)])
    scores[:, 2:] = np.nan
    pair = compare(scores, FOLD, 1, 0)
    pair = pair if pair.fit.estimate > 0 else compare(scores, FOLD, 0, 1)
    expected = fresh_flip(pair.fit, 2, 1)
    text = verdict._seed_sentence(small(2), scores, pair)
    assert f"**{expected:.0%}**" in text and "2 of 5 seeds" in text
    assert expected != pytest.approx(fresh_flip(pair.fit, 5, 1), abs=0.001)


def test_several_seeds_that_do_not_meet_are_not_called_one_seed() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    scores[1, :, FOLD == 0] = np.nan
    text = verdict._seed_sentence(small(2), scores, compare(scores, FOLD, 0, 1))
    assert "two complete seeds in common" in text and "1 of 2 losses" in text
    single = verdict._seed_sentence(small(2, 1), scores[:, :1], compare(scores[:, :1], FOLD, 0, 1))
    assert single.startswith("With one seed per fold")
