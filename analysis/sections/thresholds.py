"""Does a loss segment better, or only put its probabilities elsewhere: every threshold at once.

A network whose probabilities are merely shifted looks worse at 0.5 and as good at its own
threshold.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, prose, written
from analysis.reading.scores import METRIC_NAMES, METRICS, CohortScores, trial_rows
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.collapse import collapsed
from analysis.statistics.order import every_mean, over_folds
from analysis.statistics.thresholds import (
    HALF,
    THRESHOLDS,
    at_chosen,
    calibration,
    fold_curves,
    histograms,
    own_thresholds,
    rates_at_thresholds,
)


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """Curves over the threshold, and what is left of the differences at each loss's own."""
    if not (given.cohorts and given.is_ledger):
        return None
    rows = trial_rows(given.sweep, "histograms.parquet")
    items: list[Figure | Table | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        lesion, background = histograms(cohort, rows)
        if np.isnan(lesion).all():
            items.append(
                Note(
                    kind="warning",
                    body=prose(f"{cohort.title}: no histograms of predicted probabilities."),
                )
            )
            continue
        items += _items(cohort, lesion, background)
    return Section(
        key="thresholds",
        title="Better segmentation, or another threshold?",
        items=items,
        lead="The paper cuts every network's probabilities at 0.5, which need not be where a loss "
        "separates best. A difference that vanishes when every loss uses its own threshold, chosen "
        "on the other folds, is one of calibration, not of segmentation.",
    )


def _items(
    cohort: CohortScores, lesion: np.ndarray, background: np.ndarray
) -> list[Figure | Table | Note]:
    rates = rates_at_thresholds(cohort, lesion, background)
    curves = np.stack(
        [
            fold_curves(rates[..., i], cohort.fold_of, cohort.subject_of)
            for i in range(len(METRICS))
        ],
        -1,
    )
    # Every threshold is chosen from all that a loss has; losses are set side by side as everywhere.
    chosen = own_thresholds(curves[..., 0])
    own = comparable(cohort)
    side = np.where(np.isnan(own.last_by_case(own.test[..., 0]))[..., None, None], np.nan, rates)
    mean = over_folds(
        np.stack(
            [
                fold_curves(side[..., i], cohort.fold_of, cohort.subject_of)
                for i in range(len(METRICS))
            ],
            -1,
        )[:, None],
        cohort,
    )  # [L, thresholds, metrics]
    shown = [loss for loss in cohort.shown if not np.isnan(mean[loss, :, 0]).all()]
    if not shown:
        return [Note(kind="warning", body=prose(f"{cohort.title}: DSC is undefined throughout."))]
    half = rates[..., HALF, 0]
    free = at_chosen(rates[..., 0], chosen, cohort.fold_of)
    either = np.isnan(half) | np.isnan(free)  # both means over the same cases
    at_half, at_own = (
        every_mean(np.where(either, np.nan, scores), cohort) for scores in (half, free)
    )
    rows = []
    for loss in shown:
        best = int(np.nanargmax(mean[loss, :, 0]))
        used = chosen[loss][chosen[loss] >= 0]
        rows.append(
            {
                "cohort": cohort.name,
                LOSS: cohort.losses[loss],
                "at_half": at_half[loss].estimate,
                "own": at_own[loss].estimate,
                "gain": at_own[loss].estimate - at_half[loss].estimate,
                "folds": at_half[loss].num_folds,
                "threshold_low": THRESHOLDS[used.min()] if len(used) else float("nan"),
                "threshold_high": THRESHOLDS[used.max()] if len(used) else float("nan"),
                "best": mean[loss, best, 0],
                "best_at": THRESHOLDS[best],
            }
        )
    frame = pd.DataFrame(rows)
    present = np.asarray((~np.isnan(rates[..., 0, 0])).any((0, 1)))
    counted = f"{cohort.part_with(present)}; {side_by_side(cohort)}."
    spread = [frame[key].max() - frame[key].min() for key in ("at_half", "own")]
    low, high = frame["threshold_low"].min(), frame["threshold_high"].max()
    words = (
        f"Between the highest and the lowest loss lie {written(spread[0], '.3f')} at 0.5 and "
        f"{written(spread[1], '.3f')} at own thresholds, which are "
        + (f"{low:.2f} to {high:.2f}." if low < high else f"{written(low)} for all.")
        if len(frame) > 1
        else ""
    )
    data = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                LOSS: cohort.losses[loss],
                "threshold": THRESHOLDS[t],
                **{metric: mean[loss, t, i] for i, metric in enumerate(METRICS)},
            }
            for loss in shown
            for t in range(len(THRESHOLDS))
        ]
    )
    sums = {
        loss: (np.nansum(lesion[loss], (0, 1)), np.nansum(background[loss], (0, 1)))
        for loss in shown
    }
    return [
        Figure(
            key=f"thresholds-{cohort.name}",
            title=f"Test metrics at every threshold, {cohort.title}",
            data=data,
            draw=partial(draw, cohort.losses, shown, mean, sums),
            caption=f"First three: mean over seeds, then over {cohort.units}, at the last epoch, "
            f"for every threshold; vertical line: 0.5.{cohort.averaged} Last: share of lesion "
            "voxels among voxels of a predicted probability (brain box, all cases together); on "
            "the diagonal, a probability means what it says. " + words + " " + counted,
            alt=f"DSC, sensitivity and precision over the threshold, and calibration. {words}",
        ),
        Table(
            key=f"threshold-table-{cohort.name}",
            frame=frame,
            losses=cohort.losses,
            collapsed=collapsed(cohort),
            comparable=cohort.is_even,
            title=f"DSC at 0.5 and at own thresholds, {cohort.title}",
            columns=[
                Column(key=LOSS, header="Loss"),
                Column(key="at_half", header="at 0.5", group="DSC", decimals=3, best="max"),
                Column(key="own", header="own threshold", group="DSC", decimals=3, best="max"),
                Column(key="gain", header="gain", group="DSC", decimals=3, signed=True),
                Column(
                    key="threshold_low",
                    header="lowest",
                    group="Threshold chosen by the other folds",
                    decimals=2,
                ),
                Column(
                    key="threshold_high",
                    header="highest",
                    group="Threshold chosen by the other folds",
                    decimals=2,
                ),
                Column(key="best", header="best on test", group="Optimistic", decimals=3),
                Column(key="best_at", header="at", group="Optimistic", decimals=2),
            ],
            caption=f"{words} Means over the cases that define DSC at 0.5 and at the own "
            f"threshold, the same for both; folds: {_folds(frame, curves.shape[1])}. Optimistic: "
            f"the threshold that is best on the test images themselves. {ROUNDED} {counted}",
        ),
    ]


