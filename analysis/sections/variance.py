"""Where does the spread come from: patients, losses, training sets, seeds, or the rest?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import Figure, Heading, Note, Section, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, Study
from analysis.sections.seeds import Grid, complete_grid

PARTS = {
    "patient": "patient",
    "fold": "fold (training set and its patients)",
    "loss": "loss",
    "loss_patient": "loss × patient",
    "loss_fold": "loss × training set",
    "run": "run (seed)",
    "rest": "rest",
}


def components(scores: np.ndarray, fold_of: np.ndarray) -> dict[str, float]:
    """Variance components of complete scores [L, S, P], cases nested in folds, by the method of
    moments (ANOVA mean squares; exact for equal folds, the usual approximation otherwise).

    y = mean + loss + fold + patient(fold) + loss x fold + loss x patient + run + rest, where a run
    is one (loss, seed, fold).  `loss` is the variance of the loss means after what noise adds to
    them.  Negative estimates are 0.  NaN where a mean square has no degrees of freedom.
    """
    losses, num_seeds, _ = scores.shape
    folds = [scores[:, :, fold_of == fold] for fold in np.unique(fold_of)]
    sizes = np.array([block.shape[2] for block in folds], float)
    num_folds, total = len(folds), sizes.sum()
    per_fold = total / num_folds
    by_fold = np.array([block.mean((1, 2)) for block in folds])  # [F, L]
    weight = sizes / total

    ss: dict[str, float] = dict.fromkeys(("rest", "run", "loss_patient", "patient"), 0.0)
    for block, size in zip(folds, sizes, strict=True):
        case, run, mean = block.mean(1), block.mean(2), block.mean((1, 2))
        rest = block - case[:, None] - run[:, :, None] + mean[:, None, None]
        ss["rest"] += (rest**2).sum()
        ss["run"] += size * ((run - mean[:, None]) ** 2).sum()
        centred = case - mean[:, None]
        ss["patient"] += losses * num_seeds * (centred.mean(0) ** 2).sum()
        ss["loss_patient"] += num_seeds * ((centred - centred.mean(0)) ** 2).sum()
    grand = weight @ by_fold  # [L]
    fold_mean = by_fold.mean(1)
    overall = float(weight @ fold_mean)
    cross = by_fold - fold_mean[:, None] - grand + overall
    ss["loss_fold"] = float((num_seeds * sizes[:, None] * cross**2).sum())
    ss["fold"] = float((losses * num_seeds * sizes * (fold_mean - overall) ** 2).sum())
    ss["loss"] = float(total * num_seeds * ((grand - overall) ** 2).sum())
    df = {
        "rest": losses * ((num_seeds - 1) * (sizes - 1)).sum(),
        "run": losses * num_folds * (num_seeds - 1),
        "loss_patient": (losses - 1) * (total - num_folds),
        "patient": total - num_folds,
        "loss_fold": (losses - 1) * (num_folds - 1),
        "fold": num_folds - 1,
        "loss": losses - 1,
    }
    ms = {name: ss[name] / df[name] if df[name] > 0 else float("nan") for name in ss}
    s, n = num_seeds, per_fold
    found = {
        "patient": (ms["patient"] - ms["loss_patient"]) / (losses * s),
        "fold": (ms["fold"] - ms["loss_fold"] - ms["patient"] + ms["loss_patient"])
        / (losses * s * n),
        "loss": (ms["loss"] - ms["loss_fold"]) / (s * total),
        "loss_patient": (ms["loss_patient"] - ms["rest"]) / s,
        "loss_fold": (ms["loss_fold"] - ms["run"] - ms["loss_patient"] + ms["rest"]) / (s * n),
        "run": (ms["run"] - ms["rest"]) / n,
        "rest": ms["rest"],
    }
    return {
        name: float(max(0.0, value)) if value == value else float("nan")
        for name, value in found.items()
    }


def balanced(scores: np.ndarray, fold_of: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """[L, S, P] of the grid's losses and seeds and of the cases that all of them define, and
    those cases' folds."""
    own = scores[np.ix_(grid.losses, grid.seeds)]
    usable = ~np.isnan(own).any((0, 1))
    return own[:, :, usable], fold_of[usable]


