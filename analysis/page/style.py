"""How figures look: colours, line styles, panel grids, and SVG that follows the page's theme.

Colours are Petroff's ten (arXiv 2107.02270), ordered so that the first seven stay apart for
readers with any colour vision; every loss also has its own dash pattern and marker.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from itertools import pairwise, zip_longest
from typing import Any, cast

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from lesion_core.terminal import visible

PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
PALETTE_DARK = (
    "#9bbff2",
    "#fae56d",
    "#b9465a",
    "#7c8384",
    "#825fb3",
    "#db9582",
    "#f17221",
    "#cfc48f",
    "#9a9eaa",
    "#a8e6e8",
)
DASHES = (
    (),
    (5, 1.5),
    (1.2, 1.2),
    (5, 1.2, 1.2, 1.2),
    (7, 2, 2, 2),
    (3, 1),
    (7, 1.2, 1.2, 1.2, 1.2, 1.2),
    (2, 2),
    (9, 2),
    (1, 2.5),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")

INK, MUTED, GRID, SURFACE = "#16191d", "#5b6570", "#dde1e6", "#fefefe"
SHADE = "#eef1f4"
"""A quiet fill: reference bands and empty tiles."""

OVERLAY = {"tp": "#56b4e9", "fp": "#d55e00", "fn": "#f0e442"}
PAPER_OVERLAY = {"tp": "#00c800", "fp": "#ff0000", "fn": "#0000ff"}

STATUS_COLOURS = {
    "done": "#cfe3d4",
    "partial": "#dbe7f5",
    "failed": "#e0703a",
    "diverged": "#b03a2e",
    "corrupt": "#8a5fa8",
    "missing": "#eef1f4",
}
STATUS_SIGNS = {
    "done": "·",
    "partial": "…",
    "failed": "×",
    "diverged": "∞",
    "corrupt": "?",
    "missing": "○",
}

WIDTH_IN = 7.2
"""Width of every figure: one journal column and a half, 100 % of the page."""
PHONE_IN = 3.8
"""Width of its twin for narrow screens, where letters of the same size can be read."""
_width_in: ContextVar[float] = ContextVar("width_in", default=WIDTH_IN)


def colour(loss: int) -> str:
    """Colour of a loss, by its place in the sweep's order; after ten they repeat."""
    return PALETTE[loss % len(PALETTE)]


