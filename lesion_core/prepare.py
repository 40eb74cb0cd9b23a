"""``python -m lesion_core.prepare`` makes cohorts from downloads (`lesion_core.preparation`)."""

from __future__ import annotations

from lesion_core import stopping

if __name__ == "__main__":
    stopping.hold()

from collections.abc import Sequence

from lesion_core.preparation.flags import parser
from lesion_core.terminal import print_anything


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run the command; exit status 0, or 2 and one line for what cannot be used."""
    print_anything()
    parser(program).parse_args(arguments)  # --help and wrong flags end here: SimpleITK is slow
    from lesion_core.preparation import prepare

    return prepare.main(arguments, program=program)


if __name__ == "__main__":
    stopping.leave(stopping.run(lambda: main(program="python -m lesion_core.prepare")))
