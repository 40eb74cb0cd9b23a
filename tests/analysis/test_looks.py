"""Words and intervals that hold whenever one looks: against closed forms, and by looking."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.statistics import confidence, decision, looks
from analysis.statistics.ladder import RUNGS, ladder
from analysis.statistics.pairs import Family, compare, every_pair, judge
from tests.support import looks as looked_at
from tests.support.simulations import DESIGNS, LIT, WMH, Design, simulate

FOLD = np.repeat(np.arange(5), 12)


def test_p_for_new_seeds_is_one_over_the_mixture_of_likelihood_ratios() -> None:
    """Of t, whose density under a true difference is non-central; the difference is normal."""
    for t, df, seeds in ((2.5, 20, 5), (4.0, 5, 2), (6.0, 2, 2), (3.0, 45, 10)):
        spread = np.sqrt(looks.SPREAD * seeds)  # of the non-centrality

        def density(shift: float, t: float = t, df: int = df, spread: float = spread) -> float:
            return float(stats.nct.pdf(t, df, shift) * stats.norm.pdf(shift, scale=spread))

        mixture, _ = integrate.quad(density, -8 * spread, 8 * spread, limit=400, points=[0.0, t])
        expected = min(1.0, stats.t.pdf(t, df) / mixture)
        assert float(looks.anytime_p(t, df, 0.0, seeds)) == pytest.approx(expected, rel=1e-4)


def test_part_that_is_drawn_once_pays_as_one_look_does_but_for_the_surcharge() -> None:
    t, df = 3.0, 12.0
    once = 2 * stats.t.sf(t, df)
    assert float(looks.anytime_p(t, df, 1.0, 5)) == pytest.approx(once * looks.surcharge(5))
    between = looks.anytime_p(t, df, np.linspace(0, 1, 11), 5)
    assert (np.diff(between) < 0).all()
    assert np.diff(np.log(between)) == pytest.approx(np.log(between[-1] / between[0]) / 10)


def test_interval_excludes_what_p_refutes() -> None:
    level = np.array([0.8, 0.95, 0.99])
    for df, once, seeds in ((4.0, 0.3, 2.0), (20.0, 0.0, 5.0), (300.0, 0.8, 5.0), (7.0, 1.0, 1.0)):
        half = looks.critical_t(level, df, once, seeds)
        assert looks.anytime_p(half * 1.0001, df, once, seeds) == pytest.approx(
            1 - level, rel=0.002
        )
        assert (looks.anytime_p(half * 0.999, df, once, seeds) >= 1 - level).all()
    assert looks.critical_t(0.95, 2.0, 0.0, 2.0) == np.inf  # two trainings of each of two folds


def test_what_holds_for_more_holds_for_less() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = ((12,) * 5, (4, 4, 3, 3, 3), (30, 30))[seed % 3]
        d, fold_of, _, _ = simulate(rng, sizes, WMH, 2 + seed % 4)
        fit = ladder(d + 0.02, fold_of, tau=0.01)
        p, half = ([rule(rung) for rung in RUNGS] for rule in (fit.p_value, fit.half_width))
        assert p == sorted(p) and half == sorted(half)


def test_chance_has_its_share_of_errors_whenever_one_looks() -> None:
    """Seven equal losses, looked at after every cell: what Student's t and the report call."""
    draws = 200
    error = 2.6 * (0.05 * 0.95 / draws) ** 0.5
    for design in (DESIGNS[0], DESIGNS[7]):
        found = looked_at.seen(design, 0.0, draws)
        assert found.perhaps["any"] <= 0.05 + error and found.perhaps["once"] > 0.1
        assert found.better["any"] <= 0.05 + error
        for rung in RUNGS:
            assert found.covered["any", rung] >= 0.95 - error
        assert found.covered["once", "L1"] < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_chance_has_its_share_of_errors_over_many_sweeps(design: Design) -> None:
    draws = 4000
    for share in (0.0, 1.0):
        found = looked_at.seen(design, share * design.tau, draws)
        assert found.better["any"] <= 0.05
        if share == 0:
            assert found.perhaps["any"] <= 0.05
            assert found.covered["any", "L1"] >= 0.94


SHORT = pytest.mark.xfail(
    strict=True, reason="0.939 in folds so unlike; docs/statistics.md says so"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [
        pytest.param(each, marks=SHORT if each.name == "folds of 40, 10, 5, 3, 2" else ())
        for each in DESIGNS
    ],
    ids=lambda design: design.name,
)
def test_an_interval_for_new_patients_covers_at_every_look(design: Design) -> None:
    assert looked_at.seen(design, 0.0, 4000).covered["any", "L2"] >= 0.94


# ------------------------------------------------------------------------------------ the decision
def family(shifts: list[float], seeds: int, rng: np.random.Generator, tau: float) -> Family:
    losses = [simulate(rng, (12,) * 5, WMH, seeds)[0] / np.sqrt(2) + shift for shift in shifts]
    pairs = every_pair(np.stack(losses), FOLD, range(len(shifts)), tau=tau)
    return Family(pairs, judge(pairs, 0.01, 0), 0)


def test_large_differences_are_decided_by_their_words() -> None:
    rng = np.random.default_rng(0)
    found = decision.comparisons(family([0.0, 0.1, -0.1], 3, rng, 0.01), 0.01, 5)
    assert [one.word for one in found] == ["better", "worse"]
    assert decision.decided(found)


def test_small_differences_are_given_up_where_seeds_cannot_help() -> None:
    rng = np.random.default_rng(1)
    (given_up,) = decision.comparisons(family([0.0, 0.005], 4, rng, 0.01), 0.01, 5)
    assert given_up.word == "not separated" and given_up.chance < decision.HOPELESS
    assert decision.decided([given_up]) and not given_up.clear


def test_nothing_is_given_up_before_seeds_can_be_told_apart() -> None:
    rng = np.random.default_rng(2)
    (single,) = decision.comparisons(family([0.0, 0.0], 1, rng, 0.01), 0.01, 5)
    assert single.chance == 1 and not decision.decided([single])
    assert not decision.decided([])


def test_chance_is_how_often_a_verdict_comes() -> None:
    """Of sweeps at two seeds that may go either way by ten, whatever the true difference is."""
    rng = np.random.default_rng(3)
    said, expected = [], []
    for _ in range(300):
        d, fold_of, _, _ = simulate(rng, (12,) * 5, WMH | {"run": 0.04}, 10)
        scores = np.stack([d + rng.uniform(0, 0.06), np.zeros_like(d)])
        early, late = (compare(scores[:, :n], fold_of, 0, 1, tau=0.002) for n in (2, 10))
        (judged,) = judge([early], 0.0)
        expected.append(decision.chance(early, judged, 0.0, 10))
        said.append(late.fit.p_value("L3") < confidence.error())
    open_ones = (np.array(expected) > 0.2) & (np.array(expected) < 0.8)
    assert open_ones.sum() > 60
    found, hoped = np.array(said)[open_ones].mean(), np.array(expected)[open_ones].mean()
    assert hoped == pytest.approx(found, abs=0.12)


def test_more_seeds_than_the_cap_leave_nothing_to_hope_for() -> None:
    d, fold_of, _, _ = simulate(np.random.default_rng(4), (4, 4, 3, 3, 3), LIT, 6)
    pair = compare(np.stack([d, np.zeros_like(d)]), fold_of, 0, 1, tau=0.01)
    (judged,) = judge([pair])
    assert judged.word != "separated"
    assert decision.chance(pair, judged, 0.01, 5) == 0
