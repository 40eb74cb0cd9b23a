"""A search over numbers and choices of a training, by default the focal loss's alpha and gamma.

    python sweeps/alpha_gamma.py --address auto     on a running Ray cluster
    python sweeps/alpha_gamma.py --demo             a small simulated cohort, minutes on two cores

Every configuration is judged on validation parts of the training folds, over seeds and folds; the
best one is then tested beside the paper's losses.  The same command again goes on where it
stopped; a larger --configurations adds to what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

from lesion_core.cohorts.reading import Reading
from lesion_core.paths import is_there
from lesion_core.search_space import corners, grid_points, written
from lesion_core.settings import PAPER_SEEDS
from sweeps import command
from sweeps.data import Data, request
from sweeps.ledger.contents import Evaluation, SearchContent, SweepRequest
from sweeps.options import Machines, Reporting, Training, refuse_unread, without_demo_filters
from sweeps.paper_grid import DEMO, cohort_objects
from sweeps.searching.optuna_study import Sampler, StopTrials
from sweeps.tracking.policy import Logging

if TYPE_CHECKING:
    from lesion_core.search_space import Value
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial
    from sweeps.ledger.ledger import Ledger
    from sweeps.searching.fields import Searched
    from sweeps.searching.plan import Cell, SearchPlan
    from sweeps.searching.search import Search

JOURNAL = "search-journal.log"
"""For optuna-dashboard; follows search.json."""

EVALUATION: Evaluation = {"evaluate_on": "held_out", "evaluate_at": "last"}
"""Of the search's own trials: nothing reads more of them than the last scores of their validation
part.  The trials that are tested are evaluated as ``--evaluate-on`` and ``--evaluate-at`` say."""

EVERY_EPOCH: Evaluation = {"evaluate_on": "held_out", "evaluate_at": "every"}
"""The same where trials may be given up by their validation curves."""

ORDER_SEED = 1
"""Decides the order in which every configuration meets the cells."""


@dataclass(frozen=True, kw_only=True)
class AlphaGamma(Training, Machines, Logging, Reading, Reporting):
    """Search for the numbers of a loss, or settings of a training, that segment best, honest about
    noise.

    Exit status: 0 every trial done, 1 some failed, 2 wrong input.
    """

    data: Path = Path("data")
    """Folder that holds the cohort's folder."""
    results: Path = Path("results/alpha_gamma")
    """Folder for what trials produce; the same folder again goes on."""
    cohorts: tuple[str, ...] = ()
    """One of wmh2017, lit, simulated, simulated_lit, nnunet:FOLDER, bids:FOLDER (:nonzero behind it
    if the images are skull-stripped and have no brain masks), or a folder below --data (with
    --channels); default: the one that is there."""
    image_space: str = ""
    """Of a BIDS dataset: the space entity of images and masks; default: images without one."""
    loss: str = "focal"
    """Whose numbers vary: focal, new, tversky, ... or module:name of your own (with --space)."""
    space: tuple[str, ...] = ()
    """Fields of the loss or of the training, and where to look, such as: alpha=0.1:0.9
    learning_rate=1e-5:1e-2:log batch_size=4:32 precision=fp32,bf16; others keep their value.
    Behind one, @FIELD=CHOICE searches it only where another field has that choice.  Default: what
    the loss declares; of focal alpha in (0, 1) and gamma in [0, 5]."""
    configurations: int = 40
    """How many to try in all; more than before adds to them.  Of a grid: at most."""
    objective: Literal["dice", "sensitivity+precision"] = "dice"
    """What to maximise, a mean over validation cases; of two, the front is kept, nothing is pruned,
    and the one on it with the best Dice is tested."""
    sampler: Sampler = "tpe"
    """Who proposes: tpe (multivariate, constant liar), gp, cmaes, random, or a grid."""
    prune_p: float = 0.1
    """Give a configuration up when Wilcoxon's test against the best, cell by cell, is below this
    (four cells at least); 0 never does."""
    stop_trials: StopTrials = "never"
    """Give a trial up in the middle, and its configuration, by its validation curve against others
    on the same cell: median, or hyperband.  Saves time, and is unfair to slow starters."""
    seeds: tuple[int, ...] = PAPER_SEEDS
    """Each configuration is judged on every seed in every fold."""
    folds: int = 5
    """Folds of the cross-validation; a fifth of each training part is held out to judge on."""
    fold_rule: str = "strided"
    """Who is tested with whom: strided (as the authors), site (every site in all folds), or a
    .json file such as nnU-Net's splits_final.json."""
    compare: tuple[str, ...] = ("focal1", "focal2", "xent")
    """Losses that the best configuration is tested beside, on the same seeds and folds."""
    confirm_seeds: tuple[int, ...] = ()
    """Fresh seeds on which the best configuration and --compare are judged once more: the score
    that won the search is too good, by luck."""
    retry_failed: bool = False
    """Run trials again that failed by their own fault."""
    dry_run: bool = False
    """Only say what would run, what is done, and how many hours it would take at most."""
    demo: bool = False
    """A short search on a small simulated cohort with a narrow network, in minutes."""

    @property
    def bids_space(self) -> str:
        """What was given as --image-space: --space is what is searched."""
        return self.image_space

    def cohort_data(self) -> Data:
        """The one cohort to search on.

        Raises:
            ValueError: it is not exactly one, or cannot be read.
        """
        found = cohort_objects(self.cohorts, self.data, self)
        if len(found) != 1:
            names = " ".join(cohort.name for cohort in found)
            raise ValueError(f"a search is over one cohort; found {names}: name one by --cohorts")
        return Data.of(found[0], self.data, self.fold_rule)

    def plan(self, cohort: str) -> SearchPlan:
        """What these flags ask to be searched.

        Raises:
            ValueError: flags that contradict each other, or a loss that refuses such numbers.
        """
        from lesion_core.losses import loss_named
        from sweeps.searching.plan import SearchPlan, shuffled_cells

        found = self.searched()
        if self.configurations < 1:
            raise ValueError(f"--configurations {self.configurations}: expected 1 or more")
        if self.stop_trials != "never" and "+" in self.objective:
            raise ValueError(
                f"--stop-trials {self.stop_trials}: of two objectives nothing is given up; leave "
                "it out, or search for dice"
            )
        if not 0 <= self.prune_p < 1:
            raise ValueError(f"--prune-p {self.prune_p:g}: expected 0 or more, below 1")
        if not self.seeds:
            raise ValueError("--seeds is empty; name at least one")
        again = [seed for seed in self.confirm_seeds if seed in self.seeds]
        if again:
            raise ValueError(
                f"--confirm-seeds {again[0]}: the search has used it; name seeds that are not "
                "among --seeds"
            )
        for name in self.compare:
            loss_named(name)
        number = self.configurations
        if self.sampler == "grid":  # the largest whole one within the budget
            number = len(grid_points(found.space, number))
        return SearchPlan(
            cohort=cohort,
            loss=found.family(),
            space=found.space,
            objectives=tuple(self.objective.split("+")),
            cells=tuple(shuffled_cells(self.seeds, self.folds, ORDER_SEED)),
            configurations=number,
            sampler=self.sampler,
            prune_p=self.prune_p,
            comparators=tuple(dict.fromkeys(self.compare)),
            confirm_seeds=tuple(dict.fromkeys(self.confirm_seeds)),
            first=found.named_points(),
            own=found.unsearched(),
            evaluation=EVALUATION if self.stop_trials == "never" else EVERY_EPOCH,
            stop_trials=self.stop_trials,
        )

    def searched(self) -> Searched:
        """The fields that vary, with the loss and the settings in which they do.

        Raises:
            ValueError: as `fields.searched` does.
        """
        from lesion_core.losses import loss_named
        from sweeps.searching.fields import searched

        return searched(loss_named(self.loss), self, self.space)


