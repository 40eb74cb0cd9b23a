"""What did a search find, how sure is that, and what did it cost?

Numbers come from the validation trials of a ledger and from its search.json (`results.SEARCH`).
Scores y[c, k] of configuration c in cell k are modelled as configuration + cell + noise, fitted by
least squares, so that a pruned configuration, which met a few cells only, is compared in those.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import Column, Figure, Item, Note, Section, Table, many, prose, written
from analysis.reading.scores import COHORT_TITLES, Study
from analysis.statistics.ladder import Ladder, ladder
from lesion_core import results
from lesion_core.results import Sweep

NAMES = {"dice": "DSC", "sensitivity": "sensitivity", "precision": "precision"}
RESAMPLES = 4000
FEWEST_FOR_A_SURFACE = 5
FEWEST_TO_RESAMPLE = 5
"""Complete configurations; choosing among fewer says little about choosing."""
LOW = (
    "A pruned one was stopped for looking bad, after a test at each of its cells against a best "
    "one that is partly lucky, so its score is biased low."
)
STATE_COLOURS = {
    "complete": "#3f90da",
    "pruned": "#b9ac70",
    "failed": "#bd1f01",
    "running": "#94a4a2",
}
STATE_MARKERS = {"complete": "o", "pruned": "v", "failed": "X", "running": "s"}


@dataclass(frozen=True, eq=False)
class Found:
    """A search in numbers."""

    search: dict
    """search.json."""
    fields: list[str]
    points: np.ndarray
    """[C, fields] values of the configurations."""
    scores: dict[str, np.ndarray]
    """[C, K] by metric; NaN where a configuration has not met a cell."""
    estimate: dict[str, np.ndarray]
    """[C] by metric: mean over all cells, adjusted for those it has not met; NaN if failed."""
    error: dict[str, np.ndarray]
    """[C] standard error of the estimate among configurations: the noise of its own trials."""
    fresh: dict[str, dict[str, np.ndarray]]
    """By metric and loss, [S, F] means on the confirming seeds."""

    @property
    def configurations(self) -> list[dict]:
        return self.search["configurations"]

    @property
    def states(self) -> np.ndarray:
        return np.array([one["state"] for one in self.configurations], object)

    @property
    def objective(self) -> str:
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
        return [(seed, fold) for seed, fold in self.search["cells"]]

    @property
    def met(self) -> np.ndarray:
        """[C] number of cells with a score."""
        return (~np.isnan(self.scores["dice"])).sum(1)

    @property
    def begun(self) -> np.ndarray:
        """[C] number of cells that were begun."""
        return np.array([len(one["trials"]) for one in self.configurations])

    def grid(self, place: int, metric: str) -> np.ndarray:
        """[S, F] scores of one configuration."""
        return by_cell(self.cells, self.scores[metric][place])


def read(sweep: Sweep) -> Found | None:
    """The search of a results folder; None if it holds none."""
    search = results.read_search(sweep.path) if sweep.path.is_dir() else None
    if search is None or not search["configurations"]:
        return None
    validated = sweep.judged_on("validation")
    judged = results.judged_scores(validated.cases)
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
    return Found(
        search=search,
        fields=fields,
        points=np.array([[one["values"][name] for name in fields] for one in configurations]),
        scores=scores,
        estimate={metric: fit[0] for metric, fit in fitted.items()},
        error={metric: fit[1] for metric, fit in fitted.items()},
        fresh=_fresh(search, validated, judged),
    )


def set_aside(found: Found) -> set[str]:
    """Losses that only a search asked for: what else a report says is about the chosen one and
    those that it is compared with, or it would choose once more, by test scores."""
    chosen = set() if found.chosen is None else {found.configurations[found.chosen]["loss"]}
    tried = {one["loss"] for one in found.configurations}
    return tried - chosen - set(found.search["comparators"])


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


# ---------------------------------------------------------------------------------------- numbers
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


def corrected(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean and 95 % interval of the best of C configurations [C, K], the choosing included.

    Bootstrap bias correction (Tsamardinos, Greasidou & Borboudakis 2018): cells are drawn with
    replacement, the best configuration on these is chosen, and scored on the cells not drawn.
    NaN with fewer than three cells or five configurations.
    """
    number = scores.shape[1]
    if number < 3 or len(scores) < FEWEST_TO_RESAMPLE:
        return float("nan"), float("nan"), float("nan")
    drawn = rng.integers(number, size=(RESAMPLES, number))
    weight = np.stack([np.bincount(row, minlength=number) for row in drawn])  # [R, K]
    best = np.argmax(weight @ scores.T, 1)
    out = weight == 0
    some = out.any(1)
    means = (scores[best] * out).sum(1)[some] / out.sum(1)[some]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(means.mean()), float(low), float(high)


