"""The ladder: coverage by simulation, type-I error, exact cases, and independent libraries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.statistics import confidence
from analysis.statistics.ladder import (
    DIFFERENCE,
    RUNGS,
    errors,
    holm,
    holm_factors,
    ladder,
    overlap,
)
from analysis.statistics.pairs import Judgement, Pair, compare, every_pair, judge
from tests.support import looks as looked_at
from tests.support import simulations
from tests.support.simulations import LIT, WMH, Design, simulate

FAST = 1500
LEAST = 0.95 - 3 * (0.05 * 0.95 / FAST) ** 0.5


# --------------------------------------------------------------------------------------- coverage
@pytest.mark.parametrize("design", simulations.DESIGNS, ids=lambda design: design.name)
def test_interval_for_new_training_sets_covers_at_the_given_effect_and_below(
    design: Design,
) -> None:
    tau = design.tau
    for share in (0.0, 0.5, 1.0):
        covered = simulations.coverage(design, share * tau, tau, draws=FAST)
        if design.too_small:
            assert np.isnan(covered["L3"])
        else:
            assert covered["L3"] >= LEAST
    if not (design.too_small or design.conservative):
        assert covered["L3"] <= 0.97 + 3 * (0.03 * 0.97 / FAST) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("design", simulations.DESIGNS, ids=lambda design: design.name)
def test_intervals_cover_over_many_draws(design: Design) -> None:
    covered = simulations.coverage(design, design.tau, design.tau, draws=20_000)
    if design.too_small:
        assert np.isnan(covered["L3"])
        return
    assert 0.94 <= covered["L3"] <= (0.985 if design.conservative else 0.97)
    without = simulations.coverage(design, 0.0, design.tau, draws=20_000)
    assert 0.93 <= without["L2"] <= 0.97
    if design.seeds > 1:
        assert 0.94 <= without["L1"] <= 0.96


@pytest.mark.parametrize("design", simulations.DESIGNS[::2], ids=lambda design: design.name)
def test_equal_losses_are_rarely_separated_and_the_best_one_is_covered(design: Design) -> None:
    draws = 400
    error = 2.6 * (0.05 * 0.95 / draws) ** 0.5
    found = simulations.claims(design, design.tau, design.tau, draws)
    if design.too_small:
        assert found["separated"] == 0
        return
    assert found["separated"] <= 0.05 + error
    assert found["best covered"] >= 0.95 - error
    assert found["best covered, unadjusted"] < found["best covered"]


@pytest.mark.slow
@pytest.mark.parametrize("design", simulations.DESIGNS, ids=lambda design: design.name)
def test_equal_losses_are_rarely_separated_over_many_draws(design: Design) -> None:
    for share in (0.0, 0.5, 1.0):
        found = simulations.claims(design, share * design.tau, design.tau, draws=4000)
        assert found["separated"] <= 0.05 + 0.007


def test_losses_at_the_margin_are_rarely_called_practically_equal() -> None:
    """Six losses that truly differ from the reference by exactly the rope."""
    design, draws = simulations.DESIGNS[0], 1000
    found = simulations.claims(design, 0.002, 0.002, draws, shift=0.02, rope=0.02)
    assert found["equal"] <= 0.05 + 2.6 * (0.05 * 0.95 / draws) ** 0.5
    assert found["equal, unadjusted"] > 0.1


def test_simulations_use_the_errors_of_the_report() -> None:
    design = simulations.DESIGNS[2]
    fold_of = np.repeat(np.arange(5), design.sizes)
    blocks = simulations.differences(np.random.default_rng(0), design, 0.01, 5)
    found = errors(blocks)
    halves = simulations.half_widths(found, design, 0.01)
    p = looked_at.p_values(found, found.estimate, design, 0.01, 5.0)["any"]
    wider = {rung: looked_at.wider(found, design, 5.0, rung) for rung in RUNGS}
    for index in range(5):
        fit = ladder(np.concatenate([block[index] for block in blocks], 1), fold_of, tau=0.01)
        for rung in RUNGS:
            assert fit.p_value(rung) == pytest.approx(p[rung][index])
            expected = halves[rung][index] * wider[rung][index]
            assert fit.half_width(rung) == pytest.approx(expected)


def test_incomplete_grids_cover_too() -> None:
    rng = np.random.default_rng(3)
    hits, draws = 0, 800
    for _ in range(draws):
        d, fold_of, fixed, _ = simulate(rng, (12,) * 5, WMH)
        d[0, fold_of == 0] = np.nan
        d[3, fold_of == 4] = np.nan
        fit = ladder(d, fold_of)
        hits += abs(fit.estimate - fixed) <= confidence.t_factor(fit.df["L1"]) * fit.se["L1"]
    assert 0.92 <= hits / draws <= 0.975


# ------------------------------------------------------------------------------------ training sets
def test_overlap_is_the_variance_of_a_mean_over_shared_training_sets() -> None:
    rng = np.random.default_rng(0)
    for sizes, expected in (((12,) * 5, 0.8), ((50, 10), 0.72), ((40, 10, 5, 3, 2), 0.72)):
        n, total = np.array(sizes, float), sum(sizes)
        k = overlap(n / total, n, total)
        fold_of = np.repeat(np.arange(len(sizes)), sizes)
        part = rng.normal(size=(20_000, total))
        effect = np.stack(
            [part[:, fold_of != f].sum(1) / np.sqrt(total - n[f]) for f in range(len(sizes))], 1
        )
        assert k == pytest.approx(expected, abs=0.005)
        assert (effect @ (n / total)).var() == pytest.approx(k, rel=0.05)


def test_folds_without_a_trial_still_train_the_others() -> None:
    d = np.random.default_rng(0).normal(size=(3, 24))
    fold_of = np.repeat([0, 1], 12)
    assert ladder(d, fold_of).overlap == pytest.approx(0.5)
    assert ladder(d, fold_of, num_subjects=60).overlap == pytest.approx(0.5 * (1 + 0.75))
    assert ladder(d[:, :12], fold_of[:12], num_subjects=60).overlap == pytest.approx(1)


def test_larger_effects_never_narrow_an_interval_nor_lower_p() -> None:
    for sizes, seeds in (((3, 3), 1), ((12,) * 5, 5), ((30, 10), 2)):
        d, fold_of, _, _ = simulate(np.random.default_rng(1), sizes, WMH, seeds)
        fits = [
            ladder(d + 0.02, fold_of, tau=tau, bounds=DIFFERENCE)
            for tau in np.linspace(0, 0.05, 30)
        ]
        widths = [fit.half_width("L3") for fit in fits]
        assert (np.diff(widths) >= -1e-12).all()
        assert (np.diff([fit.p_value("L3") for fit in fits]) >= -1e-12).all()


def test_verdict_stands_up_to_its_robustness_value_and_no_further() -> None:
    rng = np.random.default_rng(2)
    fold_of = np.repeat(np.arange(5), 12)
    losses = [simulate(rng, (12,) * 5, WMH)[0] + shift for shift in (0, 0.05, 0.03, 0.0)]
    scores = 0.5 + 0.3 * np.stack(losses)

    def said(tau: float) -> list[Judgement]:
        return judge(every_pair(scores, fold_of, range(4), tau=tau), 0.0, reference=0)

    for index, one in enumerate(said(0.01)):
        if np.isnan(one.survives):
            assert one.word == "not separated" and said(0.0)[index].word == "not separated"
            continue
        assert said(0.999 * one.survives)[index].word == "separated"
        assert said(1.001 * one.survives + 1e-6)[index].word == "suggestive"
        assert (one.word == "separated") == (one.survives >= 0.01)
    assert any(one.survives > 0 for one in said(0.01))


def test_unknown_effect_gives_no_interval_and_no_verdict() -> None:
    d, fold_of, _, _ = simulate(np.random.default_rng(4), (12,) * 5, WMH)
    fit = ladder(d, fold_of)
    assert np.isnan(fit.interval("L3")).all() and np.isnan(fit.p_value("L3"))
    assert judge([Pair(1, 0, fit, 0, 0, 0)])[0].word == "cannot tell"


def test_intervals_end_where_a_difference_can_lie() -> None:
    scores = np.array([[[0.9, 0.1]], [[0.2, 0.3]]])  # one seed, two folds of one case
    low, high = compare(scores, np.array([0, 1]), 0, 1, tau=0.01).fit.interval("L3")
    assert (low, high) == (-1, 1)


# ------------------------------------------------------------------------------ against other rules
def test_rows_as_if_independent_would_claim_far_too_much() -> None:
    """What the ladder is for: patients x seeds as independent rows call nothing something."""
    from scipy import stats

    rng, draws = np.random.default_rng(5), 300
    wrong = sum(
        stats.ttest_1samp(simulate(rng, (12,) * 5, WMH)[0].ravel(), 0).pvalue < 0.05
        for _ in range(draws)
    )
    assert wrong / draws > 0.3


def test_first_rung_is_the_mean_variance_over_seeds() -> None:
    rng = np.random.default_rng(6)
    d, fold_of, _, _ = simulate(rng, (4,) * 5, WMH)
    cells = d.reshape(5, 5, 4).mean(2)
    fit = ladder(d, fold_of)
    assert fit.se["L1"] ** 2 == pytest.approx(cells.var(0, ddof=1).mean() / 25)
    assert fit.df["L1"] == pytest.approx(20)


def test_second_rung_is_the_two_way_formula_when_balanced() -> None:
    rng = np.random.default_rng(7)
    d, fold_of, _, _ = simulate(rng, (4,) * 5, LIT)
    block = d.reshape(5, 5, 4)  # seed, fold, case
    run, case, mean = block.mean(2), block.mean(0), block.mean((0, 2))
    ms_case = 5 * ((case - mean[:, None]) ** 2).sum() / 15
    ms_run = 4 * ((run - mean) ** 2).sum() / 20
    rest = block - case - run[:, :, None] + mean[:, None]
    ms_rest = (rest**2).sum() / 60
    expected = max(ms_case + ms_run - ms_rest, ms_case, ms_run) / (20 * 5)
    assert ladder(d, fold_of).se["L2"] ** 2 == pytest.approx(expected)


def test_one_seed_is_the_t_test_on_fold_means() -> None:
    from scipy import stats

    d, fold_of, _, _ = simulate(np.random.default_rng(8), (6,) * 5, WMH, seeds=1)
    oracle = stats.ttest_1samp(d[0].reshape(5, 6).mean(1), 0)
    fit = ladder(d, fold_of, tau=0.0)
    assert fit.df["L2"] == fit.base_df == oracle.df
    assert fit.estimate / fit.se["L2"] == pytest.approx(oracle.statistic)
    assert fit.base_se == fit.se["L2"] == fit.se["L3"]
    assert fit.p_value("L3") >= fit.p_value("L2") >= oracle.pvalue  # of any look, not of one


def test_rope_equals_baycomp() -> None:
    """Its correlated t-test without correlation is the t-test on the fold means."""
    baycomp = pytest.importorskip("baycomp")
    d, fold_of, _, _ = simulate(np.random.default_rng(9), (6,) * 5, WMH, seeds=1)
    oracle = baycomp.CorrelatedTTest(d[0].reshape(5, 6).mean(1), np.zeros(5), rope=0.01, runs=1)
    wider = np.sqrt(1 + 5 / 4)  # baycomp adds n_test / n_train to 1 / n
    fit = ladder(d, fold_of, tau=0.0)
    fit = replace(fit, base_se=fit.base_se * wider).with_tau(0.0)
    left, within, right = fit.beyond(0.01)
    # baycomp: first minus second; probs() is P(first better), P(rope), P(second better)
    assert sorted((left, right)) == pytest.approx(
        sorted((oracle.probs()[0], oracle.probs()[2])), abs=1e-6
    )
    assert within == pytest.approx(oracle.probs()[1], abs=1e-6)


def test_components_agree_with_a_mixed_model() -> None:
    api = pytest.importorskip("statsmodels.formula.api")
    pd = pytest.importorskip("pandas")
    import warnings

    sd = {"case": 0.08, "fold": 0.0, "run": 0.05, "rest": 0.06}
    d, fold_of, _, _ = simulate(np.random.default_rng(10), (12,) * 5, sd)
    d = d - np.array([d[:, fold_of == f].mean() for f in range(5)])[fold_of]  # folds fixed
    frame = pd.DataFrame(
        {
            "d": d.ravel(),
            "case": np.tile(np.arange(60), 5),
            "fold": np.tile(fold_of, 5),
            "seed": np.repeat(np.arange(5), 60),
        }
    )
    frame["run"] = frame["fold"] * 10 + frame["seed"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = api.mixedlm(
            "d ~ C(fold)",
            frame,
            groups=np.ones(len(frame)),
            re_formula="0",
            vc_formula={"case": "0 + C(case)", "run": "0 + C(run)"},
        ).fit()
    found = ladder(d, fold_of).components
    known = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    assert found.patient == pytest.approx(known["case"], rel=0.03)
    assert found.run == pytest.approx(known["run"], rel=0.03)
    assert found.residual == pytest.approx(fit.scale, rel=0.03)


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(11).random(20) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_holm_leaves_undefined_comparisons_out_of_the_count() -> None:
    assert holm(np.array([0.02, np.nan]))[0] == 0.02


def test_weighted_holm_spends_the_error_as_it_is_told() -> None:
    p, weight = np.array([0.01, 0.02, 0.04]), np.array([0.5, 0.25, 0.25])
    assert holm(p, weight) == pytest.approx([0.02, 0.04, 0.04])
    assert (p * holm_factors(p, weight) == holm(p, weight)).all()
    assert holm(p, np.ones(3)) == pytest.approx(holm(p))


def test_design_that_cannot_tell_says_so() -> None:
    rng = np.random.default_rng(12)
    one_seed = ladder(rng.normal(size=(1, 10)), np.repeat([0, 1], 5), tau=0.01)
    assert np.isnan(one_seed.p_value("L1"))
    assert one_seed.p_value("L3") >= one_seed.p_value("L2") > 0
    one_fold = ladder(rng.normal(size=(5, 10)), np.zeros(10, int), tau=0.01)
    assert one_fold.p_value("L3") >= one_fold.p_value("L2") > 0
    two_trainings = ladder(rng.normal(size=(2, 10)), np.zeros(10, int), tau=0.01)
    assert two_trainings.p_value("L1") > 0 and np.isnan(two_trainings.p_value("L2"))
    assert np.isnan(two_trainings.p_value("L3"))
    single = ladder(rng.normal(size=(1, 10)), np.zeros(10, int), tau=0.01)
    assert all(np.isnan(single.p_value(rung)) for rung in RUNGS)
    nothing = ladder(np.full((2, 4), np.nan), np.array([0, 0, 1, 1]))
    assert np.isnan(nothing.estimate) and nothing.num_cases == 0


def test_absent_cells_and_undefined_cases_are_counted_not_averaged_over() -> None:
    d = np.ones((3, 6))
    d[0, :3] = np.nan  # a missing trial
    d[1, 4] = np.nan  # a case that one trial leaves undefined
    fit = ladder(d, np.repeat([0, 1], 3))
    assert (fit.num_cells, fit.num_cases, fit.estimate) == (5, 5, 1.0)


@pytest.mark.parametrize("seed", range(40))
def test_any_pattern_of_holes_keeps_counts_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, fold_of, _, _ = simulate(rng, (3, 4, 2), WMH, seeds=3)
    holes = rng.random((3, 3)) < 0.3
    d[holes[:, fold_of]] = np.nan
    d[rng.random(d.shape) < 0.05] = np.nan
    fit = ladder(d, fold_of)
    cells, cases = 0, 0
    for fold in range(3):
        block = d[:, fold_of == fold]
        block = block[~np.isnan(block).all(1)]
        usable = int((~np.isnan(block).any(0)).sum()) if len(block) else 0
        cases += usable
        cells += len(block) if usable else 0
    assert (fit.num_cells, fit.num_cases) == (cells, cases)
    assert all(np.isnan(value) or value >= 0 for value in fit.se.values())