@dataclass(frozen=True)
class SearchSetup:
    """What a search over one cohort needs to make trials, and to begin or go on."""

    plan: SearchPlan
    searched: Searched
    data: Data
    folds: int
    results: Path

    @cached_property
    def settings(self) -> TrainSettings:
        """How networks are trained where a search does not say otherwise."""
        return self.searched.settings_of({})

    def trial(self, asked: Mapping[str, Value] | str, cell: Cell, validation: bool) -> Trial:
        """The trial of a configuration's values, or of a comparator's name, in a cell: with a
        validation part or on the test fold."""
        from lesion_core.losses import loss_named
        from lesion_core.trial import Trial

        compared = isinstance(asked, str)
        return Trial(
            cohort=self.data.name,
            fingerprint=self.data.fingerprint,
            loss=loss_named(asked) if compared else self.searched.loss_of(asked),
            seed=cell.seed,
            fold=cell.fold,
            num_folds=self.folds,
            settings=self._settings_of({} if compared else asked, validation),
            test_cases=self._test_cases[cell.fold],
            validation_cases=self._validation_cases[cell.fold] if validation else None,
        )

    @property
    def may_run(self) -> list[Trial]:
        """Trials that stand for all that there may be: at the ends of the space, and those that it
        is compared with, in every fold (`SweepPlan.may_run`)."""
        cells = list({cell.fold: cell for cell in self.plan.cells}.values())
        asked = [*corners(self.plan.space), *self.plan.comparators]
        return [
            self.trial(each, cell, validation)
            for each, cell in product(asked, cells)
            for validation in ((False,) if isinstance(each, str) else (True, False))
        ]

    def _settings_of(self, values: Mapping[str, Value], validation: bool) -> TrainSettings:
        """Settings of a trial of these values; the search's own are evaluated in their own way."""
        settings = self.searched.settings_of(values)
        return replace(settings, **self._evaluation) if validation else settings

    @cached_property
    def _evaluation(self) -> Mapping[str, Any]:
        """What the search's own trials are evaluated on, and when: of a search that goes on what it
        began with, since other ones would be other trials."""
        from sweeps.searching.store import read_search

        stored = read_search(self.results)
        plan = self.plan if stored is None else self.plan.joined_with(stored)
        return plan.evaluation or {}

    @cached_property
    def _test_cases(self) -> list[tuple[str, ...] | None]:
        return self.data.test_cases(self.folds)

    @cached_property
    def _validation_cases(self) -> list[tuple[str, ...]]:
        return self.data.validation_cases(self.folds)

    def agree_with(self, stored: SearchContent) -> None:
        """Raise ValueError if the folder holds another search."""
        if stored["configurations"] and (differences := self.plan.differences(stored)):
            raise ValueError(
                f"{self.results} holds another search: {'; '.join(differences)}; choose another "
                "folder with --results, or ask for the same"
            )

    def search(self, ledger: Ledger, retry_failed: bool) -> Search:
        """Begin the search, or go on where the ledger says it is (`SweepPlan.supply`)."""
        from sweeps.searching.optuna_study import OptunaStudy
        from sweeps.searching.search import Search
        from sweeps.searching.store import LedgerStore, read_search

        stored = read_search(self.results)
        if stored is not None:
            self.agree_with(stored)
        study = OptunaStudy(
            self.results / JOURNAL,
            f"{self.plan.cohort} {self.plan.loss}",
            self.plan.space,
            sampler=self.plan.sampler,
            objectives=self.plan.objectives,
            prune_p=self.plan.prune_p,
        )
        held_out = {str(fold): list(cases) for fold, cases in enumerate(self._validation_cases)}
        asked: SweepRequest = {
            **request([], [self.data], self.settings, self.folds),
            "validation": {self.data.name: held_out},
        }
        search = Search(self.plan, study, LedgerStore(ledger, asked, self.settings), self.trial)
        search.resume(stored, retry_failed=retry_failed)
        return search


