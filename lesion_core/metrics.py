"""Counts and distances between a reference and a predicted mask; never a mean over cases.

Lesions are 26-connected components; any overlap is a hit (the WMH challenge's rule, and the
connectivity of the paper's Table 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict, cast

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree

DENSE = 0.03
"""Share of an image from which on its components are faster found voxel by voxel."""

NSD_TOLERANCE_MM = 1.0
"""Tolerance of the normalised surface Dice: about one in-plane voxel."""


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """26-connected components of a mask ``[X, Y, Z]``, and how many there are.

    Numbered from 1 by their first voxel, the last axis fastest, as `scipy.ndimage.label` with a
    full structure does.
    """
    voxels, label, number = _labelled(mask)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels.reshape(-1)[voxels] = label
    return labels, number


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Places of a mask's voxels ``[n]`` in the flat mask, the component of each from 1, and how
    many components there are.

    Runs of voxels along the last axis are joined instead of voxels, and nothing is looked at
    outside the mask: lesions are a small part of an image.
    """
    voxels = np.flatnonzero(mask)
    if len(voxels) > DENSE * mask.size:
        found = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        labels, number = cast(tuple[np.ndarray, int], found)  # an int alone only with ``output``
        return voxels, labels.ravel()[voxels], number
    _, rows, columns = mask.shape
    # With a column behind each row and a row behind each plane that no voxel has, neighbours in
    # memory are neighbours.
    width, height = columns + 1, rows + 1
    row = voxels // columns
    place = voxels + row + row // rows * width
    begins = np.flatnonzero(np.diff(place, prepend=-2) > 1)
    first = place[begins]
    lengths = np.diff(begins, append=len(place))
    last = first + lengths - 1
    # Of the rows behind a run's own that touch it: the runs from the first one that does not end
    # before the voxel before the run, to the last one that begins up to the voxel after it.
    low, high = (np.empty((len(first), 4), dtype=np.int64) for _ in range(2))
    for number, behind in enumerate((1, height - 1, height, height + 1)):
        low[:, number] = np.searchsorted(last, first + behind * width - 1)
        high[:, number] = np.searchsorted(first, last + behind * width + 1, side="right")
    count = (high - low).ravel()
    end = np.cumsum(count)
    touched = np.arange(count.sum()) + np.repeat(low.ravel() - (end - count), count)
    graph = sparse.csr_array(
        (np.ones(len(touched)), touched, np.append(0, end[3::4])), shape=(len(first),) * 2
    )
    number, of_run = csgraph.connected_components(graph, directed=False)
    return voxels, np.repeat(of_run + 1, lengths), int(number)


