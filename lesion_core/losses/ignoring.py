"""How ignored voxels are kept out of a loss, whichever loss it is."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

SURE = -80.0
"""Logit of a voxel that is as surely background as any network could say: 2e-35 adds to no sum,
but its logarithm is finite in single precision, for losses that take one."""


def loss_of(
    loss: Callable[[Tensor, Tensor], Tensor],
    logits: Tensor,
    target: Tensor,
    ignored: Tensor | None = None,
) -> Tensor:
    """The loss of a batch ``[B,1,X,Y,Z]``, untouched by what is where ``ignored`` (bool) is true.

    There the loss sees background that is surely predicted, whatever the target and the logits
    are, and no gradient goes back.  So it costs nothing and is in no overlap; but it is counted
    where a loss counts voxels: in a mean over them, in N_bg / N as a weight, in the share of the
    worst ones.  Ignored voxels make such a loss smaller in the same proportion as as much easy
    background would.

    >>> import torch
    >>> from lesion_core.losses import Dice
    >>> logits, target = torch.tensor([[[[[0.0, 9.0]]]]]), torch.tensor([[[[[1.0, 0.0]]]]])
    >>> print(f"{loss_of(Dice(), logits, target, torch.tensor([False, True])):.4f}")  # 1 - 1 / 1.5
    0.3333
    """
    if ignored is not None:
        logits, target = logits.masked_fill(ignored, SURE), target.masked_fill(ignored, 0)
    return loss(logits, target)
