"""Looking for the files of a cohort: what is missing or there twice is named by its path."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sorts numbers inside names by value.

    >>> sorted(["patient10", "patient2", "a"], key=natural_key)
    ['a', 'patient2', 'patient10']
    """
    parts = re.split(r"(\d+)", text.casefold())  # text, digits, text, ...
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text


def check_name(name: str) -> None:
    """Raises ValueError if this cannot be the name of a cohort."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(
            f"cohort name {name!r}; expected the name of a folder inside the data folder, made of "
            "letters, digits, '_', '-' and '.'"
        )


def case_folders(root: Path, layout: str) -> list[Path]:
    """The folders in a cohort's folder, each a case or a group of cases.

    Raises:
        ValueError: there is no such folder, or nothing in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected {layout}")
    folders = subfolders(root)
    if not folders:
        raise ValueError(f"{root}: no case found; expected {layout}")
    return folders


def subfolders(folder: Path) -> list[Path]:
    """Folders inside a folder in natural order, without hidden ones and what macOS archives add."""
    with readable(folder):
        inner = [
            path
            for path in folder.iterdir()
            if not path.name.startswith((".", "__MACOSX")) and path.is_dir()
        ]
    return sorted(inner, key=lambda path: natural_key(path.name))


def optional(folder: Path, stem: str) -> Path | None:
    """The image of this name, if it is there; ValueError if it is there twice."""
    with readable(folder):
        found = [
            folder / (stem + end) for end in (".nii.gz", ".nii") if (folder / (stem + end)).exists()
        ]
    if len(found) == 2:
        raise ValueError(f"{found[0]}: {found[1].name} is there as well; keep one of the two")
    return found[0] if found else None


def required(folder: Path, stem: str) -> Path:
    """The image of this name; ValueError if it is not there."""
    path = optional(folder, stem)
    if path is None:
        for end in (".nii.gz", ".nii"):
            if (folder / (stem + end)).is_symlink():
                existing(folder / (stem + end))
        raise ValueError(f"{folder / (stem + '.nii.gz')}: missing (nor is there {stem}.nii)")
    return path


def existing(path: Path) -> Path:
    """The same path; ValueError if nothing is there."""
    with readable(path):
        if path.exists():
            return path
    if path.is_symlink():
        raise ValueError(f"{path}: a link to {path.readlink()}, which is not there")
    raise ValueError(f"{path}: missing")


def the_only(paths: list[Path], expected: Path) -> Path:
    """The one path that was found; ValueError if there are more, or none where one is expected."""
    if not paths:
        raise ValueError(f"{expected}: missing")
    if len(paths) > 1:
        raise ValueError(f"{paths[0]}: {paths[1].name} is there as well; keep one of the two")
    return existing(paths[0])


@contextlib.contextmanager
def readable(path: Path, verb: str = "read") -> Iterator[None]:
    """Errors of the operating system in this block become a ValueError that names the path."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be {verb} ({error.strerror or error})") from None
