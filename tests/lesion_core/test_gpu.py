"""On a real GPU: replays equal single steps, kernels equal PyTorch's modules, a CPU is agreed with.

Nothing here runs without one; what of it a CPU can show is in `test_step.py`, `test_device.py` and
`test_kernels.py`.
"""

import hashlib
import io
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lesion_core import kernels
from lesion_core.kernels.norm import rectified_norm
from lesion_core.losses import LOSSES, loss_named
from lesion_core.settings import PRECISIONS, TrainSettings
from lesion_core.training import step
from lesion_core.training.precision import check_precision
from lesion_core.trial import Trial, run
from lesion_core.unet import UNet3d
from tests.support.toy import toy_cohort

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")

SETTINGS = TrainSettings(epochs=3, patch_size=16, batch_size=4, filters=(8, 16))
SEEDS = range(5)


def refuse(precision):
    """Leave a test out that needs a precision which this GPU lacks."""
    try:
        check_precision(precision, "cuda")
    except ValueError as error:
        pytest.skip(str(error))


def trained(
    device, loss=LOSSES["new"], precision="fp32", checkpoint=None, *, seed=0, epochs=3,
    deterministic=None,
):  # fmt: skip
    """Reports of a trial's epochs."""
    cohort, reports = toy_cohort(2), []
    settings = replace(
        SETTINGS, precision=precision, epochs=epochs,
        deterministic=device != "cpu" if deterministic is None else deterministic,
    )  # fmt: skip
    trial = Trial(
        cohort="toy", fingerprint=cohort.fingerprint, loss=loss, seed=seed, fold=0, num_folds=2,
        settings=settings,
    )  # fmt: skip
    run(trial, cohort, checkpoint=checkpoint, device=device, on_epoch=reports.append)
    return reports


def told(reports):
    """What does not depend on the clock."""
    return [
        (report.cases, {k: v for k, v in report.epochs.items() if not k.startswith("seconds")})
        for report in reports
    ]


def losses(reports):
    """The training loss of each epoch but the untrained network's."""
    return [report.epochs["train_loss"] for report in reports[1:]]


def pooling_is_warned_of(with_kernels):
    """PyTorch's max pooling is listed as if its windows overlapped."""
    if with_kernels:
        return nullcontext()
    return pytest.warns(UserWarning, match="max_pool3d")


@on_gpu
@pytest.mark.parametrize("with_kernels", [True, False], ids=["kernels", "modules"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_replays_give_the_bits_of_steps_launched_one_by_one(
    name, precision, with_kernels, monkeypatch
):
    refuse(precision)
    if with_kernels and (why := kernels.why_not(torch.device("cuda"))):
        pytest.skip(f"kernels are not used here: {why}")
    with nullcontext() if with_kernels else kernels.disabled(), pooling_is_warned_of(with_kernels):
        replayed = told(trained("cuda", LOSSES[name], precision))
        monkeypatch.setattr(step, "WARM_UP", sys.maxsize)
        assert replayed == told(trained("cuda", LOSSES[name], precision))


@on_gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_train_as_pytorchs_own_modules_do(precision):
    """Up to how each rounds: bf16 in other places, for instance the logits."""
    refuse(precision)
    ours = losses(trained("cuda", precision=precision, deterministic=False))
    with kernels.disabled():
        theirs = losses(trained("cuda", precision=precision, deterministic=False))
    allowed = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 3e-2}[precision]
    assert ours == pytest.approx(theirs, rel=allowed)


@on_gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounding_moves_a_training_by_less_than_a_tenth_of_what_a_seed_does(precision):
    refuse(precision)
    found = {
        used: torch.tensor(
            [losses(trained("cuda", precision=used, seed=seed, epochs=6))[-1] for seed in SEEDS]
        )
        for used in ("fp32", precision)
    }
    difference = (found[precision] - found["fp32"]).mean().abs()
    assert difference < 0.1 * found["fp32"].std()


IN_ANOTHER_PROCESS = """
import sys
from tests.lesion_core.test_gpu import checkpoint_hash
print(checkpoint_hash(sys.argv[1]))
"""


def checkpoint_hash(precision, device="cuda"):
    """Of weights and moments after a training."""
    state = torch.load(
        io.BytesIO(trained(device, precision=precision)[-1].checkpoint),
        map_location="cpu", weights_only=True,
    )  # fmt: skip
    found = hashlib.sha256()
    values = [*state["network"].values()]
    values += [
        value for moments in state["optimiser"]["state"].values() for value in moments.values()
    ]
    for value in values:
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


@on_gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_deterministic_trainings_are_equal_to_the_bit_in_any_process(precision, pytestconfig):
    refuse(precision)
    here = [checkpoint_hash(precision) for _ in range(2)]
    there = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, precision],
        cwd=pytestconfig.rootpath, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert {*here, there.stdout.strip()} == {here[0]}


