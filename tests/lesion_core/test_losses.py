"""Losses equal their formulas in value and gradient, survive every logit, and keep their names."""

import copy
import dataclasses
import json
import pickle
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, special

from lesion_core.losses import (
    LOSSES,
    PAPER_LOSSES,
    CrossEntropy,
    Dice,
    Focal,
    GeneralisedDice,
    Imported,
    Mixed,
    TopK,
    Tversky,
    WeightedCrossEntropy,
    WeightedGradient,
    loss_from_dict,
    loss_label,
    loss_named,
    loss_to_dict,
)

VARIANTS = LOSSES | {
    "new gamma 1": WeightedGradient(gamma=1),
    "new gamma 0.3": WeightedGradient(gamma=0.3, alpha=0.9),
    "new gamma 1.7": WeightedGradient(gamma=1.7),
    "new gamma 5": WeightedGradient(gamma=5, alpha="patch"),
    "focal gamma 0.5": Focal(gamma=0.5, alpha="patch"),
    "xent_w alpha": WeightedCrossEntropy(alpha=0.8),
    "gdsc batch": GeneralisedDice(reduction="batch"),
    "gdsc inverse batch": GeneralisedDice(weights="inverse", reduction="batch"),
    "mixed batch": Mixed(reduction="batch"),
    "tversky batch": Tversky(alpha=0.6, beta=0.2, reduction="batch"),
    "dsc eps": Dice(eps=0.5),
    "dsc no eps": Dice(eps=0.0),
}
every_loss = pytest.mark.parametrize("loss", VARIANTS.values(), ids=VARIANTS.keys())