@dataclass(frozen=True, eq=False)
class Surface:
    """A Gaussian process through the estimates, each with its own noise."""

    model: Any
    low: np.ndarray
    span: np.ndarray

    centre: float

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n] mean and standard deviation of the score itself at points [n, fields]."""
        mean, sd = self.model.predict((points - self.low) / self.span, return_std=True)
        return mean + self.centre, sd

    def like_the_best(self, points: np.ndarray) -> tuple[int, float]:
        """Which point is highest, and the share of points that are less than one standard
        deviation, of the difference, below it."""
        mean, covariance = self.model.predict((points - self.low) / self.span, return_cov=True)
        best = int(np.argmax(mean))
        own = np.diag(covariance)
        variance = np.maximum(own[best] + own - 2 * covariance[best], 0.0)
        return best, float((mean[best] - mean <= np.sqrt(variance)).mean())


def surface(found: Found, metric: str) -> Surface | None:
    """None with too few configurations.  Matern 5/2 with a length per field, by likelihood."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    value, error = found.estimate[metric], found.error[metric]
    usable = ~np.isnan(value) & ~np.isnan(error)
    if usable.sum() < FEWEST_FOR_A_SURFACE or np.ptp(value[usable]) == 0:
        return None
    low, high = np.array([found.search["ranges"][name] for name in found.fields], float).T
    spread = float(np.var(value[usable]))
    lengths: Any = np.full(len(found.fields), 0.5)
    kernel = ConstantKernel(spread, (spread * 1e-2, spread * 1e2)) * Matern(
        lengths, (0.1, 10.0), nu=2.5
    )
    noise: Any = np.maximum(error[usable] ** 2, 1e-6 * spread)
    model = GaussianProcessRegressor(
        kernel,
        alpha=noise,
        n_restarts_optimizer=2,
        random_state=0,
    )
    centre = float(np.average(value[usable], weights=1 / np.maximum(error[usable] ** 2, 1e-12)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length at its bound is a flat field: no news
        model.fit((found.points[usable] - low) / (high - low), value[usable] - centre)
    return Surface(model, low, high - low, centre)


# --------------------------------------------------------------------------------------- section
def section(found: Found, studies: list[Study]) -> Section:
    """Surface, cost, importance, and the chosen configuration, judged without its luck.

    ``studies``: of all test trials, those of `set_aside` losses too.
    """
    items: list[Item] = [_summary(found)]
    items += _surfaces(found)
    if len(found.search["objectives"]) > 1:
        items.append(_front_figure(found))
    items.append(_cost(found))
    if found.search["importance"]:
        items.append(_importance(found))
    if found.chosen is None:
        items.append(
            Note(
                kind="warning",
                body=prose(
                    "Nothing is chosen: configurations are still running or to come, lost their "
                    "machines, or none is complete. The test folds are not opened before that."
                ),
            )
        )
    else:
        items += _verdicts(found, studies)
    items.append(_table(found))
    return Section(
        key="search",
        title=f"Which {' and '.join(found.fields)}?",
        items=items,
        lead="Every configuration was judged on validation parts of the training folds, cell by "
        "cell with the same weights at the start and the same cases. Look at the noise before the "
        "optimum: where the surface is flat within its uncertainty, the choice hardly matters.",
    )


def title(found: Found) -> str:
    """Of a page that holds nothing but a search yet."""
    cohort = found.search["cohort"]
    return f"Search over {found.search['loss']} on {COHORT_TITLES.get(cohort, cohort)}"


def facts(found: Found) -> str:
    """For the head of the page."""
    planned = max(found.search["planned"], len(found.configurations))
    ended = int((found.states != "running").sum())
    return (
        f"search: **{ended} of {planned}** configurations have ended, "
        f"{int(found.begun.sum())} validation trials"
    )


def saved(found: Found) -> tuple[int, int]:
    """Cells that pruned configurations were spared, and cells of all that have ended."""
    total = len(found.cells)
    spared = int((total - found.begun)[found.states == "pruned"].sum())
    return spared, total * int((found.states != "running").sum())


def _count(found: Found) -> str:
    parts = [
        f"{int((found.states == state).sum())} {state}"
        for state in ("complete", "pruned", "failed", "running")
        if (found.states == state).any()
    ]
    return f"{many(len(found.configurations), 'configuration')}: {', '.join(parts)}"


def _summary(found: Found) -> Note:
    where = ", ".join(f"{name} in {range_}" for name, range_ in found.search["space"].items())
    spared, total = saved(found)
    share = f", {spared} of {total} cells ({spared / total:.0%}) saved by pruning" if total else ""
    folds = len({fold for _, fold in found.cells})
    seeds = len({seed for seed, _ in found.cells})
    objectives = " and ".join(NAMES[name] for name in found.search["objectives"])
    return Note(
        body=prose(
            f"{where}; proposed by: {_samplers(found)}; {_count(found)}{share}. Judged on "
            f"{objectives}, the mean over validation cases with a lesion at the last epoch, in "
            f"{many(seeds, 'seed')} × {many(folds, 'fold')}. A fifth of the subjects of each "
            "training fold is the validation part, the same for every configuration and seed "
            "(listed in `sweep.json`)."
        )
    )


def _surfaces(found: Found) -> list[Item]:
    items: list[Item] = []
    for metric in found.search["objectives"]:
        fitted = surface(found, metric)
        if fitted is None:
            items.append(
                Note(
                    body=prose(
                        f"A surface of {NAMES[metric]} needs {FEWEST_FOR_A_SURFACE} configurations "
                        "with different scores."
                    )
                )
            )
            continue
        two = len(found.fields) == 2
        frame = grid_frame(found, fitted, metric)
        space = frame if len(found.fields) < 3 else sampled_frame(found, fitted)
        place, close = fitted.like_the_best(space[found.fields].to_numpy())
        best = space.iloc[place]
        peak = ", ".join(f"{name} {best[name]:.2f}" for name in found.fields)
        draw = draw_plane if two else draw_slices
        items.append(
            Figure(
                key=f"search-surface-{metric}",
                title=f"{NAMES[metric]} over {' and '.join(found.fields)}",
                draw=partial(draw, found, fitted, frame, metric),
                data=frame,
                caption=f"Gaussian process through {int((~np.isnan(found.estimate[metric])).sum())}"
                f" configurations ({_count(found)}), each with the noise of its trials. "
                + (
                    "Left: the score; right: its standard deviation. "
                    if two
                    else "Line and band: the score and its 95 % interval along each field, other "
                    "fields as chosen. "
                )
                + f"Highest at {peak}: {best['score']:.3f} ± {best['sd']:.3f}. {close:.0%} of the "
                f"space lies less than one standard deviation of the difference below. {LOW}",
                alt=f"{NAMES[metric]} is highest near {peak}, {best['score']:.3f} ± "
                f"{best['sd']:.3f}; {close:.0%} of the space cannot be told from it.",
            )
        )
    return items


def grid_frame(found: Found, fitted: Surface, metric: str, steps: int = 41) -> pd.DataFrame:
    """Score and standard deviation on a grid (two fields), else along each field through the
    chosen configuration, or the best one so far."""
    ranges = [found.search["ranges"][name] for name in found.fields]
    axes = [np.linspace(low, high, steps if len(ranges) == 2 else 61) for low, high in ranges]
    if len(found.fields) == 2:
        points = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], 1)
        varied = None
    else:
        centre = found.points[_centre(found, metric)]
        rows, varied = [], []
        for place, axis in enumerate(axes):
            for value in axis:
                rows.append([*centre[:place], value, *centre[place + 1 :]])
                varied.append(found.fields[place])
        points = np.array(rows)
    score, sd = fitted.at(points)
    frame = pd.DataFrame(points, columns=found.fields).assign(score=score, sd=sd)
    return frame if varied is None else frame.assign(varied=varied)


