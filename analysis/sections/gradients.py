"""What does a loss pull on: its gradient per voxel, and the confident errors that are left.

Closed forms of the losses of `lesion_core.losses` (this package never loads torch), in the
notation of the paper's Appendix A: f logit, p = sigmoid(f), y reference, N voxels of a patch,
N_fg of them lesion; I = sum(p y), S = sum(p + y).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, prose, written
from analysis.reading.scores import VIEWS, CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics.bands import band
from analysis.statistics.confident_errors import confident_share, sure_of_errors
from lesion_core.results import Sweep

PATCH_VOXELS = 32**3
PROBABILITIES = np.linspace(0.002, 0.998, 250)
SURE = 0.01
"""A confident error: a lesion voxel at this probability, or a background voxel at 1 - SURE."""


@dataclass(frozen=True)
class Patch:
    """The rest of the patch while one voxel's probability varies."""

    voxels: int = PATCH_VOXELS
    lesion: int = 500
    p_lesion: float = 0.5
    p_background: float = 0.5

    @property
    def overlap(self) -> float:
        """I = sum(p y)."""
        return self.lesion * self.p_lesion

    @property
    def volume(self) -> float:
        """S = sum(p + y)."""
        return self.overlap + (self.voxels - self.lesion) * self.p_background + self.lesion


# ---------------------------------------------------------------------------------------- numbers
def gradient(
    loss: Mapping[str, Any], p: np.ndarray, lesion: bool, patch: Patch
) -> np.ndarray | None:
    """dL/df of one voxel with probability p, for a loss as `loss_params` describes it; None for a
    loss without a closed form here.

    Voxel-wise losses are means over N; q = |y - p| is the probability of the wrong class:
        CrossEntropy      (p - y) / N
        Focal             +-a q^g (g (1 - q) softplus(z) + q) / N, softplus(z) = -log(1 - q)
        WeightedGradient  +-a q^g / N                                   (eq. 5)
        Dice, eq. 4       -(2 y (S + e) - 2 I - e) / (S + e)^2 * p (1 - p)
        GeneralisedDice   A15 * p (1 - p)
        Mixed             Dice + CrossEntropy
        Tversky           quotient rule on (I + e) / ((1 - a - b) I + a sum(p) + b N_fg + e)
    with a = alpha for lesion, 1 - alpha for background; alpha None or "patch" is N_bg / N.
    """
    fields: dict[str, Any] = dict(loss.get("fields") or {})
    kind, y, n = loss.get("type"), float(lesion), patch.voxels
    q = np.where(lesion, 1 - p, p)
    sign = 1 - 2 * y
    slope = p * (1 - p)
    alpha = fields.get("alpha")
    if alpha is None or alpha == "patch":
        alpha = (n - patch.lesion) / n
    weight = alpha if lesion else 1 - alpha
    eps = float(fields.get("eps", 0.0))
    overlap, volume = patch.overlap, patch.volume

    def dice(eps: float) -> np.ndarray:
        return -(2 * y * (volume + eps) - (2 * overlap + eps)) / (volume + eps) ** 2 * slope

    if kind == "CrossEntropy":
        return (p - y) / n
    if kind == "WeightedCrossEntropy":
        return weight * (p - y) / n
    if kind == "Focal":
        gamma = float(fields["gamma"])
        return sign * weight * q**gamma * (gamma * (1 - q) * -np.log1p(-q) + q) / n
    if kind == "WeightedGradient":
        return sign * weight * q ** float(fields["gamma"]) / n
    if kind == "Dice":
        return dice(eps)
    if kind == "Mixed":
        return dice(eps) + (p - y) / n
    if kind == "GeneralisedDice":
        power = -2 if fields.get("weights", "inverse_square") == "inverse_square" else -1
        w1, w0 = float(patch.lesion) ** power, float(n - patch.lesion) ** power
        below = (w1 - w0) * volume + 2 * n * w0
        above = (w1 - w0) * (y * volume - overlap) + n * w0 * (2 * y - 1)
        return -2 * (w1 + w0) * above / below**2 * slope
    if kind == "Tversky":
        a, b = float(fields["alpha"]), float(fields["beta"])
        predicted = volume - patch.lesion
        below = (1 - a - b) * overlap + a * predicted + b * patch.lesion + eps
        change = (1 - a - b) * y + a
        return -(y * below - (overlap + eps) * change) / below**2 * slope
    return None


