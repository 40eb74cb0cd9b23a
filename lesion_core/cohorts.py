"""Where a cohort's images lie on disk: one frozen dataclass per folder layout.

A cohort is read from ``data/<name>/``.  Nothing is opened here but folders: `images` reads and
checks the voxels.  To add a layout, write a class with ``name``, ``channels`` and ``cases`` and
put it in `Cohort`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

WMH_DEPTH = 5
"""How deep below the cohort's folder a WMH case may lie (Amsterdam/GE3T/100 is 3)."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one subject."""

    id: str
    """Unique inside the cohort."""
    site: str
    """Scanner group; "" if the cohort has none."""
    channels: dict[str, Path]
    """Images by name, in the order in which the network sees them."""
    lesion: Path
    brain: Path | None
    """None: no mask was shipped."""
    has_other: bool = False
    """Whether the lesion mask may hold label 2, other pathology."""

    @property
    def files(self) -> list[Path]:
        """Every file that is there."""
        return [*self.channels.values(), self.lesion, *([self.brain] if self.brain else [])]


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(
            f"cohort name {name!r}; expected the name of a folder inside the data folder, made of "
            "letters, digits, '_', '-' and '.'"
        )


@dataclass(frozen=True, kw_only=True)
class Wmh2017:
    """WMH Segmentation Challenge 2017, official layout: T1 and FLAIR from three scanners.

    ``{site}/{id}/pre/{T1,FLAIR}.nii.gz`` and ``{id}/wmh.nii.gz`` (1 lesion, 2 other pathology);
    brain mask ``pre/brain.nii.gz`` or ``{id}/brain.nii.gz``.  The site is the path above the case
    folder (``Utrecht``, ``Amsterdam/GE3T``).  Data and terms of use: doi 10.34894/AECRSD.
    """

    name: ClassVar[str] = "wmh2017"
    channels: ClassVar[tuple[str, ...]] = ("t1", "flair")

    def cases(self, data: Path) -> list[Case]:
        return _wmh_cases(Path(data) / self.name)


