"""Slices as the ledger stores them: packed masks, and how what is ignored is shown."""

from __future__ import annotations

import numpy as np
import pandas as pd


def mask(packed: bytes, row: pd.Series) -> np.ndarray:
    """A packed mask as bool [height, width]."""
    height, width = int(row["height"]), int(row["width"])
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width)
    return bits.reshape(height, width).astype(bool)


def ignored(row: pd.Series) -> np.ndarray:
    """What of a slice is ignored, bool [height, width]."""
    packed = row.get("ignore")
    if packed is None:  # ledgers of earlier releases do not say, for nothing could be
        return np.zeros((int(row["height"]), int(row["width"])), dtype=bool)
    return mask(packed, row)


def striped(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A grey image, darker and with diagonal stripes where it is ignored."""
    diagonals = np.indices(where.shape).sum(axis=0) % 4 == 0
    return np.where(where, np.where(diagonals, np.uint8(160), image // 2), image)