@on_gpu
def test_another_trial_in_the_same_process_needs_no_more_memory():
    held = []
    for _ in range(4):
        trained("cuda")
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[1] == held[2] == held[3]


WAITS_WHILE_RECORDED = """
import torch
from lesion_core.losses import LOSSES

def waits(logits, target):
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        target.sum().item()
    return LOSSES["new"](logits, target)

waits.recordable = True
"""


@pytest.fixture
def waits(tmp_path, monkeypatch):
    """A loss from a file, as a trial stores it, that waits for the GPU, but only in a recording."""
    (tmp_path / "waits_while_recorded.py").write_text(WAITS_WHILE_RECORDED)
    monkeypatch.syspath_prepend(tmp_path)
    return loss_named("waits_while_recorded:waits")


def test_the_loss_that_cannot_be_recorded_is_one_that_trains(waits):
    """On a CPU, so that what a GPU is asked below is known to be right in all else."""
    assert step.is_recordable(waits, UNet3d())
    assert losses(trained("cpu", waits)) == losses(trained("cpu"))


@on_gpu
def test_what_cannot_be_recorded_trains_all_the_same_and_so_does_the_next_trial(waits, monkeypatch):
    monkeypatch.setattr(step.Step, "can_record", True)
    with pytest.warns(UserWarning, match="cannot be recorded"):
        found = trained("cuda", waits)
    torch.cuda.empty_cache()
    assert losses(found) == losses(trained("cuda"))


@on_gpu
def test_a_gpu_agrees_with_a_cpu_and_resumes_what_it_began():
    cpu, gpu = trained("cpu"), trained("cuda")
    assert losses(gpu) == pytest.approx(losses(cpu), rel=1e-3)
    for device in ("cpu", "cuda"):
        resumed = trained(device, checkpoint=cpu[1].checkpoint)
        assert [report.epoch for report in resumed] == [2, 3]
        assert losses(cpu)[-1] == pytest.approx(resumed[-1].epochs["train_loss"], rel=1e-2)


@on_gpu
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < 20e9, reason="needs 20 GB"
)
def test_a_batch_of_more_values_than_32_bits_count_is_normalised_to_its_end():
    if why := kernels.why_not(torch.device("cuda")):
        pytest.skip(f"kernels are not used here: {why}")
    one = torch.randn(1, 8, 64, 64, 64, device="cuda", dtype=torch.bfloat16)
    one = one.contiguous(memory_format=torch.channels_last_3d)
    numbers = [torch.zeros(8, device="cuda"), *torch.ones(2, 8, device="cuda")]
    many = one.expand(1025, -1, -1, -1, -1).contiguous(memory_format=torch.channels_last_3d)
    assert many.numel() > 2**31
    with torch.no_grad():
        found = rectified_norm(many, None, *numbers, 1, 1e-5)
        assert found[-1:].equal(rectified_norm(one, None, *numbers, 1, 1e-5))
