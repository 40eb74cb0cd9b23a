"""Ledgers whose truth is known, and their reports: ``python -m tests.support.known_truths OUT``.

Every ledger is made up so that one thing is true of its losses.  `test_known_truths` asks whether
the first screen says it, and nothing that is false.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from analysis import report
from sweeps.bench.fake_sweep import FakeSweep

SEEDS = (1, 2, 3, 4, 5)
COHORT = "wmh2017"
SHARP = 1.0
"""Of probabilities between which there are many in the middle."""
USUAL = (0.66, 0.74, SHARP)
"""Sensitivity, precision, sharpness: a mean DSC of about 0.69."""
GOOD = (0.80, 0.84, SHARP)
BAD = (0.55, 0.66, SHARP)


@dataclass(frozen=True, kw_only=True)
class KnownTruth:
    """A made-up ledger, what is true of it, and how its report is asked for."""

    truth: str
    character: Mapping[str, tuple[float, float, float]]
    """Loss -> what it ends at."""
    training_effect: str | None = None
    """As the report's flag."""
    sweep: Mapping[str, object] = field(default_factory=dict)
    """What else is unlike a complete sweep of independent losses."""

    def write(self, path: Path) -> Path:
        """Write the ledger; returns its path."""
        quiet: dict[str, object] = {
            "cohorts": (COHORT,),
            "losses": tuple(self.character),
            "seeds": SEEDS,
            "num_cases": 40,
            "epochs": 1,
            "patient_sd": 0.4,
            "patient_loss_sd": 0.04,
            "fold_loss_sd": 0.0,
            "run_sd": 0.05,
            "residual_sd": 0.05,
            "pictures": False,
            "character": {name: (a, b, 0.1, c) for name, (a, b, c) in self.character.items()},
        }
        return FakeSweep(**quiet | dict(self.sweep)).write(path)  # type: ignore[arg-type]


def trials(loss: str, count: int, word: str) -> dict[tuple[str, str, int, int], str]:
    """The first trials of a loss, each of another cell, and what became of them."""
    cells = [(seed, fold) for fold, seed in product(range(5), SEEDS)]
    return {(COHORT, loss, *cell): word for cell in cells[:: max(1, 25 // count)][:count]}


KNOWN_TRUTHS = {
    "winner": KnownTruth(
        truth="B is better than every other loss by about 0.13; A and C are alike; D is worse",
        character={"A": USUAL, "B": GOOD, "C": USUAL, "D": BAD},
    ),
    "equal": KnownTruth(
        truth="seven losses, none better than another",
        character=dict.fromkeys("ABCDEFG", USUAL),
        sweep={"patient_loss_sd": 0.15, "run_sd": 0.12, "residual_sd": 0.15},
    ),
    "threshold": KnownTruth(
        truth="E is worse than A and B at 0.5 alone: its probabilities are 0.20 too low",
        character=dict.fromkeys("ABE", USUAL),
        sweep={"shifted": {"E": 20}},
    ),
    "tradeoff": KnownTruth(
        truth="B finds more lesion voxels than A and C, and more that are none; DSC is alike",
        character={
            "A": (0.62, 0.80, SHARP),
            "B": (0.79, 0.61, SHARP),
            "C": (0.62, 0.80, SHARP),
        },
    ),
    "diverging": KnownTruth(
        truth="D diverges in 6 of 25 trainings, and is better than A where it does not; B is alike "
        "to A",
        character={"A": USUAL, "B": USUAL, "D": GOOD},
        sweep={"status": trials("D", 6, "diverged")},
    ),
    "collapse": KnownTruth(
        truth="C is like A, but 2 of its 25 trainings predict nothing",
        character={"A": USUAL, "B": BAD, "C": USUAL},
        sweep={"collapsed_trials": tuple(trials("C", 2, "collapsed"))},
    ),
    "identical": KnownTruth(
        truth="B and C are one and the same, and better than A",
        character={"A": USUAL, "B": GOOD, "C": GOOD},
        sweep={"same_as": {"C": "B"}},
    ),
    "practically-equal": KnownTruth(
        truth="A and B differ by nothing, and the training-set effect is declared to be 0.002",
        character={"A": USUAL, "B": USUAL},
        training_effect="0.002",
        sweep={"patient_loss_sd": 0.01, "run_sd": 0.01, "residual_sd": 0.02},
    ),
    "incomplete": KnownTruth(
        truth="B is better than A; D has only 4 of 25 trainings, C lacks 2",
        character={"A": USUAL, "B": GOOD, "C": USUAL, "D": GOOD},
        sweep={"status": trials("C", 2, "missing") | trials("D", 21, "missing")},
    ),
}
"""By the name of the ledger's folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every ledger and its report below the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.known_truths")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder that they are written into")
    out = parser.parse_args(arguments).out
    for name, known in KNOWN_TRUTHS.items():
        folder = known.write(out / name)
        page = report.build(folder, training_effect=known.training_effect, formats=())
        print(f"{page}: {known.truth}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
