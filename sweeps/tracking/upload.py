"""Send to W&B what it does not have of a sweep: `sweeps/tracking.py sync` and `backfill`.

The server is asked what it has of every run, so nothing is sent twice: a complete run is left
alone, one that stopped is continued at its next step, and one that is not there yet is sent whole.
So both commands can be stopped and given again at any time.

What is sent comes from the ledger, also where there is an offline run of it: ``wandb sync`` 0.31
appends or shifts the steps of a run that the server knows, and an offline run's tables and models
lie in the home folder of the machine that wrote it.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeps import scratch
from sweeps.ledger.ledger import Ledger, LedgerError
from sweeps.provenance import command_to_show
from sweeps.tracking import live_run
from sweeps.tracking.policy import Logging, Tracking, remembered
from sweeps.tracking.run_content import RunContent, content_of
from sweeps.tracking.sweep_run import content_of_sweep

SECONDS_TO_ANSWER = 15
SECONDS_TO_SETTLE = (0, 1, 2, 4, 8)
"""Between asking whether what was sent is there."""

QUERY = """query Run($project: String!, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { historyLineCount summaryMetrics }
  }
}"""


class NoAnswer(RuntimeError):
    """W&B cannot be reached, or does not let us in."""


@dataclass(frozen=True)
class ServerRun:
    """What the server has of a run."""

    steps: int
    status: str | None
    """What the run's summary says; None: the run has not ended there."""

    def has(self, whole: RunContent) -> bool:
        """Whether that is all of the run."""
        return self.steps >= len(whole.steps) and self.status == whole.ending.summary["status"]


