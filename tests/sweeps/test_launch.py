"""Trials on a local Ray: killed, failing, diverging, resumed; one Ray for all tests here."""

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import ray
import torch
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError

from lesion_core import results, stopping
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps.distributed import connect, ledger_actor, tune
from sweeps.distributed.cluster import connected
from sweeps.ledger.contents import described
from sweeps.ledger.ledger import Ledger, LedgerError, NotTheTrialsFault
from sweeps.ledger.lock import Lock
from sweeps.options import Machines
from sweeps.tracking import upload
from sweeps.tracking.policy import Tracking
from sweeps.trials import attempt
from sweeps.trials.supply import FixedSupply
from tests.support import offline_runs
from tests.support.toy import toy_cohort
from tests.support.wandb_server import Server

SETTINGS = TrainSettings(epochs=3, patch_size=16, batch_size=4, filters=(8, 16), learning_rate=3e-3)
DISABLED = Tracking(mode="disabled", group="test")

STAND_IN = '''
"""Trains like lesion_core.trial.run, but what happens after epoch 1 depends on the seed."""
import os, signal, sys, time
from pathlib import Path
import torch
from lesion_core import trial as real
from lesion_core.training.epoch import Diverged
from sweeps.tracking import live_run

HERE = Path(__file__).parent
live_run.LEAST_SECONDS = live_run.MOST_SECONDS  # a machine that tests keep busy is slow

def run(trial, cohort, *, on_epoch, **arguments):
    print("process", os.getpid(), flush=True)
    if trial.seed == 7 and not (HERE / "fast").exists():
        asked = arguments["stop"]  # between batches
        arguments["stop"] = lambda: time.sleep(0.4) or asked()

    def after(report):
        on_epoch(report)
        if trial.seed == 4 and report.epoch > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if report.epoch != 1:
            return
        if trial.seed == 1:
            raise KeyError("no such\\nthing")
        if trial.seed == 2:
            raise Diverged(2, 7, float("nan"))
        once = HERE / f"killed-{trial.name}"
        if trial.seed == 3 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.seed == 5:
            print("said on stdout")
            print("said on stderr", file=sys.stderr, flush=True)
            sys.exit("a loss that exits")
        if trial.seed == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return real.run(trial, cohort, on_epoch=after, **arguments)
'''

PLAIN, BREAKS, DIVERGES, KILLED_ONCE, KILLED_ALWAYS, EXITS, FILLS_THE_GPU, SLOW = range(8)


