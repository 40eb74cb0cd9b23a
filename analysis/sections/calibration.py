"""Do probabilities mean what they say, patient by patient?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, written
from analysis.reading.scores import CohortScores, trial_rows
from analysis.sections.ensembles import unscored
from analysis.sections.panels import loss_panels
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.calibration import BANDS, brier, calibration_error, reliability
from analysis.statistics.ladder import RATE, Ladder
from analysis.statistics.lesions import mean_and_error
from analysis.statistics.thresholds import histograms
from analysis.statistics.together import calibration_together


def section(given: ReportInput) -> Section | None:
    """A figure and a table per cohort with histograms."""
    if not (given.cohorts and given.is_ledger):
        return None
    rows = trial_rows(given.sweep, "histograms.parquet")
    items: list[Figure | Table | Heading | Note] = []
    for cohort in given.cohorts:
        own = comparable(cohort)
        lesion, background = histograms(own, rows)
        if np.isnan(lesion).all():
            continue
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        words = side_by_side(cohort)
        frame = reliability(own, lesion, background).assign(networks="one")
        all_of = given.together.get(cohort.name)
        fits: dict[int, dict[str, Ladder]] = {}
        if all_of is not None:
            *both, fits = calibration_together(all_of, own)
            frame = pd.concat(
                [frame, reliability(own, *both).assign(networks="all")], ignore_index=True
            )
        counted = words if all_of is None else f"{words}. Together: {all_of.counted}"
        items += [
            _figure(own, frame, counted),
            _table(own, lesion, background, fits, counted),
        ]
    if not items:
        return None
    items += unscored(given)
    return Section(
        key="calibration",
        title="Do probabilities mean what they say?",
        items=items,
        lead="Of the voxels that a network calls lesion with probability 0.7, seven in ten should "
        "be. Below the diagonal a network is too sure, above it not sure enough. DSC at one "
        "threshold cannot see this, and a user who moves the threshold, or adds probabilities up, "
        "needs it.",
    )


def _figure(cohort: CohortScores, frame: pd.DataFrame, counted: str) -> Figure:
    one = frame[frame["networks"] == "one"]
    off = one.assign(off=(one["predicted"] - one["observed"]).abs()).dropna(subset="off")
    far = off.loc[off.groupby(LOSS, sort=False)["off"].idxmax()].to_dict("records")
    words = "; ".join(
        f"{row[LOSS]} says {written(row['predicted'])} where {written(row['observed'])} is lesion"
        for row in far
    )
    together = " Dashed: all networks of a fold together." if len(one) < len(frame) else ""
    return Figure(
        key=f"reliability-{cohort.name}",
        title=f"Reliability, patients as clusters, {cohort.title}",
        draw=partial(draw, cohort, frame),
        data=frame if together else one.drop(columns="networks"),
        caption="Share of lesion voxels among those of a predicted probability, in "
        f"{BANDS} bands from 0.01 on (voxels of the brain box), at the last epoch; grey: "
        f"{confidence.in_percent()} interval with patients as clusters, for new patients. "
        f"Diagonal: a probability means what it says.{together}"
        f"{cohort.averaged} {counted}.",
        alt=f"Reliability curves; farthest from the diagonal: {words}.",
    )


def _table(
    cohort: CohortScores,
    lesion: np.ndarray,
    background: np.ndarray,
    fits: Mapping[int, Mapping[str, Ladder]],
    counted: str,
) -> Table:
    error = calibration_error(lesion, background)
    score, off = brier(lesion, background)
    rows = []
    for loss in cohort.shown:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
        for key, values in (("error", error[loss]), ("brier", score[loss])):
            mean, half, cases, subjects = mean_and_error(
                values, cohort.fold_of, cohort.subject_of, RATE
            )
            row |= {key: mean, f"{key}_half": half}
            row |= {f"{key}_{n}": count for n, count in cohort.columns(cases, subjects).items()}
        row["brier_off"] = mean_and_error(off[loss], cohort.fold_of, cohort.subject_of, RATE)[0]
        for key, fit in fits.get(loss, {}).items():
            row |= {f"{key}_all": fit.estimate, f"{key}_all_half": fit.half_width("L2")}
        rows.append(row)
    frame = pd.DataFrame(rows)
    together = [
        Column(key=f"{key}_all{end}", header=header, group=f"{name}, all", decimals=decimals)
        for key, name, decimals in (("error", "Error", 3), ("brier", "Brier", 5))
        for end, header in (("", "mean"), ("_half", "±"))
        if fits
    ]
    return Table(
        key=f"calibration-{cohort.name}",
        title=f"Calibration per patient, {cohort.title}",
        frame=frame,
        losses=cohort.losses,
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(key="error", header="mean", group="Calibration error", decimals=3, best="min"),
            Column(key="error_half", header="±", group="Calibration error", decimals=3),
            Column(key="brier", header="mean", group="Brier score", decimals=5, best="min"),
            Column(key="brier_half", header="±", group="Brier score", decimals=5),
            *together,
        ],
        caption="Calibration error: mean distance between probability and share of lesion voxels "
        f"in {BANDS} bands of each image, weighed by voxels, of those with a probability of 0.01 "
        "or more; an image with few such voxels has some by chance. Brier score: mean squared "
        "error of the probability over all voxels of the brain box, most of which are background. "
        f"Means over patients; ±: {confidence.in_percent()} half-width for new seeds and patients. "
        "Histograms keep probabilities in bands of 0.01: an error is known to 0.005, a Brier score "
        f"to {written(float(frame['brier_off'].max()), '.5f')}.{_all(fits)} {counted}.",
    )


def _all(fits: Mapping[int, object]) -> str:
    return " All: the mean probability of all networks of a fold." if fits else ""


def draw(cohort: CohortScores, frame: pd.DataFrame) -> Drawing:
    """A panel per loss."""
    figure, panels = loss_panels(cohort.losses, cohort.shown)
    for loss, axis, first, last in panels:
        shown = frame[frame[LOSS] == cohort.losses[loss]]
        own, all_of = (shown[shown["networks"] == number] for number in ("one", "all"))
        x, low, high = (own[key].to_numpy(float) for key in ("predicted", "low", "high"))
        axis.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.7)
        known = ~np.isnan(low)
        axis.fill_between(x[known], low[known], high[known], color=style.SHADE, linewidth=0)
        axis.plot(
            x, own["observed"], marker=style.marker(loss), markersize=3, **style.line_style(loss)
        )
        axis.plot(
            all_of["predicted"], all_of["observed"], color=style.INK, linewidth=1, dashes=(3, 1.5)
        )
        style.rate_axis(axis)
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        if first:
            axis.set_ylabel("lesion")
        if last:
            axis.set_xlabel("predicted")
    return figure
