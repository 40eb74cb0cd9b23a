"""How a command's flags are read by tyro: what is wrong with them is one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

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
        with contextlib.redirect_stderr(output):
            return tyro.cli(kind, args=given, config=config, **options)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(_one_line(output.getvalue())) from None


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
