"""A whole sweep as one W&B run: bands over epochs per loss, what came out, and the report.

A run of its own for every state of the sweep (its id is the hash of what is done), so a sweep that
grows leaves one after another, and the same state is sent once.
"""

from __future__ import annotations

import hashlib
import html
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lesion_core.arms import arms_of, asked_rows
from lesion_core.received import read_table
from lesion_core.terminal import one_line
from sweeps.ledger.contents import TrialState
from sweeps.provenance import ROOT
from sweeps.tracking import redacted, scalars
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import RunContent, RunEnding, RunIdentity

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ("train/patch", "train/image", "test/image", "validation/image")
METRICS = scalars.VOXEL_METRICS
TRIAL_COLUMNS = (
    "trial", "cohort", "loss", "seed", "fold", "status", "epochs_done", "seconds",
    *(f"{view}/{metric}" for view in VIEWS for metric in METRICS),
)  # fmt: skip
LOSS_COLUMNS = (
    "cohort", "loss", "judged_on", "trials_done", "trials_asked", "epoch",
    *(f"{metric}_{part}" for metric in METRICS for part in ("mean", "lowest", "highest")),
)  # fmt: skip


def content_of_sweep(results: Path, tracking: Tracking) -> RunContent | None:
    """The run of a whole sweep by its ledger; None if no trial is done yet.

    Raises:
        ValueError: not a results folder, or one that cannot be read.
    """
    from lesion_core.results import given_up, read_meta, read_search, trial_status

    meta = read_meta(results)
    arms = arms_of(meta)
    states = {
        name: cast(
            TrialState,
            row
            | {"loss": arms.label_of[name]}
            | dict(trial_status(results / "trials" / name, row)),
        )
        for name, row in asked_rows(meta).items()
    }
    for name in given_up(read_search(results)) & states.keys():
        if states[name]["status"] in ("partial", "missing"):
            states[name]["status"] = "given up"
    done = [name for name, state in states.items() if state["status"] == "done"]
    if not done:
        return None
    curves = {name: _curve(results, states[name], tracking) for name in done}
    state = f"{meta['created']} {tracking.media} {sorted(done)}"
    return RunContent(
        identity=RunIdentity(
            id=f"sweep-{hashlib.sha256(state.encode()).hexdigest()[:8]}",
            name=f"{tracking.group}: {len(done)} of {len(states)} trials",
            job_type="sweep",
            tags=tuple(meta["cohorts"]),
            config={
                **meta["settings"],
                "losses": meta["losses"],
                **({"arms": [*map(one_line, arms.labels)]} if arms.varied else {}),
                "num_folds": meta["num_folds"],
                "versions": meta["versions"],
                "git_commit": meta["git_commit"],
            },
        ),
        steps=bands(states, curves),
        ending=RunEnding(
            summary={"status": "done", "trials_done": len(done), "trials_asked": len(states)},
            tables={
                "trials": (TRIAL_COLUMNS, trial_rows(states, curves)),
                "losses": (LOSS_COLUMNS, loss_rows(states, curves)),
            },
            pages={"report": lambda: _report(results, tracking)},
        ),
    )


def bands(
    states: Mapping[str, TrialState], curves: Mapping[str, pd.DataFrame]
) -> dict[int, dict[str, float]]:
    """Bands over the complete trials, by epoch.

    ``bands/{cohort}/{loss}/{view}/{metric}/{mean,lowest,highest}``, and ``.../trials``: over how
    many the metric is defined.  Not of a search's configurations, which would be hundreds; they
    are in the tables.
    """
    import pandas as pd

    found: dict[int, dict[str, float]] = {}
    plain = _plain({loss for _, loss, _ in _groups(states, curves)})
    columns = [f"{view}/{metric}" for view in VIEWS[:3] for metric in METRICS]
    for (cohort, loss, split), names in _groups(states, curves).items():
        if split != "test":
            continue
        all_trials: Any = pd.concat([curves[name][columns] for name in names]).groupby(level=0)
        table = all_trials.agg(["mean", "min", "max", "count"])
        place = f"bands/{cohort}/{plain[loss]}"
        for epoch, row in table.iterrows():
            numbers = found.setdefault(int(epoch), {"epoch": int(epoch)})
            for column in columns:
                number = int(row[column, "count"])
                numbers[f"{place}/{column}/trials"] = number
                for part, name in (("mean", "mean"), ("min", "lowest"), ("max", "highest")):
                    if number:
                        numbers[f"{place}/{column}/{name}"] = float(row[column, part])
    return dict(sorted(found.items()))


