"""What a network is trained to minimise: one frozen dataclass per loss, and how losses are named.

Every loss takes ``(logits [B,1,X,Y,Z], target of the same shape in {0,1})`` and returns a scalar;
its fields are its hyper-parameters.  Notation: f logit, y reference, p = sigmoid(f) (the paper's
y-hat), N voxels, fg and bg lesion and background.  Voxel-wise losses are written with the *wrong
logit* z = f (1 - 2y): sigmoid(z) = |y - p| is the probability given to the wrong class, and
softplus(z) the cross-entropy.  So nothing saturates: an error stays an error at any logit, where
a logarithm of a rounded probability loses its gradient beyond |f| = 17 in single precision.
Arithmetic is float32 whatever the logits' precision (float64 if they are), and never waits for
the device.

Equations are those of Cabezas & Diez 2024, "An Analysis of Loss Functions for Heavily Imbalanced
Lesion Segmentation"; its authors' code is the public one of 2021.

To add a loss: write a class, name it in ``BuiltIn``, and give it an instance in ``LOSSES``.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import json
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeGuard, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lesion_core.settings import PAPER_LOSSES as PAPER_LOSSES

Alpha = float | Literal["patch"] | None
"""Weight of lesion voxels in [0, 1]; background voxels weigh 1 - alpha.  None: N_bg / N of the
batch, so that both classes weigh the same in total; "patch": N_bg / N of each patch."""


@dataclass(frozen=True)
class Range:
    """Where a search looks for a field's value; an open end is left out itself."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __str__(self) -> str:
        """
        >>> print(Range(0, 10, open_low=True))
        (0, 10]
        """
        ends = "[("[self.open_low], "])"[self.open_high]
        return f"{ends[0]}{self.low:g}, {self.high:g}{ends[1]}"


def _searched(low: float, high: float, **ends: bool) -> dict[str, Range]:
    """Of a field that a search varies, between these unless told otherwise (`search_space`)."""
    return {"search": Range(low, high, **ends)}


Reduction = Literal["patch", "batch"]
"""Where an overlap is measured: in each patch, then averaged; or once over the batch's voxels."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy (eq. 1): -log p for lesion, -log(1 - p) for background, mean over voxels.

    Computed as softplus(z), the same function.  The authors' code takes the logarithm of a
    rounded sigmoid, whose gradient is 0 for confident errors.
    """

    name: ClassVar[str] = "xent"

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, target = torch.zeros(1, 1, 1, 1, 2), torch.tensor([[[[[0, 1]]]]])
        >>> print(f"{CrossEntropy()(half_sure, target):.4f}")  # log 2
        0.6931
        """
        logits, target = _prepare(logits, target)
        return _cross_entropy(_wrong_logit(logits, target)).mean()


@dataclass(frozen=True, kw_only=True)
class WeightedCrossEntropy:
    """Cross-entropy times alpha for lesion and 1 - alpha for background, mean over voxels.

    Not among the paper's seven; by default both classes weigh the same in total.  A batch without
    lesion then costs nothing.
    """

    name: ClassVar[str] = "xent_w"

    alpha: Alpha = field(default=None, metadata=_searched(0, 1, open_low=True, open_high=True))
    """Weight of lesion voxels in [0, 1]; None: N_bg / N of the batch; "patch": of each patch."""

    def __post_init__(self) -> None:
        _check_alpha(self)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> logits, target = torch.zeros(1, 1, 1, 1, 4), torch.tensor([[[[[0, 0, 0, 1]]]]])
        >>> print(f"{WeightedCrossEntropy()(logits, target):.4f}")  # (3/4 + 3 * 1/4) log 2 / 4
        0.2599
        """
        logits, target = _prepare(logits, target)
        entropy = _cross_entropy(_wrong_logit(logits, target))
        return (_class_weight(target, self.alpha) * entropy).mean()


