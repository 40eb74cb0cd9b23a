"""Is every machine of the cluster fit for this sweep?  Asked before any trial starts there, or of
machines that join later as soon as they are seen.

One small task per machine says which libraries it has, whether ours can be imported there, and
whether a GPU that Ray counts can be used.  What would spoil a trial, or make its outcome depend on
where it ran, is an error; what only might matter is a warning:

    error     no answer, imports fail, a library that computes has another version than the
              driver's, Ray counts GPUs that PyTorch cannot use, the images do not fit
    warning   other versions of what only reads, writes or logs; anything on a machine where no
              trial fits; images that fit one cohort at a time
"""

from __future__ import annotations

import importlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from sweeps import options

SECONDS_TO_ANSWER = 120
"""A machine unpacks our code and imports PyTorch meanwhile, perhaps from a slow network disk."""

COMPUTING = ("python", "torch", "ray", "numpy", "scipy", "monai")
"""Equal versions of these are needed for equal bits."""

IMPORTS = ("torch", "lesion_core.trial", "sweeps.trials.attempt", "ray.tune")
STORE_SHARE = 0.9
"""Of an object store, for images: checkpoints pass through it too."""

COUNT_GPUS = "import torch; torch.cuda.init(); print(torch.cuda.device_count())"


@dataclass(frozen=True)
class Finding:
    """Something about one machine that is not as it should be."""

    level: Literal["error", "warning"]
    machine: str
    what: str
    found: str
    expected: str


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the cluster, as Ray describes it."""

    node_id: str
    address: str
    gpus: float
    store_bytes: float
    slots: int
    """Trials that fit at a time."""


def probe(gpus: float, modules: Sequence[str]) -> dict[str, Any]:
    """What a machine says of itself; runs there."""
    failed = {}
    for name in (*IMPORTS, *modules):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken library raises anything
            failed[name] = f"{type(error).__name__}: {error}"
    found: dict[str, Any] = {"host": socket.gethostname(), "failed": failed, "gpus": None}
    found["versions"] = versions()
    if gpus:  # in another process, which Ray has not hidden them from
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        counted = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = counted.stderr.strip().splitlines()
        found["gpus"] = int(counted.stdout) if counted.returncode == 0 else said[-1]
    return found


def versions() -> dict[str, str]:
    """Of this machine, W&B's too."""
    found = {"python": platform.python_version()}
    for library in (*options.LIBRARIES, "wandb"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def start(machines: Sequence[Node], modules: Sequence[str]) -> dict[str, Any]:
    """Send the probes; `findings` collects the answers, while the driver does something else."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(probe)
    return {
        machine.node_id: task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node_id, soft=False),
        ).remote(machine.gpus, list(modules))
        for machine in machines
    }


def findings(
    machines: Sequence[Node], started: Mapping[str, Any], alive: Callable[[], set[str]]
) -> list[Finding]:
    """What the probes found; waits for them.

    ``alive``: node ids of the machines that are in the cluster now: those that left are no matter.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    expected, found = versions(), []
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    for machine in machines:
        if machine.node_id not in started:
            continue
        try:
            answer: Any = ray.get(
                started[machine.node_id], timeout=max(0.1, deadline - time.monotonic())
            )
        except GetTimeoutError:
            trouble = f"none within {SECONDS_TO_ANSWER} s"
        except RayError as error:
            trouble = str(error)
        else:
            found += judged(machine, answer, expected)
            continue
        if machine.node_id in alive():
            found.append(_unanswered(machine, trouble))
    return found


class Newcomers:
    """Probes machines that join while the sweep runs, and says once what is wrong with each."""

    def __init__(self, known: Sequence[Node], modules: Sequence[str]) -> None:
        self._known = {machine.node_id for machine in known}
        self._modules = modules
        self._asked: dict[str, tuple[Node, Any]] = {}

    def look(self, machines: Sequence[Node]) -> list[Finding]:
        """Given those that are alive now; waits for nothing."""
        import ray
        from ray.exceptions import RayError

        new = [machine for machine in machines if machine.node_id not in self._known]
        self._known |= {machine.node_id for machine in new}
        started = start(new, self._modules)
        self._asked |= {machine.node_id: (machine, started[machine.node_id]) for machine in new}
        found = []
        for node_id, (machine, answer) in list(self._asked.items()):
            if ray.wait([answer], timeout=0)[0]:
                del self._asked[node_id]
                try:
                    found += judged(machine, ray.get(answer), versions())
                except RayError as error:
                    if machine in machines:  # not left again
                        found.append(_unanswered(machine, str(error)))
        return found


def _unanswered(machine: Node, trouble: str) -> Finding:
    said = " ".join(trouble.split())[:300]
    return Finding(_level(machine), machine.address, "answer", said, "one")


def judged(machine: Node, answer: Mapping[str, Any], expected: Mapping[str, str]) -> list[Finding]:
    """What is not as it should be in a machine's answer."""
    name, found = f"{machine.address} ({answer['host']})", []
    for module, error in answer["failed"].items():
        found.append(Finding(_level(machine), name, f"import {module}", error, "no error"))
    for library, there in answer["versions"].items():
        # torch 2.13.0+cpu and 2.13.0+cu130 are one version: the driver need not have a GPU
        if there.partition("+")[0] != expected[library].partition("+")[0]:
            level = _level(machine) if library in COMPUTING else "warning"
            found.append(Finding(level, name, library, there, expected[library]))
    gpus = answer["gpus"]
    if gpus is not None and (isinstance(gpus, str) or gpus < machine.gpus):
        expectation = f"{machine.gpus:g}, which Ray counts there"
        found.append(Finding(_level(machine), name, "usable GPUs", str(gpus), expectation))
    return found


def room(machines: Sequence[Node], cohorts: Mapping[str, int]) -> list[Finding]:
    """Whether every machine that runs trials can hold the images (bytes by cohort)."""
    found, largest, total = [], max(cohorts.values(), default=0), sum(cohorts.values())
    for machine in machines:
        if not machine.slots or total <= STORE_SHARE * machine.store_bytes:
            continue
        level = "error" if largest > STORE_SHARE * machine.store_bytes else "warning"
        needed = largest if level == "error" else total
        found.append(
            Finding(
                level, machine.address, "object store", _gb(machine.store_bytes),
                f"{_gb(needed / STORE_SHARE)} for the images "
                "(ray start --object-store-memory=BYTES)",
            )
        )  # fmt: skip
    return found


def table(found: Sequence[Finding]) -> str:
    """For people, errors first."""
    rows = [("", "machine", "what", "found there", "expected")]
    rows += [
        (one.level, one.machine, one.what, one.found, one.expected)
        for one in sorted(found, key=lambda one: one.level)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )


def _level(machine: Node) -> Literal["error", "warning"]:
    return "error" if machine.slots else "warning"


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
