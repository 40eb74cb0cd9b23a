"""What a search varies: fields of a loss, and settings of a training; read from --space."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from lesion_core.arms import worded
from lesion_core.networks.names import network_name
from lesion_core.search_space import (
    Choices,
    Condition,
    Domain,
    Range,
    Space,
    Value,
    can_be_tried,
    corners,
    is_searched,
    ordered,
    written,
)
from lesion_core.settings import EVALUATION, READ_BY, TrainSettings
from lesion_core.spelling import in_list
from sweeps.arms import parsed
from sweeps.options import Training

if TYPE_CHECKING:
    from lesion_core.losses import Loss

EXPECTED = (
    "expected FIELD=LOWEST:HIGHEST, such as alpha=0.1:0.9 or learning_rate=1e-5:1e-2:log, or "
    "FIELD=CHOICE,CHOICE"
)


@dataclass(frozen=True)
class Searched:
    """The fields of a search, and what they have outside it."""

    loss: Loss
    """With its own values of fields that vary."""
    training: Training
    """The flags of a training, as they were given."""
    space: Space
    """An ordered one (`search_space.ordered`)."""

    def loss_of(self, values: Mapping[str, Value]) -> Loss:
        """The loss with these values of the fields that are its own.

        Raises:
            ValueError: it refuses one.
        """
        from lesion_core.losses import with_values

        own = {name: value for name, value in values.items() if name not in SETTINGS}
        return with_values(self.loss, own)

    def settings_of(self, values: Mapping[str, Value]) -> TrainSettings:
        """The settings with these values of the fields that are settings.

        Raises:
            ValueError: they refuse one, or do not fit each other.
        """
        own: dict[str, Any] = {
            by: getattr(self.training, by) for by in READ_BY.values() if by in self.space
        }
        for name, value in values.items():
            if name in SETTINGS:
                kind = _kind(name)
                is_tuple = isinstance(value, str) and typing.get_origin(kind) is tuple
                own[name] = parsed(str(value), kind, name) if is_tuple else value
        return self.training.settings(**own)

    def all_settings(self) -> list[TrainSettings]:
        """Settings at the ends of the space: every choice is in one of them."""
        return list(dict.fromkeys(self.settings_of(point) for point in corners(self.space)))

    @property
    def varies_settings(self) -> bool:
        """Whether trainings differ by more than their loss."""
        return any(name in SETTINGS for name in self.space)

    def unsearched(self) -> dict[str, Value] | None:
        """The values that a training has without a search, where a search can try them: what is
        found is compared with what everybody has."""
        from lesion_core.losses import Imported

        own = self.loss.function if isinstance(self.loss, Imported) else self.loss
        settings = self.settings_of({})
        point: dict[str, Value] = {}
        for name, domain in self.space.items():
            if not is_searched(domain, point):
                continue
            value = getattr(settings if name in SETTINGS else own, name, None)
            if isinstance(value, tuple):
                value = worded(value)
            if isinstance(domain, Range) and isinstance(value, int) and not domain.whole:
                value = float(value)
            if not can_be_tried(value, domain):
                return None
            point[name] = value
        return point

    def family(self) -> str:
        """Name of the loss without the numbers that vary."""
        from lesion_core.losses import Imported, loss_label, loss_to_dict

        if not any(name not in SETTINGS for name in self.space):
            return loss_label(self.loss)
        name = self.loss.path if isinstance(self.loss, Imported) else self.loss.name
        stored = loss_to_dict(self.loss)["fields"]
        kept = {key: value for key, value in stored.items() if key not in self.space}
        shown = ",".join(f"{key}={value}" for key, value in kept.items())
        return f"{name}({shown})" if shown else name

    def named_points(self) -> tuple[dict[str, Value], ...]:
        """The values that have a name as a loss (of focal the paper's two), where only searched
        fields differ.  What is found should at least match them, and they are a fair start."""
        from lesion_core.losses import LOSSES

        found = []
        for known in LOSSES.values():
            if type(known) is not type(self.loss):
                continue
            point = Searched(known, self.training, self.space).unsearched()
            if point is not None and self.loss_of(point) == known:
                found.append(point)
        return tuple(found)


UNSEARCHED = {*EVALUATION, "threshold", "min_lesion_mm3", "deterministic"}
"""Settings that change no score that a search goes by, or should not."""
SETTINGS = tuple(item.name for item in fields(TrainSettings) if item.name not in UNSEARCHED)
"""Names of the settings of a training that can be searched."""


def searched(loss: Loss, training: Training, flags: Sequence[str]) -> Searched:
    """What --space says, or else what the loss declares.

    Raises:
        ValueError: nothing to search over, a flag that cannot be read, or an end or a choice that
            the loss or the settings refuse.
    """
    from lesion_core.losses import loss_label, search_space

    space: dict[str, Domain] = dict(search_space(loss))
    if flags:
        space = {}
        for flag in flags:
            name, domain = _read(flag, loss)
            if name in space:
                raise ValueError(f"--space {flag}: {name} is there twice; expected each field once")
            space[name] = domain
    if not space:
        raise ValueError(
            f"loss {loss_label(loss)} declares nothing to search over; name its fields, such as "
            "--space alpha=0.1:0.9, or settings, such as --space learning_rate=1e-5:1e-2:log"
        )
    try:
        found = Searched(loss, training, ordered(space))
    except ValueError as error:
        raise ValueError(f"--space: {error}") from None
    for point in corners(found.space):
        try:
            found.loss_of(point)
            found.settings_of(point)
        except ValueError as error:
            tried = " ".join(f"{name}={written(value)}" for name, value in point.items())
            raise ValueError(f"--space, tried at {tried}: {error}") from None
    return found


# ---------------------------------------------------------------------------------- reading a flag
def _read(flag: str, loss: Loss) -> tuple[str, Domain]:
    """A field and its domain: ``FIELD=LOWEST:HIGHEST[:log][:whole]`` or ``FIELD=CHOICE,...``, each
    with ``@FIELD=CHOICE,...`` behind it where it is searched in a part of the space only."""
    text, at, condition = flag.partition("@")
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise ValueError(f"--space {flag}: {EXPECTED}")
    _check_known(name, loss, flag)
    only = None
    if at:
        parent, equals, wanted = condition.partition("=")
        if not (parent and equals and wanted):
            raise ValueError(
                f"--space {flag}: expected a field and its values behind @, such as "
                "momentum=0.8:0.99@optimiser=sgd"
            )
        only = Condition(parent, tuple(_value(each, parent, flag) for each in in_list(wanted)))
    if ":" not in values or _kind(name) is str:
        choices = tuple(_value(each, name, flag) for each in in_list(values))
        if len(choices) < 2 or len(set(map(written, choices))) < len(choices):
            raise ValueError(f"--space {flag}: {EXPECTED}, at least two and each once")
        return name, Choices(choices, only)
    return name, _range(name, values, flag, only)


def _range(name: str, values: str, flag: str, only: Condition | None) -> Range:
    low, high, *marks = values.split(":")
    unknown = set(marks) - {"log", "whole"}
    kind = _kind(name)
    if unknown or len(set(marks)) < len(marks):
        raise ValueError(
            f"--space {flag}: expected log, whole or nothing behind the two ends, each once"
        )
    if kind is not None and not {int, float} & set(_members(kind)):
        raise ValueError(f"--space {flag}: {name} is no number; expected {name}=CHOICE,CHOICE")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ValueError(f"--space {flag}: {EXPECTED}") from None
    if not (ends[0] < ends[1] and all(map(math.isfinite, ends))):
        raise ValueError(f"--space {flag}: expected a field and two numbers that rise")
    whole = "whole" in marks or (kind is not None and float not in _members(kind))
    if whole and not all(end == int(end) for end in ends):
        raise ValueError(f"--space {flag}: expected whole numbers, since {name} is one")
    if "log" in marks and not ends[0] > 0:
        raise ValueError(f"--space {flag}: a logarithmic range begins above 0; it begins at {low}")
    if whole:
        ends = int(ends[0]), int(ends[1])
    return Range(*ends, log="log" in marks, whole=whole, only=only)


def _check_known(name: str, loss: Loss, flag: str) -> None:
    """Refuse a field of neither a loss nor the settings, or of both."""
    from lesion_core.losses import Imported
    from lesion_core.own_code import did_you_mean

    if isinstance(loss, Imported):
        kind: Any = type(loss.function)
        own = [item.name for item in fields(kind)] if is_dataclass(kind) else []
    else:
        own = [item.name for item in fields(loss)]
    if name in own and name in SETTINGS:
        raise ValueError(
            f"--space {flag}: {name} is a field of the loss and a setting of the training; rename "
            "the field of your loss"
        )
    if name in UNSEARCHED and name not in own:
        raise ValueError(
            f"--space {flag}: {name} changes no score that a search goes by; give "
            f"--{name.replace('_', '-')}, once for all"
        )
    if name not in own and name not in SETTINGS:
        choices = [*own, *SETTINGS]
        raise ValueError(
            f"--space {flag}: there is no {name!r}; expected a field of the loss "
            f"({', '.join(own) or 'none'}) or of the training ({', '.join(SETTINGS)})"
            f"{did_you_mean(name, choices)}"
        )


def _kind(name: str) -> Any:
    """The declared type of a setting; None of a loss's field, whose loss checks it."""
    return typing.get_type_hints(TrainSettings).get(name) if name in SETTINGS else None


def _members(kind: Any) -> tuple[Any, ...]:
    """The types that a value may have."""
    return typing.get_args(kind) or (kind,)


def _value(text: str, name: str, flag: str) -> Value:
    """A choice, as the type of its field has it; a number where a loss's field can be one.

    A tuple stays text, as flags write it: a choice is a single value.  What is called in several
    ways has the one spelling that settings have.
    """
    from lesion_core.augment import augmentation_label, augmentation_named

    if (kind := _kind(name)) is not None:
        value = parsed(text, kind, f"--space {flag}")
        try:
            if name == "network":
                return str(network_name(value))
            if name == "augment":
                return augmentation_label(augmentation_named(value))
        except ValueError as error:
            raise ValueError(f"--space {flag}: {error}") from None
        return worded(value) if isinstance(value, tuple) else value
    if text in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text]
    try:
        return float(text)
    except ValueError:
        return text
