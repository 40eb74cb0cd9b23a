"""A search on a known noisy surface, without any training."""

import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest

from lesion_core.losses import LOSSES, search_space, with_values
from lesion_core.train import TrainSettings
from lesion_core.trial import Trial
from sweeps.search import Cell, Configuration, Outcome, Plan, Search, shuffled_cells
from sweeps.study import Study, distribution, grid_points

OPTIMUM = {"alpha": 0.65, "gamma": 1.5}
SETTINGS = TrainSettings(epochs=1, filters=(8, 16))


def true_score(loss):
    """A hill with its top at OPTIMUM, 0.7 high, 0.1 lower a fifth of the space away."""
    distance = ((loss.alpha - 0.65) / 1) ** 2 + ((loss.gamma - 1.5) / 5) ** 2
    return 0.7 - 2.5 * distance


class Surface:
    """A ledger whose trials score as the surface has it: plus what the cell brings, which all
    configurations share, plus noise of their own."""

    def __init__(self, seed, cell_sd=0.05, noise_sd=0.015):
        self._seed, self._cell_sd, self._noise_sd = seed, cell_sd, noise_sd
        self.trials, self.saved, self.fails = {}, None, {}
        self.finished = set()

    def outcome(self, name):
        if name not in self.finished:
            return Outcome("missing")
        if name in self.fails:
            return self.fails[name]
        trial = self.trials[name]
        cell = np.random.default_rng([self._seed, trial.seed, trial.fold]).normal()
        own = np.random.default_rng([self._seed, int(trial.hash, 16)]).normal()
        dice = true_score(trial.loss) + self._cell_sd * cell + self._noise_sd * own
        recall = 0.5 + 0.4 * trial.loss.alpha + 0.01 * own
        return Outcome("done", {"dice": dice, "sensitivity": recall, "precision": 1.3 - recall})

    def expect(self, trial):
        self.trials[trial.name] = trial

    def save(self, search):
        self.saved = json.loads(json.dumps(search, allow_nan=False))


def a_trial(loss, cell, validation):
    return Trial(
        cohort="toy",
        fingerprint="f" * 64,
        loss=loss,
        seed=cell.seed,
        fold=cell.fold,
        num_folds=5,
        settings=SETTINGS,
        validation_cases=("3",) if validation else None,
    )


def a_loss(values):
    return LOSSES[values] if isinstance(values, str) else with_values(LOSSES["focal1"], values)


def a_plan(**changes):
    fields = {
        "cohort": "toy",
        "loss": "focal1",
        "space": search_space(LOSSES["focal1"]),
        "objectives": ("dice",),
        "cells": tuple(shuffled_cells([1, 2, 3, 4], 5, 1)),
        "configurations": 30,
        "sampler": "tpe",
        "prune_p": 0.1,
        "comparators": (),
        "confirm_seeds": (),
    }
    return Plan(**(fields | changes))


def a_search(plan, surface, *, seed=0, journal=None, slots=1, **resume):
    study = Study(
        journal, "test", plan.space, sampler=plan.sampler, objectives=plan.objectives,
        prune_p=plan.prune_p, seed=1000 * seed,
    )  # fmt: skip
    search = Search(plan, study, surface, a_loss, a_trial, slots=slots)
    search.resume(surface.saved, **resume)
    return search


def drive(search, surface, *, until=math.inf, rng=None):
    """Run up to so many trials as a cluster would; returns the names in the order of their end."""
    ran, running = [], []
    while len(ran) < until:
        while (trial := search.take()) is not None:
            running.append(trial["name"])
        if not running:
            break
        name = running.pop(rng.randrange(len(running)) if rng else 0)
        surface.finished.add(name)
        ran.append(name)
        search.ended(name)
    return ran


def chosen(search):
    return next(one for one in search.configurations if one.number == search.chosen)


def is_near(values):
    """The optimum's neighbourhood: less than 0.05 below its top."""
    return true_score(SimpleNamespace(**values)) > 0.7 - 0.05
