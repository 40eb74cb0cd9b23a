"""Why do trials wait, though the cluster's machines have room for them?

Other commands may hold the cores, or the workers are only being started.  Asked of the head alone,
which knows it without Ray's dashboard.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

SECONDS_TO_START = 20
"""A worker imports PyTorch meanwhile: so long, nobody asks why."""

HOLDERS_SHOWN = 3
LONGEST_COMMAND = 60


class Waiting:
    """Says why trials wait once they have done so for a while."""

    def __init__(self, cpus: float, gpus: float) -> None:
        """``cpus``, ``gpus``: what a trial takes."""
        self._needed = {name: each for name, each in (("CPU", cpus), ("GPU", gpus)) if each}
        self._since: float | None = None

    def look(self, left: int, running: int, slots: int) -> str:
        """Why some trials that are left wait; empty if none does, or not yet for long."""
        waiting = min(left, slots - running)
        if waiting <= 0:
            self._since = None
            return ""
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since < SECONDS_TO_START:
            return ""
        return f"{waiting} could run and wait: {self._reason()}"

    def _reason(self) -> str:
        import ray
        from ray._private.state import state

        total, free = state.total_resources_per_node(), state.available_resources_per_node()
        own = ray.get_runtime_context().get_job_id()
        held = _held_by_job()
        starting = "their workers are being started"
        if any(_fits(self._needed, each) for each in free.values()):
            return starting
        parts = []
        for name in self._needed:
            everything = sum(each.get(name, 0) for each in total.values())
            left = sum(each.get(name, 0) for each in free.values())
            if all(each.get(name, 0) < self._needed[name] for each in free.values()):
                parts.append(f"{left:g} of {everything:g} {name}s are free")
        others = {job: each for job, each in held.items() if job != own}
        holders = described(others, state.job_table(), list(self._needed))
        return "; ".join([*parts, *(holders or [starting])])


def described(
    held: Mapping[str, Mapping[str, float]], jobs: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[str]:
    """What each job holds of these resources, in words, most first."""
    known = {job["JobID"]: job for job in jobs}
    rows = sorted(held.items(), key=lambda row: -sum(row[1].get(name, 0) for name in names))
    said = []
    for job, amounts in rows:
        what = " and ".join(f"{amounts[name]:g} {name}" for name in names if amounts.get(name))
        if not what:
            continue
        who = f"job {job}"
        if job in known:
            driver = known[job]
            command = "".join(c if c.isprintable() else "?" for c in driver["Entrypoint"])
            if len(command) > LONGEST_COMMAND:
                command = command[:LONGEST_COMMAND] + "..."
            who += f" (process {driver['DriverPid']} on {driver['DriverIPAddress']}: {command})"
        said.append(f"{what} held by {who}")
    return said[:HOLDERS_SHOWN] + [f"and {len(said) - HOLDERS_SHOWN} jobs more"] * (
        len(said) > HOLDERS_SHOWN
    )


def _fits(needed: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(free.get(name, 0) >= amount for name, amount in needed.items())


def _held_by_job() -> dict[str, dict[str, float]]:
    """CPUs and GPUs that actors and placement groups hold, by job."""
    from ray._private.state import state
    from ray.core.generated import gcs_pb2 as generated

    gcs_pb2: Any = generated  # made when Ray was built
    accessor: Any = state._connect_and_get_accessor()
    held: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for packed in accessor.get_actor_table(None, None):
        actor = gcs_pb2.ActorTableData.FromString(packed)
        if actor.state == gcs_pb2.ActorTableData.ALIVE:
            for resource in actor.resource_mapping:  # "CPU_group_..." inside a placement group
                if resource.name in ("CPU", "GPU"):
                    amount = sum(each.quantity for each in resource.resource_ids)
                    held[actor.job_id.hex()][resource.name] += amount
    for packed in accessor.get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(packed)
        if group.state == gcs_pb2.PlacementGroupTableData.CREATED:
            for bundle in group.bundles:
                for name in ("CPU", "GPU"):
                    held[group.creator_job_id.hex()][name] += bundle.unit_resources.get(name, 0)
    return held
