"""How training goes: mean over all trials between the lowest and the highest (Fig. 3)."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import Figure, Heading, Note, Section, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEW_NAMES, VIEWS, CohortScores
from analysis.sections.learning_rate import learning_rate
from analysis.sections.report_input import ReportInput
from analysis.statistics.absence import side_by_side
from analysis.statistics.bands import band, band_frame
from analysis.statistics.order import last_means


def section(given: ReportInput) -> Section | None:
    """Bands over all seeds and folds, one figure per cohort."""
    if not given.cohorts:
        return None
    items: list[Figure | Heading | Note] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        rate = learning_rate(given, cohort)
        if not cohort.has_course:
            items += [no_course(cohort), *([] if rate is None else [rate])]
            continue
        items.append(
            Figure(
                key=f"bands-{cohort.name}",
                title=f"DSC, sensitivity and precision over epochs, {cohort.title} (the "
                "paper's Fig. 3)",
                draw=partial(draw, cohort),
                data=band_frame(cohort, band(cohort.curves, (1, 2))),
                caption="Line: mean over all complete trainings, each alike, of the epoch's mean "
                f"over {cohort.units} (patches: "
                "over patches). Band: lowest to highest trial; a range, not a confidence "
                "interval, and it widens with every trial added. Epoch 0 is the untrained "
                f"network.{cohort.averaged} {cohort.presence}.{undefined_words(cohort)}"
                f"{unevaluated(cohort)}",
                alt=describe(cohort),
            )
        )
        items += [] if rate is None else [rate]
    return Section(
        key="bands",
        title="How does training go?",
        items=items,
        lead="Bands that overlap do not show that two losses are equal, and bands that part do "
        "not show that they differ: all losses share the same seeds and folds, so the "
        "paired differences further down are what decides.",
    )


def no_course(cohort: CohortScores) -> Note:
    """What stands in place of curves where only last epochs were evaluated."""
    return Note(
        body=prose(
            f"{cohort.title}: the networks were evaluated after their last epoch alone, so nothing "
            "is known of the way there. A sweep with --evaluate-at every has curves."
        )
    )


def unevaluated(cohort: CohortScores) -> str:
    """A sentence where a view was not evaluated, with a space before it; "" if all were."""
    absent = [VIEW_NAMES[view] for view in VIEWS if view not in cohort.evaluated_views]
    return f" Not evaluated: {', '.join(absent)}." if absent else ""


def undefined_words(cohort: CohortScores) -> str:
    """How often an epoch mean leaves cases out because a rate is undefined, in words."""
    images = cohort.asked[..., 1:]
    lost = images[..., None] - cohort.defined[..., 1:, :]
    per_metric = [
        f"{METRIC_NAMES[metric]} {int(lost[..., i].sum())}"
        for i, metric in enumerate(METRICS)
        if lost[..., i].sum() > 0
    ]
    if not per_metric:
        return " Every image defines every rate."
    return f" Undefined and left out, of {int(images.sum())} image-epochs: {', '.join(per_metric)}."


def describe(cohort: CohortScores) -> str:
    """What the losses end at, in words: the means that set them side by side."""
    ends = last_means(cohort)[:, VIEWS.index("test"), METRICS.index("dice")]
    parts = [
        f"{cohort.losses[loss]} {ends[loss]:.3f}"
        for loss in cohort.shown
        if not np.isnan(ends[loss])
    ]
    return (
        f"{'Nine' if cohort.has_training else 'Three'} panels of learning curves for "
        f"{cohort.title}. Mean test DSC at the last epoch "
        f"({side_by_side(cohort)}): {', '.join(parts) or 'none'}."
    )


# ---------------------------------------------------------------------------------------- drawing
def draw(cohort: CohortScores) -> Drawing:
    """Three rows of metrics, a column per view."""
    top = style.legend_height(cohort.losses, cohort.shown) + 0.24
    views = cohort.evaluated_views
    figure, axes = style.panels(3, len(views), height=6.1 + top, top=top, gap_x=0.2, gap_y=0.2)
    low, mean, high, _ = band(cohort.curves, (1, 2))
    for row, metric in enumerate(METRICS):
        for column, view in enumerate(views):
            axis, place = axes[row, column], VIEWS.index(view)
            style.bands(
                axis,
                low[..., place, row],
                mean[..., place, row],
                high[..., place, row],
                cohort.shown,
            )
            if row == 0:
                axis.set_title(VIEW_NAMES[view].capitalize())
            if column == 0:
                axis.set_ylabel(METRIC_NAMES[metric])
            axis.tick_params(labelleft=column == 0, labelbottom=row == 2)
            if row == 2:
                axis.set_xlabel("Epoch")
    style.legend(figure, cohort.losses, cohort.shown)
    return figure
