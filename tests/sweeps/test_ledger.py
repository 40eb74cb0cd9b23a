"""The ledger: complete at every moment, one writer, and never two sweeps in one folder."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lesion_core import durable, results
from sweeps.bench.fake_sweep import description
from sweeps.ledger import lock
from sweeps.ledger.ledger import Ledger, LedgerError, NotTheTrialsFault
from sweeps.ledger.lock import Lock
from sweeps.verify import verify

EPOCHS = 3
NUM_WRITES = 21
"""Of one trial: 2 to begin, 4 per epoch before the last, 6 for the last, 1 to be done."""
TRIAL = description("toy", "xent", 1, 0, EPOCHS)
NAME = TRIAL["name"]
IDENTITY = {"trial": NAME, "cohort": "toy", "loss": "xent", "seed": 1, "fold": 0}
SUMMARY = {"epochs_done": EPOCHS, "seconds": 1.0, "host": "here", "device": "cpu"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def report(epoch, before):
    """What a training leaves of an epoch; like weights, ``before`` is all that it depends on."""
    state = f"{before}>{epoch}"
    case = dict.fromkeys(results.CASES.names) | IDENTITY
    case |= {"epoch": epoch, "split": "test", "scope": "image", "site": "", "tp": len(state)}
    clock = dict.fromkeys(results.EPOCHS.names) | IDENTITY
    clock |= {"epoch": epoch, "train_loss": len(state) / 7, "seconds_train": 2.0}
    clock |= {"seconds_evaluate": 1.0}
    final = None
    if epoch == EPOCHS:
        lesion = dict.fromkeys(results.LESIONS.names) | IDENTITY | {"epoch": epoch, "case": "a"}
        histogram = {**IDENTITY, "epoch": epoch, "case": "a", "lesion": [1], "background": [2]}
        final = {
            "lesions": [lesion],
            "histograms": [histogram],
            "slices": [{**IDENTITY, "epoch": epoch, "case": "a", "prediction": b"\x01"}],
            "model": state.encode(),
        }
    cases = [case | {"case": name} for name in ("a", "b")]
    checkpoint = json.dumps({"epoch": epoch, "state": state}).encode()
    return {
        "epoch": epoch, "cases": cases, "epochs": clock, "checkpoint": checkpoint, "final": final
    }  # fmt: skip


def train(ledger, stop_after=EPOCHS):
    """A worker: asks where to begin, reports epochs, marks the trial done."""
    begun = ledger.begin(TRIAL)
    if begun["state"] == "done":
        return begun
    state, first = "", 0
    if begun["checkpoint"] is not None:
        found = json.loads(begun["checkpoint"])
        state, first = found["state"], found["epoch"] + 1
        assert found["epoch"] == begun["epoch"]
        assert [row["epoch"] for row in begun["epochs"]] == list(range(first))
    for epoch in range(first, stop_after + 1):
        made = report(epoch, state)
        ledger.epoch(NAME, made)
        state = json.loads(made["checkpoint"])["state"]
    if stop_after == EPOCHS:
        ledger.done(NAME, SUMMARY)
    return begun


LEAN = TRIAL | {
    "config": TRIAL["config"] | {"settings": TRIAL["config"]["settings"] | {"evaluate_at": "last"}}
}
"""The same trial, evaluated after its last epoch alone (the hash, which nobody looks at, aside)."""


def report_evaluated_last(epoch):
    made = report(epoch, "")
    return made if epoch == EPOCHS else made | {"cases": []}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def folder(ledger):
    return ledger.path / "trials" / NAME


def contents(ledger):
    """Every file of the trial but the one that counts attempts."""
    return {
        file.name: file.read_bytes()
        for file in folder(ledger).iterdir()
        if file.name not in ("done.json", "log.txt")
    }


def status(ledger):
    return ledger.states([NAME])[NAME]["status"]


def test_a_trial_that_is_evaluated_last_has_rows_of_that_epoch_alone(ledger):
    ledger.begin(LEAN)
    for epoch in range(EPOCHS):
        ledger.epoch(NAME, report_evaluated_last(epoch))
    begun = ledger.begin(LEAN)  # another attempt, after the first one was lost
    assert (begun["epoch"], begun["cases"], begun["notes"]) == (EPOCHS - 1, [], [])
    assert [row["epoch"] for row in begun["epochs"]] == list(range(EPOCHS))
    ledger.epoch(NAME, report_evaluated_last(EPOCHS))
    ledger.done(NAME, SUMMARY)
    assert set(results.read_table(folder(ledger) / "cases.parquet")["epoch"].to_pylist()) == {3}


def test_a_trial_whose_evaluation_is_lost_is_not_done(ledger):
    ledger.begin(LEAN)
    for epoch in range(EPOCHS):
        ledger.epoch(NAME, report_evaluated_last(epoch))
    ledger.epoch(NAME, report_evaluated_last(EPOCHS) | {"cases": []})
    with pytest.raises(NotTheTrialsFault, match=r"cases\.parquet does not hold every epoch"):
        ledger.done(NAME, SUMMARY)


# --------------------------------------------------------------------------------- interruptions
def test_a_finished_trial_holds_what_was_reported(ledger):
    train(ledger)
    assert status(ledger) == "done"
    done = json.loads((folder(ledger) / "done.json").read_text())
    assert done["epochs_done"] == EPOCHS and done["attempts"] == 1
    assert done["seconds"] == 3.0 * (EPOCHS + 1)  # of all epochs, since it exceeds the summary's
    assert set(contents(ledger)) == {"trial.json", "model.pt", *results.TABLES}
    assert json.loads((folder(ledger) / "trial.json").read_text()) == {"schema_version": 1, **TRIAL}
    assert ledger.left_to_run([NAME]) == []
    assert train(ledger) == {"state": "done"}


@pytest.mark.parametrize("moment", range(NUM_WRITES))
def test_killed_at_any_write_a_trial_goes_on_to_the_same_bits(
    ledger, tmp_path, monkeypatch, moment
):
    whole = Ledger(tmp_path / "uninterrupted")
    train(whole)
    writes = []
    write = durable._written

    def cut_short(path: Path, content: bytes, staging: Path):
        writes.append(path.name)
        if len(writes) == moment + 1:
            (staging / f".{path.name}.abc").write_bytes(content[: len(content) // 2])
            raise Killed
        return write(path, content, staging)

    monkeypatch.setattr(durable, "_written", cut_short)
    try:
        train(ledger)
    except Killed:
        assert status(ledger) in ("missing", "partial")
    else:
        assert len(writes) <= moment, "fewer writes than moments: every one of them was tried"
    monkeypatch.setattr(durable, "_written", write)
    begun = train(ledger)
    assert begun["state"] == "done" or begun["notes"] == []
    assert contents(ledger) == contents(whole)


def test_moments_above_cover_every_write(ledger, monkeypatch):
    writes = []
    write = durable._written
    monkeypatch.setattr(durable, "_written", lambda *a: (writes.append(a), write(*a))[1])
    train(ledger)
    assert len(writes) == NUM_WRITES


def test_resuming_cuts_rows_after_the_checkpoint(ledger):
    train(ledger, stop_after=1)
    checkpoint = (folder(ledger) / "checkpoint.pt").read_bytes()
    progress = (folder(ledger) / "progress.json").read_bytes()
    ledger.epoch(NAME, report(2, "whatever"))
    (folder(ledger) / "checkpoint.pt").write_bytes(checkpoint)  # as if killed before its renaming
    (folder(ledger) / "progress.json").write_bytes(progress)
    begun = ledger.begin(TRIAL)
    assert (begun["epoch"], begun["checkpoint"], begun["attempt"]) == (1, checkpoint, 2)
    assert {row["epoch"] for row in begun["cases"]} == {0, 1}
    assert results.pq.read_table(folder(ledger) / "cases.parquet").num_rows == 4


@pytest.mark.parametrize("file", ["checkpoint.pt", "cases.parquet", "epochs.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "removed", "garbage"])
def test_damage_to_an_unfinished_trial_is_reported_and_starts_it_afresh(ledger, file, damage):
    train(ledger, stop_after=1)
    path = folder(ledger) / file
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if damage == "truncated" else b"PAR1 nonsense")
    begun = ledger.begin(TRIAL)
    assert begun["checkpoint"] is None and begun["cases"] == []
    if (file, damage) != ("checkpoint.pt", "removed"):  # which is no damage
        assert file in begun["notes"][0]
    assert not (folder(ledger) / "cases.parquet").exists()


def test_one_bit_of_progress_json_never_moves_the_epoch_to_go_on_from(ledger):
    train(ledger, stop_after=1)
    before = {file: file.read_bytes() for file in folder(ledger).iterdir()}
    place = folder(ledger) / "progress.json"
    noticed = 0
    for at in range(len(before[place])):
        content = bytearray(before[place])
        content[at] ^= 1 << at % 7
        place.write_bytes(bytes(content))
        begun = ledger.begin(TRIAL)
        if begun["notes"]:
            assert begun["notes"] == ["progress.json is damaged"] and begun["checkpoint"] is None
            noticed += 1
        else:  # it means the same, as with another white space
            assert (begun["epoch"], begun["attempt"]) == (1, 2)
        for file, kept in before.items():
            file.write_bytes(kept)
    assert noticed > 0.8 * len(before[place])


def test_a_progress_json_without_a_checksum_is_believed_as_it_was_before(ledger):
    train(ledger, stop_after=1)
    place = folder(ledger) / "progress.json"
    content = json.loads(place.read_text())
    assert content.pop("checksum")
    place.write_text(json.dumps(content))
    assert ledger.begin(TRIAL)["epoch"] == 1


def test_a_running_trial_whose_progress_json_is_damaged_begins_again(ledger):
    train(ledger, stop_after=1)
    place = folder(ledger) / "progress.json"
    place.write_text(place.read_text().replace('"attempts": 1', '"attempts": 3'))
    with pytest.raises(NotTheTrialsFault, match=r"progress\.json is damaged"):
        ledger.epoch(NAME, report(2, ""), 1)
    assert ledger.begin(TRIAL)["checkpoint"] is None


def test_what_a_damaged_failed_json_says_keeps_no_trial_from_running_again(ledger):
    ledger.failed(TRIAL, {"kind": "infrastructure", "error": "lost"})
    place = folder(ledger) / "failed.json"
    place.write_text(place.read_text().replace('"kind"', '"kine"'))
    assert status(ledger) == "failed" and ledger.left_to_run([NAME]) == [NAME]


@pytest.mark.parametrize("file", results.TABLES)
@pytest.mark.parametrize("damage", ["one bit", "removed"])
def test_damage_to_a_finished_trial_is_reported_and_runs_it_again(ledger, file, damage):
    train(ledger)
    before = contents(ledger)
    path = folder(ledger) / file
    if damage == "removed":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    assert status(ledger) == "corrupt"
    assert file in ledger.states([NAME])[NAME]["error"]
    assert ledger.left_to_run([NAME]) == [NAME]
    assert file in ledger.begin(TRIAL)["notes"][0]
    assert status(ledger) == "partial"
    train(ledger)
    assert contents(ledger) == before


def test_another_configuration_under_the_same_name_is_not_continued(ledger):
    train(ledger, stop_after=1)
    changed = TRIAL | {"config": TRIAL["config"] | {"num_folds": 9}}
    begun = ledger.begin(changed)
    assert begun["checkpoint"] is None and "trial.json" in begun["notes"][0]


# -------------------------------------------------------------------------------------- failures
def failure(kind):
    return {"kind": kind, "error": "it broke", "traceback": "T", "epoch": 2, "batch": 5}


@pytest.mark.parametrize(
    ("kind", "status_then", "runs_by_itself"),
    [
        ("error", "failed", False),
        ("diverged", "diverged", False),
        ("infrastructure", "failed", True),
    ],
)
def test_only_the_blameless_run_again_unasked(ledger, kind, status_then, runs_by_itself):
    train(ledger, stop_after=1)
    ledger.failed(TRIAL, failure(kind))
    assert status(ledger) == status_then
    state = ledger.states([NAME])[NAME]
    assert (state["error"], state["log"]) == ("it broke", f"trials/{NAME}/log.txt")
    assert ledger.left_to_run([NAME]) == ([NAME] if runs_by_itself else [])
    assert ledger.left_to_run([NAME], retry_failed=True) == [NAME]


def test_a_retried_trial_goes_on_from_its_checkpoint_and_counts_its_attempts(ledger):
    train(ledger, stop_after=1)
    ledger.failed(TRIAL, failure("error"))
    begun = train(ledger)
    assert (begun["attempt"], begun["epoch"]) == (2, 1)
    assert status(ledger) == "done"
    assert json.loads((folder(ledger) / "done.json").read_text())["attempts"] == 2
    assert not (folder(ledger) / "failed.json").exists()


def test_a_trial_that_no_worker_began_can_fail(ledger):
    ledger.failed(TRIAL, failure("infrastructure"))
    assert status(ledger) == "failed"
    assert train(ledger)["notes"] == []


def test_done_needs_everything_before_it(ledger):
    train(ledger, stop_after=1)
    with pytest.raises(RuntimeError, match=r"without lesions\.parquet"):
        ledger.done(NAME, SUMMARY)
    assert status(ledger) == "partial"


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")],
)
def test_a_disk_that_refuses_is_one_clear_line(ledger, monkeypatch, number, words):
    train(ledger, stop_after=1)
    before = contents(ledger)

    def refuse(files, staging):
        raise OSError(number, os.strerror(number), str(next(iter(files))))

    monkeypatch.setattr(durable, "write_together", refuse)
    with pytest.raises(LedgerError, match=words) as caught:
        ledger.epoch(NAME, report(2, ""))
    assert str(folder(ledger)) in str(caught.value) and "\n" not in str(caught.value)
    assert contents(ledger) == before


# ------------------------------------------------------------------------------------- sweep.json
def asked(**changes):
    request = {
        "command": "paper_grid.py",
        "git_commit": None,
        "versions": {"torch": "2"},
        "losses": ["xent"],
        "settings": {"epochs": 25, "filters": [32, 64]},
        "num_folds": 2,
        "folds": {"toy": [["a"], ["b"]]},
        "cohorts": {"toy": {"fingerprint": "f" * 64, "channels": ["t1"], "num_cases": 2}},
        "trials": [{k: v for k, v in TRIAL.items() if k != "config"}],
    }
    return request | changes


def test_a_second_request_is_united_with_the_first(ledger):
    ledger.write_request(asked())
    other = asked()["trials"][0] | {"name": "other", "loss": "dsc"}
    ledger.write_request(asked(losses=["dsc"], trials=[other]))
    meta = results.read_meta(ledger.path)
    assert meta["losses"] == ["xent", "dsc"]
    assert [trial["name"] for trial in meta["trials"]] == [NAME, "other"]


def test_the_same_request_again_changes_nothing(ledger):
    ledger.write_request(asked())
    before = (ledger.path / "sweep.json").stat()
    ledger.write_request(asked())
    after = (ledger.path / "sweep.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"settings": {"epochs": 10, "filters": [8, 16]}},
            "epochs is 25 there, 10 now; filters is 32 64 there, 8 16 now;",
        ),
        ({"num_folds": 5}, "folds is 2 there, 5 now"),
        (
            {"cohorts": {"toy": {"fingerprint": "e" * 64, "channels": ["t1"], "num_cases": 2}}},
            r"the data of cohort toy have changed \(fingerprint is f+\.\.\. there, e+\.\.\. now\)",
        ),
        (
            {
                "cohorts": {
                    "toy": {
                        "fingerprint": "e" * 64,
                        "channels": ["t1"],
                        "num_cases": 2,
                        "definition": {"type": "Folder", "fields": {"spacing": ["1", "1", "3"]}},
                    }
                }
            },
            r"cohort toy is read otherwise \(spacing is not given there, 1 1 3 now\)",
        ),
        (
            {"trials": [asked()["trials"][0] | {"name": "new", "loss_params": "changed"}]},
            "loss xent is {.*} there, changed now",
        ),
    ],
)
def test_another_sweep_is_refused_field_by_field(ledger, change, words):
    ledger.write_request(asked())
    before = (ledger.path / "sweep.json").read_bytes()
    with pytest.raises(ValueError, match=words) as caught:
        ledger.write_request(asked(**change))
    assert "--results" in str(caught.value) and "\n" not in str(caught.value)
    assert (ledger.path / "sweep.json").read_bytes() == before


def test_validation_parts_are_united_and_never_change(ledger):
    ledger.write_request(asked())
    ledger.write_request(asked(validation={"toy": {"0": ["b"]}}))
    ledger.write_request(asked())
    ledger.write_request(asked(validation={"toy": {"1": ["a"]}}))
    assert results.read_meta(ledger.path)["validation"] == {"toy": {"0": ["b"], "1": ["a"]}}
    with pytest.raises(ValueError, match="validation parts of cohort toy hold other cases"):
        ledger.write_request(asked(validation={"toy": {"1": ["b"]}}))


def test_another_cohort_joins_the_sweep(ledger):
    ledger.write_request(asked())
    ledger.write_request(
        asked(
            folds={"lit": [["p"], ["q"]]},
            cohorts={"lit": {"fingerprint": "0", "channels": ["t1"], "num_cases": 2}},
            trials=[asked()["trials"][0] | {"name": "lit", "cohort": "lit"}],
        )
    )
    meta = results.read_meta(ledger.path)
    assert list(meta["cohorts"]) == list(meta["folds"]) == ["toy", "lit"]


# ------------------------------------------------------------------------------------------ lock
def test_a_second_driver_is_refused_and_the_first_is_named(tmp_path):
    with Lock(tmp_path, "paper_grid.py --first"):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on .*--first") as caught:
            Lock(tmp_path, "second").__enter__()
        assert "\n" not in str(caught.value)
        assert lock.holder(tmp_path).command == "paper_grid.py --first"
    assert lock.holder(tmp_path) is None
    with Lock(tmp_path, "third"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_could_not_be_removed_is_void_for_its_own_process(tmp_path, monkeypatch):
    def refuse(self, missing_ok=False):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk, Lock(tmp_path, "first"):
        disk.setattr(Path, "unlink", refuse)
    assert (tmp_path / lock.NAME).exists() and lock.holder(tmp_path) is None
    with Lock(tmp_path, "second"):
        assert lock.holder(tmp_path).command == "second"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("can't start new thread")])
def test_whatever_keeps_a_lock_from_being_taken_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(self):
        raise error

    with monkeypatch.context() as thread, pytest.raises(BaseException, match=r"new thread|^$"):
        thread.setattr("threading.Thread.start", fail)
        Lock(tmp_path / "new" / "folder", "first").__enter__()
    assert not list(tmp_path.iterdir())
    with Lock(tmp_path, "second"):
        pass


def test_a_lock_is_alive_as_soon_as_it_can_be_seen(tmp_path, monkeypatch):
    """Where the file system has no locks of its own, its process alone knows."""
    real, seen = Path.hardlink_to, []

    def linked(self, target):
        real(self, target)
        seen.append(lock.holder(tmp_path))

    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError))
    monkeypatch.setattr(Path, "hardlink_to", linked)
    with Lock(tmp_path, "first"):
        assert [holder.command for holder in seen] == ["first"]


def dead_process():
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    return finished.pid


def leave_lock(path, **changes):
    with Lock(path, "gone"):
        content = json.loads((path / lock.NAME).read_text())
    (path / lock.NAME).write_text(json.dumps(content | changes))


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    leave_lock(tmp_path, pid=dead_process())
    assert lock.holder(tmp_path) is None
    with Lock(tmp_path, "next"):
        assert lock.holder(tmp_path).command == "next"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_number_that_was_used_again_is_not_the_holder(tmp_path):
    leave_lock(tmp_path, started=1)
    with Lock(tmp_path, "next"):
        pass


def test_a_lock_written_half_is_void(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    (tmp_path / lock.NAME).write_text('{"host": "he')
    with Lock(tmp_path, "next"):
        pass


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": f"not-{socket.gethostname()}"}, {"processes": "pid:[1]"}, {"boot": "another"}],
)
def test_a_lock_whose_process_cannot_be_looked_up_holds_as_long_as_it_beats(
    tmp_path, monkeypatch, elsewhere
):
    """Of another host, another container, another run of the kernel: a number says nothing."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    leave_lock(tmp_path, pid=dead_process(), **elsewhere)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.1):
            os.utime(tmp_path / lock.NAME)

    beating = threading.Thread(target=beat)
    beating.start()
    now = time.time
    try:
        for ahead in (0, 86400):  # of this machine's clock, to which beats owe nothing
            monkeypatch.setattr(time, "time", lambda ahead=ahead: now() + ahead)
            with pytest.raises(ValueError, match="in use by process"):
                Lock(tmp_path, "second").__enter__()
    finally:
        stop.set()
        beating.join()
    with Lock(tmp_path, "second"):  # it is silent now
        pass