def example(shape=(3, 1, 4, 3, 2), *, seed=0, scale=3.0, lesion=0.25, dtype=torch.float64):
    """Random logits and a reference; the patches differ in how much lesion they have."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    share = torch.linspace(lesion / 2, 2 * lesion, shape[0]).view(-1, 1, 1, 1, 1)
    target = (torch.rand(shape, generator=generator) < share).to(dtype)
    target.flatten(1)[:, 0] = 1
    return logits.to(dtype), target


def value_and_gradient(loss, logits, target):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def probabilities(logits):
    return special.expit(logits.double().numpy()), special.expit(-logits.double().numpy())


# -------------------------------------------------------------------- formulas, written once more
def numpy_cross_entropy(logits, target):
    p, q = probabilities(logits)
    return np.where(target == 1, -np.log(p), -np.log(q))


def numpy_alpha(target, alpha):
    y = target.numpy()
    if alpha is None:
        alpha = np.full(len(y), (y == 0).sum() / y.size)
    elif alpha == "patch":
        alpha = np.array([(patch == 0).sum() / patch.size for patch in y])
    else:
        alpha = np.full(len(y), alpha)
    alpha = alpha[:, None, None, None, None]
    return np.where(y == 1, alpha, 1 - alpha)


def numpy_focal(logits, target, alpha, gamma):
    p, q = probabilities(logits)
    wrong = np.where(target == 1, q, p)
    entropy = numpy_cross_entropy(logits, target)
    return (numpy_alpha(target, alpha) * wrong**gamma * entropy).mean()


def numpy_new(logits, target, alpha, gamma):
    """For whole gamma: weight times (cross-entropy - sum of |y - p|^k / k, k < gamma)."""
    p, q = probabilities(logits)
    wrong = np.where(target == 1, q, p)
    value = numpy_cross_entropy(logits, target) - sum(wrong**k / k for k in range(1, gamma))
    return (numpy_alpha(target, alpha) * value).mean()


def per_patch(function, logits, target, reduction="patch"):
    p, _ = probabilities(logits)
    y = target.numpy()
    if reduction == "batch":
        return function(p.ravel(), y.ravel())
    return np.mean([function(a.ravel(), b.ravel()) for a, b in zip(p, y, strict=True)])


def numpy_dice(p, y, eps=1e-6):
    return 1 - (2 * (p * y).sum() + eps) / (p.sum() + y.sum() + eps)


def numpy_generalised_dice(p, y, power=2):
    """A4: a sum over the two classes, not the simplified A5."""
    numerator = denominator = 0.0
    for a, b in ((p, y), (1 - p, 1 - y)):
        weight = 1 / max(b.sum(), 1) ** power
        numerator += weight * (a * b).sum()
        denominator += weight * (a + b).sum()
    return 1 - 2 * numerator / denominator


def numpy_tversky(p, y, alpha, beta, eps=1e-6):
    tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    return 1 - (tp + eps) / (tp + alpha * fp + beta * fn + eps)


FORMULAS = {
    "xent": lambda x, y: numpy_cross_entropy(x, y).mean(),
    "gdsc": lambda x, y: per_patch(numpy_generalised_dice, x, y),
    "dsc": lambda x, y: per_patch(numpy_dice, x, y),
    "mixed": lambda x, y: per_patch(numpy_dice, x, y) + numpy_cross_entropy(x, y).mean(),
    "focal1": lambda x, y: numpy_focal(x, y, 0.25, 2),
    "focal2": lambda x, y: numpy_focal(x, y, 0.75, 2),
    "new": lambda x, y: numpy_new(x, y, None, 2),
    "xent_w": lambda x, y: numpy_focal(x, y, None, 0),
    "focal_adaptive": lambda x, y: numpy_focal(x, y, None, 2),
    "gdsc_inverse": lambda x, y: per_patch(lambda p, b: numpy_generalised_dice(p, b, 1), x, y),
    "dsc_batch": lambda x, y: per_patch(numpy_dice, x, y, "batch"),
    "tversky": lambda x, y: per_patch(lambda p, b: numpy_tversky(p, b, 0.3, 0.7), x, y),
    "topk": lambda x, y: np.sort(numpy_cross_entropy(x, y).ravel())[-7:].mean(),  # of 72
    "new gamma 1": lambda x, y: numpy_new(x, y, None, 1),
    "new gamma 5": lambda x, y: numpy_new(x, y, "patch", 5),
    "focal gamma 0.5": lambda x, y: numpy_focal(x, y, "patch", 0.5),
    "xent_w alpha": lambda x, y: numpy_focal(x, y, 0.8, 0),
    "gdsc batch": lambda x, y: per_patch(numpy_generalised_dice, x, y, "batch"),
    "mixed batch": lambda x, y: (
        per_patch(numpy_dice, x, y, "batch") + numpy_cross_entropy(x, y).mean()
    ),
    "dsc eps": lambda x, y: per_patch(lambda p, b: numpy_dice(p, b, 0.5), x, y),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", [0, 1])
def test_value_is_the_formula(name, seed):
    logits, target = example(seed=seed)
    expected = FORMULAS[name](logits, target)
    assert VARIANTS[name](logits, target).item() == pytest.approx(expected, rel=1e-12)
    single = VARIANTS[name](logits.float(), target.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5)


def test_every_registered_loss_has_a_formula_here():
    assert LOSSES.keys() <= FORMULAS.keys()


@every_loss
def test_gradient_is_that_of_the_value(loss):
    logits, target = example((2, 1, 3, 2, 2))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@every_loss
def test_second_derivative_is_that_of_the_gradient(loss):
    logits, target = example((2, 1, 2, 2, 1))
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), logits.requires_grad_())


# ---------------------------------------------------------------------------- the paper's gradients
@pytest.mark.parametrize("gamma", [0.3, 1, 1.7, 2, 3, 5, 10])
@pytest.mark.parametrize("alpha", [None, "patch", 0.9])
def test_new_has_the_gradient_of_equation_5(gamma, alpha):
    logits, target = example()
    _, gradient = value_and_gradient(WeightedGradient(alpha=alpha, gamma=gamma), logits, target)
    p, q = probabilities(logits)
    # Printed without the minus; with it, more probability on a lesion lowers the loss.
    expected = numpy_alpha(target, alpha) * np.where(target == 1, -(q**gamma), p**gamma)
    np.testing.assert_allclose(gradient, expected / target.numel(), rtol=1e-12)


@pytest.mark.parametrize(("loss", "power"), [("dsc", None), ("gdsc", 2), ("gdsc_inverse", 1)])
def test_dice_gradient_is_equation_a15(loss, power):
    """As printed.  (A14 is titled G'F but printed as -G'F; A15 subtracts it with the right sign.)

    Eq. A15 has no epsilon; 1e-6 voxels of it change these sums by as little.
    """
    logits, target = example((1, 1, 4, 4, 4))
    _, gradient = value_and_gradient(LOSSES[loss], logits, target)
    (p, q), y = probabilities(logits), target.numpy()
    n1, n = y.sum(), y.size
    w1, w0 = (1, 0) if power is None else (n1**-power, (n - n1) ** -power)
    total, overlap = (p + y).sum(), (p * y).sum()
    bracket = (w1 - w0) * (y * total - overlap) + n * w0 * (2 * y - 1)
    by_probability = -2 * (w1 + w0) * bracket / ((w1 - w0) * total + 2 * n * w0) ** 2
    tolerance = 1e-6 if power is None else 1e-12
    np.testing.assert_allclose(gradient, by_probability * p * q, rtol=tolerance)
    assert (gradient[target == 1] < 0).all()
    assert (gradient[target == 0] > 0).all()


def test_new_minus_cross_entropy_is_the_error_for_gamma_two():
    logits, target = example()
    error = (target - logits.sigmoid()).abs().mean()
    difference = CrossEntropy()(logits, target) - 2 * WeightedGradient(alpha=0.5)(logits, target)
    assert difference.item() == pytest.approx(error.item(), rel=1e-12)


def lesion_value(z, gamma, dtype=torch.float64):
    """The loss `new` of one lesion voxel whose wrong logit is z, by alpha = 1."""
    loss = WeightedGradient(alpha=1.0, gamma=gamma)
    logit = torch.full((1, 1, 1, 1, 1), -z, dtype=dtype)
    return loss(logit, torch.ones_like(logit)).item()


@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.999999, 1.0, 1.5, 2.0, 2.5, 3.7, 5.0, 9.5])
@pytest.mark.parametrize("z", [-8.0, -1.0, -1e-9, 0.0, 1e-9, 0.7, 6.0, 30.0])
def test_new_is_the_integral_of_its_gradient_for_any_gamma(gamma, z):
    def power(t):
        return special.expit(t) ** gamma

    head = integrate.quad(power, z - 60, z, epsabs=0, epsrel=1e-11, limit=400)[0]
    tail = np.exp(gamma * (z - 60)) / gamma  # sigmoid(t) is exp(t) down there
    assert lesion_value(z, gamma) == pytest.approx(head + tail, rel=1e-8)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
def test_new_is_a_hypergeometric_function(gamma):
    for z in np.linspace(-12, 12, 49):
        s = special.expit(z)
        expected = s**gamma / gamma * special.hyp2f1(1, gamma, gamma + 1, s)
        assert lesion_value(z, gamma) == pytest.approx(expected, rel=1e-10)
        # Absolute rounding of the logarithm above 0; relatively exact below, where it would cancel.
        single = pytest.approx(expected, rel=1e-5, abs=1e-6 if z > 0 else 0)
        assert lesion_value(z, gamma, torch.float32) == single


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0, 3.0])
def test_new_does_not_cancel_for_confidently_right_voxels(gamma):
    for z in (-5.0, -15.0, -25.0):  # softplus(-25) - sigmoid(-25) is 0 or noise in single precision
        leading = np.exp(gamma * z) / gamma  # relative error of the next term: gamma exp(z)
        tolerance = 1.1 * gamma * np.exp(z)
        assert lesion_value(z, gamma) == pytest.approx(leading, rel=tolerance + 1e-12)
        single = lesion_value(z, gamma, torch.float32)
        assert single == pytest.approx(leading, rel=tolerance + 1e-5)


def test_new_is_continuous_and_increasing_in_the_error():
    z = torch.cat([torch.linspace(-60, 60, 2001), torch.linspace(-1e-3, 1e-3, 101)]).sort().values
    for gamma in (0.1, 1.0, 2.0, 2.6, 5.0):
        values = np.array([lesion_value(float(t), gamma) for t in z[::7]])
        assert (np.diff(values) > 0).all()
        assert (values > 0).all()


def test_new_depends_continuously_on_gamma():
    logits, target = example()
    for gamma in (1, 2, 3):  # the closed forms sit on the curve of the others
        there = WeightedGradient(gamma=gamma)(logits, target).item()
        for near in (gamma - 1e-9, gamma + 1e-9):
            here = WeightedGradient(gamma=near)(logits, target).item()
            assert here == pytest.approx(there, rel=1e-7)


# ----------------------------------------------------------------------------------------- limits
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_logits_give_finite_values_and_gradients(loss, dtype):
    _, some = example((2, 1, 4, 4, 4), dtype=dtype)
    everywhere = torch.ones_like(some)
    alternating = torch.arange(some.numel(), dtype=dtype).view(some.shape) % 2 * 2 - 1
    for target in (some, 0 * everywhere, everywhere):
        for sign in (2 * target - 1, 1 - 2 * target, everywhere, -everywhere, alternating):
            for size in (0.0, 17.0, 50.0, 120.0, 1e4):
                value, gradient = value_and_gradient(loss, size * sign, target)
                assert value.isfinite()
                assert value > -1e-6
                assert gradient.isfinite().all()


@every_loss
def test_perfect_prediction_costs_nothing_and_an_inverted_one_the_most(loss):
    _, target = example(dtype=torch.float32)
    values = [loss(size * (2 * target - 1), target).item() for size in (-1e3, -2, 0, 2, 1e3)]
    assert values[-1] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("name", ["dsc", "gdsc", "gdsc_inverse", "dsc_batch", "tversky"])
def test_overlap_losses_of_a_wholly_wrong_prediction_are_one(name):
    _, target = example()
    assert LOSSES[name](100 * (1 - 2 * target), target).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [20.0, 50.0, 1e4])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    "name", ["xent", "mixed", "focal1", "focal2", "new", "xent_w", "focal_adaptive", "topk"]
)
def test_confident_errors_keep_their_gradient_in_single_precision(name, label, size):
    """A rounded sigmoid would have none; here it is that of the formula: a_y / N, pulling back."""
    target = torch.zeros(1, 1, 2, 2, 2)
    target[..., 0] = 1
    wrong = target == label
    logits = size * torch.where(wrong, 1 - 2 * target, 2 * target - 1)
    _, gradient = value_and_gradient(LOSSES[name], logits, target)
    weight = {"focal1": (0.75, 0.25), "focal2": (0.25, 0.75), "topk": (8, 8)}.get(name)
    if weight is None:
        weight = (0.5, 0.5) if getattr(LOSSES[name], "alpha", 0) is None else (1, 1)
    pull = -1 if label else 1
    if name == "topk":  # one voxel of eight counts
        assert gradient.sum() == pytest.approx(pull)
        return
    expected = np.full(4, pull * weight[label] / 8)
    np.testing.assert_allclose(gradient[wrong], expected, rtol=1e-5)
    # Right and sure: nothing left to learn.
    assert gradient[~wrong].abs().max() < 1e-8


@pytest.mark.parametrize("name", ["dsc", "gdsc", "tversky"])
def test_dice_gradient_vanishes_alike_for_false_positives_and_negatives(name):
    """The paper's point (A.3): p (1 - p).  Single precision must not add a dead zone of its own."""
    _, target = example()
    logits = 30 * (1 - 2 * target)
    _, exact = value_and_gradient(LOSSES[name], logits, target)
    _, gradient = value_and_gradient(LOSSES[name], logits.float(), target.float())
    assert (gradient != 0).all()
    np.testing.assert_allclose(gradient, exact, rtol=1e-4)
    _, gone = value_and_gradient(LOSSES[name], 1e4 * (1 - 2 * target), target)
    assert (gone == 0).all()


