"""One epoch of training, and the settings that define a training."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from lesion_core.patches import Patches
from lesion_core.precision import PRECISIONS
from lesion_core.step import Step


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything besides data, loss, seed and fold that decides what a training computes.

    Defaults are the paper's (section 2) and, where it is silent, its authors' code.
    """

    epochs: int = 25
    """Passes over the training patches; each is followed by an evaluation."""
    batch_size: int = 16
    """Patches per step (paper, 2.1.3)."""
    patch_size: int = 32
    """Side of the cubic windows, voxels."""
    stride: int | None = None
    """Voxels between windows; none: half a window, as in the paper."""
    learning_rate: float = 1e-4
    """Of Adam, constant."""
    filters: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the network's levels."""
    flip: bool = True
    """Train on every patch twice per epoch, once mirrored left-right."""
    precision: str = "fp32"
    """Of the network's arithmetic: fp32, bf16, or tf32 (GPUs only: fp32 but for the factors of
    convolutions, rounded to 10 bits).  Weights and loss stay fp32."""

    def __post_init__(self) -> None:
        stride = max(1, self.patch_size // 2) if self.stride is None else self.stride
        object.__setattr__(self, "stride", stride)
        object.__setattr__(self, "filters", tuple(int(width) for width in self.filters))
        for name, least in {"epochs": 1, "batch_size": 1, "patch_size": 1, "stride": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if stride > self.patch_size:
            raise ValueError(
                f"stride {stride} exceeds patch_size {self.patch_size}: voxels between "
                f"windows would never be predicted; expected {self.patch_size} or less"
            )
        multiple = 2 ** (len(self.filters) - 1)
        if self.patch_size % multiple:
            raise ValueError(
                f"patch_size {self.patch_size} with {len(self.filters)} levels of filters: "
                f"expected a multiple of {multiple}"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected more than 0")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}"
            )

    @property
    def window_stride(self) -> int:
        """``stride`` as a number: settings that were made have one."""
        assert self.stride is not None
        return self.stride

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` undoes it."""
        return asdict(self) | {"filters": list(self.filters)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrainSettings:
        """Raises ValueError when a field is unknown or absent."""
        expected = {field.name for field in fields(TrainSettings)}
        if values.keys() != expected:
            raise ValueError(
                f"training settings do not fit this release: unknown "
                f"{sorted(values.keys() - expected)}, missing {sorted(expected - values.keys())}"
            )
        return TrainSettings(**values)


class Diverged(RuntimeError):
    """The loss, or the norm of its gradient, became NaN or infinite."""

    def __init__(self, epoch: int, batch: int, value: float, what: str = "loss") -> None:
        super().__init__(f"{what} became {value} in epoch {epoch}, batch {batch}")
        self.epoch, self.batch, self.value, self.what = epoch, batch, value, what

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, int, float, str]]:
        return type(self), (self.epoch, self.batch, self.value, self.what)


def generator(seed: int, fold: int, epoch: int, purpose: str) -> torch.Generator:
    """The random numbers of one purpose: the same for every loss, and at any restart."""
    key = [seed, fold, epoch, zlib.crc32(purpose.encode())]
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def batches(
    patches: Patches, batch_size: int, shuffle: torch.Generator | None = None
) -> Iterator[Patches]:
    """Patches in order, or shuffled; the last batch may be smaller."""
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


def train_epoch(
    step: Step, patches: Patches, *, epoch: int, shuffle: torch.Generator
) -> EpochLosses:
    """One pass over the patches: mean loss, mean gradient norm, and how many batches.

    A GPU is waited for once, at the end.

    Raises:
        Diverged: the loss of a batch, or its gradient's norm, is NaN or infinite.
    """
    step.network.train()
    found: list[Tensor] = []
    with step.apart():
        for batch in batches(patches, step.batch_size, shuffle):
            found.append(step(batch))
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
