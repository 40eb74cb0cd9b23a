"""Which arms do --losses, --vary and --arms ask for?  Every mistake in one line, before data are
read."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from lesion_core.arms import worded
from lesion_core.paths import close_to
from lesion_core.settings import EVALUATION, TrainSettings
from lesion_core.spelling import in_list
from lesion_core.terminal import one_line
from sweeps.options import typed

if TYPE_CHECKING:
    from lesion_core.losses import Loss


@dataclass(frozen=True)
class Asked:
    """An arm as it is trained."""

    loss: Loss
    settings: TrainSettings
    label: str | None = None


class Flags(Protocol):
    """What of a sweep's flags decides on its arms."""

    @property
    def losses(self) -> tuple[str, ...]: ...
    @property
    def vary(self) -> tuple[str, ...]: ...
    @property
    def arms(self) -> str: ...
    def settings(self, **instead: Any) -> TrainSettings: ...


def asked_arms(flags: Flags) -> list[Asked]:
    """Every arm, in order: losses slowest, then the first --vary; or as --arms lists them.

    Raises:
        ValueError: a flag cannot be, settings contradict each other, or two arms are the same.
    """
    from lesion_core.losses import loss_named

    if flags.arms:
        if flags.vary:
            raise ValueError("--arms lists whole arms; leave out --vary")
        found = [_made(arm, flags, place) for place, arm in enumerate(_listed(flags.arms))]
    else:
        values = varied(flags.vary)
        losses = [loss_named(name) for name in dict.fromkeys(flags.losses)]
        combinations = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
        found = []
        for loss, own in product(losses, combinations):
            found.append(Asked(loss, _settings(flags, own, f"--vary {_in_words(own)}")))
    _refuse_alike(found)
    return found


def varied(flags: Sequence[str]) -> dict[str, list[Any]]:
    """The values of every field that --vary names: FIELD=V1,V2.

    Values are as flags write them; tuples with an x between (8x16x32), true, false, none.  Commas
    within brackets are their value's own.

    >>> varied(["learning_rate=1e-4,3e-4", "filters=8x16,16x32", "flip=true,false"])
    {'learning_rate': [0.0001, 0.0003], 'filters': [(8, 16), (16, 32)], 'flip': [True, False]}
    """
    hints, found = get_type_hints(TrainSettings), {}
    for flag in flags:
        name, equals, text = flag.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ValueError(
                f"--vary {flag}: expected FIELD=VALUE,VALUE, as learning_rate=1e-4,3e-4"
            )
        _check_field(name, f"--vary {flag}")
        if name in found:
            raise ValueError(f"--vary {name} is given twice; name all its values in one")
        values = [parsed(each, hints[name], f"--vary {flag}") for each in in_list(text)]
        twice = [worded(value) for place, value in enumerate(values) if value in values[:place]]
        if twice:
            raise ValueError(f"--vary {flag}: {twice[0]} is there twice")
        if len(values) < 2:
            raise ValueError(
                f"--vary {flag}: one value varies nothing; name two or more, or give "
                f"--{name.replace('_', '-')}"
            )
        found[name] = values
    return found


def refuse_flagged(flags: Flags, arguments: Sequence[str]) -> None:
    """Raise ValueError where a flag that was typed says what --vary or --arms says too."""
    flagged = typed(arguments)
    for name in varied(flags.vary):
        if name in flagged:
            raise ValueError(
                f"--{name.replace('_', '-')} and --vary {name}=...: one says what the other "
                "varies; leave one out"
            )
    if flags.arms and "losses" in flagged:
        raise ValueError("--arms lists whole arms with their losses; leave out --losses")


# ------------------------------------------------------------------------------------------- values
def _check_field(name: str, where: str) -> None:
    if name in EVALUATION:
        raise ValueError(
            f"{where}: {name} says what is evaluated of a training, and makes no other one; give "
            f"--{name.replace('_', '-')}, once for all arms"
        )
    known = [field.name for field in fields(TrainSettings) if field.name not in EVALUATION]
    if name not in known:
        near = close_to(name, known)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}"
        if name in ("loss", "losses"):
            hint = "losses are what --losses names"
        raise ValueError(f"{where}: there is no setting {name!r}; {hint}")