def sampled_frame(found: Found, fitted: Surface, number: int = 2000) -> pd.DataFrame:
    """Score and standard deviation at random points of the whole space."""
    low, high = np.array([found.search["ranges"][name] for name in found.fields], float).T
    points = np.random.default_rng(0).uniform(low, high, (number, len(low)))
    score, sd = fitted.at(points)
    return pd.DataFrame(points, columns=found.fields).assign(score=score, sd=sd)


def _centre(found: Found, metric: str) -> int:
    return found.chosen if found.chosen is not None else int(np.nanargmax(found.estimate[metric]))


def _cost(found: Found) -> Figure:
    frame = pd.DataFrame(
        {
            "configuration": [one["loss"] for one in found.configurations],
            "state": found.states,
            "cells_run": found.begun,
            "cells_in_all": len(found.cells),
        }
    )
    spared, total = saved(found)
    words = f"{spared} of {total} cells were saved by pruning" if total else "none has ended"
    return Figure(
        key="search-cost",
        title="Cells spent on each configuration",
        draw=partial(draw_cost, found),
        data=frame,
        caption=f"In the order in which they were proposed. Of {len(found.cells)} cells a pruned "
        "configuration met so many before Wilcoxon's signed-rank test against the best one so far "
        f"fell below {_thresholds(found)}. {words.capitalize()}. {_count(found)}.",
        alt=f"{words.capitalize()}; {_count(found)}.",
    )


