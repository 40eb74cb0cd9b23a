"""How did the networks of one loss do on the cases that they never saw?  Prints JSON.

    python analysis/model_scores.py RESULTS --cohort wmh2017 --loss dsc

What a model card says (`sweeps/export.py` asks): the report's own means and intervals, and each
training's part of them.  Writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from analysis.flags import ROPE
from analysis.reading.imports import read_results
from analysis.reading.names import shown
from analysis.reading.scores import METRICS, CohortScores
from analysis.report import report_input
from analysis.sections.definitions import describe
from analysis.statistics import confidence
from analysis.statistics.ladder import Ladder
from analysis.statistics.order import every_mean
from lesion_core.standing import weighed_mean
from lesion_core.terminal import print_anything

HOLDS_FOR = {"L2": "new seeds and new patients", "L1": "new seeds"}
"""Rungs of a mean, the widest first: of one loss alone no training-set effect is known."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("results", type=Path, help="results folder (holds sweep.json)")
    parser.add_argument("--cohort", required=True)
    parser.add_argument("--loss", required=True)
    options = parser.parse_args(arguments)
    try:
        found = model_scores(options.results, options.cohort, options.loss)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


def model_scores(results: Path, cohort: str, loss: str) -> dict[str, Any]:
    """The report's means of a loss over test images at the last epoch, and each training's.

    Returns:
        ``formula`` of the loss in words; ``level`` of the intervals; ``metrics``: by metric its
        ``mean``, ``low``, ``high`` (None where the design cannot tell), what the interval
        ``holds_for``, over how many ``cells`` and ``patients``; ``trainings``: by seed and fold the
        same means over the fold's patients alone.

    Raises:
        ValueError: not a results folder, or the report has no such loss.
    """
    given = report_input(read_results(results), None, ROPE, False)
    own = next((one for one in given.all_cohorts if one.name == cohort), None)
    name = shown(loss)
    if own is None or name not in [own.losses[place] for place in own.shown]:
        raise ValueError(f"{results}: the report has no loss {name} on {cohort}")
    place = own.losses.index(name)
    last = own.last_by_case(own.test)
    runs = given.sweep.runs
    said = runs["loss_params"][(runs["loss"] == name) & (runs["cohort"] == cohort)].iloc[0]
    return {
        "formula": describe(json.loads(said))[0],
        "level": confidence.CONFIDENCE,
        "metrics": {
            metric: _mean(every_mean(last[..., number], own)[place])
            for number, metric in enumerate(METRICS)
        },
        "trainings": _trainings(last[place], own, place),
    }


def _mean(fit: Ladder) -> dict[str, Any]:
    """An estimate, and the interval that holds for most."""
    low, high, holds = float("nan"), float("nan"), ""
    for rung, words in HOLDS_FOR.items():
        low, high = fit.interval(rung)
        if low == low:
            holds = words
            break
    return {
        "mean": _number(fit.estimate),
        "low": _number(low),
        "high": _number(high),
        "holds_for": holds,
        "cells": fit.num_cells,
        "patients": fit.num_subjects,
    }


def _trainings(last: np.ndarray, cohort: CohortScores, loss: int) -> list[dict[str, Any]]:
    """Of each complete training, from scores ``[S, P, metrics]``."""
    rows = []
    for s, f in np.argwhere(cohort.done[loss]):
        here = np.flatnonzero(cohort.fold_of == f)
        row: dict[str, Any] = {"seed": int(cohort.seeds[s]), "fold": int(cohort.folds[f])}
        for number, metric in enumerate(METRICS):
            found = weighed_mean(
                last[s : s + 1, here, number], cohort.fold_of[here], cohort.subject_of[here]
            )
            row |= {metric: _number(found.value), f"{metric}_patients": found.subjects}
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    return None if value != value else float(value)


if __name__ == "__main__":
    sys.exit(main())
