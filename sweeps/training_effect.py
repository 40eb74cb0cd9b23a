"""How much do other training sets move a comparison of two losses?

    python sweeps/training_effect.py --address auto     on a running Ray cluster
    python sweeps/training_effect.py --demo             a small simulated cohort, minutes

A cross-validation cannot tell: its training sets overlap.  Here every fold's training part is cut
in two halves that share nobody, both losses are trained on each, and all are tested on the same
fold.  What is left of the difference between the halves, after the luck of training, is the
training sets'; a set twice as large has half of that variance.  The report reads the answer.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

import numpy as np

from lesion_core.settings import PAPER_SEEDS
from sweeps import command
from sweeps.data import Data
from sweeps.ledger.ledger import Ledger
from sweeps.options import without_demo_filters
from sweeps.paper_grid import DEMO_GRID, Grid, plan_of, run_plan
from sweeps.provenance import command_to_show

if TYPE_CHECKING:
    from lesion_core.trial import Trial

CONFIDENCE = 0.95
"""Of the upper bound, one-sided."""
METRICS = ("dice", "sensitivity", "precision")


@dataclass(frozen=True, kw_only=True)
class TrainingEffect(Grid):
    """Train two losses on disjoint halves of every training part: what do training sets move?

    Exit status: 0 every trial done, 1 some failed, 2 wrong input.
    """

    results: Path = Path("results/training_effect")
    """Folder for what trials produce, and for training-effect.json; the same folder again goes
    on."""
    cohorts: tuple[str, ...] = ()
    """One, as of the grid; default: the one that is there."""
    losses: tuple[str, ...] = ("focal2", "xent")
    """Two: names, names with fields such as focal(alpha=0.3,gamma=1.5), or module:name."""
    seeds: tuple[int, ...] = PAPER_SEEDS[:2]
    """Trainings of each loss on each half; two or more tell luck from training sets."""
    halvings: int = 2
    """How often every training part is cut in halves anew; more of them narrow the bound."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.losses)) != 2:
            raise ValueError(f"--losses {' '.join(self.losses)}: expected two that differ")
        if len(set(self.seeds)) < 2:
            raise ValueError(
                "--seeds: expected two or more, or luck cannot be told from training sets"
            )
        if self.halvings < 1:
            raise ValueError(f"--halvings {self.halvings}: expected 1 or more")

    def trials(self, data: Sequence[Data]) -> list[Trial]:
        """Every trial; `measured` finds them again in this order."""
        if len(data) != 1:
            names = " ".join(cohort.name for cohort in data)
            raise ValueError(f"expected one cohort, found {names}: name one by --cohorts")
        from lesion_core.losses import loss_named
        from lesion_core.trial import Trial

        (cohort,), settings = data, self.settings()
        tested = cohort.test_cases(self.folds)
        halves = [cohort.training_halves(self.folds, number) for number in range(self.halvings)]
        return [
            Trial(
                cohort=cohort.name,
                fingerprint=cohort.fingerprint,
                loss=loss_named(loss),
                seed=seed,
                fold=fold,
                num_folds=self.folds,
                settings=settings,
                test_cases=tested[fold],
                training_cases=halves[number][fold][side],
            )
            for seed, fold, number, side, loss in product(*self.axes)
        ]

    @property
    def axes(self) -> tuple[Sequence[Any], ...]:
        """Seeds, folds, halvings, halves, losses, the last fastest."""
        return (
            list(dict.fromkeys(self.seeds)),
            range(self.folds),
            range(self.halvings),
            range(2),
            list(dict.fromkeys(self.losses)),
        )


DEMO = TrainingEffect(
    cohorts=DEMO_GRID.cohorts,
    results=Path("results/demo_training_effect"),
    halvings=1,
    folds=DEMO_GRID.folds,
    epochs=DEMO_GRID.epochs,
    batch_size=DEMO_GRID.batch_size,
    filters=DEMO_GRID.filters,
    learning_rate=DEMO_GRID.learning_rate,
)
"""The defaults of the other flags under --demo."""


