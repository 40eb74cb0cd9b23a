"""Where a cohort's images lie on disk: one frozen dataclass per folder layout.

A cohort is read from ``data/<name>/``.  Nothing is opened here but folders and small text files:
`images` reads and checks the voxels.  To add a layout, write a class with ``name``, ``channels``
and ``cases`` and put it in `Cohort`.

    python -m lesion_core.cohorts check DATA     every case checked, and Table 1
    python -m lesion_core.cohorts folds DATA     who is tested with whom
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


PREPARED = "prepared.json"
"""Beside the cases: what `lesion_core.prepare` did to each."""

BrainRule = Literal["mask", "nonzero"]
"""Where the brain is: in a mask file, or, for skull-stripped images, where any channel is not 0."""


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
    nonzero_brain: bool = False
    """The images are skull-stripped: the brain is where any channel is not 0, holes filled."""
    subject: str = ""
    """Who it is, if several cases can be of one person; such cases are never parted by a fold."""

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
        return wmh_cases(Path(data) / self.name)


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
class NnUnet:
    """A raw nnU-Net dataset: ``imagesTr/{case}_{0000}``, ``labelsTr/{case}``, ``dataset.json``.

    Label 1 is the lesion; a label 2 counts as other pathology.  Brain masks, which nnU-Net knows
    nothing of, are looked for in ``brainsTr/{case}.nii.gz``.
    """

    name: str
    """Folder below the data folder, such as Dataset001_MS, and label in every result."""
    channels: tuple[str, ...]
    """As dataset.json names them, in its order."""
    brain: BrainRule = "mask"
    """Where the brain is."""

    @staticmethod
    def of(data: Path, name: str, brain: BrainRule = "mask") -> NnUnet:
        """Reads the names of the channels.

        Raises:
            ValueError: dataset.json is missing or says what cannot be used.
        """
        _check_name(name)
        return NnUnet(name=name, channels=_nnunet_channels(Path(data) / name), brain=brain)

    def cases(self, data: Path) -> list[Case]:
        root = Path(data) / self.name
        if (found := _nnunet_channels(root)) != self.channels:
            raise ValueError(
                f"{root / 'dataset.json'}: channels {' '.join(found)}, expected "
                f"{' '.join(self.channels)}; the dataset has changed"
            )
        ending, has_other = _nnunet_format(root)
        with _readable(root / "labelsTr"):
            ids = sorted(_ids(root / "labelsTr", ending), key=natural_key)
        with _readable(root / "imagesTr"):
            stems = _ids(root / "imagesTr", ending)
        images = {stem.rpartition("_")[0] for stem in stems if re.search(r"_\d{4}$", stem)}
        if alone := sorted(images - set(ids), key=natural_key):
            raise ValueError(f"{root / 'labelsTr' / (alone[0] + ending)}: missing")
        if not ids:
            raise ValueError(f"{root / 'labelsTr'}: no case found; expected CASE{ending}")
        cases = []
        for case in ids:
            channels = {
                channel: root / "imagesTr" / f"{case}_{index:04d}{ending}"
                for index, channel in enumerate(self.channels)
            }
            for path in channels.values():
                _exists(path)
            extra = root / "imagesTr" / f"{case}_{len(channels):04d}{ending}"
            if extra.exists():
                raise ValueError(f"{extra}: dataset.json names only {len(channels)} channels")
            brain = _optional(root / "brainsTr", case) if self.brain == "mask" else None
            cases.append(
                Case(
                    id=case,
                    site="",
                    channels=channels,
                    lesion=_exists(root / "labelsTr" / f"{case}{ending}"),
                    brain=brain,
                    has_other=has_other,
                    nonzero_brain=self.brain == "nonzero",
                )
            )
        return cases


@dataclass(frozen=True, kw_only=True)
class Bids:
    """A BIDS dataset as it is: images in ``sub-*/[ses-*/]anat/*_{channel}``, masks in derivatives.

    The lesion mask is the one file ``derivatives/*/sub-*/[ses-*/]anat/*_{mask,dseg}`` whose
    ``desc`` or ``label`` entity speaks of lesions (lesion, WMH), or else the only one that does
    not speak of the brain; a ``dseg`` may hold label 2, other pathology.  The brain mask is one
    with ``desc-brain`` or ``label-brain``.  The site comes from a column of that name in
    participants.tsv.  Sessions of one subject stay in one fold.
    """

    name: str
    """Folder below the data folder, and label in every result."""
    channels: tuple[str, ...]
    """Suffixes, such as T1w and FLAIR, in the order in which the network shall see them."""
    brain: BrainRule = "mask"
    """Where the brain is."""

    @staticmethod
    def of(data: Path, name: str, channels: Sequence[str] = (), brain: BrainRule = "mask") -> Bids:
        """Takes T1w and FLAIR, whichever are there, unless told otherwise.

        Raises:
            ValueError: there is no such dataset, or it has none of the two.
        """
        _check_name(name)
        root = Path(data) / name
        places = [place for _, _, place in _bids_places(root)]
        found = tuple(channels) or tuple(
            suffix
            for suffix in ("T1w", "FLAIR")
            if any(_bids_images(place / "anat", suffix) for place in places)
        )
        if not found:
            raise ValueError(
                f"{root}: no sub-*/[ses-*/]anat/*_T1w.nii.gz or *_FLAIR.nii.gz; name the suffixes "
                "with --channels"
            )
        return Bids(name=name, channels=found, brain=brain)

    def cases(self, data: Path) -> list[Case]:
        root = Path(data) / self.name
        sites = _bids_sites(root)
        cases = []
        for subject, session, place in _bids_places(root):
            case = f"{subject}_{session}" if session else subject
            channels = {c: _bids_images(place / "anat", c) for c in self.channels}
            lesions, brains = _bids_masks(root, subject, session)
            if not any(channels.values()) and not lesions:
                continue  # a session of something else, functional for instance
            cases.append(
                Case(
                    id=case,
                    site=sites.get(subject, ""),
                    channels={
                        c: _only(paths, place / "anat" / f"{case}_{c}.nii.gz")
                        for c, paths in channels.items()
                    },
                    lesion=_only(
                        lesions,
                        root
                        / f"derivatives/*/{subject}/{session}/anat/".replace("//", "/")
                        / f"{case}_label-lesion_mask.nii.gz",
                    ),
                    brain=_only(brains, Path()) if brains and self.brain == "mask" else None,
                    has_other=bool(lesions) and lesions[0].name.split(".")[0].endswith("_dseg"),
                    nonzero_brain=self.brain == "nonzero",
                    subject=subject,
                )
            )
        if not cases:
            raise ValueError(
                f"{root}: no case found; expected sub-*/[ses-*/]anat/*_{self.channels[0]}.nii.gz"
            )
        return cases


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
    """In-plane voxel side relative to the real cohort's; thinner slices grow to it."""

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
        return wmh_cases(folder) if self.kind == "wmh" else _flat_cases(folder, self.channels)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def _make(self, folder: Path) -> None:
        from lesion_core.cohorts.simulate import (
            write_cohort,  # reading real data needs no simulator
        )

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


