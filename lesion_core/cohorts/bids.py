"""The layout of a BIDS dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lesion_core.cohorts.case import BrainRule, Case, Dataset, choice
from lesion_core.cohorts.files import check_name, readable, subfolders, the_only


@dataclass(frozen=True, kw_only=True)
class Bids(Dataset):
    """A BIDS dataset as it is: images in ``sub-*/[ses-*/]anat/*_{channel}``, masks in derivatives.

    The lesion mask is the one file ``derivatives/*/sub-*/[ses-*/]anat/*_{mask,dseg}`` whose
    ``desc`` or ``label`` entity speaks of lesions (lesion, WMH), or else the only one that does
    not speak of the brain; a ``dseg`` may hold label 2, other pathology.  The brain mask is one
    with ``desc-brain`` or ``label-brain``.  The site comes from a column of that name in
    participants.tsv.  Sessions of one subject stay in one fold.
    """

    prefix: ClassVar[str] = "bids"

    name: str
    """Folder below the data folder, and label in every result."""
    channels: tuple[str, ...]
    """Suffixes, such as T1w and FLAIR, in the order in which the network shall see them."""
    brain: BrainRule = "mask"
    """Where the brain is."""
    derivatives: str = choice("")
    """The folder below derivatives/ that has the lesion masks; empty: wherever they are."""
    space: str = choice("")
    """The ``space`` entity of images and masks; empty: images that have none."""

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether the files are there by which such a dataset is known."""
        return (root / "dataset_description.json").is_file()

    @classmethod
    def of(
        cls, data: Path, name: str, channels: Sequence[str] = (), brain: BrainRule = "mask"
    ) -> Bids:
        """The dataset in this folder: of T1w and FLAIR, if there, unless other channels are named.

        Raises:
            ValueError: there is no such dataset, or it has none of the two.
        """
        check_name(name)
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
        """Every session of every subject that has one of the images, or a lesion mask."""
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
                        c: the_only(paths, place / "anat" / f"{case}_{c}.nii.gz")
                        for c, paths in channels.items()
                    },
                    lesion=the_only(
                        lesions,
                        root
                        / f"derivatives/*/{subject}/{session}/anat/".replace("//", "/")
                        / f"{case}_label-lesion_mask.nii.gz",
                    ),
                    brain=the_only(brains, Path()) if brains and self.brain == "mask" else None,
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

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: in a derivative of its own."""
        masks = Path(data) / self.name / "derivatives" / "brain-masks"
        return Path(masks, *case.id.split("_"), "anat", f"{case.id}_desc-brain_mask.nii.gz")


def _bids_places(root: Path) -> list[tuple[str, str, Path]]:
    """(subject, session or "", folder) of every session, in natural order."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected sub-*/[ses-*/]anat")
    places = []
    for subject in subfolders(root):
        if subject.name.startswith("sub-"):
            sessions = [ses for ses in subfolders(subject) if ses.name.startswith("ses-")]
            places += [(subject.name, ses.name, ses) for ses in sessions]
            if not sessions:
                places.append((subject.name, "", subject))
    return places


def _bids_images(anat: Path, suffix: str) -> list[Path]:
    if not anat.is_dir():
        return []
    with readable(anat):
        return sorted(
            p for p in anat.iterdir() if re.fullmatch(rf".+_{suffix}\.nii(\.gz)?", p.name)
        )


def _bids_masks(root: Path, subject: str, session: str) -> tuple[list[Path], list[Path]]:
    """What may be the lesion mask, and the brain mask."""
    lesions, others, brains = [], [], []
    pattern = f"{subject}/{session}/anat" if session else f"{subject}/anat"
    for anat in sorted((root / "derivatives").glob(f"*/{pattern}")):
        with readable(anat):
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
