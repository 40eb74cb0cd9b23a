"""The command ``lesion-sweep``: everything that can be run here, under one name.

    lesion-sweep grid --demo          is  python sweeps/paper_grid.py --demo
    lesion-sweep report RESULTS       is  python analysis/report.py RESULTS

To add a command: a function that takes the flags and returns an exit status, and a line in
`COMMANDS`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import lesion_core
from lesion_core import stopping

PROGRAM = "lesion-sweep"


class Command(NamedTuple):
    """One word behind the program's name."""

    main: str
    """``module:function``, loaded when it is asked for: --help should not wait for PyTorch."""
    summary: str
    """What the list of commands says of it."""
    loads_ray: bool = False
    """Then it is supervised: Ray can crash the process that it is loaded in."""


COMMANDS = {
    "grid": Command(
        "sweeps.paper_grid:main", "every loss x seed x fold, compared in a report", True
    ),
    "search": Command("sweeps.alpha_gamma:main", "search for the numbers of a loss", True),
    "ladder": Command(
        "sweeps.seed_ladder:main", "one or two losses, many seeds: how many suffice?", True
    ),
    "training-effect": Command(
        "sweeps.training_effect:main", "how much other training sets move a comparison", True
    ),
    "train": Command("sweeps.train_one:main", "one trial here and now, without Ray"),
    "status": Command("sweeps.status:main", "how far a sweep is, also while it runs"),
    "verify": Command("sweeps.verify:main", "is every byte of a results folder as it was written?"),
    "report": Command("analysis.command:main", "a results folder as one page"),
    "data": Command("lesion_core.cohorts.__main__:main", "what is in a data folder: check, folds"),
    "prepare": Command(
        "lesion_core.prepare:main", "from a download to a cohort: lit, wmh2017, brains"
    ),
    "predict": Command("lesion_core.predict:main", "the masks of trained trials, as NIfTI files"),
    "export": Command(
        "sweeps.export:main", "trained networks as MONAI bundle, ONNX or TorchScript"
    ),
    "wandb": Command(
        "sweeps.tracking.__main__:main", "from a ledger to W&B: sync, backfill, dashboard"
    ),
    "bench": Command("sweeps.bench.__main__:main", "how fast it is on this machine"),
}


def process() -> NoReturn:
    """Be the program, from its first line to its end."""
    stopping.hold()
    if any(COMMANDS[name].loads_ray for name in sys.argv[1:2] if name in COMMANDS):
        stopping.supervise()
    stopping.leave(main())


def main() -> int:
    """Run what the command line names; returns the exit status."""
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(overview())
        return 0
    if sys.argv[1:2] == ["--version"]:
        print(PROGRAM, lesion_core.__version__)
        return 0
    from sweeps import command

    return command.run(dispatch)


def overview() -> str:
    """The help of the program itself."""
    width = max(map(len, COMMANDS)) + 3
    lines = [f"  {name:<{width}}{found.summary}" for name, found in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} [-h] [--version] COMMAND ...",
            "",
            "Compare losses for 3D lesion segmentation over seeds and folds.",
            "",
            "commands:",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help explains one.",
        ]
    )


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that comes first.

    Raises:
        ValueError: there is no such command.
    """
    name, *rest = arguments or ("",)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else f"; see {PROGRAM} --help"
        raise ValueError(
            f"{f'unknown command {name!r}' if name else 'no command'}; expected one of "
            f"{', '.join(COMMANDS)}{hint}"
        )
    sys.argv = [f"{PROGRAM} {name}", *rest]  # in its usage, and in sweep.json
    return _function(COMMANDS[name].main)(rest)


def _function(path: str) -> Callable[[Sequence[str]], int]:
    module, _, name = path.partition(":")
    function: Callable[[Sequence[str]], int] = getattr(import_module(module), name)
    return function


if __name__ == "__main__":
    process()
