"""One trial without Ray: the debugging door.

    python sweeps/train_one.py --cohort wmh2017 --loss focal1 --seed 42 --fold 0

Same ledger, same bits as in a sweep with as many --cpus-per-trial.  A breakpoint works, a
traceback is the whole one, and a trial that was stopped goes on from its newest epoch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

from lesion_core import stopping
from lesion_core.cohorts.reading import ReadingInSpace
from sweeps import command, provenance
from sweeps.data import Data, request
from sweeps.ledger.contents import described
from sweeps.ledger.gradients import add_gradients
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock
from sweeps.options import Training, check_grace
from sweeps.tracking.policy import Logging, Mode
from sweeps.trials.attempt import attempt


@dataclass(frozen=True, kw_only=True)
class TrainOne(Training, Logging, ReadingInSpace):
    """Train one network, here and now.

    Exit status: 0 done, 1 failed, 2 wrong input.
    """

    cohort: str
    """wmh2017, lit, simulated, simulated_lit, nnunet:FOLDER, bids:FOLDER (:nonzero behind it if the
    images are skull-stripped), or a folder below --data (with --channels)."""
    data: Path = Path("data")
    """Folder that holds the cohort's folder."""
    results: Path = Path("results/train_one")
    """Folder for what the trial produces; may be that of a sweep with the same settings."""
    loss: str = "xent"
    """A name, a name with fields such as focal(alpha=0.3,gamma=1.5), or module:name."""
    seed: int = 42
    """With the fold, decides initial weights and batch order."""
    fold: int = 0
    """Which fold is tested, from 0."""
    folds: int = 5
    """Folds of the cross-validation."""
    fold_rule: str = "strided"
    """Who is tested with whom: strided (as the authors), site (every site in all folds), or a
    .json file such as nnU-Net's splits_final.json."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    cpus_per_trial: int = 1
    """Threads.  On a CPU, another number gives other last digits."""
    grace_s: float = 20.0
    """Seconds in which it may leave a checkpoint when a signal stops the command."""
    wandb: Mode = "disabled"
    """Weights & Biases."""


def main(arguments: Sequence[str]) -> int:
    """Train one network; returns the exit status."""
    flags = command.read_flags(TrainOne, arguments)
    if flags.cpus_per_trial < 1:
        raise ValueError(f"--cpus-per-trial {flags.cpus_per_trial}: expected 1 or more")
    check_grace(flags.grace_s)
    settings = flags.settings()
    device = _device(flags.device)
    from lesion_core.cohort_rows import describe
    from lesion_core.losses import loss_named
    from lesion_core.losses.gradients import TypicalPatch
    from lesion_core.training.precision import check_deterministic, check_precision
    from lesion_core.trial import Trial

    check_precision(settings.precision, device)
    check_deterministic(settings.deterministic, device)
    data = Data.of(flags.cohort_in(flags.data, flags.cohort), flags.data, flags.fold_rule)
    for remark in data.remarks:
        print(remark)
    if not 0 <= flags.fold < flags.folds:
        raise ValueError(f"--fold {flags.fold}: expected 0 to {flags.folds - 1}")
    trial = Trial(
        cohort=data.name,
        fingerprint=data.fingerprint,
        loss=loss_named(flags.loss),
        seed=flags.seed,
        fold=flags.fold,
        num_folds=flags.folds,
        settings=settings,
        test_cases=data.test_cases(flags.folds)[flags.fold],
    )
    data.check_settings(settings, on_gpu=device == "cuda")
    data.check_losses([trial])
    tracking = flags.tracking(flags.results)
    folder = flags.results / "trials" / trial.name
    with Lock(flags.results, provenance.command_line()) as lock:
        ledger = Ledger(flags.results, lock.token)
        asked = request([trial], [data], settings, flags.folds)
        ledger.refuse_other_sweep(asked)
        if not ledger.left_to_run([trial.name], retry_failed=True):
            ledger.write_request(asked)
            ledger.drop_leftovers()
            print(f"nothing to do: {folder} is done")
            return 0
        loaded = data.load(settings.patch_size, [trial])
        ledger.write_request(asked)  # not before: images that cannot be used leave no trace
        ledger.write_files(tracking.to_remember())
        ledger.write_cohort(data.name, *describe(loaded))
        add_gradients(ledger, [trial.loss], lambda: TypicalPatch.of(loaded, settings))
        with stopping.graceful(threading.Event().wait, flags.grace_s):
            done = attempt(
                described(trial),
                lambda: loaded,
                ledger,
                device=device,
                threads=flags.cpus_per_trial,
                tracking=tracking,
                echo=True,
                stop=stopping.is_asked,
            )
    if hint := tracking.hint(flags.results):
        print(hint)
    print(f"{'done' if done else 'failed'}: {folder}")
    return 0 if done else 1


def _device(asked: str) -> str:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU is usable here; use --device cpu")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


if __name__ == "__main__":
    command.process(main)
