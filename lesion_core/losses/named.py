"""Losses by name: the list of those built in, and the ways to name, store and label any loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeGuard

from lesion_core.losses.fields import BuiltIn
from lesion_core.losses.formulas import (
    CrossEntropy,
    Dice,
    Focal,
    GeneralisedDice,
    Mixed,
    TopK,
    Tversky,
    WeightedCrossEntropy,
    WeightedGradient,
)
from lesion_core.losses.user import Imported
from lesion_core.own_code import did_you_mean
from lesion_core.search_space import Range
from lesion_core.spelling import read_call, shown

Loss = BuiltIn | Imported

LOSSES: dict[str, BuiltIn] = {
    "xent": CrossEntropy(),
    "gdsc": GeneralisedDice(),
    "dsc": Dice(),
    "mixed": Mixed(),
    "focal1": Focal(alpha=0.25, gamma=2.0),
    "focal2": Focal(alpha=0.75, gamma=2.0),
    "new": WeightedGradient(alpha=None, gamma=2.0),
    "xent_w": WeightedCrossEntropy(alpha=None),
    "focal_adaptive": Focal(alpha=None, gamma=2.0),
    "gdsc_inverse": GeneralisedDice(weights="inverse"),
    "dsc_batch": Dice(reduction="batch"),
    "tversky": Tversky(),
    "topk": TopK(),
}
"""The built-in losses by name; each class has a line at least.  The paper's seven come first."""


def loss_named(text: str) -> Loss:
    """The loss that a user means by a text.

    A name of ``LOSSES``; a name with fields; or the import path of the user's own loss.

    >>> loss_named("focal2").alpha
    0.75
    >>> loss_named("focal(alpha=0.3, gamma=1.5)")
    Focal(alpha=0.3, gamma=1.5)
    >>> loss_named("gdsc(weights=inverse)") == LOSSES["gdsc_inverse"]
    True

    Raises:
        ValueError: unknown name or field, unusable value, or an import that fails; one line.
    """
    name, arguments = read_call(
        text,
        "loss",
        "a name, such as focal1, or a name with fields, such as focal(alpha=0.3,gamma=1.5)",
    )
    if ":" in name:
        return Imported(path=name, arguments=arguments)
    known: dict[str, Any] = {kind.name: kind() for kind in _built_in()} | LOSSES
    if name not in known:
        raise ValueError(
            f"unknown loss {name!r}; expected one of {', '.join(LOSSES)}, or module:name of your "
            f"own{did_you_mean(name, known)}"
        )
    return with_values(known[name], arguments)


def search_space(loss: Loss) -> dict[str, Range]:
    """The fields that a search over this loss varies, and between what.

    Declared beside each field (`searched`); a dataclass of the user's own says it as
    ``field(default=0.3, metadata={"search": (0, 1)})``, both ends included.  May be empty.

    >>> {name: str(where) for name, where in search_space(LOSSES["new"]).items()}
    {'alpha': '(0, 1)', 'gamma': '(0, 10]'}
    """
    kind: Any = type(loss.function) if isinstance(loss, Imported) else type(loss)
    declared = fields(kind) if is_dataclass(kind) else ()
    found = {item.name: item.metadata["search"] for item in declared if "search" in item.metadata}
    return {
        name: where if isinstance(where, Range) else Range(float(where[0]), float(where[1]))
        for name, where in found.items()
    }


def with_values(loss: Loss, values: Mapping[str, Any]) -> Loss:
    """The same loss with other values of some fields.

    >>> with_values(LOSSES["focal1"], {"alpha": 0.75}) == LOSSES["focal2"]
    True

    Raises:
        ValueError: no such field, or a value that the loss refuses.
    """
    if isinstance(loss, Imported):
        return Imported(path=loss.path, arguments=loss.arguments | dict(values))
    choices = [item.name for item in fields(loss)]
    for name in values:
        if name not in choices:
            raise ValueError(
                f"loss {loss.name!r} has no field {name!r}; expected "
                f"{', '.join(choices) or 'none'}{did_you_mean(name, choices)}"
            )
    return replace(loss, **values)


def loss_to_dict(loss: Loss) -> dict[str, Any]:
    """Plain JSON values that say which loss it is; `loss_from_dict` undoes it.

    A function or dataclass instance of the user's own is accepted too, if importable.

    >>> loss_to_dict(LOSSES["focal1"])
    {'type': 'Focal', 'fields': {'alpha': 0.25, 'gamma': 2.0}}
    """
    if _is_built_in(loss):
        return {"type": type(loss).__name__, "fields": asdict(loss)}
    return _as_imported(loss).to_dict()


def loss_from_dict(stored: Mapping[str, Any]) -> Loss:
    """The loss that `loss_to_dict` described.

    Raises:
        ValueError: it does not fit this release, or the source of an imported loss has changed.
    """
    if "import" in stored:
        return Imported.from_dict(stored)
    kinds = {kind.__name__: kind for kind in _built_in()}
    if stored.get("type") not in kinds:
        name = str(stored.get("type"))
        raise ValueError(
            f"unknown type of loss {name!r}; expected one of {', '.join(kinds)}"
            f"{did_you_mean(name, kinds)}"
        )
    kind = kinds[stored["type"]]
    expected = {item.name for item in fields(kind)}
    if stored["fields"].keys() != expected:
        raise ValueError(
            f"loss {stored['type']} does not fit this release: unknown fields "
            f"{sorted(stored['fields'].keys() - expected)}, "
            f"missing {sorted(expected - stored['fields'].keys())}"
        )
    return kind(**stored["fields"])


def loss_label(loss: Loss) -> str:
    """What tables and figures call a loss; for a built-in one `loss_named` understands it.

    An imported loss goes by its attribute's name, or its whole path if a built-in has that name.

    >>> loss_label(Focal(alpha=0.25, gamma=2)), loss_label(Focal(alpha=0.3, gamma=1.5))
    ('focal1', 'focal(alpha=0.3,gamma=1.5)')
    """
    for name, known in LOSSES.items():
        if loss == known:
            return name
    if _is_built_in(loss):
        name, values = loss.name, asdict(loss)
    else:
        loss = _as_imported(loss)
        name, values = loss.path.partition(":")[2], loss.arguments
        if name in LOSSES or name in {kind.name for kind in _built_in()}:
            name = loss.path
    numbers = ",".join(f"{key}={shown(value)}" for key, value in values.items())
    return f"{name}({numbers})" if numbers else name


# ------------------------------------------------------------------------------------ kinds of loss
def _built_in() -> list[type[BuiltIn]]:
    """Our classes, in the order of ``LOSSES``."""
    return list(dict.fromkeys(type(loss) for loss in LOSSES.values()))


def _is_built_in(loss: object) -> TypeGuard[BuiltIn]:
    """Exactly of a class of ours: a user's subclass of one is the user's."""
    return type(loss) in _built_in()


def _as_imported(loss: Any) -> Imported:
    """A function or dataclass instance of the user's own, by the path it can be imported from."""
    if isinstance(loss, Imported):
        return loss
    arguments: dict[str, Any] = {}
    source = loss
    if is_dataclass(loss) and not isinstance(loss, type):
        source, arguments = type(loss), asdict(loss)
    module, name = getattr(source, "__module__", None), getattr(source, "__qualname__", None)
    if not module or not name or module == "__main__" or not name.isidentifier():
        raise ValueError(
            f"loss {loss!r} cannot be stored by name; expected one of {', '.join(LOSSES)}, or a "
            "function or dataclass at the top level of a module that can be imported"
        )
    return Imported(path=f"{module}:{name}", arguments=arguments)
