"""kill -9 to the driver of a search, again and again: the budget is run, and run once."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lesion_core import results
from sweeps.ledger.ledger import Ledger
from sweeps.searching.optuna_study import OptunaStudy
from tests.sweeps.test_search import a_plan

DRIVER = Path(__file__).parents[1] / "support" / "search_driver.py"


def ran(folder):
    file = folder / "ran.txt"
    return file.read_text().split() if file.exists() else []


def killed(folder, configurations, rng):
    """Start the driver; kill it once it has run some more trials.  False: it was done before."""
    command = [sys.executable, str(DRIVER), str(folder), str(configurations)]
    before, more = len(ran(folder)), rng.randrange(0, 12)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        while driver.poll() is None and len(ran(folder)) < before + more:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        driver.kill()
        said, _ = driver.communicate()
    if driver.returncode == 0:
        return False
    assert driver.returncode == -9, said.decode()
    return True


def finish(folder, configurations):
    command = [sys.executable, str(DRIVER), str(folder), str(configurations)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kills", "configurations"), [(4, 8), pytest.param(40, 30, marks=pytest.mark.slow)]
)
def test_the_full_budget_is_run_exactly_once(tmp_path, kills, configurations):
    rng = random.Random(configurations)
    count = sum(killed(tmp_path, configurations, rng) for _ in range(kills))
    finish(tmp_path, configurations)
    search = results.read_search(tmp_path)
    assert len(search["configurations"]) == configurations
    assert {one["state"] for one in search["configurations"]} <= {"complete", "pruned"}

    names = [name for one in search["configurations"] for name in one["trials"].values()]
    expected = [trial["name"] for trial in results.read_meta(tmp_path)["trials"]]
    at_the_end = {name for name in expected if name not in names}
    # The chosen one and focal2 in every cell, and each fold's own choice in its own.
    assert 2 * 8 <= len(at_the_end) <= 3 * 8
    assert len(names) == len(set(names)) and len(expected) == len(set(expected))
    assert {folder.name for folder in (tmp_path / "trials").iterdir()} == set(expected)
    states = Ledger(tmp_path).states(expected)
    assert {state["status"] for state in states.values()} == {"done"}
    # One that was in the middle of it when its driver died began again; no other one did.
    twice = [name for name, number in Counter(ran(tmp_path)).items() if number > 1]
    assert len(twice) <= count

    plan = a_plan()
    study = OptunaStudy(tmp_path / "journal.log", "test", plan.space)
    by_number = {trial.number: trial for trial in study._trials()}
    for one in search["configurations"]:
        trial = by_number.pop(one["number"])
        assert trial.params == pytest.approx(one["values"])
        assert trial.values == pytest.approx([one["score"]["dice"]])
    assert {trial.state.name for trial in by_number.values()} <= {"FAIL"}  # never heard of again

    before = sorted(ran(tmp_path))
    finish(tmp_path, configurations)
    assert sorted(ran(tmp_path)) == before
