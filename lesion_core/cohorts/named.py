"""Cohorts by name: the list of layouts, and cohorts from what a user writes or JSON holds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

from lesion_core.cohorts.bids import USUAL, Bids
from lesion_core.cohorts.case import Case, Dataset
from lesion_core.cohorts.files import MASKS, check_name, subfolders
from lesion_core.cohorts.folder import Folder
from lesion_core.cohorts.lit import Lit
from lesion_core.cohorts.nnunet import NnUnet
from lesion_core.cohorts.prepared import PREPARED, prepared
from lesion_core.cohorts.simulated import Simulated
from lesion_core.cohorts.spacing import spacing_asked
from lesion_core.cohorts.wmh2017 import Wmh2017
from lesion_core.paths import close_to, existing_folder, is_folder, readable

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

FIELD = re.compile(r"\w[\w.+-]*")
"""A text in a stored definition of a cohort, other than a label."""


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
        "spacing": spacing_asked(spacing),
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
    name = name.rstrip("/") or name  # as shells complete the names of folders
    if ":" in name:
        return _dataset_named(name, channels, data)
    built_in = COHORTS.get(name)
    if built_in is None and data is not None and re.fullmatch(r"[\w.-]+", name):
        root = Path(data) / name
        dataset = next((layout for layout in DATASETS if layout.recognises(root)), None)
        if dataset is not None:
            built_in = dataset.of(data, name, channels, "mask")
    if built_in is None and channels:
        return Folder(name=name, channels=tuple(channels))
    if built_in is None:
        raise ValueError(_unknown(name, data))
    return _with_channels(name, built_in, channels)


def _dataset_named(name: str, channels: Sequence[str], data: Path | None) -> Cohort:
    """The dataset that ``prefix:FOLDER`` or ``prefix:FOLDER:nonzero`` means."""
    prefix, folder, *rules = name.split(":")
    layouts = {layout.prefix: layout for layout in DATASETS}
    folder = folder.rstrip("/")
    if prefix not in layouts:
        near = close_to(prefix, layouts)
        hint = f"; did you mean {near}:{folder}?" if near else ""
        raise ValueError(
            f"cohort {name!r}: {prefix!r} before the colon; expected {dataset_spellings()}{hint}"
        )
    if rules not in ([], ["nonzero"]):
        raise ValueError(
            f"cohort {name!r}: {':'.join(rules)!r} after the name; expected nonzero or none"
        )
    if data is None:
        raise ValueError(f"cohort {name!r}: expected the data folder that holds {folder}")
    layout = layouts[prefix]
    if not folder:
        alike = [place.name for place in _folders(data) if layout.recognises(place)]
        there = f"; there: {' '.join(f'{prefix}:{other}' for other in alike)}" if alike else ""
        raise ValueError(
            f"cohort {name!r}: expected the name of a folder in {data} behind the colon{there}"
        )
    root = Path(data) / folder
    looks = next((other.prefix for other in DATASETS if other.recognises(root)), prefix)
    if looks != prefix and not layout.recognises(root):
        raise ValueError(f"{root}: is no {prefix} dataset; did you mean {looks}:{folder}?")
    brain = "nonzero" if rules else "mask"
    return _with_channels(name, layout.of(data, folder, channels, brain), channels)


def _with_channels(name: str, cohort: Cohort, channels: Sequence[str]) -> Cohort:
    if channels and tuple(channels) != cohort.channels:
        raise ValueError(
            f"cohort {name!r} has the channels {' '.join(cohort.channels)}, not "
            f"{' '.join(channels)}; leave them out, or give the folder another name"
        )
    return cohort


def _unknown(name: str, data: Path | None) -> str:
    """That a name is no cohort's by itself, and what it could be."""
    if data is not None and re.fullmatch(r"[\w.-]+", name):
        existing_folder(Path(data), f"the data folder, which holds the folder {name}")
        root = Path(data) / name
        if is_folder(root):
            first = next((place for place in subfolders(root) if _images(place)), None)
            found = " ".join(
                image for image in _images(first) if image not in MASKS
            ) if first else ""  # fmt: skip
            there = f" ({first} has {found})" if found else ""
            return (
                f"cohort {name!r} is a folder: name its images with --channels, such as "
                f"--channels {found or 't1 flair'}{there}"
            )
    elif Path(name).is_dir():
        check_name(name)
    near = close_to(name, [*COHORTS, *(place.name for place in _folders(data))])
    hint = f"; did you mean {near}?" if near else ""
    return (
        f"unknown cohort {name!r}; expected one of {', '.join(COHORTS)}, {dataset_spellings()}, "
        f"or any folder of cases together with the names of its channels{hint}"
    )


