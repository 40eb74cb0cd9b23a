"""Augmentation moves masks with images, draws what the cell decides, and else changes no bit."""

from __future__ import annotations

import contextlib
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from lesion_core.augment import (
    AUGMENTATIONS,
    Augmented,
    Augmenter,
    augmentation_label,
    augmentation_named,
    intensity,
)
from lesion_core.augment.kinds import Standard
from lesion_core.augment.spatial import lookups
from lesion_core.losses import LOSSES, PAPER_LOSSES
from lesion_core.losses.ignoring import loss_of
from lesion_core.patches import Patches, Volumes
from lesion_core.settings import TrainSettings
from lesion_core.stopping import TrainingStopped
from lesion_core.training.epoch import train_epoch
from lesion_core.training.randomness import generator
from lesion_core.training.step import WARM_UP, Step
from lesion_core.trial import Trial, run
from lesion_core.unet import UNet3d
from tests.support.fake_graph import Tape, install
from tests.support.toy import toy_cohort

SHAPE, SIZE = (24, 22, 20), 8
NOTHING = Standard(**{field: 0 for field in Standard.__dataclass_fields__ if field.endswith("_p")})
EVERYTHING = Standard(
    **{field: 1 for field in Standard.__dataclass_fields__ if field.endswith("_p")}
)


def smooth_image(seed: int = 0) -> np.ndarray:
    field = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    return ndimage.gaussian_filter(field, (0, 2, 2, 2)).astype(np.float32) * 10


@cache
def volumes(spacing=(1.0, 1.0, 1.0), axis: int = 0) -> Volumes:
    """One image: lesion where the first channel is high, ignored where the second is."""
    image = smooth_image()
    return Volumes(
        [image], [image[0] > 1], [axis],
        patch_size=SIZE, stride=4, ignored=[image[1] > 1.5], spacing_mm=[spacing],
    )  # fmt: skip


def at(*starts: tuple[int, int, int], flip: bool = False) -> Patches:
    number = len(starts)
    return Patches(
        torch.zeros(number, dtype=torch.long),
        torch.tensor(starts),
        torch.full((number,), flip),
    )


def turned(
    patches: Patches, degrees=(0.0, 0.0, 0.0), zoom: float = 1.0, cut: Volumes | None = None
):
    number = len(patches)
    matrix = lookups(torch.tensor([degrees] * number), torch.full((number,), zoom))
    return (cut or volumes()).turned(patches, matrix)


MIDDLE = at((8, 7, 6), (4, 8, 10))


# ----------------------------------------------------------------------------------------- in space
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("device", ["cpu", "as on a gpu"])
def test_not_turned_is_not_changed(flip: bool, device: str) -> None:
    cut, patches = volumes(), at((8, 7, 6), (0, 0, 0), (16, 14, 12), flip=flip)
    eye = torch.eye(3).repeat(3, 1, 1)
    found = cut.turned(patches, eye) if device == "cpu" else cut._turned_in_parts(patches, eye)
    images, lesion = cut.gather(patches)
    ignored = cut.ignored(patches)
    assert ignored is not None and found[2] is not None
    assert found[0].equal(images) and found[1].equal(lesion) and found[2].equal(ignored)
    assert found[3].all()


@pytest.mark.parametrize("axis", range(3))
def test_a_quarter_turn_is_rot90(axis: int) -> None:
    degrees = [0.0, 0.0, 0.0]
    degrees[axis] = 90
    images, lesion, ignored, inside = turned(MIDDLE, tuple(degrees))
    plane = [other + 2 for other in range(3) if other != axis]
    straight, mask = volumes().gather(MIDDLE)
    assert inside.all() and ignored is not None
    torch.testing.assert_close(images, straight.rot90(-1, plane), atol=1e-4, rtol=1e-5)
    assert lesion.equal(mask.rot90(-1, plane))
    assert ignored.equal(volumes().ignored(MIDDLE).rot90(-1, plane))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.8, 3.0)])
