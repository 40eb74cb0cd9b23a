"""A disk that fails at any step, or loses its power: nothing finished is lost, nothing half read.

The sweep here is small, its training made up; what it does to the disk is real.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lesion_core import results
from sweeps.bench.fake_sweep import description
from sweeps.ledger import lock
from sweeps.ledger.ledger import Ledger, LedgerError
from sweeps.ledger.lock import Lock
from sweeps.verify import verify
from tests.support.faulty_disk import Disk, PowerCut, Recording, write_tree
from tests.sweeps.test_ledger import asked

EPOCHS = 2
TRIALS = [description("toy", "xent", seed, 0, EPOCHS) for seed in (1, 2)]
ROWS = [{key: value for key, value in each.items() if key != "config"} for each in TRIALS]
REQUEST = asked(trials=ROWS, settings=TRIALS[0]["config"]["settings"])
COHORT = dict.fromkeys(results.COHORT_CASES.names) | {"cohort": "toy", "case": "a"}
SLICE = dict.fromkeys(results.COHORT_SLICES.names) | {"cohort": "toy", "case": "a"}


def report(trial, epoch, before):
    """Like weights, ``before`` is all that an epoch depends on."""
    identity = {key: trial[key] for key in ("cohort", "loss", "seed", "fold")}
    identity |= {"trial": trial["name"]}
    state = f"{before}>{epoch}"
    case = dict.fromkeys(results.CASES.names) | identity
    case |= {"epoch": epoch, "split": "test", "scope": "image", "case": "a", "tp": len(state)}
    clock = dict.fromkeys(results.EPOCHS.names) | identity
    clock |= {"epoch": epoch, "seconds_train": 2.0, "seconds_evaluate": 1.0}
    final = {"lesions": [], "histograms": [], "slices": [], "model": state.encode()}
    return {
        "epoch": epoch,
        "cases": [case],
        "epochs": clock,
        "checkpoint": json.dumps({"epoch": epoch, "state": state}).encode(),
        "final": final if epoch == EPOCHS else None,
    }


def sweep(root):
    """A driver: takes the lock, says what is asked, trains what is left; returns whom."""
    trained = []
    with Lock(root, "sweep") as held:
        ledger = Ledger(root, held.token)
        ledger.write_request(REQUEST)
        ledger.write_cohort("toy", [COHORT], [SLICE])
        for trial in TRIALS:
            name = trial["name"]
            if not ledger.left_to_run([name]):
                continue
            begun = ledger.begin(trial)
            if begun["state"] != "go":
                continue
            trained.append(name)
            ledger.log(name, f"attempt {begun['attempt']}\n")
            state, first = "", 0
            if begun["checkpoint"] is not None:
                found = json.loads(begun["checkpoint"])
                assert found["epoch"] == begun["epoch"]
                state, first = found["state"], found["epoch"] + 1
            for epoch in range(first, EPOCHS + 1):
                made = report(trial, epoch, state)
                ledger.epoch(name, made, begun["attempt"])
                state = json.loads(made["checkpoint"])["state"]
            summary = {"epochs_done": EPOCHS, "seconds": 1.0, "host": "here", "device": "cpu"}
            summary |= {"fingerprint": trial["config"]["fingerprint"]}
            ledger.done(name, summary, begun["attempt"])
        ledger.drop_leftovers()
        ledger.note_logs()
    return trained


def digest(root):
    """All that a sweep's outcome is, without times, attempts and what was recorded on the way."""
    found = {}
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root).as_posix()
        if not file.is_file() or name in ("checksums.log",) or file.name == "log.txt":
            continue
        if file.suffix == ".parquet":
            found[name] = pq.read_table(file).to_pylist()
        elif file.suffix == ".json":
            content = json.loads(file.read_text())
            for passing in ("created", "updated", "attempts"):
                content.pop(passing, None)
            found[name] = content
        else:
            found[name] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a sweep ends in, how many steps it takes, and what a power cut after each leaves."""
    root = tmp_path_factory.mktemp("undisturbed") / "results"
    root.mkdir()
    recording = Recording(root)
    with Disk(root, on_step=recording.on_step).between() as disk:
        sweep(root)
    recording.close()
    return digest(root), disk.steps, recording


def assert_goes_on(root, whole, finished):
    """What is there can be read, and the same command ends where an undisturbed one does."""
    states = Ledger(root).states([each["name"] for each in TRIALS])
    for name, state in states.items():
        assert state["status"] in ("done", "partial", "missing"), state
        assert name not in finished or state["status"] == "done", f"{name} was lost"
    done = {name for name, state in states.items() if state["status"] == "done"}
    with Disk(root).between():
        trained = sweep(root)
    assert not done & set(trained), "what was finished was trained again"
    assert digest(root) == whole
    found = verify(root)
    assert found.whole and not found.damaged, found


def told_finished(root):
    """Trials that are done for whoever looks."""
    states = Ledger(root).states([each["name"] for each in TRIALS])
    return {name for name, state in states.items() if state["status"] == "done"}


def fail_at(number, how, root, whole):
    root.mkdir()
    with Disk(root, at=number, how=how).between():
        try:
            sweep(root)
        except (LedgerError, ValueError, PowerCut) as error:
            assert "\n" not in str(error)
        except OSError:
            pytest.fail(f"step {number}: the disk's error came through as it is")
    if how == "killed":
        for held in root.glob(f"{lock.NAME}*"):  # void, were this process dead
            held.unlink()
    assert_goes_on(root, whole, told_finished(root))
    shutil.rmtree(root)


HOWS = ("EIO", "ENOSPC", "short", "killed")


@pytest.mark.parametrize("how", HOWS)
def test_a_disk_that_fails_at_some_step_costs_no_bit(undisturbed, tmp_path, how):
    whole, steps, _ = undisturbed
    for number in range(HOWS.index(how), len(steps), 29):
        fail_at(number, how, tmp_path / str(number), whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_disk_that_fails_at_any_step_costs_no_bit(undisturbed, tmp_path, how):
    whole, steps, _ = undisturbed
    for number in range(len(steps)):
        fail_at(number, how, tmp_path / str(number), whole)


def cut_after(undisturbed, tmp_path, numbers):
    whole, _, recording = undisturbed
    for trees in (recording.lazy, recording.eager):
        finished = set()
        for number, tree in enumerate(trees):
            markers = {Path(name).parent.name for name in tree if name.endswith("/done.json")}
            # Once it was seen under its name on a disk that had lost its power, it is for ever.
            finished |= markers
            if number in numbers:
                root = tmp_path / f"{number}"
                write_tree(tree, root)
                assert_goes_on(root, whole, finished)
                shutil.rmtree(root)
        assert len(finished) == len(TRIALS)


@pytest.fixture
def impatient(monkeypatch):
    """An empty lock file is not waited for."""
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("impatient")
def test_a_power_cut_after_some_step_loses_nothing_that_was_finished(undisturbed, tmp_path):
    cut_after(undisturbed, tmp_path, range(5, len(undisturbed[1]), 37))


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_power_cut_after_any_step_loses_nothing_that_was_finished(undisturbed, tmp_path):
    cut_after(undisturbed, tmp_path, range(len(undisturbed[1])))


def test_what_done_returned_of_outlasts_a_power_cut(undisturbed):
    """At the last step at the latest, everything is there, under synced names."""
    _, steps, recording = undisturbed
    last = recording.lazy[-1]
    for each in TRIALS:
        for name in ("trial.json", "done.json", "model.pt", *results.TABLES):
            assert last[f"trials/{each['name']}/{name}"], name
    assert last["sweep.json"] and last["checksums.log"]
    assert steps.count("fsync") > 20
