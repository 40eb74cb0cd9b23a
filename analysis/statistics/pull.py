"""What does a loss pull on: its gradient over a voxel's probability, and what is left for errors?

The rows of one loss in `results.GRADIENTS` say how hard it pulls on the logit of one voxel, dL/df,
by that voxel's probability, while the rest of a patch is as in an untrained network or as when
training is under way.  Nothing here depends on which loss it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

UNTRAINED, UNDER_WAY = "untrained", "under way"
"""States of the rest of the patch: `state` of `results.GRADIENTS`."""
UNDECIDED, SURE = 0.5, 0.01
"""A confident error: a lesion voxel at probability SURE, or a background voxel at 1 - SURE."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """Where the pull of one loss comes from and goes to."""

    probability: np.ndarray
    """[n] predicted probability of the voxel, ascending."""
    lesion: np.ndarray
    """[n] |dL/df| of a lesion voxel while training is under way, relative to its own highest."""
    background: np.ndarray
    """[n] |dL/df| of a background voxel, relative to that of a lesion voxel."""
    share_untrained: float
    """Share of the patch's summed |dL/df| that comes from its lesion voxels, all at 0.5."""
    share_under_way: float
    """The same, while training is under way."""
    missed: float
    """Pull of a surely missed lesion voxel, relative to the same voxel undecided."""
    invented: float
    """Pull of a surely invented background voxel, relative to the same voxel undecided."""


def pull(rows: pd.DataFrame) -> Pull:
    """The rows of one loss in numbers; NaN where it does not pull on what it is compared with."""
    probability, lesion = curve(rows, UNDER_WAY, lesion=True)
    _, background = curve(rows, UNDER_WAY, lesion=False)
    highest = float(lesion.max(initial=0.0)) or float("nan")
    return Pull(
        probability=probability,
        lesion=lesion / highest,
        background=background / highest,
        share_untrained=lesion_share(rows, UNTRAINED),
        share_under_way=lesion_share(rows, UNDER_WAY),
        missed=left_for_error(rows, lesion=True),
        invented=left_for_error(rows, lesion=False),
    )


def curve(rows: pd.DataFrame, state: str, *, lesion: bool) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n] in ascending order, and |dL/df| [n] of a voxel that is lesion or not."""
    own = rows[((rows["state"] == state) & (rows["lesion"] == lesion)).to_numpy()]
    own = own.sort_values("probability", kind="stable")
    return own["probability"].to_numpy(float), np.abs(own["gradient"].to_numpy(float))


def lesion_share(rows: pd.DataFrame, state: str) -> float:
    """Share of the summed |dL/df| of a patch in a state that comes from its lesion voxels."""
    own = rows[(rows["state"] == state).to_numpy()]
    if own.empty:
        return float("nan")
    patch = own.iloc[0]
    count = int(patch["lesion_voxels"])
    lesion = _at(own, state, float(patch["p_lesion"]), lesion=True) * count
    background = _at(own, state, float(patch["p_background"]), lesion=False) * (
        int(patch["patch_voxels"]) - count
    )
    return lesion / (lesion + background) if lesion + background > 0 else float("nan")


def left_for_error(rows: pd.DataFrame, *, lesion: bool) -> float:
    """Pull of a voxel that is surely wrong, relative to the same voxel undecided."""
    wrong = _at(rows, UNDER_WAY, SURE if lesion else 1 - SURE, lesion=lesion)
    undecided = _at(rows, UNDER_WAY, UNDECIDED, lesion=lesion)
    return wrong / undecided if undecided else float("nan")


def _at(rows: pd.DataFrame, state: str, p: float, *, lesion: bool) -> float:
    """|dL/df| at one of the recorded probabilities; NaN at another."""
    probability, size = curve(rows, state, lesion=lesion)
    found = np.flatnonzero(np.isclose(probability, p, rtol=0, atol=1e-9))
    return float(size[found[0]]) if len(found) else float("nan")
