"""What did a lost sweep.json say?  As far as the trials and tables of its folder still say it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lesion_core.paths import read_json
from sweeps.ledger.contents import CohortEntry, SweepRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lesion_core.descriptions import TrialRow

LOST = (
    "the command, the git commit, how the files of the cohorts are read, trials that were never "
    "begun, losses and settings that only these have, labels that somebody gave to arms"
)
"""What nothing else in a folder says; the sweep's command, given again, says it."""


def recovered(root: Path) -> SweepRequest:
    """What was asked of a folder, from its trial.json files and tables.

    The sweep's own settings are then those of the first trial.

    Raises:
        ValueError: they do not say what sweep.json cannot do without.
    """
    from lesion_core import results

    trials = dict(_trials(root))
    if not trials:
        raise ValueError("no trial here says what was asked")
    configs = {name: trial["config"] for name, trial in trials.items()}
    first = next(iter(configs.values()))
    if any(config["num_folds"] != first["num_folds"] for config in configs.values()):
        raise ValueError("its trials have different numbers of folds")
    # What a search's own trials are evaluated on is theirs; sweep.json says that of the others.
    compared = [config for config in configs.values() if "validation_cases" not in config]
    settings = (compared or [first])[0]["settings"]
    rows = [_row(trial, settings) for trial in trials.values()]
    request: SweepRequest = {
        "command": "",
        "git_commit": None,
        "versions": _versions(root, trials),
        "losses": list(dict.fromkeys(row["loss"] for row in rows)),
        "settings": settings,
        "num_folds": first["num_folds"],
        "folds": {},
        "cohorts": {},
        "trials": rows,
    }
    validation: dict[str, dict[str, list[str]]] = {}
    for cohort in dict.fromkeys(row["cohort"] for row in rows):
        own = {name: config for name, config in configs.items() if config["cohort"] == cohort}
        if len({config["fingerprint"] for config in own.values()}) > 1:
            raise ValueError(f"its trials of cohort {cohort} were trained on different data")
        cases = results.read_table(
            root / "cohorts" / cohort / "cases.parquet", results.COHORT_CASES
        ).to_pylist()
        pictures = results.read_table(
            root / "cohorts" / cohort / "slices.parquet", results.COHORT_SLICES
        ).to_pylist()
        if not cases or not pictures:
            raise ValueError(f"nothing says which cases cohort {cohort} has")
        entry: Any = {
            "fingerprint": next(iter(own.values()))["fingerprint"],
            "channels": list(pictures[0]["channels"]),
            "num_cases": len(cases),
            "brain": dict(Counter(row["brain_method"] for row in cases if row["brain_method"])),
        }
        request["cohorts"][cohort] = cast(CohortEntry, entry)
        order = [row["case"] for row in cases]
        request["folds"][cohort] = _folds(root, cohort, own, order, first["num_folds"])
        for config in own.values():
            if "validation_cases" in config:
                parts = validation.setdefault(cohort, {})
                parts[str(config["fold"])] = config["validation_cases"]
    return {**request, "validation": validation} if validation else request


def _row(trial: Mapping[str, Any], base: Mapping[str, Any]) -> TrialRow:
    """A trial as sweep.json lists it, by its trial.json."""
    from lesion_core.arms import complete, differing
    from lesion_core.descriptions import TrialRow

    row = {key: value for key, value in trial.items() if key in TrialRow.__annotations__}
    own = differing(complete(trial["config"]["settings"]), complete(base))
    return cast("TrialRow", row | ({"settings": own} if own else {}))


def _trials(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """trial.json by name of every trial that can be believed, in the order of the trainings."""
    from lesion_core.believed import wrong_with_trial

    found = []
    for file in (root / "trials").glob("*/trial.json"):
        try:
            trial = read_json(file)
        except ValueError:
            continue
        if wrong_with_trial(trial, file.parent.name) is None:
            found.append((file.stat().st_mtime_ns, file.parent.name, trial))
    return [(name, trial) for _, name, trial in sorted(found, key=lambda each: each[:2])]


def _versions(root: Path, names: Mapping[str, object]) -> dict[str, str]:
    """Versions that a finished trial recorded."""
    for name in names:
        try:
            versions = read_json(root / "trials" / name / "done.json").get("versions")
        except ValueError:
            continue
        if isinstance(versions, dict):
            return versions
    return {}


def _folds(
    root: Path, cohort: str, configs: Mapping[str, Any], cases: list[str], num_folds: int
) -> list[list[str]]:
    """Test cases of every fold, by the trials that were tested on them."""
    from lesion_core import results

    tested: dict[int, set[str]] = {}
    for name, config in configs.items():
        if "test_cases" in config:
            tested[config["fold"]] = set(config["test_cases"])
        elif config["fold"] not in tested and "validation_cases" not in config:
            try:
                file = root / "trials" / name / "cases.parquet"
                table = results.read_table(file, results.CASES).select(["split", "case"])
            except ValueError:
                continue
            pairs = table.to_pylist()
            tested[config["fold"]] = {p["case"] for p in pairs if p["split"] == "test"}
    known = set().union(*tested.values()) if tested else set()
    absent = [fold for fold in range(num_folds) if fold not in tested]
    if len(absent) == 1:  # who is tested in no other fold
        tested[absent.pop()] = set(cases) - known
    if absent:
        folds = ", ".join(map(str, absent))
        raise ValueError(f"no trial says which cases of cohort {cohort} are in fold {folds}")
    return [[case for case in cases if case in tested[fold]] for fold in range(num_folds)]
