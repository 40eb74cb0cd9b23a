"""What stands on the first screen, under the verdict: the one table, its words, the one figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.page.items import LOSS, Column, Heading, Item, Note, Section, Table, many, prose
from analysis.sections.definitions import definitions
from analysis.sections.forest import forest
from analysis.sections.outcome import DIGITS, Outcome, adjusted, signed
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import comparable, given_up
from analysis.statistics.lesions import STRATA, by_case, lesion_rates, mean_and_error, strata_frame
from analysis.statistics.pairs import equality_limit


def front(given: ReportInput, found: Sequence[Outcome]) -> Section:
    """The first screen's items; its title and lead are the page's own."""
    items: list[Item] = []
    for one in found:
        if len(found) > 1:
            items.append(Heading(text=one.cohort.title))
        items.append(losses_table(one))
        if figure := forest(one):
            items.append(figure)
        if one is found[0]:
            items.append(Note(body=words(one), kind="words"))
    if found:
        items.append(definitions(given))
    return Section(key="front", title="", lead="", items=items)


def words(found: Outcome) -> Markup:
    """The verdict's words in four lines, and what they assume in a fifth."""
    limit = max(
        (equality_limit(pair.fit, found.given.rope) for pair, _ in found.against_reference),
        default=float("nan"),
    )
    beyond = (
        f"; not to be shown here, where {found.effect.tau_of('dice'):.3f} is assumed: for that the "
        f"training-set effect has to be below {limit:.3f}"
        if found.effect.tau_of("dice") >= limit
        else ""
    )
    lines = {
        "better, worse": "there is a difference, also for new patients and new training sets, "
        "adjusted for all comparisons",
        "perhaps better, perhaps worse": "there is one for new patients with these training sets; "
        "others could undo it, if they matter as much as assumed",
        "practically equal": f"a difference of {found.given.rope:g} DSC or more is refuted{beyond}",
        "not separated, cannot tell": "nothing was found, which does not show that "
        f"{found.several} are equal; too few seeds or folds to look",
        "training-set effect": "by how much (SD) training on other patients moves the difference "
        f"between two {found.several}: {found.effect.in_words}; a cross-validation cannot measure "
        "it",
    }
    inside = Markup("").join(
        Markup("<dt>{}</dt><dd>{}</dd>").format(word, prose(meaning))
        for word, meaning in lines.items()
    )
    return Markup("<dl>{}</dl>").format(inside)


# ------------------------------------------------------------------------------------------ table
def losses_frame(found: Outcome) -> pd.DataFrame:
    """One row per loss with a complete trial, in the sweep's order."""
    cohort = found.cohort
    asked = (cohort.status != "").sum((1, 2))
    small, false = _small_lesions(found), _false_lesions(found)
    rows = []
    for loss in cohort.shown:
        row: dict[str, object] = {
            "cohort": cohort.name,
            LOSS: found.name(loss),
            "trainings": _trainings(found, loss, int(asked[loss])),
            **{metric: fits[loss].estimate for metric, fits in found.means.items()},
            "small_lesions_found": small.get(loss, float("nan")),
            "false_lesions": false.get(loss, float("nan")),
        }
        rows.append(row | _against(found, loss))
    return pd.DataFrame(rows)


def losses_table(found: Outcome) -> Table:
    """What each loss reaches, and how far it is from the reference."""
    cohort, frame = found.cohort, losses_frame(found)
    reference = found.name(found.reference)
    group = f"DSC minus that of {reference}"
    columns = [
        Column(key=LOSS, header="Loss"),
        Column(key="trainings", header="Trainings"),
        Column(key="dice", header="DSC", decimals=DIGITS),
        Column(key="sensitivity", header="Sensitivity", decimals=DIGITS),
        Column(key="precision", header="Precision", decimals=DIGITS),
        Column(key="small_lesions_found", header="Small lesions found", decimals=DIGITS),
        Column(key="false_lesions", header="False lesions per case", decimals=1),
    ]
    columns = [
        column
        for column in columns
        if column.decimals is None or bool(frame[column.key].notna().any())
    ]
    if found.judged:
        fits = found.means["dice"][found.best]
        columns += [
            Column(
                key="difference", header="difference", group=group, decimals=DIGITS, signed=True
            ),
            Column(key="interval", header=confidence.in_percent() + adjusted(found), group=group),
            Column(key="verdict", header="Verdict"),
        ]
        if any(pair.fit.num_cells != fits.num_cells for pair, _ in found.against_reference):
            columns.insert(-1, Column(key="cells", header="over", group=group))
    return Table(
        key=f"first-{cohort.name}",
        title=f"Every {found.one}, test images at the last epoch, {cohort.title}",
        frame=frame,
        losses=cohort.losses,
        columns=columns,
        caption=_caption(found, [column.key for column in columns]),
    )


