"""Arms: what --vary and --arms ask for, how it is refused, and what sweep.json says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lesion_core.arms import arms_of
from lesion_core.losses import LOSSES
from lesion_core.results import read_meta, read_sweep
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps.arms import Asked
from sweeps.command import read_flags
from sweeps.data import listed
from sweeps.ledger.contents import SweepRequest
from sweeps.ledger.ledger import Ledger
from sweeps.paper_grid import PaperGrid, read_grid
from sweeps.seed_ladder import SeedLadder
from sweeps.train_one import TrainOne
from sweeps.training_effect import TrainingEffect


def grid(*arguments: str) -> PaperGrid:
    return read_grid(PaperGrid, arguments, PaperGrid())


def test_a_product_has_every_value_with_every_other_and_keeps_what_flags_say() -> None:
    asked = grid(
        "--losses", "xent", "new", "--vary", "learning-rate=1e-4,3e-4", "--vary",
        "filters=8x16,8x16x32", "--epochs", "3",
    ).asked_arms  # fmt: skip
    assert [(a.loss, a.settings.learning_rate, a.settings.filters) for a in asked] == [
        (LOSSES[loss], rate, filters)
        for loss in ("xent", "new")
        for rate in (1e-4, 3e-4)
        for filters in ((8, 16), (8, 16, 32))
    ]
    assert {a.settings.epochs for a in asked} == {3}


def test_a_stride_follows_the_patch_size_that_varies() -> None:
    asked = grid("--losses", "xent", "--vary", "patch_size=16,32").asked_arms
    assert [a.settings.stride for a in asked] == [8, 16]


def test_the_flags_of_one_training_say_the_same_arm() -> None:
    """So `lesion-sweep train` trains any arm of a grid under the arm's own names."""
    typed = ["--cohort", "toy", "--learning-rate", "3e-4", "--batch-size", "8"]
    vary = ("--vary", "learning_rate=1e-4,3e-4", "--vary", "batch_size=16,8")
    assert grid(*vary).asked_arms[3].settings == read_flags(TrainOne, typed).settings()


def test_every_field_can_be_varied_by_its_own_type() -> None:
    asked = grid("--losses", "xent", "--vary", "flip=true,false", "--vary", "stride=none,8")
    assert [(a.settings.flip, a.settings.stride) for a in asked.asked_arms] == [
        (True, 16), (True, 8), (False, 16), (False, 8),
    ]  # fmt: skip


