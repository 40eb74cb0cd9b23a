"""Does the disagreement of the seeds find the voxels that they get wrong?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Section, Table, written
from analysis.reading.scores import CohortScores
from analysis.reading.together import Together
from analysis.sections.panels import loss_panels
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics import confidence
from analysis.statistics.ladder import ladder
from analysis.statistics.retention import area, at_shares, found_in, ideal
from analysis.statistics.together import gain, mean_over_seeds, own_error
from lesion_core import standing

LOOKED = 0.01
"""Share of the brain that somebody looks at again, of which the table speaks."""
SHARES = np.logspace(-4, 0, 41)

GAINED = "Area, disagreement − one"

BY = {
    "disagreement": "disagreement",
    "entropy": "entropy, all",
    "single": "entropy, one",
}
"""By which uncertainty voxels are looked at, and its name in the figure."""


def section(given: ReportInput) -> Section | None:
    """A figure and a table per cohort whose seeds were scored together."""
    cohorts = [cohort for cohort in given.cohorts if cohort.name in given.together]
    items: list[Figure | Table | Heading] = []
    for cohort in cohorts:
        if len(cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items += _items(cohort, given.together[cohort.name])
    if not items:
        return None
    return Section(
        key="uncertainty",
        title="Does disagreement find the errors?",
        items=items,
        lead="Where networks that differ by their seed alone disagree, some of them are wrong. If "
        "somebody looks at those voxels first and puts them right, errors go faster than by "
        "looking anywhere. The question is whether they also go faster than by the doubt that a "
        "single network has, which costs one training.",
    )


def _items(cohort: CohortScores, own: Together) -> list[Figure | Table]:
    columns = {
        "disagreement": ("disagreement_voxels", "disagreement_errors"),
        "entropy": ("entropy_voxels", "entropy_errors"),
        "single": ("entropy_voxels", "ensemble_errors"),
    }
    counts = {name: (own.column(of), own.column(wrong)) for name, (of, wrong) in columns.items()}
    areas = {name: area(*both) for name, both in counts.items()}
    found = {name: found_in(*both, LOOKED) for name, both in counts.items()}
    wrong = counts["disagreement"][1].sum(-1) / counts["disagreement"][0].sum(-1)
    rows, points = [], []
    for loss in own.losses:
        label = cohort.losses[loss]
        row: dict[str, object] = {"cohort": cohort.name, LOSS: label}
        row["wrong"] = _mean(own.all(wrong)[loss][None], cohort)
        for name in BY:
            if name == "single":
                fit = ladder(own.alone(areas[name][0])[loss], cohort.fold_of, cohort.subject_of)
                row["single_found"] = _mean(own.alone(found[name])[loss], cohort)
            else:
                fit = own_error(own, areas[name][0], loss, cohort)
                row[f"{name}_found"] = _mean(own.all(found[name])[loss][None], cohort)
            row |= {name: fit.estimate, f"{name}_half": fit.half_width("L2")}
            if name == "disagreement":
                row |= cohort.columns(fit.num_cases, fit.num_subjects)
        fit, _ = gain(own, areas["disagreement"][0], loss, cohort, areas["single"][0], (-2.0, 2.0))
        row |= {"gain": fit.estimate, "gain_half": fit.half_width("L2")}
        rows.append(row)
        points += _points(own, counts, loss, cohort)
    frame, data = pd.DataFrame(rows), pd.DataFrame(points)
    whole, only = (own.rows["whole"].to_numpy(bool), own.rows["only"].to_numpy(int) >= 0)
    used = {"disagreement": whole, "entropy": whole, "single": only}
    off = max(float(np.nanmax(areas[name][1][here], initial=0)) for name, here in used.items())
    said = "; ".join(
        f"{row[LOSS]} {written(row['disagreement'])}, by one network's entropy "
        f"{written(row['single'])}"
        for row in frame.to_dict("records")
    )
    return [
        Figure(
            key=f"retention-{cohort.name}",
            title=f"Errors left, by share of the brain looked at, {cohort.title}",
            draw=partial(draw, cohort.losses, own.losses, data),
            data=data,
            caption="Errors of all networks together at 0.5, of the voxels inside the brain; the "
            "most uncertain are looked at first, by the disagreement of the networks (line), by "
            "the entropy of their mean probability (dashed), or by the entropy of one network's "
            "(dotted, black). Grey, dashed: in any order; grey, dotted: the errors themselves "
            "first. The axis is logarithmic. "
            f"Mean over patients.{cohort.averaged} {own.counted}.",
            alt=f"Errors left by share of voxels looked at. Area from chance 0 to ideal 1: {said}.",
        ),
        _table(cohort, own, frame, off),
    ]


def _points(
    own: Together,
    counts: dict[str, tuple[np.ndarray, ...]],
    loss: int,
    cohort: CohortScores,
) -> list[dict[str, object]]:
    """Mean curves of a loss over patients."""
    curves = {}
    for name, (voxels, errors) in counts.items():
        left = at_shares(voxels, errors, SHARES)
        if name == "single":
            curves[name] = mean_over_seeds(own.alone(left))[loss]
        else:
            curves[name] = own.all(left)[loss]
    voxels, errors = counts["disagreement"]
    curves["ideal"] = own.all(ideal(errors.sum(-1) / voxels.sum(-1), SHARES))[loss]
    return [
        {"cohort": cohort.name, LOSS: cohort.losses[loss], "looked_at": share}
        | {name: _mean(left[None, :, at], cohort) for name, left in curves.items()}
        | {"any_order": 1 - share}
        for at, share in enumerate(SHARES)
    ]


def _mean(values: np.ndarray, cohort: CohortScores) -> float:
    return standing.weighed_mean(values, cohort.fold_of, cohort.subject_of).value


def _table(cohort: CohortScores, own: Together, frame: pd.DataFrame, off: float) -> Table:
    first = f"Errors in the first {LOOKED:.0%}".replace("%", " %")
    found = [
        Column(key=f"{name}_found", header=header, group=first, decimals=0, percent=True)
        for name, header in BY.items()
    ]
    return Table(
        key=f"retention-table-{cohort.name}",
        title=f"How well uncertainty finds errors, per patient, {cohort.title}",
        frame=frame,
        losses=cohort.losses,
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(key="wrong", header="of the brain", group="Wrong", decimals=2, percent=True),
            Column(key="disagreement", header="disagreement", group="Area", decimals=4),
            Column(key="disagreement_half", header="±", group="Area", decimals=4),
            Column(key="entropy", header="entropy, all", group="Area", decimals=4),
            Column(key="single", header="entropy, one", group="Area", decimals=4),
            Column(key="gain", header="mean", group=GAINED, decimals=4, signed=True),
            Column(key="gain_half", header="±", group=GAINED, decimals=4),
            *found,
        ],
        caption="Area: 0 where errors lie in any order, 1 where they come first (of one image, "
        "2 AUC − 1 of telling wrong voxels from right ones). Most of a brain is easy background, "
        "so areas are near 1 for all; how many errors lie in the first 1 % of the voxels separates "
        "them better. One: the entropy of a single network's probability, mean over networks. "
        f"±: {confidence.in_percent()} half-width for new seeds and patients, not for new training "
        "sets; – where there are too few seeds and folds to tell. Histograms have ten bins to each "
        f"halving, so an image's area is known to {written(off, '.4f')}. {ROUNDED} {own.counted}.",
    )


def draw(losses: list[str], shown: list[int], data: pd.DataFrame) -> Drawing:
    """A panel per loss."""
    figure, panels = loss_panels(losses, shown)
    dashes = {"disagreement": (), "entropy": (5, 1.5), "single": (1.2, 1.2)}
    for loss, axis, first, last in panels:
        own = data[data[LOSS] == losses[loss]]
        x = own["looked_at"]
        axis.plot(x, own["any_order"], color=style.MUTED, linewidth=0.7, dashes=(5, 2))
        axis.plot(x, own["ideal"], color=style.MUTED, linewidth=0.7, dashes=(1, 1.5))
        for name, pattern in dashes.items():
            axis.plot(
                x, own[name], color=style.colour(loss) if name != "single" else style.INK,
                linewidth=1.3, gid=f"L{loss}", **({"dashes": pattern} if pattern else {}),
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlim(SHARES[0], 1)
        axis.set_xticks([1e-3, 1e-2, 0.1], [".1%", "1%", "10%"])
        axis.minorticks_off()
        style.rate_axis(axis)
        if first:
            axis.set_ylabel("errors left")
        if last:
            axis.set_xlabel("looked at")
    return figure
