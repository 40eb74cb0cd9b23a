"""What a sweep costs besides training: per trial, at its start, and when there is nothing to do."""

from __future__ import annotations

import dataclasses
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.settings import PAPER_LOSSES
from sweeps.bench.timing import Row
from sweeps.data import Data, request
from sweeps.distributed.cluster import Cluster, connected
from sweeps.ledger.contents import Summary, described
from sweeps.options import Machines
from sweeps.provenance import ROOT
from sweeps.tracking.policy import Tracking
from sweeps.trials.supply import FixedSupply

if TYPE_CHECKING:
    from lesion_core.trial import Trial

NUM_SHORT, NUM_TINY = 250, 10_000
CHECKPOINTS = bytes(35_000_000), bytes(2_200_000)
"""Two sizes: those of the paper's network with Adam, and of one of a quarter of its width."""

UNTRACKED = Tracking(mode="disabled", group="bench")


def sweep(device: str) -> Iterator[Row]:
    """Stand-ins for training on a Ray of this machine; the commands as their users give them.

    Nothing here runs on a GPU, whatever the device.
    """
    before = os.environ.get("LESION_CACHE")
    with tempfile.TemporaryDirectory(prefix="lesion-bench-") as scratch:
        place = Path(scratch)
        os.environ["LESION_CACHE"] = str(place / "cache")  # not the user's own; children inherit it
        with connected(Machines(quiet=True, gpus_per_trial=0)) as cluster:
            yield from _short(cluster, place / "short")
            yield from _long(cluster, place / "long")
            yield from _many(cluster, place / "many")
        yield from _commands(place)
    if before is None:
        del os.environ["LESION_CACHE"]
    else:
        os.environ["LESION_CACHE"] = before


# ---------------------------------------------------------------------- stand-ins for trial.run
def nothing(
    trial: Trial,
    cohort: Any,
    *,
    on_epoch: Callable[[Any], None],
    checkpoint_every: int = 1,
    **rest: Any,
) -> Summary:
    """Reports epochs 0 and 1 of one case, and all that a trial must leave; trains nothing."""
    for epoch in range(trial.settings.epochs + 1):
        on_epoch(_report(trial, epoch, None if epoch % checkpoint_every else b"checkpoint"))
    return _summary(trial)


def a_minute(
    trial: Trial,
    cohort: Any,
    *,
    on_epoch: Callable[[Any], None],
    checkpoint_every: int = 1,
    **rest: Any,
) -> Summary:
    """Fixed work where a trial trains, about a minute in all; the seed chooses the checkpoints."""
    checkpoint = CHECKPOINTS[trial.seed % 2]
    for epoch in range(trial.settings.epochs + 1):
        due = None if epoch % checkpoint_every else checkpoint
        on_epoch(_report(trial, epoch, due, seconds_train=work()))
    return _summary(trial)


def work() -> float:
    """Products of matrices on one thread, about two seconds; returns the processor's seconds."""
    import torch

    torch.set_num_threads(1)
    begun = time.thread_time()
    factor = torch.eye(1000) * 0.5
    product = torch.ones(1000, 1000)
    for _ in range(100):
        product = product @ factor
    return time.thread_time() - begun


def _report(trial: Trial, epoch: int, checkpoint: bytes | None, seconds_train: float = 0.0) -> Any:
    from lesion_core import results
    from lesion_core.trial import EpochReport, Final

    def row(schema: Any, **values: Any) -> dict[str, Any]:
        return dict.fromkeys(schema.names) | trial.identity | {"epoch": epoch} | values

    final = None
    if epoch == trial.settings.epochs:
        final = Final(
            lesions=[row(results.LESIONS, case="a")],
            histograms=[row(results.HISTOGRAMS, case="a", lesion=[1], background=[2])],
            slices=[row(results.SLICES, case="a", prediction=b"\x01")],
            model=checkpoint or b"model",
        )
    counts = {"split": "test", "scope": "image", "case": "a", "tp": 1, "fp": 1, "fn": 1, "tn": 1}
    return EpochReport(
        epoch=epoch,
        cases=[row(results.CASES, **counts)],
        epochs=row(results.EPOCHS, seconds_train=seconds_train, seconds_evaluate=0.0),
        checkpoint=checkpoint,
        final=final,
    )


def _summary(trial: Trial) -> Summary:
    return {"epochs_done": trial.settings.epochs, "seconds": 0.0, "host": "", "device": "none"}


# ------------------------------------------------------------------------------------ the sweeps
def _trials(number: int, epochs: int) -> list[Trial]:
    from lesion_core.losses import LOSSES
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial

    first = Trial(
        cohort="none",
        fingerprint="0" * 64,
        loss=LOSSES["xent"],
        seed=0,
        fold=0,
        num_folds=2,
        settings=TrainSettings(epochs=epochs),
    )
    return [dataclasses.replace(first, seed=seed, fold=seed % 2) for seed in range(number)]


