"""Are the voxels that networks are unsure of those that they get wrong?

Voxels are looked at in the order of an uncertainty, the most uncertain first, and those looked at
are put right.  Errors that are left, by the share of voxels looked at: a straight line where the
uncertainty says nothing, and gone after as many voxels as there are errors where it says all.  From
histograms of voxels and of errors (`results.ENSEMBLES`); voxels of a bin are in no order, so the
curve is straight within one.  Malinin et al. 2022, arXiv 2206.15407, have it for brain lesions.
"""

from __future__ import annotations

import numpy as np


def left_errors(voxels: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of voxels looked at, and share of errors left, [..., bins + 1] each, from none on.

    >>> looked, left = left_errors(np.array([8.0, 2.0]), np.array([1.0, 1.0]))
    >>> looked.tolist(), left.tolist()
    ([0.0, 0.2, 1.0], [1.0, 0.5, 0.0])
    """
    looked, found = (_shares(part) for part in (voxels, errors))
    return looked, 1 - found


def area(voxels: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[...] how much of the way from chance (0) to perfect (1) an uncertainty goes, and by how much
    it can be off since bins keep no order.

    (1/2 - A) / (1/2 - e/2), where A is the area under `left_errors` and e the share of voxels that
    are wrong.  It is 2 AUC - 1 of telling errors from the rest.  NaN where nothing or all is wrong.

    >>> value, off = area(np.array([98.0, 2.0]), np.array([0.0, 2.0]))
    >>> float(value), float(off)
    (1.0, 0.0)
    """
    looked, left = left_errors(voxels, errors)
    under = ((left[..., 1:] + left[..., :-1]) / 2 * np.diff(looked)).sum(-1)
    total, wrong = voxels.sum(-1), errors.sum(-1)
    share = _divided(wrong, total)
    best = (1 - share) / 2
    unordered = _divided((errors * (voxels - errors)).sum(-1) / 2, total * wrong)
    return _divided(0.5 - under, best), _divided(unordered, best)


def found_in(voxels: np.ndarray, errors: np.ndarray, share: float) -> np.ndarray:
    """[...] share of errors among the most uncertain ``share`` of voxels; NaN without errors.

    >>> float(found_in(np.array([90.0, 10.0]), np.array([1.0, 4.0]), 0.05))
    0.4
    """
    return 1 - at_shares(voxels, errors, np.array([share]))[..., 0]


def at_shares(voxels: np.ndarray, errors: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[..., shares] errors left once these shares of voxels were looked at."""
    looked, left = left_errors(voxels, errors)
    flat = zip(looked.reshape(-1, looked.shape[-1]), left.reshape(-1, left.shape[-1]), strict=True)
    found = [np.interp(shares, x, y) for x, y in flat]
    return np.array(found).reshape(*looked.shape[:-1], len(shares))


def ideal(share_wrong: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[..., shares] errors left if the errors themselves were looked at first."""
    return (1 - _divided(shares, share_wrong[..., None])).clip(0, 1)


def _shares(counts: np.ndarray) -> np.ndarray:
    """[..., bins + 1] share of the total in the highest bins, from none of them to all."""
    summed = counts[..., ::-1].cumsum(-1)
    summed = np.concatenate([np.zeros((*summed.shape[:-1], 1)), summed], -1)
    return _divided(summed, summed[..., -1:])


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
