"""What Optuna knows of a search: it proposes configurations and gives hopeless ones up.

Optuna is imported when a study is opened.  The ledger (search.json) is
the truth; the journal that `optuna-dashboard` opens follows it.  It may lag behind after a kill,
and is then brought up to date; one that is lost, or says otherwise, is written anew (`reconcile`).

Facts of Optuna 5.0 that this follows: a study that is loaded comes without its sampler and
pruner; a sampler with a fixed seed proposes the same again after a restart; RUNNING trials repel
the others, also those of a driver that is gone; a journal that was cut in the middle of a line
cannot be read any more.  CMA-ES alone keeps a state of its own in the journal: written anew, it
begins with a new population.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args

from lesion_core.paths import MOST_FILE_BYTES
from lesion_core.search_space import (
    Choices,
    Domain,
    Point,
    Space,
    Value,
    can_be_tried,
    is_searched,
    nearest,
    steps_of,
)

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Sampler = Literal["tpe", "gp", "cmaes", "random", "grid"]

StopTrials = Literal["never", "median", "hyperband"]

MIN_PAIRS = 4
"""Cells before a configuration can be given up: the smallest one-sided p of n pairs is 2^-n."""

SECONDS_UNTIL_A_LOCK_IS_STALE = 5


@dataclass(frozen=True)
class KnownConfiguration:
    """What the ledger says of one configuration."""

    number: int
    """Number of its trial in the study."""
    values: Mapping[str, Value]
    reports: Mapping[int, float]
    """First objective by cell."""
    objectives: tuple[float, ...] | None
    """Their values; None while it runs, and if it failed."""
    failed: bool
    pruned: bool


class OptunaStudy:
    """An Optuna study over a space, in a journal or (None) in memory."""

    def __init__(
        self,
        journal: Path | None,
        name: str,
        space: Space,
        *,
        sampler: Sampler = "tpe",
        objectives: Sequence[str] = ("dice",),
        prune_p: float = 0.1,
        seed: int = 0,
    ) -> None:
        """
        Raises:
            ValueError: a sampler that cannot search this space or these objectives, or that is
                not installed.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _check(sampler, space, objectives)
        self._optuna = optuna
        self._journal, self._name, self._objectives = journal, name, tuple(objectives)
        self._space = dict(space)
        self._distributions: dict[str, Any] = {
            field: distribution(where) for field, where in space.items()
        }
        self._has_conditions = any(where.only is not None for where in space.values())
        self._sampler, self._seed = sampler, seed
        with _quiet():
            self._pruner = optuna.pruners.WilcoxonPruner(
                p_threshold=prune_p, n_startup_steps=MIN_PAIRS
            )
        self._open()

    def reconcile(self, known: Sequence[KnownConfiguration]) -> None:
        """Make the study say what the ledger says, after whatever happened to either.

        A running trial that the ledger does not know becomes FAIL; one that it has results of gets
        them.  If the two contradict each other, the journal is begun anew from the ledger.
        """
        if not self._follows(known):
            if self._journal is not None:
                self._journal.unlink(missing_ok=True)
            self._open(fresh=True)
            for configuration in sorted(known, key=lambda configuration: configuration.number):
                while (
                    self._number_of_trials() < configuration.number
                ):  # the ledger has nothing of it
                    self._add("FAIL", {}, None)
                self._add("RUNNING", configuration.values, None)
        by_number = {each.number: each for each in known}
        running = self._optuna.trial.TrialState.RUNNING
        for frozen in self._trials():
            configuration = by_number.get(frozen.number)
            for cell, value in (configuration.reports if configuration is not None else {}).items():
                if not frozen.state.is_finished():
                    self.report(frozen.number, cell, value)
            if frozen.state == running and (configuration is None or configuration.failed):
                self.tell(frozen.number, None)
            elif (
                frozen.state == running
                and configuration is not None
                and configuration.objectives is not None
            ):
                self.tell(frozen.number, configuration.objectives, pruned=configuration.pruned)

    def ask(self, values: Mapping[str, Value] | None = None) -> tuple[int, Point]:
        """Begin a trial; returns its number and values: the sampler's, unless they are given."""
        if values is not None:
            return self._add("RUNNING", values, None), dict(values)
        with _quiet():
            if not self._has_conditions:
                trial = self._study.ask(fixed_distributions=self._distributions)
                found = trial.params
            else:  # field by field: whether one is searched depends on those before
                trial = self._study.ask()
                found: dict[str, Any] = {}
                for field, where in self._space.items():
                    if is_searched(where, found):
                        found[field] = _suggested(trial, field, where)
        return trial.number, {
            field: _as_tried(where, found[field])
            for field, where in self._space.items()
            if field in found
        }

    def report(self, number: int, cell: int, value: float) -> None:
        """Report the first objective of a trial in one cell; again is no harm."""
        if len(self._objectives) > 1:  # Optuna has no place for it
            return
        frozen = self._trials()[number]
        if cell not in frozen.intermediate_values:
            self._optuna.trial.Trial(self._study, frozen._trial_id).report(value, cell)

    def clearly_better_than(self, number: int) -> int | None:
        """Number of the best trial, if it is better in the cells that both have; else None.

        Wilcoxon's signed ranks of the paired differences.  The mean difference must be negative
        too, or what is then said of it (best + difference) would make it the best itself.
        """
        if len(self._objectives) > 1:
            return None
        trial = self._trials()[number]
        with _quiet():
            try:
                best = self._study.best_trial
            except ValueError:  # none is complete
                return None
            if best.number == number or not self._pruner.prune(self._study, trial):
                return None
        both = trial.intermediate_values.keys() & best.intermediate_values.keys()
        difference = sum(
            trial.intermediate_values[cell] - best.intermediate_values[cell] for cell in both
        )
        return best.number if difference < 0 else None

    def tell(self, number: int, values: Sequence[float] | None, *, pruned: bool = False) -> None:
        """End a trial with its objectives; None: it failed."""
        state = self._optuna.trial.TrialState
        if pruned:  # Optuna's own PRUNED has no value, which GP and CMA-ES would not learn from
            trial = self._optuna.trial.Trial(self._study, self._trials()[number]._trial_id)
            trial.set_user_attr("pruned", True)
        if values is None:
            self._study.tell(number, state=state.FAIL)
        else:
            self._study.tell(number, list(values))

    def importance(self) -> dict[str, dict[str, float]]:
        """Share of each field by objective (PED-ANOVA); {} if too few trials differ."""
        found = {}
        for place, objective in enumerate(self._objectives):
            with _quiet(), suppress(ValueError, RuntimeError):
                shares = self._optuna.importance.get_param_importances(
                    self._study,
                    evaluator=self._optuna.importance.PedAnovaImportanceEvaluator(),
                    target=lambda trial, place=place: trial.values[place],
                )
                if all(share == share for share in shares.values()):
                    found[objective] = {field: float(share) for field, share in shares.items()}
        return found

    # ------------------------------------------------------------------------------ the journal
    def _open(self, *, fresh: bool = False) -> None:
        storages = self._optuna.storages
        storage: Any = storages.InMemoryStorage()
        if self._journal is not None:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            if self._journal.is_symlink():  # what it leads to is not ours to write
                self._journal.unlink()
            _cut_torn_line(self._journal)
            try:
                with _quiet():
                    storage = self._journal_storage()
            except Exception:  # unreadable in whatever way: the ledger has it all
                if fresh:
                    raise
                self._journal.unlink()
                storage = self._journal_storage()
        try:
            self._create(storage)
        except ValueError:  # of other objectives
            if fresh or self._journal is None:
                raise
            self._journal.unlink()
            self._create(self._journal_storage())

    def _create(self, storage: Any) -> None:
        directions: Any = ["maximize"] * len(self._objectives)
        self._study = self._optuna.create_study(
            storage=storage,
            study_name=self._name,
            directions=directions,
            load_if_exists=True,
            sampler=None,
            pruner=self._pruner,
        )
        # From here on other random numbers than those before the restart.
        self._study.sampler = self._made_sampler(self._seed + self._number_of_trials())
        with _quiet():
            if self._study.metric_names != list(self._objectives):
                self._study.set_metric_names(list(self._objectives))

    def _journal_storage(self) -> Any:
        from optuna.storages import journal

        path = str(self._journal)
        return self._optuna.storages.JournalStorage(
            journal.JournalFileBackend(
                path,
                lock_obj=journal.JournalFileSymlinkLock(
                    path, grace_period=SECONDS_UNTIL_A_LOCK_IS_STALE
                ),
            )
        )

    def _made_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        samplers = self._optuna.samplers
        with _quiet():
            if self._sampler == "tpe":
                return samplers.TPESampler(
                    seed=seed, multivariate=True, group=self._has_conditions, constant_liar=True
                )
            if self._sampler == "gp":
                return samplers.GPSampler(seed=seed)
            if self._sampler == "cmaes":
                return samplers.CmaEsSampler(seed=seed)
            return samplers.RandomSampler(seed=seed)

    def _follows(self, known: Sequence[KnownConfiguration]) -> bool:
        """Whether the study says what the ledger says, or a part of it."""
        trials = self._trials()
        for configuration in known:
            if configuration.number >= len(trials):
                return False
            frozen = trials[configuration.number]
            if (
                frozen.params.keys() != configuration.values.keys()
                or not frozen.params.keys() <= self._space.keys()
                or not all(
                    _is_same(self._space[field], frozen.params[field], value)
                    for field, value in configuration.values.items()
                )
            ):
                return False
            state = frozen.state.name
            if state == "FAIL" and not configuration.failed:
                return False
            if state == "COMPLETE" and (
                configuration.objectives is None
                or any(
                    abs(a - b) > 1e-9
                    for a, b in zip(frozen.values, configuration.objectives, strict=True)
                )
            ):
                return False
        return True

    def _add(
        self, state: str, values: Mapping[str, Value], objectives: Sequence[float] | None
    ) -> int:
        trial = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState[state],
            values=objectives,
            params=dict(values),
            distributions={field: self._distributions[field] for field in values},
        )
        with _quiet():
            self._study.add_trial(trial)
        return self._number_of_trials() - 1

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _number_of_trials(self) -> int:
        return len(self._trials())


