"""Three hosts of their own: one is cut off and comes back, one dies, and nothing is shared.

Each host is a network namespace with an address, a host name and private folders on this machine.
Needs root and `ip`; minutes; `make test-cluster`.
"""

import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.ledger.ledger import Ledger
from sweeps.provenance import ROOT
from tests.support.ray_nodes import Machine, Machines
from tests.support.tiny import write_lit_cohort
from tests.sweeps.test_chaos import GRID, assert_same_bits, finished, write_losses

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip (package iproute2)"),
]

BECOME_A_HOST = """
set -e
mount --make-rprivate /
for folder in $PRIVATE; do mount -t tmpfs tmpfs "$folder"; done
ip link set lo up
hostname "$1"
shift
exec "$@"
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts(Machines):
    """Machines with networks of their own; the first is the head."""

    def __init__(self, private: list[Path]) -> None:
        super().__init__(PRIVATE=" ".join(map(str, private)))
        self.environment["PRIVATE"] += f" {self.folder}/tmp"
        self.environment["TMPDIR"] = f"{self.folder}/tmp"
        (self.folder / "tmp").mkdir()
        self._net = uuid.uuid4().hex[:6]
        self._subnet = f"10.77.{uuid.uuid4().int % 250}"
        self.address = f"{self._subnet}.1:{self.port}"
        self._bridge = f"br{self._net}"

    def __enter__(self) -> "Hosts":
        try:
            ip("link", "add", self._bridge, "type", "bridge")
            ip("link", "set", self._bridge, "up")
            for number in range(3):
                name, outside = self.name(number), f"v{self._net}{number}"
                ip("netns", "add", name)
                ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("link", "set", outside, "master", self._bridge, "up")
                ip("-n", name, "address", "add", f"{self._subnet}.{number + 1}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for number in range(3):  # its end of the cable goes with it
            subprocess.run(["ip", "netns", "del", self.name(number)], capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True)

    def name(self, number: int) -> str:
        return f"ls{self._net}-{number}"

    def host(self, number: int) -> Machine:
        """Start Ray on it."""
        joined = [f"--address={self.address}"]
        if number == 0:
            joined = ["--head", f"--port={self.port}", "--include-dashboard=false"]
            joined += [f"--temp-dir={self.folder}/tmp/r"]
        name = self.name(number)
        become = ["unshare", "--mount", "--uts", "sh", "-c", BECOME_A_HOST, "sh", name]
        return self.start(
            f"{self._subnet}.{number + 1}", int(number > 0), *joined,
            prefix=["ip", "netns", "exec", name, *become],
        )  # fmt: skip

    def cable(self, number: int, state: str) -> None:
        ip("link", "set", f"v{self._net}{number}", state)


def until(condition, driver, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_host_cut_off_and_a_host_lost_cost_no_bit_and_share_no_folder(tmp_path):
    place, results = tmp_path / "place", tmp_path / "place" / "results"
    write_lit_cohort(place / "data", [1, 2, 3, 4])
    write_losses(place, 0)
    results.mkdir()
    script = str(ROOT / "sweeps" / "paper_grid.py")
    undisturbed = [sys.executable, script, *GRID, "--results", "whole"]
    subprocess.run(undisturbed, cwd=place, check=True, capture_output=True)
    write_losses(place, 5)  # so that it lasts until the last machine is lost
    with Hosts(private=[results]) as hosts:
        head = hosts.host(0)
        inside = f"/proc/{head.process.pid}/root"
        broken = Ledger(Path(f"{inside}{results}/sweep"))
        one, two = hosts.host(1), hosts.host(2)
        enter = ["nsenter", "--target", str(head.process.pid), "--mount", "--uts", "--net"]
        command = [script, *GRID, "--address", hosts.address, "--results", "results/sweep"]
        driver = hosts.drive(command, place, prefix=[*enter, "env", "-C", str(place)])

        def at_work(number):
            found = []
            for file in broken.path.glob("trials/*/progress.json"):
                with suppress(FileNotFoundError):  # done meanwhile
                    found.append(f'"worker": "{hosts.name(number)}:' in file.read_text())
            return any(found)

        until(lambda: at_work(1) and at_work(2), driver)
        for host in (one, two):
            assert not list(Path(f"/proc/{host.process.pid}/root{results}").iterdir())
        hosts.cable(1, "down")
        until(lambda: not at_work(1), driver)  # what it was at was given to the other
        hosts.cable(1, "up")  # it may speak again, but not for a trial that is another's now
        one.kill()
        hosts.host(1)
        until(lambda: at_work(1), driver)
        before = finished(broken)
        two.kill()
        out, err = driver.communicate(timeout=900)
        assert driver.returncode == 0, out + err
        after = finished(broken)
        assert {name: after[name] for name in before} == before, "a finished trial was touched"
        assert_same_bits(broken, Ledger(place / "whole"))
    assert not list(results.iterdir())
