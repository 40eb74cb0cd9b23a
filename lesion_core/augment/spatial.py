"""How patches are turned and zoomed: one matrix each, by which voxels are looked up."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotations(degrees: Tensor) -> Tensor:
    """Rotations about the three axes, one after the other.

    Args:
        degrees: ``[n, 3]``, about the first, the second and the third axis.

    Returns:
        ``[n, 3, 3]`` float64; exactly the identity where all three are 0.
    """
    angles = degrees.double() * (math.pi / 180)
    cos, sin = angles.cos(), angles.sin()
    found = torch.eye(3, dtype=torch.float64).expand(len(degrees), 3, 3)
    for axis in range(3):
        a, b = (other for other in range(3) if other != axis)
        turn = torch.eye(3, dtype=torch.float64).repeat(len(degrees), 1, 1)
        turn[:, a, a] = turn[:, b, b] = cos[:, axis]
        turn[:, a, b], turn[:, b, a] = -sin[:, axis], sin[:, axis]
        found = turn @ found
    return found


def lookups(degrees: Tensor, zoom: Tensor) -> Tensor:
    """Where the voxels of turned and zoomed patches are looked up.

    Args:
        degrees: as in `rotations`.
        zoom: ``[n]``, how many times as large things become.

    Returns:
        ``[n, 3, 3]`` float32: takes an offset from a patch's centre, mm along the array's axes, to
        the one where the image has what shall be there (`patches.Volumes.turned`).
    """
    return (rotations(degrees) / zoom.double()[:, None, None]).float()
