"""Gradients of the losses by hand, as in the paper's Appendix A: what autograd is compared with.

Notation: f logit, p = sigmoid(f), y reference, N voxels of a patch, N_fg of them lesion;
I = sum(p y), S = sum(p + y).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Patch:
    """A patch in which one voxel's probability varies, and the other voxels have two."""

    voxels: int
    lesion: int
    p_lesion: float
    p_background: float

    def sums(self, p: np.ndarray, lesion: bool) -> tuple[np.ndarray, np.ndarray]:
        """I and S, with the voxel that varies at p."""
        overlap = self.lesion * self.p_lesion
        predicted = overlap + (self.voxels - self.lesion) * self.p_background
        if lesion:
            return overlap + p - self.p_lesion, predicted + p - self.p_lesion + self.lesion
        return overlap + 0 * p, predicted + p - self.p_background + self.lesion


def gradient(loss: Mapping[str, Any], p: np.ndarray, lesion: bool, patch: Patch) -> np.ndarray:
    """dL/df of one voxel with probability p, for a loss as `loss_to_dict` describes it.

    Voxel-wise losses are means over N; q = |y - p| is the probability of the wrong class:
        CrossEntropy      (p - y) / N
        Focal             +-a q^g (g (1 - q) softplus(z) + q) / N, softplus(z) = -log(1 - q)
        WeightedGradient  +-a q^g / N                                   (eq. 5)
        Dice, eq. 4       -(2 y (S + e) - 2 I - e) / (S + e)^2 * p (1 - p)
        GeneralisedDice   A15 * p (1 - p)
        Mixed             Dice + CrossEntropy
        Tversky           quotient rule on (I + e) / ((1 - a - b) I + a sum(p) + b N_fg + e)
    with a = alpha for lesion, 1 - alpha for background; alpha None or "patch" is N_bg / N.
    """
    fields: dict[str, Any] = dict(loss.get("fields") or {})
    kind, y, n = loss.get("type"), float(lesion), patch.voxels
    q = np.where(lesion, 1 - p, p)
    sign = 1 - 2 * y
    slope = p * (1 - p)
    alpha = fields.get("alpha")
    if alpha is None or alpha == "patch":
        alpha = (n - patch.lesion) / n
    weight = alpha if lesion else 1 - alpha
    eps = float(fields.get("eps", 0.0))
    overlap, volume = patch.sums(p, lesion)

    def dice(eps: float) -> np.ndarray:
        return -(2 * y * (volume + eps) - (2 * overlap + eps)) / (volume + eps) ** 2 * slope

    if kind == "CrossEntropy":
        return (p - y) / n
    if kind == "WeightedCrossEntropy":
        return weight * (p - y) / n
    if kind == "Focal":
        gamma = float(fields["gamma"])
        return sign * weight * q**gamma * (gamma * (1 - q) * -np.log1p(-q) + q) / n
    if kind == "WeightedGradient":
        return sign * weight * q ** float(fields["gamma"]) / n
    if kind == "Dice":
        return dice(eps)
    if kind == "Mixed":
        return dice(eps) + (p - y) / n
    if kind == "GeneralisedDice":
        power = -2 if fields.get("weights", "inverse_square") == "inverse_square" else -1
        w1, w0 = float(patch.lesion) ** power, float(n - patch.lesion) ** power
        below = (w1 - w0) * volume + 2 * n * w0
        above = (w1 - w0) * (y * volume - overlap) + n * w0 * (2 * y - 1)
        return -2 * (w1 + w0) * above / below**2 * slope
    if kind == "Tversky":
        a, b = float(fields["alpha"]), float(fields["beta"])
        predicted = volume - patch.lesion
        below = (1 - a - b) * overlap + a * predicted + b * patch.lesion + eps
        change = (1 - a - b) * y + a
        return -(y * below - (overlap + eps) * change) / below**2 * slope
    raise ValueError(f"no closed form of {kind}")
