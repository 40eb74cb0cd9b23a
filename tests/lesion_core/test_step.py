"""A recorded step of training does what an unrecorded one does; shown on a stand-in for a GPU."""

import itertools
from collections.abc import Callable

import pytest
import torch

from lesion_core.losses import LOSSES, loss_named
from lesion_core.patches import Patches, Volumes
from lesion_core.settings import TrainSettings
from lesion_core.training.epoch import train_epoch
from lesion_core.training.optimisers import optimiser_of
from lesion_core.training.randomness import generator
from lesion_core.training.step import WARM_UP, Step
from lesion_core.unet import UNet3d
from tests.support.fake_graph import Stream, Tape, install
from tests.support.toy import toy_cohort

IMAGES = toy_cohort(2).images


def volumes(device: str) -> Volumes:
    """On the CPU, and with ``cuda`` taken for a GPU's."""
    found = Volumes.of(IMAGES, patch_size=16, stride=8)
    found.device = torch.device(device)
    return found


def trained(
    device: str, loss: Callable, *, batch_size: int = 4, epochs: int = 2, foreach: bool = False
):
    """What epochs say, and the weights after them."""
    cut = volumes(device)
    network = UNet3d(2, (8, 16)).initialise(torch.Generator().manual_seed(4))
    optimiser = torch.optim.Adam(network.parameters(), capturable=True, foreach=foreach)
    step = Step(network, optimiser, loss, cut, batch_size=batch_size, precision="fp32")
    patches = cut.training_patches([0, 1], flip=True)
    patches = patches[: len(patches) // batch_size * batch_size - 1]  # the last batch is smaller
    found = [
        train_epoch(step, patches, epoch=epoch, shuffle=generator(0, 0, epoch, "order"))
        for epoch in range(1, epochs + 1)
    ]
    return found, torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1].equal(expected[1])


@pytest.fixture
def gpu(monkeypatch):
    install(monkeypatch)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("name", "foreach"),
    [
        *((name, False) for name in sorted(LOSSES)),
        ("xent", True),
        *(pytest.param(each, True, marks=pytest.mark.slow) for each in sorted(LOSSES)),
    ],
)
def test_replays_give_the_bits_of_steps_launched_one_by_one(name, foreach):
    found = trained("cuda", LOSSES[name], foreach=foreach)
    expected = trained("cpu", LOSSES[name], foreach=foreach)
    num_full = sum(epoch["n_batches"] - 1 for epoch in expected[0])
    assert Tape.num_replays == num_full - WARM_UP > 2
    assert_same(found, expected)


@pytest.mark.usefixtures("gpu")
def test_the_stand_in_freezes_what_python_knew_as_a_gpu_would():
    def ageing() -> Callable:
        calls = itertools.count()
        return lambda logits, target: LOSSES["xent"](logits, target) / (1 + next(calls))

    found, _ = trained("cuda", ageing(), epochs=1)
    expected, _ = trained("cpu", ageing(), epochs=1)
    assert found[0]["train_loss"] > expected[0]["train_loss"]


@pytest.mark.usefixtures("gpu")
def test_a_loss_that_waits_is_warned_of_and_trains_all_the_same():
    def waiting(logits, target):
        scale = 1.0 if target.sum().item() > 0 else 0.0
        return scale * LOSSES["xent"](logits, target)

    with pytest.warns(UserWarning, match="cannot be recorded, .*waiting.* waits for the") as seen:
        found = trained("cuda", waiting)
    assert len(seen) == 1
    assert Tape.num_replays == 0
    assert_same(found, trained("cpu", waiting))


@pytest.mark.usefixtures("gpu")
def test_what_cannot_be_recorded_is_warned_of_and_trains_all_the_same():
    calls = []

    def breaks(logits, target):
        calls.append(1)
        if len(calls) == WARM_UP + 1:
            raise RuntimeError("out of memory")
        return LOSSES["xent"](logits, target)

    with pytest.warns(UserWarning, match="cannot be recorded, .*: out of memory") as seen:
        found = trained("cuda", breaks)
        trained("cuda", LOSSES["xent"], epochs=1)  # not tried again, nor warned of
    assert len(seen) == 1
    assert Tape.num_replays == 0
    assert_same(found, trained("cpu", LOSSES["xent"]))


@pytest.mark.usefixtures("gpu")
def test_another_error_of_a_loss_is_its_own():
    calls = []

    def breaks(logits, target):
        calls.append(1)
        if len(calls) == WARM_UP:
            raise RuntimeError("no such thing")
        return LOSSES["xent"](logits, target)

    with pytest.raises(RuntimeError, match="no such thing"):
        trained("cuda", breaks)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("says", [None, False, True])
def test_a_loss_of_ones_own_is_recorded_if_it_says_that_it_can(says, tmp_path, monkeypatch):
    """Python that it keeps between calls would be frozen."""
    code = "from lesion_core.losses import CrossEntropy\n"
    code += "def mine(logits, target):\n    return CrossEntropy()(logits, target)\n"
    code += "" if says is None else f"mine.recordable = {says}\n"
    (tmp_path / f"own_{says}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    trained("cuda", loss_named(f"own_{says}:mine"))
    assert (Tape.num_replays > 0) == bool(says)


@pytest.mark.usefixtures("gpu")
def test_a_steps_stream_and_the_one_around_it_wait_for_each_other():
    cut = volumes("cuda")
    network = UNet3d(2, (8, 16))
    optimiser = torch.optim.Adam(network.parameters())
    step = Step(network, optimiser, LOSSES["new"], cut, batch_size=4, precision="fp32")
    default = torch.cuda.current_stream("cuda")
    with pytest.raises(KeyError), step.apart():
        assert Stream.waited == [(step._stream, default)]
        raise KeyError
    assert Stream.waited[1:] == [(default, step._stream)]


def test_steps_are_counted_on_a_gpu_only_if_the_network_is_there(monkeypatch):
    parameters = UNet3d(2, (8, 16))
    assert not optimiser_of(parameters, TrainSettings()).param_groups[0]["capturable"]
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert optimiser_of(parameters, TrainSettings()).param_groups[0]["capturable"]


@pytest.mark.usefixtures("gpu")
def test_a_training_of_few_batches_is_not_recorded():
    found, _ = trained("cuda", LOSSES["xent"], batch_size=64, epochs=1)
    assert found[0]["n_batches"] < WARM_UP
    assert Tape.num_replays == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_step_reads_nothing_that_lies_on_its_device(name, monkeypatch):
    """On a device without values: reading one, or a tensor left on the CPU, is an error there."""
    install(monkeypatch)
    cut = volumes("meta")
    patches = cut.training_patches([0], flip=True)[:4]
    patches = Patches(*(tensor.to("meta") for tensor in patches.tensors))
    for attribute, value in vars(cut).items():
        if isinstance(value, torch.Tensor):
            setattr(cut, attribute, value.to("meta"))
    network = UNet3d(2, (8, 16)).to("meta")
    optimiser = torch.optim.Adam(network.parameters(), capturable=True)
    step = Step(network, optimiser, LOSSES[name], cut, batch_size=4, precision="fp32")
    found = step(patches)
    assert (found.device.type, found.shape) == ("meta", (2,))
    for state in optimiser.state.values():
        assert {value.device.type for value in state.values()} == {"meta"}