def test_empty_patch_predicted_empty_costs_nothing_with_epsilon_and_one_without():
    target = torch.zeros(1, 1, 2, 2, 2)
    for size in (200.0, 1e4):
        logits = torch.full_like(target, -size)
        assert Dice()(logits, target) == 0
        value, gradient = value_and_gradient(Dice(eps=0.0), logits, target)
        assert value == 1
        assert (gradient == 0).all()
        assert GeneralisedDice()(logits, target) == 0


def test_epsilon_of_dice_does_not_double():
    """Printed eq. 4 would give 1 - 2 eps / eps = -1 for an empty patch predicted empty."""
    target = torch.zeros(1, 1, 1, 1, 4)
    logits = torch.full_like(target, -1e4)
    assert Dice(eps=0.5)(logits, target) == 0


@pytest.mark.parametrize("name", ["new", "xent_w", "focal_adaptive"])
def test_batch_without_lesion_costs_nothing_under_adaptive_alpha(name):
    logits, _ = example()
    value, gradient = value_and_gradient(LOSSES[name], logits, torch.zeros_like(logits))
    assert value == 0
    assert (gradient == 0).all()


def test_generalised_dice_of_a_tiny_lesion_is_decided_by_the_lesion():
    """w0 N is 1e-5 and w1 up to 1: a smoothing constant of the usual size would decide instead."""
    target = torch.zeros(1, 1, 32, 32, 32)
    target[0, 0, 5, 5, 5] = 1
    found, missed = 40 * (2 * target - 1), torch.full_like(target, -40.0)
    assert GeneralisedDice()(found, target).item() == pytest.approx(0, abs=1e-5)
    assert GeneralisedDice()(missed, target).item() == pytest.approx(1, abs=2e-4)
    reference = numpy_generalised_dice(special.expit(missed.double().numpy()), target.numpy())
    assert GeneralisedDice()(missed, target).item() == pytest.approx(reference, rel=1e-6)