def _folds(frame: pd.DataFrame, total: int) -> str:
    """How many of how many folds are behind each row, in words."""
    short = [
        f"{row[LOSS]} {row['folds']}" for row in frame.to_dict("records") if row["folds"] < total
    ]
    return f"of {total}, {', '.join(short)}, the others all" if short else f"all {total}"


# ---------------------------------------------------------------------------------------- drawing
def draw(
    losses: list[str],
    shown: list[int],
    mean: np.ndarray,
    sums: dict[int, tuple[np.ndarray, np.ndarray]],
) -> Drawing:
    """Three curves over the threshold and a reliability diagram."""
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 4, height=2.3 + top, top=top, gap_x=0.24, left=0.4, bottom=0.42)
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        axis.axvline(0.5, color=style.MUTED, linewidth=0.7)
        for loss in shown:
            axis.plot(THRESHOLDS, mean[loss, :, i], **style.line_style(loss))
        axis.set_title(METRIC_NAMES[metric])
        axis.set_xlabel("threshold")
    axis = axes[0, 3]
    axis.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.7)
    for loss in shown:
        predicted, observed = calibration(*sums[loss])
        axis.plot(predicted, observed, **style.line_style(loss))
    axis.set_title("Calibration")
    axis.set_xlabel("predicted")
    for axis in axes[0]:
        style.rate_axis(axis)
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axis.tick_params(labelleft=axis is axes[0, 0])
    style.legend(figure, losses, shown)
    return figure
