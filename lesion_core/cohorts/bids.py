"""The layout of a BIDS dataset: which of its files are the images and masks of a session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lesion_core.cohorts.bids_names import (
    MASKS,
    NATIVE,
    BidsFile,
    entities_asked,
    fits,
    telling_apart,
)
from lesion_core.cohorts.case import BrainRule, Case, Dataset, Unlabelled, choice
from lesion_core.cohorts.files import check_name, subfolders
from lesion_core.cohorts.labels import LESION, Labels, dseg_labels, numbered
from lesion_core.cohorts.tables import Table, read_table
from lesion_core.paths import (
    close_to,
    existing,
    existing_folder,
    is_file,
    is_folder,
    is_there,
    readable,
)

USUAL = ("T1w", "FLAIR")
"""The channels of a dataset that has both, unless others are named."""

PREPARED_BRAINS = "brain-masks"
"""The folder below derivatives/ for masks that `lesion_core.prepare` makes."""


@dataclass(frozen=True, kw_only=True)
class Bids(Dataset):
    """A BIDS dataset as it is: images in ``sub-*/[ses-*/]anat/*_{channel}``, masks in derivatives.

    A lesion mask is a file ``derivatives/*/sub-*/[ses-*/]anat/*_{mask,dseg,roi}`` whose ``label``
    or ``desc`` speaks of lesions (lesion, L, WMH, tumour, stroke, ...; `labels.names_lesion`).
    Where the whole dataset has none, a mask whose name says nothing is taken.  One of brain or
    tissue never is.  All come from one folder and have one form of name, or the dataset is refused.
    The labels of a ``dseg`` are those of its lookup table ``*dseg.tsv``, or 1 and 2, other
    pathology.

    The brain mask is one with ``desc-brain`` or ``label-brain``, that of ignored voxels one with
    ``desc-ignore`` or ``label-ignore``.  The site comes from a column of
    that name in participants.tsv.  Sessions of one subject stay in one fold.
    """

    prefix: ClassVar[str] = "bids"

    name: str
    """Folder below the data folder, and label in every result."""
    channels: tuple[str, ...]
    """Suffixes, such as T1w and FLAIR, in the order in which the network shall see them; with
    entities if there are several such images: acq-3D_FLAIR, or acq-_FLAIR for one without acq."""
    brain: BrainRule = "mask"
    """Where the brain is."""
    derivatives: str = choice("")
    """The folder below derivatives/ that has the lesion masks, with entities if it has several
    (experts/desc-rater1), and behind a comma those of brain masks and of images in a space, if
    several have them (experts,bet); empty: wherever they are."""
    space: str = choice("")
    """The ``space`` entity of images and masks; empty: the raw images and masks on their grid."""

    def __post_init__(self) -> None:
        for channel in self.channels:
            if entities_asked(channel.rpartition("_")[0]) is None or not re.fullmatch(
                r"[A-Za-z0-9]+", _suffix(channel)
            ):
                raise ValueError(
                    f"cohort {self.name!r}: channel {channel!r}; expected a suffix, such as FLAIR, "
                    "or one with entities, such as acq-3D_FLAIR"
                )
            if "space" in _entities(channel):
                raise ValueError(
                    f"cohort {self.name!r}: channel {channel!r}; ask for a space with --space "
                    f"{_entities(channel)['space']}"
                )
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(
                f"cohort {self.name!r}: channels {' '.join(self.channels)}; name each one once"
            )

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether the files are there by which such a dataset is known."""
        return is_file(root / "dataset_description.json")

    @classmethod
    def of(
        cls, data: Path, name: str, channels: Sequence[str] = (), brain: BrainRule = "mask"
    ) -> Bids:
        """The dataset in this folder: of T1w and FLAIR, if there, unless other channels are named.

        Raises:
            ValueError: there is no such dataset, or it has none of the two.
        """
        check_name(name)
        found = tuple(channels)
        if not found:
            usual = Bids(name=name, channels=USUAL)
            dataset = _Dataset.of(Path(data) / name)
            raw = {file.suffix for session in dataset.sessions for file in session.raw}
            derived = {file.suffix for session in dataset.sessions for file in session.derived}
            found = tuple(
                channel for channel in usual.channels if channel in (raw - {*MASKS} or derived)
            )
            if not found:
                raise ValueError(usual._no_image(dataset, "T1w", "or FLAIR"))
        return Bids(name=name, channels=found, brain=brain)

    def cases(self, data: Path) -> list[Case]:
        """Every session of every subject that has one of the images, or a lesion mask."""
        dataset = _Dataset.of(Path(data) / self.name, self.derivatives)
        images = {channel: self._images(dataset, channel) for channel in self.channels}
        lesions = self._lesions(dataset)
        brains = self._brains(dataset) if self.brain == "mask" else {}
        ignored = self._ignored(dataset)
        people = _People.of(dataset)
        cases = []
        for number, session in enumerate(dataset.sessions):
            if not self._is_case(session) and session.id not in lesions:
                continue  # a session of something else, functional for instance
            lesion = lesions.get(session.id)
            if lesion is None:
                raise ValueError(_no_lesion(dataset, session, lesions))
            brain = brains.get(session.id)
            cases.append(
                Case(
                    id=session.id,
                    site=people.sites.get(session.subject, ""),
                    no_site=people.why_unknown(session.subject),
                    channels={
                        channel: self._image(dataset, session, channel, found[number])
                        for channel, found in images.items()
                    },
                    lesion=existing(lesion.path),
                    brain=None if brain is None else existing(brain.path),
                    labels=self._labels(dataset, lesion),
                    ignore=ignored[session.id].path if session.id in ignored else None,
                    nonzero_brain=self.brain == "nonzero",
                    subject=session.subject,
                )
            )
        if not cases:
            raise ValueError(self._no_image(dataset, self.channels[0]))
        return cases

    def unlabelled(self, data: Path) -> list[Unlabelled]:
        """Every session that has one of the images, whether it has a lesion mask or not.

        Raises:
            ValueError: a session has several images or brain masks that could be it.
        """
        dataset = _Dataset.of(Path(data) / self.name, self.derivatives)
        images = {channel: self._images(dataset, channel) for channel in self.channels}
        brains = self._brains(dataset) if self.brain == "mask" else {}
        found = []
        for number, session in enumerate(dataset.sessions):
            own = {channel: files[number] for channel, files in images.items()}
            if any(own.values()):
                brain = brains.get(session.id)
                found.append(
                    Unlabelled(
                        id=session.id,
                        channels={c: files[0].path if files else None for c, files in own.items()},
                        brain=None if brain is None else brain.path,
                    )
                )
        return found

    @staticmethod
    def suffixes(root: Path) -> list[str]:
        """Suffixes of the images in a dataset, its own and derived ones, without those of masks."""
        files = [file for session in _Dataset.of(root).sessions for file in session.files]
        return sorted({file.suffix for file in files if file.suffix not in MASKS})

    def remarks(self, data: Path, cases: Sequence[Case]) -> list[str]:
        """Which files were taken for the masks, and rows of participants.tsv that match nobody."""
        root = Path(data) / self.name
        said = []
        for kind, masks in (
            ("lesion masks from", [case.lesion for case in cases]),
            ("brain masks from", [case.brain for case in cases if case.brain]),
        ):
            found = [BidsFile.of(path, _pipeline(root, path)) for path in masks]
            if found:
                files = [file for file in found if file is not None]
                guess = kind == "lesion masks from" and files[0].meaning != "lesion"
                why = "; their name does not speak of lesions" if guess else ""
                said.append(f"{kind}: {_counted(files)}{why}")
        people = _People.of(_Dataset.of(root, self.derivatives))
        return said + [f"warning: {warning}" for warning in people.warnings]

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: in a derivative of its own."""
        masks = Path(data) / self.name / "derivatives" / PREPARED_BRAINS
        space = f"_space-{self.space}" if self.space else ""
        return Path(masks, *case.id.split("_"), "anat", f"{case.id}{space}_desc-brain_mask.nii.gz")

    # --------------------------------------------------------------------------------- images
    def _images(self, dataset: _Dataset, channel: str) -> list[list[BidsFile]]:
        """What may be this channel's image, for every session.

        Raises:
            ValueError: a session has several, or they come from several folders.
        """
        suffix, asked = _suffix(channel), _entities(channel)

        def images(session: _Session, space: str) -> list[BidsFile]:
            files = session.files if space else session.raw
            return [
                file
                for file in files
                if file.suffix == suffix and file.space == space and fits(file, asked)
            ]

        found = [images(session, self.space) for session in dataset.sessions]
        if not any(found) and self.space in (suffix, "orig", "individual", "native", "scanner"):
            found = [images(session, "") for session in dataset.sessions]  # it is its own space
        there = {file.pipeline for files in found for file in files}
        taken = dataset.asked.keys() & there or {""} & there or there
        if len(taken) > 1:
            fixes = [f"{self._first_folder(dataset)},{pipeline}" for pipeline in sorted(taken)]
            raise ValueError(
                f"{dataset.root}: {channel} images in space {self.space} in several folders: "
                f"{_counted(file for files in found for file in files)}; choose with --derivatives "
                f"{' or '.join(fixes)}"
            )
        found = [[file for file in files if file.pipeline in taken] for files in found]
        for files in found:
            if len(files) > 1:
                names = [f"{text}_{suffix}".lstrip("_") for text in telling_apart(files)]
                fix = f"choose with --channels, as {' or '.join(names)}"
                paths = " and ".join(str(file.path) for file in files[:4])
                raise ValueError(
                    f"{paths}: {len(files)} {channel} images of one session; "
                    + (fix if len(set(names)) == len(names) else "keep one of them")
                )
        return found

    def _image(
        self, dataset: _Dataset, session: _Session, channel: str, found: list[BidsFile]
    ) -> Path:
        if found:
            return existing(found[0].path)
        if not any(any(files) for files in self._images(dataset, channel)):
            raise ValueError(self._no_image(dataset, channel))
        place = session.anat / f"{session.id}_{channel}.nii.gz"
        if self.space:
            inside = session.anat.relative_to(dataset.root)
            name = f"{session.id}_space-{self.space}_{channel}.nii.gz"
            place = dataset.root / "derivatives" / "*" / inside / name
        files = session.files if self.space else session.raw
        there = sorted(file.path.name for file in files if file.suffix not in MASKS)
        raise ValueError(f"{place}: missing" + (f"; there: {', '.join(there)}" if there else ""))

    def _no_image(self, dataset: _Dataset, channel: str, more: str = "") -> str:
        """That no session has such an image, and what there is instead."""
        found: dict[str, Counter[str]] = {"": Counter(), self.space: Counter()}
        for session in dataset.sessions:
            for file in session.files:
                if file.suffix not in MASKS and (file.space or not file.pipeline):
                    name = file.variant.replace(f"space-{file.space}_", "")
                    found.setdefault(file.space, Counter())[name] += 1
        spaces = sorted(
            space for space, names in found.items() if space and _named_so(names, channel)
        )
        here = found[self.space]
        suffixes = dict.fromkeys([*here, *(_suffix(name) for name in here)])
        near = close_to(channel, suffixes)
        elsewhere = [space for space in spaces if space != self.space]
        if self.space and elsewhere:
            close = close_to(self.space, elsewhere)
            hint = f"; in the spaces {', '.join(elsewhere)}" + (
                f"; did you mean {close}?" if close else ""
            )
        elif elsewhere:
            hint = f"; there is one in a space: --space {' or '.join(elsewhere)}"
        elif near and near != channel:
            hint = f"; did you mean {near}?"
        else:
            hint = "; name others with --channels" if here else ""
        where = f" in space {self.space}" if self.space else ""
        listed = ", ".join(f"{name} ({count})" for name, count in here.most_common(6))
        return (
            f"{dataset.root}: no sub-*/[ses-*/]anat has an image {channel} {more}".rstrip()
            + where
            + (f"; there: {listed}" if listed else "")
            + hint
        )

    def _is_case(self, session: _Session) -> bool:
        """Whether a session has one of the images, in whichever space."""
        return any(
            file.suffix == _suffix(channel) and fits(file, _entities(channel))
            for channel in self.channels
            for file in session.raw
        ) or any(
            file.suffix == _suffix(channel) and self.space and file.space == self.space
            for channel in self.channels
            for file in session.derived
        )

    # ---------------------------------------------------------------------------------- masks
    def _first_folder(self, dataset: _Dataset) -> str:
        """What --derivatives begins with, or would: where the lesion masks are."""
        found = dataset.masks(lambda file: file.meaning == "lesion" and self._in_space(file))
        first = next((files[0].pipeline for files in found.values()), "FOLDER")
        return self.derivatives.split(",")[0] or first

    def _in_space(self, file: BidsFile) -> bool:
        if self.space:
            return file.space == self.space
        return not file.space or file.space in NATIVE

    def _lesions(self, dataset: _Dataset) -> dict[str, BidsFile]:
        """The lesion mask by session: of one folder and one form of name.

        Raises:
            ValueError: there is none, or more than one could be it.
        """
        allowed = [["lesion"], ["plain", "unclear"] if dataset.asked else ["plain"]]
        for meanings in allowed:  # what is taken for want of a better name holds for all, or none
            found = dataset.masks(lambda f, ms=meanings: f.meaning in ms, [*dataset.asked][:1])
            if found:
                break
        else:
            raise ValueError(_no_lesions(dataset))
        here = {
            key: kept
            for key, files in found.items()
            if (kept := [file for file in files if self._in_space(file)])
        }
        if not here:
            spaces = sorted({file.space for files in found.values() for file in files})
            if not self.space:
                fix = f"read the images there with --space {' or '.join(spaces)}"
            elif spaces == [""]:
                fix = "leave --space out"
            else:
                near = close_to(self.space, spaces)
                fix = f"did you mean {near}?" if near else "choose one that is there"
            raise ValueError(
                f"{dataset.root}: no lesion mask in "
                + (f"space {self.space}" if self.space else "the space of the raw images")
                + f"; there: {_counted(f for files in found.values() for f in files)}; {fix}"
            )
        return _one_each(here, "lesion masks", "")

    def _brains(self, dataset: _Dataset) -> dict[str, BidsFile]:
        """The brain mask by session, where there is one; masks that were made here fill up.

        Raises:
            ValueError: more than one could be it.
        """

        def is_brain(file: BidsFile) -> bool:
            return file.meaning == "brain" and self._in_space(file)

        def is_made(file: BidsFile) -> bool:
            return is_brain(file) and file.pipeline == PREPARED_BRAINS

        before = f"{self._first_folder(dataset)},"
        named = dataset.masks(is_brain, dataset.asked) if dataset.asked else {}
        shipped = named or dataset.masks(lambda f: is_brain(f) and not is_made(f))
        chosen = _one_each(shipped, "brain masks", before)
        made = _one_each(dataset.masks(is_made), "brain masks", before)
        for session in [] if named else sorted(chosen.keys() & made.keys()):
            raise ValueError(_several([chosen[session], made[session]], "brain masks", before))
        return made | chosen

    def _ignored(self, dataset: _Dataset) -> dict[str, BidsFile]:
        """The mask of ignored voxels by session, where there is one.

        Raises:
            ValueError: more than one could be it.
        """
        found = dataset.masks(lambda file: file.meaning == "ignore" and self._in_space(file))
        return _one_each(found, "masks to ignore", f"{self._first_folder(dataset)},")

    def _labels(self, dataset: _Dataset, lesion: BidsFile) -> Labels:
        """What the numbers in the lesion mask mean: a ``dseg`` can hold several labels."""
        if lesion.suffix == "dseg":
            return dseg_labels(lesion.path, dataset.root, self.lesion_label)
        return numbered(LESION, self.lesion_label, dataset.root)


