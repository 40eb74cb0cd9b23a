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
from typing import TYPE_CHECKING, Any, cast

import tyro

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

from lesion_core import durable, looks
from lesion_core.arms import asked_rows
from lesion_core.descriptions import SCORES_FOLDER
from lesion_core.paths import MOST_CHECKPOINT_BYTES, Damaged, existing, read_json, readable
from lesion_core.received import inside, is_plain, sha256_of
from sweeps import command, provenance
from sweeps.ledger import checksums
from sweeps.ledger.gradients import add_gradients
from sweeps.ledger.ledger import PROGRESS, Ledger, read_progress
from sweeps.ledger.lock import STAGING, Lock
from sweeps.ledger.recovered import LOST, recovered

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort

PASSING = (".lock", ".live.json", PROGRESS, "checkpoint.pt")
"""Files that live while a sweep runs; progress.json holds the checksums of checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every file of a results folder against its checksum.

    Exit status: 0 nothing is wrong (any more); 1 something is, and is named; 2 no results folder.
    """

    results: tyro.conf.Positional[Path]
    """Folder that holds sweep.json."""
    repair: bool = False
    """Make again what can be: the report, sweep.json as far as the trials say it, tables of
    cohorts, gradient curves, lost checksums; and have damaged trials trained by the sweep's next
    command."""
    data: Path = Path("data")
    """Folder that holds the sweep's cohorts; --repair reads it to make their tables again."""


