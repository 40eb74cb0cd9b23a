"""Which DSC do a sensitivity and a precision make?"""

from __future__ import annotations

import numpy as np


def harmonic(sensitivity: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """DSC of one case with this sensitivity and precision: their harmonic mean."""
    total = sensitivity + precision
    return np.divide(2 * sensitivity * precision, total, out=np.zeros_like(total), where=total > 0)
