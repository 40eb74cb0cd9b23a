"""The checksums of a ledger: ``checksums.log``, a line for every file that was written.

A line is added before its file is replaced, so whenever its writer is killed a file is as one of
its lines says.  done.json holds the checksums of a trial's tables and weights, and its own is here:
so a changed byte anywhere can be named (`sweeps.verify`).  Each line has a checksum of itself.
Ledgers from before have no such file, or lack lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lesion_core import durable
from lesion_core.paths import MOST_FILE_BYTES, existing, is_there, read_bytes, readable
from lesion_core.received import is_plain

FILE = "checksums.log"

GROWING = ("log.txt", "ray.log")
"""Files that are only ever added to: what a line says holds of their beginning."""

MOST_BYTES = 2**30
"""Of checksums.log; a line takes 200."""


@dataclass
class Recorded:
    """What checksums.log says."""

    states: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """Sizes in bytes and SHA-256 by file, the newest last."""
    damaged_lines: list[int] = field(default_factory=list)
    """From 1."""
    there: bool = True

    def is_whole(self, root: Path, name: str) -> bool | None:
        """Whether a file is as one of its lines says; None if it has none.

        Raises:
            ValueError: the file cannot be read, or is none.
        """
        if name not in self.states:
            return None
        if Path(name).name in GROWING:
            content = _beginning(root / name, max(size for size, _ in self.states[name]))
            return any(
                len(content) >= size and _sha256(content[:size]) == digest
                for size, digest in self.states[name]
            )
        content = read_bytes(root / name)
        return (len(content), _sha256(content)) in self.states[name]


def read(root: Path) -> Recorded:
    """What checksums.log says; a line that is damaged counts as absent."""
    found = Recorded()
    try:
        if not is_there(root / FILE):
            return Recorded(there=False)
        lines = read_bytes(root / FILE, MOST_BYTES).split(b"\n")
    except ValueError:
        return Recorded(damaged_lines=[1])
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        if (entry := _entry(line)) is None:
            found.damaged_lines.append(number)
        else:
            name, size, digest = entry
            found.states.setdefault(name, []).append((size, digest))
    return found


def add(root: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Add lines for what files (by their path in the folder) will hold in a moment."""
    _append(root, [_line(name, len(content), _sha256(content)) for name, content in files])


def add_log(root: Path, name: str) -> None:
    """Add a line for a growing file as it is now, if it is there."""
    with suppress(ValueError, FileNotFoundError):
        durable.sync(root / name)  # or the line would outlast what it is about
        add(root, [(name, read_bytes(root / name))])


def rewrite(root: Path, files: Iterable[str]) -> None:
    """Begin anew with these files as they are."""
    lines = [
        _line(name, len(content), _sha256(content))
        for name in files
        for content in [read_bytes(root / name)]
    ]
    durable.write_bytes(root / FILE, b"".join(lines))


def _beginning(path: Path, size: int) -> bytes:
    """The first bytes of a file, which may have grown beyond any limit."""
    existing(path)
    with readable(path), path.open("rb") as file:
        return file.read(min(size, MOST_FILE_BYTES))


def _append(root: Path, lines: list[bytes]) -> None:
    # The first break keeps a line apart from one that another writer has cut short meanwhile.
    durable.append(root / FILE, b"\n" + b"".join(lines), whole_lines=True)


def _line(name: str, size: int, digest: str) -> bytes:
    content: dict[str, object] = {"file": name, "bytes": size, "sha256": digest}
    content["line"] = _of_line(content)
    return json.dumps(content).encode() + b"\n"


def _entry(line: bytes) -> tuple[str, int, str] | None:
    try:
        content = json.loads(line.decode())
        stated = content.pop("line")
        name, size, digest = content["file"], content["bytes"], content["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if stated != _of_line(content) or len(content) != 3 or not isinstance(name, str):
        return None
    # Names become paths; hidden parts are W&B's.
    parts = [part.lstrip(".") for part in name.split("/")]
    return (name, size, digest) if all(map(is_plain, parts)) else None


def _of_line(content: dict[str, object]) -> str:
    return _sha256(json.dumps(content, sort_keys=True).encode())[:16]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
