"""What a received file may do: be read within limits, and name nothing but itself.

A results folder may come from anybody.  Its tables are opened here alone (its JSON by
`paths.read_json`), and a name in them becomes a part of a path only if `is_plain` says so.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.paths import MOST_FILE_BYTES, Damaged, existing, read_bytes, readable

if TYPE_CHECKING:
    import pyarrow as pa

MOST_TABLE_ROWS = 10**8
MOST_TABLE_BYTES = 2**32
"""Of a table in memory."""

ALWAYS_TABLE_BYTES = 2**28
MOST_TIMES = 1000
"""A table beyond `ALWAYS_TABLE_BYTES` unpacks to so many times its file at most; ours to 20."""


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


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A Parquet file with the columns of a schema; those that it lacks are null.

    Raises:
        Damaged: it is no table, or larger than the limits here.
        ValueError: it is not there, or cannot be read.
    """
    return table_of(path, read_bytes(path), schema)


def table_of(
    path: Path, content: bytes, schema: pa.Schema | None = None, wider: pa.Schema | None = None
) -> pa.Table:
    """The same of a file's bytes, which were read already; ``path`` is for people.

    A file with any of the columns that a ``wider`` schema has on top is read by that one.

    It decodes on the calling thread alone: ledgers have many small tables, which are faster read
    side by side.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pa.BufferReader(content)
        # It is in memory already, so no other thread needs to fetch it (`pre_buffer`).
        with pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False) as file:
            _refuse_large(path, content, file.metadata)
            names = file.schema_arrow.names
            if schema and wider and ({*wider.names} - {*schema.names}) & {*names}:
                schema = wider
            if schema is None or names == schema.names:
                table = file.read(use_threads=False)
            else:
                wanted = [name for name in schema.names if name in names]
                table = file.read(columns=wanted, use_threads=False)
        return table if schema is None else _as_in(schema, table)
    except Damaged:
        raise
    except (OSError, pa.ArrowException, KeyError, MemoryError, ValueError, OverflowError) as error:
        raise Damaged(f"{path}: cannot be read ({_without(path, error)})") from None


def num_rows(path: Path) -> int:
    """Rows of a Parquet file, as its footer says.

    Raises:
        ValueError: as `read_table`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    existing(path)
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise Damaged(f"{path}: cannot be read ({_without(path, error)})") from None


def _as_in(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The same rows with exactly these columns."""
    import pyarrow as pa

    if not table.schema.equals(schema):
        table = pa.Table.from_arrays(
            [
                table.column(field.name).cast(field.type)
                if field.name in table.column_names
                else pa.nulls(len(table), field.type)
                for field in schema
            ],
            schema=schema,
        )
    return table.replace_schema_metadata(schema.metadata)


def sha256_of(path: Path, most: int = MOST_FILE_BYTES) -> str:
    """SHA-256 of a regular file, which need not fit into memory.

    Raises:
        Damaged: it has more than ``most`` bytes; with holes it could be hours of reading.
        ValueError: as `paths.existing`.
    """
    existing(path)
    with readable(path), path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise Damaged(f"{path}: {size} bytes; expected {most} at most")
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


def _refuse_large(path: Path, content: bytes, metadata: Any) -> None:
    """By what the footer says, and by what would really be unpacked (`unpacked`)."""
    from lesion_core.unpacked import unpacked_bytes  # long patterns: status needs none

    rows = metadata.num_rows
    # Equal values are stored once, so that a few bytes become as many as there are rows.
    size = 8 * rows * max(1, metadata.num_columns)
    if rows > MOST_TABLE_ROWS or size > MOST_TABLE_BYTES:
        raise Damaged(
            f"{path}: {rows} rows, {size / 1e9:.3g} GB in memory; expected {MOST_TABLE_ROWS} rows "
            f"and {MOST_TABLE_BYTES / 1e9:.3g} GB at most"
        )
    most = min(MOST_TABLE_BYTES, max(ALWAYS_TABLE_BYTES, MOST_TIMES * len(content)))
    if unpacked_bytes(content, metadata.schema, most) > most:
        raise Damaged(
            f"{path}: {len(content)} bytes that become more than {most / 1e9:.3g} GB in memory"
        )


def _without(path: Path, error: Exception) -> str:
    """An error in one line, without the file's name in front, which the caller says."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text.removeprefix(f"{path}: ") or type(error).__name__
