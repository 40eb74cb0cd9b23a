"""Volumes, calibration and the self-check: by hand, by property, and by the coverage they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import report
from analysis.flags import ROPE
from analysis.page.items import render
from analysis.reading.imports import read_results
from analysis.sections import calibration, self_check, volumes
from analysis.sections.report_input import ReportInput
from analysis.statistics.calibration import band_sums, brier, calibration_error
from analysis.statistics.ladder import Components
from analysis.statistics.self_check import Design, expected_coverage
from analysis.statistics.volumes import agreement, load_class, volumes_ml
from sweeps.bench.fake_sweep import FakeSweep


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    path = FakeSweep(
        losses=("xent", "new", "dsc"), seeds=(1, 2), num_folds=2, num_cases=12, sessions=2,
        epochs=2, pictures=False, gradients=False, empty_cases=1,
        status={("wmh2017", "new", 1, 0): "missing"},
    ).write(tmp_path_factory.mktemp("agreement"))  # fmt: skip
    return report.report_input(read_results(path), None, ROPE, False)


@pytest.mark.parametrize("section", [volumes.section, calibration.section, self_check.section])
def test_a_section_is_drawn_and_counts(given: ReportInput, section, tmp_path: Path) -> None:
    made = section(given)
    page = " ".join(str(render(item, tmp_path, ("svg",))) for item in made.items)
    assert " of " in page and ">nan" not in page and " nan" not in page


def test_volumes_are_those_of_the_counts(given: ReportInput) -> None:
    cohort = given.comparable[0]
    predicted, reference = volumes_ml(cohort)
    final = cohort.final
    row = final.iloc[0]
    at = int(row["loss_index"]), int(row["seed_index"]), int(row["case_index"])
    assert predicted[at] == pytest.approx((row["tp"] + row["fp"]) * row["voxel_mm3"] / 1000)
    assert reference[at] == pytest.approx((row["tp"] + row["fn"]) * row["voxel_mm3"] / 1000)
    ml = np.array([[[1.0, 5.0, 14.9, 15.0, np.nan]]])
    assert load_class(ml).tolist() == [0, 1, 1, 2, -1]


def test_limits_of_agreement_equal_bland_and_altmans_with_one_training_per_patient() -> None:
    """One seed and one fold: mean -+ 1.96 SD, as in their paper."""
    d = np.random.default_rng(0).normal(1.0, 2.0, (1, 30))
    found = agreement(d, np.zeros(30, int))
    sd = d.std(ddof=1)
    assert found.bias == pytest.approx(d.mean()) and found.sd == pytest.approx(sd)
    assert found.lower == pytest.approx(d.mean() - 1.959964 * sd)
    assert np.isnan(found.limit_half)  # a single training says nothing of others


def test_intervals_of_bias_and_limits_cover() -> None:
    rng, fold, draws = np.random.default_rng(1), np.arange(40) % 4, 300
    parts, held = (2.0, 0.5, 1.0), [0, 0]
    limit = 1.959964 * np.sqrt(sum(part**2 for part in parts))
    for _ in range(draws):
        d = rng.normal(0, parts[0], 40) + rng.normal(0, parts[1], (3, 4))[:, fold]
        found = agreement(d + rng.normal(0, parts[2], (3, 40)), fold)
        held[0] += abs(found.bias) <= found.bias_half
        held[1] += abs(found.upper - limit) <= found.limit_half
    assert min(held) / draws >= 0.91


def test_a_calibrated_network_has_no_error_but_that_of_its_bands() -> None:
    number = np.full(100, 1000.0)
    centres = (np.arange(100) + 0.5) / 100
    assert calibration_error(number * centres, number * (1 - centres)) == pytest.approx(0, abs=1e-9)
    score, off = brier(number * centres, number * (1 - centres))
    exact = (centres * (1 - centres)).mean()  # of a voxel at the middle of each band
    assert abs(score - exact) <= off and 0 < off < 0.01
    sure = np.zeros(100)
    sure[-1] = 100.0
    assert calibration_error(sure * 0, sure) == pytest.approx(0.995)
    assert band_sums(np.ones(100)).tolist() == [9.0] + [10.0] * 9  # without the lowest bin
    assert np.isnan(calibration_error(np.zeros(100), np.zeros(100)))


def test_the_self_check_agrees_with_the_documented_simulations() -> None:
    """The table of docs/statistics.md, WMH-like, five folds of 12 and five seeds."""
    design = Design([5] * 5, [12] * 5, [12] * 5, 60)
    parts = Components(0.03**2, 0.02**2, 0.03**2)
    found = {
        one.rung: one
        for one in expected_coverage(design, parts, 0.010, np.random.default_rng(0), 3000)
    }
    for rung, documented in (("L1", 0.945), ("L2", 0.950), ("L3", 0.960)):
        assert found[rung].share == pytest.approx(documented, abs=4 * found[rung].error + 0.005)
    without = expected_coverage(design, parts, float("nan"), np.random.default_rng(0), 500)
    assert np.isnan(without[2].share) and without[1].share > 0.9
    unknown = Components(*[float("nan")] * 3)
    assert all(
        np.isnan(one.share)
        for one in expected_coverage(design, unknown, 0.01, np.random.default_rng(0))
    )
