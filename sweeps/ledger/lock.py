"""Who may write to a results folder: one driver at a time."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from lesion_core.durable import write_all
from lesion_core.paths import read_json

NAME = ".lock"
STAGING = ".writing-"
"""How a folder in the results folder begins, behind which is a lock's token: the holder's files
wait there for their place.  Whoever takes a lock over takes that folder away first, so that a
holder which wakes up late can put nothing in place any more, not even what it was at."""

BEAT_SECONDS = 20
BEATS_WATCHED = 4
"""A lock of a process that cannot be looked up here, as on another host, is void if it misses so
many beats while it is watched.  Were its holder only slow, it would find its lock gone, and stop.
"""

SILENCE_SECONDS = 600
"""After this, it need not be watched: far more than clocks differ, or a file server hangs."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that a lock file names."""

    host: str
    pid: int
    started: int | None
    """When the process began, in the kernel's ticks: process numbers are used again."""
    command: str
    since: str
    token: str
    """Unlike any other's: a writer that lost its lock can tell."""
    boot: str | None = None
    """Which run of which kernel: containers may share a host's name, and hosts a name."""
    processes: str | None = None
    """The namespace that the process number is of; None, as of ``boot``, where it is not known."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"

    @property
    def can_be_looked_up(self) -> bool:
        """Whether its process number means here what it means there."""
        known = (self.boot, self.processes)
        return self.host == socket.gethostname() and (
            known == (None, None) or known == (_boot(), _process_namespace())
        )


_held: set[str] = set()
"""Tokens of the locks that this process holds or is taking: a file of its own that names another
token is one that it could not remove."""


class Lock:
    """Held from ``with Lock(folder, command) as lock`` on; released at its end.

    A lock whose process is dead is taken over.

    Raises:
        ValueError: another process holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self._path = folder / NAME
        self._holder = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=_process_start(os.getpid()),
            command=command,
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            token=secrets.token_hex(8),
            boot=_boot(),
            processes=_process_namespace(),
        )
        self._handle: int | None = None
        self._released = threading.Event()
        self._beat = threading.Thread(target=self._keep_fresh, daemon=True)

    @property
    def token(self) -> str:
        """What tells this lock from any other."""
        return self._holder.token

    def __enter__(self) -> Lock:
        folder = self._path.parent
        self._made = [each for each in (folder, *folder.parents) if not each.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._acquire()
            _drop_staging(folder, self.token)
            staging(folder, self.token).mkdir()
            self._beat.start()
        except OSError as error:
            self._let_go()
            raise ValueError(
                f"{self._path.parent}: cannot be written ({error.strerror or error}); choose "
                "another folder with --results"
            ) from None
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._beat.join()
        self._let_go()

    def _let_go(self) -> None:
        """Remove the lock and what was made with it, as far as it is ours and the disk lets us."""
        shutil.rmtree(staging(self._path.parent, self.token), ignore_errors=True)
        with suppress(OSError):  # then it is void for this process, and once that is gone for all
            if owns(self._path.parent, self.token):
                self._path.unlink(missing_ok=True)
        with suppress(OSError):  # something is in it, as there should be
            for folder in self._made:
                folder.rmdir()
        _held.discard(self.token)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _acquire(self) -> None:
        while not self._create():
            found = _read(self._path)
            if found is not None and _alive(found, self._path, self._now) and self._beats(found):
                raise ValueError(
                    f"{self._path.parent} is in use by {found}; wait for it, stop it, or choose "
                    f"another folder with --results (if it is long gone, delete {self._path})"
                )
            if self._path.is_dir() and not self._path.is_symlink():
                raise ValueError(
                    f"{self._path}: a folder is there; expected a file that says who writes here; "
                    "move it away"
                )
            self._discard(found)

    def _beats(self, found: Holder) -> bool:
        """Whether a holder keeps its lock fresh; if it cannot be looked up, watching tells."""
        if _is_locked(self._path) or found.can_be_looked_up:
            return True
        print(f"{self._path.parent}: is {found} still at work? ...", file=sys.stderr, flush=True)
        deadline = time.monotonic() + BEATS_WATCHED * BEAT_SECONDS
        with suppress(FileNotFoundError):
            before = self._path.stat().st_mtime_ns
            while time.monotonic() < deadline:
                time.sleep(BEAT_SECONDS / 20)
                if self._path.stat().st_mtime_ns != before:
                    return True
        return False

    def _create(self) -> bool:
        """Put a lock file in its place, whole and locked for the kernel, if none is there."""
        new = self._path.with_name(f"{NAME}.{self.token}.new")
        handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            with suppress(OSError):  # a file system without such locks: beats must do there
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(handle, json.dumps(asdict(self._holder)).encode())
            _held.add(self.token)  # before anybody can see it
            self._now = os.fstat(handle).st_mtime  # on the clock that beats have their times from
            try:
                self._path.hardlink_to(new)
            except (FileExistsError, FileNotFoundError):
                raise
            except OSError:  # no such links here
                if os.path.lexists(self._path):
                    raise FileExistsError from None
                new.rename(self._path)
        except BaseException as error:
            os.close(handle)
            if not isinstance(error, FileExistsError | FileNotFoundError):
                raise
            return False  # another process was faster, and has tidied up
        finally:
            with suppress(OSError):  # the next holder will
                new.unlink(missing_ok=True)
        self._handle = handle
        return True

    def _discard(self, judged: Holder | None) -> None:
        """Remove the dead lock; one that someone took over in the meantime is put back."""
        moved = self._path.with_name(f"{NAME}.{self.token}")
        with suppress(FileNotFoundError):
            self._path.rename(moved)
            if _read(moved) == judged:
                moved.unlink()
            else:
                moved.rename(self._path)

    def _keep_fresh(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            assert self._handle is not None
            with suppress(OSError):  # the next write will say what is wrong with the folder
                os.utime(self._handle)  # of our own file, whoever's has its name by now


def holder(folder: Path) -> Holder | None:
    """The living process that holds a folder's lock."""
    path = folder / NAME
    found = _read(path)
    return found if found is not None and _alive(found, path, time.time()) else None


def owns(folder: Path, token: str) -> bool:
    """Whether the lock that was taken with this token still holds."""
    found = _read(folder / NAME)
    return found is not None and found.token == token


def staging(folder: Path, token: str) -> Path:
    """Where the files of the holder with this token wait for their place."""
    return folder / f"{STAGING}{token}"


def _drop_staging(folder: Path, token: str) -> None:
    """Take away what other holders were about to put in place."""
    for number, other in enumerate(sorted(folder.glob(f"{STAGING}*"))):
        void = folder / f"{STAGING}{token}.void{number}"
        with suppress(FileNotFoundError):
            other.rename(void)  # in one step: from here on, nothing comes out of it
            shutil.rmtree(void, ignore_errors=True)
    for leftover in folder.glob(f"{NAME}.*"):  # of a process that died while it took the lock
        if not leftover.is_dir() and not _is_locked(leftover):
            leftover.unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    """The holder that a lock file names.

    None: there is no lock, or its process died while it wrote it.
    """
    for _ in range(20):
        if not os.path.lexists(path):
            return None
        with suppress(ValueError):
            return _holder_of(read_json(path))
        time.sleep(0.05)  # an earlier release may be writing it at this moment
    return None


def _holder_of(content: dict[str, Any]) -> Holder:
    """A lock file's holder, less what a later release may say of it."""
    given: dict[str, Any] = {each.name: content.get(each.name) for each in fields(Holder)}
    texts = [given[name] for name in ("host", "command", "since", "token")]
    known = [given[name] for name in ("boot", "processes") if given[name] is not None]
    numbers = [given["pid"], *([] if given["started"] is None else [given["started"]])]
    if not all(isinstance(text, str) for text in texts + known) or not all(
        type(number) is int and number > 0 for number in numbers
    ):
        raise ValueError("not what a lock says")
    return Holder(**given)


def _alive(found: Holder, path: Path, now: float) -> bool:
    if _is_locked(path):
        return True
    if not found.can_be_looked_up:
        with suppress(FileNotFoundError):
            return now - path.stat().st_mtime < SILENCE_SECONDS
        return False
    if found.pid == os.getpid():
        return found.token in _held
    try:
        os.kill(found.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # someone else's process: it is there
        pass
    return found.started is None or found.started == _process_start(found.pid)


def _is_locked(path: Path) -> bool:
    """Whether a living process of this kernel holds the file, in whatever namespace it is.

    Of other machines a file system may or may not tell.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _boot() -> str | None:
    """Which run of which kernel this is; None where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _process_namespace() -> str | None:
    """What this process's number is unique in; None where the system does not say."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return None


def _process_start(pid: int) -> int | None:
    """When a process began, in the kernel's ticks, from /proc/PID/stat.

    None where there is no /proc, or another namespace's, or only the remains of the process.
    """
    try:
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return None
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(rest[18])
    except (OSError, IndexError, ValueError):
        return None
