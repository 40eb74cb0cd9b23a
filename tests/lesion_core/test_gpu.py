"""On a real GPU: replays equal single steps, trials leave no memory, a CPU is agreed with."""

import sys
from dataclasses import replace

import pytest
import torch

from lesion_core.losses import LOSSES
from lesion_core.settings import PRECISIONS, TrainSettings
from lesion_core.training import step
from lesion_core.training.precision import check_precision
from lesion_core.trial import Trial, run
from tests.support.toy import toy_cohort

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")

SETTINGS = TrainSettings(epochs=3, patch_size=16, batch_size=4, filters=(8, 16))


@pytest.fixture(autouse=True)
def deterministic():
    """Max pooling's backward is not listed as such, but windows are apart."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def trained(device, loss=LOSSES["new"], precision="fp32", checkpoint=None):
    """Reports of a trial's epochs."""
    cohort, reports = toy_cohort(2), []
    trial = Trial(
        cohort="toy", fingerprint=cohort.fingerprint, loss=loss, seed=0, fold=0, num_folds=2,
        settings=replace(SETTINGS, precision=precision),
    )  # fmt: skip
    run(trial, cohort, checkpoint=checkpoint, device=device, on_epoch=reports.append)
    return reports


def told(reports):
    """What does not depend on the clock."""
    return [
        (report.cases, {k: v for k, v in report.epochs.items() if not k.startswith("seconds")})
        for report in reports
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_replays_give_the_bits_of_steps_launched_one_by_one(name, precision, monkeypatch):
    try:
        check_precision(precision, "cuda")
    except ValueError as error:
        pytest.skip(str(error))
    replayed = told(trained("cuda", LOSSES[name], precision))
    monkeypatch.setattr(step, "WARM_UP", sys.maxsize)
    assert replayed == told(trained("cuda", LOSSES[name], precision))


def test_another_trial_in_the_same_process_needs_no_more_memory():
    held = []
    for _ in range(4):
        trained("cuda")
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[1] == held[2] == held[3]


def test_what_cannot_be_recorded_trains_all_the_same_and_so_does_the_next_trial(monkeypatch):
    monkeypatch.setattr(step.Step, "can_record", True)

    def waits(logits, target):
        if torch.cuda.is_current_stream_capturing():
            target.sum().item()
        return LOSSES["new"](logits, target)

    with pytest.warns(UserWarning, match="cannot be recorded"):
        found = trained("cuda", waits)
    torch.cuda.empty_cache()
    expected = told(trained("cuda"))
    assert [report.epochs["train_loss"] for report in found] == [
        epoch["train_loss"] for _, epoch in expected
    ]


def test_a_gpu_agrees_with_a_cpu_and_resumes_what_it_began():
    cpu, gpu = trained("cpu"), trained("cuda")
    for one, other in zip(cpu[1:], gpu[1:], strict=True):
        assert one.epochs["train_loss"] == pytest.approx(other.epochs["train_loss"], rel=1e-3)
    for device in ("cpu", "cuda"):
        resumed = trained(device, checkpoint=cpu[1].checkpoint)
        assert [report.epoch for report in resumed] == [2, 3]
        assert resumed[-1].epochs["train_loss"] == pytest.approx(
            cpu[-1].epochs["train_loss"], rel=1e-2
        )
