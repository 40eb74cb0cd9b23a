"""The flags that sweeps share: how a network is trained, and on which machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lesion_core.training.epoch import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Training:
    """How each network is trained; the defaults are the paper's."""

    epochs: int = 25
    """Passes over the training patches."""
    batch_size: int = 16
    """Patches per step."""
    patch_size: int = 32
    """Side of the cubic patches, voxels; they overlap by half."""
    learning_rate: float = 1e-4
    """Of Adam, constant."""
    filters: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the network's levels; 8 16 32 64 is narrow and fast."""
    flip: bool = True
    """Train on every patch twice per epoch, once mirrored left-right (authors' code)."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the network's arithmetic, tf32 on GPUs only; weights and loss stay fp32."""

    def settings(self) -> TrainSettings:
        """Raises ValueError when they contradict each other."""
        from lesion_core.training.epoch import TrainSettings
        from lesion_core.unet import UNet3d

        settings = TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            patch_size=self.patch_size,
            learning_rate=self.learning_rate,
            filters=self.filters,
            flip=self.flip,
            precision=self.precision,
        )
        UNet3d(1, settings.filters)  # refuses widths that it cannot have
        return settings


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where trials run, and how much of it each one takes."""

    address: str | None = None
    """Ray cluster: auto (the one this machine belongs to) or host:port; none: this machine."""
    cpus_per_trial: int = 1
    """CPU cores, and threads, of a trial."""
    gpus_per_trial: float | None = None
    """GPUs of a trial: 1, 0, or 1/n to share one; default: 1 where there are any."""
    checkpoint_every: int = 1
    """Epochs between checkpoints: what a trial that lost its machine may have to train again."""
    retries: int = 3
    """How often a trial may lose its worker or machine; preempted machines do not count."""
    quiet: bool = False
    """Show no progress, only failures and the end."""

    def __post_init__(self) -> None:
        if self.cpus_per_trial < 1:
            raise ValueError(f"--cpus-per-trial {self.cpus_per_trial}: expected 1 or more")
        if self.checkpoint_every < 1:
            raise ValueError(f"--checkpoint-every {self.checkpoint_every}: expected 1 or more")
        if self.retries < 0:
            raise ValueError(f"--retries {self.retries}: expected 0 or more")
        gpus = self.gpus_per_trial
        if gpus and not (0 < gpus <= 1 and abs(1 / gpus - round(1 / gpus)) < 1e-6):
            raise ValueError(
                f"--gpus-per-trial {gpus:g}: expected 0, 1 or 1/n such as 0.5 or 0.25: "
                "a trial uses one GPU, or an equal share of one"
            )
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                f"--address {self.address}: Ray's client protocol is not supported; run this on a "
                "machine of the cluster, with --address auto"
            )
