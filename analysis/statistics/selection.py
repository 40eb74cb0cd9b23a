"""Which epoch is reported: the last, one chosen on other data, or (the paper) the best on test.

All functions take `curves` [L, S, F, E + 1, views, metrics] as in `scores.CohortScores`; NaN is an
absent trial or an undefined epoch mean.  Epoch 0, the untrained network, is never selected.
"""

from __future__ import annotations

import warnings

import numpy as np

from analysis.reading.scores import METRICS, VIEWS, at_epoch

TEST, TRAIN = VIEWS.index("test"), VIEWS.index("train")
DICE = METRICS.index("dice")

SELECTORS = {
    "last": "last epoch",
    "lofo": "epoch chosen on the other folds",
    "best_train": "epoch with the best training DSC of each trial",
    "oracle_joint": "seed and epoch with the best test DSC of each fold",
    "oracle": "best over seeds and epochs of each fold, metric and view (the paper's Table 2)",
}
"""From honest to optimistic."""


def by_fold(curves: np.ndarray, last_epoch: np.ndarray, selector: str) -> np.ndarray:
    """[L, F, views, metrics] under a selector; a mean over seeds except for the two oracles.

    `oracle`: max over seeds and epochs, for every fold, view and metric on its own, so that each
    number may come from another network (get_table_vector of the authors' notebook).
    `oracle_joint`: one seed and epoch per fold, where test DSC is highest.
    """
    if selector == "oracle":
        return _quiet(np.nanmax, curves[:, :, :, 1:], (1, 3))
    if selector == "oracle_joint":
        return _joint(curves)
    return _quiet(np.nanmean, at_epoch(curves, epochs(curves, last_epoch, selector)), 1)


def epochs(curves: np.ndarray, last_epoch: np.ndarray, selector: str) -> np.ndarray:
    """[L, S, F] the epoch that a selector reports, -1 where there is no complete trial.

    `last`: the last epoch of the trial.
    `lofo` (leave one fold out): for fold f, the epoch whose test DSC, averaged over the *other*
    folds and over seeds, is highest; no patient has a say in their own epoch.  A sweep with one
    fold has no other folds: last.
    `best_train`: the epoch with the trial's best DSC on training images, which is what the
    authors' code keeps as the best state.
    """
    if selector == "last":
        return last_epoch
    if selector == "best_train":
        chosen = _argmax(curves[:, :, :, 1:, TRAIN, DICE]) + 1
        return np.where((last_epoch >= 0) & (chosen > 0), chosen, last_epoch)
    if selector == "lofo":
        return np.where(last_epoch >= 0, _lofo(curves, last_epoch)[:, None, :], -1)
    raise ValueError(f"unknown selector {selector!r}; expected one of {sorted(SELECTORS)}")


def mean_over(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over the entries of an axis that are not NaN; NaN where all are."""
    return _quiet(np.nanmean, values, axis)


def _lofo(curves: np.ndarray, last_epoch: np.ndarray) -> np.ndarray:
    dice = curves[..., TEST, DICE]
    num_folds = dice.shape[2]
    chosen = last_epoch.max(1)
    for fold in range(num_folds):
        others = [f for f in range(num_folds) if f != fold]
        if not others:
            continue
        # Mean over seeds within each fold first: every fold has the same say.
        mean = _quiet(np.nanmean, _quiet(np.nanmean, dice[:, :, others, 1:], 1), 1)
        best = _argmax(mean) + 1
        chosen[:, fold] = np.where(best > 0, best, chosen[:, fold])
    return chosen


def _joint(curves: np.ndarray) -> np.ndarray:
    losses, seeds, folds, num = curves.shape[:4]
    dice = np.moveaxis(curves[:, :, :, 1:, TEST, DICE], 2, 1).reshape(losses, folds, -1)
    best = _argmax(dice)
    values = np.moveaxis(curves[:, :, :, 1:], 2, 1).reshape(
        losses, folds, seeds * (num - 1), *curves.shape[4:]
    )
    return at_epoch(values, best)


def _argmax(values: np.ndarray) -> np.ndarray:
    """Index of the first highest value along the last axis; -1 where all are NaN."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], -1)
    empty = np.isnan(values).all(-1)
    return np.where(empty, -1, np.argmax(np.where(np.isnan(values), -np.inf, values), -1))


def _quiet(reduce, values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """A nan-reduction whose all-NaN slices stay NaN without a warning."""
    axes = (axis,) if isinstance(axis, int) else axis
    if any(values.shape[a] == 0 for a in axes):
        shape = [size for a, size in enumerate(values.shape) if a not in axes]
        return np.full(shape, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return reduce(values, axis=axis)
