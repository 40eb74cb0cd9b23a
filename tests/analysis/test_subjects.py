"""Patients are counted, not their sessions: every statistic, by exact cases and by simulation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.page.items import Figure, Pictures, Table
from analysis.reading.checks import cohort_findings
from analysis.reading.imports import read_results
from analysis.reading.scores import CohortScores, cohort_scores
from analysis.statistics import confidence, pairs, ranks, selection, thresholds
from analysis.statistics.ladder import Ladder, ladder
from analysis.statistics.lottery import complete_cells
from analysis.statistics.power import needed_seeds
from analysis.statistics.subjects import by_subject
from analysis.statistics.typical_cases import typical_cases
from analysis.statistics.variance import balanced, components
from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep
from tests.support import undrawn
from tests.support.sessions import multiplied, without_subjects

SINGLE = FakeSweep(
    num_cases=8,
    epochs=2,
    losses=("xent", "dsc", "new"),
    seeds=(1, 2, 3),
    num_folds=2,
    empty_cases=1,
    status={("wmh2017", "new", 2, 1): "diverged"},
    gradients=False,
)
SESSIONS = FakeSweep(
    num_cases=8, sessions=2, epochs=2, losses=("xent", "new"), seeds=(1, 2), num_folds=2
)


# ------------------------------------------------------- sessions that are alike add nothing
DESCRIBED = (
    r"(.*_)?(cases|patients|sessions|images|patient|case)$",  # how many, and who
    r"seeds_(dice|sensitivity|precision)$",  # values behind a patient's mean
    r"reference_lesions$|undefined$",  # described image by image
    r".*_patch$|.*_to_image$|excess$",  # a mean over training patches, of whomever
)
"""Columns that count or name images, or describe patches: they may move, nothing else may."""
BY_IMAGE = ("table1", "examples", "empty-", "provenance", "overlays-")
"""Tables that describe images one by one."""


def tables_of(ledger: Path) -> dict[str, pd.DataFrame]:
    """What a report writes as CSV, by key, without drawing anything."""
    given = report.report_input(read_results(ledger), None, pairs.ROPE, False)
    found = {}
    for section in filter(None, (section(given) for section in report.SECTIONS)):
        for item in section.unfolded:
            shown = item.figure if isinstance(item, Pictures) else item
            if isinstance(shown, Figure):
                found[shown.key] = shown.data
            elif isinstance(shown, Table):
                found[shown.key] = shown.frame
    return found


@pytest.mark.usefixtures("quick")
def test_sessions_that_are_alike_move_no_number_of_a_report(tmp_path: Path) -> None:
    ledger = SINGLE.write(tmp_path / "single")
    once, again = tables_of(ledger), tables_of(multiplied(ledger, tmp_path / "several"))
    assert list(once) == list(again)
    compared = 0
    for key in once:
        if key.startswith(BY_IMAGE):
            continue
        here, there = once[key], again[key]
        if "view" in here:
            here, there = (table[table["view"] != "patch"] for table in (here, there))
        columns = [
            name for name in here if not any(re.match(pattern, name) for pattern in DESCRIBED)
        ]
        for name in columns:
            ours, theirs = here[name], there[name]
            if ours.dtype.kind in "fi":
                np.testing.assert_allclose(
                    theirs, ours, rtol=1e-10, atol=1e-12, err_msg=f"{key} {name}"
                )
            else:
                said = [str(x).replace("over patients", "over cases") for x in theirs]
                assert said == [str(x) for x in ours], f"{key} {name}"
        compared += len(columns)
    assert len(once) > 25 and compared > 200


def alike(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[L, S, P] scores of three losses with a missing trial and an undefined case, the cases'
    folds, and how many sessions each is to have."""
    rng = np.random.default_rng(seed)
    fold_of = np.repeat([0, 1, 2], (5, 3, 4))
    scores = rng.random((3, 3, 12)) + rng.normal(0, 0.2, 12)
    scores[1, 2, fold_of == 1] = np.nan
    scores[2, 0, 10] = np.nan
    return scores, fold_of, rng.integers(1, 4, 12)


