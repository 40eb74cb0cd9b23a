"""What did a search find, how sure is that, and what did it cost?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.escaping import as_list, prose
from analysis.page.items import Column, Figure, Item, Note, Section, Table, many, written
from analysis.reading.scores import COHORT_TITLES, CohortScores
from analysis.reading.training_effect import TrainingEffect
from analysis.sections.report_input import ReportInput
from analysis.sections.search_surface import (
    LOW,
    STATE_COLOURS,
    counted,
    surfaces,
    whole_ticks,
)
from analysis.statistics import confidence
from analysis.statistics.ladder import DIFFERENCE, RATE, Ladder, ladder
from analysis.statistics.search_outcome import (
    NAMES,
    SearchOutcome,
    corrected,
    front_frame,
    gain_over_start,
    rivals,
    saved,
    start,
)

OWN = "test, each fold's own choice"
OPTIMISTIC = "test, the one choice (optimistic)"
NOTHING_CHOSEN = (
    "Nothing is chosen: configurations are still running or to come, lost their machines, or none "
    "is complete. The test folds are not opened before that."
)


# --------------------------------------------------------------------------------------- section
def section(given: ReportInput) -> Section | None:
    """What a search found; None of a sweep without one."""
    if given.search is None:
        return None
    effect = given.training.of(given.search.search["cohort"])
    return search_section(given.search, given.tested, effect)


def search_section(
    found: SearchOutcome, cohorts: Sequence[CohortScores], effect: TrainingEffect | None = None
) -> Section:
    """The chosen configuration, judged without its luck; then surface, cost and importance.

    ``cohorts``: of all test trials, those of `set_aside` losses too.  ``effect``: of training sets
    on a difference; None: what is declared.
    """
    effect = effect or TrainingEffect()
    items: list[Item] = []
    if found.chosen is None:
        items.append(Note(kind="warning", body=prose(NOTHING_CHOSEN)))
    else:
        items += _verdicts(found, cohorts, effect)
    items.append(_summary(found))
    items += surfaces(found)
    if len(found.search["objectives"]) > 1:
        items.append(_front_figure(found))
    items.append(_cost(found))
    items += _given_up(found)
    if found.search["importance"] and len(found.fields) > 1:
        items.append(_importance(found))
    items.append(_table(found))
    return Section(
        key="search",
        title=f"Which {' and '.join(found.fields)}?",
        items=items,
        lead="Every configuration (a setting of the loss's numbers) was judged on validation parts "
        "of the training folds, cell by cell (seed and fold) with the same weights at the start "
        "and the same cases. Look at the noise before the optimum: where the surface is flat "
        "within its uncertainty, the choice hardly matters.",
    )


# ----------------------------------------------------------------------------------- first screen
def first_screen(given: ReportInput) -> list[Note]:
    """What was chosen, what is as good, and what may be concluded; [] of a sweep without a search.

    Stands at the head of the page.
    """
    found = given.search
    if found is None:
        return []
    if found.chosen is None:
        return [Note(kind="warning", body=prose(NOTHING_CHOSEN))]
    best = found.configurations[found.chosen]["loss"]
    may, may_not = conclusions(found, given.tested)
    box = Markup('<div class="verdict"><h3>The search</h3><p>{}</p></div>').format(
        prose(_headline(found, best, given.tested))
    )
    lists = [
        Markup('<div class="claims"><h3>{}</h3>{}</div>').format(head, as_list(lines))
        for head, lines in (("What you may conclude", may), ("What you may not conclude", may_not))
        if lines
    ]
    return [Note(kind="verdicts search", body=Markup("").join([box, *lists]))]


def conclusions(
    found: SearchOutcome, cohorts: Sequence[CohortScores] = ()
) -> tuple[list[str], list[str]]:
    """What the search's numbers carry, and what they do not, in sentences."""
    assert found.chosen is not None
    metric, best = found.objective, found.configurations[found.chosen]["loss"]
    near = rivals(found, metric)
    may, may_not = [], []
    if promised := _promised(found, metric, best, cohorts):
        may.append(
            f"Choosing in this way gives a test {NAMES[metric]} of about {promised}, on patients "
            "like these."
        )
    begun = start(found)
    mean, low, high = gain_over_start(found, metric)
    if begun is not None and begun != found.chosen and not math.isnan(mean):
        first = found.configurations[begun]["loss"]
        gain = (
            f"{written(mean, '+.3f')} ({confidence.in_percent()} {written(low, '+.3f')} to "
            f"{written(high, '+.3f')}, folds drawn again)"
        )
        if low > 0:
            may.append(f"Searching was better than staying with {first}, by {gain}.")
        else:
            may_not.append(f"That searching was better than staying with {first}: {gain}.")
    told = len(near.others) - len(near.alike)
    if told:
        may.append(
            f"{best} was better than {told} of {len(near.others)} other complete configurations."
        )
    if near.alike:
        few = [found.configurations[place]["loss"] for place in near.alike[:3]]
        more = f" and {len(near.alike) - 3} more" if len(near.alike) > 3 else ""
        may_not.append(
            f"That {best} is the best setting: {', '.join(few)}{more} cannot be told from it."
        )
    may_not.append(
        f"That {best} will reach its validation score, or that {found.search['loss']} is better "
        "than a loss whose numbers were not searched as long."
    )
    return may, may_not


