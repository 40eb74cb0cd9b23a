"""What every command of sweeps does alike: read flags, report mistakes in one line, stop.

Exit status: 0 everything done; 1 something failed; 2 the input was wrong; 128 plus the number of
the signal that stopped it: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 138 SIGUSR1, 140 SIGUSR2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import tyro

from lesion_core import flags, stopping
from lesion_core.terminal import print_anything
from sweeps.ledger.ledger import LedgerError

T = TypeVar("T")


def read_flags(kind: type[T], arguments: Sequence[str], default: T | None = None) -> T:
    """Read flags into an instance of a dataclass; its field docstrings are the help.

    Raises:
        ValueError: an unknown flag, or a value that does not fit.
    """
    return flags.read_flags(kind, arguments, default, config=(tyro.conf.FlagCreatePairsOff,))


def process(command: Callable[[Sequence[str]], int], *, supervised: bool = False) -> NoReturn:
    """Be a command from its first line to its end.

    ``supervised``: in a child process (`stopping.supervise`), for commands that load Ray.
    """
    stopping.hold()
    if supervised:
        stopping.supervise()
    stopping.leave(run(command))


def run(command: Callable[[Sequence[str]], int]) -> int:
    """Run a command with the flags that this process was started with; returns its exit status."""
    print_anything()
    try:
        stopping.catch()
        return command(sys.argv[1:])
    except BrokenPipeError:  # the reader of a pipe (head, less) has left
        sys.stderr.close()
        return 141
    except BaseException as error:
        if not isinstance(error, ValueError | LedgerError) and not stopping.is_stop(error):
            raise
        return report_error(error)


def report_error(error: BaseException) -> int:
    """Print in one line why a command ends; returns its exit status."""
    if not isinstance(error, ValueError | LedgerError) and stopping.is_stop(error):
        return stopping.say_stopped("stopped; the same command goes on from here")
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 2 if isinstance(error, ValueError) else 1
