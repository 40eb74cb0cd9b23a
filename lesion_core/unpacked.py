"""How much would a Parquet file unpack to?  Told before any of it is unpacked.

Its footer says so too, but whoever made the file wrote what the footer says.  What really happens
on reading is decided by the header of each page: how long it is unpacked, how many values it holds,
and whether they are stored once and named by number (a dictionary), by which a few bytes become as
many copies of the longest value.  So the headers are walked, as a reader would walk them.

The format: https://parquet.apache.org/docs/file-format/, its headers in Thrift's compact protocol.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, cast

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

MOST_NESTED = 8
"""Structures inside each other in a page's header; there are two."""


class NoPages(ValueError):
    """What should be the header of a page is none."""


def unpacked_bytes(content: bytes, metadata: pq.FileMetaData, enough: int) -> int:
    """Bytes of memory that a file unpacks to, at most; counting stops beyond ``enough``.

    Args:
        content: the whole file.
        metadata: its footer, which says where the pages of each column are.
        enough: as far as it matters.

    Raises:
        NoPages: it cannot be told, so that the file is damaged.
    """
    total = 0
    names = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for number, column in enumerate(names):
            chunk = group.column(number)
            begin = chunk.data_page_offset
            dictionary = chunk.dictionary_page_offset
            if dictionary and 0 < dictionary < begin:
                begin = dictionary
            kind = column.physical_type
            width = column.length if kind == "FIXED_LEN_BYTE_ARRAY" else WIDTH.get(kind, 0)
            total += _unpacked(
                content,
                begin,
                begin + chunk.total_compressed_size,
                width,
                chunk.num_values,
                enough - total,
                chunk.compression,
            )
            if total > enough:
                return total
    return total


def _unpacked(
    content: bytes, at: int, end: int, width: int, num_values: int, enough: int, codec: str
) -> int:
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
                longest = _longest(content[at : at + packed], unpacked, values, codec)
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
        kind = header.get(1)
        inner = header.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(cast(int, kind), 0))
        if kind == INDEX:
            inner = {1: 0, 2: 0}
        if not isinstance(inner, dict):
            raise NoPages("a page has no header")
        encoding = inner.get(4 if kind == DATA_V2 else 2)
        said = (kind, header.get(2), header.get(3), inner.get(1), encoding, at)
        if not all(isinstance(each, int) for each in said):
            raise NoPages("a page has no header")
    kind, unpacked, packed, values, _, at = said = cast(tuple[int, int, int, int, int, int], said)
    if kind < 0 or unpacked < 0 or values < 0 or not 0 <= packed <= end - at:
        raise NoPages("a page has no header")
    return said


def _longest(packed: bytes, unpacked: int, values: int, codec: str) -> int:
    """Bytes of the longest text of a dictionary: each is its length in four bytes, and itself."""
    import pyarrow as pa

    if codec != "UNCOMPRESSED":
        names = {"LZ4": "lz4_raw", "LZ4_RAW": "lz4_raw"}
        coder = pa.Codec(names.get(codec, codec.lower()))
        packed = coder.decompress(packed, decompressed_size=unpacked, asbytes=True)
    longest, at = 0, 0
    for _ in range(values):
        if at >= len(packed):
            break
        size = int.from_bytes(packed[at : at + 4], "little")
        longest, at = max(longest, size), at + 4 + size
    return min(longest, unpacked)


_VARINT = rb"[\x80-\xff]{0,8}[\x00-\x7f]"
_STATISTICS = (
    rb"(?:[\x18\x28\x38\x48\x58\x68](?:\x01.|\x02.{2}|\x04.{4}|\x08.{8})"  # lowest, highest
    rb"|[\x16\x26\x36\x46]" + _VARINT + rb"|[\x11\x12\x21\x22])*\x00"  # how many null; exact or not
)
_USUAL = re.compile(
    rb"\x15(\x04)?(?(1)|\x00)\x15(V)\x15(V)(?(1)\x4c|\x2c)\x15(V)\x15(V)"
    rb"(?(1)[\x11\x12]?|\x15V\x15V(?:\x1cS)?)\x00\x00".replace(b"S", _STATISTICS).replace(
        b"V", _VARINT
    ),
    re.DOTALL,
)
"""The header of a dictionary, or of data, as pyarrow writes most of them.  Faster than
`_structure`, which finds the same."""


@lru_cache(4096)
def _number(varint: bytes | None) -> int:
    """A whole number, zigzag; 0 where there is none."""
    return 0 if varint is None else _whole_number(varint, 0)[0]


_STRUCTURE = 12
"""Thrift's number of a structure inside another; what else there is in `_structure`."""


def _structure(
    content: bytes, at: int, end: int, depth: int
) -> tuple[dict[int, int | dict | None], int]:
    """Whole numbers and structures by field number, and where what follows begins.

    Texts are passed over.
    """
    found: dict[int, int | dict | None] = {}
    field = 0
    if depth > MOST_NESTED:
        raise NoPages("a page's header is nested too deeply")
    try:
        while True:
            byte = content[at]
            at += 1
            if byte == 0:
                break
            kind = byte & 15
            if byte >> 4:
                field += byte >> 4
            else:
                field, at = _whole_number(content, at)
            if 3 <= kind <= 6:  # whole numbers, zigzag
                value = content[at]
                at += 1
                if value > 127:
                    value, at = _varint(content, at - 1)
                found[field] = (value >> 1) ^ -(value & 1)
            elif kind in (1, 2):  # true, false: in the kind itself
                found[field] = 2 - kind
            elif kind == 8:
                size, at = _varint(content, at)
                at += size
            elif kind == _STRUCTURE:
                found[field], at = _structure(content, at, end, depth + 1)
            elif kind == 7:
                at += 8
            else:  # lists and maps: no page has them
                raise NoPages("a page's header holds something else")
    except IndexError:
        raise NoPages("a page's header is cut short") from None
    if at > end:
        raise NoPages("a page's header is cut short")
    return found, at


def _whole_number(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
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
            raise NoPages("a page's header holds no number")
