"""How unsure networks are of a voxel: by their disagreement, and by a probability's entropy.

Both lie between 0 and 1, so that one set of bins holds either (`results.UNCERTAINTY_BINS`).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from lesion_core.results import UNCERTAINTY_BINS, UNCERTAINTY_STEPS


def disagreement(probabilities: np.ndarray) -> np.ndarray:
    """Twice the standard deviation over the networks of ``[M, ...]``: 1 where half say 1.

    Half of it is `ensemble.Maps.disagreement`.

    >>> disagreement(np.array([[0.0, 0.3], [1.0, 0.3]])).tolist()
    [1.0, 0.0]
    """
    return 2 * probabilities.std(axis=0)


def entropy_bits(probability: np.ndarray) -> np.ndarray:
    """-p log2 p - (1 - p) log2 (1 - p): 0 where p is 0 or 1, 1 where it is 0.5.

    >>> entropy_bits(np.array([0.0, 0.5, 1.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    p = np.asarray(probability, np.float64)
    return (special.entr(p) + special.entr(1 - p)) / np.log(2)


def binned(uncertainty: np.ndarray) -> np.ndarray:
    """The bin, 0 to `UNCERTAINTY_BINS` - 1, of uncertainties between 0 and 1.

    >>> binned(np.array([0.0, 1e-9, 0.5, 0.93, 0.94, 1.0])).tolist()
    [0, 0, 190, 198, 199, 199]
    """
    with np.errstate(divide="ignore"):
        place = np.floor(UNCERTAINTY_BINS + UNCERTAINTY_STEPS * np.log2(uncertainty))
    return place.clip(0, UNCERTAINTY_BINS - 1).astype(np.intp)


def voxels_and_errors(bins: np.ndarray, *wrong: np.ndarray) -> list[list[int]]:
    """Of voxels [n] by their bin: how many there are, and how many are wrong (bool [n])."""
    chosen = (bins, *(bins[each] for each in wrong))
    return [np.bincount(part, minlength=UNCERTAINTY_BINS).tolist() for part in chosen]
