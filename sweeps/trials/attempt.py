"""One attempt at a trial: from the ledger's checkpoint to done or failed.

The same code in a Ray worker and, without Ray, under `train_one`, so both leave the same bits.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from lesion_core.stopping import TrainingStopped
from sweeps.ledger.contents import (
    EpochContent,
    Failure,
    Go,
    NothingToDo,
    Summary,
    TrialDescription,
)
from sweeps.ledger.ledger import LedgerError, NotTheTrialsFault
from sweeps.tracking import scalars
from sweeps.tracking.live_run import TrackedRun
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import RunEnding, done_ending, failed_ending, slices_of

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort
    from lesion_core.trial import EpochReport

RUN = "lesion_core.trial:run"
"""What trains; another function with the same arguments can stand in for it in tests."""

SECONDS_BETWEEN_DELIVERIES = 2


class LedgerCalls(Protocol):
    """What an attempt needs of a ledger: `Ledger` itself, or a stand-in that is far away."""

    def begin(self, trial: TrialDescription, worker: str) -> Go | NothingToDo: ...
    def epoch(self, name: str, report: EpochContent, attempt: int) -> None: ...
    def checkpoint(self, name: str, checkpoint: bytes, epoch: int, attempt: int) -> None: ...
    def done(self, name: str, summary: Summary, attempt: int) -> None: ...
    def failed(self, trial: TrialDescription, failure: Failure, attempt: int) -> None: ...
    def log(self, name: str, text: str) -> None: ...
    def write_files(self, files: Mapping[str, bytes], instead_of: str | None) -> None: ...


def attempt(
    trial: TrialDescription,
    cohort: Callable[[], LoadedCohort],
    ledger: LedgerCalls,
    *,
    device: str,
    threads: int,
    tracking: Tracking,
    checkpoint_every: int = 1,
    run: str = RUN,
    echo: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train until the ledger says done (True) or failed (False).

    ``checkpoint_every`` is in epochs.  An error of the trial's own - of its code, its data or a
    loss that diverged - is recorded, not raised.  ``stop`` is asked between batches.

    Raises:
        TrainingStopped: ``stop`` said so, and a checkpoint of where it is is in the ledger.
        LedgerError, NotTheTrialsFault: the results folder or the ledger's actor failed.
    """
    name = trial["name"]
    begun = ledger.begin(trial, worker=f"{socket.gethostname()}:{os.getpid()}")
    if begun["state"] == "stopping":
        raise TrainingStopped
    if begun["state"] != "go":
        return begun["state"] == "done"
    number = begun["attempt"]
    with _captured(lambda text: ledger.log(name, text), echo) as output:
        _announce(name, begun, device, threads)
        epochs = list(begun["epochs"])
        numbers = scalars.by_epoch(begun["cases"], epochs, trial["epochs"], tracking.site_name)
        tracked = TrackedRun(tracking, trial, numbers)
        last: EpochReport | None = None

        def on_epoch(report: EpochReport) -> None:
            nonlocal last
            ledger.epoch(name, _content(report), number)
            last = report
            epochs[:] = [row for row in epochs if row["epoch"] < report.epoch] + [report.epochs]
            numbers = scalars.by_epoch(
                report.cases, [report.epochs], trial["epochs"], tracking.site_name
            )[report.epoch]
            print(_line(report.epoch, trial["epochs"], numbers, bool(report.cases)))
            output.deliver()
            tracked.log(report.epoch, numbers)

        try:
            summary = _train(
                trial, cohort, run,
                checkpoint=begun["checkpoint"], checkpoint_every=checkpoint_every, device=device,
                threads=threads, on_epoch=on_epoch, stop=stop,
            )  # fmt: skip
        except TrainingStopped as stopped:
            if stopped.checkpoint is not None and stopped.epoch is not None:
                ledger.checkpoint(name, stopped.checkpoint, stopped.epoch, number)
                print(
                    f"stopped after epoch {stopped.epoch} and {stopped.batches} batches of the "
                    "next one; what there is of it is kept"
                )
            else:
                print("stopped; nothing was trained that is not saved")
            output.deliver()
            tracked.leave()
            raise
        except (LedgerError, NotTheTrialsFault):
            tracked.leave()
            raise
        except (Exception, SystemExit) as error:  # whatever it is, it is this trial's own
            traceback.print_exc()
            output.deliver()
            lost = _lost(device)
            if lost and "device-side assert" not in str(error):
                tracked.leave()
                raise NotTheTrialsFault(f"{lost}: {error}") from error
            failure = _failure(error, epochs[-1]["epoch"] + 1 if epochs else 0)
            ledger.failed(trial, failure, number)
            _finish(tracked, ledger, lambda: failed_ending(tracking, failure, epochs), failed=True)
            if lost:  # by what the trial did; the next one needs another process
                raise NotTheTrialsFault(f"{lost}, by a trial that is recorded") from error
            return False
        print(f"done in {summary['seconds']:.1f} s")
        output.deliver()

        def ending() -> RunEnding:
            assert last is not None and last.final is not None  # as every run that returns
            final = last.final
            tested = [row["case"] for row in final.slices]
            return done_ending(
                trial,
                tracking,
                cases=last.cases,
                epochs=epochs,
                predicted=final.slices,
                cohort_slices=lambda: slices_of(cohort(), tested),
                model=lambda: final.model,
                summary=summary,
            )

        ledger.done(name, summary, number)  # first: W&B can take its time
        _finish(tracked, ledger, ending, failed=False)
    return True


