"""What if fewer seeds had been run: who wins, what flips, and how many would suffice?"""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

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
    many,
    prose,
)
from analysis.reading.scores import CohortScores
from analysis.sections.report_input import ReportInput
from analysis.statistics import confidence
from analysis.statistics.absence import compared, given_up, lacking
from analysis.statistics.ladder import RATE, ladder
from analysis.statistics.lottery import (
    CompleteCells,
    can_win,
    complete_cells,
    flip_share,
    fresh_flip,
    full_lottery,
    one_paper_lottery,
    paired_lottery,
    split_half_disagreement,
    unpaired_shares,
    winner_shares,
)
from analysis.statistics.order import best_first
from analysis.statistics.pairs import MEANINGFUL, compare
from analysis.statistics.power import (
    FRESH_SEEDS,
    POWER,
    needed_seeds,
    pairs_for_win_rate,
    seeds_until_patients_dominate,
)


# --------------------------------------------------------------------------------------- sections
def section(given: ReportInput) -> Section | None:
    """The lotteries, the flips, the cherries, and the number of seeds worth running."""
    if not given.cohorts:
        return None
    items: list[Figure | Table | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        scores = cohort.last_by_case(cohort.test)[..., 0]
        losses = compared(cohort)
        complete = complete_cells(scores, cohort.fold_of, losses, cohort.subject_of)
        if len(losses) == 1 and len(complete.seeds) > 1:
            items += _needed(cohort, scores, given)
            continue
        if len(complete.losses) > 1 and len(complete.seeds) > 1:
            items += [_winner_figure(cohort, complete), _cherry_figure(cohort, complete)]
        else:
            items.append(
                Note(
                    kind="warning",
                    body=prose(
                        f"{cohort.title}: a seed lottery needs two losses with two seeds "
                        "complete in "
                        f"every fold; there are {len(complete.losses)} and {len(complete.seeds)}."
                    ),
                )
            )
        items += [*_flip_table(cohort, losses, scores), *_needed(cohort, scores, given)]
    return Section(
        key="seeds",
        title="What if fewer seeds had been run?",
        items=items,
        lead="Most papers train once. These panels replay that choice with the trials at hand: "
        "which loss would have been declared the winner, which claims could have been "
        "published, and how many seeds would have been worth the electricity.",
    )


def counted(cohort: CohortScores, complete: CompleteCells, several: str = "losses") -> str:
    """How many of the cohort's seeds and losses a lottery is played on, and who is left out."""
    text = (
        f"{len(complete.seeds)} of {len(cohort.seeds)} seeds (complete in every fold), "
        f"{len(complete.losses)} of {len(cohort.shown)} {several}"
    )
    left = [loss for loss in cohort.shown if loss not in complete.losses]
    if left:
        names = ", ".join(cohort.losses[loss] for loss in left)
        text += f"; left out for {lacking(cohort, left)}: {names}"
    return text + "."


def winner_frame(cohort: CohortScores, complete: CompleteCells) -> pd.DataFrame:
    """Share of every lottery that each loss wins."""
    rows = []
    for k in range(1, len(complete.seeds) + 1):
        rng = np.random.default_rng([k])  # as the verdict's draws of one seed
        full = full_lottery(complete.values, complete.weights, k, rng)
        lotteries = {
            "paired": (
                winner_shares(paired_lottery(complete.values, complete.weights, k)),
                math.comb(len(complete.seeds), k),
            ),
            "full": (winner_shares(full), len(full)),
            "unpaired": (
                unpaired_shares(complete.values, complete.weights, k),
                math.comb(len(complete.seeds), k) ** len(complete.losses),
            ),
        }
        if k == 1:
            worlds = one_paper_lottery(complete.values)
            lotteries["one split"] = (winner_shares(worlds), len(worlds))
        for name, (shares, number) in lotteries.items():
            rows += [
                {
                    "cohort": cohort.name,
                    "lottery": name,
                    "seeds": k,
                    LOSS: cohort.losses[loss],
                    "share": share,
                    "worlds": number,
                }
                for loss, share in zip(complete.losses, shares, strict=True)
            ]
    return pd.DataFrame(rows)


def _winner_figure(cohort: CohortScores, complete: CompleteCells) -> Figure:
    frame = winner_frame(cohort, complete)
    first = frame[(frame["lottery"] == "full") & (frame["seeds"] == 1)]
    words = ", ".join(
        f"{row[LOSS]} {row['share']:.0%}"
        for row in first.sort_values("share", ascending=False).to_dict("records")
        if row["share"] >= 0.005
    )
    return Figure(
        key=f"winner-{cohort.name}",
        title=f"Who wins with k seeds, DSC, {cohort.title}",
        draw=partial(draw_winner, cohort.losses, complete.losses, frame),
        data=frame,
        caption="Share of all possible sweeps with k seeds in which a loss has the highest mean "
        "DSC on test images at the last epoch. One split: one seed and one fold, as a "
        "paper without cross-validation. Same seeds: the same k of our seeds in all folds. "
        "Any seeds: another k in every fold, since a seed's number means nothing across folds. "
        "Own seeds: every loss its own k, as with numbers copied from other papers. Ties are "
        f"split. Numbers in the bars: per cent. {counted(cohort, complete)}",
        alt=f"With one seed per fold the winner would be {words}.",
    )


def flip_frame(cohort: CohortScores, losses: list[int], scores: np.ndarray) -> pd.DataFrame:
    """How often smaller sweeps would name the other of two losses, by pair, from scores [L, S, P].

    Predictions are from what both have, as every difference; sets of our own seeds are of those
    that both completed in every fold, NaN where there are fewer than two.
    """
    rows = []
    for a, b in combinations(losses, 2):
        fit = compare(scores, cohort.fold_of, a, b, cohort.subject_of).fit
        seeds = fit.num_cells / max(fit.num_folds, 1)
        own = complete_cells(scores, cohort.fold_of, [a, b], cohort.subject_of)
        flips, half, number = [float("nan")] * 2, float("nan"), 0
        if len(own.losses) == 2 and len(own.seeds) > 1:
            difference = own.values[0] - own.values[1]
            flips = [flip_share(difference, own.weights, k) for k in (1, 2)]
            half, number = split_half_disagreement(difference, own.weights)
        rows.append(
            {
                "cohort": cohort.name,
                "a": cohort.losses[a],
                "b": cohort.losses[b],
                "difference": fit.estimate,
                "flip_1": flips[0],
                "flip_2": flips[1],
                **{f"fresh_{k}": fresh_flip(fit, seeds, k) for k in (1, 2, 5)},
                "split_half": half,
                "halves": number,
                "se": fit.se["L1"],
            }
        )
    frame = pd.DataFrame(rows).sort_values("fresh_1", ascending=False, kind="stable")
    return frame.reset_index(drop=True)


def _flip_table(cohort: CohortScores, losses: list[int], scores: np.ndarray) -> list[Table]:
    if len(losses) < 2:
        return []
    frame = flip_frame(cohort, losses, scores)
    if frame["fresh_1"].isna().all() and frame["flip_1"].isna().all():
        return []
    without = [
        f"{row['a']} and {row['b']}" for row in frame.to_dict("records") if not row["halves"]
    ]
    more = f" and {len(without) - 4} more pairs" if len(without) > 4 else ""
    lack = (
        f" Fewer than two seeds that both completed in every fold: {', '.join(without[:4])}{more}."
        if without
        else ""
    )
    percent = {"decimals": 0, "percent": True}
    return [
        Table(
            key=f"flip-{cohort.name}",
            frame=frame.drop(columns="se"),
            title=f"Would the conclusion flip? DSC, {cohort.title}",
            columns=[
                Column(key="a", header="Loss"),
                Column(key="b", header="minus"),
                Column(
                    key="difference",
                    header="Difference",
                    decimals=decimals_for(list(frame["se"])),
                    signed=True,
                ),
                Column(key="fresh_1", header="1 seed", group="Predicted, fresh seeds", **percent),
                Column(key="fresh_2", header="2 seeds", group="Predicted, fresh seeds", **percent),
                Column(key="fresh_5", header="5 seeds", group="Predicted, fresh seeds", **percent),
                Column(key="flip_1", header="1 seed", group="Among our seeds", **percent),
                Column(key="flip_2", header="2 seeds", group="Among our seeds", **percent),
                Column(key="split_half", header="disagree", group="Disjoint halves", **percent),
            ],
            caption="How often a smaller sweep on the same patients and splits would name the "
            "other loss; a tie names either, so it counts half. Difference: as in the table of "
            "every pair. Predicted: for seeds nobody has run yet; if two losses are really equal "
            "the truth is 50%. Among our seeds: share of all sets of that size, which must reach 0 "
            "with all seeds unless the losses tie, and so says too little. Disjoint halves: share "
            f"of pairs of halves of our seeds (at most {int(frame['halves'].max())}) that "
            f"disagree.{lack} {len(frame)} of {math.comb(len(cohort.shown), 2)} pairs."
            f"{given_up(cohort)}",
        )
    ]


def _cherry_figure(cohort: CohortScores, complete: CompleteCells) -> Figure:
    can = can_win(complete.values, complete.weights)
    names = [cohort.losses[loss] for loss in complete.losses]
    either = sum(can[a, b] and can[b, a] for a, b in combinations(range(len(names)), 2))
    total = math.comb(len(names), 2)
    frame = pd.DataFrame(
        [
            {
                "cohort": cohort.name,
                "winner": names[a],
                "loser": names[b],
                "possible": bool(can[a, b]),
            }
            for a, b in permutations(range(len(names)), 2)
        ]
    )
    return Figure(
        key=f"cherry-{cohort.name}",
        narrow=True,
        data=frame,
        title=f"Claims one seed could support, {cohort.title}",
        draw=partial(draw_cherry, names, can),
        caption="Filled: one of our seeds, the same in all folds, makes the row beat the column in "
        "mean test DSC. Both directions filled (dark): either claim could be published. "
        f"That is so for {either} of {total} pairs. {counted(cohort, complete)}",
        alt=f"For {either} of {total} pairs of losses, one seed can be found for either claim.",
    )


def _needed(
    cohort: CohortScores, scores: np.ndarray, given: ReportInput
) -> list[Figure | Table | Note]:
    """For the two losses with the highest mean; for the mean itself of a single one."""
    rope, effect = given.rope, given.training.of(cohort.name)
    known = {"tau": effect.tau_of("dice"), "num_subjects": cohort.num_subjects}
    order = best_first(scores, cohort)
    if len(order) > 1:
        best, second = order[:2]
        fit = compare(scores, cohort.fold_of, best, second, cohort.subject_of, **known).fit
        names = f"{cohort.losses[best]} − {cohort.losses[second]}"
        what = "For the two losses with the highest mean, on the cells that both have."
    else:
        best = order[0]
        known["tau"] = float("nan")  # what is known of a difference says nothing of one loss
        fit = ladder(scores[best], cohort.fold_of, cohort.subject_of, bounds=RATE, **known)
        names = f"mean of {cohort.losses[best]}"
        what = "For the mean of the only loss that was run."
    if np.isnan(fit.components.residual):
        return []
    run = fit.num_cells / fit.num_folds
    frame = needed_seeds(fit, run, sorted({*FRESH_SEEDS, run}))
    frame.insert(0, "cohort", cohort.name)
    star = math.ceil(seeds) if (seeds := seeds_until_patients_dominate(fit)) <= 1000 else 0
    whole = frame[frame["seeds"].isin(FRESH_SEEDS)]
    l1 = whole[(whole["rung"] == "L1") & (whole["half_width"] <= rope)]
    enough = (
        f"{many(int(l1['seeds'].min()), 'seed')} would bring the interval for new seeds "
        f"within ±{rope:g}"
        if len(l1)
        else f"even {max(FRESH_SEEDS)} seeds leave the interval for new seeds wider than ±{rope:g}"
    )
    dominate = (
        f"from {many(star, 'seed')} on, patients matter more than seeds, and more "
        "patients help where more seeds do not"
        if star
        else "patients add no visible variance here"
    )
    limit = frame.loc[frame["rung"] == "L3", "detectable"].iloc[-1]
    floor = (
        f" With {max(FRESH_SEEDS)} seeds and these patients, a claim about new training sets from "
        f"this pair alone (the verdict is adjusted for all) still needs a difference of "
        f"{limit:.3f}, at a training-set effect of {effect.in_words}."
        if limit == limit
        else ""
    )
    counted = (
        f"{fit.num_cells} of {len(cohort.seeds) * len(cohort.folds)} cells, "
        f"{cohort.part(fit.num_cases, fit.num_subjects)}."
    )
    return [
        Figure(
            key=f"needed-{cohort.name}",
            title=f"How many seeds? {names}, DSC, {cohort.title}",
            draw=partial(draw_needed, frame, star, rope, run),
            data=frame,
            caption=f"{what} Left: half-width of the {confidence.in_percent()} "
            "interval; right: smallest true difference found with "
            f"{confidence.in_percent(POWER)} power. Grey: ±{rope:g}, practically none. Solid "
            f"vertical line: the {run:.3g} seeds per fold run here; dotted: from there on, "
            f"patients matter more than seeds. {enough.capitalize()}; {dominate}.{floor} (That one "
            f"loss wins {MEANINGFUL:.0%} of cells takes {pairs_for_win_rate()} independent cells "
            f"to show.) {counted}",
            alt=f"{enough}; {dominate}.",
        ),
        _rungs_table(cohort, names, frame, run, counted, f"{enough}; {dominate}."),
    ]


def _rungs_table(
    cohort: CohortScores, names: str, frame: pd.DataFrame, run: float, counted: str, answer: str
) -> Table:
    """Half-widths for a few numbers of seeds, those run here among them."""
    shown = sorted({1, 2, 3, 5, 10, 20, 30} & set(FRESH_SEEDS) | {run})
    wide = frame.pivot_table(index="seeds", columns="rung", values="half_width", dropna=False)
    wide = wide.reindex(index=shown, columns=["L1", "L2", "L3"]).reset_index()
    wide["as_run"] = ["as run" if seeds == run else "predicted" for seeds in wide["seeds"]]
    whole = run == int(run)
    return Table(
        key=f"seeds-needed-{cohort.name}",
        title=f"What more seeds would buy: half-width of the {confidence.in_percent()} "
        f"interval, {names}",
        frame=wide,
        columns=[
            Column(key="seeds", header="Seeds per fold", decimals=None if whole else 1),
            Column(key="as_run", header=""),
            *(
                Column(key=rung, header=RUNG_LINES[rung][0], decimals=4)
                for rung in ("L1", "L2", "L3")
            ),
        ],
        caption=f"DSC, {cohort.title}; {run:.3g} seeds per fold were run: that row has the "
        "intervals of this sweep, each for itself, as in the figure of differences; the others "
        f"are what another number of seeds would make of them. One seed says nothing about others. "
        f"{counted}",
        note=answer[0].upper() + answer[1:],
    )


# ---------------------------------------------------------------------------------------- drawing
LOTTERIES = {
    "one split": "One split",
    "paired": "Same seeds",
    "full": "Any seeds",
    "unpaired": "Own seeds",
}


def draw_winner(losses: list[str], shown: list[int], frame: pd.DataFrame) -> Drawing:
    """Stacked bars, one per k and lottery."""
    most = int(frame["seeds"].max())
    ks = range(1, most + 1)
    top = style.legend_height(losses, shown) + 0.22
    figure, axes = style.panels(
        1, 4, height=2.3 + top, top=top, gap_x=0.22, widths=(1.6, *(max(2, most),) * 3), bottom=0.4
    )
    for axis, (name, title) in zip(axes[0], LOTTERIES.items(), strict=True):
        own = frame[frame["lottery"] == name]
        for k in ks:
            at = own[own["seeds"] == k].set_index(LOSS)["share"]
            bottom = 0.0
            for loss in shown:
                share = float(at.get(losses[loss], 0.0))
                if share > 0:
                    axis.bar(
                        k,
                        share,
                        bottom=bottom,
                        width=0.8,
                        color=style.colour(loss),
                        gid=f"L{loss}",
                        edgecolor=style.SURFACE,
                        linewidth=0.6,
                    )
                    if share >= 0.12:
                        axis.text(
                            k,
                            bottom + share / 2,
                            f"{100 * share:.0f}",
                            ha="center",
                            va="center",
                            fontsize=6,
                            color="#ffffff",
                            gid=f"L{loss}",
                        )
                bottom += share
        axis.set_title(title)
        single = name == "one split"
        axis.set_xlim(0.3, 1.7 if single else most + 0.7)
        axis.set_xticks([1] if single else list(ks))
        axis.set_xlabel("seed" if single else "seeds per fold")
        axis.set_ylim(0, 1)
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
        axis.tick_params(labelleft=axis is axes[0, 0], bottom=False)
        axis.grid(False, axis="x")
    style.legend(figure, losses, shown)
    return figure


def draw_cherry(names: list[str], can: np.ndarray) -> Drawing:
    """Row beats column: light if one way only, dark if both ways can be shown."""
    size = len(names)
    longest = max(len(name) for name in names)
    left = min(2.0, 0.25 + 0.066 * longest)
    width = left + 0.42 * size + 0.2
    upright = longest > 7
    top = min(1.3, 0.12 + 0.055 * longest) if upright else 0.34
    figure, axes = style.panels(
        1,
        1,
        height=0.16 + top + 0.3 * size,
        width=max(width, 3.0),
        top=top,
        bottom=0.1,
        left=left,
        right=max(0.2, 3.0 - left - 0.42 * size),
    )
    axis = axes[0, 0]
    for row in range(size):
        for column in range(size):
            if row == column or not can[row, column]:
                continue
            both = can[column, row]
            axis.add_patch(
                Rectangle(
                    (column + 0.06, row + 0.08),
                    0.88,
                    0.84,
                    linewidth=0,
                    facecolor="#832db6" if both else "#b9ac70",
                    alpha=0.9 if both else 0.6,
                )
            )
    axis.set_xlim(0, size)
    axis.set_ylim(size, 0)
    axis.xaxis.tick_top()
    rotation = 90 if upright else 0
    axis.set_xticks([x + 0.5 for x in range(size)], names, fontsize=6, rotation=rotation)
    axis.set_yticks([y + 0.5 for y in range(size)], names)
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


RUNG_LINES = {
    "L1": ("new seeds", "#3f90da", ()),
    "L2": ("+ new patients", "#832db6", (5, 1.5)),
    "L3": ("+ new training sets", "#bd1f01", (1.5, 1.2)),
}


def draw_needed(frame: pd.DataFrame, star: int, rope: float, run: float) -> Drawing:
    """Half-width and detectable difference over the number of seeds."""
    figure, axes = style.panels(1, 2, height=2.7, top=0.28, gap_x=0.55, left=0.55, right=1.2)
    for axis, column, title in (
        (axes[0, 0], "half_width", "Half-width of the interval"),
        (axes[0, 1], "detectable", "Detectable difference"),
    ):
        highest = rope
        for rung, (label, colour, dashes) in RUNG_LINES.items():
            own = frame[frame["rung"] == rung]
            values = own[column].to_numpy(float)
            if np.isnan(values).all():
                continue
            axis.plot(
                own["seeds"],
                values,
                color=colour,
                linewidth=1.5,
                **({"dashes": dashes} if dashes else {}),
            )
            highest = max(highest, np.nanmax(values[1:]) if len(values) > 1 else highest)
            if axis is axes[0, 1]:
                axis.text(
                    frame["seeds"].max() * 1.02,
                    values[-1],
                    label,
                    fontsize=7,
                    color=colour,
                    va="center",
                )
        axis.axhspan(0, rope, color=style.SHADE, linewidth=0)
        axis.axvline(run, color=style.MUTED, linewidth=0.7)
        if 1 <= star <= frame["seeds"].max():
            axis.axvline(star, color=style.INK, linewidth=0.7, linestyle=":")
            axis.text(star, 0.98 * 1.15 * highest, " seeds = patients", fontsize=6.5, va="top")
        axis.set_title(title)
        axis.set_ylim(0, 1.15 * highest)
        axis.set_xlim(1, frame["seeds"].max())
        axis.set_xlabel("seeds per fold")
    return figure
