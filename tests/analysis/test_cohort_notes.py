"""The report says what is unusual about cases, and to which voxels they were resampled."""

import json

import pyarrow.parquet as pq
import pytest

from analysis.report import report_input
from analysis.sections import coverage, methods
from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    path = tmp_path_factory.mktemp("notes") / "s"
    FakeSweep(num_cases=4, epochs=1, losses=("xent", "new"), seeds=(1,), num_folds=2).write(path)
    return path


def given(path):
    return report_input(results.read_sweep(path), None, 0.01, False)


def test_a_usual_cohort_has_no_table_of_warnings_and_says_nothing_of_resampling(sweep):
    read = given(sweep)
    keys = [getattr(item, "key", "") for item in coverage.section(read).items]
    assert "case-warnings" not in keys
    assert methods.resampling(read.sweep, read.cohorts[0]) == ""


def test_every_warning_is_listed_with_its_case_and_resampling_with_its_size(sweep):
    meta = json.loads((sweep / "sweep.json").read_text())
    (name, *_) = meta["cohorts"]
    meta["cohorts"][name]["spacing_mm"] = [1.0, 1.0, 2.5]
    results.write_json(sweep / "sweep.json", meta)
    file = sweep / "cohorts" / name / "cases.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["warnings"] = ["axes run PSR", "17 ml of brain"]
    results.write_table(file, rows, results.COHORT_CASES)
    read = given(sweep)
    (table,) = [
        item for item in coverage.section(read).items if getattr(item, "key", "") == "case-warnings"
    ]
    assert table.frame["case"].tolist() == [rows[1]["case"]] * 2
    assert table.frame["warning"].tolist() == ["axes run PSR", "17 ml of brain"]
    text = methods.resampling(read.sweep, next(c for c in read.cohorts if c.name == name))
    assert "resampled to voxels of 1 × 1 × 2.5 mm" in text
