"""The search and the ladder as commands: flags, terms, and one search end to end on Ray."""

import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from lesion_core import results
from lesion_core.losses import LOSSES, loss_named, search_space
from lesion_core.search_space import Choices, Condition, Range
from lesion_core.settings import TrainSettings
from sweeps import alpha_gamma, seed_ladder, sweep
from sweeps.alpha_gamma import AlphaGamma, SearchSetup
from sweeps.distributed.cluster import connected
from sweeps.options import Machines, Training
from sweeps.provenance import ROOT
from sweeps.searching import fields
from tests.support.tiny import write_lit_cohort
from tests.support.undrawn import numbers_of_the_report

SETTINGS = ["--cohorts", "lit", "--folds", "2", "--epochs", "1", "--patch-size", "8"]
SETTINGS += ["--filters", "8", "16", "--batch-size", "4", "--wandb", "disabled"]

LARGE = """
import torch

class Large:
    def draw(self, number, channels, patch_size, generator):
        return {"by": torch.rand(number, 1, 16, 16, 16, generator=generator)}
    def __call__(self, images, drawn):
        return images + drawn["by"]
"""
TVERSKY = """
from dataclasses import dataclass, field
import torch

@dataclass(frozen=True)
class Mine:
    beta: float = field(default=0.7, metadata={"search": (0.1, 0.9)})
    gamma: float = 1.0
    def __call__(self, logits, target):
        p = torch.sigmoid(logits)
        return ((1 - self.beta) * p * (1 - target) + self.beta * (1 - p) * target).mean()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("place")
    write_lit_cohort(path / "data", [1, 2, 3, 4, 5, 6])
    (path / "my_searched.py").write_text(TVERSKY + LARGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sweep, "build_report", numbers_of_the_report)
        yield path


@pytest.fixture(scope="module")
def searched(place):
    """Exit status and output of a search of four configurations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("RAY_worker_niceness", "0")  # tests wait for them
        with connected(Machines()):
            flags = [*SETTINGS, "--seeds", "1", "2", "--compare", "xent", "--confirm-seeds", "7"]
            flags += ["--results", "found"]
            status = alpha_gamma.main([*flags, "--configurations", "3", "--no-report"])
            again = alpha_gamma.main([*flags, "--configurations", "4"])
            yield place / "found", flags, status, again


def test_a_search_ends_with_a_choice_that_is_tested_and_reported(searched):
    folder, _, status, again = searched
    assert (status, again) == (0, 0)
    search = results.read_search(folder)
    assert [one["state"] for one in search["configurations"]].count("failed") == 0
    assert len(search["configurations"]) == 4
    assert [one["loss"] for one in search["configurations"][:2]] == ["focal1", "focal2"]
    found = results.read_sweep(folder)
    assert set(found.runs["status"]) == {"done"}
    tested = found.judged_on("test").runs
    best = next(one for one in search["configurations"] if one["number"] == search["chosen"])
    assert {best["loss"], "xent"} <= set(tested["loss"])
    assert set(tested["loss"]) <= set(results.read_gradients(folder)["loss"])
    tested = tested[tested["loss"].isin([best["loss"], "xent"])]
    assert sorted(set(zip(tested["seed"], tested["fold"], strict=True))) == [
        (seed, fold) for seed in (1, 2) for fold in (0, 1)
    ]
    page = (folder / "report" / "report.html").read_text()
    assert "Which alpha and gamma?" in page and best["loss"] in page
    own = {fold: number for fold, number in search["in_fold"].items()}
    assert set(own) == {"0", "1"} and search["chosen"] in search["tested"]


def test_the_reports_numbers_are_those_of_the_ledger(searched):
    """Recomputed here from the trials' counts, trial by trial."""
    folder = searched[0]
    search = results.read_search(folder)
    label = {one["number"]: one["loss"] for one in search["configurations"]}
    best = label[search["chosen"]]
    cases = results.read_sweep(folder).cases
    cases = cases[(cases["split"] != "train") & (cases["epoch"] == 1)]
    cases = cases.assign(dice=results.rates(cases)["dice"])

    def mean(split, loss, seeds, fold=None):
        rows = cases[(cases["split"] == split) & (cases["loss"] == loss)]
        rows = rows[rows["seed"].isin(seeds) & ((rows["fold"] == fold) | (fold is None))]
        return rows.groupby("trial")["dice"].mean().mean()

    table = pd.read_csv(folder / "report/tables/search-verdict.csv").set_index(["judged", "loss"])
    score = table["score"]
    searched_score = score["validation, as searched (optimistic)", best]
    assert searched_score == pytest.approx(mean("validation", best, [1, 2]), abs=1e-5)
    assert score["validation, fresh seeds, same patients", best] == pytest.approx(
        mean("validation", best, [7]), abs=1e-5
    )
    for judged, loss in (("test, the one choice (optimistic)", best), ("test", "xent")):
        assert score[judged, loss] == pytest.approx(mean("test", loss, [1, 2]), abs=1e-5)
    own = [mean("test", label[n], [1, 2], int(f)) for f, n in search["in_fold"].items()]
    assert score["test, each fold's own choice", "own of each fold"] == pytest.approx(
        sum(own) / 2, abs=1e-5
    )


