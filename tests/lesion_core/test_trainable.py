"""Trials that would fail by what they train on are refused, all of them, before any begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lesion_core.images import Image, LoadedCohort
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trainable import refuse_untrainable
from lesion_core.trial import Trial
from tests.support.toy import toy_cohort, toy_image


def trials(cohort: LoadedCohort, **settings: object) -> list[Trial]:
    made = TrainSettings(**({"patch_size": 8, "filters": (8, 16)} | settings))  # type: ignore[arg-type]
    return [
        Trial(
            cohort=cohort.name, fingerprint=cohort.fingerprint, loss=LOSSES["xent"], seed=1,
            fold=fold, num_folds=2, settings=made,
        )
        for fold in (0, 1)
    ]  # fmt: skip


def cohort_of(*images: Image) -> LoadedCohort:
    return replace(toy_cohort(1), images=list(images))


def with_labels(case: int, labels: np.ndarray) -> Image:
    return replace(toy_image(str(case), case), labels=labels.astype(np.uint16))


FULL, EMPTY, CORNER = (np.zeros((24, 20, 22)) for _ in range(3))
FULL[:] = 1
CORNER[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("masks", "settings", "says"),
    [
        ([CORNER] * 4, {"background_windows": 0.5}, ""),
        ([FULL] * 4, {"background_windows": 0.0}, ""),
        # Fold 0 trains on the second and fourth case, fold 1 on the others.
        ([CORNER, FULL, CORNER, FULL], {"background_windows": 0.5}, "fold 0 of cohort toy: backgr"),
        ([FULL, CORNER, FULL, CORNER], {"background_windows": 0.5}, "in the 2 training cases"),
        ([FULL, CORNER, FULL, FULL], {"background_windows": 0.5}, "fold 1 of cohort toy"),
        ([CORNER, EMPTY, CORNER, EMPTY], {}, "fold 0 of cohort toy: none of its 2 training cases"),
        ([CORNER] * 4, {"min_lesion_mm3": 3.0}, ""),
        ([CORNER] * 4, {"min_lesion_mm3": 3.5}, "the largest lesion of cohort toy has 3 mm3"),
    ],
)
def test_what_images_and_settings_say_of_a_trial_is_said_before_it_begins(
    masks: Sequence[np.ndarray], settings: dict[str, object], says: str
) -> None:
    cohort = cohort_of(*(with_labels(case, mask) for case, mask in enumerate(masks)))
    asked = trials(cohort, **settings)
    if not says:
        refuse_untrainable(asked, cohort)
        return
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        refuse_untrainable(asked, cohort)
    assert says in str(error.value)


def test_whom_a_trial_trains_on_is_what_counts() -> None:
    """Of a search without its validation part, of a half without the other one."""
    cohort = cohort_of(*(with_labels(n, FULL if n == 3 else CORNER) for n in range(4)))
    first, _ = trials(cohort, background_windows=0.5)
    refuse_untrainable([first], cohort)
    for own in ({"validation_cases": ("1",)}, {"training_cases": ("3",)}):
        with pytest.raises(ValueError, match="in the 1 training cases"):
            refuse_untrainable([replace(first, **own)], cohort)


def test_a_lesion_is_as_large_as_it_is_outside_the_brain_box_too() -> None:
    outside = np.array([[0, 0, place, 1] for place in range(5)], np.int32)
    images = [with_labels(case, CORNER) for case in range(4)]
    cohort = cohort_of(*images[:3], replace(images[3], lesion_outside_box=outside))
    refuse_untrainable(trials(cohort, min_lesion_mm3=18.0), cohort)
    with pytest.raises(ValueError, match="has 18 mm3"):
        refuse_untrainable(trials(cohort, min_lesion_mm3=18.1), cohort)
