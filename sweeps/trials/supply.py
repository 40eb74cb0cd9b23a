"""Where the next trial comes from: a list that is known beforehand, or a search that decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from sweeps.ledger.contents import TrialDescription, described
from sweeps.trials.curve import Curve

if TYPE_CHECKING:
    from lesion_core.losses import Loss
    from lesion_core.results import TrialStatus
    from lesion_core.trial import Trial


class Supply(Protocol):
    """The trials of a sweep, given one by one; a search decides on the next by what has ended."""

    # ------------------------------------------------------------------------ before the first one
    def names(self) -> list[str]:
        """Name of every trial that was asked for up to now, done or not, and was not given up."""
        ...

    def in_words(self, states: Mapping[str, TrialStatus]) -> str:
        """How much is done and how much is left, for people."""
        ...

    def losses(self) -> Sequence[Loss]:
        """Losses whose modules the workers must be able to import."""
        ...

    def cohorts(self) -> set[str]:
        """Names of the cohorts whose images the trials need."""
        ...

    # -------------------------------------------------------------------------------- while it runs
    @property
    def epochs(self) -> Mapping[str, int]:
        """Epochs of every trial known so far that shall run, by name: what progress counts."""
        ...

    @property
    def finished(self) -> bool:
        """Whether no trial will ever come again.

        If none is running, `take` gives one or this is true.
        """
        ...

    def take(self) -> TrialDescription | None:
        """The next trial; None: none for now, or none any more."""
        ...

    def ended(self, name: str) -> None:
        """Hear that the ledger has this trial done or failed."""
        ...

    def set_slots(self, slots: int) -> None:
        """Hear how many trials can run at a time from now on: machines join and leave."""
        ...

    def to_give_up(self, curves: Mapping[str, Curve]) -> list[str]:
        """Those of the running trials that shall leave a checkpoint and end, by their scores so
        far; called by a thread of its own, again and again.  `ended` follows."""
        ...

    def progress_note(self) -> str:
        """How far it is, beyond the number of trials; may be empty."""
        ...


class FixedSupply:
    """Trials that are all known beforehand, given in order (`Supply`)."""

    def __init__(self, trials: Sequence[Trial], left: Collection[str] | None = None) -> None:
        """
        Args:
            left: names of those that shall run; None: all.
        """
        self._trials = {trial.name: trial for trial in trials}
        self._to_run = list(self._trials) if left is None else list(left)
        self.epochs = {name: self._trials[name].settings.epochs for name in self._to_run}
        self._left = self._to_run[::-1]

    def names(self) -> list[str]:
        """Name of every trial, done or not."""
        return list(self._trials)

    def in_words(self, states: Mapping[str, TrialStatus]) -> str:
        """How many trials are done, are left, or failed before and are left out."""
        count = Counter(state["status"] for state in states.values())
        parts = [
            f"{len(states)} trials", f"{count['done']} done", f"{len(self._to_run)} to run",
        ]  # fmt: skip
        skipped = sum(
            states[name]["status"] in ("failed", "diverged")
            for name in states.keys() - set(self._to_run)
        )
        if skipped:
            parts.append(f"{skipped} failed before (--retry-failed runs them again)")
        return ", ".join(parts)

    def losses(self) -> Sequence[Loss]:
        """Losses of the trials that shall run."""
        return [self._trials[name].loss for name in self._to_run]

    def cohorts(self) -> set[str]:
        """Cohorts of the trials that shall run."""
        return {self._trials[name].cohort for name in self._to_run}

    @property
    def finished(self) -> bool:
        """Whether every trial was given."""
        return not self._left

    def take(self) -> TrialDescription | None:
        """The next trial; None: none any more."""
        return described(self._trials[self._left.pop()]) if self._left else None

    def ended(self, name: str) -> None:
        """Nothing follows from it here."""

    def set_slots(self, slots: int) -> None:
        """Nothing follows from it here."""

    def to_give_up(self, curves: Mapping[str, Curve]) -> list[str]:
        """None: all are asked for."""
        return []

    def progress_note(self) -> str:
        """Nothing: the number of trials says it all."""
        return ""