def title(found: SearchOutcome) -> str:
    """The title of a page that holds nothing but a search yet."""
    cohort = found.search["cohort"]
    return f"Search over {found.search['loss']} on {COHORT_TITLES.get(cohort, cohort)}"


def facts(found: SearchOutcome) -> str:
    """How far a search has come, for the head of the page."""
    planned = max(found.search["planned"], len(found.configurations))
    ended = int((found.states != "running").sum())
    return (
        f"search: **{ended} of {planned}** configurations have ended, "
        f"{int(found.begun.sum())} validation trials"
    )


def _summary(found: SearchOutcome) -> Note:
    where = ", ".join(f"{name} in {range_}" for name, range_ in found.search["space"].items())
    spared, total = saved(found)
    share = f", {spared} of {total} cells ({spared / total:.0%}) saved by pruning" if total else ""
    folds = len({fold for _, fold in found.cells})
    seeds = len({seed for seed, _ in found.cells})
    objectives = " and ".join(NAMES[name] for name in found.search["objectives"])
    return Note(
        body=prose(
            f"{where}; proposed by: {_samplers(found)}; {counted(found)}{share}. Judged on "
            f"{objectives}, the mean over validation {_validated(found)} at the last epoch, in "
            f"{many(seeds, 'seed')} × {many(folds, 'fold')}. A fifth of the subjects of each "
            "training fold is the validation part, the same for every configuration and seed "
            "(listed in `sweep.json`)."
        )
    )


def _cost(found: SearchOutcome) -> Figure:
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
        f"fell below {_thresholds(found)}. {words.capitalize()}. {counted(found)}.",
        alt=f"{words.capitalize()}; {counted(found)}.",
    )


def _given_up(found: SearchOutcome) -> list[Item]:
    """What validation curves decided, and what that is worth; [] where they decided nothing."""
    stopped = [epoch for one in found.configurations for epoch in one.get("stopped", {}).values()]
    if not stopped:
        return []
    unscored = int(((found.met == 0) & (found.states == "pruned")).sum())
    return [
        Note(
            body=prose(
                f"{many(len(stopped), 'training')} of {int(found.begun.sum())} were given up in "
                f"the middle by their validation curves (rule: {found.search['stop_trials']}), "
                f"after {min(stopped)} to {max(stopped)} epochs, and their configurations with "
                "them. **This favours what is good early**: a setting that learns slowly and "
                "would have ended higher is given up like a poor one, and nothing here can show "
                f"it. {many(unscored, 'configuration')} of these met no whole cell and "
                f"{'has' if unscored == 1 else 'have'} no score."
            )
        )
    ]


def _thresholds(found: SearchOutcome) -> str:
    used = sorted({one["prune_p"] for one in found.configurations if one["state"] == "pruned"})
    return " or ".join(f"{value:g}" for value in used or [found.search["prune_p"]])


def _samplers(found: SearchOutcome) -> str:
    """Who proposed, and how many."""
    names = [one["sampler"] or "given" for one in found.configurations]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))


def _importance(found: SearchOutcome) -> Table:
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
        f"from few configurations: {counted(found)}.",
    )


def _interval(fit: Ladder, rung: str) -> str:
    """In words; "" where the design cannot tell."""
    low, high = fit.interval(rung)
    return "" if math.isnan(low) else f"{written(low, '.3f')} to {written(high, '.3f')}"


def _cells_ladder(
    grid: np.ndarray, tau: float = float("nan"), bounds: tuple[float, float] = RATE
) -> Ladder:
    """The ladder of [S, F] cell means, folds weighing alike."""
    return ladder(grid, np.arange(grid.shape[1]), tau=tau, bounds=bounds)


