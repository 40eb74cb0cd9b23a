"""How long will it take?  From finished trials, or else from a few steps on this machine."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.arms import asked_rows
from lesion_core.progress import duration
from sweeps.data import Data
from sweeps.options import Machines

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort
    from lesion_core.trial import Trial


def predicted(
    trials: Sequence[Trial],
    data: Sequence[Data],
    machines: Machines,
    results: Path,
    may_run: Sequence[Trial] = (),
) -> str:
    """How many hours these trials would take, and where that comes from, for people.

    Raises:
        ValueError: this machine has not the precision of one of them, or of one that ``may_run``;
            or one cannot be trained on the images, where they are read for this.
    """
    from lesion_core.training.precision import check_deterministic, check_precision

    slots, where, device = _slots(machines)
    busy = _busy(machines)
    finished = finished_trials(results)
    here = machines.address is None  # what a cluster's machines have is known once it runs
    for settings in dict.fromkeys(trial.settings for trial in (*trials, *may_run)) if here else ():
        check_precision(settings.precision, device)
        check_deterministic(settings.deterministic, device)
    total, sources = 0.0, []
    loaded: dict[str, LoadedCohort] = {}
    for (cohort, settings), number in Counter((t.cohort, t.settings) for t in trials).items():
        (found,) = [item for item in data if item.name == cohort]
        size = found.check_settings(settings, on_gpu=device == "cuda" or not here)
        own = [each for each in finished if each.cohort == cohort]
        alike = [each for each in own if each.flops_per_patch in (None, size.flops_per_patch)]
        if alike:
            seconds = statistics.mean(each.seconds for each in alike)
            source = (
                f"mean of {len(alike)} finished trials in this folder, with what else ran beside "
                "them"
            )
        else:
            trial = next(t for t in trials if (t.cohort, t.settings) == (cohort, settings))
            if cohort not in loaded:
                loaded[cohort] = found.load(settings.patch_size, [*trials, *may_run])
            seconds = calibrated(trial, loaded[cohort], device, machines.cpus_per_trial)
            source = (
                f"from one training step and one evaluation of {_portion(trial, device)} patches "
                f"on this machine's {device}"
            )
        total += number * seconds
        sources.append(f"{duration(seconds)} per trial of {cohort}: {source}")
        sources.append(f"network {settings.network}: {size}")
    sources = list(dict.fromkeys(sources))
    at_once = max(1, min(slots, len(trials)))
    hours = total / at_once / 3600
    return (
        f"predicted: {hours:.3g} h ({duration(3600 * hours)}), {at_once} at a time on {where}, "
        "while nothing else runs there; once it trains, the command and its status go by the "
        "speed that it has\n" + "\n".join(f"    {source}" for source in [*sources, *busy])
    )


def seconds_by_trial(
    trials: Sequence[Trial], data: Sequence[Data], machines: Machines, results: Path
) -> dict[str, float]:
    """Seconds that each of these trials should take: as finished ones of its arm did in this
    folder, or else as some steps on this machine say."""
    spent, loaded = _seconds_by_arm(results), {}
    seconds: dict[_ArmKey, float] = {arm: statistics.mean(own) for arm, own in spent.items()}
    found, device = {}, ""
    for trial in trials:
        arm = _arm(trial.cohort, trial.loss_label, asdict(trial.settings))
        if arm not in seconds:
            device = device or _slots(machines)[2]
            if trial.cohort not in loaded:
                (place,) = [item for item in data if item.name == trial.cohort]
                loaded[trial.cohort] = place.load(trial.settings.patch_size, trials)
            seconds[arm] = calibrated(trial, loaded[trial.cohort], device, machines.cpus_per_trial)
        found[trial.name] = seconds[arm]
    return found


_ArmKey = tuple[str, str, tuple[tuple[str, Any], ...]]


def _arm(cohort: str, loss: str, settings: Mapping[str, Any]) -> _ArmKey:
    return cohort, loss, tuple(sorted(settings.items()))


def _seconds_by_arm(results: Path) -> dict[_ArmKey, list[float]]:
    """Seconds of the trials that are done, by cohort, loss and settings."""
    from lesion_core.results import read_meta, trial_status

    spent: dict[_ArmKey, list[float]] = {}
    rows = asked_rows(read_meta(results)) if (results / "sweep.json").exists() else {}
    for name, row in rows.items():
        state = trial_status(results / "trials" / name, row)
        if state["status"] == "done" and state["seconds"]:
            arm = _arm(row["cohort"], row["loss"], row["settings"])
            spent.setdefault(arm, []).append(state["seconds"])
    return spent


def _busy(machines: Machines) -> list[str]:
    """A line where other processes take part of this machine now, so that it would take longer."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    if machines.address is not None or load < BUSY_PART * cores:
        return []
    return [
        f"this machine is busy: {load:.1f} processes at work on {cores} cores (load average of the "
        "last minute); with as many beside it, it takes longer, and what was measured here now may "
        "be too slow"
    ]


BUSY_PART = 0.5
"""Processes at work by core from which on a machine counts as busy."""


@dataclass(frozen=True)
class Finished:
    """How long a trial took that is done, and with how large a network."""

    cohort: str
    seconds: float
    flops_per_patch: int | None
    """None in folders from before it was kept: they have one kind of network each."""


