"""Scores as chosen stand beside plain ones of the same cases; without any, nothing is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.reading.scores import cohort_scores
from analysis.sections import chosen, gap
from analysis.sections.report_input import ReportInput
from lesion_core.results import CHOSEN, Sweep, rates, read_sweep
from sweeps.bench.fake_sweep import FakeSweep


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Sweep:
    fake = FakeSweep(num_cases=4, epochs=1, losses=("xent", "dsc"), seeds=(1, 2), num_folds=2)
    return read_sweep(fake.write(tmp_path_factory.mktemp("fake") / "sweep"))


def with_chosen(sweep: Sweep) -> Sweep:
    """As if the trials of dsc had chosen: half of the false positives go, and two lesions."""
    cases = sweep.cases.copy()
    image = (cases["scope"] == "image") & (cases["loss"] == "dsc")
    for name in CHOSEN.names:
        cases[name] = cases[name.removesuffix("_chosen")].where(image).astype(float)
    cases["fp_chosen"] = (cases["fp_chosen"] / 2).round()
    cases["n_pred_chosen"] = np.maximum(cases["n_pred_chosen"] - 2, cases["n_pred_hit_chosen"])
    meta = sweep.meta | {"settings": sweep.meta["settings"] | {"threshold": 0.3}}
    return replace(sweep, cases=cases, meta=meta)


def given(sweep: Sweep) -> ReportInput:
    return ReportInput(sweep=sweep, all_cohorts=cohort_scores(sweep), reference="xent")


def test_nothing_is_said_where_nothing_was_chosen(plain: Sweep) -> None:
    assert chosen.section(given(plain)) is None
    found = gap.section(given(plain))
    assert found is not None and "windows without lesion" not in found.lead


def test_means_are_those_of_the_rows(plain: Sweep) -> None:
    sweep = with_chosen(plain)
    made = chosen.section(given(sweep))
    assert made is not None
    frame = made.items[0].frame
    assert frame["loss"].tolist() == ["dsc"]
    rows = sweep.cases
    rows = rows[(rows["loss"] == "dsc") & (rows["split"] == "test") & (rows["scope"] == "image")]
    rows = rows[rows["epoch"] == 1]
    renamed = rows.assign(**{name.removesuffix("_chosen"): rows[name] for name in CHOSEN.names})
    for end, part in (("", rows), ("_chosen", renamed)):
        for metric, values in rates(part).items():
            expected = values.groupby(part["case"]).mean().mean()
            assert frame[f"{metric}{end}"][0] == pytest.approx(expected)
        false = (part["n_pred"] - part["n_pred_hit"]).groupby(part["case"]).mean().mean()
        assert frame[f"false{end}"][0] == pytest.approx(false)
    assert frame["dice_gain"][0] > 0
    assert "from a probability of 0.3 on" in made.items[0].caption


@pytest.mark.parametrize("label", ["dsc", "dsc, background_windows=0.5"])
def test_the_gap_says_when_windows_without_lesion_were_seen(plain: Sweep, label: str) -> None:
    settings = plain.meta["settings"] | ({"background_windows": 0.25} if label == "dsc" else {})
    meta = plain.meta | {"settings": settings, "losses": ["xent", label]}
    found = gap.section(given(replace(plain, meta=meta)))
    assert found is not None and "windows without lesion" in found.lead
    assert ("25% were" in found.lead) == (label == "dsc")
