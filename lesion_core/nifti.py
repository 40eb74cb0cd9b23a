"""Opening a NIfTI file and checking it, and how its axes lie.

Every complaint is one line that names the file.
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError

SAME_GRID_VOXELS = 0.1
"""Affines count as equal if no corner of the image moves by more than this part of a voxel."""

MASK_TOLERANCE = 1e-4
"""Masks saved as scaled floats come back as .9999999; anything farther from a label is refused."""


MOST_VOXELS = 2**29
"""Of an image: a head at 0.25 mm has fewer.  A gzip of 4 MB may hold gigabytes; what is larger is
refused by its header, before it is decompressed."""

MOST_BESIDE_BYTES = 2**24
"""Of an image's file before its voxels; and behind them, where there should be nothing."""

LEFT_RIGHT, BACK_FRONT, FOOT_HEAD = range(3)
"""World axes of a NIfTI affine: they grow to the right, anterior and superior."""


@dataclass(frozen=True, kw_only=True, eq=False)
class File:
    """A NIfTI file with a usable header."""

    path: Path
    proxy: Any
    """nibabel's array proxy: scales the stored numbers when it is turned into an array."""
    shape: tuple[int, int, int]
    affine: np.ndarray
    header_mm: np.ndarray
    """Voxel size by the header alone, which need not agree with the affine."""
    oriented: bool
    """Whether the header says how the axes lie in the body."""

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size by the affine."""
        return voxel_sizes(self.affine)


def read(path: Path) -> File:
    """Open a NIfTI file; it is decompressed whole, so that its checksum is verified.

    Into memory goes no more than its header promises, and that within `MOST_VOXELS`.
    """
    try:
        content = _content(path)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(unreadable(path, error)) from None
    if not content:
        raise ValueError(f"{path}: the file is empty; copy or download it again")
    kind = _nifti_version(path, content)
    header: Any = kind.header_class(content[: kind.header_class.sizeof_hdr], check=False)
    header_mm = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(header_mm).all() and (header_mm > 0).all()):  # nibabel would change them
        raise ValueError(
            f"{path}: voxel size {by(header_mm)} mm in the header; expected positive numbers; "
            "correct pixdim in the header"
        )
    imageglobals.logger.setLevel(logging.CRITICAL)  # the checks here speak, once and of the file
    try:
        with np.errstate(invalid="ignore"):
            image: Any = kind.from_bytes(content)
    except (HeaderDataError, ImageFileError, ValueError, OverflowError) as error:
        raise ValueError(unreadable(path, error)) from None
    if len(image.shape) != 3 or min(image.shape) < 1:
        raise ValueError(
            f"{path}: {len(image.shape)}D image of shape {by(image.shape)}; expected one 3D "
            "volume; save a single volume without a fourth axis"
        )
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"{path}: voxels of type {dtype}; expected one number per voxel")
    needed = image.dataobj.offset + math.prod(image.shape) * dtype.itemsize
    if len(content) < needed:
        raise ValueError(
            f"{path}: truncated: {len(content)} of {needed} bytes (uncompressed); copy or download "
            "it again"
        )
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: the affine is singular or not finite; correct the header")
    return File(
        path=path,
        proxy=image.dataobj,
        shape=image.shape,
        affine=image.affine,
        header_mm=header_mm,
        oriented=bool(header["sform_code"] or header["qform_code"]),
    )


def _content(path: Path) -> bytes:
    """A file's header, and as many bytes behind it as that says; b"" if it is empty."""
    compressed = path.suffix == ".gz"
    with gzip.open(path) if compressed else path.open("rb") as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
        if not start:
            return b""
        promised = _promised_bytes(path, start)
        file.seek(0)
        content = file.read(promised)
        behind = 0
        while compressed and (more := len(file.read(2**20))):  # to its checksum
            behind += more
            if behind > MOST_BESIDE_BYTES:
                raise ValueError(
                    f"{path}: holds more than the {promised} bytes (uncompressed) that its header "
                    "promises; copy or download it again"
                )
    return content


