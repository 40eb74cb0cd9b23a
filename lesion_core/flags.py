"""How a command's flags are read: they are the fields of a dataclass, their docstrings the help."""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, TypeVar, cast

from lesion_core.terminal import steerable

T = TypeVar("T")


def read_flags(
    kind: type[T],
    arguments: Sequence[str] | None,
    default: T | None = None,
    *,
    config: tuple[Any, ...] = (),
) -> T:
    """Read flags into an instance of a dataclass; its field docstrings are the help.

    Args:
        kind: the dataclass.
        arguments: what was typed; None: what this process was started with.
        default: values of the flags that are not given.
        config: tyro's markers, such as ``tyro.conf.FlagCreatePairsOff``.

    Raises:
        ValueError: an unknown flag, or a value that does not fit.
    """
    import tyro  # what has no command needs none

    output = io.StringIO()
    given = None if arguments is None else list(arguments)
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        shown = steerable(sys.stdout)  # help is ours, and in colours
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(shown):
            return tyro.cli(kind, args=given, config=config, **options)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(_one_line(output.getvalue())) from None


def add_flags(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Give a command that argparse reads the fields of a dataclass as flags.

    Fields are texts with a default, or tuples of texts.
    """
    helps = _field_docstrings(kind)
    for field in fields(kind):
        many = isinstance(field.default, tuple)
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            nargs="+" if many else None,
            default=field.default,
            metavar=field.name.upper(),
            help=helps[field.name],
        )


def taken_from(flags: argparse.Namespace, kind: type[T]) -> T:
    """The dataclass whose fields `add_flags` made flags of."""
    given = {field.name: getattr(flags, field.name) for field in fields(cast(Any, kind))}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _field_docstrings(kind: type[Any]) -> dict[str, str]:
    """The text below each field of a dataclass and of those that it inherits, on one line."""
    found = {}
    for parent in kind.__mro__[:-1]:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        for item, below in pairwise(cast(ast.ClassDef, definition).body):
            match item, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split()).replace("%", "%%")
    return found


def _one_line(message: str) -> str:
    """tyro's box of several lines as one.

    >>> _one_line("╭─ Invalid ─╮\\n│ epochs: x │\\n│ is bad    │\\n│ ───────── │\\n╰───────────╯")
    'epochs: x is bad; see --help'
    """
    parts = [[]]
    for line in message.splitlines():
        text = line.strip("│ \t")
        if re.fullmatch(r"[─-]+", text):
            parts.append([])
        elif text and not text.startswith(("╭", "╰")):
            parts[-1].append(text)
    lines = [" ".join(part) for part in parts if part]
    lines = [line for line in lines if not re.match(r"(For full helptext|Help:)", line)]
    return "; ".join([*lines, "see --help"])
