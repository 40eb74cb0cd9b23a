"""From a list of trials to a finished results folder, its failures and its report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_core.paths import is_there
from sweeps import provenance
from sweeps.data import Data, request
from sweeps.ledger.contents import MaxHoursEntry, SweepRequest, UntilDecidedEntry
from sweeps.ledger.gradients import add_gradients
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock
from sweeps.options import Machines
from sweeps.provenance import ROOT
from sweeps.tracking.policy import Logging, Tracking
from sweeps.trials.supply import FixedSupply, Supply

if TYPE_CHECKING:
    from lesion_core.results import TrialStatus
    from lesion_core.settings import TrainSettings
    from lesion_core.trial import Trial

FAILURES_SHOWN = 20


@dataclass(frozen=True)
class SweepPlan:
    """What to run, and where its results go."""

    trials: Sequence[Trial]
    data: Sequence[Data]
    settings: TrainSettings
    num_folds: int
    results: Path
    supply: Callable[[Ledger, bool], Supply] | None = None
    """Makes a supply that decides on its trials itself, in place of ``trials``.

    Given the ledger, and whether trials that failed run again.
    """
    until_decided: UntilDecidedEntry | None = None
    """What sweep.json shall say of a sweep that ends when its question is decided."""
    max_hours: MaxHoursEntry | None = None
    """What sweep.json shall say of a sweep that ends within some hours."""
    may_run: Sequence[Trial] = ()
    """Trials that the supply may give, or that stand for all of them: of every way of training, on
    every training part."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What somebody calls the arms of trials, by name."""

    def run(
        self,
        machines: Machines,
        logging: Logging,
        *,
        retry_failed: bool = False,
        report: bool = True,
        training_effect: str = "",
    ) -> int:
        """Run what is not done yet; returns the exit status.

        Raises:
            ValueError: the folder holds another sweep, or is in use; no such cluster or data.
            LedgerError: the folder cannot be written.
        """
        _refuse_job_copy(self.results)
        self.check_settings()
        tracking = logging.tracking(self.results)
        if notice := tracking.notice():
            print(notice)
        with Lock(self.results, provenance.command_line()) as lock:
            ledger = Ledger(self.results, lock.token)
            self._warn_of_other_versions()
            ledger.refuse_other_sweep(self._request())
            supply = self._supply(ledger, retry_failed)
            states = ledger.states(supply.names())
            for name, state in states.items():
                if state["status"] == "corrupt":
                    print(f"{name} is damaged and runs again: {state['error']}", file=sys.stderr)
            print(f"{self.results}: {supply.in_words(states)}", flush=True)
            any_left = not supply.finished
            if any_left:
                done = sum(state["status"] == "done" for state in states.values())
                self._launch(supply, done, ledger, lock, machines, tracking)
                states = ledger.states(supply.names())
                _track_sweep(self.results, tracking)
            else:
                if states:  # else nothing was ever begun, as where no cell fits into --max-hours
                    ledger.write_request(self._request())
                    self._restore_tables(ledger)
                print("nothing to do")
            ledger.drop_leftovers()
            ledger.note_logs()
        unfinished = _print_failures(self.results, states)
        done = sum(state["status"] == "done" for state in states.values())
        print(f"{done} of {len(states)} trials are done")
        if any_left and (hint := tracking.hint(self.results)):
            print(hint)
        print(f"ledger: {self.results}")
        reported = not report or not done or build_report(self.results, training_effect)
        return 1 if unfinished or not reported else 0

    def dry_run(self, machines: Machines, *, retry_failed: bool = False) -> int:
        """Print what `run` would do, and how long it would take; writes nothing."""
        from sweeps import estimate

        self.check_settings()
        ledger = Ledger(self.results)
        ledger.refuse_other_sweep(self._request())
        trials = {trial.name: trial for trial in self.trials}
        states = ledger.states(list(trials))
        left = ledger.left_to_run(list(trials), retry_failed=retry_failed)
        rows = [trials[name] for name in left]
        predicted = estimate.predicted(rows, self.data, machines, self.results) if left else ""
        print(f"{self.results}: {FixedSupply(self.trials, left).in_words(states)}")
        for name in left:
            print(f"would run  {name}")
        if left:
            print(predicted)
        return 0

    def check_settings(self, on_gpu: bool = True) -> None:
        """Raise ValueError for settings that do not fit the images, before anything is trained.

        ``on_gpu``: False once it is known that none is used.
        """
        for data in self.data:
            for settings in self._all_settings():
                data.check_settings(settings, on_gpu=on_gpu)
            data.check_losses(self._all_trials)

    @property
    def _all_trials(self) -> list[Trial]:
        """All trials that are known, and what stands for those that are not."""
        return [*self.trials, *self.may_run]

    def _all_settings(self) -> list[TrainSettings]:
        """All ways of training."""
        own = (trial.settings for trial in self._all_trials)
        return list(dict.fromkeys([self.settings, *own]))

    def _restore_tables(self, ledger: Ledger) -> None:
        """Write what the folder says of the cohorts anew, where that is damaged or lost."""
        from lesion_core import results
        from lesion_core.cohort_rows import describe

        schemas = {"cases.parquet": results.COHORT_CASES, "slices.parquet": results.COHORT_SLICES}
        for data in self.data:
            names = {f"cohorts/{data.name}/{file}": schema for file, schema in schemas.items()}
            damaged = [name for name, schema in names.items() if not ledger.is_whole(name, schema)]
            if damaged:
                why = "damaged, missing or of an earlier release, written again"
                print(f"{', '.join(damaged)}: {why}", file=sys.stderr)
                ledger.write_cohort(data.name, *describe(data.load(self.settings.patch_size)))

    def _supply(self, ledger: Ledger, retry_failed: bool) -> Supply:
        if self.supply is not None:
            return self.supply(ledger, retry_failed)
        names = [trial.name for trial in self.trials]
        return FixedSupply(self.trials, ledger.left_to_run(names, retry_failed=retry_failed))

    def _launch(
        self,
        supply: Supply,
        already_done: int,
        ledger: Ledger,
        lock: Lock,
        machines: Machines,
        tracking: Tracking,
    ) -> None:
        from lesion_core.cohort_rows import describe
        from lesion_core.losses import loss_to_dict
        from lesion_core.losses.gradients import TypicalPatch
        from lesion_core.networks.names import network_name
        from lesion_core.training.precision import check_deterministic, check_precision
        from sweeps.distributed.cluster import connected

        stored = [loss_to_dict(loss).get("import", "") for loss in supply.losses()]
        stored += [settings.augment for settings in self._all_settings() if ":" in settings.augment]
        modules = [path.partition(":")[0] for path in dict.fromkeys(stored) if path]
        names = [network_name(settings.network) for settings in self._all_settings()]
        modules += [name.module for name in names if name.module is not None]
        modules = list(dict.fromkeys(modules))
        with connected(machines, modules) as cluster:
            device = "cuda" if cluster.gpus_per_trial else "cpu"
            for settings in self._all_settings():
                check_precision(settings.precision, device)
                check_deterministic(settings.deterministic, device)
            self.check_settings(on_gpu=bool(cluster.gpus_per_trial))
            each = f"{cluster.cpus_per_trial} CPU" + (
                f" and {cluster.gpus_per_trial:g} GPU" if cluster.gpus_per_trial else ""
            )
            supply.set_slots(cluster.slots)
            at_once = min(cluster.slots, len(supply.epochs) or cluster.slots)
            print(f"{at_once} at a time on {cluster.description}, {each} each", flush=True)
            needed = supply.cohorts()
            cohorts = {
                data.name: data.load(self.settings.patch_size, self._all_trials)
                for data in self.data
                if data.name in needed
            }
            cluster.check(cohorts)
            ledger.write_request(
                self._request()
            )  # not before: images that cannot be used leave no trace
            ledger.write_files(tracking.to_remember())
            for name, cohort in cohorts.items():
                ledger.write_cohort(name, *describe(cohort))
            first = next(data.name for data in self.data if data.name in needed)
            add_gradients(
                ledger, supply.losses(), lambda: TypicalPatch.of(cohorts[first], self.settings)
            )
            sys.stdout.flush()
            cluster.run(
                supply,
                cohorts,
                self.results,
                token=lock.token,
                tracking=tracking,
                already_done=already_done,
            )

    def _request(self) -> SweepRequest:
        asked = request(self.trials, self.data, self.settings, self.num_folds, self.labels)
        if self.until_decided:
            asked["until_decided"] = self.until_decided
        if self.max_hours:
            asked["max_hours"] = self.max_hours
        return asked

    def _warn_of_other_versions(self) -> None:
        from lesion_core.results import read_meta

        if not is_there(self.results / "sweep.json"):
            return
        before, now = read_meta(self.results).get("versions", {}), provenance.versions()
        changed = [
            f"{name} {before[name]} -> {now[name]}"
            for name in ("torch", "numpy", "scipy", "monai")
            if name in before and before[name] != now[name]
        ]
        if changed:
            print(
                f"warning: earlier trials in {self.results} ran with other versions "
                f"({', '.join(changed)}); equal seeds may differ in the last digits",
                file=sys.stderr,
            )


