"""How stable is the ranking: under other patients and seeds, and under other ways to rank?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from scipy import stats

from analysis.page import style
from analysis.page.items import LOSS, Figure, Heading, Note, Section, prose, written
from analysis.reading.scores import Study
from analysis.statistics.ladder import holm

DRAWS = 2000
SCHEMES = {
    "mean": "mean, then rank",
    "rank": "rank, then mean",
    "median": "median, then rank",
    "iqm": "middle half, then rank",
    "test": "test, then rank",
}


# ---------------------------------------------------------------------------------------- numbers
@dataclass(frozen=True, eq=False)
class Common:
    """What all losses share: per fold, the seeds that all completed and the cases all define."""

    losses: list[int]
    left_out: list[int]
    """Losses given up because some fold would have had no seed in common with them."""
    blocks: list[np.ndarray]
    """[L, seeds, cases] per fold, without NaN."""
    folds: list[int]
    """Index of each block's fold."""

    @property
    def patients(self) -> np.ndarray:
        """[L, P] means over seeds."""
        return np.concatenate([block.mean(1) for block in self.blocks], 1)

    @property
    def num_cells(self) -> int:
        """(seed, fold) cells in common."""
        return sum(block.shape[1] for block in self.blocks)

    @property
    def num_cases(self) -> int:
        """Cases in common."""
        return sum(block.shape[2] for block in self.blocks)

    def counted(self, study: Study) -> str:
        """n of N, and who is absent."""
        cells = len(study.seeds) * len(study.folds)
        text = (
            f"{self.num_cases} of {study.num_cases} cases and {self.num_cells} of {cells} "
            f"(seed, fold) cells that {len(self.losses)} of {len(study.shown)} losses share"
        )
        if self.left_out:
            names = ", ".join(study.losses[loss] for loss in self.left_out)
            text += f"; left out for missing trials: {names}"
        return text + "."


def common(scores: np.ndarray, fold_of: np.ndarray, shown: list[int]) -> Common:
    """What the shown losses share of scores [L, S, P]; losses are given up, the one with the most
    gaps first, until every fold that anybody has is shared, or one loss is left."""
    losses, left_out = list(shown), []
    while True:
        own = scores[losses]
        blocks, folds, empty = [], [], 0
        for fold in np.unique(fold_of):
            block = own[:, :, fold_of == fold]
            block = block[:, ~np.isnan(block).all(2).any(0)]
            block = block[:, :, ~np.isnan(block).any((0, 1))]
            if block.size:
                blocks.append(block)
                folds.append(int(fold))
            else:
                empty += not np.isnan(own[:, :, fold_of == fold]).all()
        if not empty or len(losses) <= 1:
            return Common(losses, left_out, blocks, folds)
        left_out.append(losses.pop(int(np.argmax(np.isnan(own).sum((1, 2))))))


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis, 1 for the highest, ties shared.

    >>> ranks(np.array([0.2, 0.9, 0.2])).tolist()
    [2.5, 1.0, 2.5]
    """
    return stats.rankdata(-values, axis=-1)


def resampled_patients(
    blocks: list[np.ndarray], rng: np.random.Generator, draws: int = DRAWS
) -> np.ndarray:
    """[draws, L, P] patient means under two-way resampling: in every fold, seeds and patients
    are drawn with replacement; all losses get the same draw, so differences stay paired."""
    parts = []
    for block in blocks:
        losses, seeds, cases = block.shape
        times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
        by_case = np.einsum("ds,lsp->dlp", times / seeds, block)
        drawn = rng.integers(cases, size=(draws, 1, cases))
        parts.append(np.take_along_axis(by_case, np.repeat(drawn, losses, 1), 2))
    return np.concatenate(parts, 2)


def rank_frequencies(resampled: np.ndarray) -> np.ndarray:
    """[L, L] share of draws in which a loss (row) has rank 1, 2, ... (column); a shared rank is
    split between its places."""
    found = ranks(resampled.mean(2))
    places = np.arange(1, found.shape[1] + 1)
    return np.maximum(0, 1 - np.abs(found[:, :, None] - places)).mean(0)


def order_agreement(reference: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """[draws] Kendall's tau-b between the reference's order and each draw's, from mean scores.

    >>> order_agreement(np.array([3.0, 2.0, 1.0]), np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]))
    array([ 1., -1.])
    """
    a, b = np.triu_indices(len(reference), 1)
    here, there = np.sign(reference[a] - reference[b]), np.sign(resampled[:, a] - resampled[:, b])
    norm = np.sqrt((here**2).sum() * (there**2).sum(1))
    return np.divide((here * there).sum(1), norm, out=np.full(len(there), np.nan), where=norm > 0)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis (25 % trimmed mean)."""
    return stats.trim_mean(values, 0.25, axis=-1)


def rank_by(patients: np.ndarray, scheme: str) -> np.ndarray:
    """[L] ranks of patient means [L, P] under one of SCHEMES.

    test: rank by how many other losses are beaten in a one-sided Wilcoxon signed-rank test over
    patients, Holm-adjusted over all ordered pairs (challengeR's test-then-rank).  It treats
    patients of one fold as independent, which they are not: a scheme, not evidence.
    """
    if scheme == "mean":
        return ranks(patients.mean(1))
    if scheme == "rank":
        return ranks(-ranks(patients.T).mean(0))
    if scheme == "median":
        return ranks(np.median(patients, 1))
    if scheme == "iqm":
        return ranks(interquartile_mean(patients))
    p = wilcoxon_matrix(patients)
    off = ~np.eye(len(p), dtype=bool)
    adjusted = np.ones_like(p)
    adjusted[off] = holm(p[off])
    return ranks((adjusted < 0.05).sum(1).astype(float))


