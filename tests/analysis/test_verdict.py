"""The sentences of a cohort say what the numbers say, also where trials or seeds are absent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from analysis.reading.training_effect import TrainingEffect
from analysis.sections import verdict
from analysis.sections.outcome import outcome
from analysis.sections.report_input import ReportInput, family
from analysis.statistics.lottery import fresh_flip
from analysis.statistics.order import best_first
from analysis.statistics.pairs import compare, judge
from lesion_core.results import Sweep

RNG = np.random.default_rng(0)
FOLD = np.arange(60) % 5
BASE = RNG.uniform(0.5, 0.9, (5, 60))
SMALL = 0.002
"""A training-set effect that lets equality be shown."""


def small(scores: np.ndarray, fold_of: np.ndarray = FOLD, **changes: Any) -> SimpleNamespace:
    """What the sentences ask of a cohort, of scores [L, S, P]."""
    losses, seeds = scores.shape[:2]
    folds = len(np.unique(fold_of))
    done = np.stack([~np.isnan(scores[:, :, fold_of == f]).all(2) for f in range(folds)], 2)
    found = SimpleNamespace(
        name="toy",
        title="toy",
        losses=[f"l{i}" for i in range(losses)],
        seeds=list(range(seeds)),
        folds=list(range(folds)),
        num_cases=60,
        num_subjects=60,
        shown=[loss for loss in range(losses) if done[loss].any()],
        done=done,
        status=np.where(done, "done", "missing").astype(object),
        fold_of=fold_of,
        subject_of=np.arange(60),
        presence=f"{done.sum()} of {done.size} trials",
        part=lambda cases, subjects: f"{cases} of 60 cases",
        expected=done.size,
        has_sessions=False,
        units="cases",
        averaged="",
        last_by_case=lambda values: np.stack([values, np.full_like(values, np.nan)], -1)[
            ..., [0, 1, 1]
        ],
        test=scores,
    )
    vars(found).update(changes)
    return found


def given(tau: float = 0.01, reference: str = "l0") -> ReportInput:
    return ReportInput(
        sweep=cast(Sweep, SimpleNamespace(path=Path("no ledger"), meta={}, losses=[])),
        all_cohorts=[],
        reference=reference,
        training=TrainingEffect({"dice": tau}),
    )


def said(scores: np.ndarray, tau: float = 0.01) -> verdict.Verdict:
    return verdict.verdict(outcome(given(tau), small(scores)))


def best_sentence(scores: np.ndarray) -> str:
    return verdict._best_sentence(outcome(given(), small(scores)))


def noisy(values: np.ndarray, shift: float, spread: float = 0.01, seed: int = 1) -> np.ndarray:
    return values + shift + np.random.default_rng(seed).normal(0, spread, values.shape)


def difference(
    scores: np.ndarray, fold_of: np.ndarray = FOLD, tau: float = 0.01, rope: float = 0.01
) -> str:
    cohort = small(scores, fold_of)
    judged = family(scores, cohort, cohort.shown, 0, tau=tau, rope=rope)
    effect = TrainingEffect({"dice": tau})
    return verdict._difference_sentence(cohort, *judged.of(1, 0), judged, effect, rope)


# ------------------------------------------------------------------------------------------ words
def test_headline_has_a_direction() -> None:
    for shift, word in ((0.1, "l1 is better than l0"), (-0.1, "l0 is better than l1")):
        scores = np.stack([BASE, noisy(BASE, shift)])
        assert said(scores).headline == word
    for tau, word in ((0.002, "l1 is better than l0"), (0.1, "l1 may be better than l0")):
        scores = np.stack([BASE, noisy(BASE, 0.02)])
        assert said(scores, tau).headline == word


def test_what_holds_is_adjusted_for_the_other_comparisons() -> None:
    scores = np.stack(
        [BASE, noisy(BASE, 0.0155, 0.05), *(noisy(BASE, 0, 0.05, s) for s in range(9))]
    )
    cohort = small(scores)
    judged = family(scores, cohort, cohort.shown, 0, tau=SMALL, rope=0.001)
    pair, judgement = judged.of(1, 0)
    rungs = ("L1", "L2", "L3")
    p = judgement.p
    assert all(p[rung] >= 5 * pair.fit.p_value(rung) or p[rung] == 1 for rung in rungs)
    highest = [rung for rung in rungs if p[rung] < 0.05]
    assert judgement.holds == (highest[-1] if highest else "")
    low, high = pair.fit.interval("L3", judgement.level)
    assert (low > 0 or high < 0) == (judgement.p["L3"] < 0.05)


def test_a_pair_has_one_verdict_wherever_it_stands() -> None:
    scores = np.stack([noisy(BASE, 0.01 * i, 0.04, i) for i in range(5)])
    cohort = small(scores)
    judged = family(scores, cohort, cohort.shown, 2, tau=SMALL, rope=0.001)
    opposite = {"better": "worse", "worse": "better"}
    for pair, judgement in zip(judged.pairs, judged.judgements, strict=True):
        there, back = judged.of(pair.a, pair.b), judged.of(pair.b, pair.a)
        assert there[1] is judgement and there[0] is pair
        assert back[0].fit.estimate == -pair.fit.estimate
        word = judgement.in_words.split()[-1]
        assert back[1].in_words.split()[-1] == opposite.get(word, word)
    assert [pair.b for pair, _ in judged.against_reference] == [2] * 4


def test_equality_is_a_claim_about_new_training_sets() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.001, 0.003)])
    (small_effect,) = judge([compare(scores, FOLD, 1, 0, tau=SMALL)])
    (usual_effect,) = judge([compare(scores, FOLD, 1, 0, tau=0.01)])
    assert small_effect.word == "practically equal" and usual_effect.word != "practically equal"
    assert "smaller than 0.01" in difference(scores, tau=SMALL)
    assert "could not be shown by any number of seeds" in difference(
        np.stack([BASE, noisy(BASE, 0, 0.05)])
    )


def test_nothing_found_comes_with_what_would_have_been_found() -> None:
    text = difference(np.stack([BASE, noisy(BASE, 0.0, 0.05)]))
    assert "would be found by 80 % of such sweeps" in text


def test_robustness_is_printed_beside_what_is_assumed() -> None:
    text = difference(np.stack([BASE, noisy(BASE, 0.1)]))
    assert "survives training-set effects up to SD **0.0" in text
    assert "assumed here: 0.010" in text and "luck of one training here" in text


# ---------------------------------------------------------------------------------------- absence
def test_loss_without_the_hard_fold_is_not_the_best() -> None:
    hard = BASE - 0.4 * (FOLD == 0)
    scores = np.stack([hard, noisy(hard, -0.05)])
    scores[1, 2:, FOLD == 0] = np.nan  # three of five seeds lack it
    scores[1][:, (FOLD == 0) & (np.arange(60) > 4)] = np.nan
    cohort = small(scores)
    assert np.nanmean(scores[1]) > np.nanmean(scores[0])
    assert best_first(scores, cohort) == [0, 1]
    assert "**l0** has the highest mean" in best_sentence(scores)
    assert "these means are over what all have" in best_sentence(scores)
    for pair in (compare(scores, FOLD, 0, 1), compare(scores, FOLD, 1, 0)):
        text = verdict._seed_sentence(cohort, scores, pair)
        assert "would put l1 above l0 in about **0%**" in text


def test_losses_that_share_nothing_are_still_ordered() -> None:
    scores = np.stack([BASE, BASE + 0.1])
    scores[0, 2:], scores[1, :2] = np.nan, np.nan
    assert best_first(scores, small(scores)) == [1, 0]
    assert "no trial in common" in best_sentence(scores)


def test_one_fold_can_tell_with_enough_seeds_and_one_seed_with_enough_folds() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    one_fold = np.zeros(60, int)
    assert judge([compare(scores, one_fold, 1, 0, tau=0.01)])[0].word == "separated"
    assert judge([compare(scores[:, :1], FOLD, 1, 0, tau=0.01)])[0].word == "separated"
    assert judge([compare(scores[:, :2], one_fold, 1, 0, tau=0.01)])[0].word == "cannot tell"
    text = difference(scores[:, :1])
    assert (
        "no fold has a second seed" in text
        and "That there is a difference holds for new seeds, new patients" in text
    )
    assert "can say nothing" in difference(scores[:, :2], one_fold)
    assert "One seed and one fold" in difference(scores[:, :1], one_fold)


def test_fresh_seed_is_predicted_from_the_seeds_that_are_there() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.01, 0.05)])
    scores[:, 2:] = np.nan
    pair = compare(scores, FOLD, 1, 0)
    pair = pair if pair.fit.estimate > 0 else compare(scores, FOLD, 0, 1)
    expected = fresh_flip(pair.fit, 2, 1)
    text = verdict._seed_sentence(small(scores), scores, pair)
    assert f"**{expected:.0%}**" in text and "2 of 5 seeds" in text
    assert expected != pytest.approx(fresh_flip(pair.fit, 5, 1), abs=0.001)


def test_several_seeds_that_do_not_meet_are_not_called_one_seed() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    scores[1, :, FOLD == 0] = np.nan
    text = verdict._seed_sentence(small(scores), scores, compare(scores, FOLD, 0, 1))
    assert "two complete seeds in common" in text and "1 of 2 losses" in text
    one = scores[:, :1]
    single = verdict._seed_sentence(small(one), one, compare(one, FOLD, 0, 1))
    assert single.startswith("With one seed per fold")
