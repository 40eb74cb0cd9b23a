"""What did a search find, and how sure is that?

Numbers come from the validation trials of a ledger and from its search.json (`results.SEARCH`).
Scores y[c, k] of configuration c in cell k are modelled as configuration + cell + noise, fitted by
least squares, so that a pruned configuration, which met a few cells only, is compared in those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from analysis.reading.arms import shown_arms
from analysis.reading.names import subjects_of
from analysis.statistics import confidence
from analysis.statistics.ladder import Ladder, holm, ladder
from analysis.statistics.order import SAME
from analysis.statistics.search_axes import Axes
from lesion_core import results
from lesion_core.arms import complete
from lesion_core.results import Sweep

NAMES = {"dice": "DSC", "sensitivity": "sensitivity", "precision": "precision"}
RESAMPLES = 4000
FEWEST_TO_RESAMPLE = 5
"""Complete configurations; choosing among fewer says little about choosing."""


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """A search in numbers."""

    search: dict
    """search.json."""
    fields: list[str]
    points: np.ndarray
    """[C, fields] values of the configurations, as `search_axes` has them."""
    scores: dict[str, np.ndarray]
    """[C, K] by metric; NaN where a configuration has not met a cell."""
    estimate: dict[str, np.ndarray]
    """[C] by metric: mean over all cells, adjusted for those it has not met; NaN if failed."""
    error: dict[str, np.ndarray]
    """[C] standard error of the estimate among configurations: the noise of its own trials."""
    fresh: dict[str, dict[str, np.ndarray]]
    """By metric and loss, [S, F] means on the confirming seeds."""
    sessions: bool = False
    """Whether some subject of the cohort has several cases, whose scores are averaged first."""

    @property
    def configurations(self) -> list[dict]:
        """Every configuration as search.json lists it, in the order of proposal."""
        return self.search["configurations"]

    @property
    def states(self) -> np.ndarray:
        """[C] complete, pruned, failed or running."""
        return np.array([one["state"] for one in self.configurations], object)

    @property
    def objective(self) -> str:
        """The first metric that the search went by."""
        return self.search["objectives"][0]

    @property
    def judged_by(self) -> list[str]:
        """The objectives, and DSC, by which one of several good ones is chosen."""
        return list(dict.fromkeys([*self.search["objectives"], "dice"]))

    def label(self, number: int) -> str:
        """The loss of a configuration, by its number."""
        return next(one["loss"] for one in self.configurations if one["number"] == number)

    @property
    def chosen(self) -> int | None:
        """Place of the chosen configuration."""
        numbers = [one["number"] for one in self.configurations]
        wanted = self.search["chosen"]
        return None if wanted is None else numbers.index(wanted)

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(seed, fold) of every cell."""
        return [(seed, fold) for seed, fold in self.search["cells"]]

    @property
    def fold_of(self) -> np.ndarray:
        """[K] fold of every cell."""
        return np.array([fold for _, fold in self.cells])

    @property
    def met(self) -> np.ndarray:
        """[C] number of cells with a score."""
        return (~np.isnan(self.scores["dice"])).sum(1)

    @property
    def begun(self) -> np.ndarray:
        """[C] number of cells that were begun."""
        return np.array([len(one["trials"]) for one in self.configurations])

    @cached_property
    def axes(self) -> Axes:
        """The fields as axes."""
        return Axes.of(self.search)

    def grid(self, place: int, metric: str) -> np.ndarray:
        """[S, F] scores of one configuration."""
        return by_cell(self.cells, self.scores[metric][place])


def search_outcome(search: dict | None, sweep: Sweep) -> SearchOutcome | None:
    """A search.json and its sweep in numbers; None where no configuration was tried."""
    if search is None or not search["configurations"]:
        return None
    search = by_arm(search, sweep)
    validated = sweep.judged_on("validation")
    subjects = subjects_of(sweep.path, search["cohort"])
    judged = results.judged_scores(validated.cases, subjects)
    configurations, cells = search["configurations"], len(search["cells"])
    scores = {metric: np.full((len(configurations), cells), np.nan) for metric in NAMES}
    for row, one in enumerate(configurations):
        for cell, name in one["trials"].items():
            if name in judged.index:
                for metric, values in scores.items():
                    values[row, int(cell)] = judged.loc[name, metric]
    usable = np.array([one["state"] != "failed" for one in configurations])
    fitted = {metric: additive(values, usable) for metric, values in scores.items()}
    fields = list(search["space"])
    return SearchOutcome(
        search=search,
        fields=fields,
        points=Axes.of(search).points(configurations),
        scores=scores,
        # Adjusted for the cells that it has not met, a poor one may come out below 0.
        estimate={metric: np.clip(fit[0], 0.0, 1.0) for metric, fit in fitted.items()},
        error={metric: fit[1] for metric, fit in fitted.items()},
        fresh=_fresh(search, validated, judged),
        sessions=len(set(subjects.values())) < len(subjects),
    )


