"""How hard a loss pulls on a voxel, by the probability that the network gives it.

Training follows the gradient of a loss by the logits, not its value (the paper's Appendix A).
Here it is taken by autograd, as training does, for a loss of any kind: one voxel's probability
varies, the rest of a typical patch stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lesion_core.losses.named import Loss, loss_label
from lesion_core.windows import WindowGrid

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort
    from lesion_core.settings import TrainSettings

STATES = {"untrained": (0.5, 0.5), "under way": (0.7, 0.01)}
"""Probability of lesion and of background voxels at the start and in the middle of a training."""

PROBABILITIES = tuple(
    sorted({*np.linspace(0.002, 0.998, 31).round(4).tolist(), 0.005, 0.01, 0.7, 0.99, 0.995})
)
"""Those given to the voxel that varies, in rising order."""


@dataclass(frozen=True)
class TypicalPatch:
    """A cubic patch with a compact lesion in its middle."""

    size: int
    """Voxels along a side."""
    lesion_voxels: int

    @staticmethod
    def of(cohort: LoadedCohort, settings: TrainSettings) -> TypicalPatch:
        """A patch with the mean lesion of the cohort's training patches, at least a voxel.

        Training patches are the windows that hold lesion, of every case.
        """
        size, counts = settings.patch_size, [np.zeros(0)]
        for image in cohort.images:
            lesion = image.lesion
            grid = WindowGrid.of(lesion.shape, size, settings.window_stride)
            counts.append(grid.counts(lesion))
        held = np.concatenate(counts)
        held = held[held > 0]
        return TypicalPatch(size, max(1, round(float(held.mean()))) if len(held) else 1)

    @property
    def voxels(self) -> int:
        """Voxels of the whole patch."""
        return self.size**3

    def target(self) -> Tensor:
        """Its reference mask, float32 ``[1,1,p,p,p]``."""
        along = torch.arange(self.size) - (self.size - 1) / 2
        squares = along**2
        distance = squares[:, None, None] + squares[:, None] + squares
        mask = torch.zeros(self.voxels)
        mask[distance.flatten().argsort(stable=True)[: self.lesion_voxels]] = 1
        return mask.view(1, 1, self.size, self.size, self.size)


def gradient_curve(loss: Loss, patch: TypicalPatch) -> list[dict[str, Any]]:
    """Rows of `results.GRADIENTS` for one loss.

    Raises:
        ValueError: the loss cannot be evaluated on such a patch, or gives no finite gradient.
    """
    label, target = loss_label(loss), patch.target()
    is_lesion = target > 0
    first = {True: int(target.argmax()), False: int(target.argmin())}
    rows = []
    for state, (p_lesion, p_background) in STATES.items():
        rest = torch.where(is_lesion, _logit(p_lesion), _logit(p_background))
        at_rest = _gradient(loss, rest, target)
        for lesion, own in ((True, p_lesion), (False, p_background)):
            # The mean: of voxels that are all alike, a loss may pick some, such as the worst ones.
            found = {own: float(at_rest[is_lesion == lesion].mean())}
            for p in PROBABILITIES if state == "under way" else ():
                if p != own:
                    logits = rest.clone()
                    logits.view(-1)[first[lesion]] = _logit(p)
                    found[p] = float(_gradient(loss, logits, target).view(-1)[first[lesion]])
            rows += [
                {
                    "loss": label,
                    "state": state,
                    "lesion": lesion,
                    "probability": p,
                    "gradient": found[p],
                    "patch_voxels": patch.voxels,
                    "lesion_voxels": patch.lesion_voxels,
                    "p_lesion": p_lesion,
                    "p_background": p_background,
                }
                for p in sorted(found)
            ]
    return rows


def gradient_rows(
    losses: Iterable[Loss], patch: TypicalPatch, on_failure: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of `results.GRADIENTS` for several losses.

    A loss that has no curve has no rows; ``on_failure`` hears of it, one line.
    """
    rows = []
    for loss in losses:
        try:
            rows += gradient_curve(loss, patch)
        except ValueError as error:
            on_failure(str(error))
    return rows


def _gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    try:
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            (found,) = torch.autograd.grad(loss(logits, target), logits)
    except Exception as error:  # a user's loss can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"loss {loss_label(loss)} has no gradient curve: {reason}") from error
    if not torch.isfinite(found).all():
        raise ValueError(f"loss {loss_label(loss)} has no gradient curve: it is not finite")
    return found


def _logit(probability: float) -> Tensor:
    """Float32, from double precision."""
    return torch.logit(torch.tensor(probability, dtype=torch.float64)).float()
