"""How many patients reach a given score: the performance profile of every loss."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Note, Section, prose
from analysis.reading.scores import CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import compared
from analysis.statistics.profiles import THRESHOLDS, profile
from analysis.statistics.ranks import resampled_patients, shared_scores

DRAWS = 1000


def section(given: ReportInput) -> Section | None:
    """One profile per cohort."""
    if not given.cohorts:
        return None
    items: list[Figure | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        items.append(_figure(cohort))
    return Section(
        key="profile",
        title="How many patients are served well?",
        items=items,
        lead="Read it upwards from a score that you would accept: the curve says for how many "
        "patients a loss reaches it. Curves that cross mean that the better loss depends on "
        "how hard the patient is.",
    )


def _figure(cohort: CohortScores) -> Figure | Note:
    scores = cohort.last_by_case(cohort.test)[..., 0]
    shared = shared_scores(scores, cohort.fold_of, compared(cohort), cohort.subject_of)
    if shared.num_subjects < 1:
        return Note(
            kind="warning",
            body=prose(f"{cohort.title}: no case is defined for every loss and seed."),
        )
    curves = profile(shared.patients)
    resampled = resampled_patients(shared.blocks, np.random.default_rng(1), DRAWS)
    low, high = np.quantile(profile(resampled), confidence.quantiles(), axis=0)
    names = [cohort.losses[loss] for loss in shared.losses]
    frame = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                LOSS: names[i],
                "dice_above": THRESHOLDS[t],
                "share": curves[i, t],
                "low": low[i, t],
                "high": high[i, t],
            }
            for i in range(len(names))
            for t in range(0, len(THRESHOLDS), 2)
        ]
    )
    at = int(np.flatnonzero(np.isclose(THRESHOLDS, 0.6))[0])
    words = ", ".join(f"{name} {curve[at]:.0%}" for name, curve in zip(names, curves, strict=True))
    return Figure(
        key=f"profile-{cohort.name}",
        title=f"Patients above a DSC, {cohort.title}",
        draw=partial(draw, cohort.losses, shared.losses, curves, low, high),
        data=frame,
        caption="Share of test patients (mean over seeds, last epoch) whose DSC is above the "
        f"value on the axis. Band: {confidence.in_percent()} of {DRAWS} resamplings of patients "
        f"and seeds within folds. Above 0.6: {words}. "
        f"{shared.counted(cohort)}{cohort.averaged}",
        alt=f"Share of patients with a DSC above 0.6: {words}.",
    )


def draw(
    losses: list[str], shown: list[int], curves: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Drawing:
    """Steps down from all patients to none."""
    top = style.legend_height(losses, shown) + 0.1
    figure, axes = style.panels(1, 1, height=2.9 + top, top=top, left=0.55)
    axis = axes[0, 0]
    for i, loss in enumerate(shown):
        axis.fill_between(
            THRESHOLDS,
            low[i],
            high[i],
            color=style.colour(loss),
            alpha=0.09,
            linewidth=0,
            gid=f"L{loss}",
            step="post",
        )
    for i, loss in enumerate(shown):
        axis.plot(THRESHOLDS, curves[i], drawstyle="steps-post", **style.line_style(loss))
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
    axis.set_xlabel("DSC")
    axis.set_ylabel("patients above")
    style.legend(figure, losses, shown)
    return figure
