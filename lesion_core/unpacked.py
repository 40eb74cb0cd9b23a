"""How much would a Parquet file unpack to?  Told before any of it is unpacked.

Its footer says so too, but whoever made the file wrote what the footer says.  What really happens
on reading is decided by the header of each page: how long it is unpacked, how many values it holds,
and whether they are stored once and named by number (a dictionary), by which a few bytes become as
many copies of the longest value.  So the headers are walked, as a reader would walk them.

The format: https://parquet.apache.org/docs/file-format/, its headers in Thrift's compact protocol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pyarrow.parquet as pq

WIDTH = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value in memory, by physical type."""

PER_VALUE = 8
"""Bytes of a value besides its own: its levels, and where a text begins."""

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
"""Kinds of pages."""

PLAIN, PLAIN_DICTIONARY, DELTA_LENGTH, RLE_DICTIONARY = 0, 2, 6, 8
"""Encodings.  The first and the third hold each byte of a text themselves."""

ZSTD = b"\x28\xb5\x2f\xfd"
"""How what zstd packed begins (RFC 8878, 3.1.1)."""

MOST_NESTED = 12
"""Structures and lists inside each other in a header or a footer; ours have seven."""


class NoPages(ValueError):
    """Where the pages of a file are, or what they are, cannot be told."""


def unpacked_bytes(content: bytes, schema: pq.ParquetSchema, enough: int) -> int:
    """Bytes of memory that a file unpacks to, at most; counting stops beyond ``enough``.

    Args:
        content: the whole file.
        schema: its columns.
        enough: as far as it matters.

    Raises:
        NoPages: it cannot be told, so that the file is damaged.
    """
    total = 0
    kinds = [schema.column(number) for number in range(len(schema))]
    for group in _row_groups(content):
        for column, chunk in zip(kinds, group, strict=True):
            kind = column.physical_type
            width = column.length if kind == "FIXED_LEN_BYTE_ARRAY" else WIDTH.get(kind, 0)
            total += _unpacked(content, *chunk, width, enough - total)
            if total > enough:
                return total
    return total


def _row_groups(content: bytes) -> Iterator[list[tuple[int, int, int]]]:
    """Where the columns of each group of rows begin and end, and how many values they have.

    Read from the footer here, since a footer that was tampered with makes pyarrow 26 end the
    process when it is asked (a size of level histograms, a codec; not when it reads the columns).
    """
    end = len(content) - 8
    begin = end - int.from_bytes(content[end : end + 4], "little")
    if begin < 0:
        raise NoPages("it has no footer")
    footer, _ = _structure(content, begin, end, 0)
    groups = footer.get((4, LIST), [])
    for group in groups if isinstance(groups, list) else ():
        chunks = []
        for chunk in group.get((1, LIST), ()):
            said = chunk.get((3, STRUCTURE), {})
            data, size = said.get((9, I64), 0), said.get((7, I64), 0)
            dictionary = said.get((11, I64), 0)
            start = dictionary if 0 < dictionary < data else data
            chunks.append((start, start + size, said.get((5, I64), 0)))
        yield chunks


def _unpacked(content: bytes, at: int, end: int, num_values: int, width: int, enough: int) -> int:
    """Bytes in memory of the pages of one column; ``width`` 0: values of any length."""
    if num_values <= 0:  # no page is looked for
        return 0
    if not 0 < at <= end <= len(content):
        raise NoPages("a column is not in the file")
    total, seen, longest = 0, 0, 0
    while at < end and seen < num_values:
        kind, unpacked, packed, values, encoding, at = _page(content, at, end)
        total += unpacked
        if kind == DICTIONARY:
            longest = unpacked
            if not width and total <= enough < total + num_values * longest:  # small, so it can be:
                longest = _longest(content[at : at + packed], unpacked, values)
        elif kind != INDEX:
            seen += values
            if width:
                total += values * (width + PER_VALUE)
            elif encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY):
                total += values * (longest + PER_VALUE)
            elif encoding in (PLAIN, DELTA_LENGTH):
                total += values * PER_VALUE
            else:
                total += values * (unpacked + PER_VALUE)
        if total > enough:
            break
        at += packed
    return total