def by_arm(search: Mapping[str, Any], sweep: Sweep) -> dict[str, Any]:
    """search.json with the labels of arms, as ``sweep`` has them, in place of those of losses.

    Where settings are searched, several configurations have the same loss.
    """
    arms = shown_arms(sweep)
    base = complete(sweep.meta.get("settings") or {})
    plain = {
        loss: label
        for label, loss in reversed(arms.losses.items())
        if all(arms.settings[label].get(name) == base.get(name) for name in arms.varied)
    }
    return {
        **search,
        "comparators": [plain.get(loss, loss) for loss in search["comparators"]],
        "configurations": [
            one | {"loss": arms.label_of.get(next(iter(one["trials"].values()), ""), one["loss"])}
            for one in search["configurations"]
        ],
    }


def set_aside(found: SearchOutcome) -> set[str]:
    """Losses that only a search asked for: what else a report says is about the chosen one and
    those that it is compared with, or it would choose once more, by test scores."""
    chosen = set() if found.chosen is None else {found.configurations[found.chosen]["loss"]}
    tried = {one["loss"] for one in found.configurations}
    return tried - chosen - set(found.search["comparators"])


def saved(found: SearchOutcome) -> tuple[int, int]:
    """Cells that pruned configurations were spared, and cells of all that have ended."""
    total = len(found.cells)
    spared = int((total - found.begun)[found.states == "pruned"].sum())
    return spared, total * int((found.states != "running").sum())


def by_cell(cells: list[tuple[int, int]], values: np.ndarray) -> np.ndarray:
    """[S, F] from values in the order of the cells."""
    seeds = list(dict.fromkeys(sorted(seed for seed, _ in cells)))
    folds = list(dict.fromkeys(sorted(fold for _, fold in cells)))
    grid = np.full((len(seeds), len(folds)), np.nan)
    for (seed, fold), value in zip(cells, values, strict=True):
        grid[seeds.index(seed), folds.index(fold)] = value
    return grid


