"""Which cases are shown: the best, the median and the worst, by rule and not by eye."""

from __future__ import annotations

import numpy as np

RULES = ("best", "median", "worst")


def typical_cases(dice: np.ndarray, eligible: np.ndarray) -> list[tuple[str, int, int]]:
    """(rule, case, seed) for the best, median and worst case of dice [L, S, P].

    A case is ranked by its mean over losses and seeds; its seed is the one whose mean over losses
    is the (lower) median.  Undefined values are left out of both means.  Fewer than three
    eligible cases give fewer rows.
    """
    number = (~np.isnan(dice)).sum((0, 1))
    mean = np.divide(
        np.nansum(dice, (0, 1)), number, out=np.full(len(number), np.nan), where=number > 0
    )
    candidates = [
        case
        for case in np.argsort(-mean, kind="stable")
        if eligible[case] and not np.isnan(mean[case])
    ]
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