class CurveRule:
    """Which trials of a cell are given up by their validation curves: Optuna's own pruners, one
    study in memory per cell, so that only trainings on the same cases are compared.

    ``median``: below the median of those that are done, at the same epoch (four at least, after a
    fifth of the epochs).  ``hyperband``: not among the best third at a rung, as they come.
    """

    def __init__(self, rule: StopTrials, epochs: int) -> None:
        import optuna

        self._optuna, self._epochs = optuna, epochs
        self._rule = rule
        self._studies: dict[int, Any] = {}
        self._trials: dict[str, Any] = {}

    def is_hopeless(self, cell: int, name: str, curve: Mapping[int, float]) -> bool:
        """Whether a trial that runs is to be given up, given its scores so far."""
        trial = self._trial(cell, name)
        known = self._known(trial)
        hopeless = False
        for epoch in sorted(curve.keys() - known - {0}):  # the untrained network says nothing
            trial.report(curve[epoch], epoch)
            with _quiet():
                hopeless = hopeless or trial.should_prune()
        return hopeless

    def ended(self, cell: int, name: str, curve: Mapping[int, float], *, done: bool) -> None:
        """Learn how a trial ended: the others are compared with those that are done."""
        self.is_hopeless(cell, name, curve)
        trial = self._trials.pop(name)
        states = self._optuna.trial.TrialState
        study = self._studies[cell]
        if done and curve:
            study.tell(trial, curve[max(curve)])
        else:
            study.tell(trial, state=states.PRUNED if self._known(trial) else states.FAIL)

    def _known(self, trial: Any) -> set[int]:
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        return set(frozen.intermediate_values)

    def _trial(self, cell: int, name: str) -> Any:
        if cell not in self._studies:
            self._studies[cell] = self._optuna.create_study(
                direction="maximize", study_name=str(cell), pruner=self._pruner(),
                sampler=self._optuna.samplers.RandomSampler(seed=0),
            )  # fmt: skip
        if name not in self._trials:
            self._trials[name] = self._studies[cell].ask()
        return self._trials[name]

    def _pruner(self) -> Any:
        pruners = self._optuna.pruners
        if self._rule == "median":
            return pruners.MedianPruner(
                n_startup_trials=MIN_PAIRS, n_warmup_steps=self._epochs // 5, n_min_trials=MIN_PAIRS
            )
        return pruners.HyperbandPruner(
            min_resource=max(1, self._epochs // 9), max_resource=self._epochs, reduction_factor=3
        )


def distribution(where: Domain) -> BaseDistribution:
    """Optuna's distribution over a domain; a range in the steps in which it is tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(where, Choices):
        return CategoricalDistribution(where.values)
    if where.whole:
        return IntDistribution(int(where.low), int(where.high), log=where.log)
    if where.log:  # has no steps: what is proposed is rounded (`_as_tried`)
        return FloatDistribution(where.low, where.high, log=True)
    step, low, high = steps_of(where)
    return FloatDistribution(low, high, step=step)


def _suggested(trial: optuna.Trial, field: str, where: Domain) -> Any:
    if isinstance(where, Choices):
        return trial.suggest_categorical(field, where.values)
    if where.whole:
        return trial.suggest_int(field, int(where.low), int(where.high), log=where.log)
    if where.log:
        return trial.suggest_float(field, where.low, where.high, log=True)
    step, low, high = steps_of(where)
    return trial.suggest_float(field, low, high, step=step)


def _as_tried(where: Domain, value: Any) -> Value:
    """What is tried of a value that Optuna proposed: adding steps leaves last digits."""
    if isinstance(where, Choices) or where.whole:
        return value
    return nearest(where, value) if where.log else float(f"{value:.12g}")


def _is_same(where: Domain, proposed: Any, tried: Value) -> bool:
    """Whether a value of the journal is one of the ledger."""
    if isinstance(where, Choices):
        return can_be_tried(proposed, Choices((tried,)))
    if isinstance(tried, (bool, str, NoneType)) or not isinstance(proposed, (int, float)):
        return False
    return abs(proposed - tried) <= (1e-2 * abs(tried) if where.log else 1e-9)


def _check(sampler: Sampler, space: Space, objectives: Sequence[str]) -> None:
    if sampler not in get_args(Sampler):
        raise ValueError(f"--sampler {sampler}: expected one of {', '.join(get_args(Sampler))}")
    depending = [field for field, where in space.items() if where.only is not None]
    if sampler in ("gp", "cmaes") and depending:
        raise ValueError(
            f"--sampler {sampler} searches the same fields everywhere; {depending[0]} is searched "
            "in a part of the space: use tpe, random or grid"
        )
    if sampler != "cmaes":
        return
    others = "use tpe, gp or random"
    chosen = [field for field, where in space.items() if isinstance(where, Choices)]
    if chosen:
        raise ValueError(
            f"--sampler cmaes searches numbers only, and {chosen[0]} is none; {others}"
        )
    if len(objectives) > 1:
        raise ValueError(f"--sampler cmaes searches for one objective only; {others}")
    if len(space) < 2:
        raise ValueError(f"--sampler cmaes needs two fields or more to search over; {others}")
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise ValueError(
            f"--sampler cmaes needs the package cmaes (pip install cmaes); or {others}"
        ) from None


def _cut_torn_line(journal: Path) -> None:
    """Remove the half line that a killed writer may leave: nothing behind it could be read."""
    if not journal.exists():
        return
    if journal.stat().st_size > MOST_FILE_BYTES:  # not what was written; it follows the ledger
        journal.unlink()
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna not warn of every class that it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
