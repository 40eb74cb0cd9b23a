"""Send to W&B what it does not have of a sweep: `sweeps/tracking.py sync` and `backfill`.

The server is asked what it has of every run, so nothing is sent twice: a complete run is left
alone, one that stopped is continued at its next step from the ledger, and one that is not there
yet is sent whole - by ``wandb sync`` from its offline folder where there is one, which keeps its
clock, else from the ledger.  So both commands can be stopped and given again at any time.

(``wandb sync`` 0.31 of a run that the server knows appends its steps once more, or shifts them.)
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps import record, tracked_run, tracked_sweep
from sweeps.ledger import Ledger, LedgerError
from sweeps.record import Record
from sweeps.tracking import Logging, Tracking, configured_key, remembered, server_url

SECONDS_TO_ANSWER = 15
FOLDERS_AT_ONCE = 10
"""Sent by one `wandb sync`, some of them at a time."""

QUERY = """query Run($project: String!, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { historyLineCount summaryMetrics }
  }
}"""


class NoAnswer(RuntimeError):
    """W&B cannot be reached, or does not let us in."""


@dataclass(frozen=True)
class There:
    """What the server has of a run."""

    steps: int
    status: str | None
    """As the run's summary says; None: the run has not ended there."""

    def has(self, whole: Record) -> bool:
        return self.steps >= len(whole.steps) and self.status == whole.ending.summary["status"]


