"""Augmentations by name: the list of those built in, and how a text names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from lesion_core.augment.kinds import Augmentation, Flip, Standard
from lesion_core.augment.user import ImportedAugmentation
from lesion_core.own_code import did_you_mean
from lesion_core.spelling import read_call, shown

NONE = "none"
AUGMENTATIONS: dict[str, type[Augmentation]] = {kind.name: kind for kind in (Flip, Standard)}
"""The built-in augmentations by name; ``none`` is none of them."""


def augmentation_named(text: str) -> Augmentation | None:
    """The augmentation that a user means by a text; None: "none".

    >>> augmentation_named("standard(rotation_degrees=10)").rotation_degrees
    10.0

    Raises:
        ValueError: unknown name or field, unusable value, or an import that fails; one line.
    """
    name, arguments = read_call(
        text,
        "augmentation",
        "a name, such as flip, or a name with fields, such as standard(rotation_degrees=10)",
    )
    if ":" in name:
        return ImportedAugmentation(path=name, arguments=arguments)
    if name == NONE and not arguments:
        return None
    if name not in AUGMENTATIONS:
        choices = (NONE, *AUGMENTATIONS)
        raise ValueError(
            f"unknown augmentation {name!r}; expected one of {', '.join(choices)}, or module:name "
            f"of your own{did_you_mean(name, choices)}"
        )
    kind = AUGMENTATIONS[name]
    known = [field.name for field in fields(kind)]
    for field in arguments:
        if field not in known:
            raise ValueError(
                f"augmentation {name} has no field {field!r}; expected one of "
                f"{', '.join(known)}{did_you_mean(field, known)}"
            )
    return kind(**arguments)


def augmentation_label(augmentation: Augmentation | None) -> str:
    """The shortest text by which `augmentation_named` understands it; one text for each.

    >>> augmentation_label(Standard(rotation_degrees=10, flip_p=0.5))
    'standard(rotation_degrees=10)'
    """
    if augmentation is None:
        return NONE
    values: Mapping[str, Any]
    if isinstance(augmentation, ImportedAugmentation):
        name, values = augmentation.path, augmentation.arguments
    else:
        usual = asdict(type(augmentation)())
        name = augmentation.name
        values = {k: v for k, v in asdict(augmentation).items() if v != usual[k]}
    numbers = ",".join(f"{key}={shown(value)}" for key, value in values.items())
    return f"{name}({numbers})" if numbers else name
