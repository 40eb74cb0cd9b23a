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
import io
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps import attempt, command
from sweeps.ledger import Ledger, LedgerError
from sweeps.options import ROOT, Machines
from sweeps.progress import Display, Progress
from sweeps.tracking import Tracking

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort

RETRIES = 3
"""How often a trial may lose its worker or machine; it goes on from its checkpoint."""

FORWARDED = (
    "WANDB_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "CUBLAS_", "CUDNN_", "NVIDIA_TF32", "TORCH_", "PYTORCH_", "NCCL_",
)  # fmt: skip
"""Beginnings of the driver's environment variables that a cluster's workers get; by itself Ray
passes none.  Keys to W&B are not among them: Ray lists these variables to every user."""

SECONDS_TO_CONNECT = 5


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


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray that this process is connected to."""

    cpus_per_trial: int
    gpus_per_trial: float
    slots: int
    """How many trials run at a time."""
    where: str
    """For people."""

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
            LedgerError: the results folder cannot be written.
        """
        import ray

        keeper = _keeper(results, token)
        shared = {
            "keeper": keeper,
            "cohorts": {name: ray.put(cohort) for name, cohort in cohorts.items()},
            "device": "cuda" if self.gpus_per_trial else "cpu",
            "threads": self.cpus_per_trial,
            "tracking": tracking,
            "run": run,
        }
        progress = Progress(trials=supply.epochs, already_done=already_done)
        broken: list[str] = []

        def stop(reason: str) -> None:
            broken.append(reason)
            _thread.interrupt_main()

        def look() -> dict[str, Any]:
            return ray.get(keeper.snapshot.remote(), timeout=30)

        scratch = tempfile.mkdtemp(prefix="lesion-tune-")
        display = Display(progress, look, stop, sys.stdout)
        try:
            with _aside(results / "ray.log"), display:
                self._fit(supply, shared, scratch)
            display.look()
            ray.kill(keeper)
        except KeyboardInterrupt:
            if broken:
                raise LedgerError(broken[0]) from None
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if broken:
            raise LedgerError(broken[0])

    def _fit(self, supply: Supply, shared: dict[str, Any], scratch: str) -> None:
        from ray import tune
        from ray.tune.search import Searcher

        trainable = tune.with_resources(
            tune.with_parameters(train, shared=shared),
            {"cpu": self.cpus_per_trial, "gpu": self.gpus_per_trial},
        )

        class Next(Searcher):
            """Tune's way of asking for one trial more."""

            def suggest(self, trial_id: str) -> Any:
                trial = supply.take()
                if trial is not None:
                    return {"trial": json.dumps(dict(trial))}
                return Searcher.FINISHED if supply.finished else None

            def on_trial_complete(self, trial_id: str, *rest: Any, **more: Any) -> None:
                pass  # the callback below knows the trial's name

        class Ended(tune.Callback):
            """Tells the supply what has ended, and the ledger what lost its machines too often."""

            def on_trial_complete(
                self, iteration: int, trials: list, trial: Any, **info: Any
            ) -> None:
                supply.ended(_name(trial))

            def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                _record_loss(shared, trial)
                supply.ended(_name(trial))

        # Read when `fit` starts.  One more than can run is enough to keep every worker busy.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.slots + 1)
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Next(metric="ended", mode="max"),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[Ended()],
            ),
        ).fit()


def train(config: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
    """What a worker runs: one trial, given what its trial.json says."""
    import ray
    from ray import tune
    from ray.exceptions import RayError

    trial = json.loads(config["trial"])
    keeper: Any = _Remote(shared["keeper"])

    def cohort() -> Any:
        try:
            return ray.get(shared["cohorts"][trial["cohort"]])
        except RayError as error:
            raise attempt.NotTheTrialsFault(f"the images cannot be fetched: {error}") from error

    with contextlib.suppress(LedgerError):  # the driver hears of it from the keeper, and stops
        attempt.attempt(
            trial,
            cohort,
            keeper,
            device=shared["device"],
            threads=shared["threads"],
            tracking=shared["tracking"],
            run=shared["run"],
        )
    if shared["device"] == "cuda":  # the next trial here finds the memory free
        import torch

        torch.cuda.empty_cache()
    tune.report({"ended": 1})


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
    ray = _import_ray()
    if ray.is_initialized():  # someone else's to shut down
        yield _cluster(machines)
        return
    staged = None
    try:
        if machines.address is None:
            _start(ray, machines)
        else:
            staged = _stage(modules)
            _join(ray, machines.address, staged)
        command.catch_signals()  # Ray has replaced them
        yield _cluster(machines)
    finally:
        command.ignore_signals()
        ray.shutdown()
        command.catch_signals()
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


class _LazyFile(io.TextIOBase):
    """Comes into being with the first thing written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError), self._path.open("a") as file:
            file.write(text)
        return len(text)


@contextmanager
def _aside(path: Path) -> Iterator[None]:
    """What Ray has to say in this process goes to a file; the terminal is for our progress."""
    said = _LazyFile(path)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield


def _import_ray() -> Any:
    # Read when Ray is imported, or when it starts its processes.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours stops at once; the ledger has it all
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"  # nothing is ever restored from it
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the old output can be silenced
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # workers find the user's modules in their folder
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_NUM_REDIS_GET_RETRIES", "5"
    )  # seconds to wait for a head that refuses
    import ray

    # Tune prints the traceback of every lost worker; ours are in the ledger.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    return ray


def _start(ray: Any, machines: Machines) -> None:
    """A Ray of this machine alone.  Its workers inherit this process's environment."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([path] if path else [])])
    try:
        ray.init(
            address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except OSError as error:  # for instance no place for Ray's session or its token
        raise ValueError(
            f"Ray cannot start on this machine: {error.filename or ''} {error.strerror or error}; "
            "check that the temporary folder and the home folder can be written"
        ) from None
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


def _join(ray: Any, address: str, staged: Path) -> None:
    if address != "auto":
        _knock(address)
    forwarded = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(FORWARDED) and name != "WANDB_API_KEY"
    }
    try:
        with _silent_descriptor(2):  # Ray's compiled code warns of every attempt
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"working_dir": str(staged), "env_vars": forwarded},
            )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        if "Auth" in "".join(traceback.format_exception(error)):  # Ray buries the reason
            raise ValueError(
                f"--address {address}: this Ray cluster lets nobody in without its token: set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a copy of the head's "
                "~/.ray/auth_token (`ray get-auth-token` prints it there); on a machine of the "
                "cluster, --address auto finds both by itself"
            ) from None
        raise ValueError(
            f"--address {address}: no Ray cluster answers ({str(error).splitlines()[0]}); start "
            "one with `ray start --head`, or leave --address out to use this machine alone"
        ) from None


