"""Seed panels against brute force on small grids, and their limits."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import lottery, power
from analysis.statistics.ladder import ladder

WEIGHTS = np.array([0.4, 0.35, 0.25])


def grid(losses: int = 3, number: int = 4, folds: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((losses, number, folds)).round(2)


def brute_shares(worlds: list[np.ndarray]) -> np.ndarray:
    shares = np.zeros(len(worlds[0]))
    for world in worlds:
        best = np.flatnonzero(np.isclose(world, world.max(), atol=1e-12))
        shares[best] += 1 / len(best)
    return shares / len(worlds)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_paired_lottery_equals_brute_force(k: int) -> None:
    y = grid()
    worlds = [
        sum(WEIGHTS[f] * y[:, list(chosen), f].mean(1) for f in range(3))
        for chosen in combinations(range(4), k)
    ]
    found = lottery.winner_shares(lottery.paired_lottery(y, WEIGHTS, k))
    assert found == pytest.approx(brute_shares(worlds))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_full_lottery_equals_brute_force(k: int) -> None:
    y = grid()
    sets = list(combinations(range(4), k))
    worlds = [
        sum(WEIGHTS[f] * y[:, list(chosen[f]), f].mean(1) for f in range(3))
        for chosen in product(sets, repeat=3)
    ]
    found = lottery.full_lottery(y, WEIGHTS, k, np.random.default_rng(0))
    assert len(found) == len(sets) ** 3
    assert lottery.winner_shares(found) == pytest.approx(brute_shares(worlds), abs=1e-9)


@pytest.mark.parametrize("k", [1, 2])
def test_unpaired_lottery_equals_brute_force_with_ties(k: int) -> None:
    y = (grid(seed=3) * 4).round() / 4  # many ties
    even = np.ones(3) / 3
    means = lottery.paired_lottery(y, even, k)
    worlds = [
        np.array([means[chosen[loss], loss] for loss in range(3)])
        for chosen in product(range(len(means)), repeat=3)
    ]
    assert lottery.unpaired_shares(y, even, k) == pytest.approx(brute_shares(worlds))


def test_paper_grid_has_the_number_of_worlds_that_the_method_states() -> None:
    y = grid(losses=2, number=5, folds=5)
    even = np.ones(5) / 5
    rng = np.random.default_rng(0)
    assert [len(lottery.paired_lottery(y, even, k)) for k in range(1, 6)] == [5, 10, 10, 5, 1]
    assert [len(lottery.full_lottery(y, even, k, rng)) for k in range(1, 6)] == [
        3125,
        100_000,
        100_000,
        3125,
        1,
    ]
    assert len(lottery.one_paper_lottery(y)) == 25


def test_random_draws_approach_the_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    y = grid(number=5)
    exact = lottery.winner_shares(lottery.full_lottery(y, WEIGHTS, 2, np.random.default_rng(0)))
    monkeypatch.setattr(lottery, "EXACT_UP_TO", 10)
    drawn = lottery.winner_shares(lottery.full_lottery(y, WEIGHTS, 2, np.random.default_rng(0)))
    assert drawn == pytest.approx(exact, abs=0.02)


def test_all_seeds_never_flip_and_shares_sum_to_one() -> None:
    y = grid()
    assert lottery.flip_share(y[0] - y[1], WEIGHTS, 4) == 0
    for k in range(1, 5):
        assert lottery.unpaired_shares(y, WEIGHTS, k).sum() == pytest.approx(1)


def test_flip_equals_brute_force() -> None:
    d = grid()[0] - grid()[1]
    overall = np.sign((d @ WEIGHTS).mean())
    flips = [
        np.sign(np.mean([d[s] @ WEIGHTS for s in chosen])) != overall
        for chosen in combinations(range(4), 2)
    ]
    assert lottery.flip_share(d, WEIGHTS, 2) == np.mean(flips)


def test_predicted_flip_is_calibrated_for_fresh_seeds() -> None:
    """True difference drawn from a wide prior: predicted and actual flips agree on average."""
    rng = np.random.default_rng(1)
    fold_of = np.repeat(np.arange(5), 4)
    predicted, actual = [], []
    for _ in range(1500):
        truth = rng.uniform(-0.06, 0.06)
        d = truth + np.repeat(rng.normal(0, 0.03, (5, 5)), 4, axis=1)
        fit = ladder(d, fold_of)
        predicted.append(lottery.fresh_flip(fit, 5, 1))
        fresh = truth + rng.normal(0, 0.03, 5).mean()
        actual.append(np.sign(fresh) != np.sign(fit.estimate))
    assert np.mean(predicted) == pytest.approx(np.mean(actual), abs=0.02)


def test_five_seeds_have_fifteen_pairs_of_disjoint_halves() -> None:
    even = np.ones(3) / 3
    assert lottery.split_half_disagreement(grid(number=5)[0], even)[1] == 15
    assert lottery.split_half_disagreement(np.ones((5, 3)), even)[0] == 0
    assert lottery.split_half_disagreement(np.ones((1, 3)), even)[1] == 0


def test_cherries_are_possible_both_ways_only_when_seeds_disagree() -> None:
    y = np.array([[[0.5], [0.9]], [[0.6], [0.7]], [[0.1], [0.2]]])
    can = lottery.can_win(y, np.ones(1))
    assert can.tolist() == [[False, True, True], [True, False, True], [False, False, False]]


def test_detectable_difference_has_the_stated_power() -> None:
    found = power.detectable(0.02, 8)
    critical = stats.t.ppf(0.975, 8)
    assert stats.nct.sf(critical, 8, found / 0.02) == pytest.approx(0.8)


def test_more_seeds_narrow_only_the_seed_part() -> None:
    rng = np.random.default_rng(2)
    fold_of = np.repeat(np.arange(5), 6)
    d = rng.normal(0, 0.05, 30) + np.repeat(rng.normal(0, 0.05, (5, 5)), 6, axis=1)
    fit = ladder(d + rng.normal(0, 0.03, (5, 30)), fold_of)
    frame = power.needed_seeds(fit, 5, (2, 5, 500)).set_index(["rung", "seeds"])["se"]
    assert frame["L1", 5] == pytest.approx(fit.se["L1"], rel=0.3)
    assert frame["L1", 500] < 0.15 * frame["L1", 5]
    assert frame["L2", 500] == pytest.approx(
        np.sqrt(fit.components.patient * fit.patient_share), rel=0.05
    )


def test_loss_without_enough_trials_is_left_out_by_name_not_silently() -> None:
    scores = np.random.default_rng(3).random((3, 4, 6))
    scores[2, 1:] = np.nan
    found = lottery.complete_cells(scores, np.repeat([0, 1], 3), [0, 1, 2])
    assert (found.losses, found.left_out, found.seeds) == ([0, 1], [2], [0, 1, 2, 3])


def test_lottery_weighs_folds_as_the_ladder_does() -> None:
    fold_of = np.array([0] * 10 + [1] * 2)
    scores = np.zeros((2, 5, 12))
    scores[0] = np.where(fold_of == 0, -0.02, 0.05)
    scores[0, :, 1:10] = np.nan  # one usable case in the larger fold
    found = lottery.complete_cells(scores, fold_of, [0, 1])
    difference = found.values[0] - found.values[1]
    assert (difference @ found.weights).mean() == pytest.approx(
        ladder(scores[0] - scores[1], fold_of).estimate
    )
