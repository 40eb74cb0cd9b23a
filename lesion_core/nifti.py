"""Opening a NIfTI file and checking it, and how its axes lie.

Every complaint is one line that names the file.
"""

from __future__ import annotations

import gzip
import logging
import math
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

from lesion_core import compressed
from lesion_core.results import write_bytes

SAME_GRID_VOXELS = 0.1
"""Affines count as equal if no corner of the image moves by more than this part of a voxel."""

MASK_TOLERANCE = 1e-4
"""Masks saved as scaled floats come back as .9999999; anything farther from a label is refused."""

MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Of the spatial part of ``xyzt_units``: unknown, metre, mm, micron.  Unknown is mm to ITK too."""

SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.05, 20.0
"""A side outside these is a mistake of units: what scanners make of heads lies far inside."""

FLATTEST = 0.5
"""A voxel's volume is at least this part of the product of its sides: a scanner's gantry tilts by
30 degrees at most, which leaves 0.87."""

XFORM_CODES = range(6)
"""What ``sform_code`` and ``qform_code`` may be (5: another template)."""

MOST_VOXELS = 2**29
"""Of an image: a head at 0.25 mm has fewer.  A gzip of 4 MB may hold gigabytes; what is larger is
refused by its header, before it is decompressed."""

MOST_BEFORE_BYTES = 2**24
"""Of an image's file before its voxels."""

LEFT_RIGHT, BACK_FRONT, FOOT_HEAD = range(3)
"""World axes of a NIfTI affine: they grow to the right, anterior and superior."""

WORLD_AXES = ("left-right", "back-front", "foot-head")

LONGEST_HEADER = 540
"""Bytes of a NIfTI-2 header; NIfTI-1's is shorter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """A usable NIfTI header."""

    path: Path
    fields: Any
    """nibabel's header, as stored."""
    shape: tuple[int, int, int]
    affine: np.ndarray
    """float64 ``[4, 4]``: voxel indices to mm, by the sform if it has a code, else by the qform."""
    qform: np.ndarray | None
    """The qform alone, in mm as well; None if it has no code."""
    header_mm: np.ndarray
    """Voxel size by ``pixdim`` alone, which need not agree with the affine."""

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size by the affine."""
        return voxel_sizes(self.affine)

    @property
    def body_spacing_mm(self) -> np.ndarray:
        """Voxel size along the array axes closest to left-right, back-front and foot-head."""
        return self.spacing_mm[[axis for axis, _ in axes_and_signs(self.affine)]]

    @property
    def oriented(self) -> bool:
        """Whether the header says how the axes lie in the body."""
        return bool(self.fields["sform_code"] or self.fields["qform_code"])


@dataclass(frozen=True, kw_only=True, eq=False)
class File(Header):
    """A NIfTI file whose voxels can be read."""

    proxy: Any
    """nibabel's array proxy: scales the stored numbers when it is turned into an array."""


def read(path: Path) -> File:
    """Open a NIfTI file; it is decompressed whole, so that its checksum is verified.

    Into memory goes no more than its header promises, and that within `MOST_VOXELS`.

    Raises:
        ValueError: it cannot be used.
    """
    header = read_header(path)
    dtype = header.fields.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"{path}: voxels of type {dtype}; expected one number per voxel")
    _check_scaling(path, header.fields)
    promised_bytes = _offset(header) + math.prod(header.shape) * dtype.itemsize
    content = compressed.whole(path, promised_bytes)
    if len(content) < promised_bytes:
        raise ValueError(
            f"{path}: truncated: {len(content)} of {promised_bytes} bytes (uncompressed); copy or "
            "download it again"
        )
    try:
        with np.errstate(invalid="ignore"):
            image: Any = _image_class(path, content).from_bytes(content)
    except (HeaderDataError, ImageFileError, ValueError, OverflowError) as error:
        raise ValueError(compressed.unreadable(path, error)) from None
    return File(**vars(header), proxy=image.dataobj)


def read_header(path: Path) -> Header:
    """The header of a NIfTI file, of which no more is read.

    Raises:
        ValueError: it cannot be used.
    """
    return _header(path, compressed.start(path, LONGEST_HEADER))


def _offset(header: Header) -> int:
    """Bytes of a file before its voxels; ValueError if these are far more than ours may have."""
    offset = float(header.fields["vox_offset"])
    if math.prod(header.shape) > MOST_VOXELS or not 0 <= offset <= MOST_BEFORE_BYTES:
        raise ValueError(
            f"{header.path}: {by(header.shape)} voxels behind {offset:g} bytes by its header; "
            f"expected {MOST_VOXELS} voxels at most, behind {MOST_BEFORE_BYTES} bytes at most; cut "
            "it to the head, or copy or download it again"
        )
    return max(int(offset), header.fields.sizeof_hdr)