# -------------------------------------------------------------------------------------- identities
def test_half_sure_costs_log_two():
    logits, target = torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)
    assert CrossEntropy()(logits, target).item() == pytest.approx(np.log(2))
    assert CrossEntropy()(logits, 1 - target).item() == pytest.approx(np.log(2))


def test_focal_without_focus_is_half_the_cross_entropy():
    logits, target = example()
    half = CrossEntropy()(logits, target) / 2
    torch.testing.assert_close(Focal(alpha=0.5, gamma=0)(logits, target), half)


def test_weighted_gradient_of_gamma_one_is_the_weighted_cross_entropy():
    logits, target = example()
    for alpha in (None, "patch", 0.7):
        ours = WeightedGradient(alpha=alpha, gamma=1)(logits, target)
        torch.testing.assert_close(ours, WeightedCrossEntropy(alpha=alpha)(logits, target))
        focal = Focal(alpha=alpha, gamma=0)(logits, target)
        torch.testing.assert_close(ours, focal)


def test_focal_alpha_weighs_the_classes_not_the_loss():
    """The printed eq. 2 would make focal2 three times focal1."""
    logits, target = example()
    focal1 = value_and_gradient(LOSSES["focal1"], logits, target)[1]
    focal2 = value_and_gradient(LOSSES["focal2"], logits, target)[1]
    torch.testing.assert_close(focal2[target == 1], 3 * focal1[target == 1])
    torch.testing.assert_close(3 * focal2[target == 0], focal1[target == 0])


def test_mixed_is_dice_plus_cross_entropy():
    logits, target = example()
    for reduction in ("patch", "batch"):
        both = Dice(reduction=reduction)(logits, target) + CrossEntropy()(logits, target)
        torch.testing.assert_close(Mixed(reduction=reduction)(logits, target), both)


def test_even_tversky_is_dice():
    logits, target = example()
    even = Tversky(alpha=0.5, beta=0.5, eps=5e-7)
    torch.testing.assert_close(even(logits, target), Dice(eps=1e-6)(logits, target))


def test_top_of_everything_is_the_cross_entropy():
    logits, target = example()
    torch.testing.assert_close(TopK(fraction=1)(logits, target), CrossEntropy()(logits, target))


def test_generalised_dice_does_not_prefer_a_class():
    """Both weights follow the class sizes, so calling lesion background changes nothing."""
    logits, target = example()
    for weights in ("inverse_square", "inverse"):
        loss = GeneralisedDice(weights=weights)
        torch.testing.assert_close(loss(-logits, 1 - target), loss(logits, target))