@pytest.mark.parametrize("start", [(8, 7, 6), (0, 14, 12)])
def test_turned_images_are_scipys(spacing, start) -> None:
    """From beyond the patch come the image's voxels, and 0 from beyond the image."""
    patches, degrees, zoom = at(start), (10.0, -20.0, 30.0), 1.2
    images, lesion, _, inside = turned(patches, degrees, zoom, volumes(spacing))
    a, b, c = np.deg2rad(degrees)
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    in_mm = np.array(about_z) @ about_y @ about_x / zoom
    matrix = np.diag(1 / np.array(spacing)) @ in_mm @ np.diag(spacing)
    middle = (SIZE - 1) / 2
    offset = np.array(start) + middle - matrix @ np.full(3, middle)

    def expected(array: np.ndarray, order: int) -> np.ndarray:
        return ndimage.affine_transform(
            array, matrix, offset, (SIZE, SIZE, SIZE), order=order, mode="grid-constant"
        )

    for channel, image in enumerate(smooth_image()):
        np.testing.assert_allclose(images[0, channel], expected(image, 1), atol=2e-4)
    there = expected(np.ones(SHAPE, np.float32), 0) > 0
    assert (inside[0, 0].numpy() != there).mean() < 0.01  # halves may be rounded either way
    mask = expected((smooth_image()[0] > 1).astype(np.float32), 0) > 0
    assert (lesion[0, 0].numpy() != mask).mean() < 0.01


def test_a_turn_is_in_mm_and_keeps_lengths() -> None:
    """A point 6 mm along the third axis, 2 voxels of 3 mm, comes to lie 6 voxels of 1 mm away."""
    image, mask = np.zeros((1, *SHAPE), np.float32), np.zeros(SHAPE, bool)
    mask[11, 11, 12] = True
    cut = Volumes([image], [mask], [0], patch_size=SIZE * 2 - 1, stride=4, spacing_mm=[(1, 1, 3)])
    patches = at((4, 4, 3))  # its middle is the voxel 11 11 10
    straight = torch.nonzero(cut.gather(patches)[1][0, 0])
    assert straight.tolist() == [[7, 7, 9]]
    _, lesion, _, _ = turned(patches, (0.0, 90.0, 0.0), cut=cut)
    away = {(abs(x - 7), y, z) for x, y, z in torch.nonzero(lesion[0, 0]).tolist()}
    assert (6, 7, 7) in away and {y for _, y, _ in away} == {7}


@pytest.mark.parametrize("name", ["flip(p=1)", "standard"])
def test_a_labelled_landmark_stays_on_its_image(name: str) -> None:
    """Lesion is where the first channel is high: where masks and images part, it is not."""
    augmentation = augmentation_named(name)
    if name == "standard":
        only = {f: 0 for f in Standard.__dataclass_fields__ if f.endswith("_p")}
        augmentation = Standard(**(only | {"flip_p": 0.5, "rotation_p": 1, "zoom_p": 1}))
    patches = volumes().training_patches([0], flip=True)[:64]
    batch = augmenter(augmentation)(patches, 0)
    images, lesion, ignored = batch.cut(volumes())
    for mask, channel, level in ((lesion, 0, 1.0), (ignored, 1, 1.5)):
        values = images[:, channel : channel + 1]
        assert mask.any() and (values[mask] > level - 1).all()
        assert not mask[values < level - 1].any()
        wrong = mask != (values > level)
        assert wrong.float().mean() < 0.05


def test_flips_are_exact_and_along_each_images_axis() -> None:
    flip = augmentation_named("flip(p=1)")
    for axis in range(3):
        cut = volumes(axis=axis)
        images, lesion, ignored = augmenter(flip)(MIDDLE, 0).cut(cut)
        straight, mask = cut.gather(MIDDLE)
        assert images.equal(straight.flip(axis + 2)) and lesion.equal(mask.flip(axis + 2))
        assert ignored is not None and ignored.equal(cut.ignored(MIDDLE).flip(axis + 2))
    half = augmenter(augmentation_named("flip"))(at(*[(0, 0, 0)] * 1000), 0)
    assert 430 < int(half.drawn["flip"].sum()) < 570


# ---------------------------------------------------------------------------------------- intensity
def augmenter(augmentation, **where: int) -> Augmenter:
    known = {"seed": 1, "fold": 0, "epoch": 1} | where
    return Augmenter(augmentation=augmentation, channels=2, patch_size=SIZE, **known)


@pytest.fixture(params=["cpu", "as on a gpu"])
def device(request, monkeypatch) -> str:
    if request.param != "cpu":
        monkeypatch.setattr(intensity, "_may_choose", lambda images: False)
    return request.param


@pytest.mark.usefixtures("device")
def test_what_does_nothing_changes_no_bit() -> None:
    patches = volumes().training_patches([0], flip=True)[:16]
    expected = patches.cut(volumes())
    found = augmenter(NOTHING)(patches, 0).cut(volumes())
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


