r"""How is a name of a ledger shown?  On one line, of bounded length, with no marks of our own.

Names of losses, cases, subjects, sites and channels may be anything in a folder that somebody
sent.  They are made readable once, where they are read, so that every section and every file of a
report calls a loss the same.  Usual names stay as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesion_core import results
from lesion_core.results import Sweep
from lesion_core.terminal import one_line

MOST_CHARACTERS = 96
"""Longer names lose their middle, and get four digits that tell them apart.  Labels of arms that
differ by four settings are shorter."""
COLUMNS = ("loss", "case", "subject", "site")
"""Columns of a ledger's tables that hold names."""


def shown(name: str) -> str:
    r"""A name as a report writes it.

    >>> shown("focal(alpha=0.3)"), shown("a**b"), shown("`x`\n")
    ('focal(alpha=0.3)', 'a\\x2a\\x2ab', '\\x60x\\x60\\n')
    >>> shown("a" * 100)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaaaaaaaaaaaaaaaaaaa~2816'
    """
    # Two asterisks and a grave accent would be read as bold and as code in running text.
    readable = one_line(name).replace("**", r"\x2a\x2a").replace("`", r"\x60")
    if len(readable) <= MOST_CHARACTERS:
        return readable
    digits = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:4]
    return f"{readable[:60]}…{readable[-29:]}~{digits}"


def as_shown(sweep: Sweep) -> Sweep:
    """The sweep with its names as a report writes them."""
    frames = {
        name: frame_as_shown(getattr(sweep, name))
        for name in ("runs", "cases", "lesions", "epochs", "partial")
    }
    meta = sweep.meta | {"losses": [shown(loss) for loss in sweep.meta.get("losses", [])]}
    return _ShownSweep(path=sweep.path, meta=meta, **frames)


def frame_as_shown(frame: pd.DataFrame, columns: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """A table with its names as a report writes them."""
    changed = {}
    for column in columns:
        if column in frame:
            names = {name: shown(name) for name in frame[column].unique() if isinstance(name, str)}
            if any(old != new for old, new in names.items()):
                changed[column] = frame[column].map(lambda name, names=names: names.get(name, name))
    return frame.assign(**changed) if changed else frame


def search_as_shown(search: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """search.json with its losses' labels as a report writes them."""
    if search is None:
        return None
    return {
        **search,
        "loss": shown(search["loss"]),
        "comparators": [shown(loss) for loss in search["comparators"]],
        "configurations": [one | {"loss": shown(one["loss"])} for one in search["configurations"]],
    }


def subjects_of(path: Path, cohort: str) -> dict[str, str]:
    """`results.subjects_of`, as shown."""
    found = results.subjects_of(path, cohort)
    return {shown(case): shown(subject) for case, subject in found.items()}


@dataclass(frozen=True)
class _ShownSweep(Sweep):
    """A sweep whose tables, those that are read later too, hold names as they are shown."""

    def trial_table(self, file: str) -> pd.DataFrame:
        table = frame_as_shown(super().trial_table(file))
        runs = self.runs.set_index("trial")["loss"]  # which has arms where settings differ
        return table.assign(loss=table["trial"].map(runs)) if len(table) else table

    def cohort_table(self, cohort: str, file: str) -> pd.DataFrame:
        table = frame_as_shown(super().cohort_table(cohort, file))
        if "channels" not in table:
            return table
        table["channels"] = [list(map(shown, each)) for each in table["channels"]]
        return table
