"""What this process prints while Ray runs: Ray's output goes into a file."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def redirect_output_to(path: Path) -> Iterator[None]:
    """Append this process's output, Ray's own included, to a file inside ``with``.

    The terminal is for our progress.
    """
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, 0o644)
    except OSError:  # the ledger's next write will say so
        file = os.open(os.devnull, flags)
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(file, 2)  # Ray's compiled code knows no other way
    output = _AppendTo(file)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        os.dup2(terminal, 2)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
        os.close(terminal)
        os.close(file)


class _AppendTo(io.TextIOBase):
    """Appends to a file, and to nothing if that cannot be written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="replace"))
        return len(text)
