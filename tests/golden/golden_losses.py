"""Losses of a user's own, imported by path; every byte here is part of their trials' names."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


def brier(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the probabilities."""
    return ((logits.sigmoid() - target) ** 2).mean()


def infinite(logits: Tensor, target: Tensor) -> Tensor:
    """Fails every trial in its first batch."""
    return ((logits - target) ** 2).mean() / 0


@dataclass(frozen=True, kw_only=True)
class PowerError:
    """Mean power of the probabilities' errors."""

    power: float = field(default=2.0, metadata={"search": (1, 4)})

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return ((logits.sigmoid() - target).abs() ** self.power).mean()