def _trainings(found: Outcome, loss: int, asked: int) -> str:
    diverged = found.failed[loss].diverged
    text = f"{int(found.cohort.done[loss].sum())} of {asked}"
    return f"{text}, {diverged} diverged" if diverged else text


def _against(found: Outcome, loss: int) -> dict[str, object]:
    """Its difference from the reference, as in the box."""
    nothing: dict[str, object] = {
        "difference": float("nan"),
        "low": float("nan"),
        "high": float("nan"),
        "interval": "–",
        "cells": "–",
    }
    if found.judged is None:
        return nothing | {"verdict": "–"}
    if loss in found.left:
        return nothing | {"verdict": "not compared: too few trainings"}
    alike = [other for other in found.group(loss) if other != loss]
    same = f"identical to {found.names(alike)}" if alike else ""
    if loss == found.reference:
        return nothing | {"verdict": f"reference; {same}" if same else "reference"}
    if found.reference in alike:
        return nothing | {"difference": 0.0, "verdict": same}
    pair, said = found.judged.of(loss, found.reference)
    low, high = found.interval(pair, said)
    verdict = said.in_words if pair.fit.num_cells else "no trial in common"
    if any({one.a, one.b} == {pair.a, pair.b} for one, _ in found.threshold_only):
        verdict += " at 0.5 only"
    return {
        "difference": pair.fit.estimate,
        "low": low,
        "high": high,
        "interval": f"{signed(low)} to {signed(high)}" if low == low else "–",
        "cells": many(pair.fit.num_cells, "cell"),
        "verdict": f"{verdict}; {same}" if same else verdict,
    }


def _small_lesions(found: Outcome) -> dict[int, float]:
    """Share of the smallest lesions that is found, as in the section on lesions."""
    if not found.given.is_ledger:
        return {}
    frame = strata_frame(found.given.sweep.lesions, comparable(found.cohort))
    if frame.empty:
        return {}
    smallest = frame[(frame["size_mm3"] == STRATA[0]).to_numpy()]
    return {
        found.cohort.losses.index(row["loss"]): float(row["recall"])
        for row in smallest.to_dict("records")
    }


def _false_lesions(found: Outcome) -> dict[int, float]:
    """False lesions per case, as in the section on lesions."""
    if not found.given.is_ledger:
        return {}
    cohort = comparable(found.cohort)
    values = by_case(cohort, lesion_rates(cohort.final)["false_lesions"].to_numpy())
    return {
        loss: mean_and_error(values[loss], cohort.fold_of, cohort.subject_of)[0]
        for loss in cohort.shown
    }


def _caption(found: Outcome, shown: list[str]) -> str:
    cohort = found.cohort
    fits = [fit for loss in found.losses if (fit := found.means["dice"][loss]).num_cells]
    total = len(cohort.seeds) * len(cohort.folds)
    cells = f"{fits[0].num_cells} of {total}" if fits else f"0 of {total}"
    counted = cohort.part(fits[0].num_cases, fits[0].num_subjects) if fits else "no case"
    whose = "that all have" if len(found.losses) > 1 else "that are there"
    text = (
        f"Means over {cohort.units}, of the {cells} (seed, fold) cells {whose} ({counted})."
        f"{cohort.averaged}"
    )
    if found.left:
        text += f"{given_up(cohort)} Their means are over what they have."
    lesions = [key for key in ("small_lesions_found", "false_lesions") if key in shown]
    if lesions:
        small = f" (small: {STRATA[0]} mm³)" if "small_lesions_found" in lesions else ""
        text += f" Lesions{small} are counted and not tested."
    if found.judged:
        text += " Differences are paired, and rounded after subtracting."
    if key := found.given.key_to_names:
        text += f" Arms: {key}, in this order." if " and " in key else f" Arms: {key}."
    uneven = np.ptp(
        [means[loss].num_cases for means in found.means.values() for loss in found.losses]
    )
    if uneven:
        text += " A rate that a case does not define leaves it out."
    return text
