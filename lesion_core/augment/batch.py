"""A batch of patches together with the random numbers that change it, and how it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lesion_core.augment.kinds import AFFINE, FLIP, Augmentation
from lesion_core.patches import Patches, Volumes
from lesion_core.training.randomness import generator


@dataclass(frozen=True)
class Augmented:
    """Patches, and what happens to them between cutting and training; stands for `Patches`."""

    patches: Patches
    augmentation: Augmentation
    drawn: dict[str, Tensor]
    """What `Augmentation.draw` gave, on the patches' device."""

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that distinguishes this batch from another one of its size."""
        return (*self.patches.tensors, *self.drawn.values())

    def with_tensors(self, tensors: Sequence[Tensor]) -> Augmented:
        """The same with others in the place of `tensors`."""
        number = len(self.patches.tensors)
        drawn = dict(zip(self.drawn, tensors[number:], strict=True))
        return Augmented(self.patches.with_tensors(tensors[:number]), self.augmentation, drawn)

    @property
    def recordable(self) -> bool:
        """Whether a GPU may record and replay what is done to it (`training.step`)."""
        return self.augmentation.recordable

    def cut(self, volumes: Volumes) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images ``[B, C, p, p, p]``, lesion masks and ignored voxels ``[B, 1, p, p, p]``.

        Masks go where the images go.  What is padding stays 0 whatever happens to intensities: it
        is what the network sees there of images that are not augmented.
        """
        patches, drawn = self.patches, self.drawn
        if FLIP in drawn:
            patches = Patches(patches.image, patches.start, patches.flip ^ drawn[FLIP])
        if AFFINE in drawn:
            images, lesion, ignored, inside = volumes.turned(patches, drawn[AFFINE])
        else:
            images, lesion = volumes.gather(patches)
            ignored, inside = volumes.ignored(patches), volumes.inside(patches)
        images = self.augmentation(images, drawn)
        if inside is not None:
            images = images.masked_fill(~inside, 0)
        return images, lesion, ignored


@dataclass(frozen=True, kw_only=True)
class Augmenter:
    """Draws the random numbers of the batches of an epoch."""

    augmentation: Augmentation
    channels: int
    """Of the images."""
    patch_size: int
    seed: int
    fold: int
    epoch: int

    def __call__(self, patches: Patches, number: int) -> Augmented:
        """The ``number``-th batch of the epoch, with its draws on the device of the patches."""
        drawn = self.augmentation.draw(
            len(patches),
            self.channels,
            self.patch_size,
            generator(self.seed, self.fold, self.epoch, f"augment {number}"),
        )
        device = patches.image.device
        return Augmented(patches, self.augmentation, {k: _on(device, v) for k, v in drawn.items()})


def _on(device: torch.device, drawn: Tensor) -> Tensor:
    """The same on a device; a GPU is not waited for."""
    if device.type != "cuda":
        return drawn.to(device)
    return drawn.pin_memory().to(device, non_blocking=True)
