"""What every section of a report is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from analysis.flags import ROPE
from analysis.page.wording import Wording, of_arms
from analysis.reading.arms import short_names, shown_arms
from analysis.reading.looks import Seen
from analysis.reading.scores import METRICS, CohortScores
from analysis.reading.together import Together, together
from analysis.reading.training_effect import TrainingEffect
from analysis.statistics.absence import comparable, compared
from analysis.statistics.pairs import Family, every_pair, judge
from analysis.statistics.search_outcome import SearchOutcome
from lesion_core.arms import Arms
from lesion_core.results import Sweep

ROUNDED = "Differences were rounded after subtracting."
"""Said under tables that print a difference beside what it is a difference of."""


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
    training: TrainingEffect = field(default_factory=TrainingEffect)
    """How much a difference moves with the training set."""
    paper_colours: bool = False
    """Overlays in the paper's green, red and blue."""
    search: SearchOutcome | None = None
    """None where nothing was searched for."""
    seen: Seen = field(default_factory=Seen)
    """Which looks at the ledger are recorded."""
    tested: Sequence[CohortScores] = ()
    """All test trials of a sweep with a search, those of the losses that only it tried too."""

    @property
    def cohorts(self) -> list[CohortScores]:
        """Cohorts with a complete trial; of any other there is a coverage map and nothing else."""
        return [cohort for cohort in self.all_cohorts if cohort.shown]

    @cached_property
    def arms(self) -> Arms:
        """What is compared, where that is not losses alone: settings by label."""
        return shown_arms(self.sweep)

    @cached_property
    def wording(self) -> Wording | None:
        """How what is written of losses is read where arms are compared; None: as it is."""
        if not self.arms.varied:
            return None
        return Wording({} if self.search is not None else short_names(self.sweep))

    @property
    def key_to_names(self) -> str:
        """What stands behind the short names of arms, in words; "": they are the labels."""
        names = {} if self.wording is None else self.wording.names
        if all(label == name for label, name in names.items()):
            return ""
        if len(losses := set(self.arms.losses.values())) == 1:
            return f"all with {next(iter(losses))}"
        return f"each with its {' and '.join(self.arms.varied)}"

    def words(self, of_losses: str) -> str:
        """A text on losses, as one on arms where settings differ too (`wording`)."""
        return of_arms(of_losses) if self.arms.varied else of_losses

    @property
    def one(self) -> str:
        """What is compared: a loss, or an arm."""
        return self.words("loss")

    @property
    def several(self) -> str:
        """More of them."""
        return self.words("losses")

    @property
    def what_cells_are(self) -> str:
        """What the trials of a cell share, in words."""
        if self.arms.share_all:
            return (
                "Those of all losses with the same seed and fold start from the same weights and "
                "see the same patches: a cell, the unit in which losses are compared."
            )
        return (
            "Those of all arms with the same seed and fold are a cell, the unit in which arms are "
            "compared. In it networks of one form start from the same weights, and patches that "
            "are cut and stacked alike come in the same batches; which comparisons share what "
            "stands in the table of differences."
        )

    def shared(self, cohort: CohortScores, a: int, b: int) -> str:
        """What two arms of a cell share, in words."""
        return self.arms.sharing(cohort.losses[a], cohort.losses[b]).in_words

    @cached_property
    def comparable(self) -> list[CohortScores]:
        """`cohorts` with the trainings alone that set their losses side by side."""
        return [comparable(cohort) for cohort in self.cohorts]

    @cached_property
    def together(self) -> dict[str, Together]:
        """What the seeds of a cohort do together, by name of the cohort; of those that were
        scored (`predict --score`)."""
        if not self.is_ledger:
            return {}
        found = {cohort.name: together(self.sweep, cohort) for cohort in self.cohorts}
        return {name: own for name, own in found.items() if own is not None}

    def reference_in(self, cohort: CohortScores) -> int:
        """Index of the reference in a cohort's losses; of the first one that can be compared if it
        cannot, which `reference_note` says."""
        losses = compared(cohort)
        names = [cohort.losses[loss] for loss in losses]
        return losses[names.index(self.reference) if self.reference in names else 0]

    def reference_note(self, cohort: CohortScores) -> str:
        """A sentence where the reference is not what was asked for; "" where it is."""
        instead = cohort.losses[self.reference_in(cohort)]
        if instead == self.reference:
            return ""
        done = asked = 0
        if self.reference in cohort.losses:
            own = cohort.losses.index(self.reference)
            done, asked = int(cohort.done[own].sum()), int((cohort.status[own] != "").sum())
        why = (
            f"was not asked for on {cohort.title}"
            if not asked
            else f"has {'no' if not done else f'only {done} of {asked}'} complete trials"
        )
        return (
            f"The reference **{self.reference}** {why}, so nothing is compared with it: losses are "
            f"compared with {instead} instead."
        )

    def tau(self, cohort: CohortScores, metric: str = "dice") -> float:
        """The training-set effect to assume for a metric in a cohort; NaN where it is unknown."""
        return self.training.of(cohort.name).tau_of(metric)

    def family(
        self, cohort: CohortScores, metric: str = "dice", scores: np.ndarray | None = None
    ) -> Family:
        """All comparisons of the losses that can be compared, of a test metric at the last epoch;
        of other ``scores`` [L, S, P] if they are given."""
        reference = self.reference_in(cohort)
        if scores is None:
            scores = cohort.last_by_case(cohort.test)[..., METRICS.index(metric)]
        return family(
            scores,
            cohort,
            compared(cohort),
            reference,
            tau=self.tau(cohort, metric),
            rope=self.rope,
        )

    @property
    def is_ledger(self) -> bool:
        """Whether this was read from a ledger; imported results lack a ledger's other tables."""
        return (self.sweep.path / "sweep.json").exists()


def family(
    scores: np.ndarray,
    cohort: CohortScores,
    losses: Sequence[int],
    reference: int,
    *,
    tau: float,
    rope: float,
) -> Family:
    """All comparisons of some losses, from scores [L, S, P]."""
    pairs = every_pair(
        scores,
        cohort.fold_of,
        losses,
        cohort.subject_of,
        tau=tau,
        num_subjects=cohort.num_subjects,
    )
    return Family(pairs, judge(pairs, rope, reference), reference)
