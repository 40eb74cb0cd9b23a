"""Main effects and interactions of a product: hand-made numbers, simulated truths, and the page."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from analysis.page.items import Figure, Note, Table
from analysis.reading.imports import read_results
from analysis.reading.scores import METRICS, cohort_scores
from analysis.report import report_input
from analysis.sections import factors, pairs
from analysis.sections.report_input import ReportInput
from analysis.statistics.factors import balanced, effects
from sweeps.bench.fake_sweep import FakeSweep

LOSSES, RATES, SIZES = ("xent", "dsc"), ("1", "2", "3"), ("8", "16")
LEVELS = {
    arm: dict(zip(("loss", "rate", "size"), own, strict=True))
    for arm, own in enumerate(product(LOSSES, RATES, SIZES))
}
LOSS = {"xent": 0.0, "dsc": 0.05}
RATE = {"1": 0.0, "2": 0.02, "3": -0.01}
SIZE = {"8": 0.0, "16": 0.03}


def planted(arm: int, interaction: float = 0.0) -> float:
    own = LEVELS[arm]
    both = own["loss"] == "dsc" and own["rate"] == "2"
    return LOSS[own["loss"]] + RATE[own["rate"]] + SIZE[own["size"]] + interaction * both


def test_planted_effects_come_out() -> None:
    """Without noise an additive truth has no interaction, and a planted one is itself."""
    found = balanced(LEVELS)
    assert found is not None and found.arms.shape == (2, 3, 2) and not found.left_out
    base = np.random.default_rng(0).uniform(0.3, 0.6, (3, 8))
    fold_of = np.arange(8) % 2
    for interaction in (0.0, 0.04):
        scores = np.stack([base + planted(arm, interaction) for arm in LEVELS])
        values = {
            (*one.factors, *one.levels): one.pair.fit.estimate
            for one in effects(scores, found, fold_of)
        }
        assert values == pytest.approx({
            ("loss", "dsc"): 0.05 + interaction / 3, ("rate", "2"): 0.02 + interaction / 2,
            ("rate", "3"): -0.01, ("size", "16"): 0.03,
            ("loss", "rate", "dsc", "2"): interaction, ("loss", "rate", "dsc", "3"): 0.0,
            ("loss", "size", "dsc", "16"): 0.0, ("rate", "size", "2", "16"): 0.0,
            ("rate", "size", "3", "16"): 0.0,
        }, abs=1e-12)  # fmt: skip


def test_two_levels_without_others_are_a_difference_of_two_means() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 1, (4, 3, 6))
    found = balanced({a: {"x": str(a // 2), "y": str(a % 2)} for a in range(4)})
    assert found is not None
    x, y, both = effects(scores, found, np.arange(6) % 3)
    means = scores.mean((1, 2))
    assert x.pair.fit.estimate == pytest.approx(means[2:].mean() - means[:2].mean())
    assert y.pair.fit.estimate == pytest.approx(means[1::2].mean() - means[::2].mean())
    assert both.is_interaction
    assert both.pair.fit.estimate == pytest.approx(means[3] + means[0] - means[1] - means[2])


def test_what_one_arm_lacks_is_in_no_effect() -> None:
    scores = np.random.default_rng(2).uniform(0, 1, (4, 2, 4))
    scores[1, 0, 0::2] = np.nan  # a cell of two cases
    found = balanced({a: {"x": str(a // 2), "y": str(a % 2)} for a in range(4)})
    assert found is not None
    assert {one.pair.fit.num_cells for one in effects(scores, found, np.arange(4) % 2)} == {3}


def test_an_incomplete_product_leaves_levels_out_and_says_which() -> None:
    without = {arm: own for arm, own in LEVELS.items() if own != LEVELS[10]}  # dsc, 3, 8
    found = balanced(without)
    assert found is not None and found.left_out == (("rate", "3"),)
    assert found.levels == {"loss": list(LOSSES), "rate": ["1", "2"], "size": list(SIZES)}
    assert balanced({0: {"x": "1", "y": "1"}, 1: {"x": "2", "y": "2"}}) is None
    assert balanced({0: {"x": "1"}}) is None


@pytest.mark.parametrize(("interaction", "draws"), [(0.0, 100), (0.08, 25)])
def test_intervals_of_a_simulated_product_hold_at_the_stated_rate(
    interaction: float, draws: int
) -> None:
    """2 x 2, five seeds, five folds of six patients: seeds, patients and the rest act on each arm.

    Each interval is asked for 95 %, and holds at any look, so at one it covers more.
    """
    rng = np.random.default_rng(3)
    levels = {a: {"x": str(a // 2), "y": str(a % 2)} for a in range(4)}
    found, fold_of = balanced(levels), np.arange(30) % 5
    assert found is not None
    truth = np.array([0.0, 0.02, 0.05, 0.07 + interaction])
    expected = [0.05 + interaction / 2, 0.02 + interaction / 2, interaction]
    inside, estimates, false = np.zeros((3, 2)), np.zeros(3), 0
    for _ in range(draws):
        patient = rng.normal(0, 0.03, (4, 1, 30))
        run = rng.normal(0, 0.02, (4, 5, 5))[:, :, fold_of]
        scores = truth[:, None, None] + patient + run + rng.normal(0, 0.03, (4, 5, 30))
        fits = [one.pair.fit for one in effects(scores, found, fold_of, tau=0.0)]
        estimates += [fit.estimate / draws for fit in fits]
        for place, (fit, value) in enumerate(zip(fits, expected, strict=True)):
            for column, rung in enumerate(("L2", "L3")):
                low, high = fit.interval(rung)
                inside[place, column] += low <= value <= high
        false += fits[2].p_value("L3") < 0.05
    assert estimates == pytest.approx(expected, abs=0.006)
    assert (inside / draws > 0.95 - 3 * np.sqrt(0.05 * 0.95 / draws)).all()
    assert false / draws > 0.9 if interaction else false / draws < 0.1


# ------------------------------------------------------------------------------------ in the report
@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    fake = FakeSweep(
        losses=("xent", "dsc"),
        vary={"learning_rate": (1e-4, 3e-4), "batch_size": (16, 8)},
        effects={("learning_rate", 3e-4): 0.8},
        seeds=(1, 2, 3), num_folds=2, num_cases=8, epochs=2, pictures=False, gradients=False,
    )  # fmt: skip
    path = fake.write(tmp_path_factory.mktemp("product"))
    return report_input(read_results(path), None, 0.01, False)


def test_a_report_says_what_each_factor_does(given: ReportInput) -> None:
    answer = factors.section(given)
    assert answer is not None
    (table,) = (item for item in answer.items if isinstance(item, Table))
    frame = table.frame.set_index("effect")
    assert list(frame.index) == [
        "loss dsc − xent", "batch_size 8 − 16", "learning_rate 0.0003 − 0.0001",
        "loss dsc − xent × batch_size 8 − 16",
        "loss dsc − xent × learning_rate 0.0003 − 0.0001",
        "batch_size 8 − 16 × learning_rate 0.0003 − 0.0001",
    ]  # fmt: skip
    (cohort,) = given.cohorts
    scores = cohort.last_by_case(cohort.test)[..., METRICS.index("dice")]
    means = {cohort.losses[arm]: scores[arm].mean() for arm in cohort.shown}
    own = [m for label, m in means.items() if "learning_rate 0.0003" in label]
    other = [m for label, m in means.items() if "learning_rate 0.0001" in label]
    planted_effect = frame.loc["learning_rate 0.0003 − 0.0001", "difference"]
    assert planted_effect == pytest.approx(np.mean(own) - np.mean(other))
    assert planted_effect > 0.02
    assert "All 6 effects" in table.caption and "6 of 6 (seed, fold) cells" in table.caption
    for item in answer.items:
        if isinstance(item, Figure):
            assert item.draw().axes and len(item.data)
    assert not any(isinstance(item, Note) for item in answer.items)


def test_comparisons_say_what_they_share(given: ReportInput) -> None:
    answer = pairs.section(given)
    assert answer is not None
    (table,) = (item for item in answer.items if getattr(item, "key", "").startswith("forest-"))
    assert isinstance(table, Table)
    shared = dict(zip(table.frame["loss"], table.frame["shared"], strict=True))
    assert shared["dsc, batch_size 16, learning_rate 0.0003"] == "weights and batches"
    assert shared["xent, batch_size 8, learning_rate 0.0001"] == "weights"
    notes = [item for item in answer.items if isinstance(item, Note)]
    assert "12 share weights and batches" in str(notes[-1].body)
    assert "16 share weights" in str(notes[-1].body)
    assert "networks of one form start from the same weights" in given.what_cells_are


def test_a_combination_that_is_absent_is_said(given: ReportInput) -> None:
    left = replace(given, sweep=given.sweep.without(["dsc, batch_size 8, learning_rate 0.0003"]))
    left = replace(left, all_cohorts=cohort_scores(left.sweep))
    answer = factors.section(left)
    assert answer is not None
    (note,) = (item for item in answer.items if isinstance(item, Note))
    assert "the 4 of 7 arms" in str(note.body) and "without learning_rate 0.0003" in str(note.body)
