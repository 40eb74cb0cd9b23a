"""Which looks at a ledger came before this one, and may this one be recorded?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_core.looks import Look, Looks, read_looks, record_look
from lesion_core.results import Sweep


@dataclass(frozen=True)
class Seen:
    """What is known of looks at a ledger."""

    before: Sequence[Look] = ()
    """At other states of it, one per state, the oldest first."""
    unrecorded: str = ""
    """Why this look could not be recorded; "" where it was, or need not be."""
    decision: Look | None = None
    """The last one of a sweep that runs until its question is decided."""
    damaged_lines: int = 0


def look(results: Path, everything: Sweep, ledger: str) -> Seen:
    """Record a look at a ledger in this state, and say which came before.

    A folder that cannot be written to can still be looked at.
    """
    now = this_look(everything, ledger)
    known, unrecorded = Looks(), ""
    try:
        known = read_looks(results)
        record_look(results, now)
    except OSError as error:
        unrecorded = error.strerror or str(error)
    except ValueError as error:
        unrecorded = str(error)
    return Seen(
        before=known.before(ledger),
        unrecorded=unrecorded,
        decision=known.decisions[-1] if known.decisions else None,
        damaged_lines=len(known.damaged_lines),
    )


def this_look(everything: Sweep, ledger: str) -> Look:
    """A look at a ledger as it is."""
    done = everything.runs[everything.runs["status"] == "done"]
    counts = done.groupby(["cohort", "loss"], observed=True).size()
    cells: dict[str, dict[str, int]] = {}
    for row in counts.reset_index(name="cells").itertuples():
        cells.setdefault(str(row.cohort), {})[str(row.loss)] = int(str(row.cells))
    return Look(ledger=ledger, cells=cells, asked=len(everything.runs))
