"""How far a sweep is, on the terminal: a table that lives, or plain lines where there is none."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TextIO, TypedDict

from lesion_core.paths import read_json
from lesion_core.progress import duration
from lesion_core.terminal import one_line, steerable, visible

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LINES = 60.0
SECONDS_OF_SILENCE = 45.0
"""Without an answer from the cluster, after which it is given up.  Ray itself stops this process
without a clear word after 60."""

LIVE = ".live.json"


class Running(TypedDict):
    """A trial that runs at the moment."""

    epoch: int
    """The newest; -1: none yet."""
    worker: str
    """HOST:PROCESS."""
    since: float
    """When this attempt began, seconds since 1970."""
    curve: NotRequired[dict[int, float]]
    """Of a search's own trials: their validation Dice by epoch, in this attempt."""


class Snapshot(TypedDict):
    """What the ledger's actor knows of the trials of this command."""

    running: dict[str, Running]
    done: list[str]
    failed: dict[str, str]
    """Why, by name."""
    given_up: NotRequired[list[str]]
    """Those that ended in the middle, since a search had seen enough."""
    epochs_trained: int
    broken: str | None
    """Why the sweep cannot go on."""
    has_key: NotRequired[bool]
    """Whether it has W&B's key for the workers."""


class ClusterSnapshot(Snapshot):
    """The trials, and the machines that they run on."""

    warning: str
    """On machines that have joined; empty if there is nothing to say."""
    nodes: int
    gpus: float
    slots: int
    waiting: NotRequired[str]
    """Why trials wait though they would fit; empty if none does."""


@dataclass
class Progress:
    """What is known of the trials of this command, and what follows from it."""

    trials: Mapping[str, int]
    """Epochs by name of every trial that shall run."""
    already_done: int = 0
    """Trials of the sweep that were done before."""
    gpus_per_trial: float = 0.0
    nodes: int = 0
    """Machines of the cluster."""
    gpus: float = 0.0
    """GPUs of the cluster."""
    slots: int | None = None
    """Trials that fit on the machines that are there now."""
    waiting: str = ""
    """Why trials wait though they would fit."""
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by name."""
    given_up: set[str] = field(default_factory=set)
    """Those that a search ended in the middle."""
    running: dict[str, Running] = field(default_factory=dict)
    """By name."""
    epochs_trained: int = 0
    """By this command."""
    first_epoch_at: float | None = None
    progress_note: Callable[[], str] = str
    """What else there is to say; by default nothing."""

    def update(self, snapshot: ClusterSnapshot) -> None:
        """Take in what the ledger's actor and the cluster say."""
        self.done |= set(snapshot["done"])
        self.failed |= snapshot["failed"]
        self.given_up |= set(snapshot.get("given_up", ()))
        self.running = dict(snapshot["running"])
        self.nodes, self.gpus = snapshot["nodes"], snapshot["gpus"]
        self.slots = snapshot["slots"]
        self.waiting = snapshot.get("waiting", "")
        self.epochs_trained = max(self.epochs_trained, snapshot["epochs_trained"])
        if self.first_epoch_at is None and self.running:
            self.first_epoch_at = time.monotonic()

    @property
    def left(self) -> int:
        """How many trials neither run nor have ended."""
        return len(self.trials) - len(self.ended) - len(self.running)

    @property
    def ended(self) -> set[str]:
        """Trials that do not run again."""
        return self.done.union(self.failed, self.given_up)

    @property
    def epochs_per_second(self) -> float | None:
        """Epochs per second so far; None until something was trained."""
        if self.first_epoch_at is None or not self.epochs_trained:
            return None
        return self.epochs_trained / max(time.monotonic() - self.first_epoch_at, 1e-3)

    @property
    def trials_per_hour(self) -> float | None:
        """Trials per hour at the speed of the epochs so far."""
        rate = self.epochs_per_second
        if rate is None or not self.trials:
            return None
        return 3600 * rate * len(self.trials) / sum(self.trials.values())

    @property
    def seconds_left(self) -> float | None:
        """Seconds until every trial has ended, at the speed of the epochs so far."""
        rate = self.epochs_per_second
        if rate is None:
            return None
        epochs = sum(number for name, number in self.trials.items() if name not in self.ended)
        epochs -= sum(max(0, state["epoch"]) for state in self.running.values())
        return epochs / rate

    def line(self) -> str:
        """How far the sweep is, in one line."""
        parts = [
            f"{self.already_done + len(self.done)}/{self.already_done + len(self.trials)} done",
            f"{len(self.failed)} failed",
            *([f"{len(self.given_up)} given up"] if self.given_up else []),
            f"{len(self.running)} running",
            f"{self.left} left",
        ]
        if self.trials_per_hour is not None and self.seconds_left is not None:
            parts += [
                f"{_rounded(self.trials_per_hour)} trials/h",
                f"{duration(self.seconds_left)} to go",
            ]
        note = self.progress_note()
        return ", ".join(parts + self.used + ([note] if note else []))

    @property
    def used(self) -> list[str]:
        """How many GPUs and machines of the cluster are at work; no word of one without GPUs."""
        parts = []
        if self.gpus:
            parts.append(f"{len(self.running) * self.gpus_per_trial:g}/{self.gpus:g} GPUs")
        if self.nodes > 1:
            at_work = {state["worker"].partition(":")[0] for state in self.running.values()}
            parts.append(f"{len(at_work)}/{self.nodes} machines")
        if self.slots == 0:
            parts.append("waiting for a machine that a trial fits on")
        if self.waiting:
            parts.append(self.waiting)
        return parts

    @property
    def last_failure(self) -> str | None:
        """The newest failure in one line; None if nothing failed."""
        if not self.failed:
            return None
        name, error = list(self.failed.items())[-1]
        return f"last failure: {name}: {error}"


