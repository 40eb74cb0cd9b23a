"""The GPU's kernels against float64: on a GPU, or interpreted on a CPU (make test-kernels)."""

import importlib.util
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lesion_core import kernels
from lesion_core.kernels import head, norm, pooling, weights
from lesion_core.losses import LOSSES
from lesion_core.training.precision import autocast, convolutions
from lesion_core.unet import UNet3d, upsampling_kernel
from sweeps.bench import roofline

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if ON_GPU else "cpu"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (ON_GPU or INTERPRETED),
    reason="neither a GPU with Triton, nor Triton interpreted: make test-kernels",
)

LAST = torch.channels_last_3d
EPS = 1e-5
BF16 = 2**-7 if INTERPRETED else 2**-8
"""Largest relative difference that rounding makes: the interpreter cuts off, a GPU rounds."""


def stored(values: Tensor, dtype: torch.dtype) -> Tensor:
    """fp32 values as a kernel stores them."""
    if INTERPRETED and dtype == torch.bfloat16:
        values = (values.view(torch.int32) & ~0xFFFF).view(torch.float32)
    return values.to(dtype)


@pytest.fixture(autouse=True)
def true_fp32():
    """References of a GPU are convolved in fp32 proper."""
    with convolutions("fp32", search=False):
        yield


@pytest.fixture
def made():
    """Normal values, on the device, from one generator."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape, dtype=torch.float32, scale=1.0, shift=0.0) -> Tensor:
        values = (torch.randn(shape, generator=generator) * scale + shift).to(DEVICE, dtype)
        last = values.contiguous(memory_format=LAST) if len(shape) == 5 else values
        return last.requires_grad_()

    return make


def exact(*tensors: Tensor) -> list[Tensor]:
    """The same values in float64, with gradients of their own."""
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def norm_in_float64(values, other, conv_bias, weight, bias, groups):
    total = values if other is None else values + other
    rectified = F.relu(total + conv_bias.view(1, -1, 1, 1, 1))
    return F.group_norm(rectified, groups, weight, bias, EPS)


def near(found: Tensor, expected: Tensor, relative: float) -> None:
    """Differences are small beside the largest value, which is finite."""
    largest = expected.abs().max().item()
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(found.double(), expected, rtol=relative, atol=relative * largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 24, 3, 5, 7), 3), ((1, 8, 9, 11, 13), 1), ((3, 12, 2, 1, 1), 2), ((2, 72, 1, 1, 1), 9)],
)
def test_norm_has_the_values_and_gradients_of_float64(shape, groups, dtype, made, monkeypatch):
    monkeypatch.setattr(norm, "MOST_SPLITS", 2)  # several blocks a program, the last one empty
    monkeypatch.setattr(norm, "VALUES_PER_BLOCK", 1024)
    values, other = (made(*shape, dtype=dtype) for _ in range(2))
    numbers = [made(shape[1]) for _ in range(3)]
    for second in (None, other):
        inputs = [values, *([] if second is None else [second]), *numbers]
        found = norm.rectified_norm(values, second, *numbers, groups, EPS)
        gradient = made(*shape, dtype=dtype).detach()
        gradients = torch.autograd.grad(found, inputs, gradient)
        references = exact(*inputs)
        if second is not None:  # its sum is rounded once, as it is stored
            merged = stored(values.detach().float() + other.detach().float(), dtype)
            with torch.no_grad():
                references[1].copy_(merged.double() - references[0])
        exact_other = None if second is None else references[1]
        expected = norm_in_float64(references[0], exact_other, *references[-3:], groups)
        exact_gradients = torch.autograd.grad(expected, references, gradient.double())
        assert found.dtype == dtype and found.is_contiguous(memory_format=LAST)
        assert [one.dtype for one in gradients] == [one.dtype for one in inputs]
        rounding = 1e-5 if dtype == torch.float32 else BF16
        near(found, expected, rounding)
        for one, reference in zip(gradients, exact_gradients, strict=True):
            near(one, reference, rounding if one.dim() == 5 else 1e-5)


@pytest.mark.parametrize("kind", ["empty", "constant", "background", "shifted", "huge"])
def test_norm_of_unusual_volumes_keeps_its_digits(kind, made):
    """Nothing but zeros or another number, mostly so, far from 0 beside its spread, and large."""
    values = made(2, 16, 9, 8, 8).detach()
    if kind == "empty":
        values = torch.zeros_like(values)
    elif kind == "constant":
        values = torch.full_like(values, 0.7)
    elif kind == "background":
        values[:, :, :, :, 1:] = 0.3
    elif kind == "shifted":
        values = values + 300
    else:
        values = values * 1e15
    values.requires_grad_()
    numbers = [made(16) for _ in range(3)]
    gradient = made(*values.shape).detach()
    found = norm.rectified_norm(values, None, *numbers, 2, EPS)
    gradients = torch.autograd.grad(found, [values, *numbers], gradient)
    references = exact(values, *numbers)
    expected = norm_in_float64(references[0], None, *references[1:], 2)
    exact_gradients = torch.autograd.grad(expected, references, gradient.double())
    # fp32 itself tells 300 + x from 300 + y to 3e-5 only; and next to 0 the sign of the bias counts
    near(found, expected, 1e-4)
    for one, reference in zip(gradients, exact_gradients, strict=True):
        near(one, reference, 1e-4)


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's NumPy: inf - inf
def test_what_is_not_a_number_stays_so_and_where_it_is(made):
    values = made(2, 16, 2, 3, 2).detach()
    values[0, 3, 1, 1, 1] = float("nan")
    values[1, 9, 0, 0, 0] = float("inf")
    numbers = [torch.zeros(16, device=DEVICE), *torch.ones(2, 16, device=DEVICE)]
    found = norm.rectified_norm(values, None, *numbers, 2, EPS)
    expected = F.group_norm(F.relu(values), 2, numbers[1], numbers[2])
    assert found.isnan().equal(expected.isnan())
    assert found[0, :8].isnan().all() and found[1, 8:].isnan().all()
    _, halved = pooling.skipped_and_halved(values[..., :2, :].contiguous(memory_format=LAST))
    assert halved[0, 3].isnan().all() and halved.isnan().sum() == 1
    logits = head.head(values, torch.ones(1, 16, 1, 1, 1, device=DEVICE), numbers[0][:1])
    assert logits.isnan().sum() == 1


def test_a_sample_has_the_same_bits_in_any_batch_and_in_any_run(made):
    values, numbers = made(3, 16, 9, 8, 8), [made(16) for _ in range(3)]
    together = norm.rectified_norm(values, None, *numbers, 2, EPS)
    alone = norm.rectified_norm(values[1:2].detach(), None, *numbers, 2, EPS)
    assert together[1:2].equal(alone)
    gradient = made(*values.shape).detach()
    inputs = [values, *numbers]
    first = torch.autograd.grad(together, inputs, gradient, retain_graph=True)
    again = torch.autograd.grad(together, inputs, gradient)
    assert all(one.equal(other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 24, 4, 6, 2), (1, 8, 5, 3, 7), (2, 72, 2, 2, 2)])
def test_pooling_is_pytorchs_to_the_bit_ties_and_gradients_too(shape, dtype, made):
    volumes = made(*shape, dtype=dtype).detach()
    volumes = volumes.mul(2).round().contiguous(memory_format=LAST)  # many are equal
    ours, theirs = (volumes.clone(memory_format=torch.preserve_format) for _ in range(2))
    ours.requires_grad_()
    theirs.requires_grad_()
    skip, found = pooling.skipped_and_halved(ours)
    expected = F.max_pool3d(theirs, 2)
    assert skip.equal(ours) and found.equal(expected)
    with torch.no_grad():
        assert pooling.skipped_and_halved(ours)[1].equal(expected)
    of_skip, of_halved = (
        made(*shape, dtype=dtype).detach(),
        made(*found.shape, dtype=dtype).detach(),
    )
    (gradient,) = torch.autograd.grad([skip, found], ours, [of_skip, of_halved], retain_graph=True)
    (expected,) = torch.autograd.grad(expected, theirs, of_halved)
    assert gradient.equal(stored(expected.float() + of_skip.float(), dtype))
    (alone,) = torch.autograd.grad(found, ours, of_halved)
    assert alone.equal(expected)


def test_an_odd_side_loses_its_last_voxel(made):
    volumes = made(1, 8, 3, 3, 3)
    _, halved = pooling.skipped_and_halved(volumes)
    (gradient,) = torch.autograd.grad(halved.sum(), volumes)
    assert gradient.sum() == 8
    assert not gradient[..., 2].any() and not gradient[:, :, 2].any()


@pytest.mark.parametrize(("dtype", "low"), [(torch.float32, 40), (torch.bfloat16, 24)])
def test_folded_weights_and_their_gradient_are_those_of_the_formula(dtype, low, made):
    weight = made(24, low + 24, 3, 3, 3)
    up, skip = weights.folded(weight, low, dtype)
    (reference,) = exact(weight)
    exact_up, exact_skip = upsampling_kernel(reference[:, :low]), reference[:, low:]
    assert up.dtype == skip.dtype == dtype
    assert up.is_contiguous(memory_format=LAST) and skip.is_contiguous(memory_format=LAST)
    rounding = 1e-6 if dtype == torch.float32 else BF16
    near(up, exact_up, rounding)
    assert skip.equal(exact_skip.to(dtype))  # PyTorch's copy, which rounds
    gradients = [made(*one.shape, dtype=dtype).detach() for one in (up, skip)]
    (found,) = torch.autograd.grad([up, skip], weight, gradients)
    (expected,) = torch.autograd.grad(
        [exact_up, exact_skip], reference, [one.double() for one in gradients]
    )
    assert found.stride() == weight.stride()
    near(found, expected, 1e-6)


def test_weights_are_rounded_together_as_they_would_be_one_by_one(made):
    some = [made(8, 8, 3, 3, 3), made(16, 8, 3, 3, 3)]
    found = weights.rounded(some, torch.bfloat16)
    assert all(one.equal(weight.bfloat16()) for one, weight in zip(found, some, strict=True))
    assert all(one.stride() == weight.stride() for one, weight in zip(found, some, strict=True))
    gradients = [made(*one.shape, dtype=torch.bfloat16).detach() for one in found]
    back = torch.autograd.grad(found, some, gradients)
    assert all(one.equal(given.float()) for one, given in zip(back, gradients, strict=True))
    assert weights.rounded(some, torch.float32) == some


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_is_a_convolution_of_one_voxel(dtype, made, monkeypatch):
    monkeypatch.setattr(head, "MOST_PROGRAMS", 2)
    monkeypatch.setattr(head, "VALUES_PER_BLOCK", 512)
    volumes, weight, bias = made(2, 24, 3, 5, 7, dtype=dtype), made(1, 24, 1, 1, 1), made(1)
    found = head.head(volumes, weight, bias)
    references = exact(volumes, weight, bias)
    expected = F.conv3d(*references)
    assert found.dtype == torch.float32
    near(found, expected, 1e-6)
    gradient = made(*found.shape).detach()
    gradients = torch.autograd.grad(found, [volumes, weight, bias], gradient)
    exact_gradients = torch.autograd.grad(expected, references, gradient.double())
    near(gradients[0], exact_gradients[0], 1e-6 if dtype == torch.float32 else BF16)
    for one, reference in zip(gradients[1:], exact_gradients[1:], strict=True):
        near(one, reference, 1e-5)


def test_a_benchmark_counts_what_a_launch_moves(made):
    volumes, weight, bias = made(1, 8, 2, 2, 2, dtype=torch.bfloat16), made(1, 8, 1, 1, 1), made(1)
    with torch.no_grad():
        found = roofline.kernels(lambda: head.head(volumes, weight, bias))
    assert found[0] == (0, 2 * 64 + 4 * 8 + 4 + 4 * 8)
    assert INTERPRETED or len(found) == 1  # the interpreter makes copies for itself


def lies(values: Tensor) -> list[int]:
    """Steps in memory along each side that has any."""
    sides = zip(values.shape, values.stride(), strict=True)
    return [step for size, step in sides if size > 1]


def tiny_network() -> UNet3d:
    generator = torch.Generator().manual_seed(3)
    made = UNet3d(2, (8, 16)).initialise(generator)
    for parameter in made.parameters():  # biases and norms must matter too
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.to(DEVICE, memory_format=LAST)  # pyright: ignore[reportCallIssue]


@pytest.fixture
def used(monkeypatch):
    """Kernels are used wherever the tests run, unless they are disabled."""
    monkeypatch.setattr(kernels, "why_not", lambda device: kernels._disabled.get() or None)


@pytest.mark.usefixtures("used")
def test_a_network_trains_as_it_does_without_kernels(made):
    """Logits, loss and gradients, which lie like the weights, as fused Adam wants them."""
    volumes = made(2, 2, 4, 8, 4).detach()
    target = (made(2, 1, 4, 8, 4) > 1).float()
    found = []
    for context in (nullcontext(), kernels.disabled()):
        trained = tiny_network()
        with context:
            logits = trained(volumes)
        value = LOSSES["new"](logits, target)
        value.backward()
        found.append([logits, value, *(p.grad for p in trained.parameters())])
    for one, other in zip(*found, strict=True):
        near(one.detach(), other.detach().double(), 1e-5)
    for gradient, parameter in zip(found[0][2:], tiny_network().parameters(), strict=True):
        assert lies(gradient) == lies(parameter)


@pytest.mark.usefixtures("used")
def test_a_network_predicts_alike_in_bf16_and_is_differentiated_once(made):
    volumes, trained = made(2, 2, 4, 4, 4).detach(), tiny_network()
    together = trained(volumes)
    with torch.no_grad(), autocast(volumes.device, "bf16"):
        rounded = trained(volumes[1:])
    assert rounded.dtype == torch.float32
    near(rounded, together[1:].detach().double(), 0.05)
    loss = together.square().sum()
    (gradient,) = torch.autograd.grad(loss, trained.head.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.usefixtures("used")
def test_an_empty_batch_has_gradients_of_zero(made):
    trained = tiny_network()
    logits = trained(made(0, 2, 4, 4, 4))
    assert logits.shape == (0, 1, 4, 4, 4)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in trained.parameters())


@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_of_a_step_compiles_for_a_gpu_and_reads_16_bytes_at_once(
    capability, pytestconfig, tmp_path
):
    """On any machine; what an interpreter lets pass, types above all, is an error there."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.compiled_kernels", capability, "8", "8"],
        cwd=pytestconfig.rootpath, env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    widest = dict(line.split(maxsplit=3)[:3:2] for line in done.stdout.splitlines())
    merging = {"_merge_moments", "_merge_gradients"}
    assert len(widest) == 12
    assert all(bits == "128" for name, bits in widest.items() if name not in merging)