def test_trials_of_a_search_never_predict_the_test_fold(searched):
    folder = searched[0]
    meta = results.read_meta(folder)
    validated = results.read_sweep(folder).judged_on("validation")
    for fold, held_out in meta["validation"]["lit"].items():
        rows = validated.cases[validated.cases["fold"] == int(fold)]
        seen = set(rows["case"])
        assert set(rows.loc[rows["split"] == "validation", "case"]) == set(held_out)
        assert not seen & set(meta["folds"]["lit"][int(fold)])
        assert "test" not in set(rows["split"])


def test_only_the_trials_that_are_tested_are_evaluated_on_everything(searched):
    """The search reads the last scores of the validation part, and nothing else is predicted."""
    found = results.read_sweep(searched[0])
    lean, whole = found.judged_on("validation").cases, found.judged_on("test").cases
    assert set(lean["split"]) == {"validation"} and set(lean["epoch"]) == {1}
    assert set(whole["split"]) == {"train", "test"} and set(whole["epoch"]) == {0, 1}
    assert set(found.epochs["epoch"]) == {0, 1}
    assert "evaluate_on" not in found.meta["settings"]


@pytest.mark.parametrize("older", [True, False])
def test_a_search_that_goes_on_makes_the_trials_that_it_began_with(
    searched, place, monkeypatch, tmp_path, older
):
    monkeypatch.chdir(place)
    search = results.read_search(searched[0])
    if older:
        del search["evaluation"]
    results.write_json(tmp_path / results.SEARCH, search)
    flags = AlphaGamma(cohorts=("lit",), results=tmp_path, folds=2, seeds=(1, 2))
    data, settings = flags.cohort_data(), flags.settings()
    for folder, lean in ((tmp_path, not older), (tmp_path / "new", True)):
        setup = SearchSetup(flags.plan("lit"), flags.searched(), data, 2, folder)
        cell = setup.plan.cells[0]
        judged = setup.trial({}, cell, True).settings
        assert (judged != settings) == lean
        assert setup.trial({}, cell, False).settings == settings
        if lean:
            assert judged == replace(settings, evaluate_on="held_out", evaluate_at="last")


def test_the_journal_says_what_the_ledger_says(searched):
    import optuna

    folder = searched[0]
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / alpha_gamma.JOURNAL))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    stored = results.read_search(folder)["configurations"]
    assert study.study_name == "lit focal"
    for trial, one in zip(study.trials, stored, strict=True):
        assert trial.params == pytest.approx(one["values"])
        assert trial.values == pytest.approx([one["score"]["dice"]])


def test_the_same_search_again_does_nothing(searched, capsys, monkeypatch):
    folder, flags, *_ = searched
    monkeypatch.chdir(folder.parent)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")}
    command = [*flags, "--configurations", "4"]
    assert alpha_gamma.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == before
    assert alpha_gamma.main([*command, "--dry-run"]) == 0
    assert "4 of 4 configurations have ended" in capsys.readouterr().out


def test_another_search_in_the_same_folder_is_refused(searched, monkeypatch):
    folder, flags, *_ = searched
    monkeypatch.chdir(folder.parent)
    for other, words in (
        (["--objective", "sensitivity+precision"], "objectives is dice there"),
        (["--seeds", "1"], "judged on other seeds or folds"),
        (["--space", "alpha=0.2:0.4"], "space is alpha"),
    ):
        with pytest.raises(ValueError, match=words):
            alpha_gamma.main([*flags, "--configurations", "4", *other])


# ------------------------------------------------------------------------------------------- flags
def space_of(loss, *flags):
    loss = loss_named(loss) if isinstance(loss, str) else loss
    return fields.searched(loss, Training(), flags)


