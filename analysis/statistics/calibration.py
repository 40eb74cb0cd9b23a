"""Do a network's probabilities mean what they say, patient by patient?

From the last epoch's histograms (`results.HISTOGRAMS`): voxels of the brain box by predicted
probability, 100 bands wide 0.01.  Within a band a probability is known to 0.005, and that of nearly
all background, in the lowest one, not at all well: it is left out of the calibration error.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.reading.scores import CohortScores
from analysis.statistics.lesions import clustered_share
from analysis.statistics.selection import mean_over
from analysis.statistics.subjects import by_subject
from lesion_core.results import NUM_BINS

BANDS = 10
"""Of the reliability curve and the calibration error, from FLOOR on."""
FLOOR = 1
"""Histogram bins left out of the calibration error: probabilities below 0.01."""


def band_sums(values: np.ndarray) -> np.ndarray:
    """[..., BANDS] sums of [..., bins] over ten bands of probability, without the FLOOR."""
    kept = values.copy()
    kept[..., :FLOOR] = 0.0
    return kept.reshape(*values.shape[:-1], BANDS, -1).sum(-1)


def calibration_error(lesion: np.ndarray, background: np.ndarray) -> np.ndarray:
    """[...] expected calibration error of histograms [..., bins]: the difference between the mean
    probability and the share of lesion voxels in ten bands, weighed by their voxels; NaN where no
    voxel has a probability of 0.01 or more.

    >>> lesion, background = np.zeros((2, 100))
    >>> lesion[90], background[90] = 5, 5
    >>> round(float(calibration_error(lesion, background)), 3)
    0.405
    """
    total = lesion + background
    centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    off = np.abs(band_sums(total * centres) - band_sums(lesion)).sum(-1)
    number = band_sums(total).sum(-1)
    return np.divide(off, number, out=np.full(np.shape(number), np.nan), where=number > 0)


def brier(lesion: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[...] mean squared error of the probabilities of histograms [..., bins], and by how much it
    can be off, since a band does not say where in it a voxel is; NaN where there is no voxel.

    >>> lesion, background = np.zeros((2, 100))
    >>> background[0] = 1
    >>> score, off = brier(lesion, background)
    >>> round(float(score), 6), round(float(off), 6)
    (5e-05, 5e-05)
    """
    low = np.arange(NUM_BINS) / NUM_BINS
    high = low + 1 / NUM_BINS
    least = (lesion * (1 - high) ** 2 + background * low**2).sum(-1)
    most = (lesion * (1 - low) ** 2 + background * high**2).sum(-1)
    number = (lesion + background).sum(-1)
    empty = np.full(np.shape(number), np.nan)
    middle, off = (
        np.divide(part, number, out=empty.copy(), where=number > 0)
        for part in ((most + least) / 2, (most - least) / 2)
    )
    return middle, off


def reliability(cohort: CohortScores, lesion: np.ndarray, background: np.ndarray) -> pd.DataFrame:
    """A row per loss and band of probability: mean probability, share of lesion voxels with the
    interval that has patients as clusters (`lesions.clustered_share`), and how many patients have
    voxels there.  From histograms [L, S, P, bins]; seeds, then sessions, are averaged."""
    centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    rows = []
    for loss in cohort.shown:
        hits, total, summed = (
            by_subject(mean_over(band_sums(part[loss]), 0), cohort.subject_of, axis=0)
            for part in (lesion, lesion + background, (lesion + background) * centres)
        )  # [subjects, bands]
        hits, total, summed = (np.nan_to_num(part) for part in (hits, total, summed))
        for band in range(BANDS):
            share, low, high = clustered_share(hits[:, band], total[:, band])
            number = total[:, band].sum()
            rows.append(
                {
                    "cohort": cohort.name,
                    "loss": cohort.losses[loss],
                    "band": f"{max(band / BANDS, FLOOR / NUM_BINS):g} to {(band + 1) / BANDS:g}",
                    "predicted": summed[:, band].sum() / number if number > 0 else float("nan"),
                    "observed": share,
                    "low": low,
                    "high": high,
                    "patients": int((total[:, band] > 0).sum()),
                }
            )
    return pd.DataFrame(rows)
