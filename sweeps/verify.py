"""Is every byte of a results folder as it was written?  Says what is not, and repairs what it can.

    python sweeps/verify.py results/paper_grid --repair --data data

The chain: checksums.log holds the checksum of every file but a trial's tables and weights, whose
checksums are in its done.json.  So this also reads what `status` passes over for its size: weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import tyro

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion_core import looks
from lesion_core.paths import read_json
from lesion_core.received import is_plain, sha256_of
from sweeps import command, provenance
from sweeps.ledger import checksums
from sweeps.ledger.ledger import PROGRESS, Ledger
from sweeps.ledger.lock import Lock

PASSING = (".lock", ".live.json", PROGRESS, "checkpoint.pt")
"""Files that live while a sweep runs; a checkpoint is checked when it is used."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every file of a results folder against its checksum.

    Exit status: 0 nothing is wrong (any more); 1 something is, and is named; 2 no results folder.
    """

    results: tyro.conf.Positional[Path]
    """Folder that holds sweep.json."""
    repair: bool = False
    """Make again what can be: the report, tables of cohorts, gradient curves, lost checksums; and
    have damaged trials trained by the sweep's next command."""
    data: Path = Path("data")
    """Folder that holds the sweep's cohorts; --repair reads it to make their tables again."""


@dataclass
class Found:
    """What is wrong with a results folder."""

    checked: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Why, by file (its path in the folder)."""
    unchecked: list[str] = field(default_factory=list)
    """Files that nothing says anything of."""
    to_train: dict[str, str] = field(default_factory=dict)
    """Why, by name of the trial."""
    unfinished: int = 0
    outdated_report: bool = False
    older: bool = False
    """Whether there is no checksums.log."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.to_train


def verify(results: Path) -> Found:
    """Look at every file of a results folder.

    Raises:
        ValueError: there is no such folder, or nothing of a ledger in it.
    """
    from lesion_core import results as ledger

    if not any((results / name).exists() for name in ("sweep.json", checksums.FILE, "trials")):
        raise ValueError(
            f"{results}: no sweep.json there; expected a results folder such as results/paper_grid"
        )
    recorded = checksums.read(results)
    found = Found(older=not recorded.there)
    rows: dict[str, Any] = {}
    try:
        rows = {trial["name"]: trial for trial in ledger.read_meta(results)["trials"]}
        ledger.read_search(results)
    except ValueError as error:
        name = ledger.SEARCH if ledger.SEARCH in str(error) else "sweep.json"
        found.damaged[name] = _short(results, error)
    found.damaged |= {
        f"{checksums.FILE}, line {number}": "is damaged" for number in recorded.damaged_lines
    }
    files = list(_files(results))
    for name in files:
        _check(results, name, recorded, found)
    for name in recorded.states.keys() - set(files):
        first = name.partition("/")[0]
        if first in ("sweep.json", ledger.SEARCH, ledger.GRADIENTS_FILE, "cohorts"):
            found.damaged[name] = "is missing"
    for name in dict.fromkeys([*rows, *_trials_in(results)]):
        _judge(results, name, rows.get(name), found)
    if (results / "report").is_dir():
        _check_report(results, found)
    return found


def main(arguments: Sequence[str]) -> int:
    """Check a results folder; returns the exit status."""
    flags = command.read_flags(Verify, arguments)
    found = verify(flags.results)
    _tell(flags.results, found)
    if found.whole or not flags.repair:
        if not found.whole:
            again = provenance.command_to_show("python sweeps/verify.py", "verify")
            print(f"what can be made again: {again} {flags.results} --repair")
        return int(not found.whole)
    with Lock(flags.results, provenance.command_line()) as lock:
        _repair(flags, Ledger(flags.results, lock.token), found)
    after = verify(flags.results)
    print("after the repair:")
    _tell(flags.results, after)
    return int(not after.whole)


