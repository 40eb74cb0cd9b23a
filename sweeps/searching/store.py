"""What a search reads and writes of a results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from lesion_core.received import read_table
from sweeps.data import listed
from sweeps.ledger.contents import SearchContent, SweepRequest
from sweeps.ledger.gradients import add_gradients
from sweeps.searching.plan import METRICS
from sweeps.trials.curve import Curve, curve_of

if TYPE_CHECKING:
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial
    from sweeps.ledger.ledger import Ledger


@dataclass(frozen=True)
class Outcome:
    """What the ledger says of a trial."""

    status: str
    """One of `results.STATUSES`."""
    scores: Mapping[str, float] | None = None
    """`results.judged_scores` of a complete one."""
    reason: str = ""
    machines_failed: bool = False
    """They are why it failed: it is run again without being asked to."""


class SearchStore(Protocol):
    """What a search needs of a ledger."""

    def outcome(self, name: str) -> Outcome:
        """How a trial ended, or that it has not."""
        ...

    def curve(self, name: str) -> Curve:
        """The validation scores of a trial that is done, by epoch."""
        ...

    def expect(self, trial: Trial) -> None:
        """List the trial in sweep.json."""
        ...

    def save(self, search: SearchContent) -> None:
        """Write search.json."""
        ...


def read_search(path: Path) -> SearchContent | None:
    """search.json of a results folder; None if it holds no search.

    Raises:
        ValueError: it cannot be read, or is of another schema version.
    """
    from lesion_core import results

    return cast("SearchContent | None", results.read_search(path))


class LedgerStore:
    """A results folder, as a search reads and writes it (`SearchStore`)."""

    def __init__(self, ledger: Ledger, request: SweepRequest, settings: TrainSettings) -> None:
        """
        Args:
            request: what sweep.json shall say (`data.request`), of no trial yet.
            settings: the search's own, from which those of trials may differ.
        """
        self._ledger, self._request, self._settings = ledger, request, settings

    def outcome(self, name: str) -> Outcome:
        """How a trial ended, with the scores of its validation or test cases."""
        state = self._ledger.states([name])[name]
        if state["status"] != "done":
            machines_failed = state["kind"] == "infrastructure"
            return Outcome(state["status"], None, state["error"] or "", machines_failed)
        from lesion_core import results

        file = self._ledger.path / "trials" / name / "cases.parquet"
        cases = read_table(file, results.CASES).to_pandas()
        subjects = {
            case: subject
            for cohort in cases["cohort"].unique()
            for case, subject in results.subjects_of(self._ledger.path, cohort).items()
        }
        scores = results.judged_scores(cases, subjects).to_dict("index")
        if name not in scores:
            reason = "none of the cases that it is judged on has a lesion"
            return Outcome("failed", None, reason)
        return Outcome("done", {metric: float(scores[name][metric]) for metric in METRICS})

    def curve(self, name: str) -> Curve:
        """The validation scores of a trial that is done, by epoch."""
        from lesion_core import results

        file = self._ledger.path / "trials" / name / "cases.parquet"
        return curve_of(read_table(file, results.CASES).to_pylist())

    def expect(self, trial: Trial) -> None:
        """List a trial in sweep.json."""
        row = listed(trial, self._settings)
        self._ledger.write_request({**self._request, "losses": [trial.loss_label], "trials": [row]})
        if trial.split == "test":  # the others are no losses that the report compares
            add_gradients(self._ledger, [trial.loss])

    def save(self, search: SearchContent) -> None:
        """Write search.json."""
        self._ledger.write_search(search)
