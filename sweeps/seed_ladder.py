"""How many seeds are enough?  One or two losses, many seeds.

    python sweeps/seed_ladder.py --address auto     on a running Ray cluster
    python sweeps/seed_ladder.py --demo             a small simulated cohort, minutes on two cores

With two losses the question is about their difference, with one about its mean.  The report's
section on seeds answers it; the answer is printed at the end, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

from lesion_core.settings import PAPER_SEEDS
from sweeps import command
from sweeps.options import without_demo_filters
from sweeps.paper_grid import DEMO_GRID, PaperGrid, run_grid
from sweeps.provenance import command_to_show

MANY_SEEDS = (*PAPER_SEEDS, *range(1, 16))
"""The authors' five first, so that a grid's trials need not be run again in its folder."""


@dataclass(frozen=True, kw_only=True)
class SeedLadder(PaperGrid):
    """Train one or two losses with many seeds on every fold: how many seeds are enough?

    Exit status: 0 every trial done, 1 some failed, 2 wrong input.
    """

    results: Path = Path("results/seed_ladder")
    """Folder for what trials produce; the same folder again goes on."""
    losses: tuple[str, ...] = ("focal2", "xent")
    """One or two: names, names with fields such as focal(alpha=0.3,gamma=1.5), or module:name."""
    seeds: tuple[int, ...] = MANY_SEEDS
    """One whole cross-validation per seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.losses)) > 2:
            grid = command_to_show("sweeps/paper_grid.py", "grid")
            raise ValueError(
                f"--losses {' '.join(self.losses)}: expected one or two; {grid} compares more"
            )
        if len(set(self.seeds)) < 2:
            raise ValueError("--seeds: expected two or more, or nothing can be said about others")


DEMO_LADDER = SeedLadder(
    cohorts=DEMO_GRID.cohorts,
    results=Path("results/demo_ladder"),
    seeds=MANY_SEEDS[:6],
    folds=DEMO_GRID.folds,
    epochs=DEMO_GRID.epochs,
    batch_size=DEMO_GRID.batch_size,
    filters=DEMO_GRID.filters,
    learning_rate=DEMO_GRID.learning_rate,
)
"""The defaults of the other flags under --demo."""


def main(arguments: Sequence[str]) -> int:
    """Run the ladder and print its answer; returns the exit status."""
    default = DEMO_LADDER if "--demo" in arguments else SeedLadder()
    ladder = without_demo_filters(command.read_flags(SeedLadder, arguments, default), arguments)
    status = run_grid(ladder)
    if not ladder.dry_run:
        print(answer(ladder.results))
    return status


def answer(results: Path) -> str:
    """The report's own table of what more seeds would buy, and the sentence above it."""
    tables = sorted((results / "report" / "tables").glob("seeds-needed-*.md"))
    if not tables:
        return (
            "how many seeds are enough: the report says it once two seeds are complete in every "
            "fold"
        )
    return "\n".join(table.read_text().replace("**", "").rstrip() for table in tables)


if __name__ == "__main__":
    command.process(main, supervised=True)