def test_the_space_is_the_losss_own_unless_flags_say_otherwise(place, monkeypatch):
    monkeypatch.chdir(place)
    assert {k: str(v) for k, v in space_of("focal1").space.items()} == {
        "alpha": "(0, 1)", "gamma": "[0, 5]",
    }  # fmt: skip
    assert str(search_space(LOSSES["new"])["gamma"]) == "(0, 10]"
    assert space_of("focal1", "gamma=0.5:2").space == {"gamma": Range(0.5, 2)}
    assert space_of("my_searched:Mine").space == {"beta": Range(0.1, 0.9)}
    assert space_of("my_searched:Mine", "gamma=1:2").space == {"gamma": Range(1, 2)}
    assert space_of(
        "gdsc", "learning_rate=1e-5:1e-2:log", "batch_size=4:32", "precision=fp32,bf16",
        "flip=true,false", "weights=inverse,inverse_square", "epochs=2:8:log@precision=bf16",
    ).space == {
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "batch_size": Range(4, 32, whole=True),
        "precision": Choices(("fp32", "bf16")),
        "flip": Choices((True, False)),
        "weights": Choices(("inverse", "inverse_square")),
        "epochs": Range(2, 8, log=True, whole=True, only=Condition("precision", ("bf16",))),
    }  # fmt: skip


def test_what_is_called_by_name_and_fields_is_one_choice_in_its_one_spelling():
    """Networks and augmentations have commas, colons and equals signs of their own."""
    space = space_of(
        "focal1",
        "network=unet3d,monai:SegResNet( init_filters=8, blocks_up=[1, 1, 1] )",
        "filters=8x16,16x32@network=unet3d",
        "augment=none, standard(rotation_degrees=10,flip_p=0.5)",
    )
    net = "monai:SegResNet(blocks_up=(1,1,1),init_filters=8)"
    assert space.space == {
        "network": Choices(("unet3d", net)),
        "filters": Choices(("8x16", "16x32"), only=Condition("network", ("unet3d",))),
        "augment": Choices(("none", "standard(rotation_degrees=10)")),
    }
    assert {settings.network for settings in space.all_settings()} == {"unet3d", net}
    only = space_of("focal1", f"network=unet3d,{net}", f"epochs=1:3@network={net}").space["epochs"]
    assert only.only == Condition("network", (net,))


def test_values_reach_the_loss_or_the_settings_and_a_stride_follows_its_patch():
    both = space_of("focal1", "alpha=0.1:0.9", "patch_size=16,32", "learning_rate=1e-5:1e-2:log")
    values = {"alpha": 0.4, "patch_size": 16, "learning_rate": 1e-3}
    assert both.loss_of(values) == loss_named("focal(alpha=0.4,gamma=2)")
    assert both.settings_of(values) == TrainSettings(patch_size=16, stride=8, learning_rate=1e-3)
    assert both.varies_settings and not space_of("focal1").varies_settings
    assert both.unsearched() == {"alpha": 0.25, "patch_size": 32, "learning_rate": 1e-4}
    assert both.family() == "focal(gamma=2.0)"
    assert space_of("focal1", "batch_size=4:32").family() == "focal1"


def test_the_papers_settings_come_first_where_only_searched_numbers_differ():
    assert space_of("focal1").named_points() == (
        {"alpha": 0.25, "gamma": 2.0},
        {"alpha": 0.75, "gamma": 2.0},
    )
    assert space_of("focal1", "gamma=0:5").named_points() == ({"gamma": 2.0},)
    assert space_of("new").named_points() == ()
    # 2 is none of the steps of a hundredth from 0.125 on.
    assert space_of("focal1", "gamma=0.125:12").named_points() == ()


