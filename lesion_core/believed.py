"""What must hold of a ledger's JSON before anything in it is believed.

Each function says in a few words what is wrong, or None.  Only what is there is judged: older
ledgers lack fields.  Nothing that a ledger names is imported, opened or run for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from typing import Any, cast

from lesion_core.arms import complete
from lesion_core.descriptions import configuration_hash, trial_name
from lesion_core.received import is_plain
from lesion_core.settings import EVALUATION


def wrong_with_row(row: object) -> str | None:
    """Why this cannot be a row of sweep.json's trials.

    What is there has its type; a name and a cohort can be parts of a path.
    """
    if not isinstance(row, dict):
        return f"a trial is {_shown(row)}"
    for key in ("name", "cohort"):
        if not is_plain(row.get(key)):
            return f"a trial's {key} is {_shown(row.get(key))}"
    for key, kind in _ROW.items():
        if row.get(key) is not None and not _is(row[key], kind):
            return f"{key} of trial {row['name']} is {_shown(row[key])}"
    own = row.get("settings")
    if own is not None and (wrong := _wrong_with_settings(own)) is not None:
        return f"of the settings of trial {row['name']}, {wrong}"
    return None


def wrong_with_settings(config: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """Which setting of a trial's configuration is not as sweep.json says."""
    stored = complete(config.get("settings") or {})
    for name, value in asked.items():
        value = tuple(value) if isinstance(value, list) else value
        if name not in stored or stored[name] != value:
            return f"sweep.json says another {name} of it"
    return None


def wrong_with_trial(content: Mapping[str, Any], name: str) -> str | None:
    """Why this is not the trial.json of the trial of this name.

    Name and hash are computed anew from the configuration, and all that is said twice must agree.
    Nothing is imported for that, so a loss of somebody's own is not run.
    """
    if content.get("name") != name:
        return f"it is of trial {_shown(content.get('name'))}"
    config = content.get("config")
    if not isinstance(config, dict):
        return "it has no configuration"
    for key, kind in _ROW.items():
        if (key in content or key not in _SOMETIMES) and not _is(content.get(key), kind):
            return f"{key} is {_shown(content.get(key))}"
    for key, kind in _CONFIG.items():
        if (kind is not list or key in config) and not _is(config.get(key), kind):
            return f"{key} of its configuration is {_shown(config.get(key))}"
    if content["hash"] != configuration_hash(config):
        return "its hash is not that of its configuration"
    if name != trial_name(
        content["cohort"], content["loss"], content["seed"], content["fold"], content["hash"]
    ):
        return "its name is not that of its configuration"
    twice = {
        **{key: (config.get(key), content[key]) for key in ("cohort", "seed", "fold")},
        "epochs": (config.get("settings", {}).get("epochs"), content["epochs"]),
        "loss_params": (json.dumps(config.get("loss"), sort_keys=True), content["loss_params"]),
        "split": (
            "test" if "validation_cases" not in config else "validation",
            content.get("split", "test"),
        ),
        "trained_on": (
            len(config["training_cases"]) if "training_cases" in config else None,
            content.get("trained_on"),
        ),
    }
    return next(
        (f"{key} is not that of its configuration" for key, (a, b) in twice.items() if a != b), None
    )


def wrong_with_summary(content: Mapping[str, Any], trial: Mapping[str, Any]) -> str | None:
    """Why this is not the done.json of the trial of this trial.json."""
    for key, kind in _SUMMARY.items():
        if content.get(key) is not None and not _is(content[key], kind):
            return f"{key} is {_shown(content[key])}"
    for key in ("parameters", "flops_per_patch"):
        if not 0 <= (content.get(key) or 0) < 2**63:
            return f"{key} is {_shown(content[key])}"
    if content.get("epochs_done") != trial["epochs"]:
        return f"it says {_shown(content.get('epochs_done'))} of {trial['epochs']} epochs"
    if content.get("trial", trial["name"]) != trial["name"]:
        return f"it is of trial {_shown(content['trial'])}"
    if content.get("fingerprint", trial["config"]["fingerprint"]) != trial["config"]["fingerprint"]:
        return "it was trained on other data"
    return None


def wrong_with_failure(content: Mapping[str, Any]) -> str | None:
    """Why this is no failed.json."""
    for key, kind in _FAILURE.items():
        if content.get(key) is not None and not _is(content[key], kind):
            return f"{key} is {_shown(content[key])}"
    log = content.get("log")
    if log is not None and not all(map(is_plain, log.split("/"))):
        return f"log is {_shown(log)}"
    return None


