"""Slices as the ledger stores them: packed masks."""

from __future__ import annotations

import numpy as np
import pandas as pd


def mask(packed: bytes, row: pd.Series) -> np.ndarray:
    """A packed mask as bool [height, width]."""
    height, width = int(row["height"]), int(row["width"])
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width)
    return bits.reshape(height, width).astype(bool)
