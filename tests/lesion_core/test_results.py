"""What is written is read back, whole or not at all."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lesion_core import results
from lesion_core.descriptions import configuration_hash, trial_name
from sweeps.bench.fake_sweep import description

TRIALS = [description("c", "xent", seed, 0, epochs=1) for seed in range(3)]
DONE, BEGUN, MISSING = (trial["name"] for trial in TRIALS)


def identity(trial=TRIALS[0]):
    columns = {key: trial[key] for key in ("cohort", "loss", "seed", "fold")}
    return {"trial": trial["name"], **columns}


def case_row(epoch=0, trial=TRIALS[0], **values):
    row = dict.fromkeys(results.CASES.names) | identity(trial)
    return row | {"epoch": epoch, "split": "test", "scope": "image", "case": "1"} | values


def epoch_row(epoch=0, trial=TRIALS[0]):
    return dict.fromkeys(results.EPOCHS.names) | identity(trial) | {"epoch": epoch}


def write_trial(folder, trial):
    results.write_json(folder / "trial.json", trial)
    for file, schema in results.TABLES.items():
        rows = {
            "cases.parquet": [case_row(0, trial, tp=3), case_row(1, trial, tp=5)],
            "epochs.parquet": [epoch_row(0, trial), epoch_row(1, trial)],
        }
        results.write_table(folder / file, rows.get(file, []), schema)


@pytest.fixture
def ledger(tmp_path):
    """Three trials asked for: one done, one begun, one missing."""
    asked = [{key: value for key, value in trial.items() if key != "config"} for trial in TRIALS]
    meta = {"schema_version": results.SCHEMA_VERSION, "trials": asked, "losses": ["xent"]}
    results.write_json(tmp_path / "sweep.json", meta)
    for trial in TRIALS[:2]:
        write_trial(tmp_path / "trials" / trial["name"], trial)
    done = {"epochs_done": 1, "seconds": 2.5}
    results.write_json(tmp_path / "trials" / DONE / "done.json", done)
    return tmp_path


def test_only_complete_trials_enter_the_frames(ledger):
    sweep = results.read_sweep(ledger)
    assert sweep.runs["status"].tolist() == ["done", "partial", "missing"]
    assert sweep.runs["epochs_done"].tolist() == [1, 1, 0]
    assert sweep.cases["tp"].tolist() == [3, 5]
    assert sweep.partial["tp"].tolist() == [3, 5]


def test_a_done_trial_that_lacks_a_table_is_corrupt(ledger):
    (ledger / "trials" / DONE / "lesions.parquet").unlink()
    sweep = results.read_sweep(ledger)
    assert sweep.runs["status"][0] == "corrupt"
    assert "lesions.parquet" in sweep.runs["error"][0]
    assert sweep.cases.empty


def test_a_truncated_table_is_corrupt(ledger):
    path = ledger / "trials" / DONE / "cases.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert results.read_sweep(ledger).runs["status"][0] == "corrupt"


def test_a_failed_trial_tells_diverged_from_broken(ledger):
    for kind, status in (("diverged", "diverged"), ("error", "failed")):
        failure = {"kind": kind, "error": "why", "log": "log.txt"}
        results.write_json(ledger / "trials" / BEGUN / "failed.json", failure)
        run = results.read_sweep(ledger).runs.iloc[1]
        assert (run["status"], run["error"], run["log"]) == (status, "why", "log.txt")


def test_a_trial_nobody_asked_for_is_listed(ledger):
    own = {"cohort": "c", "loss": "dsc", "seed": 9, "fold": 1}
    results.write_json(ledger / "trials/stray/trial.json", own)
    stray = results.read_sweep(ledger).runs.iloc[3]
    assert not stray["expected"]
    assert (stray["trial"], stray["loss"], stray["seed"]) == ("stray", "dsc", 9)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    results.write_json(path, {"a": 1})
    monkeypatch.setattr(results.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        results.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_rows_that_do_not_fit_the_schema_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown \['dice'\]"):
        results.write_table(tmp_path / "a", [case_row() | {"dice": 1.0}], results.CASES)
    with pytest.raises(ValueError, match=r"missing \['tp'\]"):
        row = case_row()
        del row["tp"]
        results.write_table(tmp_path / "a", [row], results.CASES)
    assert not (tmp_path / "a").exists()


def test_nan_and_null_stay_apart_from_numbers(tmp_path):
    rows = [case_row(hd95_mm=float("nan"), n_ref=2), case_row(hd95_mm=None, n_ref=None)]
    results.write_table(tmp_path / "a", rows, results.CASES)
    frame = pd.read_parquet(tmp_path / "a")
    assert frame["n_ref"].isna().tolist() == [False, True]
    assert frame["hd95_mm"].isna().all()


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "dice", "sensitivity", "precision"),
    [
        (2, 2, 0, 2 / 3, 1.0, 0.5),
        (0, 0, 0, np.nan, np.nan, np.nan),  # both empty
        (0, 5, 0, 0.0, np.nan, 0.0),  # no reference
        (0, 0, 5, 0.0, 0.0, 0.0),  # nothing predicted
    ],
)
def test_rates_of_degenerate_cases(tp, fp, fn, dice, sensitivity, precision):
    row = results.rates(pd.DataFrame({"tp": [tp], "fp": [fp], "fn": [fn]})).iloc[0]
    np.testing.assert_array_equal(row.to_numpy(), [dice, sensitivity, precision])


def test_a_folder_without_a_sweep_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match=r"no sweep\.json"):
        results.read_sweep(tmp_path)
    results.write_json(tmp_path / "sweep.json", {"schema_version": 99})
    with pytest.raises(ValueError, match="schema version 99"):
        results.read_sweep(tmp_path)


def test_files_that_are_not_what_done_recorded_are_corrupt(ledger):
    folder = ledger / "trials" / DONE
    files = {name: results.file_state(folder / name) for name in results.TABLES}
    results.write_json(folder / "done.json", {"epochs_done": 1, "files": files})
    assert results.read_sweep(ledger).runs["status"][0] == "done"
    results.write_table(folder / "cases.parquet", [case_row(0)], results.CASES)  # readable, cut
    sweep = results.read_sweep(ledger)
    assert sweep.runs["status"][0] == "corrupt"
    assert sweep.runs["error"][0] == "cases.parquet is damaged"
    assert sweep.cases.empty


def test_trials_judged_on_a_validation_part_are_kept_apart(ledger):
    searched = description("c", "focal1", 9, 0, epochs=1)
    config = searched["config"] | {"validation_cases": ["1"]}
    digits = configuration_hash(config)
    name = trial_name("c", "focal1", 9, 0, digits)
    searched |= {"config": config, "hash": digits, "name": name, "split": "validation"}
    meta = json.loads((ledger / "sweep.json").read_text())
    meta["trials"].append({key: value for key, value in searched.items() if key != "config"})
    results.write_json(ledger / "sweep.json", meta | {"losses": ["focal1", "xent"]})
    write_trial(ledger / "trials" / name, searched)
    shutil.copy(ledger / "trials" / DONE / "done.json", ledger / "trials" / name)
    for trial, split, tp in ((TRIALS[0], "test", 4), (searched, "validation", 8)):
        row = case_row(1, trial, tp=tp, split=split)
        path = ledger / "trials" / trial["name"] / "cases.parquet"
        results.write_table(path, [row], results.CASES)
    sweep = results.read_sweep(ledger)
    tested, validated = sweep.judged_on("test"), sweep.judged_on("validation")
    assert tested.runs["trial"].tolist() == [DONE, BEGUN, MISSING]
    assert validated.runs["trial"].tolist() == [name]
    assert (tested.losses, validated.losses) == (["xent"], ["focal1"])
    assert (tested.cases["tp"].tolist(), validated.cases["tp"].tolist()) == ([4], [8])
