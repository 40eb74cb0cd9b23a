"""Which loss beats which, and how sure is that: the forest against a reference, and every pair."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from scipy import stats

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Section, Table, written
from analysis.reading.scores import METRIC_NAMES, METRICS, Study
from analysis.statistics.ladder import RUNG_NAMES, RUNGS, Ladder, holm, ladder

ROPE = 0.01
"""Differences below this count as none: about the median improvement that MICCAI papers claim."""
MEANINGFUL = 0.75
"""Bouthillier et al. 2021: a win rate that could be this high is worth caring about."""
LEVEL = 0.95
WORDS = ("separated", "suggestive", "practically equal", "not separated", "cannot tell")


@dataclass(frozen=True)
class Pair:
    """Loss a against loss b, on the cells and cases that both have."""

    a: int
    b: int
    fit: Ladder
    wins: int
    ties: int
    losses: int
    """Cells (seed, fold) where a's mean is higher, equal, lower."""

    @property
    def win_rate(self) -> float:
        """P(A > B): share of cells that a wins; a tie is no win."""
        total = self.wins + self.ties + self.losses
        return self.wins / total if total else float("nan")

    @property
    def win_interval(self) -> tuple[float, float]:
        """95 % percentile bootstrap interval over cells, in closed form: resampling n cells with
        replacement makes the number of wins binomial."""
        total = self.wins + self.ties + self.losses
        if total == 0:
            return float("nan"), float("nan")
        low, high = stats.binom.ppf([0.025, 0.975], total, self.win_rate)
        return float(low) / total, float(high) / total

    @property
    def win_reading(self) -> str:
        """Bouthillier's three-way decision; its authors ask for 29 independent pairs, and cells
        of one cross-validation are neither 29 nor independent."""
        low, high = self.win_interval
        if not low > 0.5:
            return "no" if low <= 0.5 else "–"
        return "yes" if high >= MEANINGFUL else "yes, small"


# ---------------------------------------------------------------------------------------- numbers
def compare(scores: np.ndarray, fold_of: np.ndarray, a: int, b: int) -> Pair:
    """One pair from scores [L, S, P] at the reported epoch, NaN where absent or undefined.

    Only the two losses themselves matter: adding a third to the sweep changes nothing here.
    """
    difference = scores[a] - scores[b]
    fit = ladder(difference, fold_of)
    cells = cell_means(difference, fold_of)
    return Pair(a, b, fit, int((cells > 0).sum()), int((cells == 0).sum()), int((cells < 0).sum()))


