"""Which trials are there: the expected grid against what is complete, and why the rest is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, prose
from analysis.reading.scores import CohortScores
from analysis.sections import looks
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import FEWEST_SEEDS, ODD, failures
from lesion_core.results import STATUSES, Sweep


def section(given: ReportInput) -> Section | None:
    """The coverage map of every cohort, counts, and the reason of every trial that is absent."""
    if not given.all_cohorts:
        return None
    items: list[Figure | Table | Note | Heading] = []
    for cohort in given.all_cohorts:
        if len(given.all_cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items.append(
            Figure(
                key=f"coverage-{cohort.name}",
                title=f"Coverage, {cohort.title}",
                draw=partial(draw, cohort),
                data=tiles(cohort),
                caption="One tile per trial: loss by seed and fold. "
                + cohort.presence
                + (f". They are tested on {cohort.size}." if cohort.has_sessions else "."),
                alt=f"Coverage map of {cohort.title}: {cohort.presence}.",
            )
        )
    items.append(counts_table(given.all_cohorts))
    if (table := failures_table(given.all_cohorts)) is not None:
        items.append(table)
    absent = absent_trials(given.sweep)
    if len(absent):
        items.append(
            Table(
                key="absent-trials",
                title="Trials that enter no average",
                frame=absent,
                columns=[
                    Column(key="trial", header="Trial"),
                    Column(key="status", header="Status"),
                    Column(key="epochs_done", header="Epochs"),
                    Column(key="reason", header="Reason", wrap=True),
                    Column(key="log", header="Log", wrap=True),
                ],
                caption=f"{len(absent)} of {len(given.sweep.runs)} trials. `sweeps/status.py` "
                "names what to "
                "run again.",
            )
        )
    else:
        items.append(Note(body=prose("Every trial that was asked for is complete.")))
    items += looks.notes(given)
    if len(odd := odd_cases(given)):
        items.append(
            Table(
                key="case-warnings",
                title="What is unusual about cases",
                frame=odd,
                columns=[
                    Column(key="cohort", header="Cohort"),
                    Column(key="case", header="Case"),
                    Column(key="warning", header="Warning", wrap=True),
                ],
                caption=f"{len(odd)} warnings about {odd['case'].nunique()} cases, all of which "
                "were used as they are.",
            )
        )
    if isinstance(limit := given.sweep.meta.get("max_hours"), dict):
        items.append(Note(body=prose(_within_hours(given, limit))))
    return Section(
        key="coverage",
        title="What was run?",
        items=items,
        opened=any(not cohort.done[cohort.status != ""].all() for cohort in given.all_cohorts),
        lead=f"A trial is one training of a network. {given.what_cells_are} "
        "Only complete trials enter an average. A trial that diverged or "
        "failed is absent from every average below, which flatters its loss: read the gaps first.",
    )


def _within_hours(given: ReportInput, limit: Mapping[str, Any]) -> str:
    """What a sweep with --max-hours has, and that its end is no bias."""
    parts = []
    for cohort in given.all_cohorts:
        asked = (cohort.status != "").any((1, 2))
        whole = int(cohort.done[asked].all(0).sum())
        most = f" of at most {cells}" if type(cells := limit.get("cells")) is int else ""
        parts.append(f"{whole}{most} on {cohort.title}")
    return (
        "The sweep had a limit of time (`--max-hours`): (seed, fold) cells were begun in an order "
        "fixed beforehand, and none that was not expected to end in time. Cells with every arm: "
        f"{', '.join(parts)}. When it ended depended on time and not on results, so it biases no "
        "comparison."
    )


def odd_cases(given: ReportInput) -> pd.DataFrame:
    """A row for every warning about a case, as the sweep found them on loading."""
    rows = []
    for cohort in given.all_cohorts:
        cases = given.sweep.cohort_table(cohort.name, "cases.parquet")
        rows += [
            {"cohort": cohort.title, "case": case, "warning": warning}
            for case, found in zip(cases["case"], cases["warnings"], strict=True)
            for warning in (() if found is None else found)
        ]
    return pd.DataFrame(rows, columns=["cohort", "case", "warning"])


def tiles(cohort: CohortScores) -> pd.DataFrame:
    """Status of every trial asked for, one row each."""
    loss, seed, fold = np.nonzero(cohort.status != "")
    return pd.DataFrame(
        {
            "cohort": cohort.name,
            LOSS: [cohort.losses[i] for i in loss],
            "seed": [cohort.seeds[i] for i in seed],
            "fold": [cohort.folds[i] for i in fold],
            "status": cohort.status[loss, seed, fold],
            "last_epoch": cohort.last_epoch[loss, seed, fold],
        }
    )


def counts_table(cohorts: Sequence[CohortScores]) -> Table:
    """Number of trials by cohort, loss and status."""
    rows = []
    for cohort in cohorts:
        for index, loss in enumerate(cohort.losses):
            own = cohort.status[index]
            if (own != "").any():
                rows.append(
                    {
                        "cohort": cohort.title,
                        LOSS: loss,
                        "asked": int((own != "").sum()),
                        **{status: int((own == status).sum()) for status in STATUSES},
                    }
                )
    frame = pd.DataFrame(rows, columns=["cohort", LOSS, "asked", *STATUSES])
    seen = [status for status in STATUSES if status == "done" or frame[status].sum() > 0]
    return Table(
        key="coverage-counts",
        title="Trials by loss and status",
        frame=frame,
        columns=[
            Column(key="cohort", header="Cohort"),
            Column(key=LOSS, header="Loss"),
            Column(key="asked", header="Asked for"),
            *(Column(key=status, header=status.capitalize()) for status in seen),
        ],
        losses=cohorts[0].losses if cohorts else (),
        caption=f"{int(frame['done'].sum())} of {int(frame['asked'].sum())} trials are complete.",
    )


def failures_table(cohorts: Sequence[CohortScores]) -> Table | None:
    """How often training goes wrong, by loss, with exact intervals; None if it never ended."""
    rows = []
    for cohort in cohorts:
        scores = cohort.last_by_case(cohort.test)[..., 0]
        for loss, found in failures(cohort, scores).items():
            if not found.ended:
                continue
            rate_low, rate_high = found.diverged_interval
            odd_low, odd_high = found.odd_interval
            rows.append(
                {
                    "cohort": cohort.title,
                    LOSS: cohort.losses[loss],
                    "ended": found.ended,
                    "diverged": found.diverged,
                    "diverged_low": rate_low,
                    "diverged_high": rate_high,
                    "judged": found.judged,
                    "odd": found.odd if found.judged else float("nan"),
                    "odd_low": odd_low,
                    "odd_high": odd_high,
                }
            )
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    percent = {"decimals": 0, "percent": True}
    interval = f"{confidence.in_percent()} of its rate"
    return Table(
        key="failures",
        title="How often does training go wrong?",
        frame=frame,
        losses=cohorts[0].losses,
        columns=[
            Column(key="cohort", header="Cohort"),
            Column(key=LOSS, header="Loss"),
            Column(key="ended", header="Ended"),
            Column(key="diverged", header="diverged", group="Diverged"),
            Column(key="diverged_low", header="low", group=f"Diverged, {interval}", **percent),
            Column(key="diverged_high", header="high", group=f"Diverged, {interval}", **percent),
            Column(key="odd", header="far off", group="Far off"),
            Column(key="odd_low", header="low", group=f"Far off, {interval}", **percent),
            Column(key="odd_high", header="high", group=f"Far off, {interval}", **percent),
        ],
        caption="Failing is an outcome of a loss too. Ended: complete or diverged. Far off: "
        f"complete trainings more than {ODD:g} robust standard deviations from the median DSC of "
        f"the same loss and fold, where there are {FEWEST_SEEDS} seeds or more to tell. Exact "
        f"intervals (Clopper and Pearson): that none was seen does not mean none will be. "
        f"{int(frame['diverged'].sum())} of {int(frame['ended'].sum())} trainings diverged.",
    )


def absent_trials(sweep: Sweep) -> pd.DataFrame:
    """Trials that are not complete, or that sweep.json does not ask for, with the reason."""
    runs = sweep.runs
    stray = ~runs["expected"].astype(bool)
    absent = runs[(runs["status"] != "done") | stray]
    reasons = {"missing": "never begun", "partial": "begun, not complete (running or interrupted)"}
    reason = [
        error if isinstance(error, str) and error else reasons.get(status, "")
        for error, status in zip(absent["error"], absent["status"], strict=True)
    ]
    frame = pd.DataFrame(
        {
            "trial": absent["trial"].to_numpy(),
            "status": absent["status"].to_numpy(),
            "epochs_done": pd.to_numeric(absent["epochs_done"]).to_numpy(float),
            "reason": reason,
            "log": [log if isinstance(log, str) else "" for log in absent["log"]],
        }
    )
    for row in np.flatnonzero(stray[absent.index].to_numpy()):
        frame.loc[row, "reason"] = "not asked for by sweep.json: left out of every average"
    return frame


def draw(cohort: CohortScores) -> Drawing:
    """The tiles: colour and sign both carry the status."""
    rows = [index for index in range(len(cohort.losses)) if (cohort.status[index] != "").any()]
    columns = len(cohort.seeds) * len(cohort.folds)
    height = 0.72 + 0.2 * len(rows)
    longest = max(len(cohort.losses[index]) for index in rows)
    figure, axes = style.panels(
        1, 1, height=height, top=0.4, bottom=0.32, left=min(2.4, 0.2 + 0.07 * longest)
    )
    axis = axes[0, 0]
    for y, loss in enumerate(rows):
        for x in range(columns):
            status = cohort.status[loss, x // len(cohort.folds), x % len(cohort.folds)]
            if status == "":
                continue
            axis.add_patch(
                Rectangle(
                    (x + 0.05, y + 0.06),
                    0.9,
                    0.88,
                    linewidth=0,
                    facecolor=style.STATUS_COLOURS[status],
                    gid=f"L{loss}",
                )
            )
            if status != "done":
                dark = status in ("failed", "diverged", "corrupt")
                axis.text(
                    x + 0.5,
                    y + 0.52,
                    style.STATUS_SIGNS[status],
                    ha="center",
                    va="center",
                    fontsize=7,
                    gid=f"L{loss}",
                    color="#ffffff" if dark else "#16191e",
                )
    for number, seed in enumerate(cohort.seeds):
        x = number * len(cohort.folds)
        if number:
            axis.axvline(x, color=style.MUTED, linewidth=0.6)
        axis.text(
            x + len(cohort.folds) / 2, -0.75, f"seed {seed}", ha="center", va="bottom", fontsize=7
        )
    many = columns > 60
    ticks = [] if many else [x + 0.5 for x in range(columns)]
    axis.set_xticks(ticks, [str(cohort.folds[x % len(cohort.folds)]) for x in range(len(ticks))])
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([y + 0.5 for y in range(len(rows))], [cohort.losses[i] for i in rows])
    axis.set_xlim(0, columns)
    axis.set_ylim(len(rows), 0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    width = figure.get_figwidth()
    x = 0.12
    for status in STATUSES:
        if status != "done" and not (cohort.status == status).any():
            continue
        figure.patches.append(
            Rectangle(
                (x / width, 0.06 / height),
                0.13 / width,
                0.13 / height,
                linewidth=0,
                facecolor=style.STATUS_COLOURS[status],
                transform=figure.transFigure,
            )
        )
        sign = "" if status == "done" else f" {style.STATUS_SIGNS[status]}"
        figure.text((x + 0.18) / width, 0.12 / height, f"{status}{sign}", va="center", fontsize=7)
        x += 0.42 + 0.07 * len(status)
    return figure
