"""The flags that sweeps share: how a network is trained, and on which machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from lesion_core.settings import READ_BY, TrainSettings, reads


@dataclass(frozen=True, kw_only=True)
class Training(TrainSettings):
    """How each network is trained; the defaults are the paper's.

    Every field of `TrainSettings` is a flag, with its docstring as the help.
    """

    def __post_init__(self) -> None:
        """Check the flags of the classes behind this one, but leave these to `settings`.

        They may contradict each other until all are known, and ``stride`` follows the patch size.
        """
        check_others = getattr(super(TrainSettings, self), "__post_init__", None)
        if check_others is not None:
            check_others()

    def settings(self, **instead: Any) -> TrainSettings:
        """What these flags say of training, but for the fields that are given ``instead``.

        Where those choose a network or an optimiser, flags that it has no use for are the other
        ones': ``--momentum 0.9`` beside adam and sgd is sgd's.

        Raises:
            ValueError: they contradict each other.
        """
        from lesion_core.augment import augmentation_label, augmentation_named
        from lesion_core.networks.named import check_name

        given = self.given()
        for name, by in READ_BY.items():
            if by in instead and not reads(name, instead[by]):
                del given[name]
        settings = TrainSettings(**given | instead)
        label = augmentation_label(augmentation_named(settings.augment))
        settings = replace(settings, augment=label)  # one text for each: it is hashed
        check_name(settings)
        return settings

    def given(self) -> dict[str, Any]:
        """Every setting as its flag has it."""
        return {field.name: getattr(self, field.name) for field in fields(TrainSettings)}


T = TypeVar("T", bound=Training)


def without_demo_filters(flags: T, arguments: Sequence[str]) -> T:
    """The flags under --demo, whose narrow ``filters`` are not for a network that has no use for
    them, unless they were asked for."""
    from lesion_core.networks.names import network_name

    if (
        "--demo" not in arguments
        or "filters" in typed(arguments)
        or network_name(flags.network).reads_filters
    ):
        return flags
    return replace(flags, filters=TrainSettings.filters)


def typed(arguments: Sequence[str]) -> set[str]:
    """The fields whose flags were typed.

    >>> sorted(typed(["--no-flip", "--batch-size=8", "-h"]))
    ['batch_size', 'flip']
    """
    return {
        argument.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        for argument in arguments
        if argument.startswith("--")
    }


def refuse_unread(arguments: Sequence[str], compared: Sequence[TrainSettings]) -> None:
    """Raise ValueError for a flag that was typed and that none of these trainings has a use for."""
    for name, by in READ_BY.items():
        choices = dict.fromkeys(getattr(settings, by) for settings in compared)
        if name in typed(arguments) and not any(reads(name, choice) for choice in choices):
            raise ValueError(
                f"--{name.replace('_', '-')}: of the {by}s {' and '.join(choices)} none has a use "
                "for it; leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Whether a report is built at the end, and on what it rests."""

    no_report: bool = False
    """Build no report at the end."""
    training_effect: str = ""
    """What the report assumes that other training sets do to a difference in DSC: a standard
    deviation, or the file of `training-effect`; default: training-effect.json in --results, else
    0.01."""

    def check_reporting(self) -> None:
        """Raise ValueError for a training-set effect that is neither a number nor a file."""
        asked = self.training_effect
        try:
            fits = not asked or 0 <= float(asked) <= 1
        except ValueError:
            fits = Path(asked).is_file()
        if not fits:
            raise ValueError(
                f"--training-effect {asked}: expected a standard deviation of differences in DSC, "
                "from 0 to 1, or a training-effect.json"
            )


def check_grace(seconds: float) -> None:
    """Raise ValueError for a --grace-s that is no number of seconds."""
    if not 0 <= seconds <= 86400:
        raise ValueError(f"--grace-s {seconds:g}: expected seconds, from 0 to a day")


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where trials run, and how much of it each one takes."""

    address: str | None = None
    """Ray cluster: auto (RAY_ADDRESS, or the one this machine belongs to) or host:port; none: this
    machine."""
    cpus_per_trial: int = 1
    """CPU cores, and threads, of a trial."""
    gpus_per_trial: float | None = None
    """GPUs of a trial: 1, 0, or 1/n to share one; default: 1 where there are any."""
    checkpoint_every: int = 1
    """Epochs between checkpoints: what a trial that lost its machine may have to train again."""
    retries: int = 3
    """How often a trial may lose its worker or machine; preempted machines do not count."""
    grace_s: float = 20.0
    """Seconds in which running trials may leave a checkpoint when a signal stops the command."""
    quiet: bool = False
    """Show no progress, only failures and the end."""

    def __post_init__(self) -> None:
        if self.cpus_per_trial < 1:
            raise ValueError(f"--cpus-per-trial {self.cpus_per_trial}: expected 1 or more")
        if self.checkpoint_every < 1:
            raise ValueError(f"--checkpoint-every {self.checkpoint_every}: expected 1 or more")
        check_grace(self.grace_s)
        if self.retries < 0:
            raise ValueError(f"--retries {self.retries}: expected 0 or more")
        gpus = self.gpus_per_trial
        if gpus and not (0 < gpus <= 1 and abs(1 / gpus - round(1 / gpus)) < 1e-6):
            raise ValueError(
                f"--gpus-per-trial {gpus:g}: expected 0, 1 or 1/n such as 0.5 or 0.25: "
                "a trial uses one GPU, or an equal share of one"
            )
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                f"--address {self.address}: Ray's client protocol is not supported; run this on a "
                "machine of the cluster, with --address auto"
            )
