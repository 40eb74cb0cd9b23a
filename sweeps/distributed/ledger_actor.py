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

import numpy as np

from sweeps.ledger.contents import (
    EpochContent,
    Failure,
    Go,
    NothingToDo,
    Summary,
    TrialDescription,
)
from sweeps.ledger.ledger import Ledger, LedgerError, NotTheTrialsFault
from sweeps.trials.curve import validation_dice
from sweeps.trials.progress import Running, Snapshot


class LedgerActor(Ledger):
    """A ledger that also knows what goes on."""

    def __init__(self, path: Path, token: str | None) -> None:
        super().__init__(path, token)
        self._running: dict[str, Running] = {}
        self._done: list[str] = []
        self._failed: dict[str, str] = {}
        self._epochs_trained = 0
        self._broken: str | None = None
        self._key: str | None = None
        self._stopping = False
        self._given_up: set[str] = set()
        self._ended_early: list[str] = []

    def take_key(self, key: str | None) -> None:
        """Keep W&B's key for the workers: by a call, since Ray and Tune keep all else in files."""
        self._key = key

    def key(self) -> str | None:
        """W&B's key; None if there is none, or this actor was restarted a moment ago."""
        return self._key

    def stop(self) -> list[str]:
        """Ask every trial to leave a checkpoint, and let none begin; names those that run yet."""
        self._stopping = True
        return list(self._running)

    def give_up(self, name: str) -> None:
        """Ask one trial to leave a checkpoint and end, though its training is not over."""
        self._given_up.add(name)

    def is_stopping(self, name: str) -> bool:
        """Whether a trial is asked to leave a checkpoint."""
        return self._stopping or name in self._given_up

    def snapshot(self) -> Snapshot:
        """How far the trials of this driver are."""
        return {
            "running": self._running,
            "done": self._done,
            "failed": self._failed,
            "given_up": self._ended_early,
            "epochs_trained": self._epochs_trained,
            "broken": self._broken,
            "has_key": self._key is not None,
        }

    def begin(self, trial: TrialDescription, worker: str = "") -> Go | NothingToDo:
        """Start or continue a trial, unless it has ended under this driver."""
        if trial["name"] in self._failed:  # its worker died before Tune heard of it
            return {"state": "failed"}
        if self.is_stopping(trial["name"]):
            return {"state": "stopping"}
        begun = super().begin(trial, worker)
        if begun["state"] != "go":  # its worker died before Tune heard of it
            self._running.pop(trial["name"], None)
            self._done.append(trial["name"])
        else:
            epoch = -1 if begun["epoch"] is None else begun["epoch"]
            self._running[trial["name"]] = {"epoch": epoch, "worker": worker, "since": time.time()}
        return begun

    def lost(self, name: str) -> None:
        """Note that a trial's worker is gone: it waits for another."""
        self._running.pop(name, None)

    def epoch(self, name: str, report: EpochContent, attempt: int | None = None) -> None:
        """Add an epoch, and count it."""
        super().epoch(name, report, attempt)
        self._epochs_trained += report["epoch"] > 0
        if name in self._running:
            self._running[name]["epoch"] = report["epoch"]
            if (score := validation_dice(report["cases"])) is not None:
                self._running[name].setdefault("curve", {})[report["epoch"]] = score

    def epoch_in_parts(
        self, name: str, report: EpochContent, attempt: int, checkpoint: np.ndarray | None
    ) -> None:
        """Add an epoch whose checkpoint comes apart, as an array of bytes: those Ray copies once
        into its store, and this process reads them where they lie."""
        content = None if checkpoint is None else checkpoint.data
        self.epoch(name, {**report, "checkpoint": content}, attempt)

    def stopped(self, name: str) -> bool:
        """Note that a trial does not go on: it has left what it had.  Whether that is its end."""
        self._running.pop(name, None)
        ends = name in self._given_up and not self._stopping
        if ends and name not in self._ended_early:
            self._ended_early.append(name)
        return ends

    def done(self, name: str, summary: Summary, attempt: int | None = None) -> None:
        """Mark a trial complete; it does not run any more."""
        super().done(name, summary, attempt)
        self._running.pop(name, None)
        self._done.append(name)

    def failed(self, trial: TrialDescription, failure: Failure, attempt: int | None = None) -> None:
        """Mark a trial failed; it does not run any more."""
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
    """Start the actor on this machine, where the folder is.

    Ray restarts it if it dies, and repeats its calls.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    this_node = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(LedgerActor)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=this_node, soft=False),
        )
        .remote(results.resolve(), token)
    )


class RemoteLedger:
    """The actor's methods, called from a worker (`attempt.LedgerCalls`).

    Epochs and logs are handed over, and the worker goes on while they are written; the next call
    but a log, or `settle`, waits for that and raises what went wrong.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._handed_over: list[Any] = []

    def begin(self, trial: TrialDescription, worker: str) -> Go | NothingToDo:
        """`Ledger.begin`, after all that was handed over."""
        return self._answer(self._actor.begin, trial, worker)

    def epoch(self, name: str, report: EpochContent, attempt: int) -> None:
        """`Ledger.epoch`, handed over."""
        self.settle()
        rest = {**report, "checkpoint": None}
        checkpoint = report["checkpoint"]
        apart = None if checkpoint is None else np.frombuffer(checkpoint, np.uint8)
        call = self._actor.epoch_in_parts.remote(name, rest, attempt, apart)
        self._handed_over.append(call)

    def checkpoint(self, name: str, checkpoint: bytes, epoch: int, attempt: int) -> None:
        """`Ledger.checkpoint`, after all that was handed over."""
        self._answer(self._actor.checkpoint, name, checkpoint, epoch, attempt)

    def stopped(self, name: str) -> bool:
        """`LedgerActor.stopped`, after all that was handed over."""
        return self._answer(self._actor.stopped, name)

    def is_stopping(self, name: str) -> bool:
        """`LedgerActor.is_stopping`, past what was handed over."""
        return _answers([self._actor.is_stopping.remote(name)])[0]

    def done(self, name: str, summary: Summary, attempt: int) -> None:
        """`Ledger.done`, after all that was handed over."""
        self._answer(self._actor.done, name, summary, attempt)

    def failed(self, trial: TrialDescription, failure: Failure, attempt: int | None = None) -> None:
        """`Ledger.failed`, after all that was handed over."""
        self._answer(self._actor.failed, trial, failure, attempt)

    def log(self, name: str, text: str) -> None:
        """`Ledger.log`, handed over."""
        self._handed_over.append(self._actor.log.remote(name, text))

    def write_files(self, files: Mapping[str, bytes], instead_of: str | None) -> None:
        """`Ledger.write_files`, after all that was handed over."""
        self._answer(self._actor.write_files, files, instead_of)

    def key(self) -> str | None:
        """`LedgerActor.key`."""
        return self._answer(self._actor.key)

    def settle(self) -> None:
        """Wait until all that was handed over is in the ledger."""
        handed_over, self._handed_over = self._handed_over, []
        _answers(handed_over)

    def _answer(self, method: Any, *arguments: Any) -> Any:
        self.settle()
        return _answers([method.remote(*arguments)])[0]


def _answers(calls: list[Any]) -> list[Any]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(calls)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise NotTheTrialsFault(f"the ledger cannot be reached: {error}") from error