def _verdicts(
    found: SearchOutcome, cohorts: Sequence[CohortScores], effect: TrainingEffect
) -> list[Item]:
    """The chosen configuration: as the search has it, without its luck, and on the test folds."""
    assert found.chosen is not None
    best = found.configurations[found.chosen]["loss"]
    rows: list[dict] = []
    versus: list[dict] = []
    for metric in found.judged_by:
        for judged, against in (
            _searched(found, metric),
            _confirmed(found, metric, best, effect.tau_of(metric)),
            *(
                _tested(found, metric, cohort, best, effect.tau_of(metric))
                for cohort in cohorts
                if cohort.name == found.search["cohort"]
            ),
        ):
            rows += [{"score_name": NAMES[metric]} | row for row in judged]
            versus += [{"score_name": NAMES[metric]} | row for row in against]
    order = ("judged", "loss", "score_name", "score", "seeds", "patients", "cells", "trials")
    blank = dict.fromkeys(order, "")
    frame = pd.DataFrame([blank | row for row in rows])
    several = [Column(key="score_name", header="Score")] if len(found.judged_by) > 1 else []
    name = NAMES[found.objective] if not several else "score"
    drawn = [
        Column(key="cells", header="folds drawn again", group=f"{confidence.in_percent()} interval")
    ]
    if not any(row.get("cells") for row in rows):
        drawn = []
    items: list[Item] = [
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
                Column(
                    key="seeds", header="new seeds", group=f"{confidence.in_percent()} interval"
                ),
                Column(
                    key="patients",
                    header="+ new patients",
                    group=f"{confidence.in_percent()} interval",
                ),
                *drawn,
                Column(key="trials", header="Trials"),
            ],
            caption="As searched: the mean that won, optimistic since it was chosen for being "
            "high, so it has no interval. "
            "Bootstrap: folds drawn with replacement, the best complete configuration on them "
            "scored on those not drawn (Tsamardinos et al. 2018); pruning and proposals are not "
            "done again, so some luck remains. Fresh seeds: the same validation patients that "
            "chose it, seeds that the search never saw, so that only the luck of seeds is gone; a "
            "number only if every cell is there. Test: the whole training "
            "fold. In a fold its test cases play no part, but across folds most are validation "
            "cases elsewhere, so the test score of the one choice is optimistic too. Each "
            "fold's own choice: in every fold the complete configuration with the highest DSC in "
            "that fold's cells, which has seen none of its test cases: the one unbiased score. "
            f"{_openings(found)} Means over cells; validation over {_validated(found)}.",
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
                    Column(
                        key="seeds", header="new seeds", group=f"{confidence.in_percent()} interval"
                    ),
                    Column(
                        key="training",
                        header="+ new training sets",
                        group=f"{confidence.in_percent()} interval",
                    ),
                    Column(key="trials", header="Cells"),
                ],
                caption="Paired: same seed and fold, same weights at the start, same cases. An "
                "interval that holds 0 leaves open which one is better. For new training sets: at "
                f"a training-set effect with SD {effect.in_words} in DSC; of another score none is "
                "known. On validation parts, whose training sets are a fifth smaller, the interval "
                "covers 95 to 97 % in simulations, but for the luck of having chosen on the same "
                "patients.",
            )
        )
    return items


def _headline(found: SearchOutcome, best: str, cohorts: Sequence[CohortScores] = ()) -> str:
    """What was chosen and what is as good; the unbiased score, if it is there; then by how much the
    score that won is too high."""
    assert found.chosen is not None
    metric = found.objective
    searched = found.estimate[metric][found.chosen]
    words = f"Chosen: **{best}**. {_ties(found, metric)} {_from_start(found, metric)}"
    if promised := _promised(found, metric, best, cohorts):
        words += (
            f" On the test folds, each fold's own choice has {NAMES[metric]} **{promised}**, in "
            "which no test case had a say: this is what such a search promises."
        )
    words += (
        f" Its validation {NAMES[metric]} as searched, {written(searched, '.3f')}, is optimistic: "
        f"the best of {len(found.configurations)} is partly lucky."
    )
    complete = found.scores[metric][found.states == "complete"]
    if len(found.search["objectives"]) == 1:
        mean, *_ = corrected(complete, np.random.default_rng(1), found.fold_of)
        if not math.isnan(mean):
            words += (
                f" With choosing among the {len(complete)} complete ones done again, a bootstrap "
                f"over folds expects {written(mean, '.3f')}, "
                f"{written(mean - searched, '+.3f')} from that; some luck remains."
            )
    fresh = found.fresh[metric].get(best)
    if fresh is None:
        return words + " It was not run on fresh seeds (`--confirm-seeds`)."
    there = int((~np.isnan(fresh)).sum())
    if there < fresh.size:
        return words + f" On fresh seeds {there} of {fresh.size} cells are there: not comparable."
    drop = written(fresh.mean() - searched, "+.3f")
    return words + (
        f" On fresh seeds it scored {written(fresh.mean(), '.3f')}, {drop} from that; the "
        "validation patients are those that chose it, so only the luck of seeds is gone."
    )


