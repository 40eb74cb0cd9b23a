"""What does a loss pull on: its gradient per voxel, and the confident errors that are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import (
    LOSS,
    Column,
    Figure,
    Heading,
    Item,
    Note,
    Section,
    Table,
    prose,
    written,
)
from analysis.reading.names import frame_as_shown
from analysis.reading.scores import VIEWS, CohortScores
from analysis.sections.bands import no_course
from analysis.sections.report_input import ReportInput
from analysis.statistics.absence import comparable, side_by_side
from analysis.statistics.bands import band
from analysis.statistics.collapse import collapsed
from analysis.statistics.confident_errors import confident_share, sure_of_errors
from analysis.statistics.pull import SURE, UNDECIDED, UNDER_WAY, Pull, pull
from lesion_core import results


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """The pull of every loss, and confident errors over training."""
    if not (given.cohorts and given.is_ledger):
        return None
    losses = given.sweep.losses
    shown = [loss for loss in range(len(losses)) if any(loss in s.shown for s in given.cohorts)]
    items: list[Item] = []
    own = [given.arms.losses.get(label, label) for label in losses]
    first = {own[arm]: arm for arm in reversed(shown)}  # arms of one loss have one gradient
    items += pull_items(given.sweep.path, own, sorted(first.values()))
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        course = _confidence_figure(cohort) if cohort.has_course else no_course(cohort)
        items += [course, _confidence_table(cohort)]
    return Section(
        key="gradients",
        title="What does a loss pull on?",
        items=items,
        lead="Training follows the gradient, not the value. A Dice-type gradient passes through "
        "p (1 − p) alone: a voxel that is confidently wrong pulls no more than one that is "
        "confidently right, so it stays wrong (the paper's Appendix A). The lower panels "
        "show whether that happened.",
    )


def pull_items(path: Path, losses: Sequence[str], shown: Sequence[int]) -> list[Item]:
    """Curves and table of the gradients that the ledger holds, or a note that says why not."""
    try:
        recorded = frame_as_shown(results.read_gradients(path))
    except ValueError as error:
        return [Note(kind="warning", body=prose(f"{error}."))]
    if recorded.empty:
        return [
            Note(
                body=prose(
                    "This ledger holds no gradient curves (`gradients.parquet`), which a sweep "
                    "records when it is asked for; older ones do not have them."
                )
            )
        ]
    by_loss = {str(label): rows for label, rows in recorded.groupby("loss", sort=False)}
    pulls = {loss: pull(by_loss[losses[loss]]) for loss in shown if losses[loss] in by_loss}
    unknown = [losses[loss] for loss in shown if loss not in pulls]
    if not pulls:
        names = ", ".join(unknown)
        return [Note(body=prose(f"None of {len(shown)} losses has a recorded gradient: {names}."))]
    counted = f"{len(pulls)} of {len(shown)} losses have a recorded gradient"
    counted += f"; without: {', '.join(unknown)}." if unknown else "."
    return [
        _pull_figure(losses, pulls, recorded, counted),
        _pull_table(losses, pulls, counted),
    ]


def _pull_figure(
    losses: Sequence[str], pulls: Mapping[int, Pull], recorded: pd.DataFrame, counted: str
) -> Figure:
    patch = recorded[(recorded["state"] == UNDER_WAY).to_numpy()].iloc[0]
    side, share = round(patch["patch_voxels"] ** (1 / 3)), _share(patch)
    data = pd.DataFrame(
        [
            {LOSS: losses[loss], "probability": p, "lesion_voxel": on, "background_voxel": off}
            for loss, own in pulls.items()
            for p, on, off in zip(own.probability, own.lesion, own.background, strict=True)
        ]
    )
    return Figure(
        key="pull",
        title="Pull of one voxel on its logit, by predicted probability",
        draw=partial(draw, losses, pulls),
        data=data,
        caption="|dL/df| as autograd gives it, relative to the loss's own strongest pull on a "
        f"lesion voxel (Adam ignores the scale). Patch of {side}³ voxels with {share:.2%} lesion, "
        f"as in the training patches; its other voxels at p = {patch['p_lesion']:g} (lesion) and "
        f"{patch['p_background']:g} (background), as when training is under way. Left: a lesion "
        "voxel, wrong at the left end; right: a background voxel, wrong at the right end, "
        f"logarithmic. {counted}",
        alt="Curves of gradient size over the predicted probability for lesion and background "
        f"voxels. {_left_alone(losses, pulls)}",
    )


def _left_alone(losses: Sequence[str], pulls: Mapping[int, Pull]) -> str:
    """Which losses pull less than a tenth as hard on a surely missed voxel as on an undecided one,
    in words."""
    alone = [losses[loss] for loss, own in pulls.items() if own.missed < 0.1]
    return (
        "Less than a tenth of the pull on an undecided lesion voxel is left for a surely missed "
        f"one under {', '.join(alone)}."
        if alone
        else "Every loss pulls on a surely missed lesion voxel with a tenth or more of its pull on "
        "an undecided one."
    )


def _share(patch: pd.Series) -> float:
    return float(patch["lesion_voxels"] / patch["patch_voxels"])


def _pull_table(losses: Sequence[str], pulls: Mapping[int, Pull], counted: str) -> Table:
    percent = {"decimals": 0, "percent": True}
    share, error = "Pull by lesion voxels", f"Confident error against p = {_short(UNDECIDED)}"
    return Table(
        key="pull-table",
        frame=pd.DataFrame(
            [
                {
                    LOSS: losses[loss],
                    "share_untrained": own.share_untrained,
                    "share_trained": own.share_under_way,
                    "miss": own.missed,
                    "invention": own.invented,
                }
                for loss, own in pulls.items()
            ]
        ),
        losses=losses,
        title="Where the pull comes from, and what is left of it for confident errors",
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(key="share_untrained", header="untrained", group=share, **percent),
            Column(key="share_trained", header="under way", group=share, **percent),
            Column(key="miss", header=f"lesion at p = {_short(SURE)}", group=error, **percent),
            Column(
                key="invention",
                header=f"background at p = {_short(1 - SURE)}",
                group=error,
                **percent,
            ),
        ],
        caption="Pull by lesion voxels: their share of the patch's summed |dL/df|; untrained: all "
        "probabilities 0.5. Confident error: pull of a voxel that is surely wrong, relative to the "
        "same voxel undecided; 100% and more: it is pulled back; near 0%: it is left alone. "
        f"{counted}",
    )


def _short(p: float) -> str:
    return f"{p:g}".lstrip("0")


def _confidence_figure(cohort: CohortScores) -> Figure:
    values = confident_share(cohort)
    low, mean, high, trials = band(values, (1, 2))
    data = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                LOSS: cohort.losses[loss],
                "epoch": epoch,
                "error": name,
                "lowest": low[loss, epoch, i],
                "mean": mean[loss, epoch, i],
                "highest": high[loss, epoch, i],
                "trials": int(trials[loss, epoch, i]),
            }
            for loss in cohort.shown
            for epoch in range(cohort.num_epochs + 1)
            for i, name in enumerate(("missed", "invented"))
        ]
    )
    ends = ", ".join(
        f"{row[LOSS]} {written(100 * row['missed'], '.1f')} % and "
        f"{written(100 * row['invented'], '.1f')} %"
        for row in _confidence_frame(comparable(cohort)).to_dict("records")
    )
    return Figure(
        key=f"confidence-{cohort.name}",
        data=data,
        title=f"Confident errors over epochs, test images, {cohort.title}",
        draw=partial(draw_confidence, cohort, low, mean, high),
        caption="Left: share of lesion voxels given p ≤ 0.1. Right: share of predicted voxels "
        f"that are background given p ≥ 0.9.{cohort.averaged} Counts are summed over a fold's "
        f"test {'patients' if cohort.has_sessions else 'images'}; "
        "line: mean over trials; band: lowest to highest. An epoch without predicted "
        f"voxels has no right-hand value. {cohort.presence}.",
        alt="At the last epoch, all images together, confidently missed and confidently invented: "
        f"{ends} ({side_by_side(cohort)}).",
    )


def _confidence_frame(cohort: CohortScores) -> pd.DataFrame:
    sure, rows = sure_of_errors(cohort), []
    values = cohort.last_by_fold(cohort.pooled)[..., VIEWS.index("test"), :]
    for loss in cohort.shown:
        tp, fp, fn, _, fp_sure, fn_sure = np.nansum(values[loss], (0, 1))
        rows.append(
            {
                "cohort": cohort.name,
                LOSS: cohort.losses[loss],
                "of_misses": float(sure[loss, 0]),
                "of_inventions": float(sure[loss, 1]),
                "missed": float(fn_sure / (tp + fn)) if tp + fn else float("nan"),
                "invented": float(fp_sure / (tp + fp)) if tp + fp else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def _confidence_table(cohort: CohortScores) -> Table:
    percent = {"decimals": 1, "percent": True}
    return Table(
        key=f"confidence-table-{cohort.name}",
        title=f"Confident errors at the end, {cohort.title}",
        frame=_confidence_frame(comparable(cohort)),
        losses=cohort.losses,
        collapsed=collapsed(cohort),
        comparable=cohort.is_even,
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(
                key="missed",
                header="of lesion voxels",
                group="Surely missed (p ≤ 0.1)",
                best="min",
                **percent,
            ),
            Column(
                key="of_misses",
                header="of false negatives",
                group="Surely missed (p ≤ 0.1)",
                **percent,
            ),
            Column(
                key="invented",
                header="of predicted voxels",
                group="Surely invented (p ≥ 0.9)",
                best="min",
                **percent,
            ),
            Column(
                key="of_inventions",
                header="of false positives",
                group="Surely invented (p ≥ 0.9)",
                **percent,
            ),
        ],
        caption="The voxels of all test images of all trainings together, at the last epoch; the "
        f"lines above are means over trainings. {side_by_side(cohort)}.",
    )


# ---------------------------------------------------------------------------------------- drawing
def draw(losses: Sequence[str], pulls: Mapping[int, Pull]) -> Drawing:
    """A lesion voxel on a linear scale, a background voxel on a logarithmic one."""
    shown = list(pulls)
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 2, height=2.5 + top, top=top, gap_x=0.6, left=0.5, bottom=0.42)
    for axis, title, side in (
        (axes[0, 0], "Lesion voxel", "lesion"),
        (axes[0, 1], "Background voxel", "background"),
    ):
        for loss, own in pulls.items():
            axis.plot(own.probability, getattr(own, side), **style.line_style(loss))
        axis.set_title(title)
        axis.set_xlim(0, 1)
        axis.set_xlabel("predicted probability")
    style.rate_axis(axes[0, 0], upper=1.03)
    axes[0, 0].set_ylabel("relative pull")
    axes[0, 1].set_yscale("log")
    axes[0, 1].set_ylim(1e-6, 10)
    axes[0, 1].yaxis.set_major_formatter("{x:g}")
    style.legend(figure, losses, shown)
    return figure


def draw_confidence(
    cohort: CohortScores, low: np.ndarray, mean: np.ndarray, high: np.ndarray
) -> Drawing:
    """Missed and invented, one band per loss."""
    top = style.legend_height(cohort.losses, cohort.shown) + 0.24
    figure, axes = style.panels(1, 2, height=2.3 + top, top=top, gap_x=0.5, left=0.5, bottom=0.42)
    epochs = np.arange(cohort.num_epochs + 1)
    for i, title in enumerate(("Surely missed", "Surely invented")):
        axis = axes[0, i]
        for loss in cohort.shown:
            if np.isnan(mean[loss, :, i]).all():
                continue
            axis.fill_between(
                epochs,
                low[loss, :, i],
                high[loss, :, i],
                linewidth=0,
                alpha=0.13,
                color=style.colour(loss),
                gid=f"L{loss}",
            )
            axis.plot(epochs, mean[loss, :, i], **style.line_style(loss))
        axis.set_title(title)
        axis.set_xlabel("Epoch")
        axis.set_ylim(bottom=0)
        style.epoch_axis(axis, cohort.num_epochs)
    style.legend(figure, cohort.losses, cohort.shown)
    return figure
