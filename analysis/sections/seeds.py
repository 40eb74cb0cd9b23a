"""What if fewer seeds had been run: who would have won, what would have flipped, how many suffice?

Everything is enumerated from the grid y[l, s, f] of cell means (loss, seed, fold).  A label seed
draws a fresh generator in every fold, so a seed means nothing across folds: the paired lottery
keeps label seeds together as a paper would, the full lottery picks seeds fold by fold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle
from scipy import stats
from scipy.optimize import brentq

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, many, prose
from analysis.reading.scores import Study
from analysis.sections.pairs import ROPE, cell_means, compare
from analysis.statistics.ladder import Ladder, ladder

EXACT_UP_TO = 200_000
"""Lotteries with more outcomes than this are drawn at random instead of enumerated."""
DRAWS = 10_000
FRESH_SEEDS = tuple(range(1, 31))
PAIRS_FOR_WIN_RATE = 29
"""Noether's sample size for P(A>B) = 0.75 at 5 % and 95 % power (Bouthillier et al. 2021)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The part of a study that a seed lottery can be played on: complete for every loss in it."""

    losses: list[int]
    seeds: list[int]
    """Indices of the seeds that every loss completed in every fold."""
    values: np.ndarray
    """[L, S, F] cell means."""
    weights: np.ndarray
    """[F] share of the cases that every loss and seed in it defines."""
    left_out: list[int]
    """Losses that lack so many trials that no two seeds would be left with them."""


# ---------------------------------------------------------------------------------------- numbers
def complete_grid(scores: np.ndarray, fold_of: np.ndarray, shown: list[int]) -> Grid:
    """Seeds that are complete for all losses; losses are given up, worst first, until two seeds
    are left or one loss.  scores [L, S, P]; cases undefined for some loss or seed are left out."""
    losses, left_out = list(shown), []
    while True:
        own = scores[losses]
        flat = own.reshape(-1, own.shape[-1])
        cells = cell_means(flat, fold_of).reshape(len(losses), own.shape[1], -1)
        missing = np.isnan(cells)
        seeds = [s for s in range(own.shape[1]) if not missing[:, s].any()]
        if len(seeds) >= min(2, own.shape[1]) or len(losses) <= 1:
            break
        worst = int(np.argmax(missing.sum((1, 2))))
        left_out.append(losses.pop(worst))
    # Cells and weights from the same cases, those that the ladder would use.
    own = own[:, seeds]
    cells = cell_means(own.reshape(-1, own.shape[-1]), fold_of).reshape(
        len(losses), len(seeds), cells.shape[-1]
    )
    usable = ~np.any(np.isnan(own), axis=(0, 1))
    sizes = np.array([usable[fold_of == fold].sum() for fold in np.unique(fold_of)], float)
    return Grid(losses, seeds, cells, sizes / max(sizes.sum(), 1.0), left_out)