def test_a_losss_own_numbers_are_what_it_has_without_a_search(place, monkeypatch):
    monkeypatch.chdir(place)
    for name, own in (
        ("focal1", {"alpha": 0.25, "gamma": 2.0}),
        ("tversky", {name: getattr(loss_named("tversky"), name)
                     for name in search_space(loss_named("tversky"))}),
        ("new", None),  # its alpha is each batch's own
        ("my_searched:Mine", {"beta": loss_named("my_searched:Mine").function.beta}),
    ):  # fmt: skip
        assert space_of(name).unsearched() == own
    # 2 is none of the steps of a hundredth from 0.125 on.
    assert space_of("focal1", "gamma=0.125:12").unsearched() is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "xent"], "declares nothing to search over"),
        (["--space", "threshold=0.3,0.5"], "threshold changes no score that a search goes by"),
        (["--space", "patch_size=8:24"], "--space, tried at patch_size=9: patch_size 9"),
        (["--space", "background_windows=0:0.5", "--dry-run"], "every window with brain has a"),
        (["--background-windows", "0.5"], "every window with brain has a lesion"),
        (["--space", "augment=none,my_searched:Large", "--dry-run"], "patches of shape [2, 8, 8"),
        (
            ["--space", "optimiser=adam,adamw", "--momentum", "0.9", "--weight-decay", "0.1"],
            "--momentum: of the optimisers adam and adamw none has a use for it",
        ),
        (["--space", "alpha"], "expected FIELD=LOWEST:HIGHEST"),
        (["--space", "learning_rat=1e-5:1e-2"], "did you mean 'learning_rate'"),
        (["--space", "learning_rate=0:1e-2:log"], "begins above 0"),
        (["--space", "learning_rate=-1:1e-2"], "learning_rate is -1.0; expected more than 0"),
        (["--space", "learning_rate=1:2:lug"], "expected log, whole or nothing"),
        (["--space", "batch_size=0:8"], "batch_size is 0; expected 1 or more"),
        (["--space", "batch_size=1.5:8"], "expected whole numbers"),
        (["--space", "batch_size=4,x"], "'x' is no value of it; expected a whole number"),
        (["--space", "patch_size=8:24"], "patch_size 9 with"),
        (["--space", "precision=bf16"], "at least two"),
        (["--space", "precision=1:2"], "precision is no number"),
        (["--space", "network=unet3d,unet3d( )"], "at least two and each once"),
        (["--space", "network=unet3d,1:2"], "--space network=unet3d,1:2: unknown network '1:2'"),
        (["--space", "precision=fp32,fp8"], "precision=fp32,fp8: 'fp8' is no value of it"),
        (["--space", "flip=true,false", "flip=true,false"], "there twice"),
        (["--space", "gamma=0:5@flip=true"], "gamma depends on flip, which is not searched"),
        (["--space", "gamma=0:5@alpha=0.5", "alpha=0:1"], "gamma depends on alpha, a range"),
        (["--space", "epochs=1:5@precision=tf32", "precision=fp32,bf16"], "precision being tf32"),
        (
            ["--space", "flip=true,false", "precision=fp32,bf16", "--sampler", "cmaes"],
            "searches numbers only",
        ),
        (["--space", "alpha=0.9:0.1"], "two numbers that rise"),
        (["--space", "alpha=-1:0.5"], "alpha is -1.0; expected a number"),
        (["--space", "alpa=0.1:0.5"], "did you mean 'alpha'"),
        (["--configurations", "0"], "--configurations 0: expected 1 or more"),
        (["--confirm-seeds", "42"], "the search has used it"),
        (["--prune-p", "1"], "--prune-p 1"),
        (["--compare", "nothing"], "unknown loss 'nothing'"),
        (["--cohorts", "lit", "simulated"], "one cohort; found lit simulated"),
    ],
)
def test_mistakes_are_one_line(place, monkeypatch, flags, words):
    monkeypatch.chdir(place)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        alpha_gamma.main([*SETTINGS, *flags])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("script", ["alpha_gamma", "seed_ladder"])
def test_help_answers_without_loading_anything(script):
    code = f"import sys, sweeps.{script}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not {"torch", "optuna", "ray", "pandas"} & set(done.stdout.split())


def test_the_defaults_are_the_focal_loss_on_the_papers_seeds():
    plan = AlphaGamma().plan("wmh2017")
    assert (plan.loss, plan.sampler, plan.objectives) == ("focal", "tpe", ("dice",))
    assert plan.comparators == ("focal1", "focal2", "xent") and len(plan.cells) == 25


# ------------------------------------------------------------------------------------- seed ladder
def test_a_ladder_says_on_the_terminal_what_its_report_says(searched, capsys, monkeypatch):
    folder = searched[0].parent
    monkeypatch.chdir(folder)
    flags = [*SETTINGS, "--seeds", "1", "2", "--results", "ladder"]
    assert seed_ladder.main(flags) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(folder / "ladder/report/tables/seeds-needed-lit.csv")
    assert table["seeds"].tolist() == [1, 2, 3, 5, 10, 20, 30]
    assert "What more seeds would buy" in said and "new seeds" in said


def test_a_ladder_takes_two_losses_at_most():
    with pytest.raises(ValueError, match="expected one or two"):
        seed_ladder.main(["--losses", "xent", "dsc", "mixed"])
    with pytest.raises(ValueError, match="two or more"):
        seed_ladder.main(["--seeds", "1"])