def _content(report: EpochReport) -> EpochContent:
    """What the ledger is told of an epoch: the rows themselves, which nobody changes any more.

    No checkpoint of the last epoch, of which it keeps none.
    """
    content: dict[str, Any] = dict(vars(report))
    if report.final is not None:
        content["final"] = dict(vars(report.final))
        content["checkpoint"] = None
    return cast(EpochContent, content)


def _train(
    trial: TrialDescription, cohort: Callable[[], LoadedCohort], run: str, **arguments: Any
) -> Summary:
    from lesion_core.trial import Trial

    module, _, function = run.partition(":")
    configured = Trial.from_dict(trial["config"])
    if configured.name != trial["name"]:
        raise ValueError(
            f"this worker's code makes {configured.name} of the configuration of {trial['name']}; "
            "update the code on this machine to that of the machine of the sweep's command"
        )
    return getattr(importlib.import_module(module), function)(configured, cohort(), **arguments)


def _failure(error: BaseException, epoch: int) -> Failure:
    """What failed.json says of an error."""
    reason = " ".join(str(error).split()) or "no message"
    if len(reason) > 400:
        reason = f"{reason[:400]}..."
    diverged = type(error).__name__ == "Diverged"
    hint = ""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "; fewer trials per GPU (--gpus-per-trial 1) or a smaller --batch-size need less"
    return {
        "kind": "diverged" if diverged else "error",
        "error": f"{reason if diverged else f'{type(error).__name__}: {reason}'}{hint}",
        "traceback": "".join(traceback.format_exception(error)),
        "epoch": getattr(error, "epoch", epoch),
        "batch": getattr(error, "batch", None),
        "host": socket.gethostname(),
    }


def _lost(device: str) -> str | None:
    """What this process has lost, so that its next trials would fail as well."""
    if _code_is_gone():  # a cleaner of /tmp, or Ray itself
        return "the folder with this worker's code was deleted"
    if device != "cuda":
        return None
    import torch

    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:  # others fill it at the moment
        return None
    except (RuntimeError, AssertionError):  # without CUDA, after some errors or from the start
        return "the GPU cannot be used any more"
    return None


def _code_is_gone() -> bool:
    """Whether files that were loaded from this process's folder are there no more, or not all.

    Ray 2.60 unpacks a job's code again where a second node of a cluster joins on one machine.
    """
    try:
        here = f"{Path.cwd()}{os.sep}"
    except FileNotFoundError:
        return True
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    ours = (file for file in files if file and file.startswith(here))
    return any("site-packages" not in file and not Path(file).exists() for file in ours)


def _finish(
    tracked: TrackedRun, ledger: LedgerCalls, ending: Callable[[], RunEnding], *, failed: bool
) -> None:
    files = tracked.finish(ending, failed=failed)
    if tracked.replaces:
        ledger.write_files(files, tracked.replaces)


# ------------------------------------------------------------------------------------- what it says
def _announce(name: str, begun: Go, device: str, threads: int) -> None:
    start = "from the start" if begun["epoch"] is None else f"after epoch {begun['epoch']}"
    print(
        f"{time.strftime('%Y-%m-%d %H:%M:%S')} {name}: attempt {begun['attempt']}, {start}, on "
        f"{socket.gethostname()}, {device}, {threads} thread{'s' if threads > 1 else ''}"
    )
    for note in begun["notes"]:
        print(f"thrown away, since it cannot be trusted: {note}")


def _line(epoch: int, of: int, summary: Mapping[str, float], evaluated: bool) -> str:
    loss = f"loss {summary['train_loss']:.5f}, " if "train_loss" in summary else "untrained, "
    if not evaluated:
        return f"epoch {epoch}/{of}: {loss}not evaluated"
    split = next((s for s in ("test", "validation") if f"{s}/image/dice_cases" in summary), "test")
    dice = summary.get(f"{split}/image/dice")
    score = "undefined" if dice is None else f"{dice:.3f}"
    return f"epoch {epoch}/{of}: {loss}mean Dice of the {split} images {score}"


class _Output:
    """Collects what is printed, for the ledger; shows it too if asked."""

    def __init__(self, send: Callable[[str], None], terminal: TextIO | None) -> None:
        self._send, self._terminal = send, terminal
        self._parts: list[str] = []
        self._delivered = time.monotonic()

    def write(self, text: str) -> int:
        self._parts.append(text)
        if self._terminal is not None:
            self._terminal.write(text)
        return len(text)

    def flush(self) -> None:
        """Called after every line by some; each delivery is a message to the ledger's host."""
        if time.monotonic() - self._delivered > SECONDS_BETWEEN_DELIVERIES:
            self.deliver()

    def deliver(self) -> None:
        self._delivered = time.monotonic()
        parts, self._parts = self._parts, []
        if parts:
            self._send("".join(parts))
        if self._terminal is not None:
            self._terminal.flush()

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def _captured(send: Callable[[str], None], echo: bool) -> Iterator[_Output]:
    output = _Output(send, sys.stdout if echo else None)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):  # type: ignore[type-var]
        try:
            yield output
        finally:
            output.deliver()
