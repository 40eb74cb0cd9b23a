"""What a worker process runs: one trial after the other, each with the driver's ledger far away."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lesion_core.stopping import TrainingStopped
from sweeps.distributed.ledger_actor import RemoteLedger
from sweeps.ledger.ledger import LedgerError, NotTheTrialsFault
from sweeps.tracking.policy import Tracking
from sweeps.trials.attempt import attempt

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort


SECONDS_BETWEEN_LOOKS = 2.0
"""At whether the driver wants trials to leave a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of a sweep have in common; Ray takes it to every worker once."""

    ledger: Any
    """Ray's handle of the `LedgerActor`."""
    cohorts: Mapping[str, Any]
    """Ray's references to the images in its object store, by name."""
    device: Literal["cpu", "cuda"]
    threads: int
    checkpoint_every: int
    """Epochs."""
    tracking: Tracking
    """Without the key, which the ledger's actor has."""
    run: str
    """What trains; see `attempt.RUN`."""


def train(config: Mapping[str, str], shared: Shared) -> None:
    """Run one trial, given the text of its trial.json; Tune calls this on a worker."""
    import ray
    from ray import tune
    from ray.exceptions import RayError

    trial = json.loads(config["trial"])
    ledger = RemoteLedger(shared.ledger)

    def cohort() -> LoadedCohort:
        try:
            return ray.get(shared.cohorts[trial["cohort"]])
        except RayError as error:
            raise NotTheTrialsFault(f"the images cannot be fetched: {error}") from error

    def train_it() -> None:
        tracking = shared.tracking
        if tracking.mode == "online":
            tracking = replace(tracking, key=ledger.key())
        attempt(
            trial,
            cohort,
            ledger,
            device=shared.device,
            threads=shared.threads,
            checkpoint_every=shared.checkpoint_every,
            tracking=tracking,
            run=shared.run,
            stop=asked.is_set,
        )

    # The driver hears of it from the ledger, and stops.
    with contextlib.suppress(LedgerError), _asked_to_stop(shared.ledger, trial["name"]) as asked:
        try:
            if shared.device == "cuda":
                _one_thread().submit(train_it).result()
            else:
                train_it()
        except TrainingStopped:
            while not ledger.stopped(trial["name"]):  # an end would make Tune begin another here
                time.sleep(1)
        ledger.settle()
    if shared.device == "cuda":  # the next trial here finds the memory free
        import torch

        torch.cuda.empty_cache()
    tune.report({"ended": 1})


@contextlib.contextmanager
def _asked_to_stop(actor: Any, name: str) -> Iterator[threading.Event]:
    """An event that is set, within seconds, once the driver wants a trial to leave a checkpoint."""
    asked, over = threading.Event(), threading.Event()

    def look() -> None:
        ledger = RemoteLedger(actor)
        with contextlib.suppress(Exception):  # no ledger, no stop: whoever needs it says why
            while not over.wait(SECONDS_BETWEEN_LOOKS):
                if ledger.is_stopping(name):
                    asked.set()
                    return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield asked
    finally:
        over.set()


@functools.cache
def _one_thread() -> ThreadPoolExecutor:
    """The one thread for all trials of this process.

    Tune makes a thread for each, and cuDNN's choice of algorithms, which takes seconds, is a
    thread's own.
    """
    return ThreadPoolExecutor(max_workers=1)
