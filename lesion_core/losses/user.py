"""Losses of the user's own, found by import path and tried once before they train anything."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lesion_core.losses.fields import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A loss of the user's own, found by import path: ``my_losses:Tversky``.

    A class is instantiated (with ``arguments``, else its defaults); a function or an instance is
    used as it is.  It is tried once on a small batch, so that a mistake shows before training.

    On a GPU its steps are launched kernel by kernel, unless it has a true attribute ``recordable``,
    which says that it keeps nothing between calls and never reads a tensor's value
    (`training.step`).
    """

    path: str
    """module:attribute; the module is looked for in the current directory first."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """What a class is instantiated with; plain JSON values."""
    function: Callable[[Tensor, Tensor], Tensor] = field(init=False, repr=False, compare=False)
    source_sha256: str | None = field(init=False, repr=False)
    """Hash of the module's file: other code is another loss.  None if it has no source file."""

    def __post_init__(self) -> None:
        found, source_sha256 = _import(self.path)
        object.__setattr__(self, "function", _instantiate(self.path, found, self.arguments))
        object.__setattr__(self, "source_sha256", source_sha256)
        _try_once(self.path, self.function)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)

    def __reduce__(self) -> tuple[Callable[..., Imported], tuple[dict[str, Any]]]:
        return Imported.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the hash of the source; `from_dict` undoes it."""
        return {
            "import": self.path,
            "fields": dict(self.arguments),
            "source_sha256": self.source_sha256,
        }

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Imported:
        """Import it again.

        Raises:
            ValueError: that fails, or the source has changed.
        """
        loss = Imported(path=stored["import"], arguments=dict(stored["fields"]))
        if loss.source_sha256 != stored["source_sha256"]:
            raise ValueError(
                f"loss {loss.path}: its source has changed since it was stored (sha256 "
                f"{_short(loss.source_sha256)}, stored {_short(stored['source_sha256'])}); restore "
                "that file, or give the changed loss another results folder"
            )
        return loss


def _import(path: str) -> tuple[Any, str | None]:
    """The object at module:attribute, and the SHA-256 of the module's source file."""
    name, _, attribute = path.partition(":")
    if not name or not attribute.isidentifier() or name.endswith(".py") or "/" in name:
        hint = name.removesuffix(".py").strip("./").replace("/", ".") or "my_losses"
        raise ValueError(
            f"cannot read loss {path!r}; expected module:name, such as "
            f"{hint}:{attribute if attribute.isidentifier() else 'MyLoss'}"
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)  # `python sweeps/paper_grid.py` looks beside the script instead
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(name)
    except Exception as error:  # a user's module can fail in any way
        if isinstance(error, ModuleNotFoundError) and (error.name or "") in _parents(name):
            nearby = [file.stem for file in Path.cwd().glob("*.py")]
            raise ValueError(
                f"loss {path}: there is no module {error.name!r} in {here} or installed; expected "
                f"a file {name.replace('.', '/')}.py in the current directory"
                f"{did_you_mean(name, nearby)}"
            ) from None
        raise ValueError(f"loss {path}: importing {name} failed: {_one_line(error)}") from error
    finally:
        sys.path.remove(here)
    if not hasattr(module, attribute):
        public = [item for item in vars(module) if not item.startswith("_")]
        raise ValueError(
            f"loss {path}: {getattr(module, '__file__', None) or name} has no {attribute!r}"
            f"{did_you_mean(attribute, public)}"
        )
    return getattr(module, attribute), _source_sha256(module)


def _instantiate(path: str, found: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loss {path}: fields must be plain values: {_one_line(error)}") from None
    if isinstance(found, type):
        try:
            found = found(**arguments)
        except Exception as error:  # a user's class can fail in any way
            raise ValueError(
                f"loss {path}: {path.partition(':')[2]}"
                f"({', '.join(f'{key}={value!r}' for key, value in arguments.items())}) failed: "
                f"{_one_line(error)}"
            ) from error
    elif arguments:
        raise ValueError(
            f"loss {path} is not a class, so it has no field {next(iter(arguments))!r}; expected "
            f"{path} alone"
        )
    if not callable(found):
        raise ValueError(
            f"loss {path} is a {type(found).__name__}; expected a function (logits, target) -> "
            "scalar, or a class whose instances are such functions"
        )
    return found


def _try_once(path: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Two patches of the paper's size must give a scalar that can be differentiated."""
    logits = torch.zeros(2, 1, 32, 32, 32, requires_grad=True)
    target = torch.zeros(2, 1, 32, 32, 32)
    target[:, :, :4, :4, :4] = 1
    try:
        with torch.enable_grad():
            value = function(logits, target)
    except Exception as error:  # a user's loss can fail in any way
        raise ValueError(
            f"loss {path} failed on logits and target of shape {list(logits.shape)}: "
            f"{_one_line(error)}"
        ) from error
    if not isinstance(value, Tensor):
        raise ValueError(f"loss {path} returned a {type(value).__name__}; expected a scalar tensor")
    if value.ndim:
        raise ValueError(
            f"loss {path} returned a tensor of shape {list(value.shape)}; expected a scalar; did "
            "you mean its .mean()?"
        )
    if not value.requires_grad:
        raise ValueError(
            f"loss {path} returned a value without a gradient; expected one computed from the "
            "logits by torch operations, without .detach(), .item() or a threshold"
        )


def _source_sha256(module: Any) -> str | None:
    try:
        file = inspect.getsourcefile(module)
    except TypeError:  # built in
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def _parents(module: str) -> list[str]:
    """a.b.c -> a, a.b, a.b.c"""
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _short(digest: str | None) -> str:
    return (digest or "none")[:8]
