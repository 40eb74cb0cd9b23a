"""How a new image is brought to the grid that networks were trained on, and a map back.

Axes are turned first, by permutation and flips alone, so that they lead where those of most
training images do: exact both ways.  Then the image is resampled (`resampling`) along the axes
whose voxels are larger or smaller than those of every training image, and along no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from lesion_core.nifti import (
    LARGEST_VOXEL_MM,
    SMALLEST_VOXEL_MM,
    axes_and_signs,
    orientation_code,
)
from lesion_core.paths import is_there
from lesion_core.received import read_table
from lesion_core.resampling import SAME_SPACING, Grid
from lesion_core.results import COHORT_CASES
from lesion_core.windows import three

Sides = tuple[float, float, float]

AS_IT_IS = np.array([[0.0, 1], [1, 1], [2, 1]])
"""No axis turned, as nibabel writes orientations."""

WORLD = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
"""Direction in the body -> world axis (left-right, back-front, foot-head)."""


@dataclass(frozen=True, kw_only=True)
class TrainingGrid:
    """How the images lay that networks were trained on."""

    orientation: str | None
    """Where the array axes of most of them lead, such as LPS; None: the ledger does not say."""
    smallest_mm: Sides | None
    """Of the voxels along each of these axes; None: the ledger does not say."""
    largest_mm: Sides | None
    orientations: int = 1
    """How many different ones there were."""

    def spacing_for(self, spacing_mm: Sequence[float]) -> Sides:
        """Voxel size, along the training's axes, that an image of this one is resampled to.

        >>> same = TrainingGrid(orientation="RAS", smallest_mm=(1, 1, 3), largest_mm=(1, 1, 3))
        >>> same.spacing_for((1.0, 0.5, 3.002))
        (1.0, 1.0, 3.002)
        """
        if self.smallest_mm is None or self.largest_mm is None:
            return three(map(float, spacing_mm))
        return three(
            float(side)
            if low * (1 - SAME_SPACING) <= side <= high * (1 + SAME_SPACING)
            else float(min(max(side, low), high))
            for side, low, high in zip(spacing_mm, self.smallest_mm, self.largest_mm, strict=True)
        )


def training_grid(results: Path, cohort: str) -> TrainingGrid:
    """What a results folder says of the images of a cohort, as they were used.

    Raises:
        ValueError: its table cannot be read, or says what cannot be.
    """
    file = results / "cohorts" / cohort / "cases.parquet"
    unknown = TrainingGrid(orientation=None, smallest_mm=None, largest_mm=None)
    if not is_there(file):
        return unknown
    rows = read_table(file, COHORT_CASES).select(["spacing_mm", "orientation"]).to_pylist()
    if not rows or any(row["spacing_mm"] is None for row in rows):
        return unknown
    for row in rows:
        if (wrong := _wrong(row)) is not None:
            raise ValueError(f"{file}: cannot be used: {wrong}")
    spacings = np.array([row["spacing_mm"] for row in rows], float)
    codes = [row["orientation"] for row in rows]
    if any(code is None for code in codes):
        most, number = None, 1
    else:
        most, number = Counter(codes).most_common(1)[0][0], len(set(codes))
        for row, code in zip(spacings, codes, strict=True):
            body = {WORLD[letter]: side for letter, side in zip(code, row.copy(), strict=True)}
            row[:] = [body[WORLD[letter]] for letter in most]
    return TrainingGrid(
        orientation=most,
        smallest_mm=three(spacings.min(0).tolist()),
        largest_mm=three(spacings.max(0).tolist()),
        orientations=number,
    )


def _wrong(row: dict[str, Any]) -> str | None:
    sides, code = row["spacing_mm"], row["orientation"]
    if len(sides) != 3 or not all(
        side is not None and SMALLEST_VOXEL_MM <= side <= LARGEST_VOXEL_MM for side in sides
    ):
        return f"voxel size {sides!a:.60}"
    if code is not None and wrong_orientation(code):
        return f"orientation {code!a:.60}"
    return None


def orientation_of(affine: np.ndarray) -> str:
    """Where the array axes lead that are closest to the body's: RAS, LPS, ..."""
    return orientation_code(axes_and_signs(affine))


def wrong_orientation(code: str) -> bool:
    """Whether these letters are no directions of three axes."""
    return sorted(WORLD.get(letter, -1) for letter in code) != [0, 1, 2]


@dataclass(frozen=True, kw_only=True, eq=False)
class Brought:
    """The way of one image to the training's grid, and back."""

    shape: tuple[int, int, int]
    """Of the image as it is."""
    before_mm: Sides
    """Its voxel size, along its own axes."""
    turn: np.ndarray
    """nibabel's orientation ``[3, 2]``: new axis and flip of each axis of the image."""
    grid: Grid
    """From the turned image to the grid that is used."""

    @staticmethod
    def of(
        shape: Sequence[int], affine: np.ndarray, training: TrainingGrid, *, oriented: bool = True
    ) -> Brought:
        """The way of an image with this affine; its axes stay where its header, or the ledger,
        does not say how they lie (``oriented``).

        Raises:
            ValueError: the resampled image would be too large.
        """
        turn = AS_IT_IS
        if oriented and training.orientation is not None:
            turn = ornt_transform(io_orientation(affine), axcodes2ornt(training.orientation))
        order = np.argsort(turn[:, 0])
        turned = affine @ inv_ornt_aff(turn, tuple(shape))
        sides = np.linalg.norm(turned[:3, :3], axis=0)
        return Brought(
            shape=three(shape),
            before_mm=three(np.linalg.norm(affine[:3, :3], axis=0).tolist()),
            turn=turn,
            grid=Grid.along([shape[axis] for axis in order], turned, training.spacing_for(sides)),
        )

    @property
    def turned(self) -> bool:
        """Whether axes are permuted or flipped."""
        return not np.array_equal(self.turn, AS_IT_IS)

    @property
    def spacing_mm(self) -> Sides:
        """Voxel size of the grid that is used, along that grid's axes."""
        return three(np.linalg.norm(self.grid.affine[:3, :3], axis=0).tolist())

    def image(self, voxels: np.ndarray) -> np.ndarray:
        """Intensities ``[X, Y, Z]`` there, linearly."""
        return self.grid.image(apply_orientation(voxels, self.turn))

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Labels there, those of the nearest voxel."""
        return self.grid.mask(apply_orientation(labels, self.turn))

    def back(self, values: np.ndarray) -> np.ndarray:
        """A map of the grid that is used, on the image's grid, linearly."""
        inverse = np.empty_like(self.turn)
        for axis, (new, flip) in enumerate(self.turn):
            inverse[int(new)] = axis, flip
        return apply_orientation(self.grid.back(values), inverse)
