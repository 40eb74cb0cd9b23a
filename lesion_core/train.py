"""One epoch of training, and the settings that define a training."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lesion_core.patches import Patches, Volumes

PRECISIONS = ("fp32", "tf32", "bf16")

LossFunction = Callable[[Tensor, Tensor], Tensor]


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
        if self.stride is None:
            object.__setattr__(self, "stride", max(1, self.patch_size // 2))
        object.__setattr__(self, "filters", tuple(int(width) for width in self.filters))
        for name, least in {"epochs": 1, "batch_size": 1, "patch_size": 1, "stride": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.stride > self.patch_size:
            raise ValueError(
                f"stride {self.stride} exceeds patch_size {self.patch_size}: voxels between "
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

    def to_dict(self) -> dict:
        """Plain JSON values; `from_dict` undoes it."""
        return asdict(self) | {"filters": list(self.filters)}

    @staticmethod
    def from_dict(values: dict) -> TrainSettings:
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

    def __reduce__(self) -> tuple:
        return type(self), (self.epoch, self.batch, self.value, self.what)


def generator(seed: int, fold: int, epoch: int, purpose: str) -> torch.Generator:
    """The random numbers of one purpose: the same for every loss, and at any restart."""
    key = [seed, fold, epoch, zlib.crc32(purpose.encode())]
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


@contextmanager
def convolutions(precision: str) -> Iterator[None]:
    """How a GPU convolves in this block, forward and backward.

    By the algorithm that proves fastest for each shape, of which training and evaluation have two
    each (unless PyTorch is told to be deterministic: two processes may prove different ones
    fastest); and in fp32 proper unless ``precision`` says tf32, which PyTorch would use unasked.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which the network runs."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def batches(
    patches: Patches, batch_size: int, shuffle: torch.Generator | None = None
) -> Iterator[Patches]:
    """Patches in order, or shuffled; the last batch may be smaller."""
    if shuffle is not None:
        order = torch.randperm(len(patches), generator=shuffle)  # drawn on the CPU for any device
        patches = patches[order.to(patches.image.device)]
    for begin in range(0, len(patches), batch_size):
        yield patches[begin : begin + batch_size]


def check_precision(precision: str, device: str) -> None:
    """Raises ValueError if this device does not compute so, rather than compute otherwise."""
    on_gpu = device.startswith("cuda")
    if precision == "tf32" and not on_gpu:
        raise ValueError("precision tf32 without a GPU: CPUs do not have it; use fp32 or bf16")
    if precision != "fp32" and on_gpu and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f"precision {precision} on {torch.cuda.get_device_name(device)}: GPUs of compute "
            "capability below 8.0 do not have it; use fp32"
        )


def train_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: LossFunction,
    volumes: Volumes,
    patches: Patches,
    settings: TrainSettings,
    *,
    epoch: int,
    shuffle: torch.Generator,
) -> dict[str, float | int]:
    """One pass over the patches: mean loss, mean gradient norm, and how many batches.

    A GPU is waited for once, at the end.

    Raises:
        Diverged: the loss of a batch, or its gradient's norm, is NaN or infinite.
    """
    network.train()
    values, norms = [], []
    parameters = [p for p in network.parameters() if p.requires_grad]
    with convolutions(settings.precision):
        for batch in batches(patches, settings.batch_size, shuffle):
            inputs, target = volumes.gather(batch)
            with autocast(volumes.device, settings.precision):
                logits = network(inputs)
            value = loss(logits.float(), target.float())
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            values.append(value.detach())
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
            if volumes.device.type == "cpu":  # free here; on a GPU it would wait for every batch
                _check(values[-1:], norms[-1:], epoch, first=len(values))
            optimiser.step()
    _check(values, norms, epoch)
    return {
        "train_loss": float(torch.stack(values).double().mean()),
        "grad_norm": float(torch.stack(norms).double().mean()),
        "n_batches": len(values),
    }


def _check(values: list[Tensor], norms: list[Tensor], epoch: int, first: int = 1) -> None:
    found = torch.stack([torch.stack(values), torch.stack(norms)]).float().cpu()
    for batch in torch.nonzero(~torch.isfinite(found).all(dim=0))[:1, 0].tolist():
        loss, norm = found[:, batch].tolist()
        if math.isfinite(loss):
            raise Diverged(epoch, first + batch, norm, "gradient norm")
        raise Diverged(epoch, first + batch, loss)