def _thresholds(found: Found) -> str:
    used = sorted({one["prune_p"] for one in found.configurations if one["state"] == "pruned"})
    return " or ".join(f"{value:g}" for value in used or [found.search["prune_p"]])


def _samplers(found: Found) -> str:
    """Who proposed, and how many."""
    names = [one["sampler"] or "given" for one in found.configurations]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))


def _importance(found: Found) -> Table:
    rows = [
        {"objective": NAMES[objective], "field": name, "share": share}
        for objective, shares in found.search["importance"].items()
        for name, share in shares.items()
    ]
    return Table(
        key="search-importance",
        title="Which number matters?",
        frame=pd.DataFrame(rows),
        columns=[
            Column(key="objective", header="Score"),
            Column(key="field", header="Field"),
            Column(key="share", header="Share", decimals=0, percent=True),
        ],
        caption="PED-ANOVA (Watanabe et al. 2023): how far the better configurations' values "
        "depart from all that were tried, as a share. It says nothing about direction, and little "
        f"from few configurations: {_count(found)}.",
    )


def _interval(fit: Ladder, rung: str, *, rate: bool = True) -> str:
    """In words; of a rate it ends at 0 and 1."""
    low, high = fit.interval(rung)
    if rate:
        low, high = max(low, 0.0), min(high, 1.0)
    return (
        ""
        if math.isnan(fit.half_width(rung))
        else f"{written(low, '.3f')} to {written(high, '.3f')}"
    )


def _cells_ladder(grid: np.ndarray) -> Ladder:
    """The ladder of [S, F] cell means, folds weighing alike."""
    return ladder(grid, np.arange(grid.shape[1]))


