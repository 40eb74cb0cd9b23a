"""The network equals its plain formulation, and its exact decoder is exact."""

import pytest
import torch
import torch.nn.functional as F

from lesion_core.kernels.network import logits_of
from lesion_core.unet import GroupNorm, Head, UNet3d, upsampling_kernel
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


@pytest.mark.parametrize("sides", [(16, 16, 16), (5, 7, 3), (3, 3, 3), (1, 1, 1)])
@pytest.mark.parametrize("channels", [8, 40])
@pytest.mark.parametrize("mean_over_sd", [0.5, 10])
@pytest.mark.parametrize("mean_gradient", [0, 1.003])
def test_group_norm_in_bf16_is_as_near_to_the_exact_one_as_pytorchs(
    sides, channels, mean_over_sd, mean_gradient
):
    """Value and gradients, of a batch of which one sample is nearly constant."""
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(3, channels, *sides, generator=generator) + mean_over_sd
    volumes[1] = 0.5
    volumes[1, :, 0, 0, 0] = 1
    volumes = volumes.bfloat16().contiguous(memory_format=torch.channels_last_3d)
    gradient = torch.randn(volumes.shape, generator=generator)
    gradient = (gradient * 0.2 + mean_gradient).bfloat16()
    norm = GroupNorm(channels // 8, channels)
    norm.weight.data.normal_(generator=generator)
    norm.bias.data.normal_(generator=generator)

    def computed(form, dtype):
        fp32 = torch.promote_types(dtype, torch.float32)  # or float64
        tensors = [volumes.to(dtype), norm.weight.to(fp32), norm.bias.to(fp32)]
        values, *parameters = (each.detach().requires_grad_() for each in tensors)
        out = form(values, *parameters)
        return out, *torch.autograd.grad(out, [values, *parameters], gradient.to(out.dtype))

    def pytorchs(values, weight, bias):
        return F.group_norm(values, channels // 8, weight, bias)

    def ours(values, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (values,))

    exact = computed(pytorchs, torch.float64)
    found, theirs = computed(ours, torch.bfloat16), computed(pytorchs, torch.bfloat16)
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert found[1].is_contiguous(memory_format=torch.channels_last_3d)
    names = ("out", "volumes", "weight", "bias")
    for name, value, other, expected in zip(names, found, theirs, exact, strict=True):
        error = (value.double() - expected).norm() / expected.norm()
        their_error = (other.double() - expected).norm() / expected.norm()
        limit = 2**-8
        if name == "weight" and mean_gradient:  # of which little is left: its rounding shows
            limit *= 6
        assert error < max(limit, 1.3 * their_error), name


@pytest.mark.parametrize("bf16", [False, True])
def test_an_empty_batch_has_gradients_of_zero(bf16):
    network = UNet3d(2, (8, 16)).to(memory_format=torch.channels_last_3d)
    volumes = torch.zeros(0, 4, 4, 4, 2).permute(0, 4, 1, 2, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(volumes)
    assert logits.shape == (0, 1, 4, 4, 4)
    logits.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_a_value_that_is_not_a_number_spoils_its_group_alone():
    volumes = torch.ones(2, 16, 4, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    volumes[1, 9, 0, 0, 0] = torch.nan
    volumes.requires_grad_()
    out = GroupNorm(2, 16)(volumes)
    (gradient,) = torch.autograd.grad(out.sum(), volumes)
    for found in (out, gradient):
        assert found[1, 8:].isnan().all()
        assert found.isnan().sum() == 8 * 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_convolution_is_exact(dtype):
    """PyTorch's own fp32 one misses the bias's tolerance by a factor of a hundred."""
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(8, 24, 24, 16, 24, generator=generator).relu().to(dtype)
    volumes = volumes.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    gradient = torch.rand(8, 1, 24, 16, 24, generator=generator).to(dtype)
    head = Head(24)
    inputs = [volumes, *head.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = head(volumes)
    exact = [each.detach().to(dtype).double().requires_grad_() for each in inputs]
    expected = F.conv3d(*exact)
    assert out.dtype == dtype
    found = [out, *torch.autograd.grad(out, inputs, gradient)]
    assert found[1].is_contiguous(memory_format=torch.channels_last_3d)
    limits = 4 * [4e-3] if dtype == torch.bfloat16 else [1e-6, 1e-6, 1e-5, 1e-5]
    for one, other, limit in zip(
        found, [expected, *torch.autograd.grad(expected, exact, gradient.double())], limits,
        strict=True,
    ):  # fmt: skip
        assert (one.double() - other).abs().max() <= limit * other.abs().max()
    if dtype == torch.float32:
        alone = head(volumes[3:4])
        assert alone.equal(out[3:4])  # whatever it is predicted beside


def test_group_norm_passes_gradcheck_in_its_own_formulation():
    from lesion_core.channels_last import _Norm

    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(2, 8, 2, 3, 2, generator=generator, dtype=torch.float64)
    volumes = volumes.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    weight, bias = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    inputs = (volumes, weight.requires_grad_(), bias.requires_grad_(), 2, 1e-5)
    assert torch.autograd.gradcheck(_Norm.apply, inputs)


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
