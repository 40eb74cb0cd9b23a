"""How scores are distributed: as the paper pools them (Fig. 8), and one dot per patient."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Note, Section
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEWS, CohortScores
from analysis.sections.bands import no_course, unevaluated
from analysis.sections.report_input import ReportInput
from analysis.statistics.absence import comparable, compared, given_up, side_by_side
from analysis.statistics.order import SAME, last_means
from analysis.statistics.subjects import first_cases
from analysis.statistics.violins import outline, patient_scores, pooled_epochs


def section(given: ReportInput) -> Section | None:
    """The paper's violins beside the honest ones."""
    if not given.cohorts:
        return None
    items: list[Figure | Heading | Note] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        if cohort.has_course:
            items.append(_pooled(cohort))
        else:
            items.append(no_course(cohort))
        own = comparable(cohort)
        scores = patient_scores(own)
        defined = {
            METRIC_NAMES[m]: int((~np.isnan(scores[cohort.shown, :, i])).all(0).sum())
            for i, m in enumerate(METRICS)
        }
        words = ", ".join(f"{name} {n}" for name, n in defined.items())
        items.append(
            Figure(
                key=f"violins-{cohort.name}",
                title=f"One dot per patient, {cohort.title}",
                draw=partial(draw_patients, own),
                data=patient_frame(own),
                caption="Each dot is one test patient: the mean over its seeds"
                f"{', then over its sessions,' if cohort.has_sessions else ''} at the last "
                "epoch. Bar: "
                "mean over patients. The violin ends where the data end. Patients with a "
                f"value for every loss, of {cohort.num_subjects}: {words}. "
                f"{side_by_side(cohort)}.",
                alt=_describe(cohort, scores),
            )
        )
        items.append(_patient_lines(own, scores, f"{given_up(cohort)}", side_by_side(cohort)))
    return Section(
        key="violins",
        title="How are scores distributed?",
        items=items,
        lead="The paper's violins mix epochs, seeds and folds; the second figure of each pair "
        "asks what a clinician would: how do my patients fare with the finished network?",
    )


def _pooled(cohort: CohortScores) -> Figure:
    pooled = pooled_epochs(cohort.curves)
    view = VIEWS.index("train" if cohort.has_training else "test")
    sizes = {int((~np.isnan(pooled[loss, :, view, 0])).sum()) for loss in cohort.shown}
    trainings = {int(cohort.done[loss].sum()) for loss in cohort.shown}
    return Figure(
        key=f"violins-pooled-{cohort.name}",
        title=f"As the authors pooled them, {cohort.title} (the paper's Fig. 8)",
        draw=partial(draw_pooled, cohort),
        data=pooled_frame(cohort),
        caption="Each violin holds the epoch means of **all epochs after 0, all seeds and all "
        f"folds** as if they were independent: {_range(sizes)} values per loss from "
        f"{_range(trainings)} trainings. It shows how long a loss "
        "spends at a value while it trains, not how patients fare. Left half: "
        f"training images; right half: test images. {cohort.presence}.{unevaluated(cohort)}",
        alt=f"Split violins of pooled epoch means for {cohort.title}, one per loss, for DSC, "
        "sensitivity and precision.",
    )


def _patient_lines(cohort: CohortScores, scores: np.ndarray, left_out: str, counted: str) -> Figure:
    losses = compared(cohort)
    complete = ~np.isnan(scores[losses, :, 0]).any(0)
    dice = scores[losses][:, complete, 0]
    spread = np.ptp(dice, axis=0)
    middle = f"{np.median(spread):.3f}" if len(spread) else "undefined"
    first = dice >= dice.max(0, initial=-np.inf) - SAME
    wins = (first / np.maximum(first.sum(0), 1)).sum(1)
    words = ", ".join(
        f"{cohort.losses[loss]} {count:.3g}" for loss, count in zip(losses, wins, strict=True)
    )
    return Figure(
        key=f"patients-{cohort.name}",
        title=f"Patient by patient, DSC, {cohort.title}",
        draw=partial(draw_patient_lines, cohort, scores),
        data=patient_frame(cohort).drop(
            columns=[f"{of}{metric}" for of in ("", "seeds_") for metric in METRICS[1:]]
        ),
        caption="One column per patient, from hard to easy (mean over losses); a marker per loss: "
        "mean over seeds at the last epoch. The grey bar spans the losses: where it is short, the "
        f"patient decides, not the loss (median span {middle}). Best loss, by number of patients, "
        f"ties split: {words}. {int(complete.sum())} of {cohort.num_subjects} {cohort.units} have "
        f"a value for every loss.{left_out}{cohort.averaged} {counted}.",
        alt=f"DSC of every patient under every loss; best loss by number of patients: {words}.",
    )