Cohort = Wmh2017 | Lit | Folder | NnUnet | Bids | Simulated

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


def cohort_named(name: str, channels: Sequence[str] = (), data: Path | None = None) -> Cohort:
    """The cohort that a command line means.

    A built-in name; ``nnunet:FOLDER`` or ``bids:FOLDER`` below the data folder, with ``:nonzero``
    behind it if the images are skull-stripped and have no brain masks; or a folder's name, which
    is an nnU-Net or BIDS dataset if it looks like one, else needs the names of its channels.

    Raises:
        ValueError: an unknown name without channels, or channels that the cohort lacks.
    """
    layout, brain, folder = "", "mask", name
    if match := re.fullmatch(r"(nnunet|bids):([^:]*)(?::(\w+))?", name):
        layout, folder, rule = match.groups()
        if rule not in (None, "nonzero"):
            raise ValueError(f"cohort {name!r}: {rule!r} after the name; expected nonzero or none")
        brain = rule or "mask"
    built_in = COHORTS.get(name)
    if built_in is None and not layout and data is not None:
        layout = _layout_of(Path(data) / folder)
    if layout and data is None:
        raise ValueError(f"cohort {name!r}: expected the data folder that holds {folder}")
    if layout == "bids" and data is not None:
        return Bids.of(data, folder, channels, brain)
    if layout == "nnunet" and data is not None:
        built_in = NnUnet.of(data, folder, brain)
    if built_in is None and channels:
        return Folder(name=name, channels=tuple(channels))
    if built_in is None:
        close = difflib.get_close_matches(name, COHORTS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"unknown cohort {name!r}; expected one of {', '.join(COHORTS)}, nnunet:FOLDER, "
            "bids:FOLDER, or any folder of cases together with the names of its channels"
            f"{hint}"
        )
    if channels and tuple(channels) != built_in.channels:
        raise ValueError(
            f"cohort {name!r} has the channels {' '.join(built_in.channels)}, not "
            f"{' '.join(channels)}; leave them out, or give the folder another name"
        )
    return built_in


