"""What is traded for what: sensitivity against precision, and patches against whole images."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Section, written
from analysis.reading.scores import VIEWS, CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.order import last_means, over_folds
from analysis.statistics.tradeoff import harmonic

TEST = VIEWS.index("test")


def section(given: ReportInput) -> Section | None:
    """Trajectories through the sensitivity-precision plane."""
    if not given.cohorts:
        return None
    items: list[Figure | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items.append(_trajectory(cohort))
    return Section(
        key="tradeoff",
        title="What is traded for what?",
        items=items,
        lead="Each line is one loss on its way from the untrained network to the last epoch. "
        "Moving along a grey contour trades one kind of error for the other at equal DSC; "
        "only crossing contours is improvement.",
    )


# --------------------------------------------------------------------------------------- sections
def _trajectory(cohort: CohortScores) -> Figure:
    own = comparable(cohort)
    mean = over_folds(own.curves, own)
    trials = (~np.isnan(own.curves)).sum((1, 2))
    rows = [
        {
            "cohort": cohort.name,
            LOSS: cohort.losses[loss],
            "epoch": epoch,
            "sensitivity": mean[loss, epoch, TEST, 1],
            "precision": mean[loss, epoch, TEST, 2],
            "dice": mean[loss, epoch, TEST, 0],
            "trials": int(trials[loss, epoch, TEST, 0]),
        }
        for loss in cohort.shown
        for epoch in range(0 if cohort.has_course else cohort.num_epochs, cohort.num_epochs + 1)
    ]
    start = "Small dot: epoch 1; large" if cohort.has_course else "Large"
    course = "" if cohort.has_course else "; no other epoch was evaluated"
    ends = last_means(cohort)
    words = "; ".join(
        f"{cohort.losses[loss]} sensitivity {written(ends[loss, TEST, 1], '.3f')}, precision "
        f"{written(ends[loss, TEST, 2], '.3f')}"
        for loss in cohort.shown
    )
    return Figure(
        key=f"tradeoff-{cohort.name}",
        data=pd.DataFrame(rows),
        title=f"Sensitivity against precision over epochs, test images, {cohort.title}",
        draw=partial(draw_trajectory, cohort.losses, cohort.shown, mean[:, :, TEST]),
        caption=f"{start} marker: last epoch{course}; the untrained network (epoch 0) is "
        "left out. Means over seeds, then over patients. Contours: equal DSC of a single case; the "
        f"mean DSC of many cases lies below the contour. {side_by_side(cohort)}.",
        alt=f"At the last epoch: {words}.",
    )


# ---------------------------------------------------------------------------------------- drawing
def draw_trajectory(losses: list[str], shown: list[int], mean: np.ndarray) -> Drawing:
    """Paths of mean [L, E + 1, metrics] over contours of equal DSC."""
    top = style.legend_height(losses, shown) + 0.1
    figure, axes = style.panels(1, 1, height=3.9 + top, top=top, left=0.55, right=1.2)
    axis = axes[0, 0]
    grid = np.linspace(0.005, 1, 200)
    x, y = np.meshgrid(grid, grid)
    contours = axis.contour(
        x, y, harmonic(x, y), levels=np.arange(0.1, 1, 0.1), colors=style.GRID, linewidths=0.8
    )
    axis.clabel(contours, fmt="%.1f", fontsize=6, colors=style.MUTED)
    for loss in shown:
        path = mean[loss, 1:]
        if len(path) == 0 or np.isnan(path).all():
            continue
        axis.plot(path[:, 1], path[:, 2], **style.line_style(loss))
        axis.plot(
            path[0, 1],
            path[0, 2],
            marker="o",
            markersize=3,
            color=style.colour(loss),
            gid=f"L{loss}",
            linestyle="",
        )
        axis.plot(
            path[-1, 1],
            path[-1, 2],
            marker=style.marker(loss),
            markersize=7,
            color=style.colour(loss),
            markeredgecolor=style.SURFACE,
            gid=f"L{loss}",
            linestyle="",
        )
    axis.set_xlim(0, 1)
    style.rate_axis(axis)
    axis.set_xlabel("Sensitivity")
    axis.set_ylabel("Precision")
    axis.grid(False)
    style.legend(figure, losses, shown, markers=True)
    return figure
