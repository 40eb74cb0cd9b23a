"""A search on a known noisy surface, without any training."""

import json
import math
import random
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from lesion_core import believed, results
from lesion_core.losses import LOSSES, loss_named, search_space, with_values
from lesion_core.search_space import grid_points
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps.options import Training
from sweeps.searching.fields import searched as searched_fields
from sweeps.searching.optuna_study import OptunaStudy, distribution
from sweeps.searching.plan import Cell, Configuration, SearchPlan, shuffled_cells
from sweeps.searching.search import Search
from sweeps.searching.store import Outcome

OPTIMUM = {"alpha": 0.65, "gamma": 1.5}
SETTINGS = TrainSettings(epochs=1, filters=(8, 16))


def true_score(loss):
    """A hill with its top at OPTIMUM, 0.7 high, 0.1 lower a fifth of the space away."""
    alpha, gamma = getattr(loss, "alpha", 0.5), getattr(loss, "gamma", 0)  # of xent
    return 0.7 - 2.5 * ((alpha - 0.65) ** 2 + ((gamma - 1.5) / 5) ** 2)


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
        return Outcome("done", self._scores(name))

    def _scores(self, name):
        trial = self.trials[name]
        cell = np.random.default_rng([self._seed, trial.seed, trial.fold]).normal()
        own = np.random.default_rng([self._seed, int(trial.hash, 16)]).normal()
        dice = true_score(trial.loss) + self._cell_sd * cell + self._noise_sd * own
        recall = 0.5 + 0.4 * getattr(trial.loss, "alpha", 0) + 0.01 * own
        precision = (
            1 - 0.4 * getattr(trial.loss, "alpha", 0) - 0.04 * getattr(trial.loss, "gamma", 0)
        )
        return {"dice": dice, "sensitivity": recall, "precision": precision}

    def curve(self, name):
        """Rises to the final score; slowly where gamma is above 4."""
        final = self.outcome(name).scores if name in self.finished else self._scores(name)
        slow = getattr(self.trials[name].loss, "gamma", 0) > 4
        last = self.trials[name].settings.epochs
        return {e: final["dice"] - (0.5 if slow else 0.2) * (1 - e / last) for e in range(last + 1)}

    def expect(self, trial):
        self.trials[trial.name] = trial

    def save(self, search):
        self.saved = json.loads(json.dumps(search, allow_nan=False))


def a_trial(asked, cell, validation, searched=None):
    settings = SETTINGS
    if isinstance(asked, str):
        loss = LOSSES[asked]
    elif searched is None:
        loss = with_values(LOSSES["focal1"], asked)
    else:
        loss, settings = searched.loss_of(asked), searched.settings_of(asked)
    return Trial(
        cohort="toy",
        fingerprint="f" * 64,
        loss=loss,
        seed=cell.seed,
        fold=cell.fold,
        num_folds=5,
        settings=settings,
        validation_cases=("3",) if validation else None,
    )


class SettingsSurface(Surface):
    """Best at alpha 0.65, a learning rate of 1e-3, and in bf16 with four epochs."""

    def outcome(self, name):
        found = super().outcome(name)
        if found.status != "done":
            return found
        settings = self.trials[name].settings
        lost = 0.06 * math.log10(settings.learning_rate / 1e-3) ** 2
        lost += 0.05 if settings.precision == "fp32" else 0.004 * abs(settings.epochs - 4)
        return replace(found, scores=found.scores | {"dice": found.scores["dice"] - lost})


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
    return SearchPlan(**(fields | changes))


def a_search(plan, surface, *, seed=0, journal=None, slots=1, trial=a_trial, **resume):
    study = OptunaStudy(
        journal, "test", plan.space, sampler=plan.sampler, objectives=plan.objectives,
        prune_p=plan.prune_p, seed=1000 * seed,
    )  # fmt: skip
    search = Search(plan, study, surface, trial, slots=slots)
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


def searched(surface):
    """Number of trials that were run to search, not to test what came out."""
    return sum(surface.trials[name].split == "validation" for name in surface.finished)


def chosen(search):
    return next(one for one in search.configurations if one.number == search.chosen)


