"""How a trial's W&B run is written without holding the trial up; the one file that imports wandb.

A trial's run is written by a thread of its own, which takes the epochs from a queue; so the trial
waits for W&B but once, at its end, and its patience is bounded.  Whatever W&B does - down, slow,
full, broken - the trial goes on: trouble is one line in its log and a note in the results folder,
`sweeps/tracking.py sync` sends what was missed, and this process's next trials open no run while a
pause lasts.

Online, a restarted trial goes on in its run: what the server lacks of earlier epochs is sent again
from the ledger's rows.  Offline, it writes all of its epochs into a new folder, which replaces the
earlier one in the results folder, so there is one complete folder per trial.  What is not complete
when the trial's patience ends does not go there: the note does, and the driver writes that run from
the ledger when the sweep ends (`upload.write_missed`).
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from sweeps import scratch
from sweeps.ledger.contents import TrialDescription
from sweeps.tracking.credentials import ignored_line, ignored_variables
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import RunContent, RunEnding, RunIdentity, identity

SECONDS_TO_CONNECT = 30
SECONDS_TO_START = 300
"""How long the process that writes may take to start, and to open a run offline: no server is
waited for, but a busy machine may need a minute."""
MOST_STEPS_WAITING = 256
"""Steps that W&B is behind; a trial that gets further ahead goes on without it."""
SHARE_OF_TRIAL, LEAST_SECONDS, MOST_SECONDS = 0.05, 20.0, 60.0
"""How long a trial waits at its end for its run to be complete: a share of its own duration, within
these limits."""
SECONDS_OF_PAUSE = 600.0
"""After trouble, this process's next trials go without W&B for so long."""


class TrackedRun:
    """The W&B run of one trial.  Nothing in here raises, and only `finish` waits.

    ``earlier``: the numbers of the epochs before this attempt.
    """

    paused_until: ClassVar[float] = 0.0
    """Time on the monotonic clock until which no run is opened; see SECONDS_OF_PAUSE."""

    def __init__(
        self,
        tracking: Tracking,
        trial: TrialDescription,
        earlier: Mapping[int, Mapping[str, float]] | None = None,
    ) -> None:
        self._tracking = tracking
        self._identity = identity(trial, tracking)
        self._earlier = dict(earlier or {})
        self._begun = time.monotonic()
        self._waiting: queue.Queue[_Item] = queue.Queue(MOST_STEPS_WAITING)
        self._trouble: str | None = None
        self._abandoned = threading.Event()
        self._folder: Path | None = None
        self._thread: threading.Thread | None = None
        self._exit_code = 1
        if tracking.mode == "disabled":
            return
        if time.monotonic() < TrackedRun.paused_until:
            self._give_up("there was trouble with an earlier trial here", pause=False)
            return
        try:
            self._folder = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-wandb-")))
            thread = threading.Thread(target=self._write, name="wandb", daemon=True)
            thread.start()
            self._thread = thread
        except (OSError, RuntimeError) as error:  # no room, no more threads
            self._give_up(str(error))
            self._clean_up()

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Hand an epoch's numbers to the thread that writes; waits for nothing."""
        self._put((epoch, numbers))

    def finish(self, ending: Callable[[], RunEnding], *, failed: bool) -> dict[str, bytes]:
        """Close the run; returns the files to keep of it, by path in the results folder.

        These are an offline run's files, or a note that W&B did not get everything.

        ``ending`` is called by the thread that writes.
        """
        self._exit_code = int(failed)
        self._put(ending)
        files: dict[str, bytes] = {}
        if self._thread is not None:
            self._thread.join(self._patience)
            if self._thread.is_alive():
                self._give_up(f"not finished after {self._patience:.0f} s")
            elif self._trouble is None and self._tracking.mode == "offline":
                try:
                    files = offline_files(self._folder or Path(), self._identity.id)
                except OSError as error:
                    self._give_up(str(error))
            self._abandoned.set()
            if not self._thread.is_alive():
                self._clean_up()
        if self._trouble is not None:
            files[f"wandb/unsent-{self._identity.id}/why.txt"] = f"{self._trouble}\n".encode()
        return files

    def leave(self) -> None:
        """Close the run without an ending: another attempt, perhaps here, goes on with it."""
        self._abandoned.set()
        self._put(RunEnding)
        if self._thread is not None and not self._thread.is_alive():
            self._clean_up()

    @property
    def replaces(self) -> str | None:
        """Pattern of the folders in RESULTS that earlier attempts left; None if not tracked."""
        return None if self._tracking.mode == "disabled" else f"wandb/*-{self._identity.id}"

    @property
    def _patience(self) -> float:
        share = SHARE_OF_TRIAL * (time.monotonic() - self._begun)
        return min(max(share, LEAST_SECONDS), MOST_SECONDS)

    def _put(self, item: _Item) -> None:
        if self._thread is None or self._trouble is not None:
            return
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._give_up(f"{MOST_STEPS_WAITING} steps behind")

    def _write(self) -> None:
        """Open the run, and write what is in the queue until the ending: the thread's work."""
        try:
            assert self._folder is not None
            run = open_run(self._tracking, self._identity, self._folder)
            for epoch, numbers in self._earlier.items():
                if epoch >= run.starting_step:  # what the server has stays as it is
                    run.log(dict(numbers), step=epoch)
            last = max(self._earlier, default=0)
            while isinstance(item := self._next(), tuple):
                last, numbers = item
                if last >= run.starting_step:
                    run.log(dict(numbers), step=last)
            write_ending(run, item(), last)
            run.finish(exit_code=self._exit_code)
            if not self._abandoned.is_set():
                # An offline file is written out only when the process that writes it ends (0.31:
                # 1 of 30 files stayed empty on a busy machine without this).
                close_service()
        except Exception as error:  # tracking must never cost a trial
            self._give_up(traceback.format_exception_only(error)[-1].strip().splitlines()[0])
        finally:
            if self._abandoned.is_set():
                self._clean_up()

    def _next(self) -> _Item:
        while True:
            try:
                return self._waiting.get(timeout=1)
            except queue.Empty:
                if self._abandoned.is_set():  # nothing will come any more
                    return RunEnding

    def _clean_up(self) -> None:
        if self._folder is not None:
            scratch.drop(self._folder)

    def _give_up(self, reason: str, *, pause: bool = True) -> None:
        if self._trouble is not None or self._abandoned.is_set():
            return
        self._trouble = reason
        if pause:
            TrackedRun.paused_until = time.monotonic() + SECONDS_OF_PAUSE
        print(f"W&B: {reason}; the trial goes on without it", file=sys.stderr)


