"""The augmentations that are built in: what they may do to a patch, and how likely."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from lesion_core.augment import intensity, spatial

FLIP, AFFINE = "flip", "affine"
"""The draws that say where a patch's voxels come from; images and masks follow both."""

Drawn = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Augmentation(ABC):
    """What happens to a batch of training patches: random numbers first, then a fixed function.

    To move voxels, draw `FLIP`, bool ``[n]`` (mirrored along the image's left-right axis), or
    `AFFINE`, float ``[n, 3, 3]`` (`spatial.lookups`); images, lesions and ignored voxels then
    follow by themselves.  Intensities are changed by calling it.
    """

    name: ClassVar[str]
    """Understood by `augmentation_named`, alone or with fields behind it."""

    @property
    def recordable(self) -> bool:
        """Whether it does the same operations on tensors of one shape, whatever their values."""
        return True

    @abstractmethod
    def draw(
        self, number: int, channels: int, patch_size: int, generator: torch.Generator
    ) -> Drawn:
        """All random numbers of a batch, on the CPU, from the generator alone.

        Tensors by name, ``[number, ...]``; their shapes depend on these arguments alone.
        """

    def __call__(self, images: Tensor, drawn: Drawn) -> Tensor:
        """The images ``[B, C, p, p, p]`` with other intensities; ``drawn`` is on their device."""
        return images


@dataclass(frozen=True, kw_only=True)
class Flip(Augmentation):
    """Mirror patches left-right at random.

    Whatever the setting ``flip`` does: with it every patch is there twice an epoch, once as it is
    and once mirrored, and each of the two is then mirrored or not.
    """

    name: ClassVar[str] = "flip"
    p: float = 0.5
    """Probability of each patch."""

    def __post_init__(self) -> None:
        _check(self)

    def draw(
        self, number: int, channels: int, patch_size: int, generator: torch.Generator
    ) -> Drawn:
        return {FLIP: torch.rand(number, generator=generator) < self.p}


