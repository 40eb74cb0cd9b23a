"""Do training patches tell how whole images will do: the steps from patches to test images."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEW_NAMES, VIEWS, CohortScores
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics.absence import compared, side_by_side
from analysis.statistics.order import best_of, last_means


def section(given: ReportInput) -> Section | None:
    """Slopes from training patches over training images to test images."""
    if not given.cohorts:
        return None
    items: list[Figure | Table | Heading | Note] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        if cohort.has_training:
            items += [_slopes(cohort), _gap_table(cohort)]
            continue
        items.append(
            Note(
                body=prose(
                    f"{cohort.title}: the networks were evaluated on test images alone, so there "
                    "is nothing to compare these with. A sweep with --evaluate-on all has it."
                )
            )
        )
    return Section(
        key="gap",
        title="Do training patches tell how whole images will do?",
        items=items,
        lead="Patches were picked because they hold lesions, so they cannot show false positives "
        "elsewhere. A loss that leads on patches and falls on images was flattered by that "
        "choice, not beaten by overfitting: compare the two steps." + _background(given),
    )


def _background(given: ReportInput) -> str:
    """A sentence where trainings saw windows without lesion too; "" where none did."""
    share = (given.sweep.meta.get("settings") or {}).get("background_windows")
    named = any("background_windows" in label for label in given.sweep.losses)
    if not (share or named):
        return ""
    seen = f"of every epoch's patches {share:.0%} were" if share else "some trainings also saw"
    return (
        f" Here {seen} windows without lesion; patch scores are still those of the patches with "
        "lesion."
    )


def gap_frame(cohort: CohortScores) -> pd.DataFrame:
    """Every metric on patches, training and test images, and the two steps between."""
    means, rows = last_means(cohort), []
    for loss in cohort.shown:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
        for i, metric in enumerate(METRICS):
            patch, train, test = (float(value) for value in means[loss, :, i])
            row |= {
                f"{metric}_patch": patch,
                f"{metric}_train": train,
                f"{metric}_test": test,
                f"{metric}_to_image": train - patch,
                f"{metric}_to_test": test - train,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _slopes(cohort: CohortScores) -> Figure:
    means = last_means(cohort)
    frame = gap_frame(cohort)
    losses = compared(cohort)
    best = {
        view: " = ".join(cohort.losses[losses[i]] for i in best_of(means[losses, place, 0]))
        for place, view in enumerate(VIEWS)
    }
    lead = (
        f"Best DSC on patches: {best['patch']}; on test images: {best['test']}."
        if best["patch"] and best["test"] and len(losses) > 1
        else ""
    )
    return Figure(
        key=f"gap-{cohort.name}",
        data=frame,
        title=f"From training patches to test images, {cohort.title}",
        draw=partial(draw_slopes, cohort.losses, cohort.shown, means),
        caption="Means at the last epoch, over seeds, then over patients (training images and "
        f"patches: over folds by the patients they test). {lead} {side_by_side(cohort)}.",
        alt=f"Slopes from training patches over training images to test images. {lead}",
    )


def _gap_table(cohort: CohortScores) -> Table:
    columns = [Column(key=LOSS, header="Loss")]
    for metric in METRICS:
        group = METRIC_NAMES[metric]
        columns += [
            Column(key=f"{metric}_patch", header="patch", group=group, decimals=3),
            Column(
                key=f"{metric}_to_image", header="→ image", group=group, decimals=3, signed=True
            ),
            Column(key=f"{metric}_to_test", header="→ test", group=group, decimals=3, signed=True),
        ]
    return Table(
        key=f"gap-table-{cohort.name}",
        title=f"The two steps in numbers, {cohort.title}",
        frame=gap_frame(cohort),
        columns=columns,
        losses=cohort.losses,
        caption="→ image: training images minus training patches (what choosing patches hides). "
        "→ test: test images minus training images (what overfitting costs). "
        f"{ROUNDED} {side_by_side(cohort)}.",
    )


def draw_slopes(losses: list[str], shown: list[int], means: np.ndarray) -> Drawing:
    """One panel per metric."""
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 3, height=2.5 + top, top=top, gap_x=0.2, bottom=0.45)
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        for loss in shown:
            axis.plot(
                range(3),
                means[loss, :, i],
                marker=style.marker(loss),
                markersize=4.5,
                **style.line_style(loss),
            )
        axis.set_title(METRIC_NAMES[metric])
        axis.set_xticks(range(3), [VIEW_NAMES[view].replace(" ", "\n") for view in VIEWS])
        axis.set_xlim(-0.2, 2.2)
        axis.tick_params(labelleft=i == 0)
        axis.grid(False, axis="x")
        style.rate_axis(axis)
    style.legend(figure, losses, shown, markers=True)
    return figure
