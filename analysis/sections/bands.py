"""How training goes: mean over all trials between the lowest and the highest (Fig. 3, 4, 5)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Section
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEW_NAMES, VIEWS, CohortScores
from analysis.statistics.bands import band

PAPER_FIGURES = {"lit": "Fig. 4", "wmh2017": "Fig. 5"}


def section(cohorts: list[CohortScores]) -> Section:
    """Bands over all seeds and folds, then one band per fold over its seeds."""
    items: list[Figure | Heading] = []
    for cohort in cohorts:
        if len(cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items.append(
            Figure(
                key=f"bands-{cohort.name}",
                title=f"DSC, sensitivity and precision over epochs, {cohort.title} (the "
                "paper's Fig. 3)",
                draw=partial(draw, cohort),
                data=band_frame(cohort),
                caption="Line: mean over all seeds and folds of the epoch's mean over cases "
                "(patches: "
                "over patches). Band: lowest to highest trial; a range, not a confidence "
                "interval, and it widens with every trial added. Epoch 0 is the untrained "
                f"network. {cohort.presence}.{undefined_words(cohort)}",
                alt=describe(cohort),
            )
        )
    return Section(
        key="bands",
        title="How does training go?",
        items=items,
        lead="Bands that overlap do not show that two losses are equal, and bands that part do "
        "not show that they differ: all losses share the same seeds and folds, so the "
        "paired differences further down are what decides.",
    )


def section_by_fold(cohorts: list[CohortScores]) -> Section:
    """One row of panels per fold, one figure per metric."""
    items: list[Figure | Heading] = []
    for cohort in cohorts:
        if len(cohorts) > 1:
            items.append(Heading(text=cohort.title))
        paper = PAPER_FIGURES.get(cohort.name)
        for metric in METRICS:
            same = f" (the paper's {paper})" if paper and metric != "precision" else ""
            items.append(
                Figure(
                    key=f"bands-folds-{metric}-{cohort.name}",
                    title=f"{METRIC_NAMES[metric]} over epochs by fold, {cohort.title}{same}",
                    draw=partial(draw_by_fold, cohort, METRICS.index(metric)),
                    data=fold_band_frame(cohort, metric),
                    caption="Line: mean over seeds. Band: lowest to highest of the "
                    f"{len(cohort.seeds)} seeds. Every fold tests other patients. "
                    f"{cohort.presence}.",
                    alt=f"{METRIC_NAMES[metric]} over epochs in each of {len(cohort.folds)} "
                    "folds of "
                    f"{cohort.title}, one band per loss over {len(cohort.seeds)} seeds.",
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


# ---------------------------------------------------------------------------------------- frames
def band_frame(cohort: CohortScores) -> pd.DataFrame:
    """Bands over seeds and folds, one row per loss, view, metric and epoch."""
    return _frame(cohort, band(cohort.curves, (1, 2)), [])


def fold_band_frame(cohort: CohortScores, metric: str) -> pd.DataFrame:
    """Bands over seeds, one row per loss, fold, view and epoch."""
    column = METRICS.index(metric)
    values = tuple(part[..., column : column + 1] for part in band(cohort.curves, (1,)))
    return _frame(cohort, values, ["fold"], metrics=(metric,))


def _frame(
    cohort: CohortScores,
    values: tuple[np.ndarray, ...],
    extra: list[str],
    metrics: tuple[str, ...] = METRICS,
) -> pd.DataFrame:
    labels = [
        cohort.losses,
        *([cohort.folds] if extra else []),
        range(cohort.num_epochs + 1),
        VIEWS,
        metrics,
    ]
    index = pd.MultiIndex.from_product(labels, names=[LOSS, *extra, "epoch", "view", "metric"])
    frame = pd.DataFrame(
        {
            name: part.ravel()
            for name, part in zip(("lowest", "mean", "highest", "trials"), values, strict=True)
        },
        index=index,
    ).reset_index()
    frame.insert(0, "cohort", cohort.name)
    return frame[frame["trials"] > 0]


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
    """Where the mean curves end, in words."""
    ends = cohort.last_by_fold(cohort.curves)[..., 2, 0]
    parts = [
        f"{cohort.losses[loss]} {np.nanmean(ends[loss]):.2f}"
        for loss in cohort.shown
        if not np.isnan(ends[loss]).all()
    ]
    return (
        f"Nine panels of learning curves for {cohort.title}. Mean test DSC at the last epoch: "
        f"{', '.join(parts) or 'none'}."
    )


# ---------------------------------------------------------------------------------------- drawing
def draw(cohort: CohortScores) -> Drawing:
    """Three rows of metrics, three columns of views."""
    top = style.legend_height(cohort.losses, cohort.shown) + 0.24
    figure, axes = style.panels(3, 3, height=6.1 + top, top=top, gap_x=0.2, gap_y=0.2)
    low, mean, high, _ = band(cohort.curves, (1, 2))
    for row, metric in enumerate(METRICS):
        for column, view in enumerate(VIEWS):
            axis = axes[row, column]
            _draw_bands(
                axis, cohort, low[..., column, row], mean[..., column, row], high[..., column, row]
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


def draw_by_fold(cohort: CohortScores, metric: int) -> Drawing:
    """One row per fold, three columns of views."""
    rows = len(cohort.folds)
    top = style.legend_height(cohort.losses, cohort.shown) + 0.24
    figure, axes = style.panels(
        rows, 3, height=0.42 + top + 1.45 * rows, top=top, gap_x=0.2, gap_y=0.18
    )
    low, mean, high, _ = band(cohort.curves, (1,))
    for row, fold in enumerate(cohort.folds):
        for column, view in enumerate(VIEWS):
            axis = axes[row, column]
            _draw_bands(
                axis,
                cohort,
                low[:, row, :, column, metric],
                mean[:, row, :, column, metric],
                high[:, row, :, column, metric],
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


def _draw_bands(
    axis, cohort: CohortScores, low: np.ndarray, mean: np.ndarray, high: np.ndarray
) -> None:
    epochs = np.arange(cohort.num_epochs + 1)
    for loss in cohort.shown:
        if np.isnan(mean[loss]).all():
            continue
        axis.fill_between(
            epochs,
            low[loss],
            high[loss],
            color=style.colour(loss),
            alpha=0.13,
            linewidth=0,
            gid=f"L{loss}",
        )
    for loss in cohort.shown:
        if not np.isnan(mean[loss]).all():
            axis.plot(epochs, mean[loss], **style.line_style(loss))
    style.epoch_axis(axis, cohort.num_epochs)
    style.rate_axis(axis)
