"""What a report is made of: figures, tables, pictures and paragraphs, and their twins on disk.

Sections hold numbers and say how to draw them; only `render` draws.  Every figure goes to disk as
SVG, PDF, PNG and CSV, every table as CSV, Markdown and LaTeX; the page carries the SVG and the
same CSV inside itself.
"""

from __future__ import annotations

import base64
import gzip
import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from analysis.flags import FORMATS
from analysis.page import style
from lesion_core.results import write_bytes

LOSS = "loss"
"""Name of the column that holds a loss label: its rows follow the page's loss switches."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing, the numbers behind it, and what it shows in words."""

    key: str
    """File name, unique in the report."""
    title: str
    draw: Callable[[], Drawing]
    data: pd.DataFrame
    caption: str
    """Starts with what is plotted and ends with n of N."""
    alt: str
    """What a reader who cannot see it should take from it."""
    narrow: bool = False
    """Readable at half the page's width."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one column of a table is headed and written."""

    key: str
    header: str
    group: str = ""
    """Heading above neighbouring columns with the same group."""
    decimals: int | None = None
    """None: as it is (text, whole numbers)."""
    signed: bool = False
    percent: bool = False
    wrap: bool = False
    """Long text: may break into lines."""
    best: str = ""
    """"max" or "min": the best value of the column is printed bold."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows, and how to write them."""

    key: str
    title: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    caption: str
    losses: Sequence[str] = ()
    """The sweep's losses in order, if a column `loss` names one per row."""
    note: str = ""
    """A line under the table."""

    def cell(self, column: Column, value: object) -> str:
        """One value as text; undefined numbers are a dash."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if isinstance(value, float) and column.decimals is not None:
            scaled = 100 * value if column.percent else value
            sign = "+" if column.signed else ""
            text = f"{scaled:{sign}.{column.decimals}f}"
            if re.fullmatch(r"[+-]0(\.0*)?", text):  # no signed zero
                text = text[1:]
            return text.replace("-", "\N{MINUS SIGN}") + ("%" if column.percent else "")
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value)

    def best_rows(self, column: Column) -> set[int]:
        """Row numbers whose printed value is the best of the column."""
        if not column.best:
            return set()
        values = pd.to_numeric(self.frame[column.key], errors="coerce")
        if values.notna().sum() < 2:
            return set()
        target = values.max() if column.best == "max" else values.min()
        text = self.cell(column, float(target))
        return {i for i, value in enumerate(values) if self.cell(column, float(value)) == text}


@dataclass(frozen=True, kw_only=True)
class Note:
    """A paragraph or a list, as HTML that this package wrote."""

    body: Markup
    kind: str = "text"
    """text | warning | key"""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a `Pictures` row, with what it shows."""

    label: str
    png: bytes
    alt: str
    width_mm: float
    height_mm: float
    under: str = ""
    loss: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Rows of small images that wrap on a narrow screen; `figure` is its twin for the disk."""

    figure: Figure
    rows: Sequence[tuple[str, Sequence[Picture]]]


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading inside a section, one per cohort when there are several."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Details under the question that they answer: closed on the screen, open in print."""

    question: str
    items: Sequence[Figure | Table | Note | Pictures | Heading]


Item = Figure | Table | Note | Pictures | Heading | Fold


@dataclass(frozen=True, kw_only=True)
class Section:
    """One question, answered."""

    key: str
    title: str
    lead: str
    """What to look at, in one or two plain sentences."""
    items: Sequence[Item] = field(default_factory=list)

    @property
    def unfolded(self) -> list[Figure | Table | Note | Pictures | Heading]:
        """Its items and those inside its folds, in the order of the page."""
        return unfolded(self.items)


def unfolded(items: Sequence[Item]) -> list[Figure | Table | Note | Pictures | Heading]:
    """Items with those inside folds, in the order of the page."""
    flat: list[Figure | Table | Note | Pictures | Heading] = []
    for item in items:
        flat += item.items if isinstance(item, Fold) else [item]
    return flat


# ------------------------------------------------------------------------------------ paragraphs
def prose(plain: str) -> Markup:
    """Plain text as HTML: escaped, `**bold**` and `` `code` `` marked up."""
    escaped = html.escape(plain, quote=False)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", escaped))


