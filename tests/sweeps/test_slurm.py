"""`slurm.sh` under SLURM itself: a node lost, the time up, back into the queue, and no bit other.

Two nodes of Debian's slurm-wlm on this machine.  Needs root; minutes; `make test-slurm`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.ledger.ledger import Ledger
from sweeps.provenance import ROOT
from tests.support.slurm import PROGRAMS, Slurm, until
from tests.support.tiny import write_lit_cohort
from tests.sweeps.test_chaos import GRID, assert_same_bits, finished, progress, write_losses

PATH = f"{os.environ['PATH']}:/usr/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run SLURM and munge"),
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: slurm-wlm, munge)"
    ),
]


@pytest.fixture
def place(tmp_path):
    """A checkout as SLURM finds it: data, losses and .venv in the folder of the job."""
    write_lit_cohort(tmp_path / "data", [1, 2, 3, 4])
    write_losses(tmp_path, 0)
    undisturbed = [sys.executable, str(ROOT / "sweeps" / "paper_grid.py"), *GRID]
    subprocess.run(
        [*undisturbed, "--results", "whole"], cwd=tmp_path, check=True, capture_output=True
    )
    write_losses(tmp_path, 2)
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={Path(sys.executable).parent}:$PATH\nexport RAY_worker_niceness=0\n")
    return tmp_path


def test_a_lost_node_and_a_time_limit_cost_no_bit(place):
    broken = Ledger(place / "broken")
    with Slurm() as slurm:
        sizes = ["--cpus-per-task=1", "--gpus-per-node=0", "--mem=0", "--time=60"]
        command = [str(ROOT / "sweeps" / "cluster" / "slurm.sh"), "python"]
        command += [str(ROOT / "sweeps" / "paper_grid.py"), *GRID, "--results", "broken"]
        options = [*sizes, "--signal=B:TERM@30", "--output=job.out", "--parsable"]
        job = slurm.run("sbatch", *options, *command, cwd=place)

        def said():
            return (place / "job.out").read_text()[-3000:] + str(slurm.job(job)) + slurm.said()

        def trials(node):
            """Steps of a node that run Ray's workers at a trial."""
            lines = [Path(f"/proc/{number}/cmdline") for number in slurm.processes(node)]
            texts = [line.read_text() for line in lines if line.exists()]
            return any(text.startswith("ray::") and "train" in text for text in texts)

        until(lambda: trials("n1") and trials("n2") and progress(broken), 400, said)
        slurm.run("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
        slurm.kill_node("n2")
        until(lambda: slurm.states()["n2"].startswith(("down", "drain*", "drng*")), 90, said)
        before = progress(broken)
        until(lambda: progress(broken) != before, 200, said)  # the job goes on without it
        assert slurm.job(job)["JobState"] == "RUNNING"
        slurm.start_node("n2")
        slurm.run("scontrol", "update", "nodename=n2", "state=resume")
        write_losses(place, 0.1)
        hours, minutes, _ = slurm.job(job)["RunTime"].split(":")
        limit = 60 * int(hours) + int(minutes) + 1
        slurm.run("scontrol", "update", f"jobid={job}", f"timelimit={limit}")
        until(lambda: slurm.job(job)["Restarts"] != "0", 60 * limit + 60, said)
        before = finished(broken)
        until(lambda: slurm.job(job)["JobState"] in ("COMPLETED", "FAILED"), 600, said)
        assert slurm.job(job)["JobState"] == "COMPLETED", said()
    text = (place / "job.out").read_text()
    assert "2 at a time on Ray cluster at " in text
    assert "stopped; the same command goes on from here" in text
    assert "12 of 12 trials are done" in text
    after = finished(broken)
    assert {name: after[name] for name in before} == before, "a finished trial was touched"
    assert_same_bits(broken, Ledger(place / "whole"))
