"""Sweeps that are incomplete, tiny or broken: never a crash, never a silent change of n."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import report
from analysis.page.items import Figure, Note, Table
from analysis.reading import checks
from analysis.reading.scores import cohort_scores
from analysis.sections import (
    bands,
    bands_by_fold,
    gap,
    gradients,
    imbalance,
    methods,
    policies,
    table2,
    tradeoff,
    violins,
)
from analysis.statistics.pairs import ROPE
from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep
from tests.support import undrawn
from tests.support.recorded import record_anew

pytestmark = pytest.mark.usefixtures("quick")

TINY = FakeSweep(num_cases=4, epochs=2, losses=("xent", "new"), seeds=(1, 2), num_folds=2)


UNEVALUATED = {
    "last": lambda rows: rows["epoch"] == rows["epoch"].max(),
    "held_out": lambda rows: rows["split"] == "test",
    "held_out, last": lambda rows: (
        (rows["split"] == "test") & (rows["epoch"] == rows["epoch"].max())
    ),
}


@pytest.mark.parametrize("kept", UNEVALUATED)
def test_what_was_not_evaluated_is_said_and_nothing_stands_in_for_it(kept, tmp_path):
    """Scores of the last epoch's test images are the same; of the rest there are words."""
    whole = results.read_sweep(TINY.write(tmp_path))
    lean = replace(whole, cases=whole.cases[UNEVALUATED[kept](whole.cases)])
    given = report.report_input(lean, None, ROPE, False)
    (ours,), (theirs,) = given.cohorts, cohort_scores(whole)
    np.testing.assert_array_equal(ours.last_by_case(ours.test), theirs.last_by_case(theirs.test))
    shown = [bands, bands_by_fold, gap, gradients, policies, table2, tradeoff, violins]
    items = [item for each in shown for item in each.section(given).unfolded]
    said = " ".join(
        item.body if isinstance(item, Note) else item.caption
        for item in items
        if isinstance(item, Note | Figure | Table)
    )
    said = html.unescape(said)
    no_course, no_training = "last" in kept, "held_out" in kept
    assert ("after their last epoch alone, so nothing is known of the way" in said) == no_course
    assert ("the paper's rule cannot be followed" in said) == no_course
    assert ("on test images alone, so there is nothing to compare these with" in said) == (
        no_training
    )
    assert ("Not evaluated: training patches, training images." in said) == no_training
    (table,) = (item for item in items if getattr(item, "key", "").startswith("table2-last"))
    assert ("dice_patch" in {column.key for column in table.columns}) == (not no_training)
    (table,) = (item for item in items if getattr(item, "key", "").startswith("policies"))
    chosen = set(table.frame["epoch"])
    assert ("best training DSC" in chosen) == (not no_training and not no_course)
    assert ("chosen on other folds" in chosen) == (not no_course)
    for item in items:
        if isinstance(item, Figure):
            item.draw()
    sentences = " ".join(checks.findings(lean, given.all_cohorts))
    assert ("no curves over epochs" in sentences, "nothing is known of training" in sentences) == (
        no_course,
        no_training,
    )


DRAWN = [
    {"seeds": (1,), "num_folds": 1},
    {"empty_cases": 4, "collapsed": ("xent", "new")},
    {"losses": ("my_loss", "focal(alpha=0.3,gamma=1.5)", "a<b & 'c'")},
]
ODD = [
    {"losses": ("new",)},
    {"collapsed": ("xent", "new")},
    {"cohorts": ("wmh2017", "lit"), "status": {("lit", "xent", 1, 0): "diverged"}},
    {
        "status": {
            ("wmh2017", "new", 1, 0): "missing",
            ("wmh2017", "xent", 2, 0): "missing",
            ("wmh2017", "new", 2, 1): "failed",
            ("wmh2017", "xent", 1, 1): "corrupt",
        }
    },
]
MORE = [
    {"num_folds": 1},
    {"seeds": (1,)},
    {"num_cases": 1, "num_folds": 1},
    {"num_cases": 2},
    {"empty_cases": 4},
    {"pictures": False, "gradients": False},
    {"status": {("wmh2017", "new", seed, fold): "diverged" for seed in (1, 2) for fold in (0, 1)}},
    {"status": {("wmh2017", "new", 1, 0): "missing", ("wmh2017", "xent", 2, 0): "missing"}},
]


SLOW = [pytest.param(change, marks=pytest.mark.slow) for change in (*ODD, *MORE)]


@pytest.mark.parametrize("change", [*DRAWN, *SLOW], ids=str)
def test_odd_sweep_gives_a_page_that_counts(tmp_path: Path, change: dict) -> None:
    assert_it_counts(report.build(replace(TINY, **change).write(tmp_path / "sweep"), formats=()))


def test_no_sweep_is_made_of_no_epochs_and_one_that_says_so_gives_a_page_that_counts(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="epochs is 0; expected 1 or more"):
        replace(TINY, epochs=0).write(tmp_path / "sweep")
    sweep = TINY.write(tmp_path / "other")
    meta = json.loads((sweep / "sweep.json").read_text())
    meta["settings"]["epochs"] = 0
    (sweep / "sweep.json").write_text(json.dumps(meta))
    assert_it_counts(report.build(sweep, formats=()))


@pytest.mark.parametrize("change", ODD, ids=str)
def test_odd_sweep_gives_numbers_that_count(tmp_path: Path, change: dict) -> None:
    assert_it_counts(undrawn.build(replace(TINY, **change).write(tmp_path / "sweep")))