def _verdicts(found: Found, studies: list[Study]) -> list[Item]:
    """The chosen configuration: as the search has it, without its luck, and on the test folds."""
    assert found.chosen is not None
    best = found.configurations[found.chosen]["loss"]
    rows: list[dict] = []
    versus: list[dict] = []
    for metric in found.judged_by:
        for judged, against in (
            _searched(found, metric),
            _confirmed(found, metric, best),
            *(
                _tested(found, metric, study, best)
                for study in studies
                if study.cohort == found.search["cohort"]
            ),
        ):
            rows += [{"score_name": NAMES[metric]} | row for row in judged]
            versus += [{"score_name": NAMES[metric]} | row for row in against]
    order = ("judged", "loss", "score_name", "score", "seeds", "training", "cells", "trials")
    blank = dict.fromkeys(order, "")
    frame = pd.DataFrame([blank | row for row in rows])
    several = [Column(key="score_name", header="Score")] if len(found.judged_by) > 1 else []
    name = NAMES[found.objective] if not several else "score"
    drawn = [Column(key="cells", header="cells drawn again", group="95 % interval")]
    if not any(row.get("cells") for row in rows):
        drawn = []
    items: list[Item] = [
        Note(kind="key", body=prose(_headline(found, best))),
        Table(
            key="search-verdict",
            title="How good is the chosen configuration? "
            + ", ".join(NAMES[metric] for metric in found.judged_by),
            frame=frame,
            columns=[
                Column(key="judged", header="Judged on", wrap=True),
                Column(key="loss", header="Loss"),
                *several,
                Column(key="score", header=name, decimals=3),
                Column(key="seeds", header="new seeds", group="95 % interval"),
                Column(key="training", header="+ new training sets", group="95 % interval"),
                *drawn,
                Column(key="trials", header="Trials"),
            ],
            caption="First row: the mean that won, optimistic since it was chosen for being high. "
            "Bootstrap: cells drawn with replacement, the best complete configuration on them "
            "scored on those not drawn (Tsamardinos et al. 2018); pruning and proposals are not "
            "done again, so some luck remains. Fresh seeds: the same validation parts, seeds that "
            "the search never saw; a number only if every cell is there. Test: the whole training "
            "fold. In a fold its test cases play no part, but across folds most are validation "
            "cases elsewhere, so the test score of the chosen one is slightly optimistic. Each "
            "fold's own choice: in every fold the complete configuration with the highest DSC in "
            "that fold's cells, which has seen none of its test cases. "
            f"{_openings(found)} Means over cells; validation over cases with a lesion.",
        ),
    ]
    if versus:
        items.append(
            Table(
                key="search-versus",
                title="The search's choice minus the others",
                frame=pd.DataFrame(versus),
                columns=[
                    Column(key="judged", header="Judged on"),
                    Column(key="loss", header="Other loss"),
                    *several,
                    Column(key="difference", header="Difference", decimals=3, signed=True),
                    Column(key="seeds", header="new seeds", group="95 % interval"),
                    Column(key="training", header="+ new training sets", group="95 % interval"),
                    Column(key="trials", header="Cells"),
                ],
                caption="Paired: same seed and fold, same weights at the start, same cases. An "
                "interval that holds 0 leaves open which one is better.",
            )
        )
    return items


def _headline(found: Found, best: str) -> str:
    assert found.chosen is not None
    metric = found.objective
    searched = found.grid(found.chosen, metric).mean()
    words = (
        f"Chosen: **{best}**, validation {NAMES[metric]} **{written(searched, '.3f')}** as "
        f"searched. The best of {len(found.configurations)} is partly lucky."
    )
    complete = found.scores[metric][found.states == "complete"]
    if len(found.search["objectives"]) == 1:
        mean, *_ = corrected(complete, np.random.default_rng(1))
        if not math.isnan(mean):
            words += (
                f" With choosing among the {len(complete)} complete ones done again, a bootstrap "
                f"expects {written(mean, '.3f')}; some luck remains."
            )
    fresh = found.fresh[metric].get(best)
    if fresh is None:
        return words + " It was not run on fresh seeds (`--confirm-seeds`)."
    there = int((~np.isnan(fresh)).sum())
    if there < fresh.size:
        return words + f" On fresh seeds {there} of {fresh.size} cells are there: not comparable."
    drop = written(fresh.mean() - searched, "+.3f")
    return words + f" On fresh seeds it scored {written(fresh.mean(), '.3f')}, {drop} from that."


def _openings(found: Found) -> str:
    """How often the test folds were opened."""
    tested = [found.label(number) for number in found.search["tested"]]
    if len(tested) < 2:
        return "The test folds were opened once, for one choice."
    return (
        f"The test folds were opened {len(tested)} times, as the search was extended "
        f"({', '.join(tested)})."
    )


