"""Starts machines of a Ray cluster as processes of this one, kills them, and cleans up after all.

Every process of a machine carries a mark in its environment, so that it is found whoever its parent
has become.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

MARK = "LESION_TEST_MACHINE"
RAY = str(Path(sys.executable).with_name("ray"))
STORE = 100_000_000
"""Bytes of a machine's object store."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def marked(mark: str) -> dict[int, str]:
    """Living processes with this mark: number and command line."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # ended meanwhile
            continue
    return found


def supervised(driver: subprocess.Popen[str]) -> int | None:
    """Number of the process that a driver supervises, which is the one that Ray knows."""
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    return int(children[0]) if children else None


def kill_marked(mark: str) -> None:
    """All of them at once, as when a machine loses power."""
    deadline = time.monotonic() + 60
    while found := marked(mark):
        for number in found:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
        assert time.monotonic() < deadline, found


class Machine:
    """A node of the cluster, with everything that runs on it."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        log: Path,
        prefix: Sequence[str] = (),
    ) -> None:
        self.mark = uuid.uuid4().hex
        with log.open("a") as said:
            self.process = subprocess.Popen(
                [*prefix, RAY, "start", "--block", *arguments],
                env={**environment, MARK: self.mark},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    def worker_processes(self) -> list[int]:
        """Those that run trials: Ray names its processes by what they do."""
        others = ("LedgerActor", "IDLE", "Agent")
        return [
            number
            for number, line in marked(self.mark).items()
            if line.startswith("ray::") and not any(other in line for other in others)
        ]

    def kill(self) -> None:
        kill_marked(self.mark)
        self.process.wait(timeout=60)


class Machines:
    """``with Machines() as machines``: none is left at the end."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lr-", dir="/tmp"))  # socket paths are short
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
            "RAY_worker_niceness": "0",  # tests wait for them
            "RAY_USAGE_STATS_ENABLED": "0",
            "TMPDIR": str(self.folder),
            **environment,
        }
        self.started: list[Machine] = []
        self._drivers: list[tuple[str, subprocess.Popen[str]]] = []

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *error: object) -> None:
        for mark, driver in self._drivers:
            kill_marked(mark)
            driver.communicate()
        for machine in self.started:
            machine.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def head(self, num_cpus: int = 0, *arguments: str) -> Machine:
        return self.start(
            "127.0.0.1", num_cpus, "--head", f"--port={self.port}", "--include-dashboard=false",
            f"--temp-dir={self.folder}/{len(self.started)}", *arguments,
        )  # fmt: skip

    def add(self, num_cpus: int = 1, *arguments: str) -> Machine:
        return self.start("127.0.0.1", num_cpus, f"--address={self.address}", *arguments)

    def start(
        self, own_address: str, num_cpus: int, *arguments: str, prefix: Sequence[str] = ()
    ) -> Machine:
        resources = [f"--num-cpus={num_cpus}", f"--object-store-memory={STORE}"]
        arguments = (f"--node-ip-address={own_address}", *resources, *arguments)
        deadline = time.monotonic() + 300
        while True:  # Ray itself gives up after 30 s, which a busy machine can need
            log = self.folder / f"start-{len(self.started)}.log"
            self.started.append(machine := Machine(arguments, self.environment, log, prefix))
            while "Ray runtime started" not in (said := log.read_text()):
                assert time.monotonic() < deadline, said
                if machine.process.poll() is not None:
                    assert "timed out during startup" in said, said
                    machine.kill()
                    break
                time.sleep(0.1)
            else:
                return machine

    def drive(
        self, command: Sequence[str], cwd: Path, prefix: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """A driver as a process of its own, which ends with the others."""
        mark = uuid.uuid4().hex
        driver = subprocess.Popen(
            [*prefix, sys.executable, *command], cwd=cwd, text=True,
            env=self.environment | environment | {MARK: mark},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._drivers.append((mark, driver))
        return driver
