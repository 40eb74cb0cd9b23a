"""Which loss wins under every defensible way to compute the score?"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from analysis.reading.scores import COUNTS, CohortScores
from analysis.statistics import selection
from analysis.statistics.absence import compared, shared_cells
from analysis.statistics.order import best_of, fold_weights
from analysis.statistics.ranks import order_agreement
from analysis.statistics.subjects import by_subject, part_of

AGGREGATIONS = {"mean": "mean over cases", "pooled": "all voxels together"}
UNDEFINED = {"drop": "left out", "0": "counted as 0", "1": "counted as 1"}


LABEL_2 = {"counted": "background", "masked": "masked out"}


EPOCHS = {
    "last": "last",
    "lofo": "chosen on other folds",
    "best_train": "best training DSC",
    "oracle": "best on test (the paper)",
}


def selectors(cohort: CohortScores) -> list[str]:
    """The ways to choose an epoch that there are where not every epoch or image was evaluated."""
    if not cohort.has_course:
        return ["last"]
    return [name for name in EPOCHS if name != "best_train" or cohort.has_training]


def fold_values(
    tp: np.ndarray,
    fp: np.ndarray,
    fn: np.ndarray,
    fold_of: np.ndarray,
    num_folds: int,
    aggregation: str,
    undefined: str,
    subject_of: np.ndarray | None = None,
) -> np.ndarray:
    """[L, S, F, E + 1] DSC of each fold from counts [L, S, P, E + 1]; NaN where absent.

    aggregation "mean": mean over cases; "pooled": one DSC from the fold's summed counts.  DSC or
    counts of one subject's cases are averaged first.
    undefined: what a case with two empty masks counts as ("drop", "0", "1"); pooling has none.
    """
    found = np.full((*tp.shape[:2], num_folds, tp.shape[3]), np.nan)
    for fold in range(num_folds):
        a, b, c = (part[:, :, fold_of == fold] for part in (tp, fp, fn))
        absent = np.isnan(a).all(2)
        if aggregation == "pooled":
            whose = part_of(subject_of, fold_of == fold)
            a, b, c = (np.nansum(by_subject(part, whose, axis=2), 2) for part in (a, b, c))
            value = np.divide(
                2 * a, 2 * a + b + c, out=np.full(a.shape, np.nan), where=2 * a + b + c > 0
            )
        else:
            total = 2 * a + b + c
            dice = np.divide(2 * a, total, out=np.full(a.shape, np.nan), where=total > 0)
            if undefined != "drop":
                dice = np.where(total == 0, float(undefined), dice)
            dice = by_subject(dice, part_of(subject_of, fold_of == fold), axis=2)
            number = (~np.isnan(dice)).sum(2)
            value = np.divide(
                np.nansum(dice, 2), number, out=np.full(number.shape, np.nan), where=number > 0
            )
        value[absent] = np.nan
        found[:, :, fold] = value
    return found


def world_means(
    values: np.ndarray,
    last_epoch: np.ndarray,
    best_train: np.ndarray,
    selector: str,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """[L] mean over folds of a selector's DSC from [L, S, F, E + 1], folds by ``weight`` [F] (None:
    alike), over those in which every loss has a value; NaN if there is none."""
    curves = np.full((*values.shape, len(selection.VIEWS), len(selection.METRICS)), np.nan)
    curves[..., selection.TEST, selection.DICE] = values
    if selector == "best_train":
        chosen = selection.at_epoch(curves, best_train)
        by_fold = selection.mean_over(chosen, 1)
    else:
        by_fold = selection.by_fold(curves, last_epoch, selector)
    dice = by_fold[..., selection.TEST, selection.DICE]
    common = ~np.isnan(dice).any(0)
    share = np.where(common, 1.0 if weight is None else weight, 0.0)
    if not share.sum() > 0:
        return np.full(len(dice), np.nan)
    return np.where(common, dice, 0.0) @ (share / share.sum())


def worlds(cohort: CohortScores) -> pd.DataFrame:
    """One row per world: the choices, the two best losses, and agreement with the headline.

    Losses that can be compared (`absence.compared`), on the (seed, fold) cells that all of them
    have; patients weigh alike, as in the verdict.  A world in which several are best has several
    winners.
    """
    losses = compared(cohort)
    cells = shared_cells(cohort, losses)
    counts = cohort.counts[losses]
    counts = np.where(cells[:, cohort.fold_of][None, :, :, None, None], counts, np.nan)
    last_epoch = np.where(cells, cohort.last_epoch[losses], -1)
    curves = np.where(cells[None, :, :, None, None, None], cohort.curves[losses], np.nan)
    weight = fold_weights(cohort)
    tp, fp, fn = (counts[..., COUNTS.index(name)] for name in ("tp", "fp", "fn"))
    masked = counts[..., COUNTS.index("fp_masked")]
    empty = bool(((tp + fp + fn) == 0).any())
    differs = bool((masked != fp)[~np.isnan(fp)].any())
    best_train = selection.epochs(curves, last_epoch, "best_train")
    rows = []
    reference = None
    choices = product(
        selectors(cohort),
        AGGREGATIONS,
        UNDEFINED if empty else ("drop",),
        LABEL_2 if differs else ("counted",),
    )
    for selector, aggregation, undefined, label in choices:
        if aggregation == "pooled" and undefined != "drop":
            continue  # pooled counts have no undefined case
        values = fold_values(
            tp,
            masked if label == "masked" else fp,
            fn,
            cohort.fold_of,
            len(cohort.folds),
            aggregation,
            undefined,
            cohort.subject_of,
        )
        means = world_means(values, last_epoch, best_train, selector, weight)
        if np.isnan(means).all():
            continue
        if reference is None:
            reference = means  # the first world: last epoch, mean over cases, left out, counted
        best = best_of(means)
        others = np.where(np.isin(np.arange(len(means)), best), np.nan, means)
        rest = best_of(others)
        second = float(means[rest[0]]) if len(rest) else float("nan")
        rows.append(
            {
                "cohort": cohort.name,
                "epoch": EPOCHS[selector],
                "aggregation": AGGREGATIONS[aggregation].replace("cases", cohort.units),
                "undefined": UNDEFINED[undefined],
                "label_2": LABEL_2[label],
                "winner": " = ".join(cohort.losses[losses[loss]] for loss in best),
                "dice": float(means.max()),
                "second": " = ".join(cohort.losses[losses[loss]] for loss in rest) or "–",
                "margin": 0.0 if len(best) > 1 else float(means.max()) - second,
                "tau": float(order_agreement(reference, means[None])[0])
                if len(means) > 1 and not np.isnan(means).any()
                else float("nan"),
            }
        )
    return pd.DataFrame(rows)
