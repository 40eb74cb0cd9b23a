"""Do lesion volumes agree with the reference: Bland and Altman's plot, limits, and by load."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Section, Table, written
from analysis.reading.scores import CohortScores
from analysis.sections.panels import loss_panels
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.ladder import ladder
from analysis.statistics.selection import mean_over
from analysis.statistics.subjects import by_subject
from analysis.statistics.volumes import (
    LOAD_NAMES,
    LOADS_ML,
    Agreement,
    agreement,
    load_class,
    volumes_ml,
)


def section(given: ReportInput) -> Section | None:
    """One figure and two tables per cohort."""
    counted = [cohort for cohort in given.cohorts if cohort.has_counts]
    if not counted:
        return None
    items: list[Figure | Table | Heading] = []
    for cohort in counted:
        if len(counted) > 1:
            items.append(Heading(text=cohort.title))
        own, words = comparable(cohort), side_by_side(cohort)
        predicted, reference = volumes_ml(own)
        found = {
            loss: agreement(predicted[loss] - reference[loss], own.fold_of, own.subject_of)
            for loss in own.shown
        }
        items += [
            _figure(own, predicted, reference, found, words),
            _limits_table(own, found, words),
            _load_table(own, predicted, reference, words),
        ]
    return Section(
        key="volumes",
        title="Do lesion volumes agree with the reference?",
        items=items,
        lead="Trials and clinics often use one number per patient: the volume of all lesions. The "
        "bias says by how much a loss measures too much on average, the limits of agreement "
        f"within which {confidence.in_percent()} of patients lie: a small bias with wide limits "
        "serves no single patient.",
    )


def patient_frame(
    cohort: CohortScores, predicted: np.ndarray, reference: np.ndarray
) -> pd.DataFrame:
    """A row per loss and patient: means over seeds, then over sessions, ml."""
    rows = []
    for loss in cohort.shown:
        both = [
            by_subject(mean_over(part[loss], 0), cohort.subject_of)
            for part in (predicted, reference)
        ]
        rows.append(
            pd.DataFrame(
                {
                    "cohort": cohort.name,
                    LOSS: cohort.losses[loss],
                    "patient": cohort.subjects,
                    "reference_ml": both[1],
                    "predicted_ml": both[0],
                    "mean_ml": (both[0] + both[1]) / 2,
                    "difference_ml": both[0] - both[1],
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _figure(
    cohort: CohortScores,
    predicted: np.ndarray,
    reference: np.ndarray,
    found: dict[int, Agreement],
    counted: str,
) -> Figure:
    frame = patient_frame(cohort, predicted, reference)
    words = "; ".join(
        f"{cohort.losses[loss]} bias {written(one.bias, '+.2f')} ml, limits "
        f"{written(one.lower, '+.2f')} to {written(one.upper, '+.2f')}"
        for loss, one in found.items()
    )
    return Figure(
        key=f"volumes-{cohort.name}",
        title=f"Lesion volume: predicted minus reference, {cohort.title}",
        draw=partial(draw, cohort.losses, frame, found),
        data=frame,
        caption="Bland and Altman's plot: a dot is a patient, the mean over seeds at the last "
        "epoch; right is more lesion (mean of predicted and reference volume), up is too much. "
        "Line: bias; dashed: limits of agreement of a single training, which scatters more than "
        f"the dots.{cohort.averaged} {counted}.",
        alt=f"Predicted minus reference lesion volume against their mean. {words}.",
    )


def _limits_table(cohort: CohortScores, found: dict[int, Agreement], counted: str) -> Table:
    frame = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                LOSS: cohort.losses[loss],
                "bias": one.bias,
                "bias_half": one.bias_half,
                "lower": one.lower,
                "upper": one.upper,
                "limit_half": one.limit_half,
                "sd": one.sd,
                **cohort.columns(one.num_cases, one.num_subjects),
            }
            for loss, one in found.items()
        ]
    )
    limits = "Limits of agreement, ml"
    return Table(
        key=f"volume-limits-{cohort.name}",
        title=f"Lesion volume: bias and limits of agreement, {cohort.title}",
        frame=frame,
        losses=cohort.losses,
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(key="bias", header="mean", group="Bias, ml", decimals=2, signed=True),
            Column(key="bias_half", header="±", group="Bias, ml", decimals=2),
            Column(key="lower", header="lower", group=limits, decimals=2, signed=True),
            Column(key="upper", header="upper", group=limits, decimals=2, signed=True),
            Column(key="limit_half", header="±", group=limits, decimals=2),
        ],
        caption="Bias: mean of predicted minus reference volume. Limits: bias −+ "
        f"{confidence.normal_factor():.2f} standard deviations of one training's difference for "
        "one patient (patients, trainings and the rest together). ±: "
        f"{confidence.in_percent()} half-width for new seeds and patients; of the limits as Bland "
        "and Altman 1999, with degrees of freedom of patients, not of images times seeds. The "
        f"limits assume differences that do not grow with the load: see the next table. {counted}.",
    )


def _load_table(
    cohort: CohortScores, predicted: np.ndarray, reference: np.ndarray, counted: str
) -> Table:
    classes, rows = load_class(reference), []
    sizes = {}
    for place, name in enumerate(LOAD_NAMES):
        here = classes == place
        sizes[name] = cohort.counted_with(here)
        for loss in cohort.shown if here.any() else ():
            difference = (predicted - reference)[loss][:, here]
            with np.errstate(invalid="ignore", divide="ignore"):
                share = difference / reference[loss][:, here]
            share[~np.isfinite(share)] = np.nan
            row: dict[str, object] = {
                "cohort": cohort.name,
                "load_ml": name,
                LOSS: cohort.losses[loss],
            }
            for key, values in (("bias", difference), ("share", share)):
                fit = ladder(values, cohort.fold_of[here], cohort.subject_of[here])
                row |= {key: fit.estimate, f"{key}_half": fit.half_width("L2")}
            row |= cohort.columns(int(here.sum()), len(np.unique(cohort.subject_of[here])))
            rows.append(row)
    numbers = ", ".join(f"{name} ml {size}" for name, size in sizes.items())
    return Table(
        key=f"volume-loads-{cohort.name}",
        title=f"Lesion volume by load, {cohort.title}",
        frame=pd.DataFrame(rows),
        losses=cohort.losses,
        columns=[
            Column(key="load_ml", header="Reference load, ml"),
            Column(key=LOSS, header="Loss"),
            Column(key="bias", header="mean", group="Bias, ml", decimals=2, signed=True),
            Column(key="bias_half", header="±", group="Bias, ml", decimals=2),
            Column(
                key="share", header="mean", group="Of the load", decimals=0, percent=True,
                signed=True,
            ),
            Column(key="share_half", header="±", group="Of the load", decimals=0, percent=True),
        ],
        caption=f"Patients by reference volume, edges at {LOADS_ML[0]:g} and {LOADS_ML[1]:g} ml: "
        f"{numbers}. Of the load: mean of each patient's difference divided by the reference; "
        f"cases without a lesion have none. ±: {confidence.in_percent()} half-width for new seeds "
        f"and patients; – where a load has too few patients. {counted}.",
    )  # fmt: skip


def draw(losses: list[str], frame: pd.DataFrame, found: dict[int, Agreement]) -> Drawing:
    """A panel per loss, all on one scale."""
    figure, panels = loss_panels(losses, list(found))
    right = float(np.nanmax(frame["mean_ml"].to_numpy(float), initial=0.1))
    ends = [frame["difference_ml"].to_numpy(float)]
    ends += [np.array([one.lower, one.upper]) for one in found.values()]
    values = np.concatenate(ends)
    values = values[~np.isnan(values)]
    low, high = (values.min(), values.max()) if len(values) else (-1.0, 1.0)
    margin = 0.06 * max(high - low, 1e-6)
    for loss, axis, first, last in panels:
        own, one = frame[frame[LOSS] == losses[loss]], found[loss]
        axis.axhline(0, color=style.GRID, linewidth=0.8)
        axis.plot(
            own["mean_ml"], own["difference_ml"], marker=style.marker(loss), markersize=3,
            linestyle="", color=style.colour(loss), markeredgewidth=0, gid=f"L{loss}",
        )  # fmt: skip
        if one.bias == one.bias:
            axis.axhline(one.bias, color=style.INK, linewidth=1)
        for limit in (one.lower, one.upper):
            if limit == limit:
                axis.axhline(limit, color=style.INK, linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 1.05 * right)
        axis.set_ylim(low - margin, high + margin)
        axis.locator_params(axis="x", nbins=4)
        if first:
            axis.set_ylabel("difference, ml")
        if last:
            axis.set_xlabel("mean, ml")
    return figure