def trial(seed, **changes):
    fields = {
        "cohort": "toy",
        "fingerprint": "f" * 64,
        "loss": LOSSES["xent"],
        "seed": seed,
        "fold": 0,
        "num_folds": 2,
        "settings": SETTINGS,
    }
    return Trial(**(fields | changes))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray of this machine whose workers find the stand-in."""
    modules = tmp_path_factory.mktemp("modules")
    (modules / "stand_in.py").write_text(STAND_IN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(modules))
        patch.setenv("RAY_worker_niceness", "0")  # tests wait for them
        with connected(Machines(retries=1)) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def swept(cluster, tmp_path_factory):
    """Results of one sweep in which everything happens."""
    path = tmp_path_factory.mktemp("swept")
    trials = [trial(seed) for seed in range(7)]
    trials.append(trial(PLAIN, loss=LOSSES["dsc"]))
    with Lock(path, "test") as lock:
        cluster.run(
            FixedSupply(trials),
            {"toy": toy_cohort()},
            path,
            token=lock.token,
            tracking=DISABLED,
            run="stand_in:run",
        )
    return Ledger(path)


def alone(path, a_trial, **arguments):
    """The same trial without Ray; returns its ledger."""
    ledger = Ledger(path)
    attempt.attempt(
        described(a_trial), toy_cohort, ledger, device="cpu", threads=1, tracking=DISABLED,
        **arguments,
    )  # fmt: skip
    return ledger


def state(ledger, a_trial):
    return ledger.states([a_trial.name])[a_trial.name]


def file(ledger, a_trial, name):
    return ledger.path / "trials" / a_trial.name / name


def assert_same_bits(ours, theirs, a_trial):
    for table in results.TABLES:
        one, other = (pd.read_parquet(file(ledger, a_trial, table)) for ledger in (ours, theirs))
        clocks = [column for column in one if column.startswith("seconds")]
        pd.testing.assert_frame_equal(
            one.drop(columns=clocks), other.drop(columns=clocks), check_exact=True
        )
    one, other = (torch.load(file(ledger, a_trial, "model.pt")) for ledger in (ours, theirs))
    assert one["weights"].keys() == other["weights"].keys()
    assert all(one["weights"][key].equal(other["weights"][key]) for key in one["weights"])


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone")
    alone(path, trial(PLAIN))
    return alone(path, trial(KILLED_ONCE))


def test_a_sweep_equals_the_trial_alone_bit_for_bit(swept, lone):
    assert_same_bits(swept, lone, trial(PLAIN))


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(swept, lone):
    a_trial = trial(KILLED_ONCE)
    assert state(swept, a_trial)["status"] == "done"
    assert json.loads(file(swept, a_trial, "done.json").read_text())["attempts"] == 2
    assert "attempt 2, after epoch 1" in file(swept, a_trial, "log.txt").read_text()
    assert_same_bits(swept, lone, a_trial)


def test_the_others_go_on(swept):
    assert state(swept, trial(PLAIN))["status"] == "done"
    assert state(swept, trial(PLAIN, loss=LOSSES["dsc"]))["status"] == "done"


def test_an_error_of_its_own_fails_a_trial_once_with_reason_and_traceback(swept):
    failed = json.loads(file(swept, trial(BREAKS), "failed.json").read_text())
    assert failed["kind"] == "error"
    assert failed["error"].startswith("KeyError:") and "\n" not in failed["error"]
    assert 'raise KeyError("no such' in failed["traceback"]
    assert (failed["epoch"], failed["attempts"]) == (2, 1)
    assert "Traceback" in (swept.path / failed["log"]).read_text()
    assert not file(swept, trial(BREAKS), "done.json").exists()


def test_a_full_gpu_is_the_trials_own_fault_and_the_hint_says_what_needs_less(swept):
    failed = json.loads(file(swept, trial(FILLS_THE_GPU), "failed.json").read_text())
    assert failed["error"].startswith("OutOfMemoryError: CUDA out of memory.")
    assert "--gpus-per-trial 1" in failed["error"] and "--batch-size" in failed["error"]
    assert (failed["kind"], failed["attempts"]) == ("error", 1)


@pytest.mark.parametrize("how", ["all of it", "a file so far"])
def test_a_worker_without_its_folder_is_to_blame_not_the_trial(tmp_path, monkeypatch, how):
    """Ray, or whatever cleans /tmp, may delete it; whatever fails then says nothing of the loss."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone" / "went_with_it.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "gone"))
    importlib.import_module("went_with_it")
    (tmp_path / "gone" / "went_with_it.py").unlink()
    if how == "all of it":
        shutil.rmtree(tmp_path / "gone")
    with pytest.raises(attempt.NotTheTrialsFault, match="code was deleted"):
        alone(tmp_path / "results", trial(PLAIN), run="no_such_module:run")
    del sys.modules["went_with_it"]
    assert state(Ledger(tmp_path / "results"), trial(PLAIN))["status"] == "partial"


def test_divergence_is_told_apart(swept):
    assert state(swept, trial(DIVERGES))["status"] == "diverged"
    failed = json.loads(file(swept, trial(DIVERGES), "failed.json").read_text())
    assert failed["error"] == "loss became nan in epoch 2, batch 7"
    assert (failed["epoch"], failed["batch"], failed["attempts"]) == (2, 7, 1)


def test_losing_the_worker_too_often_fails_a_trial_but_is_not_its_fault(swept):
    failed = json.loads(file(swept, trial(KILLED_ALWAYS), "failed.json").read_text())
    assert failed["kind"] == "infrastructure" and "failed 2 times" in failed["error"]
    assert swept.left_to_run([trial(KILLED_ALWAYS).name]) == [trial(KILLED_ALWAYS).name]


