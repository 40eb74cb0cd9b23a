"""A SLURM of two nodes on this machine, of Debian's slurm-wlm, in a folder of its own.

Needs root, slurmctld, slurmd and munged.  Every process carries SLURM_CONF of that folder in its
environment, and those of a node SLURMD_NODENAME: so they are found, and ended, by number.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.ray_nodes import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
NODES = ("n1", "n2")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=10
InactiveLimit=0
SchedulerParameters=sched_interval=2
"""


class Slurm:
    """``with Slurm() as slurm``: nothing of it is left at the end."""

    def __init__(self, cpus: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lslurm-", dir="/tmp"))
        self.configuration = self.folder / "slurm.conf"
        nodes = "".join(
            f"NodeName={node} NodeHostname={os.uname().nodename} NodeAddr=127.0.0.1 "
            f"Port={free_port()} CPUs={cpus} RealMemory=4000 State=UNKNOWN\n"
            for node in NODES
        )
        nodes += f"PartitionName=all Nodes={','.join(NODES)} Default=YES State=UP\n"
        self.configuration.write_text(
            CONFIGURATION.format(host=os.uname().nodename, port=free_port(), folder=self.folder)
            + nodes
        )
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLURM")
        } | {"SLURM_CONF": str(self.configuration)}
        self.started: list[subprocess.Popen] = []

    def __enter__(self) -> Slurm:
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        places = [f"--key-file={key}", f"--socket={self.folder}/munge.socket"]
        places += [f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "log", "seed")]
        try:
            self._start("munged", "--foreground", "--force", *places)
            until(lambda: (self.folder / "munge.socket").exists(), 30, self.said)
            self._start("slurmctld", "-D", "-i")
            for node in NODES:
                self.start_node(node)
            until(lambda: self.states() == {node: "idle" for node in NODES}, 90, self.said)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        deadline = time.monotonic() + 60
        while found := self.processes():
            for number in found:
                kill(number)
            time.sleep(0.1)
            assert time.monotonic() < deadline, found
        for process in self.started:
            process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("a") as out:
            self.started.append(
                subprocess.Popen(
                    command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    cwd=self.folder,
                )
            )

    def start_node(self, node: str) -> None:
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._start("slurmd", "-D", "-N", node)

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """What a command of SLURM says."""
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.said()
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        """State of each node, as sinfo calls it."""
        try:
            lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        except AssertionError:  # slurmctld is still starting
            return {}
        return {line.split()[0]: line.split()[1] for line in lines}

    def job(self, number: str) -> dict[str, str]:
        """What scontrol says of a job."""
        said = self.run("scontrol", "show", "job", number)
        return dict(each.split("=", 1) for each in said.split() if "=" in each)

    def processes(self, node: str | None = None) -> list[int]:
        """Living processes of this SLURM: all, or a node's steps with its slurmd."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:  # ended meanwhile
                continue
            if f"SLURM_CONF={self.configuration}".encode() not in environment:
                continue
            of_node = f"SLURMD_NODENAME={node}".encode() in environment or (
                b"slurmd" in arguments[0] and str(node).encode() in arguments
            )
            if node is None or of_node:
                found.append(int(folder.name))
        return found

    def kill_node(self, node: str) -> None:
        """Its slurmd and all of its steps, as when it loses power."""
        deadline = time.monotonic() + 30
        while found := self.processes(node):
            for number in found:
                kill(number)
            time.sleep(0.1)
            assert time.monotonic() < deadline, found

    def said(self) -> str:
        """The ends of all logs."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in logs)


def kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return


def until(condition, seconds: float, said=lambda: "") -> None:
    """Wait for something, at most so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.3)