STATISTICS = {
    "ladder": lambda y, fold, who: ladder(y[0] - y[2], fold, who),
    "pair": lambda y, fold, who: pairs.compare(y, fold, 0, 2, who),
    "verdicts": lambda y, fold, who: pairs.judge(
        pairs.every_pair(y, fold, [0, 1, 2], who, tau=0.01), reference=1
    ),
    "cells": lambda y, fold, who: pairs.cell_means(y[0], fold, who),
    "lottery": lambda y, fold, who: complete_cells(y, fold, [0, 1, 2], who),
    "needed": lambda y, fold, who: needed_seeds(ladder(y[0] - y[1], fold, who), 3),
    "ranks": lambda y, fold, who: [
        ranks.rank_by(ranks.shared_scores(y, fold, [0, 1, 2], who).patients, scheme)
        for scheme in ranks.SCHEMES
    ],
    "resampled": lambda y, fold, who: ranks.resampled_patients(
        ranks.shared_scores(y, fold, [0, 1, 2], who).blocks, np.random.default_rng(0), 20
    ),
    "variance": lambda y, fold, who: components(
        *balanced(y, fold, complete_cells(y, fold, [0, 1, 2], who), who)[:2]
    ),
    "thresholds": lambda y, fold, who: thresholds.fold_curves(y[..., None], fold, who),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_sessions_that_are_alike_move_no_statistic(name: str) -> None:
    scores, fold_of, times = alike()
    once = STATISTICS[name](scores, fold_of, np.arange(12))
    assert numbers(STATISTICS[name](scores, fold_of, None)) == numbers(once)
    who = np.repeat(np.arange(12), times)
    order = np.random.default_rng(1).permutation(len(who))  # sessions need not stand together
    order = order[
        np.argsort(np.unique(who[order], return_index=True)[1][who[order]], kind="stable")
    ]
    order = np.concatenate([[np.flatnonzero(who == s)[0] for s in range(12)], order])
    order = np.array(list(dict.fromkeys(order.tolist())))
    several = STATISTICS[name](scores[..., who[order]], fold_of[who[order]], who[order])
    np.testing.assert_allclose(numbers(several), numbers(once), rtol=1e-10, atol=1e-12)


def numbers(found: object) -> list[float]:
    """All numbers of a result, in its order; counts of cases left out, NaN as -1."""
    if isinstance(found, pd.DataFrame):
        return numbers(found.to_numpy().tolist())
    if isinstance(found, dict):
        return numbers(list(found.values()))
    if isinstance(found, np.ndarray | list | tuple):
        return [number for part in found for number in numbers(part)]
    if hasattr(found, "__dict__"):
        return numbers([value for key, value in vars(found).items() if key != "num_cases"])
    if isinstance(found, str):
        return [float(sum(map(ord, found)))]
    value = float(found)  # type: ignore[arg-type]
    return [-1.0 if np.isnan(value) else value]


# --------------------------------------------------------------- sessions that are not alike
def test_a_patient_is_the_mean_of_the_sessions() -> None:
    values = np.array([[1.0, 3.0, 5.0, 7.0], [np.nan, 3.0, np.nan, np.nan]])
    means = by_subject(values, np.array([4, 2, 4, 9]))
    np.testing.assert_array_equal(means, [[3.0, 3.0, 7.0], [np.nan, 3.0, np.nan]])


def test_folds_weigh_by_patients_however_many_sessions_they_have() -> None:
    fold_of, who = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 2])
    fit = ladder(np.array([[4.0, 4.0, 4.0, 4.0, 1.0, 1.0]] * 2), fold_of, who)
    assert (fit.num_cases, fit.num_subjects) == (6, 3)
    assert fit.estimate == 2.0


