"""From the cases of a subject to the subject: statistics count patients, files hold sessions.

Subjects are numbers along the cases, as in `scores.CohortScores.subject_of`; None stands for a
cohort in which every case is a subject of its own.  Cases are left out by the rules of each
statistic first; what is left of a subject then has one mean, whatever its number of sessions.
"""

from __future__ import annotations

import numpy as np


def part_of(subject_of: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    """The subjects of some of the cases."""
    return None if subject_of is None else subject_of[chosen]


def first_cases(subject_of: np.ndarray) -> np.ndarray:
    """Index of every subject's first case, in the order of the cases.

    >>> first_cases(np.array([7, 7, 3, 7])).tolist()
    [0, 2]
    """
    return np.sort(np.unique(subject_of, return_index=True)[1])


def number_of(subject_of: np.ndarray | None, chosen: np.ndarray) -> int:
    """How many subjects the chosen cases (bool) are of."""
    if subject_of is None:
        return int(chosen.sum())
    return len(np.unique(subject_of[chosen]))


def by_subject(values: np.ndarray, subject_of: np.ndarray | None, axis: int = -1) -> np.ndarray:
    """Means over the cases of each subject, in the order of their first cases.

    A case that is NaN is left out of its subject's mean; a subject without any other is NaN.

    >>> by_subject(np.array([0.2, 0.4, 0.9]), np.array([0, 0, 1])).tolist()
    [0.30000000000000004, 0.9]
    """
    if subject_of is None or len(first := first_cases(subject_of)) == len(subject_of):
        return values
    member = (subject_of[:, None] == subject_of[first]).astype(float)  # [cases, subjects]
    moved = np.moveaxis(values, axis, -1)
    known = ~np.isnan(moved)
    number = known.astype(float) @ member
    total = np.where(known, moved, 0.0) @ member
    mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return np.moveaxis(mean, -1, axis)
