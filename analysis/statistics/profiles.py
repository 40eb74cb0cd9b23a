"""What share of patients reaches a given score?"""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.linspace(0, 1, 101)


def profile(patients: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """[..., thresholds] share of patients [..., P] whose score is above each threshold.

    >>> profile(np.array([0.2, 0.6]), np.array([0.1, 0.5, 0.9])).tolist()
    [1.0, 0.5, 0.0]
    """
    flat = np.sort(patients.reshape(-1, patients.shape[-1]), axis=-1)
    size = flat.shape[-1]
    share = np.array([size - np.searchsorted(row, thresholds, side="right") for row in flat])
    return share.reshape(*patients.shape[:-1], len(thresholds)) / size
