"""The ladder: coverage by simulation, type-I error, exact cases, and independent libraries."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics.ladder import RUNGS, holm, ladder
from analysis.statistics.pairs import Pair, judge

# Standard deviations of one loss, as seen in WMH-like and LIT-like grids.
WMH = {"case": 0.03, "fold": 0.01, "run": 0.02, "rest": 0.03}
LIT = {"case": 0.08, "fold": 0.03, "run": 0.05, "rest": 0.06}


def simulate(
    rng: np.random.Generator, sizes: tuple[int, ...], sd: dict[str, float], seeds: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """d [S, P] with true mean 0, the fold of each case, and what is fixed on L1 and L2."""
    fold_of = np.repeat(np.arange(len(sizes)), sizes)
    case = rng.normal(0, sd["case"], len(fold_of))
    fold = rng.normal(0, sd["fold"], len(sizes))[fold_of]
    run = rng.normal(0, sd["run"], (seeds, len(sizes)))[:, fold_of]
    d = case + fold + run + rng.normal(0, sd["rest"], (seeds, len(fold_of)))
    return d, fold_of, (case + fold).mean(), fold.mean()


def coverage(
    sizes: tuple[int, ...], sd: dict[str, float], draws: int, seed: int = 1
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(RUNGS, 0)
    for _ in range(draws):
        d, fold_of, cases_fixed, folds_fixed = simulate(rng, sizes, sd)
        fit = ladder(d, fold_of)
        for rung, truth in zip(RUNGS, (cases_fixed, folds_fixed, 0.0, 0.0), strict=True):
            low, high = fit.interval(rung)
            hits[rung] += low <= truth <= high
    return {rung: hit / draws for rung, hit in hits.items()}


@pytest.mark.parametrize(
    ("sizes", "sd"), [((12,) * 5, WMH), ((3,) * 5, LIT), ((4, 4, 3, 3, 3), LIT)]
)
def test_intervals_cover_what_they_promise(sizes: tuple[int, ...], sd: dict[str, float]) -> None:
    found = coverage(sizes, sd, draws=1500)
    for rung in ("L1", "L2", "L3"):
        assert 0.93 <= found[rung] <= 0.97, found
    assert found["L3c"] >= 0.97, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "sd"), [((12,) * 5, WMH), ((4, 4, 3, 3, 3), LIT), ((12, 8), WMH), ((6,) * 10, LIT)]
)
def test_intervals_cover_what_they_promise_over_many_draws(
    sizes: tuple[int, ...], sd: dict[str, float]
) -> None:
    found = coverage(sizes, sd, draws=12_000, seed=2)
    for rung in ("L1", "L2", "L3"):
        assert 0.935 <= found[rung] <= 0.965, found


def test_incomplete_grids_cover_too() -> None:
    rng = np.random.default_rng(3)
    hits, draws = 0, 800
    for _ in range(draws):
        d, fold_of, fixed, _ = simulate(rng, (12,) * 5, WMH)
        d[0, fold_of == 0] = np.nan
        d[3, fold_of == 4] = np.nan
        low, high = ladder(d, fold_of).interval("L1")
        hits += low <= fixed <= high
    assert 0.92 <= hits / draws <= 0.975


def test_verdict_separates_equal_losses_at_most_as_often_as_it_says() -> None:
    rng, draws = np.random.default_rng(4), 600
    wrong = 0
    for _ in range(draws):  # six losses against a reference, none truly different
        scores = np.stack([simulate(rng, (12,) * 5, WMH)[0] for _ in range(7)])
        fold_of = np.repeat(np.arange(5), 12)
        pairs = [Pair(i, 0, ladder(scores[i] - scores[0], fold_of), 0, 0, 0) for i in range(1, 7)]
        wrong += "separated" in judge(pairs)
    assert wrong / draws <= 0.06


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


def test_third_rung_equals_the_t_test_on_fold_means() -> None:
    stats = pytest.importorskip("scipy.stats")
    d, fold_of, _, _ = simulate(np.random.default_rng(8), (6,) * 5, WMH)
    means = d.mean(0).reshape(5, 6).mean(1)
    oracle = stats.ttest_1samp(means, 0)
    fit = ladder(d, fold_of)
    assert fit.p_value("L3") == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval(0.95)
    assert fit.interval("L3") == pytest.approx((interval.low, interval.high))


def test_cautious_rung_and_rope_equal_baycomp() -> None:
    baycomp = pytest.importorskip("baycomp")
    d, fold_of, _, _ = simulate(np.random.default_rng(9), (6,) * 5, WMH)
    means = d.mean(0).reshape(5, 6).mean(1)
    oracle = baycomp.CorrelatedTTest(means, np.zeros(5), rope=0.01)
    left, within, right = ladder(d, fold_of).beyond(0.01, "L3c")
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


def test_design_that_cannot_tell_says_so() -> None:
    rng = np.random.default_rng(12)
    one_seed = ladder(rng.normal(size=(1, 10)), np.repeat([0, 1], 5))
    assert np.isnan(one_seed.p_value("L1")) and np.isnan(one_seed.p_value("L2"))
    assert one_seed.p_value("L3") > 0 and one_seed.reached() == ""
    one_fold = ladder(rng.normal(size=(5, 10)), np.zeros(10, int))
    assert np.isnan(one_fold.p_value("L3")) and one_fold.p_value("L2") > 0
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