@dataclass(frozen=True, kw_only=True)
class _Session:
    subject: str
    session: str
    anat: Path
    raw: list[BidsFile]
    derived: list[BidsFile]

    @property
    def id(self) -> str:
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def files(self) -> list[BidsFile]:
        return [*self.raw, *self.derived]


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """Every NIfTI file in the anat folders of a dataset."""

    root: Path
    sessions: list[_Session]
    asked: Mapping[str, Mapping[str, str]]
    """What --derivatives names: entities of the files by folder; empty: nothing."""
    pipelines: list[str]

    @staticmethod
    def of(root: Path, derivatives: str = "") -> _Dataset:
        existing_folder(root, "sub-*/[ses-*/]anat")
        place = root / "derivatives"
        pipelines = [path.name for path in subfolders(place)] if is_folder(place) else []
        sessions = []
        for subject in subfolders(root, "sub-"):
            inner = subfolders(subject, "ses-")
            if inner and (loose := _files(root, Path(subject.name, "anat"))):
                raise ValueError(
                    f"{loose[0].path}: lies beside sessions, such as {inner[0].name}; move it into "
                    "one"
                )
            for folder in inner or [subject]:
                inside = folder.relative_to(root) / "anat"
                sessions.append(
                    _Session(
                        subject=subject.name,
                        session=folder.name if inner else "",
                        anat=root / inside,
                        raw=_files(root, inside),
                        derived=[f for p in pipelines for f in _files(place / p, inside, p)],
                    )
                )
        if not sessions:
            raise ValueError(f"{root}: no case found; expected sub-*/[ses-*/]anat/*_FLAIR.nii.gz")
        return _Dataset(
            root=root,
            sessions=sessions,
            asked=_asked(root, derivatives, pipelines),
            pipelines=pipelines,
        )

    def masks(
        self, wanted: Callable[[BidsFile], bool], folders: Iterable[str] = ()
    ) -> dict[str, list[BidsFile]]:
        """The masks that are wanted, by session; of these folders of ``asked``, if any."""
        within = {name: self.asked[name] for name in folders}

        def allowed(file: BidsFile) -> bool:
            return not within or (file.pipeline in within and fits(file, within[file.pipeline]))

        found = {
            session.id: [
                file
                for file in session.derived
                if file.suffix in MASKS and allowed(file) and wanted(file)
            ]
            for session in self.sessions
        }
        return {session: files for session, files in found.items() if files}


