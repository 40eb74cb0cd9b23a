"""What a prediction looks like on its image: one coloured slice per test case, as pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

COLOURS = {"found": (0, 158, 115), "missed": (230, 159, 0), "false": (204, 121, 167)}
"""True positives, false negatives, false positives: Okabe and Ito's colours, which can be told
apart by everybody."""
STRIPE = 160
"""Grey of the stripes over ignored voxels."""
SHORTEST_SIDE_PIXELS = 256
"""Small slices are enlarged by a whole number, so that a lesion of one voxel can be seen."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """A picture ``uint8 [height, width, 3]``: the image, and on its right the same coloured.

    All pictures of a trial have one size; smaller ones have a black margin below and on the right.
    """

    case: str
    pixels: np.ndarray


def overlays(
    predicted: Sequence[Mapping[str, Any]], cohort_slices: Sequence[Mapping[str, Any]]
) -> list[Overlay]:
    """Draw a trial's `results.SLICES` rows on its cohort's `results.COHORT_SLICES` rows.

    The last channel is drawn: FLAIR of the paper's cohorts.  Grey stripes: ignored voxels.

    Raises:
        KeyError: the cohort has no slice of a predicted case.
    """
    import numpy as np

    by_case = {row["case"]: row for row in cohort_slices}
    drawn = {row["case"]: _drawn(row["prediction"], by_case[row["case"]]) for row in predicted}
    if not drawn:
        return []
    height, width, _ = np.max([pixels.shape for pixels in drawn.values()], axis=0)
    return [
        Overlay(
            case,
            np.pad(pixels, [(0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)]),
        )
        for case, pixels in drawn.items()
    ]


def _drawn(prediction: bytes, background: Mapping[str, Any]) -> np.ndarray:
    import numpy as np

    shape = (background["height"], background["width"])

    def mask(packed: bytes) -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=shape[0] * shape[1])
        return bits.reshape(shape).astype(bool)

    grey = np.frombuffer(background["images"][-1], dtype=np.uint8).reshape(shape)
    plain = np.repeat(grey[..., None], 3, axis=2)
    coloured = plain.copy()
    predicted, reference = mask(prediction), mask(background["reference"])
    if background.get("ignore") is not None:  # slices of earlier releases have none
        where, diagonals = mask(background["ignore"]), np.indices(shape).sum(axis=0) % 4 == 0
        coloured[where] //= 2
        coloured[where & diagonals] = STRIPE
    for name, where in (
        ("found", predicted & reference),
        ("missed", ~predicted & reference),
        ("false", predicted & ~reference),
    ):
        coloured[where] = (0.35 * plain[where] + 0.65 * np.array(COLOURS[name])).astype(np.uint8)
    pair = np.concatenate([plain, coloured], axis=1)
    times = max(1, -(-SHORTEST_SIDE_PIXELS // min(shape)))
    sides = (background["row_mm"], background["column_mm"])
    rows, columns = (max(1, round(times * side / min(sides))) for side in sides)
    return pair.repeat(rows, axis=0).repeat(columns, axis=1)
