"""Cutting patches out of images: whole cohorts on one device, a batch of patches in one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lesion_core.images import Image
from lesion_core.windows import WindowGrid


@dataclass(frozen=True)
class Patches:
    """Where to cut: parallel tensors, on the device of the volumes that are cut."""

    image: Tensor
    """Number of the image.  int64 ``[n]``"""
    start: Tensor
    """First voxel on the padded grid.  int64 ``[n, 3]``"""
    flip: Tensor
    """Whether to mirror along the image's left-right axis.  bool ``[n]``"""

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Tensor | slice) -> Patches:
        return Patches(self.image[index], self.start[index], self.flip[index])

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All three, in the order of the fields."""
        return self.image, self.start, self.flip

    @property
    def mirrored(self) -> Patches:
        """The same windows, each the other way round."""
        return Patches(self.image, self.start, ~self.flip)

    @staticmethod
    def join(parts: Sequence[Patches]) -> Patches:
        """All patches of several, in order."""
        return Patches(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))


class Volumes:
    """Images on one device as one flat buffer, so that a batch of patches is one gather.

    Images smaller than a patch are padded with 0, the mean intensity of the brain.
    """

    def __init__(
        self,
        voxels: Sequence[np.ndarray],
        lesions: Sequence[np.ndarray],
        left_right_axes: Sequence[int],
        *,
        patch_size: int,
        stride: int,
        device: str = "cpu",
        ignored: Sequence[np.ndarray | None] = (),
    ) -> None:
        """Channels ``[C, X, Y, Z]``, lesion masks ``[X, Y, Z]`` and mirror axis, one per image.

        ``ignored`` are masks too, or None; empty if no image has one.
        """
        self.device = torch.device(device)
        self.patch_size = patch_size
        self.grids = [WindowGrid.of(image.shape[1:], patch_size, stride) for image in voxels]
        sizes = np.array([grid.padded for grid in self.grids], dtype=np.int64)
        ends = np.cumsum(sizes.prod(axis=1))
        strides = np.stack([sizes[:, 1] * sizes[:, 2], sizes[:, 2], 0 * sizes[:, 0] + 1], axis=1)
        values = np.zeros((ends[-1], len(voxels[0])), dtype=np.float32)  # channels last
        for image, grid, end in zip(voxels, self.grids, ends, strict=True):
            part = slice(end - int(np.prod(grid.padded)), end)
            values[part].reshape(*grid.padded, -1)[grid.inside] = np.moveaxis(image, 0, -1)
        self._values = torch.from_numpy(values).to(self.device)
        self._lesion = self._flat(lesions, ends)
        any_ignored = any(mask is not None and mask.any() for mask in ignored)
        self._ignored = self._flat(ignored, ends) if any_ignored else None
        self._offset = torch.from_numpy(ends - sizes.prod(axis=1)).to(self.device)
        self._strides = torch.from_numpy(strides).to(self.device)
        self._left_right = torch.tensor(list(left_right_axes)).to(self.device)
        self._windows = [self._grid_windows(index) for index in range(len(voxels))]
        self._with_lesion: dict[int, Tensor] = {}

    @staticmethod
    def of(
        images: Sequence[Image], *, patch_size: int, stride: int, device: str = "cpu"
    ) -> Volumes:
        """The images of a cohort, on a device."""
        return Volumes(
            [image.voxels for image in images],
            [image.lesion for image in images],
            [image.left_right_axis for image in images],
            patch_size=patch_size,
            stride=stride,
            device=device,
            ignored=[image.ignore for image in images],
        )

    def windows(self, index: int) -> Patches:
        """All windows of one image, unflipped, in the order that its grid stitches."""
        return self._windows[index]

    def with_lesion(self, index: int) -> Tensor:
        """Which windows of one image hold at least one lesion voxel.  ``int64 [m]``, ascending."""
        if index not in self._with_lesion:  # asked for once per epoch
            windows = self.windows(index)
            found = [
                self._lesion.index_select(0, self._index(part)).view(len(part), -1).any(dim=1)
                for part in (windows[at : at + 64] for at in range(0, len(windows), 64))
            ]
            self._with_lesion[index] = torch.nonzero(torch.cat(found))[:, 0]
        return self._with_lesion[index]

    def training_patches(self, indices: Sequence[int], flip: bool) -> Patches:
        """The windows with lesion voxels of these images; with ``flip``, each mirrored as well.

        Mirrored copies double the patches of an epoch, as in the authors' code.
        """
        windows = Patches.join([self.windows(index)[self.with_lesion(index)] for index in indices])
        return Patches.join([windows, windows.mirrored]) if flip else windows

    def gather(self, patches: Patches) -> tuple[Tensor, Tensor]:
        """Cut a batch: images ``[B, C, p, p, p]`` float32 in channels-last memory, and masks.

        Masks are bool ``[B, 1, p, p, p]``.
        """
        index = self._index(patches)
        shape = [len(patches), *3 * [self.patch_size]]
        values = self._values.index_select(0, index).view(*shape, -1)
        lesion = self._lesion.index_select(0, index).view(shape)
        return values.permute(0, 4, 1, 2, 3), lesion[:, None]

    def ignored(self, patches: Patches) -> Tensor | None:
        """Where the voxels of a batch are ignored: bool ``[B, 1, p, p, p]``.

        None if no image has such voxels.
        """
        if self._ignored is None:
            return None
        shape = [len(patches), 1, *3 * [self.patch_size]]
        return self._ignored.index_select(0, self._index(patches)).view(shape)

    def _flat(self, masks: Sequence[np.ndarray | None], ends: np.ndarray) -> Tensor:
        """Masks of all images in one buffer, as the images are."""
        flat = np.zeros(ends[-1], dtype=bool)
        for mask, grid, end in zip(masks, self.grids, ends, strict=True):
            if mask is not None:
                part = slice(end - int(np.prod(grid.padded)), end)
                flat[part].reshape(grid.padded)[grid.inside] = mask
        return torch.from_numpy(flat).to(self.device)

    def _grid_windows(self, index: int) -> Patches:
        start = torch.from_numpy(self.grids[index].windows()).to(self.device)
        image = torch.full((len(start),), index, device=self.device)
        return Patches(image, start, torch.zeros_like(image, dtype=torch.bool))

    def _index(self, patches: Patches) -> Tensor:
        """Where the voxels of the patches lie in the flat buffer, ``[B * p * p * p]``."""
        image, start, flip = patches.image, patches.start, patches.flip
        along = torch.arange(self.patch_size, device=image.device)
        index = self._offset[image].view(-1, 1, 1, 1)
        for axis in range(3):
            mirrored = (flip & (self._left_right[image] == axis))[:, None]
            voxel = start[:, axis, None] + torch.where(mirrored, self.patch_size - 1 - along, along)
            shape = [len(patches), 1, 1, 1]
            shape[axis + 1] = self.patch_size
            index = index + (voxel * self._strides[image, axis, None]).view(shape)
        return index.reshape(-1)
