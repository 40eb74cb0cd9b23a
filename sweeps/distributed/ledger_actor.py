"""The ledger as an actor beside the driver: the one writer, for workers on any machine.

Workers share no disk with the driver.  Their rows, checkpoints and logs come here through Ray, and
checkpoints go out again to whoever continues a trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps.ledger.ledger import Ledger, LedgerError, NotTheTrialsFault


class Keeper(Ledger):
    """A ledger that also knows what goes on."""

    def __init__(self, path: Path, token: str | None) -> None:
        super().__init__(path, token)
        self._running: dict[str, dict[str, Any]] = {}
        self._done: list[str] = []
        self._failed: dict[str, str] = {}
        self._epochs_trained = 0
        self._broken: str | None = None

    def snapshot(self) -> dict[str, Any]:
        return {
            "running": self._running,
            "done": self._done,
            "failed": self._failed,
            "epochs_trained": self._epochs_trained,
            "broken": self._broken,
        }

    def begin(self, trial: Mapping[str, Any], worker: str = "") -> dict[str, Any]:
        if trial["name"] in self._failed:  # its worker died before Tune heard of it
            return {"state": "failed"}
        begun = super().begin(trial, worker)
        if begun["state"] == "done":  # its worker died before Tune heard of it
            self._running.pop(trial["name"], None)
            self._done.append(trial["name"])
        else:
            epoch = -1 if begun["epoch"] is None else begun["epoch"]
            self._running[trial["name"]] = {"epoch": epoch, "worker": worker, "since": time.time()}
        return begun

    def lost(self, name: str) -> None:
        """Its worker is gone; it waits for another."""
        self._running.pop(name, None)

    def epoch(self, name: str, report: Mapping[str, Any], attempt: int | None = None) -> None:
        super().epoch(name, report, attempt)
        self._epochs_trained += report["epoch"] > 0
        if name in self._running:
            self._running[name]["epoch"] = report["epoch"]

    def epoch_in_parts(
        self, name: str, report: Mapping[str, Any], attempt: int, checkpoint: bytes | None
    ) -> None:
        """As `epoch`: Ray passes large bytes by themselves at a tenth of the cost."""
        self.epoch(name, {**report, "checkpoint": checkpoint}, attempt)

    def done(self, name: str, summary: Mapping[str, Any], attempt: int | None = None) -> None:
        super().done(name, summary, attempt)
        self._running.pop(name, None)
        self._done.append(name)

    def failed(
        self, trial: Mapping[str, Any], failure: Mapping[str, Any], attempt: int | None = None
    ) -> None:
        super().failed(trial, failure, attempt)
        self._running.pop(trial["name"], None)
        self._failed[trial["name"]] = failure["error"]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with super()._writing():
                yield
        except LedgerError as error:
            self._broken = str(error)
            raise


def start(results: Path, token: str | None) -> Any:
    """On the driver's machine, where the folder is; restarted if it dies, its calls repeated."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(Keeper)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=here, soft=False),
        )
        .remote(results.resolve(), token)
    )


class Remote:
    """The keeper's methods as if it were here (`attempt.LedgerCalls`).

    Epochs and logs are handed over, and the worker goes on while they are written; the next call
    but a log, or `settle`, waits for that and raises what went wrong.
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper
        self._handed_over: list[Any] = []

    def epoch(self, name: str, report: Mapping[str, Any], attempt: int) -> None:
        self.settle()
        rest = {**report, "checkpoint": None}
        call = self._keeper.epoch_in_parts.remote(name, rest, attempt, report["checkpoint"])
        self._handed_over.append(call)

    def log(self, *arguments: Any) -> None:
        self._handed_over.append(self._keeper.log.remote(*arguments))

    def settle(self) -> None:
        """Returns when all that was handed over is in the ledger."""
        handed_over, self._handed_over = self._handed_over, []
        _answers(handed_over)

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.settle()
            return _answers([getattr(self._keeper, method).remote(*arguments, **named)])[0]

        return call


def _answers(calls: list[Any]) -> list[Any]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(calls)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise NotTheTrialsFault(f"the ledger cannot be reached: {error}") from error
