"""A network by its name: what it is made of, what fits it, and what becomes of it in model.pt."""

import itertools
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from lesion_core.networks.fitting import check, paper_size
from lesion_core.networks.named import check_name, initialised
from lesion_core.networks.names import network_name
from lesion_core.segmentation.networks import load_network
from lesion_core.settings import TrainSettings
from lesion_core.stopping import TrainingStopped
from lesion_core.trial import Trial, run
from lesion_core.unet import UNet3d
from tests.lesion_core.test_trial import SETTINGS, StopAt, comparable, outcome, trial
from tests.support.toy import toy_cohort

DYNUNET = replace(SETTINGS, network="monai:DynUNet", filters=(8, 16, 32), epochs=2, flip=False)

MY_NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, out_channels, width=4, kind="good"):
        super().__init__()
        self.kind = kind
        self.layers = nn.Sequential(
            nn.Conv3d(in_channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(),
            nn.Dropout3d(0.5), nn.Conv3d(width, out_channels, 1),
        )

    def forward(self, volumes):
        logits = self.layers(volumes)
        if self.kind == "pooled":
            return logits[..., ::2]
        if self.kind == "several":
            return [logits]
        if self.kind == "stuck":
            return logits.detach()
        if self.kind == "even" and volumes.shape[-1] % 32:
            raise RuntimeError("32 only")
        if self.kind == "reads" and volumes.sum().item() > 1e9:
            return logits
        return logits


def wide(width):
    return nn.Linear(width, 1)
"""


@pytest.fixture
def my_nets(tmp_path, monkeypatch):
    """A module of the user's own, of another name in every test: Python keeps what it imported."""
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MY_NETS)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("unet3d", "unet3d"),
        (" monai:SegResNet( init_filters = 16 ) ", "monai:SegResNet(init_filters=16)"),
        ("monai:UNet(strides=[2, 2], norm=batch)", "monai:UNet(norm='batch',strides=(2,2))"),
        ("my_nets.py:Net", "my_nets:Net"),
        ("pack.nets:Net(depth=3)", "pack.nets:Net(depth=3)"),
    ],
)
def test_a_name_has_one_spelling(text, spelled):
    assert TrainSettings(network=text).network == spelled
    assert str(network_name(spelled)) == spelled


@pytest.mark.parametrize(
    "text",
    ["unet", "unet3d(depth=3)", "monai:", "monai:a.b", "x y", "monai:UNet(open('x'))",
     "monai:UNet(a=open('x'))", "monai:UNet(a=1e999)", f"monai:UNet(a={'(' * 900}{')' * 900})"],
)  # fmt: skip
def test_what_is_no_name_is_refused_in_one_line(text):
    with pytest.raises(ValueError) as refused:
        TrainSettings(network=text)
    assert "\n" not in str(refused.value)


def test_filters_that_a_network_has_no_use_for_are_refused():
    with pytest.raises(ValueError, match="widths of its own"):
        TrainSettings(network="monai:SegResNet", filters=(8, 16))
    with pytest.raises(ValueError, match="widths of its own"):
        TrainSettings(network="monai:DynUNet(filters=(8,16))", filters=(8, 16))
    assert TrainSettings(network="monai:DynUNet", filters=(8, 16)).filters == (8, 16)
    assert TrainSettings(network="monai:SegResNet", patch_size=20).patch_size == 20


@pytest.mark.parametrize("filters", [(32, 64, 128, 256), (8, 16)])
def test_the_papers_network_is_as_large_as_counted(filters):
    from torch.utils.flop_counter import FlopCounterMode

    network = UNet3d(3, filters)
    found = paper_size(TrainSettings(filters=filters, patch_size=16), 3)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 16, 16, 16))
    # Folding the decoder's weights comes on top, but once for a batch.
    folding = sum(2 * 27 * 64 * low * skip for skip, low in itertools.pairwise(filters))
    assert found.flops_per_patch == counter.get_total_flops() - folding