def _layout_of(root: Path) -> Literal["", "nnunet", "bids"]:
    if (root / "dataset.json").is_file() and (root / "labelsTr").is_dir():
        return "nnunet"
    if (root / "dataset_description.json").is_file():
        return "bids"
    return ""


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


def place_for_brain(cohort: Cohort, case: Case, data: Path) -> Path:
    """Where the cohort's layout looks for a mask that the case lacks."""
    root = Path(data) / cohort.name
    if isinstance(cohort, NnUnet):
        return root / "brainsTr" / f"{case.id}.nii.gz"
    if isinstance(cohort, Bids):
        inside = Path(*case.id.split("_")) / "anat" / f"{case.id}_desc-brain_mask.nii.gz"
        return root / "derivatives" / "brain-masks" / inside
    folder = case.lesion.parent
    return (folder / "pre" if (folder / "pre").is_dir() else folder) / "brain.nii.gz"


def cohorts_found(data: Path) -> list[str]:
    """The real built-in cohorts that lie in the data folder."""
    return [
        cohort.name
        for cohort in (Wmh2017(), Lit())
        if (Path(data) / cohort.name).is_dir() and _subfolders(Path(data) / cohort.name)
    ]


def cohort_to_dict(cohort: Cohort) -> dict[str, Any]:
    """The cohort as plain JSON: ``{"type": "Folder", "fields": {...}}``."""
    fields = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(cohort).items()}
    return {"type": type(cohort).__name__, "fields": fields}


def cohort_from_dict(content: Mapping[str, Any]) -> Cohort:
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


def natural_key(text: str) -> tuple[list[int | str], str]:
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


def wmh_cases(root: Path) -> list[Case]:
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


def _nnunet_json(root: Path) -> dict[str, Any]:
    file = root / "dataset.json"
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected imagesTr, labelsTr and dataset.json")
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file}: missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    if not isinstance(content, dict) or "dataset" in content:
        raise ValueError(
            f"{file}: lists its files itself; expected imagesTr and labelsTr beside it"
        )
    return content


def _nnunet_channels(root: Path) -> tuple[str, ...]:
    content = _nnunet_json(root)
    named: Any = content.get("channel_names", content.get("modality"))  # nnU-Net 1 said modality
    try:
        names = [str(named[str(index)]) for index in range(len(named))]
    except (TypeError, KeyError):
        names = []
    if not names:
        raise ValueError(
            f'{root / "dataset.json"}: expected "channel_names" numbered from "0", such as '
            '{"0": "T1", "1": "FLAIR"}'
        )
    names = [re.sub(r"\W+", "_", name).strip("_") or "channel" for name in names]
    return tuple(
        f"{name}_{index}" if names.count(name) > 1 else name for index, name in enumerate(names)
    )


