"""Simulated cohorts that look like brains: how their images are made, and written like real ones.

Anatomy is the MNI152 template (ICBM 2009a, symmetric: T1, grey- and white-matter maps) that lies
inside the nilearn package; nothing is downloaded.  For every case the template is scaled, turned
and smoothly warped, its ventricles and sulci are widened, lesions are grown in the white matter,
and a scanner's voxels are cut through it: averages, bias field, Rician noise, whole numbers.

Signals are relative to white matter = 1.  They, and where lesions lie, were measured in the
public Ljubljana MS images (Lesjak et al. 2018, doi 10.1007/s12021-017-9348-7, CC BY); the loads
and numbers of lesions are those of Cabezas & Diez 2024, Table 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import ndtri

from lesion_core.metrics import components

Kind = Literal["wmh", "lit"]

WHITE, GREY, CSF = range(3)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Signals of one sequence, relative to white matter."""

    tissue: tuple[float, float, float]
    """White matter, grey matter, cerebrospinal fluid."""
    lesion: tuple[float, float]
    """Mean and deviation over lesions, for a voxel that is all lesion."""
    infarct: tuple[float, float]
    """Core and rim of other pathology."""
    skin: float
    """Signal of fat below the skin; bone is dark."""
    noise: float
    """Deviation of the noise in each of the two parts of the complex signal."""


FLAIR = Contrast(
    tissue=(1.00, 1.10, 0.25), lesion=(1.38, 0.08), infarct=(0.45, 1.30), skin=0.55, noise=0.05
)
T1 = Contrast(
    tissue=(1.00, 0.73, 0.24), lesion=(0.78, 0.06), infarct=(0.35, 0.65), skin=0.80, noise=0.03
)

BIAS = 0.06
"""Deviation, over the brain, of the logarithm of the bias field."""

START_MM = (0.0, 1.0, 2.5, 4.0, 8.0, 24.0, 34.0)
START_DENSITY = (30.0, 5.0, 0.2, 0.2, 0.9, 1.0, 1.0)
"""How likely lesions start in white matter at these distances from the lateral ventricles.

Chosen so that the finished lesions cover 4.9 times (0-2 mm), 2.1 times (2-4 mm) and 0.6 times
(over 30 mm) the average share of the white matter; 30 wmh cases of full size gave 5.0, 2.6, 0.6.
"""

SMALLEST_VOXELS = 3
"""No labelled lesion is smaller, as in three of the four real cases at hand (3, 4 and 6)."""

LARGEST_SHARE = 0.6
"""Part of a case's load that one lesion may start with; they may still grow together."""

INFARCTS = 0.3
"""Part of the wmh cases that have other pathology."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much lesion the cases of a cohort have."""

    mean_percent: float
    """Lesion share of the brain's voxels: mean of a log-normal distribution over cases."""
    sd_percent: float
    range_percent: tuple[float, float]
    """No case has less or more."""
    median_mm3: float
    """Median of the sizes of lesions, log-normal as well, in a case of mean load."""
    sigma: float
    """Deviation of the logarithm of the size."""

    def percent(self, quantile: float) -> float:
        """Share at a quantile in (0, 1) of the distribution over cases.

        >>> load = Load(mean_percent=1, sd_percent=1, range_percent=(0.1, 9), median_mm3=1, sigma=1)
        >>> round(load.percent(0.5), 3)  # 1 / sqrt(1 + (1 / 1) ** 2)
        0.707
        """
        variance = np.log1p((self.sd_percent / self.mean_percent) ** 2)
        percent = self.mean_percent * np.exp(np.sqrt(variance) * ndtri(quantile) - variance / 2)
        return float(np.clip(percent, *self.range_percent))


LOADS: dict[Kind, Load] = {
    "wmh": Load(
        mean_percent=1.54, sd_percent=1.48, range_percent=(0.06, 6.0), median_mm3=75.0, sigma=1.5
    ),
    "lit": Load(
        mean_percent=0.14, sd_percent=0.18, range_percent=(0.012, 0.7), median_mm3=480.0, sigma=0.8
    ),
}
OLD_LESIONS = Load(
    mean_percent=0.7, sd_percent=0.6, range_percent=(0.08, 2.5), median_mm3=110.0, sigma=1.2
)
"""Those of the lit kind that both time points show and no mask labels."""


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """How one site takes and stores its images."""

    site: str
    """Folder of its cases; "" in a cohort without sites."""
    spacing_mm: tuple[float, float, float]
    """Left-right, back-front, foot-head."""
    field_mm: tuple[float, float, float]
    """Field of view, in the same order: the head with a margin."""
    across: int
    """Which of the three directions runs across the slices."""
    tilt_degrees: tuple[float, float, float]
    """Rotation of the field about the three directions."""
    axes: str
    """Where the stored array's axes point."""
    slope: float
    """Slope of the stored whole numbers (scl_slope)."""
    gain: dict[str, float]
    """Signal of white matter, per channel."""


WMH_FIELD_MM = (180.0, 216.0, 168.0)

SCANNERS: dict[Kind, tuple[Scanner, ...]] = {
    "wmh": (
        Scanner(
            site="Utrecht",
            spacing_mm=(0.96, 0.95, 3.00),
            field_mm=WMH_FIELD_MM,
            across=2,
            tilt_degrees=(7.0, 0.0, 0.0),
            axes="LAS",
            slope=0.5,
            gain={"T1": 310.0, "FLAIR": 420.0},
        ),
        Scanner(
            site="Singapore",
            spacing_mm=(1.00, 1.00, 3.00),
            field_mm=WMH_FIELD_MM,
            across=2,
            tilt_degrees=(-4.0, 2.0, 0.0),
            axes="RAS",
            slope=1.0,
            gain={"T1": 190.0, "FLAIR": 260.0},
        ),
        Scanner(
            site="Amsterdam/GE3T",  # 3D FLAIR in sagittal slices, stored as it was acquired
            spacing_mm=(1.20, 0.98, 0.98),
            field_mm=WMH_FIELD_MM,
            across=0,
            tilt_degrees=(3.0, 0.0, -2.0),
            axes="PSR",
            slope=1.0,
            gain={"T1": 3200.0, "FLAIR": 1500.0},
        ),
    ),
    "lit": (
        Scanner(
            site="",
            spacing_mm=(0.90, 0.90, 3.00),
            field_mm=(168.0, 204.0, 168.0),
            across=2,
            tilt_degrees=(5.0, 0.0, 0.0),
            axes="LPS",
            slope=0.25,
            gain={"baseline_flair": 230.0, "followup_flair": 230.0},
        ),
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedCase:
    """One subject as the scanner stores it, and the truth behind it on the same grid."""

    images: dict[str, np.ndarray]
    """float32 ``[X, Y, Z]`` by channel, in the scanner's units."""
    lesion: np.ndarray
    """uint8: 1 where most of the voxel is lesion (lit: new lesion), 2 other pathology."""
    brain: np.ndarray
    """bool."""
    affine: np.ndarray
    """float64 ``[4, 4]``: voxel indices to mm (right, anterior, superior)."""
    tissue: np.ndarray
    """float32 ``[3, X, Y, Z]``: shares of white matter, grey matter and CSF below the lesions."""
    ventricles: np.ndarray
    """bool: the lateral ventricles."""
    old_lesion: np.ndarray
    """bool: lesions at both time points; none in the wmh kind."""


def write_cohort(
    folder: Path, *, kind: Kind, num_cases: int, seed: int, voxel_scale: float = 1.0
) -> None:
    """Write a cohort into an existing folder, in the layout of the real one.

    wmh: ``{site}/{id}/pre/{T1,FLAIR,brain}.nii.gz`` and ``{site}/{id}/wmh.nii.gz``, one third of
    the cases from each of three sites.  lit: ``patientNN/{baseline_flair,followup_flair,brain,
    lesion}.nii.gz``.  A case depends on ``seed`` and its number alone, but for its site, which
    depends on ``num_cases`` too; the same arguments give the same bytes on one machine.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(get_args(Kind))}")
    for number in range(num_cases):
        scanner = SCANNERS[kind][number * len(SCANNERS[kind]) // num_cases]
        case = simulate_case(
            kind,
            np.random.default_rng([seed, number]),
            scanner=scanner,
            load_percent=LOADS[kind].percent(load_quantile(seed, number)),
            voxel_scale=voxel_scale,
        )
        if kind == "wmh":
            home = folder / scanner.site / str(number)
            masks, beside = home / "wmh.nii.gz", home / "pre"
        else:
            home = folder / f"patient{number + 1:02d}"
            masks, beside = home / "lesion.nii.gz", home
        beside.mkdir(parents=True)
        _write(masks, case.lesion, case.affine)
        _write(beside / "brain.nii.gz", case.brain.astype(np.uint8), case.affine)
        for channel, image in case.images.items():
            _write(beside / f"{channel}.nii.gz", image, case.affine, scanner.slope)


def load_quantile(seed: int, number: int) -> float:
    """Where a case's load lies among all cases: of each four in a row, one in every quarter.

    So even a cohort of a few cases holds small loads and large ones, as the real ones do.

    >>> sorted(int(4 * load_quantile(seed=0, number=number)) for number in range(4))
    [0, 1, 2, 3]
    """
    quarters = np.random.default_rng([seed, number // 4, 1]).permutation(4)
    within = np.random.default_rng([seed, number, 2]).random()  # [seed, number] makes the case
    return float(quarters[number % 4] + within) / 4


def scaled_spacing_mm(scanner: Scanner, voxel_scale: float) -> tuple[float, float, float]:
    """Left-right, back-front, foot-head: in the plane, the scanner's spacing times the scale.

    Slices are as thick as the scanner's, or as the scaled voxels are wide if that is more, so
    that a scale of three gives cubes at every site.

    >>> scaled_spacing_mm(SCANNERS["wmh"][1], 2.5)
    (2.5, 2.5, 3.0)
    """
    spacing = [side * voxel_scale for side in scanner.spacing_mm]
    widths = [side for axis, side in enumerate(spacing) if axis != scanner.across]
    spacing[scanner.across] = max(scanner.spacing_mm[scanner.across], *widths)
    right, front, up = (round(side, 4) for side in spacing)
    return right, front, up


def simulate_case(
    kind: Kind,
    rng: np.random.Generator,
    *,
    scanner: Scanner | None = None,
    load_percent: float | None = None,
    voxel_scale: float = 1.0,
) -> SimulatedCase:
    """One case; by default from the kind's first scanner and of mean load.

    ``load_percent``: how many of the brain's voxels are lesion, at least one.  With larger voxels
    lesions grow in mm and become fewer, their volume in proportion to ``voxel_scale``: halfway
    between true sizes, most of which one voxel would swallow, and true numbers of voxels.
    """
    scanner = scanner or SCANNERS[kind][0]
    load = LOADS[kind]
    percent = load.mean_percent if load_percent is None else load_percent
    if not 0 < percent <= 20:
        raise ValueError(f"load_percent {percent}; expected more than 0 and at most 20 % of brain")
    grid = _grid(scanner, voxel_scale)
    head = _head(rng, grid, kind)
    old = infarct = _Lesions.none(grid)
    if kind == "wmh":
        if rng.random() < INFARCTS:
            infarct = _infarct(rng, head, grid)
        new = _grow(rng, head, grid, load, percent, old)
        contents = {"T1": (T1, [infarct, new]), "FLAIR": (FLAIR, [infarct, new])}
    else:
        old = _grow(rng, head, grid, OLD_LESIONS, OLD_LESIONS.percent(rng.random()), old)
        new = _grow(rng, head, grid, load, percent, old)
        contents = {"baseline_flair": (FLAIR, [old]), "followup_flair": (FLAIR, [old, new])}

    brain = grid.average(head.brain) > 0.5
    images = {}
    for channel, (contrast, lesions) in contents.items():
        image = grid.average(_signal(head, contrast, lesions))
        if kind == "wmh":
            image += (1 - grid.average(head.brain)) * _rim(head, contrast)
        if channel == "baseline_flair":  # registered to the follow-up, within .2 mm or so
            shift = rng.normal(0, 0.2, 3) / grid.spacing_mm
            image = ndimage.shift(image, shift, order=1, mode="nearest")
        image = _acquire(rng, image, brain, contrast.noise)
        image *= np.float32(scanner.gain[channel] * rng.normal(1, 0.05))
        images[channel] = image if kind == "wmh" else image * brain

    # The challenge: "dilated by 1 pixel in-plane ... In case of overlap between labels 1 and 2,
    # label 1 was assigned" (wmh.isi.uu.nl, manual reference standard).
    in_plane = np.ones([1 if axis == scanner.across else 3 for axis in range(3)])
    other = ndimage.binary_dilation(grid.average(infarct.share) > 0.5, in_plane)
    labels = np.where(_labelled(grid.average(new.share)), 1, 2 * other) * brain
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(scanner.axes))

    def stored(volume: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(apply_orientation(volume, turn))

    return SimulatedCase(
        images={channel: stored(image) for channel, image in images.items()},
        lesion=stored(labels.astype(np.uint8)),
        brain=stored(brain),
        affine=grid.affine @ inv_ornt_aff(turn, grid.shape),
        tissue=np.stack([stored(grid.average(share)) for share in head.tissue]),
        ventricles=stored(grid.average(head.ventricle_mm < 0) > 0.5),
        old_lesion=stored(_labelled(grid.average(old.share))),
    )


# ----------------------------------------------------------------------------------------- grid
FINE_MM = 1.6
"""Wider voxels are averages of finer samples."""


@dataclass(frozen=True, eq=False)
class _Grid:
    """The scanner's voxels; axes to the right, front and top of its tilted field of view."""

    shape: tuple[int, int, int]
    spacing_mm: np.ndarray
    affine: np.ndarray
    """``[4, 4]``: voxel indices to mm."""
    parts: tuple[int, int, int]
    """Fine samples per voxel along each axis."""
    voxel_scale: float

    @property
    def fine_shape(self) -> tuple[int, int, int]:
        x, y, z = (size * part for size, part in zip(self.shape, self.parts, strict=True))
        return x, y, z

    @property
    def fine_mm(self) -> np.ndarray:
        return self.spacing_mm / self.parts

    @property
    def fine_affine(self) -> np.ndarray:
        """``[4, 4]``: indices of fine samples to mm."""
        parts = np.array(self.parts)
        to_voxel = np.diag([*(1 / parts), 1.0])
        to_voxel[:3, 3] = (1 / parts - 1) / 2
        return self.affine @ to_voxel

    def average(self, fine: np.ndarray) -> np.ndarray:
        """Voxels from the fine samples of a box of whole voxels."""
        x, y, z = self.parts
        total = np.zeros([n // part for n, part in zip(fine.shape, self.parts, strict=True)])
        for i, j, k in np.ndindex(self.parts):  # several times faster than a mean over axes
            total += fine[i::x, j::y, k::z]
        return (total / (x * y * z)).astype(np.float32)


def _grid(scanner: Scanner, voxel_scale: float) -> _Grid:
    spacing_mm = np.array(scaled_spacing_mm(scanner, voxel_scale))
    x, y, z = (int(size) for size in np.ceil(np.array(scanner.field_mm) / spacing_mm))
    i, j, k = (int(part) for part in np.ceil(spacing_mm / FINE_MM))
    tilt = Rotation.from_euler("xyz", scanner.tilt_degrees, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = tilt * spacing_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
    return _Grid((x, y, z), spacing_mm, affine, (i, j, k), voxel_scale)


# -------------------------------------------------------------------------------------- anatomy
SKIN_MM = 14
"""Distance at which the skin runs around the brain."""
CLOSING_MM = 26
"""Folds of the brain narrower than twice this leave no dent in the skin."""


@dataclass(frozen=True, eq=False)
class _Template:
    """MNI152 on a 1 mm grid around the brain; axes to the right, front and top."""

    tissue: np.ndarray
    """float32 ``[3, X, Y, Z]``: white matter, grey matter, CSF; they add up to 1 in the brain."""
    ventricle_mm: np.ndarray
    """Distance to the walls of the lateral ventricles, negative inside them."""
    depth_mm: np.ndarray
    """Depth below the skin, negative outside the head, on a grid of 2 mm that starts ``margin``
    mm earlier on each axis."""
    margin: int


@functools.cache
def _template() -> _Template:
    from nilearn import datasets  # takes seconds, and only simulating needs it

    t1 = datasets.load_mni152_template(resolution=1)
    brain = t1.get_fdata(dtype=np.float32) > 0
    crop = ndimage.find_objects(brain.astype(np.uint8))[0]
    brain = brain[crop]
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)[crop]
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)[crop]
    tissue = np.stack([white, grey, np.clip(1 - white - grey, 0, 1)]) * brain

    # CSF in the middle of the head is one lateral ventricle on each side, the largest piece there
    # once the plane x = 0 is left out, and third ventricle and cisterns, which are then halved.
    ventricles = np.zeros_like(brain)
    first_mm = t1.affine[:3, 3] + [side.start for side in crop]
    for low_mm, high_mm in ((1, -62, -6), (42, 42, 35)), ((-42, -62, -6), (-1, 42, 35)):
        corners = [np.rint(corner - first_mm).astype(int) for corner in (low_mm, high_mm)]
        middle = tuple(slice(low, high + 1) for low, high in zip(*corners, strict=True))
        ventricles[middle] |= _largest_piece(tissue[CSF][middle] > 0.6)

    # Around the ventricles the average of 152 brains shows a film of fluid and of what looks like
    # grey matter (real nuclei are thicker than 5 mm); in one brain white matter begins there.
    film = tissue[GREY] - ndimage.grey_opening(tissue[GREY], size=5)
    film = np.stack([film, tissue[CSF] * (tissue[CSF] < 0.6)])
    film *= ndimage.binary_dilation(ventricles, iterations=4)
    tissue[GREY:] -= film
    tissue[WHITE] += film.sum(axis=0)
    tissue **= 1.5  # the average is blurred: sharpen the borders between tissues
    tissue *= brain / np.maximum(tissue.sum(axis=0), 1e-6)

    ventricle_mm = _distance(~ventricles) - np.float32(0.5)
    ventricle_mm[ventricles] = 0.5 - _distance(ventricles)[ventricles]
    # The skin is the hull of the brain, closed and moved out.
    margin = CLOSING_MM + 4
    outside_mm = 2 * _distance(~np.pad(brain, margin)[::2, ::2, ::2])
    depth_mm = 2 * _distance(outside_mm < CLOSING_MM)
    depth_mm = ndimage.gaussian_filter(depth_mm, 2) - (CLOSING_MM - SKIN_MM)
    # The brain's lowest plane is cut off like that of a scan; let sampling end there, too.
    tissue = np.pad(tissue, [(0, 0), (1, 1), (1, 1), (1, 1)])
    ventricle_mm = np.pad(ventricle_mm, 1, mode="edge")
    return _Template(tissue, ventricle_mm, depth_mm, margin - 1)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Voxels from each voxel inside a mask to the nearest one outside."""
    return np.asarray(ndimage.distance_transform_edt(mask), dtype=np.float32)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest of the pieces that are connected through voxels' faces."""
    pieces = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=pieces)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return mask & (pieces == sizes.argmax())


@dataclass(frozen=True, eq=False)
class _Head:
    """One subject's anatomy on the fine samples of a grid, as in the template."""

    tissue: np.ndarray
    brain: np.ndarray
    """Sum of the tissues."""
    ventricle_mm: np.ndarray
    depth_mm: np.ndarray
    """On the voxels of the grid."""


def _head(rng: np.random.Generator, grid: _Grid, kind: Kind) -> _Head:
    """The template scaled, turned, moved, warped and aged."""
    template = _template()
    # 0.9: the template's brain has 1.9 litres, the real cases' masks 1.1 to 1.3.
    size = 0.9 * np.exp(rng.normal(0, 0.025) + rng.normal(0, 0.02, 3))
    turn = Rotation.from_euler("xyz", rng.normal(0, 3, 3), degrees=True).as_matrix()
    to_template = np.eye(4)
    to_template[:3, :3] = turn / size[:, None]
    to_template[:3, 3] = (np.array(template.ventricle_mm.shape) - 1) / 2 + rng.normal(0, 2, 3)
    to_template = (to_template @ grid.fine_affine).astype(np.float32)
    x, y, z = np.ogrid[tuple(slice(count) for count in grid.fine_shape)]
    place = np.empty((3, *grid.fine_shape), dtype=np.float32)
    for axis, (along_x, along_y, along_z, start) in enumerate(to_template[:3]):
        place[axis] = along_x * x + along_y * y + along_z * z + start
        place[axis] += 2.2 * _smooth_field(rng, grid.fine_shape, range(1, 5))
        place[axis] += 0.6 * _smooth_field(rng, grid.fine_shape, range(5, 12))

    depth_place = np.stack([grid.average(coordinate) for coordinate in place])
    depth_place = (depth_place + np.float32(template.margin)) / 2
    depth_mm = _sample(template.depth_mm, depth_place)
    # Sampling takes most of the time: only where the brain can be.
    near = depth_mm > SKIN_MM - 4 - grid.spacing_mm.max()
    for axis, part in enumerate(grid.parts):
        near = near.repeat(part, axis=axis)
    place = place[:, near]

    def sample(volume: np.ndarray, elsewhere: float = 0.0) -> np.ndarray:
        samples = np.full(near.shape, elsewhere, dtype=np.float32)
        samples[near] = _sample(volume, place)
        return samples

    elderly = kind == "wmh"
    wide_sulci = np.float32(rng.uniform(1.0, 3.0) if elderly else rng.uniform(0.8, 1.8))
    widened_mm = np.float32(rng.uniform(0.5, 4.0) if elderly else rng.uniform(0.0, 2.0))
    tissue = np.stack([sample(share) for share in template.tissue])
    brain = tissue.sum(axis=0)
    ventricle_mm = np.float32(size.mean()) * (sample(template.ventricle_mm, 99) - widened_mm)
    ventricle = np.clip(np.float32(0.5) - ventricle_mm, 0, 1)
    tissue[CSF] *= wide_sulci
    tissue *= (1 - ventricle) * brain / np.maximum(tissue.sum(axis=0), np.float32(1e-6))
    tissue[CSF] += ventricle * brain
    return _Head(tissue, brain, ventricle_mm, depth_mm)


def _sample(volume: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Linear interpolation at places ``[3, ...]`` in voxels; beyond the edge, as on the edge."""
    return ndimage.map_coordinates(volume, place, output=np.float32, order=1, mode="nearest")


def _smooth_field(
    rng: np.random.Generator, shape: tuple[int, int, int], waves: range
) -> np.ndarray:
    """Random float32 field of variance about 1: cosines of up to ``waves`` half-waves per axis.

    The same generator gives the same field, whatever the number of samples.
    """
    number = np.arange(waves.stop)
    kept = np.stack(np.meshgrid(number, number, number)).max(axis=0) >= waves.start
    field = rng.standard_normal(kept.shape) * kept / np.sqrt(kept.sum() / 8)
    field = field.astype(np.float32)
    for size in shape:  # each turn sums over the first axis and appends one of samples
        angle = np.pi * np.outer(number, (np.arange(size) + 0.5) / size)
        field = np.einsum("abc,ax->bcx", field, np.cos(angle).astype(np.float32))
    return field


# -------------------------------------------------------------------------------------- lesions
@dataclass(frozen=True, eq=False)
class _Lesions:
    """Lesions on the fine samples of a grid."""

    share: np.ndarray
    """float32 in [0, 1]: how much of a sample is lesion."""
    number: np.ndarray
    """uint16: which lesion that is; 0 where there is none."""
    signal: dict[Contrast, np.ndarray]
    """By number, from 1 on."""

    @classmethod
    def none(cls, grid: _Grid) -> _Lesions:
        share = np.zeros(grid.fine_shape, dtype=np.float32)
        return cls(share, share.astype(np.uint16), {FLAIR: np.zeros(1), T1: np.zeros(1)})


def _grow(
    rng: np.random.Generator,
    head: _Head,
    grid: _Grid,
    load: Load,
    percent: float,
    occupied: _Lesions,
) -> _Lesions:
    """Lesions one by one, apart from those that are there, until enough voxels count as lesion."""
    white = head.tissue[WHITE]
    possible = np.flatnonzero((white > 0.6) & (occupied.share == 0))
    chance = np.interp(head.ventricle_mm.ravel()[possible], START_MM, START_DENSITY)
    chance = np.cumsum(chance * white.ravel()[possible] ** 2)
    voxel_mm3 = float(np.prod(grid.spacing_mm))
    wanted = max(1, round(percent / 100 * np.count_nonzero(grid.average(head.brain) > 0.5)))
    # Cases with more lesion have both more and larger lesions.
    median_mm3 = load.median_mm3 * grid.voxel_scale * np.sqrt(percent / load.mean_percent)

    lesions = _Lesions.none(grid)
    found = count = 0
    while found < wanted:
        count += 1
        start = possible[np.searchsorted(chance, rng.random() * chance[-1])]
        most = min(LARGEST_SHARE * wanted, wanted - found) * voxel_mm3
        mm3 = max(min(median_mm3 * rng.lognormal(0, load.sigma), most), 5 * voxel_mm3)
        box, added, _ = _shape(rng, head, grid, _place(int(start), grid), mm3, reluctance=3)
        added[occupied.share[box] > 0] = 0
        share = lesions.share[box]
        before = np.count_nonzero(_labelled(grid.average(share)))
        lesions.number[box][added > share] = count
        np.maximum(share, added, out=share)
        found += np.count_nonzero(_labelled(grid.average(share))) - before
    for contrast in lesions.signal:
        lesions.signal[contrast] = rng.normal(*contrast.lesion, size=count + 1)
    return lesions


def _labelled(share: np.ndarray) -> np.ndarray:
    """What a human would mark: voxels that are mostly lesion, in pieces worth marking."""
    pieces, _ = components(share > 0.5)
    worth = np.bincount(pieces.ravel()) >= SMALLEST_VOXELS
    worth[0] = False
    return worth[pieces]


def _infarct(rng: np.random.Generator, head: _Head, grid: _Grid) -> _Lesions:
    """Other pathology: one old infarct, a core like fluid (1) inside a bright rim (2)."""
    possible = np.flatnonzero((head.brain > 0.9) & (head.ventricle_mm > 10))
    centre = _place(int(rng.choice(possible)), grid)
    mm3 = grid.voxel_scale * float(np.clip(rng.lognormal(np.log(1200), 1.0), 100, 15000))
    box, share, radius = _shape(rng, head, grid, centre, mm3, reluctance=0)
    infarct = _Lesions.none(grid)
    infarct.share[box] = share
    infarct.number[box] = np.where(radius < 0.7, 1, 2) * (share > 0)
    for contrast in infarct.signal:
        infarct.signal[contrast] = np.array([0, *contrast.infarct])
    return infarct


def _place(flat: int, grid: _Grid) -> tuple[int, int, int]:
    x, y, z = (int(index) for index in np.unravel_index(flat, grid.fine_shape))
    return x, y, z


def _shape(
    rng: np.random.Generator,
    head: _Head,
    grid: _Grid,
    centre: tuple[int, int, int],
    mm3: float,
    reluctance: float,
) -> tuple[tuple[slice, slice, slice], np.ndarray, np.ndarray]:
    """An irregular blob: the box of whole voxels around it, its share there, and its radius.

    The blob is where a deformed distance from the centre is less than some limit; the radius
    returned is relative to it.  It avoids fluid, more or less avoids what is not white matter, and
    near the ventricles it lies along their wall.
    """
    round_mm = (3 * mm3 / (4 * np.pi)) ** (1 / 3)
    reach = np.ceil((2.4 * round_mm + 2.0) / grid.fine_mm).astype(int)
    box, offsets = [], []
    for axis, part in enumerate(grid.parts):
        middle, last = centre[axis], grid.fine_shape[axis]
        first = max(0, middle - reach[axis]) // part * part
        last = min(last, -(-(middle + reach[axis] + 1) // part) * part)
        box.append(slice(first, last))
        offsets.append((np.arange(first, last) - middle) * grid.fine_mm[axis])
    box = (box[0], box[1], box[2])

    stretch = np.exp(rng.normal(0, 0.25, 3))
    turned = stretch[:, None] * Rotation.from_quat(rng.standard_normal(4)).as_matrix()
    squares = np.zeros([len(offset) for offset in offsets], dtype=np.float32)
    for row in turned.astype(np.float32):
        x, y, z = (np.float32(f) * offset for f, offset in zip(row, offsets, strict=True))
        squares += (x[:, None, None] + y[:, None] + z).astype(np.float32) ** 2
    wall_mm = head.ventricle_mm[box]
    near = np.float32(np.clip((7 - head.ventricle_mm[centre]) / 5, 0, 1))
    squares = squares / (1 + 3 * near) + near * (2.0 * wall_mm) ** 2

    rough = rng.standard_normal(squares.shape, dtype=np.float32)
    rough = ndimage.gaussian_filter(rough, np.maximum(0.4 * round_mm / grid.fine_mm, 0.6))
    rough *= np.float32(0.3) / rough.std()
    distance = np.sqrt(squares) * np.exp(rough)
    distance *= 1 + reluctance * np.clip(1 - head.tissue[WHITE][box], 0, 1)
    room = np.clip(head.brain[box] - head.tissue[CSF][box], 0, 1)
    distance[room < 0.3] = np.inf

    samples = max(1, min(round(mm3 / np.prod(grid.fine_mm)), int(np.isfinite(distance).sum()) - 1))
    limit = np.partition(distance, samples, axis=None)[samples]
    blur = max(0.8, 0.2 * limit)
    share = np.clip(0.5 + (limit - distance) / blur, 0, 1) * room
    return box, share * _largest_piece(share > 0), distance / limit


# ---------------------------------------------------------------------------------- acquisition
def _signal(head: _Head, contrast: Contrast, contents: Sequence[_Lesions]) -> np.ndarray:
    """Noiseless signal of the fine samples; later lesions lie over earlier ones."""
    signal = np.einsum("t,txyz->xyz", np.array(contrast.tissue, dtype=np.float32), head.tissue)
    for lesions in contents:
        where = np.nonzero(lesions.share)
        own = lesions.signal[contrast][lesions.number[where]]
        signal[where] += lesions.share[where] * (own - signal[where])
    return signal


def _rim(head: _Head, contrast: Contrast) -> np.ndarray:
    """What surrounds the brain, on the voxels of the grid: fluid, dark bone, fat, air."""
    fat, bone, fluid = contrast.skin, 0.1, contrast.tissue[CSF]
    signals = [0, fat, fat, bone, bone, fluid]
    return np.interp(head.depth_mm, [0, 1.5, 3.5, 5, 9, 11], signals).astype(np.float32)


def _acquire(
    rng: np.random.Generator, signal: np.ndarray, brain: np.ndarray, noise: float
) -> np.ndarray:
    """Magnitude image: times a bias field, plus noise in both parts of the complex signal."""
    bias = _smooth_field(rng, signal.shape, range(1, 4))
    bias = np.exp(BIAS * (bias - bias[brain].mean()) / bias[brain].std())
    real, imaginary = noise * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return np.hypot(signal * bias + real, imaginary)


SCANNER_ANATOMICAL = 1
"""NIfTI's code for mm in the scanner's own frame."""


def _write(path: Path, voxels: np.ndarray, affine: np.ndarray, slope: float = 1.0) -> None:
    """Masks stay uint8; images become int16, times the slope."""
    if voxels.dtype != np.uint8:
        limits = np.iinfo(np.int16)
        voxels = np.clip(np.rint(voxels / slope), limits.min, limits.max).astype(np.int16)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_slope_inter(slope, 0)  # nibabel records it without dividing by it
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=SCANNER_ANATOMICAL)
    image.set_qform(affine, code=SCANNER_ANATOMICAL)
    nib.save(image, path)
