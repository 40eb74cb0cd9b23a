"""The layout of the WMH Segmentation Challenge 2017."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lesion_core.cohorts.case import Case, Layout
from lesion_core.cohorts.files import case_folders, natural_key, optional, required, subfolders
from lesion_core.cohorts.labels import LESION_AND_OTHER, numbered

WMH_DEPTH = 5
"""How deep below the cohort's folder a WMH case may lie (Amsterdam/GE3T/100 is 3)."""


@dataclass(frozen=True, kw_only=True)
class Wmh2017(Layout):
    """WMH Segmentation Challenge 2017, official layout: T1 and FLAIR from three scanners.

    ``{site}/{id}/pre/{T1,FLAIR}.nii.gz`` and ``{id}/wmh.nii.gz`` (1 lesion, 2 other pathology);
    brain mask ``pre/brain.nii.gz`` or ``{id}/brain.nii.gz``; ``{id}/ignore.nii.gz`` marks what
    counts for nothing, which the challenge has none of.  The site is the path above the case
    folder (``Utrecht``, ``Amsterdam/GE3T``).  Data and terms of use: doi 10.34894/AECRSD.
    """

    name: ClassVar[str] = "wmh2017"
    channels: ClassVar[tuple[str, ...]] = ("t1", "flair")

    def cases(self, data: Path) -> list[Case]:
        """Every folder that holds ``pre`` or a lesion mask, at whatever depth."""
        return wmh_cases(Path(data) / self.name, self.lesion_label)

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: beside the images of the case."""
        return wmh_brain_place(case)


def wmh_cases(root: Path, lesion_label: Sequence[str] = ()) -> list[Case]:
    """The cases below a folder in the challenge's layout, whatever sites it holds."""
    labels = numbered(LESION_AND_OTHER, lesion_label, root)
    layout = "SITE/ID/pre/{T1,FLAIR,brain}.nii.gz and SITE/ID/wmh.nii.gz"
    case_folders(root, layout)
    cases: dict[str, Case] = {}
    for folder in _wmh_folders(root, WMH_DEPTH):
        earlier = cases.get(folder.name)
        if earlier is not None:
            raise ValueError(
                f"{folder}: case {folder.name} is there a second time, first in "
                f"{earlier.lesion.parent}; give every case a number of its own"
            )
        brains = [mask for place in (folder / "pre", folder) if (mask := optional(place, "brain"))]
        if len(brains) == 2:
            raise ValueError(f"{brains[0]}: {brains[1]} is there as well; keep one of the two")
        site = folder.parent.relative_to(root).as_posix()
        cases[folder.name] = Case(
            id=folder.name,
            site="" if site == "." else site,
            channels={
                channel: required(folder / "pre", channel.upper()) for channel in Wmh2017.channels
            },
            lesion=required(folder, "wmh"),
            brain=brains[0] if brains else None,
            labels=labels,
            ignore=optional(folder, "ignore"),
        )
    if not cases:
        raise ValueError(f"{root}: no case found; expected {layout}")
    return sorted(cases.values(), key=lambda case: natural_key(case.id))


def wmh_brain_place(case: Case) -> Path:
    """Where the mask of a case of this layout is put: beside its images."""
    return case.lesion.parent / "pre" / "brain.nii.gz"


def _wmh_folders(folder: Path, depth: int) -> Iterator[Path]:
    for inner in subfolders(folder):
        if optional(inner, "wmh") or (inner / "pre").is_dir():
            yield inner
        elif depth > 1:
            yield from _wmh_folders(inner, depth - 1)
