"""What a report is made of: figures, tables, pictures and paragraphs, and their twins on disk.

Sections hold numbers and say how to draw them; only `render` draws.  Every figure goes to disk as
SVG, PDF, PNG and CSV, every table as CSV, Markdown and LaTeX; the page carries the SVG and the
same CSV inside itself.
"""

from __future__ import annotations

import base64
import gzip
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from analysis.flags import FORMATS
from analysis.page import style
from analysis.page.escaping import (
    csv_bytes,
    markdown_cell,
    markdown_text,
    prose,
    slug,
    tex,
    tex_cell,
    unique,
    without_marks,
)
from lesion_core.results import write_bytes
from lesion_core.terminal import visible

LOSS = "loss"
"""Name of the column that holds a loss label: its rows follow the page's loss switches."""
OVER = ("trials", "cells", "folds", "cases", "images", "patients")
"""Columns that say over how many a row's values are; ``KEY_cases``: that one value."""


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
    least: bool = False
    """A probability: what would be printed as zero is below the last digit, and says so."""
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
    called: Callable[[str], str] = str
    """How texts of cells are written where they are read; files of numbers keep them."""
    comparable: bool = True
    """Whether the rows' values are over the same trials."""
    collapsed: Collection[str] = ()
    """Losses whose networks collapsed: what is best in their rows, a precision of 1 for one voxel
    found, is no merit."""

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
            if column.least and float(text) == 0:
                text = f"< {10**-column.decimals:.{column.decimals}f}"
            return text.replace("-", "\N{MINUS SIGN}") + ("%" if column.percent else "")
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return self.called(str(value))

    def best_rows(self, column: Column) -> set[int]:
        """Row numbers whose printed value is the best of the column; ties are all best.

        Nobody is best where that would mislead: a row lacks the value, or has it over other trials
        or cases than the rest (`OVER`); the best comes from a collapsed network; all are equal.
        """
        if not column.best or not self.comparable or len(self.frame) < 2:
            return set()
        values = pd.to_numeric(self.frame[column.key], errors="coerce")
        over = (*OVER, *(f"{column.key}_{unit}" for unit in OVER))
        if values.isna().any() or any(
            self.frame[name].nunique(dropna=False) > 1 for name in over if name in self.frame
        ):
            return set()
        target = values.max() if column.best == "max" else values.min()
        text = self.cell(column, float(target))
        best = {i for i, value in enumerate(values) if self.cell(column, float(value)) == text}
        if len(best) == len(values):
            return set()
        named = self.frame[LOSS] if LOSS in self.frame else pd.Series([], dtype=str)
        return set() if set(named.iloc[sorted(best)]) & set(self.collapsed) else best


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


Shown = Figure | Table | Note | Pictures | Heading
Item = Shown | Fold


@dataclass(frozen=True, kw_only=True)
class Section:
    """One question, answered."""

    key: str
    title: str
    lead: str
    """What to look at, in one or two plain sentences."""
    items: Sequence[Item] = field(default_factory=list)
    opened: bool = False
    """Unfolded on the screen from the start, as what failed should be; warnings do it too."""

    @property
    def starts_open(self) -> bool:
        """Whether it is unfolded on the screen from the start."""
        return self.opened or any(
            isinstance(item, Note) and item.kind == "warning" for item in self.items
        )

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
MOST_SVG_CHARACTERS = 150_000
"""Larger figures are not drawn a second time for narrow screens, where they scroll: it takes as
long as the first."""


def with_own_names(sections: Sequence[Section], taken: Collection[str]) -> list[Section]:
    """The sections with keys that are safe as ids and file names, and all different.

    Args:
        sections: as the sections made them; names from the ledger may be in their keys.
        taken: ids that the page needs itself.
    """
    used = [*taken, *(section.key for section in sections)]

    def own(key: str) -> str:
        used.append(unique(key, used))
        return used[-1]

    def named(item: Shown) -> Shown:
        if isinstance(item, Pictures):
            return replace(item, figure=replace(item.figure, key=own(item.figure.key)))
        return replace(item, key=own(item.key)) if isinstance(item, Figure | Table) else item

    def unfolded_too(item: Item) -> Item:
        if isinstance(item, Fold):
            return replace(item, items=[named(one) for one in item.items])
        return named(item)

    return [
        replace(section, items=[unfolded_too(item) for item in section.items])
        for section in sections
    ]


