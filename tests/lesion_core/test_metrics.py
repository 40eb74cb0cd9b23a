"""Counts and distances on geometry that one can check by hand, and against other libraries."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

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
