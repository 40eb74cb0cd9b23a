"""What one case says of every part of the seeds together: counts, never an image.

Parts are balanced: of k networks, neighbours on a circle of all in the sweep's order, from every
start (or from `MOST_STARTS` of them, evenly apart), so that each network counts alike at every k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lesion_core.evaluate import THRESHOLD, histogram_pair, image_counts
from lesion_core.images import Image
from lesion_core.uncertainty import binned, disagreement, entropy_bits, voxels_and_errors

MOST_STARTS = 10
EVERY_SIZE = 5
"""Up to so many networks every number of them is looked at, then each doubling."""


def parts_of(networks: int) -> list[tuple[int, ...]]:
    """Which networks (from 0) are averaged: each alone, balanced parts, all.

    >>> parts_of(3)
    [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]
    """
    doubled = {2**power for power in range(3, max(networks, 1).bit_length())}
    sizes = {*range(1, EVERY_SIZE + 1), networks - 1, *doubled} & {*range(1, networks)}
    parts = []
    for size in sorted(sizes):
        whole = size in (1, networks - 1)
        starts = networks if whole else min(networks, MOST_STARTS)
        for number in range(starts):
            begin = number * networks // starts
            parts.append(tuple(sorted((begin + i) % networks for i in range(size))))
    return [*parts, tuple(range(networks))]


def case_rows(
    image: Image, probabilities: np.ndarray, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Rows of `results.ENSEMBLES`, without what says which ensemble it is.

    Args:
        image: of a case that no network was trained on.
        probabilities: float32 ``[M, X, Y, Z]``, of the brain box, by network.
        seeds: of the networks.
    """
    lesion, known = image.lesion, image.lesion | image.background
    inside = known & image.brain
    reference = lesion[inside]
    everybody = tuple(range(len(seeds)))
    wrong_together = (_mean(probabilities, everybody)[inside] >= THRESHOLD) != reference
    rows = []
    for part in parts_of(len(seeds)):
        mean = _mean(probabilities, part)
        off = mean[known].astype(np.float64) - lesion[known]
        row: dict[str, Any] = {
            "case": image.case,
            "site": image.site,
            "seeds": [int(seeds[place]) for place in part],
            "voxel_mm3": image.voxel_mm3,
            **image_counts(image, mean),
            "brier_sum": float(off @ off),
            "brier_voxels": len(off),
            **dict.fromkeys(HISTOGRAM_COLUMNS),
        }
        if len(part) in (1, len(seeds) - 1, len(seeds)):
            row["lesion"], row["background"] = histogram_pair(image, mean)
            wrong = (mean[inside] >= THRESHOLD) != reference
            bins = binned(entropy_bits(mean[inside]))
            row["entropy_voxels"], row["entropy_errors"], together = voxels_and_errors(
                bins, wrong, wrong_together
            )
            if len(part) == 1:
                row["ensemble_errors"] = together
            else:
                apart = binned(disagreement(probabilities[list(part)][:, inside]))
                row["disagreement_voxels"], row["disagreement_errors"] = voxels_and_errors(
                    apart, wrong
                )
        rows.append(row)
    return rows


HISTOGRAM_COLUMNS = (
    "lesion", "background", "disagreement_voxels", "disagreement_errors", "entropy_voxels",
    "entropy_errors", "ensemble_errors",
)  # fmt: skip


def _mean(probabilities: np.ndarray, part: Sequence[int]) -> np.ndarray:
    """The mean probability of some of the networks, float32; one network's own is left as it is."""
    return probabilities[part[0]] if len(part) == 1 else probabilities[list(part)].mean(0)
