"""Files as SimpleITK images, and where SimpleITK itself sees them lie.

The two readers of NIfTI differ where a header says two things.  Here one rule holds, that of
`nifti.Header.affine`: images for SimpleITK are made from what `nifti.read` returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes

from lesion_core.nifti import Header

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
"""ITK's axes run left and posterior; its unit is the mm as well."""


def as_itk(voxels: np.ndarray, place: Header) -> sitk.Image:
    """``[X, Y, Z]`` as an image that lies where a file does."""
    spacing_mm = voxel_sizes(place.affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin((RAS_TO_LPS @ place.affine[:3, 3]).tolist())
    image.SetDirection((RAS_TO_LPS @ (place.affine[:3, :3] / spacing_mm)).ravel().tolist())
    return image


def as_array(image: sitk.Image) -> np.ndarray:
    """An image's voxels ``[X, Y, Z]``."""
    return sitk.GetArrayFromImage(image).T


def itk_affine(path: Path) -> np.ndarray | None:
    """Voxel indices to mm (right, anterior, superior) as ITK reads a file; None if it will not."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _quiet():
            reader.ReadImageInformation()
    except RuntimeError:
        return None
    affine = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    affine[:3, :3] = RAS_TO_LPS @ direction * np.array(reader.GetSpacing())
    affine[:3, 3] = RAS_TO_LPS @ np.array(reader.GetOrigin())
    return affine


@contextmanager
def _quiet() -> Iterator[None]:
    """What ITK thinks of a header is said in our words, not in its own on the terminal."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
