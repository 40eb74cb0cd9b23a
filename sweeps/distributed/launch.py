"""Trials on Ray: where they run, how they restart, and how their results come home.

Ray Tune only schedules.  It gives trials their turn, keeps a worker process for the next one, and
puts a trial whose worker or machine died on another.  What a trial is, whether it is done and
where it stopped is the ledger's: one actor beside the driver, which alone writes to the results
folder and hands out checkpoints.  So machines share no disk, and Tune's own state is thrown away.

Facts of Ray 2.60 that this follows: a reused worker starts a trial in milliseconds, a new one in
seconds; ``fit`` returns normally whatever failed; ``Tuner.restore`` runs things twice; dataclasses
in a parameter space are mangled, so a trial travels as the text of its trial.json.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps import command
from sweeps.distributed import connect, ledger_actor, preflight
from sweeps.distributed.preflight import Node
from sweeps.ledger.ledger import LedgerError
from sweeps.options import Machines
from sweeps.tracking.policy import Tracking
from sweeps.trials import attempt
from sweeps.trials.progress import Display, LiveFile, Progress

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort

SECONDS_TO_LEAVE = 20
"""A cluster whose head is gone can keep `ray.shutdown` waiting for ever."""


class Supply(Protocol):
    """Where the next trial comes from; a search decides on it by what has ended."""

    @property
    def epochs(self) -> Mapping[str, int]:
        """By name, of every trial known so far that shall run: what progress counts."""
        ...

    def take(self) -> Mapping[str, Any] | None:
        """The next trial (what its trial.json says); None: none for now, or none any more."""
        ...

    @property
    def finished(self) -> bool:
        """No trial will ever come again.  If none is running, `take` gives one or this is so."""
        ...

    def ended(self, name: str) -> None:
        """The ledger has this one done or failed."""
        ...

    def note(self) -> str:
        """How far it is, beyond the number of trials; may be empty."""
        ...

    def room(self, slots: int) -> None:
        """So many trials can run at a time from now on: machines have joined or left."""
        ...


class Listed:
    """Trials that are all known beforehand, in order."""

    def __init__(self, trials: Sequence[Mapping[str, Any]]) -> None:
        self.epochs = {trial["name"]: trial["epochs"] for trial in trials}
        self._left = list(reversed(trials))

    def take(self) -> Mapping[str, Any] | None:
        return self._left.pop() if self._left else None

    @property
    def finished(self) -> bool:
        return not self._left

    def ended(self, name: str) -> None:
        pass

    def note(self) -> str:
        return ""

    def room(self, slots: int) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray that this process is connected to."""

    asked: Machines
    gpus_per_trial: float
    nodes: Sequence[Node]
    where: str
    """For people."""
    probes: Mapping[str, Any]
    """Answers of the nodes that are on their way, by node id."""
    modules: Sequence[str] = ()
    """Names of the user's own, which workers must be able to import."""

    @property
    def cpus_per_trial(self) -> int:
        return self.asked.cpus_per_trial

    @property
    def slots(self) -> int:
        """How many trials run at a time."""
        return sum(node.slots for node in self.nodes)

    def check(self, cohorts: Mapping[str, LoadedCohort]) -> None:
        """Whether every machine is fit for these images and has our libraries; warns on stderr.

        Raises:
            ValueError: some are not; with a table of what is wrong.
        """

        def alive() -> set[str]:
            return {node.node_id for node in _nodes(self.cpus_per_trial, self.gpus_per_trial)}

        found = preflight.room(self.nodes, {name: _size(each) for name, each in cohorts.items()})
        found += preflight.findings(self.nodes, self.probes, alive)
        if not found:
            return
        if any(one.level == "error" for one in found):
            raise ValueError(f"not every machine is fit for this sweep\n{preflight.table(found)}")
        print(
            "warning: machines differ from what is expected",
            preflight.table(found),
            sep="\n",
            file=sys.stderr,
        )

    def run(
        self,
        supply: Supply,
        cohorts: Mapping[str, LoadedCohort],
        results: Path,
        *,
        token: str | None,
        tracking: Tracking,
        already_done: int = 0,
        run: str = attempt.RUN,
    ) -> None:
        """Run every trial of the supply until the ledger has it done or failed.

        Raises:
            ValueError: the images do not fit.
            LedgerError: the results folder cannot be written, or the cluster is gone.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        stored = _stored(cohorts)
        ledger = ledger_actor.start(results, token)
        shared = {
            "keeper": ledger,
            "cohorts": stored,
            "device": "cuda" if self.gpus_per_trial else "cpu",
            "threads": self.cpus_per_trial,
            "checkpoint_every": self.asked.checkpoint_every,
            "tracking": tracking,
            "run": run,
        }
        progress = Progress(
            trials=supply.epochs,
            already_done=already_done,
            gpus_per_trial=self.gpus_per_trial,
            note=supply.note,
        )
        broken: list[str] = []
        newcomers = preflight.Newcomers(self.nodes, self.modules)
        head = ray.get_runtime_context().gcs_address

        def stop(reason: str) -> None:
            broken.append(reason)
            _thread.interrupt_main()

        def look() -> dict[str, Any] | None:
            # Before anything else: with its head gone, Ray stops this whole process in a call.
            connect.touch(head)
            try:
                snapshot: Any = ray.get(ledger.snapshot.remote(), timeout=30)
            except GetTimeoutError:  # busy with writing
                return None
            nodes = _nodes(self.cpus_per_trial, self.gpus_per_trial)
            slots = sum(node.slots for node in nodes)
            supply.room(slots)
            unfit = newcomers.look(nodes)
            said = f"machines have joined that are not as expected\n{preflight.table(unfit)}"
            return {
                **snapshot,
                "warning": said if unfit else "",
                "nodes": len(nodes),
                "gpus": sum(node.gpus for node in nodes),
                "slots": slots,
            }

        scratch = tempfile.mkdtemp(prefix="lesion-tune-")
        live = LiveFile(results, token)
        display = Display(progress, look, stop, sys.stdout, live, quiet=self.asked.quiet)
        try:
            with (
                _last_words(_ENDED.format(results / "ray.log")),
                _aside(results / "ray.log"),
                display,
            ):
                self._fit(supply, shared, scratch)
            display.look()
            ray.kill(ledger)
        except KeyboardInterrupt:
            if not broken:
                raise
            if not _answers(head):  # letting go of its workers would wait for it
                raise LedgerError(broken[0]) from None
        except Exception as error:
            # Where Ray does not abort the process, it takes a restarted head for a wrong token.
            if "RPC error" not in "".join(traceback.format_exception(error)):
                raise
            raise LedgerError(
                "the Ray cluster that this sweep ran on is gone, or its head is another one now "
                f"(see {results / 'ray.log'}); the same command goes on from here"
            ) from None
        finally:
            live.remove()
            shutil.rmtree(scratch, ignore_errors=True)
        if broken:
            gc.collect()  # with what Tune leaves behind go its workers, whose cores others need
            raise LedgerError(broken[0])

    def _fit(self, supply: Supply, shared: dict[str, Any], scratch: str) -> None:
        from ray import tune
        from ray.tune.progress_reporter import TrialProgressCallback
        from ray.tune.schedulers import FIFOScheduler
        from ray.tune.search import Searcher

        trainable = tune.with_resources(
            tune.with_parameters(train, shared=shared),
            {"cpu": self.cpus_per_trial, "gpu": self.gpus_per_trial},
        )

        retries = self.asked.retries
        here = _Here(supply)

        class Next(Searcher):
            """Tune's way of asking for one trial more."""

            def suggest(self, trial_id: str) -> Any:
                trial = here.take()
                if trial is not None:
                    return {"trial": json.dumps(dict(trial))}
                return Searcher.FINISHED if here.finished else None

            def on_trial_complete(self, trial_id: str, *rest: Any, **more: Any) -> None:
                pass  # the callback below knows the trial's name

        over: set[Any] = set()
        lost: Counter[str] = Counter()

        class Ended(tune.Callback):
            """Tells the supply what has ended, and the ledger what lost its machines too often."""

            def on_trial_complete(
                self, iteration: int, trials: list, trial: Any, **info: Any
            ) -> None:
                over.add(trial)
                here.ended(_name(trial))

            def on_trial_recover(
                self, iteration: int, trials: list, trial: Any, **info: Any
            ) -> None:
                shared["keeper"].lost.remote(_name(trial))

            def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                over.add(trial)
                if here.raised is not None:  # which Tune took for the trial's failure
                    raise here.raised
                # Tune counts two where an idle worker dies, and none where a machine is preempted.
                lost[_name(trial)] += min(1, trial.num_failures)
                if lost[_name(trial)] <= retries:
                    shared["keeper"].lost.remote(_name(trial))
                    here.again(json.loads(trial.config["trial"]))
                    return
                here.kept(lambda: _record_loss(shared, trial, lost[_name(trial)]))
                here.ended(_name(trial))

        class Silent(TrialProgressCallback):
            """In place of Tune's own, which keeps every trial that it has reported on."""

            def on_trial_result(self, *rest: Any, **info: Any) -> None:
                pass

            def on_trial_complete(self, *rest: Any, **info: Any) -> None:
                pass

            def on_trial_error(self, *rest: Any, **info: Any) -> None:
                pass

        class Forgetful(FIFOScheduler):
            """Tune keeps every trial, 0.1 MB each, to the end; what has ended is the ledger's."""

            def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
                _forget(tune_controller, over)

            def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
                _forget(tune_controller, over)

        # Read when `fit` starts.  One more than can run is enough to keep every worker busy.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.slots + 1)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Next(metric="ended", mode="max"),
                scheduler=Forgetful(),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),  # `Ended` tries again
                callbacks=[Ended(), Silent()],
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if here.raised is not None:
                raise here.raised from None
            raise


