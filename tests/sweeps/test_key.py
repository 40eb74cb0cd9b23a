"""W&B's key is in no file that a sweep leaves, killed or not; and scratch folders do not stay."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps import scratch
from sweeps.provenance import ROOT
from tests.support.wandb_server import Server

KEY = "5ec7e7" + "0123456789abcdef" * 2 + "01"

SWEEP = """
import sys
from dataclasses import replace
from pathlib import Path
from sweeps.distributed.cluster import connected
from sweeps.options import Machines
from sweeps.tracking.policy import Tracking
from sweeps.trials.supply import FixedSupply
from tests.support.toy import toy_cohort
from tests.sweeps.test_launch import SETTINGS, trial

results = Path(sys.argv[1])
trials = [trial(11, settings=replace(SETTINGS, epochs=int(sys.argv[2])))]
with connected(Machines()) as cluster:
    tracking = Tracking.decide("online", results)
    cluster.run(FixedSupply(trials), {"toy": toy_cohort()}, results, token=None, tracking=tracking)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_the_key_is_in_no_file_that_a_sweep_leaves(killed):
    place = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))  # Ray's sockets need a short path
    try:
        for name in ("home", "tmp"):
            (place / name).mkdir()
        with Server() as server:
            environment = os.environ | {
                "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"),
                "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "PYTHONPATH": str(ROOT),
            }  # fmt: skip
            environment = {k: v for k, v in environment.items() if k != "RAY_TMPDIR"}
            driver = subprocess.Popen(
                [sys.executable, "-c", SWEEP, str(place / "results"), "400" if killed else "2"],
                cwd=ROOT, env=environment, start_new_session=True,
            )  # fmt: skip
            if killed:
                until(lambda: list(place.glob("results/trials/*/epochs.parquet")), driver)
                until(lambda: server.runs, driver)
                driver.kill()
                driver.wait()
                time.sleep(5)  # what others of its processes still write
            else:
                assert driver.wait(timeout=300) == 0
                assert [run.steps for run in server.runs.values()] == [[0, 1, 2]]
        files = [file for file in place.rglob("*") if file.is_file()]
        assert any("session_" in str(file) for file in files)
        assert not [file for file in files if KEY.encode() in file.read_bytes()]
        left = [each.name for each in (place / "tmp").glob("lesion-*")]
        assert any(name.startswith("lesion-tune-") for name in left) == killed
        for prefix in ("lesion-tune-", "lesion-wandb-"):
            until(lambda: not swept(place / "tmp", prefix), driver=None)  # noqa: B023
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)


def swept(place, prefix):
    scratch.sweep_up(place, prefix, time.time())
    return list(place.glob(f"{prefix}*"))


def until(holds, driver, seconds=240):
    deadline = time.monotonic() + seconds
    while not holds():
        assert driver is None or driver.poll() is None, "the sweep ended by itself"
        assert time.monotonic() < deadline, "it has not come so far"
        time.sleep(0.2)


@pytest.mark.parametrize("days", [-3, 3])
def test_a_clock_that_is_wrong_sweeps_up_no_new_folder(tmp_path, monkeypatch, days):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86400 * days)
    other = Path(tempfile.mkdtemp(prefix="lesion-x-", dir=tmp_path))  # not held yet
    ours = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-x-", dir=tmp_path)))
    assert ours.exists() and other.exists()
    scratch.drop(ours)


def test_folders_of_dead_processes_are_swept_up_and_no_others(tmp_path):
    code = (
        "import os, sys, tempfile; from pathlib import Path; from sweeps import scratch\n"
        "print(scratch.hold(Path(tempfile.mkdtemp(prefix='lesion-x-', dir=sys.argv[1]))))\n"
        "sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    dead = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    assert Path(dead, scratch.ALIVE).exists()
    alive = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-x-", dir=tmp_path)))
    assert not Path(dead).exists()
    kept = [tmp_path / "lesion-x-new", tmp_path / "lesion-y-other", tmp_path / "lesion-x-link"]
    old = tmp_path / "lesion-x-old"
    for folder in (*kept[:2], old):
        folder.mkdir()
    kept[2].symlink_to(kept[1], target_is_directory=True)
    os.utime(old, (0, 0))
    os.utime(kept[1], (0, 0))
    scratch.sweep_up(tmp_path, "lesion-x-", time.time())
    assert all(folder.exists() for folder in (alive, *kept)) and not old.exists()
    scratch.drop(alive)
    assert not alive.exists()