def test_adaptive_alpha_gives_both_classes_the_same_weight():
    logits, target = torch.zeros(2, 1, 2, 2, 2), torch.zeros(2, 1, 2, 2, 2)
    target[0, 0, 0, 0, 0] = 1
    _, gradient = value_and_gradient(WeightedGradient(), logits, target)
    lesion, background = gradient[target == 1], gradient[target == 0]
    assert lesion.sum().item() == pytest.approx(-background.sum().item())
    _, gradient = value_and_gradient(WeightedGradient(alpha="patch"), logits, target)
    assert (gradient[1] == 0).all()  # this patch has no lesion
    assert gradient[0].sum().item() == pytest.approx(0, abs=1e-8)


# ------------------------------------------------------------------------------ batches and patches
@every_loss
def test_value_ignores_the_order_of_the_batch(loss):
    logits, target = example((5, 1, 3, 3, 3))
    order = torch.tensor([3, 0, 4, 1, 2])
    value, gradient = value_and_gradient(loss, logits, target)
    moved, moved_gradient = value_and_gradient(loss, logits[order], target[order])
    torch.testing.assert_close(moved, value)
    torch.testing.assert_close(moved_gradient, gradient[order])


PER_PATCH = ["gdsc", "gdsc_inverse", "dsc", "mixed", "tversky", "xent", "focal1", "focal2"]


@pytest.mark.parametrize("name", PER_PATCH)
def test_patches_do_not_leak_into_one_another(name):
    """The mean of patches taken alone: no patch is weighted by another one's lesion load."""
    logits, target = example((4, 1, 3, 3, 3))
    loss = LOSSES[name]
    value, gradient = value_and_gradient(loss, logits, target)
    alone = [value_and_gradient(loss, logits[[i]], target[[i]]) for i in range(4)]
    torch.testing.assert_close(value, torch.stack([v for v, _ in alone]).mean())
    torch.testing.assert_close(gradient, torch.cat([g for _, g in alone]) / 4)


@pytest.mark.parametrize("name", ["dsc", "gdsc", "mixed", "tversky"])
def test_batch_reduction_is_one_patch_of_all_voxels(name):
    logits, target = example((4, 1, 3, 3, 3))
    loss = dataclasses.replace(LOSSES[name], reduction="batch")
    torch.testing.assert_close(
        loss(logits, target), LOSSES[name](logits.view(1, 1, 12, 3, 3), target.view(1, 1, 12, 3, 3))
    )


# ------------------------------------------------------------------------- precision, device, shape
@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_single_precision(loss, dtype):
    logits, target = example((2, 1, 16, 16, 16), dtype=torch.float32, lesion=0.02)
    logits = logits.to(dtype)
    half = loss(logits, target.to(dtype))
    assert half.dtype == torch.float32
    assert half == loss(logits.float(), target)
    _, gradient = value_and_gradient(loss, logits, target)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_reference_may_have_any_type(loss, dtype):
    logits, target = example(dtype=torch.float32)
    assert loss(logits, target.to(dtype)) == loss(logits, target)
    assert loss(logits, target.to(dtype)).dtype == torch.float32


@every_loss
def test_nothing_waits_for_the_device(loss):
    """Tensors without data: reading a value back (.item(), if tensor:, nonzero) would raise."""
    logits = torch.empty(2, 1, 8, 8, 8, device="meta", requires_grad=True)
    value = loss(logits, torch.empty(2, 1, 8, 8, 8, device="meta"))
    assert value.shape == ()
    value.backward()
    assert logits.grad.shape == logits.shape


@every_loss
def test_inputs_stay_as_they_were(loss):
    logits, target = example()
    before = logits.clone(), target.clone()
    value_and_gradient(loss, logits, target)
    loss(logits, target)
    assert logits.equal(before[0])
    assert target.equal(before[1])


@every_loss
def test_memory_layout_does_not_matter(loss):
    logits, target = example((2, 1, 4, 4, 4))
    value, gradient = value_and_gradient(loss, logits, target)
    strided = logits.transpose(2, 4).contiguous().transpose(2, 4)
    value2, gradient2 = value_and_gradient(loss, strided, target)
    torch.testing.assert_close(value2, value)
    torch.testing.assert_close(gradient2, gradient)


@every_loss
def test_reference_of_another_shape_is_refused(loss):
    with pytest.raises(ValueError, match=r"target has shape \[2, 4, 4, 4\], logits \[2, 1, 4"):
        loss(torch.zeros(2, 1, 4, 4, 4), torch.zeros(2, 4, 4, 4))