def cell_means(difference: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """[S, F] mean over the cases that are defined in every cell of their fold; NaN if none."""
    folds = np.unique(fold_of)
    cells = np.full((len(difference), len(folds)), np.nan)
    for column, fold in enumerate(folds):
        block = difference[:, fold_of == fold]
        present = ~np.isnan(block).all(1)
        usable = ~np.isnan(block[present]).any(0)
        if present.any() and usable.any():
            cells[present, column] = block[present][:, usable].mean(1)
    return cells


def against(
    scores: np.ndarray, fold_of: np.ndarray, shown: list[int], reference: int
) -> list[Pair]:
    """Every shown loss minus the reference."""
    return [compare(scores, fold_of, loss, reference) for loss in shown if loss != reference]


def every_pair(scores: np.ndarray, fold_of: np.ndarray, shown: list[int]) -> list[Pair]:
    """All pairs, first minus second, in the sweep's order."""
    return [compare(scores, fold_of, a, b) for a, b in combinations(shown, 2)]


def adjusted(pairs: list[Pair]) -> list[tuple[float, float]]:
    """Holm-adjusted p for new patients (L2) and for new training sets (L3), per pair."""
    p2 = holm(np.array([pair.fit.p_value("L2") for pair in pairs]))
    p3 = holm(np.array([pair.fit.p_value("L3") for pair in pairs]))
    return [(float(a), float(b)) for a, b in zip(p2, p3, strict=True)]


def judge(pairs: list[Pair], rope: float = ROPE) -> list[str]:
    """One of WORDS for each pair of a family, Holm-adjusted inside it.

    practically equal: the 90 % interval for new training sets (L3) lies inside +-rope, which is
        two one-sided tests at 5 %.
    separated: no difference is refuted (adjusted p < .05) for new patients (L2) and for new
        training sets (L3).
    suggestive: refuted for new patients only.
    not separated: neither.  cannot tell: the design has fewer than two seeds or two folds in
        common.
    """
    words = []
    for pair, (patients, training) in zip(pairs, adjusted(pairs), strict=True):
        low, high = pair.fit.interval("L3", 0.90)
        if low >= -rope and high <= rope:
            words.append("practically equal")
        elif patients < 1 - LEVEL and training < 1 - LEVEL:
            words.append("separated")
        elif np.isnan(patients) or np.isnan(training):
            words.append("cannot tell")
        elif patients < 1 - LEVEL:
            words.append("suggestive")
        else:
            words.append("not separated")
    return words


def decimals_for(errors: list[float]) -> int:
    """Decimals worth printing: two digits of the smallest standard error, between 2 and 5."""
    known = [value for value in errors if value > 0]
    if not known:
        return 3
    return int(np.clip(1 - np.floor(np.log10(min(known))), 2, 5))


# ----------------------------------------------------------------------------------------- frames
def forest_frame(study: Study, pairs: dict[str, list[Pair]]) -> pd.DataFrame:
    """One row per metric, loss and rung."""
    rows = []
    for metric, own in pairs.items():
        for pair in own:
            for rung in RUNGS:
                low, high = pair.fit.interval(rung)
                rows.append(
                    {
                        "cohort": study.cohort,
                        "metric": metric,
                        LOSS: study.losses[pair.a],
                        "reference": study.losses[pair.b],
                        "rung": rung,
                        "generalises_to": RUNG_NAMES[rung],
                        "difference": pair.fit.estimate,
                        "se": pair.fit.se[rung],
                        "df": pair.fit.df[rung],
                        "low": low,
                        "high": high,
                        "p": pair.fit.p_value(rung),
                        "cells": pair.fit.num_cells,
                        "cases": pair.fit.num_cases,
                    }
                )
    return pd.DataFrame(rows)


def pair_frame(study: Study, pairs: list[Pair], rope: float = ROPE) -> pd.DataFrame:
    """One row per pair with everything that is said about it."""
    adjusted = holm(np.array([pair.fit.p_value("L3") for pair in pairs]))
    rows = []
    for pair, word, p in zip(pairs, judge(pairs, rope), adjusted, strict=True):
        low, high = pair.fit.interval("L3")
        rate_low, rate_high = pair.win_interval
        left, within, right = pair.fit.beyond(rope)
        rows.append(
            {
                "cohort": study.cohort,
                "a": study.losses[pair.a],
                "b": study.losses[pair.b],
                "difference": pair.fit.estimate,
                "low": low,
                "high": high,
                "wins": pair.wins,
                "ties": pair.ties,
                "losses": pair.losses,
                "win_rate": pair.win_rate,
                "win_low": rate_low,
                "win_high": rate_high,
                "p_a_better": right,
                "p_equal": within,
                "p_b_better": left,
                "p_holm": p,
                "verdict": word,
                "cells": pair.fit.num_cells,
                "cases": pair.fit.num_cases,
            }
        )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------- sections
def section(studies: list[Study], reference: str, rope: float = ROPE) -> Section:
    """Forest and matrix for every cohort."""
    items: list[Figure | Table | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        scores = study.last_by_case(study.test)
        base = study.losses.index(reference) if reference in study.losses else study.shown[0]
        if base not in study.shown:
            base = study.shown[0]
        pairs = {
            metric: against(scores[..., i], study.fold_of, study.shown, base)
            for i, metric in enumerate(METRICS)
        }
        if pairs["dice"]:
            items += [
                _forest(study, pairs, base, rope),
                _forest_table(study, pairs["dice"], base, rope),
            ]
            everyone = every_pair(scores[..., 0], study.fold_of, study.shown)
            items += [_matrix(study, everyone, rope), _pair_table(study, everyone, rope)]
    return Section(
        key="differences",
        title="Which loss is better, and how sure is that?",
        items=items,
        lead="Every difference is paired: same seed, same fold, same patients. Its interval "
        "grows with what it should hold for: other seeds on the same patients, other "
        "patients as well, other training sets as well. A claim about a loss in general "
        "needs the last one.",
    )


def _forest(study: Study, pairs: dict[str, list[Pair]], base: int, rope: float) -> Figure:
    name = study.losses[base]
    words = "; ".join(
        f"{study.losses[pair.a]} {written(pair.fit.estimate, '+.3f')}, {word}"
        for pair, word in zip(pairs["dice"], judge(pairs["dice"], rope), strict=True)
    )
    return Figure(
        key=f"forest-{study.cohort}",
        data=forest_frame(study, pairs),
        title=f"Difference from {name} at the last epoch, test images, {study.title}",
        draw=partial(draw_forest, study.losses, pairs, base, rope),
        caption="Dot: mean difference over cases. Bars, thick to thin: 95 % intervals for new "
        "seeds (same patients and splits), + new patients, + new training sets, and the "
        f"cautious version for overlapping training sets. Grey: ±{rope:g}, practically "
        "none. A bar that leaves the panel is longer than any difference can be. "
        f"{_counted(study, pairs['dice'])}",
        alt=f"Forest plot of differences in DSC, sensitivity and precision from {name}. DSC: "
        f"{words}.",
    )


def _forest_table(study: Study, pairs: list[Pair], base: int, rope: float) -> Table:
    frame = []
    adjusted = holm(np.array([pair.fit.p_value("L3") for pair in pairs]))
    for pair, word, p in zip(pairs, judge(pairs, rope), adjusted, strict=True):
        row: dict[str, object] = {
            "cohort": study.cohort,
            LOSS: study.losses[pair.a],
            "difference": pair.fit.estimate,
        }
        for rung in RUNGS:
            row[rung] = pair.fit.half_width(rung)
        reached = pair.fit.reached()
        row |= {
            "reached": RUNG_NAMES.get(reached, "none"),
            "p_holm": p,
            "verdict": word,
            "cases": pair.fit.num_cases,
            "cells": pair.fit.num_cells,
        }
        frame.append(row)
    digits = decimals_for([pair.fit.se["L1"] for pair in pairs])
    return Table(
        key=f"forest-table-{study.cohort}",
        frame=pd.DataFrame(frame),
        losses=study.losses,
        title=f"DSC: difference from {study.losses[base]} and what it generalises to, "
        f"{study.title}",
        columns=[
            Column(key=LOSS, header="Loss"),
            Column(key="difference", header="Difference", decimals=digits, signed=True),
            *(
                Column(key=rung, header=RUNG_NAMES[rung], group="95 % half-width", decimals=digits)
                for rung in RUNGS
            ),
            Column(key="reached", header="Holds for"),
            Column(key="p_holm", header="p, new training sets (Holm)", decimals=3),
            Column(key="verdict", header="Verdict"),
        ],
        caption="Holds for: the highest rung whose interval excludes 0 while all lower ones do. "
        f"p is adjusted over the {len(pairs)} comparisons (Holm). "
        f"{_counted(study, pairs)}",
        note="separated: refuted for new patients and new training sets; suggestive: for new "
        f"patients only; practically equal: 90 % interval within ±{rope:g}.",
    )


def _matrix(study: Study, pairs: list[Pair], rope: float) -> Figure:
    return Figure(
        key=f"pairs-{study.cohort}",
        title=f"Every pair, DSC on test images, {study.title}",
        draw=partial(draw_matrix, study.losses, study.shown, pairs, rope),
        data=pair_frame(study, pairs, rope),
        caption="Row minus column: mean difference, and cells (seed, fold) won by the row, of "
        "all. Colour: direction and size; a frame marks pairs that are separated, a "
        "dotted frame suggestive ones. A pair's entry does not depend on which other "
        f"losses are in the sweep, except for Holm's adjustment. "
        f"{_counted(study, pairs)}",
        alt=f"Matrix of pairwise differences between {len(study.shown)} losses.",
    )


def _pair_table(study: Study, pairs: list[Pair], rope: float) -> Table:
    frame = pair_frame(study, pairs, rope)
    digits = decimals_for([pair.fit.se["L1"] for pair in pairs])
    return Table(
        key=f"pair-table-{study.cohort}",
        title=f"Every pair in numbers, {study.title}",
        frame=frame,
        columns=[
            Column(key="a", header="A"),
            Column(key="b", header="B"),
            Column(key="difference", header="A − B", decimals=digits, signed=True),
            Column(
                key="low",
                header="low",
                group="95 %, new training sets",
                decimals=digits,
                signed=True,
            ),
            Column(
                key="high",
                header="high",
                group="95 %, new training sets",
                decimals=digits,
                signed=True,
            ),
            Column(key="wins", header="won", group="Cells"),
            Column(key="ties", header="tied", group="Cells"),
            Column(key="losses", header="lost", group="Cells"),
            Column(key="win_rate", header="P(A>B)", group="Win rate", decimals=2),
            Column(key="win_low", header="low", group="Win rate", decimals=2),
            Column(key="win_high", header="high", group="Win rate", decimals=2),
            Column(key="p_a_better", header="A", group="P(better by more than rope)", decimals=2),
            Column(
                key="p_equal", header="neither", group="P(better by more than rope)", decimals=2
            ),
            Column(key="p_b_better", header="B", group="P(better by more than rope)", decimals=2),
            Column(key="p_holm", header="p (Holm)", decimals=3),
            Column(key="verdict", header="Verdict"),
        ],
        caption=f"Rope: ±{rope:g}. P(A>B): share of cells that A wins, with the percentile "
        "bootstrap interval over cells (Bouthillier 2021), which asks only about this "
        "grid of cells: read it as new seeds and splits of these patients. "
        f"p over {len(pairs)} pairs. {_counted(study, pairs)}",
    )


def _counted(study: Study, pairs: list[Pair]) -> str:
    """n of N for a family of pairs, naming the pairs that lost cells or cases."""
    cells, cases = len(study.seeds) * len(study.folds), study.num_cases
    short = [
        f"{study.losses[p.a]} − {study.losses[p.b]} ({p.fit.num_cells} cells, "
        f"{p.fit.num_cases} cases)"
        for p in pairs
        if p.fit.num_cells < cells or p.fit.num_cases < cases
    ]
    full = len(pairs) - len(short)
    text = f"All {cells} cells and {cases} cases: {full} of {len(pairs)} pairs"
    if short:
        more = f" and {len(short) - 4} more" if len(short) > 4 else ""
        text += f"; fewer: {', '.join(short[:4])}{more}"
    return text + "."


# ---------------------------------------------------------------------------------------- drawing
def draw_forest(losses: list[str], pairs: dict[str, list[Pair]], base: int, rope: float) -> Drawing:
    """One panel per metric, one row per loss."""
    rows = len(pairs["dice"])
    longest = max([len(losses[pair.a]) for pair in pairs["dice"]], default=4)
    figure, axes = style.panels(
        1,
        len(pairs),
        height=0.75 + 0.36 * rows,
        top=0.26,
        bottom=0.42,
        left=min(2.2, 0.25 + 0.066 * longest),
        gap_x=0.2,
    )
    for axis, (metric, own) in zip(axes[0], pairs.items(), strict=True):
        axis.axvspan(-rope, rope, color=style.SHADE, linewidth=0)
        axis.axvline(0, color=style.MUTED, linewidth=0.8)
        reach = [-rope, rope]
        for y, pair in enumerate(own):
            colour = style.colour(pair.a)
            for rung, width, alpha in (
                ("L3c", 0.8, 0.55),
                ("L3", 1.6, 0.75),
                ("L2", 3.2, 0.75),
                ("L1", 5.4, 1.0),
            ):
                low, high = pair.fit.interval(rung)
                if np.isnan(low):
                    continue
                axis.plot(
                    [low, high],
                    [y, y],
                    color=colour,
                    linewidth=width,
                    alpha=alpha,
                    solid_capstyle="butt",
                    gid=f"L{pair.a}",
                )
                reach += [low, high] if rung != "L3c" else []
            if not np.isnan(pair.fit.estimate):
                axis.plot(
                    pair.fit.estimate,
                    y,
                    marker="o",
                    markersize=4.6,
                    color=style.SURFACE,
                    markeredgecolor=style.INK,
                    markeredgewidth=1,
                    gid=f"L{pair.a}",
                    linestyle="",
                )
        axis.set_title(METRIC_NAMES[metric])
        axis.set_ylim(rows - 0.5, -0.5)
        # A difference of two rates lies between -1 and 1; with few folds the intervals do not.
        low, high = max(min(reach), -1.0), min(max(reach), 1.0)
        margin = 0.06 * (high - low)
        axis.set_xlim(low - margin, high + margin)
        axis.set_yticks(range(rows), [losses[pair.a] for pair in own])
        axis.tick_params(labelleft=axis is axes[0, 0], left=False)
        axis.grid(False, axis="y")
        axis.set_xlabel(f"minus {losses[base]}")
        axis.locator_params(axis="x", nbins=5)
    return figure


def draw_matrix(losses: list[str], shown: list[int], pairs: list[Pair], rope: float) -> Drawing:
    """Row minus column; the lower triangle mirrors the upper."""
    from matplotlib.patches import Rectangle

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
    words = judge(pairs, rope)
    for pair, word in zip(pairs, words, strict=True):
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
            won = pair.wins if sign > 0 else pair.losses
            text = f"{value:+.3f}".replace("-", "\N{MINUS SIGN}").replace("0.", ".")
            axis.text(x + 0.5, y + 0.36, text, ha="center", va="center", fontsize=7)
            axis.text(
                x + 0.5,
                y + 0.70,
                f"{won}/{pair.wins + pair.ties + pair.losses}",
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
