"""Arms: their labels, what they share, and what a received ledger may say of them."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from analysis.page.items import Table
from analysis.reading.imports import read_results
from analysis.report import report_input
from analysis.sections.claims import claims
from analysis.sections.front import front as front_of
from analysis.sections.learning_rate import learning_rate
from analysis.sections.outcome import outcomes
from analysis.sections.verdict import verdict
from lesion_core.arms import BATCHES, NEITHER, WEIGHTS, arms_of, asked_rows, sharing
from lesion_core.believed import wrong_with_row, wrong_with_sweep
from lesion_core.paths import read_json
from lesion_core.results import read_meta, read_sweep, write_json
from lesion_core.segmentation.networks import choose
from lesion_core.settings import TrainSettings
from lesion_core.standing import standings
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.ledger.contents import TrialDescription
from sweeps.status import states
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import identity
from sweeps.tracking.sweep_run import content_of_sweep

BASE = TrainSettings().to_dict()


def meta(*rows: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": str(place), "loss": "xent"} | row for place, row in enumerate(rows)]
    return {"settings": BASE, "trials": named}


def test_losses_alone_are_called_as_they_are() -> None:
    assert arms_of(meta({}, {"loss": "dsc"}, {})).labels == ["xent", "dsc"]
    assert arms_of(meta({"settings": {"flip": False}}, {"settings": {"flip": False}})).labels == [
        "xent"
    ]


@pytest.mark.parametrize(
    ("own", "label"),
    [
        ({"learning_rate": 1e-5}, "xent, learning_rate 1e-05"),
        ({"filters": [8, 16]}, "xent, filters 8x16"),
        ({"flip": False}, "xent, flip false"),
        ({"patch_size": 16, "stride": 8}, "xent, patch_size 16"),
        ({"patch_size": 16}, "xent, patch_size 16"),
        ({"stride": 8}, "xent, stride 8"),
        ({"optimiser": "sgd", "momentum": 0.99}, "xent, optimiser sgd"),
        ({"optimiser": "sgd", "momentum": 0.9}, "xent, optimiser sgd, momentum 0.9"),
        ({"of_a_later_release": 1}, "xent, of_a_later_release 1"),
    ],
)
def test_a_label_says_what_differs(own: dict[str, Any], label: str) -> None:
    assert arms_of(meta({}, {"settings": own})).label_of["1"] == label


def test_a_product_over_optimisers_has_no_factor_for_their_momentum() -> None:
    sgd = {"settings": TrainSettings(optimiser="sgd").to_dict()}
    found = arms_of(meta({}, sgd, {"loss": "dsc"}, {"loss": "dsc"} | sgd))
    assert found.factors == ("loss", "optimiser")


def test_what_an_arm_has_no_use_for_is_no_factor_and_in_no_label() -> None:
    narrow = {"settings": {"filters": [8, 16]}}
    other = {"settings": {"network": "monai:SegResNet(init_filters=8)"}}
    found = arms_of(meta(narrow, other))
    assert found.factors == ("network",)
    assert found.labels == ["xent, network unet3d", "xent, network monai:SegResNet(init_filters=8)"]
    assert found.values("filters") == ["8x16"]
    adam, sgd = {}, {"settings": {"optimiser": "sgd", "momentum": 0.9}}
    found = arms_of(meta(adam, sgd))
    assert found.labels == ["xent, optimiser adam", "xent, optimiser sgd, momentum 0.9"]
    assert found.factors == ("optimiser",)
    found = arms_of(meta(narrow, other, {}))
    assert found.labels == [
        "xent, filters 8x16, network unet3d",
        "xent, network monai:SegResNet(init_filters=8)",
        "xent, filters 32x64x128x256, network unet3d",
    ]  # fmt: skip


def test_an_arm_of_somebodys_own_label_has_it_in_every_trial() -> None:
    fast = {"learning_rate": 3e-4}
    found = arms_of(meta({"label": "usual"}, {"settings": fast}, {}, {"settings": fast}))
    assert found.label_of == {
        "0": "usual", "1": "xent, learning_rate 0.0003", "2": "usual",
        "3": "xent, learning_rate 0.0003",
    }  # fmt: skip
    assert found.levels("usual") == {"learning_rate": "0.0001"}


def test_two_arms_never_have_one_label() -> None:
    """A folder that somebody made up may call them alike."""
    found = arms_of(meta({"loss": "a", "label": "x"}, {"loss": "b", "label": "x"}))
    assert found.label_of == {"0": "x", "1": "x (2)"}


def test_every_setting_is_known_to_share_or_not() -> None:
    """A field that is added later must be put into one of the three."""
    known = {field.name for field in fields(TrainSettings)}
    assert known <= WEIGHTS | BATCHES | NEITHER
    assert not (WEIGHTS & BATCHES or WEIGHTS & NEITHER or BATCHES & NEITHER)


@pytest.mark.parametrize(
    ("own", "shared"),
    [
        ({"learning_rate": 1.0}, "weights and batches"),
        ({"filters": (8, 16)}, "batches"),
        ({"batch_size": 8}, "weights"),
        ({"flip": False, "filters": (8, 16)}, "nothing"),
    ],
)
def test_what_arms_share(own: dict[str, Any], shared: str) -> None:
    assert sharing(BASE, BASE | own).in_words == shared


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], "settings of trial a is"),
        ({"epochs": {"a": 1}}, "'epochs' is"),
        ({"filters": [[8]]}, "'filters' is"),
        ({"learning_rate": float("inf")}, "'learning_rate' is inf"),
    ],
)
def test_settings_of_a_received_row_are_plain_values(settings: object, says: str) -> None:
    row = {"name": "a", "cohort": "toy", "settings": settings}
    assert says in str(wrong_with_row(row))
    assert says.split(" is")[0] in str(wrong_with_sweep({"trials": [row]}))


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = FakeSweep(
        losses=("xent", "dsc"),
        vary={"learning_rate": (1e-4, 3e-4), "batch_size": (16, 8)},
        effects={("learning_rate", 3e-4): 0.5},
        seeds=(1, 2), num_folds=2, num_cases=6, epochs=2,
    )  # fmt: skip
    return sweep.write(tmp_path_factory.mktemp("product"))


LABELS = [
    f"{loss}, batch_size {size}, learning_rate {rate}"
    for loss in ("xent", "dsc")
    for rate in ("0.0001", "0.0003")
    for size in (16, 8)
]


def test_a_sweep_by_arms_has_the_scores_of_the_arms_own_trials(product: Path) -> None:
    plain = read_sweep(product)
    sweep = plain.by_arm()
    assert set(plain.runs["loss"]) == {"xent", "dsc"} and sweep.losses == LABELS
    assert (sweep.runs["status"] == "done").all() and len(sweep.runs) == 32
    rows = asked_rows(read_meta(product))
    for name, label in zip(sweep.runs["trial"], sweep.runs["loss"], strict=True):
        own = rows[name]["settings"]
        assert label == (
            f"{rows[name]['loss']}, batch_size {own['batch_size']}, "
            f"learning_rate {own['learning_rate']:g}"
        )
    by_trial = sweep.cases.groupby("trial")["loss"].unique()
    assert all(len(labels) == 1 for labels in by_trial) and set(sweep.cases["loss"]) == set(LABELS)
    again = sweep.by_arm()
    assert again.losses == LABELS


def test_the_arm_that_comes_first_gives_the_networks(product: Path) -> None:
    first = standings(read_sweep(product), "wmh2017")[0].loss
    assert "learning_rate 0.0003" in first  # what was planted
    assert choose(product, loss=LABELS[3]).loss == LABELS[3]
    with pytest.raises(ValueError, match="no complete trial of it; there: xent, batch_size 16"):
        choose(product, loss="xent")


def test_status_and_the_sweeps_run_at_wandb_go_by_arms(product: Path) -> None:
    found = states(product, read_meta(product), None)
    assert list(dict.fromkeys(state["loss"] for state in found.values())) == LABELS
    run = content_of_sweep(product, Tracking(mode="offline", group="product"))
    assert run is not None and run.identity.config["arms"] == LABELS
    rows = run.ending.tables["losses"][1]
    assert {row[1] for row in rows} == set(LABELS)
    trial = read_json(product / "trials" / next(iter(found)) / "trial.json")
    config = identity(
        cast(TrialDescription, trial), Tracking(mode="offline", group="product")
    ).config
    assert {field.name for field in fields(TrainSettings)} <= config.keys()


def test_settings_that_are_not_the_trials_make_it_corrupt(product: Path, tmp_path: Path) -> None:
    said = read_json(product / "sweep.json")
    row = next(row for row in said["trials"] if "settings" in row)
    row["settings"] = {"learning_rate": 0.5}
    write_json(tmp_path / "sweep.json", said)
    (tmp_path / "trials").symlink_to(product / "trials")
    runs = read_sweep(tmp_path).runs.set_index("trial")
    assert runs.loc[row["name"], "status"] == "corrupt"
    assert "sweep.json says another" in str(runs.loc[row["name"], "error"])
    assert (runs["status"] == "corrupt").sum() == 1


def test_a_report_compares_arms(product: Path) -> None:
    given = report_input(read_results(product), None, 0.01, False)
    (cohort,) = given.cohorts
    assert [cohort.losses[arm] for arm in cohort.shown] == LABELS
    assert given.reference == LABELS[0]
    rows = given.sweep.trial_table("histograms.parquet")
    assert set(rows["loss"]) == set(LABELS)
    found = outcomes(given)
    words = f"{verdict(found[0]).html()} {claims(found[0]).html()}"
    assert "arms" in words and re.findall(r"\bloss(?:es)?\b", words) == []  # what differs is more
    assert given.wording is not None
    (front,) = given.wording.sections([front_of(given, found)])
    headers = [
        each.header for item in front.items if isinstance(item, Table) for each in item.columns
    ]
    assert "Arm" in headers and "Loss" not in headers
    only = report_input(read_results(product), LABELS[5], 0.01, False)
    assert only.reference == LABELS[5]
    with pytest.raises(ValueError, match="reference loss 'dsc' has no complete trial"):
        report_input(read_results(product), "dsc", 0.01, False)


def test_short_names_leave_out_what_all_share() -> None:
    fast = {"settings": {"learning_rate": 3e-4}}
    assert list(arms_of(meta({}, fast)).short_names.values()) == [
        "learning_rate 0.0001", "learning_rate 0.0003",
    ]  # fmt: skip
    both = arms_of(meta({}, fast, {"loss": "dsc"}, {"loss": "dsc"} | fast)).short_names
    assert both["dsc, learning_rate 0.0003"] == "dsc, 0.0003"
    mirrored = {"settings": {"flip": False}}
    assert "dsc, flip false" in arms_of(meta({"loss": "dsc"} | mirrored, {})).short_names.values()
    own = arms_of(meta({"label": "usual"}, {"loss": "dsc"} | fast)).short_names
    assert all(label == name for label, name in own.items())
    assert list(arms_of(meta({}, {"loss": "dsc"})).short_names.values()) == ["xent", "dsc"]


def test_a_report_draws_learning_rates_that_move_and_no_others(tmp_path: Path) -> None:
    made = FakeSweep(
        losses=("xent",), seeds=(1, 2), num_folds=2, num_cases=4, epochs=3,
        vary={"schedule": ["constant", "poly"]}, pictures=False, gradients=False,
    )  # fmt: skip
    made.write(tmp_path / "moves")
    given = report_input(read_results(tmp_path / "moves"), None, 0.01, False)
    found = learning_rate(given, given.cohorts[0])
    assert found is not None and set(found.data["trainings"]) == {4}
    constant, poly = (
        found.data[found.data["loss"] == label]["learning_rate"].to_list()
        for label in ("xent, schedule constant", "xent, schedule poly")
    )
    assert constant == [1e-4] * 3 and sorted(poly, reverse=True) == poly and poly[0] < 1e-4
    replace(made, vary={}).write(tmp_path / "constant")
    given = report_input(read_results(tmp_path / "constant"), None, 0.01, False)
    assert learning_rate(given, given.cohorts[0]) is None
