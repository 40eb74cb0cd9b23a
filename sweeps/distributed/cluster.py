"""Trials on Ray: where they run, how they restart, and how their results come home.

Ray Tune only schedules: it gives trials their turn, and keeps a worker process for the next one.
A trial whose machine is preempted it puts on another by itself.  One whose worker or machine died
counts as failed there; `tune.SupplyFeedback` counts these losses and gives the trial again.  What
a trial is, whether it is done and where it stopped is the ledger's: one actor beside the driver,
which alone writes to the results folder and hands out checkpoints.  So machines share no disk, and
Tune's own state is thrown away.

Facts of Ray 2.60 that this follows: a reused worker starts a trial in milliseconds, a new one in
seconds; ``fit`` returns normally whatever failed; ``Tuner.restore`` runs things twice; dataclasses
in a parameter space are mangled, so a trial travels as the text of its trial.json.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lesion_core import stopping
from sweeps import command, scratch
from sweeps.distributed import connect, discovery, ledger_actor, preflight
from sweeps.distributed.preflight import Node
from sweeps.distributed.terminal import redirect_output_to
from sweeps.distributed.waiting import Waiting
from sweeps.distributed.worker import Shared
from sweeps.ledger.ledger import LedgerError
from sweeps.options import Machines
from sweeps.tracking.policy import Tracking
from sweeps.trials.attempt import RUN
from sweeps.trials.progress import ClusterSnapshot, Display, LiveFile, Progress, Snapshot
from sweeps.trials.supply import Supply

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort

SECONDS_TO_LEAVE = 20
"""A cluster whose head is gone can keep `ray.shutdown` waiting for ever."""

_ENDED = (
    "error: this command was ended from outside, or by Ray because the head of its cluster is "
    "another one now (see {}); the same command goes on from here"
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray that this process is connected to."""

    machines: Machines
    """The flags that it was asked for with."""
    gpus_per_trial: float
    nodes: Sequence[Node]
    description: str
    """What people call it."""
    pending_answers: Mapping[str, Any]
    """The nodes' answers that are on their way (Ray's references), by node id."""
    modules: Sequence[str] = ()
    """Names of the user's own, which workers must be able to import."""

    @property
    def cpus_per_trial(self) -> int:
        """CPU cores of a trial."""
        return self.machines.cpus_per_trial

    @property
    def slots(self) -> int:
        """How many trials run at a time."""
        return sum(node.slots for node in self.nodes)

    def check(self, cohorts: Mapping[str, LoadedCohort]) -> None:
        """Refuse machines that are not fit for these images and libraries; warn on stderr of less.

        Raises:
            ValueError: some machines are not fit; with a table of what is wrong.
        """

        def alive() -> set[str]:
            return {node.node_id for node in _nodes(self.cpus_per_trial, self.gpus_per_trial)}

        found = preflight.object_store_findings(self.nodes, _sizes(cohorts))
        found += preflight.findings(self.nodes, self.pending_answers, alive)
        if not found:
            return
        if any(finding.level == "error" for finding in found):
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
        run: str = RUN,
    ) -> None:
        """Run every trial of the supply until the ledger has it done or failed.

        Raises:
            ValueError: the images do not fit.
            LedgerError: the results folder cannot be written, or the cluster is gone.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        from sweeps.distributed import tune

        stored = _stored(cohorts)
        ledger = ledger_actor.start(results, token)
        shared = Shared(
            ledger=ledger,
            cohorts=stored,
            device="cuda" if self.gpus_per_trial else "cpu",
            threads=self.cpus_per_trial,
            checkpoint_every=self.machines.checkpoint_every,
            tracking=replace(tracking, key=None),  # Tune and Ray write down what they are given
            run=run,
        )
        ledger.take_key.remote(tracking.key)
        progress = Progress(
            trials=supply.epochs,
            already_done=already_done,
            gpus_per_trial=self.gpus_per_trial,
            progress_note=supply.progress_note,
        )
        broken: list[str] = []
        newcomers = preflight.Newcomers(self.nodes, self.modules, _sizes(cohorts))
        tune.avoided = newcomers.unfit
        waiting = Waiting(self.cpus_per_trial, self.gpus_per_trial)
        head = ray.get_runtime_context().gcs_address

        def stop_with(reason: str) -> None:
            broken.append(reason)
            stopping.interrupt()

        terminal, over = sys.stdout, threading.Event()

        def leave_checkpoints() -> None:
            print("stopping: running trials leave a checkpoint ...", file=terminal, flush=True)
            with suppress(Exception):  # a Ray that is gone, or let go of, is asked nothing more
                while not over.is_set():
                    discovery.check_reachable(head)
                    if not ray.get(ledger.stop.remote()):
                        return
                    time.sleep(0.3)

        def take_snapshot() -> ClusterSnapshot | None:
            # Before anything else: with its head gone, Ray stops this whole process in a call.
            discovery.check_reachable(head)
            try:
                snapshot = cast(Snapshot, ray.get(ledger.snapshot.remote(), timeout=30))
                if tracking.key is not None and not snapshot.get(
                    "has_key", True
                ):  # the actor was restarted
                    ledger.take_key.remote(tracking.key)
            except GetTimeoutError:  # busy with writing
                return None
            nodes = _nodes(self.cpus_per_trial, self.gpus_per_trial)
            unfit = newcomers.look(nodes)
            warning = f"machines have joined that are not as expected\n{preflight.table(unfit)}"
            if any(finding.level == "error" for finding in unfit):
                warning += "\nno more trials go to those with an error; the others go on"
            slots = sum(node.slots for node in nodes if node.node_id not in newcomers.unfit)
            supply.set_slots(slots)
            curves = {name: run.get("curve", {}) for name, run in snapshot["running"].items()}
            for name in supply.to_give_up(curves):
                ledger.give_up.remote(name)
            given_up = snapshot.get("given_up", ())
            ended = progress.ended.union(snapshot["done"], snapshot["failed"], given_up)
            left = len(progress.trials) - len(ended) - len(snapshot["running"])
            return {
                **snapshot,
                "warning": warning if unfit else "",
                "nodes": len(nodes),
                "gpus": sum(node.gpus for node in nodes),
                "slots": slots,
                "waiting": waiting.look(left, len(snapshot["running"]), slots),
            }

        folder = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-tune-")))
        live = LiveFile(results, token)
        display = Display(
            progress, take_snapshot, stop_with, terminal, live, quiet=self.machines.quiet
        )
        try:
            with (
                stopping.last_words(_ENDED.format(results / "ray.log")),
                redirect_output_to(results / "ray.log"),
                display,
                stopping.kept(),  # Tune would take SIGUSR1
                stopping.graceful(leave_checkpoints, self.machines.grace_s),
            ):
                tune.run_trials(
                    supply,
                    shared,
                    str(folder),
                    gpus_per_trial=self.gpus_per_trial,
                    slots=self.slots,
                    retries=self.machines.retries,
                )
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
            over.set()
            live.remove()
            scratch.drop(folder)
        if broken:
            gc.collect()  # with what Tune leaves behind go its workers, whose cores others need
            raise LedgerError(broken[0])


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
        with stopping.held():  # Ray puts its own handlers there
            if machines.address is None:
                connect.start_local(ray)
            else:
                address = connect.find_cluster(machines.address)
                staged = connect.stage(modules)
                connect.join_cluster(ray, address, staged)
        yield _cluster(machines, modules)
    finally:
        with stopping.held():
            with _limited(SECONDS_TO_LEAVE):
                ray.shutdown()
            if staged is not None:
                scratch.drop(staged)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """If an error is under way, ends this process when what is inside takes longer."""
    reason = sys.exc_info()[1]
    if reason is None:
        yield
        return

    def end() -> None:
        status = command.report_error(reason)
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
    local = machines.address is None  # where the driver is, there is nothing to compare but GPUs
    return Cluster(
        machines=machines,
        gpus_per_trial=gpus,
        nodes=nodes,
        description="this machine"
        if local
        else f"Ray cluster at {ray.get_runtime_context().gcs_address}",
        pending_answers={} if local and not gpus else preflight.start(nodes, modules),
        modules=modules,
    )


def _nodes(cpus_per_trial: int, gpus_per_trial: float) -> list[Node]:
    """The cluster's machines that are alive."""
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
        discovery.check_reachable(head)
    except OSError:
        return False
    return True


def _sizes(cohorts: Mapping[str, LoadedCohort]) -> dict[str, int]:
    return {name: _size(cohort) for name, cohort in cohorts.items()}


def _size(cohort: LoadedCohort) -> int:
    """Bytes of a cohort's arrays."""
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
