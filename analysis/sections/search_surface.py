"""Where does a search score high?  Its surface, over the whole space or along each field."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, NullFormatter

from analysis.page import style
from analysis.page.escaping import prose
from analysis.page.items import Figure, Item, Note, many
from analysis.statistics import confidence
from analysis.statistics.search_outcome import NAMES, SearchOutcome
from analysis.statistics.search_surface import (
    FEWEST_FOR_A_SURFACE,
    Surface,
    grid_frame,
    is_plane,
    pairs_frame,
    surface,
    whole_fields,
    whole_space,
)

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
MOST_CHARACTERS = 12
"""Of the choices of a field that fit side by side under a panel."""
STATE_MARKERS = {"complete": "o", "pruned": "v", "failed": "X", "running": "s"}


def surfaces(found: SearchOutcome) -> list[Item]:
    """A figure per objective, and one of every two fields where there are more than two."""
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
        axes, whole = found.axes, whole_fields(found)
        plane = is_plane(axes)
        frame = grid_frame(found, fitted, metric)
        space = whole_space(axes)
        place, close = fitted.like_the_best(space)
        score, sd = fitted.at(space[[place]])
        peak = ", ".join(
            f"{name} {axes.worded(name, value, name in whole)}"
            for name, value in zip(axes.fields, space[place], strict=True)
            if not np.isnan(value)
        )
        draw = draw_plane if plane else draw_slices
        items.append(
            Figure(
                key=f"search-surface-{metric}",
                title=f"{NAMES[metric]} over {' and '.join(found.fields)}",
                draw=partial(draw, found, fitted, frame, metric),
                data=frame,
                caption=f"Gaussian process through {int((~np.isnan(found.estimate[metric])).sum())}"
                f" configurations ({counted(found)}), each with the noise of its trials. "
                + (
                    "Left: the score; right: its standard deviation. "
                    if plane
                    else "Line and band, or square and bar: the score and its "
                    f"{confidence.in_percent()} interval along each field, other fields as chosen; "
                    "a field that is not searched there, with the first choice that has it. "
                )
                + f"Highest at {peak}: {score[0]:.3f} ± {sd[0]:.3f}. {_share(close)} of "
                f"the space lies less than one standard deviation of the difference below. {LOW}",
                alt=f"{NAMES[metric]} is highest near {peak}, {score[0]:.3f} ± "
                f"{sd[0]:.3f}; {_share(close)} of the space cannot be told from it.",
            )
        )
        if len(axes.numbers) > 1 and not plane:
            items.append(_pairs_figure(found, fitted, metric))
    return items


def _pairs_figure(found: SearchOutcome, fitted: Surface, metric: str) -> Figure:
    """The score over every two of the ranges."""
    frame = pairs_frame(found, fitted, metric)
    shown = list(dict.fromkeys([*frame["x"], *frame["y"]]))
    left_out = len(found.axes.numbers) - len(shown)
    return Figure(
        key=f"search-pairs-{metric}",
        title=f"{NAMES[metric]} over every two of {as_words(shown)}",
        draw=partial(draw_pairs, found, frame),
        data=frame,
        caption="The same surface, over two fields at a time; the others as chosen, or, where a "
        "field is not searched beside those, with the first choice that has it. All panels have "
        "one colour scale. Marks: configurations, wherever their other fields lie. "
        + (f"{many(left_out, 'field')} of less importance not drawn. " if left_out else "")
        + LOW,
        alt=f"{NAMES[metric]} over pairs of {as_words(shown)}: from {frame['score'].min():.3f} to "
        f"{frame['score'].max():.3f}.",
    )


def as_words(names: list[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]


def _share(share: float) -> str:
    return "less than 1%" if share < 0.005 else f"{share:.0%}"


def counted(found: SearchOutcome) -> str:
    """How many configurations, by state."""
    parts = [
        f"{int((found.states == state).sum())} {state}"
        for state in ("complete", "pruned", "failed", "running")
        if (found.states == state).any()
    ]
    return f"{many(len(found.configurations), 'configuration')}: {', '.join(parts)}"


# ---------------------------------------------------------------------------------------- drawing
def _mark(axis: Any, found: SearchOutcome, x: np.ndarray, y: np.ndarray) -> None:
    """Configurations by state; size grows with the cells met; the chosen one has a star."""
    sizes = 8 + 22 * found.met / max(1, len(found.cells))
    for state, marker in STATE_MARKERS.items():
        of = found.states == state
        if of.any():
            axis.scatter(
                x[of], y[of], s=sizes[of], marker=marker, color="#ffffff",
                edgecolors="#16191e", linewidths=0.7, zorder=3,
            )  # fmt: skip
    if found.chosen is not None and not np.isnan(x[found.chosen]):
        axis.scatter(
            x[[found.chosen]], y[[found.chosen]], s=110, marker="*", color="#e76300",
            edgecolors="#16191e", linewidths=0.7, zorder=4,
        )  # fmt: skip


def whole_ticks(axis: Any, whole: bool = True) -> None:
    """Ticks at whole numbers, of what comes in whole numbers."""
    if whole:
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def draw_plane(found: SearchOutcome, fitted: Surface, frame: pd.DataFrame, metric: str) -> Drawing:
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
        _scale(axis.xaxis, found, found.fields[0])
        _scale(axis.yaxis, found, found.fields[1])
        axis.grid(False)
    _states_legend(figure, found)
    return figure


def draw_slices(found: SearchOutcome, fitted: Surface, frame: pd.DataFrame, metric: str) -> Drawing:
    """One panel per field, the others held at the chosen configuration's."""
    number = len(found.fields)
    columns = min(number, 4)
    rows = -(-number // columns)
    figure, axes = style.panels(
        rows,
        columns,
        height=0.5 + 2.3 * rows,
        top=0.5,
        bottom=0.55,
        gap_x=0.5,
        gap_y=0.75,
        left=0.55,
    )
    for axis in axes.ravel()[number:]:
        axis.set_visible(False)
    for place, name in enumerate(found.fields):
        axis = axes.ravel()[place]
        own = frame[frame["varied"] == name]
        reach = confidence.normal_factor() * own["sd"]
        choices = found.axes.choices(name)
        if choices is not None:
            at = np.arange(len(choices))
            axis.errorbar(
                at, own["score"], yerr=reach, fmt="s", markersize=5,
                color=STATE_COLOURS["complete"], elinewidth=1.5, zorder=3.5,
            )  # fmt: skip
            words = [found.axes.worded(name, float(value)) for value in at]
            is_long = sum(map(len, words)) > MOST_CHARACTERS
            axis.set_xticks(
                at, words, rotation=30 if is_long else 0, ha="right" if is_long else "center"
            )
            axis.set_xlim(-0.5, len(choices) - 0.5)
        else:
            axis.fill_between(
                own[name], own["score"] - reach, own["score"] + reach,
                color=style.SHADE, linewidth=0,
            )  # fmt: skip
            axis.plot(own[name], own["score"], color=STATE_COLOURS["complete"], linewidth=1.5)
            _scale(axis.xaxis, found, name)
        _mark(axis, found, found.points[:, place], found.estimate[metric])
        axis.set_xlabel(name)
        if place % columns == 0:
            axis.set_ylabel(NAMES[metric])
    _states_legend(figure, found)
    return figure


def draw_pairs(found: SearchOutcome, frame: pd.DataFrame) -> Drawing:
    """A panel for every two ranges, on one colour scale."""
    pairs = list(dict.fromkeys(zip(frame["x"], frame["y"], strict=True)))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = style.panels(
        rows,
        columns,
        height=0.5 + 2.4 * rows,
        top=0.5,
        bottom=0.55,
        gap_x=0.6,
        gap_y=0.75,
        right=0.75,
    )
    levels = np.linspace(frame["score"].min(), frame["score"].max(), 13)
    for axis in axes.ravel()[len(pairs) :]:
        axis.set_visible(False)
    filled: Any = None
    for axis, (x, y) in zip(axes.ravel(), pairs, strict=False):
        own = frame[(frame["x"] == x) & (frame["y"] == y)]
        across, up = np.unique(own["x_value"]), np.unique(own["y_value"])
        values = own["score"].to_numpy().reshape(len(across), len(up)).T
        filled = axis.contourf(across, up, values, levels=levels, cmap="cividis")
        places = [found.fields.index(name) for name in (x, y)]
        _mark(axis, found, *found.points.T[places])
        for own_axis, name in ((axis.xaxis, x), (axis.yaxis, y)):
            _scale(own_axis, found, name)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.set_xlim(*found.search["ranges"][x])
        axis.set_ylim(*found.search["ranges"][y])
        axis.grid(False)
    box = axes[0, -1].get_position()
    beside = figure.add_axes((box.x1 + 0.012, box.y0, 0.014, box.height))
    figure.colorbar(filled, cax=beside, format="%.3f")
    beside.tick_params(labelsize=6, length=0)
    _states_legend(figure, found)
    return figure


def _scale(axis: Any, found: SearchOutcome, name: str) -> None:
    """Logarithmic where the range is; ticks at whole numbers, where only these were tried."""
    if found.axes.is_log(name):
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        axis.set_minor_formatter(NullFormatter())
    whole_ticks(axis, name in whole_fields(found) and not found.axes.is_log(name))


def _states_legend(figure: Drawing, found: SearchOutcome) -> None:
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
