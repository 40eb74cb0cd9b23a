"""The first screen of ledgers whose truth is known says it, and nothing that is false."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.reading.imports import read_results
from analysis.reading.training_effect import TrainingEffect, training_effect
from analysis.sections.again import again
from analysis.sections.claims import claims
from analysis.sections.definitions import FORMULAS, describe
from analysis.sections.forest import forest
from analysis.sections.front import losses_frame, losses_table
from analysis.sections.outcome import Outcome, outcomes
from analysis.sections.verdict import Verdict, verdict
from analysis.statistics.identical import identical
from lesion_core.losses import LOSSES
from tests.support.known_truths import COHORT, GOOD, KNOWN_TRUTHS, SEEDS, USUAL, KnownTruth


@dataclass(frozen=True)
class FirstScreen:
    """What a reader of the first screen is given."""

    found: Outcome
    box: Verdict
    box_text: str
    may: str
    may_not: list[str]
    reasons: str
    table: pd.DataFrame

    def refuses(self, claim: str) -> bool:
        return claim in self.may_not


def first_screens(path: Path, effect: str | None = None) -> list[FirstScreen]:
    folder = path if path.is_dir() else path.parent
    given = report.report_input(
        read_results(path), None, 0.01, False, training_effect(effect, folder)
    )
    screens = []
    for found in outcomes(given):
        box, written = verdict(found), claims(found)
        screens.append(
            FirstScreen(
                found=found,
                box=box,
                box_text=" ".join(box.sentences).replace("**", ""),
                may=" ".join(written.may),
                may_not=[claim for claim, _ in written.may_not],
                reasons=" ".join(why for _, why in written.may_not),
                table=losses_frame(found).set_index("loss"),
            )
        )
    return screens


def of(known: KnownTruth, path: Path) -> FirstScreen:
    return first_screens(known.write(path), known.training_effect)[0]


@pytest.fixture(scope="module")
def screens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FirstScreen]:
    folder = tmp_path_factory.mktemp("truths")
    return {name: of(known, folder / name) for name, known in KNOWN_TRUTHS.items()}


# ---------------------------------------------------------------------------------- known truths
def test_winner_is_named_and_nothing_more(screens: dict[str, FirstScreen]) -> None:
    screen = screens["winner"]
    assert screen.box.headline == "B is better than A"
    assert "Best? Yes: B is better than A and every other loss." in screen.box_text
    assert "B was better than every other loss." in screen.may
    assert re.search(r"D \(−0\.\d+, .*?\) was worse", screen.may)
    assert screen.refuses("C performs as well as A.") and not screen.refuses("B is the best.")
    assert screen.table["verdict"].tolist() == ["reference", "better", "not separated", "worse"]
    assert "adjusted for 6 comparisons" in screen.may and "40 patients" in screen.may
    assert "5 seeds in 5-fold cross-validation (100 of 100" in screen.may
    assert "0.010 in DSC (an assumption, not measured)" in screen.may


def test_equal_losses_have_no_best(screens: dict[str, FirstScreen]) -> None:
    screen = screens["equal"]
    assert screen.box.headline == "No difference was found between 7 losses"
    best = screen.found.name(screen.found.best)
    assert "Best? One cannot say" in screen.box_text and screen.refuses(f"{best} is the best.")
    assert screen.box.lead[0].startswith("**Best?** One cannot say")
    assert set(screen.table["verdict"]) == {"reference", "not separated"}
    assert not re.search(r"\b(was|were|is|are) (better|worse)", screen.may)
    assert "would have been found with a probability of 80 %" in screen.may
    assert "Trade-off" not in screen.may


def test_difference_of_threshold_is_called_one(screens: dict[str, FirstScreen]) -> None:
    screen = screens["threshold"]
    assert "E differs from A at 0.5 only" in screen.box_text
    assert "The difference between E and A is mostly one of threshold" in screen.may
    assert screen.refuses("E segments worse than A.")
    assert [screen.found.name(pair.a) for pair, _ in screen.found.threshold_only] == ["E"]
    for name in ("winner", "diverging", "identical", "incomplete"):
        assert not screens[name].found.threshold_only and "at 0.5 only" not in screens[name].may


def test_trade_off_is_said_and_is_no_advantage(screens: dict[str, FirstScreen]) -> None:
    screen = screens["tradeoff"]
    (traded,) = screen.found.traded
    assert (screen.found.name(traded.a), traded.holds) == ("B", "L2")
    assert re.search(
        r"more sensitive than A and less precise is B \(\+0\.1\d\d, −0\.1", screen.box_text
    )
    assert screen.refuses("B is better than A, since it is more sensitive.")
    assert "Best? One cannot say" in screen.box_text
    for name, other in screens.items():
        assert bool(other.found.traded) == (name == "tradeoff"), name


def test_divergence_stands_beside_the_mean(screens: dict[str, FirstScreen]) -> None:
    screen = screens["diverging"]
    assert "Training diverged: D in 6 of 25" in screen.box_text
    assert "6 of 25 trainings with D diverged" in screen.may
    assert screen.table.loc["D", "trainings"] == "19 of 25, 6 diverged"
    assert any(claim.startswith("The mean DSC of D is") for claim in screen.may_not)
    counted = "counted as DSC 0 in every test case, against A: B not separated "
    counted = re.escape(counted) + r"\(−0\.\d{3}\), D not separated \(−0\.\d{3}\)\."
    assert re.search(counted, " ".join(screen.box.lead)) and re.search(counted, screen.may)
    assert "Best? Yes, among trainings that did not diverge: D" in screen.box_text
    assert screen.table.loc["D", "cells"] == "19 cells"
    assert "the 19 of 25 (seed, fold) cells that all have" in losses_table(screen.found).caption


def test_rare_collapse_is_counted(screens: dict[str, FirstScreen]) -> None:
    screen = screens["collapse"]
    assert "ended far from others of their fold: 2 of 25 of C" in screen.box_text
    assert "2 of 25 trainings with C ended far" in screen.may
    assert any(claim.startswith("The mean DSC of C is") for claim in screen.may_not)
    assert screen.table.loc["C", "verdict"] != "worse"
    assert not any("ended far" in screens[name].may for name in ("winner", "equal", "identical"))


def test_identical_losses_are_one_and_not_ranked(screens: dict[str, FirstScreen]) -> None:
    screen = screens["identical"]
    assert "Identical: B and C have the same scores to the bit" in screen.box_text
    assert screen.box.lead[0].startswith("**B** and **C** have the highest mean")
    assert screen.box.headline == "B and C are better than A"
    assert "Best? Yes: B and C are better than A." in screen.box_text
    assert "B and C gave identical results" in screen.may
    assert screen.refuses("B ranks above C.")
    assert screen.table.loc["C", "verdict"] == "better; identical to B"
    assert re.search(r"B and C win among all losses in 100%", screen.box_text)
    assert not any(screens[name].found.same for name in screens if name != "identical")


def test_practical_equality_is_said_with_what_it_assumes(screens: dict[str, FirstScreen]) -> None:
    screen = screens["practically-equal"]
    assert screen.box.headline.endswith("are practically equal")
    assert "Best? None that matters" in screen.box_text
    assert "a difference of 0.01 or more is refuted" in screen.may
    assert "up to 0.002 in DSC" in screen.may
    assert not any("as well as" in claim for claim in screen.may_not)


def test_incomplete_loss_is_left_out_aloud(screens: dict[str, FirstScreen]) -> None:
    screen = screens["incomplete"]
    assert screen.box.headline == "B is better than A"
    assert "D was not compared: 4 of 25 trainings completed." in screen.may
    assert screen.refuses("D is better or worse than another loss.")
    assert screen.refuses("This is the final result.")
    assert screen.table.loc["D", "verdict"] == "not compared: too few trainings"
    assert "With the losses A, B and C" in screen.may


@pytest.mark.parametrize("name", KNOWN_TRUTHS)
def test_numbers_of_the_first_screen_agree(screens: dict[str, FirstScreen], name: str) -> None:
    """The box, the text, the table and the forest have one difference, interval and verdict."""
    screen = screens[name]
    found, figure = screen.found, forest(screen.found)
    assert figure is not None
    drawn = figure.data[(figure.data["metric"] == "dice") & (figure.data["rung"] == "L3")]
    drawn = drawn.set_index("loss")["difference"]
    for pair, said in found.against_reference:
        row = screen.table.loc[found.name(pair.a)]
        assert row["difference"] == pair.fit.estimate == drawn[found.name(pair.a)]
        assert row["verdict"].split(";")[0].removesuffix(" at 0.5 only") == said.in_words
        assert f"{found.name(pair.a)} ({found.difference(pair, said)})" in screen.may
        assert row["interval"] in found.difference(pair, said)
        assert (row["low"] > 0 or row["high"] < 0) == (said.word == "separated")
    mean = found.means["dice"][found.best].estimate
    assert f"{mean:.3f}" in screen.box_text and f"{mean:.3f}" == (
        losses_table(found).cell(losses_table(found).columns[2], screen.table.loc[
            found.name(found.best), "dice"])
    )  # fmt: skip
    assert "**" not in screen.may + screen.reasons and "nan" not in screen.box_text + screen.may


# ------------------------------------------------------------------------------------ other states
def odd(path: Path, losses: str = "AB", **sweep: object) -> FirstScreen:
    known = KnownTruth(
        truth="",
        character={"A": USUAL} | dict.fromkeys(losses[1:], GOOD),
        sweep={"num_cases": 10, "seeds": (1, 2, 3), "epochs": 1, **sweep},
    )
    return of(known, path)


def test_one_loss_compares_nothing(tmp_path: Path) -> None:
    screen = odd(tmp_path, "A")
    assert screen.box.headline == "One loss, nothing to compare"
    assert "Nothing was compared." in screen.may and screen.refuses("A is a good loss.")
    assert forest(screen.found) is None and "verdict" not in [
        column.key for column in losses_table(screen.found).columns
    ]


def test_one_seed_on_one_split_is_never_significant(tmp_path: Path) -> None:
    screen = odd(tmp_path, seeds=(1,), num_folds=1)
    assert screen.box.headline == "This design cannot tell"
    assert screen.refuses("B is significantly different from A.")
    assert "No interval for new training sets can be given" in screen.may
    assert (
        "could not be tested" in screen.box_text and "one fold leaves no others" in screen.box_text
    )


def test_missing_reference_is_said_in_both_texts(tmp_path: Path) -> None:
    gone = {(COHORT, "A", seed, fold): "missing" for seed in SEEDS for fold in range(5)}
    screen = odd(tmp_path, "ABC", status=gone)
    assert "The reference A has no complete trials" in screen.box_text
    assert "compared with B" in screen.may and screen.refuses("… compared with A.")


def test_precision_of_hardly_any_voxel_is_no_merit(tmp_path: Path) -> None:
    screen = odd(tmp_path, "ABC", character={"C": (0.04, 0.97, 0.3, 1.0)})
    assert any(claim.startswith("C has a high precision") for claim in screen.may_not)
    assert "Hardly predicts: C finds less than a tenth" in screen.box_text
    assert not screen.found.traded


def test_identical_in_all_is_no_comparison(tmp_path: Path) -> None:
    screen = odd(tmp_path, same_as={"B": "A"})
    assert screen.box.headline == "A and B are identical"
    assert screen.table.loc["B", "verdict"] == "identical to A"
    assert "identical results" in screen.may and screen.refuses("A ranks above B.")


def test_losses_without_a_common_cell_are_not_compared(tmp_path: Path) -> None:
    status = {
        (COHORT, loss, seed, fold): "missing"
        for loss, seeds in (("A", (1,)), ("B", (2, 3)))
        for seed in seeds
        for fold in range(5)
    }
    screen = odd(tmp_path, status=status)
    assert "they were not compared" in screen.may and "no trial in common" in screen.box_text
    assert "verdicts are the same" not in screen.box_text


def test_two_cohorts_are_judged_each_for_itself(tmp_path: Path) -> None:
    known = KnownTruth(
        truth="",
        character={"A": USUAL, "B": GOOD},
        sweep={"cohorts": (COHORT, "lit"), "num_cases": 10, "seeds": (1, 2), "epochs": 1},
    )
    both = first_screens(known.write(tmp_path))
    assert [screen.found.cohort.name for screen in both] == [COHORT, "lit"]
    assert all(screen.refuses("It holds on all cohorts.") for screen in both)


def test_imported_results_say_that_no_threshold_was_tried(tmp_path: Path) -> None:
    cells = [(loss, seed, fold, case) for loss in "AB" for seed in (1, 2, 3) for fold in range(3)
             for case in range(4)]  # fmt: skip
    noise = np.random.default_rng(0).normal(0.6, 0.01, len(cells))
    rows = [
        {"loss": loss, "seed": seed, "fold": fold, "epoch": 1, "case": f"c{fold}{case}",
         "dice": value + 0.2 * (loss == "B")}
        for (loss, seed, fold, case), value in zip(cells, noise, strict=True)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    (screen,) = first_screens(tmp_path / "mine.csv")
    assert screen.box.headline == "B is better than A"
    assert "probabilities are not stored" in screen.box_text
    assert [column.key for column in losses_table(screen.found).columns][:4] == [
        "loss", "trainings", "dice", "difference",
    ]  # fmt: skip


def test_identical_needs_every_shared_training_equal() -> None:
    rates = np.random.default_rng(0).uniform(size=(3, 2, 4, 3))
    rates[1] = rates[0]
    assert identical(rates, [0, 1, 2]) == [[0, 1]]
    rates[1, 1] = np.nan  # a training that is absent
    assert identical(rates, [0, 1, 2]) == [[0, 1]]
    rates[1, 0, 0, 2] += 1e-16
    rates[1, 0, 0, 1] = np.nextafter(rates[1, 0, 0, 1], 1)
    assert identical(rates, [0, 1, 2]) == []
    assert identical(np.full((2, 1, 1, 3), np.nan), [0, 1]) == []


# -------------------------------------------------------------------------- what losses are, again
def test_every_built_in_loss_is_defined() -> None:
    from lesion_core.losses import loss_to_dict

    for name, loss in LOSSES.items():
        stored = loss_to_dict(loss)
        assert stored["type"] in FORMULAS, name
        formula, alpha, gamma, _ = describe(stored)
        fields = stored["fields"]
        assert (alpha != "–") == ("alpha" in fields) and (gamma != "–") == ("gamma" in fields)
        assert "unknown" not in formula
    own = describe({"import": "my_losses:Mine", "fields": {"alpha": 0.5, "power": 3}})
    assert own[0].startswith("your own: my_losses:Mine") and own[1:] == ("0.5", "–", "power 3")


@pytest.mark.parametrize(
    ("recorded", "trainings", "page"),
    [
        ("paper_grid.py --losses xent new --results results/mine",
         "python sweeps/paper_grid.py --losses xent new --results results/mine",
         "python analysis/report.py results/mine"),
        ("sweeps/paper_grid.py --demo", "python sweeps/paper_grid.py --demo --results mine",
         "python analysis/report.py mine"),
        ("mine.py --seeds 1", "python sweeps/mine.py --seeds 1",
         "python analysis/report.py results/mine"),
        ("lesion-sweep grid --results 'my results/mine'",
         "lesion-sweep grid --results 'my results/mine'",
         "lesion-sweep report 'my results/mine'"),
        ("paper_grid.py --results=elsewhere/other --seeds 1",
         "python sweeps/paper_grid.py --seeds 1 --results mine",
         "python analysis/report.py mine"),
    ],
)  # fmt: skip
def test_make_it_again_is_a_command_that_works(recorded: str, trainings: str, page: str) -> None:
    sweep = SimpleNamespace(path=Path("/somewhere/mine"), meta={"command": recorded})
    given = SimpleNamespace(
        sweep=sweep,
        is_ledger=True,
        reference="xent",
        rope=0.01,
        all_cohorts=[],
        training=TrainingEffect(),
        paper_colours=False,
    )
    assert again(given) == (trainings, page)  # type: ignore[arg-type]
    given.rope, given.training = 0.02, TrainingEffect({"dice": 0.005}, given=True)
    assert again(given)[1] == f"{page} --rope 0.02 --training-effect 0.005"  # type: ignore[arg-type]
