"""Cutting patches out of images: whole cohorts on one device, a batch of patches in one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lesion_core.images import Image
from lesion_core.windows import WindowGrid

TURNED_AT_ONCE = 16
"""Patches that are turned together: some 20 numbers are held for each of their voxels."""


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

    def with_tensors(self, tensors: Sequence[Tensor]) -> Patches:
        """The same with others in the place of `tensors`."""
        return Patches(*tensors)

    def cut(self, volumes: Volumes) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, lesion masks and ignored voxels, as `Volumes.gather` and `Volumes.ignored`."""
        images, lesion = volumes.gather(self)
        return images, lesion, volumes.ignored(self)

    @property
    def recordable(self) -> bool:
        """Whether a GPU may record and replay how they are cut (`training.step`): always."""
        return True

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
        spacing_mm: Sequence[Sequence[float]] = (),
    ) -> None:
        """Channels ``[C, X, Y, Z]``, lesion masks ``[X, Y, Z]`` and mirror axis, one per image.

        ``ignored`` are masks too, or None; empty if no image has one.  ``spacing_mm`` of the voxels
        is needed where patches are turned; empty: cubes.
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
        self._padded = torch.from_numpy(sizes).to(self.device)
        first = np.array([[part.start for part in grid.inside] for grid in self.grids])
        last = np.array([[part.stop - 1 for part in grid.inside] for grid in self.grids])
        self._first, self._last = (torch.from_numpy(ends).to(self.device) for ends in (first, last))
        self._any_padding = bool((last - first + 1 < sizes).any())
        sides = torch.tensor([*map(list, spacing_mm)] or [3 * [1.0]] * len(voxels))
        self._spacing = sides.float().to(self.device)
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
            spacing_mm=[image.spacing_mm for image in images],
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

    def inside(self, patches: Patches) -> Tensor | None:
        """Which voxels of a batch are an image's, not padding: bool ``[B, 1, p, p, p]``.

        None if no image is padded.
        """
        if not self._any_padding:
            return None
        return self._inside(patches.image, self._voxels(patches))[:, None]

    def turned(
        self, patches: Patches, lookup: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Cut a batch as `gather` does, but turned and zoomed about each patch's centre.

        Images are interpolated linearly; masks are the nearest voxel's.  Voxels from beyond the
        patch are the image's; from beyond the image they are padding: 0, no lesion, not ignored.
        Where the matrix is the identity, the bits are those of `gather`.

        Args:
            patches: which, mirrored or not; mirroring comes last.
            lookup: ``[B, 3, 3]``, takes the offset of a voxel from the patch's centre, mm along
                the array's axes, to that of the place in the image that it shall show.

        Returns:
            Images ``[B, C, p, p, p]``, and lesion masks, ignored voxels (None: of no image) and
            what is not padding, ``[B, 1, p, p, p]`` each.
        """
        if self.device.type != "cpu":
            return self._turned_in_parts(patches, lookup)
        # Free to look there, so that only what is really turned takes the time.
        turned = torch.nonzero((lookup != torch.eye(3)).flatten(1).any(dim=1))[:, 0]
        images, lesion = self.gather(patches)
        ignored, inside = self.ignored(patches), self.inside(patches)
        inside = torch.ones_like(lesion) if inside is None else inside
        if len(turned):
            some = self._turned_in_parts(patches[turned], lookup[turned])
            images[turned], lesion[turned], inside[turned] = some[0], some[1], some[3]
            if ignored is not None and some[2] is not None:
                ignored[turned] = some[2]
        return images, lesion, ignored, inside

    def _turned_in_parts(
        self, patches: Patches, lookup: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """The same, each patch as if it were turned; not all at once, for the memory that takes."""
        parts = [
            self._turned(patches[at : at + TURNED_AT_ONCE], lookup[at : at + TURNED_AT_ONCE])
            for at in range(0, len(patches), TURNED_AT_ONCE)
        ]
        images = torch.cat([part[0] for part in parts])
        lesion = torch.cat([part[1] for part in parts])
        ignored = [part[2] for part in parts if part[2] is not None]
        inside = torch.cat([part[3] for part in parts])
        return (
            images,
            lesion[:, None],
            torch.cat(ignored)[:, None] if ignored else None,
            inside[:, None],
        )

    def _turned(
        self, patches: Patches, lookup: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        image, spacing = patches.image, self._spacing[patches.image]
        lookup = lookup * spacing[:, None, :] / spacing[:, :, None]  # of offsets in voxels
        middle = patches.start + (self.patch_size - 1) / 2
        offsets = [
            voxel - middle[:, axis].view(-1, 1, 1, 1)
            for axis, voxel in enumerate(self._voxels(patches))
        ]
        shape = [len(patches), *3 * [self.patch_size]]
        flat = self._offset[image].view(-1, 1, 1, 1).expand(shape)
        nearest, within, corners = [], None, []
        for axis in range(3):
            place = middle[:, axis].view(-1, 1, 1, 1) + sum(
                lookup[:, axis, other].view(-1, 1, 1, 1) * offset
                for other, offset in enumerate(offsets)
            )
            stride = self._strides[image, axis].view(-1, 1, 1, 1)
            end = (self._padded[image, axis] - 1).view(-1, 1, 1, 1)
            low = place.floor()
            part = place - low
            both = []
            for voxel, weight in ((low.long(), 1 - part), (low.long() + 1, part)):
                there = voxel.clamp(min=0).minimum(end)
                both.append((there * stride, weight * (there == voxel)))
            corners.append(both)
            voxel = (place + 0.5).floor().long()
            there = voxel.clamp(min=0).minimum(end)
            nearest.append(voxel)
            flat = flat + there * stride
            within = there == voxel if within is None else within & (there == voxel)
        assert within is not None
        channels = self._values.unbind(1)
        found = [self._values.new_zeros(within.numel()) for _ in channels]
        begin = self._offset[image].view(-1, 1, 1, 1)
        for x, along_x in corners[0]:
            for y, along_y in corners[1]:
                row, along_xy = begin + x + y, along_x * along_y
                for z, along_z in corners[2]:
                    index, weight = (row + z).view(-1), (along_xy * along_z).view(-1)
                    for total, channel in zip(found, channels, strict=True):
                        total.addcmul_(channel.index_select(0, index), weight)
        flat = flat.reshape(-1)
        lesion = self._lesion.index_select(0, flat).view(shape) & within
        ignored = None
        if self._ignored is not None:
            ignored = self._ignored.index_select(0, flat).view(shape) & within
        images = torch.stack([total.view(shape) for total in found], dim=1)
        return images, lesion, ignored, self._inside(image, nearest)

    def _inside(self, image: Tensor, voxels: Sequence[Tensor]) -> Tensor:
        """Whether voxels on the padded grids, an axis each, are the images': bool ``[B, ...]``."""
        found = torch.ones((), dtype=torch.bool, device=image.device)
        for axis, voxel in enumerate(voxels):
            first, last = (
                ends[image, axis].view(-1, 1, 1, 1) for ends in (self._first, self._last)
            )
            found = found & (voxel >= first) & (voxel <= last)
        return found

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
        index = self._offset[patches.image].view(-1, 1, 1, 1)
        for axis, voxel in enumerate(self._voxels(patches)):
            index = index + voxel * self._strides[patches.image, axis].view(-1, 1, 1, 1)
        return index.reshape(-1)

    def _voxels(self, patches: Patches) -> list[Tensor]:
        """Which voxels of the padded grid the patches hold along each axis: ``[B, p, 1, 1]``,
        ``[B, 1, p, 1]`` and ``[B, 1, 1, p]``."""
        image, start, flip = patches.image, patches.start, patches.flip
        along = torch.arange(self.patch_size, device=image.device)
        found = []
        for axis in range(3):
            mirrored = (flip & (self._left_right[image] == axis))[:, None]
            voxel = start[:, axis, None] + torch.where(mirrored, self.patch_size - 1 - along, along)
            shape = [len(patches), 1, 1, 1]
            shape[axis + 1] = self.patch_size
            found.append(voxel.view(shape))
        return found