def assert_it_counts(file: Path) -> None:
    page = file.read_text()
    for caption in re.findall(r"<figcaption>(.*?)<span", page, re.DOTALL):
        assert re.search(r"\d+ of \d+", caption), caption
    assert ">nan" not in page and "nan%" not in page and " nan" not in page
    assert "a<b &" not in page  # names are escaped


def findings_of(folder: Path) -> str:
    """What the page says above everything else."""
    sweep = results.read_sweep(folder)
    return " ".join(checks.findings(sweep, cohort_scores(sweep)))


def change_cases(
    folder: Path, change: Callable[[list[dict]], list[dict]], *, only: str = ""
) -> None:
    for file in sorted((folder / "trials").glob(f"*{only}*/cases.parquet")):
        rows = change(pq.read_table(file).to_pylist())
        results.write_table(file, rows, results.CASES)
        record_anew(file.parent)


def test_lost_test_case_is_named(tmp_path: Path) -> None:
    TINY.write(tmp_path)
    change_cases(
        tmp_path, lambda rows: [row for row in rows if row["case"] != "case01"], only="xent-s1-f0"
    )
    assert "lacks the test cases case01" in findings_of(tmp_path)


def test_changed_reference_is_noticed(tmp_path: Path) -> None:
    TINY.write(tmp_path)
    change_cases(
        tmp_path, lambda rows: [row | {"fn": row["fn"] + 1} for row in rows], only="xent-s1-f0"
    )
    assert "did not see the same masks" in findings_of(tmp_path)


def test_trial_that_sweep_json_does_not_list_enters_no_average(tmp_path: Path) -> None:
    folder = TINY.write(tmp_path / "sweep")
    before = cohort_scores(results.read_sweep(folder))[0]
    [stray] = (folder / "trials").glob("*new-s1-f0*")
    copy = stray.with_name(stray.name[:-8] + "00000000")
    copy.mkdir()
    for file in stray.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    after = cohort_scores(results.read_sweep(folder))[0]
    np.testing.assert_array_equal(after.curves, before.curves)
    assert "not listed in sweep.json" in findings_of(folder)


@pytest.mark.parametrize("file", ["histograms.parquet", "slices.parquet"])
def test_trial_with_an_unreadable_side_file_is_named_and_the_rest_is_shown(
    tmp_path: Path, file: str
) -> None:
    TINY.write(tmp_path)
    [trial] = (tmp_path / "trials").glob("*new-s1-f0*")
    (trial / file).write_bytes(b"no parquet")
    page = undrawn.build(tmp_path).read_text()
    assert "7 of 8 trials; without new seed 1 fold 0 (corrupt)" in page
    absent = (tmp_path / "report" / "tables" / "absent-trials.csv").read_text()
    assert f"{file} is damaged" in absent


def test_results_without_cohort_tables_still_give_a_page(tmp_path: Path) -> None:
    TINY.write(tmp_path)
    for file in (tmp_path / "cohorts" / "wmh2017").iterdir():
        file.unlink()
    page = report.build(tmp_path, formats=()).read_text()
    assert "No cohort table" in page and "No pictures" in page


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))]
)
def test_random_holes_and_nulls_never_crash(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sweep = replace(
        TINY,
        losses=("xent", "dsc", "new"),
        seeds=(1, 2, 3),
        num_cases=6,
        empty_cases=int(rng.integers(3)),
    )
    states = ["done", "done", "missing", "partial", "failed", "diverged", "corrupt"]
    sweep = replace(
        sweep,
        status={
            ("wmh2017", loss, s, fold): str(rng.choice(states))
            for loss in sweep.losses
            for s in sweep.seeds
            for fold in range(2)
        },
    )
    sweep.write(tmp_path)

    def puncture(rows: list[dict]) -> list[dict]:
        for row in rows:
            if rng.random() < 0.05 and row["scope"] == "image":
                row |= {"tp": 0, "fp": 0, "fn": 0}
            if rng.random() < 0.2:
                row |= {"hd95_mm": None, "nsd": float("nan")}
        return rows

    for file in sorted((tmp_path / "trials").glob("*/cases.parquet")):
        try:
            rows = pq.read_table(file).to_pylist()
        except pa.ArrowInvalid:
            continue
        results.write_table(file, puncture(rows), results.CASES)
        record_anew(file.parent)
    cohort = cohort_scores(results.read_sweep(tmp_path))[0]
    page = report.build(tmp_path, formats=()).read_text()
    assert f"{int(cohort.done.sum())} of 18" in page


def test_ignored_voxels_are_told_and_older_cohort_tables_are_read_as_before(tmp_path):
    TINY.write(tmp_path)
    (file,) = tmp_path.glob("cohorts/*/cases.parquet")
    table = pq.read_table(file)

    def told() -> tuple[list[str], str]:
        given = report.report_input(results.read_sweep(tmp_path), None, ROPE, False)
        shown = imbalance.section(given)
        assert shown is not None
        (table1,) = (item for item in shown.unfolded if isinstance(item, Table))
        text = methods.ignored_text(given.sweep, given.cohorts[0])
        return [*table1.frame["brain"], *table1.frame.columns, table1.caption], text

    as_written, _ = told()
    pq.write_table(table.drop([name for name in table.column_names if "ignore" in name]), file)
    assert told() == (as_written, "")
    assert "ignored" not in as_written
    rows = table.to_pylist()
    for row in rows[:2]:
        brain = row["brain_voxels"]
        row |= {"ignore_voxels": brain, "ignore_brain_voxels": brain // 2}
    results.write_table(file, rows, results.COHORT_CASES)
    now, text = told()
    assert "ignored" in now
    assert now[0] != as_written[0]
    assert "Ignored voxels are in no other number" in now[-1]
    assert "2 of 4 cases have voxels that are to be ignored" in text