def line_style(loss: int, *, width: float = 1.5) -> dict:
    """Colour and dash pattern of a loss, as keyword arguments of `Axes.plot`."""
    style: dict[str, object] = {"color": colour(loss), "linewidth": width, "gid": f"L{loss}"}
    dashes = DASHES[(loss + loss // len(DASHES)) % len(DASHES)]
    if dashes:
        style["dashes"] = dashes
    return style


def marker(loss: int) -> str:
    """Marker of a loss."""
    return MARKERS[(loss + loss // len(MARKERS)) % len(MARKERS)]


def context() -> AbstractContextManager[None]:
    """The matplotlib settings that every figure is drawn and saved under."""
    return matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 7.5,
            "axes.titlesize": 8,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 4,
            "axes.labelsize": 7.5,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "axes.edgecolor": MUTED,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": GRID,
            "grid.linewidth": 0.5,
            "figure.facecolor": SURFACE,
            "axes.facecolor": SURFACE,
            "savefig.facecolor": SURFACE,
            "svg.fonttype": "none",
            "text.parse_math": False,  # a dollar in a name is a dollar
            "pdf.fonttype": 42,
            "lines.solid_capstyle": "round",
        }
    )


@contextmanager
def for_a_phone() -> Iterator[None]:
    """Figures that are drawn inside are `PHONE_IN` wide."""
    before = _width_in.set(PHONE_IN)
    try:
        yield
    finally:
        _width_in.reset(before)


def width_in() -> float:
    """Width of a figure that is drawn now, inches."""
    return min(WIDTH_IN, _width_in.get())


def panels(
    rows: int,
    columns: int,
    *,
    height: float,
    top: float = 0.55,
    bottom: float = 0.42,
    left: float = 0.5,
    right: float = 0.12,
    gap_x: float = 0.28,
    gap_y: float = 0.34,
    width: float = WIDTH_IN,
    widths: Sequence[float] = (),
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes, all sizes in inches (no layout engine: same bytes, fast).

    On a narrower screen, and beside very long names, the margins give way so that the panels keep
    half of the width.
    """
    given, width = width, min(width, _width_in.get())
    if right > width / 3:  # only what is left over
        right = max(0.12, right - (given - width))
    gap_x *= min(1.0, width / given + 0.1)
    left = min(left, 0.5 * (width - gap_x * (columns - 1)) - right)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    share = np.asarray(widths or [1.0] * columns, float)
    column_widths = (width - left - right - gap_x * (columns - 1)) * share / share.sum()
    panel_height = (height - top - bottom - gap_y * (rows - 1)) / rows
    axes = np.empty((rows, columns), object)
    for row in range(rows):
        for column in range(columns):
            x = left + column_widths[:column].sum() + gap_x * column
            y = height - top - panel_height * (row + 1) - gap_y * row
            axes[row, column] = figure.add_axes(
                (x / width, y / height, column_widths[column] / width, panel_height / height)
            )
    return figure, axes


def legend(
    figure: Figure, losses: Sequence[str], shown: Sequence[int], *, markers: bool = False
) -> None:
    """Line samples and names along the top edge, wrapped to the figure's width."""
    width, height = figure.get_size_inches()
    x, y = 0.12, 0.14
    for loss in shown:
        name = _named(losses[loss])
        needed = 0.36 + 0.068 * len(name) + 0.16
        if x + needed > width and x > 0.12:
            x, y = 0.12, y + 0.17
        style = line_style(loss)
        figure.add_artist(
            Line2D(
                [x / width, (x + 0.28) / width],
                [1 - y / height] * 2,
                transform=figure.transFigure,
                marker=marker(loss) if markers else "",
                markersize=4,
                **style,
            )
        )
        figure.text(
            (x + 0.34) / width,
            1 - y / height,
            name,
            va="center",
            fontsize=7.5,
            gid=f"L{loss}",
        )
        x += needed


_called: ContextVar[Mapping[str, str] | None] = ContextVar("called", default=None)


@contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Draw with other names, by those that figures are given; words of other texts and of ticks are
    replaced by `renamed`."""
    before = _called.set(names)
    try:
        yield
    finally:
        _called.reset(before)


def _named(loss: str) -> str:
    names = _called.get()
    return loss if names is None else names.get(loss, loss)


def renamed(figure: Figure, name: Callable[[str], str]) -> None:
    """Put every text of a figure through ``name``."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [label.get_text() for label in axis.get_ticklabels()]
            if any(name(tick) != tick for tick in ticks):  # else they are numbers
                axis.set_ticklabels([name(tick) for tick in ticks])
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(name(text.get_text()))


def legend_height(losses: Sequence[str], shown: Sequence[int]) -> float:
    """Inches that `legend` takes."""
    x, rows, width = 0.12, 1, _width_in.get()
    for loss in shown:
        needed = 0.36 + 0.068 * len(_named(losses[loss])) + 0.16
        if x + needed > width and x > 0.12:
            x, rows = 0.12, rows + 1
        x += needed
    return 0.1 + 0.17 * rows


def rate_axis(axis: Axes, *, lower: float = 0.0, upper: float = 1.0) -> None:
    """A vertical axis for rates, 0 to 1 with four grid steps."""
    axis.set_ylim(lower, upper)
    if (lower, upper) == (0.0, 1.0):
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def epoch_axis(axis: Axes, num_epochs: int) -> None:
    """A horizontal axis of whole epochs from 0, the untrained network."""
    if num_epochs > 0:
        axis.set_xlim(0, num_epochs)
    ticks = 6 if _width_in.get() == WIDTH_IN else 2
    axis.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True))


def bands(
    axis: Axes, low: np.ndarray, mean: np.ndarray, high: np.ndarray, shown: Sequence[int]
) -> None:
    """Means [L, E + 1] over epochs, each inside its band from low to high; rates from 0 to 1."""
    epochs = np.arange(mean.shape[1])
    known = [loss for loss in shown if not np.isnan(mean[loss]).all()]
    for loss in known:
        axis.fill_between(
            epochs,
            low[loss],
            high[loss],
            color=colour(loss),
            alpha=0.13,
            linewidth=0,
            gid=f"L{loss}",
        )
    for loss in known:
        axis.plot(epochs, mean[loss], **line_style(loss))
    epoch_axis(axis, len(epochs) - 1)
    rate_axis(axis)


def fit_text(figure: Figure) -> None:
    """Shorten or leave out what would be cut off at an edge or cover its neighbour.

    Names may be long, and the figure narrow.  Of numbers along an axis every second is left out, of
    equal words under neighbouring panels all but one; other words lose their middle.
    """
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    width, height = figure.bbox.width, figure.bbox.height

    def box(text: Text) -> Bbox:
        seen = text.get_window_extent(renderer)
        upright = _is_upright(text, seen)
        more = _WIDER * (seen.height if upright else seen.width)
        align = text.get_verticalalignment() if upright else text.get_horizontalalignment()
        before, after = _SIDES.get(align, (0.5, 0.5))
        x, y = (0.0, more) if upright else (more, 0.0)
        return Bbox.from_extents(
            seen.x0 - before * x, seen.y0 - before * y, seen.x1 + after * x, seen.y1 + after * y
        )

    for axes in figure.axes:
        names = [_shorter(text, box(text), 0, width) for text in axes.get_yticklabels()]
        if names != [text.get_text() for text in axes.get_yticklabels()]:
            axes.set_yticks(axes.get_yticks(), names)
        along = [text for text in axes.get_xticklabels() if text.get_text() and text.get_visible()]
        if any(_is_upright(text, box(text)) for text in along):
            names = [_shorter(text, box(text), 0, height) for text in axes.get_xticklabels()]
            axes.set_xticks(axes.get_xticks(), names)
            continue
        if len(along) < 2 or not any(box(a).x1 > box(b).x0 for a, b in pairwise(along)):
            continue
        if all(_NUMBER.fullmatch(text.get_text()) for text in along):
            while any(box(a).x1 > box(b).x0 - 2 for a, b in pairwise(along)):
                for text in along[1::2]:
                    text.set_visible(False)
                along = along[::2]
        else:
            pitch = (axes.bbox.width - 2) / len(along)
            wide = max(box(text).width for text in along)
            for text in along:
                now = cast(float, text.get_fontsize())
                text.set_fontsize(min(now, max(_SMALLEST_PT, now * pitch / wide)))
            places = [(box(text).x0 + box(text).x1) / 2 for text in along]
            names = [
                _shorter(text, box(text), place - pitch / 2, place + pitch / 2)
                for text, place in zip(along, places, strict=True)
            ]
            axes.set_xticks(axes.get_xticks(), names)
    for row in _rows_of(figure):
        below = [axes.xaxis.label for axes in row if axes.xaxis.label.get_text()]
        if len({text.get_text() for text in below}) == 1 and len(below) > 1:
            wide = max(box(text).width for text in below)
            if wide > min(axes.bbox.width for axes in row):
                for number, text in enumerate(below):
                    text.set_visible(number == len(below) // 2)
        for axes, after in zip_longest(row, row[1:]):
            title = axes.title if axes.title.get_text() else cast(Any, axes)._left_title
            end = width if after is None else after.bbox.x0 - 2
            title.set_text(_shorter(title, box(title), 0, end))
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        seen = box(text)
        text.set_text(_shorter(text, seen, 0, height if _is_upright(text, seen) else width))


def _is_upright(text: Text, box: Bbox) -> bool:
    return "\n" not in text.get_text() and len(text.get_text()) > 1 and box.height > box.width


def _shorter(text: Text, box: Bbox, start: float, end: float) -> str:
    """What is written, without as much of its lines' middle as reaches beyond start or end."""
    plain = text.get_text()
    (low, high), align = (box.x0, box.x1), text.get_horizontalalignment()
    if _is_upright(text, box):
        (low, high), align = (box.y0, box.y1), text.get_verticalalignment()
    over = max(start - low, high - end)
    if not text.get_visible() or over <= 1 or high <= low:
        return plain
    if align.startswith("center"):
        over *= 2
    lines = plain.split("\n")
    kept = max(_ALWAYS_KEPT, int(max(map(len, lines)) * (1 - over / (high - low))) - 1)
    return "\n".join(
        line if len(line) <= kept else f"{line[: kept - kept // 3]}…{line[len(line) - kept // 3 :]}"
        for line in lines
    )


def _rows_of(figure: Figure) -> list[list[Axes]]:
    """Axes that stand beside each other, from left to right."""
    rows: dict[float, list[Axes]] = {}
    for axes in figure.axes:
        rows.setdefault(round(axes.bbox.y0), []).append(axes)
    return [sorted(row, key=lambda axes: axes.bbox.x0) for row in rows.values()]


_SMALLEST_PT = 5.5
_WIDER = 0.13
"""A browser's letters may be wider than those that are measured, which are fitted to pixels."""
_SIDES = {"left": (0, 1), "bottom": (0, 1), "baseline": (0, 1), "right": (1, 0), "top": (1, 0)}
"""Alignment -> on which sides a text grows."""
_ALWAYS_KEPT = 5
"""Letters; fewer say nothing."""
_NUMBER = re.compile(r"[\N{MINUS SIGN}+-]?[\d.]+%?")


# ------------------------------------------------------------------------------------------ files
def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG, 160 dots per inch, without a date or version inside."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=160, metadata={"Software": None})
    return sink.getvalue()


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as PDF, without a date or version inside."""
    sink = io.BytesIO()
    figure.savefig(
        sink, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None}
    )
    return sink.getvalue()


def svg_text(figure: Figure, salt: str) -> str:
    """The figure as a stand-alone SVG; the salt keeps ids of different figures apart."""
    sink = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"\n\s*<metadata>.*?</metadata>", "", sink.getvalue(), flags=re.DOTALL)
    # Control characters are no XML, even escaped.
    return re.sub(r"[ \t]+\n", "\n", visible(_in_tags(svg, _simplified)))


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """The SVG with a change of its tags; text between them is what a reader sees, and stays."""
    return re.sub(r"<[^>]*>", lambda tag: change(tag[0]), svg)


def _simplified(tag: str) -> str:
    tag = re.sub(r'id="(L\d+)"', r'class="\1"', tag)  # one class per loss: the page's toggles
    if tag.startswith("<image"):  # figures are drawn twice; nothing refers to a picture in one
        tag = re.sub(r' id="[^"]*"', "", tag, count=1)
    # matplotlib numbers its groups; nothing refers to those names.
    tag = re.sub(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"', "", tag)
    return re.sub(  # two decimals
        r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag
    )


def inline_svg(svg: str) -> Markup:
    """The SVG as it goes into the page: no prologue, and colours that follow the theme.

    Its one style sheet is in the page's own, which the page's policy allows by its hash.
    """
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r">\s+<", "><", _in_tags(svg, _themed))
    return Markup(svg)  # matplotlib escaped what stands in it


def _themed(tag: str) -> str:
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"', "", tag).replace("xlink:href", "href")
    for value, name in _THEME.items():
        tag = tag.replace(value, f"var(--{name})")
    tag = re.sub(r"font: ([\d.]+)px [^\";]*", r"font-size: \1px", tag)
    tag = re.sub(r"font: (\d+|bold) ([\d.]+)px [^\";]*", r"font-size: \2px; font-weight: \1", tag)
    return re.sub(r"\s+", " ", tag)


_THEME = {
    **{value: f"c{index}" for index, value in enumerate(PALETTE)},
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    SHADE: "shade",
}
"""Colours of a file, and the page's names for them."""
