"""Counts and distances on geometry that one can check by hand, and against other libraries."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from lesion_core import metrics
from lesion_core.metrics import (
    components,
    lesion_counts,
    lesion_rows,
    surface_distances,
    wmh_h95_mm,
)


def random_masks(seed, shape=(16, 15, 14)):
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 1.2, 1.2, 1.2))
    fields[1] = 0.5 * fields[0] + 0.5 * fields[1]
    return tuple(field > np.quantile(field, 0.93) for field in fields)


def test_a_diagonal_chain_is_one_lesion():
    mask = np.zeros((4, 4, 4), bool)
    mask[range(4), range(4), range(4)] = True
    assert components(mask)[1] == 1


@pytest.mark.parametrize("seed", range(5))
def test_components_equal_simpleitks(seed):
    reference, _ = random_masks(seed)
    theirs = sitk.ConnectedComponent(sitk.GetImageFromArray(reference.astype(np.uint8)), True)
    labels, number = components(reference)
    assert number == int(sitk.GetArrayFromImage(theirs).max())
    assert (labels > 0).sum() == reference.sum()


@pytest.mark.parametrize("dense", [0.0, metrics.DENSE, 1.0])
def test_components_are_scipys_with_its_numbers(dense, monkeypatch):
    """Run by run and voxel by voxel, of any shape, density and order in memory."""
    monkeypatch.setattr(metrics, "DENSE", dense)
    full = np.ones((3, 3, 3))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mask = rng.random(rng.integers(1, 9, 3)) < rng.random()
        expected, number = ndimage.label(mask, full)
        for same in (mask, np.asfortranarray(mask)):
            labels, found = components(same)
            assert found == number
            np.testing.assert_array_equal(labels, expected)
        reference, most = ndimage.label(rng.random(mask.shape) < 0.2, full)
        counts = lesion_counts(reference, most, mask)
        both = mask & (reference > 0)
        assert counts.n_ref_hit == len(set(reference[both]))
        assert counts.n_pred_hit == len(set(expected[both]))
        assert (counts.n_ref, counts.n_pred) == (most, number)


def test_lesion_counts_by_hand():
    labels = np.zeros((9, 1, 1), np.uint16)
    labels[0:2], labels[4], labels[6] = 1, 2, 3
    prediction = np.zeros((9, 1, 1), bool)
    prediction[[1, 4, 5, 6, 8]] = True  # 4-5-6 is one prediction that touches two lesions
    counts = lesion_counts(labels, 4, prediction)  # a fourth lesion lies outside the crop
    assert (counts.n_ref, counts.n_ref_hit) == (4, 3)
    assert (counts.n_pred, counts.n_pred_hit) == (3, 2)


def test_empty_masks_have_no_lesions():
    nothing = np.zeros((3, 3, 3), bool)
    counts = lesion_counts(nothing.astype(np.uint16), 0, nothing)
    assert counts == type(counts)(0, 0, 0, 0)
    assert lesion_rows(nothing.astype(np.uint16), nothing, 1.0) == []


def test_lesion_rows_by_hand():
    labels = np.zeros((6, 5, 4), np.uint16)
    labels[0:2, 0, 0] = 1
    labels[4, 4, 1:4] = 2
    other = np.zeros(labels.shape, bool)
    other[4, 4, 3] = True
    first, second = lesion_rows(labels, other, 2.0, origin=(10, 0, 0))
    assert (first["voxels"], first["mm3"], first["hit"]) == (2, 4.0, False)
    assert (first["x"], first["y"], first["z"]) == (10.5, 0, 0)
    assert (second["voxels"], second["overlap_voxels"], second["hit"]) == (3, 1, True)
    assert (second["x"], second["z"]) == (14, 2)


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_lesions_are_scipys(seed):
    mask, other = random_masks(seed)
    labels, number = components(mask)
    rows = lesion_rows(labels, other, 2.0)
    every = range(1, number + 1)
    centres = ndimage.center_of_mass(mask, labels, every)
    assert [(row["x"], row["y"], row["z"]) for row in rows] == centres
    assert [row["voxels"] for row in rows] == ndimage.sum_labels(mask, labels, every).tolist()
    overlaps = ndimage.sum_labels(other, labels, every)
    assert [row["overlap_voxels"] for row in rows] == overlaps.tolist()


SPACINGS = [(1.0, 1.0, 1.0), (0.95, 0.96, 3.0), (0.6, 0.8, 0.5), (2.0, 1.5, 1.0)]


@pytest.mark.filterwarnings("ignore:.*get_mask_edges:FutureWarning")  # MONAI's, of its own call
@pytest.mark.parametrize("spacing", SPACINGS)
def test_surface_distances_are_monais(spacing):
    """At the image's edge too, for one voxel, and where 0.6 and 0.8 mm are 1 mm away."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    pairs = [random_masks(seed) for seed in range(3)]
    one = np.zeros((16, 15, 14), bool)
    one[0, 0, 0] = True
    pairs += [(one, pairs[0][0]), (~one, pairs[1][1]), (np.roll(one, (1, 1), (0, 1)), one)]
    for reference, prediction in pairs:
        batch = [torch.from_numpy(mask.copy())[None, None] for mask in (prediction, reference)]
        more = {"include_background": True, "spacing": list(spacing)}
        hd95 = compute_hausdorff_distance(*batch, percentile=95, **more)
        nsd = compute_surface_dice(*batch, [1.0], use_subvoxels=True, **more)
        found = surface_distances(reference, prediction, spacing)
        assert found["hd95_mm"] == pytest.approx(float(hd95), rel=1e-6)
        assert found["nsd"] == pytest.approx(float(nsd), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_percentile_of_the_challenge_equals_simpleitks_route(seed):
    """The challenge's own route, boundary by BinaryErode and points in mm, done with SimpleITK."""
    reference, prediction = random_masks(seed)
    spacing = (0.95, 0.96, 3.0)
    points = []
    for mask in (reference, prediction):
        image = sitk.GetImageFromArray(mask.astype(np.uint8).transpose(2, 1, 0))
        image.SetSpacing(spacing)
        eroded = sitk.BinaryErode(image, (1, 1, 0))
        boundary = sitk.GetArrayFromImage(sitk.Subtract(image, eroded)).transpose(2, 1, 0)
        points.append(
            [image.TransformIndexToPhysicalPoint(row.tolist()) for row in np.argwhere(boundary)]
        )
    between = np.linalg.norm(np.array(points[0])[:, None] - np.array(points[1])[None], axis=2)
    expected = max(np.percentile(between.min(axis=0), 95), np.percentile(between.min(axis=1), 95))
    affine = np.diag([*spacing, 1])
    assert wmh_h95_mm(reference, prediction, affine) == pytest.approx(expected, abs=1e-6)


def test_the_challenges_distance_takes_an_edge_of_the_image_for_no_boundary():
    """By its definition over the whole image: a lesion that is cut off there has none."""
    cut = np.zeros((6, 7, 3), bool)
    cut[:3, 2:5] = True
    other = np.roll(cut, 1, 1)
    inner = ndimage.binary_erosion(cut, np.ones((3, 3, 1)), border_value=1)
    assert (cut & ~inner)[0, 3].sum() == 0
    points = [np.argwhere(m & ~ndimage.binary_erosion(m, np.ones((3, 3, 1)), border_value=1))
              for m in (cut, other)]  # fmt: skip
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    expected = max(np.percentile(between.min(axis), 95) for axis in (0, 1))
    assert wmh_h95_mm(cut, other, np.eye(4)) == pytest.approx(expected, abs=1e-9)


def test_distances_of_voxels_two_mm_apart():
    reference, prediction = np.zeros((2, 9, 9, 9), bool)
    reference[4, 4, 4] = prediction[5, 4, 4] = True
    found = surface_distances(reference, prediction, (2.0, 1.0, 1.0))
    assert found["hd95_mm"] == pytest.approx(2.0)
    assert wmh_h95_mm(reference, prediction, np.diag([2.0, 1, 1, 1])) == pytest.approx(2.0)


def test_perfect_prediction_has_no_distance():
    mask, _ = random_masks(7)
    assert surface_distances(mask, mask, (1, 1, 3)) == {"hd95_mm": 0.0, "nsd": 1.0}
    assert wmh_h95_mm(mask, mask, np.eye(4)) == 0.0


def test_distances_of_empty_masks_are_undefined():
    mask, _ = random_masks(7)
    nothing = mask & False
    one = surface_distances(mask, nothing, (1, 1, 1))
    both = surface_distances(nothing, nothing, (1, 1, 1))
    assert np.isnan(one["hd95_mm"])
    assert one["nsd"] == 0.0
    assert np.isnan(both["hd95_mm"])
    assert np.isnan(both["nsd"])
    assert np.isnan(wmh_h95_mm(mask, nothing, np.eye(4)))
    assert np.isnan(wmh_h95_mm(nothing, mask, np.eye(4)))
