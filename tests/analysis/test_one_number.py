"""One number, one definition: what stands in two places of a page is the same in both.

Seven losses, one of which diverged in 6 of 25 trainings and two of which are equal to the bit, on
folds of unequal size: whatever can be averaged in two ways would differ here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.flags import ROPE
from analysis.page.items import Figure, Section, Table
from analysis.reading.imports import read_results
from analysis.reading.scores import METRICS, CohortScores
from analysis.sections import front
from analysis.sections.outcome import outcomes
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.sections.seeds import winner_frame
from analysis.sections.table2 import nine_frame
from analysis.statistics.absence import compared
from analysis.statistics.lesions import STRATA, by_case
from analysis.statistics.lottery import complete_cells
from analysis.statistics.order import best_first, last_means, shared_means
from lesion_core.settings import PAPER_SEEDS
from sweeps.bench.fake_sweep import FakeSweep

LOSSES = tuple("ABCDEFG")
CELLS = [(seed, fold) for seed in PAPER_SEEDS for fold in range(5)]
SWEEP = FakeSweep(
    losses=LOSSES,
    epochs=2,
    num_cases=23,
    pictures=False,
    gradients=False,
    status={("wmh2017", "A", *cell): "diverged" for cell in CELLS[1::4]},
    character={
        "A": (0.72, 0.71, 3.0, 1.0),
        "B": (0.69, 0.72, 3.5, 1.0),
        "D": (0.60, 0.74, 4.0, 0.7),
        "E": (0.64, 0.70, 4.0, 1.5),
        "F": (0.655, 0.735, 4.0, 1.5),
        "G": (0.55, 0.78, 3.0, 1.0),
    },
    same_as={"C": "B"},
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    path = SWEEP.write(tmp_path_factory.mktemp("one_number"))
    return report.report_input(read_results(path), "D", ROPE, False)


@pytest.fixture(scope="module")
def cohort(given: ReportInput) -> CohortScores:
    return given.cohorts[0]


@pytest.fixture(scope="module")
def sections(given: ReportInput) -> list[Section]:
    answers = [
        front.front(given, outcomes(given)),
        *(section(given) for section in report.SECTIONS),
    ]
    return [section for section in answers if section is not None]


@pytest.fixture(scope="module")
def tables(sections: list[Section]) -> dict[str, Table]:
    return {item.key: item for one in sections for item in one.unfolded if isinstance(item, Table)}


@pytest.fixture(scope="module")
def figures(sections: list[Section]) -> dict[str, Figure]:
    return {item.key: item for one in sections for item in one.unfolded if isinstance(item, Figure)}


def by_loss(frame: pd.DataFrame, column: str) -> dict[str, float]:
    """A column of a table with a row per loss."""
    return dict(zip(frame["loss"], frame[column], strict=True))


def said(text: str, pattern: str) -> dict[str, float]:
    """Numbers that a sentence gives by loss; the pattern stands behind the loss."""
    found = re.findall(rf"\b([A-G]) {pattern}", text)
    return {loss: float(value.replace("\N{MINUS SIGN}", "-")) for loss, value in found}


def last(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["epoch"] == frame["epoch"].max()]


def means(metric: str) -> list[tuple[str, Callable[[dict, dict], dict[str, float]]]]:
    """Where a page says what a loss's mean of a metric is, test images, last epoch."""
    places: list[tuple[str, Callable[[dict, dict], dict[str, float]]]] = [
        ("first table", lambda t, f: by_loss(t["first-wmh2017"].frame, metric)),
        ("gap table", lambda t, f: by_loss(t["gap-table-wmh2017"].frame, f"{metric}_test")),
        ("trajectories", lambda t, f: by_loss(last(f["tradeoff-wmh2017"].data), metric)),
        (
            "patients",
            lambda t, f: f["violins-wmh2017"].data.groupby("loss")[metric].mean().to_dict(),
        ),
        (
            "at threshold 0.5",
            lambda t, f: by_loss(
                (data := f["thresholds-wmh2017"].data)[data["threshold"] == 0.5], metric
            ),
        ),
    ]
    if metric != "dice":
        words = (
            r"sensitivity (0\.\d{3})" if metric == "sensitivity" else r"s.*?precision (0\.\d{3})"
        )
        places.append(
            ("trajectories in words", lambda t, f: said(f["tradeoff-wmh2017"].alt, words))
        )
        return places
    return [
        *places,
        (
            "beside own threshold",
            lambda t, f: by_loss(t["threshold-table-wmh2017"].frame, "at_half"),
        ),
        ("ranks", lambda t, f: by_loss(f["ranks-wmh2017"].data, "mean_dice")),
        (
            "patient by patient",
            lambda t, f: f["patients-wmh2017"].data.groupby("loss")["dice"].mean().to_dict(),
        ),
        ("curves in words", lambda t, f: said(f["bands-wmh2017"].alt, r"(0\.\d{3})")),
        ("dots in words", lambda t, f: said(f["violins-wmh2017"].alt, r"mean (0\.\d{3})")),
        (
            "worlds",
            lambda t, f: dict([t["policies-wmh2017"].frame.iloc[0][["winner", "dice"]].tolist()]),
        ),
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_a_loss_has_one_mean(
    metric: str, cohort: CohortScores, tables: dict[str, Table], figures: dict[str, Figure]
) -> None:
    place = METRICS.index(metric)
    scores = cohort.last_by_case(cohort.test)[..., place]
    expected = {
        cohort.losses[loss]: fit.estimate for loss, fit in shared_means(scores, cohort).items()
    }
    # By hand: 19 cells, seeds first, then patients alike.
    shared = np.where(cohort.done.all(0)[:, cohort.fold_of], scores, np.nan)
    by_hand = np.nanmean(shared, 1).mean(1)
    assert list(expected.values()) == pytest.approx(by_hand.tolist())
    assert last_means(cohort)[:, 2, place].tolist() == pytest.approx(by_hand.tolist())
    for name, read in means(metric):
        found = read(tables, figures)
        assert found and (len(found) == 7 or name == "worlds"), name
        decimals = "words" in name
        for loss, value in found.items():
            want = expected[loss]
            assert value == (round(want, 3) if decimals else pytest.approx(want, abs=1e-9)), name


def test_two_losses_have_one_difference(
    given: ReportInput, cohort: CohortScores, tables: dict[str, Table], figures: dict[str, Figure]
) -> None:
    every, flip = tables["pair-table-wmh2017"], tables["flip-wmh2017"]

    def printed(table: Table) -> dict[tuple[str, str], str]:
        column = next(one for one in table.columns if one.key == "difference")
        return {
            (row["a"], row["b"]): table.cell(column, row["difference"])
            for row in table.frame.to_dict("records")
        }

    assert printed(flip) == printed(every)
    forest = figures["forest-wmh2017"].data.query("metric == 'dice' and rung == 'L3'")
    reference = {(row["loss"], "D"): row["difference"] for row in forest.to_dict("records")}
    pairs = {(row["a"], row["b"]): row for row in every.frame.to_dict("records")}
    assert len(reference) == 6
    for (a, b), value in reference.items():
        sign = 1 if (a, b) in pairs else -1
        row = pairs.get((a, b)) or pairs[b, a]
        assert sign * row["difference"] == pytest.approx(value)
    for pair, _ in given.family(cohort).against_reference:
        table = tables.get("forest-table-wmh2017")
        if table is not None:
            own = table.frame.set_index("loss").loc[cohort.losses[pair.a]]
            assert own["L3"] == pytest.approx(pair.fit.half_width("L3"))


def test_as_many_seeds_as_were_run_give_the_interval_that_the_sweep_has(
    given: ReportInput, cohort: CohortScores, tables: dict[str, Table], figures: dict[str, Figure]
) -> None:
    scores = cohort.last_by_case(cohort.test)[..., 0]
    first, second = best_first(scores, cohort)[:2]
    names = cohort.losses[first], cohort.losses[second]
    table, figure = tables["seeds-needed-wmh2017"], figures["needed-wmh2017"]
    assert table.title.endswith(f"{names[0]} − {names[1]}") and table.title[-5:] in figure.title
    pair, _ = given.family(cohort).of(first, second)
    row = table.frame[table.frame["as_run"] == "as run"].iloc[0]
    assert row["seeds"] == pytest.approx(pair.fit.num_cells / 5)
    for rung in ("L1", "L2", "L3"):
        assert row[rung] == pytest.approx(pair.fit.half_width(rung)), rung
    # More seeds narrow it, fewer widen it, on every rung.
    assert not (np.diff(table.frame[["L1", "L2", "L3"]].to_numpy(float), axis=0) > 0).any()
    pairs = tables["pair-table-wmh2017"].frame
    [(low, high)] = pairs[pairs["a"].isin(names) & pairs["b"].isin(names)][["low", "high"]].values
    assert row["L3"] == pytest.approx((high - low) / 2)
    # The dotted line stands where the sentence says.
    line = re.search(r"from (\d+) seeds? on", figure.caption)
    marks = [
        float(np.asarray(mark.get_xdata())[0])
        for mark in figure.draw().axes[0].lines
        if mark.get_linestyle() == ":"
    ]
    assert marks == ([float(line[1])] if line else [])


def test_losses_that_are_equal_to_the_bit_share_everything(
    cohort: CohortScores, tables: dict[str, Table], figures: dict[str, Figure]
) -> None:
    for item in (*tables.values(), *figures.values()):
        frame = item.frame if isinstance(item, Table) else item.data
        if "loss" not in frame or item.key in ("absent-trials", "losses", "patients-wmh2017"):
            continue
        rest = frame.drop(columns=[name for name in ("loss", "trial") if name in frame])
        if item.key == "first-wmh2017":  # each verdict names the other loss
            rest["verdict"] = rest["verdict"].str.replace("to [BC]$", "to its twin", regex=True)
        first, second = (rest[frame["loss"] == loss].reset_index(drop=True) for loss in "BC")
        pd.testing.assert_frame_equal(first, second, obj=item.key)
    pair = tables["pair-table-wmh2017"].frame.query("a == 'B' and b == 'C'").iloc[0]
    assert (pair["wins"], pair["ties"], pair["losses"], pair["win_rate"]) == (0, 25, 0, 0.5)
    flip = tables["flip-wmh2017"].frame.query("a == 'B' and b == 'C'").iloc[0]
    assert set(flip[["flip_1", "flip_2", "fresh_1", "fresh_2", "fresh_5", "split_half"]]) == {0.5}
    for place in (figures["patients-wmh2017"].caption, figures["patients-wmh2017"].alt):
        wins = said(place, r"(\d+(?:\.\d+)?)\b")
        assert wins["B"] == wins["C"] and sum(wins.values()) == pytest.approx(23)
    scores = cohort.last_by_case(cohort.test)[..., 0]
    complete = complete_cells(scores, cohort.fold_of, compared(cohort), cohort.subject_of)
    shares = winner_frame(cohort, complete).pivot(
        index=["lottery", "seeds"], columns="loss", values="share"
    )
    assert (shares["B"] == shares["C"]).all() and np.allclose(shares.to_numpy().sum(1), 1)
    schemes = figures["schemes-wmh2017"].data.pivot(index="scheme", columns="loss", values="rank")
    assert (schemes["B"] == schemes["C"]).all()


def test_trainings_are_counted_alike_everywhere(
    tables: dict[str, Table], figures: dict[str, Figure]
) -> None:
    for table, column in (
        ("coverage-counts", "done"),
        ("table2-optimism-wmh2017", "trials"),
    ):
        assert by_loss(tables[table].frame, column) == {"A": 19} | dict.fromkeys("BCDEFG", 25)
    failures = next(table for key, table in tables.items() if "ended" in table.frame)
    row = failures.frame.set_index("loss").loc["A"]
    assert (row["ended"], row["diverged"]) == (25, 6)
    assert "from 19 to 25 trainings" in figures["violins-pooled-wmh2017"].caption
    assert "3 to 5 seeds" in figures["bands-folds-dice-wmh2017"].caption
    cells = "19 of 25 (seed, fold) cells, those that all 7 losses have: 133 of 169 trainings"
    shared = ("lesions-wmh2017", "gap-table-wmh2017", "threshold-table-wmh2017", "policies-wmh2017",
              "confidence-table-wmh2017", "distances-wmh2017", "sites-wmh2017")  # fmt: skip
    for key in shared:
        assert cells in tables[key].caption, key


def test_lesions_are_counted_alike_in_every_table(
    given: ReportInput, tables: dict[str, Table], figures: dict[str, Figure]
) -> None:
    own, strata = given.comparable[0], figures["strata-wmh2017"]
    detected = tables["lesions-wmh2017"].frame.set_index("loss")
    by_size = strata.data.groupby("loss")
    first = tables["first-wmh2017"].frame.set_index("loss")
    assert first["false_lesions"].tolist() == pytest.approx(detected["false_lesions"].tolist())
    smallest = strata.data[strata.data["size_mm3"] == STRATA[0]].set_index("loss")
    assert first["small_lesions_found"].tolist() == pytest.approx(smallest["recall"].tolist())
    assert tables["table1"].frame.iloc[0]["lesions"] == by_size["reference_lesions"].sum()["A"]
    for loss, false in by_size["false_per_patient"].sum().items():
        assert false == pytest.approx(detected.loc[loss, "false_lesions"])
    hits, total = (
        np.nanmean(by_case(own, own.final[name].to_numpy(float)), 1).sum(1)
        for name in ("n_ref_hit", "n_ref")
    )
    expected = dict(zip(LOSSES, hits / total, strict=True))
    assert by_size["recall_all_sizes"].first().to_dict() == pytest.approx(expected)
    sentence = strata.caption.split("of all sizes together")[1].split("(in the recall")[0]
    found = said(sentence, r"(0\.\d{3})")
    assert found == {loss: round(value, 3) for loss, value in expected.items()}
    ends = re.findall(r"\b([A-G]) ([\d.]+) % and ([\d.]+) %", figures["confidence-wmh2017"].alt)
    sure = tables["confidence-table-wmh2017"].frame.set_index("loss")
    assert len(ends) == 7
    for loss, missed, invented in ends:
        assert float(missed) == round(100 * sure.loc[loss, "missed"], 1)
        assert float(invented) == round(100 * sure.loc[loss, "invented"], 1)


DIFFERENCES = {
    "table2-optimism-wmh2017": [
        (f"{metric}_oracle", f"{metric}_last", f"{metric}_optimism") for metric in METRICS
    ],
    "threshold-table-wmh2017": [("own", "at_half", "gain")],
    "gap-table-wmh2017": [
        (f"{metric}_train", f"{metric}_patch", f"{metric}_to_image") for metric in METRICS
    ],
}
"""Tables that print a difference beside what it is of: minuend, subtrahend, difference."""


@pytest.mark.parametrize("key", DIFFERENCES)
def test_a_printed_difference_is_exact_or_says_how_it_was_rounded(
    key: str, tables: dict[str, Table]
) -> None:
    table = tables[key]
    assert ROUNDED in table.caption
    for minuend, subtrahend, difference in DIFFERENCES[key]:
        exact = table.frame[minuend] - table.frame[subtrahend]
        assert table.frame[difference].tolist() == pytest.approx(exact.tolist())


def test_words_of_method_are_explained_or_not_used(sections: list[Section]) -> None:
    words = {"lofo", "label seed", "label seeds", "cautious", "L3c", "oracle"}
    for section in sections:
        texts = [section.lead]
        for item in section.unfolded:
            if section.key == "methods":  # has the glossary
                continue
            texts += [
                getattr(item, part, "") for part in ("title", "caption", "alt", "note", "text")
            ]
            if isinstance(item, Table):
                texts += [f"{column.group} {column.header}" for column in item.columns]
        for text in texts:
            found = {word for word in words if re.search(rf"\b{word}\b", str(text))}
            assert not found, (section.key, text)
    coverage = next(section for section in sections if section.key == "coverage")
    assert "a cell, the unit" in coverage.lead  # the first section explains it


def test_table_2_differs_by_nothing_but_what_it_says(tmp_path: Path) -> None:
    """Where nothing is missing and folds are of one size, folds alike are patients alike."""
    path = FakeSweep(
        losses=("xent", "new"), seeds=(1, 2), num_folds=2, num_cases=8, epochs=2, pictures=False
    ).write(tmp_path)
    given = report.report_input(read_results(path), None, ROPE, False)
    [cohort] = given.cohorts
    assert given.comparable[0] is cohort  # nothing to leave out, nothing copied
    frame = nine_frame(cohort, "last")
    test = frame[[f"{metric}_test" for metric in METRICS]].to_numpy(float)
    assert test == pytest.approx(last_means(cohort)[:, 2])
