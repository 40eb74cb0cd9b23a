"""One picture of a case: its image, the outline of the mask, and where the networks disagree.

A plain PNG without any name or number of the patient in it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lesion_core.nifti import BACK_FRONT, FOOT_HEAD, LEFT_RIGHT, axes_and_signs
from lesion_core.pictures import turned

OUTLINE = (86, 180, 233)
"""Sky blue, as what is found in the report's overlays."""
UNSURE = (230, 97, 1)
"""Orange: told from the outline with any colour vision, and from a grey image."""
FULL = 0.5
"""Standard deviation of the probability that is shown in full colour: the largest that can be."""
LEAST_PIXELS = 512
"""Of the longer side; smaller pictures are enlarged by a whole number."""


def overlay_png(
    image: np.ndarray, mask: np.ndarray, disagreement: np.ndarray, affine: np.ndarray
) -> bytes:
    """The slice with the most lesion and disagreement, as a PNG file.

    Anterior is up and the patient's left on the right (radiological), whatever the axes' order.

    Args:
        image: ``[X, Y, Z]`` intensities.
        mask: ``[X, Y, Z]`` bool.
        disagreement: ``[X, Y, Z]`` standard deviation of the probability over the networks.
        affine: ``[4, 4]``, voxel indices to mm (right, anterior, superior).
    """
    axis, index = busiest_slice(mask, disagreement, affine)
    axes = axes_and_signs(affine)
    grey, outlined, unsure = (
        turned(volume.take(index, axis=axis), axes) for volume in (image, mask, disagreement)
    )
    known = image[image != 0]
    black, white = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
    level = ((grey - black) / max(white - black, np.finfo(np.float32).tiny)).clip(0, 1)
    share = (unsure / FULL).clip(0, 1)[..., None]
    picture = 255 * level[..., None] * (1 - share) + np.array(UNSURE) * share
    repeats = _repeats(grey.shape, affine)
    picture, large = _enlarged(picture, repeats), _enlarged(outlined, repeats).astype(bool)
    inside = np.asarray(ndimage.binary_erosion(large), bool)
    picture[large & ~inside] = OUTLINE
    return png(np.rint(picture).astype(np.uint8))


def shown_channel(channels: Sequence[str]) -> str:
    """Which image is shown: the last FLAIR, on which lesions are bright, else the last one.

    >>> shown_channel(["baseline_flair", "followup_flair", "t1"])
    'followup_flair'
    """
    flair = [channel for channel in channels if "flair" in channel.casefold()]
    return (flair or channels)[-1]


def busiest_slice(
    mask: np.ndarray, disagreement: np.ndarray, affine: np.ndarray
) -> tuple[int, int]:
    """Array axis closest to foot-head, and the slice across it where the voxels of the mask and
    twice the disagreement add up to most; the middle one where there is neither.

    >>> mask = np.zeros((2, 2, 5), bool)
    >>> busiest_slice(mask, np.where(np.arange(5) == 3, 0.2, 0.0) * np.ones((2, 2, 1)), np.eye(4))
    (2, 3)
    """
    axis, _ = axes_and_signs(affine)[FOOT_HEAD]
    across = tuple(other for other in range(3) if other != axis)
    amount = np.count_nonzero(mask, axis=across) + 2 * disagreement.sum(axis=across)
    return axis, int(amount.argmax()) if amount.any() else len(amount) // 2


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 ``[height, width, 3]`` (ISO/IEC 15948; true colour, no filter)."""
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )


def _repeats(shape: tuple[int, ...], affine: np.ndarray) -> tuple[int, int]:
    """How often rows and columns are repeated, so that a millimetre is as long along both."""
    axes = axes_and_signs(affine)
    shown = [axes[world][0] for world in (BACK_FRONT, LEFT_RIGHT)]
    sides_mm = np.linalg.norm(affine[:3, shown], axis=0)
    relative = sides_mm / sides_mm.min()
    times = max(1, math.ceil(LEAST_PIXELS / (np.array(shape) * relative).max()))
    rows, columns = np.maximum(1, np.rint(times * relative)).astype(int)
    return int(rows), int(columns)


def _enlarged(picture: np.ndarray, repeats: tuple[int, int]) -> np.ndarray:
    return picture.repeat(repeats[0], axis=0).repeat(repeats[1], axis=1)
