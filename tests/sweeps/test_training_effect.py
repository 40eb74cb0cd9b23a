"""The effect of training sets: halves share nobody, the bound holds, the report reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.flags import TRAINING_EFFECT
from analysis.reading.training_effect import training_effect
from lesion_core.folds import folds_by, training_halves
from lesion_core.losses import LOSSES
from lesion_core.results import TRAINING_EFFECT_FILE, read_sweep
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps import training_effect as command
from sweeps.bench.sweep import UNTRACKED, _trials
from sweeps.ledger.contents import described
from sweeps.ledger.ledger import Ledger
from sweeps.paper_grid import PaperGrid
from sweeps.training_effect import effect_of
from sweeps.trials.attempt import attempt
from tests.support.tiny import write_case
from tests.sweeps.test_ledger import asked

TINY = ["--cohorts", "ours", "--channels", "t1", "flair", "--folds", "2", "--epochs", "1"]
TINY += ["--patch-size", "8", "--filters", "8", "16", "--batch-size", "4", "--seeds", "1", "2"]


class Case:
    def __init__(self, id: str, subject: str, site: str) -> None:
        self.id, self.subject, self.site = id, subject, site


def test_halves_share_no_subject_and_hold_every_site() -> None:
    cases = [Case(f"{s}-{v}", str(s), "ab"[s % 2]) for s in range(20) for v in (1, 2)]
    for fold, tested in enumerate(folds_by("strided", cases, 5)):
        seen = [training_halves(cases, tested, fold, number) for number in (0, 1)]
        assert seen[0] != seen[1]
        for first, second in seen:
            names = [{case.split("-")[0] for case in half} for half in (first, second)]
            assert len(names[0]) == len(names[1]) == 8 and not names[0] & names[1]
            assert sorted([*first, *second, *tested]) == sorted(case.id for case in cases)
            assert {int(name) % 2 for name in names[0]} == {0, 1}


def test_one_training_subject_cannot_be_halved() -> None:
    cases = [Case("1", "1", ""), Case("2", "2", "")]
    with pytest.raises(ValueError, match="trains on 1 subject; expected two or more"):
        training_halves(cases, ["1"], 0, 0)


def test_training_cases_are_part_of_the_name_only_where_they_are_set() -> None:
    fields = {"cohort": "c", "fingerprint": "f", "loss": LOSSES["xent"], "seed": 1, "fold": 0}
    whole = Trial(**fields, num_folds=2, settings=TrainSettings())
    half = Trial(**fields, num_folds=2, settings=TrainSettings(), training_cases=("b",))
    assert "training_cases" not in whole.to_dict() and "trained_on" not in whole.row()
    assert half.hash != whole.hash and half.row()["trained_on"] == 1
    assert Trial.from_dict(half.to_dict()) == half
    assert half.training_and_judged_cases(["a", "b", "c", "d"]) == (["b"], ["a", "c"])
    other = Trial(**fields, num_folds=2, settings=TrainSettings(), training_cases=("a",))
    with pytest.raises(ValueError, match="expected some of its training part: b d"):
        other.training_and_judged_cases(["a", "b", "c", "d"])


def simulated(rng: np.random.Generator, tau: float, run: float = 0.02) -> np.ndarray:
    """d [2 seeds, 5 folds, 2 halvings, 2]: patients of shared training sets have their part."""
    part, fold_of = rng.normal(size=60), np.arange(60) % 5
    found = rng.normal(0, run, (2, 5, 2, 2))
    for fold in range(5):
        training = np.flatnonzero(fold_of != fold)
        for number in range(2):
            halves = rng.permutation(training).reshape(2, -1)
            found[:, fold, number] += tau * np.sqrt(48) * part[halves].sum(1) / 24
    return found


@pytest.mark.parametrize("tau", [0.003, 0.01, 0.03])
def test_bound_holds_and_estimate_is_right_on_average(tau: float) -> None:
    rng, draws = np.random.default_rng(0), 500
    found = [effect_of(simulated(rng, tau)) for _ in range(draws)]
    assert np.mean([one["upper"] >= tau for one in found]) >= 0.95 - 0.03
    if tau > 0.005:  # below, negative estimates that are 0 weigh
        assert np.mean([one["estimate"] ** 2 for one in found]) == pytest.approx(tau**2, rel=0.15)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--losses", "xent"], "expected two that differ"),
        (["--seeds", "1"], "expected two or more"),
        (["--halvings", "0"], "expected 1 or more"),
    ],
)
def test_flags_that_cannot_be(flags: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        command.main(flags)


@pytest.mark.slow
def test_effect_is_measured_written_and_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(6):
        write_case(tmp_path / "data" / "ours" / f"case{number}", seed=number)
    flags = [*TINY, "--data", str(tmp_path / "data"), "--results", str(tmp_path / "r")]
    assert command.main([*flags, "--halvings", "1", "--quiet"]) == 0
    assert "training-set effect on focal2 minus xent" in capsys.readouterr().out
    effect = training_effect(None, tmp_path / "r")
    assert effect.measured and effect.losses == ("focal2", "xent")
    assert effect.of("another").tau_of("dice") == TRAINING_EFFECT


@pytest.mark.parametrize("asked", ["0.02", ""])
def test_sweeps_take_an_effect_for_their_report(asked: str) -> None:
    PaperGrid(training_effect=asked).check_reporting()
    with pytest.raises(ValueError, match="--training-effect 3: expected a standard deviation"):
        PaperGrid(training_effect="3").check_reporting()
    with pytest.raises(ValueError, match=r"--training-effect none\.json"):
        PaperGrid(training_effect="none.json").check_reporting()


def test_report_takes_a_number_a_file_or_what_lies_in_the_folder(tmp_path: Path) -> None:
    entry = {"estimate": 0.002, "upper": 0.004, "confidence": 0.95, "run_sd": 0.01}
    content = {"cohort": "wmh2017", "losses": ["new", "xent"], "schema_version": 1}
    content["effects"] = dict.fromkeys(("dice", "sensitivity", "precision"), entry)
    assert training_effect(None, tmp_path).tau == {"dice": TRAINING_EFFECT}
    assert training_effect("0.02", tmp_path).in_words == "0.020 (given)"
    (tmp_path / TRAINING_EFFECT_FILE).write_text(json.dumps(content))
    found = training_effect(None, tmp_path)
    assert found.tau_of("precision") == 0.004
    assert found.in_words == "0.004 (measured on new and xent, 95 % upper bound)"
    assert training_effect(str(tmp_path / TRAINING_EFFECT_FILE), Path("elsewhere")) == found
    found.check_cohorts(["lit", "wmh2017"])
    with pytest.raises(ValueError, match="measured on wmh2017, the report is on lit"):
        found.check_cohorts(["lit"])
    for wrong in ("-1", "2", "nothing.json"):
        with pytest.raises(ValueError, match="--training-effect"):
            training_effect(wrong, tmp_path)


def test_a_trial_on_half_of_a_training_part_is_believed(tmp_path: Path) -> None:
    (whole,) = _trials(1, epochs=1)
    half = replace(whole, test_cases=("c",), training_cases=("a",))
    ledger = Ledger(tmp_path)
    ledger.write_request(asked(trials=[half.row()], settings=half.settings.to_dict()))
    assert attempt(
        described(half), lambda: None, ledger, device="cpu", threads=1, tracking=UNTRACKED,
        run="sweeps.bench.sweep:nothing",
    )  # fmt: skip
    runs = read_sweep(tmp_path).judged_on("part").runs
    assert list(runs["status"]) == ["done"]
