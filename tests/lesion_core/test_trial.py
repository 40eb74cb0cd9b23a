"""A trial is its configuration: same configuration, same bits, however often interrupted."""

import json
from dataclasses import replace

import pytest
import torch

from lesion_core import results
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.stopping import TrainingStopped
from lesion_core.training.epoch import Diverged
from lesion_core.training.randomness import generator
from lesion_core.trial import Trial, run
from tests.support.toy import toy_cohort

SETTINGS = TrainSettings(epochs=3, patch_size=16, batch_size=4, filters=(8, 16), learning_rate=3e-3)


def trial(**changes) -> Trial:
    fields = {
        "cohort": "toy",
        "fingerprint": "f" * 64,
        "loss": LOSSES["xent"],
        "seed": 42,
        "fold": 0,
        "num_folds": 2,
        "settings": SETTINGS,
    }
    return Trial(**(fields | changes))


def outcome(a_trial, cohort=None, **arguments):
    reports = []
    summary = run(a_trial, cohort or toy_cohort(), on_epoch=reports.append, **arguments)
    return reports, summary


def comparable(report):
    """Everything of a report that must be equal to the bit: all but clocks."""
    epochs = {key: value for key, value in report.epochs.items() if "seconds" not in key}
    return report.epoch, report.cases, epochs, report.checkpoint, report.final


@pytest.fixture(scope="module")
def uninterrupted():
    return outcome(trial())


def test_every_epoch_is_reported_and_fits_the_schema(uninterrupted, tmp_path):
    reports, summary = uninterrupted
    assert [report.epoch for report in reports] == [0, 1, 2, 3]
    assert [report.final is not None for report in reports] == [False, False, False, True]
    results.write_table(tmp_path / "c", [r for rep in reports for r in rep.cases], results.CASES)
    results.write_table(tmp_path / "e", [rep.epochs for rep in reports], results.EPOCHS)
    final = reports[-1].final
    results.write_table(tmp_path / "l", final.lesions, results.LESIONS)
    results.write_table(tmp_path / "h", final.histograms, results.HISTOGRAMS)
    results.write_table(tmp_path / "s", final.slices, results.SLICES)
    assert summary["epochs_done"] == 3
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize("stopped_after", [0, 1, 2, 3])
def test_resumed_equals_uninterrupted_bit_for_bit(uninterrupted, stopped_after):
    reports, _ = uninterrupted
    torch.rand(5)  # global random state must not matter
    resumed, _ = outcome(trial(), checkpoint=reports[stopped_after].checkpoint)
    first = min(stopped_after + 1, 3)
    for ours, theirs in zip(resumed, reports[first:], strict=True):
        if stopped_after == 3:  # the last epoch again: scored, not trained
            assert (ours.cases, ours.final) == (theirs.cases, theirs.final)
        else:
            assert comparable(ours) == comparable(theirs)


LEAN = replace(SETTINGS, evaluate_on="held_out", evaluate_at="last")


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (replace(SETTINGS, evaluate_at="last"), lambda row: row["epoch"] == 3),
        (replace(SETTINGS, evaluate_on="held_out"), lambda row: row["split"] == "test"),
        (LEAN, lambda row: row["epoch"] == 3 and row["split"] == "test"),
    ],
)
def test_what_is_not_evaluated_changes_nothing_else(uninterrupted, settings, kept):
    """Weights, losses and the rows that are there are those of a trial that is evaluated whole."""
    whole, lean = uninterrupted[0], outcome(trial(settings=settings))[0]
    named = {"trial": trial(settings=settings).name}
    rows = [row | named for report in whole for row in report.cases if kept(row)]
    found = [row for report in lean for row in report.cases]
    assert len(found) == len(rows)
    for row, expected in zip(found, rows, strict=True):
        for column, value in expected.items():  # in batches of other windows
            near = pytest.approx(value, rel=1e-5, nan_ok=True) if type(value) is float else value
            assert row[column] == near, column
    for ours, theirs in zip(lean, whole, strict=True):
        assert ours.epochs["train_loss"] == theirs.epochs["train_loss"]
        assert ours.checkpoint == theirs.checkpoint
    assert lean[-1].final.model == whole[-1].final.model


