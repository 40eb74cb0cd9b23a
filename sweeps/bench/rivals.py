"""What the core's benchmark times: each function prepares one rival, and returns what is timed.

In a process of its own, set up as its users would have it; what is timed returns what shows that
rivals did the same.  ``kind`` is ours, or names the peer; the peers are in `plain.py`.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeps.bench.peers import PEERS, steps

if TYPE_CHECKING:
    from torch import nn

    from lesion_core.images import Image, LoadedCohort
    from lesion_core.settings import Precision
    from lesion_core.trial import EpochReport, Trial

BATCH = (16, 2, 32, 32, 32)
"""The paper's: patches, channels, voxels."""

IMAGE = (2, 128, 144, 96)
"""Channels and voxels of a brain as in WMH and MS cases: 280 windows."""

SHAPE = (64, 80, 48)
"""Voxels of each image of the epoch's cohort: 24 windows, 8 of them with lesion."""

COHORTS = {"small": (4, SHAPE), "real": (12, (150, 190, 48))}
"""Images of a cohort and their voxels; real: as large as cases of the WMH challenge."""

FILTERS = {"paper": (32, 64, 128, 256), "narrow": (8, 16, 32, 64)}


def matrices(precision: Precision, device: str) -> Callable[[], float]:
    """Products of matrices, the most that a machine calculates; says the number of operations.

    On a CPU of 4096 x 1024 with 1024 x 1024, by the library that convolves; on a GPU of 8192 x 8192
    with as many.
    """
    import torch
    import torch.nn.functional as F

    from lesion_core.training.precision import convolutions

    _prepare(device, keep_memory=True)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if device == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        left, right = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))

        def multiply() -> float:
            for _ in range(20):
                torch.mm(left, right)
            _wait(device)
            return 20 * 2.0 * 8192**3

        return multiply
    volumes = torch.randn(1, 1024, 16, 16, 16, device=device, dtype=dtype)
    volumes = volumes.contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(1024, 1024, 1, 1, 1, device=device, dtype=dtype)

    @torch.no_grad()
    def run() -> float:
        with convolutions(precision):
            for _ in range(20):
                F.conv3d(volumes, weight)
            _wait(device)
        return 20 * 2.0 * 4096 * 1024 * 1024

    return run


