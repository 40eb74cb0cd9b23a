"""What do the seeds of a loss gain together, and how does that grow with their number?"""

from __future__ import annotations

from functools import partial

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
from analysis.reading.scores import METRIC_NAMES, CohortScores
from analysis.reading.together import Together
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics import confidence
from analysis.statistics.together import SCORES, curve, gain, off_the_ledger, score_rows

NAMES = METRIC_NAMES | {"lesion_f1": "Lesion F1"}
SAME_DSC = 1e-4
"""Networks alone that differ from the ledger by less than what a table prints are the same."""


def section(given: ReportInput) -> Section | None:
    """A figure and a table per cohort whose seeds were scored together."""
    scored = [cohort for cohort in given.cohorts if cohort.name in given.together]
    if not scored:
        return None
    items: list[Figure | Table | Heading] = []
    for cohort in scored:
        if len(scored) > 1:
            items.append(Heading(text=cohort.title))
        items += _items(cohort, given.together[cohort.name])
    return Section(
        key="ensembles",
        title="What do seeds gain together?",
        items=items,
        lead="Networks that differ by nothing but their seed can be averaged: the mean of their "
        "probabilities is one segmentation, better or not than that of a single one. Each case is "
        "scored by the networks of its own fold, which never saw it.",
    )


def unscored(given: ReportInput) -> list[Note]:
    """How to have seeds scored together, of a ledger with cohorts whose seeds were not."""
    several = [c for c in given.cohorts if given.is_ledger and (c.done.sum(1) > 1).any()]
    left = [cohort.title for cohort in several if cohort.name not in given.together]
    if not left:
        return []
    return [
        Note(
            body=prose(
                f"Seeds of {' and '.join(left)} are not scored together yet. `lesion-sweep predict "
                "RESULTS --data DATA --score` averages their probabilities on each fold's test "
                "cases; the next report then shows what they gain, whether their disagreement "
                "finds the errors, and how well their mean is calibrated."
            )
        )
    ]


def _items(cohort: CohortScores, own: Together) -> list[Figure | Table]:
    values = score_rows(own.rows)
    rows, points = [], []
    for loss in own.losses:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
        for name in SCORES:
            fit, alone = gain(own, values[name], loss, cohort)
            row |= {
                f"{name}_alone": alone,
                f"{name}_together": alone + fit.estimate,
                f"{name}_gain": fit.estimate,
                f"{name}_half": fit.half_width("L2"),
                f"{name}_half_seeds": fit.half_width("L1"),
            }
            if name == "dice":
                row |= cohort.columns(fit.num_cases, fit.num_subjects)
        row["networks"] = int(own.networks[loss][own.networks[loss] > 0].min())
        rows.append(row)
        curves = {name: curve(own, values[name], loss, cohort) for name in (*SCORES, "brier")}
        points += [
            {"cohort": cohort.name, LOSS: cohort.losses[loss], "networks": size}
            | {name: curves[name][size] for name in curves}
            for size in curves["dice"]
        ]
    frame = pd.DataFrame(rows)
    said = "; ".join(
        f"{row[LOSS]} {written(row['dice_gain'], '+.3f')} ± {written(row['dice_half'], '.3f')}"
        for row in frame.to_dict("records")
    )
    off = off_the_ledger(own, cohort)
    here = (
        f" Networks alone were computed again, in {' and '.join(own.precisions)}; from their own "
        f"trials' DSC they differ by up to {written(off, '.4f')}."
        if off >= SAME_DSC
        else ""
    )
    return [
        _table(cohort, own, frame, here),
        Figure(
            key=f"ensembles-{cohort.name}",
            title=f"Test metrics by number of networks together, {cohort.title}",
            draw=partial(draw, cohort.losses, own.losses, pd.DataFrame(points)),
            data=pd.DataFrame(points),
            caption="Mean over patients of the mean probability of so many networks, cut at 0.5. "
            "Below all of them a point is a mean over parts that hold each network (nearly) as "
            "often, so what a line shows is the number, not the choice; the last point is a single "
            "ensemble. Neighbouring points share networks, and all are of the same seeds: how far "
            f"another set of seeds would be is the ± of the table.{cohort.averaged} {own.counted}.",
            alt=f"DSC, sensitivity, precision and lesion F1 by number of networks. DSC gained by "
            f"all of them: {said}.",
        ),
    ]


def _table(cohort: CohortScores, own: Together, frame: pd.DataFrame, here: str) -> Table:
    columns = [Column(key=LOSS, header="Loss"), Column(key="networks", header="networks")]
    for name in ("dice_alone", "dice_together"):
        header = name.removeprefix("dice_")
        columns.append(Column(key=name, header=header, group="DSC", decimals=3, best="max"))
    for name in SCORES:
        group = "DSC" if name == "dice" else f"{NAMES[name]}, gain"
        header = "gain" if name == "dice" else "mean"
        columns += [
            Column(key=f"{name}_gain", header=header, group=group, decimals=3, signed=True),
            Column(key=f"{name}_half", header="±", group=group, decimals=3),
        ]
    return Table(
        key=f"ensemble-table-{cohort.name}",
        title=f"All seeds together against one alone, {cohort.title}",
        frame=frame,
        losses=cohort.losses,
        columns=columns,
        comparable=len(set(frame["networks"])) == 1,
        caption="Gain: all networks of a fold together minus one of them alone, mean over the "
        "networks, then over patients, the same for both. "
        f"±: {confidence.in_percent()} half-width for new seeds and patients (that another set of "
        "as many seeds would differ is told by leaving out one network at a time), not for new "
        f"training sets; – where there are too few seeds and folds to tell.{here} {ROUNDED} "
        f"{own.counted}.",
    )


def draw(losses: list[str], shown: list[int], points: pd.DataFrame) -> Drawing:
    """A panel per score, a line per loss."""
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(
        1, len(SCORES), height=2.1 + top, top=top, gap_x=0.42, left=0.4, bottom=0.42
    )
    for axis, name in zip(axes[0], SCORES, strict=True):
        for loss in shown:
            own = points[points[LOSS] == losses[loss]]
            axis.plot(
                own["networks"], own[name], marker=style.marker(loss), markersize=3,
                clip_on=False, **style.line_style(loss),
            )  # fmt: skip
        axis.set_ylim(bottom=max(axis.get_ylim()[0], 0))
        axis.set_title(NAMES[name])
        axis.set_xlabel("networks")
        axis.set_xlim(0.5, points["networks"].max() + 0.5)
        axis.locator_params(axis="x", nbins=5, integer=True)
        axis.locator_params(axis="y", nbins=4)
    style.legend(figure, losses, shown, markers=True)
    return figure