@dataclass
class Found:
    """What is wrong with a results folder."""

    checked: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Why, by file (its path in the folder)."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why, of files that this account may not read, or that this disk does not give."""
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
        """Whether nothing is wrong, and all could be read."""
        return not self.damaged and not self.to_train and not self.unreadable


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
    given_up: set[str] = set()
    try:
        rows = asked_rows(ledger.read_meta(results))
        given_up = ledger.given_up(ledger.read_search(results))
    except ValueError as error:
        name = ledger.SEARCH if ledger.SEARCH in str(error) else "sweep.json"
        _note(results, name, error, found)
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
        found.unfinished += _judge(results, name, rows.get(name), found) and name not in given_up
    _check_scores(results, found)
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
        inner[:] = [name for name in inner if not name.startswith(STAGING)]
        links = [name for name in inner if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (here / name).relative_to(root).as_posix()


def _check(root: Path, name: str, recorded: checksums.Recorded, found: Found) -> None:
    """Compare one file with what is recorded of it."""
    from lesion_core import results as ledger

    parts = name.split("/")
    if parts[0] == "trials" and parts[-1] == "checkpoint.pt" and len(parts) == 3:
        _check_checkpoint(root, name, found)
    elif parts[0] == "trials" and parts[-1] == PROGRESS and len(parts) == 3:
        _check_progress(root, name, found)
    if parts[-1] in PASSING or parts[0] in ("report", SCORES_FOLDER) or name == checksums.FILE:
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
            if whole is None and parts[2] in ledger.TABLES:  # its pages have checksums
                ledger.read_table(root / name)
        else:
            whole = recorded.is_whole(root, name)
    except ValueError as error:
        _note(root, name, error, found)
        return
    if whole is None:
        found.unchecked.append(name)
        return
    found.checked += 1
    if not whole:
        found.damaged.setdefault(name, "is not what was written")


def _check_checkpoint(root: Path, name: str, found: Found) -> None:
    """Whether a trial that is not done can go on from its checkpoint."""
    if (root / name).is_symlink():
        found.damaged[name] = "is a link"
        return
    try:
        known: Any = read_json((root / name).with_name(PROGRESS)).get("checkpoints")
        whole = isinstance(known, dict) and sha256_of(root / name, MOST_CHECKPOINT_BYTES) in known
    except Damaged as error:
        found.damaged[name] = _short(root, error)
    except ValueError as error:
        _note(root, name, error, found)
    else:
        found.checked += whole
        if not whole:
            found.damaged[name] = "is not what was written; the trial will start afresh"


def _check_progress(root: Path, name: str, found: Found) -> None:
    """Whether what is known of a trial that is not done can be believed."""
    folder = (root / name).parent
    if (folder / "done.json").exists():  # a leftover, of no use to anybody
        return
    try:
        read_progress(folder)
    except Damaged:
        found.damaged[name] = "is not what was written; the trial will start afresh"


def _note(root: Path, name: str, error: ValueError, found: Found) -> None:
    """Keep what is wrong with a file: what could be read is damaged, the rest is not known."""
    kept = (
        found.damaged
        if isinstance(error, Damaged) or "cannot be read" not in str(error)
        else (found.unreadable)
    )
    kept[name] = _short(root, error)


def _as_done_says(folder: Path, file: str) -> bool | None:
    """Whether a trial's file is as its done.json recorded; None if that says nothing of it."""
    try:
        files: Any = read_json(folder / "done.json").get("files")
        state = files.get(file) if isinstance(files, dict) else None
    except ValueError:
        return None
    if not isinstance(state, dict):
        return None
    existing(folder / file)
    with readable(folder / file):
        same_size = (folder / file).stat().st_size == state.get("bytes")
    return same_size and sha256_of(folder / file) == state.get("sha256")


def _trials_in(root: Path) -> list[str]:
    folder = root / "trials"
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def _judge(root: Path, name: str, row: dict[str, Any] | None, found: Found) -> bool:
    """Note a trial that must be trained again: it is corrupt, or a file of a done one is damaged.

    Returns whether it is not finished.
    """
    from lesion_core import results

    place = f"trials/{name}/"
    if not is_plain(name):
        found.damaged[place] = "is no name of a trial"
        return False
    try:
        state = results.trial_status(root / "trials" / name, row)
    except ValueError as error:  # a link to nothing, or a file that cannot be read here
        file, _, why = _short(root, error).partition(": ")
        if file not in found.unreadable:
            _note(root, file, ValueError(why), found)
        return False
    damaged = [file for file in found.damaged if file.startswith(place)]
    damaged = [file for file in damaged if not file.endswith("/log.txt")]
    if state["status"] == "corrupt":
        found.to_train[name] = state["error"] or "is corrupt"
    elif state["status"] in ("partial", "missing"):
        return True
    elif damaged:
        found.to_train[name] = f"{damaged[0].removeprefix(place)} is damaged"
    elif state["status"] == "done" and (last := state["epochs_done"]) is not None:
        files = ("cases.parquet", "epochs.parquet")
        tables = {file: results.read_table(root / place / file) for file in files}
        if (file := results.lacks_epochs(tables, last)) is not None:
            found.to_train[name] = f"{file} does not hold every epoch"
    return False


def _check_scores(root: Path, found: Found) -> None:
    """What seeds do together: each ensemble has the checksum of its rows beside them."""
    from lesion_core import scores

    state = scores.read_scores(root)
    found.checked += 2 * len(state.whole) + len(state.unfinished)
    found.damaged |= state.damaged
    found.unreadable |= state.unreadable


def _check_report(root: Path, found: Found) -> None:
    from lesion_core.report_record import report_state

    try:
        state = report_state(root)
    except ValueError:  # of sweep.json, which is named already
        return
    found.damaged |= {f"report/{name}": "is not what was written" for name in state.damaged}
    found.unreadable |= {f"report/{name}": why for name, why in state.unreadable.items()}
    found.outdated_report = state.outdated
    if not state.recorded:
        found.unchecked.append("report/")


def _short(root: Path, error: Exception) -> str:
    return str(error).replace(f"{root}{os.sep}", "")


# ---------------------------------------------------------------------------------------- in words
def _tell(root: Path, found: Found) -> None:
    for name, why in found.damaged.items():
        print(f"damaged  {name}: {why}")
    for name, why in found.unreadable.items():
        print(f"cannot be read  {name}: {why.removeprefix(f'{name}: ')}")
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
    if any(name.startswith(f"{SCORES_FOLDER}/") for name in found.damaged):
        again = provenance.command_to_show("python -m lesion_core.predict", "predict")
        print(f"{SCORES_FOLDER}/: what is damaged is made again by `{again} {root} --score`")
    if "sweep.json" in found.damaged:
        print(
            "sweep.json: delete it and give the sweep's command again; it writes it anew, and "
            "trains nothing that is whole. --repair writes what the trials say of it"
        )
    parts = [f"{found.checked} files are as they were written"]
    if found.unfinished:
        parts.append(f"{found.unfinished} trials are not finished")
    if not found.whole:
        parts.append(
            f"{len(found.damaged)} damaged, {len(found.to_train)} trials to be trained again"
        )
    if found.unreadable:
        parts.append(f"{len(found.unreadable)} could not be read here, so nothing is known of them")
    print(f"{root}: {', '.join(parts)}")


# -------------------------------------------------------------------------------------- the repair
def _repair(flags: Verify, ledger: Ledger, found: Found) -> None:
    """Make again what can be, and see to it that a sweep trains the rest."""
    root = flags.results
    if "sweep.json" in found.damaged or not (root / "sweep.json").exists():
        _repair_sweep(root, ledger)
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
    if "gradients.parquet" in found.damaged:
        _repair_gradients(flags, ledger)
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
                and not name.startswith(("report/", "predictions/", f"{SCORES_FOLDER}/"))
                and not (name.startswith("trials/") and Path(name).name in (*TABLES, MODEL))
                and not (root / name).is_symlink()
            ],
        )
        print(f"{checksums.FILE}: written anew, from the files that are whole")
    for name in (name for name in found.damaged if name.startswith(f"{SCORES_FOLDER}/")):
        place = Path(*Path(name).parts[:2])
        durable.remove(inside(root, place))
        print(f"{place}: taken away; `predict --score` makes it again")
    if found.outdated_report or any(name.startswith("report/") for name in found.damaged):
        from sweeps.sweep import build_report

        build_report(root)


