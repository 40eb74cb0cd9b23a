"""What one case says of every part of the seeds together: counts, never an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lesion_core.evaluate import THRESHOLD, histogram_pair, image_counts
from lesion_core.images import Image
from lesion_core.scores import LENGTHS, parts_of
from lesion_core.uncertainty import binned, disagreement, entropy_bits, voxels_and_errors


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
            **dict.fromkeys(LENGTHS),
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


def _mean(probabilities: np.ndarray, part: Sequence[int]) -> np.ndarray:
    """The mean probability of some of the networks, float32; one network's own is left as it is."""
    return probabilities[part[0]] if len(part) == 1 else probabilities[list(part)].mean(0)
