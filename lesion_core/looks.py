"""Who looked at a sweep's results, and what was decided then: ``looks.log`` of a results folder, a
line for every state of the ledger that somebody saw.

Lines are only ever added, by reports and by `--until-decided`.  Each is JSON with a checksum of its
own, so that nobody has to rewrite a checksum of the whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lesion_core.paths import is_there, read_bytes

FILE = "looks.log"
REPORT, RULE = "report", "until-decided"
"""Who looked: whoever made a report, or a sweep that stops by its own rule."""

MOST_BYTES = 2**26
"""A look takes less than a thousand bytes."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One state of a ledger that somebody saw."""

    ledger: str
    """`report_record.ledger_digest`."""
    cells: dict[str, dict[str, int]]
    """Complete (seed, fold) trials by cohort and loss."""
    asked: int
    """Trials that had been asked for."""
    by: str = REPORT
    decision: dict[str, Any] = field(default_factory=dict)
    """What a sweep that runs until its question is decided made of it (`sweeps.until_decided`)."""
    when: str = ""
    """UTC; "" becomes now when it is recorded."""

    @property
    def done(self) -> int:
        """Complete trials."""
        return sum(count for losses in self.cells.values() for count in losses.values())


@dataclass(frozen=True)
class Looks:
    """What looks.log says."""

    all: tuple[Look, ...] = ()
    damaged_lines: tuple[int, ...] = ()
    """From 1."""

    def before(self, ledger: str) -> list[Look]:
        """Looks at other states of the ledger than this one, one per state."""
        return list({look.ledger: look for look in self.all if look.ledger != ledger}.values())

    @property
    def decisions(self) -> list[Look]:
        """Those of a sweep that runs until its question is decided."""
        return [look for look in self.all if look.by == RULE]


def read_looks(results: Path) -> Looks:
    """Every look that was recorded in a results folder; a damaged line is counted, not believed.

    Raises:
        ValueError: the file cannot be read.
    """
    if not is_there(results / FILE):
        return Looks()
    found, damaged = [], []
    for number, line in enumerate(read_bytes(results / FILE, MOST_BYTES).split(b"\n"), start=1):
        if not line:
            continue
        if (look := _look(line)) is None:
            damaged.append(number)
        else:
            found.append(look)
    return Looks(tuple(found), tuple(damaged))


def record_look(results: Path, look: Look) -> None:
    """Add a look, unless the last one was at the same state, by the same and with the same
    decision.

    Raises:
        OSError: it cannot be written: the folder is somebody else's, or a link lies there.
        ValueError: what is there cannot be read.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(results / FILE, flags, 0o644)
    try:
        with contextlib.suppress(OSError):  # a file server without locks: two lines at worst
            fcntl.flock(handle, fcntl.LOCK_EX)
        known = read_looks(results).all
        if known and _seen(known[-1]) == _seen(look):
            return
        content = asdict(look)
        content["when"] = look.when or datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(content | {"line": _checksum(content)}, allow_nan=False).encode()
        # An earlier line that was cut short must not spoil this one.
        os.write(handle, (b"" if _ends_a_line(handle) else b"\n") + line + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def drop_damaged_lines(results: Path) -> int:
    """Keep the lines that can be believed; returns how many were not."""
    from lesion_core.results import write_bytes

    damaged = read_looks(results).damaged_lines
    lines = read_bytes(results / FILE, MOST_BYTES).split(b"\n")
    kept = [line for line in lines if line and _look(line) is not None]
    write_bytes(results / FILE, b"".join(line + b"\n" for line in kept))
    return len(damaged)


def _seen(look: Look) -> tuple[str, str, dict[str, Any]]:
    return look.ledger, look.by, look.decision


def _ends_a_line(handle: int) -> bool:
    size = os.fstat(handle).st_size
    return size == 0 or os.pread(handle, 1, size - 1) == b"\n"


def _look(line: bytes) -> Look | None:
    try:
        content = json.loads(line.decode())
        stated = content.pop("line")
        if stated != _checksum(content):
            return None
        look = Look(**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    cells = look.cells.values() if isinstance(look.cells, dict) else [None]
    fits = isinstance(look.ledger, str) and isinstance(look.by, str) and type(look.asked) is int
    fits = fits and isinstance(look.decision, dict) and all(map(_counts, cells))
    return look if fits else None


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())


def _checksum(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
