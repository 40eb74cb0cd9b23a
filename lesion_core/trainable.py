"""Can trials be trained on a cohort?  What settings and images say of it, before any begins."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lesion_core.training.background import drawable, none_to_draw
from lesion_core.trial import Trial, refuse_without_lesion
from lesion_core.windows import WindowGrid

if TYPE_CHECKING:
    from lesion_core.images import Image, LoadedCohort


def refuse_untrainable(trials: Iterable[Trial], cohort: LoadedCohort) -> None:
    """Refuse trials of this cohort that would fail by what they train on, or score nothing.

    Raises:
        ValueError: no training case of one has a lesion; it asks for windows without lesion and
            there is none; or its ``min_lesion_mm3`` is more than every lesion.
    """
    by_name = {image.case: image for image in cohort.images}

    @cache
    def has_drawable(case: str, patch_size: int, stride: int) -> bool:
        image = by_name[case]
        return bool(drawable(image, WindowGrid.of(image.box_shape, patch_size, stride)).any())

    @cache
    def training_images(cases: tuple[str, ...]) -> list[Image]:
        return [by_name[case] for case in cases]

    seen = set()
    for trial in trials:
        training, _ = trial.training_and_judged_cases(list(by_name))
        settings = trial.settings
        form = settings.patch_size, settings.window_stride
        key = (*training,), *form, settings.background_windows, settings.min_lesion_mm3
        if key in seen:
            continue
        seen.add(key)
        refuse_without_lesion(trial, training_images(tuple(training)))
        share = settings.background_windows
        if share and not any(has_drawable(case, *form) for case in training):
            where = f"fold {trial.fold} of cohort {trial.cohort}"
            raise ValueError(f"{where}: {none_to_draw(share, len(training))}")
        if settings.min_lesion_mm3 > (largest := _largest_mm3(cohort)):
            raise ValueError(
                f"min_lesion_mm3 is {settings.min_lesion_mm3:g}, and the largest lesion of cohort "
                f"{cohort.name} has {largest:g} mm3: every lesion would be taken out"
            )


def _largest_mm3(cohort: LoadedCohort) -> float:
    """Volume of the largest lesion of a cohort."""
    found = [0.0]
    for image in cohort.images:
        outside = image.lesion_outside_box[:, 3]
        sizes = np.bincount(np.concatenate([image.labels.ravel(), outside]))[1:]
        found.append(float(sizes.max(initial=0)) * float(np.prod(image.spacing_mm)))
    return max(found)
