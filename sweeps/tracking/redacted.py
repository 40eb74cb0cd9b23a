"""A copy of a results folder with only what W&B may get of it, to build a report from.

No hosts, no folders of this machine, no tracebacks; no pictures unless `Tracking.media`; under
pseudonyms, every name of a case, subject or site replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lesion_core.descriptions import configuration_hash, trial_name
from lesion_core.paths import read_json
from lesion_core.received import read_table
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import CASE_LISTS

PICTURES = "slices.parquet"
TRIAL_FILES = ("trial.json", "done.json", "failed.json")


def copy(results: Path, target: Path, tracking: Tracking) -> Path:
    """Write the copy to ``target``, a new folder; returns it.  Files that may be read as they are
    become links."""
    from lesion_core import results as ledger

    target.mkdir(parents=True)
    meta = ledger.read_meta(results)
    if tracking.salt is not None:
        meta["folds"] = {
            cohort: [[tracking.case_name(case) for case in fold] for fold in folds]
            for cohort, folds in meta["folds"].items()
        }
        for entry in (meta.get("cohorts") or {}).values():
            if activity := entry.get("activity"):
                activity["excluded"] = [tracking.case_name(case) for case in activity["excluded"]]
        meta.pop("validation", None)
    meta["command"] = _without_folders(meta.get("command") or "")  # they may name people
    renamed = _renamed(results, tracking)
    meta["trials"] = [
        trial | ({"name": new["name"], "hash": new["hash"]} if new is not None else {})
        for trial in meta["trials"]
        for new in [renamed.get(trial["name"])]
    ]
    ledger.write_json(target / "sweep.json", meta)
    if (search := ledger.read_search(results)) is not None:
        for each in search["configurations"]:
            each["trials"] = {
                cell: renamed[name]["name"] if name in renamed else name
                for cell, name in each["trials"].items()
            }
        ledger.write_json(target / "search.json", search)
    for folder in sorted(results.glob("cohorts/*")):
        _table(folder / "cases.parquet", target, results, ledger.COHORT_CASES, tracking)
        if tracking.media:
            _table(folder / PICTURES, target, results, ledger.COHORT_SLICES, tracking)
    for folder in sorted(results.glob("trials/*")):
        new = renamed.get(folder.name, {"name": folder.name})
        damaged = ledger.trial_status(folder)["status"] == "corrupt"
        for file in TRIAL_FILES:
            if (folder / file).exists():
                place = target / "trials" / new["name"] / file
                content: Mapping[str, Any] = {}  # the report says that the trial is damaged
                with suppress(ValueError):
                    if not damaged:
                        content = _redacted(file, read_json(folder / file), tracking)
                if "trial" in content:
                    content = {**content, "trial": new["name"]}
                ledger.write_json(place, new if file == "trial.json" and "hash" in new else content)
        for file, schema in ledger.TABLES.items():
            if file != PICTURES or tracking.media:
                _table(folder / file, target, results, schema, tracking, new["name"])
            elif (folder / file).exists():  # a trial without this file counts as damaged
                ledger.write_table(target / "trials" / new["name"] / file, [], schema)
    return target


def _renamed(results: Path, tracking: Tracking) -> dict[str, dict[str, Any]]:
    """trial.json, by the trial's name so far, of those whose configuration names cases.

    With pseudonyms in it a trial has another hash, and so another name.
    """
    found = {}
    for file in results.glob("trials/*/trial.json") if tracking.salt is not None else ():
        with suppress(ValueError, KeyError):
            content = read_json(file)
            config = dict(content["config"])
            listed = CASE_LISTS & config.keys()
            for key in listed:
                config[key] = [tracking.case_name(case) for case in config[key]]
            if listed:
                digits = configuration_hash(config)
                cohort, loss, seed, fold = (
                    content[key] for key in ("cohort", "loss", "seed", "fold")
                )
                name = trial_name(cohort, loss, seed, fold, digits)
                content |= {"config": config, "hash": digits, "name": name}
                found[file.parent.name] = content
    return found


def _redacted(file: str, content: dict[str, Any], tracking: Tracking) -> Mapping[str, Any]:
    """What W&B may get of a JSON file; its hashes of the other files would not fit the copy."""
    content.pop("files", None)
    if file != "trial.json":
        content |= {"host": None} | ({"traceback": None} if file == "failed.json" else {})
    if tracking.salt is None:
        return content
    if file == "failed.json":  # a reason may name a case, or a path
        return content | {"error": content.get("kind", "error")}
    return content


def _without_folders(command: str) -> str:
    """A command line with the last part of every path only.

    >>> _without_folders("paper_grid.py --data /home/anna/data --epochs 3")
    'paper_grid.py --data data --epochs 3'
    """
    return " ".join(Path(word).name if "/" in word else word for word in command.split())


def _table(
    file: Path,
    target: Path,
    results: Path,
    schema: Any,
    tracking: Tracking,
    trial: str | None = None,
) -> None:
    """Copy a table; ``trial``: the name of its trial in the copy."""
    from lesion_core import results as ledger

    if not file.exists():
        return
    place = target / file.relative_to(results)
    if trial is not None:
        place = target / "trials" / trial / file.name
    if tracking.salt is None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file.resolve())
        return
    try:
        found = read_table(file)
        schema = ledger.cases_schema(found.column_names) if schema is ledger.CASES else schema
        rows = read_table(file, schema).to_pylist()
    except ValueError:  # the report says that the trial is damaged
        return
    pseudonyms = {
        "case": tracking.case_name,
        "subject": tracking.case_name,
        "site": tracking.site_name,
    }
    for row in rows:
        if trial is not None:
            row["trial"] = trial
        for column, name in pseudonyms.items():
            if row.get(column) is not None:
                row[column] = name(row[column])
        if row.get("warnings"):
            row["warnings"] = ["not told"] * len(row["warnings"])
    ledger.write_table(place, rows, schema)
