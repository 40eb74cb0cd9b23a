"""What W&B lacks is sent, once, from offline runs or the ledger; and nothing that may not leave."""

import json
import socket
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from lesion_core import results
from lesion_core.descriptions import configuration_hash
from sweeps import command
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.provenance import ROOT
from sweeps.sweep import _track_sweep
from sweeps.tracking import live_run, policy, redacted, sweep_run, upload
from sweeps.tracking.__main__ import main as wandb_command
from sweeps.tracking.policy import FILE, Logging, Tracking
from sweeps.tracking.run_content import RunContent, RunEnding, content_of
from sweeps.tracking.sweep_run import content_of_sweep
from tests.support import offline_runs
from tests.support.recorded import record_anew
from tests.support.wandb_server import Server

KEY = "k" * 40


@pytest.fixture(autouse=True)
def a_place_of_its_own(monkeypatch, tmp_path):
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sweep_run, "_report", lambda *arguments: "<p>the report</p>")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server


@pytest.fixture
def sweep(tmp_path):
    """Two trials done, one failed, one interrupted, one never begun; with models."""
    status = {
        ("wmh2017", "xent", 3, 0): "failed",
        ("wmh2017", "xent", 4, 0): "partial",
        ("wmh2017", "xent", 5, 0): "missing",
    }
    path = FakeSweep(
        num_cases=6, epochs=2, losses=("xent",), seeds=(1, 2, 3, 4, 5), num_folds=1, status=status
    ).write(tmp_path / "grid")
    for file in path.glob("trials/*/trial.json"):
        (file.parent / "model.pt").write_bytes(b"weights of " + file.parent.name.encode())
        record_anew(file.parent)
    return path


def trials(path, *statuses):
    """Hashes of the trials of the sweep that are so."""
    states = {
        trial["hash"]: results.trial_status(path / "trials" / trial["name"])["status"]
        for trial in results.read_meta(path)["trials"]
    }
    return [key for key, state in states.items() if state in statuses]


def image(server):
    """All that the server holds, to compare."""
    return {
        key: (run.history, run.summary.get("status"), run.exit_code)
        for key, run in server.runs.items()
    }


def of_sweep(server):
    (run,) = [run for key, run in server.runs.items() if key.startswith("sweep-")]
    return run


# ---------------------------------------------------------------------------------------- backfill
def test_runs_are_rebuilt_from_the_ledger_alone(server, sweep, capsys):
    assert upload.backfill(sweep, Logging()) == 0
    done, failed = trials(sweep, "done"), trials(sweep, "failed")
    assert set(server.runs) == {*done, *failed, of_sweep(server).id}
    for key in done:
        run = server.runs[key]
        assert (run.steps, run.exit_code, run.summary["status"]) == ([0, 1, 2], 0, "done")
        assert (run.fields["groupName"], run.fields["jobType"]) == ("grid", "train")
        (folder,) = sweep.glob(f"trials/*-{key}")
        cases = pq.read_table(folder / "cases.parquet").to_pandas()
        last = results.rates(cases.query("epoch == 2 and split == 'test' and scope == 'image'"))
        assert run.history[-1]["test/image/dice"] == pytest.approx(last.dice.mean())
    assert {server.runs[key].exit_code for key in failed} == {1}
    said = capsys.readouterr().out
    assert "4 sent; 2 are not finished and were left out" in said


def test_a_second_backfill_sends_nothing(server, sweep, capsys):
    upload.backfill(sweep, Logging())
    before, requests = image(server), len(server.requests)
    assert upload.backfill(sweep, Logging()) == 0
    assert image(server) == before
    assert set(server.requests[requests:]) == {"Run"}  # it only asked
    assert "4 there already, 0 sent" in capsys.readouterr().out


def test_a_run_that_stopped_in_the_middle_is_continued(server, sweep):
    upload.backfill(sweep, Logging())
    before = image(server)
    key = trials(sweep, "done")[0]
    run = server.runs[key]
    run.lines = {0: run.lines[0]}
    run.summary = {"_step": 0}
    assert upload.backfill(sweep, Logging()) == 0
    assert [row["_step"] for row in server.runs[key].history] == [0, 1, 2]
    assert server.runs[key].summary["status"] == "done"
    assert {k: v for k, v in image(server).items() if k != key} == {
        k: v for k, v in before.items() if k != key
    }


