"""Which loss beats which, and how sure is that: each against the reference, and every pair."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.flags import ROPE
from analysis.page import style
from analysis.page.items import (
    LOSS,
    Column,
    Figure,
    Heading,
    Note,
    Section,
    Table,
    decimals_for,
    prose,
)
from analysis.reading.scores import CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import given_up
from analysis.statistics.ladder import RUNG_NAMES, RUNGS
from analysis.statistics.pairs import DECLARED, Family, Judgement, Pair, equality_limit
from analysis.statistics.power import POWER, detectable_for_new_training_sets


# ----------------------------------------------------------------------------------------- frames
def pair_frame(cohort: CohortScores, judged: Family, rope: float = ROPE) -> pd.DataFrame:
    """One row per pair with everything that is said about it."""
    rows = []
    for pair, judgement in zip(judged.pairs, judged.judgements, strict=True):
        low, high = pair.fit.interval("L3")
        rate_low, rate_high = pair.win_interval
        left, within, right = pair.fit.beyond(rope)
        rows.append(
            {
                "cohort": cohort.name,
                "a": cohort.losses[pair.a],
                "b": cohort.losses[pair.b],
                "difference": pair.fit.estimate,
                "low": low,
                "high": high,
                "wins": pair.won_cells,
                "ties": pair.tied_cells,
                "losses": pair.lost_cells,
                "win_rate": pair.win_rate,
                "win_low": rate_low,
                "win_high": rate_high,
                "p_a_better": right,
                "p_equal": within,
                "p_b_better": left,
                "p_holm": judgement.p["L3"],
                "survives": judgement.survives_rounded,
                "verdict": judgement.in_words,
                "cells": pair.fit.num_cells,
                **cohort.columns(pair.fit.num_cases, pair.fit.num_subjects),
            }
        )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """Numbers behind the forest, and the matrix, for every cohort."""
    if not given.cohorts:
        return None
    items: list[Figure | Table | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        if note := given.reference_note(cohort):
            items.append(Note(kind="warning", body=prose(note)))
        judged = given.family(cohort)
        if judged.pairs:
            items += [
                _forest_table(cohort, judged, given),
                _matrix(cohort, judged, given.rope),
                _pair_table(cohort, judged, given.rope),
            ]
        if judged.pairs and not given.arms.share_all:
            items.append(Note(body=prose(_not_shared(given, cohort, judged))))
    return Section(
        key="differences",
        title="Which loss is better, and how sure is that?",
        items=items,
        lead="Every difference is paired: same seed, same fold, same patients. Its interval "
        "grows with what it should hold for: other seeds on the same patients, other "
        "patients as well, other training sets as well. A claim about a loss in general "
        "needs the last one, and a cross-validation cannot measure it: how much other "
        "training sets move a difference is assumed or measured apart, and every verdict "
        "says how much of it would be borne.",
    )


def _not_shared(given: ReportInput, cohort: CohortScores, judged: Family) -> str:
    """Which comparisons are of networks that do not begin alike, or see other batches."""
    number: dict[str, int] = {}
    for pair in judged.pairs:
        shared = given.shared(cohort, pair.a, pair.b)
        number[shared] = number.get(shared, 0) + 1
    counted = ", ".join(f"{count} share {shared}" for shared, count in number.items())
    return (
        f"Of {len(judged.pairs)} pairs, in every (seed, fold), {counted}. Where weights or batches "
        "are not the same, their luck is part of the difference: its interval is wider for that, "
        "and as valid."
    )


def _forest_table(cohort: CohortScores, judged: Family, given: ReportInput) -> Table:
    frame = []
    pairs = [pair for pair, _ in judged.against_reference]
    for pair, judgement in judged.against_reference:
        row: dict[str, object] = {
            "cohort": cohort.name,
            LOSS: cohort.losses[pair.a],
            "difference": pair.fit.estimate,
        }
        for rung in RUNGS:
            row[rung] = pair.fit.half_width(rung)
        row |= {
            "reached": RUNG_NAMES.get(judgement.holds, "none"),
            "p_holm": judgement.p["L3"],
            "survives": judgement.survives_rounded,
            "detectable": _detectable(pair, judgement),
            "verdict": judgement.in_words,
            **cohort.columns(pair.fit.num_cases, pair.fit.num_subjects),
            "cells": pair.fit.num_cells,
        }
        if not given.arms.share_all:
            row["shared"] = given.shared(cohort, pair.a, pair.b)
        frame.append(row)
    digits = decimals_for([pair.fit.se["L1"] for pair in pairs])
    effect = given.training.of(cohort.name)
    shares = (
        f", {DECLARED:.0%} of the error for the {len(pairs)} with the reference"
        if len(pairs) < len(judged.pairs)
        else ""
    )
    limit = max((equality_limit(pair.fit, given.rope) for pair in pairs), default=float("nan"))
    equal = (
        f" With an effect of {limit:.3f} or more, nothing can be shown to be practically equal."
        if limit == limit
        else ""
    )
    return Table(
        key=f"forest-table-{cohort.name}",
        frame=pd.DataFrame(frame),
        losses=cohort.losses,
        title=f"DSC: difference from {cohort.losses[judged.reference]} and what it generalises "
        f"to, {cohort.title}",
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(key="difference", header="Difference", decimals=digits, signed=True),
            *(
                Column(
                    key=rung,
                    header=RUNG_NAMES[rung],
                    group=f"{confidence.in_percent()} half-width, by itself",
                    decimals=digits,
                )
                for rung in RUNGS
            ),
            Column(key="reached", header="Holds for"),
            Column(key="p_holm", header="p, new training sets (Holm)", decimals=3, least=True),
            Column(key="survives", header="Survives effects up to", decimals=3),
            Column(key="detectable", header="Detectable", decimals=3),
            Column(key="verdict", header="Verdict"),
            *([] if given.arms.share_all else [Column(key="shared", header="Shares with it")]),
        ],
        caption="Holds for: how far the claim that there is a difference goes, each step including "
        f"those before it, adjusted over all {len(judged.pairs)} pairs (Holm{shares}), as p is. "
        "Survives: the largest SD of a training-set effect at which that is still so; assumed "
        f"here: {effect.in_words}. Detectable: where nothing was found, the difference that "
        f"{confidence.in_percent(POWER)} of such sweeps would find. "
        f"{counted_pairs(cohort, pairs)}{given_up(cohort)}",
        note="better, worse: than the reference, separated from it for new training sets; perhaps: "
        "for new patients, but only if training sets matter less than assumed; practically equal: "
        f"a difference of ±{given.rope:g} or more is refuted for new training sets (of a pair by "
        f"itself: {confidence.in_percent(confidence.equivalence())} interval within "
        f"±{given.rope:g}).{equal}",
    )


def _detectable(pair: Pair, judgement: Judgement) -> float:
    if judgement.word != "not separated":
        return float("nan")
    return detectable_for_new_training_sets(pair.fit, judgement.level)


def _matrix(cohort: CohortScores, judged: Family, rope: float) -> Figure:
    return Figure(
        key=f"pairs-{cohort.name}",
        title=f"Every pair, DSC on test images, {cohort.title}",
        draw=partial(draw_matrix, cohort.losses, judged),
        data=pair_frame(cohort, judged, rope),
        caption="Row minus column: mean difference, and below it the cells (seed, fold) that the "
        "row won, of all; a tie is half a win. Colour: direction and size; a frame marks pairs "
        "that are separated, a dotted frame those that may be. A pair's difference does not depend "
        "on which other losses are in the sweep, its verdict only through Holm's adjustment. "
        f"{counted_pairs(cohort, judged.pairs)}{given_up(cohort)}",
        alt=f"Matrix of pairwise differences between {len(judged.losses)} losses.",
    )


def _pair_table(cohort: CohortScores, judged: Family, rope: float) -> Table:
    pairs = judged.pairs
    frame = pair_frame(cohort, judged, rope)
    digits = decimals_for([pair.fit.se["L1"] for pair in pairs])
    return Table(
        key=f"pair-table-{cohort.name}",
        title=f"Every pair in numbers, {cohort.title}",
        frame=frame,
        columns=[
            Column(key="a", header="First loss"),
            Column(key="b", header="Second loss"),
            Column(key="difference", header="First − second", decimals=digits, signed=True),
            Column(
                key="low",
                header="low",
                group=f"{confidence.in_percent()}, new training sets, by itself",
                decimals=digits,
                signed=True,
            ),
            Column(
                key="high",
                header="high",
                group=f"{confidence.in_percent()}, new training sets, by itself",
                decimals=digits,
                signed=True,
            ),
            Column(key="wins", header="won by first", group="Cells"),
            Column(key="ties", header="tied", group="Cells"),
            Column(key="losses", header="lost", group="Cells"),
            *(
                Column(key=key, header=header, group="Share won, if looked at once", decimals=2)
                for key, header in (("win_rate", "won"), ("win_low", "low"), ("win_high", "high"))
            ),
            *(
                Column(
                    key=key,
                    header=header,
                    group=f"Chance of better by over {rope:g}, if looked at once",
                    decimals=2,
                )
                for key, header in (
                    ("p_a_better", "first"),
                    ("p_equal", "neither"),
                    ("p_b_better", "second"),
                )
            ),
            Column(key="p_holm", header="p (Holm)", decimals=3, least=True),
            Column(key="survives", header="Survives effects up to", decimals=3),
            Column(key="verdict", header="First is"),
        ],
        caption=f"Differences within ±{rope:g} count as practically none. Share won: of the cells "
        "(seed, fold), a tie being half a win (Bouthillier 2021), with the exact interval of "
        "independent cells, which asks only about this grid of cells: read it as new seeds and "
        "splits of these patients. It and the chances beside it hold if one looks once; the "
        "difference's interval, p and verdict at any number of looks. Intervals are each "
        f"pair's own; p and verdict are adjusted over all {len(pairs)} pairs and are those of the "
        f"table above. {counted_pairs(cohort, pairs)}{given_up(cohort)}",
    )


def counted_pairs(cohort: CohortScores, pairs: list[Pair]) -> str:
    """n of N for a family of pairs, naming the pairs that lost cells or cases."""
    cells = len(cohort.seeds) * len(cohort.folds)
    short = [
        f"{cohort.losses[p.a]} − {cohort.losses[p.b]} ({p.fit.num_cells} cells, "
        f"{cohort.counted(p.fit.num_cases, p.fit.num_subjects)})"
        for p in pairs
        if p.fit.num_cells < cells or p.fit.num_cases < cohort.num_cases
    ]
    full = len(pairs) - len(short)
    text = f"All {cells} cells and {cohort.size}: {full} of {len(pairs)} pairs"
    if short:
        more = f" and {len(short) - 4} more" if len(short) > 4 else ""
        text += f"; fewer: {', '.join(short[:4])}{more}"
    return text + "."


# ---------------------------------------------------------------------------------------- drawing
def draw_matrix(losses: list[str], judged: Family) -> Drawing:
    """Row minus column; the lower triangle mirrors the upper."""
    from matplotlib.patches import Rectangle

    shown, pairs = judged.losses, judged.pairs
    size = len(shown)
    longest = max(len(losses[loss]) for loss in shown)
    left = min(2.2, 0.25 + 0.066 * longest)
    figure, axes = style.panels(
        1,
        1,
        height=0.55 + 0.42 * size,
        top=0.34,
        bottom=0.1,
        left=left,
        right=max(0.12, style.WIDTH_IN - left - 0.85 * size),
    )
    axis = axes[0, 0]
    place = {loss: number for number, loss in enumerate(shown)}
    reach = max([abs(p.fit.estimate) for p in pairs if not np.isnan(p.fit.estimate)] + [1e-9])
    for pair, judgement in zip(pairs, judged.judgements, strict=True):
        word = judgement.word
        for sign, row, column in ((1, pair.a, pair.b), (-1, pair.b, pair.a)):
            value = sign * pair.fit.estimate
            x, y = place[column], place[row]
            if np.isnan(value):
                axis.text(x + 0.5, y + 0.5, "–", ha="center", va="center", color=style.MUTED)
                continue
            tint = "#3f90da" if value > 0 else "#e76300"
            axis.add_patch(
                Rectangle(
                    (x + 0.03, y + 0.03),
                    0.94,
                    0.94,
                    linewidth=0,
                    facecolor=tint,
                    alpha=0.06 + 0.5 * abs(value) / reach,
                )
            )
            if word in ("separated", "suggestive"):
                axis.add_patch(
                    Rectangle(
                        (x + 0.05, y + 0.05),
                        0.9,
                        0.9,
                        fill=False,
                        edgecolor=style.INK,
                        linewidth=0.9,
                        linestyle="-" if word == "separated" else ":",
                    )
                )
            won = (pair.won_cells if sign > 0 else pair.lost_cells) + pair.tied_cells / 2
            text = f"{value:+.3f}".replace("-", "\N{MINUS SIGN}").replace("0.", ".")
            axis.text(x + 0.5, y + 0.36, text, ha="center", va="center", fontsize=7)
            axis.text(
                x + 0.5,
                y + 0.70,
                f"{won:g}/{pair.won_cells + pair.tied_cells + pair.lost_cells}",
                ha="center",
                va="center",
                fontsize=6,
                color=style.INK,
                alpha=0.8,
            )
    axis.set_xlim(0, size)
    axis.set_ylim(size, 0)
    axis.xaxis.tick_top()
    axis.set_xticks([x + 0.5 for x in range(size)], [losses[loss] for loss in shown])
    axis.set_yticks([y + 0.5 for y in range(size)], [losses[loss] for loss in shown])
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure
