"""What networks make of an image together: the mean probability, and how far they disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nibabel.orientations import axcodes2ornt
from torch import Tensor, nn

from lesion_core.evaluate import windows_at_once
from lesion_core.images import bounding_box, check_brain_size, normalise
from lesion_core.nifti import LARGEST_VOXEL_MM, SMALLEST_VOXEL_MM, by
from lesion_core.results import read_model
from lesion_core.segmentation.geometry import (
    Brought,
    TrainingGrid,
    training_grid,
    wrong_orientation,
)
from lesion_core.segmentation.networks import Choice, Member, choose, load_network
from lesion_core.segmentation.windowed import planes
from lesion_core.settings import Precision
from lesion_core.training.precision import check_precision

KEPT_BYTES = 2**30
"""Of weights that stay loaded: 90 of the paper's networks.  Others are read again for each case."""

SLAB_BYTES = 2**31
"""Of slabs, which are two of each network that sees a window (`windowed`)."""

Progress = Callable[[float], None]
"""Hears which part of an image is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Maps ``[X, Y, Z]`` float32 on the grid of the image, 0 outside the box around the brain."""

    probability: np.ndarray
    """Of lesion: the mean over the networks."""
    disagreement: np.ndarray
    """Standard deviation of that probability over the networks, sqrt(mean_m (p_m - mean p)^2):
    0 where all agree, 0.5 at most."""


