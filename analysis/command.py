"""The report as a command of ``lesion-sweep``."""

from __future__ import annotations

from collections.abc import Sequence

from analysis import flags


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """The command line; returns the exit status."""
    flags.parser(program).parse_args(arguments)  # --help and wrong flags end here
    from analysis import report  # takes seconds to load

    return report.main(arguments, program=program)
