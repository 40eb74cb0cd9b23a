"""How Ray Tune is made to follow a supply of trials.  Imported when Tune is about to run: by then
Ray must be there, whose classes these are made from.

Tune asks `SupplySearcher` for one trial more whenever a worker is free.  `SupplyFeedback` hears how
it ended, and gives a trial again that lost its worker.  The other two stop Tune from keeping every
trial in memory that it ever ran.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ray import cloudpickle, tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.distributed.ledger_actor import RemoteLedger
from sweeps.distributed.worker import Shared, train
from sweeps.ledger.contents import TrialDescription
from sweeps.ledger.ledger import NotTheTrialsFault
from sweeps.trials.supply import Supply

T = TypeVar("T")


def run_trials(
    supply: Supply, shared: Shared, scratch: str, *, gpus_per_trial: float, slots: int, retries: int
) -> None:
    """Let Tune run every trial of the supply; returns when none is left and none runs.

    ``scratch``: a folder for Tune's own files, which nobody reads.
    """
    local = LocalSupply(supply)
    trainable = tune.with_resources(
        tune.with_parameters(train, shared=shared),
        functools.partial(placement, shared.threads, gpus_per_trial),
    )
    # Read when `fit` starts.  One more than can run is enough to keep every worker busy.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots + 1)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=SupplySearcher(local),
            scheduler=DropEndedTrials(local),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=trial_name,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),  # `SupplyFeedback` tries again
            callbacks=[SupplyFeedback(local, shared.ledger, retries), NoProgressTables()],
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if local.raised is not None:
            raise local.raised from None
        raise


avoided: set[str] = set()
"""Node ids of machines that get no more trials.  Here, since Tune calls a copy of `placement`."""


def placement(cpus: int, gpus: float, config: Any) -> tune.PlacementGroupFactory:
    """What a trial takes, and where: on any machine that is not avoided."""
    selector = [{"ray.io/node-id": f"!in({', '.join(sorted(avoided))})"}] if avoided else None
    return tune.PlacementGroupFactory([{"CPU": cpus, "GPU": gpus}], bundle_label_selector=selector)


class LocalSupply:
    """A supply that stays in this process: Tune pickles what it is given, and nobody reads that.

    Gives a trial again that lost its worker.  Tune answers what a supply raises with an error of
    its own, so the first one is kept.
    """

    def __init__(self, supply: Supply | None = None) -> None:
        self._supply: Any = supply
        self._lost: deque[TrialDescription] = deque()
        self._running: set[str] = set()
        self.raised: Exception | None = None
        self.ended_in_tune: set[Any] = set()
        """Tune's objects of trials that have ended, until `DropEndedTrials` has dropped them."""

    def __reduce__(self) -> tuple[type[LocalSupply], tuple[()]]:
        return LocalSupply, ()

    @property
    def finished(self) -> bool:
        """Whether no trial comes any more; one that runs may yet lose its worker."""
        return self._supply.finished and not self._lost and not self._running

    def take(self) -> TrialDescription | None:
        """The next trial: first those that lost their worker, then the supply's."""
        trial = self._lost.popleft() if self._lost else self.keep_error_of(self._supply.take)
        if trial is not None:
            self._running.add(trial["name"])
        return trial

    def give_again(self, trial: TrialDescription) -> None:
        """Queue a trial again whose worker was lost."""
        self._running.discard(trial["name"])
        self._lost.append(trial)

    def ended(self, name: str) -> None:
        """Pass on that the ledger has this trial done or failed."""
        self._running.discard(name)
        self.keep_error_of(lambda: self._supply.ended(name))

    def keep_error_of(self, call: Callable[[], T]) -> T:
        """What a call returns; an exception of it is kept in `raised` on its way."""
        try:
            return call()
        except Exception as error:
            self.raised = self.raised or error
            raise