def _nnunet_format(root: Path) -> tuple[str, bool]:
    """The ending of its files, and whether there is a label 2."""
    content, file = _nnunet_json(root), root / "dataset.json"
    ending = content.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise ValueError(f"{file}: file_ending {ending!r}; expected .nii.gz or .nii")
    labels: Any = content.get("labels")
    try:
        values = {
            int(number if str(number).isdigit() else name)
            for name, number in labels.items()  # nnU-Net 1 has them the other way round
        }
    except (AttributeError, TypeError, ValueError):
        values = set()
    if values not in ({0, 1}, {0, 1, 2}):
        raise ValueError(
            f"{file}: labels {labels}; expected 0 (background), 1 (lesion) and at most 2 (other "
            "pathology, which is masked out)"
        )
    return ending, 2 in values


def _ids(folder: Path, ending: str) -> list[str]:
    return [
        path.name.removesuffix(ending)
        for path in folder.iterdir()
        if path.name.endswith(ending) and not path.name.startswith(".")
    ]


def _bids_places(root: Path) -> list[tuple[str, str, Path]]:
    """(subject, session or "", folder) of every session, in natural order."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected sub-*/[ses-*/]anat")
    places = []
    for subject in _subfolders(root):
        if subject.name.startswith("sub-"):
            sessions = [ses for ses in _subfolders(subject) if ses.name.startswith("ses-")]
            places += [(subject.name, ses.name, ses) for ses in sessions]
            if not sessions:
                places.append((subject.name, "", subject))
    return places


def _bids_images(anat: Path, suffix: str) -> list[Path]:
    if not anat.is_dir():
        return []
    with _readable(anat):
        return sorted(
            p for p in anat.iterdir() if re.fullmatch(rf".+_{suffix}\.nii(\.gz)?", p.name)
        )


def _bids_masks(root: Path, subject: str, session: str) -> tuple[list[Path], list[Path]]:
    """What may be the lesion mask, and the brain mask."""
    lesions, others, brains = [], [], []
    pattern = f"{subject}/{session}/anat" if session else f"{subject}/anat"
    for anat in sorted((root / "derivatives").glob(f"*/{pattern}")):
        with _readable(anat):
            files = sorted(anat.iterdir())
        for path in files:
            if not re.fullmatch(r".+_(mask|dseg)\.nii(\.gz)?", path.name):
                continue
            entities = dict(p.split("-", 1) for p in path.name.split("_") if "-" in p)
            meaning = f"{entities.get('desc', '')} {entities.get('label', '')}".lower()
            if "brain" in meaning:
                brains.append(path)
            elif "lesion" in meaning or "wmh" in meaning:
                lesions.append(path)
            else:
                others.append(path)
    return lesions or others, brains


def _bids_sites(root: Path) -> dict[str, str]:
    """Site by subject."""
    file = root / "participants.tsv"
    if not file.exists():
        return {}
    try:
        rows = [line.split("\t") for line in file.read_text().splitlines() if line.strip()]
        header = [name.strip().lower() for name in rows[0]]
        subject, site = header.index("participant_id"), header.index("site")
        return {row[subject].strip(): row[site].strip() for row in rows[1:]}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    except IndexError:
        raise ValueError(f"{file}: a line has fewer columns than the header") from None
    except ValueError:  # no such column
        return {}


def _only(paths: list[Path], expected: Path) -> Path:
    if not paths:
        raise ValueError(f"{expected}: missing")
    if len(paths) > 1:
        raise ValueError(f"{paths[0]}: {paths[1].name} is there as well; keep one of the two")
    return _exists(paths[0])


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


def _exists(path: Path) -> Path:
    with _readable(path):
        if path.exists():
            return path
    if path.is_symlink():
        raise ValueError(f"{path}: a link to {path.readlink()}, which is not there")
    raise ValueError(f"{path}: missing")


def _required(folder: Path, stem: str) -> Path:
    path = _optional(folder, stem)
    if path is None:
        for end in (".nii.gz", ".nii"):
            if (folder / (stem + end)).is_symlink():
                _exists(folder / (stem + end))
        raise ValueError(f"{folder / (stem + '.nii.gz')}: missing (nor is there {stem}.nii)")
    return path


@contextlib.contextmanager
def _readable(path: Path, verb: str = "read") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be {verb} ({error.strerror or error})") from None
