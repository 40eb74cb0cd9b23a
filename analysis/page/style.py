"""How figures look: colours, line styles, panel grids, and SVG that follows the page's theme.

Colours are Petroff's ten (arXiv 2107.02270), ordered so that the first seven stay apart for
readers with any colour vision; every loss also has its own dash pattern and marker.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

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
    """A figure with a grid of axes, all sizes in inches (no layout engine: same bytes, fast)."""
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
        needed = 0.36 + 0.068 * len(losses[loss]) + 0.16
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
            losses[loss],
            va="center",
            fontsize=7.5,
            gid=f"L{loss}",
        )
        x += needed


def legend_height(losses: Sequence[str], shown: Sequence[int], *, width: float = WIDTH_IN) -> float:
    """Inches that `legend` takes."""
    x, rows = 0.12, 1
    for loss in shown:
        needed = 0.36 + 0.068 * len(losses[loss]) + 0.16
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
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


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
    return Markup(svg)  # noqa: S704 - matplotlib escaped what stands in it


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