_Item = tuple[int, Mapping[str, float]] | Callable[[], RunEnding]
"""An epoch and its numbers, or the ending."""


def write(tracking: Tracking, content: RunContent, folder: Path) -> None:
    """Write a whole run at once, in this thread; an offline run's folder appears below ``folder``.

    Raises:
        Exception: whatever wandb raises.
    """
    run = open_run(tracking, content.identity, folder)
    for step, numbers in content.steps.items():
        if step >= run.starting_step:
            run.log(dict(numbers), step=step)
    write_ending(run, content.ending, max(content.steps, default=0))
    run.finish(exit_code=int(content.failed))
    close_service()


def offline_files(folder: Path, run_id: str) -> dict[str, bytes]:
    """A closed offline run's files, by their path in a results folder.

    Raises:
        FileNotFoundError: the file with its steps is not among them, or is empty.
    """
    files = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.glob("wandb/offline-run-*/**/*")
        if file.is_file() and file.suffix != ".log"
    }
    if not any(content for name, content in files.items() if name.endswith(f"run-{run_id}.wandb")):
        raise FileNotFoundError(f"wandb left no run-{run_id}.wandb")
    return files


def open_run(tracking: Tracking, identity: RunIdentity, folder: Path) -> Any:
    """Open a `wandb.Run` that goes on where the server's, if there is one, stopped.

    Quiet and light: no console capture, no threads that watch the machine, nothing about the
    machine, its user, its packages or the code; and bounded, so that a server that fails is given
    up after a few tries.  What the environment or a settings file says of a run does not
    count.

    Raises:
        RuntimeError: it is another run than the one that was asked for.
        Exception: whatever wandb raises.
    """
    with _alone():
        run = _opened(tracking, identity, folder)
    asked = {
        "id": (identity.id, run.id),
        "project": (tracking.project, run.project),
        "entity": (tracking.entity, run.entity if tracking.entity else None),
        "group": (tracking.group, run.group),
        "sweep": (None, run.sweep_id or None),
    }
    wrong = [
        f"{name} {got!r} instead of {wanted!r}"
        for name, (wanted, got) in asked.items()
        if wanted != got
    ]
    if wrong:
        run.finish(exit_code=1)
        close_service()
        raise RuntimeError(f"W&B opened another run than the one asked for: {', '.join(wrong)}")
    return run


