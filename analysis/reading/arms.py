"""What are the arms of a sweep, under the names that a report gives them?"""

from __future__ import annotations

from analysis.reading.names import shown
from lesion_core.arms import Arms, arms_of
from lesion_core.results import Sweep


def shown_arms(sweep: Sweep) -> Arms:
    """The arms by their labels as shown; each loss is one where settings are not known."""
    if not sweep.meta.get("trials"):
        losses = {label: label for label in sweep.losses}
        return Arms({}, losses, {label: {} for label in losses}, ())
    found = arms_of(sweep.meta)
    return Arms(
        {trial: shown(label) for trial, label in found.label_of.items()},
        {shown(label): shown(loss) for label, loss in found.losses.items()},
        {shown(label): settings for label, settings in found.settings.items()},
        found.varied,
    )


def short_names(sweep: Sweep) -> dict[str, str]:
    """`Arms.short_names` by label, both as shown."""
    if not sweep.meta.get("trials"):
        return {}
    return {shown(label): shown(name) for label, name in arms_of(sweep.meta).short_names.items()}
