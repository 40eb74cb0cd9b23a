"""What was computed from files once, kept for the next time, and trusted only if it is whole.

The folder is ``$LESION_CACHE``, else ``~/.cache/lesion-seed-sweep``; deleting it costs nothing but
time, and ``LESION_CACHE=off`` does without.  It holds

    digests.json     SHA-256 of files by path, valid while size and times of a file stay the same
    arrays/<key>/    arrays to be mapped into memory, and entry.json with their checksums

An entry appears whole or not at all, and everything in it is checked when it is read: bytes, types
and shapes of the arrays, and entry.json itself.  One that is damaged is dropped and made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.paths import Damaged, is_there, read_json
from lesion_core.results import write_bytes

VARIABLE = "LESION_CACHE"

KEPT_DAYS = 60
"""Entries that were not used for so long go when the next one is written."""

SETTLED_SECONDS = 2.0
"""A file changed less than this ago could change again without its time telling."""

logger = logging.getLogger(__name__)


def folder() -> Path | None:
    """The folder of the cache; None if there shall be none."""
    asked = os.environ.get(VARIABLE, "")
    if asked == "off":
        return None
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lesion-seed-sweep"


class Digests:
    """SHA-256 of files, read again only when size or times of a file have changed.

    Raises OSError where a file cannot be read.
    """

    def __init__(self) -> None:
        root = folder()
        self._file = root / "digests.json" if root else None
        self._known: dict[str, Any] = _json(self._file) if self._file else {}
        self._changed = False

    def of(self, path: Path) -> str:
        """The hash of a file, read only if need be."""
        name, state = str(path.absolute()), _state(path)
        found: Any = self._known.get(name)
        known: list[Any] = found if isinstance(found, list) and len(found) == 5 else [None] * 5
        unchanged = known[:3] == state and known[4] == _of({name: known[:4]})
        if unchanged and os.access(path, os.R_OK):
            return known[3]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _state(path) == state and time.time() - state[1] / 1e9 > SETTLED_SECONDS:
            entry = [*state, digest]
            self._known[name] = [*entry, _of({name: entry})]
            self._changed = True
        return digest

    def save(self) -> None:
        """Write what is new to the cache.  A cache that cannot be written is no reason to stop."""
        if self._file is None or not self._changed:
            return
        try:  # another process may have added to it meanwhile
            merged = _json(self._file) | self._known
            write_bytes(self._file, json.dumps(merged).encode())
        except OSError as error:
            logger.warning("%s: cannot be written (%s)", self._file, error.strerror)


def load(key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Read an entry: arrays, mapped from disk and read-only, and the values stored with them.

    None if they were never stored, or are damaged.
    """
    root = folder()
    if root is None:
        return None
    entry = root / "arrays" / key
    try:
        if not is_there(entry / "entry.json"):
            return None
        content = read_json(entry / "entry.json")
        if content.pop("sha256", None) != _of(content):
            raise Damaged("entry.json has changed")
    except Damaged as error:
        _set_aside(entry, error)
        return None
    except ValueError as error:
        logger.warning("%s; going on without", error)
        return None
    try:
        arrays = {}
        for name, known in content["arrays"].items():
            array = np.asarray(np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            if _description(array) != known:
                raise ValueError(f"{name}.npy has changed")
            arrays[name] = array
    except PermissionError as error:
        logger.warning("%s: cannot be read (%s); going on without", entry, error.strerror)
        return None
    except Exception as error:  # numpy reads a header by Python's own reader, which raises anything
        _set_aside(entry, error)
        return None
    with suppress(OSError):  # a cache that cannot be written serves as well
        (entry / "entry.json").touch()
    return arrays, content["values"]


def store(key: str, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> bool:
    """Store C-contiguous arrays that are not empty, and plain JSON values; returns if it worked."""
    root = folder()
    if root is None:
        return False
    temporary = None
    try:
        place = root / "arrays"
        place.mkdir(parents=True, exist_ok=True)
        _drop_old(place)
        temporary = Path(tempfile.mkdtemp(dir=place, prefix=".new."))
        described = {}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            described[name] = _description(array)
        content = json.loads(json.dumps({"arrays": described, "values": values}))
        content["sha256"] = _of(content)
        (temporary / "entry.json").write_text(json.dumps(content))
        temporary.rename(place / key)  # not synced: whatever is not whole is made again
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return True  # another process was faster
        logger.warning("%s: cannot be written (%s); going on without", root, error.strerror)
        return False
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return True


def _set_aside(entry: Path, error: Exception) -> None:
    """Drop a damaged entry, and say what follows from it."""
    shutil.rmtree(entry, ignore_errors=True)
    if not entry.exists():
        logger.warning("%s: damaged (%s); it is made again", entry, error)
        return
    logger.warning(
        "%s: damaged (%s), and cannot be deleted or replaced; the images are read without it",
        entry,
        error,
    )


def _description(array: np.ndarray) -> list[Any]:
    """All that there is to an array: checksum of its bytes, type and shape."""
    return [zlib.crc32(array.reshape(-1).view(np.uint8).data), array.dtype.str, list(array.shape)]


def _of(content: Mapping[str, Any]) -> str:
    """Checksum of entry.json's other content, as reading it gives it back."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _drop_old(place: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for entry in place.iterdir():
        mark = entry if entry.name.startswith(".new.") else entry / "entry.json"
        try:
            if mark.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)
        except OSError:  # another process has just dropped it
            continue


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError:
        return {}