def test_another_hosts_lock_that_is_long_silent_need_not_be_watched(tmp_path):
    leave_lock(tmp_path, host=f"not-{socket.gethostname()}", pid=dead_process())
    long_ago = (tmp_path / lock.NAME).stat().st_mtime - lock.SILENCE_SECONDS - 60
    os.utime(tmp_path / lock.NAME, (long_ago, long_ago))
    with Lock(tmp_path, "second"):
        pass


def test_a_writer_that_lost_its_lock_writes_no_more(tmp_path):
    with Lock(tmp_path, "first") as first:
        ledger = Ledger(tmp_path, first.token)
        train(ledger, stop_after=1)
        before = contents(ledger)
        (tmp_path / lock.NAME).unlink()
        with Lock(tmp_path, "second"):
            with pytest.raises(LedgerError, match="taken over"):
                ledger.epoch(NAME, report(2, ""))
            assert contents(ledger) == before


@pytest.mark.parametrize("late", ["epoch", "begin"])
def test_a_writer_that_wakes_up_after_its_lock_was_taken_over_puts_nothing_in_place(
    tmp_path, monkeypatch, late
):
    """It has made sure of its lock, sleeps, and goes on in the middle of a write or a removal."""
    write, remove = durable.write_together, durable.remove
    second: list[Lock] = []

    def take_over():
        if not second:
            (tmp_path / lock.NAME).unlink()
            second.append(Lock(tmp_path, "second").__enter__())

    def late_write(files, staging):
        take_over()
        write(files, staging=staging)

    def late_remove(path, staging):
        take_over()
        remove(path, staging=staging)

    with Lock(tmp_path, "first") as first:
        ledger = Ledger(tmp_path, first.token)
        train(ledger, stop_after=1)
        before = contents(ledger)
        monkeypatch.setattr(durable, "write_together", late_write)
        monkeypatch.setattr(durable, "remove", late_remove)
        with pytest.raises(LedgerError, match="taken over"):
            ledger.epoch(NAME, report(2, "")) if late == "epoch" else ledger.begin(TRIAL)
        assert contents(ledger) == before
    assert lock.owns(tmp_path, second[0].token)
    second[0].__exit__(None, None, None)