@dataclass(frozen=True, kw_only=True)
class Lit:
    """Longitudinal MS, two FLAIR images per patient: ``patientNN/{channel,brain,lesion}.nii.gz``.

    The public Ljubljana cohort (open_ms_data, CC BY 4.0) in the layout that `lesion_core.prepare`
    writes; its lesion masks mark change in both directions, the paper's only new lesions.
    """

    name: ClassVar[str] = "lit"
    channels: ClassVar[tuple[str, ...]] = ("baseline_flair", "followup_flair")

    def cases(self, data: Path) -> list[Case]:
        return _flat_cases(Path(data) / self.name, self.channels)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Anyone's data: ``<name>/<case>/{channel...,brain,lesion}.nii.gz``."""

    name: str
    """Folder below the data folder, and label in every result."""
    channels: tuple[str, ...]
    """File names without ending, in the order in which the network shall see them."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not self.channels:
            raise ValueError(f"cohort {self.name!r}: name at least one channel, such as t1 flair")
        for channel in self.channels:
            if channel in ("brain", "lesion") or not re.fullmatch(r"[\w.+-]+", channel):
                raise ValueError(
                    f"cohort {self.name!r}: channel {channel!r} cannot be used; expected a file "
                    "name without folder and ending, other than brain and lesion, such as flair"
                )
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(
                f"cohort {self.name!r}: channels {', '.join(self.channels)}; name each one once"
            )

    def cases(self, data: Path) -> list[Case]:
        return _flat_cases(Path(data) / self.name, self.channels)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Simulated brains, made on first use and kept in one of the real layouts.

    `simulated.json` beside them says how they were made; a folder that was made with other
    parameters is refused, so results never mix two simulations under one name.
    """

    name: str = "simulated"
    """Folder below the data folder, and label in every result."""
    kind: Literal["wmh", "lit"] = "wmh"
    """Whose contrast, lesion load and layout: wmh (wmh2017, three sites) or lit."""
    num_cases: int = 20
    seed: int = 0
    voxel_scale: float = 1.0
    """Voxel side relative to the real cohort's: 2 gives an eighth of the voxels."""

    PARAMETERS: ClassVar[str] = "simulated.json"

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in ("wmh", "lit"):
            raise ValueError(f"kind {self.kind!r} of a simulated cohort; expected wmh or lit")
        if self.num_cases < 1:
            raise ValueError(f"{self.num_cases} simulated cases; expected at least 1")
        if not 0 < self.voxel_scale < float("inf"):
            raise ValueError(f"voxel_scale {self.voxel_scale}; expected a positive number")

    @property
    def channels(self) -> tuple[str, ...]:
        return Wmh2017.channels if self.kind == "wmh" else Lit.channels

    def cases(self, data: Path) -> list[Case]:
        """Makes the images if they are not there yet; either all of them appear or none."""
        folder = Path(data) / self.name
        if not folder.exists():
            self._make(folder)
        self._check_parameters(folder)
        return _wmh_cases(folder) if self.kind == "wmh" else _flat_cases(folder, self.channels)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def _make(self, folder: Path) -> None:
        from lesion_core.simulate import write_cohort  # reading real data needs no simulator

        with _readable(folder.parent, "written"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{self.name}."))
        try:
            write_cohort(temporary, **self._parameters)
            (temporary / self.PARAMETERS).write_text(json.dumps(self._parameters, indent=1) + "\n")
            temporary.chmod(0o755)  # mkdtemp makes it private
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another process was faster: take its images
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _check_parameters(self, folder: Path) -> None:
        file = folder / self.PARAMETERS
        try:
            found = json.loads(file.read_text())
        except FileNotFoundError:
            raise ValueError(
                f"{file}: missing, so {folder} holds no simulated cohort; move that folder away "
                "or use another data folder"
            ) from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read ({error})") from None
        asked = self._parameters
        found = found if isinstance(found, dict) else {}
        differing = [key for key in asked if found.get(key) != asked[key]]
        if differing:
            made = ", ".join(f"{key}={found.get(key)}" for key in differing)
            now = ", ".join(f"{key}={asked[key]}" for key in differing)
            raise ValueError(
                f"{file}: the images were made with {made}, asked for is {now}; delete {folder} "
                "to have them made anew, or use another data folder"
            )


Cohort = Wmh2017 | Lit | Folder | Simulated

COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        Wmh2017(),
        Lit(),
        Simulated(),
        Simulated(name="simulated_lit", kind="lit", num_cases=17),
    )
}
"""The cohorts with a name of their own; any other name is a `Folder`."""


def cohort_named(name: str, channels: Sequence[str] = ()) -> Cohort:
    """A built-in cohort, or else the folder of that name with these channels.

    Raises:
        ValueError: an unknown name without channels, or channels that a built-in cohort lacks.
    """
    built_in = COHORTS.get(name)
    if built_in is None and channels:
        return Folder(name=name, channels=tuple(channels))
    if built_in is None:
        close = difflib.get_close_matches(name, COHORTS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"unknown cohort {name!r}; expected one of {', '.join(COHORTS)}, or any folder of "
            f"cases together with the names of its channels{hint}"
        )
    if channels and tuple(channels) != built_in.channels:
        raise ValueError(
            f"cohort {name!r} has the channels {' '.join(built_in.channels)}, not "
            f"{' '.join(channels)}; leave them out, or give the folder another name"
        )
    return built_in


def cohorts_found(data: Path) -> list[str]:
    """The real built-in cohorts that lie in the data folder."""
    return [
        cohort.name
        for cohort in (Wmh2017(), Lit())
        if (Path(data) / cohort.name).is_dir() and _subfolders(Path(data) / cohort.name)
    ]


def cohort_to_dict(cohort: Cohort) -> dict:
    """The cohort as plain JSON: ``{"type": "Folder", "fields": {...}}``."""
    fields = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(cohort).items()}
    return {"type": type(cohort).__name__, "fields": fields}


def cohort_from_dict(content: Mapping) -> Cohort:
    """Inverse of `cohort_to_dict`.

    Raises:
        ValueError: an unknown type or field.
    """
    types = {layout.__name__: layout for layout in get_args(Cohort)}
    if content.get("type") not in types:
        raise ValueError(
            f"unknown cohort type {content.get('type')!r}; expected one of {', '.join(types)}"
        )
    fields = {
        key: tuple(v) if isinstance(v, list) else v for key, v in content.get("fields", {}).items()
    }
    try:
        return types[content["type"]](**fields)
    except TypeError as error:
        raise ValueError(f"cohort {dict(content)}: {error}") from None


