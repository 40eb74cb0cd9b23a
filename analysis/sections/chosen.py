"""What do the trials' own threshold and smallest lesion change: scores as chosen beside plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.page.items import LOSS, Column, Heading, Section, Table
from analysis.reading.scores import METRIC_NAMES, METRICS, CohortScores
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.lesions import by_case, lesion_rates, mean_and_error
from analysis.statistics.order import every_mean
from lesion_core.results import CHOSEN, rates


def section(given: ReportInput) -> Section | None:
    """A table per cohort, where trials were scored as they chose."""
    if not given.is_ledger:
        return None
    items: list[Table | Heading] = []
    for cohort in given.cohorts:
        own = comparable(cohort)
        if CHOSEN.names[0] in own.final and own.final[CHOSEN.names[0]].notna().any():
            if len(given.cohorts) > 1:
                items.append(Heading(text=cohort.title))
            items.append(_table(own, side_by_side(cohort), given.sweep.meta.get("settings") or {}))
    if not items:
        return None
    return Section(
        key="chosen",
        title="What do the chosen threshold and smallest lesion change?",
        items=items,
        lead="These trainings were told, before they began, from which probability on a voxel is "
        "lesion, and how small a predicted lesion may be. Every other score on this page is at 0.5 "
        "with nothing taken out.",
    )


def chosen_frame(cohort: CohortScores) -> pd.DataFrame:
    """A row per loss that chose: each rate plain, as chosen, and the difference, over the same
    cases; and predicted lesions that touch none, per case."""
    plain = cohort.final
    chosen = plain.assign(**{name.removesuffix("_chosen"): plain[name] for name in CHOSEN.names})
    columns: dict[str, np.ndarray] = {}
    for end, rows in (("", plain), ("_chosen", chosen)):
        for metric, values in rates(rows).items():
            columns[f"{metric}{end}"] = by_case(cohort, values.to_numpy(float))
        false = lesion_rates(rows)["false_lesions"]
        columns[f"false{end}"] = by_case(cohort, false.to_numpy(float))
    found: list[dict[str, object]] = []
    told = np.atleast_1d(~np.isnan(columns["false_chosen"]).all((1, 2)))
    means: dict[str, dict[int, float]] = {}
    for name, values in columns.items():
        partner = columns[name.removesuffix("_chosen") if "_chosen" in name else f"{name}_chosen"]
        both = np.where(np.isnan(partner), np.nan, values)
        if name.startswith("false"):
            means[name] = {
                loss: mean_and_error(both[loss], cohort.fold_of, cohort.subject_of)[0]
                for loss in cohort.shown
            }
        else:
            means[name] = {loss: fit.estimate for loss, fit in every_mean(both, cohort).items()}
    for loss in cohort.shown:
        if told[loss]:
            row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
            row |= {name: values[loss] for name, values in means.items()}
            row["dice_gain"] = means["dice_chosen"][loss] - means["dice"][loss]
            found.append(row)
    return pd.DataFrame(found)


def _table(cohort: CohortScores, counted: str, settings: Mapping[str, Any]) -> Table:
    columns = [Column(key=LOSS, header="Loss")]
    for metric in METRICS:
        group = METRIC_NAMES[metric]
        columns += [
            Column(key=metric, header="plain", group=group, decimals=3),
            Column(key=f"{metric}_chosen", header="as chosen", group=group, decimals=3),
        ]
        if metric == "dice":
            columns.append(
                Column(key="dice_gain", header="gain", group=group, decimals=3, signed=True)
            )
    group = "False lesions per case"
    columns += [
        Column(key="false", header="plain", group=group, decimals=1),
        Column(key="false_chosen", header="as chosen", group=group, decimals=1),
    ]
    return Table(
        key=f"chosen-{cohort.name}",
        title=f"Plain and as chosen, {cohort.title}",
        frame=chosen_frame(cohort),
        losses=cohort.losses,
        columns=columns,
        caption=f"As chosen: {in_words(settings)}. Means over patients at the last epoch, test "
        "images, over the cases that define a rate both ways. False lesions: predicted ones that "
        f"touch none. {ROUNDED} {counted}.",
    )


def in_words(settings: Mapping[str, Any]) -> str:
    """What a sweep's settings say is lesion.

    >>> in_words({"threshold": 0.3, "min_lesion_mm3": 3.0})
    'lesion from a probability of 0.3 on, without predicted lesions below 3 mm³'
    """
    threshold, smallest = settings.get("threshold"), settings.get("min_lesion_mm3")
    if threshold is None and not smallest:
        return "by the threshold and the smallest lesion of each one's own settings"
    words = f"lesion from a probability of {0.5 if threshold is None else threshold:g} on"
    return words + (f", without predicted lesions below {smallest:g} mm³" if smallest else "")