def _header(path: Path, content: bytes) -> Header:
    kind = _image_class(path, content)
    start = content[: kind.header_class.sizeof_hdr]
    stored: Any = kind.header_class(start, check=False)
    if int(stored["xyzt_units"]) % 8 not in MM_PER_UNIT:
        raise ValueError(
            f"{path}: spatial unit {int(stored['xyzt_units']) % 8} in the header; expected 1 "
            "(metre), 2 (mm), 3 (micron) or 0 (unknown: mm); correct xyzt_units"
        )
    mm = MM_PER_UNIT[int(stored["xyzt_units"]) % 8]
    header_mm = np.array(stored["pixdim"][1:4], dtype=np.float64) * mm
    if not (np.isfinite(header_mm).all() and (header_mm > 0).all()):  # nibabel would change them
        raise ValueError(
            f"{path}: voxel size {by(header_mm)} mm in the header; expected positive numbers; "
            "correct pixdim in the header"
        )
    _check_transforms(path, stored)
    imageglobals.logger.setLevel(logging.CRITICAL)  # the checks here speak, once and of the file
    try:
        with np.errstate(invalid="ignore"):
            header: Any = kind.header_class(start)
            shape = tuple(int(size) for size in header.get_data_shape())
            affine = np.array(header.get_best_affine(), dtype=np.float64)
            qform = header.get_qform(coded=True)[0]
    except (HeaderDataError, ImageFileError, ValueError, OverflowError) as error:
        raise ValueError(compressed.unreadable(path, error)) from None
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"{path}: {len(shape)}D image of shape {by(shape)}; expected one 3D "
            "volume; save a single volume without a fourth axis"
        )
    in_mm = np.array([[mm], [mm], [mm], [1.0]])
    affine = affine * in_mm
    spacing_mm = voxel_sizes(affine)
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    if not np.isfinite(affine).all() or volume_mm3 <= FLATTEST * np.prod(spacing_mm):
        raise ValueError(
            f"{path}: the affine is singular, sheared beyond use or not finite; correct the header"
        )
    if spacing_mm.min() < SMALLEST_VOXEL_MM or spacing_mm.max() > LARGEST_VOXEL_MM:
        raise ValueError(
            f"{path}: voxel size {by(spacing_mm)} mm; expected {SMALLEST_VOXEL_MM:g} to "
            f"{LARGEST_VOXEL_MM:g} mm; correct xyzt_units, or pixdim and the affine, in the header"
        )
    return Header(
        path=path,
        fields=stored,
        shape=shape,
        affine=affine,
        qform=None if qform is None else qform * in_mm,
        header_mm=header_mm,
    )


def _check_transforms(path: Path, stored: Any) -> None:
    """Refuse what readers understand differently: nibabel would mend it, ITK in another way."""
    for name in ("sform_code", "qform_code"):
        if int(stored[name]) not in XFORM_CODES:
            raise ValueError(
                f"{path}: {name} is {int(stored[name])}; expected 0 to {XFORM_CODES[-1]}; correct "
                "the header"
            )
    if not stored["qform_code"]:
        return
    quaternion = np.array([stored[f"quatern_{part}"] for part in "bcd"], dtype=np.float64)
    if not quaternion @ quaternion < 1 + 3e-7:  # the limit of nibabel; NaN as well
        raise ValueError(
            f"{path}: the qform's quaternion ({by(quaternion)}) is no rotation; expected a length "
            "of 1 at most; correct the header, or set qform_code to 0 if there is an sform"
        )
    qfac = float(stored["pixdim"][0])
    if qfac not in (-1, 0, 1):
        raise ValueError(
            f"{path}: pixdim[0] is {qfac:g}, which says whether the qform mirrors; expected 1 or "
            "-1; correct the header"
        )