def test_commas_within_brackets_are_a_values_own() -> None:
    nets = "network=unet3d,monai:SegResNet(init_filters=8,blocks_up=(1,1,1))"
    asked = grid("--losses", "xent", "--vary", nets).asked_arms
    assert [a.settings.network for a in asked] == [
        "unet3d", "monai:SegResNet(blocks_up=(1,1,1),init_filters=8)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ("learning_rte=1,2", "did you mean learning_rate"),
        ("loss=xent,dsc", "losses are what --losses names"),
        ("batch_size=8,many", "'many' is no value of it; expected a whole number"),
        ("batch_size=8,", "'' is no value of it"),
        ("learning_rate=1e-4,inf", "'inf' is no value"),
        ("batch_size=8,8", "8 is there twice"),
        ("filters=8x16,8x16", "8x16 is there twice"),
        ("batch_size=8", "one value varies nothing"),
        ("batch_size", "expected FIELD=VALUE,VALUE"),
        ("batch_size=0,8", "--vary batch_size=0: batch_size is 0; expected 1 or more"),
        ("patch_size=32,36", "patch_size=36: patch_size 36 with 4 levels"),
        ("precision=fp32,fp8", "expected fp32 or tf32 or bf16"),
        ("stride=none,16", "two arms are the same training"),
        ("evaluate_on=all,held_out", "makes no other one; give --evaluate-on"),
    ],
)
def test_a_wrong_vary_is_one_line(vary: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        _ = grid("--losses", "xent", "--vary", vary).asked_arms
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--vary", "batch_size=4,8", "--batch-size", "8"), "one says what the other varies"),
        (("--vary", "flip=true,false", "--no-flip"), "one says what the other varies"),
        (("--vary", "epochs=1,2", "--vary", "epochs=3,4"), "given twice"),
        (("--arms", "a.py:ARMS", "--losses", "xent"), "leave out --losses"),
    ],
)
def test_flags_that_say_the_same_twice_are_refused(arguments: Sequence[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        grid(*arguments)


ARMS = """
from lesion_core import Arm
ARMS = [
    Arm(loss="xent", label="baseline"),
    Arm(loss="focal(alpha=0.3,gamma=1.5)", settings={"learning_rate": 3e-4, "filters": [8, 16]}),
]
SAME = [Arm(loss="xent"), Arm(loss="xent", settings={"batch_size": 16})]
CALLED = [Arm(label="a"), Arm(label="a", settings={"epochs": 3})]
TYPE = [Arm(settings={"batch_size": "8"})]
FIELD = [Arm(settings={"batchsize": 8})]
VALUE = [Arm(settings={"patch_size": 30})]
LOSS = [Arm(loss="xnet")]
NONE = []
STRANGE = ["xent"]
"""


def test_a_list_of_arms_is_read_from_a_file_or_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arms_of_a_test.py").write_text(ARMS)
    for path in (
        "arms_of_a_test.py:ARMS",
        "arms_of_a_test:ARMS",
        f"{tmp_path}/arms_of_a_test.py:ARMS",
    ):
        first, second = grid("--arms", path).asked_arms
        assert first == Asked(LOSSES["xent"], TrainSettings(), "baseline")
        assert second.settings == TrainSettings(learning_rate=3e-4, filters=(8, 16))
    for name, says in {
        "SAME": "two arms are the same training", "CALLED": "two arms are called 'a'",
        "TYPE": "batch_size is '8'; expected a whole number", "FIELD": "did you mean batch_size",
        "VALUE": "arm 1 .patch_size=30.: patch_size 30", "LOSS": "arm 1: .*xnet",
        "NONE": "expected a list of arms", "STRANGE": "expected an Arm",
        "AMRS": "did you mean ARMS",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=says):
            _ = grid("--arms", f"arms_of_a_test:{name}").asked_arms
    for path, says in {
        "nowhere.py:A": "no file nowhere.py",
        "nowhere:A": "No module",
        "a": "expected FILE",
    }.items():
        with pytest.raises(ValueError, match=says):
            _ = grid("--arms", path).asked_arms


@pytest.mark.parametrize(
    ("flags", "by", "expected"),
    [
        (("--filters", "8", "16"), "network=unet3d,monai:SegResNet(init_filters=8)",
         [("filters", (8, 16)), ("filters", TrainSettings.filters)]),
        (("--momentum", "0.9"), "optimiser=sgd,adam", [("momentum", 0.9), ("momentum", None)]),
        (("--weight-decay", "0.01"), "optimiser=adam,adamw,sgd",
         [("weight_decay", 0), ("weight_decay", 0.01), ("weight_decay", 0.01)]),
    ],
)  # fmt: skip
def test_a_flag_is_for_those_arms_that_have_a_use_for_it(
    flags: Sequence[str], by: str, expected: Sequence[tuple[str, object]]
) -> None:
    asked = grid("--losses", "xent", "--vary", by, *flags)
    own = [arm.settings for arm in asked.asked_arms]
    assert [(name, getattr(each, name)) for each, (name, _) in zip(own, expected, strict=True)] == [
        *expected
    ]
    assert asked.own_settings.network == "unet3d" and asked.own_settings.optimiser == "adam"


@pytest.mark.parametrize(
    ("flags", "by"),
    [
        (("--filters", "8", "16"), "network=monai:SegResNet,monai:BasicUNet"),
        (("--momentum=0.9", "--weight-decay=0.1"), "optimiser=adam,adamw"),
        (("--momentum", "0.9"), "batch_size=4,8"),
    ],
)
def test_a_flag_that_no_arm_has_a_use_for_is_refused(flags: Sequence[str], by: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*(has a use for it|momentum 0.9 with adam)"):
        grid("--losses", "xent", "--vary", by, *flags)


def test_a_ladder_takes_two_arms_and_a_training_effect_needs_two() -> None:
    two = ("--losses", "xent", "--vary", "batch_size=8,16")
    read_grid(SeedLadder, two, SeedLadder()).check_arms()
    read_grid(TrainingEffect, two, TrainingEffect()).check_arms()
    four = ("--vary", "batch_size=8,16")
    with pytest.raises(ValueError, match=r"4 arms.*one or two"):
        read_grid(SeedLadder, four, SeedLadder()).check_arms()
    with pytest.raises(ValueError, match=r"4 arms.*expected two"):
        read_grid(TrainingEffect, four, TrainingEffect()).check_arms()


# -------------------------------------------------------------------------------------- sweep.json
def asked(base: TrainSettings, *own: TrainSettings) -> SweepRequest:
    trials = [
        Trial(
            cohort="toy", fingerprint="f" * 64, loss=LOSSES["xent"], seed=1, fold=0, num_folds=2,
            settings=each,
        )
        for each in own
    ]  # fmt: skip
    return {
        "command": "", "git_commit": None, "versions": {}, "losses": ["xent"],
        "settings": base.to_dict(), "num_folds": 2, "folds": {"toy": [["a"], ["b"]]},
        "cohorts": {
            "toy": {
                "fingerprint": "f" * 64, "channels": ["t1"], "num_cases": 2, "definition": {},
                "fold_rule": "strided", "brain": {},
            }
        },
        "trials": [listed(trial, base) for trial in trials],
    }  # fmt: skip


SLOW, USUAL, FAST = (TrainSettings(learning_rate=rate) for rate in (3e-5, 1e-4, 3e-4))


def test_rows_say_settings_only_where_they_are_not_the_sweeps(tmp_path: Path) -> None:
    Ledger(tmp_path).write_request(asked(USUAL, USUAL, FAST))
    first, second = read_meta(tmp_path)["trials"]
    assert "settings" not in first and second["settings"] == {"learning_rate": 3e-4}


def test_more_arms_are_added_and_other_settings_that_do_not_vary_are_refused(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_request(asked(USUAL, USUAL, FAST))
    ledger.write_request(asked(USUAL, USUAL, FAST, SLOW))
    ledger.write_request(asked(SLOW, SLOW))  # a plain sweep at a rate that varies there
    meta = read_meta(tmp_path)
    assert meta["settings"]["learning_rate"] == 1e-4 and len(meta["trials"]) == 3
    assert arms_of(meta).labels == [
        "xent, learning_rate 0.0001", "xent, learning_rate 0.0003", "xent, learning_rate 3e-05",
    ]  # fmt: skip
    longer = TrainSettings(epochs=50)
    with pytest.raises(ValueError, match="epochs is 25 there, 50 now"):
        ledger.write_request(asked(longer, longer))


def test_arms_are_added_to_a_sweep_of_another_rate(tmp_path: Path) -> None:
    """The rows are then said by what differs from the folder's own settings."""
    ledger = Ledger(tmp_path)
    ledger.write_request(asked(FAST, FAST))
    ledger.write_request(asked(USUAL, USUAL, FAST))
    meta = read_meta(tmp_path)
    assert [row.get("settings") for row in meta["trials"]] == [None, {"learning_rate": 1e-4}]
    assert read_sweep(tmp_path).runs["status"].tolist() == ["missing", "missing"]