def _track_sweep(results: Path, tracking: Tracking) -> None:
    """Complete what trials left of their offline runs; give the sweep a run of its own at W&B."""
    if tracking.mode == "disabled":
        return
    from sweeps.tracking import upload

    send = provenance.command_to_show("python sweeps/tracking.py", "wandb")
    missed = len(list(results.glob("wandb/unsent-*"))) if tracking.mode == "offline" else 0
    if missed:
        print(f"writing {missed} offline W&B runs that trials did not wait for ...", flush=True)
        if problem := upload.write_missed(results, tracking):
            print(f"not all W&B runs were written ({problem}); to send them: {send} sync {results}")
    print("writing the sweep's W&B run ...", flush=True)
    if problem := upload.track_sweep(results, tracking):
        print(f"W&B did not get the sweep's own run ({problem}); again: {send} sync {results}")


def build_report(results: Path, training_effect: str = "") -> bool:
    """Build the report if it was not made from the ledger as it is, or for a training-set effect,
    and say where it is.

    In a process of its own: a sweep needs nothing of what reports are made with.
    """
    page = results / "report" / "report.html"
    if training_effect or not _is_current(results):
        print("building the report ...", flush=True)
        command = [sys.executable, str(ROOT / "analysis" / "report.py"), str(results)]
        command += ["--training-effect", training_effect] if training_effect else []
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            again = provenance.command_to_show(f"{command[0]} {command[1]}", "report")
            print(f"the report could not be built ({reason}); try: {again} {results}")
            return False
    print(f"report: {page}")
    return True


