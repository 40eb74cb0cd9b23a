"""What would a network score at any other threshold than 0.5?

The last epoch's histograms (`results.HISTOGRAMS`) give the counts at every one of them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.reading.scores import COUNTS, METRICS, CohortScores
from analysis.statistics.subjects import by_subject, part_of
from lesion_core import results

THRESHOLDS = np.arange(1, results.NUM_BINS) / results.NUM_BINS
"""Lower edges of the histogram bins but the first: p >= threshold is lesion."""
HALF = results.NUM_BINS // 2 - 1
"""Where the paper's threshold of 0.5 is."""


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


def histograms(cohort: CohortScores, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """[L, S, P, bins] of lesion and background voxels, from rows of `results.HISTOGRAMS`; NaN where
    a trial has none."""
    shape = (*cohort.test.shape[:3], results.NUM_BINS)
    lesion, background = np.full(shape, np.nan), np.full(shape, np.nan)
    trials = cohort.final.drop_duplicates("trial").set_index("trial")
    rows = rows[rows["trial"].isin(trials.index).to_numpy()]
    if rows.empty:
        return lesion, background
    place = {key: index for index, key in enumerate(zip(cohort.fold_of, cohort.cases, strict=True))}
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


def rates_at_thresholds(
    cohort: CohortScores, lesion: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """[L, S, P, thresholds, metrics] rates of every test image at every threshold."""
    final = cohort.last_by_case(cohort.counts)
    reference = final[..., COUNTS.index("tp")] + final[..., COUNTS.index("fn")]
    # A histogram with more lesion voxels than the reference is of another image: undefined.
    fits = (lesion.sum(-1) <= reference)[..., None]
    lesion, background = np.where(fits, lesion, np.nan), np.where(fits, background, np.nan)
    tp, fp, fn = counts_at_thresholds(lesion, background, reference)
    frame = pd.DataFrame({"tp": tp.ravel(), "fp": fp.ravel(), "fn": fn.ravel()})
    rates = results.rates(frame)[list(METRICS)].to_numpy()
    return rates.reshape(*tp.shape, len(METRICS))


def fold_curves(
    rates: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray | None = None
) -> np.ndarray:
    """[L, F, thresholds]: mean over a fold's subjects and seeds of [L, S, P, thresholds]; cases
    that are undefined at some threshold (both masks empty) are left out there."""
    folds = np.unique(fold_of)
    curves = np.full((rates.shape[0], len(folds), rates.shape[3]), np.nan)
    for place, fold in enumerate(folds):
        here = fold_of == fold
        block = by_subject(rates[:, :, here], part_of(subject_of, here), axis=2)
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


def at_chosen(rates: np.ndarray, chosen: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """[L, S, P] of rates [L, S, P, thresholds]: every case at the threshold ``chosen`` [L, F] for
    its fold, as from `own_thresholds`; NaN where none is.

    >>> rates = np.linspace(0, 0.98, 99).reshape(1, 1, 1, 99)
    >>> round(at_chosen(rates, np.array([[7]]), np.array([3])).item(), 6)
    0.07
    """
    place = np.searchsorted(np.unique(fold_of), fold_of)
    at = chosen[:, None, place, None]  # [L, 1, P, 1]
    taken = np.take_along_axis(
        rates, np.broadcast_to(np.maximum(at, 0), (*rates.shape[:3], 1)), -1
    )[..., 0]
    return np.where(at[..., 0] >= 0, taken, np.nan)


def own_threshold_scores(rates: np.ndarray, cohort: CohortScores) -> np.ndarray | None:
    """[L, S, P] DSC at each loss's own threshold, from `rates_at_thresholds`; NaN where none is.
    None where no other folds can choose one: a single fold, or nothing known."""
    dice = rates[..., METRICS.index("dice")]
    if np.isnan(dice).all() or len(np.unique(cohort.fold_of)) < 2:
        return None
    chosen = own_thresholds(fold_curves(dice, cohort.fold_of, cohort.subject_of))
    return at_chosen(dice, chosen, cohort.fold_of) if (chosen >= 0).any() else None


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
