"""Another voxel size: the grid that a case is resampled to, and the way there and back.

Images linearly, masks by the nearest voxel, as `scipy.ndimage.affine_transform` does.  Nothing is
smoothed before voxels become larger: the value of a voxel is that of its centre.  Both grids have
the same centre and directions; the new one covers the old one whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from lesion_core.nifti import Header, axes_and_signs, by
from lesion_core.windows import three

SAME_SPACING = 1e-3
"""Voxel sizes that differ by no more than this part are equal: that axis is left alone."""

MOST_VOXELS = 2**29
"""Of a resampled image: 2 GB a channel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels of a case lie as it is used, and where those of its files do."""

    shape: tuple[int, int, int]
    affine: np.ndarray
    source_shape: tuple[int, int, int]
    step: np.ndarray
    """Voxels of the files per voxel, along each axis."""
    offset: np.ndarray
    """Voxel of the files, not a whole number, in which the first voxel has its centre."""

    @staticmethod
    def of(source: Header, spacing_mm: tuple[float, float, float] | None = None) -> Grid:
        """The grid with this voxel size (left-right, back-front, foot-head); None: the files' own.

        Each array axis gets the size of the direction in the body that it is closest to.

        Raises:
            ValueError: an image of that many voxels is too large.
        """
        wanted = source.spacing_mm.tolist()
        if spacing_mm is not None:
            for (axis, _), side_mm in zip(axes_and_signs(source.affine), spacing_mm, strict=True):
                wanted[axis] = side_mm
        try:
            return Grid.along(source.shape, source.affine, wanted)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}; ask for a coarser --spacing") from None

    @staticmethod
    def along(shape: Sequence[int], affine: np.ndarray, spacing_mm: Sequence[float]) -> Grid:
        """The grid with this voxel size along each array axis.

        Raises:
            ValueError: an image of that many voxels is too large.
        """
        old = np.array(shape)
        ratio = np.array(spacing_mm) / voxel_sizes(affine)
        step = np.where(np.abs(ratio - 1) <= SAME_SPACING, 1.0, ratio)
        new = np.maximum(np.ceil(old / step - SAME_SPACING), 1).astype(int)
        if math.prod(map(int, new)) > MOST_VOXELS and (step != 1).any():
            raise ValueError(f"{by(old)} voxels would become {by(new)}, more than can be used")
        offset = (old - 1) / 2 - step * (new - 1) / 2
        move = np.eye(4)
        move[:3, :3], move[:3, 3] = np.diag(step), offset
        return Grid(
            shape=three(map(int, new)),
            affine=affine @ move,
            source_shape=three(shape),
            step=step,
            offset=offset,
        )

    @property
    def resampled(self) -> bool:
        """Whether it is another grid than the files'."""
        return bool((self.step != 1).any())

    def image(self, voxels: np.ndarray) -> np.ndarray:
        """An image of the files on this grid, linearly."""
        return self._moved(voxels, self.step, self.offset, self.shape, order=1)

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the files on this grid, those of the nearest voxel."""
        return self._moved(labels, self.step, self.offset, self.shape, order=0)

    def back(self, image: np.ndarray) -> np.ndarray:
        """An image on this grid, on the files' grid, linearly."""
        offset = -self.offset / self.step
        return self._moved(image, 1 / self.step, offset, self.source_shape, order=1)

    def _moved(
        self, voxels: np.ndarray, step: np.ndarray, offset: Any, shape: Sequence[int], order: int
    ) -> np.ndarray:
        if not self.resampled:
            return voxels
        return ndimage.affine_transform(
            voxels, step, offset, output_shape=shape, order=order, mode="nearest"
        )
