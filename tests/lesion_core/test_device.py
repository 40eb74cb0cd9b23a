"""A GPU is not waited for while it trains and predicts: on a CPU, by the operations that would."""

import io
import logging
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lesion_core import kernels
from lesion_core.evaluate import _to_host, evaluate, windows_at_once
from lesion_core.losses import LOSSES
from lesion_core.patches import Volumes
from lesion_core.settings import TrainSettings
from lesion_core.training.epoch import Diverged, train_epoch
from lesion_core.training.precision import algorithms, check_precision, convolutions
from lesion_core.training.randomness import generator
from lesion_core.training.step import Step
from lesion_core.trial import Trial, lay_out_as_weights, restore, run
from lesion_core.unet import UNet3d, layout, to_device
from tests.support.fake_graph import install, waits
from tests.support.toy import toy_cohort

SETTINGS = TrainSettings(epochs=1, patch_size=16, batch_size=4, filters=(8, 16))


class Waits(TorchDispatchMode):
    """Counts the operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if waits(function, args):
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_waits_are_seen():
    values = torch.arange(4.0)
    with Waits() as seen:
        values[0].item()
        values[values > 2]
        torch.nonzero(values)
    assert sum(seen.counts.values()) == 3


@pytest.fixture
def gpu(monkeypatch):
    install(monkeypatch)


def as_on_a_gpu(images) -> Volumes:
    """Takes the GPU's way, on tensors of the CPU."""
    volumes = Volumes.of(images, patch_size=16, stride=8)
    volumes.device = torch.device("cuda")
    return volumes


def epoch(volumes, patches, loss, batch_size=4):
    network = UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4))
    optimiser = torch.optim.Adam(network.parameters(), capturable=True)
    step = Step(network, optimiser, loss, volumes, batch_size=batch_size, precision="fp32")
    return train_epoch(step, patches, epoch=1, shuffle=generator(0, 0, 1, "order"))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_training_waits_once_per_epoch_however_many_batches(name):
    volumes = as_on_a_gpu(toy_cohort(1).images)
    patches = volumes.training_patches([0], flip=False)
    counts = []
    for batch_size in (8, 2):
        with Waits() as seen:
            epoch(volumes, patches, LOSSES[name], batch_size)
        counts.append(seen.counts.total())
    assert counts == [1, 1]


def test_copies_to_the_host_are_waited_for_only_where_they_are_needed(monkeypatch):
    done = []
    empty, numpy = torch.empty, torch.Tensor.numpy

    class Event:
        def record(self):
            done.append("record")

        def synchronize(self):
            done.append("synchronize")

    def pinned(*shape, pin_memory, **options):
        done.append("pinned" if pin_memory else "pageable")
        return empty(*shape, **options)

    def read(tensor):
        done.append("numpy")
        return numpy(tensor)

    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "numpy", read)
    fetch = _to_host([torch.arange(3), torch.ones(2)])
    assert done == ["pinned", "pinned", "record"]
    found = [values.tolist() for values in fetch()]
    assert done[3:] == ["synchronize", "numpy", "numpy"]
    monkeypatch.undo()
    assert found == [[0, 1, 2], [1, 1]]


def test_evaluation_does_not_wait_between_images():
    images = toy_cohort(3).images
    volumes = Volumes.of(images, patch_size=16, stride=8)
    network = UNet3d(2, (8, 16))

    def rows():
        return evaluate(network, LOSSES["new"], volumes, images, [1], SETTINGS).cases

    first = rows()  # which windows hold lesion is looked up once
    with Waits() as seen:
        assert rows() == first
    assert not seen.counts


def test_more_windows_at_once_are_scored_alike():
    images = toy_cohort(2).images
    gpu, cpu = as_on_a_gpu(images), Volumes.of(images, patch_size=16, stride=8)
    paper, large = TrainSettings(), TrainSettings(patch_size=128, batch_size=2)
    assert [windows_at_once(gpu.device, one) for one in (paper, large)] == [64, 2]
    assert [windows_at_once(cpu.device, one) for one in (paper, large)] == [16, 2]
    network = to_device(UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4)), "cpu")
    found, expected = (
        evaluate(network, LOSSES["new"], volumes, images, [1], SETTINGS).cases
        for volumes in (gpu, cpu)
    )
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected), rtol=1e-6)


