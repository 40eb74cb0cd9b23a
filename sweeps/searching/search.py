"""A search: which trial next, and what becomes of each configuration.

A *configuration* is a setting of the searched fields.  It is judged on *cells*, (seed, fold) trials
with a validation part (`Trial.validation_cases`), in a shuffled order that all configurations
share; its score is the mean over its cells.  One that is clearly worse than the best so far, cell
by cell, is pruned.  When all have ended, the best one is run on the test folds of the same cells
beside the losses that it is compared with.

`Search` is a `trials.supply.Supply`.  All that it knows is in the ledger: trials, and
search.json with the decisions.  It writes there first and tells Optuna (`study`) afterwards, so a
driver can be killed at any moment: the next one finds what was decided, runs what is left and
nothing twice.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesion_core.search_space import grid_points
from sweeps.ledger.contents import SearchContent, TrialDescription, described
from sweeps.searching.optuna_study import (
    MIN_PAIRS,
    CurveRule,
    KnownConfiguration,
    OptunaStudy,
)
from sweeps.searching.plan import Cell, Configuration, SearchPlan, shuffled_cells
from sweeps.searching.store import Outcome, SearchStore
from sweeps.trials.curve import Curve

if TYPE_CHECKING:
    from lesion_core.losses import Loss
    from lesion_core.results import TrialStatus
    from lesion_core.search_space import Value
    from lesion_core.trial import Trial

DUPLICATES = 50
"""So many proposals in a row that are there already: the space has no more."""


@dataclass(frozen=True)
class _Assignment:
    """A trial, and the configuration and cell that it judges."""

    trial: Trial
    configuration: Configuration | None = None
    """None: it judges none, and belongs to the end, after the search."""
    cell: int = -1


class Search:
    """Gives trials one by one, and decides on the next by what has ended (`Supply`)."""

    def __init__(
        self,
        plan: SearchPlan,
        study: OptunaStudy,
        store: SearchStore,
        trial: Callable[[Mapping[str, Value] | str, Cell, bool], Trial],
        *,
        slots: int = 1,
    ) -> None:
        """
        Args:
            trial: makes the trial of a configuration's values, or of a comparator's name, in a
                cell; True: with a validation part, False: on the test fold.
            slots: how many trials run at a time.
        """
        self.plan, self.slots = plan, slots
        self.epochs: dict[str, int] = {}
        self.configurations: list[Configuration] = []
        self.importance: dict[str, dict[str, float]] = {}
        self.chosen: int | None = None
        self.tested: list[int] = []
        """Every configuration that was ever chosen, and so tested."""
        self._study, self._store = study, store
        self._trial = trial
        self._to_repeat: deque[_Assignment] = deque()
        self._final: deque[_Assignment] | None = None
        self._running: dict[str, _Assignment] = {}
        self._exhausted = False
        self._retry_failed = False
        self._curves: CurveRule | None = None
        self._curve_of: dict[str, dict[int, float]] = {}
        """Validation scores by epoch of trials that run, or are done."""
        self._given_up: set[str] = set()
        """Trials that run and are asked to end."""
        self._lock = threading.RLock()
        """One thread hears of ends, another asks whether a trial is hopeless."""
        if plan.stop_trials != "never":
            epochs = trial({}, plan.cells[0], True).settings.epochs
            self._curves = CurveRule(plan.stop_trials, epochs)

    # ------------------------------------------------------------------------- trials one by one
    def take(self) -> TrialDescription | None:
        """The next trial, unless enough are under way: a decision taken early is taken blindly."""
        if len(self._running) > self.slots:  # one more than can run keeps every worker busy
            return None
        assignment = self._next()
        if assignment is None:
            return None
        trial, configuration = assignment.trial, assignment.configuration
        if configuration is not None and assignment.cell not in configuration.trials:
            configuration.trials[assignment.cell] = trial.name
            self._save()
        self._store.expect(trial)
        self._running[trial.name] = assignment
        self.epochs[trial.name] = trial.settings.epochs
        return described(trial)

    @property
    def finished(self) -> bool:
        """Whether no trial will ever come again."""
        return (
            self._searched and not self._to_repeat and self._final is not None and not self._final
        )

    def ended(self, name: str) -> None:
        """Learn from a trial that the ledger has done or failed, or that was given up."""
        with self._lock:
            self._ended(name)

    def _ended(self, name: str) -> None:
        assignment = self._running.pop(name)
        if assignment.configuration is not None:
            outcome = self._store.outcome(name)
            self._learn_curve(assignment, outcome)
            given_up = name in self._given_up
            self._given_up.discard(name)
            if given_up and outcome.status not in ("done", "failed", "diverged"):
                self._stop(assignment.configuration, assignment.cell)
            else:
                self._learn(assignment.configuration, assignment.cell, outcome)
        if self._searched and self._final is None:
            self._conclude()

    def to_give_up(self, curves: Mapping[str, Curve]) -> list[str]:
        """The running trials that are hopeless by their validation curves, and those of
        configurations that have ended."""
        with self._lock:
            return self._to_give_up(curves)

    def _to_give_up(self, curves: Mapping[str, Curve]) -> list[str]:
        if self._curves is None:
            return []
        for name, curve in curves.items():
            assignment = self._running.get(name)
            if assignment is None or assignment.configuration is None or name in self._given_up:
                continue
            self._curve_of.setdefault(name, {}).update(curve)
            ended = assignment.configuration.state in ("pruned", "failed")
            if ended or self._curves.is_hopeless(assignment.cell, name, curve):
                self._given_up.add(name)
        return [name for name in self._given_up if name in curves]

    def progress_note(self) -> str:
        """How many configurations have ended, and the best score so far."""
        ended = [each for each in self.configurations if each.state != "running"]
        pruned = sum(each.state == "pruned" for each in ended)
        parts = [f"{len(ended)}/{self.plan.configurations} configurations", f"{pruned} pruned"]
        if front := self.pareto_front():
            objective = self.plan.objectives[0]
            parts.append(f"best {objective} {(front[0].score or {})[objective]:.3f}")
        return ", ".join(parts)

    # -------------------------------------------------------------------------------- resuming
    def resume(self, stored: SearchContent | None, *, retry_failed: bool = False) -> None:
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
            self.configurations = [Configuration.of(each) for each in stored["configurations"]]
            self.importance, self.tested = stored["importance"], stored["tested"]
            self._exhausted = stored["exhausted"] and (
                self.plan.configurations <= stored["planned"]
            )
            self.plan = self.plan.joined_with(stored)
        for configuration in self.configurations:
            self._read_scores(configuration)
            self._read_curves(configuration)
        self._study.reconcile([self._for_optuna(each) for each in self.configurations])
        for configuration in self.configurations:
            self._end_if_decided(configuration)
        if self._searched:
            self._conclude()

    def _read_scores(self, configuration: Configuration) -> None:
        """Read a configuration's scores back; it may run on, though its end was decided before."""
        before = configuration.state
        blame, again = [], []
        for cell, name in configuration.trials.items():
            outcome = self._store.outcome(name)
            if outcome.status == "done" and outcome.scores is not None:
                configuration.scores[cell] = outcome.scores
            elif cell in configuration.stopped:  # its end was decided, and is no failure
                continue
            elif outcome.status in ("failed", "diverged") and not self._to_retry(outcome):
                blame.append(f"{name}: {outcome.reason}")
            else:
                again.append(cell)
        if blame:
            configuration.state, configuration.reason = "failed", blame[0]
            configuration.score, configuration.machines_failed = None, False
        elif before == "failed" or (before == "complete" and again):
            configuration.state, configuration.reason = "running", None
            configuration.score, configuration.machines_failed = None, False
        for cell in again:
            trial = self._trial(configuration.values, self.plan.cells[cell], True)
            self._to_repeat.append(_Assignment(trial, configuration, cell))

    def _read_curves(self, configuration: Configuration) -> None:
        """Read the curves back that others are compared with."""
        if self._curves is None:
            return
        for cell in configuration.scores:
            name = configuration.trials[cell]
            self._curve_of[name] = dict(self._store.curve(name))
            self._curves.ended(cell, name, self._curve_of[name], done=True)

    def _to_retry(self, outcome: Outcome) -> bool:
        return outcome.machines_failed or self._retry_failed

    def _for_optuna(self, configuration: Configuration) -> KnownConfiguration:
        ended = configuration.state in ("complete", "pruned")
        return KnownConfiguration(
            number=configuration.number,
            values=configuration.values,
            reports={cell: s[self.plan.objectives[0]] for cell, s in configuration.scores.items()},
            objectives=self._objectives(configuration) if ended else None,
            failed=configuration.state == "failed",
            pruned=configuration.state == "pruned",
        )

    # ----------------------------------------------------------------------- before the first one
    def names(self) -> list[str]:
        """Names of all trials that were begun, or belong to the end; not of those given up."""
        begun = [
            name
            for each in self.configurations
            for cell, name in each.trials.items()
            if cell not in each.stopped
        ]
        return [*begun, *(assignment.trial.name for assignment in self._final_assignments())]

    def in_words(self, states: Mapping[str, TrialStatus]) -> str:
        """How many configurations and trials are done, for people."""
        count = Counter(each.state for each in self.configurations)
        ended = ", ".join(f"{count[state]} {state}" for state in count) or "none begun"
        done = sum(state["status"] == "done" for state in states.values())
        return f"{self.plan.configurations} configurations ({ended}), {done} trials done"

    def losses(self) -> list[Loss]:
        """Losses whose modules workers need: the same ones, whatever the numbers."""
        cell = self.plan.cells[0]
        return [self._trial(each, cell, True).loss for each in ({}, *self.plan.comparators)]

    def cohorts(self) -> set[str]:
        """The one cohort that is searched on."""
        return {self.plan.cohort}

    def set_slots(self, slots: int) -> None:
        """Run so many trials at a time from now on."""
        self.slots = slots

    # -------------------------------------------------------------------------------- deciding
    def _next(self) -> _Assignment | None:
        if self._to_repeat:
            return self._to_repeat.popleft()
        running = [each for each in self.configurations if each.state == "running"]
        for configuration in running:
            if self._may_have_another(configuration) and (
                assignment := self._next_cell(configuration)
            ):
                return assignment
        if not self._all_begun and (begun := self._begin()) is not None:
            return self._next_cell(begun)
        for configuration in running:
            if assignment := self._next_cell(configuration):
                return assignment
        return self._final.popleft() if self._final else None

    def _next_cell(self, configuration: Configuration) -> _Assignment | None:
        for cell, where in enumerate(self.plan.cells):
            if cell not in configuration.trials:
                return _Assignment(
                    self._trial(configuration.values, where, True), configuration, cell
                )
        return None

    def _may_have_another(self, configuration: Configuration) -> bool:
        """Whether a configuration may have another cell begun.

        Nobody is pruned before MIN_PAIRS cells, so that many at a time cost nothing; the next ones
        wait until these have been looked at.
        """
        begun = sum(
            assignment.configuration is configuration for assignment in self._running.values()
        )
        looked_at = len(configuration.scores) >= MIN_PAIRS and begun < MIN_PAIRS
        return len(configuration.trials) < MIN_PAIRS or looked_at

    def _begin(self) -> Configuration | None:
        from lesion_core.losses import loss_label, loss_to_dict

        for _ in range(DUPLICATES):
            given = self._prescribed()
            if given is None and self.plan.sampler == "grid":
                break
            number, values = self._study.ask(given)
            twin = next((each for each in self.configurations if each.values == values), None)
            if twin is not None:  # its trials are there already
                self._study.tell(number, None)
                continue
            loss = self._trial(values, self.plan.cells[0], True).loss
            stored = json.dumps(loss_to_dict(loss), sort_keys=True)
            configuration = Configuration(
                number,
                values,
                loss_label(loss),
                stored,
                sampler="" if given is not None else self.plan.sampler,
                prune_p=self.plan.prune_p,
            )
            self.configurations.append(configuration)
            return configuration
        self._exhausted = True
        if self._searched and self._final is None:
            self._conclude()
        return None

    def _prescribed(self) -> Mapping[str, Value] | None:
        """Values that no sampler chooses: those to begin with, and those of a grid."""
        points = [*([self.plan.own] if self.plan.own is not None else []), *self.plan.first]
        if self.plan.sampler == "grid":
            grid = grid_points(self.plan.space, self.plan.configurations)
            random.Random(0).shuffle(grid)
            points = grid
        tried = [each.values for each in self.configurations]
        return next((point for point in points if point not in tried), None)

    def _learn(self, configuration: Configuration, cell: int, outcome: Outcome) -> None:
        if outcome.status == "done" and outcome.scores is not None:
            configuration.scores[cell] = outcome.scores
            if configuration.state == "running":  # else it was under way when that ended
                self._study.report(
                    configuration.number, cell, outcome.scores[self.plan.objectives[0]]
                )
                self._end_if_decided(configuration)
        elif configuration.state != "failed":
            # Never a mean over the cells that went well.
            known = configuration.state != "running"
            reason = outcome.reason or f"it is {outcome.status}"
            configuration.state, configuration.score = "failed", None
            configuration.machines_failed = outcome.machines_failed
            configuration.reason = f"{configuration.trials[cell]}: {reason}"
            self._save()
            if not known:
                self._study.tell(configuration.number, None)

    def _learn_curve(self, assignment: _Assignment, outcome: Outcome) -> None:
        if self._curves is None:
            return
        name, done = assignment.trial.name, outcome.status == "done"
        if done:
            self._curve_of[name] = dict(self._store.curve(name))
        curve = self._curve_of.get(name, {})
        self._curves.ended(assignment.cell, name, curve, done=done)

    def _stop(self, configuration: Configuration, cell: int) -> None:
        """Give a configuration up whose trial was stopped in the middle.

        Optuna learns what it may come to: the best one's mean, and the difference at that epoch
        in that cell.
        """
        curve = self._curve_of.get(configuration.trials[cell], {})
        epoch = max(curve, default=0)
        configuration.stopped[cell] = epoch
        if configuration.state != "running":
            self._save()
            return
        best = next(iter(self.pareto_front()), None)
        value = curve.get(epoch, 0.0)
        if best is not None and best.scores.keys() & configuration.scores.keys():
            configuration.score = configuration.paired_estimate(best)
        else:
            theirs = {} if best is None else self._curve_of.get(best.trials.get(cell, ""), {})
            if best is not None and epoch in theirs:
                value += best.mean()["dice"] - theirs[epoch]
            configuration.score = {"dice": value}
        configuration.state = "pruned"
        configuration.against = None if best is None else best.number
        where = self.plan.cells[cell]
        configuration.reason = (
            f"its training in seed {where.seed}, fold {where.fold} was given up after epoch "
            f"{epoch}, by its validation curve ({self.plan.stop_trials})"
        )
        self._save()
        self._study.tell(configuration.number, self._objectives(configuration), pruned=True)

    def _end_if_decided(self, configuration: Configuration) -> None:
        """Complete or prune a configuration, if it is so far."""
        if configuration.state != "running":
            return
        configuration.prune_p = self.plan.prune_p
        if len(configuration.scores) == len(self.plan.cells):
            configuration.state, configuration.score = "complete", configuration.mean()
        elif (
            self.plan.prune_p > 0
            and (best := self._study.clearly_better_than(configuration.number)) is not None
        ):
            against = next(other for other in self.configurations if other.number == best)
            configuration.state, configuration.against = "pruned", best
            configuration.score = configuration.paired_estimate(against)
        else:
            return
        self._save()
        self._study.tell(
            configuration.number,
            self._objectives(configuration),
            pruned=configuration.state == "pruned",
        )

    # ---------------------------------------------------------------------------------- the end
    @property
    def _all_begun(self) -> bool:
        return self._exhausted or len(self.configurations) >= self.plan.configurations

    @property
    def _searched(self) -> bool:
        """Whether every configuration has ended."""
        return self._all_begun and all(each.state != "running" for each in self.configurations)

    def pareto_front(self) -> list[Configuration]:
        """The complete configurations that no other one beats in every objective, best Dice first.

        With one objective, the best one alone.
        """
        complete = [each for each in self.configurations if each.state == "complete"]
        values = {each.number: self._objectives(each) for each in complete}

        def beaten(mine: Sequence[float], theirs: Sequence[float]) -> bool:
            return all(b >= a for a, b in zip(mine, theirs, strict=True)) and theirs != mine

        front = [
            configuration
            for configuration in complete
            if not any(beaten(values[configuration.number], theirs) for theirs in values.values())
        ]
        return sorted(front, key=lambda configuration: -(configuration.score or {})["dice"])

    def _conclude(self) -> None:
        """Choose, and line up what the end needs; what is there already is not run again.

        Not before every configuration had its chance: one that lost its machines is taken up by
        the next command, and the test folds are not opened for a choice that may change.
        """
        self.importance = self._study.importance()
        front = self.pareto_front()
        if front and not any(each.machines_failed for each in self.configurations):
            self.chosen = front[0].number
            if self.chosen not in self.tested:
                self.tested.append(self.chosen)
        self._final = deque(
            assignment
            for assignment in self._final_assignments()
            if self._is_to_run(assignment.trial.name)
        )
        self.epochs |= {
            assignment.trial.name: assignment.trial.settings.epochs for assignment in self._final
        }
        self._save()

    def _is_to_run(self, name: str) -> bool:
        outcome = self._store.outcome(name)
        failed = outcome.status in ("failed", "diverged")
        return outcome.status != "done" and (not failed or self._to_retry(outcome))

    def chosen_in_fold(self) -> dict[int, int]:
        """Number of the complete configuration with the best Dice in a fold's cells, by fold.

        Validation parts of other folds hold this fold's test cases; such a choice has seen none
        of them.
        """
        complete = [each for each in self.configurations if each.state == "complete"]

        def score(configuration: Configuration, fold: int) -> float:
            cells = [cell for cell, where in enumerate(self.plan.cells) if where.fold == fold]
            return math.fsum(configuration.scores[cell]["dice"] for cell in cells)

        folds = sorted({cell.fold for cell in self.plan.cells})
        return {
            fold: max(complete, key=lambda configuration: score(configuration, fold)).number
            for fold in folds
        }

    def _final_assignments(self) -> list[_Assignment]:
        """The trials of the end.

        The chosen configuration, its comparators and each fold's own choice on the test folds; then
        the first two on fresh seeds.
        """
        chosen = next((each for each in self.configurations if each.number == self.chosen), None)
        if chosen is None:
            return []
        beside = [chosen.values, *self.plan.comparators]
        fresh = shuffled_cells(
            self.plan.confirm_seeds, 1 + max(cell.fold for cell in self.plan.cells), 0
        )
        parts = [(cell, False) for cell in self.plan.cells] + [(cell, True) for cell in fresh]
        trials = [
            self._trial(each, cell, validation) for cell, validation in parts for each in beside
        ]
        by_number = {each.number: each for each in self.configurations}
        of_fold = {fold: by_number[n].values for fold, n in self.chosen_in_fold().items()}
        trials += [self._trial(of_fold[cell.fold], cell, False) for cell in self.plan.cells]
        return [_Assignment(trial) for trial in {trial.name: trial for trial in trials}.values()]

    def _objectives(self, configuration: Configuration) -> tuple[float, ...]:
        assert configuration.score is not None
        return tuple(configuration.score[name] for name in self.plan.objectives)

    def _save(self) -> None:
        evaluation = self.plan.evaluation
        kept: SearchContent = {
            **self.plan.terms(),
            "ranges": self.plan.ranges(),
            "sampler": self.plan.sampler,
            "prune_p": self.plan.prune_p,
            "planned": self.plan.configurations,
            "exhausted": self._exhausted,
            "configurations": [each.stored() for each in self.configurations],
            "importance": self.importance,
            "chosen": self.chosen,
            "in_fold": {} if self.chosen is None else self.chosen_in_fold(),
            "tested": self.tested,
            "comparators": list(self.plan.comparators),
            "confirm_seeds": list(self.plan.confirm_seeds),
        }
        if domains := self.plan.domains():
            kept["domains"] = domains
        if self.plan.stop_trials != "never":
            kept["stop_trials"] = self.plan.stop_trials
        self._store.save(kept if evaluation is None else {**kept, "evaluation": evaluation})
