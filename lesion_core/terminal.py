"""Printing on any terminal: what cannot be encoded, or would steer it, is shown and not obeyed."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO


def print_anything() -> None:
    """Let this process's output hold any text that it was given by others.

    Characters that the terminal's encoding lacks, such as ± in ASCII, are replaced; those that
    would move its cursor, colour it or turn its order of writing are written out (`visible`).
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook puts there
            stream.reconfigure(errors="replace")
            setattr(sys, name, _Shown(stream))


def steerable(stream: TextIO) -> TextIO:
    """The stream as it was before `print_anything`, for what draws on a terminal.

    Whoever writes to it uses `visible` for names.
    """
    return stream.below if isinstance(stream, _Shown) else stream


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Text with its control characters written out: escapes, direction marks, lone surrogates.

    Such a character in a received name could overwrite lines of a terminal, turn the order of what
    stands beside it, or break a file's encoding.  ``keep``: those that stay.

    >>> visible("\x1b[2Jname\u202e"), visible("two\nlines", keep="")
    ('\\x1b[2Jname\\u202e', 'two\\nlines')
    """
    if _PLAIN.fullmatch(text) and ("\n" in keep or text.isprintable()):
        return text  # which is nearly always, and fast
    return "".join(
        letter
        if letter in keep or unicodedata.category(letter) not in _UNSEEN
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def one_line(text: object) -> str:
    r"""Text that may hold a received name, as one line that steers no terminal.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return visible(str(text), keep="")


_PLAIN = re.compile(r"[\n\t -~\xa0-\xac\xae-\u05ff\u2010-\u2027\u2030-\u205f\u2070-\u2fff]*")
"""Letters, signs and digits of which none is in `_UNSEEN`."""
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, formats (directions, joiners), surrogates, separators of lines."""


class _Shown:
    """A stream on which control characters are written out, but for tabs and ends of lines."""

    def __init__(self, below: TextIO) -> None:
        self.below = below

    def write(self, text: str) -> int:
        self.below.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)
