"""Anyone's data as one folder per case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_core.cohorts.case import Case, Layout
from lesion_core.cohorts.files import (
    MASKS,
    case_folders,
    check_name,
    natural_key,
    optional,
    required,
)
from lesion_core.cohorts.labels import LESION, numbered
from lesion_core.cohorts.tables import with_table


@dataclass(frozen=True, kw_only=True)
class Folder(Layout):
    """Anyone's data: ``<name>/<case>/{channel...,brain,lesion}.nii.gz``, maybe ``ignore``."""

    name: str
    """Folder below the data folder, and label in every result."""
    channels: tuple[str, ...]
    """File names without ending, in the order in which the network shall see them."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.channels:
            raise ValueError(f"cohort {self.name!r}: name at least one channel, such as t1 flair")
        for channel in self.channels:
            if channel in MASKS or not re.fullmatch(r"[\w.+-]+", channel):
                raise ValueError(
                    f"cohort {self.name!r}: channel {channel!r} cannot be used; expected a file "
                    f"name without folder and ending, such as flair, and none of {', '.join(MASKS)}"
                )
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(
                f"cohort {self.name!r}: channels {', '.join(self.channels)}; name each one once"
            )

    def cases(self, data: Path) -> list[Case]:
        """Every folder as a case."""
        return flat_cases(Path(data) / self.name, self.channels, self.lesion_label)

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: beside the images of the case."""
        return flat_brain_place(case)


def flat_cases(root: Path, channels: Sequence[str], lesion_label: Sequence[str] = ()) -> list[Case]:
    """Every folder below the root is a case that holds its files directly."""
    labels = numbered(LESION, lesion_label, root)
    names = ", ".join([*channels, "brain", "lesion"])
    layout = f"one folder per case, each with {names}.nii.gz"
    cases = [
        Case(
            id=folder.name,
            site="",
            channels={channel: required(folder, channel) for channel in channels},
            lesion=required(folder, "lesion"),
            brain=optional(folder, "brain"),
            labels=labels,
            ignore=optional(folder, "ignore"),
        )
        for folder in case_folders(root, layout)
    ]
    return with_table(root, sorted(cases, key=lambda case: natural_key(case.id)))


def flat_brain_place(case: Case) -> Path:
    """Where the mask of a case of this layout is put: in its folder."""
    return case.lesion.parent / "brain.nii.gz"