def is_near(values):
    """The optimum's neighbourhood: less than 0.05 below its top."""
    return true_score(SimpleNamespace(**values)) > 0.7 - 0.05


# ------------------------------------------------------------------------ what a search is good for
def drive_by_epochs(search, surface, *, slots, until=math.inf):
    """Run trials side by side, an epoch of each at a time; returns the epochs trained in all."""
    running, trained = {}, 0
    while len(surface.finished) < until:
        while len(running) < slots and (trial := search.take()) is not None:
            running[trial["name"]] = 0
        if not running:
            break
        given_up = search.to_give_up(
            {
                name: {e: s for e, s in surface.curve(name).items() if 0 < e <= epoch}
                for name, epoch in running.items()
                if surface.trials[name].split == "validation"
            }
        )
        for name in list(running):
            if name in given_up:
                del running[name]
                search.ended(name)
                continue
            running[name] += 1
            trained += 1
            if running[name] == surface.trials[name].settings.epochs:
                del running[name]
                surface.finished.add(name)
                search.ended(name)
    return trained


@pytest.mark.parametrize("rule", ["median", "hyperband"])
def test_curves_save_epochs_and_choose_the_same_neighbourhood(rule, monkeypatch):
    settings = replace(SETTINGS, epochs=9)
    monkeypatch.setattr(sys.modules[__name__], "SETTINGS", settings)
    cells = tuple(shuffled_cells([1, 2], 3, 1))
    trained = {}
    for stop in ("never", rule):
        surface = Surface(5)
        first = ({"alpha": 0.6, "gamma": 1.5},)
        plan = a_plan(
            configurations=16, sampler="random", cells=cells, stop_trials=stop, first=first
        )
        search = a_search(plan, surface)
        half = drive_by_epochs(search, surface, slots=3, until=20)
        search = a_search(plan, surface)  # the driver was killed
        trained[stop] = half + drive_by_epochs(search, surface, slots=3)
        assert is_near(chosen(search).values)
        stopped = [one for one in search.configurations if one.stopped]
        assert bool(stopped) == (stop != "never")
        for one in stopped:
            assert one.state == "pruned" and set(one.stopped) <= set(one.trials)
            assert all(surface.trials[one.trials[c]].name not in surface.finished
                       for c in one.stopped)  # fmt: skip
            assert "was given up after epoch" in (one.reason or "validation")
        # Nothing is left to run, so no command has to come again.
        given_up = results.given_up(surface.saved)
        assert given_up == {one.trials[cell] for one in stopped for cell in one.stopped}
        assert set(search.names()) == surface.trials.keys() - given_up
        assert believed.wrong_with_search(surface.saved | {"schema_version": 1}) is None
        assert {one.state for one in search.configurations} <= {"complete", "pruned"}
    assert trained[rule] < 0.85 * trained["never"]
    lean = surface.saved | {"configurations": surface.saved["configurations"][:1]}
    lean["evaluation"] = {"evaluate_on": "held_out", "evaluate_at": "last"}
    with pytest.raises(ValueError, match="at the last epoch alone there"):
        a_search(plan, SimpleNamespace(saved=lean))


@pytest.mark.parametrize("seeds", [(0,), pytest.param((1, 2, 3, 4), marks=pytest.mark.slow)])
def test_a_search_over_settings_finds_a_planted_optimum_and_goes_on_where_it_stopped(
    tmp_path, seeds
):
    flags = (
        "alpha=0:1", "learning_rate=1e-5:1e-1:log", "precision=fp32,bf16",
        "epochs=2:8@precision=bf16",
    )  # fmt: skip
    found = searched_fields(loss_named("focal(gamma=1.5)"), Training(), flags)
    plan = a_plan(space=found.space, configurations=40, own=found.unsearched())
    assert plan.own == {"alpha": 0.25, "learning_rate": 1e-4, "precision": "fp32"}
    near = 0
    for seed in seeds:
        surface = SettingsSurface(seed)
        trial = partial(a_trial, searched=found)
        search = a_search(plan, surface, seed=seed, journal=tmp_path / f"{seed}.log", trial=trial)
        drive(search, surface, until=100)
        search = a_search(plan, surface, seed=seed, journal=tmp_path / f"{seed}.log", trial=trial)
        drive(search, surface)
        values = chosen(search).values
        assert values.keys() == {"alpha", "learning_rate", "precision", "epochs"}
        near += (
            abs(values["alpha"] - 0.65) < 0.15
            and abs(math.log10(values["learning_rate"]) + 3) < 0.7
            and values["precision"] == "bf16"
        )
        for one in search.configurations:
            assert ("epochs" in one.values) == (one.values["precision"] == "bf16")
            assert one.values["learning_rate"] == float(f"{one.values['learning_rate']:.3g}")
        assert believed.wrong_with_search(surface.saved | {"schema_version": 1}) is None
    assert near == len(seeds)


