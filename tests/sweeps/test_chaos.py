"""Killed at random, finished all the same: no trial rerun, no row twice, no bit other.

Several machines of a Ray cluster are processes here.  Minutes; `make test-cluster`.
"""

import os
import random
import re
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from lesion_core import results
from sweeps.ledger.ledger import Ledger
from sweeps.provenance import ROOT
from tests.support.ray_nodes import Machines
from tests.support.tiny import write_lit_cohort

pytestmark = pytest.mark.cluster

GRID = ["--losses", "xent", "my_losses:slow", "--seeds", "1", "2", "3", "--folds", "2"]
GRID += ["--epochs", "6", "--patch-size", "8", "--filters", "8", "16", "--batch-size", "4"]
GRID += ["--wandb", "disabled", "--no-report"]
NUM_TRIALS = 12

MY_LOSSES = """
import time
from lesion_core.losses import CrossEntropy
from pace import SECONDS

def slow(logits, target):
    time.sleep(SECONDS * (logits.shape[-1] == 8))
    return CrossEntropy()(logits, target)
"""


def write_losses(place, seconds):
    """A loss of one's own; its pace is in another file, so that it is not part of what it is."""
    (place / "my_losses.py").write_text(MY_LOSSES)
    (place / "pace.py").write_text(f"SECONDS = {seconds}\n")


KILLS = ["worker"] * 12 + ["driver"] * 5 + ["machine"] * 4


def grid(address: str, folder: str) -> list[str]:
    script = str(ROOT / "sweeps" / "paper_grid.py")
    return [script, *GRID, "--address", address, "--results", folder]


@pytest.fixture
def place(tmp_path):
    write_lit_cohort(tmp_path / "data", [1, 2, 3, 4])
    write_losses(tmp_path, 0.8)
    return tmp_path


def progress(ledger):
    """Something that grows with every epoch, whoever trained it."""
    return {
        file: file.stat().st_mtime_ns
        for name in ("epochs.parquet", "done.json")
        for file in ledger.path.glob(f"trials/*/{name}")
    }


def finished(ledger):
    """Trials that are done, and when that was written."""
    return {
        file.parent.name: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in ledger.path.glob("trials/*/done.json")
    }


def wait_for_progress(ledger, driver):
    """Until an epoch more is in the ledger, or the driver has ended."""
    before, deadline = progress(ledger), time.monotonic() + 300
    while progress(ledger) == before and driver.poll() is None:
        assert time.monotonic() < deadline, f"nothing moves: {standing(ledger)}"
        time.sleep(0.05)


def standing(ledger):
    """What the driver shows at the moment, and the end of what Ray said."""
    files = (ledger.path / ".live.json", ledger.path / "ray.log")
    return "\n".join(file.read_text()[-2000:] for file in files if file.exists())


def assert_same_bits(ours, theirs):
    names = sorted(path.name for path in (theirs.path / "trials").iterdir())
    assert sorted(path.name for path in (ours.path / "trials").iterdir()) == names
    assert len(names) == NUM_TRIALS
    for name in names:
        one, other = (ledger.path / "trials" / name for ledger in (ours, theirs))
        for table in results.TABLES:
            left, right = (pd.read_parquet(folder / table) for folder in (one, other))
            clocks = [column for column in left if column.startswith("seconds")]
            pd.testing.assert_frame_equal(
                left.drop(columns=clocks), right.drop(columns=clocks), check_exact=True
            )
        left, right = (torch.load(folder / "model.pt")["weights"] for folder in (one, other))
        assert left.keys() == right.keys()
        assert all(left[key].equal(right[key]) for key in left)
        epochs = pd.read_parquet(one / "epochs.parquet")["epoch"]
        assert epochs.tolist() == list(range(7))


def report_says(place, folder):
    """How many trials a report counts, and how many of them are not complete."""
    command = [sys.executable, str(ROOT / "analysis" / "report.py"), folder, "--out", "page"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    page = (place / "page" / "report.html").read_text()
    return re.search(r"(\d+) of (\d+) trials\. `?", page)


def test_killed_at_random_a_sweep_ends_with_the_bits_of_an_undisturbed_one(place):
    rng = random.Random(6)
    kills = rng.sample(KILLS, len(KILLS))
    broken, whole = Ledger(place / "broken"), Ledger(place / "whole")
    with Machines() as machines:
        machines.head()
        workers = [machines.add(), machines.add()]
        driver = machines.drive(grid(machines.address, "broken"), place)
        killed, once_done, reported = [], {}, False
        while kills:
            wait_for_progress(broken, driver)
            time.sleep(rng.uniform(0, 1.5))
            for name, written in once_done.items():
                assert finished(broken)[name] == written, "a finished trial was touched"
            once_done = finished(broken)
            if driver.poll() is not None:  # done, or a trial has lost too many workers
                out, err = driver.communicate()
                assert driver.returncode in (0, 1), err
                if driver.returncode == 0:
                    break
                driver = machines.drive(grid(machines.address, "broken"), place)
                continue
            victim = kills.pop()
            if victim == "driver":
                driver.kill()
                driver.communicate()
                if once_done and len(once_done) < NUM_TRIALS and not reported:
                    reported = True
                    left = NUM_TRIALS - len(once_done)
                    found = report_says(place, "broken")
                    assert found and found.groups() == (str(left), str(NUM_TRIALS))
                driver = machines.drive(grid(machines.address, "broken"), place)
            elif victim == "machine":
                index = rng.randrange(2)
                workers[index].kill()
                workers[index] = machines.add()
            else:
                running = [pid for machine in workers for pid in machine.worker_processes()]
                if not running:
                    kills.insert(0, victim)
                    continue
                os.kill(rng.choice(running), 9)
            killed.append(victim)
        assert len(killed) >= 20, f"the sweep ended after {len(killed)} kills"
        assert reported
        for _ in range(5):
            out, err = driver.communicate(timeout=600)
            if driver.returncode == 0:
                break
            assert driver.returncode == 1, err
            driver = machines.drive(grid(machines.address, "broken"), place)
        assert driver.returncode == 0, out + err
        for name, written in once_done.items():
            assert finished(broken)[name] == written, "a finished trial was touched"
        write_losses(place, 0)
        undisturbed = machines.drive(grid(machines.address, "whole"), place)
        out, err = undisturbed.communicate(timeout=600)
        assert undisturbed.returncode == 0, out + err
    assert_same_bits(broken, whole)