def paired_lottery(values: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """[worlds, L] means over every set of k label seeds, the same set for all losses and folds."""
    by_seed = values @ weights
    sets = list(combinations(range(values.shape[1]), k))
    return np.array([by_seed[:, list(chosen)].mean(1) for chosen in sets])


def full_lottery(
    values: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """[worlds, L] means over a set of k seeds per fold, the same sets for all losses: every
    combination of sets if there are at most EXACT_UP_TO, else DRAWS random ones."""
    num_seeds, num_folds = values.shape[1:]
    sets = list(combinations(range(num_seeds), k))
    subset = np.array([values[:, list(chosen)].mean(1) for chosen in sets])  # [sets, L, F]
    if len(sets) ** num_folds <= EXACT_UP_TO:
        worlds = np.zeros((1, values.shape[0]))
        for fold in range(num_folds):
            step = weights[fold] * subset[:, :, fold]
            worlds = (worlds[:, None] + step[None]).reshape(-1, values.shape[0])
        return worlds
    drawn = rng.integers(len(sets), size=(DRAWS, num_folds))
    chosen = (weights[f] * subset[drawn[:, f], :, f] for f in range(num_folds))
    return sum(chosen, start=np.zeros((DRAWS, values.shape[0])))


def one_paper_lottery(values: np.ndarray) -> np.ndarray:
    """[S F, L]: the worlds of a paper with one seed and one train-test split."""
    return values.reshape(values.shape[0], -1).T


def winner_shares(worlds: np.ndarray) -> np.ndarray:
    """[L] share of worlds [n, L] in which a loss has the highest mean; ties are split.

    >>> winner_shares(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.75, 0.25]
    """
    best = worlds == worlds.max(1, keepdims=True)
    return (best / best.sum(1, keepdims=True)).mean(0)


def unpaired_shares(values: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """[L] winner shares when every loss draws its own k label seeds, as when a paper copies its
    rivals' numbers from elsewhere.  Exact, by independence; ties are split."""
    worlds = paired_lottery(values, weights, k)
    count, losses = worlds.shape
    shares = np.zeros(losses)
    for loss in range(losses):
        for value in worlds[:, loss]:
            tied = np.array([1.0])  # tied[j]: probability that j others tie and the rest are below
            for other in range(losses):
                if other == loss:
                    continue
                below = (worlds[:, other] < value).mean()
                same = (worlds[:, other] == value).mean()
                tied = np.append(tied * below, 0.0) + np.append(0.0, tied * same)
            shares[loss] += (tied / np.arange(1, len(tied) + 1)).sum() / count
    return shares


def flip_share(difference: np.ndarray, weights: np.ndarray, k: int) -> float:
    """Share of the sets of k label seeds whose mean difference [S, F] has another sign than that
    of all seeds.  It must reach 0 when k is all seeds, so it says less than fresh seeds would."""
    worlds = paired_lottery(difference[None], weights, k)[:, 0]
    overall = float((difference @ weights).mean())
    return float((np.sign(worlds) != np.sign(overall)).mean())


def fresh_flip(fit: Ladder, num_seeds: float, k: int) -> float:
    """Predicted share of repeats with k *fresh* seeds whose sign differs from ours.

    T_nu(-|D| / sqrt(s^2 (1/k + 1/S))) with s^2 / S = SE(L1)^2: the predictive distribution of a
    mean of k seeds under a flat prior.  If the losses are really equal the truth is 0.5.
    """
    if not fit.df["L1"] > 0:
        return float("nan")
    variance = fit.se["L1"] ** 2 * num_seeds
    spread = math.sqrt(variance * (1 / k + 1 / num_seeds))
    if spread == 0:
        return 0.0 if fit.estimate != 0 else 0.5
    return float(stats.t.cdf(-abs(fit.estimate) / spread, fit.df["L1"]))


def split_half_disagreement(difference: np.ndarray, weights: np.ndarray) -> tuple[float, int]:
    """Share of pairs of disjoint halves of the seeds that name different winners, and how many
    such pairs there are (15 for five seeds).  Assumes nothing."""
    by_seed = difference @ weights
    half = len(by_seed) // 2
    if half == 0:
        return float("nan"), 0
    disagree, total = 0, 0
    for first in combinations(range(len(by_seed)), half):
        rest = [s for s in range(len(by_seed)) if s not in first]
        for second in combinations(rest, half):
            if first < second:
                total += 1
                signs = np.sign([by_seed[list(first)].mean(), by_seed[list(second)].mean()])
                disagree += signs[0] != signs[1]
    return disagree / total, total


def cherry_picking(values: np.ndarray, weights: np.ndarray, k: int = 1) -> np.ndarray:
    """[L, L] whether some set of k label seeds makes row beat column: what could be published."""
    worlds = paired_lottery(values, weights, k)
    return np.any(worlds[:, :, None] > worlds[:, None, :], axis=0)


def needed_seeds(
    fit: Ladder, num_seeds: int, counts: tuple[int, ...] = FRESH_SEEDS, power: float = 0.8
) -> pd.DataFrame:
    """Half-width and smallest detectable difference of a pair for k seeds per fold.

    Var(D; k) = s_patient / P + s_training / F + s_run / (k F) + s_rest / (k P), with the
    components of the ladder; a rung keeps the terms that it generalises over.  Detectable: found
    at 5 % with the given power (non-central t).  Degrees of freedom: F (k - 1) on L1, P - F on
    L2, F - 1 on L3; a single seed has none on L1.
    """
    part = fit.components
    rows = []
    for k in counts:
        seed_part = part.run * fit.run_share / k + part.residual * fit.patient_share / k
        patient_part = part.patient * fit.patient_share
        fold_part = part.training_set * fit.run_share
        for rung, variance, df in (
            ("L1", seed_part, fit.num_folds * (k - 1)),
            ("L2", seed_part + patient_part, fit.num_cases - fit.num_folds),
            ("L3", seed_part + patient_part + fold_part, fit.num_folds - 1),
        ):
            se = math.sqrt(variance) if variance >= 0 else float("nan")
            half = float(stats.t.ppf(0.975, df)) * se if df > 0 else float("nan")
            rows.append(
                {
                    "seeds": k,
                    "rung": rung,
                    "se": se,
                    "half_width": half,
                    "detectable": detectable(se, df, power),
                }
            )
    return pd.DataFrame(rows)


def detectable(se: float, df: float, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided 5 % t-test finds with the given power."""
    if not df > 0 or math.isnan(se):
        return float("nan")
    return se * _shift(float(df), power)


_SHIFTS: dict[tuple[float, float], float] = {}


def _shift(df: float, power: float) -> float:
    """Non-centrality at which the t-test has that power; kept, since it is slow to find."""
    if (df, power) not in _SHIFTS:
        critical = stats.t.ppf(0.975, df)
        root = brentq(lambda shift: stats.nct.sf(critical, df, shift) - power, 0.1, 60)
        _SHIFTS[df, power] = cast(float, root)  # the tuple comes with full_output alone
    return _SHIFTS[df, power]


def seeds_until_patients_dominate(fit: Ladder) -> float:
    """k* where the variance of k seeds equals that of the patients: more seeds stop helping."""
    part = fit.components
    seed_part = part.run * fit.run_share + part.residual * fit.patient_share
    patient_part = part.patient * fit.patient_share
    return seed_part / patient_part if patient_part > 0 else float("nan")


# --------------------------------------------------------------------------------------- sections
def section(studies: list[Study], rope: float = ROPE) -> Section:
    """The lotteries, the flips, the cherries, and the number of seeds worth running."""
    items: list[Figure | Table | Note | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        scores = study.last_by_case(study.test)[..., 0]
        grid = complete_grid(scores, study.fold_of, study.shown)
        if len(grid.losses) == 1 and len(grid.seeds) > 1:
            items += _needed(study, grid, scores, rope)
            continue
        if len(grid.losses) < 2 or len(grid.seeds) < 2:
            items.append(
                Note(
                    kind="warning",
                    body=prose(
                        f"{study.title}: a seed lottery needs two losses with two seeds "
                        "complete in "
                        f"every fold; there are {len(grid.losses)} and {len(grid.seeds)}."
                    ),
                )
            )
            continue
        items += [
            _winner_figure(study, grid),
            _flip_table(study, grid, scores),
            _cherry_figure(study, grid),
        ]
        items += _needed(study, grid, scores, rope)
    return Section(
        key="seeds",
        title="What if fewer seeds had been run?",
        items=items,
        lead="Most papers train once. These panels replay that choice with the trials at hand: "
        "which loss would have been declared the winner, which claims could have been "
        "published, and how many seeds would have been worth the electricity.",
    )


def counted(study: Study, grid: Grid) -> str:
    """How many of the seeds and losses are in the grid, and who is not."""
    text = (
        f"{len(grid.seeds)} of {len(study.seeds)} seeds (complete in every fold), "
        f"{len(grid.losses)} of {len(study.shown)} losses"
    )
    if grid.left_out:
        text += f"; left out for missing trials: {_names(study, grid.left_out)}"
    return text + "."


def _names(study: Study, losses: list[int]) -> str:
    return ", ".join(study.losses[loss] for loss in losses)


def winner_frame(study: Study, grid: Grid) -> pd.DataFrame:
    """Share of every lottery that each loss wins."""
    rows = []
    for k in range(1, len(grid.seeds) + 1):
        rng = np.random.default_rng([k, len(grid.seeds)])
        full = full_lottery(grid.values, grid.weights, k, rng)
        lotteries = {
            "paired": (
                winner_shares(paired_lottery(grid.values, grid.weights, k)),
                math.comb(len(grid.seeds), k),
            ),
            "full": (winner_shares(full), len(full)),
            "unpaired": (
                unpaired_shares(grid.values, grid.weights, k),
                math.comb(len(grid.seeds), k) ** len(grid.losses),
            ),
        }
        if k == 1:
            worlds = one_paper_lottery(grid.values)
            lotteries["one split"] = (winner_shares(worlds), len(worlds))
        for name, (shares, number) in lotteries.items():
            rows += [
                {
                    "cohort": study.cohort,
                    "lottery": name,
                    "seeds": k,
                    LOSS: study.losses[loss],
                    "share": share,
                    "worlds": number,
                }
                for loss, share in zip(grid.losses, shares, strict=True)
            ]
    return pd.DataFrame(rows)


def _winner_figure(study: Study, grid: Grid) -> Figure:
    frame = winner_frame(study, grid)
    first = frame[(frame["lottery"] == "full") & (frame["seeds"] == 1)]
    words = ", ".join(
        f"{row[LOSS]} {row['share']:.0%}"
        for row in first.sort_values("share", ascending=False).to_dict("records")
        if row["share"] >= 0.005
    )
    return Figure(
        key=f"winner-{study.cohort}",
        title=f"Who wins with k seeds, DSC, {study.title}",
        draw=partial(draw_winner, study.losses, grid.losses, frame),
        data=frame,
        caption="Share of all possible sweeps with k seeds in which a loss has the highest mean "
        "DSC on test images at the last epoch. One split: one seed and one fold, as a "
        "paper without cross-validation. Same seeds: one set of label seeds for all. "
        "Any seeds: a set per fold. Own seeds: every loss its own set, as with numbers "
        f"copied from other papers. {counted(study, grid)}",
        alt=f"With one seed per fold the winner would be {words}.",
    )


def _flip_table(study: Study, grid: Grid, scores: np.ndarray) -> Table:
    rows = []
    for a, b in combinations(range(len(grid.losses)), 2):
        difference = grid.values[a] - grid.values[b]
        pair = compare(scores[:, grid.seeds], study.fold_of, grid.losses[a], grid.losses[b])
        half, number = split_half_disagreement(difference, grid.weights)
        rows.append(
            {
                "cohort": study.cohort,
                "a": study.losses[grid.losses[a]],
                "b": study.losses[grid.losses[b]],
                "difference": pair.fit.estimate,
                "flip_1": flip_share(difference, grid.weights, 1),
                "flip_2": flip_share(difference, grid.weights, 2),
                "fresh_1": fresh_flip(pair.fit, len(grid.seeds), 1),
                "fresh_2": fresh_flip(pair.fit, len(grid.seeds), 2),
                "fresh_5": fresh_flip(pair.fit, len(grid.seeds), 5),
                "split_half": half,
                "halves": number,
            }
        )
    frame = pd.DataFrame(rows).sort_values("fresh_1", ascending=False, kind="stable")
    halves = int(frame["halves"].iloc[0])
    percent = {"decimals": 0, "percent": True}
    return Table(
        key=f"flip-{study.cohort}",
        frame=frame.reset_index(drop=True),
        title=f"Would the conclusion flip? DSC, {study.title}",
        columns=[
            Column(key="a", header="A"),
            Column(key="b", header="B"),
            Column(key="difference", header="A − B", decimals=3, signed=True),
            Column(key="fresh_1", header="1 seed", group="Predicted, fresh seeds", **percent),
            Column(key="fresh_2", header="2 seeds", group="Predicted, fresh seeds", **percent),
            Column(key="fresh_5", header="5 seeds", group="Predicted, fresh seeds", **percent),
            Column(key="flip_1", header="1 seed", group="Among our seeds", **percent),
            Column(key="flip_2", header="2 seeds", group="Among our seeds", **percent),
            Column(key="split_half", header="disagree", group="Disjoint halves", **percent),
        ],
        caption="How often a smaller sweep on the same patients and splits would name the other "
        "loss. Predicted: for seeds nobody has run yet; if two losses are really equal "
        "the truth is 50%. Among our seeds: share of all sets of that size, which must "
        "reach 0 with all seeds and so says too little. Disjoint halves: share of "
        f"{halves} pairs of halves that disagree. {counted(study, grid)}",
    )


def _cherry_figure(study: Study, grid: Grid) -> Figure:
    can = cherry_picking(grid.values, grid.weights)
    names = [study.losses[loss] for loss in grid.losses]
    either = sum(can[a, b] and can[b, a] for a, b in combinations(range(len(names)), 2))
    total = math.comb(len(names), 2)
    frame = pd.DataFrame(
        [
            {
                "cohort": study.cohort,
                "winner": names[a],
                "loser": names[b],
                "possible": bool(can[a, b]),
            }
            for a, b in permutations(range(len(names)), 2)
        ]
    )
    return Figure(
        key=f"cherry-{study.cohort}",
        narrow=True,
        data=frame,
        title=f"Claims one seed could support, {study.title}",
        draw=partial(draw_cherry, names, can),
        caption="Filled: some single label seed makes the row beat the column in mean test DSC "
        "over all folds. Both directions filled (dark): either claim could be published. "
        f"That is so for {either} of {total} pairs. {counted(study, grid)}",
        alt=f"For {either} of {total} pairs of losses, one seed can be found for either claim.",
    )


def _needed(
    study: Study, grid: Grid, scores: np.ndarray, rope: float
) -> list[Figure | Table | Note]:
    """For the two losses with the highest mean; for the mean itself of a single one."""
    means = (grid.values @ grid.weights).mean(1)
    order = np.argsort(-means, kind="stable")
    best = grid.losses[order[0]]
    if len(order) > 1:
        second = grid.losses[order[1]]
        fit = compare(scores, study.fold_of, best, second).fit
        names = f"{study.losses[best]} − {study.losses[second]}"
        what = "For the two losses with the highest mean."
    else:
        fit = ladder(scores[best], study.fold_of)
        names = f"mean of {study.losses[best]}"
        what = "For the mean of the only loss that was run."
    if np.isnan(fit.components.residual):
        return []
    frame = needed_seeds(fit, len(grid.seeds))
    frame.insert(0, "cohort", study.cohort)
    star = seeds_until_patients_dominate(fit)
    l1 = frame[(frame["rung"] == "L1") & (frame["half_width"] <= rope)]
    enough = (
        f"{many(int(l1['seeds'].min()), 'seed')} would bring the interval for new seeds "
        f"within ±{rope:g}"
        if len(l1)
        else f"even {max(FRESH_SEEDS)} seeds leave the interval for new seeds wider than ±{rope:g}"
    )
    dominate = (
        f"from {many(math.ceil(star), 'seed')} on, patients matter more than seeds, and more "
        "patients help where more seeds do not"
        if star == star and star <= 1000
        else "patients add no visible variance here"
    )
    limit = frame.loc[frame["rung"] == "L3", "detectable"].iloc[-1]
    floor = f"{limit:.3f}" if limit == limit else "nothing that two folds could tell"
    counted = (
        f"{fit.num_cells} of {len(study.seeds) * len(study.folds)} cells, {fit.num_cases} of "
        f"{study.num_cases} cases."
    )
    return [
        Figure(
            key=f"needed-{study.cohort}",
            title=f"How many seeds? {names}, DSC, {study.title}",
            draw=partial(draw_needed, frame, star, rope, len(study.seeds)),
            data=frame,
            caption=f"{what} Left: half-width of the 95 % "
            "interval; right: smallest true difference found with 80 % power. Grey: "
            f"±{rope:g}. Vertical line: seeds run here. {enough.capitalize()}; {dominate}. "
            f"With {max(FRESH_SEEDS)} seeds and these folds, a claim about new training sets "
            f"still needs a difference of {floor}. (P(A>B) asks for {PAIRS_FOR_WIN_RATE} "
            f"independent pairs.) {counted}",
            alt=f"{enough}; {dominate}.",
        ),
        _rungs_table(study, names, frame, len(grid.seeds), counted, f"{enough}; {dominate}."),
    ]


def _rungs_table(
    study: Study, names: str, frame: pd.DataFrame, run: int, counted: str, answer: str
) -> Table:
    """Half-widths for a few numbers of seeds, those run here among them."""
    shown = sorted({1, 2, 3, 5, 10, 20, 30, run} & set(FRESH_SEEDS))
    wide = frame.pivot_table(index="seeds", columns="rung", values="half_width", dropna=False)
    wide = wide.reindex(index=shown, columns=["L1", "L2", "L3"]).reset_index()
    return Table(
        key=f"seeds-needed-{study.cohort}",
        title=f"What more seeds would buy: half-width of the 95 % interval, {names}",
        frame=wide,
        columns=[
            Column(key="seeds", header="Seeds per fold"),
            *(
                Column(key=rung, header=RUNG_LINES[rung][0], decimals=4)
                for rung in ("L1", "L2", "L3")
            ),
        ],
        caption=f"DSC, {study.title}; {many(run, 'seed')} were run. One seed says nothing about "
        f"others. {counted}",
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
    figure, axes = style.panels(
        1,
        1,
        height=0.5 + 0.3 * size,
        width=max(width, 3.0),
        top=0.34,
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
    rotate = 90 if longest > 7 else 0
    axis.set_xticks([x + 0.5 for x in range(size)], names, fontsize=6, rotation=rotate)
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


def draw_needed(frame: pd.DataFrame, star: float, rope: float, run: int) -> Drawing:
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
        if star == star and 1 <= star <= frame["seeds"].max():
            axis.axvline(star, color=style.INK, linewidth=0.7, linestyle=":")
            axis.text(star, 0.98 * 1.15 * highest, " seeds = patients", fontsize=6.5, va="top")
        axis.set_title(title)
        axis.set_ylim(0, 1.15 * highest)
        axis.set_xlim(1, frame["seeds"].max())
        axis.set_xlabel("seeds per fold")
    return figure
