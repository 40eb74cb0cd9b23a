"""What defines a training stays what it was, whatever a later release adds."""

import json
from dataclasses import dataclass, fields

import pytest

from lesion_core.descriptions import evaluated_epochs
from lesion_core.losses import LOSSES
from lesion_core.settings import ALWAYS_STORED, PAPER_LOSSES, PRECISIONS, TrainSettings
from lesion_core.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Later(TrainSettings):
    """As a release with two more settings would have it."""

    smoothing: float = 0.0
    milestones: tuple[int, ...] = ()


def hash_of(settings: TrainSettings) -> str:
    return Trial(
        cohort="wmh2017", fingerprint="0123456789abcdef" * 4, loss=LOSSES["xent"], seed=42, fold=0,
        num_folds=5, settings=settings,
    ).hash  # fmt: skip


def test_hash_of_the_papers_trial():
    """If this fails, every finished sweep would be trained again: see `TrainSettings`."""
    assert hash_of(TrainSettings()) == "19a7409e"


def test_a_later_field_renames_no_trial():
    for values in ({}, {"epochs": 3, "precision": "bf16", "filters": (8, 16)}):
        assert hash_of(Later(**values)) == hash_of(TrainSettings(**values))
    assert Later().to_dict() == TrainSettings().to_dict()


def test_a_later_field_that_is_set_counts():
    decayed = Later(smoothing=0.1, milestones=(3, 5))
    assert hash_of(decayed) != hash_of(TrainSettings())
    assert decayed.to_dict() == TrainSettings().to_dict() | {
        "smoothing": 0.1, "milestones": (3, 5)
    }  # fmt: skip


def test_settings_come_back_from_what_either_release_stored():
    for settings in (Later(), Later(smoothing=0.1, epochs=2)):
        assert Later.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert Later.from_dict(TrainSettings(epochs=7).to_dict()) == Later(epochs=7)
    with pytest.raises(ValueError, match=r"unknown \['smoothing'\], missing \[\]"):
        TrainSettings.from_dict(Later(smoothing=0.1).to_dict())


def test_every_field_of_the_first_release_is_stored_and_must_be_there():
    assert TrainSettings().to_dict().keys() == ALWAYS_STORED
    assert {field.name for field in fields(TrainSettings)} >= ALWAYS_STORED
    stored = TrainSettings().to_dict()
    del stored["flip"]
    with pytest.raises(ValueError, match=r"unknown \[\], missing \['flip'\]"):
        TrainSettings.from_dict(stored)


def test_a_trial_that_is_evaluated_otherwise_is_another_one_and_unknown_ways_are_refused():
    assert "evaluate_on" not in TrainSettings().to_dict()
    lean = TrainSettings(evaluate_on="held_out", evaluate_at="last")
    assert hash_of(lean) != hash_of(TrainSettings())
    for settings in (TrainSettings(), lean):
        every = [epoch for epoch in range(26) if settings.evaluates(epoch)]
        assert every == evaluated_epochs({"settings": settings.to_dict()}, 25)
    assert every == [25]
    with pytest.raises(ValueError, match=r"evaluate_on is 'test'; expected one of all, held_out"):
        TrainSettings(evaluate_on="test")  # type: ignore[arg-type]


def test_the_papers_losses_are_among_the_built_in_ones():
    assert set(PAPER_LOSSES) <= LOSSES.keys()
    assert PRECISIONS == ("fp32", "tf32", "bf16")