def _run(cluster: Cluster, supply: FixedSupply, results: Path, stand_in: str) -> float:
    """Run trials; returns the seconds from the first one asked for to the last in the ledger."""
    from lesion_core.images import LoadedCohort

    none = LoadedCohort(name="none", channels=(), images=[], fingerprint="0" * 64)
    begun = time.monotonic()
    cluster.run(
        supply,
        {"none": none},
        results,
        token=None,
        tracking=UNTRACKED,
        run=f"sweeps.bench.sweep:{stand_in}",
    )
    return time.monotonic() - begun


def _short(cluster: Cluster, results: Path) -> Iterator[Row]:
    supply = FixedSupply(_trials(NUM_SHORT, epochs=1))
    seconds = _run(cluster, supply, results, "nothing")
    note = f"{cluster.slots} at a time, 2 epochs of 1 case each, start of the workers included"
    yield Row(what=f"{NUM_SHORT} trials that train nothing", value=seconds, most=15, note=note)


def _long(cluster: Cluster, results: Path) -> Iterator[Row]:
    """How much of the processors' time training gets, against as many plain processes, which report
    to nobody.  Shares, since the speed of a processor changes from minute to minute."""
    epochs = 25
    code = (
        "import time; from sweeps.bench.sweep import work; work(); begun = time.monotonic()\n"
        f"spent = sum(work() for _ in range({epochs + 1}))\n"
        "print(spent / (time.monotonic() - begun))"
    )
    alone = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(cluster.slots)
    ]
    plain = statistics.mean(float(process.communicate()[0]) for process in alone)
    all_trials = _trials(4 * cluster.slots, epochs)
    for which, every in ((0, 1), (0, 5), (1, 1)):
        place = results / f"{which}-{every}"
        trials = [trial for trial in all_trials if trial.seed % 2 == which]
        machines = dataclasses.replace(cluster.machines, checkpoint_every=every)
        saving = dataclasses.replace(cluster, machines=machines)
        _run(saving, FixedSupply(trials), place, "a_minute")
        spent, seconds = _second_round(place, cluster.slots)
        size = f"checkpoints of {len(CHECKPOINTS[which]) / 1e6:.2g} MB"
        how_often = "" if every == 1 else f" every {every} epochs"
        yield Row(
            what=f"overhead of trials of a minute, {size}{how_often}",
            value=100 * (1 - spent / seconds / plain),
            unit="%",
            most=3,
            note=f"training has {spent / seconds:.1%} of {cluster.slots} cores, plain processes "
            f"{plain:.1%}; {epochs + 1} epochs, {seconds:.0f} s each, one before it on every core",
        )


def _second_round(results: Path, slots: int) -> tuple[float, float]:
    """Seconds in which every core's second trial trained, and from the first one's end to its own.

    Not those of the first, whose process has yet to import PyTorch.
    """
    import pyarrow.parquet as pq

    done = list(results.glob("trials/*/done.json"))
    done.sort(key=lambda file: file.stat().st_mtime)
    first, second = done[:slots], done[slots:]
    spent = [
        sum(pq.read_table(file.with_name("epochs.parquet"))["seconds_train"].to_pylist())
        for file in second
    ]
    ends = [sum(file.stat().st_mtime for file in files) for files in (first, second)]
    return sum(spent) / slots, (ends[1] - ends[0]) / slots