def _searched(found: Found, metric: str) -> tuple[list[dict], list[dict]]:
    """As searched, and with the choosing among complete configurations done again."""
    assert found.chosen is not None
    fit = _cells_ladder(found.grid(found.chosen, metric))
    rows = [
        _judged(
            "validation, as searched (optimistic)",
            found.configurations[found.chosen]["loss"],
            fit,
            len(found.cells),
        )
    ]
    complete = found.scores[metric][found.states == "complete"]
    if len(found.search["objectives"]) == 1:
        mean, low, high = corrected(complete, np.random.default_rng(1))
        if not math.isnan(mean):
            rows.append(
                {
                    "judged": "the same, choosing among the complete ones included (bootstrap)",
                    "loss": f"best of {len(complete)}",
                    "score": mean,
                    "cells": f"{written(low, '.3f')} to {written(high, '.3f')}",
                    "trials": f"{fit.num_cells} of {len(found.cells)}",
                }
            )
    return rows, []


def _confirmed(found: Found, metric: str, best: str) -> tuple[list[dict], list[dict]]:
    """On fresh seeds, the chosen one and its comparators."""
    rows, versus = [], []
    fresh = found.fresh[metric]
    whole = {loss: not np.isnan(grid).any() for loss, grid in fresh.items()}
    wanted = [best, *(name for name in found.search["comparators"] if name != best)]
    for loss in [name for name in wanted if name in fresh]:
        if whole[loss]:
            fit = _cells_ladder(fresh[loss])
            rows.append(_judged("validation, fresh seeds", loss, fit, fresh[loss].size))
        else:
            there = int((~np.isnan(fresh[loss])).sum())
            rows.append(
                {
                    "judged": "validation, fresh seeds: incomplete, not comparable",
                    "loss": loss,
                    "score": float("nan"),
                    "trials": f"{there} of {fresh[loss].size}",
                }
            )
        if loss != best and whole[loss] and whole.get(best):
            difference = _cells_ladder(fresh[best] - fresh[loss])
            versus.append(_versus("validation, fresh seeds", loss, difference))
    return rows, versus


def _judged(judged: str, loss: str, fit: Ladder, asked: int) -> dict:
    return {
        "judged": judged,
        "loss": loss,
        "score": fit.estimate,
        "seeds": _interval(fit, "L1"),
        "training": _interval(fit, "L3"),
        "trials": f"{fit.num_cells} of {asked}",
    }


def _versus(judged: str, loss: str, fit: Ladder) -> dict:
    return {
        "judged": judged,
        "loss": loss,
        "difference": fit.estimate,
        "seeds": _interval(fit, "L1", rate=False),
        "training": _interval(fit, "L3", rate=False),
        "trials": fit.num_cells,
    }


def _tested(found: Found, metric: str, study: Study, best: str) -> tuple[list[dict], list[dict]]:
    """The chosen loss, its comparators and each fold's own choice on the search's cells."""
    seeds = [i for i, seed in enumerate(study.seeds) if seed in {s for s, _ in found.cells}]
    scores = study.last_by_case(study.test)[:, seeds][..., list(NAMES).index(metric)]
    own = np.full(scores.shape[1:], np.nan)
    for fold, number in found.search["in_fold"].items():
        label = found.label(number)
        if label in study.losses and int(fold) in study.folds:
            of = study.fold_of == study.folds.index(int(fold))
            own[:, of] = scores[study.losses.index(label)][:, of]
    wanted = [best, *(name for name in found.search["comparators"] if name != best)]
    there = {name: scores[study.losses.index(name)] for name in wanted if name in study.losses}
    choices = {"test": there.pop(best, None), "test, each fold's own choice": own}
    rows, versus = [], []
    for judged, values in choices.items():
        if values is None or np.isnan(values).all():
            continue
        fit = ladder(values, study.fold_of)
        loss = best if judged == "test" else "own of each fold"
        rows.append(_judged(judged, loss, fit, len(found.cells)))
        for other, theirs in there.items():
            if not np.isnan(values - theirs).all():
                versus.append(_versus(judged, other, ladder(values - theirs, study.fold_of)))
    for other, theirs in there.items():
        if not np.isnan(theirs).all():
            rows.append(_judged("test", other, ladder(theirs, study.fold_of), len(found.cells)))
    return rows, versus


