"""A grid's cells in an order fixed beforehand, as long as the next whole one can end in time."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING

from lesion_core.progress import duration
from sweeps.ledger.contents import TrialDescription, described
from sweeps.trials.curve import Curve

if TYPE_CHECKING:
    from lesion_core.losses import Loss
    from lesion_core.results import TrialStatus
    from lesion_core.trial import Trial


class WithinHours:
    """Gives whole cells one after the other, and begins none that is not expected to end in time
    (`Supply`).

    A cell is the trials of one (seed, fold): all arms.  How long it takes goes by the trials that
    have ended, each arm's by its own where there are any.
    """

    def __init__(
        self,
        cells: Sequence[Sequence[Trial]],
        *,
        left: Collection[str],
        expected: Mapping[str, float],
        seconds: float,
        expect: Callable[[Sequence[Trial]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            cells: in their order.
            left: names of trials that shall run.
            expected: seconds that each trial should take, by what is known before.
            seconds: until the limit, from now.
            expect: told of the trials of a cell before it is begun.
            clock: seconds that pass.
        """
        self._cells = [list(cell) for cell in cells]
        self._trials = {trial.name: trial for cell in self._cells for trial in cell}
        self._left = {name for name in self._trials if name in set(left)}
        self._waiting = [cell for cell in self._cells if any(t.name in self._left for t in cell)]
        self._asked = [t.name for cell in self._cells if cell not in self._waiting for t in cell]
        self._queue: list[Trial] = []
        self._running: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self._expected, self._expect, self._clock = expected, expect, clock
        self._end = clock() + seconds
        self._slots = max(len(cell) for cell in self._cells)  # until it is known: enough
        self.epochs: dict[str, int] = {}

    # ------------------------------------------------------------------------ before the first one
    def names(self) -> list[str]:
        """Name of every trial of the cells that were begun up to now, or are complete."""
        return list(self._asked)

    def in_words(self, states: Mapping[str, TrialStatus]) -> str:
        """How much there may be at most, and how long it may take."""
        count = Counter(state["status"] for state in states.values())
        limit = duration(self._end - self._clock())
        none = "; the next cell should take longer" if self._waiting and not self._fits() else ""
        return (
            f"{len(self._cells)} cells (seed, fold) at most, of {len(self._trials)} trials, whole "
            f"cells that can end within {limit}; {count['done']} trials done{none}"
        )

    def losses(self) -> Sequence[Loss]:
        """Losses of every cell."""
        return list({trial.loss_label: trial.loss for trial in self._trials.values()}.values())

    def cohorts(self) -> set[str]:
        """Cohorts of every cell."""
        return {trial.cohort for trial in self._trials.values()}

    # -------------------------------------------------------------------------------- while it runs
    @property
    def finished(self) -> bool:
        """Whether no trial comes any more: none is left, or no cell can end in time."""
        return not self._queue and not (self._running or self._fits())

    def take(self) -> TrialDescription | None:
        """The next trial, of a new cell only if that can be expected to end in time."""
        if len(self._running) >= self._slots:
            return None
        if not self._queue and self._fits():
            cell = self._waiting.pop(0)
            self._expect(cell)
            self._asked += [trial.name for trial in cell]
            self._queue = [trial for trial in cell if trial.name in self._left]
            self.epochs |= {trial.name: trial.settings.epochs for trial in self._queue}
        if not self._queue:
            return None
        trial = self._queue.pop(0)
        self._running[trial.name] = self._clock()
        return described(trial)

    def ended(self, name: str) -> None:
        """Note how long the trial took."""
        if name in self._running:
            self._measured[name] = self._clock() - self._running.pop(name)

    def set_slots(self, slots: int) -> None:
        """Hear how many trials can run at a time."""
        self._slots = max(1, slots)

    def to_give_up(self, curves: Mapping[str, Curve]) -> list[str]:
        """None: what was begun is asked for."""
        return []

    def progress_note(self) -> str:
        """How many cells were begun, and how much time is left."""
        begun = len(self._cells) - len(self._waiting)
        left = duration(max(0.0, self._end - self._clock()))
        return f"{begun} of at most {len(self._cells)} cells begun, {left} left"

    def _fits(self) -> bool:
        """Whether there is another cell, and it can be expected to end in time."""
        if not self._waiting:
            return False
        now = self._clock()
        under_way = [
            max(0.0, self._seconds(self._trials[name]) - (now - since))
            for name, since in self._running.items()
        ]
        work = [self._seconds(t) for t in self._waiting[0] if t.name in self._left]
        return now + makespan(under_way, work, self._slots) <= self._end

    def _seconds(self, trial: Trial) -> float:
        """How long a trial should take: as others of its arm did, or as was expected, corrected by
        how wrong that was of the trials that have ended."""
        own = [
            seconds
            for name, seconds in self._measured.items()
            if _arm(self._trials[name]) == _arm(trial)
        ]
        if own:
            return mean(own)
        known = sum(self._expected[name] for name in self._measured)
        wrong = sum(self._measured.values()) / known if known else 1.0
        return self._expected[trial.name] * wrong


def makespan(under_way: Sequence[float], work: Sequence[float], slots: int) -> float:
    """Seconds until all work is done that is given in order to whichever slot is free first.

    >>> makespan([1.0], [5.0, 5.0, 2.0], 2)
    7.0
    """
    free = [*under_way, *[0.0] * max(0, slots - len(under_way))]
    heapq.heapify(free)
    end = max(free)
    for seconds in work:
        begun = heapq.heappop(free)
        heapq.heappush(free, begun + seconds)
        end = max(end, begun + seconds)
    return end


def _arm(trial: Trial) -> tuple[object, ...]:
    return trial.cohort, trial.loss_label, trial.settings
