"""A grid that ends within some hours, with the same cells of every arm: `--max-hours`.

Cells (seed, fold), all arms of one together, are begun one after the other, and none that is not
expected to end in time.  That depends on time alone and never on results, so it biases nothing.
What still runs at the limit is stopped as by SIGTERM: it leaves a checkpoint, and the command ends
with status 143.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from lesion_core.progress import duration
from sweeps.data import request
from sweeps.ledger.contents import MaxHoursEntry, SweepRequest
from sweeps.ledger.ledger import Ledger
from sweeps.options import Machines
from sweeps.trials.within_hours import WithinHours

if TYPE_CHECKING:
    from lesion_core.results import TrialStatus
    from lesion_core.trial import Trial
    from sweeps.sweep import SweepPlan


@dataclass(frozen=True, eq=False)
class Limit:
    """What is trained in which order, and until when."""

    plan: SweepPlan
    """Of every trial that there may be."""
    hours: float
    machines: Machines
    begun: float = field(default_factory=time.monotonic)

    @property
    def cells(self) -> list[list[Trial]]:
        """Trials of every (seed, fold), in order."""
        return [
            list(cell)
            for _, cell in groupby(self.plan.trials, lambda trial: (trial.seed, trial.fold))
        ]

    @property
    def seconds_left(self) -> float:
        """Until the limit."""
        return 3600 * self.hours - (time.monotonic() - self.begun)

    @property
    def entry(self) -> MaxHoursEntry:
        """What sweep.json says of it."""
        return {"hours": self.hours, "cells": len(self.cells)}

    def request(self, trials: Sequence[Trial]) -> SweepRequest:
        """What sweep.json shall say once these trials are asked for."""
        plan = self.plan
        asked = request(trials, plan.data, plan.settings, plan.num_folds, plan.labels)
        return {**asked, "max_hours": self.entry}

    def as_plan(self) -> SweepPlan:
        """The plan whose cells come one by one."""
        return replace(
            self.plan, trials=(), may_run=self.plan.trials, supply=self.supply, max_hours=self.entry
        )

    def supply(self, ledger: Ledger, retry_failed: bool) -> WithinHours:
        """Begin, or go on where the ledger says it is (`SweepPlan.supply`)."""
        from sweeps import estimate

        ledger.refuse_other_sweep(self.request(self.plan.trials))
        left = ledger.left_to_run(
            [trial.name for trial in self.plan.trials], retry_failed=retry_failed
        )
        expected = estimate.seconds_by_trial(
            [trial for trial in self.plan.trials if trial.name in set(left)],
            self.plan.data,
            self.machines,
            self.plan.results,
        )
        return WithinHours(
            self.cells,
            left=left,
            expected=expected,
            seconds=self.seconds_left,
            expect=lambda cell: self._expect(ledger, cell),
        )

    def _expect(self, ledger: Ledger, cell: Sequence[Trial]) -> None:
        ledger.write_request(self.request(cell))

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Stop what runs at the limit, as SIGTERM does."""
        timer = threading.Timer(max(0.0, self.seconds_left), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def dry_run(self, machines: Machines, *, retry_failed: bool = False) -> int:
        """Print the order, the limit and what would run at most; writes nothing."""
        print(
            f"within {duration(3600 * self.hours)}, whole cells (seed, fold) of all arms, at most "
            f"{len(self.cells)}, seed by seed. What follows is the most there can be:"
        )
        return self.plan.dry_run(machines, retry_failed=retry_failed)

    @property
    def none_is_done(self) -> bool:
        """Whether no trial is: there is nothing to report."""
        return not any(state["status"] == "done" for state in self._states().values())

    def _states(self) -> dict[str, TrialStatus]:
        return Ledger(self.plan.results).states([trial.name for trial in self.plan.trials])

    def summary(self) -> str:
        """Which cells are complete, in a line."""
        states = self._states()
        complete = [
            (cell[0].seed, cell[0].fold)
            for cell in self.cells
            if all(states[trial.name]["status"] == "done" for trial in cell)
        ]
        if all(state["status"] == "missing" for state in states.values()):
            return (
                f"none of {len(self.cells)} cells was begun: no whole one, with every arm, can be "
                f"expected to end within {duration(3600 * self.hours)}; give it more --max-hours"
            )
        seeds = dict.fromkeys(seed for seed, _ in complete)
        where = "; ".join(
            f"seed {seed} folds {' '.join(str(fold) for own, fold in complete if own == seed)}"
            for seed in seeds
        )
        text = f"{len(complete)} of {len(self.cells)} cells are complete, with every arm"
        more = "" if len(complete) == len(self.cells) else "; the same command adds more"
        return f"{text}{f': {where}' if where else ''}{more}"
