"""What a sweep shows: on a terminal, as lines, to another terminal, or nearly nothing."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from lesion_core import results
from sweeps import status
from sweeps.ledger.lock import Lock
from sweeps.trials import progress
from sweeps.trials.progress import Display, LiveFile, Progress, live_lines


def snapshot(**changes):
    worker = {"epoch": 1, "worker": "node1:7", "since": time.time()}
    return {
        "running": {"b": worker},
        "done": ["a"],
        "failed": {},
        "epochs_trained": 4,
        "broken": None,
        "nodes": 1,
        "gpus": 0.0,
        "slots": 2,
    } | changes


def seen(**changes):
    found = Progress(trials=dict.fromkeys("abcd", 3), already_done=2, gpus_per_trial=0.5)
    found.update(snapshot(**changes))
    return found


def test_a_line_counts_what_is_done_running_failed_and_left():
    assert seen().line().startswith("3/6 done, 0 failed, 1 running, 2 left, ")
    assert seen(failed={"c": "it broke"}).line().startswith("3/6 done, 1 failed, 1 running, 1 left")


def test_what_a_search_gave_up_is_not_left():
    found = seen(given_up=["c"])
    assert found.line().startswith("3/6 done, 0 failed, 1 given up, 1 running, 1 left, ")
    # 4 epochs were trained; b has two to go, d three.
    assert found.seconds_left == pytest.approx(5 / found.epochs_per_second, rel=0.01)


def test_gpus_and_machines_at_work_are_named_where_there_are_some():
    assert seen().used == []
    assert seen(gpus=4.0, nodes=3).used == ["0.5/4 GPUs", "1/3 machines"]


def test_a_sweep_that_waits_for_a_machine_says_so():
    assert seen(slots=0, running={}).line().endswith("waiting for a machine that a trial fits on")


class Gone(io.StringIO):
    """A terminal whose window was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_is_gone_does_not_end_the_looking():
    made, _ = display(lambda: snapshot(failed={"c": "it broke"}))
    made._terminal = Gone()
    made.look()
    assert made._progress.failed == {"c": "it broke"}


def test_a_warning_is_said_above_what_goes_on():
    made, terminal = display(lambda: snapshot(warning="node3 has joined"))
    made.look()
    assert terminal.getvalue().startswith("warning: node3 has joined\ndone    a")


def display(look, *, quiet=False, broken=None):
    terminal = io.StringIO()
    made = Display(
        Progress(trials=dict.fromkeys("abcd", 3)),
        look,
        (lambda reason: None) if broken is None else broken.append,
        terminal,
        LiveFile(Path("/proc/nowhere"), "token"),  # which cannot be written: no matter
        quiet=quiet,
    )
    return made, terminal


def test_lines_name_what_has_ended_once():
    shown, terminal = display(lambda: snapshot(failed={"c": "it broke"}))
    shown.look()
    shown.look()
    done, failed = terminal.getvalue().splitlines()
    assert done.startswith("done    a (1/4 done, 1 failed") and failed == "FAILED  c: it broke"


def test_quiet_shows_failures_alone():
    shown, terminal = display(lambda: snapshot(failed={"c": "it broke"}), quiet=True)
    shown.look()
    assert terminal.getvalue() == "FAILED  c: it broke\n"


def test_a_silent_cluster_is_given_up_once_and_only_after_a_while(monkeypatch):
    def nothing():
        raise ConnectionRefusedError(111, "Connection refused")

    broken = []
    shown, _ = display(nothing, broken=broken)
    shown.look()
    assert broken == []
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", -1.0)
    shown.look()
    shown.look()
    (reason,) = broken
    assert "Connection refused" in reason and "the same command goes on from here" in reason


def test_a_busy_ledger_is_not_a_silent_cluster(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", -1.0)
    broken = []
    shown, terminal = display(lambda: None, broken=broken)
    shown.look()
    assert broken == [] and terminal.getvalue() == ""


def test_another_terminal_is_shown_the_same_while_the_driver_lives(tmp_path, capsys):
    results.write_json(
        tmp_path / "sweep.json", {"schema_version": results.SCHEMA_VERSION, "trials": []}
    )
    with Lock(tmp_path, "here") as lock:
        found = seen(gpus=4.0, failed={"c": "it broke"})
        live = LiveFile(tmp_path, lock.token)
        live.write(found)
        assert live_lines(tmp_path, lock.token)[0].startswith("3/6 done, 1 failed")
        assert live_lines(tmp_path, "another driver's") == []
        status.main([str(tmp_path)])
        said = " ".join(capsys.readouterr().out.split())
        assert "0.5/4 GPUs" in said and "last failure: c: it broke" in said
        live.remove()
        assert live_lines(tmp_path, lock.token) == []


@pytest.mark.parametrize("columns", [60, 120])
def test_the_table_shows_running_trials_and_the_last_failure(columns):
    shown, _ = display(lambda: None)
    shown._progress.update(snapshot(failed={"c": "it broke"}, gpus=2.0))
    console = Console(width=columns, file=io.StringIO(), record=True)
    console.print(shown._table())
    text = console.export_text()
    assert "epoch 1/3" in text and "node1" in text and "last failure: c: it broke" in text
    assert "2 GPUs" in " ".join(text.split())
