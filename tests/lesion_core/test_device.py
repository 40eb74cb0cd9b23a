"""A GPU is not waited for while it trains and predicts: on a CPU, by the operations that would."""

import io
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lesion_core.evaluate import _to_host, evaluate, windows_at_once
from lesion_core.losses import LOSSES
from lesion_core.patches import Volumes
from lesion_core.settings import TrainSettings
from lesion_core.training.epoch import Diverged, train_epoch
from lesion_core.training.precision import check_precision, convolutions
from lesion_core.training.randomness import generator
from lesion_core.training.step import Step
from lesion_core.trial import Trial, restore, run
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
