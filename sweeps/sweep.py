"""From a list of trials to a finished results folder, its failures and its report."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps import options
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock
from sweeps.options import ROOT, Data, Machines
from sweeps.tracking.policy import Logging, Tracking

if TYPE_CHECKING:
    from lesion_core.losses import Loss
    from lesion_core.training.epoch import TrainSettings
    from lesion_core.trial import Trial
    from sweeps.distributed.launch import Supply

FAILURES_SHOWN = 20


class Source(Protocol):
    """Where a sweep's trials come from, given its ledger: a list, or a search."""

    def names(self) -> list[str]:
        """Of every trial that was asked for up to now."""
        ...

    @property
    def any_left(self) -> bool:
        """Whether there is anything to run."""
        ...

    def counted(self, states: Mapping[str, Mapping[str, Any]]) -> str:
        """How much is done and left, for people."""
        ...

    def losses(self) -> Sequence[Loss]:
        """Whose modules the workers need."""
        ...

    def cohorts(self) -> set[str]:
        """Whose images they need."""
        ...

    def supply(self, slots: int) -> Supply:
        """What is left, for so many trials at a time."""
        ...


class Fixed:
    """Trials that are all known beforehand (`Source`)."""

    def __init__(self, trials: Sequence[Trial], ledger: Ledger, retry_failed: bool) -> None:
        self._trials = {trial.name: trial for trial in trials}
        self._left = ledger.missing(list(self._trials), retry_failed=retry_failed)

    def names(self) -> list[str]:
        return list(self._trials)

    @property
    def any_left(self) -> bool:
        return bool(self._left)

    def counted(self, states: Mapping[str, Mapping[str, Any]]) -> str:
        return _counted(states, self._left)

    def losses(self) -> Sequence[Loss]:
        return [self._trials[name].loss for name in self._left]

    def cohorts(self) -> set[str]:
        return {self._trials[name].cohort for name in self._left}

    def supply(self, slots: int) -> Supply:
        from sweeps.distributed.launch import Listed

        return Listed([options.described(self._trials[name]) for name in self._left])


@dataclass(frozen=True)
class Sweep:
    """What to run, and where its results go."""

    trials: Sequence[Trial]
    data: Sequence[Data]
    settings: TrainSettings
    num_folds: int
    results: Path
    search: Callable[[Ledger, bool], Source] | None = None
    """Decides on the trials instead, given the ledger and whether failed ones run again."""

    def run(
        self,
        machines: Machines,
        logging: Logging,
        *,
        retry_failed: bool = False,
        report: bool = True,
    ) -> int:
        """Run what is not done yet; returns the exit status.

        Raises:
            ValueError: the folder holds another sweep, or is in use; no such cluster or data.
            LedgerError: the folder cannot be written.
        """
        options.refuse_fleeting(self.results)
        tracking = logging.tracking(self.results)
        if notice := tracking.notice():
            print(notice)
        with Lock(self.results, options.command_line()) as lock:
            ledger = Ledger(self.results, lock.token)
            self._warn_of_other_versions()
            ledger.united(self._request())
            source = self._source(ledger, retry_failed)
            states = ledger.states(source.names())
            for name, state in states.items():
                if state["status"] == "corrupt":
                    print(f"{name} is damaged and runs again: {state['error']}", file=sys.stderr)
            print(f"{self.results}: {source.counted(states)}", flush=True)
            any_left = source.any_left
            if any_left:
                done = sum(state["status"] == "done" for state in states.values())
                self._launch(source, done, ledger, lock, machines, tracking)
                states = ledger.states(source.names())
                _track_sweep(self.results, tracking)
            else:
                ledger.ask(self._request())
                print("nothing to do")
        unfinished = _print_failures(self.results, states)
        done = sum(state["status"] == "done" for state in states.values())
        print(f"{done} of {len(states)} trials are done")
        if any_left and (hint := tracking.hint(self.results)):
            print(hint)
        print(f"ledger: {self.results}")
        reported = not report or not done or build_report(self.results)
        return 1 if unfinished or not reported else 0

    def dry_run(self, machines: Machines, *, retry_failed: bool = False) -> int:
        """Say what `run` would do, and how long it would take; writes nothing."""
        from sweeps import estimate

        ledger = Ledger(self.results)
        ledger.united(self._request())
        trials = {trial.name: trial for trial in self.trials}
        states = ledger.states(list(trials))
        left = ledger.missing(list(trials), retry_failed=retry_failed)
        print(f"{self.results}: {_counted(states, left)}")
        for name in left:
            print(f"would run  {name}")
        if left:
            rows = [trials[name] for name in left]
            print(estimate.predicted(rows, self.data, states, machines, self.results))
        return 0

    def _source(self, ledger: Ledger, retry_failed: bool) -> Source:
        if self.search is not None:
            return self.search(ledger, retry_failed)
        return Fixed(self.trials, ledger, retry_failed)

    def _launch(
        self,
        source: Source,
        already_done: int,
        ledger: Ledger,
        lock: Lock,
        machines: Machines,
        tracking: Tracking,
    ) -> None:
        from lesion_core.images import describe
        from lesion_core.losses import loss_to_dict
        from lesion_core.training.precision import check_precision
        from sweeps.distributed.launch import connected

        stored = [loss_to_dict(loss).get("import", "") for loss in source.losses()]
        modules = [path.partition(":")[0] for path in stored if path]
        with connected(machines, modules) as cluster:
            check_precision(self.settings.precision, "cuda" if cluster.gpus_per_trial else "cpu")
            each = f"{cluster.cpus_per_trial} CPU" + (
                f" and {cluster.gpus_per_trial:g} GPU" if cluster.gpus_per_trial else ""
            )
            supply = source.supply(cluster.slots)
            at_once = min(cluster.slots, len(supply.epochs) or cluster.slots)
            print(f"{at_once} at a time on {cluster.where}, {each} each", flush=True)
            needed = source.cohorts()
            cohorts = {data.name: data.load() for data in self.data if data.name in needed}
            cluster.check(cohorts)
            ledger.ask(self._request())  # not before: images that cannot be used leave no trace
            ledger.keep(tracking.to_remember())
            for name, cohort in cohorts.items():
                ledger.write_cohort(name, *describe(cohort))
            sys.stdout.flush()
            cluster.run(
                supply,
                cohorts,
                self.results,
                token=lock.token,
                tracking=tracking,
                already_done=already_done,
            )

    def _request(self) -> dict[str, Any]:
        return options.request(self.trials, self.data, self.settings, self.num_folds)

    def _warn_of_other_versions(self) -> None:
        from lesion_core.results import read_meta

        if not (self.results / "sweep.json").exists():
            return
        before, now = read_meta(self.results).get("versions", {}), options.versions()
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
    """The sweep's own run at W&B."""
    if tracking.mode == "disabled":
        return
    from sweeps.tracking import upload

    print("writing the sweep's W&B run ...", flush=True)
    if problem := upload.keep_sweep(results, tracking):
        print(f"W&B did not get the sweep's own run ({problem}); `sync` tries again")