def section(studies: list[Study]) -> Section:
    """One bar per metric and cohort."""
    items: list[Figure | Note | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        items.append(_figure(study))
    return Section(
        key="variance",
        title="Where does the spread come from?",
        items=items,
        lead="If the bar of the loss is shorter than that of the run, then choosing a seed "
        "moves a result more than choosing a loss does.",
    )


def _figure(study: Study) -> Figure | Note:
    final, rows, counts = study.last_by_case(study.test), {}, {}
    for i, metric in enumerate(METRICS):
        grid = complete_grid(final[..., i], study.fold_of, study.shown)
        own, folds = balanced(final[..., i], study.fold_of, grid)
        if min(own.shape) < 2 or len(np.unique(folds)) < 2:
            continue
        rows[metric] = components(own, folds)
        counts[metric] = (own.shape, grid)
    if not rows:
        return Note(
            kind="warning",
            body=prose(
                f"{study.title}: splitting the variance needs two losses, two seeds, two folds and "
                "two patients in common."
            ),
        )
    frame = pd.DataFrame(
        [
            {
                "cohort": study.cohort,
                "metric": metric,
                "part": part,
                "variance": value,
                "sd": value**0.5,
                "share": value / max(np.nansum(list(parts.values())), 1e-300),
            }
            for metric, parts in rows.items()
            for part, value in parts.items()
        ]
    )
    dice = rows.get("dice", next(iter(rows.values())))
    shape, grid = counts.get("dice", next(iter(counts.values())))
    left = (
        f" (left out: {', '.join(study.losses[i] for i in grid.left_out)})" if grid.left_out else ""
    )
    words = ", ".join(
        f"{PARTS[part]} {value**0.5:.3f}" for part, value in dice.items() if value == value
    )
    return Figure(
        key=f"variance-{study.cohort}",
        title=f"Standard deviation by source, {study.title}",
        draw=partial(draw, rows),
        data=frame,
        caption="Standard deviations of the components of a patient's score at the last epoch "
        "(balanced ANOVA; negative estimates are 0). loss: how much the losses' true "
        "means differ; loss × patient: patients for whom the order of losses differs; "
        f"run: the luck of one training. {shape[0]} of {len(study.shown)} losses{left}, "
        f"{shape[1]} of {len(study.seeds)} seeds, {shape[2]} of {study.num_cases} "
        "cases.",
        alt=f"Standard deviations of DSC: {words}.",
    )


def draw(rows: dict[str, dict[str, float]]) -> Drawing:
    """One panel per metric, one bar per source."""
    figure, axes = style.panels(
        1, len(rows), height=2.2, top=0.28, left=1.95, gap_x=0.25, bottom=0.4
    )
    reach = (
        max(value**0.5 for parts in rows.values() for value in parts.values() if value == value)
        or 1.0
    )
    for axis, (metric, parts) in zip(axes[0], rows.items(), strict=True):
        for y, (part, value) in enumerate(parts.items()):
            if value != value:
                axis.text(0, y, " undefined", va="center", fontsize=6.5, color=style.MUTED)
                continue
            deviation = value**0.5
            axis.barh(
                y,
                deviation,
                height=0.68,
                linewidth=0,
                color="#3f90da" if part in ("loss", "run") else "#94a4a2",
            )
            axis.text(
                deviation + 0.02 * reach,
                y,
                f"{deviation:.3f}".lstrip("0"),
                va="center",
                fontsize=6.5,
            )
        axis.set_ylim(len(parts) - 0.4, -0.6)
        axis.set_yticks(range(len(parts)), list(PARTS.values()))
        axis.tick_params(labelleft=axis is axes[0, 0], left=False)
        axis.set_xlim(0, 1.25 * reach)
        axis.set_title(METRIC_NAMES[metric])
        axis.set_xlabel("SD of the score")
        axis.grid(False, axis="y")
        axis.locator_params(axis="x", nbins=4)
    return figure
