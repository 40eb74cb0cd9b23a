"""The flags that sweeps share, and the data and settings that they stand for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lesion_core.cohorts import Case, Cohort
    from lesion_core.images import LoadedCohort
    from lesion_core.training.epoch import TrainSettings
    from lesion_core.trial import Trial

ROOT = Path(__file__).resolve().parents[1]
"""The folder of our packages: the repository, or site-packages."""

INSTALLED = bool({"site-packages", "dist-packages"} & set(ROOT.parts))
"""Whether this is what pip made of the repository, and not the repository itself."""

LIBRARIES = ("torch", "ray", "numpy", "scipy", "monai", "nibabel", "pandas")
"""What computes and what schedules."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How each network is trained; the defaults are the paper's."""

    epochs: int = 25
    """Passes over the training patches."""
    batch_size: int = 16
    """Patches per step."""
    patch_size: int = 32
    """Side of the cubic patches, voxels; they overlap by half."""
    learning_rate: float = 1e-4
    """Of Adam, constant."""
    filters: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the network's levels; 8 16 32 64 is narrow and fast."""
    flip: bool = True
    """Train on every patch twice per epoch, once mirrored left-right (authors' code)."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the network's arithmetic, tf32 on GPUs only; weights and loss stay fp32."""

    def settings(self) -> TrainSettings:
        """Raises ValueError when they contradict each other."""
        from lesion_core.training.epoch import TrainSettings
        from lesion_core.unet import UNet3d

        settings = TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            patch_size=self.patch_size,
            learning_rate=self.learning_rate,
            filters=self.filters,
            flip=self.flip,
            precision=self.precision,
        )
        UNet3d(1, settings.filters)  # refuses widths that it cannot have
        return settings


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where trials run, and how much of it each one takes."""

    address: str | None = None
    """Ray cluster: auto (the one this machine belongs to) or host:port; none: this machine."""
    cpus_per_trial: int = 1
    """CPU cores, and threads, of a trial."""
    gpus_per_trial: float | None = None
    """GPUs of a trial: 1, 0, or 1/n to share one; default: 1 where there are any."""
    checkpoint_every: int = 1
    """Epochs between checkpoints: what a trial that lost its machine may have to train again."""
    retries: int = 3
    """How often a trial may lose its worker or machine; preempted machines do not count."""
    quiet: bool = False
    """Show no progress, only failures and the end."""

    def __post_init__(self) -> None:
        if self.cpus_per_trial < 1:
            raise ValueError(f"--cpus-per-trial {self.cpus_per_trial}: expected 1 or more")
        if self.checkpoint_every < 1:
            raise ValueError(f"--checkpoint-every {self.checkpoint_every}: expected 1 or more")
        if self.retries < 0:
            raise ValueError(f"--retries {self.retries}: expected 0 or more")
        gpus = self.gpus_per_trial
        if gpus and not (0 < gpus <= 1 and abs(1 / gpus - round(1 / gpus)) < 1e-6):
            raise ValueError(
                f"--gpus-per-trial {gpus:g}: expected 0, 1 or 1/n such as 0.5 or 0.25: "
                "a trial uses one GPU, or an equal share of one"
            )
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                f"--address {self.address}: Ray's client protocol is not supported; run this on a "
                "machine of the cluster, with --address auto"
            )


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
        """Raises ValueError when the cohort is not there or a file cannot be read."""
        from lesion_core.images import fingerprint

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

    def fold_table(self, num_folds: int) -> str:
        """For people, who is tested with whom."""
        from lesion_core.folds import fold_table

        title = f"{self.name}: {len(self.cases)} cases, fold rule {self.fold_rule}"
        return f"{title}\n{fold_table(self.folds(num_folds), self.members)}"

    @property
    def name(self) -> str:
        return self.cohort.name

    def load(self) -> LoadedCohort:
        """Raises ValueError at the first case that cannot be used, or if a file has changed."""
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
) -> dict[str, Any]:
    """What sweep.json shall say of these trials (`Ledger.ask`)."""
    from lesion_core.cohorts import brain_methods, cohort_to_dict
    from lesion_core.folds import rule_label

    validation: dict[str, dict[str, list[str]]] = {}
    for trial in trials:
        if trial.validation_cases is not None:
            folds = validation.setdefault(trial.cohort, {})
            folds[str(trial.fold)] = list(trial.validation_cases)
    return {
        "command": command_line(),
        "git_commit": git_commit(),
        "versions": versions(),
        "losses": list(dict.fromkeys(trial.loss_label for trial in trials)),
        "settings": settings.to_dict(),
        "num_folds": num_folds,
        "folds": {cohort.name: cohort.folds(num_folds) for cohort in data},
        **({"validation": validation} if validation else {}),
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


def refuse_fleeting(results: Path) -> None:
    """Raises ValueError for a folder that Ray deletes: a job runs in a copy of what was sent."""
    if "working_dir_files" in results.resolve().parts:
        raise ValueError(
            f"--results {results}: that is in the job's copy of the code, which Ray deletes; give "
            "a folder on the head's disk that stays, such as --results /data/results/paper_grid"
        )


def described(trial: Trial) -> dict[str, Any]:
    """What trial.json says of a trial (but the schema version)."""
    return trial.row() | {"config": json.loads(json.dumps(trial.to_dict()))}


def command_line() -> str:
    """As typed, for messages and sweep.json."""
    import shlex

    return " ".join([Path(sys.argv[0]).name, shlex.join(sys.argv[1:])]).rstrip()


def command_to_show(script: str, subcommand: str) -> str:
    """How people reach a command of ours: a clone has scripts, an installation `sweeps.cli`."""
    return f"lesion-sweep {subcommand}" if INSTALLED else script


def git_commit() -> str | None:
    """Of this code, marked if files differ from it; None outside a checkout."""
    if INSTALLED:
        return None  # and what git says there is about the project that the environment lies in
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-changed" if changes else commit


def versions() -> dict[str, str]:
    """Of what computes and what schedules."""
    import platform
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
