"""What defines a training besides its data, and the paper's choices; loads without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from lesion_core.networks.names import network_name

PAPER_LOSSES = ("xent", "gdsc", "dsc", "mixed", "focal1", "focal2", "new")
"""The paper's seven losses (section 2.3), in its order, by their names in `losses.LOSSES`."""

PAPER_SEEDS = (42, 80702, 74794, 62021, 48497)
"""Those of the authors' code."""

MOST = {"epochs": 2**15 - 1, "seed": 2**63 - 1}
"""What the ledger's tables hold (`results.CASES`)."""

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""What a network can compute in; `training.precision` says which of them a device has.

tf32 is fp32 but for the factors of convolutions, rounded to 10 bits.
"""

EvaluateOn = Literal["all", "held_out"]
EvaluateAt = Literal["every", "last"]
EVALUATION: dict[str, tuple[str, ...]] = {
    "evaluate_on": get_args(EvaluateOn),
    "evaluate_at": get_args(EvaluateAt),
}
"""What a trial is evaluated on, and after which epochs: what the fields of these names allow."""
PLAIN_THRESHOLD = 0.5
"""At which the paper cuts probabilities (section 2.4), and every score is stored."""
Optimiser = Literal["adam", "adamw", "sgd"]
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
"""What updates the weights (`training.optimisers`)."""

Schedule = Literal["constant", "poly", "cosine"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
"""How the learning rate goes on after the warm-up (`training.schedules`)."""

NNUNET_MOMENTUM = 0.99
"""nnU-Net's, with Nesterov's look ahead (Isensee et al. 2021)."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything besides data, loss, seed and fold that decides what a training computes.

    Defaults are the paper's (section 2) and, where it is silent, its authors' code.  The fields'
    docstrings are the help of the sweeps' flags.

    To add a setting, add a field whose default computes what was computed before, and leave
    ``ALWAYS_STORED`` as it is: a trial's hash is over what `to_dict` returns, so a field that
    appeared there unasked would rename every trial, and finished sweeps would start anew.
    """

    epochs: int = 25
    """Passes over the training patches."""
    batch_size: int = 16
    """Patches per step."""
    patch_size: int = 32
    """Side of the cubic patches, voxels; they overlap by half."""
    stride: int | None = None
    """Voxels between patches; none: half their side, as in the paper."""
    learning_rate: float = 1e-4
    """Learning rate; with a schedule or a warm-up, the highest."""
    filters: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the network's levels; 8 16 32 64 is narrow and fast."""
    flip: bool = True
    """Train on every patch twice per epoch, once mirrored left-right (authors' code)."""
    precision: Precision = "fp32"
    """Precision of the network's arithmetic, tf32 on GPUs only; weights and loss stay fp32."""
    evaluate_on: EvaluateOn = "all"
    """Images that a trial predicts: all, with the training patches (the paper's three views), or
    held_out ones alone."""
    evaluate_at: EvaluateAt = "every"
    """Epochs after which it predicts them: every one and the untrained network, or the last."""
    deterministic: bool = False
    """Compute on a GPU only by algorithms that give equal bits in every run; a CPU always does."""
    augment: str = "none"
    """What is done to training patches at random: none, flip (left-right), standard (what nnU-Net
    does), these with fields such as standard(rotation_degrees=10), or module:name of your own."""
    background_windows: float = 0.0
    """Share of an epoch's patches that are windows with brain and without lesion, below 1; as many
    windows with lesion as ever come on top."""
    threshold: float = 0.5
    """Probability from which on a voxel is lesion, where scores are stored a second time, as
    chosen, beside those at 0.5; and in masks that are predicted.  Trains nothing otherwise."""
    min_lesion_mm3: float = 0.0
    """Volume below which predicted lesions are taken out, in the scores as chosen and in masks.
    Trains nothing otherwise."""
    network: str = "unet3d"
    """unet3d (the paper's), one of MONAI's such as monai:DynUNet or
    'monai:SegResNet(init_filters=16)', or module:name of your own."""
    optimiser: Optimiser = "adam"
    """adam (the paper's), adamw (needs --weight-decay), or sgd with Nesterov momentum."""
    momentum: float | None = None
    """Momentum of sgd, 0 for none; default: 0.99, as in nnU-Net."""
    weight_decay: float = 0.0
    """What draws weights to 0: decoupled with adamw, added to the gradient with sgd."""
    schedule: Schedule = "constant"
    """Learning rate from step to step: constant (the paper's), poly (falls as (1 - step / steps) **
    0.9, nnU-Net's), or cosine (falls to 0 as half a cosine)."""
    warmup_epochs: int = 0
    """Epochs in which the learning rate first rises linearly, from one step's share."""
    clip_norm: float | None = None
    """Longest gradient (L2 norm over all weights); longer ones are shortened; default: any."""

    def __post_init__(self) -> None:
        stride = max(1, self.patch_size // 2) if self.stride is None else self.stride
        object.__setattr__(self, "stride", stride)
        object.__setattr__(self, "filters", tuple(int(width) for width in self.filters))
        for name, least in {"epochs": 1, "batch_size": 1, "patch_size": 1, "stride": 1}.items():
            if not least <= getattr(self, name) <= MOST.get(name, math.inf):
                most = f", {MOST[name]} at most" if name in MOST else ""
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more{most}")
        if stride > self.patch_size:
            raise ValueError(
                f"stride {stride} exceeds patch_size {self.patch_size}: voxels between "
                f"windows would never be predicted; expected {self.patch_size} or less"
            )
        object.__setattr__(self, "network", str(network_name(self.network)))
        self._check_filters()
        multiple = 2 ** (len(self.filters) - 1)
        if network_name(self.network).reads_filters and self.patch_size % multiple:
            raise ValueError(
                f"patch_size {self.patch_size} with {len(self.filters)} levels of filters: "
                f"expected a multiple of {multiple}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected more than 0")
        for name, fits, expected in (
            ("background_windows", 0 <= self.background_windows < 1, "0 or more, and less than 1"),
            ("threshold", 0 < self.threshold < 1, "more than 0 and less than 1"),
            ("min_lesion_mm3", 0 <= self.min_lesion_mm3 < math.inf, "0 or more mm3"),
        ):
            if not fits:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {expected}")
        if not self.augment:
            raise ValueError("augment is empty; expected none, flip, standard or module:name")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}"
            )
        for name, choices in EVALUATION.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
        self._check_optimiser()

    def _check_filters(self) -> None:
        """Refuse widths that the network would not read."""
        default = type(self).filters
        if network_name(self.network).reads_filters is False and self.filters != default:
            raise ValueError(
                f"filters {' '.join(map(str, self.filters))}: network {self.network} has widths of "
                "its own; leave --filters out, and give them behind the name"
            )

    def _check_optimiser(self) -> None:
        """Refuse what cannot be, and what would have no effect."""
        for name, choices in {"optimiser": OPTIMISERS, "schedule": SCHEDULES}.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}"
                )
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is {self.weight_decay}; expected 0 or more")
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise ValueError(f"clip_norm is {self.clip_norm}; expected more than 0")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}; expected 0 or more, and less than the "
                f"{self.epochs} epochs"
            )
        if self.optimiser == "adam" and self.weight_decay:
            raise ValueError(
                f"weight_decay {self.weight_decay:g} with adam, which would scale it by each "
                "weight's gradients; use --optimiser adamw"
            )
        if self.optimiser == "adamw" and not self.weight_decay:
            raise ValueError(
                "adamw without weight_decay is adam; give it a --weight-decay, such as 0.01, or "
                "use --optimiser adam"
            )
        if self.optimiser != "sgd" and self.momentum is not None:
            raise ValueError(
                f"momentum {self.momentum:g} with {self.optimiser}, which has its own; it is of "
                "--optimiser sgd"
            )
        if self.optimiser == "sgd":
            momentum = NNUNET_MOMENTUM if self.momentum is None else float(self.momentum)
            if not 0 <= momentum < 1:
                raise ValueError(f"momentum is {momentum}; expected 0 or more, and less than 1")
            object.__setattr__(self, "momentum", momentum)

    def evaluates(self, epoch: int) -> bool:
        """Whether the network is evaluated after this epoch; 0 is the untrained one."""
        return self.evaluate_at == "every" or epoch == self.epochs

    @property
    def window_stride(self) -> int:
        """``stride`` as a number: settings that were made have one."""
        assert self.stride is not None
        return self.stride

    @property
    def scores_as_chosen(self) -> bool:
        """Whether images are scored a second time, at another threshold or without the small."""
        return self.threshold != PLAIN_THRESHOLD or self.min_lesion_mm3 > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without later fields at their default; `from_dict` undoes it."""
        values = asdict(self) | {"filters": list(self.filters)}
        for field in fields(self):
            if field.name not in ALWAYS_STORED and values[field.name] == field.default:
                del values[field.name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings that `to_dict` stored; a later field that is absent has its default.

        Raises:
            ValueError: a field is unknown, or one that is always stored is absent.
        """
        unknown = values.keys() - {field.name for field in fields(cls)}
        missing = ALWAYS_STORED - values.keys()
        if unknown or missing:
            raise ValueError(
                f"training settings do not fit this release: unknown {sorted(unknown)}, "
                f"missing {sorted(missing)}"
            )
        return cls(**values)


ALWAYS_STORED = frozenset(
    (
        "epochs", "batch_size", "patch_size", "stride",
        "learning_rate", "filters", "flip", "precision",
    )
)  # fmt: skip
"""The fields of the first release.  Final: the trials of every sweep so far are named by them."""


# --------------------------------------------------------------------- what only some choices read
READ_BY = {"filters": "network", "momentum": "optimiser", "weight_decay": "optimiser"}
"""Settings that only some choices of another one have a use for, and which one that is."""


def reads(name: str, choice: str) -> bool:
    """Whether a choice of ``READ_BY[name]`` has a use for the setting ``name``.

    >>> reads("momentum", "sgd"), reads("weight_decay", "adam"), reads("filters", "monai:SegResNet")
    (True, False, False)

    Raises:
        ValueError: it is no name of a network.
    """
    if name == "filters":
        return network_name(choice).reads_filters is not False
    return choice == "sgd" or (name == "weight_decay" and choice == "adamw")