def _table(found: Found) -> Table:
    metric = found.objective
    order = np.argsort(-np.nan_to_num(found.estimate[metric], nan=-np.inf), kind="stable")
    rows = []
    for place in order:
        one = found.configurations[place]
        error = found.error[metric][place]
        rows.append(
            {
                "loss": one["loss"],
                **dict(zip(found.fields, found.points[place], strict=True)),
                "state": "chosen" if place == found.chosen else one["state"],
                "cells": f"{found.met[place]} of {len(found.cells)}",
                **{name: float(found.estimate[name][place]) for name in NAMES},
                "error": float(error),
                "reason": one["reason"] or "",
            }
        )
    frame = pd.DataFrame(rows)
    columns = [
        Column(key="loss", header="Configuration"),
        Column(key="state", header="State"),
        Column(key="cells", header="Cells"),
        *(Column(key=name, header=word, decimals=3, best="max") for name, word in NAMES.items()),
        Column(key="error", header=f"SE of {NAMES[metric]}", decimals=3),
    ]
    if any(one["reason"] for one in found.configurations):
        columns.append(Column(key="reason", header="Reason", wrap=True))
    return Table(
        key="search-configurations",
        title="All configurations",
        frame=frame,
        columns=columns,
        caption="Best first. Means over validation cells; of a configuration that did not meet "
        "all cells, adjusted for which it met. SE: the noise of its own trials, after what the "
        f"cells bring to all. {LOW} One whose trial failed or diverged is failed, not averaged "
        f"over the rest. {_count(found)}.",
    )


def _front_figure(found: Found) -> Figure:
    first, second = found.search["objectives"]
    frame = front_frame(found)
    on = frame[frame["front"]]
    return Figure(
        key="search-front",
        narrow=True,
        title=f"{NAMES[first].capitalize()} against {NAMES[second]}",
        draw=partial(draw_front, found, frame),
        data=frame,
        caption=f"Validation means of the complete configurations. Line: the {len(on)} that no "
        "other one beats in both; chosen for being high, it is optimistic too. Crosses: standard "
        "errors. To be tested: the one of them with the highest DSC.",
        alt=f"{len(on)} of {len(frame)} complete configurations are on the front.",
    )


def front_frame(found: Found) -> pd.DataFrame:
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


# ---------------------------------------------------------------------------------------- drawing
def _mark(axis: Any, found: Found, x: np.ndarray, y: np.ndarray) -> None:
    """Configurations by state; size grows with the cells met; the chosen one has a star."""
    sizes = 8 + 22 * found.met / max(1, len(found.cells))
    for state, marker in STATE_MARKERS.items():
        of = found.states == state
        if of.any():
            axis.scatter(
                x[of], y[of], s=sizes[of], marker=marker, color="#ffffff",
                edgecolors="#16191e", linewidths=0.7, zorder=3,
            )  # fmt: skip
    if found.chosen is not None:
        axis.scatter(
            x[[found.chosen]], y[[found.chosen]], s=110, marker="*", color="#e76300",
            edgecolors="#16191e", linewidths=0.7, zorder=4,
        )  # fmt: skip


def draw_plane(found: Found, fitted: Surface, frame: pd.DataFrame, metric: str) -> Drawing:
    """Two fields: score and standard deviation side by side."""
    figure, axes = style.panels(1, 2, height=3.3, top=0.5, bottom=0.42, gap_x=0.95, right=0.75)
    x, y = (np.unique(frame[name]) for name in found.fields)
    for axis, column, words in (
        (axes[0, 0], "score", NAMES[metric]),
        (axes[0, 1], "sd", "standard deviation"),
    ):
        values = frame[column].to_numpy().reshape(len(x), len(y)).T
        filled = axis.contourf(x, y, values, levels=12, cmap="cividis")
        box = axis.get_position()
        beside = figure.add_axes((box.x1 + 0.012, box.y0, 0.014, box.height))
        figure.colorbar(filled, cax=beside)
        beside.tick_params(labelsize=6, length=0)
        _mark(axis, found, found.points[:, 0], found.points[:, 1])
        axis.set_title(words)
        axis.set_xlabel(found.fields[0])
        axis.set_ylabel(found.fields[1])
        axis.set_xlim(*found.search["ranges"][found.fields[0]])
        axis.set_ylim(*found.search["ranges"][found.fields[1]])
        axis.grid(False)
    _states_legend(figure, found)
    return figure


