"""Counts and distances between a reference and a predicted mask; never a mean over cases.

Lesions are 26-connected components; any overlap is a hit (the WMH challenge's rule, and the
connectivity of the paper's Table 1).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

TWENTY_SIX = np.ones((3, 3, 3), dtype=bool)

NSD_TOLERANCE_MM = 1.0
"""Tolerance of the normalised surface Dice: about one in-plane voxel."""


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """26-connected components of a mask, numbered from 1, and how many there are."""
    found = ndimage.label(mask, structure=TWENTY_SIX)
    labels, number = cast(tuple[np.ndarray, int], found)  # an int alone only with ``output``
    return labels, int(number)


def without_small(mask: np.ndarray, min_mm3: float, voxel_mm3: float) -> np.ndarray:
    """A mask without its 26-connected components of less than this volume; 0 leaves all.

    >>> without_small(np.array([[[True, False, True, True]]]), 2.0, 1.0)[0, 0].tolist()
    [False, False, True, True]
    """
    if min_mm3 <= 0:
        return mask
    labels, number = components(mask)
    voxels = np.bincount(labels.ravel(), minlength=number + 1)
    # The volume of so many voxels may end in other digits than a minimum that means the same.
    kept = voxels * voxel_mm3 >= min_mm3 * (1 - 1e-9)
    kept[0] = False
    return kept[labels]


@dataclass(frozen=True)
class LesionCounts:
    """Lesion-wise detection in one image."""

    n_ref: int
    n_pred: int
    n_ref_hit: int
    n_pred_hit: int


def lesion_counts(
    reference_labels: np.ndarray, num_reference: int, prediction: np.ndarray
) -> LesionCounts:
    """How many lesions touch the other side with at least one voxel.

    ``reference_labels`` may be a crop of a larger image with ``num_reference`` lesions; those
    outside the crop are missed.
    """
    predicted_labels, num_predicted = components(prediction)
    both = prediction & (reference_labels > 0)
    return LesionCounts(
        n_ref=num_reference,
        n_pred=num_predicted,
        n_ref_hit=len(np.unique(reference_labels[both])),
        n_pred_hit=len(np.unique(predicted_labels[both])),
    )


class LesionRow(TypedDict):
    """One component: which, how large, whether the other side touches it, and where it lies."""

    lesion: int
    voxels: int
    mm3: float
    hit: bool
    overlap_voxels: int
    x: float
    y: float
    z: float


def lesion_rows(
    labels: np.ndarray, other: np.ndarray, voxel_mm3: float, origin: Sequence[int] = (0, 0, 0)
) -> list[LesionRow]:
    """One row per component of ``labels``: size, hit, overlap with ``other``, centre of mass.

    The centre is a voxel index of the image in which ``labels`` begins at ``origin``.
    """
    number = int(labels.max(initial=0))
    if number == 0:
        return []
    every = np.arange(1, number + 1)
    voxels = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    overlap = np.bincount(labels[other].ravel(), minlength=number + 1)[1:]
    present = every[voxels > 0]
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, present)) + np.array(origin)
    return [
        {
            "lesion": int(lesion),
            "voxels": int(voxels[lesion - 1]),
            "mm3": float(voxels[lesion - 1] * voxel_mm3),
            "hit": bool(overlap[lesion - 1] > 0),
            "overlap_voxels": int(overlap[lesion - 1]),
            "x": float(centre[0]),
            "y": float(centre[1]),
            "z": float(centre[2]),
        }
        for lesion, centre in zip(present, centres, strict=True)
    ]


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """95th percentile Hausdorff distance and normalised surface Dice, by MONAI.

    ``hd95_mm`` is NaN when either mask is empty; ``nsd`` (tolerance NSD_TOLERANCE_MM) is NaN when
    both are and 0 when one is.
    """
    if not reference.any() or not prediction.any():
        both_empty = not reference.any() and not prediction.any()
        return {"hd95_mm": float("nan"), "nsd": float("nan") if both_empty else 0.0}
    # MONAI takes seconds to import and only the last epoch needs it.
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    found = np.argwhere(reference | prediction)
    low = np.maximum(found.min(axis=0) - 2, 0)
    box = tuple(slice(a, b + 3) for a, b in zip(low, found.max(axis=0), strict=True))
    ours, theirs = (
        torch.from_numpy(mask[box].copy())[None, None] for mask in (prediction, reference)
    )
    spacing = [float(step) for step in spacing_mm]
    with warnings.catch_warnings():  # MONAI 1.6 warns of its own deprecated call
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*get_mask_edges")
        hd95 = compute_hausdorff_distance(
            ours, theirs, include_background=True, percentile=95, spacing=spacing
        )
        nsd = compute_surface_dice(
            ours,
            theirs,
            [NSD_TOLERANCE_MM],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
    return {"hd95_mm": float(hd95), "nsd": float(nsd)}


def wmh_h95_mm(reference: np.ndarray, prediction: np.ndarray, affine: np.ndarray) -> float:
    """The WMH challenge's 95th percentile Hausdorff distance; NaN when either mask is empty.

    Boundary voxels are those that an erosion by a 3x3x1 box removes (in-plane, the image edge is
    no boundary); distances between their centres in mm; the larger of the two directed 95th
    percentiles.  Defined by the challenge's public evaluation; written anew here.
    """
    if not reference.any() or not prediction.any():
        return float("nan")
    in_plane = np.ones((3, 3, 1), dtype=bool)
    points = []
    for mask in (reference, prediction):
        inner = cast(np.ndarray, ndimage.binary_erosion(mask, in_plane, border_value=1))
        boundary = mask & ~inner
        points.append(np.argwhere(boundary) @ affine[:3, :3].T)
    if not len(points[0]) or not len(points[1]):  # a mask that fills every slice has no boundary
        return float("nan")
    there = KDTree(points[0]).query(points[1])[0]
    back = KDTree(points[1]).query(points[0])[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))