@pytest.mark.usefixtures("gpu")
def test_at_the_end_of_an_epoch_the_batch_that_broke_is_named():
    volumes = as_on_a_gpu(toy_cohort(1).images)
    patches = volumes.training_patches([0], flip=False)
    calls = []

    def breaks(logits, target):
        calls.append(1)
        value = LOSSES["xent"](logits, target)
        return value * float("nan") if len(calls) == 2 else value

    with pytest.raises(Diverged, match="loss became nan in epoch 1, batch 2"):
        epoch(volumes, patches, breaks)
    assert len(calls) == -(-len(patches) // 4)


def test_a_network_turns_its_input_into_the_layout_of_its_weights():
    assert layout(torch.device("cuda:0")) == torch.contiguous_format
    network = to_device(UNet3d(2, (8, 16)), "cpu")
    values = torch.randn(3, 2, 4, 4, 4)
    lies = layout(values.device)
    assert network.encoder[0].conv.weight.is_contiguous(memory_format=lies)
    logits = network(values)
    assert logits.equal(network(values.contiguous(memory_format=lies)))


@pytest.mark.usefixtures("gpu")
def test_both_ways_train_alike():
    images = toy_cohort(1).images
    gpu, cpu = as_on_a_gpu(images), Volumes.of(images, patch_size=16, stride=8)
    patches = cpu.training_patches([0], flip=True)
    assert epoch(gpu, patches, LOSSES["new"]) == epoch(cpu, patches, LOSSES["new"])


@pytest.mark.parametrize(
    ("precision", "rounding"), [("fp32", "ieee"), ("bf16", "ieee"), ("tf32", "tf32")]
)
def test_fp32_on_a_gpu_means_fp32_unless_tf32_is_asked_for(precision, rounding):
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    with pytest.raises(KeyError), convolutions(precision):
        assert cudnn.conv.fp32_precision == rounding
        raise KeyError
    assert (cudnn.benchmark, cudnn.conv.fp32_precision) == before


@pytest.mark.filterwarnings("ignore:.*meta parameter")  # which hold no values to copy into
@pytest.mark.parametrize("then_on_gpu", [False, True])
@pytest.mark.parametrize(("now_on_gpu", "counted_on"), [(False, "cpu"), (True, "meta")])
def test_a_trial_resumes_on_another_device(then_on_gpu, now_on_gpu, counted_on, monkeypatch):
    """Adam counts its steps on the host, but on a GPU there; meta stands for the other device."""
    install(monkeypatch)
    network, there = UNet3d(2, (8, 16)), UNet3d(2, (8, 16)).to("meta")
    optimiser = torch.optim.Adam(network.parameters(), capturable=then_on_gpu)
    other = torch.optim.Adam(there.parameters(), lr=0.5, capturable=now_on_gpu)
    network(torch.zeros(1, 2, 2, 2, 2)).sum().backward()
    optimiser.step()
    state = {"epoch": 4, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    assert restore(buffer.getvalue(), there, other) == (4, None)
    (group,) = other.param_groups
    assert (group["capturable"], group["lr"]) == (now_on_gpu, 0.5)
    for found in other.state.values():
        assert {name: value.device.type for name, value in found.items()} == {
            "step": counted_on, "exp_avg": "meta", "exp_avg_sq": "meta",
        }  # fmt: skip


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_precision_that_a_gpu_does_not_have_is_refused(precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    check_precision("fp32", "cuda")
    with pytest.raises(ValueError, match=f"precision {precision} on Tesla T4: .*; use fp32"):
        check_precision(precision, "cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_precision(precision, "cuda")


def test_tf32_without_a_gpu_is_refused():
    cohort = toy_cohort(2)
    trial = Trial(
        cohort="toy", fingerprint=cohort.fingerprint, loss=LOSSES["xent"], seed=0, fold=0,
        num_folds=2, settings=replace(SETTINGS, precision="tf32"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="precision tf32 without a GPU"):
        run(trial, cohort, on_epoch=lambda report: None)


def test_a_cpu_repeats_itself_anyway_and_says_so():
    cohort = toy_cohort(2)
    trial = Trial(
        cohort="toy", fingerprint=cohort.fingerprint, loss=LOSSES["xent"], seed=0, fold=0,
        num_folds=2, settings=replace(SETTINGS, deterministic=True),
    )  # fmt: skip
    assert "deterministic" not in SETTINGS.to_dict()
    with pytest.raises(ValueError, match=r"--deterministic without a GPU: .*; leave it out"):
        run(trial, cohort, on_epoch=lambda report: None)


@pytest.mark.parametrize("with_kernels", [False, True])
def test_deterministic_algorithms_are_asked_for_and_given_back(with_kernels, monkeypatch):
    """Strictly where our own pooling is used: PyTorch's is listed as if its windows overlapped."""
    monkeypatch.setattr(kernels, "are_used", lambda device: with_kernels)
    for wanted in (False, True):
        with pytest.raises(KeyError), algorithms(wanted, "cuda:0"), convolutions("bf16"):
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert torch.backends.cudnn.benchmark != wanted
            warns = torch.is_deterministic_algorithms_warn_only_enabled()
            assert warns == (wanted and not with_kernels)
            assert torch.utils.deterministic.fill_uninitialized_memory != wanted
            raise KeyError
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.fixture
def hopper(monkeypatch):
    """A GPU on which kernels are used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernels, "_cannot_be_launched", lambda device: None)
    kernels._say_once.cache_clear()


@pytest.mark.usefixtures("hopper")
def test_kernels_are_used_where_they_can_be_and_the_log_says_why_not(monkeypatch, caplog):
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert kernels.are_used(gpu) and layout(gpu) == torch.channels_last_3d
    assert not kernels.are_used(cpu)
    with caplog.at_level(logging.WARNING):
        with kernels.disabled():
            assert not kernels.are_used(gpu) and layout(gpu) == torch.contiguous_format
        assert kernels.are_used(gpu)
        monkeypatch.setattr(kernels, "_cannot_be_launched", lambda device: "no C compiler")
        assert not kernels.are_used(gpu) and not kernels.are_used(gpu)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert not kernels.are_used(gpu)
    assert [record.getMessage().partition("kernels: ")[2] for record in caplog.records] == [
        "they are disabled",
        "no C compiler",
        "compute capability 7.5; they need 8.0 or more",
    ]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (lambda *_: torch.tensor(9.0), None),
        (lambda *_: torch.tensor(8.0), "Triton computes 9 as 8"),
        (lambda *_: {}["gcc"], "Triton cannot launch them (KeyError: 'gcc')"),
    ],
)
def test_a_kernel_is_launched_to_find_out_whether_one_can_be(found, says, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("lesion_core.kernels.head.head", found)
    assert kernels._cannot_be_launched.__wrapped__(torch.device("cpu")) == says
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "no Triton" in kernels._cannot_be_launched.__wrapped__(torch.device("cpu"))


def test_a_network_asks_each_time_whether_kernels_are_used(monkeypatch):
    network, values = UNet3d(2, (8, 16)), torch.randn(1, 2, 4, 4, 4)
    plain = network(values)
    monkeypatch.setattr(kernels, "why_not", lambda device: kernels._disabled.get() or None)
    monkeypatch.setattr("lesion_core.kernels.network.logits_of", lambda network, volumes: "ours")
    assert network(values) == "ours"
    with kernels.disabled():
        assert network(values).equal(plain)
    assert network.double()(values.double()).dtype == torch.float64
    with pytest.raises(ValueError, match="expected multiples of 2"):
        network.float()(values[..., :3])


def test_restored_moments_lie_in_memory_as_their_weights_do():
    """Fused Adam takes them together; a checkpoint may come from where both lay otherwise."""
    checkpoints = []
    for form in (torch.contiguous_format, torch.channels_last_3d):
        network = UNet3d(2, (8, 16)).to(memory_format=form)
        optimiser = torch.optim.Adam(network.parameters())
        network(torch.ones(1, 2, 2, 2, 2)).sum().backward()
        optimiser.step()
        state = {"epoch": 1, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        checkpoints.append((buffer.getvalue(), network, optimiser))
    (first, _, ours), (_, there, other) = checkpoints
    restore(first, there, other)
    lay_out_as_weights(other)
    for parameter, moments, expected in zip(
        there.parameters(), other.state.values(), ours.state.values(), strict=True
    ):
        for name in ("exp_avg", "exp_avg_sq"):
            assert moments[name].stride() == parameter.stride()
            assert moments[name].equal(expected[name])
