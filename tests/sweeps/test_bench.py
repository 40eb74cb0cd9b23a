"""Benchmarks compare in turn, judge by their targets, and say in one line what they cannot do."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from lesion_core import kernels as our_kernels
from lesion_core.losses import LOSSES
from lesion_core.training.precision import convolutions
from lesion_core.unet import UNet3d
from sweeps.bench import __main__ as bench
from sweeps.bench.core import (
    _busy_row,
    _difference,
    _precisions,
    packing_rows,
    peer_rows,
    training_rows,
    whole_trial_rows,
)
from sweeps.bench.peers import PEERS, UNASKED, Peer, steps
from sweeps.bench.plain import plain_twin
from sweeps.bench.rivals import BATCH, peer_training, plain_trial, training, trial
from sweeps.bench.roofline import kernels
from sweeps.bench.timing import Rival, Row, Stage, paired


def test_rivals_run_in_turn_after_one_uncounted_run_each():
    order = []

    def run(name):
        order.append(name)
        return 100.0 if len(order) <= 2 else len(order)

    seconds = paired("ab", run, repeats=3)
    assert "".join(order) == "ab" * 4
    assert seconds == {"a": 5, "b": 6}


def sleeper(seconds, result):
    before = os.getpid()

    def run():
        time.sleep(seconds)
        return result, before

    return run


def test_each_rival_has_a_process_and_its_preparation_is_not_timed():
    rivals = {"slow": Rival(sleeper, (2.0, "x")), "fast": Rival(sleeper, (0.0, "y"))}
    with Stage(rivals) as ready:
        seconds = paired(rivals, ready.run, repeats=1)
    assert seconds["fast"] < 2.0 <= seconds["slow"]
    (slow, one), (fast, other) = ready.results["slow"], ready.results["fast"]
    assert (slow, fast) == ("x", "y")
    assert len({one, other, os.getpid()}) == 3


def broken():
    raise KeyError("no such thing")


def test_a_rival_that_fails_says_why():
    with (
        Stage({"mine": Rival(broken)}) as ready,
        pytest.raises(RuntimeError, match=r"(?s)mine: .*no such thing"),
    ):
        ready.run("mine")


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row(what="x", value=2, peer="y", peer_value=4, least_ratio=2), 2, True),
        (Row(what="x", value=2, peer="y", peer_value=3.9, least_ratio=2), 1.95, False),
        (Row(what="x", value=15, most=15), None, True),
        (Row(what="x", value=16, most=15), None, False),
        (Row(what="x", value=90, least=90), None, True),
        (Row(what="x", value=float("nan"), least=90), None, False),
        (Row(what="x", value=1, peer="y", peer_value=3), 3, None),
    ],
)
def test_a_row_is_judged_by_its_target_alone(row, ratio, met):
    assert row.ratio == ratio
    assert row.met is met


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nonsense"], "nonsense"),
        (["sweep", "--only", "step"], "part of core"),
        (["report", "--json", "nowhere/x.json"], "no folder nowhere"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(flags, said, pytestconfig):
    bench = pytestconfig.rootpath / "sweeps" / "bench.py"
    done = subprocess.run([sys.executable, bench, *flags], capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_gpu_its_benchmark_is_one_line_and_status_2(pytestconfig):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    bench = pytestconfig.rootpath / "sweeps" / "bench.py"
    command = [sys.executable, bench, "core", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --device cuda: no GPU is usable here; use --device cpu\n"


@pytest.mark.slow
def test_trials_side_by_side_have_the_results_of_trials_alone():
    """How many share a device is the GPU's question; the measurement runs on any."""
    alone, together, difference = packing_rows(
        "cpu", (1, 2), epochs=2, width="narrow", size="small"
    )
    assert alone.ratio == 1
    assert "2 at a time" in together.what
    assert difference.value == 0 and difference.met


@pytest.mark.slow
def test_training_is_compared_with_steps_launched_one_by_one_and_with_the_plain_network():
    """On a CPU ours is not recorded: the measurement runs on any."""
    rows = list(training_rows("cpu", ("fp32",), num_batches=2, width="narrow"))
    assert [row.peer.split()[0] for row in rows] == ["launched", "plain"]
    assert all(row.ratio > 0 for row in rows)


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        *((name, 2) for name, peer in PEERS["cpu"].items() if peer.network == "plain"),
        pytest.param("MONAI BasicUNet bf16, memory kept", BATCH[0], marks=pytest.mark.slow),
    ],
)
def test_a_peer_trains_the_network_that_ours_is(name, batch_size, monkeypatch):
    """Its first loss is that of the plain formulation on the same batch; then it learns.

    MONAI's network in fp32: in bf16 a part of its gradient is whatever the memory held before
    (`unet.convolved`), and its loss need not fall.
    """
    monkeypatch.setattr("sweeps.bench.rivals.BATCH", (batch_size, *BATCH[1:]))
    peer = PEERS["cpu"][name]
    if peer.network != "plain":
        monkeypatch.setitem(PEERS["cpu"], name, replace(peer, bf16=False))
    first, later = (peer_training(name, "cpu", number, "narrow")() for number in (1, 4))
    assert 0 < later["loss"] < first["loss"]
    if peer.network == "plain":
        unasked = peer_training(UNASKED, "cpu", 1, "narrow")()
        assert first["loss"] == pytest.approx(unasked["loss"], rel=1e-2)


def test_a_peers_own_network_takes_steps(monkeypatch):
    """Two patches are too few for its loss to fall soon.  In fp32: in bf16 a part of its gradient
    is whatever the memory held (`unet.convolved` says why ours is not)."""
    monkeypatch.setattr("sweeps.bench.rivals.BATCH", (2, *BATCH[1:]))
    name = "MONAI BasicUNet bf16, memory kept"
    monkeypatch.setitem(PEERS["cpu"], name, replace(PEERS["cpu"][name], bf16=False))
    first, later = (peer_training(name, "cpu", number, "narrow")() for number in (1, 2))
    assert first["loss"] > 0 and 0 < later["loss"] != first["loss"]


def test_ways_of_a_gpu_take_the_same_step():
    """Compiled is eager there, and what a graph records is what it would replay."""
    batch = torch.randn(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    target = (batch[:, :1] > 1).float()
    found = []
    for peer in (Peer(), Peer(how="compiled"), Peer(channels_last=True)):
        net = plain_twin(UNet3d(2, (8, 16, 16, 16)).initialise(torch.Generator().manual_seed(1)),
                         filters=(8, 16, 16, 16))  # fmt: skip
        once = steps(peer, net, batch, target, LOSSES["xent"], 1e-3, backend="eager")
        found.append([float(once()) for _ in range(3)])
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], rel=1e-4)
    assert found[0][2] < found[0][0]


def test_steps_are_held_against_the_best_peer_and_one_that_cannot_run_is_named(monkeypatch):
    seconds = {
        "ours, bf16": 1.0, "ours, bf16, without kernels of our own": 2.0,
        UNASKED: 5.0, "plain bf16": 4.0, "MONAI BasicUNet bf16": 4.5,
    }  # fmt: skip

    class Staged(Stage):
        def __init__(self, rivals):
            self.rivals = rivals

        def run(self, name):
            if name not in seconds:
                raise RuntimeError(f"{name}: Traceback\n  no compiler")
            return 20 * seconds[name]

        def __exit__(self, *error):
            pass

    monkeypatch.setattr("sweeps.bench.core.Stage", Staged)
    monkeypatch.setattr("sweeps.bench.core._precisions", lambda device: ["tf32", "bf16"])
    rows = list(peer_rows("cuda"))
    unable = [row for row in rows if row.value != row.value]
    assert [row.note for row in unable] == ["  no compiler"] * 2
    assert "no compiler" in unable[0].in_words
    assert rows[-1].peer == "the best of them: plain bf16"
    assert (rows[-1].ratio, rows[-1].met) == (4.0, True)
    assert [row.ratio for row in rows[2:-1]] == [2.0, 5.0, 4.0, 4.5]


def test_ours_without_kernels_has_none_while_it_is_made_and_whenever_it_runs(monkeypatch):
    disabled = []
    monkeypatch.setattr(
        "lesion_core.kernels.are_used", lambda device: disabled.append(our_kernels._disabled.get())
    )
    run = training("recorded, without kernels", "fp32", "cpu", 1, "narrow")
    run()
    before = len(disabled)
    run()
    assert len(disabled) > before > 0 and all(disabled)