def _files(root: Path, inside: Path, pipeline: str = "") -> list[BidsFile]:
    """The NIfTI files in the anat folder of one session.

    Raises:
        ValueError: one is named as another subject's or session's.
    """
    anat = root / inside
    if not is_folder(anat):
        return []
    with readable(anat):
        paths = sorted(anat.iterdir())
    found = [file for path in paths if (file := BidsFile.of(path, pipeline))]
    for file in found:
        for owner in inside.parts[:-1]:
            key = owner.partition("-")[0]
            said = f"{key}-{file.entities.get(key, '')}"
            if key in file.entities and said != owner:
                raise ValueError(
                    f"{file.path}: is named {said} but lies in the folder of {owner}; move or "
                    "rename it"
                )
    return found


def _asked(root: Path, derivatives: str, pipelines: list[str]) -> dict[str, dict[str, str]]:
    asked: dict[str, dict[str, str]] = {}
    for item in derivatives.split(",") if derivatives else []:
        name, _, text = item.strip().removeprefix("derivatives/").rstrip("/").partition("/")
        if name not in pipelines:
            near = close_to(name, pipelines)
            there = f"there: {', '.join(pipelines)}" if pipelines else "there is none"
            raise ValueError(
                f"--derivatives {name}: no such folder in {root / 'derivatives'}; {there}"
                + (f"; did you mean {near}?" if near else "")
            )
        entities = entities_asked(text)
        if entities is None:
            raise ValueError(
                f"--derivatives {item}: expected the name of a folder in {root / 'derivatives'}, "
                f"or one with entities, such as {name}/desc-rater1"
            )
        asked[name] = entities
    return asked


