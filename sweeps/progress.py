"""How far a sweep is, on the terminal: a table that lives, or plain lines where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LINES = 60.0


@dataclass
class Progress:
    """What is known of the trials of this command, and what follows from it."""

    trials: Mapping[str, int]
    """Epochs by name of every trial that shall run."""
    already_done: int = 0
    """Trials of the sweep that were done before."""
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by name."""
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: epoch, resumed_at, worker, since."""
    epochs_trained: int = 0
    """By this command."""
    first_epoch_at: float | None = None

    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Take in what the ledger's keeper says."""
        self.done |= set(snapshot["done"])
        self.failed |= snapshot["failed"]
        self.running = dict(snapshot["running"])
        self.epochs_trained = max(self.epochs_trained, snapshot["epochs_trained"])
        if self.first_epoch_at is None and self.running:
            self.first_epoch_at = time.monotonic()

    @property
    def left(self) -> int:
        return len(self.trials) - len(self.done) - len(self.failed) - len(self.running)

    @property
    def epochs_per_second(self) -> float | None:
        """None until something was trained."""
        if self.first_epoch_at is None or not self.epochs_trained:
            return None
        return self.epochs_trained / max(time.monotonic() - self.first_epoch_at, 1e-3)

    @property
    def trials_per_hour(self) -> float | None:
        rate = self.epochs_per_second
        if rate is None or not self.trials:
            return None
        return 3600 * rate * len(self.trials) / sum(self.trials.values())

    @property
    def seconds_left(self) -> float | None:
        rate = self.epochs_per_second
        if rate is None:
            return None
        ended = self.done | self.failed.keys()
        epochs = sum(number for name, number in self.trials.items() if name not in ended)
        epochs -= sum(max(0, state["epoch"]) for state in self.running.values())
        return epochs / rate

    def line(self) -> str:
        """Everything in one line."""
        parts = [
            f"{self.already_done + len(self.done)}/{self.already_done + len(self.trials)} done",
            f"{len(self.failed)} failed",
            f"{len(self.running)} running",
            f"{self.left} left",
        ]
        if self.trials_per_hour is not None and self.seconds_left is not None:
            parts += [
                f"{_rounded(self.trials_per_hour)} trials/h",
                f"{duration(self.seconds_left)} to go",
            ]
        return ", ".join(parts)


class Display(threading.Thread):
    """Looks once a second and shows what changed; ``with Display(...):`` starts and stops it."""

    def __init__(
        self,
        progress: Progress,
        look: Callable[[], Mapping[str, Any]],
        on_broken: Callable[[str], None],
        terminal: TextIO,
    ) -> None:
        super().__init__(daemon=True)
        self._progress, self._look, self._on_broken = progress, look, on_broken
        self._terminal = terminal
        self._finished = threading.Event()
        self._live: Any = None
        self._last_line = time.monotonic()
        self._reported: set[str] = set()

    def __enter__(self) -> Display:
        if self._terminal.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._terminal)
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
        while not self._finished.wait(SECONDS_BETWEEN_LOOKS):
            self.look()

    def look(self) -> None:
        """Once; nothing if the cluster does not answer at the moment."""
        try:
            snapshot = self._look()
        except Exception:  # Ray raises all sorts of things while it stops
            return
        self._progress.update(snapshot)
        self.show()
        if snapshot["broken"]:
            self._finished.set()
            self._on_broken(snapshot["broken"])

    def show(self) -> None:
        if self._live is not None:
            self._live.update(self._table())
            return
        progress = self._progress
        for name in sorted(progress.done - self._reported):
            self._print(f"done    {name} ({progress.line()})")
            self._last_line = time.monotonic()
        for name in sorted(progress.failed.keys() - self._reported):
            self._print(f"FAILED  {name}: {progress.failed[name]}")
        self._reported |= progress.done | progress.failed.keys()
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print(f"        {progress.line()}")
            self._last_line = time.monotonic()

    def _print(self, line: str) -> None:
        print(line, file=self._terminal, flush=True)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self._progress
        total = progress.already_done + len(progress.trials)
        ended = progress.already_done + len(progress.done) + len(progress.failed)
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
        parts: list[Any] = [ProgressBar(total=total, completed=ended), Text(progress.line()), table]
        if len(progress.running) > 20:
            parts.append(Text(f"and {len(progress.running) - 20} more"))
        if progress.failed:
            name, error = list(progress.failed.items())[-1]
            parts.append(Text(f"last failure: {name}: {error}", style="red", overflow="ellipsis"))
        return Group(*parts)


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def duration(seconds: float) -> str:
    """
    >>> duration(42), duration(150), duration(9000), duration(400000)
    ('42 s', '2 min 30 s', '2 h 30 min', '4 d 15 h')
    """
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes} min {seconds % 60:.0f} s"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
