"""Looking for the files of a cohort: what is missing or there twice is named by its path."""

from __future__ import annotations

import re
from pathlib import Path

from lesion_core.paths import close_to, existing, existing_folder, is_folder, is_there, readable

ORIGINAL_LESION = "lesion_all"
"""The mask of all change beside a `lesion` that was sorted out of it (`lesion_core.prepare`)."""

MASKS = ("brain", "lesion", "ignore", ORIGINAL_LESION)
"""Names of masks in a case's folder; no image is called so."""


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
        path = Path(name)
        hint = f"; did you mean --data {path.parent} and {path.name}?" if path.is_dir() else ""
        raise ValueError(
            f"cohort name {name!r}; expected the name of a folder inside the data folder, made of "
            f"letters, digits, '_', '-' and '.'{hint if path.name else ''}"
        )


def case_folders(root: Path, layout: str) -> list[Path]:
    """The folders in a cohort's folder, each a case or a group of cases.

    Raises:
        ValueError: there is no such folder, or nothing in it.
    """
    folders = subfolders(existing_folder(root, layout))
    if not folders:
        raise ValueError(f"{root}: no case found; expected {layout}")
    return folders


def subfolders(folder: Path, prefix: str = "") -> list[Path]:
    """Folders inside a folder in natural order, without hidden ones and what macOS archives add.

    Only those whose names begin with ``prefix``, if it is given.

    Raises:
        ValueError: it cannot be read, or one of them is a link to nothing.
    """
    with readable(folder):
        inner = [
            path
            for path in folder.iterdir()
            if path.name.startswith(prefix) and not path.name.startswith((".", "__MACOSX"))
        ]
    found = [path for path in inner if not _is_annexed_file(path) and is_folder(path)]
    return sorted(found, key=lambda path: natural_key(path.name))


def _is_annexed_file(path: Path) -> bool:
    """Whether it is a link of git-annex, which keeps files alone, whether fetched or not."""
    return path.is_symlink() and "annex" in path.readlink().parts


def optional(folder: Path, stem: str) -> Path | None:
    """The image of this name, if it is there.

    Raises:
        ValueError: it is there twice, or its content is not.
    """
    places = [folder / (stem + end) for end in (".nii.gz", ".nii")]
    found = [path for path in places if is_there(path)]
    if len(found) == 2:
        raise ValueError(f"{found[0]}: {found[1].name} is there as well; keep one of the two")
    return existing(found[0]) if found else None


def required(folder: Path, stem: str) -> Path:
    """The image of this name; ValueError if it is not there, with those that are."""
    path = optional(folder, stem)
    if path is None:
        with readable(folder):
            names = [p.name for p in folder.iterdir()] if is_folder(folder) else []
        there = sorted({name.partition(".nii")[0] for name in names if _is_image(name)})
        near = close_to(stem, [name for name in there if name not in MASKS])
        hint = f"; did you mean {near}?" if near else ""
        listed = f"; there: {', '.join(there)}" if there else ""
        raise ValueError(
            f"{folder / (stem + '.nii.gz')}: missing (nor is there {stem}.nii{listed}){hint}"
        )
    return path


def _is_image(name: str) -> bool:
    return name.endswith((".nii", ".nii.gz")) and not name.startswith(".")
