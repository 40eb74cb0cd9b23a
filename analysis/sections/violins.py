"""How scores are distributed: as the paper pools them (Fig. 8), and one dot per patient."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from scipy.stats import gaussian_kde

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Section
from analysis.reading.scores import METRIC_NAMES, METRICS, Study


def section(studies: list[Study]) -> Section:
    """The paper's violins beside the honest ones."""
    items: list[Figure | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        pooled = pooled_epochs(study.curves)
        sizes = {int((~np.isnan(pooled[loss, :, 1, 0])).sum()) for loss in study.shown}
        items.append(
            Figure(
                key=f"violins-pooled-{study.cohort}",
                title=f"As the authors pooled them, {study.title} (the paper's Fig. 8)",
                draw=partial(draw_pooled, study),
                data=pooled_frame(study),
                caption="Each violin holds the epoch means of **all epochs after 0, all "
                "seeds and all "
                f"folds** as if they were independent: {_range(sizes)} values per loss from "
                f"{len(study.seeds) * len(study.folds)} trainings. It shows how long a loss "
                "spends at a value while it trains, not how patients fare. Left half: "
                f"training images; right half: test images. {study.presence}.",
                alt=f"Split violins of pooled epoch means for {study.title}, one per loss, "
                "for DSC, "
                "sensitivity and precision.",
            )
        )
        scores = patient_scores(study)
        defined = {
            METRIC_NAMES[m]: int((~np.isnan(scores[study.shown, :, i])).all(0).sum())
            for i, m in enumerate(METRICS)
        }
        words = ", ".join(f"{name} {n}" for name, n in defined.items())
        items.append(
            Figure(
                key=f"violins-{study.cohort}",
                title=f"One dot per patient, {study.title}",
                draw=partial(draw_patients, study),
                data=patient_frame(study),
                caption="Each dot is one test patient: the mean over its seeds at the last "
                "epoch. Bar: "
                "mean over patients. The violin ends where the data end. Patients with a "
                f"value for every loss, of {study.num_cases}: {words}. {study.presence}.",
                alt=_describe(study, scores),
            )
        )
        items.append(_patient_lines(study, scores))
    return Section(
        key="violins",
        title="How are scores distributed?",
        items=items,
        lead="The paper's violins mix epochs, seeds and folds; the second figure of each pair "
        "asks what a clinician would: how do my patients fare with the finished network?",
    )


def _patient_lines(study: Study, scores: np.ndarray) -> Figure:
    complete = ~np.isnan(scores[study.shown, :, 0]).any(0)
    dice = scores[study.shown][:, complete, 0]
    spread = np.ptp(dice, axis=0)
    middle = f"{np.median(spread):.3f}" if len(spread) else "undefined"
    best = np.argmax(dice, axis=0) if complete.any() else []
    wins = [int((np.asarray(best) == place).sum()) for place in range(len(study.shown))]
    words = ", ".join(
        f"{study.losses[loss]} {count}" for loss, count in zip(study.shown, wins, strict=True)
    )
    return Figure(
        key=f"patients-{study.cohort}",
        title=f"Patient by patient, DSC, {study.title}",
        draw=partial(draw_patient_lines, study, scores),
        data=patient_frame(study)[["cohort", LOSS, "case", "site", "fold", "dice", "seeds_dice"]],
        caption="One column per patient, from hard to easy (mean over losses); a marker per loss: "
        "mean over seeds at the last epoch. The grey bar spans the losses: where it is short, the "
        f"patient decides, not the loss (median span {middle}). Best loss, by number of patients: "
        f"{words}. {int(complete.sum())} of {study.num_cases} cases have a value for every loss. "
        f"{study.presence}.",
        alt=f"DSC of every patient under every loss; best loss by number of patients: {words}.",
    )


def _range(sizes: set[int]) -> str:
    if not sizes:
        return "0"
    return str(max(sizes)) if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"


# ---------------------------------------------------------------------------------------- numbers
def pooled_epochs(curves: np.ndarray) -> np.ndarray:
    """[L, S F E, views, metrics]: every epoch mean after epoch 0, flattened as in the authors'
    notebook (seeds x folds x epochs)."""
    values = curves[:, :, :, 1:]
    return values.reshape(values.shape[0], -1, *values.shape[4:])


def patient_scores(study: Study) -> np.ndarray:
    """[L, P, metrics]: mean over seeds of a patient's rates at the last epoch.  A patient whose
    rate is undefined or absent for some seed counts with the others; NaN when there is none."""
    final = study.last_by_case(study.test)
    number = (~np.isnan(final)).sum(1)
    total = np.nansum(final, 1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def pooled_frame(study: Study) -> pd.DataFrame:
    """Quantiles of the pooled values (the values themselves are the rows behind the bands)."""
    pooled, rows = pooled_epochs(study.curves), []
    for loss in study.shown:
        for view, name in ((1, "train"), (2, "test")):
            for i, metric in enumerate(METRICS):
                values = pooled[loss, :, view, i]
                values = values[~np.isnan(values)]
                if len(values):
                    low, q1, median, q3, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
                    rows.append(
                        {
                            "cohort": study.cohort,
                            LOSS: study.losses[loss],
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


def patient_frame(study: Study) -> pd.DataFrame:
    """One row per loss and patient, with how many seeds define the mean."""
    final = study.last_by_case(study.test)
    scores = patient_scores(study)
    rows = []
    for loss in study.shown:
        rows.append(
            pd.DataFrame(
                {
                    "cohort": study.cohort,
                    LOSS: study.losses[loss],
                    "case": study.cases,
                    "site": study.sites,
                    "fold": [study.folds[i] for i in study.fold_of],
                    **{metric: scores[loss, :, i] for i, metric in enumerate(METRICS)},
                    **{
                        f"seeds_{metric}": (~np.isnan(final[loss, :, :, i])).sum(0)
                        for i, metric in enumerate(METRICS)
                    },
                }
            )
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def outline(values: np.ndarray, points: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density (Scott's rule) between the lowest and the highest value, scaled to
    a peak of 1.  Fewer than three different values give no outline."""
    values = values[~np.isnan(values)]
    if len(np.unique(values)) < 3:
        return np.empty(0), np.empty(0)
    grid = np.linspace(values.min(), values.max(), points)
    density = gaussian_kde(values)(grid)
    return grid, density / density.max()


def _describe(study: Study, scores: np.ndarray) -> str:
    parts = []
    for loss in study.shown:
        values = scores[loss, :, 0]
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.quantile(values, (0.25, 0.75))
            parts.append(
                f"{study.losses[loss]} mean {values.mean():.2f}, middle half {low:.2f} "
                f"to {high:.2f}"
            )
    return f"Dots of patient DSC for {study.title}: {'; '.join(parts)}."


# ---------------------------------------------------------------------------------------- drawing
def draw_pooled(study: Study) -> Drawing:
    """Three metrics side by side; each violin is split into train and test."""
    pooled = pooled_epochs(study.curves)
    figure, axes = _axes(study)
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        for x, loss in enumerate(study.shown):
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
        _finish(axis, study, METRIC_NAMES[metric], i == 0)
    return figure


def draw_patients(study: Study) -> Drawing:
    """Three metrics side by side; dots are patients, at the same offset for every loss."""
    scores = patient_scores(study)
    figure, axes = _axes(study)
    # A low-discrepancy offset per patient: dots do not hide each other, and need no randomness.
    offset = ((np.arange(len(study.cases)) * 0.6180339887) % 1 - 0.5) * 0.5
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        for x, loss in enumerate(study.shown):
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
        _finish(axis, study, METRIC_NAMES[metric], i == 0)
    return figure


def draw_patient_lines(study: Study, scores: np.ndarray) -> Drawing:
    """Patients along the horizontal axis, losses as markers, their span as a bar."""
    dice = scores[study.shown, :, 0]
    known = np.flatnonzero((~np.isnan(dice)).any(0))
    order = known[np.argsort(np.nanmean(dice[:, known], axis=0), kind="stable")]
    top = style.legend_height(study.losses, study.shown) + 0.1
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
    for place, loss in enumerate(study.shown):
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
    style.legend(figure, study.losses, study.shown, markers=True)
    return figure


def _axes(study: Study) -> tuple[Drawing, np.ndarray]:
    longest = max([len(study.losses[loss]) for loss in study.shown], default=4)
    return style.panels(
        1,
        3,
        height=2.75 + 0.05 * longest,
        top=0.26,
        gap_x=0.2,
        bottom=0.14 + 0.05 * longest,
        left=0.36,
    )


def _finish(axis, study: Study, title: str, first: bool) -> None:
    axis.set_title(title)
    axis.set_xticks(
        range(len(study.shown)),
        [study.losses[loss] for loss in study.shown],
        rotation=90 if len(study.shown) > 3 else 0,
    )
    axis.set_xlim(-0.6, max(len(study.shown), 1) - 0.4)
    axis.grid(False, axis="x")
    axis.tick_params(labelleft=first, bottom=False)
    style.rate_axis(axis)