class LiveFile:
    """A file with what the terminal of a running sweep shows, for `sweeps.status`."""

    def __init__(self, results: Path, token: str | None) -> None:
        self._path, self._token = results / LIVE, token

    def write(self, progress: Progress) -> None:
        """Write what the terminal shows; a folder that cannot be written is no matter here."""
        content = {"token": self._token, "lines": [progress.line()]}
        if progress.last_failure:
            content["lines"].append(progress.last_failure)
        temporary = self._path.with_name(f"{LIVE}.{os.getpid()}")
        # Not synced: what it says holds for a second.
        with suppress(OSError):  # the ledger will say what is wrong with the folder
            temporary.unlink(missing_ok=True)
            with temporary.open("x") as file:  # a link that somebody put there is not followed
                file.write(json.dumps(content))
            temporary.replace(self._path)

    def remove(self) -> None:
        """Remove the file: nothing runs any more."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def live_lines(results: Path, token: str) -> list[str]:
    """Lines that the driver with this lock token shows on its terminal at the moment."""
    with suppress(ValueError):
        content = read_json(results / LIVE)
        lines = content.get("lines")
        if content.get("token") == token and isinstance(lines, list):
            return [line for line in lines if isinstance(line, str)]
    return []


class Display(threading.Thread):
    """Looks at the cluster every so often and shows what changed, inside ``with``."""

    def __init__(
        self,
        progress: Progress,
        look: Callable[[], ClusterSnapshot | None],
        on_broken: Callable[[str], None],
        terminal: TextIO,
        live_file: LiveFile,
        *,
        quiet: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self._progress, self._look, self._on_broken = progress, look, on_broken
        self._terminal, self._live_file, self._quiet = terminal, live_file, quiet
        self._last_answer = time.monotonic()
        self._gave_up = False
        self._finished = threading.Event()
        self._live: Any = None
        self._last_line = time.monotonic()
        self._reported: set[str] = set()
        self._said_waiting = ""

    def __enter__(self) -> Display:
        if self._terminal.isatty() and not self._quiet:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=steerable(self._terminal))
            self._live = Live(
                self._table(),
                console=console,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._finished.set()
        self.join(timeout=5)
        if self._live is not None:
            self._live.stop()

    def run(self) -> None:
        """Look until told to stop; the thread's work."""
        while not self._finished.wait(SECONDS_BETWEEN_LOOKS):
            self.look()

    def look(self) -> None:
        """Look at the cluster once; gives it up if it has been silent for long."""
        try:
            snapshot = self._look()
        except Exception as error:  # Ray raises all sorts of things when it is not well
            silent = time.monotonic() - self._last_answer
            if silent > SECONDS_OF_SILENCE:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self._give_up(
                    f"the Ray cluster has not answered for {silent:.0f} s ({reason}); once it is "
                    "there again, the same command goes on from here"
                )
            return
        self._last_answer = time.monotonic()
        if snapshot is None:
            return
        self._progress.update(snapshot)
        if snapshot.get("warning"):
            self._print(f"warning: {snapshot['warning']}")
        self.show()
        self._live_file.write(self._progress)
        if snapshot["broken"]:
            self._give_up(snapshot["broken"])

    def _give_up(self, reason: str) -> None:
        self._finished.set()
        if not self._gave_up:
            self._gave_up = True
            self._on_broken(reason)

    def show(self) -> None:
        """Show the progress as it is known now."""
        if self._live is not None:
            self._live.update(self._table())
            return
        progress = self._progress
        for name in sorted(progress.done - self._reported) if not self._quiet else ():
            self._print(f"done    {name} ({progress.line()})")
            self._last_line = time.monotonic()
        for name in sorted(progress.failed.keys() - self._reported):
            self._print(f"FAILED  {name}: {progress.failed[name]}")
        self._reported |= progress.done | progress.failed.keys()
        new_reason = progress.waiting not in ("", self._said_waiting)
        due = time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES
        self._said_waiting = progress.waiting
        if not self._quiet and (due or new_reason):
            self._print(f"        {progress.line()}")
            self._last_line = time.monotonic()

    def _print(self, line: str) -> None:
        with suppress(OSError):  # a terminal that is gone does not end a sweep
            if self._live is not None:
                self._live.console.print(visible(line), markup=False, highlight=False)
            else:
                print(line, file=self._terminal, flush=True)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self._progress
        total = progress.already_done + len(progress.trials)
        ended = progress.already_done + len(progress.ended)
        table = Table.grid(padding=(0, 2))
        for name, state in sorted(progress.running.items())[:20]:
            epochs = progress.trials.get(name, 1)
            table.add_row(
                name,
                ProgressBar(total=epochs, completed=max(0, state["epoch"]), width=20),
                f"epoch {max(0, state['epoch'])}/{epochs}",
                duration(time.time() - state["since"]),
                state["worker"].partition(":")[0],
            )
        bar = Table.grid()  # by itself, it leaves no line for what follows
        bar.add_row(ProgressBar(total=total, completed=ended, width=60))
        parts: list[Any] = [bar, Text(progress.line(), overflow="fold"), table]
        if len(progress.running) > 20:
            parts.append(Text(f"and {len(progress.running) - 20} more"))
        if progress.last_failure:
            parts.append(Text(one_line(progress.last_failure), style="red", overflow="ellipsis"))
        return Group(*parts)


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
