"""What a search is over, and how it judges: cells, the plan, a configuration and its scores."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from lesion_core.search_space import Choices, Domain, Space, Value, tried_ends
from sweeps.ledger.contents import (
    ConfigurationContent,
    Evaluation,
    SearchContent,
    SearchTerms,
)
from sweeps.searching.optuna_study import Sampler, StopTrials

State = Literal["running", "complete", "pruned", "failed"]
METRICS = ("dice", "sensitivity", "precision")


class Cell(NamedTuple):
    """Where configurations meet: same initial weights, same batches, same cases."""

    seed: int
    fold: int


def shuffled_cells(seeds: Sequence[int], num_folds: int, order_seed: int) -> list[Cell]:
    """All cells in a random order, so that the first few stand for all."""
    cells = [Cell(seed, fold) for seed in dict.fromkeys(seeds) for fold in range(num_folds)]
    random.Random(order_seed).shuffle(cells)
    return cells


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What is searched, and how it is judged."""

    cohort: str
    """Its name."""
    loss: str
    """The loss without the numbers that vary."""
    space: Space
    objectives: tuple[str, ...]
    cells: tuple[Cell, ...]
    configurations: int
    """How many in all."""
    sampler: Sampler
    prune_p: float
    """0: no pruning."""
    comparators: tuple[str, ...]
    confirm_seeds: tuple[int, ...]
    stop_trials: StopTrials = "never"
    """By which rule a trial is given up in the middle, and its configuration with it."""
    first: tuple[Mapping[str, Value], ...] = ()
    """Configurations to begin with."""
    own: Mapping[str, Value] | None = None
    """What a training has without a search: configuration 0 of a new search, but of a grid."""
    evaluation: Evaluation | None = None
    """What its trials are evaluated on, and when; none: as the tested ones are."""

    def terms(self) -> SearchTerms:
        """What decides what a score means; a search goes on only under the same terms."""
        return {
            "cohort": self.cohort,
            "loss": self.loss,
            "space": {name: str(where) for name, where in self.space.items()},
            "objectives": list(self.objectives),
            "cells": [list(cell) for cell in self.cells],
        }

    def ranges(self) -> dict[str, list[float]]:
        """The lowest and the highest value that is tried, of every field that is a range."""
        return {
            field: list(tried_ends(where))
            for field, where in self.space.items()
            if not isinstance(where, Choices)
        }

    def domains(self) -> dict[str, dict[str, Any]]:
        """What search.json says beside `ranges` of fields that are more than a range."""
        found = {field: _domain(where) for field, where in self.space.items()}
        return {field: said for field, said in found.items() if said}

    def differences(self, stored: SearchContent) -> list[str]:
        """Why a search that was begun cannot go on under this plan, field by field."""
        found = []
        for key, now in self.terms().items():
            before = stored.get(key)
            if before != now and key == "cells":
                found.append("it is judged on other seeds or folds there")
            elif before != now:
                found.append(f"{key} is {_words(before)} there, {_words(now)} now")
        if self.stop_trials != "never" and stored["configurations"]:
            evaluation = stored.get("evaluation")
            if evaluation is not None and evaluation["evaluate_at"] != "every":
                found.append(
                    "its trials are evaluated at the last epoch alone there, so that none can be "
                    f"given up before (--stop-trials {self.stop_trials})"
                )
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

    def joined_with(self, stored: SearchContent) -> SearchPlan:
        """This plan, with the comparators and fresh seeds that were asked for before; a search
        that was begun has begun with what it began with, and its trials stay what they are."""
        seeds = (*stored["confirm_seeds"], *self.confirm_seeds)
        begun = bool(stored["configurations"])
        return replace(
            self,
            own=None if begun else self.own,
            evaluation=stored.get("evaluation") if begun else self.evaluation,
            comparators=tuple(dict.fromkeys((*stored["comparators"], *self.comparators))),
            confirm_seeds=tuple(dict.fromkeys(seeds)),
        )


@dataclass
class Configuration:
    """One setting, and what is known of it."""

    number: int
    """Number of its trial in the study."""
    values: dict[str, Value]
    loss: str
    loss_params: str
    state: State = "running"
    trials: dict[int, str] = field(default_factory=dict)
    """Name by cell, of the cells that were begun."""
    score: dict[str, float] | None = None
    """Means over all cells; of a pruned one, estimated from its differences to the best."""
    reason: str | None = None
    machines_failed: bool = False
    """They are why it failed: it is taken up again without being asked to."""
    against: int | None = None
    """Number of the better one that a pruned one was held against."""
    sampler: str = ""
    """Who proposed it; empty: it was given."""
    prune_p: float = 0.0
    """The threshold that it was held against last."""
    stopped: dict[int, int] = field(default_factory=dict)
    """Epoch by cell, of the trials that were given up in the middle."""
    scores: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """By cell; read from the ledger, not stored here."""

    def stored(self) -> ConfigurationContent:
        """What search.json says of it; `of` undoes it."""
        kept: ConfigurationContent = {
            "number": self.number,
            "values": self.values,
            "loss": self.loss,
            "loss_params": self.loss_params,
            "state": self.state,
            "trials": {str(cell): name for cell, name in self.trials.items()},
            "score": self.score,
            "reason": self.reason,
            "blameless": self.machines_failed,
            "against": self.against,
            "sampler": self.sampler,
            "prune_p": self.prune_p,
        }
        if self.stopped:
            kept["stopped"] = {str(cell): epoch for cell, epoch in self.stopped.items()}
        return kept

    @staticmethod
    def of(stored: ConfigurationContent) -> Configuration:
        """A configuration that search.json lists, its scores still to be read from the ledger."""
        values: dict[str, Any] = dict(stored)
        values["trials"] = {int(cell): name for cell, name in stored["trials"].items()}
        values["machines_failed"] = values.pop("blameless")
        values["stopped"] = {int(cell): n for cell, n in stored.get("stopped", {}).items()}
        return Configuration(**values)

    def mean(self) -> dict[str, float]:
        """Mean of every metric over the cells that have a score."""
        return {
            metric: math.fsum(scores[metric] for scores in self.scores.values()) / len(self.scores)
            for metric in METRICS
        }

    def paired_estimate(self, other: Configuration) -> dict[str, float]:
        """Estimate its mean over all cells: another's, plus the difference in the cells of both.

        A plain mean over the few cells that a pruned one has met would say as much about which
        cells these are as about the configuration.
        """
        both = self.scores.keys() & other.scores.keys()
        return {
            metric: value
            + math.fsum(self.scores[c][metric] - other.scores[c][metric] for c in both) / len(both)
            for metric, value in other.mean().items()
        }


def _domain(where: Domain) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if isinstance(where, Choices):
        said["choices"] = list(where.values)
    else:
        said |= {mark: True for mark in ("log", "whole") if getattr(where, mark)}
    if where.only is not None:
        said["only"] = {"field": where.only.field, "values": list(where.only.values)}
    return said


def _words(value: object) -> str:
    """A field of the terms for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {where}" for name, where in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