def test_what_a_trial_prints_is_in_its_log_and_exiting_is_a_failure(swept):
    log = file(swept, trial(EXITS), "log.txt").read_text()
    assert "said on stdout" in log and "said on stderr" in log
    assert "epoch 1/3: loss" in log
    assert state(swept, trial(EXITS))["error"] == "SystemExit: a loss that exits"
    assert "said" not in file(swept, trial(PLAIN), "log.txt").read_text()


def test_tunes_own_files_are_gone_and_ray_speaks_in_a_file(swept):
    left = {path.name for path in swept.path.iterdir()}
    assert left == {"trials", "ray.log", "checksums.log"}
    assert "died" in (swept.path / "ray.log").read_text()


def test_fewer_checkpoints_cost_epochs_but_no_bit(cluster, lone, tmp_path):
    """Killed after epoch 1 with checkpoints of every second, it goes on after epoch 0."""
    seldom = replace(cluster, machines=replace(cluster.machines, checkpoint_every=2))
    a_trial = trial(KILLED_ONCE, loss=LOSSES["gdsc"])
    seldom.run(
        FixedSupply([a_trial]), {"toy": toy_cohort()}, tmp_path, token=None,
        tracking=DISABLED, run="stand_in:run",
    )  # fmt: skip
    ledger = Ledger(tmp_path)
    assert "attempt 2, after epoch 0" in file(ledger, a_trial, "log.txt").read_text()
    alone(lone.path, a_trial)
    assert_same_bits(ledger, lone, a_trial)


def test_images_larger_than_the_object_store_are_refused_before_anything_runs(cluster):
    small = replace(cluster, nodes=[replace(node, store_bytes=1e5) for node in cluster.nodes])
    with pytest.raises(ValueError, match=r"(?s)not every machine is fit.*object store .*0.0001 GB"):
        small.check({"toy": toy_cohort()})
    cluster.check({"toy": toy_cohort()})


def test_tune_forgets_trials_that_have_ended(cluster, tmp_path, monkeypatch):
    """Or a sweep of 10,000 trials fills the driver's memory."""
    seen = []
    forget = tune.drop_ended

    def counting(controller, over):
        forget(controller, over)
        seen.append(len(controller.get_trials()))

    monkeypatch.setattr(tune, "drop_ended", counting)
    short = replace(SETTINGS, epochs=1)
    trials = [trial(20 + seed, settings=short) for seed in range(12)]
    cluster.run(
        FixedSupply(trials), {"toy": toy_cohort()}, tmp_path, token=None, tracking=DISABLED,
        run="sweeps.bench.sweep:nothing",
    )  # fmt: skip
    assert len(seen) == 12
    assert max(seen) <= 2 * cluster.slots + 2  # running, waiting, and what just ended


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (NotTheTrialsFault("the images\ncannot be fetched"), "the images cannot be fetched"),
        (KeyError("x"), "KeyError: 'x'"),
        (None, "its worker process died"),
    ],
)
def test_the_last_reason_of_a_trial_that_lost_its_workers_is_said(tmp_path, cause, words):
    """Tune pickles what a task raised; of a process that died, what Ray says of its actor."""
    error = (
        RayActorError() if cause is None else RayTaskError("train", "\x1b[36mf()\x1b[39m", cause)
    )
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))
    said, where = tune.last_error(SimpleNamespace(pickled_error_file=tmp_path / "error.pkl"))
    assert said == words and "\x1b" not in where
    assert tune.last_error(SimpleNamespace(pickled_error_file=None))[0] == "its worker process died"


class OneAfterTheOther:
    """Decides on the next trial when the last one ended, as a search does."""

    def __init__(self, seeds):
        self.epochs, self.seen = {}, []
        self._seeds, self._waits = list(seeds), False

    def take(self):
        if self._waits or not self._seeds:
            return None
        chosen = described(trial(self._seeds.pop(0)))
        self.epochs[chosen["name"]] = chosen["epochs"]
        self._waits = True
        return chosen

    @property
    def finished(self):
        return not self._seeds

    def ended(self, name):
        self.seen.append(name)
        self._waits = False

    def progress_note(self):
        return f"{len(self.seen)} seen"

    def to_give_up(self, curves):
        return []

    def set_slots(self, slots):
        pass


