"""What every section of a report is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.flags import ROPE
from analysis.reading.scores import CohortScores
from analysis.statistics.search_outcome import SearchOutcome
from lesion_core.results import Sweep


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportInput:
    """A results folder as it was read, and what the reader asked for."""

    sweep: Sweep
    """Without the losses that only a search tried."""
    all_cohorts: Sequence[CohortScores]
    """Every cohort that a trial was asked for."""
    reference: str
    """The loss that the others are compared with."""
    rope: float = ROPE
    """Differences in DSC up to this size count as none."""
    paper_colours: bool = False
    """Overlays in the paper's green, red and blue."""
    search: SearchOutcome | None = None
    """None where nothing was searched for."""
    tested: Sequence[CohortScores] = ()
    """All test trials of a sweep with a search, those of the losses that only it tried too."""

    @property
    def cohorts(self) -> list[CohortScores]:
        """Cohorts with a complete trial; of any other there is a coverage map and nothing else."""
        return [cohort for cohort in self.all_cohorts if cohort.shown]

    def reference_in(self, cohort: CohortScores) -> int:
        """Index of the reference in a cohort's losses; of the first shown one if it is not."""
        names = [cohort.losses[loss] for loss in cohort.shown]
        return cohort.shown[names.index(self.reference) if self.reference in names else 0]

    @property
    def is_ledger(self) -> bool:
        """Whether this was read from a ledger; imported results lack a ledger's other tables."""
        return (self.sweep.path / "sweep.json").exists()