def _one_each(found: Mapping[str, list[BidsFile]], kind: str, before: str) -> dict[str, BidsFile]:
    """The one mask of each session, where all are of one folder and one form of name.

    ``before`` opens what --derivatives shall be.
    """
    files = [file for each in found.values() for file in each]
    by_kind = {(file.pipeline, file.convention): file for file in reversed(files)}
    several = next((each for each in found.values() if len(each) > 1), None)
    if len(by_kind) > 1:
        examples = several or list(by_kind.values())
        if len({(file.pipeline, file.convention) for file in examples}) > 1:
            raise ValueError(_several(examples, f"{kind} of several kinds", before, files))
    if several:
        raise ValueError(_several(several, kind, before))
    return {session: each[0] for session, each in found.items()}


def _several(
    files: Sequence[BidsFile], kind: str, before: str, all_files: Sequence[BidsFile] = ()
) -> str:
    """That more than one file could be it: each is named, and what --derivatives chooses it."""
    fixes = []
    for file in files:
        same = [other for other in files if other.pipeline == file.pipeline]
        entities = telling_apart(same)[same.index(file)]
        fixes.append(f"{before}{file.pipeline}" + (f"/{entities}" if entities else ""))
    paths = " and ".join(str(file.path) for file in files[:4])
    listed = f" ({_counted(all_files)})" if all_files else ""
    if len(set(fixes)) < len(files):
        return f"{paths}: {kind}{listed}; keep one of them"
    return f"{paths}: {kind}{listed}; choose with --derivatives {' or '.join(fixes)}"


