"""The network equals its plain formulation, and its exact decoder is exact."""

import pytest
import torch
import torch.nn.functional as F

from lesion_core.kernels.network import logits_of
from lesion_core.unet import GroupNorm, UNet3d, upsampling_kernel
from sweeps.bench.plain import plain_twin


def test_parameter_count_is_the_papers():
    assert sum(p.numel() for p in UNet3d().parameters()) == 2_906_913


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_equals_plain_formulation_in_value_and_gradient(memory_format):
    generator = torch.Generator().manual_seed(3)
    network = UNet3d(3, (8, 16, 24, 32)).double().initialise(generator)
    for parameter in network.parameters():  # biases and norms must matter too
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator).double()
    plain = plain_twin(network, in_channels=3, filters=(8, 16, 24, 32))
    network = network.to(memory_format=memory_format)
    x = torch.randn(2, 3, 16, 24, 8, generator=generator).double()
    ours, theirs = network(x), plain(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    ours.square().mean().backward()
    theirs.square().mean().backward()
    for p, q in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-12)


def test_full_width_equals_plain_formulation_in_single_precision():
    network = UNet3d().initialise(torch.Generator().manual_seed(0))
    x = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain_twin(network)(x), rtol=1e-4, atol=1e-5)


def test_upsampling_kernel_of_one_tap_is_a_box():
    weight = torch.zeros(1, 1, 3, 3, 3)
    weight[0, 0, 1, 1, 1] = 1.0  # the identity: upsampling alone copies each voxel into a 2^3 box
    kernel = upsampling_kernel(weight)
    assert kernel.shape == (1, 1, 4, 4, 4)
    assert kernel.sum() == 8
    assert kernel[0, 0, 1:3, 1:3, 1:3].eq(1).all()


def test_initialisation_depends_on_the_generator_alone():
    def draw(seed):
        torch.rand(7)  # global state must not matter
        return UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(seed))

    a, b, other = draw(5), draw(5), draw(6)
    pairs = list(zip(a.parameters(), b.parameters(), other.parameters(), strict=True))
    assert all(p.equal(q) for p, q, _ in pairs)
    assert not all(p.equal(r) for p, _, r in pairs)
    weight = a.encoder[0].conv.weight
    bound = 54**-0.5  # fan in 2 * 27
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.95 * bound


@pytest.mark.parametrize("filters", [(8,), (8, 12), (0, 8), ()])
def test_unusable_filters_are_refused(filters):
    with pytest.raises(ValueError, match="multiples of 8"):
        UNet3d(2, filters)


def test_indivisible_size_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        UNet3d(1, (8, 8, 8, 8))(torch.zeros(1, 1, 32, 32, 36))


@pytest.mark.parametrize("mean_over_sd", [0.5, 10])
def test_group_norm_of_channels_last_volumes_is_accurate(mean_over_sd):
    """PyTorch's own kernel misses these tolerances by a factor of a hundred."""
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(2, 16, 24, 24, 24, generator=generator) + mean_over_sd
    gradient = torch.randn(volumes.shape, generator=generator)
    norm = GroupNorm(2, 16)
    norm.weight.data.normal_(generator=generator)
    norm.bias.data.normal_(generator=generator)
    ours = volumes.clone(memory_format=torch.channels_last_3d).requires_grad_()
    ours_out = norm(ours)
    ours_out.backward(gradient)
    exact = volumes.double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in (norm.weight, norm.bias))
    out = F.group_norm(exact, 2, weight, bias)
    out.backward(gradient.double())
    assert ours_out.is_contiguous(memory_format=torch.channels_last_3d)
    for found, expected in [
        (ours_out, out),
        (ours.grad, exact.grad),
        (norm.weight.grad, weight.grad),
        (norm.bias.grad, bias.grad),
    ]:
        torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-5)


def test_group_norm_passes_gradcheck_in_its_own_formulation():
    from lesion_core.unet import _GroupNorm

    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(2, 8, 2, 3, 2, generator=generator, dtype=torch.float64)
    volumes = volumes.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    weight, bias = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    inputs = (volumes, weight.requires_grad_(), bias.requires_grad_(), 2, 1e-5)
    assert torch.autograd.gradcheck(_GroupNorm.apply, inputs)


@pytest.mark.parametrize("size", [8, 16, 24])
def test_bf16_gradients_are_near_those_of_fp32_however_small_the_volumes(size):
    """At the bottleneck 1, 2 and 3 voxels a side; freed memory is full of rubbish."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 2, size, size, size, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    network = UNet3d(2, (8, 16, 24, 32)).initialise(generator)
    found = {}
    for bf16 in (False, True):
        rubbish = [torch.full((32 * 24 * 27 * n,), 1e30) for n in (1, 2, 3)]
        del rubbish
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = network(x).float().square().mean()
        value.backward()
        found[bf16] = {name: p.grad.clone() for name, p in network.named_parameters()}
    for name, gradient in found[False].items():
        assert (found[True][name] - gradient).norm() < 0.5 * gradient.norm(), name


@pytest.mark.parametrize("channels", [1, 2, 8, 9])
def test_the_network_by_kernels_is_the_same_network(channels, monkeypatch):
    """Its order of operations, each of them written with PyTorch; kernels: `test_kernels.py`."""

    def rectified_norm(values, other, conv_bias, weight, bias, num_groups, eps):
        values = values if other is None else values + other
        rectified = F.relu(values + conv_bias.view(1, -1, 1, 1, 1))
        return F.group_norm(rectified, num_groups, weight, bias, eps)

    def folded(weight, low, dtype):
        return upsampling_kernel(weight[:, :low]).to(dtype), weight[:, low:].to(dtype)

    formulas = {
        "rectified_norm": rectified_norm,
        "folded": folded,
        "skipped_and_halved": lambda volumes: (volumes, F.max_pool3d(volumes, 2)),
        "head": F.conv3d,
    }
    for name, formula in formulas.items():
        monkeypatch.setattr(f"lesion_core.kernels.network.{name}", formula)
    generator = torch.Generator().manual_seed(3)
    network = UNet3d(channels, (8, 16, 24)).double().initialise(generator)
    x = torch.randn(2, channels, 8, 4, 12, generator=generator).double()
    x.requires_grad_()
    found = []
    for forward in (network, lambda volumes: logits_of(network, volumes)):
        logits = forward(x)
        inputs = [x, *network.parameters()]
        found.append([logits, *torch.autograd.grad(logits.square().mean(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