def test_it_finds_the_neighbourhood_with_fewer_cells_than_a_grid_in_nine_of_ten_seeds():
    """Against a grid as fine as the neighbourhood is wide, every point of it on every cell."""
    better, whole = 0, 25 * 20
    for seed in range(10):
        surface = Surface(seed)
        search = a_search(a_plan(configurations=25), surface, seed=seed)
        ran = drive(search, surface)
        better += (
            is_near(chosen(search).values) and len(ran) - 20 < whole
        )  # 20: its test at the end
    assert better >= 9
    surface = Surface(0)
    grid = a_search(a_plan(configurations=25, sampler="grid", prune_p=0), surface)
    assert len(drive(grid, surface)) == whole + 20 and is_near(chosen(grid).values)


@pytest.mark.parametrize(
    ("slots", "seeds"), [(8, 3), *(pytest.param(n, 10, marks=pytest.mark.slow) for n in (1, 8))]
)
def test_pruning_saves_a_third_of_the_cells_and_chooses_the_same_neighbourhood(slots, seeds):
    near, cells = {0.0: 0, 0.1: 0}, {0.0: 0, 0.1: 0}
    for seed in range(seeds):
        for prune_p in near:
            surface = Surface(seed)
            search = a_search(a_plan(prune_p=prune_p), surface, seed=seed, slots=slots)
            drive(search, surface, rng=random.Random(seed))
            cells[prune_p] += searched(surface)
            near[prune_p] += is_near(chosen(search).values)
    assert cells[0.0] == seeds * 30 * 20
    assert cells[0.1] <= 0.7 * cells[0.0]
    assert near[0.1] >= near[0.0] - 1 and near[0.1] >= 0.9 * seeds


def test_what_is_said_of_a_pruned_one_is_not_misled_by_the_cells_it_met():
    """It met the two hardest cells only, where it was 0.1 worse than the best."""

    def configuration(scores):
        found = {cell: {m: s for m in ("dice", "sensitivity", "precision")} for cell, s in scores}
        return Configuration(0, {}, "", "", scores=found)

    best = configuration(enumerate([0.2, 0.3, 0.8, 0.9]))
    other = configuration(enumerate([0.1, 0.2]))
    assert other.mean()["dice"] == pytest.approx(0.15)
    assert other.paired_estimate(best)["dice"] == pytest.approx(0.55 - 0.1)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random"])
def test_every_sampler_runs_the_whole_budget(sampler):
    pytest.importorskip("cmaes")
    surface = Surface(0)
    plan = a_plan(sampler=sampler, configurations=12, cells=tuple(shuffled_cells([1], 5, 1)))
    search = a_search(plan, surface, slots=2)
    ran = drive(search, surface)
    assert len(search.configurations) == 12 and search.finished
    assert len(ran) == len(set(ran)) == len(surface.trials)
    for one in search.configurations:
        assert 0 < one.values["alpha"] < 1 and 0 <= one.values["gamma"] <= 5


def test_a_front_of_two_objectives_is_kept_and_nothing_is_pruned():
    surface = Surface(0)
    plan = a_plan(objectives=("sensitivity", "precision"), configurations=12)
    search = a_search(plan, surface)
    drive(search, surface)
    assert {one.state for one in search.configurations} == {"complete"}
    front = search.pareto_front()
    assert 2 < len(front) < 12 and chosen(search) is front[0]
    dice = [one.score["dice"] for one in front]
    assert dice == sorted(dice, reverse=True)
    scores = [(one.score["sensitivity"], one.score["precision"]) for one in front]
    assert not any(a[0] > b[0] and a[1] > b[1] for a in scores for b in scores)