def test_without_a_server_offline_runs_are_rebuilt_once(sweep, capsys):
    assert upload.backfill(sweep, Logging(wandb="offline")) == 0
    folders = sorted(sweep.glob("wandb/offline-run-*"))
    assert len(folders) == 4
    key = trials(sweep, "done")[0]
    (file,) = sweep.glob(f"wandb/offline-run-*-{key}/run-{key}.wandb")
    assert offline_runs.steps(file) == [0, 1, 2] and offline_runs.exit_code(file) == 0
    assert upload.backfill(sweep, Logging(wandb="offline")) == 0
    assert sorted(sweep.glob("wandb/offline-run-*")) == folders
    assert "0 written, 4 there already" in capsys.readouterr().out


def missed(sweep, key):
    note = sweep / f"wandb/unsent-{key}/why.txt"
    note.parent.mkdir(parents=True)
    note.write_text("not finished after 20 s\n")
    return note.parent


def test_what_trials_did_not_wait_for_is_written_when_an_offline_sweep_ends(sweep, capsys):
    done, _ = trials(sweep, "done")
    (failed,) = trials(sweep, "failed")
    notes = [missed(sweep, key) for key in (done, failed)]
    _track_sweep(sweep, Tracking(mode="offline", group="grid"))
    assert not [note for note in notes if note.exists()]
    assert "writing 2 offline W&B runs" in capsys.readouterr().out
    for key, steps, code in ((done, [0, 1, 2], 0), (failed, [0, 1], 1)):
        (file,) = sweep.glob(f"wandb/offline-run-*-{key}/run-{key}.wandb")
        assert offline_runs.steps(file) == steps and offline_runs.exit_code(file) == code


def test_what_cannot_be_written_at_the_end_either_is_said_and_stays_noted(
    sweep, monkeypatch, capsys
):
    notes = [missed(sweep, key) for key in trials(sweep, "done")]
    tried = []
    monkeypatch.setattr(live_run, "write", lambda *arguments: 1 / tried.append(arguments))
    _track_sweep(sweep, Tracking(mode="offline", group="grid"))
    assert all(note.exists() for note in notes) and len(tried) == 2  # a trial's, the sweep's own
    assert "not all W&B runs were written (" in capsys.readouterr().out
    assert upload.backfill(sweep, Logging(wandb="offline")) == 1
    assert "4 could not be written" in capsys.readouterr().out


def test_an_offline_folder_without_its_steps_is_written_again(sweep):
    key = trials(sweep, "done")[0]
    (sweep / f"wandb/offline-run-20260101_000000-{key}/files").mkdir(parents=True)
    assert upload.backfill(sweep, Logging(wandb="offline")) == 0
    (file,) = sweep.glob(f"wandb/offline-run-*-{key}/run-{key}.wandb")
    assert offline_runs.steps(file) == [0, 1, 2]


# -------------------------------------------------------------------------------------------- sync
def test_what_was_written_offline_is_sent_once(sweep, server, capsys):
    upload.backfill(sweep, Logging(wandb="offline"))
    capsys.readouterr()
    assert upload.sync(sweep) == 0
    assert "4 sent" in capsys.readouterr().out
    assert {tuple(run.steps) for run in server.runs.values()} == {(0, 1), (0, 1, 2)}
    before = image(server)
    assert upload.sync(sweep) == 0
    assert image(server) == before
    assert "4 there already, 0 sent" in capsys.readouterr().out


def test_tables_and_networks_of_an_offline_sweep_arrive_whole(sweep, server):
    """wandb keeps them beside its offline runs, in the home folder of the worker's machine."""
    upload.backfill(sweep, Logging(wandb="offline", wandb_artifacts=True))
    assert upload.sync(sweep) == 0
    key = trials(sweep, "done")[0]
    assert {artifact["artifactCollectionName"] for artifact in server.runs[key].artifacts} == {
        f"run-{key}-cases",
        f"model-{key}",
    }
    assert b"weights of wmh2017-xent" in bytes(server.received)


def test_nothing_is_left_in_the_home_folder(sweep, server, tmp_path):
    upload.backfill(sweep, Logging(wandb_artifacts=True))
    assert not [path for path in tmp_path.rglob("*") if path.name in ("artifacts", "staging")]


def test_the_count_of_a_server_may_lag(sweep, server, monkeypatch):
    monkeypatch.setattr(upload, "SECONDS_TO_SETTLE", (0, 0, 0))
    answers = []
    find_run = upload.Server.find_run

    def late(self, run_id):
        answers.append(run_id)
        return upload.ServerRun(0, None) if answers.count(run_id) < 3 else find_run(self, run_id)

    monkeypatch.setattr(upload.Server, "find_run", late)
    assert upload.backfill(sweep, Logging()) == 0
    assert {tuple(run.steps) for run in server.runs.values()} == {(0, 1), (0, 1, 2)}


