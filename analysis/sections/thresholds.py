"""Does a loss segment better, or only put its probabilities elsewhere: every threshold at once.

A network whose probabilities are merely shifted looks worse at 0.5 and as good at its own
threshold.  The last epoch's histograms (`results.HISTOGRAMS`) give the counts at any threshold.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, prose, written
from analysis.reading.checks import trial_rows
from analysis.reading.scores import COUNTS, METRIC_NAMES, METRICS, Study
from lesion_core import results
from lesion_core.results import Sweep

THRESHOLDS = np.arange(1, results.NUM_BINS) / results.NUM_BINS
"""Lower edges of the histogram bins but the first: p >= threshold is lesion."""
HALF = results.NUM_BINS // 2 - 1
"""Where the paper's threshold of 0.5 is."""


# ---------------------------------------------------------------------------------------- numbers
def counts_at_thresholds(
    lesion: np.ndarray, background: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tp, fp, fn [..., thresholds] from histograms [..., bins] of lesion and background voxels.

    reference [...] counts all lesion voxels, also those outside the brain box, which no
    threshold finds.

    >>> tp, fp, fn = counts_at_thresholds(np.eye(100, dtype=int)[60], np.eye(100, dtype=int)[20],
    ...                                   np.array(1))
    >>> [int(value) for value in (tp[49], fp[49], fn[49], fp[10])]
    [1, 0, 0, 1]
    """
    tp = lesion[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
    fp = background[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
    return tp, fp, np.asarray(reference)[..., None] - tp


def histograms(sweep: Sweep, study: Study, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """[L, S, P, bins] of lesion and background voxels; NaN where a trial has none."""
    shape = (*study.test.shape[:3], results.NUM_BINS)
    lesion, background = np.full(shape, np.nan), np.full(shape, np.nan)
    trials = study.final.drop_duplicates("trial").set_index("trial")
    rows = rows[rows["trial"].isin(trials.index).to_numpy()]
    if rows.empty:
        return lesion, background
    place = {key: index for index, key in enumerate(zip(study.fold_of, study.cases, strict=True))}
    fold = rows["trial"].map(trials["fold_index"]).to_numpy(int)
    case = np.array([place.get(key, -1) for key in zip(fold, rows["case"], strict=True)])
    known = case >= 0
    at = (
        rows["trial"].map(trials["loss_index"]).to_numpy(int)[known],
        rows["trial"].map(trials["seed_index"]).to_numpy(int)[known],
        case[known],
    )
    lesion[at] = np.stack(rows["lesion"].to_numpy()[known])
    background[at] = np.stack(rows["background"].to_numpy()[known])
    return lesion, background


def rates_at_thresholds(study: Study, lesion: np.ndarray, background: np.ndarray) -> np.ndarray:
    """[L, S, P, thresholds, metrics]."""
    final = study.last_by_case(study.counts)
    reference = final[..., COUNTS.index("tp")] + final[..., COUNTS.index("fn")]
    # A histogram with more lesion voxels than the reference is of another image: undefined.
    fits = (lesion.sum(-1) <= reference)[..., None]
    lesion, background = np.where(fits, lesion, np.nan), np.where(fits, background, np.nan)
    tp, fp, fn = counts_at_thresholds(lesion, background, reference)
    frame = pd.DataFrame({"tp": tp.ravel(), "fp": fp.ravel(), "fn": fn.ravel()})
    rates = results.rates(frame)[list(METRICS)].to_numpy()
    return rates.reshape(*tp.shape, len(METRICS))


def fold_curves(rates: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """[L, F, thresholds]: mean over a fold's cases and seeds of [L, S, P, thresholds]; cases
    that are undefined at some threshold (both masks empty) are left out there."""
    folds = np.unique(fold_of)
    curves = np.full((rates.shape[0], len(folds), rates.shape[3]), np.nan)
    for place, fold in enumerate(folds):
        block = rates[:, :, fold_of == fold]
        number = (~np.isnan(block)).sum((1, 2))
        curves[:, place] = np.divide(
            np.nansum(block, (1, 2)), number, out=np.full(number.shape, np.nan), where=number > 0
        )
    return curves


def own_thresholds(curves: np.ndarray) -> np.ndarray:
    """[L, F] index of the threshold that the *other* folds choose by mean DSC; -1 if unknown.
    With a single fold there are no others: 0.5."""
    losses, folds, _ = curves.shape
    chosen = np.full((losses, folds), -1)
    for loss in range(losses):
        for fold in range(folds):
            others = [f for f in range(folds) if f != fold and not np.isnan(curves[loss, f]).all()]
            if np.isnan(curves[loss, fold]).all():
                continue
            if not others:
                chosen[loss, fold] = HALF
                continue
            mean = curves[loss, others].mean(0)
            chosen[loss, fold] = int(np.argmax(np.where(np.isnan(mean), -np.inf, mean)))
    return chosen


def calibration(
    lesion: np.ndarray, background: np.ndarray, groups: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Mean predicted probability (bin centres) and share of lesion voxels in `groups` equal
    bands of probability, from histograms summed over cases [bins]; NaN where a band is empty."""
    width = len(lesion) // groups
    centres = (np.arange(len(lesion)) + 0.5) / len(lesion)
    total = lesion + background
    band_total = total.reshape(groups, width).sum(1)
    with np.errstate(invalid="ignore"):
        predicted = (total * centres).reshape(groups, width).sum(1) / band_total
        return predicted, lesion.reshape(groups, width).sum(1) / band_total


# --------------------------------------------------------------------------------------- sections
def section(sweep: Sweep, studies: list[Study]) -> Section:
    """Curves over the threshold, and what is left of the differences at each loss's own."""
    rows, unreadable = trial_rows(sweep, "histograms.parquet")
    items: list[Figure | Table | Note | Heading] = []
    if unreadable:
        items.append(
            Note(
                kind="warning",
                body=prose(f"Histograms that cannot be read: {', '.join(unreadable)}."),
            )
        )
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        lesion, background = histograms(sweep, study, rows)
        if np.isnan(lesion).all():
            items.append(
                Note(
                    kind="warning",
                    body=prose(f"{study.title}: no histograms of predicted probabilities."),
                )
            )
            continue
        items += _items(study, lesion, background)
    return Section(
        key="thresholds",
        title="Better segmentation, or another threshold?",
        items=items,
        lead="The paper cuts every network's probabilities at 0.5, yet losses push probabilities "
        "to different places. Differences that vanish when every loss uses its own "
        "threshold, chosen on the other folds, are calibration, not segmentation.",
    )


def _items(study: Study, lesion: np.ndarray, background: np.ndarray) -> list[Figure | Table | Note]:
    rates = rates_at_thresholds(study, lesion, background)
    curves = np.stack([fold_curves(rates[..., i], study.fold_of) for i in range(len(METRICS))], -1)
    number = (~np.isnan(curves)).sum(1)
    mean = np.divide(
        np.nansum(curves, 1), number, out=np.full(number.shape, np.nan), where=number > 0
    )  # [L, thresholds, metrics]
    chosen = own_thresholds(curves[..., 0])
    shown = [loss for loss in study.shown if not np.isnan(mean[loss, :, 0]).all()]
    if not shown:
        return [Note(kind="warning", body=prose(f"{study.title}: DSC is undefined throughout."))]
    rows = []
    for loss in shown:
        folds = [fold for fold in range(curves.shape[1]) if chosen[loss, fold] >= 0]
        own = np.nanmean([curves[loss, fold, chosen[loss, fold], 0] for fold in folds])
        best = int(np.nanargmax(mean[loss, :, 0]))
        rows.append(
            {
                "cohort": study.cohort,
                LOSS: study.losses[loss],
                "at_half": mean[loss, HALF, 0],
                "own": float(own),
                "gain": float(own - mean[loss, HALF, 0]),
                "threshold_low": THRESHOLDS[min(chosen[loss, folds])],
                "threshold_high": THRESHOLDS[max(chosen[loss, folds])],
                "best": mean[loss, best, 0],
                "best_at": THRESHOLDS[best],
            }
        )
    frame = pd.DataFrame(rows)
    present = int((~np.isnan(rates[..., 0, 0])).any((0, 1)).sum())
    counted = f"{present} of {study.num_cases} cases; {study.presence}."
    at_half, at_own = (frame[key].max() - frame[key].min() for key in ("at_half", "own"))
    words = (
        (
            f"Between the best and the worst loss lie {written(at_half, '.3f')} at 0.5 and "
            f"{written(at_own, '.3f')} at "
            "own thresholds."
        )
        if len(frame) > 1
        else ""
    )
    data = pd.DataFrame(
        [
            {
                "cohort": study.cohort,
                LOSS: study.losses[loss],
                "threshold": THRESHOLDS[t],
                **{metric: mean[loss, t, i] for i, metric in enumerate(METRICS)},
            }
            for loss in shown
            for t in range(len(THRESHOLDS))
        ]
    )
    sums = {
        loss: (np.nansum(lesion[loss], (0, 1)), np.nansum(background[loss], (0, 1)))
        for loss in shown
    }
    return [
        Figure(
            key=f"thresholds-{study.cohort}",
            title=f"Test metrics at every threshold, {study.title}",
            data=data,
            draw=partial(draw, study.losses, shown, mean, sums),
            caption="First three: mean over cases, seeds and folds at the last epoch, for every "
            "threshold; vertical line: 0.5. Last: share of lesion voxels among voxels "
            "of a predicted probability (brain box, all cases together); on the "
            "diagonal, a probability means what it says. " + words + " " + counted,
            alt=f"DSC, sensitivity and precision over the threshold, and calibration. {words}",
        ),
        Table(
            key=f"threshold-table-{study.cohort}",
            frame=frame,
            losses=study.losses,
            title=f"DSC at 0.5 and at own thresholds, {study.title}",
            columns=[
                Column(key=LOSS, header="Loss"),
                Column(key="at_half", header="at 0.5", group="DSC", decimals=3, best="max"),
                Column(key="own", header="own threshold", group="DSC", decimals=3, best="max"),
                Column(key="gain", header="gain", group="DSC", decimals=3, signed=True),
                Column(
                    key="threshold_low",
                    header="lowest",
                    group="Threshold chosen by the other folds",
                    decimals=2,
                ),
                Column(
                    key="threshold_high",
                    header="highest",
                    group="Threshold chosen by the other folds",
                    decimals=2,
                ),
                Column(key="best", header="best on test", group="Optimistic", decimals=3),
                Column(key="best_at", header="at", group="Optimistic", decimals=2),
            ],
            caption=f"{words} Means over folds. {counted}",
        ),
    ]


# ---------------------------------------------------------------------------------------- drawing
def draw(
    losses: list[str],
    shown: list[int],
    mean: np.ndarray,
    sums: dict[int, tuple[np.ndarray, np.ndarray]],
) -> Drawing:
    """Three curves over the threshold and a reliability diagram."""
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 4, height=2.3 + top, top=top, gap_x=0.24, left=0.4, bottom=0.42)
    for i, metric in enumerate(METRICS):
        axis = axes[0, i]
        axis.axvline(0.5, color=style.MUTED, linewidth=0.7)
        for loss in shown:
            axis.plot(THRESHOLDS, mean[loss, :, i], **style.line_style(loss))
        axis.set_title(METRIC_NAMES[metric])
        axis.set_xlabel("threshold")
    axis = axes[0, 3]
    axis.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.7)
    for loss in shown:
        predicted, observed = calibration(*sums[loss])
        axis.plot(predicted, observed, **style.line_style(loss))
    axis.set_title("Calibration")
    axis.set_xlabel("predicted")
    for axis in axes[0]:
        style.rate_axis(axis)
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axis.tick_params(labelleft=axis is axes[0, 0])
    style.legend(figure, losses, shown)
    return figure