@pytest.mark.usefixtures("device")
def test_each_transform_is_its_formula() -> None:
    images = torch.from_numpy(smooth_image()[:, :8, :8, :8].copy())[None].repeat(2, 1, 1, 1, 1)
    one = torch.tensor([[1.0, 1.0], [1.0, 1.3]])  # the second channel of the second patch
    plane = images[1, 1]

    def check(found: torch.Tensor, expected: torch.Tensor, **tolerance: float) -> None:
        assert found[0].equal(images[0]) and found[1, 0].equal(images[1, 0])
        torch.testing.assert_close(found[1, 1], expected, **tolerance)

    check(intensity.scaled(images.clone(), one), plane * 1.3)
    check(intensity.shifted(images.clone(), one - 1), plane + 0.3, atol=1e-6, rtol=1e-5)
    spread = (plane - plane.mean()) * 1.3 + plane.mean()
    check(intensity.contrasted(images.clone(), one), spread.clamp(plane.min(), plane.max()))
    part = ((plane - plane.min()) / (plane.max() - plane.min())) ** 1.3
    kept = (part - part.mean()) / part.std(correction=0) * plane.std(correction=0) + plane.mean()
    check(intensity.gamma_of(images.clone(), one), kept, atol=1e-4, rtol=1e-4)
    inverted = -intensity.gamma_of(-images, one)[1, 1]
    check(intensity.gamma_of(images.clone(), one, inverted=True), inverted, atol=1e-4, rtol=1e-4)
    blur = torch.eye(8).repeat(2, 2, 1, 1)
    blur[1, 1] = intensity.blur_matrices(torch.tensor([0.8]), 8)[0]
    theirs = ndimage.gaussian_filter(plane.numpy(), 0.8, mode="nearest", truncate=8)
    found = intensity.smoothed(images.clone(), blur, one > 1)
    assert found[0].equal(images[0]) and found[1, 0].equal(images[1, 0])
    inner = (slice(3, 5),) * 3  # far from the patch's ends
    np.testing.assert_allclose(found[1, 1][inner], theirs[inner], atol=2e-3)
    noisy = intensity.with_noise(images.clone(), one - 1, torch.arange(4).view(2, 2))
    noise = intensity.normals(torch.tensor([3]).view(1, 1, 1, 1), 512).view(8, 8, 8)
    check(noisy, plane + (one[1, 1] - 1) * noise)


def test_smoothing_keeps_what_is_constant_and_low_resolution_what_is_linear() -> None:
    for matrix in (
        *intensity.blur_matrices(torch.tensor([0.5, 1.0]), 32),
        *(intensity.low_resolution_matrix(coarse, 32) for coarse in (16, 21, 32)),
    ):
        torch.testing.assert_close(matrix.sum(1), torch.ones(32))
    assert intensity.low_resolution_matrix(32, 32).equal(torch.eye(32))
    kept = intensity.low_resolution_matrix(16, 32).sum(0)
    assert int((kept > 0).sum()) == 16


def test_noise_is_normal_and_independent() -> None:
    numbers = intensity.normals(torch.arange(4).view(-1, 1, 1, 1), 2**16).double()
    assert numbers.mean(1).abs().max() < 4 / 2**8
    assert (numbers.var(1) - 1).abs().max() < 4 * 2**0.5 / 2**8
    assert ((numbers**4).mean(1) - 3).abs().max() < 4 * 96**0.5 / 2**8
    lagged = torch.cat([numbers, numbers.roll(1, 1), numbers.roll(8, 1), numbers.roll(64, 1)])
    correlations = torch.corrcoef(lagged) - torch.eye(len(lagged))
    assert correlations.abs().max() < 5 / 2**8
    assert numbers.isfinite().all()


def test_padding_stays_what_the_network_sees_there() -> None:
    small = smooth_image()[:, :5, :12, :12] + 3
    cut = Volumes([small], [small[0] > 1], [0], patch_size=SIZE, stride=4)
    patches = at((0, 2, 2))
    images, _ = cut.gather(patches)
    changed = augmenter(Standard(shift_p=1, shift_sd=9.0, brightness_p=1, rotation_p=0, zoom_p=0))
    found, lesion, _ = changed(patches, 0).cut(cut)
    padding = torch.ones(SIZE, dtype=torch.bool)
    padding[cut.grids[0].inside[0]] = False
    assert padding.sum() == 3
    assert (found[0, :, padding] == 0).all() and (images[0, :, padding] == 0).all()
    assert not lesion[0, 0, padding].any()
    assert (found[0, :, ~padding] != images[0, :, ~padding]).any()