@pytest.mark.parametrize("name", PAPER_LOSSES)
def test_gradient_descent_finds_the_lesion(name):
    _, target = example((2, 1, 4, 4, 4), dtype=torch.float32)
    logits = torch.zeros_like(target, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        LOSSES[name](logits, target).backward()
        optimiser.step()
    assert ((logits > 0) == (target == 1)).all()


# --------------------------------------------------------------------------- independent references
@pytest.fixture(scope="module")
def monai_losses():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.losses")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_equals_torchs(dtype):
    logits, target = example(dtype=dtype, scale=20)
    ours = value_and_gradient(CrossEntropy(), logits, target)
    theirs = value_and_gradient(F.binary_cross_entropy_with_logits, logits, target)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("batch", [False, True])
def test_dice_equals_monais(monai_losses, batch):
    logits, target = example()
    theirs = monai_losses.DiceLoss(sigmoid=True, smooth_nr=1e-6, smooth_dr=1e-6, batch=batch)
    ours = Dice(reduction="batch" if batch else "patch")
    assert_same(ours, theirs, logits, target)


@pytest.mark.parametrize(("weights", "kind"), [("inverse_square", "square"), ("inverse", "simple")])
@pytest.mark.parametrize("batch", [False, True])
def test_generalised_dice_equals_monais_of_two_classes(monai_losses, weights, kind, batch):
    logits, target = example()
    monai = monai_losses.GeneralizedDiceLoss(w_type=kind, smooth_nr=0, smooth_dr=0, batch=batch)

    def theirs(logits, target):
        p = logits.sigmoid()
        return monai(torch.cat([1 - p, p], 1), torch.cat([1 - target, target], 1))

    ours = GeneralisedDice(weights=weights, reduction="batch" if batch else "patch")
    # Theirs rounds the weights to single precision.
    assert_same(ours, theirs, logits, target, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 2.0), (0.4, 1.3), (0.1, 4.0)])
def test_focal_equals_monais(monai_losses, alpha, gamma):
    logits, target = example()
    theirs = monai_losses.FocalLoss(alpha=alpha, gamma=gamma)  # single precision whatever comes
    assert_same(Focal(alpha=alpha, gamma=gamma), theirs, logits, target, rtol=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.9, 0.4)])
def test_tversky_equals_monais(monai_losses, alpha, beta):
    logits, target = example()
    theirs = monai_losses.TverskyLoss(
        sigmoid=True, alpha=alpha, beta=beta, smooth_nr=1e-6, smooth_dr=1e-6
    )
    assert_same(Tversky(alpha=alpha, beta=beta), theirs, logits, target)


def assert_same(ours, theirs, logits, target, rtol=1e-9):
    for a, b in zip(
        value_and_gradient(ours, logits, target),
        value_and_gradient(theirs, logits, target),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol / 1000, check_dtype=False)


# ------------------------------------------------------------------------------------- by name
def test_paper_losses_lead_the_registry_in_the_papers_order():
    assert PAPER_LOSSES == ("xent", "gdsc", "dsc", "mixed", "focal1", "focal2", "new")
    assert tuple(LOSSES)[:7] == PAPER_LOSSES


def test_paper_settings():
    assert LOSSES["focal1"] == Focal(alpha=0.25, gamma=2)
    assert LOSSES["focal2"] == Focal(alpha=0.75, gamma=2)
    assert LOSSES["new"] == WeightedGradient(alpha=None, gamma=2)
    assert LOSSES["gdsc"].weights == "inverse_square"