# -------------------------------------------------------------------------------- what it may see
def test_the_search_sees_validation_parts_only_and_the_test_folds_come_once_at_the_end():
    surface = Surface(0)
    plan = a_plan(configurations=6, comparators=("focal2", "xent"), confirm_seeds=(7, 8))
    search = a_search(plan, surface)
    ran = [surface.trials[name] for name in drive(search, surface)]
    split = [trial.split for trial in ran]
    first = split.index("test")
    assert set(split[:first]) == {"validation"}
    cell = Cell(1, 0)
    best = a_trial(chosen(search).values, cell, False).loss
    at_the_end = {LOSSES["focal2"], LOSSES["xent"], best}
    tested = [(trial.loss, Cell(trial.seed, trial.fold)) for trial in ran if trial.split == "test"]
    of_fold = {
        fold: a_trial(
            next(one.values for one in search.configurations if one.number == number), cell, False
        ).loss
        for fold, number in search.chosen_in_fold().items()
    }
    expected = {(loss, cell) for loss in at_the_end for cell in plan.cells}
    expected |= {(of_fold[cell.fold], cell) for cell in plan.cells}
    assert len(tested) == len(set(tested)) and set(tested) == expected
    fresh = [trial for trial in ran[first:] if trial.split == "validation"]
    assert {trial.seed for trial in fresh} == {7, 8} and len(fresh) == 3 * 2 * 5


def test_configurations_meet_the_same_cells_in_the_same_order():
    surface = Surface(0)
    search = a_search(a_plan(configurations=8), surface)
    drive(search, surface)
    for one in search.configurations:
        assert list(one.trials) == list(range(len(one.trials)))
        for cell, name in one.trials.items():
            trial = surface.trials[name]
            assert (trial.seed, trial.fold) == search.plan.cells[cell]
    orders = {tuple(shuffled_cells([1, 2, 3], 4, seed)) for seed in range(5)}
    assert len(orders) == 5 and all(len(set(order)) == 12 for order in orders)


def test_a_new_search_begins_with_the_losss_own_numbers_and_an_older_one_goes_on_without():
    own = {"alpha": 0.31, "gamma": 1.7}
    surface = Surface(0)
    first = a_search(
        a_plan(configurations=3, own=own, first=({"alpha": 0.6, "gamma": 1.5},)), surface
    )
    drive(first, surface)
    assert [one.values for one in first.configurations[:2]] == [own, {"alpha": 0.6, "gamma": 1.5}]
    assert first.configurations[0].sampler == "" and first.configurations[0].number == 0
    # Gone on with more: the same beginning, once.
    more = a_search(a_plan(configurations=5, own=own), surface)
    drive(more, surface)
    assert [one.values for one in more.configurations].count(own) == 1
    assert [one.loss for one in more.configurations[:3]] == [
        one.loss for one in first.configurations
    ]
    # A search of before has no such beginning, and goes on with the same trials as it would have.
    ran = []
    for plan in (a_plan(configurations=5), a_plan(configurations=5, own=own)):
        older = Surface(0)
        drive(a_search(a_plan(configurations=3), older), older)
        ran.append(drive(a_search(plan, older), older))
    assert ran[0] == ran[1]


def test_one_failed_cell_fails_the_configuration_with_its_reason():
    surface = Surface(0)
    plan = a_plan(configurations=5, first=({"alpha": 0.6, "gamma": 1.5},))
    name = a_trial(plan.first[0], plan.cells[2], True).name
    surface.fails[name] = Outcome("diverged", reason="loss became nan in epoch 1, batch 3")
    search = a_search(plan, surface)
    drive(search, surface)
    failed = search.configurations[0]
    assert (failed.state, failed.score) == ("failed", None)
    assert failed.reason == f"{name}: loss became nan in epoch 1, batch 3"
    assert len(failed.trials) <= 4 and search.chosen not in (None, failed.number)
    # Again without being asked to: nothing.  Asked to: only what failed, and what it kept waiting.
    again = a_search(plan, surface)
    assert again.finished and drive(again, surface) == []
    del surface.fails[name]
    surface.finished.discard(name)
    healed = a_search(plan, surface)
    ran = drive(healed, surface)
    assert ran[0] == name and healed.configurations[0].state == "complete"


