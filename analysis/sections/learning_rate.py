"""What was the learning rate over the epochs, where it moved?"""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Figure
from analysis.reading.scores import CohortScores, asked_for
from analysis.sections.report_input import ReportInput

RATE = "learning_rate"


def learning_rate(given: ReportInput, cohort: CohortScores) -> Figure | None:
    """The rates of every loss, if a training's moved; None: all were constant, or none is known."""
    frame = rates(given, cohort)
    if frame.empty or not frame.groupby(LOSS)[RATE].nunique().gt(1).any():
        return None
    own = {loss: frame[frame[LOSS] == cohort.losses[loss]] for loss in cohort.shown}
    known = {loss: rows for loss, rows in own.items() if len(rows)}
    ends = ", ".join(
        f"{cohort.losses[loss]} {rows[RATE].max():.3g} to {rows[RATE].iloc[-1]:.3g}"
        for loss, rows in known.items()
    )
    trainings = sum(int(rows["trainings"].max()) for rows in known.values())
    return Figure(
        key=f"learning-rate-{cohort.name}",
        title=f"Learning rate over epochs, {cohort.title}",
        draw=partial(draw, cohort, frame),
        data=frame,
        caption="Mean of the rates of an epoch's steps, and of all complete trainings in which it "
        f"is recorded: {trainings} of {int(cohort.done.sum())} trainings.",
        alt=f"Learning rates of {cohort.title}, the highest and that of the last epoch: {ends}.",
    )


def rates(given: ReportInput, cohort: CohortScores) -> pd.DataFrame:
    """A row per loss and epoch: the mean rate of its complete trainings, and how many have one."""
    runs, epochs = asked_for(given.sweep), given.sweep.epochs
    columns = ["cohort", LOSS, "epoch", RATE, "trainings"]
    if RATE not in epochs:  # no ledger, or one of an earlier release
        return pd.DataFrame(columns=columns)
    here = (runs["cohort"] == cohort.name) & (runs["status"] == "done")
    own = epochs[epochs["trial"].isin(set(runs.loc[here, "trial"]))].dropna(subset=[RATE])
    found = own.groupby([LOSS, "epoch"], as_index=False)[RATE].agg(["mean", "count"])
    found = found.rename(columns={"mean": RATE, "count": "trainings"})
    order = {loss: place for place, loss in enumerate(cohort.losses)}
    found = found.sort_values("epoch").sort_values(
        LOSS, key=lambda names: names.map(order), kind="stable"
    )
    return found.assign(cohort=cohort.name)[columns].reset_index(drop=True)


def draw(cohort: CohortScores, frame: pd.DataFrame) -> Drawing:
    """One line per loss, from 0."""
    top = style.legend_height(cohort.losses, cohort.shown) + 0.1
    figure, axes = style.panels(1, 1, height=1.9 + top, top=top, left=0.75)
    axis = axes[0, 0]
    for loss in cohort.shown:
        rows = frame[(frame[LOSS] == cohort.losses[loss]).to_numpy()]
        axis.plot(rows["epoch"], rows[RATE], **style.line_style(loss))
    style.epoch_axis(axis, cohort.num_epochs)
    axis.set_ylim(0, 1.05 * frame[RATE].max())
    axis.ticklabel_format(axis="y", style="plain")
    axis.set_ylabel("Learning rate")
    axis.set_xlabel("Epoch")
    style.legend(figure, cohort.losses, cohort.shown)
    return figure