def natural_key(text: str) -> tuple:
    """Sorts numbers inside names by value.

    >>> sorted(["patient10", "patient2", "a"], key=natural_key)
    ['a', 'patient2', 'patient10']
    """
    parts = re.split(r"(\d+)", text.casefold())  # text, digits, text, ...
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text


# -------------------------------------------------------------------------------------- layouts
def _flat_cases(root: Path, channels: Sequence[str]) -> list[Case]:
    """Every folder below the root is a case that holds its files directly."""
    names = [*channels, "brain", "lesion"]
    cases = [
        Case(
            id=folder.name,
            site="",
            channels={channel: _required(folder, channel) for channel in channels},
            lesion=_required(folder, "lesion"),
            brain=_optional(folder, "brain"),
        )
        for folder in _case_root(root, f"one folder per case, each with {', '.join(names)}.nii.gz")
    ]
    return sorted(cases, key=lambda case: natural_key(case.id))


def _wmh_cases(root: Path) -> list[Case]:
    layout = "SITE/ID/pre/{T1,FLAIR,brain}.nii.gz and SITE/ID/wmh.nii.gz"
    _case_root(root, layout)
    cases: dict[str, Case] = {}
    for folder in _wmh_folders(root, WMH_DEPTH):
        earlier = cases.get(folder.name)
        if earlier is not None:
            raise ValueError(
                f"{folder}: case {folder.name} is there a second time, first in "
                f"{earlier.lesion.parent}; give every case a number of its own"
            )
        brains = [mask for place in (folder / "pre", folder) if (mask := _optional(place, "brain"))]
        if len(brains) == 2:
            raise ValueError(f"{brains[0]}: {brains[1]} is there as well; keep one of the two")
        site = folder.parent.relative_to(root).as_posix()
        cases[folder.name] = Case(
            id=folder.name,
            site="" if site == "." else site,
            channels={
                channel: _required(folder / "pre", channel.upper()) for channel in Wmh2017.channels
            },
            lesion=_required(folder, "wmh"),
            brain=brains[0] if brains else None,
            has_other=True,
        )
    if not cases:
        raise ValueError(f"{root}: no case found; expected {layout}")
    return sorted(cases.values(), key=lambda case: natural_key(case.id))


def _wmh_folders(folder: Path, depth: int) -> Iterator[Path]:
    for inner in _subfolders(folder):
        if _optional(inner, "wmh") or (inner / "pre").is_dir():
            yield inner
        elif depth > 1:
            yield from _wmh_folders(inner, depth - 1)


def _case_root(root: Path, layout: str) -> list[Path]:
    """The folders in a cohort's folder.

    Raises:
        ValueError: there is no such folder, or nothing in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected {layout}")
    folders = _subfolders(root)
    if not folders:
        raise ValueError(f"{root}: no case found; expected {layout}")
    return folders


def _subfolders(folder: Path) -> list[Path]:
    """Folders inside a folder in natural order, without hidden ones and what macOS archives add."""
    with _readable(folder):
        inner = [
            path
            for path in folder.iterdir()
            if not path.name.startswith((".", "__MACOSX")) and path.is_dir()
        ]
    return sorted(inner, key=lambda path: natural_key(path.name))


def _optional(folder: Path, stem: str) -> Path | None:
    with _readable(folder):
        found = [
            folder / (stem + end) for end in (".nii.gz", ".nii") if (folder / (stem + end)).exists()
        ]
    if len(found) == 2:
        raise ValueError(f"{found[0]}: {found[1].name} is there as well; keep one of the two")
    return found[0] if found else None


def _required(folder: Path, stem: str) -> Path:
    path = _optional(folder, stem)
    if path is None:
        raise ValueError(f"{folder / (stem + '.nii.gz')}: missing (nor is there {stem}.nii)")
    return path


@contextlib.contextmanager
def _readable(path: Path, verb: str = "read") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be {verb} ({error.strerror or error})") from None