def test_the_death_of_an_idle_worker_is_one_loss_not_all(cluster, tmp_path):
    """Tune reports a worker twice that dies while it waits for its next trial."""

    class KillsTheIdle(FixedSupply):
        killed = 0

        def ended(self, name):
            if not self.killed:
                log = file(Ledger(tmp_path / "swept"), done[name], "log.txt").read_text()
                self.killed = int(log.split("process ")[1].split()[0])
                os.kill(self.killed, signal.SIGKILL)

    done = {each.name: each for each in (trial(40 + seed) for seed in range(6))}
    supply = KillsTheIdle(list(done.values()))
    cluster.run(
        supply, {"toy": toy_cohort()}, tmp_path / "swept", token=None, tracking=DISABLED,
        run="stand_in:run",
    )  # fmt: skip
    assert supply.killed
    states = Ledger(tmp_path / "swept").states(list(done))
    assert {state["status"] for state in states.values()} == {"done"}


def test_what_failed_by_itself_is_not_tried_again_by_the_same_driver(tmp_path):
    """Its worker may die before Tune hears of it."""
    ledger = ledger_actor.LedgerActor(tmp_path, None)
    broken = described(trial(BREAKS))
    begun = ledger.begin(broken)
    ledger.failed(broken, {"kind": "error", "error": "KeyError: 1"}, begun["attempt"])
    assert ledger.begin(broken) == {"state": "failed"}
    assert state(ledger, trial(BREAKS))["status"] == "failed"
    assert Ledger(tmp_path).begin(broken)["state"] == "go"  # another driver, --retry-failed


def test_a_trial_that_is_given_up_has_ended_unless_everything_stops(tmp_path):
    ledger = ledger_actor.LedgerActor(tmp_path, None)
    given_up, other = described(trial(60)), described(trial(61))
    for each in (given_up, other):
        ledger.begin(each)
    ledger.give_up(given_up["name"])
    assert ledger.is_stopping(given_up["name"]) and not ledger.is_stopping(other["name"])
    assert ledger.stopped(given_up["name"])
    ledger.stop()
    assert not ledger.stopped(other["name"])
    now = ledger.snapshot()
    assert (now["given_up"], now["running"]) == ([given_up["name"]], {})


def test_a_search_can_wait_for_what_has_ended(cluster, tmp_path, capsys):
    """Failures count as ended too, also where the worker was lost too often."""
    supply = OneAfterTheOther([10, BREAKS, KILLED_ALWAYS, 11])
    cluster.run(
        supply, {"toy": toy_cohort()}, tmp_path, token=None, tracking=DISABLED, run="stand_in:run"
    )
    assert supply.seen == list(supply.epochs) and len(supply.seen) == 4
    states = Ledger(tmp_path).states(supply.seen)
    assert [state["status"] for state in states.values()] == ["done", "failed", "failed", "done"]
    assert "(2/4 done, 2 failed" in capsys.readouterr().out


class CannotWrite(OneAfterTheOther):
    """A search that finds its folder taken over when it wants to write down what it learned."""

    def ended(self, name):
        raise LedgerError("another process has taken over this folder")


def test_what_a_search_raises_comes_out_as_it_is(cluster, tmp_path):
    with pytest.raises(LedgerError, match="taken over"):
        cluster.run(
            CannotWrite([12]), {"toy": toy_cohort()}, tmp_path, token=None, tracking=DISABLED
        )