def without_small(mask: np.ndarray, min_mm3: float, voxel_mm3: float) -> np.ndarray:
    """A mask without its 26-connected components of less than this volume; 0 leaves all.

    >>> without_small(np.array([[[True, False, True, True]]]), 2.0, 1.0)[0, 0].tolist()
    [False, False, True, True]
    """
    if min_mm3 <= 0:
        return mask
    labels, number = components(mask)
    voxels = np.bincount(labels.ravel(), minlength=number + 1)
    # The volume of so many voxels may end in other digits than a minimum that means the same:
    # NIfTI has a voxel's sides in single precision, so that three of them are off by 2e-7.
    kept = voxels * voxel_mm3 >= min_mm3 * (1 - 1e-6)
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
    voxels, predicted, num_predicted = _labelled(prediction)
    reference = reference_labels.ravel()[voxels]
    both = reference > 0
    return LesionCounts(
        n_ref=num_reference,
        n_pred=num_predicted,
        n_ref_hit=len(np.unique(reference[both])),
        n_pred_hit=len(np.unique(predicted[both])),
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
    places = np.flatnonzero(labels)
    if len(places) == 0:
        return []
    label = labels.ravel()[places]
    voxels = np.bincount(label)
    overlap = np.bincount(label, other.ravel()[places])
    present = np.flatnonzero(voxels)
    at = np.unravel_index(places, labels.shape)
    centres = np.stack([np.bincount(label, axis)[present] / voxels[present] for axis in at], 1)
    centres += np.array(origin)
    return [
        {
            "lesion": int(lesion),
            "voxels": int(voxels[lesion]),
            "mm3": float(voxels[lesion] * voxel_mm3),
            "hit": bool(overlap[lesion] > 0),
            "overlap_voxels": int(overlap[lesion]),
            "x": float(centre[0]),
            "y": float(centre[1]),
            "z": float(centre[2]),
        }
        for lesion, centre in zip(present, centres, strict=True)
    ]


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """95th percentile Hausdorff distance and normalised surface Dice, as MONAI computes them.

    Hausdorff: between the centres of voxels that face another one outside the mask, the larger of
    both directions.  Surface Dice: share of both surfaces, by area (marching cubes, DeepMind's
    surface-distance), that lies within NSD_TOLERANCE_MM of the other one.

    ``hd95_mm`` is NaN when either mask is empty; ``nsd`` is NaN when both are and 0 when one is.
    """
    if not reference.any() or not prediction.any():
        both_empty = not reference.any() and not prediction.any()
        return {"hd95_mm": float("nan"), "nsd": float("nan") if both_empty else 0.0}
    box = _box(reference | prediction)
    masks = [np.pad(mask[box], 1) for mask in (reference, prediction)]
    spacing = np.asarray(spacing_mm, dtype=float)
    boundaries = [np.argwhere(_boundary(mask)) for mask in masks]
    areas = [_surface_areas(mask, tuple(spacing.tolist())) for mask in masks]
    ours, theirs = (area[_near(other > 0, spacing)].sum() for area, other in (areas, areas[::-1]))
    return {
        "hd95_mm": _hausdorff_95(*(points * spacing for points in boundaries)),
        "nsd": float((ours + theirs) / sum(area.sum() for area in areas)),
    }


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Where a mask that is not empty lies."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(others))
        found.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(found)


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask, with a margin of zeros, that have one of six neighbours outside it."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inner &= np.roll(mask, step, axis)
    return mask & ~inner


def _hausdorff_95(some: np.ndarray, others: np.ndarray) -> float:
    """Larger 95th percentile of the distances of points ``[n, 3]`` to the nearest of others."""
    there = KDTree(some).query(others)[0]
    back = KDTree(others).query(some)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface_areas(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area in mm2 of a mask's surface between the centres of each 2 x 2 x 2 voxels."""
    table, weights = _area_table(spacing_mm)
    codes = np.zeros([size - 1 for size in mask.shape], dtype=np.uint8)
    for corner in np.ndindex(2, 2, 2):
        part = tuple(slice(at, at + size) for at, size in zip(corner, codes.shape, strict=True))
        codes += mask[part] * weights[corner]
    return table[codes]


@lru_cache(maxsize=64)
def _area_table(spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """MONAI's area by code of eight voxels ``[256]``, and what each adds to it ``[2, 2, 2]``."""
    # MONAI takes seconds to import and only the last epoch needs it.
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

    areas, weights = create_table_neighbour_code_to_surface_area(spacing_mm)
    return areas.double().numpy(), weights[0, 0].numpy().astype(np.uint8)


def _near(surface: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """What lies within the tolerance of a surface, in a mask of places on the same grid."""
    reach = np.floor(NSD_TOLERANCE_MM / spacing * (1 + 1e-6)).astype(int)
    reach = np.minimum(reach, np.array(surface.shape) - 1)
    near = np.zeros(surface.shape, dtype=bool)
    for step in np.ndindex(*(2 * reach + 1)):
        offset = np.array(step) - reach
        # In fp32, as MONAI: 0.6 and 0.8 mm are 1 mm away.
        if np.float32(np.linalg.norm(offset * spacing)) <= NSD_TOLERANCE_MM:
            into = tuple(
                slice(max(0, at), at + n if at < 0 else n)
                for at, n in zip(offset, surface.shape, strict=True)
            )
            out = tuple(
                slice(max(0, -at), n - max(0, at))
                for at, n in zip(offset, surface.shape, strict=True)
            )
            near[into] |= surface[out]
    return near


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
        # One voxel around it, where there is one, or the box's edge would be taken for the image's.
        box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in _box(mask))
        inner = cast(np.ndarray, ndimage.binary_erosion(mask[box], in_plane, border_value=1))
        found = np.argwhere(mask[box] & ~inner) + [part.start for part in box]
        points.append(found @ affine[:3, :3].T)
    if not len(points[0]) or not len(points[1]):  # a mask that fills every slice has no boundary
        return float("nan")
    return _hausdorff_95(*points)
