"""Are lesions found, and are their borders right: counts, sizes, volumes and distances.

Every table says for how many cases a rate is defined.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import (
    LOSS,
    Column,
    Figure,
    Heading,
    Note,
    Section,
    Table,
    prose,
    written,
)
from analysis.reading.scores import METRIC_NAMES, METRICS, CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.collapse import collapsed
from analysis.statistics.ladder import RATE
from analysis.statistics.lesions import STRATA, by_case, lesion_rates, mean_and_error, strata_frame
from lesion_core.results import Sweep

RATES = ("lesion_recall", "lesion_precision", "lesion_f1", "nsd")
"""Columns between 0 and 1."""


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """Lesion-wise detection, strata, borders, sites, and cases without lesions."""
    if not (given.cohorts and given.is_ledger):
        return None
    items: list[Figure | Table | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        counted, own = side_by_side(cohort), comparable(cohort)
        items.append(_detection_table(own, counted))
        items.append(_strata_figure(given.sweep, own, counted))
        items += _distance_table(given.sweep, own, counted)
        items += _site_table(own, counted)
        items += _empty_table(own, counted)
    return Section(
        key="lesions",
        title="Are lesions found, and where are they missed?",
        items=items,
        lead="DSC is dominated by large lesions. A radiologist also counts: how many lesions "
        "were found, how many were made up, how small may a lesion be before a loss "
        "misses it, and how far off are the borders?",
    )


def _means(cohort: CohortScores, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for loss in cohort.shown:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
        for name, values in columns.items():
            mean, half, *sizes = mean_and_error(
                values[loss],
                cohort.fold_of,
                cohort.subject_of,
                RATE if name in RATES else (0.0, np.inf),
            )
            row |= {name: mean, f"{name}_half": half} | _columns(cohort, name, *sizes)
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(cohort: CohortScores, name: str, cases: int, subjects: int) -> dict[str, int]:
    """How many cases, and patients if they are fewer, are behind a column."""
    return {f"{name}_{key}": count for key, count in cohort.columns(cases, subjects).items()}


def _defined(cohort: CohortScores, frame: pd.DataFrame, names: dict[str, str]) -> str:
    """For how many cases each rate is defined, in words; n of N."""
    total, noun = cohort.num_cases, "sessions" if cohort.has_sessions else "cases"
    parts = []
    for key, name in names.items():
        cases = sorted(set(frame[f"{key}_cases"].astype(int))) if len(frame) else [0]
        if cases != [total]:
            of = _range(frame[f"{key}_patients"].astype(int)) if cohort.has_sessions else ""
            parts.append(f"{name} {_range(cases)}" + (f" (of {of} patients)" if of else ""))
    return (
        f"{noun.capitalize()} with a value in every trial, of {total}: {', '.join(parts)}; the "
        "other columns all."
        if parts
        else f"{total} of {total} {noun} define every column."
    ) + cohort.averaged


def _range(counts: Iterable[int]) -> str:
    """The lowest and the highest of some counts, in words."""
    low, high = min(counts := list(counts)), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _detection_table(cohort: CohortScores, counted: str) -> Table:
    rates = lesion_rates(cohort.final)
    names = {
        "lesion_recall": "recall",
        "lesion_precision": "precision",
        "lesion_f1": "F1",
        "false_lesions": "false lesions",
        "volume_error": "volume error",
    }
    frame = _means(cohort, {key: by_case(cohort, rates[key].to_numpy()) for key in names})

    def pair(
        key: str, header: str, decimals: int, best: str, percent: bool = False
    ) -> list[Column]:
        return [
            Column(
                key=key, header="mean", group=header, decimals=decimals, best=best, percent=percent
            ),
            Column(key=f"{key}_half", header="±", group=header, decimals=decimals, percent=percent),
        ]

    return Table(
        key=f"lesions-{cohort.name}",
        title=f"Lesion by lesion, {cohort.title}",
        frame=frame,
        losses=cohort.losses,
        collapsed=collapsed(cohort),
        comparable=cohort.is_even,
        columns=[
            Column(key=LOSS, header="Loss"),
            *pair("lesion_recall", "Recall", 3, "max"),
            *pair("lesion_precision", "Precision", 3, "max"),
            *pair("lesion_f1", "F1", 3, "max"),
            *pair("false_lesions", "False lesions per case", 1, "min"),
            *pair("volume_error", "Volume error", 0, "min", True),
        ],
        caption="Means over patients at the last epoch, test images: 26-connected lesions, one "
        "voxel of overlap is a hit. F1 is 0 where there are lesions and none is predicted, or none "
        f"and some are. ±: {confidence.in_percent()} half-width for new seeds and patients, of "
        f"intervals that end where a value can lie. {_defined(cohort, frame, names)} {counted}.",
    )


def _strata_figure(sweep: Sweep, cohort: CohortScores, counted: str) -> Figure | Note:
    frame = strata_frame(sweep.lesions, cohort)
    if frame.empty:
        return Note(kind="warning", body=prose(f"{cohort.title}: no lesion was recorded."))
    first = frame[frame[LOSS] == frame[LOSS].iloc[0]]
    counts = ", ".join(
        f"{row['size_mm3']} mm³ {row['reference_lesions']:.0f}" for row in first.to_dict("records")
    )
    overall = ", ".join(
        f"{row[LOSS]} {written(row['recall_all_sizes'], '.3f')}"
        for row in frame[frame["size_mm3"] == STRATA[0]].to_dict("records")
    )
    tested = cohort.part_with(np.isin(np.arange(len(cohort.cases)), cohort.final["case_index"]))
    smallest = frame[frame["size_mm3"] == STRATA[0]].dropna(subset=["recall"])
    words = ", ".join(f"{row[LOSS]} {row['recall']:.3f}" for row in smallest.to_dict("records"))
    return Figure(
        key=f"strata-{cohort.name}",
        title=f"Detection by lesion size, {cohort.title}",
        draw=partial(draw_strata, cohort.losses, cohort.shown, frame),
        data=frame,
        caption="Left: share of reference lesions touched, by reference volume, every lesion "
        f"counting alike: of all sizes together {overall} (in the recall of the table above "
        "patients count alike, however many lesions they have). Right: predicted "
        "lesions that touch none, per patient, by predicted volume. Bars: "
        f"{confidence.in_percent()} interval "
        f"with patients as clusters, if looked at once.{cohort.averaged} "
        f"Reference lesions: {counts}; {tested}. "
        f"{counted}.",
        alt=f"Share of lesions below 10 mm3 that were found: {words or 'none recorded'}.",
    )


def _distance_table(sweep: Sweep, cohort: CohortScores, counted: str) -> list[Table]:
    names = {"hd95_mm": "HD95", "nsd": "surface Dice", "wmh_h95_mm": "H95 (WMH)"}
    names = {key: name for key, name in names.items() if cohort.final[key].notna().any()}
    if not names:
        return []
    columns, undefined = {}, {}
    for key in names:
        values = by_case(cohort, cohort.final[key].to_numpy(float))
        columns[key] = values
        tested = by_case(cohort, np.ones(len(cohort.final)))
        undefined[key] = (
            (np.isnan(values) & ~np.isnan(tested)).sum((1, 2)),
            (~np.isnan(tested)).sum((1, 2)),
        )
    frame = _means(cohort, columns)
    first = next(iter(names))
    frame["undefined"] = [
        undefined[first][0][loss] / max(1, undefined[first][1][loss]) for loss in cohort.shown
    ]
    diagonal = _diagonals(sweep, cohort)
    if "hd95_mm" in names and diagonal is not None:
        tested = by_case(cohort, np.ones(len(cohort.final)))
        worst = np.where(
            np.isnan(columns["hd95_mm"]) & ~np.isnan(tested), diagonal, columns["hd95_mm"]
        )
        frame["hd95_worst"] = [
            mean_and_error(worst[loss], cohort.fold_of, cohort.subject_of)[0]
            for loss in cohort.shown
        ]
    decimals = {"hd95_mm": 1, "nsd": 3, "wmh_h95_mm": 1}
    shown = [Column(key=LOSS, header="Loss")]
    for key, name in names.items():
        shown += [
            Column(
                key=key,
                header="mean",
                group=name,
                decimals=decimals[key],
                best="max" if key == "nsd" else "min",
            ),
            Column(key=f"{key}_half", header="±", group=name, decimals=decimals[key]),
        ]
    if "hd95_worst" in frame:
        shown.append(Column(key="hd95_worst", header="HD95, worst case", decimals=1, best="min"))
    shown.append(Column(key="undefined", header="undefined", decimals=1, percent=True))
    return [
        Table(
            key=f"distances-{cohort.name}",
            title=f"How far off are the borders? {cohort.title}",
            frame=frame,
            columns=shown,
            losses=cohort.losses,
            collapsed=collapsed(cohort),
            comparable=cohort.is_even,
            caption="HD95: 95th percentile of surface distances, mm. Surface Dice: share of "
            "surface "
            "within the tolerance. H95: the WMH challenge's own definition. Undefined: share "
            "of images without a prediction or a reference, which the means leave out; worst "
            "case counts the image diagonal there, so that a loss cannot improve by "
            f"predicting nothing. ±: {confidence.in_percent()} half-width for new seeds and "
            f"patients. {_defined(cohort, frame, names)} {counted}.",
        )
    ]


def _diagonals(sweep: Sweep, cohort: CohortScores) -> np.ndarray | None:
    """[P] image diagonals in mm, if the cohort's table is there."""
    cases = sweep.cohort_table(cohort.name, "cases.parquet").drop_duplicates("case")
    if cases.empty:
        return None
    length = {
        case: float(np.linalg.norm(np.multiply(shape, spacing)))
        for case, shape, spacing in zip(
            cases["case"], cases["shape"], cases["spacing_mm"], strict=True
        )
    }
    return np.array([length.get(case, np.nan) for case in cohort.cases])