@dataclass(kw_only=True, eq=False)
class Ensemble:
    """Trained networks as one; made by `load_ensemble`."""

    choice: Choice
    """Which networks, and why."""
    training: TrainingGrid
    """How the images lay that they were trained on."""
    device: str
    precision: Precision
    own_network: str = ""
    """module:name of a network of the user's own, whose code may be imported."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of each network's file, by trial."""
    weight_bytes: dict[str, int] = field(default_factory=dict)
    """The same files' sizes."""
    kept: dict[str, nn.Module] = field(default_factory=dict)
    """Networks that stay loaded, up to `KEPT_BYTES`."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the images, in the order in which the networks see them."""
        return self.choice.channels

    def __call__(
        self,
        image: np.ndarray,
        brain: np.ndarray,
        spacing_mm: Sequence[float],
        *,
        orientation: str | None = None,
    ) -> np.ndarray:
        """Lesion probability of every voxel, float32 ``[X, Y, Z]``: `maps` says more."""
        return self.maps(image, brain, spacing_mm, orientation=orientation).probability

    def maps(
        self,
        image: np.ndarray,
        brain: np.ndarray,
        spacing_mm: Sequence[float],
        *,
        orientation: str | None = None,
    ) -> Maps:
        """Probability and disagreement on the image's own grid.

        Args:
            image: ``[C, X, Y, Z]``, finite intensities in any unit, channels as in `channels`; they
                are normalised inside the brain, as in training.
            brain: ``[X, Y, Z]``, True or 1 inside the brain.
            spacing_mm: voxel size along X, Y and Z; where it is outside what was trained on, the
                image is resampled, and the maps are taken back.
            orientation: where X, Y and Z lead, such as RAS (right, anterior, superior); None: where
                the training's do.

        Raises:
            ValueError: shapes or values that cannot be, or a brain of no brain's size.
        """
        shape = np.shape(brain)
        if np.shape(image) != (len(self.channels), *shape) or len(shape) != 3:
            raise ValueError(
                f"image {by(np.shape(image))} and brain {by(shape)}; expected "
                f"{len(self.channels)} ({' '.join(self.channels)}) x X x Y x Z, and X x Y x Z"
            )
        sides = [float(side) for side in spacing_mm]
        if len(sides) != 3 or not all(
            SMALLEST_VOXEL_MM <= side <= LARGEST_VOXEL_MM for side in sides
        ):
            raise ValueError(f"spacing_mm {sides}; expected three voxel sides that brains have, mm")
        directions = orientation or self.training.orientation or "RAS"
        if wrong_orientation(directions):
            raise ValueError(f"orientation {directions!a}; expected three letters, such as RAS")
        labels = np.unique(brain)
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("brain holds other values than 0 and 1")
        if not np.isfinite(image).all():
            raise ValueError("image holds values that are NaN or infinite")
        brought = Brought.of(shape, _directed(sides, directions), self.training)
        inside = brought.mask(np.asarray(brain).astype(np.uint8)) == 1
        channels = [
            (name, lambda values=values: brought.image(np.asarray(values, np.float32)))
            for name, values in zip(self.channels, image, strict=True)
        ]
        return self.segment(channels, inside, brought, "brain")

    def segment(
        self,
        channels: Sequence[tuple[str, Callable[[], np.ndarray]]],
        brain: np.ndarray,
        brought: Brought,
        brain_name: str,
        on_progress: Progress | None = None,
    ) -> Maps:
        """The same of images that are made when they are needed, one at a time.

        Args:
            channels: name for people, and what gives the intensities on the grid that is used.
            brain: bool, on that grid.
            brought: how the image came there.
            brain_name: of the brain mask, for people.
            on_progress: hears how far it is.

        Raises:
            ValueError: a channel is constant in the brain, or the brain cannot be one.
        """
        box = bounding_box(brain)
        if box is None:
            raise ValueError(f"{brain_name}: the brain mask is empty; expected 1 inside the brain")
        voxel_mm3 = abs(float(np.linalg.det(brought.grid.affine[:3, :3])))
        check_brain_size(brain_name, np.count_nonzero(brain) * voxel_mm3 / 1000)
        in_brain = np.ascontiguousarray(brain[box])
        voxels = np.empty((len(channels), *in_brain.shape), dtype=np.float32)
        for channel, (name, values) in enumerate(channels):
            voxels[channel] = values()[box]
            normalise(name, voxels[channel], in_brain)
        mean, spread = self._over_networks(voxels, on_progress)

        def whole(part: np.ndarray) -> np.ndarray:
            full = np.zeros(brain.shape, dtype=np.float32)
            full[box] = part
            return np.ascontiguousarray(brought.back(full))

        return Maps(probability=whole(mean), disagreement=whole(spread))

    def _over_networks(
        self, voxels: np.ndarray, on_progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the networks of ``[C, X, Y, Z]``, each ``[X, Y, Z]``."""
        shape = voxels.shape[1:]
        mean, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for where, before, values in self._planes(voxels, on_progress):
            _merge(mean[where], squares[where], before, values)
        _check_finite(mean)
        return mean, np.sqrt(squares / len(self.choice.members))

    def each(self, voxels: np.ndarray, on_progress: Progress | None = None) -> np.ndarray:
        """Lesion probability by every network alone, float32 ``[M, X, Y, Z]``.

        Args:
            voxels: ``[C, X, Y, Z]``, z-scores inside the brain as in `images.Image.voxels`.
            on_progress: hears how far it is.

        Raises:
            ValueError: a network predicts values that are no numbers.
        """
        shape = (len(self.choice.members), *voxels.shape[1:])
        found = np.empty(shape, np.float32)
        own = np.array(voxels, np.float32)  # images from the cache are read-only
        for where, before, values in self._planes(own, on_progress):
            found[before : before + len(values), where] = values.cpu().numpy()
        _check_finite(found)
        return found

    def _planes(
        self, voxels: np.ndarray, on_progress: Progress | None
    ) -> Iterator[tuple[slice, int, Tensor]]:
        """Which planes, how many networks came before, and the next ones' ``[m, planes, Y, Z]``."""
        settings = self.choice.members[0].settings
        groups, before = self._groups(voxels.shape[1:]), 0
        total = len(self.choice.members)
        for group in groups:
            networks = [self.network(member) for member in group]

            def on_batch(done: int, of: int, before: int = before, size: int = len(group)) -> None:
                if on_progress is not None:
                    on_progress((before + size * done / of) / total)

            for where, values in planes(
                networks,
                voxels,
                patch_size=settings.patch_size,
                stride=settings.window_stride,
                batch_size=windows_at_once(torch.device(self.device), settings),
                precision=self.precision,
                on_batch=on_batch,
            ):
                yield where, before, values
            before += len(group)

    def _groups(self, shape: Sequence[int]) -> list[list[Member]]:
        """The networks in as few groups as memory allows to look at windows together."""
        depth = self.choice.members[0].settings.patch_size
        slab_bytes = 2 * 4 * depth * max(shape[1], depth) * max(shape[2], depth)
        groups: list[list[Member]] = [[]]
        weights = 0
        for member in self.choice.members:
            weights += self.weight_bytes[member.trial]
            full = weights > KEPT_BYTES or (len(groups[-1]) + 1) * slab_bytes > SLAB_BYTES
            if groups[-1] and full:
                groups.append([])
                weights = self.weight_bytes[member.trial]
            groups[-1].append(member)
        return groups

    def network(self, member: Member) -> nn.Module:
        """A network of the ensemble, read unless it was kept.

        Raises:
            ValueError: its file is damaged, or of a network for other images.
        """
        if member.trial in self.kept:
            return self.kept[member.trial]
        try:
            content = read_model(member.folder)
            network = load_network(
                content, self.device, own_network=self.own_network, channels=self.channels
            )
        except ValueError as error:
            raise ValueError(f"{member.trial}: {error}") from None
        self.sha256[member.trial] = hashlib.sha256(content).hexdigest()
        self.weight_bytes[member.trial] = len(content)
        if sum(self.weight_bytes[name] for name in self.kept) + len(content) <= KEPT_BYTES:
            self.kept[member.trial] = network
        return network


def load_ensemble(
    path: Path | str,
    *,
    cohort: str = "",
    loss: str = "",
    seeds: Sequence[int] = (),
    folds: Sequence[int] = (),
    trials: Sequence[str] = (),
    best: bool = False,
    chosen: Choice | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    own_network: str = "",
) -> Ensemble:
    """The networks of a results folder, to be called with an image (`Ensemble.__call__`).

    Weights are read as plain tensors, and each file once at least, so that one that is damaged or
    of another network is refused here.

    Args:
        path: the results folder of a sweep.
        cohort: whose networks, where there are several.
        loss: default: the one that the report puts first.
        seeds: default: all.
        folds: default: all.
        trials: these by name instead.
        best: only the best of them, as in `networks.choose`.
        chosen: what `networks.choose` returned, instead of all of these.
        device: cpu, cuda, cuda:1; default: cuda if there is a GPU.
        precision: of the arithmetic; default: what they were trained in.
        own_network: module:name of a network of the user's own, whose code may be imported.

    Raises:
        ValueError: there are no such networks, a file cannot be used, or the device lacks the
            precision.

    >>> load_ensemble("results/grid")(image, brain, (1.0, 1.0, 3.0))  # doctest: +SKIP
    array([[[0.01, ...]]], dtype=float32)
    """
    results = Path(path)
    if chosen is None:
        chosen = choose(
            results, cohort=cohort, loss=loss, seeds=seeds, folds=folds, trials=trials, best=best
        )
    where = usable_device(device)
    wanted = precision or chosen.members[0].settings.precision
    check_precision(wanted, where)
    ensemble = Ensemble(
        choice=chosen,
        training=training_grid(results, chosen.cohort),
        device=where,
        precision=wanted,
        own_network=own_network,
    )
    for member in chosen.members:
        ensemble.network(member)
    return ensemble


def usable_device(asked: str | None) -> str:
    """The device that was asked for, else a GPU if there is one.

    Raises:
        ValueError: it is not usable here.
    """
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ValueError(f"--device {asked}: expected cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {asked}: expected cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {asked}: no such GPU is usable here; use --device cpu")
    return asked


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError("the networks predict values that are no numbers; try --precision fp32")


def _merge(mean: np.ndarray, squares: np.ndarray, before: int, values: Tensor) -> None:
    """Add networks ``[M, n, Y, Z]`` to the mean and the sum of squared deviations of those before
    (Chan, Golub & LeVeque 1983), in place."""
    own = values.mean(0)
    spread = torch.zeros_like(own)
    for value in values:  # one at a time: all of them are the largest part of what is in memory
        spread += (value - own).square_()
    spread = spread.cpu().numpy()
    number, total = len(values), before + len(values)
    delta = own.cpu().numpy() - mean
    mean += delta * np.float32(number / total)
    squares += spread + delta**2 * np.float32(before * number / total)


def _directed(spacing_mm: Sequence[float], orientation: str) -> np.ndarray:
    """The affine of axes that lead where these letters say."""
    axes = axcodes2ornt(orientation)
    affine = np.diag([0.0, 0, 0, 1])
    for axis, (world, sign) in enumerate(axes):
        affine[int(world), axis] = sign * spacing_mm[axis]
    return affine
