"""A brain mask for an image that came without one.

The MNI152 brain that ships with nilearn (ICBM 152 nonlinear 2009a symmetric, skull-stripped) is
aligned with the head by twelve degrees of freedom (`registration.affine`, within a few mm of its
own brain only, so that scalp and neck do not matter), and its mask is carried over.

How good: Dice 0.96 with the masks of two skull-stripped T1 images; on raw FLAIR images of two
patients of the Ljubljana archive 0.94 and 0.86 (1550 ml, where the archive says 1190).  An affine
brain is neither a person's atrophy nor every sulcus: a shipped mask is always better, and what is
made here is named wherever it is used.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lesion_core.preparation.registration import affine, resample

METHOD = "mni152-affine-1"
"""Recorded wherever such a mask is used; ends in a number that grows when masks change."""

BRAIN_LEVEL = 0.2
"""Part of the template's maximum above which it is brain (nilearn's load_mni152_brain_mask)."""


def derive(head: sitk.Image) -> sitk.Image:
    """Derive a mask of the brain in a T1 or FLAIR image: uint8, 1 inside, on the image's grid."""
    template, brain = _template()
    surroundings = sitk.BinaryDilate(brain, [2, 2, 2])
    transform = affine(template, sitk.Cast(head, sitk.sitkFloat32), surroundings)
    return resample(brain, head, transform.GetInverse(), sitk.sitkNearestNeighbor)


def volume_ml(mask: sitk.Image) -> float:
    """Volume of the voxels that are not 0, ml."""
    voxels = np.count_nonzero(sitk.GetArrayViewFromImage(mask))
    x, y, z = mask.GetSpacing()
    sheared = abs(np.linalg.det(np.reshape(mask.GetDirection(), (3, 3))))
    return float(voxels * x * y * z * sheared / 1000)


@cache
def _template() -> tuple[sitk.Image, sitk.Image]:
    """Template at 2 mm and the mask of its brain, holes filled."""
    from nilearn.datasets import struct  # seconds to import, and only this needs it

    path = Path(struct.__file__).parent / "data" / Path(struct.MNI152_FILE_PATH).name
    fine = sitk.ReadImage(str(path), sitk.sitkFloat32)
    level = BRAIN_LEVEL * float(sitk.GetArrayViewFromImage(fine).max())
    closed = sitk.BinaryMorphologicalClosing(fine > level, [3, 3, 3])
    brain = sitk.BinaryFillhole(closed)
    coarse = sitk.Image([size // 2 for size in fine.GetSize()], sitk.sitkUInt8)
    coarse.SetOrigin(fine.GetOrigin())
    coarse.SetDirection(fine.GetDirection())
    coarse.SetSpacing([2 * step for step in fine.GetSpacing()])
    same_place = sitk.Transform(3, sitk.sitkIdentity)
    return (
        resample(fine, coarse, same_place, sitk.sitkLinear),
        resample(brain, coarse, same_place, sitk.sitkNearestNeighbor),
    )