def lesion_share_of_pull(loss: Mapping[str, Any], patch: Patch) -> float:
    """Share of the summed |dL/df| of a patch that comes from its lesion voxels."""
    lesion = abs(_gradient_at(loss, patch.p_lesion, True, patch)) * patch.lesion
    background = abs(_gradient_at(loss, patch.p_background, False, patch)) * (
        patch.voxels - patch.lesion
    )
    return lesion / (lesion + background) if lesion + background > 0 else float("nan")


def _gradient_at(loss: Mapping[str, Any], p: float, lesion: bool, patch: Patch) -> float:
    """`gradient` of one voxel; NaN for a loss whose formula is not known."""
    found = gradient(loss, np.array([p]), lesion, patch)
    return float("nan") if found is None else float(found[0])


def parameters(sweep: Sweep) -> dict[str, dict]:
    """Loss label -> what `loss_params` says about it; empty where it cannot be read."""
    found = {}
    for label, text in zip(sweep.runs[LOSS], sweep.runs["loss_params"], strict=True):
        if label not in found:
            try:
                content = json.loads(text) if isinstance(text, str) else text
            except ValueError:
                content = None
            found[label] = content if isinstance(content, dict) else {}
    return found


def typical_patch(cohorts: list[CohortScores]) -> Patch:
    """A 32^3 patch with the lesion share of the sweep's own training patches (first cohort that
    has any), else 1.5 % as in the paper's Table 1; every probability at 0.5 (untrained)."""
    for cohort in cohorts:
        counts = cohort.pooled[..., 0, VIEWS.index("patch"), :4]  # epoch 0
        total = np.nansum(counts)
        if total > 0:
            share = np.nansum(counts[..., [0, 2]]) / total
            return Patch(lesion=max(1, round(share * PATCH_VOXELS)))
    return Patch(lesion=round(0.0153 * PATCH_VOXELS))


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """The pull of every loss, and confident errors over training."""
    if not (given.cohorts and given.is_ledger):
        return None
    losses = given.sweep.losses
    shown = [loss for loss in range(len(losses)) if any(loss in s.shown for s in given.cohorts)]
    items: list[Figure | Table | Note | Heading] = []
    items += _pull(losses, shown, parameters(given.sweep), typical_patch(given.cohorts))
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items += [_confidence_figure(cohort), _confidence_table(cohort)]
    return Section(
        key="gradients",
        title="What does a loss pull on?",
        items=items,
        lead="Training follows the gradient, not the value. A Dice-type gradient passes through "
        "p (1 − p) alone: a voxel that is confidently wrong pulls no more than one that is "
        "confidently right, so it stays wrong (the paper's Appendix A). The lower panels "
        "show whether that happened.",
    )


