"""The numbers that W&B hears: against plain arithmetic, with nothing undefined counted as 0."""

import math

import numpy as np
import pandas as pd
import pytest

from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.tracking import scalars


def case(case="a", site="here", **changes):
    row = {"epoch": 3, "split": "test", "scope": "image", "case": case, "site": site, "fold": 2}
    row |= {"tp": 1, "fp": 1, "fn": 0, "tn": 7, "voxel_mm3": 1.0, "n_ref": 2, "n_pred": 1}
    row |= {"n_ref_hit": 1, "n_pred_hit": 1, "hd95_mm": None, "nsd": None, "wmh_h95_mm": None}
    return row | changes


EMPTY = {"tp": 0, "fp": 0, "fn": 0, "n_ref": 0, "n_pred": 0, "n_ref_hit": 0, "n_pred_hit": 0}


def numbers(*cases, last_epoch=9, **training):
    return scalars.by_epoch(list(cases), [{"epoch": 3, **training}], last_epoch)[3]


def test_what_is_undefined_is_counted_and_left_out_of_the_mean():
    found = numbers(case("a"), case("b", **EMPTY), case("c", tp=0, fp=2, n_ref=0, n_ref_hit=0))
    assert found["test/image/dice"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["test/image/dice_cases"] == 2
    assert (found["test/image/sensitivity"], found["test/image/sensitivity_cases"]) == (1.0, 1)
    assert (found["test/image/lesion_recall"], found["test/image/lesion_recall_cases"]) == (0.5, 1)


def test_a_mean_over_nothing_is_no_number_at_all():
    found = numbers(case(**EMPTY))
    for metric in (*scalars.VOXEL_METRICS, *scalars.LESION_METRICS):
        assert f"test/image/{metric}" not in found
        assert found[f"test/image/{metric}_cases"] == 0
    assert "fold/2/dice" not in found
    assert all(math.isfinite(value) for value in found.values())


def test_lesions_are_counted_and_their_f1_is_the_papers():
    found = numbers(case("a", n_ref=4, n_ref_hit=3, n_pred=2, n_pred_hit=1), case("b"))
    assert found["test/image/lesions"] == 6 and found["test/image/lesions_found"] == 4
    assert found["test/image/lesions_predicted"] == 3
    f1 = [2 * 0.75 * 0.5 / 1.25, 2 * 0.5 * 1 / 1.5]
    assert found["test/image/lesion_f1"] == pytest.approx(np.mean(f1))


def test_sites_are_told_apart_only_where_there_are_several():
    one = numbers(case("a"), case("b"))
    assert not [key for key in one if "/site/" in key]
    two = numbers(case("a"), case("b", site="there", tp=0, fn=1))
    assert two["test/image/site/here/dice"] == pytest.approx(2 / 3)
    assert two["test/image/site/there/dice"] == 0.0
    assert two["test/image/site/there/dice_cases"] == 1


def test_patches_are_averaged_over_patches_not_cases():
    patch = {"scope": "patch", "split": "train", "n_ref": None, "n_pred": None}
    patch |= {"n_ref_hit": None, "n_pred_hit": None}

    def sums(total, number):
        return {f"patch_{m}_{k}": v for m in scalars.VOXEL_METRICS
                for k, v in (("sum", total), ("n", number))}  # fmt: skip

    found = numbers(
        case("a", **patch, **sums(3.0, 4), loss_value=1.0),
        case("b", **patch, **sums(0.5, 1), loss_value=3.0),
        case("c", **patch, **sums(0.0, 0), loss_value=None),
    )
    assert found["train/patch/dice"] == pytest.approx(3.5 / 5)
    assert found["train/patch/dice_patches"] == 5
    assert (found["train/patch/loss"], found["train/patch/loss_cases"]) == (2.0, 2)
    broken = numbers(case("a", **patch, **sums(float("nan"), 4)))
    assert "train/patch/dice" not in broken and broken["train/patch/dice_patches"] == 4


def test_surface_distances_are_of_the_last_epochs_held_out_images():
    found = numbers(case("a", hd95_mm=2.0), case("b", hd95_mm=float("nan")), last_epoch=3)
    assert (found["test/image/hd95_mm"], found["test/image/hd95_mm_cases"]) == (2.0, 1)
    assert found["test/image/nsd_cases"] == 0 and "test/image/nsd" not in found
    assert not [key for key in numbers(case("a")) if "hd95" in key]
    validated = numbers(case("a", split="validation", hd95_mm=3.0), last_epoch=3)
    assert validated["validation/image/hd95_mm"] == 3.0
    assert validated["fold/2/dice"] == validated["validation/image/dice"]
    training = numbers(case("a", split="train"), last_epoch=3)
    assert not [key for key in training if "hd95" in key]


def test_an_untrained_network_has_no_loss_and_no_gradient():
    found = numbers(case(), train_loss=None, grad_norm=None, n_batches=0, seconds_evaluate=2.0)
    assert "train_loss" not in found and "grad_norm" not in found
    assert (found["epoch"], found["batches"], found["seconds/evaluate"]) == (3, 0, 2.0)


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep")
    FakeSweep(
        num_cases=6, epochs=2, losses=("xent",), seeds=(1,), num_folds=1, empty_cases=1
    ).write(path)
    (folder,) = path.glob("trials/*")
    return [pd.read_parquet(folder / f"{name}.parquet") for name in ("cases", "epochs")]


def test_live_epoch_by_epoch_equals_rebuilt_all_at_once(trial):
    """Rows as a trial reports them (None) and as a table gives them back (NaN)."""
    cases, epochs = trial
    rows = epochs.to_dict("records")
    whole = scalars.by_epoch(cases, rows, 2)
    assert sorted(whole) == [0, 1, 2]
    for epoch in whole:
        some = cases[cases.epoch == epoch]
        plain = some.astype(object).where(some.notna(), None).to_dict("records")
        assert scalars.by_epoch(plain, rows[epoch : epoch + 1], 2)[epoch] == whole[epoch]


def test_the_numbers_are_the_reports(trial):
    cases, _ = trial
    last = cases.query("epoch == 2 and split == 'test' and scope == 'image'")
    found = scalars.by_epoch(cases, [], 2)[2]
    for metric, mean in results.rates(last).mean().items():
        assert found[f"test/image/{metric}"] == pytest.approx(mean)
        assert found[f"fold/0/{metric}"] == found[f"test/image/{metric}"]


def test_the_table_has_a_row_per_image_and_none_for_what_is_undefined(trial):
    cases, _ = trial
    rows = scalars.case_table(cases, case_name=str.upper)
    named = [dict(zip(scalars.TABLE_COLUMNS, row, strict=True)) for row in rows]
    assert len(named) == 6 and all(row["case"].startswith("CASE") for row in named)
    (empty,) = [row for row in named if row["n_ref"] == 0]
    assert empty["sensitivity"] is None and isinstance(empty["tp"], int)
    assert not [value for row in rows for value in row if value != value]