def _site_table(cohort: CohortScores, counted: str) -> list[Table]:
    sites = [site for site in dict.fromkeys(cohort.sites) if site]
    if len(sites) < 2:
        return []
    final, rows = cohort.last_by_case(cohort.test), []
    for loss in cohort.shown:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
        for site in sites:
            here = cohort.sites == site
            for i, metric in enumerate(METRICS):
                values = final[loss, :, here, i].T
                mean, half, *sizes = mean_and_error(
                    values, cohort.fold_of[here], cohort.subject_of[here], RATE
                )
                name = f"{metric}_{site}"
                row |= {name: mean, f"{name}_half": half} | _columns(cohort, name, *sizes)
        rows.append(row)
    columns = [Column(key=LOSS, header="Loss")]
    for site in sites:
        columns += [
            Column(
                key=f"{metric}_{site}",
                header=METRIC_NAMES[metric],
                group=site,
                decimals=3,
                best="max",
            )
            for metric in METRICS
        ]
    of_site = {site: cohort.sites == site for site in sites}
    numbers = ", ".join(
        f"{site} {cohort.counted_with(here)}" if cohort.has_sessions else f"{site} {here.sum()}"
        for site, here in of_site.items()
    )
    noun = "Sessions" if cohort.has_sessions else "Cases"
    return [
        Table(
            key=f"sites-{cohort.name}",
            title=f"Scanner by scanner, {cohort.title}",
            frame=pd.DataFrame(rows),
            columns=columns,
            losses=cohort.losses,
            collapsed=collapsed(cohort),
            comparable=cohort.is_even,
            caption=f"Means over the test {cohort.units} of a site at the last epoch."
            f"{cohort.averaged} {noun}, {len(cohort.cases)} of {cohort.num_cases}: {numbers}. "
            f"Half-widths are in the CSV. {counted}.",
        )
    ]


