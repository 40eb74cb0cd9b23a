"""A cohort on disk, and what sweep.json says of the cohorts and trials of a sweep."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps import provenance
from sweeps.ledger.contents import SweepRequest

if TYPE_CHECKING:
    from lesion_core.cohorts import Case, Cohort
    from lesion_core.images import LoadedCohort
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial


@dataclass(frozen=True)
class Data:
    """A cohort on disk, looked through but not loaded."""

    cohort: Cohort
    folder: Path
    """The data folder, not the cohort's."""
    cases: list[str]
    fingerprint: str
    members: tuple[Case, ...] = ()
    """The cases' files, sites and subjects."""
    fold_rule: str = "strided"
    """See `lesion_core.folds.folds_by`."""

    @staticmethod
    def of(cohort: Cohort, folder: Path, fold_rule: str = "strided") -> Data:
        """Look through a cohort.

        Raises:
            ValueError: it is not there, or a file cannot be read.
        """
        from lesion_core.fingerprint import fingerprint

        members = tuple(cohort.cases(folder))
        cases = [case.id for case in members]
        return Data(cohort, folder, cases, fingerprint(cohort, folder), members, fold_rule)

    def folds(self, num_folds: int) -> list[list[str]]:
        """Test cases of every fold.  Raises ValueError if the rule does not fit the cases."""
        from lesion_core.folds import folds_by

        return folds_by(self.fold_rule, self.members, num_folds)

    def test_cases(self, num_folds: int) -> list[tuple[str, ...] | None]:
        """What `Trial.test_cases` shall be in every fold: None where it is the usual rule's."""
        from lesion_core.folds import test_folds

        usual = test_folds(self.cases, num_folds)
        return [
            None if own == strided else tuple(own)
            for own, strided in zip(self.folds(num_folds), usual, strict=True)
        ]

    def validation_cases(self, num_folds: int) -> list[tuple[str, ...]]:
        """What `Trial.validation_cases` shall be in every fold of a search.

        Raises:
            ValueError: a fold trains on a single subject.
        """
        from lesion_core.folds import validation_cases

        return [
            tuple(validation_cases(self.fold_rule, self.members, tested, fold))
            for fold, tested in enumerate(self.folds(num_folds))
        ]

    def training_halves(self, num_folds: int, halving: int) -> list[list[tuple[str, ...]]]:
        """The two halves of the training part of every fold (`folds.training_halves`).

        Raises:
            ValueError: a fold trains on a single subject.
        """
        from lesion_core.folds import training_halves

        return [
            [tuple(half) for half in training_halves(self.members, tested, fold, halving)]
            for fold, tested in enumerate(self.folds(num_folds))
        ]

    def fold_table(self, num_folds: int) -> str:
        """Who is tested with whom, for people."""
        from lesion_core.folds import fold_table

        title = f"{self.name}: {len(self.cases)} cases, fold rule {self.fold_rule}"
        return f"{title}\n{fold_table(self.folds(num_folds), self.members)}"

    @property
    def name(self) -> str:
        """The cohort's name."""
        return self.cohort.name

    def load(self) -> LoadedCohort:
        """Read every image.

        Raises:
            ValueError: a case cannot be used, or a file has changed.
        """
        from lesion_core.images import load_cohort

        begun = time.monotonic()
        loaded = load_cohort(self.cohort, self.folder)
        if loaded.fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.folder / self.name}: the files change while they are read; wait until "
                "they are complete"
            )
        size = sum(image.voxels.nbytes for image in loaded.images) / 1e9
        print(
            f"{self.name}: {len(loaded.images)} cases, {size:.1f} GB, "
            f"read in {time.monotonic() - begun:.0f} s"
        )
        odd = [warning for image in loaded.images for warning in image.warnings]
        for warning in odd[:3]:
            print(f"  warning: {warning}")
        if len(odd) > 3:
            print(f"  and {len(odd) - 3} more warnings, listed in the report")
        return loaded


def request(
    trials: Sequence[Trial], data: Sequence[Data], settings: TrainSettings, num_folds: int
) -> SweepRequest:
    """What sweep.json shall say of these trials (`Ledger.write_request`)."""
    from lesion_core.cohorts import brain_methods, cohort_to_dict
    from lesion_core.folds import rule_label

    validation: dict[str, dict[str, list[str]]] = {}
    for trial in trials:
        if trial.validation_cases is not None:
            folds = validation.setdefault(trial.cohort, {})
            folds[str(trial.fold)] = list(trial.validation_cases)
    asked: SweepRequest = {
        "command": provenance.command_line(),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
        "losses": list(dict.fromkeys(trial.loss_label for trial in trials)),
        "settings": settings.to_dict(),
        "num_folds": num_folds,
        "folds": {cohort.name: cohort.folds(num_folds) for cohort in data},
        "validation": validation,
        "cohorts": {
            cohort.name: {
                "fingerprint": cohort.fingerprint,
                "channels": list(cohort.cohort.channels),
                "num_cases": len(cohort.cases),
                "definition": cohort_to_dict(cohort.cohort),
                "fold_rule": rule_label(cohort.fold_rule),
                "brain": dict(
                    Counter(brain_methods(cohort.cohort, cohort.folder, cohort.members).values())
                ),
            }
            for cohort in data
        },
        "trials": [trial.row() for trial in trials],
    }
    if not validation:
        del asked["validation"]
    return asked
