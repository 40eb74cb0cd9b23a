"""Does every fold tell the same story: bands over seeds, fold by fold (Fig. 4, 5)."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import Figure, Heading, Note, Section, many
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEW_NAMES, VIEWS, CohortScores
from analysis.sections.bands import no_course, unevaluated
from analysis.sections.report_input import ReportInput
from analysis.statistics.bands import band, band_frame

PAPER_FIGURES = {"lit": "Fig. 4", "wmh2017": "Fig. 5"}


def section(given: ReportInput) -> Section | None:
    """One row of panels per fold, one figure per metric."""
    if not given.cohorts:
        return None
    items: list[Figure | Heading | Note] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        if not cohort.has_course:
            items.append(no_course(cohort))
            continue
        paper = PAPER_FIGURES.get(cohort.name)
        for metric in METRICS:
            same = f" (the paper's {paper})" if paper and metric != "precision" else ""
            items.append(
                Figure(
                    key=f"bands-folds-{metric}-{cohort.name}",
                    title=f"{METRIC_NAMES[metric]} over epochs by fold, {cohort.title}{same}",
                    draw=partial(draw, cohort, METRICS.index(metric)),
                    data=fold_frame(cohort, metric),
                    caption="Line: mean over seeds. Band: lowest to highest of the "
                    f"{_seeds(cohort)} that are complete. Every fold tests other patients. "
                    f"{cohort.presence}.{unevaluated(cohort)}",
                    alt=f"{METRIC_NAMES[metric]} over epochs in each of {len(cohort.folds)} "
                    "folds of "
                    f"{cohort.title}, one band per loss over {_seeds(cohort)}.",
                )
            )
    return Section(
        key="bands-folds",
        title="Does every fold tell the same story?",
        items=items,
        lead="A fold changes the patients in training and in test, a seed only the luck of the "
        "run. Where the rows differ more than the bands are wide, patients matter more "
        "than seeds.",
    )


def _seeds(cohort: CohortScores) -> str:
    """How many seeds are behind a loss's band in a fold, in words."""
    counts = cohort.done[cohort.shown].sum(1)
    low, high = int(counts.min(initial=counts.max(initial=0))), int(counts.max(initial=0))
    return many(high, "seed") if low == high else f"{low} to {high} seeds"


def fold_frame(cohort: CohortScores, metric: str) -> pd.DataFrame:
    """Bands over seeds, one row per loss, fold, view and epoch."""
    column = METRICS.index(metric)
    values = tuple(part[..., column : column + 1] for part in band(cohort.curves, (1,)))
    return band_frame(cohort, values, by_fold=True, metrics=(metric,))


def draw(cohort: CohortScores, metric: int) -> Drawing:
    """One row per fold, a column per view."""
    rows, views = len(cohort.folds), cohort.evaluated_views
    top = style.legend_height(cohort.losses, cohort.shown) + 0.24
    figure, axes = style.panels(
        rows, len(views), height=0.42 + top + 1.45 * rows, top=top, gap_x=0.2, gap_y=0.18
    )
    low, mean, high, _ = band(cohort.curves, (1,))
    for row, fold in enumerate(cohort.folds):
        for column, view in enumerate(views):
            axis, place = axes[row, column], VIEWS.index(view)
            style.bands(
                axis,
                low[:, row, :, place, metric],
                mean[:, row, :, place, metric],
                high[:, row, :, place, metric],
                cohort.shown,
            )
            if row == 0:
                axis.set_title(VIEW_NAMES[view].capitalize())
            if column == 0:
                axis.set_ylabel(f"fold {fold}")
            axis.tick_params(labelleft=column == 0, labelbottom=row == rows - 1)
            if row == rows - 1:
                axis.set_xlabel("Epoch")
    style.legend(figure, cohort.losses, cohort.shown)
    return figure
