"""What is in an ignored voxel moves nothing: no loss, no gradient, no weight, no score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lesion_core.cohorts import Folder
from lesion_core.evaluate import evaluate, image_counts
from lesion_core.images import Image, LoadedCohort, load_cohort
from lesion_core.losses import LOSSES, loss_named
from lesion_core.losses.gradients import TypicalPatch
from lesion_core.losses.ignoring import loss_of
from lesion_core.metrics import components
from lesion_core.patches import Volumes
from lesion_core.results import rates
from lesion_core.settings import TrainSettings
from lesion_core.training.epoch import train_epoch
from lesion_core.training.optimisers import optimiser_of
from lesion_core.training.randomness import generator
from lesion_core.training.step import WARM_UP, Step
from lesion_core.trial import Trial, run
from lesion_core.unet import UNet3d
from sweeps.data import Data
from tests.support.fake_graph import Tape, install
from tests.support.tiny import noise, one_lesion, save, write_case
from tests.support.toy import toy_cohort, toy_image

SETTINGS = TrainSettings(epochs=1, patch_size=16, batch_size=5, filters=(8, 16))


def ignoring(image: Image, ignore: np.ndarray) -> Image:
    """An image as it is read if these voxels of its box are to be ignored."""
    labels, number = components(image.lesion & ~ignore)
    other = None if image.other is None else image.other & ~ignore
    return replace(
        image, labels=labels.astype(np.uint16), num_lesions=number, ignore=ignore, other=other
    )


def slab(image: Image) -> np.ndarray:
    """A slab that holds and cuts lesions, and is not its own mirror image."""
    ignore = np.zeros(image.box_shape, dtype=bool)
    ignore[2:16, 1:14] = True
    assert (image.lesion & ignore).any()
    return ignore


# ------------------------------------------------------------------------------------------ losses
def naive(logits, target):
    """Cross-entropy as one would write it first; the logarithm of 0 would be infinite."""
    p = torch.sigmoid(logits)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


EVERY_LOSS = LOSSES | {
    "per patch": loss_named("new(alpha=patch,gamma=1.5)"),
    "per batch": loss_named("gdsc(reduction=batch)"),
    "no epsilon": loss_named("dsc(eps=0)"),
    "own": naive,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EVERY_LOSS)
def test_no_loss_sees_what_is_ignored(name, dtype):
    random = torch.Generator().manual_seed(3)
    shape = (3, 1, 4, 5, 6)
    target = (torch.rand(shape, generator=random) < 0.3).to(dtype)
    logits = 3 * torch.randn(shape, generator=random, dtype=dtype)
    ignored = torch.rand(shape, generator=random) < 0.4

    def value_and_gradient(logits, target):
        logits = logits.clone().requires_grad_()
        value = loss_of(EVERY_LOSS[name], logits, target, ignored)
        (gradient,) = torch.autograd.grad(value, logits)
        return value.detach(), gradient

    value, gradient = value_and_gradient(logits, target)
    assert torch.isfinite(value)
    assert gradient[~ignored].any()
    assert not gradient[ignored].any()
    for there in (-1e4, 0.0, 1e4, torch.inf, torch.nan):
        for label in (0, 1):
            changed = value_and_gradient(
                torch.where(ignored, there, logits), torch.where(ignored, label, target)
            )
            assert changed[0].equal(value)
            assert changed[1].equal(gradient)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_perfect_prediction_of_the_rest_costs_nothing(name):
    target = torch.zeros(1, 1, 4, 4, 4)
    target[..., :2] = 1
    ignored = torch.zeros_like(target, dtype=torch.bool)
    ignored[:, :, :2] = True
    wrong_there = torch.where(ignored, 30 * (1 - 2 * target), 30 * (2 * target - 1))
    assert loss_of(LOSSES[name], wrong_there, target, ignored) == pytest.approx(0, abs=1e-6)


def test_without_ignored_voxels_a_loss_is_called_as_it_is():
    called = []
    logits, target = torch.zeros(1), torch.ones(1)
    loss_of(lambda *given: called.append(given) or given[0], logits, target)
    assert called[0][0] is logits
    assert called[0][1] is target


# ---------------------------------------------------------------------------------------- training
def test_ignored_voxels_are_cut_and_mirrored_as_the_image_is():
    image = toy_image("a", 1)
    marked = ignoring(image, slab(image))
    assert marked.ignore is not None
    shown = replace(marked, voxels=np.stack([marked.ignore, marked.lesion]).astype(np.float32))
    volumes = Volumes.of([shown, toy_image("b", 2)], patch_size=16, stride=8)
    patches = volumes.training_patches([0, 1], flip=True)
    inputs, target = volumes.gather(patches)
    ignored = volumes.ignored(patches)
    assert ignored is not None
    first = patches.image == 0
    assert ignored[first].float().equal(inputs[first][:, :1])
    assert not ignored[~first].any()
    assert not (ignored & target).any()


def test_a_cohort_without_ignored_voxels_takes_no_extra_step():
    images = toy_cohort(2).images
    images[0] = replace(images[0], ignore=np.zeros(images[0].box_shape, dtype=bool))
    volumes = Volumes.of(images, patch_size=16, stride=8)
    assert volumes.ignored(volumes.windows(0)) is None


def test_windows_whose_lesions_are_all_ignored_are_not_trained_on():
    image = toy_image("a", 1)
    volumes = Volumes.of([ignoring(image, image.lesion.copy())], patch_size=16, stride=8)
    assert len(volumes.training_patches([0], flip=False)) == 0


def test_a_recorded_step_leaves_ignored_voxels_out_as_an_unrecorded_one(monkeypatch):
    install(monkeypatch)
    images = [ignoring(image, slab(image)) for image in toy_cohort(2).images]

    def trained(device: str) -> torch.Tensor:
        volumes = Volumes.of(images, patch_size=8, stride=4)
        volumes.device = torch.device(device)
        network = UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4))
        optimiser = torch.optim.Adam(network.parameters(), capturable=True, foreach=False)
        step = Step(network, optimiser, LOSSES["dsc"], volumes, batch_size=2, precision="fp32")
        patches = volumes.training_patches([0, 1], flip=True)[:12]
        train_epoch(step, patches, epoch=1, shuffle=generator(0, 0, 1, "order"))
        return torch.nn.utils.parameters_to_vector(network.parameters()).detach()

    found = trained("cuda")
    assert Tape.num_replays == 6 - WARM_UP
    assert found.equal(trained("cpu"))


def test_a_training_step_has_no_gradient_from_ignored_voxels():
    """All there is of a batch, but a single voxel, is ignored: only that voxel's error counts."""
    image = toy_image("a", 1)
    ignore = np.ones(image.box_shape, dtype=bool)
    ignore[tuple(np.argwhere(image.lesion)[0])] = False
    volumes = Volumes.of([ignoring(image, ignore)], patch_size=16, stride=8)
    network = UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4))
    step = Step(
        network, optimiser_of(network, TrainSettings(learning_rate=1e-3)), LOSSES["xent"], volumes,
        batch_size=1, precision="fp32",
    )  # fmt: skip
    patches = volumes.training_patches([0], flip=False)[:1]
    with torch.no_grad():
        inputs, target = volumes.gather(patches)
        expected = -torch.nn.functional.logsigmoid(network(inputs)[target]).sum() / target.numel()
    assert target.sum() == 1
    assert float(step(patches)[0]) == pytest.approx(float(expected), rel=1e-5)