class SupplySearcher(Searcher):
    """Tune's way of asking for one trial more."""

    def __init__(self, supply: LocalSupply) -> None:
        super().__init__(metric="ended", mode="max")
        self._supply = supply

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's configuration; None: none for now."""
        trial = self._supply.take()
        if trial is not None:
            return {"trial": json.dumps(dict(trial))}
        return Searcher.FINISHED if self._supply.finished else None

    def on_trial_complete(self, trial_id: str, *rest: Any, **more: Any) -> None:
        """Nothing: `SupplyFeedback` knows the trial's name."""


class SupplyFeedback(tune.Callback):
    """Tells the supply which trials have ended, and gives those again that lost their worker.

    Tune itself moves a trial to another machine only if its own one was preempted.  A worker that
    died, alone or with its machine, is a failed trial to Tune; we count these, and after more than
    ``retries`` the ledger has the trial failed.
    """

    def __init__(self, supply: LocalSupply, ledger: Any, retries: int) -> None:
        self._supply, self._ledger, self._retries = supply, ledger, retries
        self._workers_lost: Counter[str] = Counter()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Tell the supply: the ledger has the trial done or failed."""
        self._supply.ended_in_tune.add(trial)
        self._supply.ended(trial_name(trial))

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that a trial's machine was preempted: Tune puts it elsewhere."""
        self._ledger.lost.remote(trial_name(trial))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Give the trial again, or have it failed if it lost too many workers."""
        self._supply.ended_in_tune.add(trial)
        if self._supply.raised is not None:  # which Tune took for the trial's failure
            raise self._supply.raised
        name = trial_name(trial)
        # Tune counts two where an idle worker dies, and none where a machine is preempted.
        self._workers_lost[name] += min(1, trial.num_failures)
        if self._workers_lost[name] <= self._retries:
            self._ledger.lost.remote(name)
            self._supply.give_again(json.loads(trial.config["trial"]))
            return
        self._supply.keep_error_of(lambda: self._record_failure(trial, self._workers_lost[name]))
        self._supply.ended(name)

    def _record_failure(self, trial: Any, times: int) -> None:
        reason, traceback = last_error(trial)
        RemoteLedger(self._ledger).failed(
            json.loads(trial.config["trial"]),
            {
                "kind": "infrastructure",
                "error": f"its worker process or machine failed {times} times, last: {reason}",
                "traceback": traceback,
            },
        )


def last_error(trial: Any) -> tuple[str, str]:
    """Why a trial of Tune's failed last, in one line, and where; a process that died cannot say."""
    with contextlib.suppress(Exception):
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        cause = error.cause
        kind = "" if isinstance(cause, NotTheTrialsFault) else f"{type(cause).__name__}: "
        where = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # Ray colours it
        return " ".join(f"{kind}{cause}".split())[:400], where
    return "its worker process died", ""


class NoProgressTables(TrialProgressCallback):
    """In place of Tune's own, which keeps every trial that it has reported on."""

    def on_trial_result(self, *rest: Any, **info: Any) -> None:
        pass

    def on_trial_complete(self, *rest: Any, **info: Any) -> None:
        pass

    def on_trial_error(self, *rest: Any, **info: Any) -> None:
        pass


class DropEndedTrials(FIFOScheduler):
    """Tune keeps every trial, 0.1 MB each, to the end; what has ended is in the ledger."""

    def __init__(self, supply: LocalSupply) -> None:
        super().__init__()
        self._supply = supply

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        drop_ended(tune_controller, self._supply.ended_in_tune)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        drop_ended(tune_controller, self._supply.ended_in_tune)


def drop_ended(controller: Any, ended: set[Any]) -> None:
    """Drop trials that have ended, and hold no worker any more, from all that lists them."""
    dropped = {trial for trial in ended if trial not in controller._trial_to_actor}
    ended -= dropped
    controller._trials[:] = [trial for trial in controller._trials if trial not in dropped]
    for kept in ("_stopped_trials", "_failed_trials", "_live_trials", "_trials_to_cache"):
        getattr(controller, kept).difference_update(dropped)


def trial_name(trial: Any) -> str:
    """Our name of one of Tune's trials."""
    return json.loads(trial.config["trial"])["name"]
