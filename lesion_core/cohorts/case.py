"""A case, and what a folder layout must say of its cases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

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
    has_other: bool = False
    """Whether the lesion mask may hold label 2, other pathology."""
    nonzero_brain: bool = False
    """The images are skull-stripped: the brain is where any channel is not 0, holes filled."""
    subject: str = ""
    """Who it is; the case's id unless several cases can be of one person, which no fold parts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", self.subject or self.id)

    @property
    def files(self) -> list[Path]:
        """Every file that is there."""
        return [*self.channels.values(), self.lesion, *([self.brain] if self.brain else [])]

    @property
    def rules(self) -> tuple[str, ...]:
        """How the files are to be understood where that is not the usual way, a line each.

        Part of the cohort's fingerprint: the same bytes, read otherwise, are other data.
        """
        return ("brain: nonzero",) if self.nonzero_brain else ()


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