DEMO_SEARCH = AlphaGamma(
    cohorts=(DEMO,),
    results=Path("results/demo_search"),
    configurations=8,
    seeds=PAPER_SEEDS[:3],
    folds=2,
    epochs=4,
    batch_size=2,  # small steps, or a minute's training would be over before it learned
    filters=(8, 16),
    learning_rate=5e-3,
)
"""The defaults of the other flags under --demo."""


def main(arguments: Sequence[str]) -> int:
    """Search, or say what would be searched; returns the exit status."""
    default = DEMO_SEARCH if "--demo" in arguments else AlphaGamma()
    flags = without_demo_filters(command.read_flags(AlphaGamma, arguments, default), arguments)
    found = flags.searched()  # mistakes show before the data are read
    settings = found.settings_of({})
    refuse_unread(arguments, found.all_settings())
    flags.check_reporting()
    flags.plan("")
    from sweeps.sweep import SweepPlan

    data = flags.cohort_data()
    print(data.fold_table(flags.folds))
    plan = flags.plan(data.name)
    setup = SearchSetup(plan, found, data, flags.folds, flags.results)
    sweep = SweepPlan(
        (), [data], settings, flags.folds, flags.results, setup.search, may_run=setup.may_run
    )
    if flags.dry_run:
        sweep.check_settings()
        return dry_run(setup, flags)
    is_new = not is_there(flags.results / JOURNAL)
    try:
        status = sweep.run(
            flags,
            flags,
            retry_failed=flags.retry_failed,
            report=not flags.no_report,
            training_effect=flags.training_effect,
        )
    except ValueError:
        if is_new:
            drop_unbegun(flags.results)
        raise
    print(summary(flags.results))
    print(f"all configurations: optuna-dashboard {flags.results / JOURNAL}")
    return status