def test_each_part_is_measured_alone(monkeypatch, capsys):
    monkeypatch.setattr(
        "sweeps.bench.core.PARTS", {"image": lambda device: [Row(what="x", value=1)]}
    )
    assert bench.main(["core", "--only", "image"]) == 0
    assert "core: x: 1 s" in capsys.readouterr().out
    assert _precisions("cpu")[0] == "fp32"


@pytest.mark.slow
def test_a_real_trial_is_held_against_straightforward_ones():
    """On a CPU and small: the measurement runs on any."""
    rows = list(whole_trial_rows("cpu", "bf16", width="narrow", size="small", epochs=1))
    assert [row.peer for row in rows] == [f"straightforward trial, {p}" for p in ("fp32", "bf16")]
    assert all(row.ratio > 0 for row in rows)


@pytest.mark.slow
def test_a_straightforward_trial_has_the_numbers_of_ours():
    numbers = []
    for make in (trial, plain_trial):
        arguments = (3, "fp32", "cpu", 1) if make is trial else (3, "cpu", 1)
        with Stage({"one": Rival(make, (*arguments, "narrow"))}) as ready:
            ready.run("one")
            numbers.append(ready.results["one"])
    assert numbers[0]["numbers"] == pytest.approx(numbers[1], rel=1e-3)


def test_what_was_measured_before_a_failure_is_printed_and_written(tmp_path, monkeypatch, capsys):
    def core(device):  # without --only, none is asked for
        yield Row(what="first", value=1)
        raise RuntimeError("peers disagree")

    monkeypatch.setattr("sweeps.bench.core.core", core)
    assert bench.main(["core", "--json", str(tmp_path / "x.json")]) == 1
    said = capsys.readouterr()
    assert said.err == "error: peers disagree\n"
    assert "| first | 1.00 s |" in said.out
    (row,) = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert row["what"] == "first"


def test_not_a_number_is_the_largest_difference():
    values = {"a": 1.0, "b": float("nan"), "c": 2.0}
    assert not _difference(values, values) <= 1


def test_deterministic_algorithms_are_not_chosen_by_speed():
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with convolutions("bf16"):
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
    with convolutions("bf16"):
        assert torch.backends.cudnn.benchmark


def test_operations_and_bytes_of_a_convolution_are_counted_once_and_views_not_at_all():
    volumes, weight = torch.ones(2, 3, 4, 4, 4), torch.ones(5, 3, 3, 3, 3)
    found = kernels(lambda: torch.conv3d(volumes.view(2, 3, 4, 4, 4), weight, padding=1))
    num_outputs = 2 * 5 * 4**3
    assert found == [
        (2 * 3 * 3**3 * num_outputs, 4 * (volumes.numel() + weight.numel() + num_outputs))
    ]


def test_a_change_in_place_reads_and_writes_and_an_expanded_tensor_is_as_small_as_it_is():
    values, one = torch.ones(1000), torch.ones(1).expand(1000)
    assert kernels(lambda: values.add_(one)) == [(0, 4000 + 4 + 4000)]


NVIDIA_SMI = """#!/bin/sh
echo "$@" > {said}
while true; do echo {percent}; sleep 0.05; done
"""


@pytest.mark.parametrize(("percent", "value"), [("97", 97), ("[N/A]", None)])
def test_a_gpu_is_as_busy_as_its_driver_says(percent, value, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI.format(said=tmp_path / "said", percent=percent))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("sweeps.bench.core._gpu", lambda: "GPU-7")
    row = _busy_row("bf16", lambda: time.sleep(0.1), seconds=3)
    assert "--id=GPU-7" in (tmp_path / "said").read_text()
    if value is None:
        assert row.value != row.value
        assert (row.met, row.note) == (False, "nvidia-smi does not say")
    else:
        assert (row.value, row.met, row.note) == (value, True, "")


def test_without_the_drivers_tool_how_busy_a_gpu_is_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sweeps.bench.core._gpu", lambda: "0")
    row = _busy_row("bf16", lambda: None)
    assert not row.met
    assert row.note.startswith("nvidia-smi, which says how busy the GPU is: ")