@dataclass(frozen=True, kw_only=True)
class Server:
    """The W&B server that this process would log to."""

    project: str
    key: str
    url: str

    @staticmethod
    def of(tracking: Tracking) -> Server:
        url = tracking.url or tracked_run.default_url()
        return Server(project=tracking.project, key=tracking.key or "", url=url)

    def there(self, run_id: str) -> There:
        """Raises NoAnswer."""
        variables = {
            "project": self.project,
            "entity": os.environ.get("WANDB_ENTITY"),
            "name": run_id,
        }
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": QUERY, "variables": variables}).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Basic {base64.b64encode(f'api:{self.key}'.encode()).decode()}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
                data = json.load(answer)["data"]
            bucket = (data.get("model") or {}).get("bucket") or {}
            summary = json.loads(bucket.get("summaryMetrics") or "{}")
            return There(int(bucket.get("historyLineCount") or 0), summary.get("status"))
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise NoAnswer(
                    f"{self.url} refuses this key ({error.code}); set WANDB_API_KEY or run "
                    "`wandb login`"
                ) from None
            raise NoAnswer(f"{self.url} answers with error {error.code}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = getattr(error, "reason", error) or type(error).__name__
            raise NoAnswer(f"{self.url} does not answer ({reason})") from None


def sync(results: Path) -> int:
    """Send what W&B lacks, as the sweep was tracked; returns the exit status.

    Raises:
        ValueError: not a results folder, it was never tracked, or there is no key.
    """
    from lesion_core.results import read_meta

    read_meta(results)
    before = remembered(results)
    if before is None:
        raise ValueError(
            f"{results} was never tracked; `python sweeps/tracking.py backfill {results}` makes "
            "its runs from the ledger"
        )
    key = configured_key()
    if key is None:
        raise ValueError("sync needs a key: set WANDB_API_KEY or run `wandb login`")
    tracking = Tracking(
        mode="online",
        group=results.resolve().name,
        project=os.environ.get("WANDB_PROJECT") or before["project"],
        url=server_url(),
        key=key,
        media=before["media"],
        artifacts=before["artifacts"],
        salt=before["salt"],
    )
    return _send(results, tracking, offline_folders=True)


def backfill(results: Path, logging: Logging) -> int:
    """Make every run from the ledger; returns the exit status.

    Raises:
        ValueError: not a results folder, or as `Tracking.decide`.
    """
    from lesion_core.results import read_meta

    read_meta(results)
    tracking = logging.tracking(results)
    if tracking.mode == "disabled":
        raise ValueError("backfill with --wandb disabled does nothing; say online or offline")
    Ledger(results).keep(tracking.to_remember())
    if tracking.mode == "online":
        return _send(results, tracking, offline_folders=False)
    return _write_offline(results, tracking)


def keep_sweep(results: Path, tracking: Tracking) -> str | None:
    """At the end of a sweep, its own run: sent, or written offline; returns what went wrong.

    Whatever W&B does, a sweep goes on.
    """
    try:
        whole = tracked_sweep.record(results, tracking)
        if whole is None:
            return None
        if tracking.mode == "offline":
            _keep_offline(results, tracking, whole)
            return None
        server = Server.of(tracking)
        if not server.there(whole.heading.id).has(whole):
            _write(tracking, whole)
        return None
    except LedgerError:
        raise
    except Exception as error:  # wandb raises all sorts of things
        return " ".join(str(error).split()) or type(error).__name__


# --------------------------------------------------------------------------------------- sending
def _send(results: Path, tracking: Tracking, *, offline_folders: bool) -> int:
    server = Server.of(tracking)
    ledger = Ledger(results)
    count = {"there already": 0, "sent": 0, "damaged": 0, "not complete there": 0}
    unfinished = 0
    batch: list[tuple[Record, Path]] = []

    def confirm(whole: Record, how: str) -> None:
        name = whole.heading.name
        if server.there(whole.heading.id).has(whole):
            count["sent"] += 1
            _forget(results, whole)
            print(f"sent     {name} ({len(whole.steps)} steps, {how})", flush=True)
        else:
            count["not complete there"] += 1
            print(f"FAILED   {name}: W&B did not take all of it", flush=True)

    def flush() -> None:
        _wandb_sync([folder for _, folder in batch], tracking)
        for whole, _ in batch:
            confirm(whole, "its offline run")
        batch.clear()

    try:
        for name, read in _all_of(results, tracking):
            try:
                whole = read()
            except ValueError as error:
                count["damaged"] += 1
                print(f"damaged  {error}", flush=True)
                continue
            if whole is None:
                unfinished += name != ""
                continue
            there = server.there(whole.heading.id)
            if there.has(whole):
                count["there already"] += 1
                _forget(results, whole)
                continue
            folder = _offline_folder(results, whole) if offline_folders else None
            if folder is not None and there == There(0, None):
                batch.append((whole, folder))
                if len(batch) == FOLDERS_AT_ONCE:
                    flush()
                continue
            if problem := _write(tracking, whole):
                print(f"         {whole.heading.name}: {problem}", flush=True)
            confirm(whole, f"from the ledger, after {there.steps}" if there.steps else "the ledger")
        flush()
    except NoAnswer as error:
        print(f"W&B: {error}; {_counted(count)}; the same command goes on", file=sys.stderr)
        return 1
    finally:
        ledger.keep(tracking.to_remember())
    left = f"; {unfinished} are not finished and were left out" if unfinished else ""
    print(f"{results}: {_counted(count)}{left}")
    return 1 if count["damaged"] or count["not complete there"] else 0


def _all_of(results: Path, tracking: Tracking) -> Iterator[tuple[str, Callable[[], Record | None]]]:
    """Every trial in the sweep's order, then the sweep itself (without a name)."""
    from lesion_core.results import read_meta

    for trial in read_meta(results)["trials"]:
        name = trial["name"]
        yield name, lambda name=name: record.of_ledger(results, name, tracking)
    yield "", lambda: tracked_sweep.record(results, tracking)


def _write(tracking: Tracking, whole: Record) -> str | None:
    """A run from the ledger, here and now; returns what wandb had to complain of."""
    with tempfile.TemporaryDirectory(prefix="lesion-wandb-", ignore_cleanup_errors=True) as folder:
        try:
            tracked_run.write(tracking, whole, Path(folder))
        except Exception as error:  # wandb raises all sorts of things; the server is asked anyway
            return " ".join(str(error).split()) or type(error).__name__
    return None


def _wandb_sync(folders: Sequence[Path], tracking: Tracking) -> None:
    """Send offline runs, the oldest first; whether it worked, the server is asked afterwards."""
    if not folders:
        return
    where = ["--project", tracking.project]
    if entity := os.environ.get("WANDB_ENTITY"):
        where += ["--entity", entity]
    oldest_first = map(str, sorted(folders, key=lambda folder: folder.name))
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    environment |= {"WANDB_API_KEY": tracking.key or ""}  # a command line is there for all to read
    if tracking.url is not None:
        environment["WANDB_BASE_URL"] = tracking.url
    limit = SECONDS_TO_ANSWER * (2 + len(folders))
    try:
        subprocess.run(
            [*_WANDB_SYNC, *where, *oldest_first],
            env=environment,
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"         wandb sync was not finished after {limit} s", flush=True)


_WANDB_SYNC = (sys.executable, "-m", "wandb", "sync", "--yes", "--include-synced")


# --------------------------------------------------------------------------------- offline folders
def _offline_folder(results: Path, whole: Record) -> Path | None:
    """The newest of a run."""
    found = sorted(results.glob(f"wandb/offline-run-*-{whole.heading.id}"))
    return found[-1] if found else None


def _write_offline(results: Path, tracking: Tracking) -> int:
    made = there = damaged = unfinished = 0
    for name, read in _all_of(results, tracking):
        try:
            whole = read()
        except ValueError as error:
            damaged += 1
            print(f"damaged  {error}", flush=True)
            continue
        if whole is None:
            unfinished += name != ""
        elif _offline_folder(results, whole) is not None:
            there += 1
        else:
            _keep_offline(results, tracking, whole)
            made += 1
            print(f"written  {whole.heading.name} ({len(whole.steps)} steps)", flush=True)
    left = f"; {unfinished} are not finished and were left out" if unfinished else ""
    print(f"{results}: {made} written, {there} there already, {damaged} damaged{left}")
    print(tracking.hint(results))
    return 1 if damaged else 0


def _keep_offline(results: Path, tracking: Tracking, whole: Record) -> None:
    with tempfile.TemporaryDirectory(prefix="lesion-wandb-", ignore_cleanup_errors=True) as folder:
        tracked_run.write(tracking, whole, Path(folder))
        files = tracked_run.offline_files(Path(folder))
    Ledger(results).keep(files, f"wandb/*-{whole.heading.id}")


def _forget(results: Path, whole: Record) -> None:
    """The note that W&B missed something of this run."""
    Ledger(results).keep({}, f"wandb/unsent-{whole.heading.id}")


def _counted(count: Mapping[str, int]) -> str:
    return ", ".join(
        f"{number} {word}" for word, number in count.items() if number or word in ("sent",)
    )
