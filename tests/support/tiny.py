"""Writes tiny cases and cohorts as NIfTI files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (7, 8, 6)
"""Voxels of a case unless told otherwise."""


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, dtype=None) -> Path:
    """An array as NIfTI; bool is stored as uint8, other types as they are."""
    array = array.astype(np.uint8) if array.dtype == bool else array
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=dtype)
    nib.save(image, path)
    return path


def place_oddly(*paths: Path) -> None:
    """Say in a file's header, in metres, that its qform, which ITK uses, lies 7.07 mm off."""
    for path in paths:
        image = nib.load(path)
        metres = np.diag([1e-3] * 3 + [1]) @ image.affine
        elsewhere = metres.copy()
        elsewhere[:3, 3] += 0.004, 0.003, 0.005
        odd = nib.Nifti1Image(np.asanyarray(image.dataobj), None)
        odd.set_qform(elsewhere, 1)
        odd.set_sform(metres, 2)
        odd.header.set_xyzt_units("meter")
        nib.save(odd, path)


def ball(shape: Sequence[int] = SHAPE) -> np.ndarray:
    """A mask with a margin of one voxel on every side: ones inside."""
    mask = np.zeros(shape, dtype=bool)
    mask[1:-1, 1:-1, 1:-1] = True
    return mask


def noise(seed: int, shape: Sequence[int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def one_lesion(shape: Sequence[int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[2:4, 3:5, 2:4] = True
    return mask


def write_case(
    folder: Path,
    channels: Mapping[str, np.ndarray] | Sequence[str] = ("t1", "flair"),
    lesion: np.ndarray | None = None,
    brain: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    seed: int = 0,
) -> Path:
    """``folder/{channel...,brain,lesion}.nii.gz``; channels by name are filled with noise."""
    images = named(channels, seed)
    shape = next(iter(images.values())).shape
    for name, image in images.items():
        save(folder / f"{name}.nii.gz", image, affine)
    save(folder / "lesion.nii.gz", one_lesion(shape) if lesion is None else lesion, affine)
    save(folder / "brain.nii.gz", ball(shape) if brain is None else brain, affine)
    return folder


def write_wmh_case(
    folder: Path,
    lesion: np.ndarray | None = None,
    brain: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    seed: int = 0,
) -> Path:
    """``folder/pre/{T1,FLAIR,brain}.nii.gz`` and ``folder/wmh.nii.gz``."""
    images = named(("T1", "FLAIR"), seed)
    for name, image in images.items():
        save(folder / "pre" / f"{name}.nii.gz", image, affine)
    save(folder / "pre" / "brain.nii.gz", ball() if brain is None else brain, affine)
    save(folder / "wmh.nii.gz", one_lesion() if lesion is None else lesion, affine)
    return folder


def write_wmh_cohort(
    data: Path,
    ids: Mapping[str, Sequence[int]] | None = None,
    name: str = "wmh2017",
) -> Path:
    """``data/wmh2017`` with the ids of each site."""
    ids = ids or {"Utrecht": [0, 2, 11], "Singapore": [50, 51], "Amsterdam/GE3T": [100]}
    for site, numbers in ids.items():
        for number in numbers:
            write_wmh_case(data / name / site / str(number), seed=number)
    return data / name


def write_lit_cohort(data: Path, numbers: Sequence[int] = (1, 2, 10)) -> Path:
    """``data/lit`` with these patients."""
    for number in numbers:
        write_case(
            data / "lit" / f"patient{number:02d}",
            channels=("baseline_flair", "followup_flair"),
            seed=number,
        )
    return data / "lit"


def named(channels: Mapping[str, np.ndarray] | Sequence[str], seed: int) -> dict[str, np.ndarray]:
    if isinstance(channels, Mapping):
        return dict(channels)
    return {name: noise(seed + 1000 * place) for place, name in enumerate(channels)}