def _folders(data: Path | None) -> list[Path]:
    return subfolders(Path(data)) if data is not None and is_folder(Path(data)) else []


def _images(folder: Path) -> list[str]:
    """The names of the images in a folder, without ending."""
    with readable(folder):
        names = sorted(path.name for path in folder.iterdir())
    return [name.partition(".nii")[0] for name in names if name.endswith((".nii", ".nii.gz"))]


def dataset_spellings() -> str:
    """How datasets that are recognised by their files are asked for: nnunet:FOLDER, bids:FOLDER."""
    return ", ".join(f"{layout.prefix}:FOLDER" for layout in DATASETS)


def cohorts_found(data: Path) -> list[str]:
    """The real built-in cohorts that lie in the data folder.

    Raises:
        ValueError: there are none, or no such folder; with what there is instead.
    """
    public = [cohort.name for cohort in PUBLIC]
    existing_folder(data, f"the data folder, which holds {', '.join(public)} or cohorts of yours")
    folders = _folders(data)
    found = [name for name in public if data / name in folders and subfolders(data / name)]
    if found:
        return found
    itself = next((layout.prefix for layout in DATASETS if layout.recognises(data)), "")
    place = data.absolute()
    if itself or place.name in public or any("lesion" in _images(folder) for folder in folders):
        name = f"{itself}:{place.name}" if itself else place.name
        hint = f"; it looks like a cohort itself: --data {data.parent} --cohorts {name}"
    else:
        prefixes = {
            folder: next((layout.prefix for layout in DATASETS if layout.recognises(folder)), "")
            for folder in folders
        }
        spelled = [f"{p}:{f.name}" if p else f.name for f, p in prefixes.items()]
        there = f"; there: {', '.join(spelled[:8])}" if spelled else ""
        hint = f"; name yours with --cohorts, such as {dataset_spellings()}, or a folder with "
        hint += f"--channels{there}"
    raise ValueError(f"{data}: no cohort found (looked for {' and '.join(public)}){hint}")


def brain_methods(cohort: Cohort, data: Path, cases: Sequence[Case]) -> dict[str, str]:
    """How each case came to its brain: shipped, nonzero, a derived mask's method, or missing."""
    root = Path(data) / cohort.name
    derived = prepared(root).get("brain", {})
    if not isinstance(derived, dict):
        raise ValueError(f"{root / PREPARED}: cannot be read (brain is no object)")
    return {
        case.id: "nonzero"
        if case.nonzero_brain
        else "missing"
        if case.brain is None
        else derived.get(case.id, "shipped")
        if case.brain == cohort.brain_place(data, case)
        else "shipped"
        for case in cases
    }


def brain_cure(cohort: Cohort, data: Path) -> str:
    """What a user can do about a case without a brain mask: the whole command, to be copied."""
    dataset = isinstance(cohort, Dataset)
    name = f"{cohort.prefix}:{cohort.name}" if dataset else cohort.name
    words = [name, str(data)]
    if isinstance(cohort, Folder) or (isinstance(cohort, Bids) and cohort.channels != USUAL):
        words += ["--channels", *cohort.channels]
    for item in fields(cohort):
        value = getattr(cohort, item.name)
        if item.metadata.get("choice") and value != item.default and item.name != "spacing":
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{item.name.replace('_', '-')}", *values]
    command = f"make one with `python -m lesion_core.prepare brains {shlex.join(words)}`"
    if dataset and cohort.brain == "mask":
        return f"{command}, or ask for {name}:nonzero if the images are skull-stripped"
    return command


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
        named = key != "channels" or all(isinstance(text, str) for text in texts)
        if key != "lesion_label" and (odd or isinstance(value, dict) or not named):
            raise ValueError(f"cohort {content['type']}: {key} is {value!a:.60}; expected a name")
    try:
        cohort = types[content["type"]](**values)
        check_name(cohort.name)
        return cohort
    except TypeError as error:
        raise ValueError(f"cohort {content['type']}: {error}") from None