# ------------------------------------------------------------------------------------- one by one
def _files(root: Path) -> Iterator[str]:
    """Every file, by its path in the folder; a link is one, and is not followed."""
    for folder, inner, files in os.walk(root):
        here = Path(folder)
        links = [name for name in inner if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (here / name).relative_to(root).as_posix()


def _check(root: Path, name: str, recorded: checksums.Recorded, found: Found) -> None:
    """Compare one file with what is recorded of it."""
    from lesion_core import results as ledger

    parts = name.split("/")
    if parts[-1] in PASSING or parts[0] == "report" or name == checksums.FILE:
        return
    if (root / name).is_symlink():
        found.damaged[name] = "is a link"
        return
    try:
        if name == looks.FILE:  # a line for every look, each with its own checksum
            lines = looks.read_looks(root).damaged_lines
            found.damaged |= {f"{name}, line {number}": "is damaged" for number in lines}
            found.checked += not lines
            return
        if parts[0] == "trials" and len(parts) == 3 and parts[2] in (*ledger.TABLES, ledger.MODEL):
            whole = _as_done_says(root / "trials" / parts[1], parts[2])
        else:
            whole = recorded.is_whole(root, name)
    except ValueError as error:
        found.damaged[name] = _short(root, error)
        return
    if whole is None:
        found.unchecked.append(name)
        return
    found.checked += 1
    if not whole:
        found.damaged.setdefault(name, "is not what was written")


def _as_done_says(folder: Path, file: str) -> bool | None:
    """Whether a trial's file is as its done.json recorded; None if that says nothing of it."""
    try:
        files: Any = read_json(folder / "done.json").get("files")
        state = files.get(file) if isinstance(files, dict) else None
    except ValueError:
        return None
    return None if not isinstance(state, dict) else sha256_of(folder / file) == state.get("sha256")


def _trials_in(root: Path) -> list[str]:
    folder = root / "trials"
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def _judge(root: Path, name: str, row: dict[str, Any] | None, found: Found) -> None:
    """Whether a trial must be trained again: it is corrupt, or a file of a done one is damaged."""
    from lesion_core.results import trial_status

    place = f"trials/{name}/"
    if not is_plain(name):
        found.damaged[place] = "is no name of a trial"
        return
    try:
        state = trial_status(root / "trials" / name, row)
    except ValueError as error:  # a link to nothing, or a file that cannot be read here
        file, _, why = _short(root, error).partition(": ")
        found.damaged.setdefault(file, why)
        return
    damaged = [file for file in found.damaged if file.startswith(place)]
    damaged = [file for file in damaged if not file.endswith("/log.txt")]
    if state["status"] == "corrupt":
        found.to_train[name] = state["error"] or "is corrupt"
    elif state["status"] in ("partial", "missing"):
        found.unfinished += 1
    elif damaged:
        found.to_train[name] = f"{damaged[0].removeprefix(place)} is damaged"


def _check_report(root: Path, found: Found) -> None:
    from lesion_core.report_record import report_state

    try:
        state = report_state(root)
    except ValueError:  # of sweep.json, which is named already
        return
    found.damaged |= {f"report/{name}": "is not what was written" for name in state.damaged}
    found.outdated_report = state.outdated
    if not state.recorded:
        found.unchecked.append("report/")


def _short(root: Path, error: Exception) -> str:
    return str(error).replace(f"{root}{os.sep}", "")


# ---------------------------------------------------------------------------------------- in words
def _tell(root: Path, found: Found) -> None:
    for name, why in found.damaged.items():
        print(f"damaged  {name}: {why}")
    for name, why in found.to_train.items():
        print(f"must be trained again: {name} ({why})")
    if found.older:
        print(
            f"{checksums.FILE} is not there: of an older ledger, only what done.json records of a "
            "trial's tables and weights can be checked"
        )
    if found.outdated_report:
        print("report/: was made from another state of the ledger")
    if found.unchecked:
        more = f" and {len(found.unchecked) - 5} more" if len(found.unchecked) > 5 else ""
        print(f"not checked, since nothing is recorded: {', '.join(found.unchecked[:5])}{more}")
    if "sweep.json" in found.damaged:
        print(
            "sweep.json: delete it and give the sweep's command again; it writes it anew, and "
            "trains nothing that is whole"
        )
    parts = [f"{found.checked} files are as they were written"]
    if found.unfinished:
        parts.append(f"{found.unfinished} trials are not finished")
    if not found.whole:
        parts.append(
            f"{len(found.damaged)} damaged, {len(found.to_train)} trials to be trained again"
        )
    print(f"{root}: {', '.join(parts)}")


# -------------------------------------------------------------------------------------- the repair
def _repair(flags: Verify, ledger: Ledger, found: Found) -> None:
    """Make again what can be, and see to it that a sweep trains the rest."""
    root = flags.results
    for name in found.to_train:
        marker = root / "trials" / name / "done.json"
        if not marker.parent.is_symlink() and (marker.exists() or marker.is_symlink()):
            marker.unlink()  # without it, the trial is not done for anybody
            print(f"{name}: the sweep's next command trains it")
    if any(name.startswith(looks.FILE) for name in found.damaged):
        print(f"{looks.FILE}: {looks.drop_damaged_lines(root)} damaged lines are taken out")
    cohorts = {name.split("/")[1] for name in found.damaged if name.startswith("cohorts/")}
    for cohort in sorted(cohorts):
        _repair_cohort(flags, ledger, cohort)
    if any(name.startswith(checksums.FILE) for name in found.damaged) or found.older:
        damaged = [*found.damaged, *(f"trials/{name}/" for name in found.to_train)]
        kept = [name for name in _files(root) if not name.startswith(tuple(damaged))]
        skipped = (*PASSING, checksums.FILE, looks.FILE)
        from lesion_core.results import MODEL, TABLES

        checksums.rewrite(
            root,
            [
                name
                for name in kept
                if Path(name).name not in skipped
                and not name.startswith(("report/", "predictions/"))
                and not (name.startswith("trials/") and Path(name).name in (*TABLES, MODEL))
                and not (root / name).is_symlink()
            ],
        )
        print(f"{checksums.FILE}: written anew, from the files that are whole")
    if found.outdated_report or any(name.startswith("report/") for name in found.damaged):
        from sweeps.sweep import build_report

        build_report(root)


def _repair_cohort(flags: Verify, ledger: Ledger, name: str) -> None:
    """Write a cohort's tables anew from its images."""
    from lesion_core.cohort_rows import describe
    from lesion_core.cohorts import cohort_from_dict
    from lesion_core.images import load_cohort
    from lesion_core.results import read_meta
    from lesion_core.unusual import noted

    try:
        meta = read_meta(flags.results)
        entry = cast(dict[str, Any], meta["cohorts"][name])
        cohort = cohort_from_dict(entry["definition"])
        loaded = noted(load_cohort(cohort, flags.data), meta["settings"]["patch_size"])
        if loaded.name != name or loaded.fingerprint != entry["fingerprint"]:
            raise ValueError("these are not the files that the sweep was trained on")
    except (ValueError, KeyError, TypeError) as error:
        print(
            f"cohorts/{name}: cannot be made again ({error}); say where its images are with --data"
        )
        return
    ledger.write_cohort(name, *describe(loaded))
    print(f"cohorts/{name}: written again from {flags.data / name}")


if __name__ == "__main__":
    sys.exit(command.run(main))