def _pull(
    losses: list[str], shown: list[int], known: dict[str, dict], start: Patch
) -> list[Figure | Table | Note]:
    trained = Patch(start.voxels, start.lesion, 0.7, 0.01)
    curves, rows, unknown = {}, [], []
    for loss in shown:
        parameters = known.get(losses[loss], {})
        lesion = gradient(parameters, PROBABILITIES, True, trained)
        background = gradient(parameters, PROBABILITIES, False, trained)
        if lesion is None or background is None:
            unknown.append(losses[loss])
            continue
        scale = np.abs(lesion).max()
        curves[loss] = (np.abs(lesion) / scale, np.abs(background) / scale)
        half = [_gradient_at(parameters, 0.5, on, trained) for on in (True, False)]
        sure = [
            _gradient_at(parameters, SURE if on else 1 - SURE, on, trained) for on in (True, False)
        ]
        rows.append(
            {
                LOSS: losses[loss],
                "share_untrained": lesion_share_of_pull(parameters, start),
                "share_trained": lesion_share_of_pull(parameters, trained),
                "miss": abs(sure[0] / half[0]) if half[0] else float("nan"),
                "invention": abs(sure[1] / half[1]) if half[1] else float("nan"),
            }
        )
    items: list[Figure | Table | Note] = []
    if curves:
        share = start.lesion / start.voxels
        data = pd.DataFrame(
            [
                {
                    LOSS: losses[loss],
                    "probability": PROBABILITIES[i],
                    "lesion_voxel": on[i],
                    "background_voxel": off[i],
                }
                for loss, (on, off) in curves.items()
                for i in range(0, len(PROBABILITIES), 3)
            ]
        )
        counted = f"{len(curves)} of {len(shown)} losses have a closed form here"
        counted += f"; without: {', '.join(unknown)}." if unknown else "."
        items.append(
            Figure(
                key="pull",
                title="Pull of one voxel on its logit, by predicted probability",
                draw=partial(draw, losses, curves),
                data=data,
                caption="|dL/df| relative to the loss's own strongest pull on a lesion voxel (Adam "
                f"ignores the scale). Patch of 32³ voxels with {share:.2%} lesion, as in the "
                "training patches; its other voxels at p = 0.7 (lesion) and 0.01 "
                "(background), as when training is under way. Left: a lesion voxel, wrong at "
                "the left end; right: a background voxel, wrong at the right end, "
                f"logarithmic. {counted}",
                alt="Curves of gradient size over the predicted probability for lesion and "
                "background "
                "voxels. Dice-type losses fall to zero at both ends.",
            )
        )
        percent = {"decimals": 0, "percent": True}
        items.append(
            Table(
                key="pull-table",
                frame=pd.DataFrame(rows),
                losses=losses,
                title="Where the pull comes from, and what is left of it for confident errors",
                columns=[
                    Column(key=LOSS, header="Loss"),
                    Column(
                        key="share_untrained",
                        header="untrained",
                        group="Pull by lesion voxels",
                        **percent,
                    ),
                    Column(
                        key="share_trained",
                        header="under way",
                        group="Pull by lesion voxels",
                        **percent,
                    ),
                    Column(
                        key="miss",
                        header="lesion at p = .01",
                        group="Confident error against p = .5",
                        **percent,
                    ),
                    Column(
                        key="invention",
                        header="background at p = .99",
                        group="Confident error against p = .5",
                        **percent,
                    ),
                ],
                caption="Pull by lesion voxels: their share of the patch's summed |dL/df|; "
                "untrained: "
                "all probabilities 0.5. Confident error: pull of a voxel that is surely "
                "wrong, relative to the same voxel undecided; 100% and more: it is pulled "
                f"back; near 0%: it is left alone. {counted}",
            )
        )
    elif unknown:
        items.append(
            Note(
                body=prose(
                    f"None of {len(shown)} losses has a closed form here: {', '.join(unknown)}."
                )
            )
        )
    return items


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
        f"{cohort.losses[loss]} {written(mean[loss, -1, 0])} and {written(mean[loss, -1, 1])}"
        for loss in cohort.shown
    )
    return Figure(
        key=f"confidence-{cohort.name}",
        data=data,
        title=f"Confident errors over epochs, test images, {cohort.title}",
        draw=partial(draw_confidence, cohort, low, mean, high),
        caption="Left: share of lesion voxels given p ≤ 0.1. Right: share of predicted voxels "
        "that are background given p ≥ 0.9. Counts are summed over a fold's test images; "
        "line: mean over trials; band: lowest to highest. An epoch without predicted "
        f"voxels has no right-hand value. {cohort.presence}.",
        alt=f"At the last epoch, confidently missed and confidently invented: {ends}.",
    )


def _confidence_table(cohort: CohortScores) -> Table:
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
    percent = {"decimals": 1, "percent": True}
    return Table(
        key=f"confidence-table-{cohort.name}",
        title=f"Confident errors at the end, {cohort.title}",
        frame=pd.DataFrame(rows),
        losses=cohort.losses,
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
        caption=f"All test images of all trials together, last epoch. {cohort.presence}.",
    )


# ---------------------------------------------------------------------------------------- drawing
def draw(losses: list[str], curves: dict[int, tuple[np.ndarray, np.ndarray]]) -> Drawing:
    """A lesion voxel on a linear scale, a background voxel on a logarithmic one."""
    shown = list(curves)
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 2, height=2.5 + top, top=top, gap_x=0.6, left=0.5, bottom=0.42)
    for i, (axis, title) in enumerate(
        ((axes[0, 0], "Lesion voxel"), (axes[0, 1], "Background voxel"))
    ):
        for loss in shown:
            axis.plot(PROBABILITIES, curves[loss][i], **style.line_style(loss))
        axis.set_title(title)
        axis.set_xlim(0, 1)
        axis.set_xlabel("predicted probability")
    style.rate_axis(axes[0, 0], upper=1.03)
    axes[0, 0].set_ylabel("relative pull")
    axes[0, 1].set_yscale("log")
    axes[0, 1].set_ylim(1e-6, 10)
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
