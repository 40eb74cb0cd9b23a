"""How far something is that goes through a list: done, left, time to go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def counted(items: Sequence[T], say: Callable[[str], None]) -> Iterator[T]:
    """The items in order; a line before each and after the last says how far it is."""
    begun = time.monotonic()
    for done, item in enumerate(items):
        say(progress_line(done, len(items), time.monotonic() - begun))
        yield item
    say(progress_line(len(items), len(items), time.monotonic() - begun))


def progress_line(done: int, total: int, seconds: float) -> str:
    """How far it is after so many seconds, and how long the rest takes at that speed.

    >>> progress_line(0, 6, 0.0), progress_line(2, 6, 60.0), progress_line(6, 6, 180.0)
    ('0/6 done, 6 left', '2/6 done, 4 left, 2 min 0 s to go', '6/6 done, 0 left, took 3 min 0 s')
    """
    left = total - done
    text = f"{done}/{total} done, {left} left"
    if not left:
        return f"{text}, took {duration(seconds)}"
    return f"{text}, {duration(left * seconds / done)} to go" if done else text


def duration(seconds: float) -> str:
    """Seconds in the two units that fit.

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