def test_a_sweeps_runs_stay_at_one_place(sweep, server, monkeypatch):
    upload.backfill(sweep, Logging())
    url = server.url
    monkeypatch.delenv("WANDB_BASE_URL")  # another shell, where nothing is set
    with pytest.raises(ValueError, match=f"if it is yours: --wandb-base-url {url}$"):
        upload.sync(sweep)
    assert wandb_command(["sync", str(sweep), "--wandb-base-url", url]) == 0
    for name, value in (("BASE_URL", "http://127.0.0.1:1"), ("PROJECT", "another")):
        monkeypatch.setenv(f"WANDB_{name}", value)
        with pytest.raises(ValueError, match="a sweep's runs stay together"):
            upload.sync(sweep)
        monkeypatch.delenv(f"WANDB_{name}")
    assert policy.remembered(sweep)["url"] == url


def test_a_sweeps_run_that_did_not_arrive_is_reported(sweep, server, monkeypatch):
    monkeypatch.setattr(upload, "SECONDS_TO_SETTLE", (0,))
    monkeypatch.setattr(live_run, "write", lambda *arguments: 1 / 0)
    assert upload.track_sweep(sweep, Tracking.decide("online", sweep)) == "division by zero"
    server.status = 500
    assert "error 500" in upload.track_sweep(sweep, Tracking.decide("online", sweep))


def test_a_trial_that_the_server_knows_in_part_is_not_sent_twice(sweep, server):
    """`wandb sync` would append its steps once more, or shift them."""
    upload.backfill(sweep, Logging(wandb="offline"))
    key = trials(sweep, "done")[0]
    (name,) = [path.name for path in sweep.glob(f"trials/*-{key}")]
    decided = Tracking.decide("online", sweep)
    whole = content_of(sweep, name, decided)
    live_run.write(
        decided,
        RunContent(
            identity=whole.identity,
            steps={0: whole.steps[0]},
            ending=RunEnding(summary={"status": "failed"}),
            failed=True,
        ),
        sweep / "scratch",
    )
    assert server.runs[key].steps == [0]
    assert upload.sync(sweep) == 0
    assert server.runs[key].steps == [0, 1, 2]
    assert server.runs[key].summary["status"] == "done" and server.runs[key].exit_code == 0


def test_what_w_and_b_missed_is_sent_and_forgotten(sweep, server):
    (sweep / FILE).parent.mkdir(exist_ok=True)
    decided = Tracking.decide("online", sweep)
    (sweep / FILE).write_bytes(decided.to_remember()[FILE])
    note = sweep / f"wandb/unsent-{trials(sweep, 'done')[0]}/why.txt"
    note.parent.mkdir(parents=True)
    note.write_text("down\n")
    assert decided.hint(sweep) is not None
    assert upload.sync(sweep) == 0
    assert not note.parent.exists() and decided.hint(sweep) is None


def test_a_damaged_trial_is_named_and_the_others_are_sent(sweep, server, capsys):
    key, *others = trials(sweep, "done")
    (folder,) = sweep.glob(f"trials/*-{key}")
    (folder / "epochs.parquet").write_bytes(b"garbage")
    assert upload.backfill(sweep, Logging()) == 1
    assert f"damaged  {folder.name}" in capsys.readouterr().out
    assert key not in server.runs and set(others) <= set(server.runs)


# ----------------------------------------------------------------------------------- what may leave
NAMES = (b"case01", b"case02", b"Utrecht", b"Singapore", b"Amsterdam")


@pytest.mark.parametrize("pseudonyms", [False, True])
def test_names_leave_unless_they_are_pseudonymised(sweep, server, pseudonyms):
    (folder,) = sweep.glob(f"trials/*-{trials(sweep, 'failed')[0]}")
    failed = json.loads((folder / "failed.json").read_text())
    (folder / "failed.json").write_text(json.dumps(failed | {"error": "case01 has no mask"}))
    assert upload.backfill(sweep, Logging(pseudonymise=pseudonyms)) == 0
    everything = bytes(server.received)
    assert [name in everything for name in NAMES] == [not pseudonyms] * len(NAMES)
    run = server.runs[trials(sweep, "done")[0]]
    sites = {key.split("/")[3] for key in run.history[-1] if "/site/" in key}
    assert len(sites) == 3 and all(site.startswith("site-") == pseudonyms for site in sites)
    salt = policy.remembered(sweep)["salt"]
    assert salt is None or salt.encode() not in everything


