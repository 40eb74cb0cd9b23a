"""Seeds together: known truths of gains, calibration and retention come out as they were put in."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from analysis import report
from analysis.reading.scores import cohort_scores
from analysis.reading.together import together
from analysis.sections import calibration as calibration_section
from analysis.sections import ensembles, uncertainty
from analysis.statistics.calibration import brier, calibration_error
from analysis.statistics.ladder import ladder
from analysis.statistics.retention import area, at_shares, found_in, left_errors
from analysis.statistics.together import contributions, curve, gain, off_the_ledger, score_rows
from lesion_core.results import NUM_BINS, read_sweep
from sweeps.bench.fake_sweep import FakeSweep

FAKE = FakeSweep(
    losses=("xent", "dsc"), seeds=(1, 2, 3, 4), num_folds=2, num_cases=8, epochs=1, scores=True,
    pictures=False, gradients=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return FAKE.write(tmp_path_factory.mktemp("together") / "sweep")


@pytest.fixture(scope="module")
def given(path):
    return report.report_input(read_sweep(path), None, 0.01, False)


# --------------------------------------------------------------------------------------- statistics
def test_contributions_are_the_jackknife():
    """For a mean, they are the values themselves; the ladder's error is the jackknife's."""
    values = np.random.default_rng(0).normal(size=(5, 6))
    member = np.ones(values.shape, bool)
    whole = values.mean(0)
    without = np.stack([np.delete(values, s, 0).mean(0) for s in range(5)])
    found = contributions(whole, without, member)
    np.testing.assert_allclose(found, values)
    curved = contributions(whole**2, without**2, member)
    np.testing.assert_allclose(curved.mean(0), whole**2)
    fit = ladder(curved, np.arange(6) // 3)
    by_fold = (without**2).reshape(5, 2, 3).mean(-1)
    jackknife = 4 / 5 * ((by_fold - by_fold.mean(0)) ** 2).sum(0)  # of each fold
    np.testing.assert_allclose(fit.se["L1"] ** 2, jackknife.sum() / 4)


def test_a_seed_that_is_no_member_or_a_case_that_is_undefined_has_no_contribution():
    member = np.ones((3, 2), bool)
    member[0, 0] = False
    without = np.array([[np.nan, 0.5], [0.4, np.nan], [0.6, 0.5]])
    found = contributions(np.array([0.5, 0.5]), without, member)
    assert np.isnan(found[0, 0]) and np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[1:, 0], [0.6, 0.4])


def test_disagreement_that_is_the_error_is_ideal_and_any_other_is_chance():
    errors = np.zeros(200)
    voxels = np.zeros(200)
    voxels[:180], voxels[199], errors[199] = 50, 7, 7
    assert area(voxels, errors) == (1.0, 0.0)
    assert found_in(voxels, errors, 7 / 9007) == 1.0
    rng = np.random.default_rng(1)
    bins, wrong = rng.integers(0, 200, 100_000), rng.random(100_000) < 0.01
    counts = [np.bincount(b, minlength=200).astype(float) for b in (bins, bins[wrong])]
    found, _ = area(*counts)
    spread = 2 * np.sqrt(1 / (12 * wrong.sum()))  # of 2 AUC - 1, Hanley & McNeil 1982
    assert abs(found) < 3 * spread
    np.testing.assert_allclose(at_shares(*counts, np.array([0.3])), 0.7, atol=0.05)
    assert np.isnan(area(voxels, np.zeros(200))[0])


def test_the_area_is_that_of_the_exact_order_within_what_it_says():
    rng = np.random.default_rng(2)
    value = rng.beta(0.3, 3, 20_000)
    wrong = rng.random(len(value)) < value**2
    bins = np.minimum((value * 50).astype(int), 49)
    voxels, errors = (np.bincount(b, minlength=50).astype(float) for b in (bins, bins[wrong]))
    found, off = area(voxels, errors)
    auc = stats.mannwhitneyu(value[wrong], value[~wrong]).statistic / (wrong.sum() * (~wrong).sum())
    assert abs(found - (2 * auc - 1)) <= off < 0.02
    looked, left = left_errors(voxels, errors)
    assert (np.diff(looked) >= 0).all() and (np.diff(left) <= 0).all()


def test_perfectly_calibrated_probabilities_have_the_error_of_chance_alone():
    rng = np.random.default_rng(3)
    p = rng.random(2_000_000)
    lesion = rng.random(p.shape) < p
    bins = (p * NUM_BINS).astype(int)
    sides = [np.bincount(bins[part], minlength=NUM_BINS) for part in (lesion, ~lesion)]
    assert calibration_error(*sides) < 0.001 < 0.005
    score, off = brier(*sides)
    assert abs(score - ((p - lesion) ** 2).mean()) < off
    assert abs(score - 1 / 6) < 0.001  # of p uniform: mean of p (1 - p)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "folds", "cases"), [(5, 5, 12), (3, 3, 8)])
def test_intervals_of_the_gain_cover_the_gain_of_other_seeds_and_patients(seeds, folds, cases):
    """Independent noise in each network: the ensemble's gain, known from many other draws."""
    rng = np.random.default_rng(4)
    fold_of = np.arange(folds * cases) // cases

    def patients():
        truth = rng.random((len(fold_of), 200)) < 0.15
        truth[:, 0] = True
        own = rng.normal(0, 0.6, (len(fold_of), 1)) + rng.normal(0, 1, truth.shape)
        return truth, 3.5 * truth - 2 + own

    def scored(truth, logits):
        noise = rng.normal(0, 1, (seeds, *truth.shape))
        noise += rng.normal(0, 0.5, (seeds, folds))[:, fold_of, None]
        p = special.expit(logits + noise)

        def dice(mean):
            mask = mean >= 0.5
            return 2 * (mask & truth).sum(-1) / (mask.sum(-1) + truth.sum(-1))

        without = np.stack([dice(np.delete(p, s, 0).mean(0)) for s in range(seeds)])
        single = dice(p)
        return contributions(dice(p.mean(0)), without, np.ones(single.shape, bool)) - single

    same = patients()
    for rung, draw in (("L1", lambda: same), ("L2", patients)):
        expected = np.mean([scored(*draw()).mean() for _ in range(300)])
        fits = [ladder(scored(*draw()), fold_of) for _ in range(200)]
        low, high = np.array([fit.interval(rung) for fit in fits]).T
        once = [
            abs(f.estimate - expected) <= stats.t.ppf(0.975, f.df[rung]) * f.se[rung] for f in fits
        ]
        assert ((low <= expected) & (expected <= high)).mean() >= 0.95
        assert np.mean(once) >= 0.93


