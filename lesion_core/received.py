"""What a received file may do: be read within limits, and name nothing but itself.

A results folder may come from anybody.  Its JSON and its tables are opened here alone, and a name
in them becomes a part of a path only if `is_plain` says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import pyarrow as pa

MOST_JSON_BYTES = 2**28
"""A sweep of a hundred thousand trials has less."""

MOST_JSON_DEPTH = 32
"""Objects and lists inside each other; ours have six."""

MOST_TABLE_ROWS = 10**8
MOST_TABLE_BYTES = 2**32
"""Of a table in memory, by its own metadata."""


def is_plain(name: object) -> bool:
    """Whether a name may become one part of a path: no folder, no pattern, not hidden.

    >>> is_plain("wmh2017-xent-s42-f0-8885f8bd"), is_plain("../x"), is_plain(".x"), is_plain("a*")
    (True, False, False, False)
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & set("/\\*?[]")
    )


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """A regular file's content.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is no regular file (a pipe would wait for ever), or larger than ``most``.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path}: is no regular file")
        if most is not None and found.st_size > most:
            raise ValueError(f"{path}: {found.st_size} bytes; expected {most} at most")
        return file.read()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is too large or too deep, or holds something else.
    """
    try:
        text = read_bytes(path, MOST_JSON_BYTES).decode()
        content = json.loads(text, parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(path)) from None
    except RecursionError:
        raise ValueError(f"{path}: cannot be read (it is nested too deeply)") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({_without(path, error)})") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: cannot be read (it holds a {type(content).__name__}, not an object)"
        )
    if text.count("{") + text.count("[") > MOST_JSON_DEPTH and _depth(content) > MOST_JSON_DEPTH:
        raise ValueError(f"{path}: cannot be read (it is nested too deeply)")
    return content


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A Parquet file with the columns of a schema; those that it lacks are null.

    Raises:
        ValueError: it is not there, cannot be read, or is larger than the limits here by its
            own metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path}: is no regular file")
        with pq.ParquetFile(path) as file:
            _refuse_large(path, file.metadata)
        return pq.read_table(path, schema=schema)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({_without(path, error)})") from None
    except (pa.ArrowException, KeyError, MemoryError) as error:
        raise ValueError(f"{path}: cannot be read ({_without(path, error)})") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, which need not fit into memory.

    Raises:
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "is no regular file", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(root: Path, relative: str | Path) -> Path:
    """A place in a folder, to be written or deleted; links on the way there are not followed.

    The folder itself may be reached by links.  What lies at the place may be one: it is replaced
    or deleted itself.

    Raises:
        ValueError: the place is outside, or behind a link.
    """
    parts = Path(relative).parts
    if not parts or Path(relative).is_absolute() or ".." in parts:
        raise ValueError(f"{relative}: is no place in {root}")
    place = root
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink():
            raise ValueError(
                f"{place}: is a link to {place.readlink()}; nothing is written or deleted "
                "through links in a results folder: put the folder itself there"
            )
    return place / parts[-1]


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is no JSON")


def _depth(content: object) -> int:
    """How deep objects and lists are inside each other."""
    depth, level = 0, [content]
    while level:
        level = [inner for each in level for inner in _containers(each)]
        depth += 1
    return depth


def _containers(content: object) -> Iterator[object]:
    values = content.values() if isinstance(content, dict) else content
    if isinstance(content, dict | list):
        yield from (each for each in values if isinstance(each, dict | list))  # type: ignore[union-attr]


def _refuse_large(path: Path, metadata: Any) -> None:
    rows = metadata.num_rows
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    # Equal values are stored once, so that a few bytes become as many as there are rows.
    size = max(size, 8 * rows * max(1, metadata.num_columns))
    if rows > MOST_TABLE_ROWS or size > MOST_TABLE_BYTES:
        raise ValueError(
            f"{path}: {rows} rows, {size / 1e9:.3g} GB in memory; expected {MOST_TABLE_ROWS} rows "
            f"and {MOST_TABLE_BYTES / 1e9:.3g} GB at most"
        )


def _without(path: Path, error: Exception) -> str:
    """An error in one line, without the file's name in front, which the caller says."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text.removeprefix(f"{path}: ") or type(error).__name__
