"""Seconds of rival ways to do one thing, taken in turn, and how results are told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


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
    """The target, if it is a bound on the value."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the peer's value is ours."""
        return None if self.peer_value is None else self.peer_value / self.value

    @property
    def target(self) -> str:
        if self.least_ratio is not None:
            return f"≥ {self.least_ratio:g} x"
        return "" if self.most is None else f"≤ {self.most:g} {self.unit}"

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if self.least_ratio is not None and self.ratio is not None:
            return self.ratio >= self.least_ratio
        return None if self.most is None else self.value <= self.most


def paired(rivals: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each rival.

    All run once unmeasured, then in turn (A B A B ...), so that what slows the machine for a while
    slows them alike.
    """
    for run in rivals.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats):
        for name, run in rivals.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


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
            f"{row.value:#.3g} {row.unit}",
            row.peer,
            "" if row.peer_value is None else f"{row.peer_value:#.3g} {row.unit}",
            "" if row.ratio is None else f"{row.ratio:.2f} x",
            row.target,
            {True: "yes", False: "no", None: ""}[row.met],
            row.note,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