@contextmanager
def _alone() -> Iterator[None]:
    """Keep from wandb what the environment says of runs, and say so once."""
    hidden = {name: os.environ.pop(name) for name in ignored_variables()}
    _say_ignored(hidden.keys())
    try:
        yield
    finally:
        for name, value in hidden.items():
            os.environ.setdefault(name, value)


def _say_ignored(names: Iterable[str]) -> None:
    if line := ignored_line(names):
        print(line, file=sys.stderr)


def _opened(tracking: Tracking, identity: RunIdentity, folder: Path) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's own telemetry
    # What artifacts leave behind goes with the folder, not into somebody's home.
    os.environ["WANDB_DATA_DIR"] = str(folder / "data")
    os.environ["WANDB_CACHE_DIR"] = str(folder / "cache")
    # The process that writes is our own: one that another process started, `close_service` could
    # not wait for.
    os.environ.pop("WANDB_SERVICE", None)
    import wandb

    mode: Literal["online", "offline"] = "online" if tracking.mode == "online" else "offline"
    # The server is said here, whatever a settings file in this folder says.
    mine: dict[str, Any] = {"base_url": tracking.url or default_url()}
    if tracking.key is not None:  # not in the environment, which child processes get
        mine["api_key"] = tracking.key
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        program="lesion-seed-sweep",
        host="not-told",
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        reinit="create_new",  # never wait for the run of an earlier trial
        init_timeout=SECONDS_TO_CONNECT if mode == "online" else SECONDS_TO_START,
        **_FEW_TRIES,
        **mine,
    )
    loaded = wandb.setup(  # quiet from the first moment
        settings=wandb.Settings(
            silent=True, sagemaker_disable=True, x_service_wait=SECONDS_TO_START
        )
    ).settings
    plain = wandb.Settings()
    found = [
        name
        for name in _OF_A_RUN
        if getattr(loaded, name) != getattr(plain, name)
        and f"WANDB_{name.upper()}" not in os.environ
    ]
    _say_ignored({f"{name} of a wandb settings file" for name in found})
    for name in found:
        setattr(loaded, name, getattr(plain, name))
    return wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        id=identity.id,
        name=identity.name,
        resume="allow",
        mode=mode,
        dir=str(folder),
        group=tracking.group,
        job_type=identity.job_type,
        tags=list(identity.tags),
        config=dict(identity.config),
        settings=settings,
    )


_OF_A_RUN = (
    "run_id", "run_name", "run_notes", "run_tags", "run_group", "run_job_type", "project", "entity",
    "sweep_id", "sweep_param_path", "launch", "launch_config_path", "resume", "resume_from",
    "fork_from",
)  # fmt: skip
"""wandb's settings that say which run it is."""

_FEW_TRIES = {
    f"x_{channel}_{name}": value
    for channel, timeout_seconds in (("graphql", 10), ("file_stream", 10), ("file_transfer", 30))
    for name, value in (
        ("timeout_seconds", timeout_seconds),
        ("retry_max", 2),
        ("retry_wait_min_seconds", 1),
        ("retry_wait_max_seconds", 4),
    )
}
"""Settings of each of wandb's ways to the server."""


def write_ending(run: Any, ending: RunEnding, step: int) -> None:
    """Write tables, pictures, pages, the model and the summary to an open `wandb.Run`."""
    import wandb

    items: dict[str, Any] = {
        name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        for name, (columns, rows) in ending.tables.items()
    }
    items |= {name: wandb.Html(page(), inject=False) for name, page in ending.pages.items()}
    if ending.pictures:
        items["overlays"] = [
            wandb.Image(picture.pixels, caption=picture.case) for picture in ending.pictures
        ]
    if items:  # with the last numbers; after them where the server has those already
        run.log(items, step=max(step, run.starting_step))
    if ending.model is not None:
        artifact = wandb.Artifact(f"model-{run.id}", type="model")
        with artifact.new_file("model.pt", mode="wb") as file:
            file.write(ending.model)
        run.log_artifact(artifact)
    run.summary.update(dict(ending.summary))


def default_url() -> str:
    """Address of the server that wandb logs to by default."""
    import wandb

    return wandb.Settings().base_url


def close_service() -> None:
    """Wait until everything is written out: the end of the process that writes it.

    Raises:
        RuntimeError: that process was killed or failed, so something may be missing.
    """
    import wandb

    try:
        wandb.teardown()
    except SystemExit as ended:  # would end a thread in silence, or a sweep
        raise RuntimeError(f"the process that writes ended with status {ended.code}") from None
