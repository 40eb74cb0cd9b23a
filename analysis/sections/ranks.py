"""How stable is the ranking: under other patients and seeds, and under other ways to rank?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Note, Section, prose, written
from analysis.reading.scores import CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import compared
from analysis.statistics.order import best_of
from analysis.statistics.ranks import (
    DRAWS,
    SCHEMES,
    SharedScores,
    order_agreement,
    rank_by,
    rank_frequencies,
    resampled_patients,
    shared_scores,
)


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """Blobs under resampling and lines over ranking schemes."""
    if not given.cohorts:
        return None
    items: list[Figure | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        scores = cohort.last_by_case(cohort.test)[..., 0]
        shared = shared_scores(scores, cohort.fold_of, compared(cohort), cohort.subject_of)
        if len(shared.losses) < 2 or shared.num_subjects < 2:
            items.append(
                Note(
                    kind="warning",
                    body=prose(
                        f"{cohort.title}: a ranking needs two losses and two patients in common."
                    ),
                )
            )
            continue
        items += [_blobs(cohort, shared), _lines(cohort, shared)]
    return Section(
        key="ranks",
        title="How stable is the ranking?",
        items=items,
        lead="A rank hides how close its neighbours are. Here the whole comparison is repeated "
        "with patients and seeds drawn again, and with other rules for making a ranking "
        "out of the same scores.",
    )


def _blobs(cohort: CohortScores, shared: SharedScores) -> Figure:
    resampled = resampled_patients(shared.blocks, np.random.default_rng(0), DRAWS)
    frequencies = rank_frequencies(resampled)
    means = shared.patients.mean(1)
    tau = order_agreement(means, resampled.mean(2))
    names = [cohort.losses[loss] for loss in shared.losses]
    order = np.argsort(-means, kind="stable")
    frame = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                LOSS: names[loss],
                "rank": place + 1,
                "share": frequencies[loss, place],
                "mean_dice": means[loss],
            }
            for loss in order
            for place in range(len(names))
        ]
    )
    first = best_of(means)
    if len(first) == 1:
        shares = f"{names[first[0]]}, the loss with the best mean, ranks first"
    else:
        shares = f"{' and '.join(names[i] for i in first)} share the best mean and rank first"
    share = " and ".join(f"{frequencies[i, 0]:.0%}" for i in first)
    lower, upper = confidence.quantiles()
    low, middle, high = (
        np.nanquantile(tau, (lower, 0.5, upper))
        if not np.isnan(tau).all()
        else ([float("nan")] * 3)
    )
    return Figure(
        key=f"ranks-{cohort.name}",
        title=f"Rank under resampling, DSC, {cohort.title}",
        draw=partial(draw_blobs, cohort.losses, shared.losses, order, frequencies, tau),
        data=frame,
        caption=f"Area: share of {DRAWS} resamplings (patients and seeds within folds, two-way) "
        "in which a loss takes a rank, ties split. Losses from best to worst mean. Right: "
        "Kendall's tau (1: the same order, 0: unrelated, −1: reversed) between each resampling's "
        f"order and ours, median {written(middle)} "
        f"({confidence.in_percent()} of resamplings: {written(low)} to "
        f"{written(high)}). {shared.counted(cohort)}",
        alt=f"{shares} in {share} of resamplings.",
    )


def _lines(cohort: CohortScores, shared: SharedScores) -> Figure:
    patients = shared.patients
    every = {scheme: rank_by(patients, scheme) for scheme in SCHEMES}
    kept = {scheme: row for scheme, row in every.items() if np.ptp(row) > 0}
    tied = [SCHEMES[scheme] for scheme in SCHEMES if scheme not in kept]
    if not kept:  # nothing tells them apart
        kept, tied = every, []
    table = np.array(list(kept.values()))
    names = [cohort.losses[loss] for loss in shared.losses]
    winners = sorted({names[i] for row in table for i in np.flatnonzero(row == row.min())})
    frame = pd.DataFrame(
        [
            {"cohort": cohort.name, "scheme": scheme, LOSS: names[i], "rank": float(row[i])}
            for scheme, row in kept.items()
            for i in range(len(names))
        ]
    )
    return Figure(
        key=f"schemes-{cohort.name}",
        title=f"Rank under other rules, DSC, {cohort.title}",
        draw=partial(draw_lines, cohort.losses, shared.losses, list(kept), table),
        data=frame,
        caption="The same patient scores (mean over seeds, last epoch), ranked in "
        f"{len(kept)} ways. First under at least one rule, alone or with others: "
        f"{', '.join(winners)}. "
        + (f"Left out, since all losses tie: {'; '.join(tied)}. " if tied else "")
        + f"{shared.counted(cohort)}",
        alt=f"Ranks of {len(names)} losses under {len(kept)} rules; first under at least one: "
        f"{', '.join(winners)}.",
    )


# ---------------------------------------------------------------------------------------- drawing
def draw_blobs(
    losses: list[str], shown: list[int], order: np.ndarray, frequencies: np.ndarray, tau: np.ndarray
) -> Drawing:
    """Blobs of rank frequency, and a histogram of tau."""
    size = len(shown)
    longest = max(len(losses[loss]) for loss in shown)
    figure, axes = style.panels(
        1,
        2,
        height=0.75 + 0.32 * size,
        top=0.26,
        bottom=0.42,
        left=min(2.2, 0.25 + 0.066 * longest),
        widths=(2.2, 1),
        gap_x=0.45,
    )
    axis = axes[0, 0]
    for y, position in enumerate(order):
        loss = shown[position]
        for place in range(size):
            share = frequencies[position, place]
            if share >= 0.004:
                axis.plot(
                    place + 1,
                    y,
                    marker="o",
                    markersize=19 * np.sqrt(share),
                    color=style.colour(loss),
                    gid=f"L{loss}",
                    markeredgewidth=0,
                )
                if share >= 0.25:
                    axis.text(
                        place + 1,
                        y,
                        f"{100 * share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=6,
                        color="#ffffff",
                        gid=f"L{loss}",
                    )
    axis.set_ylim(size - 0.5, -0.5)
    axis.set_xlim(0.4, size + 0.6)
    axis.set_xticks(range(1, size + 1))
    axis.set_yticks(range(size), [losses[shown[i]] for i in order])
    axis.tick_params(left=False)
    axis.set_xlabel("rank")
    axis.set_title("Share of resamplings, %")
    right = axes[0, 1]
    known = tau[~np.isnan(tau)]
    right.hist(known, bins=np.linspace(-1, 1, 22), color=style.MUTED, linewidth=0)
    right.set_title("Agreement with our order")
    right.set_xlabel("Kendall's tau")
    right.set_yticks([])
    right.set_xlim(-1, 1.05)
    return figure


def draw_lines(
    losses: list[str], shown: list[int], schemes: list[str], table: np.ndarray
) -> Drawing:
    """One line per loss over the schemes."""
    size = len(shown)
    figure, axes = style.panels(
        1, 1, height=0.65 + 0.24 * size, top=0.12, bottom=0.42, left=0.5, right=1.0
    )
    axis = axes[0, 0]
    for i, loss in enumerate(shown):
        axis.plot(
            range(len(schemes)),
            table[:, i],
            marker=style.marker(loss),
            markersize=5,
            **style.line_style(loss),
        )
        axis.text(
            len(schemes) - 0.9,
            table[-1, i] + _nudge(table, i),
            losses[loss],
            va="center",
            fontsize=7,
            color=style.INK,
            gid=f"L{loss}",
        )
    axis.set_xticks(
        range(len(schemes)),
        [name.replace(", ", ",\n") for name in (SCHEMES[scheme] for scheme in schemes)],
    )
    axis.set_yticks(range(1, size + 1))
    axis.set_ylim(size + 0.5, 0.5)
    axis.set_xlim(-0.15, len(schemes) - 0.85)
    axis.set_ylabel("rank")
    axis.grid(False, axis="x")
    return figure


def _nudge(table: np.ndarray, i: int) -> float:
    """Spread the labels of losses that share the last rank, in the order of the first."""
    same = [j for j in np.argsort(table[0], kind="stable") if table[-1, j] == table[-1, i]]
    return same.index(i) - (len(same) - 1) / 2
