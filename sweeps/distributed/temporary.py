"""Where a Ray of this machine keeps its session: a folder that can be written, with a short path.

Ray puts sockets into it, whose paths the kernel limits to 107 bytes.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

LONGEST_SOCKET = 107
"""Bytes of a socket's path (Linux; other systems allow 103)."""

IN_SESSION = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0"
"""The longest path that Ray 2.60 makes below the temporary folder."""

SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Where to look for another folder if the path of the usual one is too long."""

PROBE_BYTES = 1 << 20


def session_folder(*, tried: tuple[str, ...] = SHORT) -> Path | None:
    """The folder for Ray's sessions; None: the usual one will do.

    Ray itself takes RAY_TMPDIR, else TMPDIR, else /tmp, and in it the folder ``ray``, which it
    opens to everybody.  If that path is too long, ``ray`` in a short folder that only this user can
    enter is taken instead, and one line says so.

    Raises:
        ValueError: it is not there, cannot be written or is full; or no short one was found.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    usual = os.environ[name] if name else "/tmp"
    limit = LONGEST_SOCKET if sys.platform.startswith("linux") else 103
    if len(os.fsencode(Path(usual).absolute()) + IN_SESSION.encode()) <= limit:
        _check(Path(usual), name)
        return None
    for place in tried:
        folder = Path(place) / f"lesion-{os.getuid()}"
        if _is_private(folder):
            print(
                f"Ray: the path of {name} is too long for its sockets ({usual}); it uses {folder}",
                file=sys.stderr,
            )
            return folder / "ray"
    raise ValueError(
        f"{name}={usual}: too long a path for Ray's sockets; set RAY_TMPDIR to a folder with a "
        f"path of up to {limit - len(IN_SESSION)} bytes"
    )


def _check(folder: Path, name: str | None) -> None:
    """Refuse a folder that cannot hold a session, with what to do about it."""
    said = f"{name}={folder}" if name else str(folder)
    another = f"set {name or 'TMPDIR'} to another folder"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="lesion-") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        reason, cure = {
            errno.ENOENT: ("no such folder", f"make it, or {another}"),
            errno.ENOTDIR: ("not a folder", another),
            errno.ENOSPC: ("full", f"make room there, or {another}"),
            errno.EDQUOT: ("full, by this user's quota", f"make room there, or {another}"),
        }.get(
            error.errno or 0,
            (f"cannot be written ({error.strerror})", f"allow it, or {another}"),
        )
        raise ValueError(f"{said}: {reason}; Ray keeps its session there: {cure}") from None


def _is_private(folder: Path) -> bool:
    """Make the folder if it is not there; whether it is this user's alone and can be used."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        _check(folder, None)
    except (OSError, ValueError):
        return False
    mine = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and mine