def test_a_killed_trials_run_goes_on_online_and_the_key_is_in_no_file(cluster, tmp_path):
    """Ray's own files included: it keeps what it is given for every user of the cluster to see."""
    key = "5ec7e7" + "0123456789abcdef" * 2 + "01"
    a_trial = trial(KILLED_ONCE, settings=replace(SETTINGS, epochs=2, learning_rate=2e-3))
    with Server() as server:
        decided = Tracking(mode="online", group="sweep", url=server.url, key=key)
        cluster.run(
            FixedSupply([a_trial]), {"toy": toy_cohort()}, tmp_path,
            token=None, tracking=decided, run="stand_in:run",
        )  # fmt: skip
        run = server.runs[a_trial.hash]
    assert state(Ledger(tmp_path), a_trial)["status"] == "done"
    late = list(tmp_path.glob("wandb/unsent-*"))  # the wait at the end is bounded
    assert run.steps == [0, 1, 2][: len(run.steps)]
    assert late or (run.steps == [0, 1, 2] and run.exit_code == 0)
    logs = Path(ray._private.worker._global_node.get_session_dir_path())
    for place in (tmp_path, logs):
        files = [file for file in place.rglob("*") if file.is_file()]
        assert files and not [file for file in files if key.encode() in file.read_bytes()]
    assert key.encode() not in bytes(server.received)


def test_offline_runs_come_home_with_every_epoch(cluster, tmp_path, capfd):
    a_trial = trial(KILLED_ONCE, settings=replace(SETTINGS, epochs=2))
    tracking = Tracking(mode="offline", group="sweep")
    cluster.run(
        FixedSupply([a_trial]), {"toy": toy_cohort()}, tmp_path, token=None,
        tracking=tracking, run="stand_in:run",
    )  # fmt: skip
    terminal = capfd.readouterr()
    *before, last = terminal.out.splitlines()
    assert last.startswith("done    toy-xent")
    assert all("1 running" in line for line in before)  # progress, where it takes long
    assert terminal.err == ""
    late = list(tmp_path.glob("wandb/unsent-*"))  # a trial's wait for W&B is bounded, and said
    assert bool(late) == ("W&B: " in file(Ledger(tmp_path), a_trial, "log.txt").read_text())
    assert upload.write_missed(tmp_path, tracking) is None  # as a sweep does at its end
    (home,) = (tmp_path / "wandb").iterdir()
    assert home.name.startswith("offline-run-") and home.name.endswith(a_trial.hash)
    assert (home / f"run-{a_trial.hash}.wandb").stat().st_size > 0
    assert offline_runs.steps(home / f"run-{a_trial.hash}.wandb") == [0, 1, 2]
    assert offline_runs.exit_code(home / f"run-{a_trial.hash}.wandb") == 0


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        ({"cpus_per_trial": 10_000}, "a trial needs 10000 CPUs and 0 GPUs; no machine has that"),
        ({"gpus_per_trial": 1.0}, "no machine has that"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused(cluster, machines, words):
    if machines.get("gpus_per_trial") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=words), connected(Machines(**machines)):
        pass


def test_user_modules_are_staged_for_a_cluster(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text("import my_helpers\n")
    (tmp_path / "my_helpers.py").write_text("")
    (tmp_path / "large.bin").write_text("not this")
    package = tmp_path / "my_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/losses.py", "weights.bin"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(connect.tempfile, "tempdir", str(tmp_path))
    staged = connect.stage(["my_losses", "my_package.inner.losses", "torch"])
    found = {path.relative_to(staged).as_posix() for path in staged.rglob("*.py")}
    assert {"my_losses.py", "my_helpers.py", "my_package/inner/losses.py"} <= found
    assert {"lesion_core/trial.py", "sweeps/distributed/worker.py"} <= found
    names = {path.name for path in staged.rglob("*")}
    assert not {"large.bin", "weights.bin", "torch", "__pycache__"} & names


def test_an_address_where_nothing_answers_is_one_line():
    with pytest.raises(ValueError, match=r"--address 127\.0\.0\.1:1: nothing answers there"):
        connect.check_address("127.0.0.1:1")
    with pytest.raises(ValueError, match="expected auto or host:port"):
        connect.check_address("somewhere")


@pytest.mark.parametrize("gpus", [2.0, 0.3, 1.5, -1.0])
def test_shares_of_a_gpu_must_be_equal(gpus):
    with pytest.raises(ValueError, match=r"expected 0, 1 or 1/n"):
        Machines(gpus_per_trial=gpus)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, and a way to make that larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_stops_the_sweep_with_one_line_and_room_lets_it_go_on(
    cluster, small_disk, capsys
):
    place, enlarge = small_disk
    trials = [trial(seed, loss=LOSSES["focal1"]) for seed in range(30, 330)]

    def sweep(some):
        cluster.run(FixedSupply(some), {"toy": toy_cohort()}, place, token=None, tracking=DISABLED)

    with pytest.raises(LedgerError, match="No space left on device") as caught:
        sweep(trials)  # so many that it is stopped in the middle
    del trials[4:]
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)
    names = [trial.name for trial in trials]
    before = Ledger(place).states(names)
    assert {state["status"] for state in before.values()} <= {"done", "partial", "missing"}
    enlarge()
    sweep(trials)
    assert Ledger(place).left_to_run(names) == []


