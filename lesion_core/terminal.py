"""Printing on any terminal: what its encoding lacks becomes a question mark, not an error."""

from __future__ import annotations

import io
import sys


def print_anything() -> None:
    """Let this process's output replace characters that it cannot encode, such as ± in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook puts there
            stream.reconfigure(errors="replace")
