"""Which images of whom: new cases without labels, in whichever form they lie.

Images are recognised by name alone; nothing is opened here but folders and small text files.  A
case that cannot be used says why (`NewCase.problem`), and stands in nobody's way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lesion_core.cohorts.bids import Bids
from lesion_core.cohorts.bids_names import entities_asked
from lesion_core.cohorts.files import natural_key, subfolders
from lesion_core.cohorts.nnunet import dataset_channels
from lesion_core.paths import close_to, is_file, is_folder, is_there, readable
from lesion_core.received import is_plain

BRAIN = "brain"
BRAIN_NAMES = ("brain", "brain_mask", "brain-mask", "brainmask", "desc-brain_mask")
"""How files of brain masks are called, alone or behind a name of their own."""

SEPARATORS = "_-. "
"""Between the name of a case and that of the channel, in a file's name."""

DEPTH = 5
"""How deep below a folder a case may lie."""


@dataclass(frozen=True, kw_only=True)
class NewCase:
    """The images of one new case."""

    id: str
    """Names its output: as the folder or the files are called."""
    channels: dict[str, Path]
    """By the names of the training, in its order."""
    brain: Path | None = None
    problem: str = ""
    """Why it cannot be used; empty: it can, as far as names tell."""


def find_cases(
    images: Sequence[str],
    channels: Sequence[str],
    *,
    called: Sequence[str] = (),
    space: str = "",
    derivatives: str = "",
) -> list[NewCase]:
    """The cases that a command line means, in natural order.

    Args:
        images: a BIDS dataset; an nnU-Net dataset or its ``imagesTs``; a folder with a folder for
            each case; a folder with the images of one case, or of several with a common beginning
            each; several such folders; the files of one or more cases; or ``t1=FILE flair=FILE
            brain=FILE``, the files of one case that are called otherwise.
        channels: of the training, in its order.
        called: ``t1=T1w``: how a channel is called here; others are recognised by their own name,
            in whichever case, T1 and T1w being one.
        space: of a BIDS dataset, as in `cohorts.Bids`.
        derivatives: of a BIDS dataset, as in `cohorts.Bids`.

    Raises:
        ValueError: there is nothing, nothing with one of the channels, or two cases of one name.
    """
    names = _called(called, channels)
    if any("=" in item and not Path(item).exists() for item in images):
        found = [_explicit(images, channels)]
    else:
        found = list(_found([Path(item) for item in images], channels, names, space, derivatives))
    for case in found:
        if not is_plain(case.id):
            raise ValueError(f"case {case.id!r} cannot be the name of a file")
    twice = [case.id for case in found if [other.id for other in found].count(case.id) > 1]
    if twice:
        raise ValueError(f"{' '.join(images)}: case {twice[0]} is there twice; rename one of them")
    for channel in channels:
        if found and not any(channel in case.channels for case in found):
            hint = f"name it with --channels {channel}=NAME"
            raise ValueError(
                f"{' '.join(images)}: no image {names.get(channel, channel)} (the networks were "
                f"trained on {' '.join(channels)}); {hint}"
            )
    return sorted(
        (_checked(case, channels, names) for case in found), key=lambda case: natural_key(case.id)
    )


def _found(
    paths: Sequence[Path],
    channels: Sequence[str],
    names: Mapping[str, str],
    space: str,
    derivatives: str,
) -> Iterator[NewCase]:
    folders = [path for path in paths if is_folder(path)]
    files = [path for path in paths if path not in folders]
    for path in files:
        if not is_there(path):
            near = close_to(path.name, _names(path.parent) if is_folder(path.parent) else [])
            hint = f"; did you mean {path.parent / near}?" if near else ""
            raise ValueError(f"{path}: there is no such file or folder{hint}")
        if not _is_image(path):
            raise ValueError(f"{path}: expected .nii.gz or .nii, or a folder of them")
    bids = [folder for folder in folders if _is_bids(folder)]
    if (space or derivatives) and not bids:
        flag = "--space" if space else "--derivatives"
        raise ValueError(f"{flag}: is for BIDS datasets; leave it out")
    if files:
        parent = files[0].parent.name or "case"
        yield from _known(_groups(files, channels, names), parent, files[0].parent, names, channels)
    for folder in folders:
        if folder in bids:
            yield from _bids(folder, channels, names, space, derivatives)
        elif (numbered := _numbered(folder)) is not None:
            yield from _nnunet(folder, numbered, channels, names)
        else:
            yield from _folder(folder, channels, names)


# -------------------------------------------------------------------------------------- the forms
def _explicit(images: Sequence[str], channels: Sequence[str]) -> NewCase:
    """``t1=FILE flair=FILE brain=FILE``."""
    given: dict[str, Path] = {}
    for item in images:
        name, equals, path = item.partition("=")
        if not equals or name not in (*channels, BRAIN):
            expected = " ".join(f"{channel}=FILE" for channel in channels)
            raise ValueError(
                f"--images {item}: expected {expected}, and brain=FILE if there is one"
            )
        if name in given:
            raise ValueError(f"--images {item}: {name} is named twice")
        given[name] = Path(path)
        if not is_file(given[name]):
            raise ValueError(f"{path}: there is no such file")
    if lacking := [channel for channel in channels if channel not in given]:
        raise ValueError(
            f"--images: no {lacking[0]}=FILE (the networks were trained on {' '.join(channels)})"
        )
    first = given[channels[0]]
    prefix, _ = _split(_stem(first), {channels[0]: _spellings(channels[0])}) or (_stem(first), "")
    return NewCase(
        id=prefix or first.parent.name or "case",
        channels={channel: given[channel] for channel in channels},
        brain=given.get(BRAIN),
    )


