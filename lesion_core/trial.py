"""A trial: one training with its evaluations, without Ray, W&B or a disk."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lesion_core import kernels
from lesion_core.augment import Augmentation, Augmenter, augmentation_named
from lesion_core.augment.user import ImportedAugmentation
from lesion_core.descriptions import (
    Identity,
    TrialRow,
    TrialSummary,
    configuration_hash,
    trial_name,
)
from lesion_core.evaluate import Evaluation, evaluate
from lesion_core.folds import test_folds
from lesion_core.images import Image, LoadedCohort
from lesion_core.losses import Loss, loss_from_dict, loss_label, loss_to_dict
from lesion_core.networks import own
from lesion_core.networks.fitting import check
from lesion_core.networks.named import initialised, on_device
from lesion_core.networks.names import network_name
from lesion_core.networks.saved import model_content
from lesion_core.own_code import refuse_changed
from lesion_core.patches import Volumes
from lesion_core.saved import check_shapes, read_saved
from lesion_core.settings import MOST, TrainSettings
from lesion_core.stopping import TrainingStopped
from lesion_core.training.background import Background
from lesion_core.training.epoch import EpochLosses, never, nothing, train_epoch
from lesion_core.training.memory import keep_freed_memory
from lesion_core.training.optimisers import optimiser_of, set_rate
from lesion_core.training.precision import algorithms, check_deterministic, check_precision
from lesion_core.training.randomness import generator, globally_seeded, seed_globally
from lesion_core.training.schedules import moves, rate_at
from lesion_core.training.step import Step
from lesion_core.versions import installed_versions

CASE_FIELDS = ("test_cases", "validation_cases", "training_cases")
"""Fields that name cases; each is part of a trial's description only where it is set."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that decides a training's outcome; two equal trials give the same bits."""

    cohort: str
    """Name of the cohort."""
    fingerprint: str
    """Hash of the cohort's files: other data is another trial."""
    loss: Loss
    """Callable of (logits, target)."""
    seed: int
    """With the fold, decides initial weights and batch order, the same for every loss."""
    fold: int
    """Which of the folds is tested, from 0."""
    num_folds: int
    """Folds of the cross-validation."""
    settings: TrainSettings
    """How the network is trained."""
    test_cases: tuple[str, ...] | None = None
    """Whom the fold tests, if not whom `folds.test_folds` would; the others are trained on."""
    validation_cases: tuple[str, ...] | None = None
    """Held out of the training part to be judged on; the test cases are then not even predicted."""
    training_cases: tuple[str, ...] | None = None
    """Whom of the training part it trains on, if not on all of it."""
    network_sha256: str | None = field(init=False, repr=False, default=None)
    """Hash of the code of a network of the user's own: other code is another trial."""

    def __post_init__(self) -> None:
        if not 0 <= self.fold < self.num_folds:
            raise ValueError(f"fold is {self.fold}; expected 0 to {self.num_folds - 1}")
        if not 0 <= self.seed <= MOST["seed"]:
            raise ValueError(f"seed is {self.seed}; expected 0 or more, {MOST['seed']} at most")
        _ = self.augmentation  # a mistake in its name shows here
        name = network_name(self.settings.network)
        if name.kind == "own":
            object.__setattr__(self, "network_sha256", own.source_sha256(name))

    @cached_property
    def augmentation(self) -> Augmentation | None:
        """What its settings' ``augment`` names; None: nothing."""
        return augmentation_named(self.settings.augment)

    def to_dict(self) -> dict[str, Any]:
        """The whole configuration as plain JSON values; `from_dict` undoes it."""
        values = {
            "cohort": self.cohort,
            "fingerprint": self.fingerprint,
            "loss": loss_to_dict(self.loss),
            "seed": self.seed,
            "fold": self.fold,
            "num_folds": self.num_folds,
            "settings": self.settings.to_dict(),
        }
        if isinstance(self.augmentation, ImportedAugmentation):
            values["augment"] = self.augmentation.to_dict()
        for name in CASE_FIELDS:  # where set: else names stay as they are
            if (cases := getattr(self, name)) is not None:
                values[name] = list(cases)
        if self.network_sha256 is not None:
            values["network_sha256"] = self.network_sha256
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` described; ValueError if it does not fit this release."""
        parts = {
            "loss": loss_from_dict(values["loss"]),
            "settings": TrainSettings.from_dict(values["settings"]),
        }
        for name in CASE_FIELDS:
            if name in values:
                parts[name] = tuple(values[name])
        others = {k: v for k, v in values.items() if k not in ("augment", "network_sha256")}
        trial = Trial(**(others | parts))
        if isinstance(trial.augmentation, ImportedAugmentation):
            trial.augmentation.check(values.get("augment") or {})
        name = network_name(trial.settings.network)
        refuse_changed("network", name.path, trial.network_sha256, values.get("network_sha256"))
        return trial

    @cached_property
    def hash(self) -> str:
        """Eight hexadecimal digits of the SHA-256 of the whole configuration."""
        return configuration_hash(self.to_dict())

    def tested(self, cases: Sequence[str]) -> list[str]:
        """The cases that the trial tests, of a cohort's and in their order.

        Raises:
            ValueError: a test case is none of them, or none is left to train on.
        """
        if self.test_cases is None:
            return test_folds(cases, self.num_folds)[self.fold]
        tested = [case for case in cases if case in self.test_cases]
        if not 0 < len(tested) < len(cases) or len(tested) < len(set(self.test_cases)):
            raise ValueError(
                f"fold {self.fold} tests {' '.join(self.test_cases)}; expected some, but not all, "
                f"of the cohort's cases: {' '.join(cases)}"
            )
        return tested

    def training_and_judged_cases(self, cases: Sequence[str]) -> tuple[list[str], list[str]]:
        """The cases that the trial trains on, and those it is judged on, in the cohort's order.

        It is judged on its validation cases if it has any, and then its test cases are in neither
        part; else on its test cases.  It trains on all others, or on its training cases.

        Raises:
            ValueError: as `tested` does; or the validation cases are not part of the training part,
                or are all of it; or the training cases are not part of what is left.
        """
        training, judged = self._parted(cases)
        if self.training_cases is None:
            return training, judged
        chosen = [case for case in training if case in self.training_cases]
        if not chosen or len(chosen) < len(set(self.training_cases)):
            raise ValueError(
                f"fold {self.fold} trains on {' '.join(self.training_cases)}; expected some of its "
                f"training part: {' '.join(training)}"
            )
        return chosen, judged

    def _parted(self, cases: Sequence[str]) -> tuple[list[str], list[str]]:
        """The cases that may be trained on, and those that are judged."""
        tested = self.tested(cases)
        training = [case for case in cases if case not in set(tested)]
        if self.validation_cases is None:
            return training, tested
        judged = [case for case in training if case in self.validation_cases]
        if not 0 < len(judged) < len(training) or len(judged) < len(set(self.validation_cases)):
            raise ValueError(
                f"fold {self.fold} is validated on {' '.join(self.validation_cases)}; expected "
                f"some, but not all, of its training part: {' '.join(training)}"
            )
        return [case for case in training if case not in set(judged)], judged

    @property
    def split(self) -> str:
        """Which part of the fold it is judged on: test, or validation (as `results.CASES` says)."""
        return "test" if self.validation_cases is None else "validation"

    @property
    def loss_label(self) -> str:
        """What tables and figures call its loss."""
        return loss_label(self.loss)

    @property
    def name(self) -> str:
        """Name of the trial's folder in the ledger."""
        return trial_name(self.cohort, self.loss_label, self.seed, self.fold, self.hash)

    @property
    def identity(self) -> Identity:
        """The columns that open each of its rows."""
        return {
            "trial": self.name,
            "cohort": self.cohort,
            "loss": self.loss_label,
            "seed": self.seed,
            "fold": self.fold,
        }

    def row(self) -> TrialRow:
        """The trial as sweep.json lists it; ``split`` only where it is not test, ``trained_on``
        only where that is not the whole training part."""
        row: TrialRow = {
            "name": self.name,
            "hash": self.hash,
            "cohort": self.cohort,
            "loss": self.loss_label,
            "loss_params": json.dumps(loss_to_dict(self.loss), sort_keys=True),
            "seed": self.seed,
            "fold": self.fold,
            "epochs": self.settings.epochs,
        }
        if self.split != "test":
            row["split"] = self.split
        if self.training_cases is not None:
            row["trained_on"] = len(self.training_cases)
        return row


@dataclass(frozen=True, kw_only=True)
class Final:
    """What only the last epoch of a trial leaves: rows of three tables, and the weights."""

    lesions: list[dict[str, Any]]
    histograms: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    model: bytes
    """``torch.save`` of `networks.saved.model_content`."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch of a trial leaves."""

    epoch: int
    cases: list[dict[str, Any]]
    """Complete `results.CASES` rows of this epoch; none where it was not evaluated."""
    epochs: dict[str, Any]
    """A `results.EPOCHS` row."""
    checkpoint: bytes | None
    """From which `run` goes on with the next epoch; None where none was asked for."""
    final: Final | None


def run(
    trial: Trial,
    cohort: LoadedCohort,
    *,
    checkpoint: bytes | None = None,
    checkpoint_every: int = 1,
    device: str = "cpu",
    threads: int = 1,
    on_epoch: Callable[[EpochReport], None],
    stop: Callable[[], bool] = never,
) -> TrialSummary:
    """Train and evaluate; reports every epoch, 0 (untrained) included; returns a summary.

    Given a checkpoint, goes on after its epoch (and reports that one again if it was the last), or
    within the next one.  Reports have a checkpoint after every ``checkpoint_every``-th epoch, from
    0; to make one takes a tenth of a second for the paper's network.  On a CPU the outcome is the
    same to the bit for equal ``threads``, interrupted or not.  ``stop`` is asked before every
    batch, in evaluations too.

    Raises:
        TrainingStopped: ``stop`` said so; with a checkpoint of where it is, but for an evaluation
            that was under way, which is done again.
        ValueError: the cohort is another than the trial's, or has no training lesions; or the
            device does not have the precision.
        Diverged: the loss became NaN or infinite.
    """
    check_deterministic(trial.settings.deterministic, device)
    with algorithms(trial.settings.deterministic, device):
        return _run(trial, cohort, checkpoint, checkpoint_every, device, threads, on_epoch, stop)


def _run(
    trial: Trial,
    cohort: LoadedCohort,
    checkpoint: bytes | None,
    checkpoint_every: int,
    device: str,
    threads: int,
    on_epoch: Callable[[EpochReport], None],
    stop: Callable[[], bool],
) -> TrialSummary:
    begun = time.monotonic()
    if cohort.fingerprint != trial.fingerprint:
        raise ValueError(
            f"cohort {cohort.name} has fingerprint {cohort.fingerprint[:12]}, the trial expects "
            f"{trial.fingerprint[:12]}: the files have changed since it was defined"
        )
    settings = trial.settings
    check_precision(settings.precision, device)
    torch.set_num_threads(threads)
    keep_freed_memory()
    names = [image.case for image in cohort.images]
    trained_on, judged_on = map(set, trial.training_and_judged_cases(names))
    images = [image for image in cohort.images if image.case in trained_on | judged_on]
    held_out = [index for index, image in enumerate(images) if image.case in judged_on]
    training = [index for index, image in enumerate(images) if image.case in trained_on]
    refuse_without_lesion(trial, [images[index] for index in training])
    volumes = Volumes.of(
        images, patch_size=settings.patch_size, stride=settings.window_stride, device=device
    )
    patches = volumes.training_patches(training, settings.flip)
    background = Background.of(volumes, images, training, settings)
    size = check(settings, len(cohort.channels), on_gpu=volumes.device.type == "cuda")
    network = initialised(settings, len(cohort.channels), trial.seed, trial.fold)
    on_device(network, device)
    optimiser = optimiser_of(network, settings)
    begun_epoch = None
    trained_until = None
    if checkpoint is not None:
        trained_until, begun_epoch = restore(checkpoint, network, optimiser)
    step = Step(
        network, optimiser, trial.loss, volumes,
        batch_size=settings.batch_size, precision=settings.precision, clip_norm=settings.clip_norm,
    )  # fmt: skip
    rates = _Rates(settings, len(patches) + background.num_patches)
    first = 0 if trained_until is None else min(trained_until + 1, settings.epochs)
    for epoch in range(first, settings.epochs + 1):
        clock = time.monotonic()
        if begun_epoch is not None:
            clock -= begun_epoch.seconds
        found = [] if begun_epoch is None else list(begun_epoch.found)
        begun_epoch = None
        losses: EpochLosses = {"train_loss": None, "grad_norm": None, "n_batches": 0}
        trained = clock
        last = epoch == settings.epochs
        seen = background.joined(patches, generator(trial.seed, trial.fold, epoch, "background"))
        try:
            if epoch > 0 and epoch != trained_until:
                shuffle = generator(trial.seed, trial.fold, epoch, "order")
                with _draws(trial, epoch) as draw:

                    def before_batch(batch: int, epoch: int = epoch, draw: Any = draw) -> None:
                        draw(batch)
                        if moves(settings):
                            set_rate(optimiser, rates.of(epoch, batch))

                    losses = train_epoch(
                        step, seen, epoch=epoch, shuffle=shuffle, found=found, stop=stop,
                        augmented=_augmenter(trial, len(cohort.channels), epoch),
                        before_batch=before_batch,
                    )  # fmt: skip
            trained = time.monotonic()
            scores = Evaluation([], [], [], [])
            if settings.evaluates(epoch):
                with _asked_before_each_batch(network, stop):
                    scores = evaluate(
                        network, trial.loss, volumes, images, held_out, settings,
                        split=trial.split, final=last,
                    )  # fmt: skip
        except TrainingStopped:
            if epoch in (0, trained_until):  # nothing was trained that is not saved
                raise
            seconds = (trained if trained > clock else time.monotonic()) - clock
            state = _state(epoch - 1, network, optimiser, BegunEpoch(_stacked(found), seconds))
            raise TrainingStopped(epoch - 1, len(found), _saved(state)) from None
        is_due = epoch % checkpoint_every == 0
        report = EpochReport(
            epoch=epoch,
            cases=[row | trial.identity | {"epoch": epoch} for row in scores.cases],
            epochs={
                **trial.identity,
                "epoch": epoch,
                **losses,
                "n_patches": len(seen),
                "seconds_train": trained - clock,
                "seconds_evaluate": time.monotonic() - trained,
                "learning_rate": rates.mean(epoch) if losses["n_batches"] else None,
            },
            checkpoint=_saved(_state(epoch, network, optimiser)) if is_due else None,
            final=_final(trial, scores, network, len(cohort.channels)) if last else None,
        )
        on_epoch(report)
    on_gpu = ["triton"] if kernels.are_used(volumes.device) else []
    return {
        "epochs_done": settings.epochs,
        "seconds": time.monotonic() - begun,
        "host": socket.gethostname(),
        "device": _device_name(volumes.device),
        "precision": settings.precision,
        "threads": threads,
        "versions": installed_versions("torch", "numpy", "scipy", "monai", *on_gpu),
        "fingerprint": cohort.fingerprint,
        "network": settings.network,
        "parameters": size.parameters,
        "flops_per_patch": size.flops_per_patch,
    }


def refuse_without_lesion(trial: Trial, training: Sequence[Image]) -> None:
    """Raise ValueError where none of the images that a trial trains on has a lesion voxel."""
    if not any(image.lesion.any() for image in training):
        raise ValueError(
            f"fold {trial.fold} of cohort {trial.cohort}: none of its {len(training)} training "
            "cases has a lesion; use fewer folds or check the lesion masks"
        )


def _augmenter(trial: Trial, channels: int, epoch: int) -> Augmenter | None:
    """What draws the random numbers of an epoch's batches; None: nothing is drawn."""
    if trial.augmentation is None:
        return None
    return Augmenter(
        augmentation=trial.augmentation,
        channels=channels,
        patch_size=trial.settings.patch_size,
        seed=trial.seed,
        fold=trial.fold,
        epoch=epoch,
    )


@dataclass(frozen=True)
class _Rates:
    """The learning rates of a training's batches."""

    settings: TrainSettings
    num_patches: int

    @property
    def _per_epoch(self) -> int:
        return math.ceil(self.num_patches / self.settings.batch_size)

    def of(self, epoch: int, batch: int) -> float:
        """Of a batch, counted from 0, of an epoch, counted from 1."""
        return rate_at((epoch - 1) * self._per_epoch + batch, self._per_epoch, self.settings)

    def mean(self, epoch: int) -> float:
        """Over an epoch's batches."""
        if not moves(self.settings):
            return self.settings.learning_rate
        return statistics.fmean(self.of(epoch, batch) for batch in range(self._per_epoch))


@contextmanager
def _draws(trial: Trial, epoch: int) -> Iterator[Callable[[int], None]]:
    """Before each batch, begin its random numbers in the global generators, for dropout.

    The paper's network draws none, so nothing is touched for it.
    """
    if network_name(trial.settings.network).kind == "unet3d":
        yield nothing
        return
    with globally_seeded(trial.seed, trial.fold, epoch, "dropout"):
        yield lambda batch: seed_globally(trial.seed, trial.fold, epoch, f"dropout {batch}")


@dataclass(frozen=True)
class BegunEpoch:
    """An epoch that was stopped in the middle of its training, or before it was evaluated."""

    found: Tensor
    """Loss and gradient norm ``[n, 2]`` of the batches that were trained on."""
    seconds: float
    """That this took."""

    def to_dict(self) -> dict[str, Any]:
        """As a checkpoint has it, under "begun"."""
        return {"found": self.found.cpu(), "seconds": self.seconds}

    @staticmethod
    def from_dict(values: Any) -> BegunEpoch:
        """What `to_dict` gave; ValueError if it is anything else."""
        if isinstance(values, dict):
            found, seconds = values.get("found"), values.get("seconds")
            if isinstance(found, Tensor) and isinstance(seconds, float) and found.shape[1:] == (2,):
                return BegunEpoch(found, seconds)
        raise ValueError("checkpoint.pt: what it says of an epoch that was begun is no such thing")


def restore(
    checkpoint: bytes, network: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, BegunEpoch | None]:
    """Put network and optimiser where they were, on the device that they are on.

    Whatever device they were on before: only what was learned is taken from the checkpoint.
    Returns the last epoch that is complete, and what was done of the one after it.
    """
    state = read_saved(checkpoint, "checkpoint.pt")
    network.load_state_dict(check_shapes(state["network"], network.state_dict(), "checkpoint.pt"))
    settings = optimiser.state_dict()["param_groups"]  # some hold on this device alone
    optimiser.load_state_dict(state["optimiser"] | {"param_groups": settings})
    if next(network.parameters()).is_cuda:
        lay_out_as_weights(optimiser)
    begun = state.get("begun")  # checkpoints of earlier releases are all between epochs
    return state["epoch"], None if begun is None else BegunEpoch.from_dict(begun)


def lay_out_as_weights(optimiser: torch.optim.Optimizer) -> None:
    """Let what an optimiser keeps of each weight lie in memory as the weight does, which kernels
    that take them together ask for; a checkpoint may come from where they lay otherwise.

    Not on a CPU: there a resumed training keeps even that as it was.
    """
    for parameter, kept in optimiser.state.items():
        for name, value in kept.items():
            if value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _stacked(found: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(found)) if found else torch.zeros(0, 2)


def _state(
    epoch: int,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    begun: BegunEpoch | None = None,
) -> dict[str, Any]:
    """What a checkpoint holds: all that the rest of a training depends on."""
    state = {
        "epoch": epoch,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    return state if begun is None else state | {"begun": begun.to_dict()}


@contextmanager
def _asked_before_each_batch(network: nn.Module, stop: Callable[[], bool]) -> Iterator[None]:
    """`TrainingStopped` is raised by the network's next use once ``stop`` says so."""

    def ask(*_: object) -> None:
        if stop():
            raise TrainingStopped

    hook = network.register_forward_pre_hook(ask)
    try:
        yield
    finally:
        hook.remove()


def _final(trial: Trial, scores: Evaluation, network: nn.Module, in_channels: int) -> Final:
    def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [trial.identity | {"epoch": trial.settings.epochs} | row for row in rows]

    model = model_content(network, trial.settings, in_channels, trial.network_sha256)
    return Final(
        lesions=complete(scores.lesions),
        histograms=complete(scores.histograms),
        slices=complete(scores.slices),
        model=_saved(model),
    )


def _saved(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() or os.name