def _empty_table(cohort: CohortScores, counted: str) -> list[Table]:
    """What a loss does where there is nothing to find."""
    final = cohort.final
    empty = final[(final["tp"] + final["fn"] == 0).to_numpy()]
    if empty.empty:
        return []
    rows = []
    for loss in cohort.shown:
        own = empty[(empty["loss_index"] == loss).to_numpy()]
        volume_ml = own["fp"] * own["voxel_mm3"] / 1000
        rows.append(
            {
                "cohort": cohort.name,
                LOSS: cohort.losses[loss],
                "cases": int(own["case_index"].nunique()),
                "images": len(own),
                "clean": float((own["fp"] == 0).mean()) if len(own) else float("nan"),
                "false_ml": float(volume_ml.mean()) if len(own) else float("nan"),
                "false_lesions": float(own["n_pred"].mean()) if len(own) else float("nan"),
            }
        )
    count = int(empty["case_index"].nunique())
    return [
        Table(
            key=f"empty-{cohort.name}",
            title=f"Cases without a lesion, {cohort.title}",
            frame=pd.DataFrame(rows),
            losses=cohort.losses,
            collapsed=collapsed(cohort),
            comparable=cohort.is_even,
            columns=[
                Column(key=LOSS, header="Loss"),
                Column(key="images", header="Images"),
                Column(key="clean", header="left clean", decimals=0, percent=True, best="max"),
                Column(key="false_ml", header="false volume, ml", decimals=2, best="min"),
                Column(key="false_lesions", header="false lesions", decimals=1, best="min"),
            ],
            caption=f"{count} of {cohort.num_cases} test "
            f"{'sessions' if cohort.has_sessions else 'cases'} have no reference lesion: "
            "sensitivity "
            "is undefined there, DSC undefined if nothing is predicted and 0 otherwise. One "
            f"image per {'session' if cohort.has_sessions else 'case'} and training. "
            f"{counted}.",
        )
    ]