def test_monais_network_is_made_as_nnu_net_would_and_as_large_as_counted():
    found = initialised(DYNUNET, 2, 0, 0)
    from monai.networks.nets.dynunet import DynUNet

    expected = DynUNet(3, 2, 1, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32])
    shapes = {name: value.shape for name, value in expected.state_dict().items()}
    assert {name: value.shape for name, value in found.state_dict().items()} == shapes
    size = check(DYNUNET, 2, on_gpu=False)
    assert size.parameters == sum(p.numel() for p in expected.parameters())
    convolutions = 2 * 27 * (2 * 8 + 8 * 8 + 16 * 8 + 8 * 8) * 16**3  # down, and up again
    convolutions += 2 * 27 * (8 * 16 + 16 * 16 + 32 * 16 + 16 * 16) * 8**3
    convolutions += 2 * 27 * (16 * 32 + 32 * 32) * 4**3
    convolutions += 2 * 8 * (16 * 8 * 8**3 + 32 * 16 * 4**3) + 2 * 8 * 16**3  # between; the head
    assert size.flops_per_patch == convolutions


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "monai:DynUnett"}, "did you mean 'DynUNet'"),
        ({"network": "monai:Dynunet"}, "is called monai:DynUNet"),
        ({"network": "monai:SegResNet(initfilters=3)"}, "did you mean 'init_filters'"),
        ({"network": "monai:SegResNet(in_channels=3)"}, "follows from the data"),
        ({"network": "monai:AHNet(pretrained=True)"}, "seed and fold alone"),
        ({"network": "nowhere_nets:Net"}, "no module 'nowhere_nets'"),
    ],
)
def test_unknown_networks_are_refused_with_the_nearest(settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        check_name(TrainSettings(**settings))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pooled", r"makes \[2, 1, 16, 16, 8\] of \[2, 2, 16, 16, 16\]"),
        ("several", "makes list of"),
        ("stuck", "nothing to learn"),
        ("even", r"16³ voxels \(RuntimeError: 32 only\); nearest --patch-size that fits: 32"),
        ("Net(wide=3)", "cannot be made"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(my_nets, kind, message):
    name = f"{my_nets}:{kind}" if "(" in kind else f"{my_nets}:Net(kind={kind})"
    with pytest.raises(ValueError, match=message) as refused:
        check(TrainSettings(network=name, patch_size=16), 2, on_gpu=False)
    assert "\n" not in str(refused.value)


def test_a_network_that_reads_values_is_tried_on_the_cpu(my_nets):
    settings = TrainSettings(network=f"{my_nets}:Net(kind=reads)", patch_size=16)
    assert check(settings, 2, on_gpu=False).parameters == 2 * 4 * 27 + 4 + 8 + 4 + 1


def test_filters_for_a_network_that_takes_none_and_what_is_no_network_are_refused(my_nets):
    for settings, message in (
        ({"network": f"{my_nets}:Net", "filters": (8, 16)}, "has no use for them"),
        ({"network": f"{my_nets}:MY_NETS"}, "has no 'MY_NETS'"),
        ({"network": f"{my_nets}:torch"}, "expected a class or a function"),
        ({"network": f"{my_nets}:wide(width=3)"}, "cannot take patches"),
    ):
        with pytest.raises(ValueError, match=message):
            check(TrainSettings(**settings), 2, on_gpu=False)


def test_bf16_on_a_cpu_is_refused_where_pytorchs_gradients_are_wrong():
    settings = TrainSettings(network="monai:DynUNet", filters=(8, 16, 32), patch_size=8)
    check(settings, 2, on_gpu=False)
    with pytest.raises(ValueError, match="gradients are wrong"):
        check(replace(settings, precision="bf16"), 2, on_gpu=False)
    check(replace(settings, precision="bf16"), 2, on_gpu=True)
    check(replace(settings, precision="bf16", patch_size=16), 2, on_gpu=False)
    with pytest.raises(ValueError, match="three levels or more"):
        check(replace(settings, filters=(8, 16)), 2, on_gpu=True)


@pytest.mark.parametrize("network", ["unet3d", "monai:DynUNet"])
def test_initial_weights_follow_from_seed_and_fold_alone(network):
    settings = replace(DYNUNET, network=network)

    def weights(seed, fold, threads=1):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.rand(seed + 1), random.random(), np.random.rand()  # noqa: NPY002
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        found = initialised(settings, 2, seed, fold)
        assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        assert torch.get_rng_state().equal(states[2]) and random.getstate() == states[0]
        assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
        return torch.nn.utils.parameters_to_vector(found.parameters())

    assert weights(1, 0).equal(weights(1, 0, threads=2))
    assert not weights(1, 0).equal(weights(1, 1)) and not weights(1, 0).equal(weights(2, 0))


def test_monais_trial_stopped_within_an_epoch_goes_on_to_the_same_bits_and_comes_back():
    cohort = toy_cohort()
    reports, summary = outcome(trial(settings=DYNUNET), cohort)
    assert summary["network"] == "monai:DynUNet" and summary["parameters"] > 0
    with pytest.raises(TrainingStopped) as stopped:
        run(trial(settings=DYNUNET), cohort, on_epoch=lambda report: None, stop=StopAt(12))
    rest, _ = outcome(trial(settings=DYNUNET), cohort, checkpoint=stopped.value.checkpoint)
    assert [comparable(r) for r in rest] == [comparable(r) for r in reports[-len(rest) :]]
    network = load_network(reports[-1].final.model)
    assert type(network).__name__ == "DynUNet" and not network.training


def test_own_trial_with_dropout_and_batch_norm_goes_on_to_the_same_bits(my_nets):
    """Whatever global generators were at: they are seeded for each batch, and put back."""
    cohort = toy_cohort()
    own = trial(settings=TrainSettings(
        epochs=2, patch_size=16, batch_size=4, network=f"{my_nets}:Net"))  # fmt: skip
    state = torch.get_rng_state()
    reports, _ = outcome(own, cohort)
    assert torch.get_rng_state().equal(state)
    torch.rand(5)
    with pytest.raises(TrainingStopped) as stopped:
        run(own, cohort, on_epoch=lambda report: None, stop=StopAt(12))
    rest, _ = outcome(own, cohort, checkpoint=stopped.value.checkpoint)
    assert [comparable(r) for r in rest] == [comparable(r) for r in reports[-len(rest) :]]
    model = reports[-1].final.model
    with pytest.raises(ValueError, match=f"say --own-network {my_nets}:Net"):
        load_network(model)
    network = load_network(model, own_network=f"{my_nets}:Net")
    volumes = torch.zeros(1, 2, 16, 16, 16)
    assert network(volumes).equal(network(volumes))  # dropout is off
    with pytest.raises(ValueError, match="for 2 images, not for 1"):
        load_network(model, own_network=f"{my_nets}:Net", channels=("t1",))


def test_other_code_is_another_trial(my_nets, tmp_path, monkeypatch):
    own = trial(settings=TrainSettings(network=f"{my_nets}:Net"))
    stored = own.to_dict()
    assert Trial.from_dict(stored) == own
    assert "network_sha256" not in trial().to_dict()
    (tmp_path / f"{my_nets}.py").write_text(MY_NETS + "\n# changed\n")
    changed = trial(settings=own.settings)
    assert changed.name != own.name
    with pytest.raises(ValueError, match="its source has changed since it was stored"):
        Trial.from_dict(stored)


def saved(**changes):
    import io

    content = {
        "in_channels": 2, "filters": [8, 16, 32], "network": "monai:DynUNet", "patch_size": 16,
        "weights": initialised(DYNUNET, 2, 0, 0).state_dict(),
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content | changes, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "monai:SegResNet"}, "not those of the network that it says"),
        ({"network": "os:system"}, "code of whoever trained it"),
        ({"network": "monai:SegResNet(blocks_down=(65536,1))"}, "larger than the weights"),
        ({"network": "monai:DynUNet", "filters": [65536, 65536, 65536]}, "larger than the weights"),
        ({"network": "monai:MILModel(num_classes=1)"}, "no such network from images to masks"),
        ({"network": "monai:AHNet(pretrained=True)"}, "seed and fold alone"),
        ({"network": 3}, "holds no network"),
        ({"network": "unet3d"}, "not those of the network that it says"),
        ({"patch_size": 10**9}, "holds no network"),
        ({"weights": {"a": 3}}, "holds no network"),
    ],
)
def test_a_received_model_makes_no_more_than_its_weights_and_runs_no_code(changes, message):
    assert type(load_network(saved())).__name__ == "DynUNet"
    with pytest.raises(ValueError, match=message) as refused:
        load_network(saved(**changes))
    assert re.match("[^\n]*$", str(refused.value))
