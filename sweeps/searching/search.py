"""A search: which trial next, and what becomes of each configuration.

A *configuration* is a setting of a loss's numbers.  It is judged on *cells*, (seed, fold) trials
with a validation part (`Trial.validation_cases`), in a shuffled order that all configurations
share; its score is the mean over its cells.  One that is clearly worse than the best so far, cell
by cell, is pruned.  When all have ended, the best one is run on the test folds of the same cells
beside the losses that it is compared with.

`Search` is a `launch.Supply` and a `sweep.Source`.  All that it knows is in the ledger: trials, and
search.json with the decisions.  It writes there first and tells Optuna (`study`) afterwards, so a
driver can be killed at any moment: the next one finds what was decided, runs what is left and
nothing twice.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from sweeps.searching.optuna_study import MIN_PAIRS, Known, Sampler, Study, ends, grid_points

if TYPE_CHECKING:
    from lesion_core.losses import Loss, Range
    from lesion_core.trial import Trial
    from sweeps.ledger.ledger import Ledger

State = Literal["running", "complete", "pruned", "failed"]
METRICS = ("dice", "sensitivity", "precision")
DUPLICATES = 50
"""So many proposals in a row that are there already: the space has no more."""


class Cell(NamedTuple):
    """Where configurations meet: same initial weights, same batches, same cases."""

    seed: int
    fold: int


def shuffled_cells(seeds: Sequence[int], num_folds: int, order_seed: int) -> list[Cell]:
    """All cells in a random order, so that the first few stand for all."""
    cells = [Cell(seed, fold) for seed in dict.fromkeys(seeds) for fold in range(num_folds)]
    random.Random(order_seed).shuffle(cells)
    return cells


@dataclass(frozen=True)
class Outcome:
    """What the ledger says of a trial."""

    status: str
    """One of `results.STATUSES`."""
    scores: Mapping[str, float] | None = None
    """`results.judged_scores` of a complete one."""
    reason: str = ""
    blameless: bool = False
    """It failed because its machines did: it is run again without being asked to."""


class Records(Protocol):
    """What a search needs of a ledger."""

    def outcome(self, name: str) -> Outcome: ...
    def expect(self, trial: Trial) -> None:
        """List the trial in sweep.json."""
        ...

    def save(self, search: Mapping[str, Any]) -> None:
        """Write search.json."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched, and how it is judged."""

    cohort: str
    loss: str
    """The loss without the numbers that vary."""
    space: Mapping[str, Range]
    objectives: tuple[str, ...]
    cells: tuple[Cell, ...]
    configurations: int
    """How many in all."""
    sampler: Sampler
    prune_p: float
    """0: no pruning."""
    comparators: tuple[str, ...]
    confirm_seeds: tuple[int, ...]
    first: tuple[Mapping[str, float], ...] = ()
    """Configurations to begin with."""

    def terms(self) -> dict[str, Any]:
        """What decides what a score means; a search goes on only under the same terms."""
        return {
            "cohort": self.cohort,
            "loss": self.loss,
            "space": {name: str(where) for name, where in self.space.items()},
            "objectives": list(self.objectives),
            "cells": [list(cell) for cell in self.cells],
        }

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Field by field, why a search that was begun cannot go on under this plan."""
        found = []
        for key, now in self.terms().items():
            before = stored.get(key)
            if before != now and key == "cells":
                found.append("it is judged on other seeds or folds there")
            elif before != now:
                found.append(f"{key} is {_shown(before)} there, {_shown(now)} now")
        grids = [stored.get("sampler") == "grid", self.sampler == "grid"]
        if any(grids) and stored.get("configurations"):
            if not all(grids):
                found.append("a grid is searched as a whole, not joined to another search")
            elif stored["planned"] != self.configurations:
                found.append(
                    f"it is a grid of {stored['planned']} there, of {self.configurations} now, "
                    "which is another one"
                )
        return found

    def joined_with(self, stored: Mapping[str, Any]) -> Plan:
        """With the comparators and fresh seeds that were asked for before."""
        seeds = (*stored["confirm_seeds"], *self.confirm_seeds)
        return replace(
            self,
            comparators=tuple(dict.fromkeys((*stored["comparators"], *self.comparators))),
            confirm_seeds=tuple(dict.fromkeys(seeds)),
        )


@dataclass
class Configuration:
    """One setting, and what is known of it."""

    number: int
    """Of its trial in the study."""
    values: dict[str, float]
    loss: str
    loss_params: str
    state: State = "running"
    trials: dict[int, str] = field(default_factory=dict)
    """Name by cell, of the cells that were begun."""
    score: dict[str, float] | None = None
    """Means over all cells; of a pruned one, estimated from its differences to the best."""
    reason: str | None = None
    blameless: bool = False
    """It failed because its machines did: it is taken up again without being asked to."""
    against: int | None = None
    sampler: str = ""
    """Who proposed it; empty: it was given."""
    prune_p: float = 0.0
    """The threshold that it was held against last."""
    scores: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """By cell; read from the ledger, not stored here."""

    def stored(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "values": self.values,
            "loss": self.loss,
            "loss_params": self.loss_params,
            "state": self.state,
            "trials": {str(cell): name for cell, name in self.trials.items()},
            "score": self.score,
            "reason": self.reason,
            "blameless": self.blameless,
            "against": self.against,
            "sampler": self.sampler,
            "prune_p": self.prune_p,
        }

    @staticmethod
    def of(stored: Mapping[str, Any]) -> Configuration:
        values: dict[str, Any] = dict(stored)
        values["trials"] = {int(cell): name for cell, name in stored["trials"].items()}
        return Configuration(**values)

    def mean(self) -> dict[str, float]:
        return {
            metric: math.fsum(scores[metric] for scores in self.scores.values()) / len(self.scores)
            for metric in METRICS
        }

    def paired_estimate(self, other: Configuration) -> dict[str, float]:
        """The other's mean over all its cells, plus the mean difference in the cells of both.

        A plain mean over the few cells that a pruned one has met would say as much about which
        cells these are as about the configuration.
        """
        both = self.scores.keys() & other.scores.keys()
        return {
            metric: value
            + math.fsum(self.scores[c][metric] - other.scores[c][metric] for c in both) / len(both)
            for metric, value in other.mean().items()
        }


@dataclass(frozen=True)
class _Work:
    """What a trial is for."""

    trial: Trial
    configuration: Configuration | None = None
    """None: it belongs to the end, when the search itself is over."""
    cell: int = -1


class Search:
    """Gives trials one by one, and learns from what has ended (`launch.Supply`)."""

    def __init__(
        self,
        plan: Plan,
        study: Study,
        records: Records,
        loss: Callable[[Mapping[str, float] | str], Loss],
        trial: Callable[[Loss, Cell, bool], Trial],
        *,
        slots: int = 1,
    ) -> None:
        """
        Args:
            loss: of a configuration's values, or of a comparator's name.
            trial: of a loss in a cell; True: with a validation part, False: on the test fold.
            slots: trials that run at a time.
        """
        self.plan, self.slots = plan, slots
        self.epochs: dict[str, int] = {}
        self.configurations: list[Configuration] = []
        self.importance: dict[str, dict[str, float]] = {}
        self.chosen: int | None = None
        self.tested: list[int] = []
        """Every configuration that was ever chosen, and so tested."""
        self._study, self._records = study, records
        self._loss, self._trial = loss, trial
        self._again: deque[_Work] = deque()
        self._end: deque[_Work] | None = None
        self._under_way: dict[str, _Work] = {}
        self._exhausted = False
        self._retry_failed = False

    # -------------------------------------------------------------------------- launch.Supply
    def take(self) -> Mapping[str, Any] | None:
        """The next trial, unless enough are under way: a decision taken early is taken blindly."""
        from sweeps.options import described

        if len(self._under_way) > self.slots:  # one more than can run keeps every worker busy
            return None
        work = self._next()
        if work is None:
            return None
        trial, configuration = work.trial, work.configuration
        if configuration is not None and work.cell not in configuration.trials:
            configuration.trials[work.cell] = trial.name
            self._save()
        self._records.expect(trial)
        self._under_way[trial.name] = work
        self.epochs[trial.name] = trial.settings.epochs
        return described(trial)

    @property
    def finished(self) -> bool:
        return self._searched and not self._again and self._end is not None and not self._end

    def ended(self, name: str) -> None:
        work = self._under_way.pop(name)
        if work.configuration is not None:
            self._learn(work.configuration, work.cell, self._records.outcome(name))
        if self._searched and self._end is None:
            self._conclude()

    def note(self) -> str:
        ended = [one for one in self.configurations if one.state != "running"]
        pruned = sum(one.state == "pruned" for one in ended)
        parts = [f"{len(ended)}/{self.plan.configurations} configurations", f"{pruned} pruned"]
        if front := self.front():
            objective = self.plan.objectives[0]
            parts.append(f"best {objective} {(front[0].score or {})[objective]:.3f}")
        return ", ".join(parts)

    # -------------------------------------------------------------------------------- resuming
    def resume(self, stored: Mapping[str, Any] | None, *, retry_failed: bool = False) -> None:
        """Take over what a search in this ledger has found and left.

        Raises:
            ValueError: it was another search.
        """
        self._retry_failed = retry_failed
        if stored is not None:
            differences = self.plan.differences(stored)
            if differences:
                raise ValueError(
                    f"the results folder holds another search: {'; '.join(differences)}; choose "
                    "another folder with --results, or ask for the same"
                )
            self.configurations = [Configuration.of(one) for one in stored["configurations"]]
            self.importance, self.tested = stored["importance"], stored["tested"]
            self._exhausted = stored["exhausted"] and (
                self.plan.configurations <= stored["planned"]
            )
            self.plan = self.plan.joined_with(stored)
        for one in self.configurations:
            self._recall(one)
        self._study.agree([self._known(one) for one in self.configurations])
        for one in self.configurations:
            self._settle(one)
        if self._searched:
            self._conclude()

    def _recall(self, one: Configuration) -> None:
        """Read its cells back: it may have to run on, though its end was decided and told."""
        before = one.state
        blame, again = [], []
        for cell, name in one.trials.items():
            outcome = self._records.outcome(name)
            if outcome.status == "done" and outcome.scores is not None:
                one.scores[cell] = outcome.scores
            elif outcome.status in ("failed", "diverged") and not self._to_retry(outcome):
                blame.append(f"{name}: {outcome.reason}")
            else:
                again.append(cell)
        if blame:
            one.state, one.score, one.reason, one.blameless = "failed", None, blame[0], False
        elif before == "failed" or (before == "complete" and again):
            one.state, one.score, one.reason, one.blameless = "running", None, None, False
        for cell in again:
            trial = self._trial(self._loss(one.values), self.plan.cells[cell], True)
            self._again.append(_Work(trial, one, cell))

    def _to_retry(self, outcome: Outcome) -> bool:
        return outcome.blameless or self._retry_failed

    def _known(self, one: Configuration) -> Known:
        ended = one.state in ("complete", "pruned")
        return Known(
            number=one.number,
            values=one.values,
            reports={cell: s[self.plan.objectives[0]] for cell, s in one.scores.items()},
            told=self._objectives(one) if ended else None,
            failed=one.state == "failed",
            pruned=one.state == "pruned",
        )

    # ---------------------------------------------------------------------------- sweep.Source
    @property
    def any_left(self) -> bool:
        return not self.finished

    def names(self) -> list[str]:
        """Of all trials that were begun, or belong to the end."""
        begun = [name for one in self.configurations for name in one.trials.values()]
        return [*begun, *(work.trial.name for work in self._end_works())]

    def counted(self, states: Mapping[str, Mapping[str, Any]]) -> str:
        count = Counter(one.state for one in self.configurations)
        ended = ", ".join(f"{count[state]} {state}" for state in count) or "none begun"
        done = sum(state["status"] == "done" for state in states.values())
        return f"{self.plan.configurations} configurations ({ended}), {done} trials done"

    def losses(self) -> list[Loss]:
        """Their modules are the same, whatever their numbers."""
        return [self._loss({}), *map(self._loss, self.plan.comparators)]

    def cohorts(self) -> set[str]:
        return {self.plan.cohort}

    def supply(self, slots: int) -> Search:
        self.slots = slots
        return self

    def room(self, slots: int) -> None:
        self.slots = slots

    # -------------------------------------------------------------------------------- deciding
    def _next(self) -> _Work | None:
        if self._again:
            return self._again.popleft()
        running = [one for one in self.configurations if one.state == "running"]
        for one in running:
            if self._may_have_another(one) and (work := self._next_cell(one)):
                return work
        if not self._all_begun and (begun := self._begin()) is not None:
            return self._next_cell(begun)
        for one in running:
            if work := self._next_cell(one):
                return work
        return self._end.popleft() if self._end else None

    def _next_cell(self, one: Configuration) -> _Work | None:
        for cell, where in enumerate(self.plan.cells):
            if cell not in one.trials:
                return _Work(self._trial(self._loss(one.values), where, True), one, cell)
        return None

    def _may_have_another(self, one: Configuration) -> bool:
        """Nobody is pruned before MIN_PAIRS cells, so that many at a time cost nothing; the next
        ones wait until these have been looked at."""
        begun = sum(work.configuration is one for work in self._under_way.values())
        looked_at = len(one.scores) >= MIN_PAIRS and begun < MIN_PAIRS
        return len(one.trials) < MIN_PAIRS or looked_at

    def _begin(self) -> Configuration | None:
        from lesion_core.losses import loss_label, loss_to_dict

        for _ in range(DUPLICATES):
            given = self._prescribed()
            if given is None and self.plan.sampler == "grid":
                break
            number, values = self._study.ask(given)
            twin = next((one for one in self.configurations if one.values == values), None)
            if twin is not None:  # its trials are there already
                self._study.tell(number, None)
                continue
            loss = self._loss(values)
            stored = json.dumps(loss_to_dict(loss), sort_keys=True)
            one = Configuration(
                number,
                values,
                loss_label(loss),
                stored,
                sampler="" if given is not None else self.plan.sampler,
                prune_p=self.plan.prune_p,
            )
            self.configurations.append(one)
            return one
        self._exhausted = True
        if self._searched and self._end is None:
            self._conclude()
        return None

    def _prescribed(self) -> Mapping[str, float] | None:
        """Values that no sampler chooses: those to begin with, and those of a grid."""
        points = list(self.plan.first)
        if self.plan.sampler == "grid":
            grid = grid_points(self.plan.space, self.plan.configurations)
            random.Random(0).shuffle(grid)
            points = grid
        tried = [one.values for one in self.configurations]
        return next((point for point in points if point not in tried), None)

    def _learn(self, one: Configuration, cell: int, outcome: Outcome) -> None:
        if outcome.status == "done" and outcome.scores is not None:
            one.scores[cell] = outcome.scores
            if one.state == "running":  # else it was under way when that ended
                self._study.report(one.number, cell, outcome.scores[self.plan.objectives[0]])
                self._settle(one)
        elif one.state != "failed":
            # Never a mean over the cells that went well.
            told = one.state != "running"
            reason = outcome.reason or f"it is {outcome.status}"
            one.state, one.score, one.blameless = "failed", None, outcome.blameless
            one.reason = f"{one.trials[cell]}: {reason}"
            self._save()
            if not told:
                self._study.tell(one.number, None)

    def _settle(self, one: Configuration) -> None:
        """Complete or pruned, if it is."""
        if one.state != "running":
            return
        one.prune_p = self.plan.prune_p
        if len(one.scores) == len(self.plan.cells):
            one.state, one.score = "complete", one.mean()
        elif self.plan.prune_p > 0 and (best := self._study.hopeless(one.number)) is not None:
            against = next(other for other in self.configurations if other.number == best)
            one.state, one.against = "pruned", best
            one.score = one.paired_estimate(against)
        else:
            return
        self._save()
        self._study.tell(one.number, self._objectives(one), pruned=one.state == "pruned")

    # ---------------------------------------------------------------------------------- the end
    @property
    def _all_begun(self) -> bool:
        return self._exhausted or len(self.configurations) >= self.plan.configurations

    @property
    def _searched(self) -> bool:
        """Every configuration has ended."""
        return self._all_begun and all(one.state != "running" for one in self.configurations)

    def front(self) -> list[Configuration]:
        """The complete configurations that no other one beats in every objective, best Dice first
        (the best one alone if there is one objective)."""
        complete = [one for one in self.configurations if one.state == "complete"]
        values = {one.number: self._objectives(one) for one in complete}

        def beaten(mine: Sequence[float], theirs: Sequence[float]) -> bool:
            return all(b >= a for a, b in zip(mine, theirs, strict=True)) and theirs != mine

        front = [
            one
            for one in complete
            if not any(beaten(values[one.number], theirs) for theirs in values.values())
        ]
        return sorted(front, key=lambda one: -(one.score or {})["dice"])

    def _conclude(self) -> None:
        """Choose, and line up what the end needs; what is there already is not run again.

        Not before every configuration had its chance: one that lost its machines is taken up by
        the next command, and the test folds are not opened for a choice that may change.
        """
        self.importance = self._study.importance()
        front = self.front()
        if front and not any(one.blameless for one in self.configurations):
            self.chosen = front[0].number
            if self.chosen not in self.tested:
                self.tested.append(self.chosen)
        self._end = deque(work for work in self._end_works() if self._is_to_run(work.trial.name))
        self.epochs |= {work.trial.name: work.trial.settings.epochs for work in self._end}
        self._save()

    def _is_to_run(self, name: str) -> bool:
        outcome = self._records.outcome(name)
        failed = outcome.status in ("failed", "diverged")
        return outcome.status != "done" and (not failed or self._to_retry(outcome))

    def in_fold(self) -> dict[int, int]:
        """By fold, the complete configuration with the best Dice in that fold's cells.

        Validation parts of other folds hold this fold's test cases; such a choice has seen none
        of them.
        """
        complete = [one for one in self.configurations if one.state == "complete"]

        def score(one: Configuration, fold: int) -> float:
            cells = [cell for cell, where in enumerate(self.plan.cells) if where.fold == fold]
            return math.fsum(one.scores[cell]["dice"] for cell in cells)

        folds = sorted({cell.fold for cell in self.plan.cells})
        return {fold: max(complete, key=lambda one: score(one, fold)).number for fold in folds}

    def _end_works(self) -> list[_Work]:
        """The chosen one, its comparators and each fold's own choice on the test folds; then on
        fresh seeds again."""
        chosen = next((one for one in self.configurations if one.number == self.chosen), None)
        if chosen is None:
            return []
        losses = {
            loss: None
            for loss in [self._loss(chosen.values), *map(self._loss, self.plan.comparators)]
        }
        fresh = shuffled_cells(
            self.plan.confirm_seeds, 1 + max(cell.fold for cell in self.plan.cells), 0
        )
        parts = [(cell, False) for cell in self.plan.cells] + [(cell, True) for cell in fresh]
        trials = [
            self._trial(loss, cell, validation) for cell, validation in parts for loss in losses
        ]
        by_number = {one.number: one for one in self.configurations}
        of_fold = {f: self._loss(by_number[n].values) for f, n in self.in_fold().items()}
        trials += [self._trial(of_fold[cell.fold], cell, False) for cell in self.plan.cells]
        return [_Work(trial) for trial in {trial.name: trial for trial in trials}.values()]

    def _objectives(self, one: Configuration) -> tuple[float, ...]:
        assert one.score is not None
        return tuple(one.score[name] for name in self.plan.objectives)

    def _save(self) -> None:
        self._records.save(
            {
                **self.plan.terms(),
                "ranges": {field: list(ends(r)) for field, r in self.plan.space.items()},
                "sampler": self.plan.sampler,
                "prune_p": self.plan.prune_p,
                "planned": self.plan.configurations,
                "exhausted": self._exhausted,
                "configurations": [one.stored() for one in self.configurations],
                "importance": self.importance,
                "chosen": self.chosen,
                "in_fold": {} if self.chosen is None else self.in_fold(),
                "tested": self.tested,
                "comparators": list(self.plan.comparators),
                "confirm_seeds": list(self.plan.confirm_seeds),
            }
        )


class InLedger:
    """A search's records in a results folder (`Records`)."""

    def __init__(self, ledger: Ledger, request: Mapping[str, Any]) -> None:
        """``request``: what sweep.json shall say (`options.request`), of no trial yet."""
        self._ledger, self._request = ledger, request

    def outcome(self, name: str) -> Outcome:
        state = self._ledger.states([name])[name]
        if state["status"] != "done":
            blameless = state.get("kind") == "infrastructure"
            return Outcome(state["status"], None, state["error"] or "", blameless)
        import pyarrow.parquet as pq

        from lesion_core import results

        file = self._ledger.path / "trials" / name / "cases.parquet"
        scores = results.judged_scores(pq.read_table(file, schema=results.CASES).to_pandas())
        if name not in scores.index:
            reason = "none of the cases that it is judged on has a lesion"
            return Outcome("failed", None, reason)
        row = scores.loc[name].to_dict()
        return Outcome("done", {metric: float(row[metric]) for metric in METRICS})

    def expect(self, trial: Trial) -> None:
        one = {"losses": [trial.loss_label], "trials": [trial.row()]}
        self._ledger.ask({**self._request, **one})

    def save(self, search: Mapping[str, Any]) -> None:
        self._ledger.write_search(search)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {where}" for name, where in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