def test_a_session_that_is_undefined_in_one_cell_is_left_out_of_all() -> None:
    rng = np.random.default_rng(0)
    fold_of, who = np.repeat([0, 1], 6), np.repeat(np.arange(6), 2)
    scores = rng.random((2, 3, 12))
    kept = np.arange(12) != 5
    hole = scores.copy()
    hole[1, 2, 5] = np.nan
    fit, without = (
        pairs.compare(y, fold, 0, 1, of)
        for y, fold, of in (
            (hole, fold_of, who),
            (scores[..., kept], fold_of[kept], who[kept]),
        )
    )
    assert fit == without
    assert (fit.fit.num_cases, fit.fit.num_subjects) == (11, 6)  # the patient has another session
    hole[0, 0, 4] = np.nan
    assert pairs.compare(hole, fold_of, 0, 1, who).fit.num_subjects == 5


def test_the_picture_is_of_the_median_session_of_the_typical_patient() -> None:
    dice = np.array([0.9, 0.1, 0.8, 0.6, 0.7, 0.2])[None, None]
    who = np.array([0, 0, 1, 1, 1, 2])  # means .5, .7, .2
    chosen = typical_cases(dice, np.ones(6, bool), who)
    assert [(rule, case) for rule, case, _ in chosen] == [("best", 4), ("median", 1), ("worst", 5)]


def simulated(draws: int, sessions: int = 3, patients: int = 20) -> tuple[float, float]:
    """Where two losses are equal, in five folds with five seeds: how often Student's interval for
    new patients covers 0, and the one made of it that holds at any look misses it."""
    rng, covered, wrong = np.random.default_rng(0), 0, 0
    who = np.repeat(np.arange(patients), sessions)
    fold_of = who % 5
    for _ in range(draws):
        patient, run = rng.normal(0, 0.03, patients)[who], rng.normal(0, 0.02, (5, 5))[:, fold_of]
        session = rng.normal(0, 0.01, len(who))
        fit = ladder(patient + session + run + rng.normal(0, 0.03, run.shape), fold_of, who)
        half = confidence.t_factor(fit.df["L2"]) * fit.se["L2"]
        covered += abs(fit.estimate) <= half
        low, high = fit.interval("L2")
        assert high - low >= 2 * half and (low <= 0 <= high) == (fit.p_value("L2") >= 0.05)
        wrong += not low <= 0 <= high
    return covered / draws, wrong / draws


def test_intervals_for_new_patients_cover_where_patients_have_sessions() -> None:
    coverage, wrong = simulated(2000)
    assert 0.93 <= coverage <= 0.97 and wrong <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("sessions", [2, 5])
def test_intervals_for_new_patients_cover_over_many_draws(sessions: int) -> None:
    coverage, wrong = simulated(12_000, sessions)
    assert 0.935 <= coverage <= 0.965 and wrong <= 0.05


# ------------------------------------------------------------------------------ from a ledger
@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SESSIONS.write(tmp_path_factory.mktemp("sessions") / "ledger")


@pytest.fixture(scope="module")
def cohort(ledger: Path) -> CohortScores:
    return cohort_scores(results.read_sweep(ledger))[0]


def test_a_ledger_says_whose_case_each_is(cohort: CohortScores) -> None:
    assert cohort.subjects == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert cohort.subject_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (cohort.num_cases, cohort.num_subjects) == (8, 4)


def test_headline_tables_and_inference_are_over_the_same_patients(cohort: CohortScores) -> None:
    """One number has one definition: equal folds, so the mean over folds is the ladder's."""
    scores = cohort.last_by_case(cohort.test)[..., 0]
    table = selection.by_fold(cohort.curves, cohort.last_epoch, "last")[:, :, selection.TEST, 0]
    for loss in cohort.shown:
        fit = ladder(scores[loss], cohort.fold_of, cohort.subject_of)
        np.testing.assert_allclose(table[loss].mean(), fit.estimate, rtol=1e-12)


