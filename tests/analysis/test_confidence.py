"""One confidence level moves every interval, every decision and every caption of a report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import report
from analysis.page import items
from analysis.sections import profiles, ranks
from analysis.sections import search_outcome as search_section
from analysis.statistics import confidence, ladder, pairs, power, search_outcome
from sweeps.bench.fake_sweep import FakeSweep
from tests.analysis.test_search_outcome import found
from tests.support import undrawn

SWEEP = FakeSweep(num_cases=8, epochs=2, losses=("xent", "new"), seeds=(1, 2, 3), num_folds=2)
OTHER = 0.8

HALF_WIDTHS = {
    "tables/forest-table-wmh2017": ["L1", "L2", "L3"],
    "tables/lesions-wmh2017": ["lesion_recall_half", "lesion_f1_half"],
    "tables/distances-wmh2017": ["hd95_mm_half"],
    "tables/sites-wmh2017": ["dice_Utrecht_half"],
    "tables/seeds-needed-wmh2017": ["L1", "L2", "L3"],
    "figures/needed-wmh2017": ["half_width", "detectable"],
    "figures/strata-wmh2017": ["false_half"],
}
INTERVALS = {
    "figures/forest-wmh2017": ("low", "high"),
    "figures/profile-wmh2017": ("low", "high"),
    "figures/strata-wmh2017": ("recall_low", "recall_high"),
    "tables/pair-table-wmh2017": ("low", "high"),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The same sweep reported at two levels."""
    folder = tmp_path_factory.mktemp("confidence")
    SWEEP.write(folder / "sweep")
    with pytest.MonkeyPatch.context() as patch, undrawn.undrawn():
        patch.setattr(ranks, "DRAWS", 200)
        patch.setattr(profiles, "DRAWS", 200)
        built = {}
        for level in (confidence.CONFIDENCE, OTHER):
            patch.setattr(confidence, "CONFIDENCE", level)
            page = report.build(folder / "sweep", folder / str(level), formats=())
            some = search_section.search_section(found(fields=("alpha", "gamma", "eps")), [])
            html = [items.render(item, page.parent / "search", ()) for item in some.items]
            (page.parent / "search.html").write_text("\n".join(html))
            built[level] = page.parent
        return built


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


@pytest.mark.parametrize("name", HALF_WIDTHS)
def test_half_widths_follow(reports: dict[float, Path], name: str) -> None:
    usual, other = (table(folder, name) for folder in reports.values())
    for column in HALF_WIDTHS[name]:
        known = (usual[column] > 0).to_numpy()
        assert known.any(), column
        assert (other[column][known] < usual[column][known]).all(), column


@pytest.mark.parametrize("name", INTERVALS)
def test_intervals_follow(reports: dict[float, Path], name: str) -> None:
    usual, other = (table(folder, name) for folder in reports.values())
    low, high = INTERVALS[name]
    known = usual[low].notna()  # a training-set effect is known of DSC alone
    assert known.any() and (known == other[low].notna()).all()
    usual, other = usual[known], other[known]
    wide, narrow = usual[high] - usual[low], other[high] - other[low]
    assert (narrow <= wide + 1e-9).all() and narrow.sum() < 0.95 * wide.sum()


def test_words_follow(reports: dict[float, Path]) -> None:
    for page in ("report.html", "search.html"):
        usual, other = ((folder / page).read_text() for folder in reports.values())
        said = len(re.findall(r"95 %", usual))
        assert said > 2 and "95 %" not in other, page
        assert len(re.findall(r"80 %", other)) - len(re.findall(r"80 %", usual)) == said, page
    usual, other = ((folder / "report.html").read_text() for folder in reports.values())
    assert "90 % interval within" in usual and "60 % interval within" in other
    assert "(95 % of resamplings: " in usual and "(80 % of resamplings: " in other


def test_decisions_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    fold_of = np.repeat(np.arange(5), 6)
    scores = np.stack([rng.normal(0.5, 0.05, (5, 30)) + shift for shift in (0.0, 0.012)])
    pair = pairs.compare(scores, fold_of, 1, 0, tau=0.002)
    p = max(pair.fit.p_value(rung) for rung in ("L1", "L2", "L3"))
    seen = set()
    for level in (1 - 2 * p, 1 - p / 2):  # refuted at the first, not at the second
        monkeypatch.setattr(confidence, "CONFIDENCE", level)
        low, high = pair.fit.interval("L3")
        refuted = pair.fit.p_value("L3") < confidence.error()
        assert refuted == (low > 0 or high < 0)
        (said,) = pairs.judge([pair], 0.0)
        seen.add((said.holds == "L3", said.word))
    assert {reached for reached, _ in seen} == {True, False} and len(seen) == 2


def test_single_statistics_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    fit = ladder.ladder(rng.normal(0, 0.05, (5, 20)), np.repeat(np.arange(5), 4))
    scores = rng.normal(0.5, 0.05, (8, 9))

    def numbers() -> list[float]:
        _, low, high = search_outcome.corrected(scores, np.random.default_rng(0))
        won = pairs.Pair(0, 1, fit, 15, 0, 10).win_interval
        return [
            fit.half_width("L1"),
            power.detectable(0.02, 8),
            float(power.pairs_for_win_rate()),
            won[1] - won[0],
            high - low,
            confidence.normal_factor(),
        ]

    usual = numbers()
    assert usual[-1] == pytest.approx(stats.norm.ppf(0.975))
    monkeypatch.setattr(confidence, "CONFIDENCE", OTHER)
    assert all(other < before for other, before in zip(numbers(), usual, strict=True))
