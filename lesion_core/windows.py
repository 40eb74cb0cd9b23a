"""Where the windows of an image lie, and how predicted windows become an image again.

Windows start every ``stride`` voxels, with a last one flush with the border: the grid of the
authors' code, of MONAI's ``dense_patch_slices`` and of TorchIO's ``GridSampler`` alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def window_starts(size: int, patch_size: int, stride: int) -> list[int]:
    """First voxel of every window along one axis of ``size >= patch_size`` voxels.

    >>> window_starts(70, 32, 16)
    [0, 16, 32, 38]
    >>> window_starts(32, 32, 16)
    [0]
    """
    return [*range(0, size - patch_size, stride), size - patch_size]


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one image: ``starts`` per axis, numbered with the last axis fastest."""

    starts: tuple[list[int], list[int], list[int]]
    patch_size: int
    padded: tuple[int, int, int]
    """Size after padding: at least a patch along every axis."""
    inside: tuple[slice, slice, slice]
    """Where the image lies in the padded volume; the padding is split evenly, as MONAI does."""

    @staticmethod
    def of(shape: Sequence[int], patch_size: int, stride: int) -> WindowGrid:
        """The grid of an image of this shape."""
        padded = three(max(size, patch_size) for size in shape)
        before = [(full - size) // 2 for full, size in zip(padded, shape, strict=True)]
        return WindowGrid(
            starts=three(window_starts(size, patch_size, stride) for size in padded),
            patch_size=patch_size,
            padded=padded,
            inside=three(slice(b, b + size) for b, size in zip(before, shape, strict=True)),
        )

    def __len__(self) -> int:
        return int(np.prod([len(axis) for axis in self.starts]))

    @property
    def inside_window(self) -> tuple[slice, slice, slice]:
        """Which part of every window is image: all of it, but along axes that were padded.

        A padded axis is one window long, so the part is the same in all windows.
        """
        return three(
            part if part.stop - part.start < self.patch_size else slice(None)
            for part in self.inside
        )

    def windows(self) -> np.ndarray:
        """``[n, 3]`` first voxels of all windows."""
        return np.stack(np.meshgrid(*self.starts, indexing="ij"), axis=-1).reshape(-1, 3)

    def counts(self, mask: np.ndarray) -> np.ndarray:
        """Voxels of a mask of the image's shape in every window, in the windows' order."""
        counts = np.zeros(self.padded, dtype=np.int64)
        counts[self.inside] = mask
        for axis, starts in enumerate(self.starts):
            sums = np.insert(counts.cumsum(axis=axis), 0, 0, axis=axis)
            first = np.array(starts)
            counts = sums.take(first + self.patch_size, axis=axis) - sums.take(first, axis=axis)
        return counts.reshape(-1)

    def stitch(self, windows: Tensor) -> Tensor:
        """Average of overlapping windows ``[n, p, p, p]``, cropped to the image ``[X, Y, Z]``.

        Sums along one axis after the other, since the grid is a product of three: no loop over
        windows.  How many windows cover a voxel is an outer product of three counts.
        """
        p = self.patch_size
        nx, ny, nz = (len(axis) for axis in self.starts)
        total = windows.reshape(nx, ny, nz, p, p, p)
        for axis in (2, 1, 0):
            size = list(total.shape)
            del size[axis]  # the window index goes,
            size[2 * axis] = self.padded[axis]  # its voxel axis grows from a window to the image
            merged = total.new_zeros(size)
            for index, start in enumerate(self.starts[axis]):
                merged.narrow(2 * axis, start, p).add_(total.select(axis, index))
            total = merged
        counts = [total.new_zeros(size) for size in self.padded]
        for count, starts in zip(counts, self.starts, strict=True):
            for start in starts:
                count[start : start + p] += 1
        cover = counts[0][:, None, None] * counts[1][:, None] * counts[2]
        return (total / cover)[self.inside]


def three(items: Iterable[T]) -> tuple[T, T, T]:
    """One item per axis, as a tuple that is known to have three."""
    x, y, z = items
    return x, y, z