def test_registry_holds_no_loss_twice():
    assert len(set(LOSSES.values())) == len(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_registered_name_is_its_own_label(name):
    assert loss_named(name) is LOSSES[name] or loss_named(name) == LOSSES[name]
    assert loss_label(LOSSES[name]) == name


@every_loss
def test_label_and_dictionary_lead_back_to_the_loss(loss):
    assert loss_named(loss_label(loss)) == loss
    stored = json.loads(json.dumps(loss_to_dict(loss), allow_nan=False))
    assert loss_from_dict(stored) == loss
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert hash(copy.deepcopy(loss)) == hash(loss)


@pytest.mark.parametrize(
    ("text", "loss", "label"),
    [
        ("focal", Focal(), "focal1"),
        ("focal(alpha=0.3,gamma=1.5)", Focal(alpha=0.3, gamma=1.5), None),
        (" focal( gamma = 1.5, alpha = 0.3 ) ", Focal(alpha=0.3, gamma=1.5), None),
        ("focal(alpha=0.3,gamma=1.5)", Focal(alpha=0.3, gamma=1.5), "focal(alpha=0.3,gamma=1.5)"),
        ("focal2(gamma=1)", Focal(alpha=0.75, gamma=1), "focal(alpha=0.75,gamma=1)"),
        ("new(alpha=patch)", WeightedGradient(alpha="patch"), "new(alpha=patch,gamma=2)"),
        ("new(alpha=None,gamma=2.5)", WeightedGradient(gamma=2.5), "new(alpha=None,gamma=2.5)"),
        ("gdsc(weights='inverse')", GeneralisedDice(weights="inverse"), "gdsc_inverse"),
        ("dsc(eps=0)", Dice(eps=0.0), "dsc(eps=0,reduction=patch)"),
        ("dsc()", Dice(), "dsc"),
        ("topk(fraction=1e-3)", TopK(fraction=0.001), "topk(fraction=0.001)"),
    ],
)
def test_losses_are_named_with_their_fields(text, loss, label):
    assert loss_named(text) == loss
    if label is not None:
        assert loss_label(loss) == label


def test_whole_numbers_do_not_make_another_loss():
    for gamma in (2, 2.0, np.float32(2), np.int64(2)):
        stored = loss_to_dict(Focal(gamma=gamma))
        assert json.dumps(stored) == json.dumps(loss_to_dict(LOSSES["focal1"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal3", "unknown loss 'focal3'; expected one of xent, gdsc.*did you mean 'focal"),
        ("xnet", "did you mean 'xent'"),
        ("Focal1", "did you mean 'focal1'"),
        ("dice", "unknown loss 'dice'"),
        ("", "cannot read loss ''"),
        ("focal(", "cannot read loss"),
        ("focal(0.3)", "cannot read loss"),
        ("focal(alpha=)", "cannot read loss"),
        ("focal(alpha=0.3", "cannot read loss"),
        ("focal(alpha=0.3)(gamma=1)", "cannot read loss"),
        ("focal(alpha=open('x'))", "cannot read loss"),
        ("focal(**{'alpha': 1})", "cannot read loss"),
        ("focal(aplha=0.3)", "no field 'aplha'; expected alpha, gamma; did you mean 'alpha'"),
        ("xent(alpha=1)", "no field 'alpha'; expected none"),
        ("focal(alpha=1.2)", "alpha is 1.2; expected a number, 0 or more and at most 1"),
        ("focal(alpha=-0.1)", "alpha is -0.1"),
        ("focal(alpha=batch)", "alpha is 'batch'; expected a number from 0 to 1, None"),
        ("focal(gamma=-1)", "gamma is -1; expected a number, 0 or more"),
        ("focal(gamma=1e999)", "gamma is inf"),
        ("focal(gamma=None)", "gamma is None"),
        ("focal(gamma=True)", "gamma is True"),
        ("focal(gamma=two)", "gamma is 'two'"),
        ("new(gamma=0)", "gamma is 0; expected a number, more than 0 and at most 10"),
        ("new(gamma=11)", "gamma is 11"),
        ("gdsc(weights=inverze)", "weights is 'inverze'.*did you mean 'inverse'"),
        ("dsc(reduction=mean)", "reduction is 'mean'; expected one of patch, batch"),
        ("dsc(eps=-1)", "eps is -1"),
        ("tversky(eps=0)", "eps is 0; expected a number, more than 0"),
        ("tversky(beta=-1)", "beta is -1"),
        ("tversky(alpha=0,beta=0)", "alpha and beta are 0; expected one above"),
        ("topk(fraction=0)", "fraction is 0"),
        ("topk(fraction=1.5)", "fraction is 1.5"),
    ],
)
def test_mistakes_in_a_name_are_answered_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        loss_named(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"type": "Focl", "fields": {}}, "unknown type of loss 'Focl'.*did you mean 'Focal'"),
        ({"type": "Focal", "fields": {"alpha": 0.5}}, r"missing \['gamma'\]"),
        (
            {"type": "CrossEntropy", "fields": {"weight": 1}},
            r"does not fit this release: unknown fields \['weight'\]",
        ),
        ({}, "unknown type of loss 'None'"),
    ],
)
def test_stored_losses_that_do_not_fit_are_refused(stored, message):
    with pytest.raises(ValueError, match=message):
        loss_from_dict(stored)


# --------------------------------------------------------------------------- losses of users' own
OWN = """
    from dataclasses import dataclass
    import torch

    @dataclass(frozen=True)
    class Scaled:
        scale: float = 2.0

        def __call__(self, logits, target):
            return self.scale * (logits.sigmoid() - target).abs().mean()

    class Module(torch.nn.Module):
        def forward(self, logits, target):
            return (logits.sigmoid() - target).square().mean()

    class NeedsArguments:
        def __init__(self, scale):
            self.scale = scale

        def __call__(self, logits, target):
            return self.scale * logits.mean()

    def absolute(logits, target):
        return (logits.sigmoid() - target).abs().mean()

    def dsc(logits, target):
        return absolute(logits, target)

    tripled = Scaled(scale=3.0)

    def unreduced(logits, target):
        return (logits - target).abs()

    def a_number(logits, target):
        return logits.mean().item()

    def cut_off(logits, target):
        return ((logits > 0).float() - target).abs().mean()

    def breaks(logits, target):
        raise RuntimeError("first line\\nsecond line")

    number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the current directory; gone afterwards."""
    (tmp_path / "own_losses.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for module in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("text", "factor", "label"),
    [
        ("own_losses:absolute", 1, "absolute"),
        ("own_losses:Scaled", 2, "Scaled"),
        ("own_losses:Scaled(scale=5)", 5, "Scaled(scale=5)"),
        ("own_losses:tripled", 3, "tripled"),
        ("own_losses:NeedsArguments(scale=0)", 0, "NeedsArguments(scale=0)"),
        ("own_losses:dsc", 1, "own_losses:dsc"),  # not to be taken for the built-in one
    ],
)
def test_own_losses_are_found_in_the_current_directory(own, text, factor, label):
    path = list(sys.path)
    loss = loss_named(text)
    assert sys.path == path
    logits, target = example()
    expected = factor * (logits.sigmoid() - target).abs().mean()
    torch.testing.assert_close(loss(logits, target), expected)
    assert loss_label(loss) == label
    stored = json.loads(json.dumps(loss_to_dict(loss)))
    assert stored["import"] == text.partition("(")[0]
    assert len(stored["source_sha256"]) == 64
    assert loss_from_dict(stored) == loss
    again = pickle.loads(pickle.dumps(loss))
    assert again == loss
    torch.testing.assert_close(again(logits, target), expected)


