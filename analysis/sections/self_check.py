"""Does this design keep its intervals' promise: the coverage to expect, by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.page.items import Column, Heading, Note, Section, Table, prose
from analysis.reading.scores import CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import compared
from analysis.statistics.ladder import RUNG_NAMES
from analysis.statistics.order import best_first
from analysis.statistics.pairs import compare
from analysis.statistics.self_check import DRAWS, design_of, expected_coverage

TARGETS = {
    "L1": "the mean of these patients and training sets",
    "L2": "the mean of all patients, at these training sets",
    "L3": "the mean of all patients and training sets",
}


def section(given: ReportInput) -> Section | None:
    """A table per cohort with two losses to compare."""
    items: list[Table | Note | Heading] = []
    several = [cohort for cohort in given.cohorts if len(compared(cohort)) > 1]
    for cohort in several:
        if len(several) > 1:
            items.append(Heading(text=cohort.title))
        items.append(_table(cohort, given))
    if not items:
        return None
    return Section(
        key="self-check",
        title="Does this design keep its intervals' promise?",
        items=items,
        lead=f"A {confidence.in_percent()} interval should hold what it estimates in "
        f"{confidence.in_percent()} of sweeps. Here sweeps of the very same folds, patients and "
        "seeds are drawn with the scatter that this one shows, and judged by the report's code.",
    )


def _table(cohort: CohortScores, given: ReportInput) -> Table | Note:
    scores = cohort.last_by_case(cohort.test)[..., 0]
    a, b = best_first(scores, cohort)[:2]
    fit = compare(scores, cohort.fold_of, a, b, cohort.subject_of).fit
    names = f"{cohort.losses[a]} − {cohort.losses[b]}"
    if np.isnan(fit.components.residual):
        return Note(
            body=prose(
                f"{cohort.title}: with one seed per fold, or one patient, what scatters by seeds "
                f"and what by patients cannot be told apart for {names}: nothing can be drawn."
            )
        )
    tau = given.tau(cohort)
    design = design_of(
        scores[a] - scores[b], cohort.fold_of, cohort.subject_of, cohort.num_subjects
    )
    found = expected_coverage(design, fit.components, tau, np.random.default_rng(2))
    frame = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                "rung": one.rung,
                "interval": RUNG_NAMES[one.rung],
                "target": TARGETS[one.rung],
                "coverage": one.share,
                "error": one.error,
                "draws": one.draws,
            }
            for one in found
        ]
    )
    part = fit.components
    return Table(
        key=f"self-check-{cohort.name}",
        title=f"Coverage to expect, DSC, {cohort.title}",
        frame=frame,
        columns=[
            Column(key="interval", header="Interval for"),
            Column(key="target", header="should hold", wrap=True),
            Column(key="coverage", header="holds it in", decimals=1, percent=True),
            Column(key="error", header="± (Monte Carlo)", decimals=1, percent=True),
        ],
        caption=f"{DRAWS} sweeps of two equal losses, with the components of {names}: SD of a "
        f"difference by patients {part.patient**0.5:.3f}, by runs {part.run**0.5:.3f}, rest "
        f"{part.residual**0.5:.3f}; and a training-set effect with SD "
        f"{given.training.of(cohort.name).in_words}. Errors are normal there; where trainings "
        "sometimes collapse, intervals hold less. Above the level: wider than needed. "
        f"{fit.num_cells} of {len(cohort.seeds) * len(cohort.folds)} cells, "
        f"{cohort.part(fit.num_cases, fit.num_subjects)}.",
    )
