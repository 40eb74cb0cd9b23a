"""How often was this sweep looked at before, did it stop by its own rule, and what follows?"""

from __future__ import annotations

from analysis.page.items import Note, many, prose
from analysis.sections.report_input import ReportInput


def notes(given: ReportInput) -> list[Note]:
    """What a reader must know of looks; nothing for what is no ledger."""
    if not given.is_ledger:
        return []
    found = [Note(body=prose(f"{looked(given)} {MEANING}"))]
    if text := stopped(given):
        found.append(Note(body=prose(text)))
    if given.seen.unrecorded:
        found.append(
            Note(
                kind="warning",
                body=prose(
                    f"This look could not be recorded ({given.seen.unrecorded}): the next report "
                    "of this ledger will not know of it."
                ),
            )
        )
    return found


MEANING = (
    "Seeds can be added after any look: verdicts, adjusted p and intervals hold at all looks "
    "together, however many there are and whatever made somebody stop. That is why they are wider "
    "than intervals that hold if one looks once."
)


def looked(given: ReportInput) -> str:
    """How many looks came before, in a sentence."""
    before = given.seen.before
    if not before:
        return "No earlier look at this sweep's results is recorded."
    first = before[0]
    return (
        f"Before this look, {many(len(before), 'other')} {'is' if len(before) == 1 else 'are'} "
        f"recorded, the first at {many(first.done, 'complete trial')}."
    )


def stopped(given: ReportInput) -> str:
    """What a sweep that runs until its question is decided has decided; "" for any other."""
    rule = given.sweep.meta.get("until_decided")
    if not isinstance(rule, dict):
        return ""
    last = given.seen.decision.decision if given.seen.decision else {}
    most = f"at most {rule.get('cells')} cells (seed, fold)"
    order = f"They were trained in an order fixed beforehand, {rule.get('order')}."
    if last.get("decided"):
        return (
            f"**The sweep stopped by its rule** (`--until-decided`), after {last.get('complete')} "
            f"of {most}: {last.get('why')}. {order}"
        )
    so_far = f" So far: {last['why']}." if last.get("why") else ""
    return (
        f"The sweep runs until its question is decided (`--until-decided`), {most}.{so_far} {order}"
    )