def _ties(found: SearchOutcome, metric: str) -> str:
    """How many configurations are as good, in words."""
    near = rivals(found, metric)
    others = len(near.others)
    if not others:
        return "No other configuration is complete."
    words = (
        f"At least {len(near.alike)} of the {others} other complete configurations cannot be told "
        "from it"
        if near.alike
        else f"All {others} other complete configurations are worse"
    )
    if near.same:
        names = ", ".join(found.configurations[place]["loss"] for place in near.same)
        words += f" ({names} {'has' if len(near.same) == 1 else 'have'} the same score)"
    pruned = int((found.states == "pruned").sum())
    stopped = f"; {pruned} more were stopped as worse" if pruned else ""
    among = many(others, "comparison")
    return f"{words}, cell by cell and adjusted for {among}, at one look{stopped}."


def _from_start(found: SearchOutcome, metric: str) -> str:
    """What the search gained on the configuration that it was given to begin with, in words."""
    begun = start(found)
    if begun is None or found.chosen is None:
        return "It began with a proposal of its sampler."
    first, state = found.configurations[begun]["loss"], found.states[begun]
    if begun == found.chosen:
        return "It is the setting that the search was given to begin with: nothing beat it."
    if state != "complete":
        return f"The setting that it was given to begin with, {first}, is {state}."
    difference = found.grid(found.chosen, metric) - found.grid(begun, metric)
    words = (
        f"The setting that it was given to begin with, {first}, is "
        f"{written(float(difference.mean()), '.3f')} below as searched"
    )
    mean, low, high = gain_over_start(found, metric)
    if math.isnan(mean):
        return f"{words}, which is partly luck."
    return (
        f"{words}; with the choosing done again, {written(mean, '.3f')} ({confidence.in_percent()} "
        f"{written(low, '+.3f')} to {written(high, '+.3f')}: "
        f"{'better' if low > 0 else 'worse' if high < 0 else 'not told apart'})."
    )


def _promised(found: SearchOutcome, metric: str, best: str, cohorts: Sequence[CohortScores]) -> str:
    """The test score of each fold's own choice, with its interval; "" where it was not run."""
    for cohort in cohorts:
        if cohort.name == found.search["cohort"]:
            for row in _tested(found, metric, cohort, best)[0]:
                if row["judged"] == OWN:
                    interval = (
                        f" ({confidence.in_percent()} for new patients {row['patients']})"
                        if row["patients"]
                        else ""
                    )
                    return f"{written(row['score'], '.3f')}{interval}"
    return ""


def _validated(found: SearchOutcome) -> str:
    """What validation scores are means over, in words."""
    if found.sessions:
        return "patients, each the mean of the sessions with a lesion"
    return "cases with a lesion"


def _openings(found: SearchOutcome) -> str:
    """How often the test folds were opened."""
    tested = [found.label(number) for number in found.search["tested"]]
    if len(tested) < 2:
        return "The test folds were opened once, for one choice."
    return (
        f"The test folds were opened {len(tested)} times, as the search was extended "
        f"({', '.join(tested)})."
    )


def _searched(found: SearchOutcome, metric: str) -> tuple[list[dict], list[dict]]:
    """As searched, and with the choosing among complete configurations done again."""
    assert found.chosen is not None
    fit = _cells_ladder(found.grid(found.chosen, metric))
    rows: list[dict] = [
        {
            "judged": "validation, as searched (optimistic)",
            "loss": found.configurations[found.chosen]["loss"],
            "score": float(found.estimate[metric][found.chosen]),
            "trials": f"{fit.num_cells} of {len(found.cells)}",
        }
    ]
    complete = found.scores[metric][found.states == "complete"]
    if len(found.search["objectives"]) == 1:
        mean, low, high = corrected(complete, np.random.default_rng(1), found.fold_of)
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