def wrong_with_record(files: Mapping[str, Any], tables: Collection[str], model: str) -> str | None:
    """Why this cannot be what done.json recorded of a trial's files.

    Their names become paths, so they are compared with the ones that there are.
    """
    lacking = [name for name in tables if name not in files]
    other = [name for name in files if name not in (*tables, model)]
    if lacking or other:
        return f"it records {'not ' if lacking else ''}{(lacking or other)[0]!a:.60}"
    for name, state in files.items():
        if not (
            isinstance(state, dict)
            and type(state.get("bytes")) is int
            and isinstance(state.get("sha256"), str)
        ):
            return f"what it records of {name} is no size and hash"
    return None


def wrong_with_sweep(meta: Mapping[str, Any]) -> str | None:
    """Why this cannot be sweep.json: what is there has its type."""
    kinds = {
        "trials": list, "losses": list, "settings": dict, "num_folds": int, "folds": dict,
        "cohorts": dict, "versions": dict, "validation": dict, "command": str, "created": str,
        "updated": str,
    }  # fmt: skip
    for key, kind in kinds.items():
        if key in meta and type(meta[key]) is not kind:
            return f"{key} is no {_WORDS[kind]}"
    if (wrong := _wrong_with_settings(meta.get("settings", {}))) is not None:
        return f"of its settings, {wrong}"
    if type(meta.get("trials")) is not list:
        return "it lists no trials"
    for row in meta["trials"]:
        if (wrong := wrong_with_row(row)) is not None:
            return wrong
    for name, entry in (meta.get("cohorts") or {}).items():
        if not is_plain(name) or not isinstance(entry, dict):
            return f"cohort {name!a:.60} is no cohort"
        if not _is(entry.get("fingerprint", ""), str):
            return f"the fingerprint of cohort {name!a:.60} is no text"
    if not all(isinstance(loss, str) for loss in meta.get("losses") or ()):
        return "a loss has no label"
    for name, parts in meta.get("validation", {}).items():
        if not (isinstance(parts, dict) and all(_is(part, list) for part in parts.values())):
            return f"the validation parts of cohort {name!a:.60} are no lists of cases"
    for name, folds in meta.get("folds", {}).items():
        if not (isinstance(folds, list) and all(_is(fold, list) for fold in folds)):
            return f"the folds of cohort {name!a:.60} are no lists of cases"
    return None


def _wrong_with_settings(settings: object) -> str | None:
    """Why these cannot be settings of a training: plain values, or lists of them."""
    if not isinstance(settings, dict):
        return "there is no object"
    for name, value in settings.items():
        parts = value if isinstance(value, list) else [value]
        if not all(
            part is None or _is(part, bool) or _is(part, str) or _is(part, float) for part in parts
        ):
            return f"{_shown(name)} is {_shown(value)}"
    return None


def wrong_with_search(search: Mapping[str, Any]) -> str | None:
    """Why this cannot be search.json."""
    for key, kind in _SEARCH.items():
        if type(search.get(key)) is not kind:
            return f"{key} is {_shown(search.get(key))}"
    for key in ("in_fold", "importance"):
        if not isinstance(search.get(key, {}), dict):
            return f"{key} is {_shown(search[key])}"
    for key in ("ranges", "domains"):
        named = search.get(key, {})
        if not isinstance(named, dict) or named.keys() - search["space"].keys():
            return f"{key} is {_shown(named)}"
    for field, domain in search.get("domains", {}).items():
        if _wrong_with_domain(domain, search["space"]):
            return f"the domain of {_shown(field)} is {_shown(domain)}"
    for field in search["space"]:
        ends = search["ranges"].get(field)
        if "choices" in search.get("domains", {}).get(field, {}):
            if ends is not None:
                return f"the range of {_shown(field)} is {_shown(ends)}"
        elif not (
            isinstance(ends, list) and len(ends) == 2 and all(_is(end, float) for end in ends)
        ):
            return f"the range of {_shown(field)} is {_shown(ends)}"
    evaluation = search.get("evaluation", {})
    if not isinstance(evaluation, dict) or any(
        value not in EVALUATION.get(name, ()) for name, value in evaluation.items()
    ):
        return f"evaluation is {_shown(evaluation)}"
    for cell in search["cells"]:
        if not (isinstance(cell, list) and len(cell) == 2 and all(type(n) is int for n in cell)):
            return f"a cell is {_shown(cell)}"
    for text in (*search["objectives"], *search["comparators"]):
        if not isinstance(text, str):
            return f"an objective or a comparator is {_shown(text)}"
    for one in search["configurations"]:
        wrong = _wrong_with_configuration(one, search)
        if wrong is not None:
            return f"in a configuration, {wrong}"
    numbers = {one["number"] for one in search["configurations"]}
    chosen = [search.get("chosen"), *search.get("in_fold", {}).values()]
    if any(number is not None and number not in numbers for number in chosen):
        return "a configuration is chosen that is not there"
    return None