def copy(device: str) -> Callable[[], int]:
    """Copy memory, far more than any cache holds; says the bytes read and written."""
    import torch

    _prepare(device, keep_memory=True)
    source = torch.ones(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def run() -> int:
        for _ in range(10):
            target.copy_(source)
        _wait(device)
        return 10 * 2 * source.nbytes

    return run


def network(
    kind: str, precision: Precision, backward: bool, device: str
) -> Callable[[], dict[str, Any]]:
    """One pass over a batch: number of parameters, and of operations and bytes per kernel."""
    import torch

    from lesion_core.losses import LOSSES
    from lesion_core.training.precision import autocast, convolutions
    from sweeps.bench.roofline import kernels

    _prepare(device, keep_memory=kind in ("ours", "plain, memory kept"))
    inputs = torch.randn(BATCH, device=device)
    target = (torch.rand(BATCH[0], 1, *BATCH[2:], device=device) < 0.01).float()
    net = _network(kind, device)
    if kind == "ours":  # as patches are cut, on any device
        inputs = inputs.contiguous(memory_format=torch.channels_last_3d)

    def once() -> None:
        with torch.set_grad_enabled(backward), convolutions(precision):
            with autocast(inputs.device, precision):
                logits = net(inputs)
            if backward:
                net.zero_grad()
                LOSSES["xent"](logits.float(), target).backward()
        _wait(device)

    work = kernels(once)
    counts = {
        "kernels": work,
        "operations": sum(operations for operations, _ in work),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }

    def run() -> dict[str, int]:
        once()
        return counts

    return run


def whole_image(kind: str, precision: Precision, device: str) -> Callable[[], Any]:
    """Probabilities of every voxel of an image."""
    import torch

    from lesion_core.evaluate import predict_volume
    from sweeps.bench import plain

    _prepare(device, keep_memory=kind == "ours", precision=precision)
    image = torch.randn(IMAGE, generator=torch.Generator().manual_seed(0))
    net = _network("ours" if kind == "ours" else "plain", device)
    if kind == "ours":
        return lambda: predict_volume(net, image, precision=precision)
    predict = {"monai": plain.predict_with_monai, "torchio": plain.predict_with_torchio}[kind]
    return lambda: predict(net, image.to(device)).cpu().numpy()


def epoch(kind: str, precision: Precision, device: str) -> Callable[[], dict[str, float]]:
    """An epoch: mean loss, and mean Dice of test images, training images and training patches."""
    from sweeps.bench import plain

    _prepare(device, keep_memory=kind == "ours")
    if kind == "plain":
        return plain_trial(0, device, epochs=1, precision=precision)
    cohort = _cohort()
    mine = _trial(cohort, 0, precision, epochs=2, filters=FILTERS["paper"])
    untrained = _report(mine, cohort, device, None)
    return lambda: plain.numbers_of(_report(mine, cohort, device, untrained.checkpoint))


def training(
    kind: str,
    precision: Precision,
    device: str,
    num_batches: int = 100,
    width: str = "paper",
    augment: str = "none",
) -> Callable[[], Mapping[str, Any]]:
    """An epoch of full batches, cut from images, without its evaluations: what it says.

    ``kind`` is recorded (as trials train on a GPU; "recorded, without kernels": without those of
    our own), launched (kernel by kernel) or plain (that and the plain network, of batches that are
    already cut).
    """
    import torch

    from lesion_core import kernels
    from lesion_core.augment import Augmenter, augmentation_named
    from lesion_core.patches import Volumes
    from lesion_core.training import step
    from lesion_core.training.epoch import train_epoch
    from lesion_core.training.optimisers import optimiser_of
    from lesion_core.training.randomness import generator

    if kind == "recorded, without kernels":
        without = kernels.disabled()  # as a decorator: around all that is made, and around each run
        made = without(training)("recorded", precision, device, num_batches, width, augment)
        return without(made)
    _prepare(device, keep_memory=kind != "plain", precision=precision)
    cohort = _cohort()
    mine = _trial(cohort, 0, precision, epochs=1, filters=FILTERS[width])
    settings = mine.settings
    volumes = Volumes.of(cohort.images, patch_size=32, stride=16, device=device)
    patches = volumes.training_patches(range(len(cohort.images)), flip=True)
    number = settings.batch_size * num_batches
    patches = patches[torch.arange(number, device=device) % len(patches)]
    net = _network("plain" if kind == "plain" else "ours", device, filters=FILTERS[width])
    if kind == "plain":
        inputs, target = volumes.gather(patches[: settings.batch_size])
        inputs, target = inputs.contiguous(), target.float()
        optimiser = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)

        def run() -> dict[str, Any]:
            for _ in range(num_batches):
                optimiser.zero_grad()
                mine.loss(net(inputs), target).backward()
                optimiser.step()
            _wait(device)
            return {}

        return run
    if kind == "launched":
        step.WARM_UP = sys.maxsize
    one = step.Step(
        net, optimiser_of(net, settings), mine.loss, volumes,
        batch_size=settings.batch_size, precision=precision,
    )  # fmt: skip
    augmented = None
    if (augmentation := augmentation_named(augment)) is not None:
        augmented = Augmenter(
            augmentation=augmentation, channels=2, patch_size=32, seed=0, fold=0, epoch=1
        )

    def run_ours() -> Mapping[str, Any]:
        shuffle = generator(0, 0, 1, "order")
        return train_epoch(one, patches, epoch=1, shuffle=shuffle, augmented=augmented)

    return run_ours


