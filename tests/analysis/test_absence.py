"""Unfinished, failed and collapsed trainings never decide a verdict silently."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.sections import verdict
from analysis.sections.outcome import outcome
from analysis.statistics import confidence
from analysis.statistics.absence import complete_grid, failures, given_up, odd_cells
from analysis.statistics.order import best_first
from tests.analysis.test_verdict import BASE, FOLD, given, noisy, said, small


def with_a_late_loss(trials: int, shift: float = 0.3) -> np.ndarray:
    """Three complete losses, the second clearly better, and one with a few lucky trials."""
    scores = np.stack(
        [BASE, noisy(BASE, 0.08, seed=1), noisy(BASE, 0.0, seed=2), noisy(BASE, shift, seed=3)]
    )
    for number in range(trials, 25):
        scores[3, number // 5, number % 5 == FOLD] = np.nan
    return scores


@pytest.mark.parametrize("trials", [1, 5, 12])
def test_unfinished_loss_does_not_take_the_verdict(trials: int) -> None:
    scores = with_a_late_loss(trials)
    found = said(scores)
    assert found.headline == "l1 is better than l0"
    text = " ".join(found.sentences)
    assert f"Too incomplete to be compared: l3 ({trials} of 25 trials)." in text


def test_nearly_complete_loss_is_compared() -> None:
    scores = with_a_late_loss(22)
    assert best_first(scores, small(scores))[0] == 3
    assert given_up(small(scores)) == ""


def test_worst_is_given_up_first_and_two_always_stay() -> None:
    done = np.zeros((4, 5, 5), bool)
    done[0], done[1], done[2, :2], done[3, :1] = True, True, True, True
    assert complete_grid(done, [0, 1, 2, 3]) == ([0, 1], [3, 2])
    done[:] = False
    done[0, :2], done[1, 2:] = True, True
    assert complete_grid(done, [0, 1]) == ([0, 1], [])


@pytest.mark.parametrize(("trials", "words"), [(0, "no complete trials"), (2, "only 2 of 25")])
def test_reference_that_is_not_there_is_said_aloud(trials: int, words: str) -> None:
    cohort = small(with_a_late_loss(trials))
    report = given(reference="l3")
    cohort.status[3] = np.where(cohort.status[3] == "done", "done", "missing")
    assert report.reference_in(cohort) == 0
    assert words in report.reference_note(cohort)
    assert verdict.verdict(outcome(report, cohort)).sentences[0] == report.reference_note(cohort)
    assert given(reference="l0").reference_note(cohort) == ""


def test_diverged_training_is_counted_and_judged() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    cohort = small(scores)
    lost = [(0, 0), (1, 2), (3, 4)]
    for seed, fold in lost:
        scores[1, seed, fold == FOLD] = np.nan
    cohort = small(scores)
    for seed, fold in lost:
        cohort.status[1, seed, fold] = "diverged"
    found = failures(cohort, scores)
    assert (found[1].diverged, found[1].ended, found[0].diverged) == (3, 25, 0)
    assert found[1].diverged_interval == pytest.approx((0.0255, 0.3122), abs=1e-3)
    verdict_of = verdict.verdict(outcome(given(), cohort))
    assert verdict_of.headline == "l1 is better than l0, where training did not diverge"
    text = " ".join(verdict_of.sentences)
    assert "**Training diverged:** l1 in 3 of 25 trainings (3% to 31%, 95 % interval)." in text
    zeroed = np.nan_to_num(scores[1], nan=0.0)  # every fold has as many cases
    size = f"{(zeroed - scores[0]).mean():+.3f}".replace("-", "\N{MINUS SIGN}")
    counted = f"counted as DSC 0 in every test case, against l0: l1 not separated ({size})."
    assert counted in text


def test_failures_that_change_nothing_say_so() -> None:
    scores = np.stack([BASE, noisy(BASE, -0.3)])
    scores[1, 0, FOLD == 0] = np.nan
    cohort = small(scores)
    cohort.status[1, 0, 0] = "diverged"
    assert "no verdict changes" in " ".join(verdict.verdict(outcome(given(), cohort)).sentences)


def test_complete_sweep_is_not_explained_by_missing_trials() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    scores[1, 0, 7] = np.nan  # both masks empty there
    cohort = small(scores)
    text = verdict._best_sentence(outcome(given(), cohort))
    assert "lack a defined DSC in some cases" in text and "trials" not in text


def test_collapse_shows_and_ordinary_luck_does_not() -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(0.7, 0.02, (2000, 5, 5))
    assert odd_cells(cells)[0].any((1, 2)).mean() < 0.01
    cells[:, 2, 3] -= 0.6
    odd, judged = odd_cells(cells)
    assert odd[:, 2, 3].all() and judged.all()
    assert not odd_cells(cells[:, 1:3])[1].any()  # of two seeds nobody can tell which is odd


def test_collapse_warns_in_the_verdict() -> None:
    scores = np.stack([BASE, noisy(BASE, 0.05)])
    text = " ".join(said(scores).sentences)
    assert "none ended far from others" in text and "Some trainings ended far" not in text
    scores[1, 2, FOLD == 1] -= 0.5
    text = " ".join(said(scores).sentences)
    assert "ended far from others of their fold" in text and "1 of 25 of l1" in text


def test_exact_interval_covers_at_any_rate() -> None:
    from scipy import stats

    for rate in (0.01, 0.04, 0.3):
        ends = [confidence.exact_share(hits, 25) for hits in range(26)]
        share = stats.binom.pmf(np.arange(26), 25, rate)
        assert sum(p for p, (a, b) in zip(share, ends, strict=True) if a <= rate <= b) >= 0.95
