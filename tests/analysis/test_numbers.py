"""The report's numbers against brute force, closed forms and independent libraries."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.page import style
from analysis.page.items import Figure, Note, Table
from analysis.reading.scores import COUNTS, METRICS, VIEWS, CohortScores, cohort_scores
from analysis.sections import gradients, table2
from analysis.statistics import (
    bands,
    lesions,
    optimism,
    policies,
    profiles,
    pull,
    ranks,
    selection,
    thresholds,
    variance,
)
from lesion_core import results
from lesion_core.losses import loss_named
from lesion_core.losses.gradients import TypicalPatch, gradient_curve
from sweeps.bench.fake_sweep import FakeSweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> results.Sweep:
    fake = FakeSweep(
        num_cases=11,
        epochs=4,
        losses=("xent", "dsc", "new"),
        seeds=(1, 2, 3),
        num_folds=3,
        empty_cases=1,
        status={("wmh2017", "new", 2, 1): "diverged"},
    )
    return results.read_sweep(fake.write(tmp_path_factory.mktemp("numbers")))


@pytest.fixture(scope="module")
def cohort(sweep: results.Sweep) -> CohortScores:
    return cohort_scores(sweep)[0]


# ------------------------------------------------------------------------------------- scores
def test_epoch_means_are_the_plain_group_means(sweep: results.Sweep, cohort: CohortScores) -> None:
    rows = sweep.cases.join(results.rates(sweep.cases))
    rows = rows[(rows["scope"] == "image") & (rows["split"] == "test")]
    expected = rows.groupby(["loss", "seed", "fold", "epoch"])["dice"].agg(["mean", "count"])
    for (loss, seed, fold, epoch), (mean, count) in expected.iterrows():
        at = (
            cohort.losses.index(loss),
            cohort.seeds.index(seed),
            cohort.folds.index(fold),
            epoch,
            2,
            0,
        )
        assert cohort.curves[at] == pytest.approx(mean)
        assert cohort.defined[at] == count


def test_patch_means_are_over_patches(sweep: results.Sweep, cohort: CohortScores) -> None:
    rows = sweep.cases[sweep.cases["scope"] == "patch"]
    sums = rows.groupby(["loss", "seed", "fold", "epoch"])[
        ["patch_sensitivity_sum", "patch_sensitivity_n"]
    ].sum()
    for (loss, seed, fold, epoch), (total, number) in sums.iterrows():
        at = (
            cohort.losses.index(loss),
            cohort.seeds.index(seed),
            cohort.folds.index(fold),
            epoch,
            0,
            1,
        )
        assert cohort.curves[at] == pytest.approx(total / number)


def test_absent_trial_is_nan_everywhere_and_named(cohort: CohortScores) -> None:
    gap = (cohort.losses.index("new"), cohort.seeds.index(2), cohort.folds.index(1))
    assert np.isnan(cohort.curves[gap]).all()
    assert np.isnan(cohort.test[gap[0], gap[1], cohort.fold_of == gap[2]]).all()
    assert cohort.presence == "26 of 27 trials; without new seed 2 fold 1 (diverged)"


def test_undefined_case_is_left_out_and_counted(cohort: CohortScores) -> None:
    empty = cohort.cases.index("case01")
    final = cohort.last_by_case(cohort.test)
    assert np.isnan(final[0, 0, empty, 1]) and final[0, 0, empty, 0] == 0
    fold = cohort.fold_of[empty]
    assert cohort.defined[0, 0, fold, 4, 2, 1] == cohort.asked[0, 0, fold, 4, 2] - 1


# ---------------------------------------------------------------------------------- selection
def random_curves(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    curves = np.random.default_rng(seed).random((2, 3, 4, 6, 3, 3))
    return curves, np.full((2, 3, 4), 5)


def test_oracle_is_the_authors_rule() -> None:
    curves, last = random_curves()
    found = selection.by_fold(curves, last, "oracle")
    for loss, fold, view, metric in np.ndindex(2, 4, 3, 3):
        assert found[loss, fold, view, metric] == curves[loss, :, fold, 1:, view, metric].max()


def test_untrained_network_is_never_selected() -> None:
    curves, last = random_curves()
    curves[:, :, :, 0] = 2.0
    for name in selection.SELECTORS:
        assert selection.by_fold(curves, last, name).max() <= 1


def test_joint_oracle_takes_all_metrics_from_one_network() -> None:
    curves, last = random_curves()
    found = selection.by_fold(curves, last, "oracle_joint")
    dice = curves[..., selection.TEST, selection.DICE]
    for loss, fold in np.ndindex(2, 4):
        seed, epoch = np.unravel_index(dice[loss, :, fold, 1:].argmax(), (3, 5))
        assert (found[loss, fold] == curves[loss, seed, fold, epoch + 1]).all()


def test_fold_has_no_say_in_its_own_epoch() -> None:
    curves, last = random_curves()
    before = selection.epochs(curves, last, "lofo")
    curves[:, :, 2] = np.random.default_rng(9).random(curves[:, :, 2].shape)
    assert (selection.epochs(curves, last, "lofo")[:, :, 2] == before[:, :, 2]).all()


def test_optimism_is_never_negative_on_average_and_grows_with_noise() -> None:
    rng = np.random.default_rng(1)
    last = np.full((2, 5, 5), 25)
    noise = np.array([0.01, 0.05])[:, None, None, None, None, None]
    curves = 0.7 + noise * rng.normal(size=(2, 5, 5, 26, 3, 3))
    gain = (selection.by_fold(curves, last, "oracle") - selection.by_fold(curves, last, "last"))[
        ..., 2, 0
    ].mean(1)
    assert 0 < gain[0] < gain[1]


def test_one_network_on_one_set_of_cases_is_always_coherent() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        counts = pd.DataFrame(rng.integers(0, 50, (12, 3)), columns=["tp", "fp", "fn"])
        counts["tp"] += 1
        mean = results.rates(counts).mean()
        assert (
            optimism.coherence_excess(mean["dice"], mean["sensitivity"], mean["precision"]) <= 1e-12
        )


def test_papers_own_lit_table_is_not_coherent() -> None:
    assert optimism.coherence_excess(0.56, 0.90, 0.23) > 0.15  # Table 2, LIT, new, test


# -------------------------------------------------------------------------------------- bands
def test_band_is_lowest_mean_highest_of_what_is_there() -> None:
    curves = np.random.default_rng(3).random((2, 4, 3, 5))
    curves[1, 2, 1] = np.nan
    low, mean, high, count = bands.band(curves, (1, 2))
    own = curves[1].reshape(12, 5)
    own = own[~np.isnan(own).any(1)]
    assert (low[1] == own.min(0)).all() and (high[1] == own.max(0)).all()
    assert mean[1] == pytest.approx(own.mean(0)) and (count[1] == 11).all()


# -------------------------------------------------------------------------------------- ranks
def test_kendall_equals_scipy() -> None:
    rng = np.random.default_rng(4)
    reference, others = rng.random(7), rng.integers(0, 5, (30, 7)).astype(float)
    found = ranks.order_agreement(reference, others)
    for tau, other in zip(found, others, strict=True):
        assert tau == pytest.approx(stats.kendalltau(reference, other).statistic, nan_ok=True)


def test_rank_frequencies_are_shares_of_places() -> None:
    resampled = np.random.default_rng(5).random((200, 4, 6))
    found = ranks.rank_frequencies(resampled)
    assert found.sum(0) == pytest.approx(np.ones(4)) and found.sum(1) == pytest.approx(np.ones(4))


def test_resampling_keeps_losses_paired_and_centred() -> None:
    rng = np.random.default_rng(6)
    base = rng.random((1, 5, 8))
    blocks = [np.concatenate([base, base + 0.1]), np.concatenate([base, base + 0.1])]
    found = ranks.resampled_patients(blocks, np.random.default_rng(0), 500).mean(2)
    assert found[:, 1] - found[:, 0] == pytest.approx(np.full(500, 0.1))
    assert found[:, 0].mean() == pytest.approx(base.mean(), abs=0.01)


def test_losses_without_common_cells_are_given_up_by_name() -> None:
    scores = np.random.default_rng(7).random((3, 2, 6))
    scores[1] = np.nan
    scores[1, 0, :3] = 0.5
    shared = ranks.shared_scores(scores, np.repeat([0, 1], 3), [0, 1, 2])
    assert shared.left_out == [1] and shared.num_cells == 4 and shared.num_cases == 6


def test_wilcoxon_matrix_equals_scikit_posthocs() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    patients = np.random.default_rng(8).random((4, 20))
    frame = posthocs.posthoc_wilcoxon(patients.tolist())
    p = ranks.wilcoxon_matrix(patients)
    for a in range(4):
        for b in range(a):
            two_sided = min(1.0, 2 * min(p[a, b], p[b, a]))
            assert two_sided == pytest.approx(frame.to_numpy()[a, b], abs=1e-9)


def test_schemes_agree_when_one_loss_is_better_for_every_patient() -> None:
    patients = np.linspace(0.2, 0.8, 15) + np.array([[0.2], [0.1], [0.0]])
    for scheme in ranks.SCHEMES:
        assert ranks.rank_by(patients, scheme).tolist() == [1, 2, 3], scheme


def test_profile_falls_from_all_to_none() -> None:
    found = profiles.profile(np.random.default_rng(9).uniform(0.1, 0.9, (3, 40)))
    assert (np.diff(found) <= 0).all() and (found[:, 0] == 1).all() and (found[:, -1] == 0).all()


# ----------------------------------------------------------------------------------- variance
def test_variance_components_are_recovered_on_average() -> None:
    truth = {"patient": 0.1, "loss_patient": 0.05, "loss_fold": 0.03, "run": 0.04, "rest": 0.06}
    truth |= {"cell": 0.05}
    rng = np.random.default_rng(10)
    fold_of = np.repeat(np.arange(5), 12)
    found = []
    for _ in range(150):
        y = (
            rng.normal(0, truth["patient"], (1, 1, 60))
            + rng.normal(0, truth["loss_patient"], (4, 1, 60))
            + rng.normal(0, truth["loss_fold"], (4, 1, 5))[:, :, fold_of]
            + rng.normal(0, truth["cell"], (1, 5, 5))[:, :, fold_of]
            + rng.normal(0, truth["run"], (4, 5, 5))[:, :, fold_of]
            + rng.normal(0, truth["rest"], (4, 5, 60))
        )
        found.append(variance.components(y, fold_of))
    for name, deviation in truth.items():
        mean = np.mean([one[name] for one in found])
        assert mean == pytest.approx(deviation**2, rel=0.1), name


# --------------------------------------------------------------------------------- thresholds
def test_half_of_the_histogram_is_what_was_counted(
    sweep: results.Sweep, cohort: CohortScores
) -> None:
    lesion, background = thresholds.histograms(cohort, sweep.trial_table("histograms.parquet"))
    rates = thresholds.rates_at_thresholds(cohort, lesion, background)
    np.testing.assert_allclose(rates[..., thresholds.HALF, :], cohort.last_by_case(cohort.test))


def test_counts_at_any_threshold_equal_a_direct_count() -> None:
    rng = np.random.default_rng(11)
    p, y = rng.random(4000), rng.random(4000) < 0.1
    bins = np.minimum((p * 100).astype(int), 99)
    lesion, background = (np.bincount(bins[y == on], minlength=100) for on in (True, False))
    tp, fp, fn = thresholds.counts_at_thresholds(lesion, background, np.array(y.sum()))
    for k in (10, 50, 73):
        assert tp[k - 1] == (y & (bins >= k)).sum() and fp[k - 1] == (~y & (bins >= k)).sum()
        assert fn[k - 1] == (y & (bins < k)).sum()


def test_threshold_is_chosen_without_the_fold_it_is_used_on() -> None:
    curves = np.random.default_rng(12).random((2, 4, 99))
    before = thresholds.own_thresholds(curves)
    curves[:, 1] = 0
    assert (thresholds.own_thresholds(curves)[:, 1] == before[:, 1]).all()


# ------------------------------------------------------------------------------------ lesions
def test_clustered_interval_covers_the_share() -> None:
    rng = np.random.default_rng(13)
    covered = 0
    for _ in range(600):
        total = rng.integers(1, 30, 40)
        hits = rng.binomial(total, rng.beta(6, 4, 40))  # patients differ: mean 0.6
        _, low, high = lesions.clustered_share(hits.astype(float), total.astype(float))
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 600 <= 0.975


def test_share_of_all_or_none_still_has_an_interval() -> None:
    total = np.full(17, 3.0)
    for hits, share in ((0 * total, 0.0), (total, 1.0)):
        found, low, high = lesions.clustered_share(hits, total)
        assert found == share and high - low == pytest.approx(1 - 0.025 ** (1 / 17))


def test_lesion_f1_is_undefined_only_where_there_is_nothing() -> None:
    final = pd.DataFrame(
        {"tp": 0, "fp": 0, "fn": 0, "n_ref": [2, 0, 0, 2], "n_pred": [0, 3, 0, 2],
         "n_ref_hit": 0, "n_pred_hit": 0}
    )  # fmt: skip
    f1 = lesions.lesion_rates(final)["lesion_f1"]
    assert f1[[0, 1, 3]].tolist() == [0, 0, 0] and np.isnan(f1[2])


def test_strata_add_up_to_all_reference_lesions(sweep: results.Sweep, cohort: CohortScores) -> None:
    frame = lesions.strata_frame(sweep.lesions, cohort)
    per_loss = frame.groupby("loss")["reference_lesions"].sum()
    cases = sweep.cohort_table("wmh2017", "cases.parquet")
    assert per_loss.tolist() == pytest.approx([cases["n_lesions"].sum()] * 3)


def test_volume_error_is_undefined_without_reference() -> None:
    final = pd.DataFrame(
        {
            "tp": [0, 5],
            "fp": [3, 5],
            "fn": [0, 5],
            "n_ref": [0, 2],
            "n_pred": [1, 2],
            "n_ref_hit": [0, 1],
            "n_pred_hit": [0, 1],
        }
    )
    found = lesions.lesion_rates(final)
    assert np.isnan(found.loc[0, "volume_error"]) and found.loc[1, "volume_error"] == 0
    assert np.isnan(found.loc[0, "lesion_recall"]) and found.loc[1, "lesion_f1"] == 0.5


# --------------------------------------------------------------------------------------- pull
@cache
def rows_of(loss: str) -> pd.DataFrame:
    return pd.DataFrame(gradient_curve(loss_named(loss), TypicalPatch(32, 500)))


def test_dice_lets_go_of_confident_errors_and_cross_entropy_does_not() -> None:
    for kind, holds in (("dsc", False), ("gdsc", False), ("xent", True), ("new", True)):
        assert (pull.pull(rows_of(kind)).missed > 1) == holds, kind


def test_share_of_pull_is_summed_over_the_patch() -> None:
    """Cross-entropy, untrained: every voxel pulls alike, so lesion voxels have their share."""
    found = pull.pull(rows_of("xent"))
    assert found.share_untrained == pytest.approx(500 / 32**3)
    lesion, background = 500 * 0.3, (32**3 - 500) * 0.01
    assert found.share_under_way == pytest.approx(lesion / (lesion + background))


def test_pull_is_relative_to_the_strongest_on_a_lesion_voxel() -> None:
    found = pull.pull(rows_of("xent").sample(frac=1, random_state=0))  # whatever the rows' order
    assert (np.diff(found.probability) > 0).all()
    np.testing.assert_allclose(found.lesion, (1 - found.probability) / (1 - 0.002), rtol=1e-6)
    np.testing.assert_allclose(found.background, found.probability / (1 - 0.002), rtol=1e-6)


def test_loss_that_does_not_pull_has_no_shares() -> None:
    found = pull.pull(rows_of("xent").assign(gradient=0.0))
    assert np.isnan(found.lesion).all() and np.isnan(found.share_untrained)
    assert np.isnan([found.missed, found.invented]).all()


@pytest.mark.parametrize("recorded", ["all", "one", "none", "damaged"])
def test_report_says_which_losses_have_a_recorded_gradient(
    tmp_path: Path, sweep: results.Sweep, recorded: str
) -> None:
    if recorded == "damaged":
        (tmp_path / results.GRADIENTS_FILE).write_bytes(b"no parquet")
    elif recorded != "none":
        rows = results.read_gradients(sweep.path)
        rows = rows[rows["loss"] == "dsc"] if recorded == "one" else rows
        results.write_table(
            tmp_path / results.GRADIENTS_FILE, rows.to_dict("records"), results.GRADIENTS
        )
    items = gradients.pull_items(tmp_path, ["xent", "dsc", "new"], [0, 1, 2])
    if recorded in ("none", "damaged"):
        [note] = items
        assert isinstance(note, Note)
        word = "holds no gradient curves" if recorded == "none" else "cannot be read"
        assert word in note.body
    else:
        figure, table = items
        assert isinstance(figure, Figure) and isinstance(table, Table)
        assert {"all": "3 of 3 losses", "one": "1 of 3 losses"}[recorded] in figure.caption
        assert ("without: xent, new" in table.caption) == (recorded == "one")
        assert len(table.frame) == (3 if recorded == "all" else 1)


# ----------------------------------------------------------------------------------- policies
def test_headline_world_is_the_last_epoch_of_the_bands(cohort: CohortScores) -> None:
    tp, fp, fn = (cohort.counts[..., COUNTS.index(name)] for name in ("tp", "fp", "fn"))
    values = policies.fold_values(tp, fp, fn, cohort.fold_of, 3, "mean", "drop")
    np.testing.assert_allclose(
        values, cohort.curves[..., VIEWS.index("test"), METRICS.index("dice")]
    )


def test_worlds_weigh_patients_alike_and_share_a_win() -> None:
    values = np.full((2, 1, 2, 3), 0.0)
    values[0, 0, :, 1:], values[1, 0, :, 1:] = [[0.6], [0.2]], [[0.5], [0.4]]
    last, none = np.full((2, 1, 2), 2), np.full((2, 1, 2), 2)
    alike = policies.world_means(values, last, none, "last")
    weighed = policies.world_means(values, last, none, "last", np.array([50.0, 10.0]))
    assert alike == pytest.approx([0.4, 0.45]) and weighed == pytest.approx([32 / 60, 29 / 60])
    values[1, 0, 1] = np.nan  # what one loss does not define counts for none
    assert policies.world_means(values, last, none, "last") == pytest.approx([0.6, 0.5])


def test_pooled_world_weighs_voxels_not_cases() -> None:
    tp, fp, fn = (np.array(v, float).reshape(1, 1, 2, 1) for v in ([1, 98], [0, 0], [1, 0]))
    fold_of = np.zeros(2, int)
    mean = policies.fold_values(tp, fp, fn, fold_of, 1, "mean", "drop")[0, 0, 0, 0]
    pooled = policies.fold_values(tp, fp, fn, fold_of, 1, "pooled", "drop")[0, 0, 0, 0]
    assert mean == pytest.approx((2 / 3 + 1) / 2) and pooled == pytest.approx(198 / 199)


# ------------------------------------------------------------------------------------ colours
@pytest.mark.parametrize(
    "palette", [style.PALETTE[:7], style.PALETTE_DARK[:7], tuple(style.OVERLAY.values())]
)
@pytest.mark.parametrize("vision", [None, "deuteranomaly", "protanomaly", "tritanomaly"])
def test_any_two_colours_can_be_told_apart(palette: tuple[str, ...], vision: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        colour = pytest.importorskip("colorspacious")
    rgb = np.array([[int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)] for value in palette])
    if vision:
        space = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}
        rgb = np.clip(colour.cspace_convert(rgb, space, "sRGB1"), 0, 1)
    for a in range(len(rgb)):
        for b in range(a):
            assert colour.deltaE(rgb[a], rgb[b], input_space="sRGB1") >= 10, (
                palette[a],
                palette[b],
            )


def test_numbers_that_a_reader_sees_are_not_rounded_with_the_coordinates() -> None:
    with style.context():
        figure, axes = style.panels(1, 1, height=2)
        axes[0, 0].plot([0.12345678, 0.7654321], [0, 1])
        axes[0, 0].set_xticks([0.025, 0.075], ["0.025", "0.075"])
        svg = style.svg_text(figure, "test")
    assert ">0.025<" in svg and ">0.075<" in svg
    coordinates = re.findall(r' d="([^"]+)"', svg)
    assert coordinates and not re.search(r"\d\.\d{3,}", " ".join(coordinates))


def test_table2_counts_the_undefined_cases_behind_its_numbers(cohort: CohortScores) -> None:
    last = cohort.last_by_fold(cohort.asked)[..., 2]
    lost = int(np.nansum(last - cohort.last_by_fold(cohort.defined)[..., 2, 1]))
    assert lost > 0
    words = f"Sensitivity {lost} of {int(np.nansum(last))} test images"
    assert words in table2.nine_columns(cohort, "last").caption
    assert words in table2.optimism_table(cohort).caption
    assert "Undefined and left out" in table2.nine_columns(cohort, "oracle").caption


def test_patch_sum_that_is_no_number_is_undefined_not_zero(sweep: results.Sweep) -> None:
    cases = sweep.cases.copy()
    rows = np.flatnonzero((cases["scope"] == "patch") & (cases["patch_dice_n"] > 0))
    cases.iloc[rows[0], cases.columns.get_loc("patch_dice_sum")] = np.nan
    before, after = (cohort_scores(s)[0] for s in (sweep, replace(sweep, cases=cases)))
    at = np.argwhere(np.isnan(after.curves) & ~np.isnan(before.curves))
    assert len(at) == 1 and after.defined[tuple(at[0])] == 0
    others = ~np.isnan(after.curves)
    np.testing.assert_array_equal(after.curves[others], before.curves[others])
