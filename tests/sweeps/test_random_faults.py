"""Fifty faults at random on three hosts: every sweep ends with the bits of an undisturbed one.

Processes, hosts and drivers are killed, hosts cut off, the disk of the results is full, files of
unfinished trials are torn as by a loss of power, and clocks jump.  Needs root and `ip`; an hour;
`make test-cluster`, where FAULTS=N in the environment makes it shorter, and SEED=N another one.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from sweeps.ledger.ledger import Ledger
from sweeps.provenance import ROOT
from tests.support.tiny import write_lit_cohort
from tests.sweeps import test_hosts
from tests.sweeps.test_chaos import GRID, assert_same_bits, finished, progress, write_losses
from tests.sweeps.test_hosts import Hosts

pytestmark = test_hosts.pytestmark

FAULTS = int(os.environ.get("FAULTS", "50"))
SEED = int(os.environ.get("SEED", "1"))
KINDS = ("worker", "driver", "host", "partition", "full disk", "torn write", "clock")

CLOCK = """
import time
real = time.time

def shifted():
    try:
        with open({file!r}) as offset:
            return real() + float(offset.read() or 0)
    except OSError:
        return real()

time.time = shifted
"""
"""Of every Python process: its clock jumps when the file's number changes."""


class Rig:
    """Three hosts, a driver on the first, and all that can happen to them."""

    def __init__(self, hosts: Hosts, place: Path, results: Path, rng: random.Random) -> None:
        self.hosts, self.place, self.results, self.rng = hosts, place, results, rng
        head = hosts.host(0)
        self.inside = Path(f"/proc/{head.process.pid}/root{results}")
        self.enter = ["nsenter", "--target", str(head.process.pid), "--mount", "--uts", "--net"]
        self.workers = {number: hosts.host(number) for number in (1, 2)}
        self.folder, self.driver = "", None

    def begin(self, folder: str) -> None:
        """Start a driver for this results folder; again the same, if it is the same folder."""
        self.folder = folder
        command = [str(ROOT / "sweeps" / "paper_grid.py"), *GRID, "--address", self.hosts.address]
        command += ["--results", f"{self.results.name}/{folder}", "--retries", "9"]
        self.driver = self.hosts.drive(
            command, self.place, prefix=[*self.enter, "env", "-C", str(self.place)]
        )

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.inside / self.folder)

    def wait(self, seconds: float = 300) -> None:
        """Until an epoch more is in the ledger, or the driver has ended."""
        before, deadline = progress(self.ledger), time.monotonic() + seconds
        while progress(self.ledger) == before and self.driver.poll() is None:
            assert time.monotonic() < deadline, "nothing moves"
            time.sleep(0.2)

    def happen(self, kind: str) -> None:
        {
            "worker": self.kill_worker,
            "driver": self.restart_driver,
            "host": self.restart_host,
            "partition": self.cut_off,
            "full disk": self.fill_disk,
            "torn write": self.tear_file,
            "clock": self.shift_clock,
        }[kind]()

    def kill_worker(self) -> None:
        running = [pid for host in self.workers.values() for pid in host.worker_processes()]
        if running:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(running), signal.SIGKILL)

    def kill_driver(self) -> None:
        self.driver.kill()
        self.driver.communicate()

    def restart_driver(self) -> None:
        self.kill_driver()
        self.begin(self.folder)

    def restart_host(self) -> None:
        number = self.rng.choice([1, 2])
        self.workers[number].kill()
        self.workers[number] = self.hosts.host(number)

    def cut_off(self) -> None:
        number, seconds = self.rng.choice([1, 2]), self.rng.choice([2, 4, 40])
        self.hosts.cable(number, "down")
        time.sleep(seconds)
        self.hosts.cable(number, "up")
        if seconds == 40:  # for Ray it is dead, whatever it says now
            time.sleep(self.rng.uniform(0, 5))
            self.workers[number].kill()
            self.workers[number] = self.hosts.host(number)

    def fill_disk(self) -> None:
        blocks, free = map(int, self._inside("stat", "-f", "-c", "%b %f", ".").split())
        self._inside("mount", "-o", f"remount,size={(blocks - free + 2) * 4096}", str(self.results))
        deadline = time.monotonic() + self.rng.choice([5, 60])
        while self.driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        self._inside("mount", "-o", "remount,size=4g", str(self.results))

    def tear_file(self) -> None:
        self.kill_driver()
        done = finished(self.ledger)
        files = [
            file
            for file in sorted((self.inside / self.folder).glob("trials/*/*"))
            if file.parent.name not in done and file.is_file() and file.stat().st_size
        ]
        if files:
            file = self.rng.choice(files)
            os.truncate(file, int(self.rng.random() * file.stat().st_size))
        self.begin(self.folder)

    def shift_clock(self) -> None:
        jump = self.rng.choice([-86400, -3600, -5, 5, 3600, 86400])
        (self.place / "clock" / "offset").write_text(str(jump))

    def _inside(self, *command: str) -> str:
        entered = [*self.enter, "env", "-C", str(self.results), *command]
        return subprocess.run(entered, check=True, capture_output=True, text=True).stdout


def test_faults_at_random_cost_no_bit(tmp_path):
    place, results = tmp_path / "place", tmp_path / "place" / "results"
    write_lit_cohort(place / "data", [1, 2, 3, 4])
    write_losses(place, 0)
    results.mkdir()
    undisturbed = [sys.executable, str(ROOT / "sweeps" / "paper_grid.py"), *GRID]
    subprocess.run([*undisturbed, "--results", "whole"], cwd=place, check=True, capture_output=True)
    write_losses(place, 0.5)
    (place / "clock").mkdir()
    shift = CLOCK.format(file=str(place / "clock" / "offset"))
    (place / "clock" / "sitecustomize.py").write_text(shift)
    rng = random.Random(SEED)
    kinds = [
        kind for _ in range(FAULTS // len(KINDS) + 1) for kind in rng.sample(KINDS, len(KINDS))
    ]
    left, happened, number = kinds[:FAULTS], [], 0
    with Hosts(private=[results]) as hosts:
        hosts.environment["PYTHONPATH"] = str(place / "clock")
        rig = Rig(hosts, place, results, rng)
        while left:
            number += 1
            rig.begin(f"sweep{number}")
            once_done = {}
            while True:
                if left:
                    rig.wait(400)
                    time.sleep(rng.uniform(0, 2))
                else:
                    with suppress(subprocess.TimeoutExpired):
                        rig.driver.wait(600)
                now = finished(rig.ledger)
                assert {name: now[name] for name in once_done} == once_done, "a done trial touched"
                once_done = now
                if rig.driver.poll() is not None:
                    out, err = rig.driver.communicate()
                    if rig.driver.returncode == 0:
                        break
                    assert rig.driver.returncode == 1, (happened, out, err)
                    rig.begin(rig.folder)
                elif left:
                    happened.append(left.pop())
                    print(f"{time.strftime('%H:%M:%S')} {happened[-1]}", flush=True)
                    rig.happen(happened[-1])
            assert_same_bits(rig.ledger, Ledger(place / "whole"))
            print(f"sweep {number} has the bits, after {len(happened)} faults", flush=True)
    assert len(happened) == FAULTS