def _repair_sweep(root: Path, ledger: Ledger) -> None:
    """Write sweep.json anew from the trials."""
    try:
        request = recovered(root)
    except ValueError as error:
        print(f"sweep.json: cannot be made again ({error}); give the sweep's command again")
        return
    (root / "sweep.json").unlink(missing_ok=True)
    ledger.write_request(request)
    print(
        f"sweep.json: written again, from {len(request['trials'])} trials; not recovered: {LOST}. "
        "The sweep's command, given again, adds these"
    )


def _repair_gradients(flags: Verify, ledger: Ledger) -> None:
    """Take the gradient curves of the sweep's losses anew; code that a folder names is not run."""
    import json

    from lesion_core.losses import loss_from_dict
    from lesion_core.losses.gradients import TypicalPatch
    from lesion_core.results import read_meta
    from lesion_core.settings import TrainSettings

    place = flags.results / "gradients.parquet"
    try:
        meta = read_meta(flags.results)
        stored = {row["loss"]: json.loads(row["loss_params"]) for row in meta["trials"]}
        stored = {label: stored[label] for label in meta["losses"] if label in stored}
        losses = [loss_from_dict(each) for each in stored.values() if "import" not in each]
        patch = TypicalPatch.of(
            _loaded(flags, next(iter(meta["cohorts"]))), TrainSettings.from_dict(meta["settings"])
        )
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        print(f"{place.name}: cannot be made again ({error}); say where images are with --data")
        return
    place.unlink(missing_ok=True)
    add_gradients(ledger, losses, lambda: patch)
    own = [label for label, each in stored.items() if "import" in each]
    more = f"; not of {', '.join(own)}: the sweep's command adds them" if own else ""
    print(f"{place.name}: written again{more}")


def _repair_cohort(flags: Verify, ledger: Ledger, name: str) -> None:
    """Write a cohort's tables anew from its images."""
    from lesion_core.cohort_rows import describe

    try:
        loaded = _loaded(flags, name)
    except (ValueError, KeyError, TypeError) as error:
        print(
            f"cohorts/{name}: cannot be made again ({error}); say where its images are with --data"
        )
        return
    ledger.write_cohort(name, *describe(loaded))
    print(f"cohorts/{name}: written again from {flags.data / name}")


def _loaded(flags: Verify, name: str) -> LoadedCohort:
    """A cohort's images, which must be those that the sweep was trained on."""
    from lesion_core.cohorts import cohort_from_dict
    from lesion_core.images import load_cohort
    from lesion_core.results import read_meta
    from lesion_core.unusual import noted

    meta = read_meta(flags.results)
    entry = cast(dict[str, Any], meta["cohorts"][name])
    if "definition" not in entry:
        raise ValueError("sweep.json does not say how its files are read")
    cohort = cohort_from_dict(entry["definition"])
    loaded = noted(load_cohort(cohort, flags.data), meta["settings"]["patch_size"])
    if loaded.name != name or loaded.fingerprint != entry.get("fingerprint"):
        raise ValueError("these are not the files that the sweep was trained on")
    return loaded


if __name__ == "__main__":
    command.process(main)