@pytest.mark.parametrize("allowed", [False, True])
def test_pictures_and_networks_leave_only_when_asked(sweep, server, allowed):
    flags = Logging(wandb_media=allowed, wandb_artifacts=allowed)
    assert upload.backfill(sweep, flags) == 0
    everything = bytes(server.received)
    assert (b"\x89PNG" in everything) == allowed
    assert (b"weights of wmh2017-xent" in everything) == allowed


def name_host_and_folder(sweep):
    for file in sweep.glob("trials/*/done.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"host": "ward7-ws3"}))
    meta = json.loads((sweep / "sweep.json").read_text())
    command = "paper_grid.py --data /home/anna/data"
    (sweep / "sweep.json").write_text(json.dumps(meta | {"command": command}))


@pytest.mark.parametrize("pseudonyms", [False, True])
def test_the_reports_copy_holds_no_pictures_no_host_no_folder_and_no_names(
    sweep, tmp_path, pseudonyms
):
    name_host_and_folder(sweep)
    decided = Tracking(mode="offline", group="grid", salt="ab" * 16 if pseudonyms else None)
    copied = redacted.copy(sweep, tmp_path / "copy", decided)
    assert not list(copied.glob("cohorts/*/slices.parquet"))
    tables = list(copied.rglob("*.parquet"))
    assert {pq.read_metadata(t).num_rows for t in tables if t.name == "slices.parquet"} == {0}
    assert len(results.read_sweep(copied).cases) == len(results.read_sweep(sweep).cases)
    texts = [file.read_text() for file in copied.rglob("*.json")]
    assert any("--data data" in text for text in texts)
    assert not any("ward7-ws3" in text or "/home/" in text for text in texts)
    if pseudonyms:
        for file in copied.rglob("*"):
            content = file.read_bytes() if file.suffix == ".json" else b""
            if file.suffix == ".parquet":
                content = pq.read_table(file).to_pandas().to_csv().encode()
            assert not [name for name in NAMES if name in content], file


def test_the_report_that_is_sent_is_built_from_that_copy(sweep, monkeypatch):
    monkeypatch.undo()
    name_host_and_folder(sweep)
    decided = Tracking(mode="offline", group="grid", salt="ab" * 16)
    page = sweep_run._report(sweep, decided)
    assert "ward7-ws3" not in page and "/home/" not in page and "--data data" in page
    assert "trials complete" in page and decided.site_name("Utrecht") in page
    assert not [name for name in NAMES if name.decode() in page]


# ---------------------------------------------------------------------------------- the sweep's run
def test_the_sweeps_run_holds_bands_tables_and_the_report(sweep, server):
    upload.backfill(sweep, Logging())
    run = of_sweep(server)
    assert (run.fields["jobType"], run.fields["groupName"]) == ("sweep", "grid")
    assert run.steps == [0, 1, 2] and run.exit_code == 0
    assert run.summary["trials_done"] == 2 and run.summary["trials_asked"] == 5
    xent = [server.runs[key].history[-1]["test/image/dice"] for key in trials(sweep, "done")]
    last = run.history[-1]
    place = "bands/wmh2017/xent/test/image/dice"
    assert last[f"{place}/trials"] == len(xent) == 2
    assert last[f"{place}/mean"] == pytest.approx(sum(xent) / 2)
    assert (last[f"{place}/lowest"], last[f"{place}/highest"]) == (min(xent), max(xent))
    pages = [content for name, content in run.files.items() if name.endswith(".html")]
    assert pages == [b"<p>the report</p>"]
    tables = {
        name.split("/")[-1].split("_")[0]: json.loads(content)
        for name, content in run.files.items()
        if name.endswith(".table.json")
    }
    assert len(tables["trials"]["data"]) == 5
    ((*row, first, second, third),) = [row[:9] for row in tables["losses"]["data"]]
    assert row == ["wmh2017", "xent", "test", 2, 5, 2]
    numbers = [first, second, third]
    assert numbers[:3] == pytest.approx([sum(xent) / 2, min(xent), max(xent)])


def test_the_best_loss_comes_first_and_one_without_a_number_last():
    import pandas as pd

    def curve(dice):
        columns = [f"{view}/{m}" for view in sweep_run.VIEWS for m in sweep_run.METRICS]
        return pd.DataFrame([dict.fromkeys(columns, dice)], index=[4])

    states = {loss: {"cohort": "c", "loss": loss} for loss in ("worse", "none", "better")}
    curves = {"worse": curve(0.1), "none": curve(float("nan")), "better": curve(0.2)}
    rows = sweep_run.loss_rows(states, curves)
    assert [row[1] for row in rows] == ["better", "worse", "none"]
    assert rows[2][6:] == [None] * 9
    numbers = sweep_run.bands(states, curves)[4]
    assert numbers["bands/c/none/test/image/dice/trials"] == 0
    assert "bands/c/none/test/image/dice/mean" not in numbers


def test_a_sweep_that_grew_gets_another_run(sweep):
    decided = Tracking(mode="offline", group="grid")
    before = content_of_sweep(sweep, decided).identity
    assert content_of_sweep(sweep, decided).identity == before
    (folder,) = sweep.glob(f"trials/*-{trials(sweep, 'done')[0]}")
    (folder / "done.json").unlink()
    assert content_of_sweep(sweep, decided).identity.id != before.id


def test_no_run_for_a_sweep_without_a_trial(tmp_path):
    FakeSweep(num_cases=4, losses=("xent",), seeds=(1,), num_folds=2).write(tmp_path)
    for done in tmp_path.glob("trials/*/done.json"):
        done.unlink()
    assert content_of_sweep(tmp_path, Tracking(mode="offline", group="g")) is None


# ---------------------------------------------------------------------------------------- mistakes
def exit_status(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tracking.py", *map(str, arguments)])
    return command.run(wandb_command)


def test_mistakes_are_one_line(sweep, tmp_path, monkeypatch, capsys):
    for words, arguments in {
        "no sweep.json there": ["sync", tmp_path],
        "was never tracked; `python sweeps/tracking.py backfill": ["sync", sweep],
        "--wandb online needs a key": ["backfill", sweep, "--wandb", "online"],
        "backfill with --wandb disabled does nothing": ["backfill", sweep, "--wandb", "disabled"],
    }.items():
        assert exit_status(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and words in said and said.count("\n") == 1
    assert not (sweep / "wandb").exists()


@pytest.mark.parametrize(
    ("status", "words"), [(None, "does not answer"), (401, "refuses"), (500, "error 500")]
)
def test_a_server_that_does_not_take_it_is_one_line_and_exit_status_1(
    sweep, monkeypatch, capsys, status, words
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Server(status=status or 200) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url if status else url)
        assert exit_status(monkeypatch, "backfill", sweep) == 1
    said = capsys.readouterr().err
    assert words in said and "the same command goes on" in said and said.count("\n") == 1
    assert KEY not in said


def test_the_script_runs_from_a_clone(sweep, server):
    script = [sys.executable, ROOT / "sweeps" / "tracking.py"]
    helped = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True)
    assert all(name in helped.stdout for name in ("sync", "backfill", "dashboard"))


def test_trials_whose_configuration_names_cases_are_whole_in_the_copy_too(sweep, tmp_path):
    """Pseudonyms make another configuration of it, so another hash and name."""
    (folder,) = sweep.glob(f"trials/*-{trials(sweep, 'done')[0]}")
    trial = json.loads((folder / "trial.json").read_text())
    config = trial["config"] | {"test_cases": ["case01", "case02"]}
    digits = configuration_hash(config)
    name = folder.name.replace(trial["hash"], digits)
    changed = trial | {"config": config, "hash": digits, "name": name}
    (folder / "trial.json").write_text(json.dumps(changed))
    for file in folder.glob("*.parquet"):
        schema = results.TABLES[file.name]
        rows = [row | {"trial": name} for row in pq.read_table(file, schema=schema).to_pylist()]
        results.write_table(file, rows, schema)
    folder.rename(folder.with_name(name))
    meta = json.loads((sweep / "sweep.json").read_text())
    rows = [changed if row["name"] == trial["name"] else row for row in meta["trials"]]
    rows = [{key: value for key, value in row.items() if key != "config"} for row in rows]
    (sweep / "sweep.json").write_text(json.dumps(meta | {"trials": rows}))
    before = results.read_sweep(sweep).runs["status"].tolist()
    decided = Tracking(mode="offline", group="grid", salt="ab" * 16)
    copied = redacted.copy(sweep, tmp_path / "copy", decided)
    assert results.read_sweep(copied).runs["status"].tolist() == before
    assert "case01" not in "".join(file.read_text() for file in copied.rglob("*.json"))
