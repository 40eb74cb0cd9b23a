"""Which data a cohort's files are: one hash over all of their bytes, names and channels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from lesion_core import cache
from lesion_core.cohorts import Case, Cohort
from lesion_core.nifti import unreadable

FORMAT_VERSION = 1
"""Raise it when the same files give other arrays: it is part of every fingerprint."""


def fingerprint(cohort: Cohort, data: Path) -> str:
    """SHA-256 (hex) over every file of the cohort and its path below the cohort's folder.

    The order of the channels and `FORMAT_VERSION` count too; where the folder lies does not.
    Files that have not changed since they were last read (`cache.Digests`) are not read again.
    """
    cases = cohort.cases(data)
    channels, root = tuple(cohort.channels), Path(data) / cohort.name
    return fingerprint_of(cases, channels, root, digests_of(cases))


def fingerprint_of(
    cases: list[Case], channels: tuple[str, ...], root: Path, digests: Mapping[Path, str]
) -> str:
    """The fingerprint of these cases below a cohort's folder, whose files' digests are known."""
    total = hashlib.sha256(f"{FORMAT_VERSION}\n{' '.join(channels)}\n".encode())
    for rule in sorted({rule for case in cases for rule in case.rules}):
        total.update(f"{rule}\n".encode())
    files = {path.relative_to(root).as_posix(): path for case in cases for path in case.files}
    for name in sorted(files):
        total.update(f"{digests[files[name]]} {name}\n".encode())
    return total.hexdigest()


def digests_of(cases: list[Case]) -> dict[Path, str]:
    """SHA-256 of every file of these cases."""
    digests, found = cache.Digests(), {}
    for path in dict.fromkeys(path for case in cases for path in case.files):
        try:
            found[path] = digests.of(path)
        except OSError as error:
            raise ValueError(unreadable(path, error)) from None
    digests.save()
    return found