def additive(scores: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[C] estimates and standard errors of configuration + cell + noise, by least squares.

    A configuration that met all cells gets its plain mean; another one, its mean difference from
    what its cells bring, so easy cells do not flatter it.  NaN where nothing is known.

    >>> scores = np.array([[1.0, 2.0, 3.0], [0.5, 1.5, np.nan], [1.0, 2.0, 3.0]])
    >>> additive(scores, np.array([True, True, True]))[0].round(3).tolist()
    [2.0, 1.5, 2.0]
    """
    estimate, error = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    known = ~np.isnan(scores) & usable[:, None]
    rows = np.flatnonzero(known.any(1))
    columns = np.flatnonzero(known.any(0))
    if not len(rows):
        return estimate, error
    part, values = known[np.ix_(rows, columns)], scores[np.ix_(rows, columns)]
    at_row, at_column = np.nonzero(part)
    size = len(rows) + len(columns)
    design = np.zeros((len(at_row) + 1, size))
    design[np.arange(len(at_row)), at_row] = 1
    design[np.arange(len(at_row)), len(rows) + at_column] = 1
    design[-1, len(rows) :] = 1  # the cells' effects add up to nothing
    wanted = np.append(values[part], 0.0)
    solved, *_ = np.linalg.lstsq(design, wanted, rcond=None)
    left = wanted[:-1] - design[:-1] @ solved
    df = len(at_row) - size + 1
    noise = math.sqrt(float(left @ left) / df) if df > 0 else float("nan")
    estimate[rows] = solved[: len(rows)]
    error[rows] = noise / np.sqrt(part.sum(1))
    return estimate, error


def corrected(
    scores: np.ndarray, rng: np.random.Generator, fold_of: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Mean and interval of the best of C configurations [C, K], the choosing included.

    Bootstrap bias correction (Tsamardinos, Greasidou & Borboudakis 2018): folds are drawn with
    replacement, the best configuration on these is chosen, and scored on the folds not drawn.
    Folds, not cells: the seeds of a fold are judged on the same patients, so that a cell that is
    left out knows them already.  ``fold_of`` [K]; None: every cell is a fold of its own.  NaN with
    fewer than three folds or five configurations.
    """
    folds = (
        np.arange(scores.shape[1])
        if fold_of is None
        else np.unique(fold_of, return_inverse=True)[1]
    )
    number = len(np.unique(folds))
    if number < 3 or len(scores) < FEWEST_TO_RESAMPLE:
        return float("nan"), float("nan"), float("nan")
    of_fold = (folds == np.arange(number)[:, None]).astype(float)  # [folds, K]
    by_fold = scores @ of_fold.T / of_fold.sum(1)
    drawn = rng.integers(number, size=(RESAMPLES, number))
    weight = np.stack([np.bincount(row, minlength=number) for row in drawn])  # [R, folds]
    best = np.argmax(weight @ by_fold.T, 1)
    out = weight == 0
    some = out.any(1)
    means = (by_fold[best] * out).sum(1)[some] / out.sum(1)[some]
    low, high = np.quantile(means, confidence.quantiles())
    return float(means.mean()), float(low), float(high)


@dataclass(frozen=True)
class Rivals:
    """The complete configurations beside the chosen one, by place."""

    others: list[int]
    alike: list[int]
    """Those that cannot be told from it."""
    same: list[int]
    """Those of them that have its score."""


def rivals(found: SearchOutcome, metric: str) -> Rivals:
    """Which complete configurations cannot be told from the chosen one.

    Paired differences, cell by cell; Student's t over the means of the folds, which hold seeds and
    patients alike (over seeds, where there is one fold), Holm-adjusted over all others.  It holds
    for one look: a search's cells are fixed by its plan, and none is added after a look.  The
    chosen one was chosen for being high, which makes it look more different than it is: at least
    these.
    """
    assert found.chosen is not None
    complete = np.flatnonzero(found.states == "complete")
    others = [int(place) for place in complete if place != found.chosen]
    best = found.grid(found.chosen, metric)
    fits = [ladder(best - found.grid(p, metric), np.arange(best.shape[1])) for p in others]
    p_values = [_p_at_one_look(fit) for fit in fits]
    told = holm(np.array(p_values)) < confidence.error()
    return Rivals(
        others,
        [place for place, apart in zip(others, told, strict=True) if not apart],
        [place for place, fit in zip(others, fits, strict=True) if abs(fit.estimate) <= SAME],
    )


def _p_at_one_look(fit: Ladder) -> float:
    """Student's two-sided p of no difference; NaN where there are no degrees of freedom."""
    rung = "L2" if fit.df["L2"] > 0 else "L1"
    if abs(fit.estimate) <= SAME:
        return 1.0
    if not fit.df[rung] > 0:
        return float("nan")
    with np.errstate(divide="ignore"):
        distance = np.divide(abs(fit.estimate), fit.se[rung])
    return float(2 * special.stdtr(fit.df[rung], -distance))


def start(found: SearchOutcome) -> int | None:
    """Place of the configuration that the search was given to begin with: the loss's own numbers,
    or others that have a name; None where a sampler proposed the first one."""
    first = found.configurations[0]
    return 0 if first["sampler"] == "" and found.search["sampler"] != "grid" else None


def gain_over_start(found: SearchOutcome, metric: str) -> tuple[float, float, float]:
    """By how much choosing beats the configuration that the search began with, and the interval:
    `corrected` of the differences, the choosing included.  NaN where it cannot be said."""
    begun = start(found)
    complete = np.flatnonzero(found.states == "complete")
    if begun is None or begun not in complete:
        return float("nan"), float("nan"), float("nan")
    scores = found.scores[metric]
    return corrected(scores[complete] - scores[begun], np.random.default_rng(1), found.fold_of)


def front_frame(found: SearchOutcome) -> pd.DataFrame:
    """The complete configurations, and which no other one beats in both objectives."""
    names = found.search["objectives"]
    places = np.flatnonzero(found.states == "complete")
    values = np.stack([found.estimate[name][places] for name in names], 1)
    front = [
        not any((other >= own).all() and (other > own).any() for other in values) for own in values
    ]
    frame = pd.DataFrame(values, columns=names)
    for name in names:
        frame[f"{name}_se"] = found.error[name][places]
    labels = [found.configurations[place]["loss"] for place in places]
    return frame.assign(configuration=labels, front=front)


def _fresh(
    search: dict, validated: Sweep, judged: pd.DataFrame
) -> dict[str, dict[str, np.ndarray]]:
    runs = validated.runs
    seeds = search["confirm_seeds"]
    folds = sorted({fold for _, fold in search["cells"]})
    found: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in NAMES}
    for trial, loss, seed, fold in zip(
        runs["trial"], runs["loss"], runs["seed"], runs["fold"], strict=True
    ):
        if seed in seeds and fold in folds and trial in judged.index:
            at = seeds.index(seed), folds.index(fold)
            for metric, by_loss in found.items():
                grid = by_loss.setdefault(loss, np.full((len(seeds), len(folds)), np.nan))
                grid[at] = judged.loc[trial, metric]
    return found