def _counted(files: Iterable[BidsFile]) -> str:
    """``derivatives/experts, label-lesion_mask (12)``, the most frequent kinds first."""
    kinds = Counter(
        (f"derivatives/{file.pipeline}" if file.pipeline else "raw", file.convention)
        for file in files
    ).most_common(8)
    return "; ".join(f"{place}, {name} ({number})" for (place, name), number in kinds)


def _no_lesions(dataset: _Dataset) -> str:
    """That no mask of the dataset speaks of lesions, and what there is."""
    masks = [
        file
        for session in dataset.sessions
        for file in session.derived
        if file.suffix in MASKS and (not dataset.asked or file.pipeline in dataset.asked)
    ]
    among = [
        file
        for session in dataset.sessions
        for file in session.raw
        if file.suffix in MASKS and file.meaning == "lesion"
    ]
    place = "derivatives/" + (next(iter(dataset.asked)) if dataset.asked else "*")
    expected = f"{dataset.root / place}/sub-*/[ses-*/]anat/*_label-lesion_mask.nii.gz"
    if among:
        there = f"; move {among[0].path} and its like there"
    elif masks:
        there = f"; there: {_counted(masks)}"
    else:
        there = f"; folders there: {', '.join(dataset.pipelines) or 'none'}"
    unclear = any(file.meaning in ("plain", "unclear") for file in masks)
    fix = "; if one holds the lesions, name its folder with --derivatives" if unclear else ""
    return f"{expected}: no lesion mask (label or desc must speak of lesions){there}{fix}"


