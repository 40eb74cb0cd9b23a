"""Which Ray does ``--address auto`` mean?

Ray itself takes whichever it finds first.  Here it is RAY_ADDRESS, else the one Ray of this user or
of root that runs on this machine, else the one that `ray start` noted last, if it answers.  A Ray
that another process started for itself alone is never meant, and several are a mistake, with a
table to choose from.  Another user's is not meant either: it would be given our token.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PRIVATE = {"lesion-seed-sweep": "private"}
"""Label of the node of a Ray that a command of ours started for itself."""

SECONDS_TO_CONNECT = 5

PROCESSES = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class RunningRay:
    """A Ray that has a node on this machine."""

    address: str
    """Of its head, host:port."""
    session: str
    """Folder of its session on this machine."""
    uid: int
    """Of the user whose node it is."""
    private_to: int | None
    """The process that started it for itself; 0: one that is gone; None: it is for everybody."""


def check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at host:port."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_CONNECT).close()


def resolve_auto(free_cpus: Callable[[str], str]) -> str:
    """The host:port that ``--address auto`` means here.

    Args:
        free_cpus: says how much of the cluster at an address is free, for the table.

    Raises:
        ValueError: none is meant, or several may be.
    """
    asked = os.environ.get("RAY_ADDRESS", "")
    if asked not in ("", "auto"):
        if asked == "local" or "://" in asked:
            raise ValueError(f"RAY_ADDRESS={asked}: expected host:port, such as 10.0.0.1:6379")
        if not _answers(asked):
            raise ValueError(
                f"--address auto: RAY_ADDRESS={asked}, and nothing answers there; correct it, or "
                "unset it to have this machine's Ray found"
            )
        return asked
    there = running_rays()
    why_not = {each.address: reason for each in there if (reason := _not_meant(each))}
    meant = [each for each in there if each.address not in why_not]
    noted = _noted_by_ray_start()
    if len(meant) == 1:
        return meant[0].address
    if meant:
        raise ValueError(
            f"--address auto: {len(meant)} Rays run on this machine; say which with --address "
            f"or RAY_ADDRESS\n{table(meant, noted, free_cpus)}"
        )
    if noted and noted not in why_not and _answers(noted):
        return noted
    passed_over = "".join(f"; the one at {which} {reason}" for which, reason in why_not.items())
    raise ValueError(
        f"--address auto: no Ray cluster answers on this machine{passed_over}; start one with "
        "`ray start --head`, or leave --address out to use this machine alone"
    )


def _not_meant(ray: RunningRay) -> str | None:
    """Why a Ray is not what auto means; None: it may be."""
    if ray.private_to is not None:
        return f"is {_owner(ray)} own, and joined by nobody else"
    if ray.uid not in (0, os.getuid()):
        return f"is {_user(ray.uid)}'s: if it is meant, say so with --address"
    if not _answers(ray.address):
        return "has a head that does not answer"
    return None


def refuse_private(address: str) -> None:
    """Raise ValueError if the Ray at host:port is another process's own.

    Such a Ray listens on the loopback address, which Ray would turn into another one, and then it
    would try for minutes.
    """
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return
    for each in running_rays():
        if each.address == f"127.0.0.1:{port}" and each.private_to is not None:
            raise ValueError(
                f"--address {address}: that Ray is {_owner(each)} own, and joined by nobody else; "
                "start one for several with `ray start --head`"
            )


def running_rays() -> list[RunningRay]:
    """Every Ray with a node on this machine, and in its network, by address."""
    found = {}
    for process, arguments in _raylets():
        flags = dict(each[2:].split("=", 1) for each in arguments if each.startswith("--"))
        with suppress(KeyError, OSError):  # ended meanwhile
            ray = RunningRay(
                address=flags["gcs-address"],
                session=flags["session_dir"],
                uid=process.stat().st_uid,
                private_to=_private_to(process, flags),
            )
            found.setdefault(flags["session-name"], ray)
    return sorted(found.values(), key=lambda each: each.address)


def table(found: list[RunningRay], noted: str | None, free_cpus: Callable[[str], str]) -> str:
    """Rays as a table for people."""
    rows = [("--address", "free now", "started by", "session")]
    rows += [
        (
            each.address,
            free_cpus(each.address),
            _user(each.uid) + (", the last" if each.address == noted else ""),
            each.session,
        )
        for each in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _raylets() -> Iterator[tuple[Path, list[str]]]:
    """Processes that are nodes of a Ray, with their arguments."""
    network = _network(PROCESSES / "self")
    for process in sorted(PROCESSES.glob("[0-9]*"), key=lambda each: int(each.name)):
        with suppress(OSError):  # ended meanwhile
            arguments = _arguments(process)
            if Path(arguments[0]).name != "raylet":
                continue
            if None not in (network, other := _network(process)) and other != network:
                continue  # a container's, whose addresses are others
            yield process, [each for each in arguments if each.isprintable() and "=" in each]


def _arguments(process: Path) -> list[str]:
    return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _network(process: Path) -> str | None:
    """Name of a process's network namespace; None: it is somebody else's and cannot be told."""
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return None


def _private_to(process: Path, flags: dict[str, str]) -> int | None:
    """`RunningRay.private_to` of a node."""
    parent = 0
    with suppress(OSError, ValueError):
        lines = (process / "status").read_text().splitlines()
        parent = next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
    # Ray names a session by the process that started it: a driver's lives on as the parent, that
    # of `ray start` only with --block.
    started_it = flags["session-name"].endswith(f"_{parent}")
    if started_it and not _is_ray_start(PROCESSES / str(parent)):
        return parent
    return 0 if json.dumps(PRIVATE)[1:-1] in flags.get("labels", "") else None


def _is_ray_start(process: Path) -> bool:
    """Whether a process is the command `ray start`; so it was if it is gone."""
    try:
        names = [Path(each).name for each in _arguments(process)]
    except OSError:
        return True
    return "start" in names and bool({"ray", "ray.scripts.scripts", "scripts.py"} & set(names))


def _owner(ray: RunningRay) -> str:
    return f"process {ray.private_to}'s" if ray.private_to else "an ended process's"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _noted_by_ray_start() -> str | None:
    """The address that the last `ray start` of this user or root left in Ray's temporary folder."""
    from ray._common.utils import get_ray_address_file

    file = Path(get_ray_address_file(None))
    with suppress(OSError, UnicodeError):
        if file.stat().st_uid in (0, os.getuid()):
            return file.read_text().strip() or None
    return None


def _answers(address: str) -> bool:
    try:
        check_reachable(address)
    except (OSError, ValueError):
        return False
    return True
