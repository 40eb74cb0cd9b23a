"""Which cases, their normalisation, and the loop over them: the code that a MONAI bundle brings.

The bundle's copy of this file is scripts/steps.py; its configs/inference.json says the rest.  It
needs PyTorch and nibabel, for smallest lesions SciPy, and nothing of the project that the networks
come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import torch

ENDINGS = (".nii.gz", ".nii")

SAME = 1e-3
"""Voxel sizes that differ by no more than this part are equal."""


def find_cases(folder: str, channels: Sequence[str], brain: str) -> list[dict[str, Any]]:
    """The cases below a folder: ``folder/CASE/{channel...,brain}.nii.gz``, one case per folder.

    Raises:
        ValueError: there is none, or one lacks a file; which one is said.
    """
    root = Path(folder)
    cases = []
    for place in sorted(inner for inner in root.glob("*") if inner.is_dir()):
        files = [_file(place, name) for name in channels]
        own = {"image": files, "brain": _file(place, brain)}
        cases.append(own | {"case": place.name, "source": files[0]})
    if not cases:
        raise ValueError(
            f"{root}: expected a folder for each case, each with "
            f"{', '.join(channels)} and {brain} as .nii.gz; give it with --dataset_dir"
        )
    return cases


def in_brain(case: dict[str, Any]) -> dict[str, Any]:
    """The case itself, if ``brain [1, X, Y, Z]`` is a mask that lies where ``image`` does.

    Raises:
        ValueError: it lies elsewhere, is empty, or holds other values than 0 and 1.
    """
    image, brain = case["image"], case["brain"]
    if image.shape[1:] != brain.shape[1:] or not torch.allclose(
        image.affine.double(), brain.affine.double(), atol=1e-3
    ):
        raise ValueError(f"{case['case']}: brain mask and images are not on the same grid")
    if not bool(((brain == 0) | (brain == 1)).all()) or not bool(brain.any()):
        raise ValueError(f"{case['case']}: expected a brain mask of 0 and 1, with 1 in the brain")
    return case


def training_grid(
    case: dict[str, Any], smallest_mm: Sequence[float], largest_mm: Sequence[float]
) -> dict[str, Any]:
    """Add ``grid``, an empty image that lies where ``image`` is to be resampled to, and take
    ``brain`` there, by the nearest voxel.

    Along each axis, voxels from the smallest to the largest of the training's stay as they are;
    others get the nearer of the two sizes.  Both grids have the same centre.
    """
    image = case["image"]
    affine, old = image.affine.double(), torch.tensor(image.shape[1:]).double()
    sides = affine[:3, :3].norm(dim=0)
    low, high = (torch.tensor(mm, dtype=torch.float64) for mm in (smallest_mm, largest_mm))
    known = (sides >= low * (1 - SAME)) & (sides <= high * (1 + SAME))
    step = torch.where(known, sides, sides.clamp(low, high)) / sides
    step = torch.where((step - 1).abs() <= SAME, 1.0, step)
    new = (old / step - SAME).ceil().clamp(min=1)
    offset = (old - 1) / 2 - step * (new - 1) / 2
    move = torch.eye(4).double()
    move[:3, :3], move[:3, 3] = step.diag(), offset
    case["grid"] = type(image)(torch.zeros(1, *new.int().tolist()), affine=affine @ move)
    brain = case["brain"].as_tensor()
    for axis in range(3):
        # Half-way up, and rounded in the order in which SciPy does it, as in training: voxels that
        # lie half-way between two are many, and each moves the mean inside the brain.
        place = torch.arange(int(new[axis])) + offset[axis] / step[axis]
        nearest = (step[axis] * place + 0.5).floor()
        brain = brain.index_select(axis + 1, nearest.clamp(0, int(old[axis]) - 1).long())
    case["brain"] = type(image)(brain, affine=affine @ move)
    return case


def z_score(case: dict[str, Any]) -> dict[str, Any]:
    """Give every channel of ``image`` mean 0 and standard deviation 1 inside ``brain``.

    Raises:
        ValueError: intensities that are not finite, or the same everywhere inside.
    """
    inside = case["brain"][0] > 0.5
    for channel in case["image"]:
        values = channel[inside].double()
        mean, sd = values.mean(), values.std(correction=0)
        if not bool(torch.isfinite(channel).all()) or not float(sd) > 0:
            raise ValueError(f"{case['case']}: an image is constant in the brain, or not finite")
        channel.sub_(mean.float()).div_(sd.float())
    return case


@torch.no_grad()
def segment(
    dataset: Iterable[dict[str, Any]],
    network: torch.nn.Module,
    inferer: Callable[..., torch.Tensor],
    postprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    min_lesion_mm3: float,
    output_dir: str,
    device: torch.device,
) -> None:
    """Write every case's ``CASE_lesion.nii.gz`` and ``CASE_probability.nii.gz``."""
    for case in dataset:
        windows = case["image"][None].to(device)
        case["pred"] = inferer(windows, network)[0].cpu()
        found = postprocessing(case)
        mask = without_small(found["mask"][0].numpy() > 0, min_lesion_mm3, case["source"])
        for what, values, kind in (
            ("probability", found["pred"][0].numpy(), "float32"),
            ("lesion", mask, "uint8"),
        ):
            path = Path(output_dir, f"{case['case']}_{what}.nii.gz")
            save(path, values.astype(kind), case["source"])
            print(path, flush=True)


def without_small(mask: Any, min_mm3: float, source: str) -> Any:
    """A mask ``[X, Y, Z]`` on the grid of an image, without its 26-connected components of less
    than this volume; 0 leaves all."""
    if min_mm3 <= 0:
        return mask
    from scipy import ndimage

    like: Any = nib.load(source)
    found: Any = ndimage.label(mask, structure=[3 * [3 * [1]]] * 3)
    labels, _ = found
    voxels = torch.from_numpy(labels).flatten().bincount().double()
    voxel_mm3 = abs(float(torch.from_numpy(like.affine[:3, :3]).double().det()))
    kept = voxels * voxel_mm3 >= min_mm3 * (1 - 1e-6)  # NIfTI's sides are in single precision
    kept[0] = False
    return kept.numpy()[labels]


def save(path: Path, voxels: Any, source: str) -> None:
    """Write ``[X, Y, Z]`` on the grid of an image, and with its header; whole or not at all."""
    like: Any = nib.load(source)
    header = like.header.copy()
    header.set_data_dtype(voxels.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    nib.save(type(like)(voxels, like.affine, header), temporary)
    temporary.replace(path)


def _file(folder: Path, name: str) -> str:
    for ending in ENDINGS:
        if (path := folder / f"{name}{ending}").is_file():
            return str(path)
    raise ValueError(f"{folder}: no {name}.nii.gz there")