@contextmanager
def _silent_descriptor(descriptor: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def _knock(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--address {address}: expected auto or host:port, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise ValueError(
            f"--address {address}: nothing answers there ({error.strerror or error}); is that the "
            "address that `ray start --head` printed?"
        ) from None


def _stage(modules: Sequence[str]) -> Path:
    """A folder with our packages and the user's modules, which Ray copies to every machine."""
    import importlib.util

    staged = Path(tempfile.mkdtemp(prefix="lesion-code-"))
    for package in ("lesion_core", "sweeps"):
        shutil.copytree(ROOT / package, staged / package, ignore=_NO_CACHES)
    for top in dict.fromkeys(module.partition(".")[0] for module in modules):
        spec = importlib.util.find_spec(top)
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if origin is None or {"site-packages", "dist-packages"} & set(origin.parts):
            continue  # installed: every machine must have it, as it has torch
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, staged / top, ignore=_ONLY_PYTHON, dirs_exist_ok=True)
        else:  # with its neighbours, which it may import
            for file in origin.parent.glob("*.py"):
                shutil.copy(file, staged / file.name)
    return staged


_NO_CACHES = shutil.ignore_patterns("__pycache__")


def _ONLY_PYTHON(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name == "__pycache__" or not (name.endswith(".py") or Path(folder, name).is_dir())
    ]


def _cluster(machines: Machines) -> Cluster:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = machines.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    slots = 0
    for node in nodes:
        fits = int(node.get("CPU", 0) // machines.cpus_per_trial)
        if gpus:
            fits = min(fits, int(node.get("GPU", 0) / gpus + 1e-6))
        slots += fits
    most = f"{max(int(n.get('CPU', 0)) for n in nodes)} CPUs, " + (
        f"{max(n.get('GPU', 0) for n in nodes):g} GPUs"
    )
    if slots == 0:
        raise ValueError(
            f"a trial needs {machines.cpus_per_trial} CPUs and {gpus:g} GPUs; no machine has that "
            f"(most: {most}); lower --cpus-per-trial or --gpus-per-trial"
        )
    where = "this machine" if machines.address is None else f"Ray cluster at {machines.address}"
    cluster = Cluster(
        cpus_per_trial=machines.cpus_per_trial, gpus_per_trial=gpus, slots=slots, where=where
    )
    if 0 < gpus < 1:
        print(
            f"warning: {round(1 / gpus)} trials share each GPU; its memory is not divided between "
            "them, so one that takes too much makes the others fail",
            file=sys.stderr,
        )
    return cluster


# ------------------------------------------------------------------------------ the ledger's keeper
class _Keeper(Ledger):
    """The ledger in a process of its own, which also knows what goes on."""

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
        begun = super().begin(trial, worker)
        if begun["state"] == "done":  # its worker died before Tune heard of it
            self._done.append(trial["name"])
        else:
            epoch = -1 if begun["epoch"] is None else begun["epoch"]
            self._running[trial["name"]] = {"epoch": epoch, "worker": worker, "since": time.time()}
        return begun

    def epoch(self, name: str, report: Mapping[str, Any]) -> None:
        super().epoch(name, report)
        self._epochs_trained += report["epoch"] > 0
        if name in self._running:
            self._running[name]["epoch"] = report["epoch"]

    def done(self, name: str, summary: Mapping[str, Any]) -> None:
        super().done(name, summary)
        self._running.pop(name, None)
        self._done.append(name)

    def failed(self, trial: Mapping[str, Any], failure: Mapping[str, Any]) -> None:
        super().failed(trial, failure)
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


def _keeper(results: Path, token: str | None) -> Any:
    """On the driver's machine, where the folder is; restarted if it dies, its calls repeated."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(_Keeper)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=here, soft=False),
        )
        .remote(results.resolve(), token)
    )


class _Remote:
    """The keeper's methods as if it were here (`attempt.LedgerCalls`)."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def __getattr__(self, method: str) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return ray.get(getattr(self._keeper, method).remote(*arguments, **named))
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                raise attempt.NotTheTrialsFault(f"the ledger cannot be reached: {error}") from error

        return call


def _record_loss(shared: Mapping[str, Any], trial: Any) -> None:
    """The trial lost its worker more often than `RETRIES`."""
    error = None
    with contextlib.suppress(Exception):  # Tune keeps it pickled in a file
        error = trial.get_pickled_error()
    reason = " ".join(str(error or "its worker process died").split())[:400]
    _Remote(shared["keeper"]).failed(
        json.loads(trial.config["trial"]),
        {
            "kind": "infrastructure",
            "error": f"its worker process or machine failed {RETRIES + 1} times, last: {reason}",
            "traceback": str(error or ""),
        },
    )
