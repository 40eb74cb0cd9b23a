"""Rows of counts: complete, consistent, and honest about what lies outside the brain box."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lesion_core import results
from lesion_core.evaluate import chosen_counts, evaluate, image_counts, predict_volume
from lesion_core.losses import LOSSES
from lesion_core.metrics import components
from lesion_core.patches import Volumes
from lesion_core.pictures import slice_view
from lesion_core.settings import TrainSettings
from lesion_core.unet import UNet3d
from tests.support.toy import toy_cohort, toy_image

SETTINGS = TrainSettings(epochs=1, patch_size=16, batch_size=5, filters=(8, 16))


@pytest.fixture(scope="module")
def network():
    return UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def evaluated(network):
    images = toy_cohort().images
    volumes = Volumes.of(images, patch_size=16, stride=8)
    return images, evaluate(
        network, LOSSES["xent"], volumes, images, [1], SETTINGS, final=True
    )  # fmt: skip


def test_one_row_per_image_and_per_training_image_over_its_patches(evaluated):
    _, scores = evaluated
    keys = [(row["split"], row["scope"], row["case"]) for row in scores.cases]
    assert sorted(keys) == sorted(
        [("train", scope, case) for case in "023" for scope in ("image", "patch")]
        + [("test", "image", "1")]
    )
    assert all(row.keys() == set(results.CASES.names) for row in scores.cases)


def test_image_counts_equal_predict_volume(network, evaluated):
    images, scores = evaluated
    for image in images:
        probability = predict_volume(
            network, image.voxels, patch_size=16, stride=8, batch_size=3
        )  # another batching
        prediction = probability >= 0.5
        row = next(r for r in scores.cases if (r["scope"], r["case"]) == ("image", image.case))
        assert row["tp"] == (prediction & image.lesion).sum()
        assert row["fp"] == (prediction & ~image.lesion).sum()
        assert row["tp"] + row["fn"] == image.lesion.sum()
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == np.prod(image.shape)


@pytest.mark.parametrize("flip", [True, False])
def test_patch_scores_equal_a_plain_pass_over_the_training_patches(network, flip):
    images = toy_cohort(2).images
    settings = replace(SETTINGS, flip=flip)
    volumes = Volumes.of(images, patch_size=16, stride=8)
    rows = evaluate(network, LOSSES["dsc"], volumes, images, [1], settings).cases
    row = next(r for r in rows if r["scope"] == "patch")
    patches = volumes.training_patches([0], flip)
    inputs, target = volumes.gather(patches)
    with torch.no_grad():
        logits = network(inputs)
        expected = LOSSES["dsc"](logits, target.float())
    prediction = torch.sigmoid(logits) >= 0.5
    assert row["n_patch"] == len(patches)
    assert row["tp"] == (prediction & target).sum()
    assert row["fn"] == (~prediction & target).sum()
    assert row["loss_value"] == pytest.approx(float(expected), rel=1e-5)
    tp, fp, fn = (
        (a & b).flatten(1).sum(1).double()
        for a, b in ((prediction, target), (prediction, ~target), (~prediction, target))
    )
    assert row["patch_dice_sum"] == pytest.approx(float((2 * tp / (2 * tp + fp + fn)).sum()))
    assert row["patch_dice_n"] == len(patches)


def test_final_rows_agree_with_the_counts(evaluated):
    images, scores = evaluated
    row = next(r for r in scores.cases if r["split"] == "test")
    histogram = scores.histograms[0]
    assert sum(histogram["lesion"]) == images[1].lesion.sum()
    assert sum(histogram["lesion"][50:]) == row["tp"]
    assert sum(histogram["background"][50:]) == row["fp"]
    for side in ("ref", "pred"):
        lesions = [lesion for lesion in scores.lesions if lesion["side"] == side]
        assert len(lesions) == row[f"n_{side}"]
        assert sum(lesion["hit"] for lesion in lesions) == row[f"n_{side}_hit"]
        assert sum(lesion["overlap_voxels"] for lesion in lesions) == row["tp"]
    shown = slice_view(images[1].lesion, images[1])
    bits = np.unpackbits(np.frombuffer(scores.slices[0]["prediction"], np.uint8))
    assert bits.size >= shown.size


def test_lesion_outside_the_brain_box_is_missed_not_dropped():
    image = toy_image("a", 1)
    outside = replace(
        image,
        num_lesions=image.num_lesions + 1,
        lesion_outside_box=np.array([[0, 0, 0, image.num_lesions + 1]] * 5, dtype=np.int32),
    )
    perfect = image.lesion.astype(np.float32)
    inside, counted = image_counts(image, perfect), image_counts(outside, perfect)
    assert (inside["fn"], inside["n_ref"] - inside["n_ref_hit"]) == (0, 0)
    assert (counted["fn"], counted["n_ref"] - counted["n_ref_hit"]) == (5, 1)
    assert counted["tn"] == inside["tn"] - 5


def test_other_pathology_is_masked_in_the_masked_counts_alone():
    image = toy_image("a", 1, other=True)
    background = np.argwhere(~image.lesion)
    x, y, z = background[0]
    image.other[x, y, z] = True
    probability = image.lesion.astype(np.float32)
    probability[x, y, z] = 1.0
    counts = image_counts(image, probability)
    assert (counts["fp"], counts["fp_masked"], counts["fp_sure"]) == (1, 0, 1)
    assert counts["n_pred_masked"] <= counts["n_pred"]


def test_confidently_wrong_voxels():
    image = toy_image("a", 1)
    counts = image_counts(image, np.where(image.lesion, 0.05, 0.95).astype(np.float32))
    assert counts["fp_sure"] == counts["fp"] == (~image.lesion).sum()
    assert counts["fn_sure"] == counts["fn"] == image.lesion.sum()


def test_a_training_case_without_lesions_has_no_patches_and_no_loss(network):
    images = toy_cohort(3).images
    images[0] = replace(images[0], labels=images[0].labels * 0, num_lesions=0)
    volumes = Volumes.of(images, patch_size=16, stride=8)
    rows = evaluate(network, LOSSES["xent"], volumes, images, [2], SETTINGS).cases
    row = next(r for r in rows if (r["scope"], r["case"]) == ("patch", "0"))
    assert (row["n_patch"], row["patch_dice_n"], row["loss_value"]) == (0, 0, None)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_padding_never_counts_in_patch_scores(axis):
    """A perfect network on images smaller than a patch, by an odd number of voxels."""

    class Perfect(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return 100 * (x[:, 1:2] - 0.5) + self.bias

    images = toy_cohort(2).images
    for index, image in enumerate(images):
        cut = tuple(slice(0, 13) if a == axis else slice(None) for a in range(3))
        labels = np.zeros_like(image.labels[cut])
        labels[1, 2, 3] = labels[-1, -1, -1] = 1  # the last plane is where a shifted crop would err
        voxels = np.stack([labels, labels]).astype(np.float32)
        images[index] = replace(
            image, labels=labels, voxels=voxels, num_lesions=1, left_right_axis=axis,
            brain=image.brain[cut],
        )  # fmt: skip
    volumes = Volumes.of(images, patch_size=16, stride=8)
    rows = evaluate(Perfect(), LOSSES["xent"], volumes, images, [1], SETTINGS).cases
    row = next(r for r in rows if r["scope"] == "patch")
    assert row["patch_dice_sum"] == row["patch_dice_n"] == row["n_patch"] > 0
    assert (row["fp"], row["fn"]) == (0, 0)


def test_the_challenges_distance_masks_other_pathology(network):
    image = toy_image("a", 1, other=True)
    image.other[:] = ~image.lesion
    images = [toy_image("b", 2, other=True), image]
    volumes = Volumes.of(images, patch_size=16, stride=8)

    class Everything(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.bias.expand(len(x), 1, *x.shape[2:])

    rows = evaluate(
        Everything(), LOSSES["xent"], volumes, images, [1], SETTINGS, final=True
    ).cases  # fmt: skip
    row = next(r for r in rows if r["split"] == "test")
    assert row["wmh_h95_mm"] == 0
    assert row["hd95_mm"] > 0
    assert row["fp_masked"] == 0


def test_scores_as_chosen_stand_beside_the_plain_ones_and_change_none(tmp_path):
    """At another threshold, and without what is then smaller than so many mm3."""
    image = toy_image("0", 0)
    lesion = np.zeros(image.box_shape, bool)
    lesion[2:4, 2:4, 2:4] = True  # 8 voxels of 3 mm3
    labels, number = components(lesion)
    image = replace(
        image, labels=labels.astype(np.uint16), num_lesions=number,
        lesion_outside_box=np.array([[0, 0, 0, 2]], np.int32),
    )  # fmt: skip
    probability = np.where(lesion, 0.4, 0.0)
    probability[2, 2, 2] = 0.5
    probability[10, 10, 10:12] = 0.35  # two voxels, 6 mm3, diagonal to a third one
    probability[11, 11, 12] = 0.35
    probability[18, 18, 18] = 0.9  # 3 mm3

    def chosen(**values):
        return chosen_counts(image, probability, TrainSettings(**values))

    plain = image_counts(image, probability)
    same = chosen(min_lesion_mm3=0.001)
    assert {f"{key}_chosen": plain[key] for key in ("tp", "fp", "fn", "tn")} == {
        key: same[key] for key in ("tp_chosen", "fp_chosen", "fn_chosen", "tn_chosen")
    }
    assert (plain["tp"], plain["fp"], plain["fn"]) == (1, 1, 8)
    total = int(np.prod(image.shape))
    low = chosen(threshold=0.3)
    assert [low[f"{key}_chosen"] for key in ("tp", "fp", "fn")] == [8, 4, 1]
    assert low["tn_chosen"] == total - 13
    assert [low[f"n_{key}_chosen"] for key in ("pred", "ref_hit", "pred_hit")] == [3, 1, 1]
    assert chosen(threshold=0.3, min_lesion_mm3=3)["fp_chosen"] == 4  # what is as large stays
    assert chosen(threshold=0.3, min_lesion_mm3=3.1)["fp_chosen"] == 3
    assert chosen(threshold=0.3, min_lesion_mm3=9.1)["fp_chosen"] == 0
    assert chosen(threshold=0.3, min_lesion_mm3=100)["tp_chosen"] == 0

    rows = [dict.fromkeys(results.CASES.names) | {"trial": "a"}]
    wide = [dict.fromkeys(results.CASES_CHOSEN.names) | {"trial": "b"} | low]
    for name, content in (("a", rows), ("b", wide)):
        schema = results.cases_schema(content[0])
        results.write_table(tmp_path / name, content, schema)
    tables = [results._table_in(tmp_path / name, None, results.CASES) for name in "ab"]
    assert tables[0].schema.names == results.CASES.names
    both = results._concatenate_cases(tables)
    assert both["tp_chosen"].isna().tolist() == [True, False]
    assert both["tp_chosen"][1] == 8


def test_settings_that_only_score_change_names_and_refuse_what_cannot_be():
    assert TrainSettings(threshold=0.3).to_dict()["threshold"] == 0.3
    assert not TrainSettings().scores_as_chosen
    assert TrainSettings(min_lesion_mm3=3).scores_as_chosen
    for wrong in (
        {"threshold": 1.0}, {"threshold": 0.0}, {"threshold": float("nan")},
        {"min_lesion_mm3": -1.0}, {"min_lesion_mm3": float("inf")},
        {"background_windows": 1.0}, {"background_windows": -0.1}, {"augment": ""},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            TrainSettings(**wrong)