def _bids(
    root: Path, channels: Sequence[str], names: Mapping[str, str], space: str, derivatives: str
) -> Iterator[NewCase]:
    whole = root.absolute()
    there = Bids.suffixes(root)
    theirs: dict[str, str] = {}
    for channel in channels:
        own = names.get(channel, channel)
        suffix = own.rpartition("_")[2]
        if suffix in there and entities_asked(own.rpartition("_")[0]) is not None:
            theirs[channel] = own
            continue
        alike = [one for one in there if one.casefold() in _spellings(own)]
        if channel in names or not alike:
            raise ValueError(
                f"{root}: no image {own} (the networks were trained on {' '.join(channels)}); "
                f"there: {', '.join(there) or 'none'}; name it with --channels {channel}=SUFFIX"
            )
        theirs[channel] = alike[0]
    dataset = Bids(
        name=whole.name, channels=tuple(theirs.values()), space=space, derivatives=derivatives
    )
    for found in dataset.unlabelled(whole.parent):
        own = {channel: found.channels[name] for channel, name in theirs.items()}
        yield NewCase(
            id=found.id,
            channels={channel: path for channel, path in own.items() if path is not None},
            brain=found.brain,
        )


def _nnunet(
    folder: Path, place: Path, channels: Sequence[str], names: Mapping[str, str]
) -> Iterator[NewCase]:
    """``{case}_0000.nii.gz``, which dataset.json, or --channels, says the channels of."""
    root = next((r for r in (place, place.parent) if is_file(r / "dataset.json")), None)
    listed = () if root is None else dataset_channels(root)
    if root is None and len(names) < len(channels):
        example = " ".join(f"{channel}={number:04d}" for number, channel in enumerate(channels))
        raise ValueError(
            f"{place}: numbers its images, and there is no dataset.json that says what they are; "
            f"say it with --channels, such as {example}"
        )
    numbers: dict[str, str] = {}
    for channel in channels:
        own = names.get(channel, channel)
        index = [i for i, one in enumerate(listed) if one == own] or [
            i for i, one in enumerate(listed) if one.casefold() in _spellings(own)
        ]
        if len(index) == 1:
            numbers[channel] = f"{index[0]:04d}"
        elif re.fullmatch(r"\d{4}", own):
            numbers[channel] = own
        else:
            raise ValueError(
                f"{root / 'dataset.json' if root else place}: no image {own} (the networks were "
                f"trained on {' '.join(channels)}); there: {', '.join(listed) or 'numbers'}; name "
                f"it with --channels {channel}=NAME"
            )
    groups = _groups(_images(place), channels, numbers, brains=False)
    masks = place.parent / place.name.replace("images", "brains", 1)
    for case in _known(groups, folder.absolute().name, place, numbers, channels):
        mask = next((m for m in (masks / f"{case.id}{e}" for e in ENDINGS) if is_there(m)), None)
        yield replace(case, brain=mask)


def _folder(root: Path, channels: Sequence[str], names: Mapping[str, str]) -> Iterator[NewCase]:
    """A folder of images, or of folders of images, with the groups of the challenge's layout."""
    groups = _groups(_images(root), channels, names)
    if any(own.keys() - {BRAIN} for own in groups.values()):
        yield from _known(groups, root.absolute().name, root, names, channels)
        return
    found = False
    for folder, places in _case_folders(root, DEPTH):
        found = True
        name = "_".join(folder.relative_to(root).parts)
        images = [image for place in places for image in _images(place)]
        groups = _groups(images, channels, names)
        cases = list(_known(groups, name, folder, names, channels, whole=True))
        yield from cases or [NewCase(id=name, channels={})]
    if not found and _images(root):
        yield NewCase(id=root.absolute().name, channels={})
    elif not found:
        raise ValueError(
            f"{root}: no image found; expected a folder for each case, each with "
            f"{', '.join(names.get(channel, channel) for channel in channels)}.nii.gz; an nnU-Net "
            "or BIDS dataset; or the files themselves"
        )


def _case_folders(root: Path, depth: int) -> Iterator[tuple[Path, list[Path]]]:
    """Folders of cases, and where the images of each lie: there, and in ``pre`` (the WMH
    challenge's layout)."""
    for folder in subfolders(root):
        inner = folder / "pre"
        if is_folder(inner) and _images(inner):
            yield folder, [inner, folder]
        elif _images(folder):
            yield folder, [folder]
        elif depth > 1:
            yield from _case_folders(folder, depth - 1)


