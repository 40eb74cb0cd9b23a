"""Tables of text beside the images: reading them, and cases.tsv, which says who and where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lesion_core.cohorts.case import Case
from lesion_core.paths import close_to, is_text, is_there, read_text

CASES_TABLE = "cases.tsv"
"""In a cohort's folder: the subject and the site of each case, under the columns so named."""

UNKNOWN = ("", "n/a", "nan")
"""Cells that hold no value."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a table, by their key."""

    path: Path
    columns: tuple[str, ...]
    """As the header has them."""
    rows: Mapping[str, Mapping[str, str]]
    """By key, what the wanted columns hold; empty where nothing is known."""


def read_table(path: Path, key: str, wanted: Sequence[str]) -> Table:
    """Read a table whose columns are separated by tabs, under a header in whichever case.

    Cells may be quoted.  Only the key and the wanted columns are looked at.

    Raises:
        ValueError: with the file, and what cannot be understood.
    """
    lines = [
        (number, line)
        for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), start=1)
        if line.strip()
    ]
    header = _cells(lines[0][1]) if lines else []
    folded = [name.casefold() for name in header]
    if key not in folded:
        no_tabs = len(header) == 1 and re.search(r"[,; ]", header[0])
        cure = "; separate its columns by tabs" if no_tabs else ""
        raise ValueError(
            f"{path}: no column {key}, only {', '.join(header) or 'an empty file'}{cure}"
        )
    places = {name: folded.index(name) for name in (key, *wanted) if name in folded}
    for name in places:
        if folded.count(name) > 1:
            raise ValueError(f"{path}: the column {name} is there twice; keep one of them")
    rows: dict[str, dict[str, str]] = {}
    for number, line in lines[1:]:
        cells = _cells(line)
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise ValueError(
                f"{path}: line {number} has {len(cells)} columns, the header {len(header)}; "
                "expected as many, separated by tabs"
            )
        row = {name: cells[place] for name, place in places.items()}
        if not all(is_text(cell) for cell in row.values()):
            raise ValueError(f"{path}: line {number} is not UTF-8; save the file as UTF-8")
        name = row.pop(key)
        row = {k: "" if cell.casefold() in UNKNOWN else cell for k, cell in row.items()}
        if rows.setdefault(name, row) != row:
            raise ValueError(f"{path}: line {number} says of {name} what an earlier line does not")
    return Table(path=path, columns=tuple(header), rows=rows)


def with_table(root: Path, cases: Sequence[Case]) -> list[Case]:
    """The cases of a cohort's folder, with the subjects and sites that its cases.tsv names, if any.

    Raises:
        ValueError: the table cannot be read, or its cases are not the cohort's.
    """
    path = root / CASES_TABLE
    if not is_there(path):
        reason = f"{path} can say it, in the columns case and site, separated by tabs"
        if is_there(path.with_suffix(".csv")):
            reason += f" ({path.stem}.csv is not read)"
        return [case if case.site else replace(case, no_site=reason) for case in cases]
    table = read_table(path, "case", ("subject", "site"))
    columns = {name.casefold() for name in table.columns}
    if not columns & {"subject", "site"}:
        raise ValueError(
            f"{path}: columns {', '.join(table.columns)}; expected case, and subject or site"
        )
    ids = [case.id for case in cases]
    for name in table.rows:
        if name not in ids:
            near = close_to(name, ids)
            hint = f"; did you mean {near}?" if near else f"; there are {_some(ids)}"
            raise ValueError(f"{path}: {name!r} is no case of the cohort{hint}")
    if absent := [name for name in ids if name not in table.rows]:
        raise ValueError(f"{path}: no row for {_some(absent)}; expected one for every case")
    reason = f"{path} says {'n/a' if 'site' in columns else 'only the subject'} of it"
    return [
        replace(
            case,
            subject=table.rows[case.id].get("subject", "") or case.subject,
            site=table.rows[case.id].get("site", "") or case.site,
            no_site=reason,
        )
        for case in cases
    ]


def _cells(line: str) -> list[str]:
    return [
        cell[1:-1].replace('""', '"').strip()
        if len(cell) > 1 and cell[0] == cell[-1] == '"'
        else cell
        for cell in map(str.strip, line.split("\t"))
    ]


def _some(names: Sequence[str]) -> str:
    """
    >>> _some(["a", "b", "c", "d", "e"]), _some(["a"])
    ('a, b, c and 2 more', 'a')
    """
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return ", ".join(names[:3]) + more
