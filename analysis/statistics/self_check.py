"""What coverage can this very design expect: does it keep the promise of its intervals?

Sweeps of the same folds, patients and seeds are drawn from the components that this one estimates,
with normal errors and a training-set effect of the given size, and judged by the ladder's own code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.statistics import confidence
from analysis.statistics.ladder import Components, errors, overlap, with_training_sets
from analysis.statistics.subjects import number_of, part_of

DRAWS = 2000


@dataclass(frozen=True)
class Design:
    """What a difference of two losses is estimated from."""

    seeds: Sequence[int]
    """Of each fold."""
    subjects: Sequence[int]
    """Of each fold, that enter."""
    tested: Sequence[int]
    """Of each fold, all that it tests."""
    everyone: int
    """Subjects of the cohort."""


@dataclass(frozen=True)
class Coverage:
    """Share of drawn sweeps whose interval holds what it should, on one rung."""

    rung: str
    share: float
    """NaN where the design has no such interval."""
    error: float
    """Monte Carlo standard error of the share."""
    draws: int


def design_of(
    difference: np.ndarray,
    fold_of: np.ndarray,
    subject_of: np.ndarray | None = None,
    num_subjects: int | None = None,
) -> Design:
    """The design behind a difference d[s, p], NaN where absent, as `ladder.ladder` takes it."""
    seeds, subjects, tested = [], [], []
    for fold in np.unique(fold_of):
        here = np.flatnonzero(fold_of == fold)
        block = difference[:, here]
        block = block[~np.isnan(block).all(1)]
        usable = np.asarray(~np.isnan(block).any(0)) & bool(len(block))
        if usable.any():
            seeds.append(len(block))
            subjects.append(number_of(part_of(subject_of, here), usable))
            tested.append(number_of(subject_of, fold_of == fold))
    everyone = number_of(subject_of, np.ones(len(fold_of), bool))
    return Design(seeds, subjects, tested, max(everyone, num_subjects or 0))


def expected_coverage(
    design: Design, parts: Components, tau: float, rng: np.random.Generator, draws: int = DRAWS
) -> list[Coverage]:
    """Coverage of L1, L2 and L3 in sweeps of a design, two equal losses apart from chance.

    L1 should hold the mean of these patients and training sets, L2 that of all patients at these
    training sets, L3 (at ``tau``; NaN: none) that of all, which is 0.
    """
    if math.isnan(parts.residual):
        return [Coverage(rung, float("nan"), float("nan"), 0) for rung in ("L1", "L2", "L3")]
    weight = np.array(design.subjects, float) / sum(design.subjects)
    shift = _training_effects(design, 0.0 if math.isnan(tau) else tau, rng, draws)
    blocks, own = [], np.zeros(draws)
    for fold, (seeds, subjects) in enumerate(zip(design.seeds, design.subjects, strict=True)):
        patients = rng.normal(0, math.sqrt(parts.patient), (draws, 1, subjects))
        runs = rng.normal(0, math.sqrt(parts.run), (draws, seeds, 1))
        rest = rng.normal(0, math.sqrt(parts.residual), (draws, seeds, subjects))
        blocks.append(patients + runs + rest + shift[:, fold, None, None])
        own += weight[fold] * patients.mean((1, 2))
    found = errors(blocks)
    sets = shift @ weight

    def half(variance: np.ndarray, df: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return stats.t.ppf(confidence.upper(), np.where(df > 0, df, np.nan)) * np.sqrt(variance)

    k = overlap(weight, np.array(design.tested, float), design.everyone)
    base = half(found.variance["base"], found.df["base"])
    with_sets = half(*with_training_sets(found.variance["base"], found.df["base"], k, tau))
    halves = {
        "L1": (own + sets, half(found.variance["L1"], found.df["L1"])),
        "L2": (sets, half(found.variance["L2"], found.df["L2"])),
        "L3": (np.zeros(draws), np.maximum(base, with_sets)),  # an effect up to tau may be none
    }
    covered = []
    for rung, (truth, width) in halves.items():
        share = (
            float((np.abs(found.estimate - truth) <= width).mean())
            if not np.isnan(width).any()
            else float("nan")
        )
        covered.append(Coverage(rung, share, math.sqrt(share * (1 - share) / draws), draws))
    return covered


def _training_effects(
    design: Design, tau: float, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """[draws, F] what the training sets of the folds do: all subjects but those of the fold have a
    part, the same in every fold that trains on them, so the sums over folds are enough."""
    sizes = np.array(design.tested, float)
    others = max(design.everyone - sizes.sum(), 0.0)  # of folds without a trial
    sums = rng.normal(size=(draws, len(sizes))) * np.sqrt(sizes)
    total = sums.sum(1) + rng.normal(size=draws) * math.sqrt(others)
    return tau * (total[:, None] - sums) / np.sqrt(np.maximum(design.everyone - sizes, 1.0))