def _promised_bytes(path: Path, start: bytes) -> int:
    """Bytes of a whole file by its header; those of the header, if that is none to go by."""
    kind = _nifti_version(path, start).header_class
    header: Any = kind(start[: kind.sizeof_hdr], check=False)
    sizes = [int(size) for size in header["dim"]]
    offset = float(header["vox_offset"])
    if sizes[0] != 3 or min(sizes[1:4]) < 1 or not 0 <= offset < float("inf"):
        return len(start)  # the checks of the header say what is wrong
    voxels = math.prod(sizes[1:4])
    if voxels > MOST_VOXELS or offset > MOST_BESIDE_BYTES:
        raise ValueError(
            f"{path}: {by(sizes[1:4])} voxels behind {offset:g} bytes by its header; expected "
            f"{MOST_VOXELS} voxels at most, behind {MOST_BESIDE_BYTES} bytes at most; cut it to "
            "the head, or copy or download it again"
        )
    try:
        voxel_bytes = header.get_data_dtype().itemsize
    except HeaderDataError:
        return len(start)
    return max(int(offset), kind.sizeof_hdr) + voxels * voxel_bytes


def _nifti_version(path: Path, content: bytes) -> type[nib.Nifti1Image]:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(content[: kind.header_class.sizeof_hdr]):
            return kind
    raise ValueError(f"{path}: not a NIfTI file; expected a 3D image in .nii or .nii.gz format")


def read_on_grid(path: Path, first: File) -> File:
    """Open a file whose voxels must lie where those of another lie."""
    file = read(path)
    if file.shape != first.shape:
        raise ValueError(
            f"{path}: shape {by(file.shape)} differs from {first.path.name}'s "
            f"{by(first.shape)}; resample it onto the same grid, or check the pairing"
        )
    corners = np.stack(np.meshgrid(*([-0.5, size - 0.5] for size in file.shape)), axis=-1)
    shift = apply_affine(file.affine, corners) - apply_affine(first.affine, corners)
    apart_mm = np.linalg.norm(shift, axis=-1).max()
    if apart_mm > SAME_GRID_VOXELS * first.spacing_mm.min():
        raise ValueError(
            f"{path}: affine differs from {first.path.name}'s (corners up to {apart_mm:.3g} mm "
            "apart); resample it onto the same grid, or check the pairing"
        )
    return file


def finite_values(file: File) -> np.ndarray:
    """The scaled voxel values of an image, float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # the check below speaks more clearly
        values = np.asanyarray(file.proxy, dtype=np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        place = ", ".join(str(index) for index in np.argwhere(bad)[0])
        raise ValueError(
            f"{file.path}: {np.count_nonzero(bad)} voxels are NaN or infinite, the first at "
            f"({place}); replace them, for instance with 0"
        )
    return values


def mask_labels(file: File, highest: int) -> np.ndarray:
    """uint8 labels 0 to ``highest``, exactly as stored."""
    values = finite_values(file)
    labels = np.rint(values)
    whole = np.abs(values - labels).max() <= MASK_TOLERANCE
    if not whole or labels.min() < 0 or labels.max() > highest:
        found = np.unique(values)
        listed = ", ".join(f"{value:g}" for value in found[:5])
        more = f" and {len(found) - 5} other values" if len(found) > 5 else ""
        expected = "0 and 1" if highest == 1 else "0, 1 (lesion) and 2 (other pathology)"
        raise ValueError(
            f"{file.path}: the mask holds {listed}{more}; expected {expected} only; "
            "binarise it first"
        )
    return labels.astype(np.uint8)


def axis_and_sign(affine: np.ndarray, world_axis: int) -> tuple[int, int]:
    """The array axis closest to a world axis, and 1 if both grow together, else -1."""
    orientation = io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == world_axis)[0])
    return axis, int(orientation[axis, 1])


def by(numbers: object) -> str:
    """Numbers as a size: 1 x 1 x 3."""
    return " x ".join(f"{number:g}" for number in np.asarray(numbers))


def unreadable(path: Path, error: Exception) -> str:
    """The line that says why a file cannot be read."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return f"{path}: cannot be read ({reason}); if it is damaged, copy or download it again"