# ---------------------------------------------------------------------------------------- drawing
def draw_strata(losses: list[str], shown: list[int], frame: pd.DataFrame) -> Drawing:
    """Recall and false lesions by size, losses side by side."""
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 2, height=2.6 + top, top=top, gap_x=0.5, left=0.5, bottom=0.45)
    step = 0.8 / max(1, len(shown))
    for axis, key, title in (
        (axes[0, 0], "recall", "Lesions found"),
        (axes[0, 1], "false_per_patient", "False lesions per patient"),
    ):
        for number, loss in enumerate(shown):
            own = frame[frame[LOSS] == losses[loss]].set_index("size_mm3").reindex(STRATA)
            x = np.arange(len(STRATA)) - 0.4 + step * (number + 0.5)
            y = own[key].to_numpy(float)
            if key == "recall":
                low, high = own["recall_low"].to_numpy(float), own["recall_high"].to_numpy(float)
            else:
                error = own["false_half"].to_numpy(float)
                low, high = np.maximum(y - error, 0), y + error
            axis.vlines(
                x, low, high, color=style.colour(loss), linewidth=1, alpha=0.7, gid=f"L{loss}"
            )
            axis.plot(
                x,
                y,
                marker=style.marker(loss),
                markersize=4,
                linestyle="",
                color=style.colour(loss),
                gid=f"L{loss}",
                markeredgewidth=0.6,
            )
        axis.set_title(title)
        axis.set_xticks(range(len(STRATA)), STRATA)
        axis.set_xlabel("volume, mm³")
        axis.grid(False, axis="x")
        axis.set_xlim(-0.5, len(STRATA) - 0.5)
        if key == "recall":
            style.rate_axis(axis)
        else:
            axis.set_ylim(bottom=0)
    style.legend(figure, losses, shown, markers=True)
    return figure