@dataclass(frozen=True, kw_only=True)
class Server:
    """The W&B server that this process would log to."""

    project: str
    entity: str | None
    key: str
    url: str

    @staticmethod
    def of(tracking: Tracking) -> Server:
        """The server that a sweep is tracked on."""
        url = tracking.url or live_run.default_url()
        return Server(
            project=tracking.project, entity=tracking.entity, key=tracking.key or "", url=url
        )

    def find_run(self, run_id: str) -> ServerRun:
        """Ask for a run.  Raises NoAnswer."""
        variables = {
            "project": self.project,
            "entity": self.entity,
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
            return ServerRun(int(bucket.get("historyLineCount") or 0), summary.get("status"))
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


def sync(results: Path, base_url: str | None = None) -> int:
    """Send what W&B lacks, as the sweep was tracked; returns the exit status.

    Raises:
        ValueError: not a results folder, it was never tracked, there is no key, or nobody but the
            folder names the server.
    """
    from lesion_core.results import read_meta

    read_meta(results)
    before = remembered(results)
    if before is None:
        again = command_to_show("python sweeps/tracking.py", "wandb")
        raise ValueError(
            f"{results} was never tracked; `{again} backfill {results}` makes its runs from the "
            "ledger"
        )
    tracking = Tracking.decide(
        "online",
        results,
        media=before["media"],
        artifacts=before["artifacts"],
        pseudonymise=before["salt"] is not None,
        base_url=base_url,
        wanted="sending to W&B",
    )
    print(tracking.notice())
    return _send(results, tracking)


def backfill(results: Path, logging: Logging) -> int:
    """Make every run from the ledger; returns the exit status.

    Raises:
        ValueError: not a results folder, or what `Tracking.decide` raises.
    """
    from lesion_core.results import read_meta

    read_meta(results)
    tracking = logging.tracking(results)
    if tracking.mode == "disabled":
        source = "--wandb disabled" if logging.wandb == "disabled" else "WANDB_MODE=disabled"
        raise ValueError(
            f"backfill with {source} does nothing; say --wandb online or --wandb offline"
        )
    Ledger(results).write_files(tracking.to_remember())
    if tracking.mode == "online":
        return _send(results, tracking)
    return _write_offline(results, tracking)


def write_missed(results: Path, tracking: Tracking) -> str | None:
    """At the end of an offline sweep, the runs that trials could not complete, from the ledger.

    A trial's patience with W&B is bounded, and on a busy machine may end before its run is closed.
    Returns what went wrong.  The first run that cannot be written is the last one tried: the notes
    stay.
    """
    damage = None
    for note in sorted(results.glob("wandb/unsent-*")):
        run_id = note.name.removeprefix("unsent-")
        for folder in results.glob(f"trials/*-{run_id}"):
            try:
                whole = content_of(results, folder.name, tracking)
            except ValueError as error:
                damage = str(error)
                continue
            if whole is not None and (problem := _write_offline_run(results, tracking, whole)):
                return problem
    return damage


def track_sweep(results: Path, tracking: Tracking) -> str | None:
    """At the end of a sweep, its own run: sent, or written offline; returns what went wrong.

    Whatever W&B does, a sweep goes on.
    """
    try:
        whole = content_of_sweep(results, tracking)
        if whole is None:
            return None
        if tracking.mode == "offline":
            return _write_offline_run(results, tracking, whole)
        server = Server.of(tracking)
        if not server.find_run(whole.identity.id).has(whole):
            problem = _write(tracking, whole)
            if not _arrived(server, whole):
                return problem or "it did not take all of it"
        return None
    except LedgerError:
        raise
    except Exception as error:  # wandb raises all sorts of things
        return _reason(error)


# --------------------------------------------------------------------------------------- sending
def _send(results: Path, tracking: Tracking) -> int:
    server = Server.of(tracking)
    ledger = Ledger(results)
    count = {"there already": 0, "sent": 0, "damaged": 0, "not complete there": 0}
    unfinished = 0
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
            on_server = server.find_run(whole.identity.id)
            if on_server.has(whole):
                count["there already"] += 1
                _forget(results, whole)
                continue
            problem = _write(tracking, whole)
            if _arrived(server, whole):
                count["sent"] += 1
                _forget(results, whole)
                after = f", {on_server.steps} of them there already" if on_server.steps else ""
                print(
                    f"sent     {whole.identity.name} ({len(whole.steps)} steps{after})", flush=True
                )
            else:
                count["not complete there"] += 1
                reason = problem or "W&B did not take all of it"
                print(f"FAILED   {whole.identity.name}: {reason}", flush=True)
    except NoAnswer as error:
        print(f"W&B: {error}; {_counted(count)}; the same command goes on", file=sys.stderr)
        return 1
    finally:
        ledger.write_files(tracking.to_remember())
    left = f"; {unfinished} are not finished and were left out" if unfinished else ""
    print(f"{results}: {_counted(count)}{left}")
    return 1 if count["damaged"] or count["not complete there"] else 0


def _arrived(server: Server, whole: RunContent) -> bool:
    """Whether the server has all of it; asked a few times, for it counts a moment later."""
    for seconds in SECONDS_TO_SETTLE:
        time.sleep(seconds)
        if server.find_run(whole.identity.id).has(whole):
            return True
    return False


def _all_of(
    results: Path, tracking: Tracking
) -> Iterator[tuple[str, Callable[[], RunContent | None]]]:
    """Every trial in the sweep's order, then the sweep itself (without a name)."""
    from lesion_core.results import read_meta

    for trial in read_meta(results)["trials"]:
        name = trial["name"]
        yield name, lambda name=name: content_of(results, name, tracking)
    yield "", lambda: content_of_sweep(results, tracking)


def _write(tracking: Tracking, whole: RunContent) -> str | None:
    """A run from the ledger, here and now; returns what wandb had to complain of."""
    folder = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-wandb-")))
    try:
        live_run.write(tracking, whole, folder)
    except Exception as error:  # wandb raises all sorts of things; the server is asked anyway
        return _reason(error)
    finally:
        scratch.drop(folder)
    return None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --------------------------------------------------------------------------------- offline folders
def _offline_folder(results: Path, whole: RunContent) -> Path | None:
    """The newest offline folder of a run; one without its steps does not count."""
    run_id = whole.identity.id
    files = results.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    return max((file.parent for file in files if file.stat().st_size), default=None)


def _write_offline(results: Path, tracking: Tracking) -> int:
    made = there = damaged = unfinished = failed = 0
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
        elif problem := _write_offline_run(results, tracking, whole):
            failed += 1
            print(f"FAILED   {whole.identity.name}: {problem}", flush=True)
        else:
            made += 1
            print(f"written  {whole.identity.name} ({len(whole.steps)} steps)", flush=True)
    left = f"; {unfinished} are not finished and were left out" if unfinished else ""
    failures = f", {failed} could not be written" if failed else ""
    print(f"{results}: {made} written, {there} there already, {damaged} damaged{failures}{left}")
    print(tracking.hint(results))
    return 1 if damaged or failed else 0


def _write_offline_run(results: Path, tracking: Tracking, whole: RunContent) -> str | None:
    """An offline run from the ledger, in place of what is there of it; returns what went wrong."""
    folder = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-wandb-")))
    try:
        live_run.write(tracking, whole, folder)
        files = live_run.offline_files(folder, whole.identity.id)
    except Exception as error:  # wandb raises all sorts of things
        return _reason(error)
    finally:
        scratch.drop(folder)
    Ledger(results).write_files(files, f"wandb/*-{whole.identity.id}")
    return None


def _forget(results: Path, whole: RunContent) -> None:
    """Remove the note that W&B missed something of this run."""
    Ledger(results).write_files({}, f"wandb/unsent-{whole.identity.id}")


def _counted(count: Mapping[str, int]) -> str:
    return ", ".join(
        f"{number} {word}" for word, number in count.items() if number or word in ("sent",)
    )
