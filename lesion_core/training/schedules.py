"""What the learning rate is at a step: a function of its number alone, so nothing of it is kept."""

from __future__ import annotations

import math

from lesion_core.settings import Schedule, TrainSettings

POLY_POWER = 0.9
"""nnU-Net's."""


def rate_at(step: int, steps_per_epoch: int, settings: TrainSettings) -> float:
    """Learning rate of a training's step, counted from 0.

    Over the first W = ``warmup_epochs`` x ``steps_per_epoch`` steps it rises linearly,
    rate (step + 1) / W; the T steps after them have rate f(t / T), with t counted from 0 again, and
    f is `falling`.

    >>> [rate_at(s, 2, TrainSettings(epochs=2, learning_rate=8.0, warmup_epochs=1)) for s in (0, 1)]
    [4.0, 8.0]
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    after = settings.epochs * steps_per_epoch - warmup
    return settings.learning_rate * falling(settings.schedule, (step - warmup) / after)


def falling(schedule: Schedule, part: float) -> float:
    """Share of the highest learning rate once ``part`` of the steps, in [0, 1), is done.

    constant: 1.  poly: (1 - part) ** 0.9.  cosine: (1 + cos(pi part)) / 2 (Loshchilov & Hutter
    2017).

    >>> falling("cosine", 0.5), falling("poly", 0.0), falling("constant", 0.9)
    (0.5, 1.0, 1.0)
    """
    if schedule == "poly":
        return (1 - part) ** POLY_POWER
    if schedule == "cosine":
        return (1 + math.cos(math.pi * part)) / 2
    return 1.0


def moves(settings: TrainSettings) -> bool:
    """Whether any two steps have different learning rates."""
    return settings.schedule != "constant" or settings.warmup_epochs > 0