class _Watched(FixedSupply):
    """Notes this process's memory whenever another thousand trials have ended."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        super().__init__(trials)
        self.ended_at: list[float] = []
        self.memory_mb: dict[int, float] = {}

    def ended(self, name: str) -> None:
        self.ended_at.append(time.monotonic())
        if len(self.ended_at) % 1000 == 0:
            self.memory_mb[len(self.ended_at)] = _memory_mb()


def _many(cluster: Cluster, results: Path) -> Iterator[Row]:
    watched = _Watched(_trials(NUM_TINY, epochs=1))
    seconds = _run(cluster, watched, results, "nothing")
    yield Row(
        what=f"each of {NUM_TINY} trials that train nothing",
        value=1000 * seconds / NUM_TINY,
        unit="ms",
        note=f"{cluster.slots} at a time",
    )
    ends = watched.ended_at
    yield Row(
        what="the last thousand against the first",
        value=(ends[-1] - ends[-1000]) / (ends[1000] - ends[1]),
        unit="times longer",
    )
    yield Row(
        what="growth of the driver from trial 1,000 to the last",
        value=watched.memory_mb[NUM_TINY] - watched.memory_mb[1000],
        unit="MB",
        most=50,
        note=f"from {watched.memory_mb[1000]:.0f} MB",
    )


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---------------------------------------------------------------------------------- the commands
def _commands(place: Path) -> Iterator[Row]:
    _write_lit_cohort(place / "data", 10, (7, 8, 6))
    seeds = [str(seed) for seed in range(2000)]
    seconds = _command(place, "--losses", "xent", "--seeds", *seeds, "--dry-run")
    yield Row(what="--dry-run of 10,000 trials, nothing done yet", value=seconds, most=5)
    _finish(place)
    seconds = _command(place, "--losses", *PAPER_LOSSES, "--seeds", *seeds[:10], "--no-report")
    yield Row(what="a finished sweep of 350 trials, given again", value=seconds, most=5)
    yield from _first_trial(place)


def _command(place: Path, *flags: str) -> float:
    """Seconds of a command, from the shell to the shell."""
    line = [sys.executable, str(ROOT / "sweeps" / "paper_grid.py"), *flags, "--wandb", "disabled"]
    begun = time.monotonic()
    subprocess.run(line, cwd=place, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def _finish(place: Path) -> None:
    """A ledger in which 350 trials of `_command`'s grid are done, with tables of the real size."""
    from lesion_core import results
    from sweeps.ledger.ledger import Ledger
    from sweeps.paper_grid import PaperGrid

    grid = PaperGrid(data=place / "data", losses=PAPER_LOSSES, seeds=tuple(range(10)))
    data = [Data.of(cohort, grid.data) for cohort in grid.cohort_objects()]
    ledger = Ledger(place / "results" / "paper_grid")
    trials = grid.trials(data)
    ledger.write_request(request(trials, data, grid.settings(), grid.folds))
    for trial in trials:
        ledger.begin(described(trial))
        folder = ledger.path / "trials" / trial.name
        reports = [_report(trial, epoch, b"model") for epoch in range(trial.settings.epochs + 1)]
        cases = [report.cases[0] | {"case": f"c{n}"} for report in reports for n in range(108)]
        results.write_table(folder / "cases.parquet", cases, results.CASES)
        epochs = [report.epochs for report in reports]
        results.write_table(folder / "epochs.parquet", epochs, results.EPOCHS)
        for file in ("lesions", "histograms", "slices"):
            rows = getattr(reports[-1].final, file)
            results.write_table(folder / f"{file}.parquet", rows, results.TABLES[f"{file}.parquet"])
        results.write_bytes(folder / results.MODEL, b"model")
        ledger.done(trial.name, _summary(trial))


def _first_trial(place: Path) -> Iterator[Row]:
    """Time a command up to its first trial, on 60 cases of the WMH data's size, read before."""
    from lesion_core.cohorts import cohort_named
    from lesion_core.images import load_cohort

    _write_lit_cohort(place / "large", 60, (200, 220, 60))
    load_cohort(cohort_named("lit", (), place / "large"), place / "large")
    flags = ["--data", "large", "--results", "first", "--losses", "xent", "--seeds", "1"]
    line = [sys.executable, str(ROOT / "sweeps" / "paper_grid.py"), *flags, "--wandb", "disabled"]
    begun = time.monotonic()
    process = subprocess.Popen(line, cwd=place, stdout=subprocess.DEVNULL)
    while not any((place / "first").glob("trials/*/progress.json")):
        if process.poll() is not None:
            raise RuntimeError("the sweep ended before its first trial began")
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    process.send_signal(signal.SIGTERM)
    process.wait()
    yield Row(
        what="from the command to the first trial, 60 cases from the cache", value=seconds, most=20
    )


def _write_lit_cohort(data: Path, num_cases: int, shape: tuple[int, int, int]) -> None:
    """``data/lit``: noise, a brain that fills most of it, and a lesion in its middle."""
    import nibabel as nib
    import numpy as np

    image = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    brain, lesion = np.zeros((2, *shape), dtype=np.uint8)
    brain[tuple(slice(max(1, n // 10), -max(1, n // 10)) for n in shape)] = 1
    lesion[tuple(slice(2 * n // 5, 2 * n // 5 + max(2, n // 20)) for n in shape)] = 1
    for number in range(1, num_cases + 1):
        folder = data / "lit" / f"patient{number:02d}"
        folder.mkdir(parents=True)
        baseline = image + np.int16(number)  # or all cases would be one
        for name, content in (
            ("baseline_flair", baseline), ("followup_flair", image), ("brain", brain),
            ("lesion", lesion),
        ):  # fmt: skip
            nib.save(nib.Nifti1Image(content, np.eye(4)), folder / f"{name}.nii.gz")