def write_cohort(data: Path, seed: int) -> LoadedCohort:
    """Three cases that differ by ``seed`` in what is marked where it is ignored, and in no more."""
    shape = (20, 18, 17)
    for number in range(3):
        lesion = toy_image("", number, shape).lesion
        ignore = np.zeros(shape, dtype=bool)
        ignore[4:11, 3:9] = True
        lesion[ignore] = np.random.default_rng((seed, number)).random(ignore.sum()) < 0.3
        folder = write_case(
            data / "mine" / str(number), {"t1": noise(number, shape)}, lesion=lesion
        )
        save(folder / "ignore.nii.gz", ignore)
    return load_cohort(Folder(name="mine", channels=("t1",)), data)


def test_what_is_marked_in_ignored_voxels_moves_no_bit_of_a_trial(tmp_path):
    reports = []
    for seed in (1, 2):
        cohort = write_cohort(tmp_path / str(seed), seed)
        trial = Trial(
            cohort="mine", fingerprint="same", loss=LOSSES["topk"], seed=1, fold=0, num_folds=3,
            settings=SETTINGS,
        )  # fmt: skip
        found = []
        run(trial, replace(cohort, fingerprint="same"), on_epoch=found.append)
        assert found[-1].epochs["n_patches"] > 0
        reports.append(found)
    for one, other in zip(*reports, strict=True):
        assert one.cases == other.cases or str(one.cases) == str(other.cases)  # NaN of a distance
        assert one.epochs["train_loss"] == other.epochs["train_loss"]
        assert one.epochs["grad_norm"] == other.epochs["grad_norm"]
        assert one.checkpoint == other.checkpoint
    first, second = (found[-1].final for found in reports)
    assert (first.histograms, first.lesions, first.slices, first.model) == (
        second.histograms, second.lesions, second.slices, second.model,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ scores
class Fixed(torch.nn.Module):
    """A network whose logits are the first channel."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x[:, :1] + self.bias


def scored(images: list[Image], probability_there: float):
    """Predicted perfectly but in ignored voxels, where it is the given one."""
    shown = []
    for image in images:
        assert image.ignore is not None
        logits = np.where(image.lesion, 30, -30).astype(np.float32)
        logits[image.ignore] = torch.logit(torch.tensor(probability_there)).item()
        shown.append(replace(image, voxels=np.stack([logits, logits])))
    volumes = Volumes.of(shown, patch_size=16, stride=8)
    return evaluate(Fixed(), LOSSES["mixed"], volumes, shown, [1], SETTINGS, final=True)


@pytest.mark.parametrize("other", [False, True])
def test_a_perfect_prediction_is_perfect_whatever_is_predicted_where_it_is_ignored(other):
    images = [ignoring(image, slab(image)) for image in toy_cohort(2).images]
    if other:
        pathology = np.zeros(images[0].box_shape, dtype=bool)
        pathology[-3:] = True
        images = [
            replace(image, other=pathology & image.background, num_with_other=1) for image in images
        ]
    found = scored(images, 0.5)
    for row in found.cases:
        assert (row["fp"], row["fn"], row["fp_sure"], row["fn_sure"]) == (0, 0, 0, 0)
        assert row["fp_masked"] == 0
    (test,) = (row for row in found.cases if row["split"] == "test")
    image = images[1]
    assert image.ignore is not None
    assert test["tp"] == image.lesion_voxels
    assert test["tp"] + test["tn"] == np.prod(image.shape) - image.ignore.sum()
    assert test["n_ref"] == test["n_pred"] == test["n_ref_hit"] == test["n_pred_hit"]
    assert test["n_pred_masked"] == test["n_pred"]
    assert (test["hd95_mm"], test["nsd"], test["wmh_h95_mm"]) == (0, 1, 0)
    (patch,) = (row for row in found.cases if row["scope"] == "patch")
    assert patch["patch_dice_sum"] == patch["patch_dice_n"] == patch["n_patch"] > 0
    assert patch["loss_value"] == pytest.approx(0, abs=1e-6)
    assert patch["tp"] + patch["tn"] < patch["n_patch"] * 16**3
    (histogram,) = found.histograms
    assert sum(histogram["lesion"]) + sum(histogram["background"]) == (~image.ignore).sum()
    assert all(lesion["hit"] for lesion in found.lesions)
    for probability in (1e-9, 0.7, 0.999):
        assert scored(images, probability) == found


def test_scores_and_other_pathology_apart_from_ignored_voxels_are_counted_by_hand():
    """In a row of eight: lesion, miss, false, other predicted, two ignored, background twice."""
    image = toy_image("a", 1, shape=(8, 1, 1), origin=(0, 0, 0), other=True)
    lesion, other, ignore, predicted = (
        np.array([int(digit) for digit in row], dtype=bool).reshape(8, 1, 1)
        for row in ("11000000", "00010000", "00001100", "10111000")
    )
    image = replace(
        image, labels=lesion.astype(np.uint16), num_lesions=1, other=other, ignore=ignore,
        shape=(9, 1, 1), ignore_outside_box=1,
    )  # fmt: skip
    counts = image_counts(image, np.where(predicted, 0.95, 0.05).astype(np.float32))
    assert {name: counts[name] for name in ("tp", "fp", "fn", "tn", "fp_masked")} == {
        "tp": 1, "fp": 2, "fn": 1, "tn": 2, "fp_masked": 1,
    }  # fmt: skip
    assert (counts["fp_sure"], counts["fn_sure"]) == (2, 1)
    assert (counts["n_pred"], counts["n_pred_masked"], counts["n_pred_hit"]) == (2, 2, 1)
    assert rates_of(counts) == pytest.approx([2 / 5, 1 / 2, 1 / 3])


def rates_of(counts) -> list[float]:
    import pandas as pd

    return rates(pd.DataFrame([counts])).iloc[0].tolist()


def test_a_typical_patch_holds_no_ignored_lesion():
    cohort = toy_cohort(1)
    (image,) = cohort.images
    less = replace(cohort, images=[ignoring(image, slab(image))])
    sizes = [TypicalPatch.of(one, SETTINGS).lesion_voxels for one in (cohort, less)]
    assert sizes[1] < sizes[0]


def test_a_sweep_of_a_cohort_whose_lesions_are_all_ignored_is_refused(tmp_path):
    for case in "ab":
        folder = write_case(tmp_path / "mine" / case, ("t1",))
        save(folder / "ignore.nii.gz", one_lesion())
    data = Data.of(Folder(name="mine", channels=("t1",)), tmp_path)
    with pytest.raises(ValueError, match=r"mine: no case has a lesion voxel that is not to be ign"):
        data.load()