def draw_slices(found: Found, fitted: Surface, frame: pd.DataFrame, metric: str) -> Drawing:
    """One panel per field, the others held at the chosen configuration's."""
    number = len(found.fields)
    figure, axes = style.panels(1, number, height=2.8, top=0.5, gap_x=0.5, left=0.55)
    for axis, name in zip(axes[0], found.fields, strict=True):
        own = frame[frame["varied"] == name]
        axis.fill_between(
            own[name], own["score"] - 1.96 * own["sd"], own["score"] + 1.96 * own["sd"],
            color=style.SHADE, linewidth=0,
        )  # fmt: skip
        axis.plot(own[name], own["score"], color=STATE_COLOURS["complete"], linewidth=1.5)
        place = found.fields.index(name)
        _mark(axis, found, found.points[:, place], found.estimate[metric])
        axis.set_xlabel(name)
    axes[0, 0].set_ylabel(NAMES[metric])
    _states_legend(figure, found)
    return figure


def draw_cost(found: Found) -> Drawing:
    """A bar per configuration: cells run, and an outline up to all cells."""
    figure, axes = style.panels(1, 1, height=2.3, top=0.42, left=0.5)
    axis = axes[0, 0]
    places = np.arange(1, len(found.configurations) + 1)
    axis.bar(places, len(found.cells), width=0.8, color=style.SHADE, linewidth=0)
    for state, colour in STATE_COLOURS.items():
        of = found.states == state
        if of.any():
            axis.bar(places[of], found.begun[of], width=0.8, color=colour, linewidth=0)
    axis.set_xlim(0.4, len(places) + 0.6)
    axis.set_ylim(0, len(found.cells) * 1.02)
    axis.set_xlabel("configuration, in order")
    axis.set_ylabel("cells")
    axis.grid(False, axis="x")
    x = 0.12
    for state, colour in STATE_COLOURS.items():
        if (found.states == state).any():
            width, height = figure.get_size_inches()
            figure.text(x / width, 1 - 0.15 / height, "■", color=colour, va="center", fontsize=9)
            figure.text((x + 0.14) / width, 1 - 0.15 / height, state, va="center", fontsize=7)
            x += 0.4 + 0.07 * len(state)
    return figure


def draw_front(found: Found, frame: pd.DataFrame) -> Drawing:
    """Every complete configuration, and the front as a line."""
    first, second = found.search["objectives"]
    figure, axes = style.panels(1, 1, height=3.0, width=3.6, top=0.15, left=0.55)
    axis = axes[0, 0]
    axis.errorbar(
        frame[first], frame[second], xerr=frame[f"{first}_se"], yerr=frame[f"{second}_se"],
        fmt="none", ecolor=style.GRID, elinewidth=1,
    )  # fmt: skip
    axis.scatter(frame[first], frame[second], s=16, color=STATE_COLOURS["complete"], zorder=3)
    on = frame[frame["front"]].sort_values(first)
    axis.plot(on[first], on[second], color=style.INK, linewidth=1, zorder=2)
    axis.set_xlabel(NAMES[first])
    axis.set_ylabel(NAMES[second])
    return figure


def _states_legend(figure: Drawing, found: Found) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    x = 0.14
    shown = [state for state in STATE_MARKERS if (found.states == state).any()]
    marks = [(STATE_MARKERS[state], state, "#ffffff", 4.5) for state in shown]
    if found.chosen is not None:
        marks.append(("*", "chosen", "#e76300", 9))
    for marker, words, colour, size in marks:
        figure.add_artist(
            Line2D(
                [x / width], [1 - 0.15 / height], transform=figure.transFigure, marker=marker,
                markersize=size, markerfacecolor=colour, markeredgecolor="#16191e",
                markeredgewidth=0.7, linestyle="",
            )
        )  # fmt: skip
        figure.text((x + 0.12) / width, 1 - 0.15 / height, words, va="center", fontsize=7)
        x += 0.42 + 0.066 * len(words)
