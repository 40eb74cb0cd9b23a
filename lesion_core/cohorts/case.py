"""A case, and what a folder layout must say of its cases."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from lesion_core.cohorts.labels import LESION, Labels

BrainRule = Literal["mask", "nonzero"]
"""Where the brain is: in a mask file, or, for skull-stripped images, where any channel is not 0."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one session of a subject."""

    id: str
    """Unique inside the cohort."""
    site: str
    """Scanner group; "" if the cohort has none."""
    channels: dict[str, Path]
    """Images by name, in the order in which the network sees them."""
    lesion: Path
    brain: Path | None
    """None: no mask was shipped."""
    labels: Labels = LESION
    """What the numbers in the lesion mask mean."""
    ignore: Path | None = None
    """A mask of voxels that are left out of training and of every score, if there is one."""
    nonzero_brain: bool = False
    """The images are skull-stripped: the brain is where any channel is not 0, holes filled."""
    subject: str = ""
    """Who it is; the case's id unless several cases can be of one person, which no fold parts."""
    spacing_mm: tuple[float, float, float] | None = None
    """Voxel size that it is resampled to, left-right, back-front and foot-head; None: its own."""
    no_site: str = ""
    """Where the site could be said, or why it is not known, for people."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", self.subject or self.id)
        for what in ("id", "site", "subject"):
            name = getattr(self, what)
            if _ENDS_A_LINE.search(name):  # a line of a terminal, a log, a table
                raise ValueError(
                    f"{what} of a case, {name!a:.60}: holds a control character; rename it"
                )

    @property
    def files(self) -> list[Path]:
        """Every file that is there."""
        masks = [mask for mask in (self.lesion, self.brain, self.ignore) if mask is not None]
        return [*self.channels.values(), *masks]

    @property
    def rules(self) -> tuple[str, ...]:
        """How the files are to be understood where that is not the usual way, a line each.

        Part of the cohort's fingerprint: the same bytes, read otherwise, are other data.
        """
        found = ["brain: nonzero"] if self.nonzero_brain else []
        if self.labels.rule is not None:
            found.append(self.labels.rule)
        if self.spacing_mm is not None:
            found.append(f"spacing: {' x '.join(map(str, self.spacing_mm))} mm")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """The files of one session of somebody who has no lesion mask."""

    id: str
    channels: dict[str, Path | None]
    """Images by name; None: not there."""
    brain: Path | None


_ENDS_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def choice(default: Any) -> Any:
    """A field of a layout that users may set, and that is stored only if they did."""
    return field(default=default, metadata={"choice": True})


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """How a cohort's images lie in the folder ``data/<name>/``.

    A layout is a frozen dataclass that also has a ``name``, the cohort's folder and its label in
    every result, and ``channels``, the names of its images in the order in which the network sees
    them.
    """

    lesion_label: tuple[str, ...] = choice(())
    """Which labels of the masks are the lesion, by name or number; empty: what the layout says."""
    spacing: tuple[str, ...] = choice(())
    """Voxel size that every case is resampled to: three numbers, mm, or median; empty: its own."""

    @abstractmethod
    def cases(self, data: Path) -> list[Case]:
        """Every case in natural order, by opening no more than folders and small text files.

        Raises:
            ValueError: a file is missing, or there is no case; with its path.
        """

    def remarks(self, data: Path, cases: Sequence[Case]) -> list[str]:
        """What people should know of how these cases were found: a line each, the kinds of masks
        that were taken where there was a choice, and warnings."""
        return []

    @abstractmethod
    def brain_place(self, data: Path, case: Case) -> Path:
        """Where `cases` looks for the brain mask of a case that has none: another for each case."""


@dataclass(frozen=True, kw_only=True)
class Dataset(Layout):
    """A layout that is recognised by its files, and asked for as ``prefix:FOLDER``."""

    prefix: ClassVar[str]

    @staticmethod
    @abstractmethod
    def recognises(root: Path) -> bool:
        """Whether a cohort's folder looks like such a dataset."""

    @classmethod
    @abstractmethod
    def of(
        cls, data: Path, name: str, channels: Sequence[str] = (), brain: BrainRule = "mask"
    ) -> Self:
        """The dataset in this folder, with the channels asked for or else those that it has.

        Raises:
            ValueError: it cannot be used so.
        """