def _is_current(results: Path) -> bool:
    from lesion_core.report_record import report_state

    try:
        return report_state(results).current
    except ValueError:  # the report says what is wrong with the folder
        return False


def _refuse_job_copy(results: Path) -> None:
    """Raise ValueError for a folder that Ray deletes: a job runs in a copy of what was sent."""
    if "working_dir_files" in results.resolve().parts:
        raise ValueError(
            f"--results {results}: that is in the job's copy of the code, which Ray deletes; give "
            "a folder on the head's disk that stays, such as --results /data/results/paper_grid"
        )


def _print_failures(results: Path, states: Mapping[str, TrialStatus]) -> int:
    """Print which trials are not done, why, and where their logs are; returns how many."""
    unfinished = [name for name, state in states.items() if state["status"] != "done"]
    for name in unfinished[:FAILURES_SHOWN]:
        state = states[name]
        log = results / (state.get("log") or f"trials/{name}/log.txt")
        print(f"{state['status']}: {name}")
        print(f"    why: {state.get('error') or 'it was not finished; run the same command again'}")
        print(f"    log: {log}")
    if len(unfinished) > FAILURES_SHOWN:
        script = f"{sys.executable} {ROOT / 'sweeps' / 'status.py'}"
        status = provenance.command_to_show(script, "status")
        print(f"and {len(unfinished) - FAILURES_SHOWN} more: {status} {results}")
    return len(unfinished)
