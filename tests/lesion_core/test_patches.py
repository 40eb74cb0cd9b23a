"""Windows cover the image, and cutting then stitching gives it back."""

import numpy as np
import pytest
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import sliding_window_inference

from lesion_core.evaluate import predict_volume
from lesion_core.patches import Patches, Volumes
from lesion_core.unet import UNet3d
from lesion_core.windows import WindowGrid, window_starts


@pytest.mark.parametrize("size", range(32, 130, 7))
def test_starts_are_monais(size):
    ours = window_starts(size, 32, 16)
    assert ours == [window[0].start for window in dense_patch_slices([size], [32], [16])]


def volumes_of(*images, lesions=None, axes=None, patch_size=8, stride=4):
    lesions = lesions or [np.zeros(image.shape[1:], bool) for image in images]
    return Volumes(images, lesions, axes or [0] * len(images), patch_size=patch_size, stride=stride)


def patches(image, start, flip):
    return Patches(torch.tensor(image), torch.tensor(start), torch.tensor(flip))


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 17, 30), (5, 12, 8), (3, 2, 1)])
def test_cut_then_stitched_is_the_image(shape):
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    volumes = volumes_of(np.ones((2, 11, 8, 9), np.float32), image)  # not the first in the buffer
    windows = volumes.windows(1)
    values, _ = volumes.gather(windows)
    for channel in range(2):
        stitched = volumes.grids[1].stitch(values[:, channel])
        torch.testing.assert_close(stitched, torch.from_numpy(image[channel]))


def test_stitching_averages_overlaps():
    grid = WindowGrid.of((12, 8, 8), 8, 4)
    windows = torch.zeros(2, 8, 8, 8)
    windows[1] = 1.0
    line = grid.stitch(windows)[:, 0, 0]
    assert line.tolist() == [0] * 4 + [0.5] * 4 + [1] * 4


def test_gathered_patches_are_slices():
    rng = np.random.default_rng(1)
    images = [rng.normal(size=(2, 14, 12, 10)).astype(np.float32) for _ in range(3)]
    lesions = [rng.random((14, 12, 10)) < 0.1 for _ in range(3)]
    volumes = volumes_of(*images, lesions=lesions)
    values, target = volumes.gather(patches([2, 0], [[3, 1, 2], [6, 4, 0]], [False, False]))
    np.testing.assert_array_equal(values[0], images[2][:, 3:11, 1:9, 2:10])
    np.testing.assert_array_equal(target[1, 0], lesions[0][6:14, 4:12, 0:8])
    assert values.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flip_mirrors_along_the_images_own_left_right_axis(axis):
    image = np.random.default_rng(1).normal(size=(2, 14, 12, 10)).astype(np.float32)
    volumes = volumes_of(image, lesions=[image[0] > 1], axes=[axis])
    start = [[3, 1, 2], [3, 1, 2]]
    values, target = volumes.gather(patches([0, 0], start, [False, True]))
    assert values[1].equal(values[0].flip(axis + 1))
    assert target[1].equal(target[0].flip(axis + 1))


def test_training_patches_are_the_windows_with_lesion_each_twice():
    lesion = np.zeros((20, 8, 8), bool)
    lesion[19, 0, 0] = True  # the last plane counts
    image = np.zeros((1, 20, 8, 8), np.float32)
    volumes = volumes_of(image, image, lesions=[lesion, lesion & False])
    found = volumes.training_patches([0, 1], flip=True)
    assert found.image.tolist() == [0, 0]
    assert found.start.tolist() == [[12, 0, 0]] * 2
    assert found.flip.tolist() == [False, True]
    assert len(volumes.training_patches([0, 1], flip=False)) == 1
    assert len(volumes.training_patches([1], flip=True)) == 0


@pytest.mark.parametrize("shape", [(40, 37, 33), (20, 40, 32), (9, 10, 11)])
def test_prediction_equals_monais_sliding_window(shape):
    network = UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(0))
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    ours = predict_volume(network, image, patch_size=32, stride=16, batch_size=3)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], 32, 4, lambda x: network(x).sigmoid(), overlap=0.5, mode="constant"
        )
    assert ours.dtype == np.float32
    assert ours.shape == shape
    np.testing.assert_allclose(ours, theirs[0, 0], atol=2e-6)


def test_constant_probability_survives_stitching():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor(0.3))

        def forward(self, x):
            return self.bias.expand(len(x), 1, *x.shape[2:])

    probability = predict_volume(Constant(), np.zeros((1, 33, 50, 20), np.float32))
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-0.3)), rtol=1e-6)