def test_an_epoch_mean_is_over_patients_with_what_is_undefined_left_out_and_counted(
    tmp_path: Path,
) -> None:
    fake = FakeSweep(
        num_cases=7, sessions=3, epochs=1, losses=("xent",), seeds=(1,), num_folds=2, empty_cases=1
    )
    sweep = results.read_sweep(fake.write(tmp_path))
    cohort = cohort_scores(sweep)[0]
    rows = sweep.cases.join(results.rates(sweep.cases))
    rows = rows[(rows["scope"] == "image") & (rows["epoch"] == 1)]
    rows = rows.assign(subject=rows["case"].str[:6])
    for view, split in ((1, "train"), (2, "test")):
        for fold in (0, 1):
            own = rows[(rows["split"] == split) & (rows["fold"] == fold)]
            by_patient = own.groupby("subject")[["dice", "sensitivity", "precision"]].mean()
            at = (0, 0, fold, 1, view)
            np.testing.assert_allclose(cohort.curves[at], by_patient.mean(), rtol=1e-12)
            assert cohort.asked[at] == len(own)
            assert cohort.defined[at].tolist() == own[by_patient.columns].notna().sum().tolist()


def test_a_ledger_older_than_subjects_counts_every_case_as_a_patient(tmp_path: Path) -> None:
    ledger = SESSIONS.write(tmp_path)
    without_subjects(ledger)
    cohort = cohort_scores(results.read_sweep(ledger))[0]
    assert cohort.subjects == cohort.cases and not cohort.has_sessions
    assert cohort.size == "8 cases"
    (found,) = cohort_findings(cohort)
    assert "counts as a patient of its own" in found and "sub-01_ses-1" in found


def test_a_searchs_score_is_over_patients() -> None:
    counts = {"fp": 0, "split": "validation", "scope": "image", "epoch": 1, "trial": "t"}
    cases = pd.DataFrame(
        [
            counts | {"case": "a1", "tp": 1, "fn": 0},  # sensitivity 1
            counts | {"case": "a2", "tp": 1, "fn": 1},  # 1 / 2
            counts | {"case": "b1", "tp": 0, "fn": 1},  # 0
            counts | {"case": "b2", "tp": 0, "fn": 0},  # no lesion
        ]
    )
    subjects = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
    judged = results.judged_scores(cases, subjects).loc["t"]
    assert judged["sensitivity"] == (0.75 + 0) / 2 and judged["cases"] == 3
    assert results.judged_scores(cases).loc["t", "sensitivity"] == 0.5


def test_a_tidy_csv_may_name_subjects(tmp_path: Path, ledger: Path, cohort: CohortScores) -> None:
    rows = results.read_sweep(ledger).cases
    columns = ["loss", "seed", "fold", "epoch", "case", "split", "scope", "tp", "fp", "fn"]
    rows[columns].assign(subject=rows["case"].str[:6]).to_csv(tmp_path / "t.csv", index=False)
    there = cohort_scores(read_results(tmp_path / "t.csv"))[0]
    assert there.size == "8 sessions of 4 patients"
    here = ladder(cohort.last_by_case(cohort.test)[0, ..., 0], cohort.fold_of, cohort.subject_of)
    assert fit_of(there) == here
    twice = rows[columns].assign(subject=np.arange(len(rows)).astype(str))
    twice.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(ValueError, match=r"case sub-.* subjects; expected one"):
        read_results(tmp_path / "bad.csv")


def fit_of(cohort: CohortScores) -> Ladder:
    scores = cohort.last_by_case(cohort.test)[0, ..., 0]
    return ladder(scores, cohort.fold_of, cohort.subject_of)


@pytest.mark.usefixtures("quick")
def test_a_report_says_sessions_and_patients_where_they_differ(
    tmp_path: Path, ledger: Path
) -> None:
    page = undrawn.build(ledger, tmp_path / "report").read_text()
    page = re.sub(r"\s+", " ", re.sub(r"<(script|style|svg).*?</\1>", "", page, flags=re.DOTALL))
    assert "2 folds, 8 sessions of 4 patients" in re.sub("<[^>]+>", "", page)
    for words in (
        "All 4 cells and 8 sessions of 4 patients: 1 of 1 pairs",
        "8 of 8 sessions (4 of 4 patients)",
        "Sessions of a patient are averaged first.",
        "The cohort has 8 sessions of 4 patients",
        "Means are over patients",
        "Patients with a value for every loss, of 4: DSC 4",
    ):
        assert words in page, words
    assert not re.search(r"\b8 (of 8 )?(cases|patients)\b(?! with a cohort table)", page)
