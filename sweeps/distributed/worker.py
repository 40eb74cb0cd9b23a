"""What a worker process runs: one trial after the other, each with the driver's ledger far away."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sweeps.distributed.ledger_actor import RemoteLedger
from sweeps.ledger.ledger import LedgerError, NotTheTrialsFault
from sweeps.tracking.policy import Tracking
from sweeps.trials.attempt import attempt

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort


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
        )

    with contextlib.suppress(LedgerError):  # the driver hears of it from the ledger, and stops
        if shared.device == "cuda":
            _one_thread().submit(train_it).result()
        else:
            train_it()
        ledger.settle()
    if shared.device == "cuda":  # the next trial here finds the memory free
        import torch

        torch.cuda.empty_cache()
    tune.report({"ended": 1})


@functools.cache
def _one_thread() -> ThreadPoolExecutor:
    """The one thread for all trials of this process.

    Tune makes a thread for each, and cuDNN's choice of algorithms, which takes seconds, is a
    thread's own.
    """
    return ThreadPoolExecutor(max_workers=1)
