"""One epoch of training: a pass over the patches in an order that the seed decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TypedDict

import torch
from torch import Tensor

from lesion_core.patches import Patches
from lesion_core.stopping import TrainingStopped
from lesion_core.training.step import Batch, Step


class Diverged(RuntimeError):
    """The loss, or the norm of its gradient, became NaN or infinite."""

    def __init__(self, epoch: int, batch: int, value: float, what: str = "loss") -> None:
        super().__init__(f"{what} became {value} in epoch {epoch}, batch {batch}")
        self.epoch, self.batch, self.value, self.what = epoch, batch, value, what

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, int, float, str]]:
        return type(self), (self.epoch, self.batch, self.value, self.what)


def batches(
    patches: Patches, batch_size: int, shuffle: torch.Generator | None = None
) -> Iterator[Patches]:
    """Part patches into batches, in order or shuffled; the last batch may be smaller."""
    if shuffle is not None:
        order = torch.randperm(len(patches), generator=shuffle)  # drawn on the CPU for any device
        patches = patches[order.to(patches.image.device)]
    for begin in range(0, len(patches), batch_size):
        yield patches[begin : begin + batch_size]


class EpochLosses(TypedDict):
    """What an epoch of training had on average over its batches; nothing if it did not train."""

    train_loss: float | None
    grad_norm: float | None
    n_batches: int


def never() -> bool:
    """Nobody asks to stop."""
    return False


def nothing(batch: int) -> None:
    """Nothing is to be done before a batch."""


def train_epoch(
    step: Step,
    patches: Patches,
    *,
    epoch: int,
    shuffle: torch.Generator,
    augmented: Callable[[Patches, int], Batch] | None = None,
    found: list[Tensor] | None = None,
    stop: Callable[[], bool] = never,
    before_batch: Callable[[int], None] = nothing,
) -> EpochLosses:
    """One pass over the patches: mean loss, mean gradient norm, and how many batches.

    A GPU is waited for once, at the end.

    Args:
        step: trains on a batch.
        patches: all of an epoch.
        epoch: its number, from 1.
        shuffle: decides the order.
        augmented: what becomes of a batch, given which of the epoch it is (from 0).
        found: loss and gradient norm ``[2]`` of the batches that were trained on already, which
            are passed over; those of the others are added.
        stop: asked before every batch.
        before_batch: called with the number of every batch, from 0, before it is trained on; what
            it has a GPU do is done before that, too.

    Raises:
        Diverged: the loss of a batch, or its gradient's norm, is NaN or infinite.
        TrainingStopped: ``stop`` said so.
    """
    step.network.train()
    found = [] if found is None else found
    with step.apart():
        for batch in itertools.islice(batches(patches, step.batch_size, shuffle), len(found), None):
            if stop():
                raise TrainingStopped
            before_batch(len(found))
            found.append(step(batch if augmented is None else augmented(batch, len(found))))
            if step.device.type == "cpu":  # free here; a GPU would be waited for in every batch
                _check(found[-1:], epoch, first=len(found))
        values = _check(found, epoch)
    loss, norm = values.double().mean(dim=0).tolist()
    return {"train_loss": loss, "grad_norm": norm, "n_batches": len(values)}


def _check(found: list[Tensor], epoch: int, first: int = 1) -> Tensor:
    """Loss and gradient norm of each batch ``[n, 2]``, on the CPU."""
    values = torch.stack(found).cpu()
    for batch in torch.nonzero(~torch.isfinite(values).all(dim=1))[:1, 0].tolist():
        loss, norm = values[batch].tolist()
        if math.isfinite(loss):
            raise Diverged(epoch, first + batch, norm, "gradient norm")
        raise Diverged(epoch, first + batch, loss)
    return values
