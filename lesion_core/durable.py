"""Files put in their place so that neither a crash nor a power cut loses them, or leaves half.

A file is whole before it gets its name, and a name is safe once its folder is synced (POSIX says
nothing of a rename that was not).  So every function here returns when what it did will last.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM}
"""What file systems say that cannot sync a folder, or of a folder that cannot be read."""


def write_bytes(path: Path, content: bytes | memoryview, *, staging: Path | None = None) -> None:
    """Write a file whole or not at all: under another name, synced, then renamed.

    Args:
        path: its place; folders on the way are made.
        content: all of it.
        staging: folder on the same disk for the other name; default: the file's own.  Whoever
            takes that folder away makes sure that nothing more is put in place from there.

    Raises:
        OSError: the disk refuses, or ``staging`` is gone; what was there before is there still.
    """
    write_together({path: content}, staging=staging)


def write_together(
    files: Mapping[Path, bytes | memoryview], *, staging: Path | None = None
) -> None:
    """Write files of which each is whole or not at all, and sync their folders once.

    None is put in its place before all are written.  The order in which they get there does not
    outlast a power cut: what must, takes two calls.

    Args:
        files: content by place; folders on the way are made.
        staging: as in `write_bytes`.

    Raises:
        OSError: the disk refuses, or ``staging`` is gone; some may be in place, the others are as
            they were.
    """
    waiting: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            make_folder(path.parent)
            waiting[path] = _written(path, content, staging or path.parent)
        for path, temporary in list(waiting.items()):
            try:
                temporary.replace(path)
            except OSError as error:
                if staging is None or not _other_disk(error):
                    raise
                write_bytes(path, files[path])
            else:
                del waiting[path]
    finally:
        for temporary in waiting.values():
            with suppress(OSError):
                temporary.unlink()
    for folder in dict.fromkeys(path.parent for path in files):
        sync_folder(folder)


def _written(path: Path, content: bytes | memoryview, folder: Path) -> Path:
    """Another name in this folder, under which a file's content is synced."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        try:
            os.fchmod(handle, 0o644)  # mkstemp makes it private; results are meant to be shared
            write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return Path(name)


def append(path: Path, content: bytes, *, whole_lines: bool = False) -> None:
    """Add to a file, which is made if need be; never through a link.

    ``whole_lines``: and sync it, after a last line that was cut short is cut off.  If that fails,
    the file is as it was.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    make_folder(path.parent)
    is_new = not os.path.lexists(path)
    handle = os.open(path, flags, 0o644)
    try:
        if not whole_lines:
            write_all(handle, content)
            return
        size = _end_of_whole_lines(handle)
        try:
            write_all(handle, content)
            os.fsync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if is_new:
        sync_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, whose content is synced already; returns when that will last."""
    source.rename(target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove(path: Path, *, staging: Path | None = None) -> None:
    """Remove a file or folder, if it is there; not from a folder whose ``staging`` was taken away.

    It is back after a power cut, unless its folder is synced before.
    """
    if staging is None:
        _delete(path)
        return
    if not os.path.lexists(path):
        return
    moved = staging / f".{path.name}.removed"
    try:
        path.rename(moved)
    except OSError as error:
        if not _other_disk(error):
            raise
        moved = path
    _delete(moved)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet."""
    missing = []
    for folder in (path, *path.parents):
        if folder.is_dir():
            break
        missing.append(folder)
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process was faster; or a file, which is said next
            folder.mkdir()
        sync_folder(folder.parent)


def write_all(handle: int, content: bytes | memoryview) -> None:
    """Write it all: the kernel may take a part, as on a disk that is nearly full."""
    rest = memoryview(content)
    while rest:
        written = os.write(handle, rest)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


def sync(path: Path) -> None:
    """Make what a file holds last."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def sync_folder(path: Path) -> None:
    """Make the names in a folder last, as far as its file system can."""
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_tree(path: Path) -> None:
    """Make a folder last with all that is in it, written by whatever means."""
    for folder, _, files in os.walk(path):
        for name in files:
            if not Path(folder, name).is_symlink():
                sync(Path(folder, name))
        sync_folder(Path(folder))


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _end_of_whole_lines(handle: int) -> int:
    """Cut a last line off that has no end; returns the size of what is left, in bytes."""
    size = kept = os.fstat(handle).st_size
    while kept:
        begin = max(0, kept - 65536)
        end = os.pread(handle, kept - begin, begin).rfind(b"\n")
        if end >= 0:
            kept = begin + end + 1
            break
        kept = begin
    if kept != size:
        os.ftruncate(handle, kept)
    return kept


def _other_disk(error: BaseException) -> bool:
    """Whether a part of the folder lies on another disk than its staging folder."""
    return isinstance(error, OSError) and error.errno == errno.EXDEV


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    with suppress(FileNotFoundError):
        path.unlink()