def many(count: int, noun: str) -> str:
    """A count and its noun.

    >>> many(1, "seed"), many(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def written(value: float, form: str = ".2f") -> str:
    """A number in running text; a dash if undefined.

    >>> written(0.123), written(-0.5, "+.1f"), written(float("nan"))
    ('0.12', '−0.5', '–')
    """
    return "–" if math.isnan(value) else format(value, form).replace("-", "\N{MINUS SIGN}")


def decimals_for(errors: list[float]) -> int:
    """Decimals worth printing: two digits of the smallest standard error, between 2 and 5."""
    known = [value for value in errors if value > 0]
    if not known:
        return 3
    return int(np.clip(1 - np.floor(np.log10(min(known))), 2, 5))


# ------------------------------------------------------------------------------------- rendering
MANY_COLUMNS = 9
"""Tables with more than these are set in a smaller type."""


def render(item: Item, folder: Path, formats: Sequence[str] = FORMATS) -> Markup:
    """Write an item's files (figures in the given formats) and return its HTML."""
    if isinstance(item, Fold):
        inside = Markup("\n").join(render(one, folder, formats) for one in item.items)
        return Markup(
            f'<details class="fold"><summary>{prose(item.question)}</summary>{inside}</details>'
        )
    with style.context():
        if isinstance(item, Figure):
            return _render_figure(item, folder, formats)
        if isinstance(item, Pictures):
            return _render_pictures(item, folder, formats)
    if isinstance(item, Table):
        return _render_table(item, folder)
    if isinstance(item, Heading):
        return Markup(f"<h3>{html.escape(item.text)}</h3>")
    tag = "div" if item.body.startswith("<") else "p"
    return Markup(f'<{tag} class="{item.kind}">{item.body}</{tag}>')


def _render_figure(item: Figure, folder: Path, formats: Sequence[str]) -> Markup:
    svg = _write_figure(item, folder, formats)
    size = " narrow" if item.narrow else ""
    return Markup(
        f'<figure id="{item.key}" class="plot{size}"><h4>{prose(item.title)}</h4>'
        f'<div class="scroll" tabindex="0" role="img" aria-label="{html.escape(item.alt)}">'
        f"{style.inline_svg(svg)}</div>"
        f"<figcaption>{prose(item.caption)}{_links(item.key, formats, item.data)}</figcaption>"
        "</figure>"
    )


def _write_figure(item: Figure, folder: Path, formats: Sequence[str]) -> str:
    drawing = item.draw()
    svg = style.svg_text(drawing, item.key)
    target = folder / "figures" / item.key
    content = {
        "svg": svg.encode,
        "png": partial(style.png_bytes, drawing),
        "pdf": partial(style.pdf_bytes, drawing),
    }
    for suffix in formats:
        write_bytes(target.with_name(f"{item.key}.{suffix}"), content[suffix]())
    write_bytes(target.with_name(f"{item.key}.csv"), csv_bytes(item.data))
    return svg


def _render_pictures(item: Pictures, folder: Path, formats: Sequence[str]) -> Markup:
    _write_figure(item.figure, folder, formats)
    rows = []
    for label, pictures in item.rows:
        cells = []
        for picture in pictures:
            loss = "" if picture.loss is None else f" L{picture.loss}"
            uri = base64.b64encode(picture.png).decode()
            under = f"<small>{prose(picture.under)}</small>" if picture.under else ""
            cells.append(
                f'<div class="picture{loss}"><span>{prose(picture.label)}</span>'
                f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{uri}" '
                f'style="aspect-ratio:{picture.width_mm:.4g}/{picture.height_mm:.4g}">'
                f"{under}</div>"
            )
        rows.append(
            f'<div class="pictures-row"><p>{prose(label)}</p>'
            f'<div class="pictures">{"".join(cells)}</div></div>'
        )
    figure = item.figure
    return Markup(
        f'<figure id="{figure.key}" class="plot"><h4>{prose(figure.title)}</h4>{"".join(rows)}'
        f"<figcaption>{prose(figure.caption)}{_links(figure.key, formats, figure.data)}"
        "</figcaption></figure>"
    )


def _links(key: str, formats: Sequence[str], data: pd.DataFrame, folder: str = "figures") -> str:
    """Files behind an item: relative links, and the CSV itself inside the page."""
    packed = base64.b64encode(gzip.compress(csv_bytes(data), mtime=0)).decode()
    links = " ".join(
        f'<a href="{folder}/{key}.{kind}"{" download" if kind == "csv" else ""}>{kind}</a>'
        for kind in ("csv", *formats)
    )
    return (
        f' <span class="files" data-name="{key}.csv">{links}</span>'
        f'<script type="text/plain" class="csv">{packed}</script>'
    )


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as CSV: six significant digits, empty where undefined."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


# ---------------------------------------------------------------------------------------- tables
def _render_table(table: Table, folder: Path) -> Markup:
    target = folder / "tables" / table.key
    write_bytes(target.with_name(f"{table.key}.csv"), csv_bytes(table.frame))
    write_bytes(target.with_name(f"{table.key}.md"), markdown(table).encode())
    write_bytes(target.with_name(f"{table.key}.tex"), latex(table).encode())
    wide = " wide" if len(table.columns) > MANY_COLUMNS else ""
    return Markup(
        f'<figure id="{table.key}" class="table{wide}"><h4>{prose(table.title)}</h4>'
        f'<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(table.title)}">{html_table(table)}</div>'
        f"<figcaption>{prose(table.caption)}"
        f"{_links(table.key, ('md', 'tex'), table.frame, folder='tables')}"
        f"</figcaption></figure>"
    )