@dataclass(frozen=True, kw_only=True)
class Standard(Augmentation):
    """What nnU-Net does to a patch, as probabilities ``_p`` per patch and ranges.

    Defaults are those of nnU-Net v2 (Isensee et al. 2021, Nature Methods 18, Supplementary Note 2;
    ``nnUNetTrainer.get_training_transforms``).  Otherwise than there: mirrored left-right only;
    turned in mm, so that voxels need not be cubes; voxels from beyond the patch are the image's;
    low resolution comes before brightness, and is interpolated linearly; blur is alike along the
    axes.  Intensities are z-scores: 0 is the mean of the brain.
    """

    name: ClassVar[str] = "standard"
    flip_p: float = 0.5
    rotation_p: float = 0.2
    rotation_degrees: float = 30.0
    """About each axis, up to so many either way."""
    zoom_p: float = 0.2
    zoom_low: float = 0.7
    zoom_high: float = 1.4
    """Things become so many times as large; below 1 as often as above."""
    noise_p: float = 0.1
    noise_sd: float = 0.1
    """Standard deviation of the noise, 0 up to this (what nnU-Net calls a variance it uses so)."""
    blur_p: float = 0.2
    blur_low: float = 0.5
    blur_high: float = 1.0
    """Standard deviation of the Gaussian, voxels; of a patch that is, each channel by 1/2."""
    low_resolution_p: float = 0.25
    low_resolution: float = 0.5
    """Voxels along an axis that are left, as a part, this to 1; of a patch that is, each channel by
    1/2."""
    brightness_p: float = 0.15
    brightness_low: float = 0.75
    brightness_high: float = 1.25
    """Factor of the z-scores; below 1 as often as above."""
    contrast_p: float = 0.15
    contrast_low: float = 0.75
    contrast_high: float = 1.25
    """Factor of the difference from the patch's mean; below 1 as often as above."""
    shift_p: float = 0.0
    shift_sd: float = 0.1
    """Standard deviation of what is added to the z-scores; nnU-Net has it, switched off."""
    gamma_p: float = 0.3
    gamma_inverted_p: float = 0.1
    gamma_low: float = 0.7
    gamma_high: float = 1.5
    """Exponent; below 1 as often as above."""

    def __post_init__(self) -> None:
        _check(self)
        for name in ("zoom", "brightness", "contrast", "gamma"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if not 0 < low <= 1 <= high:
                raise ValueError(
                    f"augmentation standard: {name}_low {low:g} and {name}_high {high:g}; expected "
                    "more than 0, and 1 between them"
                )
        if not 0 < self.blur_low <= self.blur_high:
            raise ValueError(
                f"augmentation standard: blur_low {self.blur_low:g} and blur_high "
                f"{self.blur_high:g}; expected more than 0, and the lower one first"
            )
        if not 0 < self.low_resolution <= 1:
            raise ValueError(
                f"augmentation standard: low_resolution is {self.low_resolution:g}; expected more "
                "than 0 and at most 1"
            )

    def draw(
        self, number: int, channels: int, patch_size: int, generator: torch.Generator
    ) -> Drawn:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(number, *shape, generator=generator, dtype=torch.float64)

        def chosen(p: float, per_channel: float = 1.0) -> Tensor:
            """Which channels ``[n, C]``: those of the chosen patches, each with a probability."""
            patches, each = uniform(1) < p, uniform(channels) < per_channel
            return patches & each

        def factor(p: float, low: float, high: float) -> Tensor:
            """1, or a factor of each channel of the chosen patches ``[n, C]``."""
            return torch.where(chosen(p), _factor(uniform(channels, 2), low, high), 1.0).float()

        turned, zoomed = uniform() < self.rotation_p, uniform() < self.zoom_p
        degrees = (2 * uniform(3) - 1) * self.rotation_degrees * turned[:, None]
        zoom = torch.where(zoomed, _factor(uniform(2), self.zoom_low, self.zoom_high), 1.0)
        noisy = chosen(self.noise_p)
        blurred = chosen(self.blur_p, per_channel=0.5)
        blur = self.blur_low + (self.blur_high - self.blur_low) * uniform(channels)
        lowered = chosen(self.low_resolution_p, per_channel=0.5)
        part = self.low_resolution + (1 - self.low_resolution) * uniform(channels)
        coarse = (part * patch_size).round().clamp(min=1).long()
        shifts = torch.randn(number, channels, generator=generator) * self.shift_sd
        return {
            FLIP: uniform() < self.flip_p,
            AFFINE: spatial.lookups(degrees, zoom),
            "noise": (noisy * uniform(1) * self.noise_sd).float(),
            "noise_seed": (uniform(channels) * 2**32).long(),
            "smooth": _smoothing(blurred * blur, lowered, coarse, patch_size),
            "smoothed": blurred | lowered,
            "brightness": factor(self.brightness_p, self.brightness_low, self.brightness_high),
            "contrast": factor(self.contrast_p, self.contrast_low, self.contrast_high),
            "shift": shifts * chosen(self.shift_p),
            "gamma_inverted": factor(self.gamma_inverted_p, self.gamma_low, self.gamma_high),
            "gamma": factor(self.gamma_p, self.gamma_low, self.gamma_high),
        }

    def __call__(self, images: Tensor, drawn: Drawn) -> Tensor:
        images = images.clone(memory_format=torch.contiguous_format)
        images = intensity.with_noise(images, drawn["noise"], drawn["noise_seed"])
        images = intensity.smoothed(images, drawn["smooth"], drawn["smoothed"])
        images = intensity.scaled(images, drawn["brightness"])
        images = intensity.contrasted(images, drawn["contrast"])
        images = intensity.shifted(images, drawn["shift"])
        images = intensity.gamma_of(images, drawn["gamma_inverted"], inverted=True)
        return intensity.gamma_of(images, drawn["gamma"])


def _factor(uniform: Tensor, low: float, high: float) -> Tensor:
    """A number between low and 1 or between 1 and high, each half of the time; ``[..., 2]`` in."""
    side, place = uniform.unbind(-1)
    return torch.where(side < 0.5, low + (1 - low) * place, 1 + (high - 1) * place)


def _smoothing(blur: Tensor, lowered: Tensor, coarse: Tensor, size: int) -> Tensor:
    """Blur, then low resolution, as one matrix of each channel ``[n, C, size, size]``."""
    found = torch.eye(size).repeat(*blur.shape, 1, 1)
    blurred = blur > 0
    found[blurred] = intensity.blur_matrices(blur[blurred], size)
    for patch, channel in torch.nonzero(lowered).tolist():
        coarser = intensity.low_resolution_matrix(int(coarse[patch, channel]), size)
        found[patch, channel] = coarser @ found[patch, channel]
    return found


def _check(augmentation: Augmentation) -> None:
    """Every field is a number, 0 or more; a probability is at most 1 (ValueError)."""
    for field in fields(augmentation):
        value = getattr(augmentation, field.name)
        is_probability = field.name == "p" or field.name.endswith("_p")
        is_number = isinstance(value, (int, float)) and type(value) is not bool
        if not (
            is_number and math.isfinite(value) and 0 <= value <= (1 if is_probability else value)
        ):
            wanted = "a probability from 0 to 1" if is_probability else "a number, 0 or more"
            raise ValueError(
                f"augmentation {augmentation.name}: {field.name} is {value!r}; expected {wanted}"
            )
        object.__setattr__(augmentation, field.name, float(value))