def peer_training(
    name: str, device: str, num_batches: int, width: str = "paper", backend: str = "inductor"
) -> Callable[[], dict[str, float]]:
    """So many steps of a peer (`peers.PEERS`) on a batch: the last loss."""
    import torch

    from lesion_core.losses import LOSSES
    from lesion_core.settings import TrainSettings

    peer = PEERS[device][name]
    _prepare(device, keep_memory=peer.keeps_memory, precision="tf32")
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH, generator=random).to(device)
    target = (torch.rand(BATCH[0], 1, *BATCH[2:], generator=random) < 0.01).float().to(device)
    kind = peer.network if peer.network == "plain" or width == "paper" else "narrow BasicUNet"
    net = _network(kind, device, filters=FILTERS[width])
    rate = TrainSettings().learning_rate
    once = steps(peer, net, inputs, target, LOSSES["new"], rate, backend)

    def run() -> dict[str, float]:
        value = None
        for _ in range(num_batches):
            value = once()
        return {"loss": float("nan") if value is None else value.item()}  # waits for the device

    return run


def plain_trial(
    seed: int,
    device: str,
    epochs: int,
    width: str = "paper",
    precision: Precision = "fp32",
    size: str = "small",
) -> Callable[[], dict[str, float]]:
    """A trial as one would write it down, with the numbers of its last epoch; bf16 by autocast."""
    import torch

    from lesion_core.training.randomness import generator
    from sweeps.bench import plain

    _prepare(device, keep_memory=False, precision=precision)
    cohort = _cohort(size)
    ours = _trial(cohort, seed, "fp32", epochs, FILTERS[width])
    tested = ours.tested([image.case for image in cohort.images])
    test = [image for image in cohort.images if image.case in tested]
    training = [image for image in cohort.images if image.case not in tested]
    num_patches = len(plain.PatchDataset(training))
    net = _network("plain", device, seed, FILTERS[width])
    weights = {name: value.clone() for name, value in net.state_dict().items()}

    def run() -> dict[str, float]:
        net.load_state_dict(weights)
        used = plain.Autocast(net) if precision == "bf16" else net
        optimiser = torch.optim.Adam(net.parameters(), lr=ours.settings.learning_rate)
        found: dict[str, float] = {}
        for number in range(epochs):
            shuffle = generator(seed, 0, number + 1, "order")
            order = torch.randperm(num_patches, generator=shuffle).tolist()
            found = plain.epoch(used, optimiser, ours.loss, training, test, order=order)
        return found

    return run


def trial(
    seed: int,
    precision: Precision,
    device: str,
    epochs: int = 7,
    width: str = "paper",
    size: str = "small",
) -> Callable[[], dict[str, Any]]:
    """A short trial: its numbers after the last epoch, and how much memory on a GPU it had then
    over what it had after its second.

    The first time by algorithms that give the same bits in every process, later by the fastest.
    """
    import torch

    from lesion_core.trial import run as run_trial
    from sweeps.bench import plain

    _prepare(device, keep_memory=True)
    cohort = _cohort(size)
    mine = _trial(cohort, seed, precision, epochs, FILTERS[width])

    turns = itertools.count()

    def run() -> dict[str, Any]:
        # Warnings only: max pooling's backward is not listed as such, but here windows are apart.
        torch.use_deterministic_algorithms(next(turns) == 0, warn_only=True)
        numbers, held = {}, []

        def on_epoch(report: EpochReport) -> None:
            held.append(torch.cuda.memory_reserved() if device == "cuda" else 0)
            if report.final is not None:
                numbers.update(plain.numbers_of(report))

        run_trial(mine, cohort, device=device, threads=torch.get_num_threads(), on_epoch=on_epoch)
        # A step is recorded in the second epoch at the latest, which takes memory for all others.
        growth = held[-1] - held[min(2, len(held) - 1)]
        return {"numbers": numbers, "memory_growth_mb": growth / 1e6}

    return run