def test_each_folds_own_choice_has_not_seen_its_test_cases():
    """Scores of the other folds do not move it."""
    surface = Surface(0)
    search = a_search(a_plan(configurations=8, prune_p=0), surface)
    drive(search, surface)
    before = search.chosen_in_fold()
    for one in search.configurations:
        for cell, where in enumerate(search.plan.cells):
            if where.fold != 2:
                one.scores[cell] = {"dice": 1.0 if one.number == 7 else 0.0}
    assert search.chosen_in_fold()[2] == before[2] and search.chosen_in_fold()[0] == 7


def test_test_folds_stay_closed_while_a_configuration_can_still_win():
    """One that lost its machines is taken up by the next command, and only then is chosen."""
    surface = Surface(0)
    plan = a_plan(configurations=4)
    search = a_search(plan, surface)
    lost = drive(search, surface, until=25)[-1]
    surface.fails[lost] = Outcome("failed", reason="its machine died", machines_failed=True)
    one = next(c for c in search.configurations if lost in c.trials.values())
    one.state, one.machines_failed = "failed", True
    search._save()
    rest = a_search(plan, surface)
    del surface.fails[lost]
    drive(rest, surface)
    assert rest.chosen is not None and rest.finished

    surface, name = Surface(1), None
    search = a_search(plan, surface)
    trial = search.take()
    name = trial["name"]
    surface.fails[name] = Outcome("failed", reason="its machine died", machines_failed=True)
    surface.finished.add(name)
    search.ended(name)
    drive(search, surface)
    assert search.finished and search.chosen is None
    assert not [t for t in surface.trials.values() if t.split == "test"]
    del surface.fails[name]
    again = a_search(plan, surface)
    drive(again, surface)
    assert again.chosen is not None and len(again.configurations) == 4


def test_every_choice_that_was_tested_is_remembered(tmp_path):
    surface, tested = Surface(4), []
    for number in (3, 12, 25):
        search = a_search(a_plan(configurations=number), surface, journal=tmp_path / "journal")
        drive(search, surface)
        tested += [search.chosen] if search.chosen not in tested else []
    assert search.tested == tested == surface.saved["tested"] and len(tested) > 1


# ------------------------------------------------------------------------------ killed and resumed
def test_a_damaged_cell_of_the_best_one_runs_again_when_the_search_is_extended(tmp_path):
    journal, surface = tmp_path / "journal.log", Surface(2)
    search = a_search(a_plan(configurations=6), surface, journal=journal)
    drive(search, surface)
    best = chosen(search)
    surface.finished.discard(best.trials[3])  # its files are gone
    search = a_search(a_plan(configurations=12), surface, journal=journal)
    ran = drive(search, surface)
    assert ran.count(best.trials[3]) == 1 and len(search.configurations) == 12
    assert "running" not in {one.state for one in search.configurations} and search.finished


def test_what_was_asked_for_before_is_kept():
    surface = Surface(2)
    plan = a_plan(configurations=3, comparators=("xent",), confirm_seeds=(7,))
    drive(a_search(plan, surface), surface)
    later = a_plan(
        configurations=4, comparators=("focal2",), confirm_seeds=(8,), sampler="random", prune_p=0
    )
    search = a_search(later, surface)
    drive(search, surface)
    assert surface.saved["comparators"] == ["xent", "focal2"]
    assert surface.saved["confirm_seeds"] == [7, 8]
    assert [one["sampler"] for one in surface.saved["configurations"]] == ["tpe"] * 3 + ["random"]


def test_machines_that_join_are_used():
    surface = Surface(0)
    search = a_search(a_plan(configurations=20), surface, slots=1)
    first = [search.take(), search.take()]
    assert None not in first and search.take() is None
    search.set_slots(6)
    more = [search.take() for _ in range(6)]
    assert more.count(None) == 1


