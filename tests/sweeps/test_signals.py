"""Every door, signalled as soon as it is open and twice in a row: its status, one line, no more."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lesion_core import stopping
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.provenance import ROOT

DOORS = {
    "grid": ["sweeps/paper_grid.py", "--demo"],
    "search": ["sweeps/alpha_gamma.py"],
    "ladder": ["sweeps/seed_ladder.py"],
    "training-effect": ["sweeps/training_effect.py"],
    "train": ["sweeps/train_one.py", "--cohort", "lit"],
    "status": ["sweeps/status.py", "nowhere"],
    "verify": ["sweeps/verify.py", "nowhere"],
    "report": ["analysis/report.py", "nowhere"],
    "data": ["-m", "lesion_core.cohorts", "check", "nowhere"],
    "prepare": ["-m", "lesion_core.prepare", "lit", "nowhere"],
    "predict": ["-m", "lesion_core.predict", "nowhere"],
    "wandb": ["sweeps/tracking.py", "sync", "nowhere"],
    "wandb module": ["-m", "sweeps.tracking", "sync", "nowhere"],
    "bench": ["sweeps/bench.py", "core"],
    "bench module": ["-m", "sweeps.bench", "core"],
    "lesion-sweep": ["-c", "from sweeps.cli import process; process()", "grid", "--demo"],
}
QUICK = ("grid", "train", "report", "predict", "lesion-sweep")


def start(line, cwd=ROOT):
    return subprocess.Popen(
        [sys.executable, *line], cwd=cwd, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def signals_of(process, kind):
    """What the kernel says of a process: SigBlk those that wait, SigCgt those with a handler."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1], 16)
    return 0


def until(process, kind):
    """Until signals wait, or are answered; or until it is a supervisor, who waits for them (which
    the kernel shows as signals that do not wait)."""
    bit = 1 << (signal.SIGTERM - 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not signals_of(process, kind) & bit and process.poll() is None:
        if kind == "SigBlk" and children.read_text():
            return
        time.sleep(0.005)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "door",
    [door if door in QUICK else pytest.param(door, marks=pytest.mark.slow) for door in DOORS],
)
def test_a_signal_at_a_commands_first_line_is_answered(door):
    process = start(DOORS[door])
    until(process, "SigBlk")
    for _ in range(2):  # the second when it is about to end, or has
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    assert err.startswith("stopped") and err.count("\n") == 1
    assert out == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", stopping.SIGNALS)
@pytest.mark.parametrize("seconds", [0, 0.5, 2])
def test_a_report_and_a_sweep_that_begin_are_stopped_at_any_moment(tmp_path, number, seconds):
    """While they load what takes long, and after."""
    FakeSweep().write(tmp_path / "made-up")
    report = start([str(ROOT / "analysis/report.py"), "made-up"], tmp_path)
    grid = start([str(ROOT / "sweeps/paper_grid.py"), "--demo", "--wandb", "disabled"], tmp_path)
    for process in (report, grid):
        until(process, "SigCgt" if process is report else "SigBlk")
    time.sleep(seconds)
    for process in (report, grid):
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 128 + number, err
        assert err.endswith(("stopped\n", "stopped; the same command goes on from here\n"))
        assert "Traceback" not in err
    again = start([str(ROOT / "analysis/report.py"), "made-up"], tmp_path)
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
