"""Which loss comes first: the highest mean test DSC, over what all compared losses have.

The report orders losses by this, and `predict` takes the networks of the first.  Without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from lesion_core.results import Sweep, rates, read_search, subjects_of

ENOUGH = 0.5
"""Share of the most complete loss's cells that all compared losses must have in common."""


def complete_grid(done: np.ndarray, shown: Sequence[int]) -> tuple[list[int], list[int]]:
    """Losses whose (seed, fold) cells are complete enough to be compared, and those given up.

    ``done`` [L, S, F].  The loss with the fewest complete cells is given up first, until the others
    share `ENOUGH` of what the most complete one has, or two are left.

    >>> done = np.ones((3, 2, 2), bool)
    >>> done[1, 0], done[1, 1, 0] = False, False
    >>> complete_grid(done, [0, 1, 2])
    ([0, 2], [1])
    """
    kept, given_up = list(shown), []
    while len(kept) > 2:
        own = done[kept]
        number = own.sum((1, 2))
        if own.all(0).sum() >= ENOUGH * number.max():
            break
        given_up.append(kept.pop(len(kept) - 1 - int(np.argmin(number[::-1]))))
    return kept, given_up


def shared(scores: np.ndarray) -> np.ndarray:
    """Scores [L, S, P] without what some loss lacks, so that means are over the same.

    A loss without any value does not count; if nothing is shared, all stays as it is.
    """
    known = ~np.isnan(scores).all((1, 2))
    absent = np.isnan(scores[known]).any(0)
    return scores if absent.all() else np.where(absent, np.nan, scores)


class Mean(NamedTuple):
    """A mean over (seed, fold) cells and subjects, and over how many."""

    value: float
    cells: int
    subjects: int


def weighed_mean(scores: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray) -> Mean:
    """The mean of scores [S, P], NaN where a trial is absent or a case undefined.

    Cells of a fold weigh alike and so do subjects, whatever their number of cases; a fold weighs as
    many as its subjects are.  A case that is undefined in a cell that is there is left out of all.

    >>> weighed_mean(np.array([[0.5, 0.7, 0.9]]), np.array([0, 0, 1]), np.array([0, 0, 1])).value
    0.75
    """
    total, cells, subjects = 0.0, 0, 0
    for fold in np.unique(fold_of):
        here = np.flatnonzero(fold_of == fold)
        block = scores[:, here]
        block = block[~np.isnan(block).all(1)]
        usable = ~np.isnan(block).any(0)
        if not block[:, usable].size:
            continue
        _, subject, number = np.unique(
            subject_of[here[usable]], return_inverse=True, return_counts=True
        )
        total += float((block[:, usable].mean(0) / number[subject]).sum())
        cells += len(block)
        subjects += len(number)
    return Mean(total / subjects if subjects else float("nan"), cells, subjects)


def best_first(
    scores: np.ndarray, done: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray
) -> dict[int, Mean]:
    """The losses that can be compared by `weighed_mean` over what they share; undefined last.

    Args:
        scores: [L, S, P] test DSC at the last epoch.
        done: [L, S, F] whether a trial is complete.
        fold_of: [P] which fold tests the case.
        subject_of: [P] whose the case is.
    """
    losses, _ = complete_grid(done, [loss for loss in range(len(done)) if done[loss].any()])
    means = [weighed_mean(own, fold_of, subject_of) for own in shared(scores[losses])]
    order = np.argsort([-m.value if m.value == m.value else np.inf for m in means], kind="stable")
    return {losses[place]: means[place] for place in order}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A loss of a cohort, and how it did."""

    loss: str
    mean_dice: float
    """NaN: undefined for every test image."""
    cells: int
    subjects: int


def standings(sweep: Sweep, cohort: str) -> list[Standing]:
    """The compared losses of a cohort, the one that the report puts first in front; [] if no trial
    is complete.

    Losses that only a search asked for are left out, as in the report: they were chosen by other
    scores.  Where settings differ, arms are compared as losses are (`Sweep.by_arm`).
    """
    sweep = sweep.by_arm().judged_on("test")
    sweep = sweep.without(_only_searched(sweep))
    runs = sweep.runs[sweep.runs["expected"].astype(bool) & (sweep.runs["cohort"] == cohort)]
    runs = runs.drop_duplicates(["loss", "seed", "fold"])
    place = {axis: {v: i for i, v in enumerate(dict.fromkeys(runs[axis]))} for axis in _AXES}
    place["loss"] = {loss: i for i, loss in enumerate(sweep.losses)}
    at = np.array([[place[axis][row[axis]] for axis in _AXES] for _, row in runs.iterrows()], int)
    complete = (runs["status"] == "done").to_numpy(bool)
    if not complete.any():
        return []
    done = np.zeros([len(place[axis]) for axis in _AXES], bool)
    done[tuple(at[complete].T)] = True
    trials = dict(zip(runs["trial"][complete], map(tuple, at[complete].tolist()), strict=True))
    rows = sweep.cases[sweep.cases["trial"].isin(trials)]
    last = rows.groupby("trial")["epoch"].transform("max")
    rows = rows[(rows["split"] == "test") & (rows["scope"] == "image") & (rows["epoch"] == last)]
    where = np.array([trials[trial] for trial in rows["trial"]], int).reshape(-1, 3)
    case, cases = pd.factorize(pd.MultiIndex.from_arrays([where[:, 2], rows["case"]]))
    scores = np.full((*done.shape[:2], len(cases)), np.nan)
    scores[where[:, 0], where[:, 1], case] = rates(rows)["dice"]
    known = subjects_of(sweep.path, cohort)
    fold_of = np.array([fold for fold, _ in cases], int)
    subject_of = pd.factorize(np.array([known.get(name, name) for _, name in cases], object))[0]
    return [
        Standing(loss=sweep.losses[loss], mean_dice=m.value, cells=m.cells, subjects=m.subjects)
        for loss, m in best_first(scores, done, fold_of, subject_of).items()
    ]


_AXES = ("loss", "seed", "fold")


def _only_searched(sweep: Sweep) -> set[str]:
    """What `analysis` sets aside: losses that a search tried and neither chose nor compares."""
    search = read_search(sweep.path)
    if search is None:
        return set()
    tried = {one["number"]: one["loss"] for one in search["configurations"]}
    return set(tried.values()) - {tried.get(search.get("chosen"))} - set(search["comparators"])