@pytest.mark.parametrize("lost", ["nothing", "journal", "half a line", "its newest lines"])
def test_a_search_killed_at_any_moment_runs_the_budget_exactly_once(tmp_path, lost):
    journal = tmp_path / "journal.log"
    rng = random.Random(lost)
    surface, ran = Surface(3), []
    plan = a_plan(configurations=10, cells=tuple(shuffled_cells([1, 2], 4, 1)))
    while True:
        search = a_search(plan, surface, journal=journal, slots=2)
        if search.finished:
            break
        for one in search.configurations:  # what was decided stands
            assert one.state != "running" or one.score is None
        ran += drive(search, surface, until=rng.randrange(1, 12), rng=rng)
        if lost == "journal":
            journal.unlink()
        elif lost != "nothing":
            lines = journal.read_bytes().splitlines(keepends=True)
            kept = lines[: -rng.randrange(1, min(20, len(lines)))] if "lines" in lost else lines
            torn = kept[-1][: len(kept[-1]) // 2] if lost == "half a line" else b""
            journal.write_bytes(b"".join(kept[:-1] if torn else kept) + torn)
    assert len(ran) == len(set(ran)) and set(ran) == surface.trials.keys()
    assert len(search.configurations) == 10
    trials = search._study._trials()
    states = {one.number: trials[one.number].state.name for one in search.configurations}
    assert set(states.values()) == {"COMPLETE"}
    assert not [trial for trial in trials if trial.state.name == "RUNNING"]


def test_more_configurations_join_those_that_are_there(tmp_path):
    journal, surface = tmp_path / "journal.log", Surface(1)
    before = drive(a_search(a_plan(configurations=5), surface, journal=journal), surface)
    search = a_search(a_plan(configurations=9), surface, journal=journal)
    assert search.chosen is None or not search.finished
    after = drive(search, surface)
    assert len(search.configurations) == 9 and not set(before) & set(after)


def test_a_search_goes_on_only_under_the_same_terms():
    surface = Surface(1)
    drive(a_search(a_plan(configurations=3), surface), surface, until=5)
    for changes, words in (
        ({"objectives": ("sensitivity", "precision")}, "objectives is dice there, sensitivity"),
        ({"cells": tuple(shuffled_cells([1], 5, 1))}, "other seeds or folds"),
        ({"space": {"alpha": search_space(LOSSES["topk"])["fraction"]}}, "space is alpha"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            a_search(a_plan(**changes), surface)
        assert "--results" in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- the space
def test_open_ends_are_left_out_and_steps_are_short():
    where = search_space(LOSSES["new"])
    gamma = distribution(where["gamma"])
    assert (gamma.low, gamma.high) == (0.01, 10) and gamma.step == 0.01
    alpha = distribution(where["alpha"])
    assert (alpha.low, alpha.high) == (0.001, 0.999)


def test_a_grid_is_a_whole_one_within_the_budget():
    points = grid_points(search_space(LOSSES["focal1"]), 30)
    assert len(points) == 25 and len({point["gamma"] for point in points}) == 5
    surface = Surface(0)
    cells = tuple(shuffled_cells([1], 2, 1))
    plan = a_plan(sampler="grid", configurations=len(points), cells=cells)
    search = a_search(plan, surface)
    drive(search, surface)
    assert [one.values for one in search.configurations] != points
    assert sorted(map(str, points)) == sorted(str(one.values) for one in search.configurations)
    assert a_search(plan, surface).finished
    with pytest.raises(ValueError, match="a grid of 25 there, of 36 now"):
        a_search(a_plan(sampler="grid", configurations=36, cells=cells), surface)
    with pytest.raises(ValueError, match="not joined to another search"):
        a_search(a_plan(configurations=36, cells=cells), surface)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objectives": ("sensitivity", "precision")}, "one objective only"),
        ({"space": {"gamma": search_space(LOSSES["focal1"])["gamma"]}}, "two fields or more"),
    ],
)
def test_cmaes_says_what_it_cannot_do(changes, words):
    with pytest.raises(ValueError, match=words):
        a_search(a_plan(sampler="cmaes", **changes), Surface(0))
