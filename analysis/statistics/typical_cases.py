"""Which cases are shown: of the best, the median and the worst patient, by rule and not by eye."""

from __future__ import annotations

import numpy as np

from analysis.statistics.subjects import by_subject, first_cases

RULES = ("best", "median", "worst")


def typical_cases(
    dice: np.ndarray, eligible: np.ndarray, subject_of: np.ndarray | None = None
) -> list[tuple[str, int, int]]:
    """(rule, case, seed) for the best, median and worst patient of dice [L, S, P].

    A case has its mean over losses and seeds; a patient, the mean of the eligible cases, and is
    shown by the one that is their (lower) median.  The seed is the one whose mean over losses is
    the (lower) median.  Undefined values are left out of all means.  Fewer than three patients
    give fewer rows.
    """
    number = (~np.isnan(dice)).sum((0, 1))
    mean = np.divide(
        np.nansum(dice, (0, 1)), number, out=np.full(len(number), np.nan), where=number > 0
    )
    usable = np.flatnonzero(eligible & ~np.isnan(mean))
    own = usable if subject_of is None else subject_of[usable]
    cases_of = [usable[own == own[first]] for first in first_cases(own)]
    ranked = np.argsort(-by_subject(mean[usable], own), kind="stable")
    candidates = [_median(cases_of[subject], mean) for subject in ranked]
    if not candidates:
        return []
    places = {"best": 0, "median": len(candidates) // 2, "worst": len(candidates) - 1}
    chosen, seen = [], set()
    for rule in RULES:
        case = int(candidates[places[rule]])
        if case in seen:
            continue
        seen.add(case)
        count = (~np.isnan(dice[:, :, case])).sum(0)
        by_seed = np.divide(
            np.nansum(dice[:, :, case], 0), count, out=np.full(len(count), np.nan), where=count > 0
        )
        order = [seed for seed in np.argsort(by_seed, kind="stable") if not np.isnan(by_seed[seed])]
        # Only seeds that as many losses as possible have completed.
        order = [seed for seed in order if count[seed] == count.max()]
        chosen.append((rule, case, int(order[(len(order) - 1) // 2])))
    return chosen


def _median(cases: np.ndarray, mean: np.ndarray) -> int:
    """The case whose mean is the (lower) median; the first of those that are equal."""
    order = cases[np.argsort(mean[cases], kind="stable")]
    return int(order[(len(order) - 1) // 2])
