"""Is the ledger consistent: what must hold for every trial, and what is said where it does not.

Nothing here stops a report: every finding becomes a sentence in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from analysis.reading.scores import COUNTS, CohortScores
from lesion_core.results import Sweep

SESSION = re.compile("^sub-.+_ses-")
"""How BIDS names a session: a case that may be one of several of its subject."""


def findings(sweep: Sweep, cohorts: Sequence[CohortScores]) -> list[str]:
    """Sentences about everything that a reader should know before trusting a number."""
    found = []
    stray = sweep.runs.loc[~sweep.runs["expected"].astype(bool), "trial"]
    if len(stray):
        found.append(
            f"{len(stray)} trial folders are not listed in sweep.json and were left out: "
            f"{_some(stray)}."
        )
    for cohort in cohorts:
        found += [f"{cohort.title}: {sentence}" for sentence in cohort_findings(cohort)]
    return found


def cohort_findings(cohort: CohortScores) -> list[str]:
    """Sentences about what does not hold in one cohort."""
    if not cohort.shown:
        return [f"none of {cohort.expected} trials is complete, so there is nothing to show yet."]
    if not cohort.has_counts:
        return [
            "no voxel counts, only rates: panels about lesions, thresholds, confident errors "
            "and choices of computation are left out."
        ]
    found = []
    reference = cohort.counts[..., COUNTS.index("tp")] + cohort.counts[..., COUNTS.index("fn")]
    number = (~np.isnan(reference)).sum((0, 1, 3))
    low = np.where(np.isnan(reference), np.inf, reference).min((0, 1, 3), initial=np.inf)
    high = np.where(np.isnan(reference), -np.inf, reference).max((0, 1, 3), initial=-np.inf)
    changed = [cohort.cases[i] for i in np.flatnonzero((number > 0) & (low != high))]
    if changed:
        found.append(
            "the number of reference voxels (TP + FN) is not the same for every loss, "
            f"seed and epoch in {_some(changed)}: the trials did not see the same masks."
        )
    present = np.any(~np.isnan(reference), axis=3)
    by_fold = (
        np.stack([cohort.fold_of == f for f in range(len(cohort.folds))])
        if len(cohort.cases)
        else np.zeros((len(cohort.folds), 0), bool)
    )
    for loss, seed, fold in np.argwhere(cohort.done):
        lost = np.flatnonzero(by_fold[fold] & ~present[loss, seed])
        if len(lost):
            found.append(
                f"{cohort.losses[loss]} s{cohort.seeds[seed]} f{cohort.folds[fold]} lacks "
                f"the test cases {_some([cohort.cases[i] for i in lost])}."
            )
    if len(set(cohort.cases)) < len(cohort.cases):
        twice = sorted({case for case in cohort.cases if cohort.cases.count(case) > 1})
        found.append(f"tested in more than one fold: {_some(twice)}.")
    elif len(set(cohort.subjects)) < len(cohort.subjects):
        twice = sorted({name for name in cohort.subjects if cohort.subjects.count(name) > 1})
        found.append(
            "sessions of one patient are tested in several folds, so networks are tested on "
            f"patients that they were trained on: {_some(twice)}."
        )
    sessions = [case for case in cohort.cases if SESSION.search(case)]
    if sessions and not cohort.has_sessions:
        found.append(
            "whose case each case is was not kept, so every one counts as a patient of its own, "
            f"though these look like sessions: {_some(sessions)}."
        )
    if not cohort.has_course:
        found.append(
            "trials were evaluated after their last epoch alone: there are no curves over epochs, "
            "and no epoch can be chosen."
        )
    if not cohort.has_training:
        found.append(
            "trials were evaluated on test images alone: nothing is known of training images and "
            "training patches."
        )
    lengths = sorted(set(cohort.last_epoch[cohort.done].tolist()))
    if len(lengths) > 1:
        found.append(f"complete trials end at different epochs ({', '.join(map(str, lengths))}).")
    empty = [cohort.cases[i] for i in np.flatnonzero((number > 0) & (high == 0))]
    if empty:
        found.append(
            f"no reference lesion in {_some(empty)}: sensitivity is undefined there, and "
            "DSC is 0 as soon as one voxel is predicted."
        )
    return found


def _some(names: object, most: int = 5) -> str:
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