@dataclass(frozen=True, kw_only=True)
class Focal:
    """Focal loss (eq. 2): a_y |y - p|^gamma times the cross-entropy, mean over voxels.

    a_y = alpha for lesion, 1 - alpha for background, as Lin et al. 2017 and the authors' code
    have it.  Printed, eq. 2 has alpha for both, which would only scale the loss: under Adam
    focal1 and focal2 would be one and the same, against Table 2.
    """

    name: ClassVar[str] = "focal"

    alpha: Alpha = field(default=0.25, metadata=_searched(0, 1, open_low=True, open_high=True))
    """Weight of lesion voxels in [0, 1]; None: N_bg / N of the batch; "patch": of each patch."""
    gamma: float = field(default=2.0, metadata=_searched(0, 5))
    """Focus on errors, 0 or more; 0 is the (weighted) cross-entropy."""

    def __post_init__(self) -> None:
        _check_alpha(self)
        _check_number(self, "gamma", low=0)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, lesion = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
        >>> print(f"{Focal(alpha=0.25, gamma=2)(half_sure, lesion):.5f}")  # log 2 / 16
        0.04332
        """
        logits, target = _prepare(logits, target)
        wrong = _wrong_logit(logits, target)
        # |y - p|^gamma as an exponential: the derivative of a power is infinite at 0, gamma < 1.
        focus = (self.gamma * F.logsigmoid(wrong)).exp()
        return (_class_weight(target, self.alpha) * focus * _cross_entropy(wrong)).mean()


@dataclass(frozen=True, kw_only=True)
class WeightedGradient:
    """The paper's proposal (eq. 5): the cross-entropy's gradient, weighted and focused.

    dL/df = -alpha (1 - p)^gamma for lesion, (1 - alpha) p^gamma for background, mean over voxels.
    Its value is the loss that has this gradient and is 0 for a perfect prediction,

        L = a_y (softplus(z) - sum_{0<k<gamma} sigmoid(z)^k / k)     for whole gamma,

    so a_y (cross-entropy - |y - p|) for gamma = 2, and the integral of a_y sigmoid^gamma up to z
    for any gamma.  Printed, eq. 5 lacks the minus for lesion.  The authors' code replaces the
    gradient of a generalised Dice by eq. 5, so the curve that it logs belongs to another loss,
    and adds over voxels where we average (Adam does not see the difference).  A batch without
    lesion costs nothing under the default alpha.
    """

    name: ClassVar[str] = "new"

    alpha: Alpha = field(default=None, metadata=_searched(0, 1, open_low=True, open_high=True))
    """Weight of lesion voxels in [0, 1]; None: N_bg / N of the batch; "patch": of each patch."""
    gamma: float = field(default=2.0, metadata=_searched(0, 10, open_low=True))
    """Focus on errors, in (0, 10]; 1 is the weighted cross-entropy."""

    def __post_init__(self) -> None:
        _check_alpha(self)
        # At 0 the gradient ignores the prediction, and the loss that has it is unbounded below.
        _check_number(self, "gamma", above=0, high=10)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, lesion = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
        >>> print(f"{WeightedGradient(alpha=1)(half_sure, lesion):.4f}")  # log 2 - 1 / 2
        0.1931
        """
        logits, target = _prepare(logits, target)
        errors = _SigmoidPowerIntegral.apply(_wrong_logit(logits, target), self.gamma)
        return (_class_weight(target, self.alpha) * errors).mean()


