"""Slices as the ledger stores them: packed masks, and how ignored voxels are shown."""

from __future__ import annotations

import numpy as np
import pandas as pd


def mask(packed: bytes, row: pd.Series) -> np.ndarray:
    """A packed mask as bool [height, width]."""
    height, width = int(row["height"]), int(row["width"])
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width)
    return bits.reshape(height, width).astype(bool)


def stripes(row: pd.Series) -> np.ndarray:
    """Every fourth diagonal of what is ignored, bool [height, width]; nothing where nothing is."""
    packed = row.get("ignore")
    if packed is None:  # nor had earlier releases any
        return np.zeros((int(row["height"]), int(row["width"])), dtype=bool)
    ignored = mask(packed, row)
    return ignored & (np.indices(ignored.shape).sum(axis=0) % 4 == 0)


STRIPE = 160
"""Grey of ignored voxels' stripes."""