def parsed(text: str, hint: Any, where: str) -> Any:
    """A value as its field's type reads it.

    Raises:
        ValueError: it is none.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        try:
            return _as(kind, text)
        except ValueError:
            continue
    raise ValueError(f"{where}: {text!r} is no value of it; expected {_expected(kinds)}")


def _as(kind: Any, text: str) -> Any:
    if kind is types.NoneType and text == "none":
        return None
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind is str and text:
        return text
    if kind is int:
        return int(text)
    if kind is float:
        if not math.isfinite(value := float(text)):
            raise ValueError
        return value
    if get_origin(kind) is Literal and text in get_args(kind):
        return text
    if get_origin(kind) is tuple:
        return tuple(_as(get_args(kind)[0], part) for part in text.split("x"))
    raise ValueError


def _expected(kinds: Sequence[Any]) -> str:
    words = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words += get_args(kind)
        elif get_origin(kind) is tuple:
            words.append(f"{_KINDS.get(get_args(kind)[0], 'values')} with x between, as 8x16x32")
        else:
            words.append(_KINDS.get(kind, str(kind)))
    return " or ".join(words)


_KINDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a name",
    types.NoneType: "none",
}  # fmt: skip


def _fits(value: Any, hint: Any) -> bool:
    """Whether a Python value is of a field's type."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is (types.NoneType if hint is None else hint)


def _settings(flags: Flags, own: Mapping[str, Any], where: str) -> TrainSettings:
    try:
        return flags.settings(**own)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if own else str(error)) from None


def _in_words(own: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={worded(value)}" for name, value in own.items())


# --------------------------------------------------------------------------------------------- arms
def _listed(path: str) -> list[Any]:
    """The list at FILE.py:NAME or module:NAME.

    Raises:
        ValueError: it cannot be loaded, or is no list of arms.
    """
    where = f"--arms {path}"
    source, _, name = path.rpartition(":")
    if not source or not name.isidentifier():
        raise ValueError(f"{where}: expected FILE.py:NAME or module:NAME, as my_arms.py:ARMS")
    module = _module(source, where)
    if not hasattr(module, name):
        near = close_to(name, [each for each in vars(module) if not each.startswith("_")])
        raise ValueError(
            f"{where}: {source} has no {name}" + (f"; did you mean {near}?" if near else "")
        )
    found = getattr(module, name)
    if not isinstance(found, list | tuple) or not found:
        raise ValueError(f"{where}: expected a list of arms, found {one_line(found)[:60]}")
    return list(found)


def _module(source: str, where: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)  # `python sweeps/paper_grid.py` looks beside the script instead
    try:
        importlib.invalidate_caches()
        if not source.endswith(".py"):
            return importlib.import_module(source)
        file = Path(source)
        if not file.is_file():
            raise ValueError(f"{where}: there is no file {source}")
        if file.resolve().parent == Path(here).resolve() and file.stem.isidentifier():
            return importlib.import_module(file.stem)  # so that its losses can be found again
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # which dataclasses look into
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # somebody's module can fail in any way
        if isinstance(error, ValueError) and str(error).startswith(where):
            raise
        why = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{where}: cannot be imported ({why})") from None
    finally:
        sys.path.remove(here)


def _made(arm: Any, flags: Flags, place: int) -> Asked:
    """An arm of somebody's list: `lesion_core.Arm`, or a dataclass with the same fields."""
    from lesion_core.losses import loss_named, loss_to_dict

    where = f"--arms {flags.arms}, arm {place + 1}"
    loss, own = getattr(arm, "loss", None), getattr(arm, "settings", None)
    label = getattr(arm, "label", None)
    if loss is None or not isinstance(own, Mapping):
        raise ValueError(f"{where}: expected an Arm(loss=..., settings={{...}}), found {arm!r:.60}")
    if label is not None and not (isinstance(label, str) and label and label.isprintable()):
        raise ValueError(f"{where}: label is {label!r:.60}; expected a text on one line")
    hints = get_type_hints(TrainSettings)
    for name, value in own.items():
        _check_field(str(name), where)
        if not _fits(value, hints[name]):
            kinds = get_args(hints[name]) if get_origin(hints[name]) is types.UnionType else ()
            raise ValueError(
                f"{where}: {name} is {value!r:.60}; expected {_expected(kinds or (hints[name],))}"
            )
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}
    settings = _settings(flags, plain, f"{where} ({_in_words(plain)})")
    try:
        chosen = loss_named(loss) if isinstance(loss, str) else loss
        loss_to_dict(chosen)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {one_line(error)}") from None
    return Asked(chosen, settings, label)


def _refuse_alike(found: Sequence[Asked]) -> None:
    """Raise ValueError where two arms are the same training, or are called the same."""
    from lesion_core.losses import loss_label, loss_to_dict

    known: list[tuple[Any, Any]] = []
    for arm in found:
        key = (loss_to_dict(arm.loss), arm.settings)
        if key in known:
            own = asdict(arm.settings)
            raise ValueError(
                f"two arms are the same training: loss {loss_label(arm.loss)}, {_in_words(own)}"
            )
        known.append(key)
    labels = [arm.label for arm in found if arm.label is not None]
    if twice := [label for place, label in enumerate(labels) if label in labels[:place]]:
        raise ValueError(f"two arms are called {twice[0]!r}; give each a label of its own")