def _wrong_with_configuration(one: object, search: Mapping[str, Any]) -> str | None:
    if not isinstance(one, dict):
        return "there is no object"
    kinds = {
        "number": int,
        "values": dict,
        "loss": str,
        "loss_params": str,
        "state": str,
        "trials": dict,
    }
    for key, kind in kinds.items():
        if type(one.get(key)) is not kind:
            return f"{key} is {_shown(one.get(key))}"
    for cell, name in one["trials"].items():
        if not (cell.isdecimal() and int(cell) < len(search["cells"]) and is_plain(name)):
            return f"{_shown(name)} is no trial"
    stopped = one.get("stopped", {})
    if not isinstance(stopped, dict) or not all(
        cell in one["trials"] and _is(epoch, int) for cell, epoch in stopped.items()
    ):
        return f"stopped is {_shown(stopped)}"
    scores = (one.get("score") or {}).values()
    if not all(_is(number, float) for number in scores) or not _is_in_space(one["values"], search):
        return "its values or scores are no numbers of the space"
    return None


def _is_in_space(values: Mapping[str, Any], search: Mapping[str, Any]) -> bool:
    """Whether a configuration has a value of each field that is searched there, and no other."""
    domains = search.get("domains", {})
    for field in search["space"]:
        domain = domains.get(field, {})
        only = domain.get("only")
        if (field in values) != (only is None or values.get(only["field"]) in only["values"]):
            return False
        if field in values and not (
            values[field] in domain["choices"] if "choices" in domain else _is(values[field], float)
        ):
            return False
    return values.keys() <= search["space"].keys()


def _wrong_with_domain(domain: object, space: Mapping[str, Any]) -> bool:
    """Whether what `domains` says of a field cannot be."""
    if not isinstance(domain, dict) or domain.keys() - {"choices", "log", "whole", "only"}:
        return True
    choices, only = domain.get("choices", [0, 1]), domain.get("only")
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(_is_value, choices)):
        return True
    return only is not None and not (
        isinstance(only, dict)
        and only.keys() == {"field", "values"}
        and only["field"] in space
        and isinstance(only["values"], list)
        and all(map(_is_value, only["values"]))
    )


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, (bool, str)) or _is(value, float)


_SEARCH = {
    "cohort": str, "loss": str, "objectives": list, "space": dict, "ranges": dict, "cells": list,
    "configurations": list, "comparators": list, "planned": int, "exhausted": bool,
}  # fmt: skip
_WORDS = {list: "list", dict: "object", int: "whole number", str: "text"}

_ROW = {
    "name": str, "hash": str, "cohort": str, "loss": str, "loss_params": str, "seed": int,
    "fold": int, "epochs": int, "split": str, "trained_on": int, "settings": dict, "label": str,
}  # fmt: skip
_SOMETIMES = {"split", "trained_on", "settings", "label"}
"""Fields of a row that only some trials have."""
_CONFIG = {
    "cohort": str, "fingerprint": str, "loss": dict, "seed": int, "fold": int, "num_folds": int,
    "settings": dict, "test_cases": list, "validation_cases": list,
    "training_cases": list,
}  # fmt: skip
_SUMMARY = {
    "epochs_done": int, "seconds": float, "host": str, "device": str, "precision": str,
    "threads": int, "versions": dict, "fingerprint": str, "attempts": int, "files": dict,
    "network": str, "parameters": int, "flops_per_patch": int,
}  # fmt: skip
_FAILURE = {
    "kind": str, "error": str, "traceback": str, "log": str, "host": str, "epoch": int,
    "batch": int, "attempts": int,
}  # fmt: skip


def _is(value: object, kind: type) -> bool:
    """Whether a JSON value is of a kind; a list here holds texts alone, and a number is one that a
    table holds: finite, and whole ones of 64 bits."""
    if kind is float:
        return type(value) in (int, float) and abs(cast(float, value)) <= sys.float_info.max
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind is list:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return type(value) is kind


def _shown(value: object) -> str:
    """A value that is not to be trusted, in a few printable characters."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
