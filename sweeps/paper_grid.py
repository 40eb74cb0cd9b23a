"""The paper's grid: every loss x seed x fold, on every cohort that is there.

    python sweeps/paper_grid.py --address auto      the whole grid on a running Ray cluster
    python sweeps/paper_grid.py --demo              a small simulated cohort, minutes on two cores

175 trials per cohort.  The same command again goes on where it stopped, adds what is asked for
beyond, and does nothing once everything is done.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

import tyro

from lesion_core.cohorts.reading import Reading, ReadingInSpace
from lesion_core.settings import PAPER_LOSSES, PAPER_SEEDS, READ_BY
from sweeps import command
from sweeps.arms import Asked, asked_arms, refuse_flagged
from sweeps.data import Data
from sweeps.options import Machines, Reporting, Training, refuse_unread, without_demo_filters
from sweeps.tracking.policy import Logging

if TYPE_CHECKING:
    from lesion_core.cohorts import Cohort
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial
    from sweeps.sweep import SweepPlan

DEMO = "demo"
"""Name of the demo's simulated cohort."""

G = TypeVar("G", bound="Grid")


@dataclass(frozen=True, kw_only=True)
class Grid(Training, Machines, Logging, ReadingInSpace):
    """Losses, seeds and folds of cohorts, every one with every other."""

    data: Path = Path("data")
    """Folder that holds the cohorts' folders."""
    results: Path = Path("results/paper_grid")
    """Folder for what trials produce; the same folder again goes on."""
    cohorts: tuple[str, ...] = ()
    """Of wmh2017, lit, simulated, simulated_lit, nnunet:FOLDER, bids:FOLDER (:nonzero behind it if
    the images are skull-stripped and have no brain masks), or a folder below --data (with
    --channels); default: wmh2017 and lit, if they are there."""
    losses: tuple[str, ...] = PAPER_LOSSES
    """Names, names with fields such as focal(alpha=0.3,gamma=1.5), or module:name of your own."""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=V1,V2: every loss is trained with each of these, and so compared; again for another
    field, every value with every other.  FIELD is any training flag: learning_rate=1e-4,3e-4 or
    filters=8x16,16x32 (an x between a network's widths) or flip=true,false; none where a flag may
    have no value."""
    arms: str = ""
    """FILE.py:NAME or module:NAME: a list of lesion_core.Arm(loss=..., settings={...}), compared in
    place of --losses and --vary."""
    seeds: tuple[int, ...] = PAPER_SEEDS
    """One whole cross-validation per seed."""
    folds: int = 5
    """Folds of the cross-validation."""
    fold_rule: str = "strided"
    """Who is tested with whom: strided (as the authors), site (every site in all folds), or a
    .json file such as nnU-Net's splits_final.json."""
    retry_failed: bool = False
    """Run trials again that failed by their own fault."""
    dry_run: bool = False
    """Only say what would run, what is done, and how many hours it would take."""
    demo: bool = False
    """All losses on a small simulated cohort with a narrow network, in minutes."""

    def cohort_objects(self) -> list[Cohort]:
        """The cohorts that the flags name, or else those that are there (`cohort_objects`)."""
        return cohort_objects(self.cohorts, self.data, self)

    def trials(self, data: Sequence[Data]) -> list[Trial]:
        """Every trial, in an order that makes an unfinished sweep useful.

        All arms of a fold, all folds of a seed, then the next seed.
        """
        from lesion_core.trial import Trial

        seeds = list(dict.fromkeys(self.seeds))
        tested = {cohort.name: cohort.test_cases(self.folds) for cohort in data}
        return [
            Trial(
                cohort=cohort.name,
                fingerprint=cohort.fingerprint,
                loss=arm.loss,
                seed=seed,
                fold=fold,
                num_folds=self.folds,
                settings=arm.settings,
                test_cases=tested[cohort.name][fold],
            )
            for seed, fold, cohort, arm in product(seeds, range(self.folds), data, self.asked_arms)
        ]

    @cached_property
    def asked_arms(self) -> list[Asked]:
        """What is compared: every loss with every setting that varies (`arms.asked_arms`)."""
        return asked_arms(self)

    @property
    def own_settings(self) -> TrainSettings:
        """The sweep's own settings, from which those of arms may differ."""
        differ = {
            by: getattr(self, by)
            for by in READ_BY.values()
            if any(getattr(arm.settings, by) != getattr(self, by) for arm in self.asked_arms)
        }
        return self.settings(**differ)


@dataclass(frozen=True, kw_only=True)
class PaperGrid(Grid, Reporting):
    """Train every loss with every seed on every fold, and compare them in a report.

    Exit status: 0 every trial done, 1 some failed, 2 wrong input.
    """

    until_decided: bool = False
    """Stop as soon as each loss is better or worse than the reference (xent, else the first), or
    practically equal, for new training sets, or can hardly become so with all --seeds, which are
    the most that are trained.  Judged after every (seed, fold)."""
    max_hours: float | None = None
    """Begin no (seed, fold) that cannot be expected to end within so many hours of this command,
    so that all losses have the same ones; what still runs then is stopped as by SIGTERM (status
    143)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_hours is not None and not 0 < self.max_hours < math.inf:
            raise ValueError(f"--max-hours {self.max_hours:g}: expected hours, more than 0")
        if self.max_hours is not None and self.until_decided:
            raise ValueError("--max-hours and --until-decided: both say when to stop; choose one")


def cohort_objects(asked: Sequence[str], data: Path, reading: Reading) -> list[Cohort]:
    """The cohorts of these names, or else those that are there.

    Raises:
        ValueError: a name is unknown, or none is given and none is there.
    """
    from lesion_core.cohorts import Simulated, cohorts_found

    try:
        names = asked or tuple(cohorts_found(data))
    except ValueError as error:
        raise ValueError(
            f"{error}; or try --demo or --cohorts simulated, or prepare a download with "
            "`python -m lesion_core.prepare`"
        ) from None
    demo = Simulated(name=DEMO, kind="wmh", num_cases=6, seed=1, voxel_scale=4.0)
    return [
        demo if name == DEMO else reading.cohort_in(data, name) for name in dict.fromkeys(names)
    ]


DEMO_GRID = PaperGrid(
    cohorts=(DEMO,),
    results=Path("results/demo"),
    seeds=PAPER_SEEDS[:2],
    folds=2,
    epochs=5,
    batch_size=2,  # small steps, or a minute's training would be over before it learned
    filters=(8, 16, 32),
    learning_rate=5e-3,
)
"""The defaults of the other flags under --demo."""


def main(arguments: Sequence[str]) -> int:
    """Run the grid that the flags ask for; returns the exit status."""
    default = DEMO_GRID if "--demo" in arguments else PaperGrid()
    return run_grid(read_grid(PaperGrid, arguments, default))


def read_grid(kind: type[G], arguments: Sequence[str], default: G) -> G:
    """Read a grid's flags; ValueError where one says what --vary or --arms says too."""
    grid = without_demo_filters(command.read_flags(kind, arguments, default), arguments)
    refuse_flagged(grid, arguments)
    if grid.vary or grid.arms:
        refuse_unread(arguments, [arm.settings for arm in grid.asked_arms])
    return grid


def run_grid(grid: PaperGrid) -> int:
    """Run the grid, or say what would run; returns the exit status."""
    grid.check_reporting()
    plan = plan_of(grid)
    if grid.max_hours is not None:
        return run_within_hours(grid, plan, grid.max_hours)
    if not grid.until_decided:
        return run_plan(grid, plan, report=not grid.no_report, training_effect=grid.training_effect)
    from sweeps.until_decided import Rule

    rule = Rule(plan, grid.training_effect)
    if grid.dry_run:
        return rule.dry_run(grid, retry_failed=grid.retry_failed)
    status = run_plan(
        grid, rule.as_plan(), report=not grid.no_report, training_effect=grid.training_effect
    )
    print(rule.summary())
    return status


def run_within_hours(grid: PaperGrid, plan: SweepPlan, hours: float) -> int:
    """Run what of the plan ends in time, or say what would run; returns the exit status."""
    from sweeps.sweep import build_report
    from sweeps.within_hours import Limit

    limit = Limit(plan, hours, grid)
    if grid.dry_run:
        return limit.dry_run(grid, retry_failed=grid.retry_failed)
    with limit.enforced():
        status = limit.as_plan().run(grid, grid, retry_failed=grid.retry_failed, report=False)
    print(limit.summary())
    none = limit.none_is_done
    reported = grid.no_report or none or build_report(grid.results, grid.training_effect)
    return status if reported else max(1, status)


def plan_of(grid: Grid) -> SweepPlan:
    """Look through the data of a grid, say who is tested with whom, and list its trials.

    Raises:
        ValueError: a flag that cannot be, or data that cannot be read.
    """
    for flag in ("losses", "seeds"):
        if not getattr(grid, flag):
            raise ValueError(f"--{flag} is empty; name at least one")
    from sweeps.sweep import SweepPlan

    arms, settings = grid.asked_arms, grid.own_settings  # mistakes show before the data are read
    data = [Data.of(cohort, grid.data, grid.fold_rule) for cohort in grid.cohort_objects()]
    for cohort in data:
        print(cohort.fold_table(grid.folds))
    trials = grid.trials(data)
    by_arm = {(arm.loss, arm.settings): arm.label for arm in arms if arm.label is not None}
    keys = {trial.name: (trial.loss, trial.settings) for trial in trials} if by_arm else {}
    labels = {name: label for name, key in keys.items() if (label := by_arm.get(key))}
    return SweepPlan(trials, data, settings, grid.folds, grid.results, labels=labels)


def run_plan(
    grid: Grid, plan: SweepPlan, *, report: bool = False, training_effect: str = ""
) -> int:
    """Run what a grid's plan lists, or say what would run; returns the exit status."""
    if grid.dry_run:
        return plan.dry_run(grid, retry_failed=grid.retry_failed)
    return plan.run(
        grid, grid, retry_failed=grid.retry_failed, report=report, training_effect=training_effect
    )


if __name__ == "__main__":
    command.process(main, supervised=True)
