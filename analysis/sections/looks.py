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


def in_the_box(given: ReportInput) -> list[str]:
    """Looks and the rule for stopping, in a sentence each; nothing for what is no ledger."""
    if not given.is_ledger:
        return []
    rule = stopped(given)
    return [
        f"**Looks:** {looked(given)} Verdicts and intervals hold at all looks together.",
        *([rule] if rule else []),
    ]


def to_write(given: ReportInput) -> str:
    """For which looks a paper's intervals hold, as a clause."""
    if not given.is_ledger:
        return "whenever one looks at the results"
    before = len(given.seen.before)
    seen = f"{many(before, 'earlier look')} {'is' if before == 1 else 'are'}" if before else ""
    return f"whenever one looks at the results ({seen or 'no earlier look is'} recorded)"


def stop_to_write(given: ReportInput) -> str:
    """A sentence for a paper about the rule by which a sweep stopped; "" where it did not."""
    rule = given.sweep.meta.get("until_decided")
    last = given.seen.decision.decision if given.seen.decision else {}
    if not (isinstance(rule, dict) and last.get("decided")):
        return ""
    return (
        "Training stopped by a rule that was fixed beforehand, when the question was decided or "
        f"could hardly be any more: after {last.get('complete')} of at most {rule.get('cells')} "
        "cells (seed, fold)."
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