def _check_scaling(path: Path, stored: Any) -> None:
    """Readers differ about slopes that are no numbers, and intercepts without a slope."""
    slope, inter = float(stored["scl_slope"]), float(stored["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(inter)) or (slope == 0 and inter != 0):
        raise ValueError(
            f"{path}: scl_slope {slope:g} and scl_inter {inter:g} say no clear scale; expected "
            "numbers; set them to 1 and 0 if the stored values are meant"
        )


def _image_class(path: Path, content: bytes) -> type[nib.Nifti1Image]:
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
    apart_mm = corners_apart_mm(file.affine, first.affine, first.shape)
    if apart_mm > SAME_GRID_VOXELS * first.spacing_mm.min():
        raise ValueError(
            f"{path}: affine differs from {first.path.name}'s (corners up to {apart_mm:.3g} mm "
            "apart); resample it onto the same grid, or check the pairing"
        )
    return file


def corners_apart_mm(one: np.ndarray, other: np.ndarray, shape: tuple[int, int, int]) -> float:
    """How far the corners of an image lie apart under two affines, at most."""
    corners = np.stack(np.meshgrid(*([-0.5, size - 0.5] for size in shape)), axis=-1)
    shift = apply_affine(one, corners) - apply_affine(other, corners)
    return float(np.linalg.norm(shift, axis=-1).max())


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


def binary_mask(file: File) -> np.ndarray:
    """A mask's 0 and 1, uint8, exactly as stored; anything else is refused."""
    labels = whole_numbers(file, "0 and 1")
    if labels.max() > 1:
        raise ValueError(
            f"{file.path}: the mask holds {stored_values(np.unique(labels))}; expected 0 and 1 "
            "only; binarise it first"
        )
    return labels.astype(np.uint8)


def whole_numbers(file: File, expected: str) -> np.ndarray:
    """The labels of a mask, whole numbers from 0, exactly as stored; what is ``expected`` is said
    where they are none."""
    values = finite_values(file)
    labels = np.rint(values)
    if np.abs(values - labels).max() > MASK_TOLERANCE or labels.min() < 0:
        raise ValueError(
            f"{file.path}: the mask holds {stored_values(np.unique(values))}; expected {expected} "
            "only; binarise it first"
        )
    return labels.astype(np.uint8 if labels.max() <= np.iinfo(np.uint8).max else np.int64)


def stored_values(found: np.ndarray) -> str:
    """Different values of a mask, the first five of them by name."""
    listed = ", ".join(f"{value:g}" for value in found[:5])
    return listed + (f" and {len(found) - 5} other values" if len(found) > 5 else "")


GEOMETRY = (
    "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Fields of a header that say, with the first of ``pixdim``, where the voxels lie."""


def write_like(path: Path, voxels: np.ndarray, source: Header) -> None:
    """Write ``[X, Y, Z]`` where the voxels of a file lie, in whichever way a reader finds that.

    Both transforms, their codes and the units are the source's, to the bit, and so is the version
    of the format; nothing else of its header is.  The file is written whole or not at all.

    Raises:
        ValueError: the voxels are not as many as the source's.
    """
    if voxels.shape != source.shape:
        raise ValueError(
            f"{path}: voxels of shape {by(voxels.shape)} cannot lie where those of "
            f"{source.path.name} do ({by(source.shape)})"
        )
    two = source.fields.sizeof_hdr == nib.Nifti2Header.sizeof_hdr
    kind = nib.Nifti2Image if two else nib.Nifti1Image
    header: Any = kind.header_class()
    header.set_data_dtype(voxels.dtype)
    for name in GEOMETRY:
        header[name] = source.fields[name]
    header["pixdim"][:4] = source.fields["pixdim"][:4]
    header["pixdim"][0] = -1 if header["pixdim"][0] == -1 else 1
    image = kind(voxels, None, header)
    content = image.to_bytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_bytes(path, content)


AxesAndSigns = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def axes_and_signs(affine: np.ndarray) -> AxesAndSigns:
    """For each of `WORLD_AXES` the array axis closest to it, and 1 if both grow together, else -1.

    >>> axes_and_signs(np.diag([-1.0, 1.0, 3.0, 1.0]))
    ((0, -1), (1, 1), (2, 1))
    """
    of_world = {int(w): (axis, int(sign)) for axis, (w, sign) in enumerate(io_orientation(affine))}
    return of_world[LEFT_RIGHT], of_world[BACK_FRONT], of_world[FOOT_HEAD]


def orientation_code(axes: AxesAndSigns) -> str:
    """Where the array axes lead that are closest to the body's.

    >>> orientation_code(((0, -1), (1, 1), (2, 1)))
    'LAS'
    """
    letters = {axis: "LPI RAS"[world + 4 * (sign > 0)] for world, (axis, sign) in enumerate(axes)}
    return "".join(letters[axis] for axis in range(3))


def by(numbers: object) -> str:
    """Numbers as a size: 1 x 1 x 3."""
    return " x ".join(f"{number:g}" for number in np.asarray(numbers))
