"""The flags that say how a cohort's files are read where its folder leaves a choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lesion_core.cohorts.named import Cohort, cohort_named


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a cohort's files are read where its folder leaves a choice.

    Without the space of BIDS images, which a command names as it can: a search has a --space of
    another kind.
    """

    channels: tuple[str, ...] = ()
    """File names without ending, of a cohort that is just a folder, such as: t1 flair."""
    lesion_label: tuple[str, ...] = ()
    """Which labels of the masks are the lesion, by number, or by name where the dataset names them;
    default: 1, or the label that is named so."""
    derivatives: str = ""
    """Of a BIDS dataset: the folder below derivatives/ that has the lesion masks."""
    spacing: tuple[str, ...] = ()
    """Resample every case to this voxel size: three numbers, mm, or median, the cohort's own;
    default: nothing is resampled."""

    @property
    def bids_space(self) -> str:
        """The space entity of a BIDS dataset's images and masks; empty: images without one."""
        return ""

    def cohort_in(self, data: Path, name: str) -> Cohort:
        """The cohort of this name in a data folder, read so (`cohort_named`).

        Raises:
            ValueError: there is none, or it cannot be read so.
        """
        return cohort_named(
            name,
            self.channels,
            data,
            lesion_label=self.lesion_label,
            derivatives=self.derivatives,
            space=self.bids_space,
            spacing=self.spacing,
        )


@dataclass(frozen=True, kw_only=True)
class ReadingInSpace(Reading):
    """The same with --space."""

    space: str = ""
    """Of a BIDS dataset: the space entity of images and masks; default: images without one."""

    @property
    def bids_space(self) -> str:
        """What was given as --space."""
        return self.space
