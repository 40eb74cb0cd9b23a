"""How fast a trial computes: steps, whole images, trials, several at a time; against peers.

The peers are the same network written plainly, in every way that PyTorch offers to run it
(`peers`), MONAI's and TorchIO's ways to predict whole images with it, a straightforward trial, and
MONAI's networks of nearest size for orientation.

Tried and left out (2026-11-25, two cores of an AMD EPYC, torch 2.13.0, forward + backward):
``torch.compile`` of the network is slower than the network as written, 0.93 x in fp32 and 0.90 x in
bf16, after 85 s of compiling.  Several seeds of one (loss, fold) as one network of grouped
convolutions: 0.93 x for 2 seeds of the paper's network; narrow ones 0.96 x and 1.09 x for 2 and 4
at batch 16, 1.22 x and 1.13 x at batch 2.  Huge pages: no change.  None was measured on a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sweeps.bench.gpu_busy import watched
from sweeps.bench.peers import PEERS
from sweeps.bench.rivals import (
    copy,
    epoch,
    matrices,
    network,
    peer_training,
    plain_trial,
    training,
    trial,
    whole_image,
)
from sweeps.bench.roofline import least_seconds
from sweeps.bench.timing import Rival, Row, Stage, paired

PLAIN = "plain PyTorch fp32"
KEPT = f"{PLAIN}, freed memory kept too"
MONAI = "MONAI sliding_window_inference"


def core(device: str, only: str | None = None) -> Iterator[Row]:
    """Measure steps, whole images, trials and several trials at a time; ``only``: one of `PARTS`.

    Raises:
        RuntimeError: peers disagree.
    """
    for name in (only,) if only is not None else _DEFAULT[device]:
        yield from PARTS[name](device)


def step_rows(device: str) -> Iterator[Row]:
    """The machine's rates, the network's passes, and steps of training against every peer."""
    precisions = _precisions(device)
    matrix = {}
    for precision in precisions:
        with Stage({precision: Rival(matrices, (precision, device))}) as ready:
            seconds = paired([precision], ready.run)[precision]
            matrix[precision] = ready.results[precision] / seconds
        yield Row(
            what=f"large matrix product, {precision}",
            value=matrix[precision] / 1e9,
            unit="GFLOP/s",
        )
    bytes_per_s = None
    if device == "cuda":  # on a CPU much stays in caches, and this rate bounds nothing
        with Stage({"copy": Rival(copy, (device,))}) as ready:
            seconds = paired(["copy"], ready.run)["copy"]
            bytes_per_s = ready.results["copy"] / seconds
        yield Row(what="copy of memory", value=bytes_per_s / 1e9, unit="GB/s")
    yield from peer_rows(device)
    for backward in (False, True):
        yield from _network_rows(device, precisions, matrix, bytes_per_s, backward)


def peer_rows(
    device: str,
    num_batches: int | None = None,
    width: str = "paper",
    backend: str = "inductor",
    repeats: int = 5,
) -> Iterator[Row]:
    """A step of training, Adam included, against every peer and against the best of them.

    Peers have their batch ready, and ours cuts it out of the images.  One that cannot run here is
    named, and none of the best.
    """
    precision = _precisions(device)[-1]
    number = num_batches or (20 if device == "cuda" else 1)
    ours = {f"ours, {precision}": "recorded"}
    if device == "cuda":
        ours[f"ours, {precision}, without kernels of our own"] = "recorded, without kernels"
    rivals = {
        name: Rival(training, (kind, precision, device, number, width))
        for name, kind in ours.items()
    }
    rivals |= {
        name: Rival(peer_training, (name, device, number, width, backend)) for name in PEERS[device]
    }
    what, mine = f"step of training on 16 x 2 x 32³, {precision}", next(iter(ours))
    with Stage(rivals) as ready:
        able = []
        for name in rivals:
            try:
                ready.run(name)
            except RuntimeError as error:
                if name in ours:
                    raise
                why = str(error).strip().splitlines()[-1]
                yield Row(what=f"{name}: cannot run here", value=float("nan"), note=why[:200])
            else:
                able.append(name)
        seconds = {n: s / number for n, s in paired(able, ready.run, repeats).items()}
    peers = [name for name in able if name not in ours]
    best = min(peers, key=lambda name: seconds[name])
    for name in [*(name for name in ours if name != mine), *peers]:
        yield Row(what=what, value=seconds[mine], peer=name, peer_value=seconds[name])
    yield Row(
        what=what,
        value=seconds[mine],
        peer=f"the best of them: {best}",
        peer_value=seconds[best],
        least_ratio=3.0 if device == "cuda" else None,
    )


def _precisions(device: str) -> list[str]:
    """What ours is measured in.

    On a GPU not in true fp32: finding its fastest algorithms alone takes minutes, and nobody asks.
    """
    from lesion_core.settings import PRECISIONS

    offered = [one for one in PRECISIONS if device == "cpu" or one != "fp32"]
    return [one for one in offered if _has(device, one)]


def image_rows(device: str) -> Iterator[Row]:
    """Whole images."""
    yield from _image_rows(device, _precisions(device))


def trial_rows(
    device: str, width: str = "paper", size: str = "real", epochs: int = 2
) -> Iterator[Row]:
    """A trial against one that is written down plainly; what recording wins, how busy a GPU is."""
    precision = _precisions(device)[-1]
    if device == "cpu":
        yield from _epoch_rows(device, _precisions(device))
        yield from augmentation_rows(device, _precisions(device))
        return
    yield from whole_trial_rows(device, precision, width, size, epochs)
    yield from training_rows(device, _precisions(device))
    yield from augmentation_rows(device, _precisions(device))


def whole_trial_rows(
    device: str, precision: str, width: str = "paper", size: str = "real", epochs: int = 2
) -> Iterator[Row]:
    """A real-sized trial, alone, against straightforward ones."""
    unasked = "tf32" if device == "cuda" else "fp32"
    peers = {f"straightforward trial, {name}": name for name in (unasked, "bf16")}
    rivals = {"ours": Rival(trial, (0, precision, device, epochs, width, size))}
    rivals |= {
        name: Rival(plain_trial, (0, device, epochs, width, which, size))
        for name, which in peers.items()
    }
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run, repeats=1)
    best = min(peers, key=lambda name: seconds[name])
    for name in peers:
        yield Row(
            what=f"trial of {epochs} epochs, {precision}",
            value=seconds["ours"],
            peer=name,
            peer_value=seconds[name],
            least_ratio=3.0 if name == best and device == "cuda" else None,
            note=f"{3600 / seconds['ours']:.0f} per hour; theirs is not evaluated before training",
        )


def _has(device: str, precision: str) -> bool:
    from lesion_core.training.precision import check_precision

    try:
        check_precision(precision, device)
    except ValueError:
        return False
    return True


def _network_rows(
    device: str,
    precisions: Sequence[str],
    matrix: dict[str, float],
    bytes_per_s: float | None,
    backward: bool,
) -> Iterator[Row]:
    what = "forward + backward" if backward else "forward"
    targets = {"fp32": 2.0, "bf16": 3.0} if backward and device == "cpu" else {}
    theirs, plain = ("tf32", f"{PLAIN[:-4]}tf32") if device == "cuda" else ("fp32", PLAIN)
    kinds = {plain: "plain", "MONAI BasicUNet": "BasicUNet", "MONAI UNet": "UNet"}
    if device == "cpu":
        kinds[KEPT] = "plain, memory kept"
    rivals = {name: Rival(network, ("ours", name, backward, device)) for name in precisions}
    rivals |= {
        name: Rival(network, (kind, theirs, backward, device)) for name, kind in kinds.items()
    }
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run)
        results = ready.results
    for precision in precisions:
        rate = results[precision]["operations"] / seconds[precision]
        note = f"{rate / 1e9:.0f} GFLOP/s, {rate / matrix[precision]:.0%} of the matrix rate"
        if bytes_per_s is not None:
            kernels = results[precision]["kernels"]
            least = least_seconds(kernels, matrix[precision], bytes_per_s)
            note += f"; {sum(moved for _, moved in kernels) / 1e9:.2g} GB moved by "
            note += f"{len(kernels)} kernels, {least / seconds[precision]:.0%} of the roofline"
        yield Row(
            what=f"{what} of 16 x 2 x 32³, {precision}",
            value=seconds[precision],
            peer=plain,
            peer_value=seconds[plain],
            least_ratio=targets.get(precision),
            note=note,
        )
    for name in list(kinds)[1:]:
        yield Row(
            what=f"{what} of 16 x 2 x 32³, {theirs}",
            value=seconds[theirs],
            peer=name,
            peer_value=seconds[name],
            note=f"{results[name]['parameters']:,} parameters, "
            f"{results[name]['operations'] / results[theirs]['operations']:.2g} x the operations",
        )


def _image_rows(device: str, precisions: Sequence[str]) -> Iterator[Row]:
    peers = {MONAI: "monai", "TorchIO GridSampler": "torchio"}
    theirs, plain = ("tf32", f"{PLAIN[:-4]}tf32") if device == "cuda" else ("fp32", PLAIN)
    rivals = {name: Rival(whole_image, (kind, theirs, device)) for name, kind in peers.items()}
    rivals |= {name: Rival(whole_image, ("ours", name, device)) for name in precisions}
    targets = {"fp32": 2.0, "bf16": 3.5} if device == "cpu" else {}
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run, repeats=3)
        found = ready.results
    for precision in precisions:
        for name in peers if precision == theirs else (MONAI,):
            difference = float(abs(found[precision] - found[name]).max())
            if precision == "fp32" and not difference <= 1e-4:  # NaN, too
                raise RuntimeError(f"{name} disagrees with ours by {difference:g}")
            yield Row(
                what=f"whole image of 280 windows, {precision}",
                value=seconds[precision],
                peer=f"{name}, {plain}",
                peer_value=seconds[name],
                least_ratio=targets.get(precision) if name == MONAI else None,
                note=f"probabilities differ by {difference:.0e} at most",
            )


def _epoch_rows(device: str, precisions: Sequence[str]) -> Iterator[Row]:
    rivals = {PLAIN: Rival(epoch, ("plain", "fp32", device))}
    rivals |= {name: Rival(epoch, ("ours", name, device)) for name in precisions}
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run, repeats=3)
        found = ready.results
    for precision in precisions:
        difference = _difference(found[precision], found[PLAIN])
        if precision == "fp32" and not difference <= 1e-3:
            raise RuntimeError(f"a straightforward epoch disagrees with ours by {difference:g}")
        yield Row(
            what=f"epoch of 48 patches and its three evaluations, {precision}",
            value=seconds[precision],
            peer=f"DataLoader, MONAI, {PLAIN}",
            peer_value=seconds[PLAIN],
            least_ratio=2.5 if (device, precision) == ("cpu", "fp32") else None,
            note=f"loss and mean Dice differ by {difference:.0e} at most",
        )


def training_rows(
    device: str, precisions: Sequence[str], num_batches: int = 100, width: str = "paper"
) -> Iterator[Row]:
    """Training alone: what recording its steps wins, and how busy it keeps a GPU."""
    made = {f"recorded {precision}": ("recorded", precision) for precision in precisions}
    made |= {f"launched {precision}": ("launched", precision) for precision in precisions}
    plain = PLAIN if device == "cpu" else f"{PLAIN[:-4]}tf32"
    made[plain] = ("plain", "fp32" if device == "cpu" else "tf32")
    rivals = {
        name: Rival(training, (*which, device, num_batches, width)) for name, which in made.items()
    }
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run, repeats=3)
        for precision in precisions:
            name = f"recorded {precision}"
            what = f"training on {num_batches} batches, {precision}"
            peers = {"launched kernel by kernel": f"launched {precision}"}
            peers |= {f"{plain}, batches cut before": plain}
            for peer, theirs in peers.items():
                yield Row(what=what, value=seconds[name], peer=peer, peer_value=seconds[theirs])
            if device == "cuda":
                yield _busy_row(precision, lambda name=name: ready.run(name))


def augmentation_rows(
    device: str, precisions: Sequence[str], num_batches: int | None = None, width: str = "paper"
) -> Iterator[Row]:
    """Training with augmentation against training without, on the same batches."""
    number = num_batches or (100 if device == "cuda" else 4)
    kinds = ("none", "flip", "standard")
    rivals = {
        f"{kind} {precision}": Rival(training, ("recorded", precision, device, number, width, kind))
        for kind in kinds
        for precision in precisions
    }
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run, repeats=3)
    for precision in precisions:
        without = seconds[f"none {precision}"]
        for kind in kinds[1:]:
            yield Row(
                what=f"training on {number} batches, --augment {kind}, {precision}",
                value=seconds[f"{kind} {precision}"],
                peer="without",
                peer_value=without,
                least_ratio=1 / 1.15 if kind == "standard" else None,
            )


def _busy_row(precision: str, run: Callable[[], object], seconds: float = 6) -> Row:
    """While runs follow each other for so long; the first second does not count."""
    run()
    begun = time.monotonic()
    later, note = [], "nvidia-smi does not say"
    try:
        with watched(_gpu()) as percent:
            while time.monotonic() < begun + seconds:
                run()
        later = percent[5:]
    except RuntimeError as error:
        note = str(error)
    return Row(
        what=f"GPU busy in training, {precision}",
        value=statistics.mean(later) if later else float("nan"),
        unit="%",
        least=90,
        note="" if later else note,
    )


def _gpu() -> str:
    import torch

    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


def packing_rows(
    device: str,
    numbers: Sequence[int] = (1, 2, 4, 8),
    epochs: int = 2,
    width: str = "paper",
    precision: str | None = None,
    size: str = "real",
) -> Iterator[Row]:
    """Short trials with other seeds, several at a time on one device: how long for each,
    whether each gets the results that it has with fewer beside it, and on a GPU against trials
    written down plainly, as many of them at a time."""
    precision = precision or _precisions(device)[-1]
    before: dict[str, dict[str, float]] = {}
    one = None
    plain = {}
    for number in dict.fromkeys((numbers[0], numbers[-1])) if device == "cuda" else ():
        rivals = {
            str(seed): Rival(plain_trial, (seed, device, epochs, width, "bf16", size))
            for seed in range(number)
        }
        with Stage(rivals) as ready:
            ready.run_together()
            plain[number] = ready.run_together() / number
        yield Row(
            what=f"straightforward trial of {epochs} epochs, bf16, {number} at a time",
            value=plain[number],
            note=f"{3600 / plain[number]:.0f} per hour",
        )
    for number in numbers:
        rivals = {
            str(seed): Rival(trial, (seed, precision, device, epochs, width, size))
            for seed in range(number)
        }
        with Stage(rivals) as ready:
            ready.run_together()  # uncounted, and the one whose results can be compared
            now = {seed: result["numbers"] for seed, result in ready.results.items()}
            seconds = statistics.median(ready.run_together() for _ in range(2)) / number
            growth = max(result["memory_growth_mb"] for result in ready.results.values())
        one = one or seconds
        yield Row(
            what=f"trial of {epochs} epochs, {number} at a time, {precision}",
            value=seconds,
            peer="one at a time",
            peer_value=one,
            note=f"{3600 / seconds:.0f} per hour; memory grew by {growth:.0f} MB over its epochs",
        )
        if plain:
            yield Row(
                what=f"trial of {epochs} epochs, {number} at a time, {precision}",
                value=seconds,
                peer="straightforward trial, bf16, as many at a time as is best for it",
                peer_value=min(plain.values()),
                least_ratio=3.0,
                note="theirs is not evaluated before training",
            )
        if before:
            yield Row(
                what=f"loss and Dice with {number} at a time against fewer, at most",
                value=max(_difference(numbers, now[seed]) for seed, numbers in before.items()),
                unit="apart",
                most=0,
                note="deterministic algorithms",
            )
        before = now


def _difference(some: dict[str, float], others: dict[str, float]) -> float:
    """The largest difference between two trials' numbers; NaN if there is one."""
    return float(np.max([abs(value - others[name]) for name, value in some.items()]))


PARTS: dict[str, Callable[[str], Iterator[Row]]] = {
    "step": step_rows,
    "image": image_rows,
    "trial": trial_rows,
    "packing": packing_rows,
}
"""What `core` measures; each is meant to take four minutes at most on a large GPU."""

_DEFAULT = {"cpu": ("step", "image", "trial"), "cuda": tuple(PARTS)}
"""Where a CPU's cores are shared by hand, packing would say nothing new."""