def _page(content: bytes, at: int, end: int) -> tuple[int, int, int, int, int, int]:
    """What the header here says of its page: kind, bytes unpacked, bytes as it is, values,
    encoding; and where the page itself begins.

    Raises:
        NoPages: there is no header, or it is of more than there is.
    """
    usual = _USUAL.match(content, at, end)
    if usual is not None:
        said = (*map(_number, usual.groups()), usual.end())
    else:
        header, at = _structure(content, at, end, 0)
        kind = header.get((1, I32))
        inner = header.get(
            ({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(cast(int, kind), 0), STRUCTURE)
        )
        if kind == INDEX:
            inner = {(1, I32): 0, (2, I32): 0}
        if not isinstance(inner, dict):
            raise NoPages("a page has no header")
        encoding = inner.get((4 if kind == DATA_V2 else 2, I32))
        said = (kind, header.get((2, I32)), header.get((3, I32)), inner.get((1, I32)), encoding, at)
        if not all(isinstance(each, int) for each in said):
            raise NoPages("a page has no header")
    kind, unpacked, packed, values, _, at = said = cast(tuple[int, int, int, int, int, int], said)
    if kind < 0 or unpacked < 0 or values < 0 or not 0 <= packed <= end - at:
        raise NoPages("a page has no header")
    return said


def _longest(packed: bytes, unpacked: int, values: int) -> int:
    """Bytes of the longest text of a dictionary: each is its length in four bytes, and itself.

    Of one that is packed otherwise than ours, all of it.  (How it is packed is not asked of
    pyarrow 26: where the footer says something unknown, that ends the process.)
    """
    import pyarrow as pa

    if packed.startswith(ZSTD):
        try:
            packed = pa.Codec("zstd").decompress(packed, decompressed_size=unpacked, asbytes=True)
        except (OSError, pa.ArrowException) as error:
            raise NoPages(f"a dictionary cannot be unpacked: {error}") from None
    elif len(packed) != unpacked:
        return unpacked
    longest, at = 0, 0
    for _ in range(values):
        if at >= len(packed):
            break
        size = int.from_bytes(packed[at : at + 4], "little")
        longest, at = max(longest, size), at + 4 + size
    return min(longest, unpacked)


def _pattern(text: bytes) -> re.Pattern[bytes]:
    """A pattern of Thrift's bytes.

    V: a number, T: a short text, L, M, N: lists of numbers and of triples, S: statistics (texts, a
    number, whether they are exact).
    """
    number = rb"(?:[\x80-\xff]{0,8}[\x00-\x7f])"
    lengths = [re.escape(bytes([size])) + rb".{%d}" % size for size in range(64)]
    for letter, meaning in {
        b"S": rb"(?:[\x18\x28\x38\x48\x58\x68]T|[\x16\x26\x36\x46]V|[\x11\x12\x21\x22])*\x00",
        b"L": rb"(?:\x15V|\x25V{2}|\x35V{3}|\x45V{4})",
        b"M": rb"(?:\x06|\x16V|\x26V{2}|\x36V{3}|\x46V{4})",
        b"N": rb"(?:\x1cR|\x2cR{2}|\x3cR{3}|\x4cR{4})",
        b"R": rb"(?:\x15V\x15V\x15V\x00)",
        b"T": rb"(?:" + rb"|".join(lengths) + rb")",
        b"V": number,
    }.items():
        text = text.replace(letter, meaning)
    return re.compile(text, re.DOTALL)


_USUAL = _pattern(
    rb"\x15(\x04)?(?(1)|\x00)\x15(V)\x15(V)(?:(?(1)\x4c|\x2c)|\x15V(?(1)\x3c|\x1c))\x15(V)\x15(V)"
    rb"(?(1)[\x11\x12]?|\x15V\x15V(?:\x1cS)?)\x00\x00"
)
"""The header of a dictionary, or of data, as pyarrow writes most of them.  Faster than
`_structure`, which finds the same."""

_USUAL_CHUNK = _pattern(
    rb"\x26V\x1c\x15V\x19L\x19(?:\x18T|\x28TT|\x38TTT)\x15V\x16(V)\x16V\x16(V)\x26(V)"
    rb"(?:\x26(V)(?:\x1cS\x19N|\x29N)?|\x3cS\x19N|\x49N)?"
    rb"(?:\x3c(?:\x16V|[\x19\x29\x39]M)*\x00)?\x00\x00"
)
"""The same of what the footer says of a column: values, bytes, where data and dictionary are."""


@lru_cache(2**16)
def _number(varint: bytes | None) -> int:
    """A whole number of 32 bits, zigzag; 0 where there is none."""
    return 0 if varint is None else _whole_number(varint, 0, I32)[0]


@lru_cache(2**16)
def _long_number(varint: bytes | None) -> int:
    """The same of 64 bits."""
    return 0 if varint is None else _whole_number(varint, 0, I64)[0]


TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCTURE = range(1, 13)
"""Thrift's numbers of types, in its compact protocol."""

_Field = tuple[int, int]
_Structure = dict[_Field, Any]


def _structure(content: bytes, at: int, end: int, depth: int) -> tuple[_Structure, int]:
    """What is in a structure by number and type of the field, and where what follows begins.

    Whole numbers, structures and lists of these; what else there is, is passed over, and so are
    the lists `_NEVER_ASKED` of a footer.  A field of
    another type than it should have is another field, as for every reader of the format.
    """
    found: _Structure = {}
    field = 0
    if depth > MOST_NESTED:
        raise NoPages("it is nested too deeply")
    try:
        while byte := content[at]:
            at += 1
            kind = byte & 15
            if byte >> 4:
                field += byte >> 4
            else:
                field, at = _whole_number(content, at, I16)
            if kind <= FALSE:
                continue  # it is in the kind itself
            if kind == BINARY:
                size = content[at]
                at += 1
                if size > 127:
                    size, at = _varint(content, at - 1)
                at += size
            elif kind in (I32, I64):
                value = content[at]
                if value > 127:
                    value, at = _whole_number(content, at, kind)
                else:
                    value, at = (value >> 1) ^ -(value & 1), at + 1
                found[field, kind] = value
            elif kind == LIST and depth == 0 and field in _NEVER_ASKED:
                at = _past_list(content, at, end)
            else:
                found[field, kind], at = _value(content, at, end, kind, depth)
            if at > end:
                break
    except IndexError:
        at = end
    if at >= end:
        raise NoPages("it is cut short")
    return found, at + 1


_NEVER_ASKED = (2, 5, 7)
"""Lists of a footer: the columns' types, texts beside the table, in which order values are."""

_WALKED: list[bytes] = []
MOST_WALKED, MOST_WALKED_BYTES = 32, 2**16
"""So many such lists are kept, and of no more bytes each."""


def _past_list(content: bytes, at: int, end: int) -> int:
    """Where a list ends that is not asked for.

    Thousands of tables have the same ones.  A list itself says where it ends, so one that begins
    with all of another ends there too, and need not be walked again.
    """
    for known in _WALKED:
        if content.startswith(known, at):
            return at + len(known)
    _, after = _value(content, at, end, LIST, 0)
    if after <= end and after - at <= MOST_WALKED_BYTES and len(_WALKED) < MOST_WALKED:
        _WALKED.append(content[at:after])
    return after


def _value(content: bytes, at: int, end: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value of any type but the whole numbers and texts that a structure holds itself."""
    if kind == STRUCTURE:
        return _structure(content, at, end, depth + 1)
    if kind in (TRUE, FALSE, BYTE):  # in a list
        return None, at + 1
    if kind in (I16, I32, I64):
        return _whole_number(content, at, kind)
    if kind == DOUBLE:
        return None, at + 8
    if kind == BINARY:
        size, at = _varint(content, at)
        return None, at + size
    if kind != LIST and kind != SET:
        raise NoPages("it holds something else")
    size, inner = content[at] >> 4, content[at] & 15
    at += 1
    if size == 15:
        size, at = _varint(content, at)
    values = []
    for _ in range(size):
        usual = _USUAL_CHUNK.match(content, at, end) if inner == STRUCTURE else None
        if usual is not None:
            numbers = [*map(_long_number, usual.groups())]
            fields = ((number, I64) for number in (5, 7, 9, 11))
            value = {(3, STRUCTURE): dict(zip(fields, numbers, strict=True))}
            at = usual.end()
        else:
            value, at = _value(content, at, end, inner, depth + 1)
        values.append(value)
        if at > end:
            break
    return values if inner == STRUCTURE else None, at


def _whole_number(content: bytes, at: int, kind: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    bits = {I16: 16, I32: 32, I64: 64}[kind]
    if value >> bits:
        raise NoPages("a number is too large")
    return (value >> 1) ^ -(value & 1), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise NoPages("it holds no number")
