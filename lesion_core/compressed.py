"""The content of a file that may be gzipped: whether it is what its name says.

Zeros behind a gzip stream are padding, as of tapes; anything else there is refused.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

GZIP = b"\x1f\x8b"

PLAIN_NIFTI = tuple(size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big"))
"""How uncompressed NIfTI files begin: with the length of their header."""

OTHER_COMPRESSIONS = {
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""How files begin that somebody compressed in another way."""

LONGEST_MAGIC = 8
"""Bytes that tell all of these."""

CHUNK_BYTES = 2**20

MOST_BEHIND_BYTES = 2**24
"""Uncompressed, behind what a header promises, where there should be nothing: a small gzip can
unpack to gigabytes."""


def whole(path: Path, promised_bytes: int) -> bytes:
    """All of a file that its header promises, decompressed if it is named so.

    Into memory goes no more than that.  A compressed file is read to its end, so that its checksum
    is verified, unless far more is behind.

    Raises:
        ValueError: it cannot be read, is damaged, or is not what its name says.
    """
    try:
        with path.open("rb") as file:
            _check_start(path, file.read(LONGEST_MAGIC), path.suffix == ".gz")
            file.seek(0)
            if path.suffix != ".gz":
                return file.read(promised_bytes)
            return _decompressed(path, file, promised_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(unreadable(path, error)) from None


def start(path: Path, length: int) -> bytes:
    """The first bytes of what `whole` returns, without reading the rest; ValueError as there, or
    if there are none."""
    try:
        with path.open("rb") as file:
            begin = file.read(length)
        if not begin:
            raise ValueError(f"{path}: the file is empty; copy or download it again")
        _check_start(path, begin, path.suffix == ".gz")
        if path.suffix == ".gz":
            with gzip.open(path) as unpacked:
                begin = unpacked.read(length)
                _check_once(path, begin)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(unreadable(path, error)) from None
    if not begin:
        raise ValueError(f"{path}: the file is empty; copy or download it again")
    return begin


def unreadable(path: Path, error: Exception) -> str:
    """The line that says why a file cannot be read."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return f"{path}: cannot be read ({reason}); if it is damaged, copy or download it again"


def _check_start(path: Path, content: bytes, named_so: bool) -> None:
    for magic, name in OTHER_COMPRESSIONS.items():
        if content.startswith(magic):
            raise ValueError(
                f"{path}: cannot be read (Not a gzipped file but one compressed by {name}); unpack "
                "it and compress it by gzip"
            )
    if content.startswith(GZIP) and not named_so:
        raise ValueError(
            f"{path}: cannot be read (gzipped, but not named so); rename it to {path.name}.gz, or "
            "unpack it"
        )
    if named_so and not content.startswith(GZIP):
        cure = (
            f"it is a plain image: rename it to {path.stem}, or compress it by gzip"
            if content.startswith(PLAIN_NIFTI)
            else "it is no image either: copy or download it again"
        )
        raise ValueError(f"{path}: cannot be read (Not a gzipped file, but named so); {cure}")


def _check_once(path: Path, content: bytes) -> None:
    if content.startswith(GZIP):
        raise ValueError(
            f"{path}: cannot be read (gzipped twice); unpack it once: "
            f"gzip -dc {path.name} > once.gz && mv once.gz {path.name}"
        )


def _decompressed(path: Path, file: BinaryIO, promised_bytes: int) -> bytes:
    try:
        with gzip.open(file) as unpacked:
            content = unpacked.read(promised_bytes)
            _check_once(path, content)
            behind = 0
            while more := len(unpacked.read(CHUNK_BYTES)):
                behind += more
                if behind > MOST_BEHIND_BYTES:
                    raise ValueError(
                        f"{path}: holds more than the {promised_bytes} bytes (uncompressed) that "
                        "its header promises; correct the header, or write the image anew"
                    )
    except gzip.BadGzipFile:
        file.seek(0)
        follow = _behind_stream(file.read())
        if not follow:
            raise
        raise ValueError(
            f"{path}: cannot be read ({follow} bytes that do not belong there follow the "
            f"compressed image); compress it anew: gzip -dc {path.name} > whole; gzip whole; "
            f"mv whole.gz {path.name}"
        ) from None
    return content


def _behind_stream(content: bytes) -> int:
    """Bytes behind the last whole gzip stream; 0 if the content does not end with a stream of
    another kind but is damaged within one."""
    while content.startswith(GZIP):
        stream = zlib.decompressobj(wbits=31)
        try:
            stream.decompress(content)
        except zlib.error:
            return 0
        content = stream.unused_data.lstrip(b"\x00")
    return len(content)
