"""Who may write to a results folder: one driver at a time."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

NAME = ".lock"
BEAT_SECONDS = 20
BEATS_WATCHED = 4
"""A lock from another host, where no process can be looked up, is void if it misses so many beats
while it is watched.  Were its holder only slow, it would find its lock gone, and stop."""

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

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"


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
        )
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
        except OSError as error:
            raise ValueError(
                f"{self._path.parent}: cannot be written ({error.strerror or error}); choose "
                "another folder with --results"
            ) from None
        self._beat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        if owns(self._path.parent, self.token):
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # something is in it, as there should be
                for folder in self._made:
                    folder.rmdir()

    def _acquire(self) -> None:
        while not self._create():
            found = _read(self._path)
            if found is not None and _alive(found, self._path) and self._beats(found):
                raise ValueError(
                    f"{self._path.parent} is in use by {found}; wait for it, stop it, or choose "
                    f"another folder with --results (if it is long gone, delete {self._path})"
                )
            self._discard(found)

    def _beats(self, found: Holder) -> bool:
        """Whether a holder keeps its lock fresh; of another host, only watching can tell."""
        if found.host == self._holder.host:
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
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(self._holder), file)
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
            with suppress(OSError):  # the next write will say what is wrong with the folder
                os.utime(self._path)


def holder(folder: Path) -> Holder | None:
    """The living process that holds a folder's lock."""
    path = folder / NAME
    found = _read(path)
    return found if found is not None and _alive(found, path) else None


def owns(folder: Path, token: str) -> bool:
    """Whether the lock that was taken with this token still holds."""
    found = _read(folder / NAME)
    return found is not None and found.token == token


def _read(path: Path) -> Holder | None:
    """The holder that a lock file names.

    None: there is no lock, or its process died while it wrote it.
    """
    for _ in range(20):
        try:
            return Holder(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # being written at this moment
            time.sleep(0.05)
    return None


def _alive(found: Holder, path: Path) -> bool:
    if found.host != socket.gethostname():
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime < SILENCE_SECONDS
        return False
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's process: it is there
        pass
    return found.started is None or found.started == _process_start(found.pid)


def _process_start(pid: int) -> int | None:
    """When a process began, in the kernel's ticks, from /proc/PID/stat.

    None where there is no /proc, or only the remains of the process.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(fields[18])
    except (OSError, IndexError, ValueError):
        return None
