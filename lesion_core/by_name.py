"""What a text names: ``name(field=value, ...)``, or ``module:name`` of the user's own code."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def parsed(text: str, what: str, examples: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """``name(field=value, ...)`` in parts; a bare word is a string.

    ``what`` it should name, and two ``examples``, alone and with fields, are for people.

    >>> parsed("standard(rotation_degrees=10)", "augmentation", ("flip", "standard(zoom_p=0.5)"))
    ('standard', {'rotation_degrees': 10})
    """
    match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    try:
        if match is None:
            raise SyntaxError
        call = ast.parse(f"_({match[2] or ''})", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
            raise SyntaxError
        if not all(item.arg for item in call.keywords):  # **something
            raise SyntaxError
        return match[1], {str(item.arg): _literal(item.value) for item in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(
            f"cannot read {what} {text!r}; expected a name, such as {examples[0]}, or a name with "
            f"fields, such as {examples[1]}"
        ) from None


def shown(value: Any) -> str:
    """A value in as few characters as `parsed` reads back."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return str(value)


def imported(path: str, what: str, example: str) -> tuple[Any, str | None]:
    """The object at module:attribute, and the SHA-256 of the module's source file.

    ``what`` it should be, and an ``example`` of a path, are for people.
    """
    name, _, attribute = path.partition(":")
    if not name or not attribute.isidentifier() or name.endswith(".py") or "/" in name:
        usual_module, _, usual_name = example.partition(":")
        hint = name.removesuffix(".py").strip("./").replace("/", ".") or usual_module
        raise ValueError(
            f"cannot read {what} {path!r}; expected module:name, such as "
            f"{hint}:{attribute if attribute.isidentifier() else usual_name}"
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


def check_source(now: str | None, stored: str | None, what: str, path: str) -> None:
    """Raise ValueError if a module's source is not what it was when something was stored by it."""
    if now != stored:
        raise ValueError(
            f"{what} {path}: its source has changed since it was stored (sha256 {_short(now)}, "
            f"stored {_short(stored)}); restore that file, or give the changed {what} another "
            "results folder"
        )


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the choice that looks most like it, if any."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: Exception) -> str:
    """An error's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


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


def _short(digest: str | None) -> str:
    return (digest or "none")[:8]