def _prepare(
    device: str,
    *,
    keep_memory: bool,
    precision: str = "fp32",
) -> None:
    import torch

    from lesion_core.training.memory import keep_freed_memory

    # On a GPU ours is given one core, as a trial is; its peers all there are.
    one_core = device == "cuda" and keep_memory
    torch.set_num_threads(1 if one_core else len(os.sched_getaffinity(0)))
    cudnn: Any = torch.backends.cudnn
    # Peers called fp32 compute in fp32; unasked it is tf32.
    cudnn.conv.fp32_precision = "ieee" if precision == "fp32" else "tf32"
    if keep_memory:
        keep_freed_memory()


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _network(
    kind: str, device: str, seed: int = 0, filters: tuple[int, ...] = FILTERS["paper"]
) -> nn.Module:
    from lesion_core.training.randomness import generator
    from lesion_core.unet import UNet3d, to_device

    if kind == "BasicUNet":
        from monai.networks.nets.basic_unet import BasicUNet

        return BasicUNet(3, 2, 1, features=(24, 24, 48, 96, 176, 24)).to(device)
    if kind == "narrow BasicUNet":
        from monai.networks.nets.basic_unet import BasicUNet

        return BasicUNet(3, 2, 1, features=(8, 8, 16, 16, 16, 8)).to(device)
    if kind == "UNet":
        from monai.networks.nets.unet import UNet

        return UNet(3, 2, 1, channels=(40, 80, 160, 288), strides=(2, 2, 2)).to(device)
    ours = UNet3d(2, filters).initialise(generator(seed, 0, 0, "weights"))
    if kind == "ours":
        return to_device(ours, device)
    from sweeps.bench.plain import plain_twin

    return plain_twin(ours, filters=filters).to(device)


def _cohort(size: str = "small") -> LoadedCohort:
    """Images of which a third of the windows hold lesion, as in real cases."""
    from lesion_core.images import LoadedCohort

    number, shape = COHORTS[size]
    images = [_image(seed, shape) for seed in range(number)]
    channels = images[0].channels
    return LoadedCohort(name="toy", channels=channels, images=images, fingerprint="f" * 64)


def _image(seed: int, shape: tuple[int, int, int] = SHAPE) -> Image:
    """Bright blobs in noise, which are the lesions."""
    from scipy import ndimage

    from lesion_core.images import Image
    from lesion_core.metrics import components

    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    lesion = field > np.quantile(field, 0.97)
    voxels = rng.normal(size=(2, *shape)).astype(np.float32)
    voxels[1] += 4 * lesion
    lesion[shape[0] // 4 :] = False
    labels, number = components(lesion)
    return Image(
        case=str(seed),
        site="",
        channels=("t1", "flair"),
        voxels=voxels,
        labels=labels.astype(np.uint16),
        num_lesions=number,
        lesion_outside_box=np.zeros((0, 4), dtype=np.int32),
        other=None,
        brain=np.ones(shape, dtype=bool),
        shape=shape,
        origin=(0, 0, 0),
        spacing_mm=(1.0, 1.0, 3.0),
        affine=np.diag([1.0, 1, 3, 1]),
        left_right_axis=0,
        warnings=(),
    )


def _trial(
    cohort: LoadedCohort, seed: int, precision: Precision, epochs: int, filters: tuple[int, ...]
) -> Trial:
    from lesion_core.losses import LOSSES
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial

    return Trial(
        cohort=cohort.name,
        fingerprint=cohort.fingerprint,
        loss=LOSSES["new"],
        seed=seed,
        fold=0,
        num_folds=4,
        settings=TrainSettings(epochs=epochs, precision=precision, filters=filters),
    )


class _Enough(Exception):
    """An epoch is complete."""


def _report(
    mine: Trial, cohort: LoadedCohort, device: str, checkpoint: bytes | None
) -> EpochReport:
    """What a trial reports of the next epoch alone."""
    import torch

    from lesion_core.trial import run

    reports = []

    def on_epoch(report: EpochReport) -> None:
        reports.append(report)
        raise _Enough

    try:
        run(
            mine, cohort, checkpoint=checkpoint, device=device, threads=torch.get_num_threads(),
            on_epoch=on_epoch,
        )  # fmt: skip
    except _Enough:
        return reports[0]
    raise AssertionError("a trial that reports no epoch")
