"""Two learners that are exchangeable, in a real cross-validation: is the true difference covered?

y = sum of all features + noise.  One learner is ridge regression on the first half of the features,
the other on the second half, so neither is better; what they are trained on moves each of them.
What that does is known exactly: an independent case costs the first |b - estimate|^2 + |b|^2 + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.statistics.ladder import errors, overlap, with_training_sets

CASES, FOLDS, FEATURES, PENALTY = 600, 5, 200, 1.0
WEIGHT = 0.05
"""Of each feature."""


@dataclass(frozen=True)
class Seen:
    """How often intervals of the difference in squared error hold 0."""

    tau: float
    """Standard deviation of the true difference over training sets."""
    covered: dict[str, float]
    """Share of 95 % intervals, each looked at once; L3 is given tau."""


def seen(draws: int, seed: int = 7) -> Seen:
    """Cross-validate the two learners on many cohorts."""
    rng = np.random.default_rng(seed)
    fold_of = np.arange(CASES) % FOLDS
    differences = np.empty((draws, CASES))
    true = np.empty((draws, FOLDS))
    for draw in range(draws):
        x = rng.normal(size=(2, CASES, FEATURES))
        y = WEIGHT * x.sum((0, 2)) + rng.normal(size=CASES)
        costs = np.empty((2, CASES))
        risks = np.empty((2, FOLDS))
        for learner in range(2):
            for fold in range(FOLDS):
                here = fold_of == fold
                known, target = x[learner][~here], y[~here]
                found = np.linalg.solve(
                    known.T @ known + PENALTY * np.eye(FEATURES), known.T @ target
                )
                costs[learner, here] = (y[here] - x[learner][here] @ found) ** 2
                risks[learner, fold] = ((WEIGHT - found) ** 2).sum()
        differences[draw] = costs[0] - costs[1]
        true[draw] = risks[0] - risks[1]
    tau = float(np.sqrt((true**2).mean()))
    found = errors([differences[:, None, fold_of == fold] for fold in range(FOLDS)])
    sizes = np.full(FOLDS, CASES / FOLDS)
    k = overlap(sizes / CASES, sizes, CASES)
    base, df = found.variance["base"], found.df["base"]
    halves = {
        "L2": _half(found.variance["L2"], found.df["L2"]),
        "L3 before": _half(found.variance["folds"], found.df["folds"]),
        "L3": np.maximum(_half(base, df), _half(*with_training_sets(base, df, k, tau))),
    }
    halves["L3c before"] = halves["L3 before"] * np.sqrt(1 + FOLDS / (FOLDS - 1))
    covered = {
        name: float((np.abs(found.estimate) <= half).mean()) for name, half in halves.items()
    }
    return Seen(tau, covered)


def _half(variance: np.ndarray, df: np.ndarray) -> np.ndarray:
    return special.stdtrit(df, 0.975) * np.sqrt(variance)