# ----------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("name", PAPER_LOSSES)
def test_a_batch_without_lesion_is_a_batch(name: str) -> None:
    logits = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    for target in (torch.zeros_like(logits), (logits > 9).float()):
        leaf = logits.clone().requires_grad_()
        value = loss_of(LOSSES[name], leaf, target)
        value.backward()
        assert value.isfinite() and leaf.grad is not None and leaf.grad.isfinite().all()


def test_draws_are_a_cells_alone() -> None:
    patches = volumes().training_patches([0], flip=True)[:8]

    def drawn(**where: int) -> list[torch.Tensor]:
        number = where.pop("number", 0)
        return list(augmenter(EVERYTHING, **where)(patches, number).drawn.values())

    same = zip(drawn(), drawn(), strict=True)
    assert all(a.equal(b) for a, b in same)
    for other in ({"seed": 2}, {"fold": 1}, {"epoch": 2}, {"number": 1}):
        assert not all(a.equal(b) for a, b in zip(drawn(), drawn(**other), strict=True))


def trained(loss: str = "xent", stop_after: int | None = None, **settings):
    """Two epochs of a tiny trial; stopped after so many batches, and gone on with."""
    made = TrainSettings(
        epochs=9, batch_size=8, patch_size=8, filters=(8, 16), learning_rate=1e-3, **settings
    )
    trial = Trial(
        cohort="toy", fingerprint="f" * 64, loss=LOSSES[loss], seed=3, fold=0, num_folds=2,
        settings=made,
    )  # fmt: skip
    reports, asked = [], 0

    def stop() -> bool:
        nonlocal asked
        asked += bool(reports)  # not while the untrained network is evaluated
        return stop_after is not None and asked > stop_after

    def on_epoch(report) -> None:
        reports.append(report)
        if report.epoch == 2:
            raise Enough  # the last epoch loads MONAI

    cohort = toy_cohort(2)
    with contextlib.suppress(Enough):
        try:
            run(trial, cohort, on_epoch=on_epoch, stop=stop)
        except TrainingStopped as stopped:
            assert stopped.batches == stop_after
            run(trial, cohort, checkpoint=stopped.checkpoint, on_epoch=on_epoch)
    return reports


class Enough(Exception):
    pass


def told(reports) -> list:
    keep = ("train_loss", "grad_norm", "n_batches", "n_patches")
    return [
        ([row["tp"] for row in report.cases], [report.epochs[key] for key in keep])
        for report in reports
    ]


STANDARD = {"augment": "standard", "background_windows": 0.25, "stride": 4}


def test_a_training_that_stops_within_an_epoch_goes_on_to_the_same_bits() -> None:
    whole = trained(**STANDARD)
    assert told(trained(stop_after=3, **STANDARD)) == told(whole)
    plain = trained(stride=4)
    assert told(plain) != told(whole)


def test_all_losses_of_a_cell_see_the_same_batches(monkeypatch) -> None:
    seen: dict[str, list] = {}
    cut = Augmented.cut

    def spy(self, volumes):
        found = cut(self, volumes)
        seen[name].append(found[0].clone())
        return found

    monkeypatch.setattr(Augmented, "cut", spy)
    for name in ("xent", "dsc"):
        seen[name] = []
        trained(name, **STANDARD)
    assert len(seen["xent"]) > 8
    assert all(a.equal(b) for a, b in zip(seen["xent"], seen["dsc"], strict=True))


