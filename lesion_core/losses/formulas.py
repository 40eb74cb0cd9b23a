"""The formulas of the losses: one frozen dataclass each.

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

To add a loss, write a class here and give it an instance in ``named.LOSSES``.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lesion_core.losses.fields import (
    Alpha,
    BuiltIn,
    Reduction,
    check_alpha,
    check_choice,
    check_number,
    searched,
)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(BuiltIn):
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
class WeightedCrossEntropy(BuiltIn):
    """Cross-entropy times alpha for lesion and 1 - alpha for background, mean over voxels.

    Not among the paper's seven; by default both classes weigh the same in total.  A batch without
    lesion then costs nothing.
    """

    name: ClassVar[str] = "xent_w"

    alpha: Alpha = field(default=None, metadata=searched(0, 1, open_low=True, open_high=True))
    """Weight of lesion voxels in [0, 1]; None: N_bg / N of the batch; "patch": of each patch."""

    def __post_init__(self) -> None:
        check_alpha(self, self.alpha)

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
class Focal(BuiltIn):
    """Focal loss (eq. 2): a_y |y - p|^gamma times the cross-entropy, mean over voxels.

    a_y = alpha for lesion, 1 - alpha for background, as Lin et al. 2017 and the authors' code
    have it.  Printed, eq. 2 has alpha for both, which would only scale the loss: under Adam
    focal1 and focal2 would be one and the same, against Table 2.
    """

    name: ClassVar[str] = "focal"

    alpha: Alpha = field(default=0.25, metadata=searched(0, 1, open_low=True, open_high=True))
    """Weight of lesion voxels in [0, 1]; None: N_bg / N of the batch; "patch": of each patch."""
    gamma: float = field(default=2.0, metadata=searched(0, 5))
    """Focus on errors, 0 or more; 0 is the (weighted) cross-entropy."""

    def __post_init__(self) -> None:
        check_alpha(self, self.alpha)
        check_number(self, "gamma", low=0)

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
class WeightedGradient(BuiltIn):
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

    alpha: Alpha = field(default=None, metadata=searched(0, 1, open_low=True, open_high=True))
    """Weight of lesion voxels in [0, 1]; None: N_bg / N of the batch; "patch": of each patch."""
    gamma: float = field(default=2.0, metadata=searched(0, 10, open_low=True))
    """Focus on errors, in (0, 10]; 1 is the weighted cross-entropy."""

    def __post_init__(self) -> None:
        check_alpha(self, self.alpha)
        # At 0 the gradient ignores the prediction, and the loss that has it is unbounded below.
        check_number(self, "gamma", above=0, high=10)

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
class Dice(BuiltIn):
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
        check_number(self, "eps", low=0)
        check_choice(self, "reduction", get_args(Reduction))

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
class GeneralisedDice(BuiltIn):
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
        check_choice(self, "weights", ("inverse_square", "inverse"))
        check_choice(self, "reduction", get_args(Reduction))

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
class Mixed(BuiltIn):
    """Soft Dice plus cross-entropy, weighted equally (section 2.3.3): their plain sum."""

    name: ClassVar[str] = "mixed"

    eps: float = 1e-6
    """Smoothing of the Dice part, voxels."""
    reduction: Reduction = "patch"
    """Of the Dice part: each patch, then the mean; or the batch as a whole."""

    def __post_init__(self) -> None:
        check_number(self, "eps", low=0)
        check_choice(self, "reduction", get_args(Reduction))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        >>> half_sure, target = torch.zeros(1, 1, 1, 1, 2), torch.tensor([[[[[0, 1]]]]])
        >>> print(f"{Mixed()(half_sure, target):.4f}")  # 1/2 + log 2
        1.1931
        """
        dice = Dice(eps=self.eps, reduction=self.reduction)
        return dice(logits, target) + CrossEntropy()(logits, target)


@dataclass(frozen=True, kw_only=True)
class Tversky(BuiltIn):
    """Tversky loss (Salehi et al. 2017): soft Dice that weighs false positives and negatives.

    1 - (TP + eps) / (TP + alpha FP + beta FN + eps), TP = sum(p y), FP = sum(p (1 - y)),
    FN = sum((1 - p) y).  alpha = beta = 1/2 is the soft Dice (with twice the eps).
    """

    name: ClassVar[str] = "tversky"

    alpha: float = field(default=0.3, metadata=searched(0, 1, open_low=True))
    """Cost of false positives, 0 or more."""
    beta: float = field(default=0.7, metadata=searched(0, 1, open_low=True))
    """Cost of false negatives, 0 or more."""
    eps: float = 1e-6
    """Smoothing, voxels; more than 0."""
    reduction: Reduction = "patch"
    """Overlap of each patch, then the mean; or of the batch as a whole."""

    def __post_init__(self) -> None:
        check_number(self, "alpha", low=0)
        check_number(self, "beta", low=0)
        if self.alpha == self.beta == 0:
            raise ValueError("loss 'tversky': alpha and beta are 0; expected one above 0")
        check_number(self, "eps", above=0)
        check_choice(self, "reduction", get_args(Reduction))

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
class TopK(BuiltIn):
    """Cross-entropy of the worst voxels only: the mean over the given fraction of the batch.

    Known from nnU-Net (Isensee et al. 2021) with a tenth.  Another answer to the imbalance: easy
    background drops out however much of it there is.
    """

    name: ClassVar[str] = "topk"

    fraction: float = field(default=0.1, metadata=searched(0, 1, open_low=True))
    """Share of the batch's voxels that counts, in (0, 1]; 1 is the cross-entropy."""

    def __post_init__(self) -> None:
        check_number(self, "fraction", above=0, high=1)

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