def test_a_trial_that_is_evaluated_at_the_end_is_resumed_to_the_same_bits():
    reports, _ = outcome(trial(settings=LEAN))
    for stopped_after in (0, 2):
        resumed, _ = outcome(trial(settings=LEAN), checkpoint=reports[stopped_after].checkpoint)
        for ours, theirs in zip(resumed, reports[stopped_after + 1 :], strict=True):
            assert comparable(ours) == comparable(theirs)


class StopAt:
    """Says stop when it is asked for the ``number``-th time, and from then on."""

    def __init__(self, number):
        self.left = number

    def __call__(self):
        self.left -= 1
        return self.left < 0


def test_stopped_within_an_epoch_it_goes_on_to_the_same_bits(uninterrupted):
    """In the middle of training and of evaluations, of which the first begins before any epoch."""
    reports, _ = uninterrupted
    unasked = StopAt(10**9)
    run(trial(), toy_cohort(), on_epoch=lambda report: None, stop=unasked)
    asked = 10**9 - unasked.left
    within = set()
    for number in (*range(1, asked, 17), asked - 1):
        before = []
        with pytest.raises(TrainingStopped) as stopped:
            run(trial(), toy_cohort(), on_epoch=before.append, stop=StopAt(number))
        assert [comparable(r) for r in before] == [comparable(r) for r in reports[: len(before)]]
        checkpoint = stopped.value.checkpoint
        if checkpoint is None:
            assert not before  # nothing was trained
            continue
        assert stopped.value.epoch == len(before) - 1
        within.add((stopped.value.epoch, stopped.value.batches))
        rest, _ = outcome(trial(), checkpoint=checkpoint)
        assert [comparable(r) for r in rest] == [comparable(r) for r in reports[len(before) :]]
    batches = reports[1].epochs["n_batches"]
    assert any(0 < done < batches for _, done in within)
    assert any(done == batches for _, done in within)


def test_stopped_again_and_again_it_loses_no_batch(uninterrupted):
    reports, _ = uninterrupted
    checkpoint, seen = reports[0].checkpoint, []
    for _ in range(100):
        try:
            run(trial(), toy_cohort(), checkpoint=checkpoint, on_epoch=seen.append, stop=StopAt(25))
            break
        except TrainingStopped as stopped:
            checkpoint = stopped.checkpoint
    assert [comparable(r) for r in seen] == [comparable(r) for r in reports[1:]]


def test_it_learns(uninterrupted):
    reports, _ = uninterrupted
    losses = [report.epochs["train_loss"] for report in reports[1:]]
    assert losses == sorted(losses, reverse=True)


def test_all_losses_start_from_the_same_network_and_see_the_same_batches():
    seen = {}
    for name in ("xent", "dsc"):
        batches = []

        def spy(logits, target, name=name, batches=batches):
            if torch.is_grad_enabled():
                batches.append(target.clone())
            return LOSSES[name](logits, target)

        reports = []
        one_epoch = trial(settings=replace(SETTINGS, epochs=1))
        run(_WithLoss(one_epoch, spy), toy_cohort(), on_epoch=reports.append)
        untrained = [
            {k: v for k, v in row.items() if k not in ("loss", "trial", "loss_value")}
            for row in reports[0].cases
        ]
        seen[name] = (untrained, batches)
    assert seen["xent"][0] == seen["dsc"][0]
    assert len(seen["xent"][1]) == len(seen["dsc"][1]) > 0
    assert all(a.equal(b) for a, b in zip(seen["xent"][1], seen["dsc"][1], strict=True))


class _WithLoss:
    """A trial that computes another loss than it is named for."""

    def __init__(self, a_trial, loss):
        self._trial, self.loss = a_trial, loss

    def __getattr__(self, name):
        return getattr(self._trial, name)


def test_seed_and_fold_decide_the_random_numbers():
    def numbers(*key):
        return torch.rand(4, generator=generator(*key)).tolist()

    assert numbers(42, 0, 1, "order") == numbers(42, 0, 1, "order")
    others = [(43, 0, 1, "order"), (42, 1, 1, "order"), (42, 0, 2, "order"), (42, 0, 1, "weights")]
    assert all(numbers(*key) != numbers(42, 0, 1, "order") for key in others)


