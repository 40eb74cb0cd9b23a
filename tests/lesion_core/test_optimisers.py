"""Learning rates and updates are those of PyTorch's own schedulers and optimisers."""

import math
from dataclasses import replace

import pytest
import torch

from lesion_core.losses import LOSSES
from lesion_core.patches import Volumes
from lesion_core.settings import TrainSettings
from lesion_core.stopping import TrainingStopped
from lesion_core.training.optimisers import optimiser_of, set_rate
from lesion_core.training.schedules import moves, rate_at
from lesion_core.training.step import Step
from lesion_core.trial import run
from tests.lesion_core.test_trial import SETTINGS, StopAt, comparable, outcome, trial
from tests.support.toy import toy_cohort

STEPS, EPOCHS = 4, 5


def theirs(settings: TrainSettings, optimiser: torch.optim.Optimizer) -> list[float]:
    """The rates that PyTorch's schedulers give, step by step."""
    warmup = settings.warmup_epochs * STEPS
    after = settings.epochs * STEPS - warmup
    schedulers = torch.optim.lr_scheduler
    main = {
        "constant": lambda: schedulers.ConstantLR(optimiser, factor=1.0),
        "poly": lambda: schedulers.PolynomialLR(optimiser, total_iters=after, power=0.9),
        "cosine": lambda: schedulers.CosineAnnealingLR(optimiser, T_max=after),
    }[settings.schedule]()
    if warmup:
        rising = schedulers.LinearLR(optimiser, start_factor=1 / warmup, total_iters=warmup - 1)
        main = schedulers.SequentialLR(optimiser, [rising, main], milestones=[warmup])
    rates = []
    for _ in range(settings.epochs * STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        main.step()
    return rates


@pytest.mark.parametrize("schedule", ["constant", "poly", "cosine"])
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_rates_are_those_of_pytorchs_schedulers(schedule, warmup):
    settings = TrainSettings(
        epochs=EPOCHS, learning_rate=0.3, schedule=schedule, warmup_epochs=warmup
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    expected = theirs(settings, torch.optim.SGD([weight], lr=0.3))
    found = [rate_at(step, STEPS, settings) for step in range(EPOCHS * STEPS)]
    assert found == pytest.approx(expected, rel=1e-7)
    assert all(rate > 0 for rate in found)
    assert moves(settings) == (len({round(rate, 12) for rate in found}) > 1)


def test_rates_by_head():
    cosine = TrainSettings(epochs=2, learning_rate=2.0, schedule="cosine")
    assert [rate_at(step, 2, cosine) for step in range(4)] == pytest.approx(
        [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)]
    )
    poly = TrainSettings(epochs=4, learning_rate=1.0, schedule="poly")
    assert rate_at(2, 1, poly) == pytest.approx(0.5**0.9)


OPTIMISERS = {
    "adam": ({}, lambda p: torch.optim.Adam(p)),
    "adamw": ({"weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, weight_decay=0.1)),
    "sgd": (
        {"weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, momentum=0.99, nesterov=True, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_is_that_of_a_plain_loop(name, clip_norm):
    """With PyTorch's own optimiser, a rate per step, and clipping by hand."""
    changes, make = OPTIMISERS[name]
    settings = TrainSettings(
        epochs=2,
        learning_rate=0.05,
        optimiser=name,
        schedule="poly",
        clip_norm=clip_norm,
        **changes,
    )
    cut = Volumes.of(toy_cohort(2).images, patch_size=8, stride=8)
    patches = cut.training_patches([0, 1], flip=False)[:2]
    ours, plain = (torch.nn.Conv3d(2, 1, 3, padding=1) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    optimiser, reference = optimiser_of(ours, settings), make(plain.parameters())
    step = Step(
        ours, optimiser, LOSSES["xent"], cut, batch_size=2, precision="fp32", clip_norm=clip_norm
    )
    image, target = cut.gather(patches)
    for number in range(5):
        rate = rate_at(number, 5, settings)
        set_rate(optimiser, rate)
        _, norm = step(patches)
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        LOSSES["xent"](plain(image), target.float()).backward()
        length = math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters()))
        assert norm.item() == pytest.approx(length, rel=1e-5)  # before it is clipped
        for parameter in plain.parameters():
            if clip_norm is not None and length > clip_norm:
                parameter.grad *= clip_norm / (length + 1e-6)
        reference.step()
        for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


MOVING = replace(
    SETTINGS, optimiser="sgd", schedule="poly", warmup_epochs=1, weight_decay=1e-4, clip_norm=1.0,
    epochs=2, flip=False, background_windows=0.4, augment="standard", patch_size=8, stride=8,
)  # fmt: skip


def test_a_training_whose_rate_moves_goes_on_to_the_same_bits():
    """From between epochs, and from the middle of one, with augmented patches and windows without
    lesion among its batches; the rate of each epoch is in its row."""
    cohort = toy_cohort()
    asked = StopAt(10**9)
    reports, _ = outcome(trial(settings=MOVING), cohort, stop=asked)
    batches = reports[1].epochs["n_batches"]
    for epoch in (1, 2):
        expected = [rate_at((epoch - 1) * batches + b, batches, MOVING) for b in range(batches)]
        assert reports[epoch].epochs["learning_rate"] == pytest.approx(sum(expected) / batches)
    assert reports[0].epochs["learning_rate"] is None
    resumed, _ = outcome(trial(settings=MOVING), cohort, checkpoint=reports[1].checkpoint)
    # Texts, since a distance to nothing is NaN, and no NaN equals another.
    assert repr([comparable(r) for r in resumed]) == repr([comparable(reports[2])])
    half = (10**9 - asked.left) // 2
    with pytest.raises(TrainingStopped) as stopped:
        run(trial(settings=MOVING), cohort, on_epoch=lambda report: None, stop=StopAt(half))
    rest, _ = outcome(trial(settings=MOVING), cohort, checkpoint=stopped.value.checkpoint)
    expected = [comparable(report) for report in reports[-len(rest) :]]
    assert repr([comparable(report) for report in rest]) == repr(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": 0.1}, "use --optimiser adamw"),
        ({"optimiser": "adamw"}, "adamw without weight_decay is adam"),
        ({"momentum": 0.9}, "it is of --optimiser sgd"),
        ({"optimiser": "sgd", "momentum": 1.0}, "less than 1"),
        ({"optimiser": "lion"}, "expected one of adam, adamw, sgd"),
        ({"schedule": "step"}, "expected one of constant, poly, cosine"),
        ({"warmup_epochs": 25}, "less than the 25 epochs"),
        ({"clip_norm": 0.0}, "expected more than 0"),
        ({"clip_norm": math.nan}, "expected more than 0"),
        ({"optimiser": "sgd", "weight_decay": -1.0}, "expected 0 or more"),
    ],
)
def test_what_cannot_be_or_would_have_no_effect_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**changes)


def test_a_default_that_is_said_is_the_same_training():
    assert TrainSettings(optimiser="sgd") == TrainSettings(optimiser="sgd", momentum=0.99)
    stored = TrainSettings(optimiser="sgd").to_dict()
    assert stored["momentum"] == 0.99 and TrainSettings.from_dict(stored).momentum == 0.99