def test_a_signal_leaves_checkpoints_within_epochs_and_costs_no_bit(
    cluster, lone, tmp_path, monkeypatch, capsys
):
    """Which workers hear of through the ledger's actor."""
    monkeypatch.setattr(stopping, "_state", stopping._State())
    handlers = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    slow = trial(SLOW)

    def sweep():
        cluster.run(
            FixedSupply([slow]), {"toy": toy_cohort()}, tmp_path, token=None, tracking=DISABLED,
            run="stand_in:run",
        )  # fmt: skip

    def stop_it():
        while not file(Ledger(tmp_path), slow, "checkpoint.pt").exists():
            time.sleep(0.1)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping.catch()
    try:
        threading.Thread(target=stop_it, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            sweep()
    finally:
        monkeypatch.setattr(stopping, "_state", stopping._State(ending=True))
        for number, handler in handlers.items():
            signal.signal(number, handler)
    gc.collect()  # with what Tune leaves behind goes its worker
    assert "stopping: running trials leave a checkpoint" in capsys.readouterr().out
    log = file(Ledger(tmp_path), slow, "log.txt")
    assert "stopped after epoch" in log.read_text()
    (Path(os.environ["PYTHONPATH"]) / "fast").touch()
    sweep()
    assert "attempt 2, after epoch" in log.read_text()
    alone(lone.path, slow)
    assert_same_bits(Ledger(tmp_path), lone, slow)


def test_a_folder_that_is_taken_over_stops_the_sweep_with_one_line(cluster, tmp_path):
    """The last one here: what it stops in the middle goes with Ray, after this module."""
    trials = FixedSupply([trial(seed) for seed in (PLAIN, 10, 11)])
    with pytest.raises(LedgerError, match="taken over"):
        cluster.run(trials, {"toy": toy_cohort()}, tmp_path, token="another", tracking=DISABLED)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------- who can reach it
def test_a_ray_of_this_machine_alone_listens_on_the_loopback_address(cluster):
    """Addresses in /proc/net as the kernel writes them: 127.0.0.1, also as an IPv6 one."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(stat[1])
    ours = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    sockets = set()
    for process in ours:
        with contextlib.suppress(OSError):
            for each in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(str(each.readlink()))
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening[fields[1]] = fields[1].partition(":")[0]
    assert len(listening) > 3
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening.values()) <= loopback


def test_a_busy_machine_is_given_time_to_start_ray(monkeypatch):
    tried = []

    def third_time():
        tried.append("once")
        if len(tried) < 3:
            raise Exception("The current node timed out during startup.")

    connect._until_started(third_time)
    assert len(tried) == 3
    tried.clear()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stopping, "is_asked", lambda: True)
        connect._until_started(third_time)
    tried.clear()
    monkeypatch.setattr(connect, "SECONDS_TO_START", -1)
    with pytest.raises(Exception, match="timed out during startup"):
        connect._until_started(third_time)
    assert len(tried) == 1


def test_nobody_else_may_read_rays_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / ".ray/auth_token"
    connect.keep_token_private()
    assert not token.exists()
    connect.keep_token_private(make=True)
    assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text()) == 64
    before = token.read_text()
    token.chmod(0o644)
    connect.keep_token_private(make=True)
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() == before