def render(item: Item, folder: Path, formats: Sequence[str] = FORMATS) -> Markup:
    """Write an item's files (figures in the given formats) and return its HTML."""
    if isinstance(item, Fold):
        inside = [render(one, folder, formats) for one in item.items]
        return _html("fold", question=prose(item.question), items=inside)
    if isinstance(item, Heading):
        return _html("heading", text=item.text)
    if isinstance(item, Note):
        return _html("note", kind=item.kind, body=item.body, blocks=item.body.startswith("<"))
    if isinstance(item, Table):
        return _render_table(item, folder)
    with style.context():
        if isinstance(item, Figure):
            return _render_figure(item, folder, formats)
        return _render_pictures(item, folder, formats)


def templates() -> jinja2.Environment:
    """The page's templates: whatever they are given is escaped, unless it is `Markup`."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )


@cache
def _macros() -> Any:
    return templates().get_template("items.html").module


def _html(macro: str, **given: object) -> Markup:
    """An item by its macro in items.html."""
    return Markup("{}").format(getattr(_macros(), macro)(**given))


def _render_figure(item: Figure, folder: Path, formats: Sequence[str]) -> Markup:
    svg = _write_figure(item, folder, formats)
    return _html(
        "figure",
        **_words(item),
        size=" narrow" if item.narrow else "",
        alt=without_marks(item.alt),
        svg=style.inline_svg(svg),
        phone=_phone_svg(item) if len(svg) <= MOST_SVG_CHARACTERS else "",
        files=_files(item.key, ("csv", *formats), item.data, "figures"),
    )


def _phone_svg(item: Figure) -> Markup:
    """The figure once more, for narrow screens."""
    with style.for_a_phone():
        drawing = item.draw()
    style.fit_text(drawing)
    return style.inline_svg(style.svg_text(drawing, f"{item.key} phone"))


def _words(item: Figure | Table) -> dict[str, object]:
    return {"id": slug(item.key), "title": prose(item.title), "caption": prose(item.caption)}


def _write_figure(item: Figure, folder: Path, formats: Sequence[str]) -> str:
    drawing = item.draw()
    style.fit_text(drawing)
    name = slug(item.key)
    svg = style.svg_text(drawing, item.key)
    content = {
        "svg": svg.encode,
        "png": partial(style.png_bytes, drawing),
        "pdf": partial(style.pdf_bytes, drawing),
    }
    for suffix in formats:
        write_bytes(folder / "figures" / f"{name}.{suffix}", content[suffix]())
    write_bytes(folder / "figures" / f"{name}.csv", csv_bytes(item.data))
    return svg


def _render_pictures(item: Pictures, folder: Path, formats: Sequence[str]) -> Markup:
    _write_figure(item.figure, folder, formats)
    rows = [
        (
            prose(label),
            [
                {
                    "loss": picture.loss,
                    "label": prose(picture.label),
                    "alt": without_marks(picture.alt),
                    "png": base64.b64encode(picture.png).decode(),
                    "sides": f"{picture.width_mm:.4g}/{picture.height_mm:.4g}",
                    "under": prose(picture.under),
                }
                for picture in pictures
            ],
        )
        for label, pictures in item.rows
    ]
    figure = item.figure
    files = _files(figure.key, ("csv", *formats), figure.data, "figures")
    return _html("pictures", **_words(figure), rows=rows, files=files)


def _files(key: str, kinds: Sequence[str], data: pd.DataFrame, folder: str) -> dict[str, object]:
    """Files behind an item: relative links, and the CSV itself inside the page."""
    packed = base64.b64encode(gzip.compress(csv_bytes(data), mtime=0)).decode()
    return {"name": slug(key), "folder": folder, "kinds": kinds, "packed": packed}


# ---------------------------------------------------------------------------------------- tables
LONG_CHARACTERS = 36
"""Cells with more than these break into lines."""


def _render_table(table: Table, folder: Path) -> Markup:
    name = slug(table.key)
    write_bytes(folder / "tables" / f"{name}.csv", csv_bytes(table.frame))
    write_bytes(folder / "tables" / f"{name}.md", markdown(table).encode())
    write_bytes(folder / "tables" / f"{name}.tex", latex(table).encode())
    return _html(
        "table",
        **_words(table),
        size=" wide" if len(table.columns) > MANY_COLUMNS else "",
        label=without_marks(table.title),
        groups=_groups(table.columns) if any(c.group for c in table.columns) else [],
        columns=[
            {"header": column.header, "kind": _kind(table, column)} for column in table.columns
        ],
        rows=_rows(table),
        note=prose(table.note),
        files=_files(table.key, ("csv", "md", "tex"), table.frame, "tables"),
    )


def _rows(table: Table) -> Iterator[dict[str, object]]:
    """Rows for the page: the place of a row's loss, so that it can be switched, and its cells."""
    best = {column.key: table.best_rows(column) for column in table.columns}
    places = {loss: place for place, loss in enumerate(table.losses)}
    for number, row in enumerate(table.frame.to_dict("records")):
        place = places.get(str(row.get(LOSS)))
        cells = []
        for column in table.columns:
            value = row[column.key]
            text = table.cell(column, value)
            known = isinstance(value, float) and not math.isnan(value)
            long = len(text) > LONG_CHARACTERS
            cells.append(
                {
                    "text": text,
                    "kind": _kind(table, column) or ("wrap" if long else ""),
                    # What the page sorts by, where it is not what is printed.
                    "exact": f"{value:.6g}" if known and column.decimals is not None else None,
                    "dot": place % 10 if column.key == LOSS and place is not None else None,
                    "best": number in best[column.key],
                }
            )
        yield {"loss": place, "cells": cells}


