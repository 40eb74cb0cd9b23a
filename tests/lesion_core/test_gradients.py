"""Gradient curves: autograd's are those of the paper's Appendix A, and every loss has one."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from lesion_core import results
from lesion_core.losses import LOSSES, TopK, loss_named, loss_to_dict
from lesion_core.losses.gradients import (
    PROBABILITIES,
    STATES,
    TypicalPatch,
    gradient_curve,
    gradient_rows,
)
from lesion_core.patches import Volumes
from lesion_core.settings import TrainSettings
from tests.support.closed_forms import Patch, gradient
from tests.support.toy import toy_cohort

PATCH = TypicalPatch(size=16, lesion_voxels=60)
VARIANTS = {
    name: loss_named(name)
    for name in (
        *(name for name in LOSSES if name != "topk"),
        "focal(alpha=patch,gamma=0.5)", "new(alpha=0.3,gamma=3.5)", "dsc(eps=5)",
        "tversky(alpha=0.1,beta=0.6,eps=2)", "gdsc(weights=inverse,reduction=batch)",
    )
}  # fmt: skip


@pytest.mark.parametrize("patch", [PATCH, TypicalPatch(size=32, lesion_voxels=500)])
@pytest.mark.parametrize("name", VARIANTS)
def test_curves_are_the_closed_forms(name, patch):
    rows = pd.DataFrame(gradient_curve(VARIANTS[name], patch))
    for (state, lesion), curve in rows.groupby(["state", "lesion"]):
        by_hand = gradient(
            loss_to_dict(VARIANTS[name]),
            curve["probability"].to_numpy(),
            lesion,
            Patch(patch.voxels, patch.lesion_voxels, *STATES[state]),
        )
        np.testing.assert_allclose(curve["gradient"], by_hand, rtol=2e-4, atol=1e-12)


def test_rows_are_as_results_says():
    rows = gradient_curve(LOSSES["new"], PATCH)
    results.table_bytes(rows, results.GRADIENTS)
    frame = pd.DataFrame(rows)
    assert {0.01, 0.5, 0.7, 0.99} <= set(PROBABILITIES)
    assert min(PROBABILITIES) >= 0.002 and max(PROBABILITIES) <= 0.998
    for lesion in (True, False):
        under_way = frame[(frame["state"] == "under way") & (frame["lesion"] == lesion)]
        assert under_way["probability"].tolist() == list(PROBABILITIES)
        untrained = frame[(frame["state"] == "untrained") & (frame["lesion"] == lesion)]
        assert untrained["probability"].tolist() == [0.5]
    assert set(frame["patch_voxels"]) == {16**3} and set(frame["lesion_voxels"]) == {60}


def own_loss(logits, target):
    """Neither voxel-wise nor an overlap: squared errors, and the squared error of the volume."""
    p = torch.sigmoid(logits)
    return ((p - target) ** 2).mean() + (p.mean() - target.mean()) ** 2


@pytest.mark.parametrize("loss", [TopK(fraction=0.03), TopK(fraction=0.4), own_loss])
def test_any_loss_agrees_with_finite_differences(loss):
    target = PATCH.target().double()
    voxels = {True: int(target.flatten().argmax()), False: int(target.flatten().argmin())}
    rows = [row for row in gradient_curve(loss, PATCH) if row["state"] == "under way"]
    p_lesion, p_background = STATES["under way"]
    rest = torch.logit(torch.where(target > 0, p_lesion, p_background).double())
    compared = 0
    for row in rows:
        p, voxel = row["probability"], voxels[row["lesion"]]
        if p == (p_lesion if row["lesion"] else p_background):
            continue  # ties: see below
        if row["lesion"] and p == 1 - p_background:
            continue  # as wrong as the background voxels
        values = []
        for step in (1e-4, -1e-4):
            logits = rest.clone()
            logits.view(-1)[voxel] = np.log(p / (1 - p)) + step
            values.append(loss(logits, target).item())
        expected = (values[0] - values[1]) / 2e-4
        assert row["gradient"] == pytest.approx(expected, rel=1e-3, abs=1e-10)
        compared += row["gradient"] != 0
    assert compared > len(rows) / 4


def test_alike_voxels_share_what_the_worst_ones_pull():
    """Of the 4036 alike background voxels, 163 or 164 are among the worst 5 %, whichever."""
    loss = TopK(fraction=0.0546875)  # 224 of 4096: all lesion voxels and 164 others
    rows = [row for row in gradient_curve(loss, PATCH) if row["state"] == "under way"]
    (found,) = [row for row in rows if not row["lesion"] and row["probability"] == 0.01]
    assert found["gradient"] == pytest.approx(164 / 4036 * 0.01 / 224, rel=1e-4)


OWN = """
def only_large(logits, target):
    if logits.shape[-1] < 32:
        raise RuntimeError("only\\nlarge patches")
    return logits.mean()

def infinite_at_one(logits, target):
    return logits.sum() / (len(logits) - 1)
"""


def test_a_loss_without_a_curve_is_told_of_and_left_out(tmp_path, monkeypatch):
    (tmp_path / "curveless_losses.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    names = ("curveless_losses:only_large", "xent", "curveless_losses:infinite_at_one")
    said = []
    rows = gradient_rows([loss_named(name) for name in names], PATCH, said.append)
    assert {row["loss"] for row in rows} == {"xent"}
    assert said == [
        "loss only_large has no gradient curve: RuntimeError: only large patches",
        "loss infinite_at_one has no gradient curve: it is not finite",
    ]


@pytest.mark.parametrize("size", [8, 16])
def test_patch_has_the_lesion_of_the_training_patches(size):
    cohort, settings = toy_cohort(3), TrainSettings(patch_size=size, filters=(8, 16))
    volumes = Volumes.of(cohort.images, patch_size=size, stride=settings.window_stride)
    _, lesion = volumes.gather(volumes.training_patches([0, 1, 2], flip=True))
    patch = TypicalPatch.of(cohort, settings)
    assert patch.lesion_voxels == round(lesion.flatten(1).sum(1).double().mean().item())
    assert patch.target().sum() == patch.lesion_voxels
    assert patch.target().shape == (1, 1, size, size, size)


def test_patch_of_a_cohort_without_lesion_has_one_voxel():
    cohort = toy_cohort(1)
    healthy = dataclasses.replace(cohort.images[0], labels=0 * cohort.images[0].labels)
    cohort = dataclasses.replace(cohort, images=[healthy])
    assert TypicalPatch.of(cohort, TrainSettings()).lesion_voxels == 1


def test_reading_curves(tmp_path):
    assert results.read_gradients(tmp_path).columns.tolist() == results.GRADIENTS.names
    assert results.read_gradients(tmp_path).empty
    rows = gradient_curve(LOSSES["dsc"], PATCH)
    file = tmp_path / results.GRADIENTS_FILE
    results.write_table(file, rows, results.GRADIENTS)
    assert results.read_gradients(tmp_path).to_dict("records") == rows
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"gradients\.parquet: cannot be read \([^\n]*\)$"):
        results.read_gradients(tmp_path)
