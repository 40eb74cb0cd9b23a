"""What the real wandb sends of a trial, to a server that answers well, badly or never."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lesion_core import results
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps.ledger.contents import described
from sweeps.ledger.ledger import Ledger, NotTheTrialsFault
from sweeps.provenance import ROOT
from sweeps.tracking import live_run
from sweeps.tracking.live_run import TrackedRun
from sweeps.tracking.policy import Tracking
from sweeps.trials import attempt
from tests.support.toy import toy_cohort
from tests.support.wandb_server import Server

KEY = "0123456789abcdef" * 2 + "01234567"
SETTINGS = TrainSettings(epochs=2, patch_size=16, batch_size=4, filters=(8, 16), learning_rate=3e-3)
TRIAL = Trial(
    cohort="toy",
    fingerprint="f" * 64,
    loss=LOSSES["xent"],
    seed=1,
    fold=0,
    num_folds=2,
    settings=SETTINGS,
)


@pytest.fixture(autouse=True)
def a_place_of_its_own(monkeypatch, tmp_path):
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(TrackedRun, "paused_until", 0.0)


def tracked(url, **changes):
    return replace(Tracking(mode="online", group="grid", url=url, key=KEY), **changes)


def attempted(path, tracking, trial=TRIAL, **arguments):
    """The trial in this process; returns its ledger."""
    ledger = Ledger(path)
    attempt.attempt(
        described(trial), toy_cohort, ledger, device="cpu", threads=1, tracking=tracking,
        **arguments,
    )  # fmt: skip
    return ledger


def status(ledger, trial=TRIAL):
    return ledger.states([trial.name])[trial.name]["status"]


def unsent(path):
    return [file.read_text() for file in path.glob(f"wandb/unsent-{TRIAL.hash}/why.txt")]


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """One trial, with everything that may leave; returns what arrived, and its results folder."""
    path = tmp_path_factory.mktemp("sent")
    with pytest.MonkeyPatch.context() as patch, Server() as server:
        patch.setattr(live_run, "LEAST_SECONDS", 60.0)
        patch.setattr(TrackedRun, "paused_until", 0.0)
        patch.setenv("HOME", str(path))
        ledger = attempted(path, tracked(server.url, media=True, artifacts=True))
        assert status(ledger) == "done" and unsent(path) == []
        yield server, server.runs[TRIAL.hash], path


def test_a_run_is_named_grouped_and_tagged(sent):
    _, run, _ = sent
    fields = run.fields
    assert (fields["name"], fields["displayName"]) == (TRIAL.hash, TRIAL.name)
    assert (fields["groupName"], fields["jobType"]) == ("grid", "train")
    assert fields["project"] == "lesion-seed-sweep"
    assert fields["tags"] == ["toy", "xent", "seed-1", "fold-0"]
    assert run.config["learning_rate"] == 3e-3 and run.config["filters"] == [8, 16]
    assert (run.config["loss"], run.config["seed"], run.config["hash"]) == ("xent", 1, TRIAL.hash)
    assert run.config["fingerprint"] == "f" * 64 and run.config["num_folds"] == 2


def test_every_step_arrives_once_with_the_ledgers_numbers(sent):
    _, run, path = sent
    assert run.steps == [0, 1, 2]
    sweep_rows = results.rates(
        last := _rows(path, "cases.parquet").query("epoch == 2 and split == 'test'")
    )
    step = run.history[-1]
    assert step["test/image/dice"] == pytest.approx(sweep_rows.dice.mean())
    assert step["test/image/dice_cases"] == len(last)
    epochs = _rows(path, "epochs.parquet")
    for key, column in {"train_loss": "train_loss", "grad_norm": "grad_norm"}.items():
        assert [row.get(key) for row in run.history[1:]] == pytest.approx(list(epochs[column][1:]))
        assert key not in run.history[0]
    assert step["seconds/train"] == pytest.approx(epochs.seconds_train.iloc[-1])


def test_the_end_arrives_with_summary_table_pictures_and_model(sent):
    server, run, path = sent
    assert run.complete and run.exit_code == 0
    assert run.summary["status"] == "done" and run.summary["epochs_done"] == 2
    assert run.summary["cases"]["nrows"] == 4
    assert {artifact["artifactCollectionName"] for artifact in run.artifacts} == {
        f"run-{TRIAL.hash}-cases",
        f"model-{TRIAL.hash}",
    }
    model = (path / "trials" / TRIAL.name / "model.pt").read_bytes()
    assert model in server.blobs.values()
    pictures = [name for name in run.files if name.endswith(".png")]
    assert len(pictures) == 2 and all(run.files[name].startswith(b"\x89PNG") for name in pictures)


def test_nothing_about_the_machine_its_user_or_its_code_is_sent(sent):
    server, run, _ = sent
    body = bytes(server.received)
    for word in (socket.gethostname(), str(Path(__file__).parents[2]), sys.executable):
        assert word.encode() not in body or len(word) < 4
    assert set(run.files) - {name for name in run.files if name.startswith("media/")} <= {
        "config.yaml",
        "wandb-summary.json",
    }
    assert not any("otel" in name for name in server.requests)


def test_the_key_is_in_no_file_and_no_message(sent):
    server, _, path = sent
    assert KEY.encode() not in bytes(server.received)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


def test_the_key_is_on_no_command_line_and_in_no_environment(tmp_path):
    with Server() as server:
        run = live_run.open_run(
            tracked(server.url),
            live_run.identity(described(TRIAL), tracked("")),
            tmp_path,
        )
        seen = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True).stdout
        assert b"wandb-core" in seen and KEY.encode() not in seen
        assert KEY not in os.environ.values()
        run.finish()
        live_run.close_service()


def _rows(path, table):
    import pandas as pd

    return pd.read_parquet(path / "trials" / TRIAL.name / table)


# ---------------------------------------------------------------------------------- starting again
@pytest.mark.parametrize("arrived", [0, 1, 2])
def test_a_restarted_trial_goes_on_where_the_server_stopped(tmp_path, monkeypatch, arrived):
    """The first attempt trains epochs 0 and 1; the server got ``arrived`` of them."""
    monkeypatch.setattr(live_run, "LEAST_SECONDS", 60.0)
    numbers = {epoch: {"epoch": epoch, "x": 0.5 + epoch} for epoch in range(3)}
    trial = described(TRIAL)
    with Server() as server:
        first = TrackedRun(tracked(server.url), trial)
        for epoch in range(arrived):
            first.log(epoch, numbers[epoch])
        first.finish(lambda: live_run.RunEnding(), failed=True)
        again = TrackedRun(tracked(server.url), trial, {0: numbers[0], 1: numbers[1]})
        again.log(2, numbers[2])
        again.finish(lambda: live_run.RunEnding(summary={"status": "done"}), failed=False)
        run = server.runs[TRIAL.hash]
    assert run.steps == [0, 1, 2]
    assert [row["x"] for row in run.history] == [0.5, 1.5, 2.5]
    assert run.exit_code == 0 and run.summary["status"] == "done"
    assert run.fields["tags"] == ["toy", "xent", "seed-1", "fold-0"]


def test_an_attempt_that_cannot_go_on_leaves_its_run_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(live_run, "LEAST_SECONDS", 60.0)
    (tmp_path / "lost.py").write_text(
        "from sweeps.ledger.ledger import NotTheTrialsFault\n"
        "def run(*a, **k): raise NotTheTrialsFault('the disk is gone')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with Server() as server:
        with pytest.raises(NotTheTrialsFault):
            attempted(tmp_path / "r", tracked(server.url), run="lost:run")
        (left,) = [thread for thread in threading.enumerate() if thread.name == "wandb"]
        left.join(60)
        assert not left.is_alive()
        attempted(tmp_path / "r", tracked(server.url))
        run = server.runs[TRIAL.hash]
    assert run.steps == [0, 1, 2] and run.exit_code == 0


def test_a_failed_trial_tells_why(tmp_path, monkeypatch):
    monkeypatch.setattr(live_run, "LEAST_SECONDS", 60.0)
    with Server() as server:
        (tmp_path / "fails.py").write_text("def run(*a, **k): raise KeyError('anna')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        ledger = attempted(tmp_path / "r", tracked(server.url), run="fails:run")
        run = server.runs[TRIAL.hash]
    assert status(ledger) == "failed" and run.exit_code == 1
    assert run.summary["status"] == "failed" and "anna" in run.summary["error"]


# -------------------------------------------------------------------------------- when it is down
@contextlib.contextmanager
def black_hole():
    """Accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield url


