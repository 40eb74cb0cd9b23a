"""How far is each loss from the reference: the one forest plot of a cohort, with its key."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.page import style
from analysis.page.items import LOSS, Figure
from analysis.reading.scores import METRIC_NAMES, METRICS, CohortScores
from analysis.sections.outcome import Outcome, signed
from analysis.sections.pairs import counted_pairs
from analysis.statistics import confidence
from analysis.statistics.absence import given_up
from analysis.statistics.ladder import RUNG_NAMES, RUNGS
from analysis.statistics.pairs import Pair

BARS = (("L3", 1.6, 0.75), ("L2", 3.2, 0.75), ("L1", 5.4, 1.0))
"""Rung, line width and opacity, drawn in this order: the thinner, the further it holds."""
KEY_ROW_IN = 0.17
SAMPLE_IN = {"dot": 0.1, "bar": 0.3, "band": 0.2}
"""How wide a sample in the key is."""


def forest(found: Outcome) -> Figure | None:
    """Differences in DSC, sensitivity and precision; None where nothing is compared."""
    if found.judged is None:
        return None
    cohort, given, dice = found.cohort, found.given, found.judged
    pairs = {
        metric: [pair for pair, _ in given.family(cohort, metric).against_reference]
        for metric in METRICS
    }
    name = found.name(dice.reference)
    words = "; ".join(
        f"{found.name(pair.a)} {signed(pair.fit.estimate)}, {judgement.in_words}"
        for pair, judgement in dice.against_reference
    )
    without = [METRIC_NAMES[metric] for metric in METRICS if metric not in found.effect.tau]
    unknown = (
        f" Of {' and '.join(without)} no training-set effect is known (DSC's is not converted), so "
        "there is no thin bar for it."
        if without
        else ""
    )
    return Figure(
        key=f"forest-{cohort.name}",
        data=forest_frame(cohort, pairs),
        title=f"Difference from {name} at the last epoch, test images, {cohort.title}",
        draw=partial(draw_forest, cohort.losses, pairs, dice.reference, given.rope),
        caption=f"Dot: mean difference over {cohort.units}.{cohort.averaged} Bars: "
        f"{confidence.in_percent()} intervals, thick for new seeds (same patients and splits), "
        "middle for new patients as well, thin for new training sets as well, for a training-set "
        f"effect with SD {found.effect.in_words} in DSC.{unknown} Each for itself, not "
        f"adjusted for the others; the table's intervals and verdicts are. Grey: ±{given.rope:g}, "
        f"practically none. {counted_pairs(cohort, pairs['dice'])}{given_up(cohort)}",
        alt=f"Forest plot of differences in DSC, sensitivity and precision from {name}. DSC: "
        f"{words}.",
    )


# ------------------------------------------------------------------------------------------ frame
def forest_frame(cohort: CohortScores, pairs: dict[str, list[Pair]]) -> pd.DataFrame:
    """One row per metric, loss and rung."""
    rows = []
    for metric, own in pairs.items():
        for pair in own:
            for rung in RUNGS:
                low, high = pair.fit.interval(rung)
                rows.append(
                    {
                        "cohort": cohort.name,
                        "metric": metric,
                        LOSS: cohort.losses[pair.a],
                        "reference": cohort.losses[pair.b],
                        "rung": rung,
                        "generalises_to": RUNG_NAMES[rung],
                        "difference": pair.fit.estimate,
                        "se": pair.fit.se[rung],
                        "df": pair.fit.df[rung],
                        "low": low,
                        "high": high,
                        "p": pair.fit.p_value(rung),
                        "cells": pair.fit.num_cells,
                        **cohort.columns(pair.fit.num_cases, pair.fit.num_subjects),
                    }
                )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------- drawing
def draw_forest(
    losses: list[str], pairs: dict[str, list[Pair]], reference: int, rope: float
) -> Drawing:
    """One panel per metric, one row per loss."""
    rows = len(pairs["dice"])
    key_rows = 1 + max(row for _, row in _key_places(rope, style.width_in())[1])
    more = KEY_ROW_IN * (key_rows - 1)
    longest = max([len(losses[pair.a]) for pair in pairs["dice"]], default=4)
    figure, axes = style.panels(
        1,
        len(pairs),
        height=0.95 + 0.24 * rows + more,
        top=0.5 + more,
        bottom=0.42,
        left=min(2.2, 0.25 + 0.066 * longest),
        gap_x=0.2,
    )
    for axis, (metric, own) in zip(axes[0], pairs.items(), strict=True):
        axis.axvspan(-rope, rope, color=style.SHADE, linewidth=0)
        axis.axvline(0, color=style.MUTED, linewidth=0.8)
        reach = [-rope, rope]
        for y, pair in enumerate(own):
            colour = style.colour(pair.a)
            for rung, width, alpha in BARS:
                low, high = pair.fit.interval(rung)
                if np.isnan(low):
                    continue
                axis.plot(
                    [low, high],
                    [y, y],
                    color=colour,
                    linewidth=width,
                    alpha=alpha,
                    solid_capstyle="butt",
                    gid=f"L{pair.a}",
                )
                reach += [low, high]
            if not np.isnan(pair.fit.estimate):
                axis.plot(
                    pair.fit.estimate,
                    y,
                    marker="o",
                    markersize=4.6,
                    color=style.SURFACE,
                    markeredgecolor=style.INK,
                    markeredgewidth=1,
                    gid=f"L{pair.a}",
                    linestyle="",
                )
        axis.set_title(METRIC_NAMES[metric])
        axis.set_ylim(rows - 0.5, -0.5)
        low, high = min(reach), max(reach)
        margin = 0.06 * (high - low)
        axis.set_xlim(low - margin, high + margin)
        axis.set_yticks(range(rows), [losses[pair.a] for pair in own])
        axis.tick_params(labelleft=axis is axes[0, 0], left=False)
        axis.grid(False, axis="y")
        axis.set_xlabel(f"minus {losses[reference]}")
        axis.locator_params(axis="x", nbins=3 if key_rows > 1 else 5)
    _key(figure, rope)
    return figure


def _key(figure: Drawing, rope: float) -> None:
    """What dot, bars and band mean, along the top edge, wrapped to the figure's width."""
    width, height = figure.get_size_inches()
    for (kind, thickness, alpha, text), (x, row) in zip(*_key_places(rope, width), strict=True):
        y = 1 - (0.12 + KEY_ROW_IN * row) / height
        if kind == "dot":
            artist = Line2D([(x + 0.05) / width], [y], marker="o", markersize=4.6,
                            color=style.SURFACE, markeredgecolor=style.INK,
                            markeredgewidth=1, transform=figure.transFigure)  # fmt: skip
        elif kind == "bar":
            artist = Line2D([x / width, (x + SAMPLE_IN[kind]) / width], [y, y], color=style.INK,
                            linewidth=thickness, alpha=alpha, solid_capstyle="butt",
                            transform=figure.transFigure)  # fmt: skip
        else:
            artist = Rectangle((x / width, y - 0.05 / height), SAMPLE_IN[kind] / width,
                               0.1 / height, linewidth=0, facecolor=style.SHADE,
                               transform=figure.transFigure)  # fmt: skip
        figure.add_artist(artist)
        where = (x + SAMPLE_IN[kind] + 0.06) / width
        figure.text(where, y, text, va="center", fontsize=6.5)


def _key_places(
    rope: float, width: float
) -> tuple[list[tuple[str, float, float, str]], list[tuple[float, int]]]:
    """Samples with their words, and where each stands: inches from the left, and row."""
    samples = [
        ("dot", 0.0, 0.0, "mean difference"),
        *(
            ("bar", thickness, alpha, f"{confidence.in_percent()}, {RUNG_NAMES[rung]}")
            for rung, thickness, alpha in reversed(BARS)
        ),
        ("band", 0.0, 0.0, f"within ±{rope:g}"),
    ]
    places, x, row = [], 0.12, 0
    for kind, _, _, text in samples:
        needed = SAMPLE_IN[kind] + 0.06 + 0.052 * len(text)
        if x + needed > width and places:
            x, row = 0.12, row + 1
        places.append((x, row))
        x += needed + 0.16
    return samples, places
