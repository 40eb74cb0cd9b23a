"""Where does the spread come from: patients, losses, training sets, seeds, or the rest?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import Figure, Heading, Note, Section, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics.absence import compared, lacking
from analysis.statistics.lottery import complete_cells
from analysis.statistics.variance import balanced, components

PARTS = {
    "patient": "patient",
    "fold": "fold (training set and its patients)",
    "loss": "loss",
    "loss_patient": "loss × patient",
    "cell": "seed, shared by all losses",
    "loss_fold": "loss × training set",
    "run": "loss × seed (run)",
    "rest": "rest",
}


def section(given: ReportInput) -> Section | None:
    """One bar per metric and cohort."""
    if not given.cohorts:
        return None
    items: list[Figure | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items.append(_figure(given, cohort))
    return Section(
        key="variance",
        title="Where does the spread come from?",
        items=items,
        lead="If the bar of the loss is shorter than that of the run, then choosing a seed "
        "moves a result more than choosing a loss does.",
    )


def _figure(given: ReportInput, cohort: CohortScores) -> Figure | Note:
    names_of = {part: given.words(name) for part, name in PARTS.items()}
    final, rows, counts = cohort.last_by_case(cohort.test), {}, {}
    for i, metric in enumerate(METRICS):
        scores = final[..., i]
        complete = complete_cells(scores, cohort.fold_of, compared(cohort), cohort.subject_of)
        own, folds, num_cases = balanced(scores, cohort.fold_of, complete, cohort.subject_of)
        if min(own.shape) < 2 or len(np.unique(folds)) < 2:
            continue
        rows[metric] = components(own, folds)
        counts[metric] = (own.shape, num_cases, complete)
    if not rows:
        return Note(
            kind="warning",
            body=prose(
                f"{cohort.title}: splitting the variance needs two losses, two seeds, two folds "
                "and two patients in common."
            ),
        )
    frame = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                "metric": metric,
                "part": part,
                "variance": value,
                "sd": value**0.5,
                "share": value / max(np.nansum(list(parts.values())), 1e-300),
            }
            for metric, parts in rows.items()
            for part, value in parts.items()
        ]
    )
    dice = rows.get("dice", next(iter(rows.values())))
    shape, num_cases, complete = counts.get("dice", next(iter(counts.values())))
    absent = [loss for loss in cohort.shown if loss not in complete.losses]
    names = ", ".join(cohort.losses[loss] for loss in absent)
    left = f" (left out for {lacking(cohort, absent)}: {names})" if absent else ""
    words = ", ".join(
        f"{names_of[part]} {value**0.5:.3f}" for part, value in dice.items() if value == value
    )
    return Figure(
        key=f"variance-{cohort.name}",
        title=f"Standard deviation by source, {cohort.title}",
        draw=partial(draw, rows, list(names_of.values())),
        data=frame,
        caption="Standard deviations of the components of a patient's score at the last epoch "
        "(balanced ANOVA; negative estimates are 0). loss: how much the losses' true "
        "means differ; loss × patient: patients for whom the order of losses differs; seed: first "
        "weights and order of batches, which all losses of a (seed, fold) share; run: the luck "
        "that a loss has alone (a difference between two has √2 times as much); loss × training "
        "set: what shows between folds, which share most of their training sets; rest: what is "
        "left of one patient in one training. "
        f"{shape[0]} of {len(cohort.shown)} losses{left}, "
        f"{shape[1]} of {len(cohort.seeds)} seeds, {cohort.part(num_cases, shape[2])}."
        f"{cohort.averaged}",
        alt=f"Standard deviations of DSC: {words}.",
    )


def draw(rows: dict[str, dict[str, float]], names: list[str]) -> Drawing:
    """One panel per metric, one bar per source."""
    figure, axes = style.panels(
        1, len(rows), height=2.2, top=0.28, left=1.95, gap_x=0.25, bottom=0.4
    )
    reach = (
        max(value**0.5 for parts in rows.values() for value in parts.values() if value == value)
        or 1.0
    )
    for axis, (metric, parts) in zip(axes[0], rows.items(), strict=True):
        for y, (part, value) in enumerate(parts.items()):
            if value != value:
                axis.text(0, y, " undefined", va="center", fontsize=6.5, color=style.MUTED)
                continue
            deviation = value**0.5
            axis.barh(
                y,
                deviation,
                height=0.68,
                linewidth=0,
                color="#3f90da" if part in ("loss", "run") else "#94a4a2",
            )
            axis.text(
                deviation + 0.02 * reach,
                y,
                f"{deviation:.3f}".lstrip("0"),
                va="center",
                fontsize=6.5,
            )
        axis.set_ylim(len(parts) - 0.4, -0.6)
        axis.set_yticks(range(len(parts)), names)
        axis.tick_params(labelleft=axis is axes[0, 0], left=False)
        axis.set_xlim(0, 1.25 * reach)
        axis.set_title(METRIC_NAMES[metric])
        axis.set_xlabel("SD of the score")
        axis.grid(False, axis="y")
        axis.locator_params(axis="x", nbins=4)
    return figure