def main(arguments: Sequence[str]) -> int:
    """Train on the halves and state the effect; returns the exit status."""
    default = DEMO if "--demo" in arguments else TrainingEffect()
    flags = without_demo_filters(command.read_flags(TrainingEffect, arguments, default), arguments)
    plan = plan_of(flags)
    print(
        f"{len(plan.trials)} trainings on half of a training part each, about the work of "
        f"{len(plan.trials) / 2:g} of a grid"
    )
    status = run_plan(flags, plan)
    if not flags.dry_run:
        print(answer(flags, [trial.name for trial in plan.trials]))
    return status


def answer(flags: TrainingEffect, names: Sequence[str]) -> str:
    """State the effect and write it to training-effect.json, once every trial is done."""
    from lesion_core.results import (
        TRAINING_EFFECT_FILE,
        json_bytes,
        judged_scores,
        read_sweep,
        subjects_of,
    )

    sweep = read_sweep(flags.results).judged_on("part")
    runs = sweep.runs.set_index("trial")
    done = [name for name in names if name in runs.index and runs.loc[name, "status"] == "done"]
    if len(done) < len(names):
        return (
            f"the training-set effect is known once all {len(names)} trials are done; "
            f"{len(done)} are"
        )
    cohort = str(runs.loc[names[0], "cohort"])
    judged = judged_scores(sweep.cases, subjects_of(flags.results, cohort))
    if missing := [name for name in names if name not in judged.index]:
        return f"no test case of {missing[0]} has a lesion: the training-set effect is unknown"
    shape = tuple(len(axis) for axis in flags.axes)
    effects = {}
    for metric in METRICS:
        values = judged.loc[list(names), metric].to_numpy(float).reshape(shape)
        effects[metric] = effect_of(values[..., 0] - values[..., 1])
    losses = list(dict.fromkeys(runs.loc[list(names), "loss"]))
    seconds = float(runs.loc[list(names), "seconds"].astype(float).sum())
    file = flags.results / TRAINING_EFFECT_FILE
    measured = {
        "cohort": cohort,
        "losses": losses,
        "seeds": list(flags.axes[0]),
        "folds": flags.folds,
        "halvings": flags.halvings,
        "trials": len(names),
        "seconds": seconds,
        "effects": effects,
    }
    Ledger(flags.results).write_files({TRAINING_EFFECT_FILE: json_bytes(measured)})
    dice = effects["dice"]
    report = command_to_show("python analysis/report.py", "report")
    return (
        f"training-set effect on {losses[0]} minus {losses[1]}, SD of DSC for whole training "
        f"sets: {dice['estimate']:.4f}, below {dice['upper']:.4f} with {CONFIDENCE:.0%} "
        f"confidence\n"
        f"    from {flags.folds * flags.halvings} differences between halves, {len(names)} "
        f"trainings, {seconds / 3600:.2g} h; the luck of one training here: "
        f"{dice['run_sd']:.4f}\n"
        "    halves are scaled by their number of patients: variance falls as 1 / n\n"
        f"{file}: {report} RESULTS --training-effect {file}"
    )


def effect_of(difference: np.ndarray) -> dict[str, float]:
    """Training-set effect from d [seeds, folds, halvings, 2], one loss minus another on each half.

    The two halves of a fold differ by D with Var(D) = 4 tau^2 + 2 run^2 / S: tau is the standard
    deviation for a whole training part, a half has twice the variance, and there are two of them.
    run^2 is the variance over seeds.  ``upper``: modified large-sample bound of a difference of two
    variances (Ting et al. 1990), one-sided.
    """
    from scipy import stats

    seeds = difference.shape[0]
    between = difference.mean(0)[..., 0] - difference.mean(0)[..., 1]
    number, within = between.size, difference[0].size * (seeds - 1)
    run = float(difference.var(0, ddof=1).mean())
    total, luck = float((between**2).mean()), 2 * run / seeds
    beyond = number / stats.chi2.ppf(1 - CONFIDENCE, number) - 1
    short = 1 - within / stats.chi2.ppf(CONFIDENCE, within)
    upper = total - luck + math.hypot(beyond * total, short * luck)
    return {
        "estimate": math.sqrt(max(total - luck, 0.0) / 4),
        "upper": math.sqrt(max(upper, 0.0) / 4),
        "confidence": CONFIDENCE,
        "run_sd": math.sqrt(run),
        "differences": number,
    }


if __name__ == "__main__":
    command.process(main, supervised=True)
