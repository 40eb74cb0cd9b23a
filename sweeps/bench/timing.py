"""Seconds of rival ways to do one thing, taken in turn, and how results are told."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number, and what it stands against."""

    what: str
    """What was measured."""
    value: float
    """Ours."""
    unit: str = "s"
    peer: str = ""
    """Who else did the same."""
    peer_value: float | None = None
    """Theirs, in the same unit."""
    least_ratio: float | None = None
    """The target, if it is a ratio to the peer."""
    most: float | None = None
    """The target, if it is a bound on the value;"""
    least: float | None = None
    """the same from below."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the peer's value is ours."""
        return None if self.peer_value is None else self.peer_value / self.value

    @property
    def in_words(self) -> str:
        """The row as a line that is printed once it is known.

        >>> Row(what="step", value=0.002, peer="plain", peer_value=0.006).in_words
        'step: 0.002 s; plain: 0.006 s, 3.00 x'
        """
        line = f"{self.what}: {self.value:.4g} {self.unit}"
        if self.peer_value is not None:
            line += f"; {self.peer}: {self.peer_value:.4g} {self.unit}, {self.ratio:.2f} x"
        return f"{line} ({self.note})" if self.value != self.value else line

    @property
    def target(self) -> str:
        if self.least_ratio is not None:
            return f"≥ {self.least_ratio:g} x"
        if self.least is not None:
            return f"≥ {self.least:g} {self.unit}"
        return "" if self.most is None else f"≤ {self.most:g} {self.unit}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.least_ratio is not None and self.ratio is not None:
            return self.ratio >= self.least_ratio
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most


def paired(names: Iterable[str], run: Callable[[str], float], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each; ``run`` runs one and says how long it took.

    All run once uncounted, then in turn (A B A B ...), so that what slows the machine for a while
    slows them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in seconds:
        run(name)
    for _ in range(repeats):
        for name, values in seconds.items():
            values.append(run(name))
    return {name: statistics.median(values) for name, values in seconds.items()}


@dataclass(frozen=True)
class Rival:
    """One way to do it: ``make(*arguments)`` prepares, in a process of its own, and returns what is
    then timed.  Both must be importable by name."""

    make: Callable[..., Callable[[], Any]]
    arguments: tuple = ()


class Stage:
    """Rivals that are ready, each in its own process: none changes another one's memory or threads.

    To be used in a ``with`` block.  ``results`` are what each returned last.
    """

    def __init__(self, rivals: Mapping[str, Rival]) -> None:
        context = multiprocessing.get_context("spawn")
        self.results: dict[str, Any] = {}
        self._pipes: dict[str, Any] = {}
        self._processes = []
        for name, rival in rivals.items():
            self._pipes[name], theirs = context.Pipe()
            process = context.Process(target=_perform, args=(rival, theirs), daemon=True)
            process.start()
            self._processes.append(process)
            theirs.close()

    def run(self, name: str) -> float:
        """Seconds that one run of a rival took."""
        self._pipes[name].send(True)
        return self._end(name)

    def run_together(self) -> float:
        """Seconds from the start of one run of all rivals at once to the last one's end."""
        begun = time.perf_counter()
        for pipe in self._pipes.values():
            pipe.send(True)
        for name in self._pipes:
            self._end(name)
        return time.perf_counter() - begun

    def _end(self, name: str) -> float:
        try:
            answer = self._pipes[name].recv()
        except EOFError:
            raise RuntimeError(f"{name}: its process ended; is there enough memory?") from None
        if isinstance(answer, str):
            raise RuntimeError(f"{name}: {answer}")
        seconds, self.results[name] = answer
        return seconds

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        for process in self._processes:
            process.join()


def _perform(rival: Rival, pipe: Any) -> None:
    """What a rival's process does: a run whenever it is asked to, until nobody asks any more."""
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        run = None
        while pipe.recv():
            try:
                run = run or rival.make(*rival.arguments)
                begun = time.perf_counter()
                result = run()
                pipe.send((time.perf_counter() - begun, result))
            except Exception:
                pipe.send(traceback.format_exc())


def markdown(rows: Iterable[Row]) -> str:
    """A table for the README.

    >>> print(markdown([Row(what="epoch", value=2, peer="plain", peer_value=5, least_ratio=2.5)]))
    | what | ours | peer | theirs | ratio | target | met | note |
    |---|---|---|---|---|---|---|---|
    | epoch | 2.00 s | plain | 5.00 s | 2.50 x | ≥ 2.5 x | yes |  |
    """
    lines = [
        "| what | ours | peer | theirs | ratio | target | met | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.what,
            f"{_digits(row.value)} {row.unit}",
            row.peer,
            "" if row.peer_value is None else f"{_digits(row.peer_value)} {row.unit}",
            "" if row.ratio is None else f"{row.ratio:.2f} x",
            row.target,
            {True: "yes", False: "no", None: ""}[row.met],
            row.note,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    """A number with at least three digits.

    >>> _digits(0.0123), _digits(2), _digits(1234.5)
    ('0.0123', '2.00', '1234')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
