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
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from sweeps.provenance import versions

SECONDS_TO_ANSWER = 120
"""A machine unpacks our code and imports PyTorch meanwhile, perhaps from a slow network disk."""

SECONDS_OF_PATIENCE = 20
"""After which it is said what is waited for."""

COMPUTING = ("python", "torch", "ray", "numpy", "scipy", "monai")
"""Equal versions of these are needed for equal bits."""

IMPORTS = ("torch", "lesion_core.trial", "sweeps.trials.attempt", "ray.tune")
STORE_SHARE = 0.9
"""Share of an object store that images may take: checkpoints pass through it too."""

ALSO_COMPARED = "wandb"
"""Beside `provenance.LIBRARIES`."""

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


class Answer(TypedDict):
    """What a machine says of itself."""

    host: str
    failed: dict[str, str]
    """Why, by name of the module that cannot be imported there."""
    gpus: int | str | None
    """How many PyTorch can use, or why none; None: Ray counts none there."""
    versions: dict[str, str]


def probe(gpus: float, modules: Sequence[str]) -> Answer:
    """What the machine that this runs on says of itself."""
    failed = {}
    for name in (*IMPORTS, *modules):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken library raises anything
            failed[name] = f"{type(error).__name__}: {error}"
    usable: int | str | None = None
    if gpus:  # in another process, which Ray has not hidden them from
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        counted = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        complaints = counted.stderr.strip().splitlines()
        usable = int(counted.stdout) if counted.returncode == 0 else complaints[-1]
    return {
        "host": socket.gethostname(),
        "failed": failed,
        "gpus": usable,
        "versions": versions(ALSO_COMPARED),
    }


def start(machines: Sequence[Node], modules: Sequence[str]) -> dict[str, Any]:
    """Send a probe to every machine; `findings` collects the answers later."""
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
    """Wait for the machines' answers, and say what is not as it should be.

    ``alive``: node ids of the machines that are in the cluster now: those that left are no matter.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    asked = {started[each.node_id]: each for each in machines if each.node_id in started}
    if not asked:
        return []
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    if late := ray.wait([*asked], num_returns=len(asked), timeout=SECONDS_OF_PATIENCE)[1]:
        print(
            f"waiting for {len(late)} of {len(asked)} machines to say what is installed there: "
            + ", ".join(sorted(asked[each].address for each in late)),
            flush=True,
        )
    expected, found = versions(ALSO_COMPARED), []
    for reference, machine in asked.items():
        try:
            answer: Answer = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
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

    def __init__(
        self,
        known: Sequence[Node],
        modules: Sequence[str],
        cohorts: Mapping[str, int] | None = None,
    ) -> None:
        """``cohorts``: bytes of the images, by cohort."""
        self._known = {machine.node_id for machine in known}
        self._modules = modules
        self._cohorts = cohorts or {}
        self.unfit: set[str] = set()
        """Node ids of those that trials are to avoid: something would spoil them there."""
        self._asked: dict[str, tuple[Node, Any]] = {}

    def look(self, machines: Sequence[Node]) -> list[Finding]:
        """Look at the machines that are alive now; waits for no answer."""
        import ray
        from ray.exceptions import RayError

        new = [machine for machine in machines if machine.node_id not in self._known]
        self._known |= {machine.node_id for machine in new}
        started = start(new, self._modules)
        self._asked |= {machine.node_id: (machine, started[machine.node_id]) for machine in new}
        found = []
        for machine in new:
            found += self._noted(machine, object_store_findings([machine], self._cohorts))
        for node_id, (machine, answer) in list(self._asked.items()):
            if ray.wait([answer], timeout=0)[0]:
                del self._asked[node_id]
                try:
                    findings = judged(machine, ray.get(answer), versions(ALSO_COMPARED))
                except RayError as error:
                    if machine not in machines:  # left again
                        continue
                    findings = [_unanswered(machine, str(error))]
                found += self._noted(machine, findings)
        return found

    def _noted(self, machine: Node, found: list[Finding]) -> list[Finding]:
        if any(finding.level == "error" for finding in found):
            self.unfit.add(machine.node_id)
        return found


def _unanswered(machine: Node, trouble: str) -> Finding:
    reason = " ".join(trouble.split())[:300]
    return Finding(_level(machine), machine.address, "answer", reason, "one")


def judged(machine: Node, answer: Answer, expected: Mapping[str, str]) -> list[Finding]:
    """What is not as it should be in a machine's answer."""
    name, found = f"{machine.address} ({answer['host']})", []
    for module, error in answer["failed"].items():
        found.append(Finding(_level(machine), name, f"import {module}", error, "no error"))
    for library, installed in answer["versions"].items():
        # torch 2.13.0+cpu and 2.13.0+cu130 are one version: the driver need not have a GPU
        if installed.partition("+")[0] != expected[library].partition("+")[0]:
            level = _level(machine) if library in COMPUTING else "warning"
            found.append(Finding(level, name, library, installed, expected[library]))
    gpus = answer["gpus"]
    if gpus is not None and (isinstance(gpus, str) or gpus < machine.gpus):
        expectation = f"{machine.gpus:g}, which Ray counts there"
        found.append(Finding(_level(machine), name, "usable GPUs", str(gpus), expectation))
    return found


def object_store_findings(machines: Sequence[Node], cohorts: Mapping[str, int]) -> list[Finding]:
    """Machines that run trials but cannot hold the images (bytes by cohort)."""
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
    """Findings as a table for people, errors first."""
    rows = [("", "machine", "what", "found there", "expected")]
    rows += [
        (each.level, each.machine, each.what, each.found, each.expected)
        for each in sorted(found, key=lambda each: each.level)
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