def html_table(table: Table) -> str:
    """The table as HTML: column groups above, rows of a loss switchable, values sortable."""
    head = ""
    groups = _groups(table.columns)
    if any(name for name, _ in groups):
        cells = "".join(
            f'<th scope="colgroup" colspan="{span}" class="group">{html.escape(name)}</th>'
            if name
            else f'<td colspan="{span}"></td>'
            for name, span in groups
        )
        head += f"<tr>{cells}</tr>"
    head += (
        "<tr>"
        + "".join(
            f'<th scope="col"{_kind(table, column)}>{html.escape(column.header)}</th>'
            for column in table.columns
        )
        + "</tr>"
    )
    best = {column.key: table.best_rows(column) for column in table.columns}
    losses, body = list(table.losses), []
    for number, row in enumerate(table.frame.to_dict("records")):
        loss: str | None = row.get(LOSS)
        place = losses.index(loss) if loss in losses else None
        cells = []
        for position, column in enumerate(table.columns):
            value = row[column.key]
            shown = html.escape(table.cell(column, value))
            if column.key == LOSS and place is not None:
                shown = f'<i class="dot" style="background:var(--c{place % 10})"></i>{shown}'
            if number in best[column.key]:
                shown = f"<strong>{shown}</strong>"
            exact = ""
            if isinstance(value, float) and column.decimals is not None:
                exact = "" if math.isnan(value) else f' data-v="{value:.6g}"'
            tag = 'th scope="row"' if position == 0 else "td"
            cells.append(f"<{tag}{_kind(table, column)}{exact}>{shown}</{tag.split()[0]}>")
        css = "" if place is None else f' class="L{place}"'
        body.append(f"<tr{css}>{''.join(cells)}</tr>")
    note = f'<p class="note">{prose(table.note)}</p>' if table.note else ""
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>{note}"


def _kind(table: Table, column: Column) -> str:
    if column.wrap:
        return ' class="wrap"'
    numeric = pd.api.types.is_numeric_dtype(table.frame[column.key])
    return ' class="n"' if numeric or column.decimals is not None else ""


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return groups


def markdown(table: Table) -> str:
    """The table as a Markdown pipe table; a column group goes into its columns' headings."""

    def words(value: str) -> str:
        return value.replace("|", "\\|")

    heads = [words(f"{c.group} {c.header}".strip()) for c in table.columns]
    lines = [
        f"**{table.title}**",
        "",
        "| " + " | ".join(heads) + " |",
        "|"
        + "|".join("---:" if _kind(table, c) == ' class="n"' else "---" for c in table.columns)
        + "|",
    ]
    best = {column.key: table.best_rows(column) for column in table.columns}
    for number, row in enumerate(table.frame.to_dict("records")):
        cells = []
        for column in table.columns:
            shown = words(table.cell(column, row[column.key]))
            cells.append(f"**{shown}**" if number in best[column.key] else shown)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", re.sub(r"`", "", table.caption), *(["", table.note] if table.note else [])]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """The table as LaTeX with booktabs rules."""
    aligned = "".join(
        "r" if _kind(table, column) == ' class="n"' else "l" for column in table.columns
    )
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.title)}. {_tex(table.caption)}}}",
        rf"\label{{tab:{table.key}}}",
        rf"\begin{{tabular}}{{{aligned}}}",
        r"\toprule",
    ]
    groups = _groups(table.columns)
    if any(name for name, _ in groups):
        cells, rules, start = [], [], 1
        for name, span in groups:
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_tex(name)}}}")
            if name:
                rules.append(rf"\cmidrule(lr){{{start}-{start + span - 1}}}")
            start += span
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    lines += [" & ".join(_tex(column.header) for column in table.columns) + r" \\", r"\midrule"]
    best = {column.key: table.best_rows(column) for column in table.columns}
    for number, row in enumerate(table.frame.to_dict("records")):
        cells = []
        for column in table.columns:
            shown = _tex(table.cell(column, row[column.key]))
            cells.append(rf"\textbf{{{shown}}}" if number in best[column.key] else shown)
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{MINUS SIGN}": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "γ": r"$\gamma$",
    "Δ": r"$\Delta$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "²": "$^2$",
    "³": "$^3$",
    "∞": r"$\infty$",
    "·": r"$\cdot$",
}


def _tex(plain: str) -> str:
    plain = re.sub(r"\*\*(.+?)\*\*|`(.+?)`", lambda found: found[1] or found[2], plain)
    return "".join(_TEX.get(letter, letter) for letter in plain)
