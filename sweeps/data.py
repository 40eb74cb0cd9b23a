"""A cohort on disk, and what sweep.json says of the cohorts and trials of a sweep."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lesion_core.arms import differing
from sweeps import provenance
from sweeps.ledger.contents import ActivityEntry, CohortEntry, SweepRequest

if TYPE_CHECKING:
    from lesion_core.cohorts import Case, Cohort
    from lesion_core.descriptions import TrialRow
    from lesion_core.images import LoadedCohort
    from lesion_core.networks.fitting import NetworkSize
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
        from lesion_core.cohorts import cases_as_read
        from lesion_core.fingerprint import fingerprint

        members = tuple(cases_as_read(cohort, folder))
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
        """Who is tested with whom, for people, and how the cases were found."""
        from lesion_core.folds import fold_table

        title = f"{self.name}: {len(self.cases)} cases, fold rule {self.fold_rule}"
        return "\n".join([title, *self.remarks, fold_table(self.folds(num_folds), self.members)])

    @property
    def remarks(self) -> list[str]:
        """How the cases were found, where there was a choice, and warnings (`Layout.remarks`)."""
        return self.cohort.remarks(self.folder, self.members)

    def check_settings(self, settings: TrainSettings, *, on_gpu: bool = True) -> NetworkSize:
        """The size of the settings' network, if it fits these images (`networks.fitting.check`),
        and an augmentation of somebody's own does too.

        Raises:
            ValueError: one does not.
        """
        from lesion_core.augment import augmentation_named
        from lesion_core.augment.user import ImportedAugmentation
        from lesion_core.networks.fitting import check

        channels = len(self.cohort.channels)
        augmentation = augmentation_named(settings.augment)
        if isinstance(augmentation, ImportedAugmentation):
            augmentation.try_on(channels, settings.patch_size)
        return check(settings, channels, on_gpu=on_gpu)

    def check_losses(self, trials: Iterable[Trial]) -> None:
        """Raise ValueError for a loss that fails on what other networks than the paper's make."""
        from lesion_core.networks.fitting import check_loss
        from lesion_core.networks.names import PAPER_NETWORK

        others = [each for each in trials if each.settings.network != PAPER_NETWORK]
        for loss, size in dict.fromkeys((each.loss, each.settings.patch_size) for each in others):
            check_loss(loss, size)

    @property
    def name(self) -> str:
        """The cohort's name."""
        return self.cohort.name

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel size that every case is resampled to; None: its own."""
        return self.members[0].spacing_mm if self.members else None

    def load(self, patch_size: int | None = None, trials: Iterable[Trial] = ()) -> LoadedCohort:
        """Read every image, and note what is unusual (for patches of this size, if one is given).

        Raises:
            ValueError: a case cannot be used, none has a lesion, a file has changed, or one of
                these trials has nothing to train on (`trainable.refuse_untrainable`).
        """
        from lesion_core.cohort_rows import ignored_lines
        from lesion_core.cohorts.labels import label_lines
        from lesion_core.cohorts.spacing import spacing_lines
        from lesion_core.images import load_cohort
        from lesion_core.trainable import refuse_untrainable
        from lesion_core.unusual import noted

        begun = time.monotonic()
        loaded = noted(load_cohort(self.cohort, self.folder), patch_size)
        if loaded.fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.folder / self.name}: the files change while they are read; wait until "
                "they are complete"
            )
        if not any(image.num_lesions for image in loaded.images):
            ignored = any(image.ignore is not None for image in loaded.images)
            raise ValueError(
                f"{self.folder / self.name}: no case has a lesion voxel"
                + (" that is not to be ignored" if ignored else "")
                + "; check the masks, and --lesion-label if it was given"
            )
        refuse_untrainable([each for each in trials if each.cohort == self.name], loaded)
        size = sum(image.voxels.nbytes for image in loaded.images) / 1e9
        print(
            f"{self.name}: {len(loaded.images)} cases, {size:.1f} GB, "
            f"read in {time.monotonic() - begun:.0f} s"
        )
        labels = label_lines(case.labels for case in self.members)
        for line in (*labels, *spacing_lines(self.members), *ignored_lines(loaded)):
            print(f"  {line}")
        odd = [f"{image.case}: {line}" for image in loaded.images for line in image.warnings]
        for warning in odd[:3]:
            print(f"  warning: {warning}")
        if len(odd) > 3:
            print(f"  and {len(odd) - 3} more warnings, listed in the report")
        return loaded


def request(
    trials: Sequence[Trial],
    data: Sequence[Data],
    settings: TrainSettings,
    num_folds: int,
    labels: Mapping[str, str] | None = None,
) -> SweepRequest:
    """What sweep.json shall say of these trials (`Ledger.write_request`).

    ``settings`` are the sweep's own, from which those of trials may differ; ``labels`` are what
    somebody calls the arms of trials, by name.
    """
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
        "cohorts": {cohort.name: _entry(cohort) for cohort in data},
        "trials": [listed(trial, settings, (labels or {}).get(trial.name)) for trial in trials],
    }
    for cohort in data:
        if cohort.spacing_mm is not None:
            asked["cohorts"][cohort.name]["spacing_mm"] = list(cohort.spacing_mm)
    if not validation:
        del asked["validation"]
    return asked


def listed(trial: Trial, settings: TrainSettings, label: str | None = None) -> TrialRow:
    """A trial as sweep.json lists it, with what of its settings is not as the sweep's."""
    row = trial.row()
    if own := differing(asdict(trial.settings), asdict(settings)):
        row["settings"] = own
    if label is not None:
        row["label"] = label
    return row


def _entry(data: Data) -> CohortEntry:
    """What sweep.json shall say of a cohort."""
    from lesion_core.cohorts import activity_in, brain_methods, cohort_to_dict
    from lesion_core.folds import rule_label

    entry: CohortEntry = {
        "fingerprint": data.fingerprint,
        "channels": list(data.cohort.channels),
        "num_cases": len(data.cases),
        "definition": cohort_to_dict(data.cohort),
        "fold_rule": rule_label(data.fold_rule),
        "brain": dict(Counter(brain_methods(data.cohort, data.folder, data.members).values())),
    }
    if masks := [remark for remark in data.remarks if not remark.startswith("warning: ")]:
        entry["masks"] = masks
    if activity := activity_in(data.folder / data.name):
        entry["activity"] = cast(ActivityEntry, activity.summary(data.cases))
    return entry
