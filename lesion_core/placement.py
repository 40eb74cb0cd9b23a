"""What is odd about where a file's voxels lie: transforms that disagree, shear, no orientation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lesion_core.nifti import SAME_GRID_VOXELS, Header, by, corners_apart_mm

SHEAR = 1e-4
"""Cosine between two axes above which they are not at right angles; ITK refuses 1e-3."""


def placement_oddities(header: Header) -> list[str]:
    """A line for each thing, without the file's name.

    What ITK-based viewers do is asked of SimpleITK, since it depends on codes and versions.
    """
    found = []
    apart_mm = 0.0
    if header.fields["sform_code"] and header.qform is not None:
        apart_mm = corners_apart_mm(header.qform, header.affine, header.shape)
    shear, off = _shear(header.affine)
    if apart_mm > SAME_GRID_VOXELS * header.spacing_mm.min():
        found.append(
            f"sform and qform disagree by {apart_mm:.3g} mm; sform is used; ITK-based viewers "
            f"{_itk_words(header)}"
        )
    if shear > SHEAR:
        found.append(
            f"the affine is sheared, axes up to {math.degrees(math.asin(shear)):.2g} degrees from "
            f"right angles; ITK-based viewers {_itk_words(header)}; surface distances "
            f"are up to {100 * off:.2g} % off"
        )
    if not header.oriented:
        found.append("the header states no orientation; the first axis is taken as left-right")
    if not np.allclose(header.header_mm, header.spacing_mm, rtol=0.01):
        found.append(
            f"voxel size {by(header.header_mm)} mm in the header, {by(header.spacing_mm)} mm by "
            "the affine, which is used"
        )
    return found


def oddities_of(files: Sequence[Header]) -> list[str]:
    """What is odd about several files of a case, each said once, of the first that has it."""
    said: dict[str, str] = {}
    for file in files:
        for line in placement_oddities(file):
            said.setdefault(line, f"{file.path.parent.name}/{file.path.name}: {line}")
    return list(said.values())


def _itk_words(header: Header) -> str:
    from lesion_core.itk import itk_affine  # a quarter of a second, and few headers need it

    theirs = itk_affine(header.path)
    if theirs is None:
        return "cannot open it"
    close_mm = SAME_GRID_VOXELS * header.spacing_mm.min()
    if corners_apart_mm(theirs, header.affine, header.shape) <= close_mm:
        return "use sform as well"
    qform = header.qform
    if qform is not None and corners_apart_mm(theirs, qform, header.shape) <= close_mm:
        return "use qform"
    apart_mm = corners_apart_mm(theirs, header.affine, header.shape)
    return f"place it up to {apart_mm:.3g} mm away"


def _shear(affine: np.ndarray) -> tuple[float, float]:
    """The largest cosine between two axes, and by which part a distance is wrong at most if they
    are taken as perpendicular."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    stretch = np.linalg.svd(axes, compute_uv=False)
    return float(cosines.max()), float(np.abs(stretch - 1).max())