# ----------------------------------------------------------------------------------------- by name
Group = dict[str, list[Path]]
"""Files of one case by channel, or `BRAIN`."""


def _groups(
    files: Iterable[Path],
    channels: Sequence[str],
    names: Mapping[str, str],
    *,
    brains: bool = True,
) -> dict[str, Group]:
    """Files by what comes before the channel in their names; others are left out."""
    spellings = {
        channel: {names[channel].casefold()} if channel in names else _spellings(channel)
        for channel in channels
    }
    if brains:
        spellings[BRAIN] = set(BRAIN_NAMES)
    found: dict[str, Group] = {}
    for file in files:
        if (parts := _split(_stem(file), spellings)) is not None:
            prefix, channel = parts
            found.setdefault(prefix, {}).setdefault(channel, []).append(file)
    return found


def _known(
    groups: Mapping[str, Group],
    name: str,
    place: Path,
    names: Mapping[str, str],
    channels: Sequence[str],
    *,
    whole: bool = False,
) -> Iterator[NewCase]:
    """A case for every group that has an image; one without a name of its own has the folder's,
    as has the only one of a case's own folder (``whole``)."""
    with_image = {prefix: own for prefix, own in groups.items() if own.keys() - {BRAIN}}
    for prefix, own in with_image.items():
        id = name if not prefix or (whole and len(with_image) == 1) else prefix
        if whole and id != name:
            id = f"{name}_{prefix}"
        several = next((files for files in own.values() if len(files) > 1), None)
        alone = own | (groups.get("", {}) if len(with_image) == 1 else {})
        yield NewCase(
            id=id,
            channels={channel: own[channel][0] for channel in channels if channel in own},
            brain=alone[BRAIN][0] if BRAIN in alone else None,
            problem=""
            if several is None
            else f"{several[0]}: {several[1].name} could be it as well; keep one of the two",
        )


def _checked(case: NewCase, channels: Sequence[str], names: Mapping[str, str]) -> NewCase:
    """The case, or what it lacks."""
    lacking = [channel for channel in channels if channel not in case.channels]
    if case.problem or not lacking:
        return case
    spelled = " and ".join(names.get(channel, channel) for channel in lacking)
    there = f"; there: {', '.join(p.name for p in case.channels.values())}" if case.channels else ""
    return replace(case, problem=f"{case.id}: no image {spelled}{there}")


def _split(stem: str, spellings: Mapping[str, set[str]]) -> tuple[str, str] | None:
    """Name of the case and channel of a file; None: it is none of these.

    >>> _split("p07_FLAIR", {"flair": {"flair"}, "t1": {"t1", "t1w"}})
    ('p07', 'flair')
    """
    folded = stem.casefold()
    best = ("", "", "")
    for channel, spelled in spellings.items():
        for spelling in spelled:
            if folded == spelling:
                return "", channel
            before = folded.removesuffix(spelling)
            if len(before) < len(folded) and before[-1:] in SEPARATORS and before.strip(SEPARATORS):
                best = max(best, (spelling, channel, stem[: len(before) - 1]), key=_length)
    return (best[2], best[1]) if best[0] else None


def _length(candidate: tuple[str, str, str]) -> int:
    return len(candidate[0])


def _spellings(channel: str) -> set[str]:
    """What a channel may be called: its name in lower case, and with or without BIDS' w.

    >>> sorted(_spellings("T1w")), sorted(_spellings("flair"))
    (['t1', 't1w'], ['flair'])
    """
    folded = channel.casefold()
    weighted = re.fullmatch(r"(t1|t2|pd)w?", folded)
    return {weighted[1], f"{weighted[1]}w"} if weighted else {folded}


def _called(called: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for item in called:
        name, equals, theirs = item.partition("=")
        if not equals or not theirs or name not in channels or name in names:
            near = close_to(name, channels)
            hint = f"; did you mean {near}={theirs or 'NAME'}?" if near and near != name else ""
            raise ValueError(
                f"--channels {item}: expected {channels[0]}=NAME, a channel of the training "
                f"({' '.join(channels)}) and what it is called here, each once{hint}"
            )
        names[name] = theirs
    return names


# ------------------------------------------------------------------------------------------- files
ENDINGS = (".nii.gz", ".nii")


def _is_bids(root: Path) -> bool:
    if Bids.recognises(root):
        return True
    subjects = subfolders(root, "sub-")
    return any(is_folder(s / "anat") or subfolders(s, "ses-") for s in subjects)


def _numbered(folder: Path) -> Path | None:
    """Where an nnU-Net dataset's images lie, if it is one: imagesTs before imagesTr."""
    inside = [folder / "imagesTs", *([] if _images(folder) else [folder / "imagesTr"])]
    for place in (*inside, folder):
        if is_folder(place) and any(re.search(r"_\d{4}$", _stem(p)) for p in _images(place)):
            return place
    return None


def _images(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if _is_image(folder / name)]


def _names(folder: Path) -> list[str]:
    with readable(folder):
        return sorted(path.name for path in folder.iterdir())


def _is_image(path: Path) -> bool:
    return path.name.endswith(ENDINGS) and not path.name.startswith(".")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
