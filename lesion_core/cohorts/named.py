"""Cohorts by name: the list of layouts, and cohorts from what a user writes or JSON holds."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

from lesion_core.cohorts.bids import Bids
from lesion_core.cohorts.case import Case, Dataset
from lesion_core.cohorts.files import check_name, subfolders
from lesion_core.cohorts.folder import Folder
from lesion_core.cohorts.lit import Lit
from lesion_core.cohorts.nnunet import NnUnet
from lesion_core.cohorts.simulated import Simulated
from lesion_core.cohorts.wmh2017 import Wmh2017

Cohort = Wmh2017 | Lit | Folder | NnUnet | Bids | Simulated
"""Every layout there is; a new one is added here, and to `COHORTS` what has a name of its own."""

LAYOUTS: tuple[type[Cohort], ...] = get_args(Cohort)

DATASETS = [layout for layout in LAYOUTS if issubclass(layout, Dataset)]
"""The layouts that are asked for as ``prefix:FOLDER``."""

PUBLIC = (Wmh2017(), Lit())
"""The cohorts of the paper that anyone can download."""

COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (*PUBLIC, Simulated(), Simulated(name="simulated_lit", kind="lit", num_cases=17))
}
"""The cohorts with a name of their own; any other name is a `Folder`."""

FIELD = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)
"""A text in a stored definition of a cohort, other than a label."""

PREPARED = "prepared.json"
"""Beside the cases: what `lesion_core.prepare` did to each."""


def cohort_named(
    name: str,
    channels: Sequence[str] = (),
    data: Path | None = None,
    *,
    lesion_label: Sequence[str] = (),
    derivatives: str = "",
    space: str = "",
    spacing: Sequence[str] = (),
) -> Cohort:
    """The cohort that a command line means (`reading.Reading` says what the choices are).

    A built-in name; ``nnunet:FOLDER`` or ``bids:FOLDER`` below the data folder, with ``:nonzero``
    behind it if the images are skull-stripped and have no brain masks; or a folder's name, which
    is an nnU-Net or BIDS dataset if it looks like one, else needs the names of its channels.

    Raises:
        ValueError: an unknown name without channels, channels that the cohort lacks, or a choice
            that it does not leave.
    """
    cohort = _cohort_named(name, channels, data)
    asked = {
        "lesion_label": tuple(lesion_label),
        "derivatives": derivatives,
        "space": space,
        "spacing": tuple(spacing),
    }
    asked = {key: value for key, value in asked.items() if value}
    known = {item.name for item in fields(cohort)}
    for key in asked.keys() - known:
        able = [layout.prefix for layout in DATASETS if key in {f.name for f in fields(layout)}]
        raise ValueError(
            f"cohort {name!r}: --{key.replace('_', '-')} is for {' and '.join(able)} datasets; "
            "leave it out"
        )
    return replace(cohort, **asked) if asked else cohort


def _cohort_named(name: str, channels: Sequence[str], data: Path | None) -> Cohort:
    prefixes = "|".join(layout.prefix for layout in DATASETS)
    built_in, dataset, folder, brain = COHORTS.get(name), None, name, "mask"
    if match := re.fullmatch(rf"({prefixes}):([^:]*)(?::(\w+))?", name):
        prefix, folder, rule = match.groups()
        if rule not in (None, "nonzero"):
            raise ValueError(f"cohort {name!r}: {rule!r} after the name; expected nonzero or none")
        if data is None:
            raise ValueError(f"cohort {name!r}: expected the data folder that holds {folder}")
        dataset = next(layout for layout in DATASETS if layout.prefix == prefix)
        brain = rule or "mask"
    elif built_in is None and data is not None:
        root = Path(data) / name
        dataset = next((layout for layout in DATASETS if layout.recognises(root)), None)
    if dataset is not None and data is not None:
        built_in = dataset.of(data, folder, channels, brain)
    if built_in is None and channels:
        return Folder(name=name, channels=tuple(channels))
    if built_in is None:
        close = difflib.get_close_matches(name, COHORTS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"unknown cohort {name!r}; expected one of {', '.join(COHORTS)}, "
            f"{dataset_spellings()}, or any folder of cases together with the names of its "
            f"channels{hint}"
        )
    if channels and tuple(channels) != built_in.channels:
        raise ValueError(
            f"cohort {name!r} has the channels {' '.join(built_in.channels)}, not "
            f"{' '.join(channels)}; leave them out, or give the folder another name"
        )
    return built_in


def dataset_spellings() -> str:
    """How datasets that are recognised by their files are asked for: nnunet:FOLDER, bids:FOLDER."""
    return ", ".join(f"{layout.prefix}:FOLDER" for layout in DATASETS)


def cohorts_found(data: Path) -> list[str]:
    """The real built-in cohorts that lie in the data folder."""
    return [
        cohort.name
        for cohort in PUBLIC
        if (Path(data) / cohort.name).is_dir() and subfolders(Path(data) / cohort.name)
    ]


def brain_methods(cohort: Cohort, data: Path, cases: Sequence[Case]) -> dict[str, str]:
    """How each case came to its brain: shipped, nonzero, a derived mask's method, or missing."""
    file = Path(data) / cohort.name / PREPARED
    try:
        derived = json.loads(file.read_text())["brain"] if file.exists() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    return {
        case.id: "nonzero"
        if case.nonzero_brain
        else "missing"
        if case.brain is None
        else derived.get(case.id, "shipped")
        for case in cases
    }


def cohort_to_dict(cohort: Cohort) -> dict[str, Any]:
    """The cohort as plain JSON: ``{"type": "Folder", "fields": {...}}``."""
    usual = {item.name: item.default for item in fields(cohort) if item.metadata.get("choice")}
    stored = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(cohort).items()}
    for key, default in usual.items():  # what nobody chose is not stored
        if getattr(cohort, key) == default:
            del stored[key]
    return {"type": type(cohort).__name__, "fields": stored}


def cohort_from_dict(content: Mapping[str, Any]) -> Cohort:
    """The cohort that `cohort_to_dict` described.

    Raises:
        ValueError: an unknown type or field.
    """
    types = {layout.__name__: layout for layout in LAYOUTS}
    if content.get("type") not in types:
        raise ValueError(
            f"unknown cohort type {content.get('type')!r}; expected one of {', '.join(types)}"
        )
    stored = content.get("fields", {})
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v
        for key, v in (stored.items() if isinstance(stored, dict) else ())
    }
    for key, value in values.items():  # they become parts of paths and patterns
        texts = value if isinstance(value, tuple) else (value,)
        odd = [t for t in texts if isinstance(t, str) and t and not FIELD.fullmatch(t)]
        if key != "lesion_label" and (odd or isinstance(value, dict)):
            raise ValueError(f"cohort {content['type']}: {key} is {value!a:.60}; expected a name")
    try:
        cohort = types[content["type"]](**values)
        check_name(cohort.name)
        if not all(isinstance(channel, str) for channel in cohort.channels):
            raise TypeError("channels are no names")
        return cohort
    except TypeError as error:
        raise ValueError(f"cohort {content['type']}: {error}") from None
