"""Printing on any terminal: what cannot be encoded, or would steer it, is shown and not obeyed."""

from __future__ import annotations

import io
import sys
import unicodedata
from typing import Any


def print_anything() -> None:
    """Let this process's output replace characters that it cannot encode, such as ± in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook puts there
            stream.reconfigure(errors="replace")


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Text with its control characters written out: escapes, direction marks, lone surrogates.

    Such a character in a received name could overwrite lines of a terminal, turn the order of what
    stands beside it, or break a file's encoding.  ``keep``: those that stay.

    >>> visible("\x1b[2Jname\u202e"), visible("two\nlines", keep="")
    ('\\x1b[2Jname\\u202e', 'two\\nlines')
    """
    if text.isprintable():  # which is nearly always, and fast
        return text
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


def say(*parts: object, **how: Any) -> None:
    """`print`, with control characters of the parts written out; lines may end in them."""
    print(*(visible(str(part)) for part in parts), **how)


_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, formats (directions, joiners), surrogates, separators of lines."""