def wilcoxon_matrix(patients: np.ndarray) -> np.ndarray:
    """[L, L] one-sided p that row is higher than column; 1 where they are the same throughout."""
    size = len(patients)
    p = np.ones((size, size))
    for a in range(size):
        for b in range(size):
            if a != b and (patients[a] != patients[b]).any():
                with warnings.catch_warnings():  # ties and few patients: the normal approximation
                    warnings.simplefilter("ignore")
                    result = stats.wilcoxon(patients[a], patients[b], alternative="greater")
                # scipy makes the class of the result at run time: (statistic, p).
                _, p[a, b] = cast(tuple[float, float], result)
    return p


# --------------------------------------------------------------------------------------- sections
def section(studies: list[Study]) -> Section:
    """Blobs under resampling and lines over ranking schemes."""
    items: list[Figure | Note | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        scores = study.last_by_case(study.test)[..., 0]
        shared = common(scores, study.fold_of, study.shown)
        if len(shared.losses) < 2 or shared.num_cases < 2:
            items.append(
                Note(
                    kind="warning",
                    body=prose(
                        f"{study.title}: a ranking needs two losses and two patients in common."
                    ),
                )
            )
            continue
        items += [_blobs(study, shared), _lines(study, shared)]
    return Section(
        key="ranks",
        title="How stable is the ranking?",
        items=items,
        lead="A rank hides how close its neighbours are. Here the whole comparison is repeated "
        "with patients and seeds drawn again, and with other rules for making a ranking "
        "out of the same scores.",
    )


def _blobs(study: Study, shared: Common) -> Figure:
    resampled = resampled_patients(shared.blocks, np.random.default_rng(0), DRAWS)
    frequencies = rank_frequencies(resampled)
    means = shared.patients.mean(1)
    tau = order_agreement(means, resampled.mean(2))
    names = [study.losses[loss] for loss in shared.losses]
    order = np.argsort(-means, kind="stable")
    frame = pd.DataFrame(
        [
            {
                "cohort": study.cohort,
                LOSS: names[loss],
                "rank": place + 1,
                "share": frequencies[loss, place],
                "mean_dice": means[loss],
            }
            for loss in order
            for place in range(len(names))
        ]
    )
    winner = names[order[0]]
    share = frequencies[order[0], 0]
    low, middle, high = (
        np.nanquantile(tau, (0.05, 0.5, 0.95)) if not np.isnan(tau).all() else ([float("nan")] * 3)
    )
    return Figure(
        key=f"ranks-{study.cohort}",
        title=f"Rank under resampling, DSC, {study.title}",
        draw=partial(draw_blobs, study.losses, shared.losses, order, frequencies, tau),
        data=frame,
        caption=f"Area: share of {DRAWS} resamplings (patients and seeds within folds, two-way) "
        "in which a loss takes a rank. Losses from best to worst mean. Right: Kendall's "
        f"tau between each resampling's order and ours, median {written(middle)} (5 to 95 %: "
        f"{written(low)} to {written(high)}). {shared.counted(study)}",
        alt=f"{winner}, the loss with the best mean, ranks first in {share:.0%} of resamplings.",
    )


def _lines(study: Study, shared: Common) -> Figure:
    patients = shared.patients
    table = np.array([rank_by(patients, scheme) for scheme in SCHEMES])
    names = [study.losses[loss] for loss in shared.losses]
    winners = sorted({names[i] for row in table for i in np.flatnonzero(row == row.min())})
    frame = pd.DataFrame(
        [
            {"cohort": study.cohort, "scheme": scheme, LOSS: names[i], "rank": float(row[i])}
            for scheme, row in zip(SCHEMES, table, strict=True)
            for i in range(len(names))
        ]
    )
    return Figure(
        key=f"schemes-{study.cohort}",
        title=f"Rank under other rules, DSC, {study.title}",
        draw=partial(draw_lines, study.losses, shared.losses, table),
        data=frame,
        caption="The same patient scores (mean over seeds, last epoch), ranked in five ways. "
        f"First under at least one rule: {', '.join(winners)}. "
        f"{shared.counted(study)}",
        alt=f"Ranks of {len(names)} losses under five rules; first under at least one: "
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


def draw_lines(losses: list[str], shown: list[int], table: np.ndarray) -> Drawing:
    """One line per loss over the schemes."""
    size = len(shown)
    figure, axes = style.panels(
        1, 1, height=0.65 + 0.24 * size, top=0.12, bottom=0.42, left=0.5, right=1.0
    )
    axis = axes[0, 0]
    for i, loss in enumerate(shown):
        axis.plot(
            range(len(SCHEMES)),
            table[:, i],
            marker=style.marker(loss),
            markersize=5,
            **style.line_style(loss),
        )
        axis.text(
            len(SCHEMES) - 0.9,
            table[-1, i] + _nudge(table, i),
            losses[loss],
            va="center",
            fontsize=7,
            color=style.INK,
            gid=f"L{loss}",
        )
    axis.set_xticks(range(len(SCHEMES)), [name.replace(", ", ",\n") for name in SCHEMES.values()])
    axis.set_yticks(range(1, size + 1))
    axis.set_ylim(size + 0.5, 0.5)
    axis.set_xlim(-0.15, len(SCHEMES) - 0.85)
    axis.set_ylabel("rank")
    axis.grid(False, axis="x")
    return figure


def _nudge(table: np.ndarray, i: int) -> float:
    """Spread the labels of losses that share the last rank, in the order of the first."""
    same = [j for j in np.argsort(table[0], kind="stable") if table[-1, j] == table[-1, i]]
    return same.index(i) - (len(same) - 1) / 2