def test_own_class_is_instantiated_and_function_used_as_it_is(own):
    assert isinstance(loss_named("own_losses:Module").function, torch.nn.Module)
    function = loss_named("own_losses:absolute").function
    assert function is sys.modules["own_losses"].absolute
    assert loss_named("own_losses:tripled").function is sys.modules["own_losses"].tripled


def test_own_loss_given_as_an_object_is_stored_by_its_path(own):
    loss_named("own_losses:absolute")  # imports the module
    module = sys.modules["own_losses"]
    assert loss_to_dict(module.Scaled(scale=4.0)) == loss_to_dict(
        loss_named("own_losses:Scaled(scale=4.0)")
    )
    assert loss_label(module.Scaled(scale=4.0)) == "Scaled(scale=4)"
    assert loss_to_dict(module.absolute) == loss_to_dict(loss_named("own_losses:absolute"))
    assert loss_label(module.absolute) == "absolute"


def test_own_subclass_of_a_built_in_is_the_users(own):
    (own / "own_focal.py").write_text(
        "from lesion_core.losses import Focal\nclass Mine(Focal):\n    pass\n"
    )
    loss = loss_named("own_focal:Mine(alpha=0.3)")
    assert loss_to_dict(loss.function)["import"] == "own_focal:Mine"
    assert loss_label(loss) == "Mine(alpha=0.3)"


def test_monais_losses_can_be_named(monai_losses):
    loss = loss_named("monai.losses:DiceLoss(sigmoid=True,smooth_nr=1e-6,smooth_dr=1e-6)")
    logits, target = example()
    torch.testing.assert_close(loss(logits, target), Dice()(logits, target))
    assert loss_from_dict(json.loads(json.dumps(loss_to_dict(loss)))) == loss


def test_changed_source_is_refused(own):
    stored = loss_to_dict(loss_named("own_losses:absolute"))
    file = own / "own_losses.py"
    file.write_text(file.read_text() + "\n# another thought\n")
    with pytest.raises(ValueError, match="own_losses:absolute: its source has changed"):
        loss_from_dict(stored)


def test_losses_of_another_source_differ(own):
    before = loss_named("own_losses:absolute")
    file = own / "own_losses.py"
    file.write_text(file.read_text() + "\n# another thought\n")
    assert loss_named("own_losses:absolute") != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_loses:absolute", "there is no module 'own_loses'.*did you mean 'own_losses'"),
        ("own_losses:absolut", r"own_losses.py has no 'absolut'; did you mean 'absolute'"),
        ("own_losses.py:absolute", "expected module:name, such as own_losses:absolute"),
        ("./own_losses.py:absolute", "expected module:name, such as own_losses:absolute"),
        ("own_losses:", "expected module:name, such as own_losses:MyLoss"),
        (":absolute", "expected module:name, such as my_losses:absolute"),
        ("own_losses:number", "is a int; expected a function"),
        ("own_losses:NeedsArguments", r"NeedsArguments\(\) failed: TypeError:.*scale"),
        ("own_losses:Scaled(size=2)", r"Scaled\(size=2\) failed: TypeError:.*size"),
        ("own_losses:absolute(scale=2)", "is not a class, so it has no field 'scale'"),
        ("own_losses:unreduced", r"tensor of shape \[2, 1, 32, 32, 32\].*\.mean\(\)"),
        ("own_losses:a_number", "returned a float; expected a scalar tensor"),
        ("own_losses:cut_off", "without a gradient"),
        ("own_losses:breaks", "failed on logits.*RuntimeError: first line second line"),
        ("own_broken:loss", "importing own_broken failed: SyntaxError"),
        ("own_needy:loss", "importing own_needy failed: ModuleNotFoundError.*no_such_package"),
    ],
)
def test_mistakes_in_own_losses_are_answered_in_one_line(own, text, message):
    (own / "own_broken.py").write_text("def loss(:\n")
    (own / "own_needy.py").write_text("import no_such_package\n")
    with pytest.raises(ValueError, match=message) as caught:
        loss_named(text)
    assert "\n" not in str(caught.value)


def test_losses_that_cannot_be_imported_cannot_be_stored():
    def local(logits, target):
        return logits.mean()

    for loss in (local, lambda logits, target: logits.mean(), torch.nn.MSELoss()):
        with pytest.raises(ValueError, match="cannot be stored by name"):
            loss_to_dict(loss)


def test_own_loss_can_be_made_where_gradients_are_off(own):
    with torch.no_grad():
        assert isinstance(loss_named("own_losses:absolute"), Imported)
