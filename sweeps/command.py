"""What every command of sweeps does alike: read flags, report mistakes in one line, stop.

Exit status: 0 everything done; 1 something failed; 2 the input was wrong; 130 or 143 stopped by
Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeVar

import tyro

from lesion_core import flags
from lesion_core.terminal import print_anything
from sweeps.ledger.ledger import LedgerError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_left_alone: set[int] = set()
"""Signals that this process was started to ignore, as by nohup."""

_received = [int(signal.SIGINT)]
"""Signals, the newest last: an exception that passes through Ray comes out as another one."""


def read_flags(kind: type[T], arguments: Sequence[str], default: T | None = None) -> T:
    """Read flags into an instance of a dataclass; its field docstrings are the help.

    Raises:
        ValueError: an unknown flag, or a value that does not fit.
    """
    return flags.read_flags(kind, arguments, default, config=(tyro.conf.FlagCreatePairsOff,))


def run(command: Callable[[Sequence[str]], int]) -> int:
    """Run a command with the flags that this process was started with; returns its exit status."""
    _left_alone.update(n for n in SIGNALS if signal.getsignal(n) is signal.SIG_IGN)
    catch_signals()
    print_anything()
    try:
        return command(sys.argv[1:])
    except (ValueError, LedgerError, KeyboardInterrupt) as error:
        return report_error(error)
    except BrokenPipeError:  # the reader of a pipe (head, less) has left
        sys.stderr.close()
        return 141


def report_error(error: BaseException) -> int:
    """Print in one line why a command ends; returns its exit status."""
    if isinstance(error, KeyboardInterrupt):
        print("stopped; the same command goes on from here", file=sys.stderr, flush=True)
        return 128 + _received[-1]
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 2 if isinstance(error, ValueError) else 1


def catch_signals() -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt.

    To be called again after Ray starts, which puts its own handlers there.  Another exception
    would not do: Ray 2.60's compiled code answers every one but this with a SystemError.
    """
    for number in SIGNALS:
        if number not in _left_alone:
            signal.signal(number, _stop)


def ignore_signals() -> None:
    """Let nothing stop this process while it cleans up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt
