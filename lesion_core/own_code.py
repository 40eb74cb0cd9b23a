"""Code of the user's own, found by import path: module:name, and the hash of its file."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def import_own(path: str, what: str) -> tuple[Any, str | None]:
    """The object at module:attribute, and the SHA-256 of the module's source file.

    The module is looked for in the current directory first.  The hash is None where there is no
    source file.

    Raises:
        ValueError: no such module or attribute, or importing it fails; ``what`` it should be.
    """
    name, _, attribute = path.partition(":")
    if not name or not attribute.isidentifier() or name.endswith(".py") or "/" in name:
        hint = name.removesuffix(".py").strip("./").replace("/", ".") or f"my_{_FILES[what]}"
        example = attribute if attribute.isidentifier() else f"My{what.title()}"
        raise ValueError(
            f"cannot read {what} {path!r}; expected module:name, such as {hint}:{example}"
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
                f"{what} {path}: there is no module {error.name!r} in {here} or installed; "
                f"expected a file {name.replace('.', '/')}.py in the current directory"
                f"{did_you_mean(name, nearby)}"
            ) from None
        raise ValueError(f"{what} {path}: importing {name} failed: {one_line(error)}") from error
    finally:
        sys.path.remove(here)
    if not hasattr(module, attribute):
        public = [item for item in vars(module) if not item.startswith("_")]
        raise ValueError(
            f"{what} {path}: {getattr(module, '__file__', None) or name} has no {attribute!r}"
            f"{did_you_mean(attribute, public)}"
        )
    return getattr(module, attribute), _source_sha256(module)


def instantiated(found: Any, arguments: Mapping[str, Any], what: str, path: str) -> Any:
    """An instance of what is a class, with these arguments; anything else as it is, without any."""
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} {path}: fields must be plain values: {one_line(error)}") from None
    if isinstance(found, type):
        try:
            return found(**arguments)
        except Exception as error:  # a user's class can fail in any way
            raise ValueError(
                f"{what} {path}: {path.partition(':')[2]}"
                f"({', '.join(f'{key}={value!r}' for key, value in arguments.items())}) failed: "
                f"{one_line(error)}"
            ) from error
    if arguments:
        raise ValueError(
            f"{what} {path} is not a class, so it has no field {next(iter(arguments))!r}; expected "
            f"{path} alone"
        )
    return found


def refuse_changed(what: str, path: str, found: str | None, stored: object) -> None:
    """Raise ValueError if the source's hash is not the stored one."""
    if found != stored:
        raise ValueError(
            f"{what} {path}: its source has changed since it was stored (sha256 "
            f"{_short(found)}, stored {_short(stored)}); restore that file, or give the changed "
            f"{what} another results folder"
        )


def one_line(error: Exception) -> str:
    """An error's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the choice that looks most like it, if any."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


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


_FILES = {"loss": "losses", "network": "nets", "augmentation": "aug"}
"""How documentation calls a file of the user's, behind "my_"."""


def _short(digest: object) -> str:
    return str(digest or "none")[:8]