def _confirmed(
    found: SearchOutcome, metric: str, best: str, tau: float = float("nan")
) -> tuple[list[dict], list[dict]]:
    """On fresh seeds, the chosen one and its comparators."""
    rows, versus = [], []
    fresh = found.fresh[metric]
    whole = {loss: not np.isnan(grid).any() for loss, grid in fresh.items()}
    wanted = [best, *(name for name in found.search["comparators"] if name != best)]
    for loss in [name for name in wanted if name in fresh]:
        if whole[loss]:
            fit = _cells_ladder(fresh[loss])
            judged = "validation, fresh seeds, same patients"
            rows.append(_judged(judged, loss, fit, fresh[loss].size))
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
            difference = _cells_ladder(fresh[best] - fresh[loss], tau, DIFFERENCE)
            versus.append(_versus("validation, fresh seeds", loss, difference))
    return rows, versus


def _judged(judged: str, loss: str, fit: Ladder, asked: int) -> dict:
    return {
        "judged": judged,
        "loss": loss,
        "score": fit.estimate,
        "seeds": _interval(fit, "L1"),
        "patients": _interval(fit, "L2"),
        "trials": f"{fit.num_cells} of {asked}",
    }


def _versus(judged: str, loss: str, fit: Ladder) -> dict:
    return {
        "judged": judged,
        "loss": loss,
        "difference": fit.estimate,
        "seeds": _interval(fit, "L1"),
        "training": _interval(fit, "L3"),
        "trials": fit.num_cells,
    }


def _tested(
    found: SearchOutcome,
    metric: str,
    cohort: CohortScores,
    best: str,
    tau: float = float("nan"),
) -> tuple[list[dict], list[dict]]:
    """The chosen loss, its comparators and each fold's own choice on the search's cells."""
    seeds = [i for i, seed in enumerate(cohort.seeds) if seed in {s for s, _ in found.cells}]
    scores = cohort.last_by_case(cohort.test)[:, seeds][..., list(NAMES).index(metric)]
    own = np.full(scores.shape[1:], np.nan)
    for fold, number in found.search["in_fold"].items():
        label = found.label(number)
        if label in cohort.losses and int(fold) in cohort.folds:
            of = cohort.fold_of == cohort.folds.index(int(fold))
            own[:, of] = scores[cohort.losses.index(label)][:, of]
    wanted = [best, *(name for name in found.search["comparators"] if name != best)]
    there = {name: scores[cohort.losses.index(name)] for name in wanted if name in cohort.losses}
    choices = {OWN: own, OPTIMISTIC: there.pop(best, None)}
    whose = cohort.fold_of, cohort.subject_of
    rows, versus = [], []
    for judged, values in choices.items():
        if values is None or np.isnan(values).all():
            continue
        fit = ladder(values, *whose, bounds=RATE)
        loss = best if judged == OPTIMISTIC else "own of each fold"
        rows.append(_judged(judged, loss, fit, len(found.cells)))
        for other, theirs in there.items():
            if not np.isnan(values - theirs).all():
                difference = ladder(
                    values - theirs,
                    *whose,
                    tau=tau,
                    num_subjects=cohort.num_subjects,
                    bounds=DIFFERENCE,
                )
                versus.append(_versus(judged, other, difference))
    for other, theirs in there.items():
        if not np.isnan(theirs).all():
            fit = ladder(theirs, *whose, bounds=RATE)
            rows.append(_judged("test", other, fit, len(found.cells)))
    return rows, versus


def _table(found: SearchOutcome) -> Table:
    metric = found.objective
    values = found.axes.frame(found.points)
    order = np.argsort(-np.nan_to_num(found.estimate[metric], nan=-np.inf), kind="stable")
    rows = []
    for place in order:
        one = found.configurations[place]
        error = found.error[metric][place]
        rows.append(
            {
                "loss": one["loss"],
                **{name: values[name].iloc[place] for name in found.fields},
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
        f"over the rest. {counted(found)}.",
    )


def _front_figure(found: SearchOutcome) -> Figure:
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


# ---------------------------------------------------------------------------------------- drawing
def draw_cost(found: SearchOutcome) -> Drawing:
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
    whole_ticks(axis.xaxis)
    whole_ticks(axis.yaxis)
    axis.grid(False, axis="x")
    x = 0.12
    for state, colour in STATE_COLOURS.items():
        if (found.states == state).any():
            width, height = figure.get_size_inches()
            figure.text(x / width, 1 - 0.15 / height, "■", color=colour, va="center", fontsize=9)
            figure.text((x + 0.14) / width, 1 - 0.15 / height, state, va="center", fontsize=7)
            x += 0.4 + 0.07 * len(state)
    return figure


def draw_front(found: SearchOutcome, frame: pd.DataFrame) -> Drawing:
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
