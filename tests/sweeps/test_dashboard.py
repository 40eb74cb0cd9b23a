"""A workspace that W&B's own library understands, and says where to put it."""

import json
import sys

import pytest

from lesion_core import results
from sweeps import command
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.tracking import dashboard
from sweeps.tracking.__main__ import main as wandb_command
from tests.support.wandb_server import Server


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    path = tmp_path_factory.mktemp("place") / "grid"
    return FakeSweep(
        num_cases=4, epochs=1, losses=("xent", "new"), seeds=(1,), num_folds=2,
        cohorts=("wmh2017", "lit"),
    ).write(path)  # fmt: skip


def panels(content):
    return [panel for section in content["sections"] for panel in section["panels"]]


def test_every_cohort_has_bands_by_loss_and_by_fold_the_trade_off_and_the_best(sweep, capsys):
    assert wandb_command(["dashboard", str(sweep)]) == 0
    said = capsys.readouterr().out
    for cohort in ("wmh2017", "lit"):
        file = sweep / f"wandb/workspace-{cohort}.json"
        assert f"workspace: {file}" in said
        content = json.loads(file.read_text())
        assert cohort in content["filters"] and "grid" in content["filters"]
        lines = [panel for panel in panels(content) if panel["panel"] == "LinePlot"]
        assert all(panel["groupby"] == {"config": "loss"} for panel in lines)
        assert {panel["groupby_rangefunc"] for panel in lines} == {"minmax"}
        keys = {key for panel in lines for key in panel["y"]}
        assert {"test/image/dice", "train/patch/dice", "fold/0/dice", "fold/1/precision"} <= keys
        kinds = {panel["panel"] for panel in panels(content)}
        assert {"ScatterPlot", "BarPlot", "WeavePanelSummaryTable"} <= kinds


def test_its_panels_show_what_trials_log(sweep):
    from sweeps.tracking.policy import Tracking
    from sweeps.tracking.run_content import content_of

    meta = results.read_meta(sweep)
    decided = Tracking(mode="offline", group="grid")
    logged: set[str] = set()
    for trial in meta["trials"]:
        (sweep / "trials" / trial["name"] / "model.pt").touch()
        for numbers in content_of(sweep, trial["name"], decided).steps.values():
            logged |= numbers.keys()
    for panel in panels(dashboard.describe(meta, "wmh2017", "grid")):
        shown = [*panel.get("y", []), *panel.get("metrics", [])]
        shown = [panel["x"], panel["y"]] if panel["panel"] == "ScatterPlot" else shown
        for key in shown:
            assert (key if isinstance(key, str) else key["summary"]) in logged


def test_a_search_is_shown_on_the_images_that_it_is_judged_on(sweep):
    meta = results.read_meta(sweep)
    searched = [trial | {"split": "validation"} for trial in meta["trials"]]
    content = dashboard.describe(meta | {"trials": searched}, "wmh2017", "search")
    keys = {key for panel in panels(content) if "y" in panel for key in panel["y"]}
    assert "validation/image/dice" in keys and "test/image/dice" not in keys
    assert content["order"]["summary"] == "validation/image/dice"
    both = dashboard.describe(meta | {"trials": [*searched, *meta["trials"]]}, "wmh2017", "search")
    bars = [panel["metrics"][0]["summary"] for panel in panels(both) if panel["panel"] == "BarPlot"]
    assert {"validation/image/dice", "test/image/dice"} <= set(bars)


def test_arms_are_grouped_by_every_factor_under_the_key_that_runs_have(sweep):
    from sweeps.tracking.policy import Tracking
    from sweeps.tracking.run_content import identity

    meta = results.read_meta(sweep)
    slow = [trial | {"settings": {"learning_rate": 1e-5}} for trial in meta["trials"]]
    renamed = [trial | {"name": f"{trial['name']}-slow"} for trial in slow]
    content = dashboard.describe(meta | {"trials": [*meta["trials"], *renamed]}, "lit", "grid")
    assert content["groupby"] == [{"config": "loss"}, {"config": "learning_rate"}]
    config = identity(json.loads(
        (sweep / "trials" / meta["trials"][0]["name"] / "trial.json").read_text()
    ),
                      Tracking(mode="offline", group="grid")).config  # fmt: skip
    for kind in ("LinePlot", "BarPlot"):
        shown = [panel for panel in panels(content) if panel["panel"] == kind]
        by = [panel["groupby"]["config"] for panel in shown]
        assert by.count("loss") == by.count("learning_rate") == len(shown) / 2
        assert all(
            panel["title"].endswith(f", by {each}") for panel, each in zip(shown, by, strict=True)
        )
        assert set(by) <= config.keys()


def test_the_library_makes_w_and_bs_own_view_of_it(sweep):
    pytest.importorskip("wandb_workspaces")
    wandb_command(["dashboard", str(sweep)])
    content = json.loads((sweep / "wandb/workspace-lit.json").read_text())
    sections = content["view"]["section"]["panelBankConfig"]["sections"]
    assert [len(section["panels"]) for section in sections] == [
        len(section["panels"]) for section in content["sections"]
    ]
    line = sections[1]["panels"][0]
    assert line["viewType"] == "Run History Line Plot"
    assert line["config"]["groupBy"] == "loss.value" and line["config"]["groupArea"] == "minmax"


def test_it_is_written_without_the_library_too(sweep, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert wandb_command(["dashboard", str(sweep)]) == 0
    content = json.loads((sweep / "wandb/workspace-lit.json").read_text())
    assert "view" not in content and panels(content)
    assert "wandb-workspaces is not installed" in capsys.readouterr().out


def test_with_an_entity_it_is_saved(sweep, monkeypatch, capsys):
    pytest.importorskip("wandb_workspaces")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert wandb_command(["dashboard", str(sweep), "--entity", "lab"]) == 0
        views = server.views
    assert [view["entityName"] for view in views] == ["lab", "lab"]
    assert {view["displayName"] for view in views} == {"grid, wmh2017", "grid, lit"}
    assert capsys.readouterr().out.count("saved: http") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "no sweep.json there"), (["--entity", "lab"], "--entity needs a key")],
)
def test_mistakes_are_one_line(sweep, tmp_path, monkeypatch, capsys, arguments, words):
    place = sweep if arguments else tmp_path
    monkeypatch.setattr(sys, "argv", ["tracking.py", "dashboard", str(place), *arguments])
    assert command.run(wandb_command) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