@pytest.mark.parametrize("late", ["log", "checksum"])
def test_what_a_late_writer_adds_to_a_growing_file_harms_nothing(tmp_path, monkeypatch, late):
    """It has made sure of its lock, sleeps, and adds its lines when another has finished."""
    append = durable.append
    with Lock(tmp_path, "first") as first:
        ledger = Ledger(tmp_path, first.token)
        train(ledger, stop_after=1)
        ledger.log(NAME, "the first\n")

        def late_append(path, content, **more):
            monkeypatch.setattr(durable, "append", append)
            (tmp_path / lock.NAME).unlink()
            with Lock(tmp_path, "second") as second:
                whole = Ledger(tmp_path, second.token)
                train(whole)
                whole.log(NAME, "the second\n")
                whole.note_logs()
            append(path, content, **more)

        monkeypatch.setattr(durable, "append", late_append)
        if late == "log":
            ledger.log(NAME, "and the first, late\n")
        else:
            with pytest.raises(LedgerError, match="taken over"):
                ledger.failed(TRIAL, {"kind": "error", "error": "too late"})
    found = verify(tmp_path)
    assert set(found.damaged) == {"sweep.json"} and not found.to_train  # which was never asked for
    assert status(ledger) == "done" and ledger.left_to_run([NAME]) == []
    assert not (folder(ledger) / "failed.json").exists()


