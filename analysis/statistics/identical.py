"""Which losses have the same scores to the bit, so that nothing can rank them?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def identical(rates: np.ndarray, losses: Sequence[int]) -> list[list[int]]:
    """Groups of two or more losses whose rates [L, S, P, metrics] are equal wherever both have
    one, and are absent together or share some.

    A loss without any value is in no group.

    >>> rates = np.array([0.5, 0.5, 0.6]).reshape(3, 1, 1, 1)
    >>> identical(rates, [0, 1, 2])
    [[0, 1]]
    """
    groups: list[list[int]] = []
    for loss in losses:
        for group in groups:
            if _equal(rates[group[0]], rates[loss]):
                group.append(loss)
                break
        else:
            groups.append([loss])
    return [group for group in groups if len(group) > 1]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal in every training (seed, case) that both have, where at least one is shared."""
    shared = ~np.isnan(a).all(-1) & ~np.isnan(b).all(-1)
    return bool(shared.any()) and np.array_equal(a[shared], b[shared], equal_nan=True)