def trial_rows(
    states: Mapping[str, TrialState], curves: Mapping[str, pd.DataFrame]
) -> list[list[Any]]:
    """A row of `TRIAL_COLUMNS` per trial asked for; no numbers of trials that are not complete."""
    rows = []
    for name, state in states.items():
        last = curves[name].iloc[-1].to_dict() if name in curves else {}
        whole = {**state, **last, "trial": name}
        rows.append([_value(whole.get(column)) for column in TRIAL_COLUMNS])
    return rows


def loss_rows(
    states: Mapping[str, TrialState], curves: Mapping[str, pd.DataFrame]
) -> list[list[Any]]:
    """A row of `LOSS_COLUMNS` per loss, the best first.

    Held-out images at the last epoch: mean, lowest and highest over complete trials.  Ranks say
    nothing about evidence; the report does.
    """
    import pandas as pd

    rows = []
    for (cohort, loss, split), names in _groups(states, curves).items():
        asked = [state for state in states.values() if _group(state) == (cohort, loss, split)]
        last = pd.DataFrame([curves[name].iloc[-1] for name in names])
        row: list[Any] = [
            cohort,
            one_line(loss),
            split,
            len(names),
            len(asked),
            int(max(last.index)),
        ]
        for metric in METRICS:
            values = last[f"{split}/image/{metric}"]
            row += [_value(values.mean()), _value(values.min()), _value(values.max())]
        rows.append(row)
    best = LOSS_COLUMNS.index("dice_mean")
    return sorted(
        rows, key=lambda row: (row[0], row[2], -(-1.0 if row[best] is None else row[best]))
    )


def _curve(results: Path, trial: TrialState, tracking: Tracking) -> pd.DataFrame:
    """A trial's metrics: a row per epoch, a column per view and metric.

    NaN where a metric is not defined, or was not evaluated.
    """
    import pandas as pd

    cases = read_table(results / "trials" / trial["name"] / "cases.parquet").to_pandas()
    numbers = scalars.by_epoch(cases, [], trial["epochs"], tracking.site_name)
    columns = [f"{view}/{metric}" for view in VIEWS for metric in METRICS]
    return pd.DataFrame.from_dict(numbers, orient="index").reindex(columns=columns).sort_index()


def _groups(
    states: Mapping[str, TrialState], curves: Mapping[str, pd.DataFrame]
) -> dict[tuple[str, str, str], list[str]]:
    """Complete trials by cohort, loss, and the part of the fold that they are judged on."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name in curves:
        groups.setdefault(_group(states[name]), []).append(name)
    return groups


def _group(trial: TrialState) -> tuple[str, str, str]:
    return trial["cohort"], trial["loss"], trial.get("split", "test")


def _plain(losses: Collection[str]) -> dict[str, str]:
    """Labels of losses as parts of a number's name, all different.

    >>> _plain({"focal(alpha=0.3)", "a b", "a/b"})
    {'a b': 'a_b', 'a/b': 'a_b-2', 'focal(alpha=0.3)': 'focal_alpha_0.3'}
    """
    found: dict[str, str] = {}
    for loss in sorted(losses):
        first = name = re.sub(r"[^A-Za-z0-9.-]+", "_", loss).strip("_")[:MOST_CHARACTERS] or "loss"
        number = 1
        while name in found.values():
            number += 1
            name = f"{first}-{number}"
        found[loss] = name
    return found


MOST_CHARACTERS = 100
"""Of a loss's label in a number's name."""


def _value(value: Any) -> Any:
    """A cell of a table; None for what is not there."""
    if isinstance(value, str):
        return one_line(value)
    return None if value is None or value != value else value


def _report(results: Path, tracking: Tracking) -> str:
    """The report with nothing in it that may not leave; a sentence where it cannot be built.

    Built from a copy without pictures, and under pseudonyms.
    """
    with tempfile.TemporaryDirectory(prefix="lesion-report-") as scratch:
        source = redacted.copy(results, Path(scratch) / tracking.group, tracking)
        out = Path(scratch) / "out"
        command: Sequence[str] = [
            sys.executable, str(ROOT / "analysis" / "report.py"), str(source),
            "--out", str(out), "--formats",
        ]  # fmt: skip
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            reason = (built.stderr.strip().splitlines() or ["no reason given"])[-1]
            return f"<p>The report could not be built: {html.escape(one_line(reason))}</p>"
        return (out / "report.html").read_text()