def drop_unbegun(results: Path) -> None:
    """Take the journal of a search away that was refused before it began, and its empty folder."""
    from sweeps.searching.store import read_search

    if read_search(results) is not None:
        return
    (results / JOURNAL).unlink(missing_ok=True)
    with suppress(OSError):
        results.rmdir()


def dry_run(setup: SearchSetup, machines: Machines) -> int:
    """Print what is done, and what is left at most; writes nothing."""
    from sweeps import estimate
    from sweeps.ledger.ledger import Ledger
    from sweeps.searching.store import read_search

    plan = setup.plan
    asked = request([], [setup.data], setup.settings, setup.folds)
    Ledger(setup.results).refuse_other_sweep(asked)
    stored = read_search(setup.results)
    if stored is not None:
        setup.agree_with(stored)
    begun = stored["configurations"] if stored is not None else []
    ended = sum(each["state"] != "running" for each in begun)
    left = max(0, plan.configurations - ended) * len(plan.cells)
    left -= sum(len(each["trials"]) for each in begun if each["state"] == "running")
    # The best one, each fold's own best and what they are compared with are tested in every cell.
    end = (2 + len(plan.comparators)) * len(plan.cells)
    end += (1 + len(plan.comparators)) * len(plan.confirm_seeds) * setup.folds
    hours = ""
    if left:
        trials = [setup.trial({}, plan.cells[0], True)] * (left + end)
        hours = estimate.predicted(trials, [setup.data], machines, setup.results, setup.may_run)
    print(
        f"{setup.results}: {ended} of {plan.configurations} configurations have ended; each is "
        f"judged on {len(plan.cells)} cells at most"
    )
    for name, where in plan.space.items():
        print(f"    {name} in {where}")
    print(f"would run at most {left} trials to search, less what is pruned")
    print(
        f"then at most {end}: the best ones and {' '.join(plan.comparators)} on the test folds"
        f"{' and on fresh seeds' if plan.confirm_seeds else ''}"
    )
    if hours:
        print(hours)
    return 0


def summary(results: Path) -> str:
    """What a search has found, in a few lines."""
    from sweeps.searching.fields import SETTINGS
    from sweeps.searching.store import read_search

    search = read_search(results)
    assert search is not None
    by_number = {each["number"]: each for each in search["configurations"]}
    cells = len(search["cells"])
    run = sum(len(each["trials"]) for each in by_number.values())
    pruned = [each for each in by_number.values() if each["state"] == "pruned"]
    lines = [
        f"{len(by_number)} configurations took {run} trials; {len(pruned)} were pruned, which "
        f"saved {sum(cells - len(each['trials']) for each in pruned)}"
    ]
    if given_up := sum(len(each.get("stopped", ())) for each in by_number.values()):
        lines[0] += f"; {given_up} trials were given up in the middle"
    chosen = search["chosen"]
    best = None if chosen is None else by_number.get(chosen)
    score = None if best is None else best["score"]
    if best is None or score is None:
        lines.append(
            "nothing is chosen yet: no configuration is complete, or some still run or lost their "
            "machines; the same command goes on"
        )
        return "\n".join(lines)
    scores = ", ".join(f"{name} {score[name]:.3f}" for name in search["objectives"])
    own = [f"{n}={written(value)}" for n, value in best["values"].items() if n in SETTINGS]
    lines.append(
        f"best: {', '.join([best['loss'], *own])}, validation {scores}; the best of many is "
        "partly lucky, the report says how much"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    command.process(main, supervised=True)