@contextlib.contextmanager
def answering(**how):
    with Server(**how) as server:
        yield server.url


@pytest.mark.parametrize(
    "endpoint",
    [
        closed_port,
        black_hole,
        lambda: answering(status=500),
        lambda: answering(status=403),
        lambda: answering(seconds=3600),
    ],
    ids=["closed port", "black hole", "error 500", "full or forbidden", "too slow"],
)
def test_w_and_b_down_costs_a_trial_a_bounded_wait_and_the_ledger_nothing(
    tmp_path, monkeypatch, endpoint
):
    monkeypatch.setattr(live_run, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(live_run, "MOST_SECONDS", 1.0)  # however long this machine takes to train
    waits = []
    join = threading.Thread.join

    def joined(thread, timeout=None):
        if thread.name == "wandb":
            waits.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", joined)
    with endpoint() as url:
        ledger = attempted(tmp_path, tracked(url))
        later = replace(TRIAL, seed=2)
        attempted(tmp_path, tracked(url), later)
    assert status(ledger) == status(ledger, later) == "done"
    assert waits == [1.0]  # the second trial did not even try
    assert len(unsent(tmp_path)) == 1
    log = (tmp_path / "trials" / TRIAL.name / "log.txt").read_text()
    assert log.count("W&B: ") == 1 and "the trial goes on without it" in log
    assert results.trial_status(tmp_path / "trials" / TRIAL.name)["status"] == "done"


def test_a_server_that_fails_midway_is_given_up_after_a_few_tries(tmp_path, monkeypatch):
    """Bounded retries: `finish` itself ends, although nothing more arrives."""
    other = described(replace(TRIAL, seed=3))
    with Server() as server:
        run = live_run.open_run(
            tracked(server.url), live_run.identity(other, tracked("")), tmp_path
        )
        run.log({"x": 1.0}, step=0)
        server.status = 500
        run.log({"x": 2.0}, step=1)
        closing = threading.Thread(target=run.finish, daemon=True)
        closing.start()
        closing.join(300)
        assert not closing.is_alive()
        live_run.close_service()
    assert server.runs[other["hash"]].exit_code is None


def test_a_process_that_tracked_ends_soon_although_w_and_b_hangs(tmp_path):
    """wandb waits for its own processes when Python ends; its telemetry would wait longer."""
    code = (
        "import sys; from sweeps.tracking import live_run\n"
        "from sweeps.tracking.policy import Tracking\n"
        "live_run.SECONDS_TO_CONNECT = 2; live_run.LEAST_SECONDS = 0.5\n"
        f"tracking = Tracking(mode='online', group='g', url=sys.argv[1], key='{KEY}')\n"
        f"run = live_run.TrackedRun(tracking, {described(TRIAL)!r})\n"
        "print(run.finish(lambda: live_run.RunEnding(), failed=False))\n"
    )
    with black_hole() as url:
        done = subprocess.run(
            [sys.executable, "-c", code, url], cwd=ROOT, timeout=300, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
    assert "unsent" in done.stdout and "Traceback" not in done.stderr