def finished_trials(results: Path) -> list[Finished]:
    """The trials that are done."""
    from lesion_core.results import read_meta, trial_status

    found = []
    if (results / "sweep.json").exists():
        for trial in read_meta(results)["trials"]:
            state = trial_status(results / "trials" / trial["name"])
            if state["status"] == "done" and state["seconds"]:
                found.append(Finished(trial["cohort"], state["seconds"], state["flops_per_patch"]))
    return found


def calibrated(trial: Trial, cohort: LoadedCohort, device: str, threads: int) -> float:
    """Seconds that a trial should take, by the speed of its batches and how many it has."""
    import numpy as np
    import torch

    from lesion_core.augment import Augmenter
    from lesion_core.evaluate import chosen_counts, image_counts, windows_at_once
    from lesion_core.networks.named import initialised, on_device
    from lesion_core.patches import Patches, Volumes
    from lesion_core.training.background import Background
    from lesion_core.training.epoch import train_epoch
    from lesion_core.training.memory import keep_freed_memory
    from lesion_core.training.precision import autocast, convolutions
    from lesion_core.training.randomness import generator
    from lesion_core.training.step import Step

    torch.set_num_threads(threads)
    keep_freed_memory()
    settings = trial.settings
    images = cohort.images
    volumes = Volumes.of(
        images, patch_size=settings.patch_size, stride=settings.stride or 1, device=device
    )
    with_lesion = volumes.training_patches(range(len(images)), settings.flip)
    background = Background.of(volumes, images, range(len(images)), settings)
    patches = background.joined(with_lesion, generator(0, 0, 0, "calibration"))
    num_windows = sum(len(volumes.windows(index)) for index in range(len(images)))
    num_mirrored = len(with_lesion) // 2 if settings.flip else 0
    network = on_device(initialised(settings, len(cohort.channels), 0, 0), device)
    optimiser: Any = _NoStep(network)
    portion = _portion(trial, device)
    at_once = portion if device == "cpu" else windows_at_once(volumes.device, settings)

    def some(number: int) -> Patches:
        return patches[torch.arange(number, device=device) % len(patches)]

    # On a GPU several batches, most of them replayed; the device is waited for after the last.
    batch = some(portion if device == "cpu" else 8 * portion)
    windows = some(at_once)
    step = Step(
        network, optimiser, trial.loss, volumes,
        batch_size=settings.batch_size, precision=settings.precision,
    )  # fmt: skip

    augmented = None
    if trial.augmentation is not None:
        augmented = Augmenter(
            augmentation=trial.augmentation, channels=len(cohort.channels),
            patch_size=settings.patch_size, seed=0, fold=0, epoch=0,
        )  # fmt: skip

    def train() -> None:
        shuffle = generator(0, 0, 0, "calibration")
        train_epoch(step, batch, epoch=1, shuffle=shuffle, augmented=augmented)

    @torch.no_grad()
    def predict() -> None:
        network.eval()
        inputs, _ = volumes.gather(windows)
        with convolutions(settings.precision), autocast(volumes.device, settings.precision):
            float(network(inputs).float().sum())  # waits for the device

    def count() -> None:
        nothing = np.zeros(images[0].box_shape, dtype=np.float32)
        image_counts(images[0], nothing)
        if settings.scores_as_chosen:
            chosen_counts(images[0], nothing, settings)

    training, judged = trial.training_and_judged_cases([image.case for image in images])
    trained = len(patches) * len(training) / len(images)
    scored, evaluated = len(images), num_windows * 1.0
    if settings.evaluate_on == "held_out":
        scored, evaluated = len(judged), num_windows * len(judged) / len(images)
    else:
        evaluated += num_mirrored * (trial.num_folds - 1) / trial.num_folds
    training = trained / len(batch) * _seconds(train)
    evaluation = evaluated / at_once * _seconds(predict)
    evaluation += scored * _seconds(count)
    evaluations = sum(map(settings.evaluates, range(settings.epochs + 1)))
    return settings.epochs * training + evaluations * evaluation


class _NoStep:
    """An optimiser that leaves the weights alone: to make torch's takes seconds, a step nearly
    nothing beside the gradients."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._network.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        pass


def _portion(trial: Trial, device: str) -> int:
    """Patches to calibrate with: a whole batch, or on a CPU, where time is linear, a few."""
    return trial.settings.batch_size if device != "cpu" else min(4, trial.settings.batch_size)


def _seconds(work: Callable[[], None]) -> float:
    """Seconds that some work takes the second time; the first one allocates."""
    work()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _slots(machines: Machines) -> tuple[int, str, str]:
    """How many trials at a time, where, and the device to calibrate on."""
    import torch

    on_gpu = torch.cuda.is_available() and machines.gpus_per_trial != 0
    device = "cuda" if on_gpu else "cpu"
    if machines.address is not None:
        from sweeps.distributed.cluster import connected

        with connected(machines) as cluster:
            return cluster.slots, cluster.description, device
    slots = len(os.sched_getaffinity(0)) // machines.cpus_per_trial
    if on_gpu:
        slots = min(slots, int(torch.cuda.device_count() / (machines.gpus_per_trial or 1) + 1e-6))
    if slots < 1:
        raise ValueError(
            f"--cpus-per-trial {machines.cpus_per_trial}: this machine has "
            f"{len(os.sched_getaffinity(0))}; expected that or less"
        )
    return slots, "this machine", device
