"""Which value of a table's column is bold: the best one, and only where that misleads nobody."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from analysis.page.items import LOSS, Column, Table, latex, markdown
from analysis.reading.scores import cohort_scores
from analysis.statistics.collapse import collapsed
from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep

DSC = Column(key="dice", header="DSC", decimals=3, best="max")


def best(values: list[float], column: Column = DSC, **more: Any) -> set[int]:
    columns = {key: more.pop(key) for key in list(more) if key not in ("collapsed", "comparable")}
    frame = pd.DataFrame({LOSS: list("abcd")[: len(values)], "dice": values, **columns})
    table = Table(key="t", title="", frame=frame, columns=[column], caption="", **more)
    assert markdown(table).count("**") / 2 - 1 == len(table.best_rows(column))
    assert latex(table).count(r"\textbf") == len(table.best_rows(column))
    return table.best_rows(column)


@pytest.mark.parametrize(
    ("values", "more", "rows"),
    [
        ([0.5, 0.7, 0.6], {}, {1}),
        ([0.5, 0.7, 0.7], {}, {1, 2}),
        ([0.5, 0.7001, 0.6999], {}, {1, 2}),  # as they are printed
        ([0.7, 0.7, 0.7], {}, set()),  # a tie of all names nobody
        ([0.7], {}, set()),
        ([0.5, math.nan, 0.6], {}, set()),  # one lacks it
        ([0.5, 0.7, 0.6], {"trials": [25, 19, 25]}, set()),  # of other trials
        ([0.5, 0.7, 0.6], {"dice_cases": [20, 18, 20]}, set()),
        ([0.5, 0.7, 0.6], {"recall_cases": [20, 18, 20]}, {1}),
        ([0.5, 0.7, 0.6], {"comparable": False}, set()),
        ([0.5, 1.0, 0.6], {"collapsed": ["b"]}, set()),
        ([0.5, 0.7, 0.1], {"collapsed": ["c"]}, {1}),
    ],
)
def test_best_is_bold_or_nobody(values: list[float], more: dict, rows: set[int]) -> None:
    assert best(values, **more) == rows


def test_lowest_may_be_the_best() -> None:
    column = Column(key="dice", header="false lesions", decimals=1, best="min")
    assert best([3.0, 1.0, 2.0], column) == {1}


def test_collapsed_loss_and_uneven_trials_are_noticed(tmp_path) -> None:
    tiny = {"num_cases": 4, "epochs": 1, "seeds": (1, 2), "num_folds": 2, "pictures": False}
    sweep = FakeSweep(losses=("xent", "new", "dsc"), collapsed=("dsc",), **tiny)
    [cohort] = cohort_scores(results.read_sweep(sweep.write(tmp_path / "collapsed")))
    assert collapsed(cohort) == ["dsc"] and cohort.is_even
    sweep = FakeSweep(losses=("xent", "new"), status={("wmh2017", "new", 1, 0): "diverged"}, **tiny)
    [cohort] = cohort_scores(results.read_sweep(sweep.write(tmp_path / "uneven")))
    assert collapsed(cohort) == [] and not cohort.is_even