@dataclass(frozen=True, kw_only=True)
class Dice:
    """Soft Dice (eq. 4, Milletari et al. 2016): 1 - (2 sum(p y) + eps) / (sum(p + y) + eps).

    Printed, eq. 4 doubles eps in the numerator: -1 for an empty patch predicted empty.  Ours is 0
    there and for every perfect prediction; with eps = 0 it is 1 there (the limit, and what the
    authors' code gives), with gradient 0.  As the paper shows (A.3), the gradient carries a factor
    p (1 - p), so confident errors are hardly corrected.
    """

    name: ClassVar[str] = "dsc"

    eps: float = 1e-6
    """Smoothing, voxels; decides about patches without lesion only."""
    reduction: Reduction = "patch"
    """Overlap of each patch, then the mean (authors' code); or of the batch as a whole."""

    def __post_init__(self) -> None:
        _check_number(self, "eps", low=0)
        _check_choice(self, "reduction", get_args(Reduction))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, target = torch.zeros(1, 1, 1, 1, 2), torch.tensor([[[[[0, 1]]]]])
        >>> print(f"{Dice()(half_sure, target):.4f}")  # 1 - 2 * 1/2 / (1 + 1)
        0.5000
        """
        logits, target = _prepare(logits, target)
        overlap, volume, _ = _overlap(logits, target, self.reduction)
        total = (volume + self.eps).clamp_min(1e-30)  # 0 / 0 if eps is 0 and all is empty
        return (1 - (2 * overlap + self.eps) / total).mean()


@dataclass(frozen=True, kw_only=True)
class GeneralisedDice:
    """Generalised Dice (eq. 3, A7; Sudre et al. 2017): overlap of both classes, small ones up.

    1 - 2 ((w1 + w0) I + w0 (N - S)) / ((w1 - w0) S + 2 N w0), I = sum(p y), S = sum(p + y),
    w1 = 1 / N_fg^2, w0 = 1 / N_bg^2, an empty class counted as one voxel.  Its gradient by p is
    A15 as printed (A14 is printed with the sign of -G'F, which A15 undoes).  No smoothing: the
    terms can be as small as 1e-9, where the usual 1e-5 would decide the value.

    The authors' code weights by 1 / N (``weights="inverse"``) and uses the first patch's weights
    for the whole batch; ours are each patch's own.
    """

    name: ClassVar[str] = "gdsc"

    weights: Literal["inverse_square", "inverse"] = "inverse_square"
    """Of a class with n voxels: 1 / n^2 as in the paper, or 1 / n as in its authors' code."""
    reduction: Reduction = "patch"
    """Overlap and weights of each patch, then the mean; or of the batch as a whole."""

    def __post_init__(self) -> None:
        _check_choice(self, "weights", ("inverse_square", "inverse"))
        _check_choice(self, "reduction", get_args(Reduction))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, target = torch.zeros(1, 1, 1, 1, 2), torch.tensor([[[[[0, 1]]]]])
        >>> print(f"{GeneralisedDice()(half_sure, target):.4f}")  # w1 = w0: half of it is right
        0.5000
        """
        logits, target = _prepare(logits, target)
        overlap, volume, lesion = _overlap(logits, target, self.reduction)
        num_voxels = target.numel() // len(lesion)
        power = 2 if self.weights == "inverse_square" else 1
        w1 = lesion.clamp_min(1) ** -power
        w0 = (num_voxels - lesion).clamp_min(1) ** -power
        shared = (w1 + w0) * overlap + w0 * (num_voxels - volume)
        return (1 - 2 * shared / ((w1 - w0) * volume + 2 * num_voxels * w0)).mean()


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Soft Dice plus cross-entropy, weighted equally (section 2.3.3): their plain sum."""

    name: ClassVar[str] = "mixed"

    eps: float = 1e-6
    """Smoothing of the Dice part, voxels."""
    reduction: Reduction = "patch"
    """Of the Dice part: each patch, then the mean; or the batch as a whole."""

    def __post_init__(self) -> None:
        _check_number(self, "eps", low=0)
        _check_choice(self, "reduction", get_args(Reduction))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, target = torch.zeros(1, 1, 1, 1, 2), torch.tensor([[[[[0, 1]]]]])
        >>> print(f"{Mixed()(half_sure, target):.4f}")  # 1/2 + log 2
        1.1931
        """
        dice = Dice(eps=self.eps, reduction=self.reduction)
        return dice(logits, target) + CrossEntropy()(logits, target)


@dataclass(frozen=True, kw_only=True)
class Tversky:
    """Tversky loss (Salehi et al. 2017): soft Dice that weighs false positives and negatives.

    1 - (TP + eps) / (TP + alpha FP + beta FN + eps), TP = sum(p y), FP = sum(p (1 - y)),
    FN = sum((1 - p) y).  alpha = beta = 1/2 is the soft Dice (with twice the eps).
    """

    name: ClassVar[str] = "tversky"

    alpha: float = field(default=0.3, metadata=_searched(0, 1, open_low=True))
    """Cost of false positives, 0 or more."""
    beta: float = field(default=0.7, metadata=_searched(0, 1, open_low=True))
    """Cost of false negatives, 0 or more."""
    eps: float = 1e-6
    """Smoothing, voxels; more than 0."""
    reduction: Reduction = "patch"
    """Overlap of each patch, then the mean; or of the batch as a whole."""

    def __post_init__(self) -> None:
        _check_number(self, "alpha", low=0)
        _check_number(self, "beta", low=0)
        if self.alpha == self.beta == 0:
            raise ValueError("loss 'tversky': alpha and beta are 0; expected one above 0")
        _check_number(self, "eps", above=0)
        _check_choice(self, "reduction", get_args(Reduction))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, lesion = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
        >>> print(f"{Tversky(beta=1)(half_sure, lesion):.4f}")  # 1 - 1/2 / (1/2 + 1/2)
        0.5000
        """
        logits, target = _prepare(logits, target)
        overlap, volume, lesion = _overlap(logits, target, self.reduction)
        false_positive = volume - lesion - overlap
        false_negative = lesion - overlap
        missed = self.alpha * false_positive + self.beta * false_negative
        return (1 - (overlap + self.eps) / (overlap + missed + self.eps)).mean()


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Cross-entropy of the worst voxels only: the mean over the given fraction of the batch.

    Known from nnU-Net (Isensee et al. 2021) with a tenth.  Another answer to the imbalance: easy
    background drops out however much of it there is.
    """

    name: ClassVar[str] = "topk"

    fraction: float = field(default=0.1, metadata=_searched(0, 1, open_low=True))
    """Share of the batch's voxels that counts, in (0, 1]; 1 is the cross-entropy."""

    def __post_init__(self) -> None:
        _check_number(self, "fraction", above=0, high=1)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> logits, target = torch.tensor([[[[[0.0, -9.0]]]]]), torch.zeros(1, 1, 1, 1, 2)
        >>> print(f"{TopK(fraction=0.5)(logits, target):.4f}")  # log 2: the easy voxel is out
        0.6931
        """
        logits, target = _prepare(logits, target)
        entropy = _cross_entropy(_wrong_logit(logits, target)).flatten()
        num_voxels = max(1, round(self.fraction * len(entropy)))
        return entropy.topk(num_voxels, sorted=False).values.mean()


# -------------------------------------------------------------------------------------- arithmetic
def _prepare(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or float64 if the logits are."""
    if logits.shape != target.shape:
        raise ValueError(
            f"target has shape {list(target.shape)}, logits {list(logits.shape)}; "
            "expected the same, [B,1,X,Y,Z]"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), target.to(dtype)


def _wrong_logit(logits: Tensor, target: Tensor) -> Tensor:
    """z = f (1 - 2y): sigmoid(z) = |y - p|; large and positive for a confident error."""
    return logits * (1 - 2 * target)


def _cross_entropy(wrong_logit: Tensor) -> Tensor:
    """softplus(z), exact at both ends (F.softplus is linear beyond 20)."""
    return -F.logsigmoid(-wrong_logit)


def _class_weight(target: Tensor, alpha: Alpha) -> Tensor:
    """alpha on lesion voxels, 1 - alpha on the others."""
    if alpha is None:
        background: Tensor | float = target.mean()  # 1 - N_bg / N, without cancellation
    elif alpha == "patch":
        background = target.mean(dim=tuple(range(1, target.ndim)), keepdim=True)
    else:
        background = 1 - alpha
    return target * (1 - background) + (1 - target) * background


def _overlap(logits: Tensor, target: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor, Tensor]:
    """sum(p y), sum(p + y) and sum(y): of each patch [B], or of the batch [1]."""
    # exp(log sigmoid) has the derivative p (1 - p) to full relative precision at either end;
    # torch.sigmoid's own is 0 beyond +17 but not below -17, so it treats false positives worse.
    probabilities = F.logsigmoid(logits).exp()
    if reduction == "batch":
        probabilities, target = probabilities[None], target[None]
    probabilities, target = probabilities.flatten(1), target.flatten(1)
    lesion = target.sum(1)
    return (probabilities * target).sum(1), probabilities.sum(1) + lesion, lesion


class _SigmoidPowerIntegral(torch.autograd.Function):
    """Integral of sigmoid(t)^gamma for t from -infinity to z; its derivative is sigmoid(z)^gamma.

    With s = sigmoid(z) it is the incomplete beta function B(s; gamma, 0).  Both sides of z = 0
    have a power series in m = sigmoid(-|z|) <= 1/2, so as many terms as the precision has bits:

        z <= 0:  s^gamma sum_k m^k / (gamma + k), all terms positive: relatively exact, where
                 softplus(z) minus its correction would cancel;
        z > 0:   softplus(z) - c - sum_{k>0} C(gamma - 1, k) (-m)^k / k, which ends at
                 k = gamma - 1 for a whole gamma: the closed form.

    c = digamma(gamma) + Euler's constant, which is where the two sides meet at z = 0.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.gamma = gamma
        num_terms = 54
        below = [1 / (gamma + k) for k in range(num_terms)]
        binomials = [1.0]  # C(gamma - 1, k) (-1)^k
        for k in range(1, num_terms):
            binomials.append(binomials[-1] * (k - gamma) / k)
        above = [0.0] + [binomials[k] / k for k in range(1, num_terms) if binomials[k]]
        halves = [0.5**k for k in range(num_terms)]
        above[0] = math.log(2) - sum(map(operator.mul, above, halves))
        above[0] -= 0.5**gamma * sum(map(operator.mul, below, halves))
        if z.dtype == torch.float32:
            above, below = above[:26], below[:26]
        m = torch.sigmoid(-z.abs())
        return torch.where(
            z > 0,
            _cross_entropy(z) - _polynomial(above, m),
            (gamma * F.logsigmoid(z)).exp() * _polynomial(below, m),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return gradients[0] * (ctx.gamma * F.logsigmoid(z)).exp(), None


def _polynomial(coefficients: list[float], x: Tensor) -> Tensor:
    """coefficients[0] + coefficients[1] x + ..., by Horner's rule."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


# ------------------------------------------------------------------------------ checking of fields
def _check_number(
    loss: BuiltIn,
    name: str,
    *,
    low: float = -math.inf,
    above: float = -math.inf,
    high: float = math.inf,
) -> None:
    """Store the field as a float, so that 2 and 2.0 are one loss; refuse what is out of range."""
    value = getattr(loss, name)
    number = isinstance(value, (int, float, np.integer, np.floating)) and type(value) is not bool
    if not (number and math.isfinite(value) and above < value and low <= value <= high):
        wanted = f"more than {above}" if above > -math.inf else f"{low} or more"
        if high < math.inf:
            wanted += f" and at most {high}"
        raise ValueError(f"loss {loss.name!r}: {name} is {value!r}; expected a number, {wanted}")
    object.__setattr__(loss, name, float(value))


def _check_alpha(loss: WeightedCrossEntropy | Focal | WeightedGradient) -> None:
    if isinstance(loss.alpha, str) and loss.alpha != "patch":
        raise ValueError(
            f"loss {loss.name!r}: alpha is {loss.alpha!r}; expected a number from 0 to 1, None "
            "(N_bg / N of the batch) or 'patch' (of each patch)"
        )
    if loss.alpha is not None and loss.alpha != "patch":
        _check_number(loss, "alpha", low=0, high=1)


def _check_choice(loss: BuiltIn, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(loss, name)
    if value not in choices:
        raise ValueError(
            f"loss {loss.name!r}: {name} is {value!r}; expected one of {', '.join(choices)}"
            f"{_did_you_mean(str(value), choices)}"
        )


def _did_you_mean(name: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


# ---------------------------------------------------------------------------------- losses by name
@dataclass(frozen=True, kw_only=True)
class Imported:
    """A loss of the user's own, found by import path: ``my_losses:Tversky``.

    A class is instantiated (with ``arguments``, else its defaults); a function or an instance is
    used as it is.  It is tried once on a small batch, so that a mistake shows before training.

    On a GPU its steps are launched kernel by kernel, unless it has a true attribute ``recordable``,
    which says that it keeps nothing between calls and never reads a tensor's value (`step.Step`).
    """

    path: str
    """module:attribute; the module is looked for in the current directory first."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """What a class is instantiated with; plain JSON values."""
    function: Callable[[Tensor, Tensor], Tensor] = field(init=False, repr=False, compare=False)
    source_sha256: str | None = field(init=False, repr=False)
    """Of the module's file: other code is another loss.  None if it has no source file."""

    def __post_init__(self) -> None:
        found, source_sha256 = _import(self.path)
        object.__setattr__(self, "function", _instantiate(self.path, found, self.arguments))
        object.__setattr__(self, "source_sha256", source_sha256)
        _try_once(self.path, self.function)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)

    def __reduce__(self) -> tuple[Callable[..., Loss], tuple[dict[str, Any]]]:
        return loss_from_dict, (loss_to_dict(self),)


BuiltIn = (
    CrossEntropy
    | GeneralisedDice
    | Dice
    | Mixed
    | Focal
    | WeightedGradient
    | WeightedCrossEntropy
    | Tversky
    | TopK
)
Loss = BuiltIn | Imported

LOSSES: dict[str, Loss] = {
    "xent": CrossEntropy(),
    "gdsc": GeneralisedDice(),
    "dsc": Dice(),
    "mixed": Mixed(),
    "focal1": Focal(alpha=0.25, gamma=2.0),
    "focal2": Focal(alpha=0.75, gamma=2.0),
    "new": WeightedGradient(alpha=None, gamma=2.0),
    # Beyond the paper's seven.
    "xent_w": WeightedCrossEntropy(alpha=None),
    "focal_adaptive": Focal(alpha=None, gamma=2.0),
    "gdsc_inverse": GeneralisedDice(weights="inverse"),
    "dsc_batch": Dice(reduction="batch"),
    "tversky": Tversky(),
    "topk": TopK(),
}


def loss_named(text: str) -> Loss:
    """The loss that a user names.

    A name of ``LOSSES``; a name with fields; or the import path of the user's own loss.

    >>> loss_named("focal2").alpha
    0.75
    >>> loss_named("focal(alpha=0.3, gamma=1.5)")
    Focal(alpha=0.3, gamma=1.5)
    >>> loss_named("gdsc(weights=inverse)") == LOSSES["gdsc_inverse"]
    True

    Raises:
        ValueError: unknown name or field, unusable value, or an import that fails; one line.
    """
    name, arguments = _parse(text)
    if ":" in name:
        return Imported(path=name, arguments=arguments)
    known: dict[str, Any] = {kind.name: kind() for kind in get_args(BuiltIn)} | LOSSES
    if name not in known:
        raise ValueError(
            f"unknown loss {name!r}; expected one of {', '.join(LOSSES)}, or module:name of your "
            f"own{_did_you_mean(name, known)}"
        )
    return with_values(known[name], arguments)


def search_space(loss: Loss) -> dict[str, Range]:
    """The fields that a search over this loss varies, and between what.

    Declared beside each field (`_searched`); a dataclass of the user's own says it as
    ``field(default=0.3, metadata={"search": (0, 1)})``, both ends included.  May be empty.

    >>> {name: str(where) for name, where in search_space(LOSSES["new"]).items()}
    {'alpha': '(0, 1)', 'gamma': '(0, 10]'}
    """
    kind: Any = type(loss.function) if isinstance(loss, Imported) else type(loss)
    declared = fields(kind) if is_dataclass(kind) else ()
    found = {item.name: item.metadata["search"] for item in declared if "search" in item.metadata}
    return {
        name: where if isinstance(where, Range) else Range(float(where[0]), float(where[1]))
        for name, where in found.items()
    }


def with_values(loss: Loss, values: Mapping[str, Any]) -> Loss:
    """The same loss with other values of some fields.

    >>> with_values(LOSSES["focal1"], {"alpha": 0.75}) == LOSSES["focal2"]
    True

    Raises:
        ValueError: no such field, or a value that the loss refuses.
    """
    if isinstance(loss, Imported):
        return Imported(path=loss.path, arguments=loss.arguments | dict(values))
    choices = [item.name for item in fields(loss)]
    for name in values:
        if name not in choices:
            raise ValueError(
                f"loss {loss.name!r} has no field {name!r}; expected "
                f"{', '.join(choices) or 'none'}{_did_you_mean(name, choices)}"
            )
    return replace(loss, **values)


def loss_to_dict(loss: Loss) -> dict[str, Any]:
    """Plain JSON values that say which loss it is; `loss_from_dict` undoes it.

    A function or dataclass instance of the user's own is accepted too, if importable.

    >>> loss_to_dict(LOSSES["focal1"])
    {'type': 'Focal', 'fields': {'alpha': 0.25, 'gamma': 2.0}}
    """
    if _is_built_in(loss):
        return {"type": type(loss).__name__, "fields": asdict(loss)}
    loss = _as_imported(loss)
    return {
        "import": loss.path,
        "fields": dict(loss.arguments),
        "source_sha256": loss.source_sha256,
    }


def loss_from_dict(stored: Mapping[str, Any]) -> Loss:
    """The loss that `loss_to_dict` described.

    Raises:
        ValueError: it does not fit this release, or the source of an imported loss has changed.
    """
    if "import" in stored:
        loss = Imported(path=stored["import"], arguments=dict(stored["fields"]))
        if loss.source_sha256 != stored["source_sha256"]:
            raise ValueError(
                f"loss {loss.path}: its source has changed since it was stored (sha256 "
                f"{_short(loss.source_sha256)}, stored {_short(stored['source_sha256'])}); restore "
                "that file, or give the changed loss another results folder"
            )
        return loss
    kinds = {kind.__name__: kind for kind in get_args(BuiltIn)}
    if stored.get("type") not in kinds:
        name = str(stored.get("type"))
        raise ValueError(
            f"unknown type of loss {name!r}; expected one of {', '.join(kinds)}"
            f"{_did_you_mean(name, kinds)}"
        )
    kind = kinds[stored["type"]]
    expected = {item.name for item in fields(kind)}
    if stored["fields"].keys() != expected:
        raise ValueError(
            f"loss {stored['type']} does not fit this release: unknown fields "
            f"{sorted(stored['fields'].keys() - expected)}, "
            f"missing {sorted(expected - stored['fields'].keys())}"
        )
    return kind(**stored["fields"])


def loss_label(loss: Loss) -> str:
    """What tables and figures call it; for a built-in loss `loss_named` understands it.

    An imported loss goes by its attribute's name, or its whole path if a built-in has that name.

    >>> loss_label(Focal(alpha=0.25, gamma=2)), loss_label(Focal(alpha=0.3, gamma=1.5))
    ('focal1', 'focal(alpha=0.3,gamma=1.5)')
    """
    for name, known in LOSSES.items():
        if loss == known:
            return name
    if _is_built_in(loss):
        name, values = loss.name, asdict(loss)
    else:
        loss = _as_imported(loss)
        name, values = loss.path.partition(":")[2], loss.arguments
        if name in LOSSES or name in {kind.name for kind in get_args(BuiltIn)}:
            name = loss.path
    shown = ",".join(f"{key}={_shown(value)}" for key, value in values.items())
    return f"{name}({shown})" if shown else name


# -------------------------------------------------------------------------------- reading of names
def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """``name(field=value, ...)`` in parts; a bare word is a string."""
    match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    try:
        if match is None:
            raise SyntaxError
        call = ast.parse(f"_({match[2] or ''})", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
            raise SyntaxError
        if not all(item.arg for item in call.keywords):  # **something
            raise SyntaxError
        return match[1], {str(item.arg): _literal(item.value) for item in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(
            f"cannot read loss {text!r}; expected a name, such as focal1, or a name with fields, "
            "such as focal(alpha=0.3,gamma=1.5)"
        ) from None


def _is_built_in(loss: object) -> TypeGuard[BuiltIn]:
    """Exactly of a class of ours: a user's subclass of one is the user's."""
    return type(loss) in get_args(BuiltIn)


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _shown(value: Any) -> str:
    """As short as `loss_named` reads it back."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return str(value)


# -------------------------------------------------------------------------- losses of users' own
def _as_imported(loss: Any) -> Imported:
    """A function or dataclass instance of the user's own, by the path it can be imported from."""
    if isinstance(loss, Imported):
        return loss
    arguments: dict[str, Any] = {}
    source = loss
    if is_dataclass(loss) and not isinstance(loss, type):
        source, arguments = type(loss), asdict(loss)
    module, name = getattr(source, "__module__", None), getattr(source, "__qualname__", None)
    if not module or not name or module == "__main__" or not name.isidentifier():
        raise ValueError(
            f"loss {loss!r} cannot be stored by name; expected one of {', '.join(LOSSES)}, or a "
            "function or dataclass at the top level of a module that can be imported"
        )
    return Imported(path=f"{module}:{name}", arguments=arguments)


def _import(path: str) -> tuple[Any, str | None]:
    """The object at module:attribute, and the SHA-256 of the module's source file."""
    name, _, attribute = path.partition(":")
    if not name or not attribute.isidentifier() or name.endswith(".py") or "/" in name:
        hint = name.removesuffix(".py").strip("./").replace("/", ".") or "my_losses"
        raise ValueError(
            f"cannot read loss {path!r}; expected module:name, such as "
            f"{hint}:{attribute if attribute.isidentifier() else 'MyLoss'}"
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)  # `python sweeps/paper_grid.py` looks beside the script instead
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(name)
    except Exception as error:  # a user's module can fail in any way
        if isinstance(error, ModuleNotFoundError) and (error.name or "") in _parents(name):
            nearby = [file.stem for file in Path.cwd().glob("*.py")]
            raise ValueError(
                f"loss {path}: there is no module {error.name!r} in {here} or installed; expected "
                f"a file {name.replace('.', '/')}.py in the current directory"
                f"{_did_you_mean(name, nearby)}"
            ) from None
        raise ValueError(f"loss {path}: importing {name} failed: {_one_line(error)}") from error
    finally:
        sys.path.remove(here)
    if not hasattr(module, attribute):
        public = [item for item in vars(module) if not item.startswith("_")]
        raise ValueError(
            f"loss {path}: {getattr(module, '__file__', None) or name} has no {attribute!r}"
            f"{_did_you_mean(attribute, public)}"
        )
    return getattr(module, attribute), _source_sha256(module)


def _instantiate(path: str, found: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loss {path}: fields must be plain values: {_one_line(error)}") from None
    if isinstance(found, type):
        try:
            found = found(**arguments)
        except Exception as error:  # a user's class can fail in any way
            raise ValueError(
                f"loss {path}: {path.partition(':')[2]}"
                f"({', '.join(f'{key}={value!r}' for key, value in arguments.items())}) failed: "
                f"{_one_line(error)}"
            ) from error
    elif arguments:
        raise ValueError(
            f"loss {path} is not a class, so it has no field {next(iter(arguments))!r}; expected "
            f"{path} alone"
        )
    if not callable(found):
        raise ValueError(
            f"loss {path} is a {type(found).__name__}; expected a function (logits, target) -> "
            "scalar, or a class whose instances are such functions"
        )
    return found


def _try_once(path: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Two patches of the paper's size must give a scalar that can be differentiated."""
    logits = torch.zeros(2, 1, 32, 32, 32, requires_grad=True)
    target = torch.zeros(2, 1, 32, 32, 32)
    target[:, :, :4, :4, :4] = 1
    try:
        with torch.enable_grad():
            value = function(logits, target)
    except Exception as error:  # a user's loss can fail in any way
        raise ValueError(
            f"loss {path} failed on logits and target of shape {list(logits.shape)}: "
            f"{_one_line(error)}"
        ) from error
    if not isinstance(value, Tensor):
        raise ValueError(f"loss {path} returned a {type(value).__name__}; expected a scalar tensor")
    if value.ndim:
        raise ValueError(
            f"loss {path} returned a tensor of shape {list(value.shape)}; expected a scalar; did "
            "you mean its .mean()?"
        )
    if not value.requires_grad:
        raise ValueError(
            f"loss {path} returned a value without a gradient; expected one computed from the "
            "logits by torch operations, without .detach(), .item() or a threshold"
        )


def _source_sha256(module: Any) -> str | None:
    try:
        file = inspect.getsourcefile(module)
    except TypeError:  # built in
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def _parents(module: str) -> list[str]:
    """a.b.c -> a, a.b, a.b.c"""
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _short(digest: str | None) -> str:
    return (digest or "none")[:8]
