"""A disk that fails when it is told to, and one that remembers what a power cut would leave.

Both stand between the code and `os`, for files below one folder: what the ledger does to its disk
goes through `os.open`, `os.write`, `os.fsync`, `os.replace`, `os.rename`, `os.link`, `os.unlink`,
`os.mkdir`, `os.rmdir` and `os.ftruncate`, and each of these calls is a step.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

STEPS = ("write", "fsync", "replace", "rename", "link", "mkdir", "unlink", "rmdir", "ftruncate")


class PowerCut(BaseException):
    """Nothing after it runs."""


@dataclass
class Disk:
    """Counts the steps below a folder, and does something else at one of them."""

    root: Path
    at: int | None = None
    """The step to fail at, from 0; None: none."""
    how: str = "EIO"
    """EIO, ENOSPC, short (a write takes half, then the disk is full), or killed."""
    on_step: Callable[[str, tuple[Any, ...]], None] | None = None
    """Called after every step that succeeded."""
    steps: list[str] = field(default_factory=list)

    @contextmanager
    def between(self) -> Iterator[Disk]:
        """While this block runs, `os` is ours."""
        with pytest.MonkeyPatch.context() as patch:
            for name in STEPS:
                patch.setattr(os, name, self._standing_in(name, getattr(os, name)))
            yield self

    def _standing_in(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            if not self._is_ours(arguments[0], more):
                return real(*arguments, **more)
            number = len(self.steps)
            self.steps.append(name)
            if self.how == "killed" and self.at is not None and number >= self.at:
                raise PowerCut
            if number == self.at:
                if self.how == "short" and name == "write":
                    part = bytes(arguments[1])
                    return real(arguments[0], part[: max(1, len(part) // 2)])
                self._fail("EIO" if self.how == "EIO" else "ENOSPC")
            if self.how == "short" and self.at is not None and number == self.at + 1:
                self._fail("ENOSPC")
            answer = real(*arguments, **more)
            if self.on_step is not None:
                self.on_step(name, arguments)
            return answer

        return step

    def _fail(self, name: str) -> None:
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number))

    def _is_ours(self, target: Any, more: dict[str, Any]) -> bool:
        """Whether a call is about something below the folder; shutil gives folders by handle."""
        if isinstance(target, int):
            place = _open_file(target)
        elif more.get("dir_fd") is not None:
            place = _open_file(more["dir_fd"]) / os.fspath(target)
        else:
            place = Path(target).absolute()
        return place.is_relative_to(self.root)


def _open_file(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


Tree = dict[str, bytes | None]
"""Content by path below the folder; None: a folder."""


class Recording:
    """What a power cut after each step could leave: only what was synced, under synced names.

    ``lazy`` trees have no name that a sync of its folder did not make last, and still the names
    that were removed since; ``eager`` ones have all names as they are, which journalling file
    systems may do too.  In both a file holds what it did when it was last synced: nothing, if
    never.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._kept: list[int] = []
        """Handles, so that no inode's number is used again."""
        self.lazy: list[Tree] = []
        self.eager: list[Tree] = []
        self._sync_folder(root)

    def on_step(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what a step did."""
        if name == "fsync":
            place = _open_file(arguments[0])
            if place.is_dir():
                self._sync_folder(place)
            else:
                self._synced[self._number(place)] = place.read_bytes()
        self.lazy.append(self._tree(self._root, lazy=True))
        self.eager.append(self._tree(self._root, lazy=False))

    def _number(self, place: Path) -> int:
        number = place.lstat().st_ino
        if number not in self._synced and number not in self._names:
            self._kept.append(os.open(place, os.O_RDONLY))
        return number

    def _sync_folder(self, place: Path) -> None:
        entries = {each.name: (self._number(each), each.is_dir()) for each in place.iterdir()}
        self._names[self._number(place)] = entries

    def _tree(self, place: Path, *, lazy: bool) -> Tree:
        found: Tree = {}

        def visit(number: int, here: Path, at: str) -> None:
            names = self._names.get(number, {})
            if not lazy:
                names = {e.name: (e.lstat().st_ino, e.is_dir()) for e in here.iterdir()}
            for name, (inner, is_folder) in names.items():
                path = f"{at}{name}"
                if is_folder:
                    found[path] = None
                    visit(inner, here / name, f"{path}/")
                else:
                    found[path] = self._synced.get(inner, b"")

        visit(place.lstat().st_ino, place, "")
        return found

    def close(self) -> None:
        """Let go of the files."""
        for handle in self._kept:
            os.close(handle)


def write_tree(tree: Tree, root: Path) -> None:
    """Make a folder of what a power cut left."""
    root.mkdir(parents=True)
    for name, content in sorted(tree.items()):
        if content is None:
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).write_bytes(content)
