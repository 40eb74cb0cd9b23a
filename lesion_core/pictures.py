"""Which slice of a case is shown, and from which side it is looked at."""

from __future__ import annotations

import numpy as np

from lesion_core.images import Image
from lesion_core.nifti import BACK_FRONT, FOOT_HEAD, LEFT_RIGHT, AxesAndSigns


def shown_slice(image: Image) -> tuple[int, int]:
    """Array axis closest to foot-head, and the index in the whole image of the slice to show.

    The slice through the brain box with the most lesion voxels (the first of equals), counted in
    the whole image; without any, the middle of the box.
    """
    axis, _ = image.axes[FOOT_HEAD]
    across = tuple(other for other in range(3) if other != axis)
    area = np.count_nonzero(image.labels, axis=across)
    beside = image.lesion_outside_box[:, axis] - image.origin[axis]
    beside = beside[(beside >= 0) & (beside < len(area))]
    area = area + np.bincount(beside, minlength=len(area))
    index = int(area.argmax()) if area.any() else len(area) // 2
    return axis, image.origin[axis] + index


def slice_view(volume_box: np.ndarray, image: Image) -> np.ndarray:
    """The shown slice of a box-shaped volume as a picture ``[height, width]``.

    Anterior is up and the subject's left on the right of the picture (radiological), whatever
    the order of the array's axes.
    """
    axis, index = shown_slice(image)
    plane = volume_box.take(index - image.origin[axis], axis=axis)
    return np.ascontiguousarray(turned(plane, image.axes))


def turned(plane: np.ndarray, axes: AxesAndSigns) -> np.ndarray:
    """A plane across the axis closest to foot-head as a picture ``[height, width]``: anterior is up
    and the subject's left on the right."""
    rows, rows_sign = axes[BACK_FRONT]
    columns, columns_sign = axes[LEFT_RIGHT]
    if rows > columns:
        plane = plane.T
    # The first row is the most anterior, the first column the subject's rightmost.
    return plane[::-rows_sign, ::-columns_sign]


def picture(channel: np.ndarray, image: Image) -> np.ndarray:
    """The shown slice of a channel as uint8.

    Black is the 1st percentile inside the brain, white the 99th.
    """
    black, white = np.percentile(channel[image.brain], [1, 99])
    scaled = (slice_view(channel, image) - black) / max(white - black, np.finfo(np.float32).tiny)
    return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