IN_A_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def test_a_living_drivers_lock_is_not_taken_over_from_another_process_namespace(tmp_path):
    """As in containers that share the host's network, and so its name."""
    tried = subprocess.run([*IN_A_NAMESPACE, "true"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip("process namespaces are not permitted here")
    code = f"""
import sys
from pathlib import Path
from sweeps.ledger.lock import Lock, holder
place = Path({str(tmp_path)!r})
if sys.argv[1] == "try":
    assert holder(place) is not None
    Lock(place, "inner").__enter__()
with Lock(place, "inner"):
    print("held", flush=True)
    sys.stdin.read()
"""
    inner = [*IN_A_NAMESPACE, sys.executable, "-c", code]
    with Lock(tmp_path, "outer"):
        done = subprocess.run([*inner, "try"], check=False, capture_output=True, text=True)
        assert "is in use by process" in done.stderr and "(outer)" in done.stderr
    with subprocess.Popen(
        [*inner, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holding:
        assert holding.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use by process"):
            Lock(tmp_path, "outer").__enter__()
        holding.communicate()
    with Lock(tmp_path, "outer"):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        Lock(tmp_path / "file" / "results", "x").__enter__()


def test_files_kept_replace_those_of_an_earlier_attempt(ledger):
    ledger.write_files({"wandb/offline-run-1-abc/x": b"1"}, "wandb/offline-run-*-abc")
    ledger.write_files({"wandb/offline-run-2-abc/x": b"2"}, "wandb/offline-run-*-abc")
    assert [path.name for path in (ledger.path / "wandb").iterdir()] == ["offline-run-2-abc"]
    shutil.rmtree(ledger.path / "wandb")
