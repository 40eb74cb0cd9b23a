"""Does the answer hang on how it was computed: the winner under every defensible set of choices."""

from __future__ import annotations

import pandas as pd

from analysis.page.items import Column, Heading, Note, Section, Table, prose
from analysis.reading.scores import CohortScores
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics.absence import given_up, side_by_side
from analysis.statistics.policies import worlds


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """One table of worlds per cohort."""
    counted = [cohort for cohort in given.cohorts if cohort.has_counts]
    if not counted:
        return None
    items: list[Table | Note | Heading] = []
    for cohort in counted:
        if len(counted) > 1:
            items.append(Heading(text=cohort.title))
        frame = worlds(cohort)
        if frame.empty:
            items.append(
                Note(
                    kind="warning", body=prose(f"{cohort.title}: DSC is undefined in every world.")
                )
            )
            continue
        items.append(_table(cohort, frame))
    return Section(
        key="policies",
        title="Does the answer hang on how it was computed?",
        items=items,
        lead="Every row is one defensible way to turn the same predictions into a winner. If the "
        "winner changes from row to row, the ranking is a choice of the analyst.",
    )


def _table(cohort: CohortScores, frame: pd.DataFrame) -> Table:
    count: dict[str, float] = {}
    for winners in (text.split(" = ") for text in frame["winner"]):
        for name in winners:
            count[name] = count.get(name, 0.0) + 1 / len(winners)
    order = sorted(count, key=lambda name: (-count[name], cohort.losses.index(name)))
    words = ", ".join(f"{name} {count[name]:.3g}" for name in order)
    constant = []
    if frame["undefined"].nunique() == 1:
        constant.append("no case leaves DSC undefined")
    if frame["label_2"].nunique() == 1:
        constant.append("masking other pathology changes nothing")
    columns = [
        Column(key="epoch", header="Epoch"),
        Column(key="aggregation", header="DSC of a fold"),
    ]
    if frame["undefined"].nunique() > 1:
        columns.append(Column(key="undefined", header="Undefined case"))
    if frame["label_2"].nunique() > 1:
        columns.append(Column(key="label_2", header="Other pathology"))
    columns += [
        Column(key="winner", header="Winner"),
        Column(key="dice", header="DSC", decimals=3),
        Column(key="second", header="Second"),
        Column(key="margin", header="Margin", decimals=3, signed=True),
        Column(key="tau", header="Agreement with the first row", decimals=2),
    ]
    because = f" Choices that do not matter here: {'; '.join(constant)}." if constant else ""
    return Table(
        key=f"policies-{cohort.name}",
        title=f"The winner in {len(frame)} worlds, {cohort.title}",
        frame=frame,
        columns=columns,
        caption=f"Wins, of {len(frame)} worlds, ties split: {words}. DSC: mean over folds on test "
        "images, weighed by their patients as in the verdict (Table 2 weighs folds alike). "
        "Margin: to the second. Agreement: Kendall's tau of the order of losses with the first "
        f"row's, which is the verdict's: 1 is the same order, −1 the reverse. {ROUNDED}"
        f"{because}{given_up(cohort)}{cohort.averaged} {side_by_side(cohort)}.",
    )