def _kind(table: Table, column: Column) -> str:
    """CSS class of a column: wrap, n (numbers), or none."""
    if column.wrap:
        return "wrap"
    numeric = pd.api.types.is_numeric_dtype(table.frame[column.key])
    return "n" if numeric or column.decimals is not None else ""


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
    heads = [markdown_cell(f"{c.group} {c.header}".strip()) for c in table.columns]
    lines = [
        f"**{markdown_cell(without_marks(table.title))}**",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "|".join("---:" if _kind(table, c) == "n" else "---" for c in table.columns) + "|",
    ]
    best = {column.key: table.best_rows(column) for column in table.columns}
    for number, row in enumerate(table.frame.to_dict("records")):
        cells = []
        for column in table.columns:
            text = markdown_cell(table.cell(column, row[column.key]))
            cells.append(f"**{text}**" if number in best[column.key] else text)
        lines.append("| " + " | ".join(cells) + " |")
    for text in (table.caption, table.note):
        lines += ["", markdown_text(text)] if text else []
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """The table as LaTeX with booktabs rules, made smaller where it is wider than a line."""
    aligned = "".join("r" if _kind(table, column) == "n" else "l" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.title)}. {tex(table.caption)}}}",
        rf"\label{{tab:{slug(table.key)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
        rf"\begin{{tabular}}{{{aligned}}}",
        r"\toprule",
    ]
    groups = _groups(table.columns)
    if any(name for name, _ in groups):
        cells, rules, start = [], [], 1
        for name, span in groups:
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{tex_cell(name)}}}")
            if name:
                rules.append(rf"\cmidrule(lr){{{start}-{start + span - 1}}}")
            start += span
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    lines += [" & ".join(tex_cell(column.header) for column in table.columns) + r" \\"]
    lines += [r"\midrule"]
    best = {column.key: table.best_rows(column) for column in table.columns}
    for number, row in enumerate(table.frame.to_dict("records")):
        cells = []
        for column in table.columns:
            text = tex_cell(table.cell(column, row[column.key]))
            cells.append(rf"\textbf{{{text}}}" if number in best[column.key] else text)
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"