def _no_lesion(dataset: _Dataset, session: _Session, lesions: Mapping[str, BidsFile]) -> str:
    """That one session lacks the mask that others have."""
    like = next(iter(lesions.values()))
    inside = session.anat.relative_to(dataset.root)
    name = f"{session.id}_{like.convention}.nii.gz"
    others = [file for file in session.derived if file.suffix in MASKS]
    there = f"; there, of something else: {_counted(others)}" if others else ""
    return (
        f"{dataset.root / 'derivatives' / like.pipeline / inside / name}: missing; a session "
        f"without lesions has a mask of zeros{there}"
    )


def _pipeline(root: Path, path: Path) -> str:
    place, name, *_ = path.relative_to(root).parts
    return name if place == "derivatives" else ""


def _suffix(channel: str) -> str:
    return channel.rpartition("_")[2]


def _entities(channel: str) -> dict[str, str]:
    return entities_asked(channel.rpartition("_")[0]) or {}


def _named_so(names: Iterable[str], channel: str) -> bool:
    return any(
        _suffix(name) == _suffix(channel)
        and _entities(channel).items() <= (entities_asked(name.rpartition("_")[0]) or {}).items()
        for name in names
    )


# ------------------------------------------------------------------------------------------ people
@dataclass(frozen=True, kw_only=True)
class _People:
    """What participants.tsv says of the subjects."""

    table: Table | None
    sites: Mapping[str, str]
    """By subject; empty where it is not known."""
    place: Path
    warnings: tuple[str, ...] = ()

    @staticmethod
    def of(dataset: _Dataset) -> _People:
        """Read the table.

        Raises:
            ValueError: it cannot be understood, or none of its rows is of a subject here.
        """
        place = dataset.root / "participants.tsv"
        if not is_there(place):
            return _People(table=None, sites={}, place=place)
        table = read_table(place, "participant_id", ("site",))
        subjects = {session.subject for session in dataset.sessions}
        sites, strangers = {}, []
        for name, row in table.rows.items():
            subject = name if name in subjects else f"sub-{name}"
            if subject not in subjects:
                strangers.append(name)
            elif sites.setdefault(subject, row.get("site", "")) != row.get("site", ""):
                raise ValueError(f"{place}: two rows for {subject}, {name} is one of them")
        if strangers and not sites:
            example = min(subjects)
            raise ValueError(
                f"{place}: none of its {len(strangers)} rows, such as {strangers[0]!r}, is of a "
                f"subject here; expected ids such as {example} or "
                f"{example.removeprefix('sub-')}"
            )
        warnings = ()
        if strangers:
            more = f" and {len(strangers) - 1} more" if strangers[1:] else ""
            warnings = (f"{place}: no folder of {strangers[0]}{more}, whom it lists",)
        return _People(table=table, sites=sites, place=place, warnings=warnings)

    def why_unknown(self, subject: str) -> str:
        """Why the subject's site is not known; empty if it is."""
        if self.table is None:
            return f"{self.place} is missing; expected the columns participant_id and site"
        if "site" not in [column.casefold() for column in self.table.columns]:
            guess = [
                column
                for column in self.table.columns
                if re.search(r"site|cent(er|re)|institut|scanner|hospital", column.casefold())
            ]
            hint = f"; if {' or '.join(guess)} is it, name it so" if guess else ""
            return f"{self.place} has no column site, only {', '.join(self.table.columns)}{hint}"
        if subject not in self.sites:
            return f"{self.place} has no row for {subject}"
        return "" if self.sites[subject] else f"{self.place} says n/a of {subject}"