def test_a_loss_that_is_not_finite_names_epoch_and_batch():
    calls = []

    def breaks(logits, target):
        calls.append(torch.is_grad_enabled())
        value = LOSSES["xent"](logits, target)
        return value * float("nan") if sum(calls) == 3 else value

    with pytest.raises(Diverged, match="loss became nan in epoch 1, batch 3"):
        run(_WithLoss(trial(), breaks), toy_cohort(), on_epoch=lambda report: None)


def test_identity_is_the_whole_configuration():
    base = trial()
    assert Trial.from_dict(json.loads(json.dumps(base.to_dict()))) == base
    changed = [
        trial(seed=1),
        trial(fold=1),
        trial(loss=LOSSES["dsc"]),
        trial(fingerprint="0" * 64),
        trial(num_folds=3),
        trial(settings=replace(SETTINGS, learning_rate=1e-4)),
        trial(settings=replace(SETTINGS, precision="bf16")),
    ]
    assert len({t.hash for t in [base, *changed]}) == len(changed) + 1
    assert base.name == f"toy-xent-s42-f0-{base.hash}"


def test_other_data_than_the_trials_is_refused():
    with pytest.raises(ValueError, match="the files have changed"):
        outcome(trial(fingerprint="0" * 64))


def test_training_without_any_lesion_is_refused():
    cohort = toy_cohort(2)
    healthy = replace(cohort.images[1], labels=cohort.images[1].labels * 0, num_lesions=0)
    with pytest.raises(ValueError, match="none of its 1 training cases has a lesion"):
        outcome(trial(), replace(cohort, images=[cohort.images[0], healthy]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs is 0"),
        ("patch_size", 30, "multiple of 8"),
        ("stride", 40, "exceeds patch_size"),
        ("learning_rate", 0.0, "more than 0"),
        ("precision", "fp8", "one of fp32, tf32, bf16"),
    ],
)
def test_senseless_settings_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**{field: value})


def test_bf16_trains():
    reports, summary = outcome(trial(settings=replace(SETTINGS, precision="bf16", epochs=1)))
    assert summary["precision"] == "bf16"
    assert reports[-1].epochs["train_loss"] > 0


def test_a_gradient_that_is_not_finite_is_blamed_on_its_own_batch():
    calls = []

    def breaks(logits, target):
        value = LOSSES["xent"](logits, target)
        if torch.is_grad_enabled():
            calls.append(True)
            if len(calls) == 2:  # finite value, NaN gradient
                return value + torch.sqrt(0 * logits).sum()
        return value

    with pytest.raises(Diverged, match="gradient norm became nan in epoch 1, batch 2"):
        run(_WithLoss(trial(), breaks), toy_cohort(), on_epoch=lambda report: None)


def validated(**changes):
    """Trains on case 1, is judged on case 3, and tests 0 and 2: never, that is."""
    one_epoch = replace(SETTINGS, epochs=1)
    return trial(**({"validation_cases": ("3",), "settings": one_epoch} | changes))


def test_a_validation_part_is_judged_on_and_the_test_cases_are_left_alone():
    cohort = toy_cohort()
    sound, _ = outcome(validated(), cohort)
    last = sound[-1]
    assert {(row["split"], row["scope"], row["case"]) for row in last.cases} == {
        ("train", "image", "1"), ("train", "patch", "1"), ("validation", "image", "3"),
    }  # fmt: skip
    final = last.final
    assert {row["case"] for rows in (final.histograms, final.slices) for row in rows} == {"3"}
    # Nothing of the test images is ever looked at: rubbish in their place changes no bit.
    images = [
        replace(image, voxels=image.voxels * float("nan")) if image.case in "02" else image
        for image in cohort.images
    ]
    blind, _ = outcome(validated(), replace(cohort, images=images))
    assert [repr(comparable(r)) for r in blind] == [repr(comparable(r)) for r in sound]  # NaN too


def test_a_validation_part_is_part_of_the_identity_and_none_leaves_it_as_it_was():
    one = validated()
    assert Trial.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert one.hash != trial(settings=one.settings).hash
    assert one.row()["split"] == one.split == "validation"
    assert "validation_cases" not in trial().to_dict() and "split" not in trial().row()


@pytest.mark.parametrize("cases", [("0",), ("1", "3"), ("9",), ()])
def test_a_validation_part_outside_the_training_part_or_all_of_it_is_refused(cases):
    with pytest.raises(ValueError, match="some, but not all, of its training part: 1 3"):
        outcome(validated(validation_cases=cases))