# ------------------------------------------------------------------------------------------- ledger
def test_the_planted_gain_comes_back(given):
    (cohort,) = given.cohorts
    own = given.together[cohort.name]
    assert (own.networks == 4).all() and own.member.any((0, 1)).all()
    assert off_the_ledger(own, cohort) == 0
    values = score_rows(own.rows)
    for loss in own.losses:
        fit, alone = gain(own, values["sensitivity"], loss, cohort)
        # A quarter of the missed voxels is found, up to rounding to whole voxels.
        assert fit.estimate == pytest.approx(0.25 * (1 - alone), abs=0.003)
        assert fit.half_width("L1") <= fit.half_width("L2") < 0.1
        points = curve(own, values["sensitivity"], loss, cohort)
        assert list(points) == [1, 2, 3, 4]
        assert points[1] == pytest.approx(alone) and points[4] == pytest.approx(
            alone + fit.estimate
        )
        np.testing.assert_allclose(
            (points[2] - points[1]) / (points[4] - points[1]), (1 / 2) / (3 / 4), atol=0.05
        )


def test_the_section_says_gain_area_and_calibration_once_each(given):
    (table, figure) = ensembles.section(given).items
    assert list(table.frame["networks"]) == [4, 4] and figure.data["networks"].max() == 4
    np.testing.assert_allclose(
        table.frame["dice_together"] - table.frame["dice_alone"], table.frame["dice_gain"]
    )
    # The mean of one alone is that of every other section.
    means = given.cohorts[0].last_by_case(given.cohorts[0].test[..., 0]).mean((1, 2))
    np.testing.assert_allclose(table.frame["dice_alone"], means)
    retention, numbers = uncertainty.section(given).items
    assert (numbers.frame["disagreement"] > numbers.frame["single"]).all()
    last = retention.data.groupby("loss").last()
    assert last[["disagreement", "entropy", "single", "ideal"]].abs().to_numpy().max() < 1e-9
    reliability, calibrated = calibration_section.section(given).items
    assert set(reliability.data["networks"]) == {"one", "all"}
    assert (calibrated.frame["brier_all"] < calibrated.frame["brier"]).all()


def test_random_disagreement_has_no_area(tmp_path):
    fake = replace(FAKE, losses=("xent",), num_cases=4, disagreement_finds=0.0)
    given = report.report_input(read_sweep(fake.write(tmp_path / "s")), None, 0.01, False)
    _, table = uncertainty.section(given).items
    np.testing.assert_allclose(table.frame["disagreement"], 0, atol=0.005)


def test_without_scores_the_section_says_how_to_make_them(path, given):
    from analysis.sections.report_input import ReportInput

    bare = ReportInput(sweep=replace(given.sweep), all_cohorts=given.all_cohorts, reference="xent")
    bare.__dict__["together"] = {}
    assert ensembles.section(bare) is None and uncertainty.section(bare) is None
    figure, table, note = calibration_section.section(bare).items
    assert "lesion-sweep predict RESULTS --data DATA --score" in note.body
    assert "networks" not in figure.data and "brier_all" not in table.frame


def test_an_ensemble_of_networks_that_are_gone_is_not_shown(path, given):
    sweep = given.sweep
    runs = sweep.runs.copy()
    lost = (runs["loss"] == "dsc") & (runs["seed"] == 1) & (runs["fold"] == 0)
    runs.loc[lost, "status"] = "missing"
    sweep = replace(sweep, runs=runs)
    (cohort,) = cohort_scores(sweep)
    own = together(sweep, cohort)
    assert own.networks.tolist() == [[4, 4], [0, 4]] and own.unscored == 1
    assert "1 (loss, fold) not scored" in own.counted
