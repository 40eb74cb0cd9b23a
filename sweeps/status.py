"""How far is a sweep?  Reads a results folder at any time, also while the sweep runs.

python sweeps/status.py results/paper_grid --watch
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tyro

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

from lesion_core.arms import arms_of, asked_rows
from lesion_core.paths import read_json
from lesion_core.terminal import one_line, steerable
from sweeps import command
from sweeps.ledger.contents import TrialState
from sweeps.ledger.ledger import PROGRESS
from sweeps.ledger.lock import Holder, holder
from sweeps.trials.progress import live_lines

if TYPE_CHECKING:
    from rich.console import RenderableType

SECONDS_BETWEEN_LOOKS = 2.0

WORDS = (
    "done", "running", "given up", "failed", "diverged", "corrupt", "interrupted", "left",
)  # fmt: skip
"""What a trial can be, in the order of the columns."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Show what a results folder holds: done, running, failed, left.

    Exit status: 0 every trial is done, or was given up by a search; 1 some are not; 2 not a results
    folder.
    """

    results: tyro.conf.Positional[Path]
    """Folder that holds sweep.json."""
    watch: bool = False
    """Show it again every two seconds until every trial is done or the sweep stops."""


class WatchedTrial(TrialState):
    """A trial, and who works on it."""

    worker: str
    """HOST:PROCESS of one that runs."""


def states(
    results: Path, meta: Mapping[str, Any], driver: Holder | None
) -> dict[str, WatchedTrial]:
    """How far every trial is that sweep.json asks for; ``running`` where a driver is at it,
    ``given up`` where a search ended it in the middle."""
    from lesion_core.results import given_up, read_search, trial_statuses

    found = {}
    ended_early = given_up(read_search(results))
    asked, label_of = asked_rows(meta), arms_of(meta).label_of
    for name, status in trial_statuses(results, asked).items():
        folder = results / "trials" / name
        row = asked[name] | {"loss": label_of[name], "worker": ""}
        state = cast(WatchedTrial, row | dict(status))
        if name in ended_early and state["status"] in ("partial", "missing"):
            state["status"] = "given up"
        if state["status"] == "partial" and driver is not None:
            with suppress(ValueError):
                progress = read_json(folder / PROGRESS)
                if progress.get("driver") == driver.token:
                    state["status"], state["worker"] = "running", str(progress.get("worker", ""))
        found[name] = state
    return found


def table(
    results: Path,
    meta: Mapping[str, Any],
    found: Mapping[str, WatchedTrial],
    driver: Holder | None,
) -> RenderableType:
    """Draw what to show of the trials."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    overview = Table(title=Text(one_line(results)), title_justify="left")
    parts: dict[tuple[str, str], list[WatchedTrial]] = {}
    for state in found.values():
        parts.setdefault((state["cohort"], state.get("loss") or ""), []).append(state)
    total = Counter(map(_word, found.values()))
    columns = [word for word in WORDS if total[word] or word in ("done", "left")]
    overview.add_column("cohort", no_wrap=True)
    if arms_of(meta).varied:
        overview.add_column("arm", overflow="fold")
    else:
        overview.add_column("loss", no_wrap=True)
    for column in (*columns, "epochs"):  # an arm's long label leaves these their room
        overview.add_column(column, justify="right", no_wrap=True)
    for names, part in (*parts.items(), (("all", ""), list(found.values()))):
        count = Counter(map(_word, part))
        trained = sum(state["epochs_done"] or 0 for state in part)
        asked = sum(state.get("epochs") or 0 for state in part)
        if len(overview.rows) == len(parts):
            overview.add_section()
        # As `Text`: a name in brackets would be read as a style.
        overview.add_row(
            *(Text(one_line(name)) for name in names),
            *(str(count[c] or "") for c in columns),
            f"{trained}/{asked}",
        )
    held = f"in use by {driver}" if driver else "nothing works on it now"
    if driver is None and not _all_done(found) and (again := _command_again(meta)):
        held += f"; it goes on with the command that it was last started with:\n    {again}"
    lines = live_lines(results, driver.token) if driver else []
    lines += [
        f"running: {name}, epoch {state['epochs_done']}/{state['epochs']}, on {state['worker']}"
        for name, state in found.items()
        if state["status"] == "running"
    ]
    for name, state in found.items():
        if state["status"] in ("failed", "diverged", "corrupt"):
            log = results / (state["log"] or f"trials/{name}/log.txt")
            why = one_line(state["error"])
            lines += [f"{state['status']}: {name}", f"    why: {why}", f"    log: {log}"]
    return Group(overview, Text("\n".join(map(one_line, [held, *lines])), overflow="fold"))


def main(arguments: Sequence[str]) -> int:
    """Show how far a sweep is; returns the exit status."""
    flags = command.read_flags(Status, arguments)
    from rich.console import Console
    from rich.live import Live

    console = Console(file=steerable(sys.stdout))
    driver, found, shown = _look(flags.results)
    if flags.watch:
        with Live(shown, console=console, auto_refresh=False) as live:
            while driver is not None and not _all_done(found):
                time.sleep(SECONDS_BETWEEN_LOOKS)
                driver, found, shown = _look(flags.results)
                live.update(shown, refresh=True)
    else:
        console.print(shown)
    return 0 if _all_done(found) else 1


def _look(results: Path) -> tuple[Holder | None, dict[str, WatchedTrial], RenderableType]:
    """Who is at a results folder, how far its trials are, and how that is shown."""
    from lesion_core.results import read_meta

    driver, meta = holder(results), read_meta(results)
    found = states(results, meta, driver)
    return driver, found, table(results, meta, found, driver)


def _command_again(meta: Mapping[str, Any]) -> str:
    """The command of sweep.json as people give it; "" where it could do harm on a terminal."""
    said = meta.get("command", "")
    script = said.split(" ")[0]
    if not said.isprintable():
        return ""
    known = script.endswith(".py") and (Path(__file__).parent / Path(script).name).exists()
    return f"python sweeps/{Path(script).name}{said[len(script) :]}" if known else said


def _word(state: WatchedTrial) -> str:
    status: str = state["status"]
    return {"partial": "interrupted", "missing": "left"}.get(status, status)


def _all_done(found: Mapping[str, WatchedTrial]) -> bool:
    return all(state["status"] in ("done", "given up") for state in found.values())


if __name__ == "__main__":
    command.process(main)
