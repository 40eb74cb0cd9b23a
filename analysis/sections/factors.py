"""What does each factor do, averaged over the others, and do factors change each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import (
    Column,
    Figure,
    Heading,
    Item,
    Note,
    Section,
    Table,
    decimals_for,
    prose,
)
from analysis.reading.scores import METRICS, CohortScores
from analysis.sections.forest import BARS
from analysis.sections.outcome import listed
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence, factors
from analysis.statistics.absence import compared
from analysis.statistics.factors import Effect, Product
from analysis.statistics.ladder import RUNG_NAMES, RUNGS


def section(given: ReportInput) -> Section | None:
    """Effects of every factor, for every cohort; None where arms differ by one thing alone, or are
    what a search chose and what that is compared with."""
    if len(given.arms.factors) < 2 or not given.cohorts or given.search is not None:
        return None
    items: list[Item] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items += _of_cohort(given, cohort)
    return Section(
        key="factors",
        title="What does each factor do?",
        items=items,
        lead="Arms differ by several factors at once. A main effect is what one level of a factor "
        "does against the first one, averaged over every combination of the others; an interaction "
        "is how much that changes with another factor. Where two factors interact, neither has an "
        "effect of its own: compare the arms themselves, above.",
    )


def _of_cohort(given: ReportInput, cohort: CohortScores) -> list[Item]:
    arms = compared(cohort)
    known = {arm: given.arms.levels(cohort.losses[arm]) for arm in arms}
    found = factors.balanced(known)
    if found is None:
        return [
            Note(
                body=prose(
                    f"The {len(arms)} arms of {cohort.title} that can be compared are no product "
                    f"of {listed(given.arms.factors)}: no two levels of a factor occur with "
                    "the same levels of the others, so no effect can be told from another."
                )
            )
        ]
    scores = cohort.last_by_case(cohort.test)[..., METRICS.index("dice")]
    effects = factors.effects(
        scores, found, cohort.fold_of, cohort.subject_of,
        tau=given.tau(cohort), num_subjects=cohort.num_subjects, rope=given.rope,
    )  # fmt: skip
    items: list[Item] = []
    if why := left_out(found, len(arms)):
        items.append(Note(kind="warning", body=prose(why)))
    if np.isnan(effects[0].pair.fit.estimate):
        items.append(Note(body=prose("There is no (seed, fold) cell that all these arms have.")))
        return items
    means = factors.means(scores, found, cohort.fold_of, cohort.subject_of)
    if len(found.levels) > 1:
        items.append(_means_figure(cohort, found, means))
    items += [_forest(given, cohort, found, effects), _table(given, cohort, effects)]
    return items


def left_out(found: Product, number: int) -> str:
    """What of an incomplete product enters; "" if all does."""
    if not found.left_out and found.arms.size == number:
        return ""
    named: dict[str, list[str]] = {}
    for factor, level in found.left_out:
        named.setdefault(factor, []).append(level)
    levels = " and ".join(f"{factor} {', '.join(own)}" for factor, own in named.items())
    return (
        f"Not every combination of levels is there, or complete enough to be compared: effects are "
        f"over the {found.arms.size} of {number} arms that have every combination, without "
        f"{levels}."
    )


def name_of(effect: Effect) -> str:
    """An effect as figures and tables write it."""
    parts = [
        f"{factor} {level} − {first}"
        for factor, level, first in zip(effect.factors, effect.levels, effect.first, strict=True)
    ]
    return " × ".join(parts)


def effect_frame(cohort: CohortScores, effects: Sequence[Effect]) -> pd.DataFrame:
    """One row per effect with everything that is said about it."""
    rows = []
    for effect in effects:
        fit = effect.pair.fit
        row: dict[str, object] = {
            "cohort": cohort.name,
            "kind": "interaction" if effect.is_interaction else "main effect",
            "effect": name_of(effect),
            "difference": fit.estimate,
        }
        for rung in RUNGS:
            row[f"low_{rung}"], row[f"high_{rung}"] = fit.interval(rung)
            row[rung] = fit.half_width(rung)
        row |= {
            "reached": RUNG_NAMES.get(effect.judgement.holds, "none"),
            "p": fit.p_value("L3"),
            "p_holm": effect.judgement.p["L3"],
            "verdict": effect.in_words,
            **cohort.columns(fit.num_cases, fit.num_subjects),
            "cells": fit.num_cells,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _counted(cohort: CohortScores, effects: Sequence[Effect]) -> str:
    fit = effects[0].pair.fit
    asked = len(cohort.seeds) * len(cohort.folds)
    return (
        f"{fit.num_cells} of {asked} (seed, fold) cells and {fit.num_subjects} of "
        f"{cohort.num_subjects} patients, those that all these arms have."
    )


def _adjusted(effects: Sequence[Effect]) -> str:
    number = len(effects)
    if number == 1:
        return "One effect: nothing to adjust for."
    return (
        f"All {number} effects, interactions too, are one family of their own, adjusted by Holm: "
        f"in {confidence.in_percent(confidence.error())} of sweeps at most is any of them found "
        "that is none, besides as many in which any pair of arms is (a family above)."
    )


def _table(given: ReportInput, cohort: CohortScores, effects: Sequence[Effect]) -> Table:
    frame = effect_frame(cohort, effects)
    digits = decimals_for([effect.pair.fit.se["L1"] for effect in effects])
    effect = given.training.of(cohort.name)
    twice = (
        " An interaction is a difference of two differences, and may move twice as much with the "
        "training set: so much is assumed of it."
        if any(one.is_interaction for one in effects)
        else ""
    )
    return Table(
        key=f"factors-table-{cohort.name}",
        frame=frame,
        title=f"DSC: main effects and two-way interactions, {cohort.title}",
        columns=[
            Column(key="effect", header="Effect"),
            Column(key="difference", header="Difference", decimals=digits, signed=True),
            *(
                Column(
                    key=rung,
                    header=RUNG_NAMES[rung],
                    group=f"{confidence.in_percent()} half-width, by itself",
                    decimals=digits,
                )
                for rung in RUNGS
            ),
            Column(key="reached", header="Holds for"),
            Column(key="p_holm", header="p, new training sets (Holm)", decimals=3, least=True),
            Column(key="verdict", header="Verdict"),
        ],
        caption=f"{_adjusted(effects)} Training sets: assumed {effect.in_words} in a difference of "
        f"two arms, and of their averages as much at most.{twice} {_counted(cohort, effects)}",
        note="better, worse: than the factor's first level, averaged over the other factors, for "
        "new training sets; perhaps: only if training sets matter less than assumed. Of an "
        "interaction, raises it: the first factor's effect is larger at the second's level; "
        "practically additive: an interaction of "
        f"±{given.rope:g} or more is refuted; not found does not mean that there is none. Effects "
        "of three factors together are not estimated.",
    )


def _forest(
    given: ReportInput, cohort: CohortScores, found: Product, effects: Sequence[Effect]
) -> Figure:
    words = "; ".join(
        f"{name_of(one)} {one.pair.fit.estimate:+.3f}, {one.in_words}" for one in effects
    )
    return Figure(
        key=f"factors-{cohort.name}",
        title=f"Effects of {listed(list(found.levels))} on DSC, test images, {cohort.title}",
        data=effect_frame(cohort, effects),
        draw=partial(draw_effects, effects, given.rope),
        caption="Dot: main effect against the factor's first level, averaged over all others; "
        "diamond: interaction, the difference of two such differences. Bars: "
        f"{confidence.in_percent()} intervals, thick for new seeds, middle for new patients as "
        "well, thin for new training sets as well; each for itself, not adjusted for the others. "
        f"Grey: ±{given.rope:g}, practically none. {_counted(cohort, effects)}",
        alt=f"Forest plot of main effects and interactions on DSC: {words}.",
    )


def _means_figure(cohort: CohortScores, found: Product, means: np.ndarray) -> Figure:
    rows = [
        {
            "cohort": cohort.name,
            **{
                factor: own[place]
                for (factor, own), place in zip(found.levels.items(), at, strict=True)
            },
            "dice": float(means[at]),
        }
        for at in np.ndindex(means.shape)
    ]
    return Figure(
        key=f"factor-means-{cohort.name}",
        title=f"Mean DSC by pairs of factors, test images, {cohort.title}",
        data=pd.DataFrame(rows),
        draw=partial(draw_means, dict(found.levels), means),
        caption="Each panel: a factor along the axis, a line per level of another, averaged over "
        "the rest. Parallel lines: the effects add up. How sure a difference is, the next figure "
        f"says. All {means.size} arms on the cells that all of them have, last epoch.",
        alt="Lines of mean DSC over the levels of one factor, for each level of another.",
    )


# ---------------------------------------------------------------------------------------- drawing
def draw_effects(effects: Sequence[Effect], rope: float) -> Drawing:
    """One row per effect: main effects, then interactions."""
    names = [_broken(name_of(effect)) for effect in effects]
    rows = sum(1 + name.count("\n") for name in names)
    longest = max(len(line) for name in names for line in name.split("\n"))
    figure, axes = style.panels(
        1, 1, height=0.75 + 0.2 * rows + 0.08 * len(names), top=0.15, bottom=0.45,
        left=0.25 + 0.066 * longest,
    )  # fmt: skip
    axis = axes[0, 0]
    axis.axvspan(-rope, rope, color=style.SHADE, linewidth=0)
    axis.axvline(0, color=style.MUTED, linewidth=0.8)
    for y, effect in enumerate(effects):
        colour = style.MUTED if effect.is_interaction else style.INK
        for rung, width, alpha in BARS:
            low, high = effect.pair.fit.interval(rung)
            if not np.isnan(low):
                axis.plot(
                    [low, high], [y, y], color=colour, linewidth=width, alpha=alpha,
                    solid_capstyle="butt",
                )  # fmt: skip
        axis.plot(
            effect.pair.fit.estimate, y, marker="D" if effect.is_interaction else "o",
            markersize=4.6, color=style.SURFACE, markeredgecolor=style.INK, markeredgewidth=1,
            linestyle="",
        )  # fmt: skip
    axis.set_ylim(len(effects) - 0.5, -0.5)
    axis.set_yticks(range(len(effects)), names)
    axis.tick_params(left=False)
    axis.grid(False, axis="y")
    axis.set_xlabel("difference in DSC")
    return figure


def draw_means(levels: Mapping[str, Sequence[str]], means: np.ndarray) -> Drawing:
    """A panel per pair of factors."""
    names = list(levels)
    pairs = list(combinations(range(len(names)), 2))
    columns = min(len(pairs), 3 if style.width_in() == style.WIDTH_IN else 1)
    rows = -(-len(pairs) // columns)
    figure, axes = style.panels(
        rows, columns, height=0.5 + 2.2 * rows, top=0.4, bottom=0.45, gap_x=0.5, gap_y=0.75
    )
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    margin = 0.08 * (high - low or 0.1)
    for place, axis in enumerate(axes.flat):
        if place >= len(pairs):
            axis.set_visible(False)
            continue
        along, lines = pairs[place]
        others = tuple(other for other in range(means.ndim) if other not in (along, lines))
        table = means.mean(others)  # [along, lines]
        for number, level in enumerate(levels[names[lines]]):
            look = {key: value for key, value in style.line_style(number).items() if key != "gid"}
            axis.plot(
                range(len(table)), table[:, number], marker=style.marker(number), markersize=4,
                label=f"{names[lines]} {level}", clip_on=False, **look,
            )  # fmt: skip
        axis.set_xticks(range(len(table)), list(levels[names[along]]))
        axis.set_xlim(-0.3, len(table) - 0.7)
        axis.set_ylim(max(low - margin, 0), high + margin * (1 + 1.6 * len(levels[names[lines]])))
        axis.set_xlabel(names[along])
        axis.legend(loc="upper left", frameon=False, fontsize=6.5)
        axis.set_title("mean DSC" if place % columns == 0 else "")
    return figure


def _broken(name: str) -> str:
    """An interaction's name on two lines."""
    return name.replace(" × ", "\n× ")
