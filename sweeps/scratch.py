"""Folders for a while: gone at their end, and swept up by a later command if that never came.

A process that is killed leaves its folders in the temporary folder.  While it lives it holds a
lock in each, so whoever makes another of the same kind can tell, and deletes those of dead ones.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

ALIVE = ".alive"
"""File that the folder's process holds a lock on."""

OLD_SECONDS = 24 * 3600
"""A folder without that file, as an earlier release left it, is dead after so long."""

_held: dict[Path, int] = {}
"""Open files with our locks, by folder."""


def hold(folder: Path) -> Path:
    """Mark a new folder of ours (``KIND-RANDOM``, by `tempfile.mkdtemp`) as alive; returns it.

    Folders of its kind whose process is dead are deleted.
    """
    new = folder / f"{ALIVE}.new"  # locked before anybody else can find it
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # a file system without locks: nobody can lock it, so nobody deletes it
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    new.rename(folder / ALIVE)
    _held[folder] = handle
    now = os.fstat(handle).st_mtime  # on the clock that folders have their times from
    sweep_up(folder.parent, folder.name.rpartition("-")[0] + "-", now)
    return folder


def drop(folder: Path) -> None:
    """Delete a folder that was held."""
    shutil.rmtree(folder, ignore_errors=True)
    handle = _held.pop(folder, None)
    if handle is not None:
        os.close(handle)


def sweep_up(place: Path, prefix: str, now: float) -> None:
    """Delete this user's folders of one kind whose process is dead."""
    with suppress(OSError):
        for folder in [each for each in place.iterdir() if each.name.startswith(prefix)]:
            if _is_dead(folder, now):
                shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path, now: float) -> bool:
    try:
        found = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.getuid():
            return False
        try:
            handle = os.open(folder / ALIVE, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return now - found.st_mtime > OLD_SECONDS
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)
    except OSError:  # its process holds the lock, or nobody can
        return False
    return True