def _range(sizes: set[int]) -> str:
    if not sizes:
        return "0"
    return str(max(sizes)) if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"


# ---------------------------------------------------------------------------------------- frames
def pooled_frame(cohort: CohortScores) -> pd.DataFrame:
    """Quantiles of the pooled values (the values themselves are the rows behind the bands)."""
    pooled, rows = pooled_epochs(cohort.curves), []
    for loss in cohort.shown:
        for view, name in ((1, "train"), (2, "test")):
            for i, metric in enumerate(METRICS):
                values = pooled[loss, :, view, i]
                values = values[~np.isnan(values)]
                if len(values):
                    low, q1, median, q3, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
                    rows.append(
                        {
                            "cohort": cohort.name,
                            LOSS: cohort.losses[loss],
                            "view": name,
                            "metric": metric,
                            "values": len(values),
                            "mean": values.mean(),
                            "lowest": low,
                            "q1": q1,
                            "median": median,
                            "q3": q3,
                            "highest": high,
                        }
                    )
    return pd.DataFrame(rows)


def patient_frame(cohort: CohortScores) -> pd.DataFrame:
    """One row per loss and patient, with how many seeds define the mean (of all sessions)."""
    final = cohort.last_by_case(cohort.test)
    scores = patient_scores(cohort)
    first = first_cases(cohort.subject_of)
    who: dict[str, object] = {"case": cohort.cases}
    if cohort.has_sessions:
        who = {"patient": cohort.subjects, "sessions": np.bincount(cohort.subject_of)}
    rows = []
    for loss in cohort.shown:
        rows.append(
            pd.DataFrame(
                {
                    "cohort": cohort.name,
                    LOSS: cohort.losses[loss],
                    **who,
                    "site": cohort.sites[first],
                    "fold": [cohort.folds[i] for i in cohort.fold_of[first]],
                    **{metric: scores[loss, :, i] for i, metric in enumerate(METRICS)},
                    **{
                        f"seeds_{metric}": np.bincount(
                            cohort.subject_of, (~np.isnan(final[loss, :, :, i])).sum(0)
                        ).astype(int)
                        for i, metric in enumerate(METRICS)
                    },
                }
            )
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _describe(cohort: CohortScores, scores: np.ndarray) -> str:
    means, parts = last_means(cohort)[:, VIEWS.index("test"), METRICS.index("dice")], []
    for loss in cohort.shown:
        values = scores[loss, :, 0]
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.quantile(values, (0.25, 0.75))
            parts.append(
                f"{cohort.losses[loss]} mean {means[loss]:.3f}, middle half {low:.3f} to {high:.3f}"
            )
    return f"Dots of patient DSC for {cohort.title}: {'; '.join(parts)}."


# ---------------------------------------------------------------------------------------- drawing
def draw_pooled(cohort: CohortScores) -> Drawing:
    """Three metrics side by side; each violin is split into train and test."""
    pooled = pooled_epochs(cohort.curves)
    figure, axes = _axes(cohort)
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        for x, loss in enumerate(cohort.shown):
            for view, side in ((1, -1), (2, 1)):
                grid, width = outline(pooled[loss, :, view, i])
                if len(grid):
                    axis.fill_betweenx(
                        grid,
                        x,
                        x + side * 0.42 * width,
                        linewidth=0.7,
                        facecolor=style.colour(loss),
                        gid=f"L{loss}",
                        edgecolor=style.colour(loss),
                        alpha=0.3 if view == 1 else 0.75,
                    )
        _finish(axis, cohort, METRIC_NAMES[metric], i == 0)
    return figure


def draw_patients(cohort: CohortScores) -> Drawing:
    """Three metrics side by side; dots are patients, at the same offset for every loss."""
    scores = patient_scores(cohort)
    figure, axes = _axes(cohort)
    # A low-discrepancy offset per patient: dots do not hide each other, and need no randomness.
    offset = ((np.arange(len(cohort.subjects)) * 0.6180339887) % 1 - 0.5) * 0.5
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        for x, loss in enumerate(cohort.shown):
            values = scores[loss, :, i]
            grid, width = outline(values)
            if len(grid):
                axis.fill_betweenx(
                    grid,
                    x - 0.42 * width,
                    x + 0.42 * width,
                    linewidth=0,
                    facecolor=style.colour(loss),
                    alpha=0.22,
                    gid=f"L{loss}",
                )
            axis.plot(
                x + offset,
                values,
                linestyle="",
                marker="o",
                markersize=2.2,
                alpha=0.75,
                color=style.colour(loss),
                markeredgewidth=0,
                gid=f"L{loss}",
            )
            if not np.isnan(values).all():
                axis.plot(
                    [x - 0.3, x + 0.3],
                    [np.nanmean(values)] * 2,
                    color=style.INK,
                    linewidth=1.4,
                    gid=f"L{loss}",
                )
        _finish(axis, cohort, METRIC_NAMES[metric], i == 0)
    return figure


def draw_patient_lines(cohort: CohortScores, scores: np.ndarray) -> Drawing:
    """Patients along the horizontal axis, losses as markers, their span as a bar."""
    dice = scores[cohort.shown, :, 0]
    known = np.flatnonzero((~np.isnan(dice)).any(0))
    order = known[np.argsort(np.nanmean(dice[:, known], axis=0), kind="stable")]
    top = style.legend_height(cohort.losses, cohort.shown) + 0.1
    figure, axes = style.panels(1, 1, height=2.5 + top, top=top, left=0.5, bottom=0.3)
    axis = axes[0, 0]
    x = np.arange(len(order))
    axis.vlines(
        x,
        np.nanmin(dice[:, order], axis=0),
        np.nanmax(dice[:, order], axis=0),
        color=style.GRID,
        linewidth=4,
    )
    for place, loss in enumerate(cohort.shown):
        axis.plot(
            x,
            dice[place, order],
            linestyle="",
            marker=style.marker(loss),
            markersize=3.2,
            markeredgewidth=0.5,
            color=style.colour(loss),
            gid=f"L{loss}",
        )
    axis.set_xlim(-0.7, max(len(order), 1) - 0.3)
    axis.set_xticks([])
    axis.set_xlabel("patients, hard to easy")
    axis.set_ylabel("DSC")
    style.rate_axis(axis)
    style.legend(figure, cohort.losses, cohort.shown, markers=True)
    return figure


def _axes(cohort: CohortScores) -> tuple[Drawing, np.ndarray]:
    longest = max([len(cohort.losses[loss]) for loss in cohort.shown], default=4)
    return style.panels(
        1,
        3,
        height=2.75 + 0.05 * longest,
        top=0.26,
        gap_x=0.2,
        bottom=0.14 + 0.05 * longest,
        left=0.36,
    )


def _finish(axis, cohort: CohortScores, title: str, first: bool) -> None:
    axis.set_title(title)
    axis.set_xticks(
        range(len(cohort.shown)),
        [cohort.losses[loss] for loss in cohort.shown],
        rotation=90 if len(cohort.shown) > 3 else 0,
    )
    axis.set_xlim(-0.6, max(len(cohort.shown), 1) - 0.4)
    axis.grid(False, axis="x")
    axis.tick_params(labelleft=first, bottom=False)
    style.rate_axis(axis)