def build_report(results: Path) -> bool:
    """Build the report if it is older than the ledger, and say where it is.

    In a process of its own: a sweep needs nothing of what reports are made with.
    """
    page = results / "report" / "report.html"
    newest = max(
        (file.stat().st_mtime for file in results.glob("trials/*/*.json")),
        default=(results / "sweep.json").stat().st_mtime,
    )
    if not (page.exists() and page.stat().st_mtime > newest):
        print("building the report ...", flush=True)
        command = [sys.executable, str(ROOT / "analysis" / "report.py"), str(results)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            again = options.command_to_show(f"{command[0]} {command[1]}", "report")
            print(f"the report could not be built ({reason}); try: {again} {results}")
            return False
    print(f"report: {page}")
    return True


def _counted(states: Mapping[str, Mapping[str, Any]], left: Sequence[str]) -> str:
    count = Counter(state["status"] for state in states.values())
    parts = [f"{len(states)} trials", f"{count['done']} done", f"{len(left)} to run"]
    skipped = sum(
        states[name]["status"] in ("failed", "diverged") for name in states.keys() - set(left)
    )
    if skipped:
        parts.append(f"{skipped} failed before (--retry-failed runs them again)")
    return ", ".join(parts)


def _print_failures(results: Path, states: Mapping[str, Mapping[str, Any]]) -> int:
    """Which trials are not done, why, and where their logs are; returns how many."""
    unfinished = [name for name, state in states.items() if state["status"] != "done"]
    for name in unfinished[:FAILURES_SHOWN]:
        state = states[name]
        log = results / (state.get("log") or f"trials/{name}/log.txt")
        print(f"{state['status']}: {name}")
        print(f"    why: {state.get('error') or 'it was not finished; run the same command again'}")
        print(f"    log: {log}")
    if len(unfinished) > FAILURES_SHOWN:
        script = f"{sys.executable} {ROOT / 'sweeps' / 'status.py'}"
        status = options.command_to_show(script, "status")
        print(f"and {len(unfinished) - FAILURES_SHOWN} more: {status} {results}")
    return len(unfinished)
