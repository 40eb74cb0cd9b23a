"""Where in its space does a search score high, as far as its noise lets that be seen?"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.search_axes import Axes
from analysis.statistics.search_outcome import SearchOutcome

FEWEST_FOR_A_SURFACE = 5
MOST_IN_PAIRS = 4
"""Fields of which every two are drawn: the most important ones."""


def whole_fields(found: SearchOutcome) -> list[str]:
    """Fields of which only whole numbers were tried, several of them."""
    axes = found.axes
    return [
        name
        for name, values in zip(found.fields, found.points.T, strict=True)
        if axes.choices(name) is None
        and len(np.unique(values[~np.isnan(values)])) > 2
        and (values == np.round(values))[~np.isnan(values)].all()
    ]


@dataclass(frozen=True, eq=False)
class Surface:
    """A Gaussian process through the estimates, each with its own noise."""

    model: Any
    axes: Axes
    centre: float

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n] mean and standard deviation of the score itself at points [n, fields]."""
        mean, sd = self.model.predict(self.axes.features(points), return_std=True)
        return mean + self.centre, sd

    def like_the_best(self, points: np.ndarray) -> tuple[int, float]:
        """Which point is highest, and the share of points that are less than one standard
        deviation, of the difference, below it."""
        mean, covariance = self.model.predict(self.axes.features(points), return_cov=True)
        best = int(np.argmax(mean))
        own = np.diag(covariance)
        variance = np.maximum(own[best] + own - 2 * covariance[best], 0.0)
        return best, float((mean[best] - mean <= np.sqrt(variance)).mean())


def surface(found: SearchOutcome, metric: str) -> Surface | None:
    """A surface through the scores of a metric; None with too few configurations.

    Matern 5/2 with a length per field, by likelihood; a logarithmic range by its logarithm, a
    choice as a column for each of its values.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    value, error = found.estimate[metric], found.error[metric]
    usable = ~np.isnan(value) & ~np.isnan(error)
    if usable.sum() < FEWEST_FOR_A_SURFACE or np.ptp(value[usable]) == 0:
        return None
    axes = found.axes
    features = axes.features(found.points[usable])
    spread = float(np.var(value[usable]))
    lengths: Any = np.full(features.shape[1], 0.5)
    kernel = ConstantKernel(spread, (spread * 1e-2, spread * 1e2)) * Matern(
        lengths, (0.1, 10.0), nu=2.5
    )
    noise: Any = np.maximum(error[usable] ** 2, 1e-6 * spread)
    model = GaussianProcessRegressor(
        kernel,
        alpha=noise,
        n_restarts_optimizer=2,
        random_state=0,
    )
    centre = float(np.average(value[usable], weights=1 / np.maximum(error[usable] ** 2, 1e-12)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length at its bound is a flat field: no news
        model.fit(features, value[usable] - centre)
    return Surface(model, axes, centre)


def is_plane(axes: Axes) -> bool:
    """Whether the whole space is a plane of two ranges."""
    return len(axes.fields) == 2 == len(axes.numbers) and not axes.depends


def plane_points(axes: Axes, centre: np.ndarray, names: tuple[str, str], steps: int) -> np.ndarray:
    """[steps * steps, fields] a grid over two ranges, the other fields as at ``centre``."""
    grid = np.meshgrid(*(axes.along(name, steps) for name in names), indexing="ij")
    return axes.through(centre, {n: g.ravel() for n, g in zip(names, grid, strict=True)})


def grid_frame(found: SearchOutcome, fitted: Surface, metric: str, steps: int = 41) -> pd.DataFrame:
    """Score and standard deviation on a grid (of two ranges), else along each field through the
    chosen configuration, or the best one so far."""
    axes, centre = fitted.axes, found.points[_centre(found, metric)]
    if is_plane(axes):
        points = plane_points(axes, centre, (axes.fields[0], axes.fields[1]), steps)
        score, sd = fitted.at(points)
        return pd.DataFrame(points, columns=axes.fields).assign(score=score, sd=sd)
    parts = [axes.through(centre, {name: axes.along(name, 61)}) for name in axes.fields]
    points = np.concatenate(parts)
    score, sd = fitted.at(points)
    varied = [n for n, part in zip(axes.fields, parts, strict=True) for _ in part]
    return axes.frame(points).assign(score=score, sd=sd, varied=varied)


def pairs_frame(
    found: SearchOutcome, fitted: Surface, metric: str, steps: int = 21
) -> pd.DataFrame:
    """Score and standard deviation over every two of the ranges, the other fields as chosen.

    Of many, the `MOST_IN_PAIRS` most important ones, in the order of the space.
    """
    axes, centre = fitted.axes, found.points[_centre(found, metric)]
    share = found.search["importance"].get(metric, {})
    top = sorted(axes.numbers, key=lambda name: -share.get(name, 0.0))[:MOST_IN_PAIRS]
    frames = []
    for pair in itertools.combinations([name for name in axes.numbers if name in top], 2):
        points = plane_points(axes, centre, pair, steps)
        score, sd = fitted.at(points)
        values = {
            f"{side}_value": points[:, axes.fields.index(n)]
            for side, n in zip("xy", pair, strict=True)
        }
        frames.append(
            pd.DataFrame({"x": pair[0], "y": pair[1], **values, "score": score, "sd": sd})
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def whole_space(axes: Axes, number: int = 2000) -> np.ndarray:
    """[n, fields] points that stand for the whole space: a grid of a plane or of a single field,
    else random ones."""
    if is_plane(axes):
        first, second = axes.fields
        return plane_points(axes, np.full(2, np.nan), (first, second), 41)
    if len(axes.fields) == 1:
        return axes.along(axes.fields[0], 61)[:, None]
    rng = np.random.default_rng(0)
    columns = []
    for name in axes.fields:
        if (choices := axes.choices(name)) is not None:
            columns.append(rng.integers(len(choices), size=number).astype(float))
        else:
            columns.append(axes.between(name, rng.uniform(0, 1, number)))
    return axes.as_searched(np.stack(columns, 1))


def _centre(found: SearchOutcome, metric: str) -> int:
    return found.chosen if found.chosen is not None else int(np.nanargmax(found.estimate[metric]))