def test_replayed_steps_of_augmented_batches_give_the_bits_of_launched_ones(monkeypatch) -> None:
    """On the stand-in for a GPU: draws go into the recording's memory before each replay."""
    install(monkeypatch)
    monkeypatch.setattr(intensity, "_may_choose", lambda images: False)

    def weights(device: str) -> tuple[list, torch.Tensor]:
        cut = Volumes.of(toy_cohort(2).images, patch_size=SIZE, stride=4)
        patches = cut.training_patches([0, 1], flip=True)[:43]
        cut.device = torch.device(device)
        network = UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4))
        optimiser = torch.optim.Adam(network.parameters(), capturable=True, foreach=False)
        step = Step(network, optimiser, LOSSES["new"], cut, batch_size=4, precision="fp32")
        found: list[torch.Tensor] = []
        train_epoch(
            step, patches, epoch=1, shuffle=generator(0, 0, 1, "order"), found=found,
            augmented=augmenter(Standard(noise_p=0.5, blur_p=0.5, rotation_p=1)),
        )  # fmt: skip
        vector = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        return [value.tolist() for value in found], vector

    found = weights("cuda")
    assert Tape.num_replays == 10 - WARM_UP
    expected = weights("cpu")
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------- names
def test_names_come_back_from_their_labels() -> None:
    for text in ("none", *AUGMENTATIONS, "flip(p=0.25)", "standard(zoom_p=0,gamma_high=1.2)"):
        augmentation = augmentation_named(text)
        assert augmentation_label(augmentation) == text
        assert augmentation_named(augmentation_label(augmentation)) == augmentation
    assert augmentation_label(augmentation_named("standard( rotation_degrees = 30 )")) == "standard"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flips", "expected one of none, flip, standard, .* did you mean 'flip'"),
        ("standard(rotation=10)", "no field 'rotation'; expected one of flip_p"),
        ("standard(flip_p=2)", "flip_p is 2; expected a probability from 0 to 1"),
        ("standard(zoom_low=2)", "zoom_low 2 and zoom_high 1.4; expected"),
        ("standard(blur_low=2)", "blur_low 2 and blur_high 1; expected"),
        ("standard(noise_sd=x)", "noise_sd is 'x'; expected a number, 0 or more"),
        ("flip(", "cannot read augmentation 'flip\\('"),
        ("nowhere_at_all:Mine", "no module 'nowhere_at_all'"),
    ],
)
def test_a_wrong_name_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        augmentation_named(text)
    assert "\n" not in str(error.value)


OWN = """
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Brighter:
    by: float = 0.5
    def draw(self, number, channels, patch_size, generator):
        return {"by": self.by * torch.rand(number, 1, 1, 1, 1, generator=generator),
                "flip": torch.rand(number, generator=generator) < 0.5}
    def __call__(self, images, drawn):
        return images + drawn["by"]

class Global(Brighter):
    def __call__(self, images, drawn):
        return images + torch.rand(())

class Crops(Brighter):
    def __call__(self, images, drawn):
        return images[..., 1:]

class Bare:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    file = tmp_path / "my_aug_of_test.py"
    file.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_aug_of_test", raising=False)
    return file


def test_ones_own_is_in_the_trials_identity_with_its_code(own: Path, monkeypatch) -> None:
    def trial() -> Trial:
        settings = TrainSettings(augment="my_aug_of_test:Brighter(by=0.25)")
        return Trial(
            cohort="toy", fingerprint="f" * 64, loss=LOSSES["xent"], seed=1, fold=0, num_folds=2,
            settings=settings,
        )  # fmt: skip

    before = trial()
    stored = before.to_dict()
    assert stored["augment"]["fields"] == {"by": 0.25}
    assert Trial.from_dict(stored) == before
    own.write_text(OWN + "\n# changed\n")
    monkeypatch.delitem(sys.modules, "my_aug_of_test")
    assert trial().hash != before.hash
    with pytest.raises(ValueError, match="its source has changed since it was stored"):
        Trial.from_dict(stored)


def test_the_augmentation_of_the_documentation_can_be_trained_with(tmp_path, monkeypatch) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "augmentation.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_aug.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_aug", raising=False)
    mine = augmentation_named("my_aug:Mine(by=0.1)")
    assert mine is not None and mine.recordable
    images, _, _ = augmenter(mine)(MIDDLE, 0).cut(volumes())
    assert not images.equal(volumes().gather(MIDDLE)[0])


@pytest.mark.usefixtures("own")
def test_ones_own_is_tried_before_it_trains() -> None:
    mine = augmentation_named("my_aug_of_test:Brighter")
    assert mine is not None and not mine.recordable
    images, _, _ = augmenter(mine)(MIDDLE, 0).cut(volumes())
    assert images.shape == (2, 2, *3 * [SIZE])
    for name, said in {
        "Global": "expected all random numbers to be drawn in draw",
        "Crops": r"expected the same shape",
        "Bare": "expected an object with draw",
        "Brighter(colour=1)": "failed: TypeError",
    }.items():
        with pytest.raises(ValueError, match=said):
            augmentation_named(f"my_aug_of_test:{name}")