class _Here:
    """A supply that stays in this process: Tune pickles what it is given, and nobody reads that.

    Gives a trial again that lost its worker.  Tune answers what a supply raises with an error of
    its own, so the first one is kept.
    """

    def __init__(self, supply: Supply | None = None) -> None:
        self._supply: Any = supply
        self._again: deque[Mapping[str, Any]] = deque()
        self._under_way: set[str] = set()
        self.raised: Exception | None = None

    def __reduce__(self) -> tuple:
        return _Here, ()

    @property
    def finished(self) -> bool:
        """What is under way may have to be given again."""
        return self._supply.finished and not self._again and not self._under_way

    def take(self) -> Mapping[str, Any] | None:
        trial = self._again.popleft() if self._again else self.kept(self._supply.take)
        if trial is not None:
            self._under_way.add(trial["name"])
        return trial

    def again(self, trial: Mapping[str, Any]) -> None:
        self._under_way.discard(trial["name"])
        self._again.append(trial)

    def ended(self, name: str) -> None:
        self._under_way.discard(name)
        self.kept(lambda: self._supply.ended(name))

    def kept(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            self.raised = self.raised or error
            raise


def train(config: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
    """What a worker runs: one trial, given what its trial.json says."""
    import ray
    from ray import tune
    from ray.exceptions import RayError

    trial = json.loads(config["trial"])
    ledger: Any = ledger_actor.Remote(shared["keeper"])

    def cohort() -> Any:
        try:
            return ray.get(shared["cohorts"][trial["cohort"]])
        except RayError as error:
            raise attempt.NotTheTrialsFault(f"the images cannot be fetched: {error}") from error

    def once() -> None:
        attempt.attempt(
            trial,
            cohort,
            ledger,
            device=shared["device"],
            threads=shared["threads"],
            checkpoint_every=shared["checkpoint_every"],
            tracking=shared["tracking"],
            run=shared["run"],
        )

    with contextlib.suppress(LedgerError):  # the driver hears of it from the keeper, and stops
        if shared["device"] == "cuda":
            _one_thread().submit(once).result()
        else:
            once()
        ledger.settle()
    if shared["device"] == "cuda":  # the next trial here finds the memory free
        import torch

        torch.cuda.empty_cache()
    tune.report({"ended": 1})


@functools.cache
def _one_thread() -> ThreadPoolExecutor:
    """For all trials of this process: Tune makes a thread for each, and cuDNN's choice of
    algorithms, which takes seconds, is a thread's own."""
    return ThreadPoolExecutor(max_workers=1)


def _forget(controller: Any, over: set[Any]) -> None:
    """Drop trials that are over, and hold no worker any more, from all that lists them."""
    dropped = {trial for trial in over if trial not in controller._trial_to_actor}
    over -= dropped
    controller._trials[:] = [trial for trial in controller._trials if trial not in dropped]
    for kept in ("_stopped_trials", "_failed_trials", "_live_trials", "_trials_to_cache"):
        getattr(controller, kept).difference_update(dropped)


def _name(trial: Any) -> str:
    """Of one of Tune's trials."""
    return json.loads(trial.config["trial"])["name"]


@contextmanager
def connected(machines: Machines, modules: Sequence[str] = ()) -> Iterator[Cluster]:
    """A Ray to run trials on; of this machine alone if no address is given, and gone afterwards.

    ``modules``: names of the user's own, which a cluster's workers must be able to import.

    Raises:
        ValueError: no cluster there, not let in, or no machine that a trial fits on.
    """
    ray = connect.import_ray(machines.address)
    if ray.is_initialized():  # someone else's to shut down
        yield _cluster(machines, modules)
        return
    staged = None
    try:
        if machines.address is None:
            connect.start(ray)
        else:
            staged = connect.stage(modules)
            connect.join(ray, machines.address, staged)
        command.catch_signals()  # Ray has replaced them
        yield _cluster(machines, modules)
    finally:
        command.ignore_signals()
        with _limited(SECONDS_TO_LEAVE):
            ray.shutdown()
        command.catch_signals()
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """If an error is under way, ends this process when what is inside takes longer."""
    reason = sys.exc_info()[1]
    if reason is None:
        yield
        return

    def end() -> None:
        os._exit(command.told(reason))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_ENDED = (
    "error: this command was ended from outside, or by Ray because the head of its cluster is "
    "another one now (see {}); the same command goes on from here"
)

_SAY_UNLESS_TOLD = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr, flush=True)"


@contextmanager
def _last_words(message: str) -> Iterator[None]:
    """Said on stderr, by another process, if this one ends inside without coming back.

    Ray 2.60's compiled code aborts the process when it meets a restarted head.
    """
    teller = subprocess.Popen(
        [sys.executable, "-S", "-c", _SAY_UNLESS_TOLD, message],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    try:
        yield
    finally:
        teller.communicate(b".")


class _Aside(io.TextIOBase):
    """Appends to a file, and to nothing if that cannot be written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="replace"))
        return len(text)


@contextmanager
def _aside(path: Path) -> Iterator[None]:
    """What Ray has to say in this process goes to a file; the terminal is for our progress."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, 0o644)
    except OSError:  # the ledger will say so
        file = os.open(os.devnull, flags)
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(file, 2)  # Ray's compiled code knows no other way
    said = _Aside(file)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        os.dup2(terminal, 2)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
        os.close(terminal)
        os.close(file)


def _cluster(machines: Machines, modules: Sequence[str]) -> Cluster:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    gpus = machines.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if any(node["Resources"].get("GPU", 0) >= 1 for node in alive) else 0.0
    nodes = _nodes(machines.cpus_per_trial, gpus)
    if not any(node.slots for node in nodes):
        resources = [node["Resources"] for node in alive]
        raise ValueError(
            f"a trial needs {machines.cpus_per_trial} CPUs and {gpus:g} GPUs; no machine has that "
            f"(most: {max(int(node.get('CPU', 0)) for node in resources)} CPUs, "
            f"{max(node.get('GPU', 0) for node in resources):g} GPUs); "
            "lower --cpus-per-trial or --gpus-per-trial"
        )
    if 0 < gpus < 1:
        print(
            f"warning: {round(1 / gpus)} trials share each GPU; its memory is not divided between "
            "them, so one that takes too much makes the others fail",
            file=sys.stderr,
        )
    here = machines.address is None  # where the driver is, there is nothing to compare but GPUs
    return Cluster(
        asked=machines,
        gpus_per_trial=gpus,
        nodes=nodes,
        where="this machine" if here else f"Ray cluster at {machines.address}",
        probes={} if here and not gpus else preflight.start(nodes, modules),
        modules=modules,
    )


def _nodes(cpus_per_trial: int, gpus_per_trial: float) -> list[Node]:
    """Those that are alive."""
    import ray

    nodes = []
    for node in ray.nodes():
        resources = node["Resources"]
        slots = int(resources.get("CPU", 0) // cpus_per_trial)
        if gpus_per_trial:
            slots = min(slots, int(resources.get("GPU", 0) / gpus_per_trial + 1e-6))
        if node["Alive"]:
            nodes.append(
                Node(
                    node_id=node["NodeID"],
                    address=node["NodeManagerAddress"],
                    gpus=resources.get("GPU", 0),
                    store_bytes=resources.get("object_store_memory", 0),
                    slots=slots,
                )
            )
    return nodes


def _answers(head: str) -> bool:
    try:
        connect.touch(head)
    except OSError:
        return False
    return True


def _size(cohort: LoadedCohort) -> int:
    """Bytes of its arrays."""
    arrays = (value for image in cohort.images for value in vars(image).values())
    return sum(getattr(array, "nbytes", 0) for array in arrays)


def _stored(cohorts: Mapping[str, LoadedCohort]) -> dict[str, Any]:
    """References to the images in the object store."""
    import ray
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError

    stored = {}
    for name, cohort in cohorts.items():
        try:
            stored[name] = ray.put(cohort)
        except (ObjectStoreFullError, OutOfDiskError) as error:
            raise ValueError(
                f"the images of {name}, {_size(cohort) / 1e9:.3g} GB, do not fit into this "
                "machine's part of Ray's object store; start Ray with more of it (ray start "
                f"--object-store-memory=BYTES) ({str(error).splitlines()[0]})"
            ) from None
    return stored


def _record_loss(shared: Mapping[str, Any], trial: Any, times: int) -> None:
    """The trial lost its worker more often than --retries allows."""
    error = None
    with contextlib.suppress(Exception):  # Tune keeps it pickled in a file
        error = trial.get_pickled_error()
    reason = " ".join(str(error or "its worker process died").split())[:400]
    ledger_actor.Remote(shared["keeper"]).failed(
        json.loads(trial.config["trial"]),
        {
            "kind": "infrastructure",
            "error": f"its worker process or machine failed {times} times, last: {reason}",
            "traceback": str(error or ""),
        },
    )
