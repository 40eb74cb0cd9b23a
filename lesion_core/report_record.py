"""What a report was made from, and whether it still is that report: ``report/made.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesion_core import results, scores
from lesion_core.arms import asked_rows
from lesion_core.paths import Damaged, existing, is_there, read_json
from lesion_core.received import is_plain, sha256_of

RECORD = "made.json"
"""In the report's folder, written last."""


def ledger_digest(path: Path) -> str:
    """SHA-256 (hex) over all of a results folder that a report is made from.

    A trial counts with its status, its trial.json and its marker, which has the hashes of the
    rest; one that is not complete with its rows so far.

    Raises:
        ValueError: not a results folder.
    """
    total = hashlib.sha256()
    for part in _parts(path):
        total.update(f"{part}\n".encode())
    return total.hexdigest()


def write_record(folder: Path, digest: str) -> None:
    """Say that the report in a folder was made from the ledger of this digest."""
    files = {
        file.relative_to(folder).as_posix(): sha256_of(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink() and file.name != RECORD
    }
    content = {"ledger": digest, "files": files}
    results.write_json(folder / RECORD, content | {"record": _of(content)})


@dataclass(frozen=True)
class ReportState:
    """Whether the report of a results folder is whole, and of the ledger as it is."""

    damaged: tuple[str, ...] = ()
    """Its files that are not as they were written."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why, by file: those that cannot be read here, so that nothing is known of them."""
    recorded: bool = True
    """Whether anything says how they were: reports of older releases have no record."""
    outdated: bool = False
    """Whether it was made from another state of the ledger."""

    @property
    def current(self) -> bool:
        """Whether it need not be made again."""
        return self.recorded and not (self.damaged or self.unreadable or self.outdated)


def report_state(path: Path) -> ReportState:
    """How ``report/`` of a results folder is.

    Raises:
        ValueError: not a results folder.
    """
    folder = path / "report"
    try:
        if not is_there(folder / RECORD):
            return ReportState(recorded=False)
        made = read_json(folder / RECORD)
    except Damaged:
        return ReportState(damaged=(RECORD,))
    except ValueError as error:
        return ReportState(unreadable={RECORD: str(error)})
    files: Any = made.get("files")
    whole = made.pop("record", None) == _of(made)
    if not whole or not isinstance(files, dict) or "report.html" not in files:
        return ReportState(damaged=(RECORD,))
    unreadable = {name: why for name in files if (why := _unreadable(folder, name))}
    return ReportState(
        damaged=tuple(
            name
            for name, digest in files.items()
            if name not in unreadable and not _is_whole(folder, name, digest)
        ),
        unreadable=unreadable,
        outdated=made.get("ledger") != ledger_digest(path),
    )


def _of(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _unreadable(folder: Path, name: str) -> str:
    """Why a file that is there cannot be read here; "" if it can, or is not there."""
    try:
        if all(map(is_plain, name.split("/"))) and is_there(folder / name):
            existing(folder / name)
    except Damaged:
        pass
    except ValueError as error:
        return str(error)
    return ""


def _is_whole(folder: Path, name: str, digest: object) -> bool:
    try:
        return all(map(is_plain, name.split("/"))) and sha256_of(folder / name) == digest
    except ValueError:
        return False


def _parts(path: Path) -> Iterator[str]:
    meta = results.read_meta(path)
    tables = sorted(path.glob("cohorts/*/*.parquet"))
    for file in (
        path / "sweep.json",
        path / results.SEARCH,
        path / results.GRADIENTS_FILE,
        path / results.TRAINING_EFFECT_FILE,
        *tables,
    ):
        yield f"{file.relative_to(path).as_posix()} {_digest(file)}"
    for file in sorted(path.glob(f"{scores.FOLDER}/*/{scores.RECORD}")):
        yield f"{file.relative_to(path).as_posix()} {_digest(file)}"
    names = asked_rows(meta)
    here = sorted(each.name for each in (path / "trials").glob("*"))
    for name in dict.fromkeys([*names, *here]):
        folder = path / "trials" / name
        status = results.trial_status(folder, names.get(name))
        more = ["trial.json", "done.json", "failed.json"]
        more += ["cases.parquet", "epochs.parquet"] if status["status"] != "done" else []
        yield " ".join([name, status["status"], *(_digest(folder / file) for file in more)])


def _digest(file: Path) -> str:
    try:
        return sha256_of(file)
    except ValueError:
        return "absent"
