"""A grid's cells in an order fixed beforehand, until its question is decided or none is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.ledger.contents import TrialDescription, described
from sweeps.trials.curve import Curve

if TYPE_CHECKING:
    from lesion_core.losses import Loss
    from lesion_core.results import TrialStatus
    from lesion_core.trial import Trial


@dataclass(frozen=True)
class Decision:
    """What was made of the complete cells."""

    decided: bool
    why: str
    """In words, for people."""


class UntilDecided:
    """Gives whole cells one after the other, and none any more once the question is decided
    (`Supply`).

    A cell is the trials of one (seed, fold): all losses.  A decision is asked for whenever one has
    ended.  What was asked for before it ends as it would have; so does what an earlier command had
    asked for.
    """

    def __init__(
        self,
        cells: Sequence[Sequence[Trial]],
        *,
        left: Collection[str],
        asked: Collection[str],
        judge: Callable[[int], Decision | None],
        expect: Callable[[Trial], None],
    ) -> None:
        """
        Args:
            cells: in their order.
            left: names of trials that shall run unless the question is decided before.
            asked: names of those that were asked for already: they run in any case.
            judge: decides, given how many cells have ended; None: nobody can tell yet.
            expect: told of every trial before it is given.
        """
        self._cells = [list(cell) for cell in cells]
        self._trials = {trial.name: trial for cell in self._cells for trial in cell}
        self._left = set(left)
        self._ended = self._trials.keys() - self._left
        self._asked = [name for name in self._trials if name in set(asked)]
        self._queue = [name for name in self._trials if name in self._left][::-1]
        self._running: set[str] = set()
        self._slots = 1
        self._judge, self._expect = judge, expect
        self.decision: Decision | None = None
        self.epochs = {n: self._trials[n].settings.epochs for n in self._asked if n in self._left}
        if self.complete:
            self._decide()

    # ------------------------------------------------------------------------ before the first one
    def names(self) -> list[str]:
        """Name of every trial that was asked for up to now."""
        return list(self._asked)

    def in_words(self, states: Mapping[str, TrialStatus]) -> str:
        """How much there may be at most, and how much is done."""
        count = Counter(state["status"] for state in states.values())
        text = (
            f"{len(self._cells)} cells (seed, fold) at most, of {len(self._trials)} trials, until "
            f"the question is decided; {count['done']} trials done, {self.complete} cells complete"
        )
        return f"{text}; {self.decision.why}" if self.decision else text

    def losses(self) -> Sequence[Loss]:
        """Losses of every cell."""
        return list({trial.loss_label: trial.loss for trial in self._trials.values()}.values())

    def cohorts(self) -> set[str]:
        """Cohorts of every cell."""
        return {trial.cohort for trial in self._trials.values()}

    # -------------------------------------------------------------------------------- while it runs
    @property
    def complete(self) -> int:
        """How many cells have ended, whatever became of their trials."""
        return sum(all(trial.name in self._ended for trial in cell) for cell in self._cells)

    @property
    def finished(self) -> bool:
        """Whether no trial comes any more: none is left, or the question is decided."""
        return self._next() is None

    def take(self) -> TrialDescription | None:
        """The next trial, if one can run at once: given early, it might be for nothing."""
        name = self._next()
        if name is None or len(self._running) >= self._slots:
            return None
        self._queue.remove(name)
        trial = self._trials[name]
        if name not in self._asked:
            self._expect(trial)
            self._asked.append(name)
        self.epochs[name] = trial.settings.epochs
        self._running.add(name)
        return described(trial)

    def ended(self, name: str) -> None:
        """Ask for a decision, if the trial was the last of its cell."""
        self._running.discard(name)
        self._ended.add(name)
        cell = next(cell for cell in self._cells if any(trial.name == name for trial in cell))
        if all(trial.name in self._ended for trial in cell):
            self._decide()

    def set_slots(self, slots: int) -> None:
        """Hear how many trials can run at a time."""
        self._slots = max(1, slots)

    def to_give_up(self, curves: Mapping[str, Curve]) -> list[str]:
        """None: what was begun is asked for."""
        return []

    def progress_note(self) -> str:
        """How many cells have ended, and what is open."""
        why = f", {self.decision.why}" if self.decision else ""
        return f"{self.complete} of at most {len(self._cells)} cells{why}"

    def _next(self) -> str | None:
        """The first trial that is left; once all is decided, of those that were asked for."""
        if self.decision is None or not self.decision.decided:
            return self._queue[-1] if self._queue else None
        asked = set(self._asked)
        return next((name for name in reversed(self._queue) if name in asked), None)

    def _decide(self) -> None:
        if self.decision is None or not self.decision.decided:
            self.decision = self._judge(self.complete) or self.decision
