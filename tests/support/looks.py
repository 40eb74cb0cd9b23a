"""What does a reader see who looks at a sweep after every cell: how often is he misled?

A cell is one (seed, fold), with all losses; they come seed by seed.  "once" is Student's t, which
holds if one looks once, "any" the report's rule, which holds whenever one looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import special

from analysis.statistics import decision, looks
from analysis.statistics.ladder import Errors, errors, holm_factors, with_training_sets
from analysis.statistics.pairs import error_shares
from tests.support.simulations import DESIGNS, Design, differences

RUNGS = ("L1", "L2", "L3")
RULES = ("once", "any")


@dataclass(frozen=True)
class Seen:
    """Of many sweeps of equal losses, one pair of which is watched."""

    better: dict[str, float]
    """Share of sweeps in which at some look some pair is called better, by rule."""
    perhaps: dict[str, float]
    """The same, at least perhaps better: no effect of training sets is assumed."""
    covered: dict[tuple[str, str], float]
    """Share of sweeps in which no look's 95 % interval of the pair misses, by rule and rung."""
    covered_at_end: dict[tuple[str, str], float]
    """The same of the last look alone."""
    wider: dict[str, float]
    """By how much "any" is wider than "once" at the last look, by rung: median; infinite where it
    refutes nothing, NaN where the design cannot tell."""


def seen(
    design: Design,
    true_tau: float,
    draws: int,
    *,
    losses: int = 7,
    seed: int = 3,
    at_once: int = 250,
) -> Seen:
    """Simulate sweeps of equal losses, and look at each after every cell."""
    rng = np.random.default_rng(seed)
    pairs = [(other, 0) for other in range(1, losses)]
    pairs += list(combinations(range(1, losses), 2))
    shares = error_shares(pairs, 0)
    said = {(rule, word): 0 for rule in RULES for word in ("L3", "base")}
    kept = {(rule, rung): 0 for rule in RULES for rung in RUNGS}
    at_end, ratios = dict(kept), {rung: [] for rung in RUNGS}
    for begin in range(0, draws, at_once):
        some = min(at_once, draws - begin)
        sweep = Sweep.drawn(rng, design, true_tau, some, losses)
        claimed = {key: np.zeros(some, bool) for key in said}
        missed = {key: np.zeros(some, bool) for key in kept}
        for cells in range(1, sweep.cells + 1):
            least = {key: np.full(some, np.inf) for key in said}
            for share, (a, b) in zip(shares, pairs, strict=True):
                found, per_fold = sweep.pair(a, b, cells)
                p = p_values(found, found.estimate, design, design.tau, per_fold)
                for rule, word in said:
                    own = np.where(np.isnan(p[rule][word]), np.inf, p[rule][word] / share)
                    least[rule, word] = np.minimum(least[rule, word], own)
            for key in said:
                claimed[key] |= least[key] * shares.sum() < 0.05
            found, per_fold = sweep.pair(1, 0, cells)
            for rule, rung in kept:
                away = found.estimate - (sweep.still(1, 0, cells) if rung == "L1" else 0.0)
                p = p_values(found, away, design, design.tau, per_fold)[rule][rung]
                missed[rule, rung] |= p < 0.05
                if cells == sweep.cells:
                    at_end[rule, rung] += int((~(p < 0.05)).sum())
        for key in said:
            said[key] += int(claimed[key].sum())
        for key in kept:
            kept[key] += int((~missed[key]).sum())
        for rung, own in ratios.items():
            own.append(wider(found, design, per_fold, rung))
    return Seen(
        better={rule: said[rule, "L3"] / draws for rule in RULES},
        perhaps={rule: said[rule, "base"] / draws for rule in RULES},
        covered={key: count / draws for key, count in kept.items()},
        covered_at_end={key: count / draws for key, count in at_end.items()},
        wider={rung: float(np.median(np.concatenate(own))) for rung, own in ratios.items()},
    )


@dataclass(frozen=True, eq=False)
class Sweep:
    """Scores of equal losses in many simulated sweeps at once."""

    fixed: list[list[np.ndarray]]
    """[draws, 1, patients] by fold and loss: what other seeds would not change."""
    scores: list[list[np.ndarray]]
    """[draws, seeds, patients] by fold and loss."""

    @staticmethod
    def drawn(
        rng: np.random.Generator, design: Design, tau: float, draws: int, losses: int
    ) -> Sweep:
        """Losses whose differences have the design's standard deviations."""
        scale = np.sqrt(0.5)
        still = replace(design, seeds=1, sd=design.sd | {"run": 0.0, "rest": 0.0})
        noise = replace(design, sd=design.sd | {"case": 0.0})
        fixed = [differences(rng, still, tau, draws, scale) for _ in range(losses)]
        moving = [differences(rng, noise, 0.0, draws, scale) for _ in range(losses)]
        return Sweep(
            [list(own) for own in zip(*fixed, strict=True)],
            [
                [part + more for part, more in zip(own, others, strict=True)]
                for own, others in zip(
                    zip(*fixed, strict=True), zip(*moving, strict=True), strict=True
                )
            ],
        )

    @property
    def cells(self) -> int:
        """Cells of the whole grid."""
        return len(self.scores) * self.scores[0][0].shape[1]

    def seeds(self, cells: int) -> list[int]:
        """Seeds of every fold that are there, of so many cells."""
        folds = len(self.scores)
        return [(cells - fold + folds - 1) // folds for fold in range(folds)]

    def pair(self, a: int, b: int, cells: int) -> tuple[Errors, float]:
        """Errors of loss a minus loss b over the first cells, and trainings per fold."""
        blocks = [
            fold[a][:, :seeds] - fold[b][:, :seeds]
            for fold, seeds in zip(self.scores, self.seeds(cells), strict=True)
            if seeds
        ]
        return errors(blocks), cells / len(blocks)

    def still(self, a: int, b: int, cells: int) -> np.ndarray:
        """[draws] the mean difference that ever more seeds would show."""
        there = [fold for fold, seeds in zip(self.fixed, self.seeds(cells), strict=True) if seeds]
        whole = np.concatenate([(fold[a] - fold[b])[:, 0] for fold in there], 1)
        return whole.mean(1)


def p_values(
    found: Errors, distance: np.ndarray, design: Design, tau: float, seeds: float
) -> dict[str, dict[str, np.ndarray]]:
    """[draws] two-sided p of a distance from the estimate, by rule and rung, and without any
    effect of training sets ("base"); NaN where the design cannot tell."""

    def once(variance: np.ndarray, df: np.ndarray) -> np.ndarray:
        own = np.where(df > 0, df, np.nan)
        return 2 * special.stdtr(own, -np.abs(distance) / np.sqrt(variance))

    def at_any_look(variance: np.ndarray, df: np.ndarray) -> np.ndarray:
        return looks.p_value(distance, variance, df, found.seed_variance, seeds)

    every = {}
    for name, rule in zip(RULES, (once, at_any_look), strict=True):
        p = _by_rung(found, design, tau, rule)
        if name == "any":  # one rung's interval is never wider than that of the next
            p["L2"] = np.where(np.isnan(p["L2"]), np.nan, np.fmin(p["L2"], p["L3"]))
            p["L1"] = np.where(np.isnan(p["L1"]), np.nan, np.fmin(p["L1"], p["L2"]))
        every[name] = p
    return every


def wider(found: Errors, design: Design, seeds: float, rung: str) -> np.ndarray:
    """[draws] half of a rung's 95 % interval at any look over half of Student's."""

    def once(variance: np.ndarray, df: np.ndarray) -> np.ndarray:
        return special.stdtrit(np.where(df > 0, df, np.nan), 0.975) * np.sqrt(variance)

    def at_any_look(variance: np.ndarray, df: np.ndarray) -> np.ndarray:
        part = looks.drawn_once(variance, found.seed_variance)
        own = np.where(df > 0, df, np.nan)
        critical = looks.critical_t(0.95, own, part, seeds)
        return np.where(df > 0, critical, np.nan) * np.sqrt(variance)

    before = _by_rung(found, design, design.tau, once)[rung]
    now = _by_rung(found, design, design.tau, at_any_look)
    nested = [now[each] for each in RUNGS[RUNGS.index(rung) :]]
    half = nested[0]
    for other in nested[1:]:
        half = np.where(np.isnan(half), np.nan, np.fmin(half, other))
    return half / before


def _by_rung(
    found: Errors,
    design: Design,
    tau: float,
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """What a rule makes of every rung's variance and degrees of freedom."""
    base, df = found.variance["base"], found.df["base"]
    without = rule(base, df)
    return {
        "L1": rule(found.variance["L1"], found.df["L1"]),
        "L2": rule(found.variance["L2"], found.df["L2"]),
        "base": without,
        "L3": np.maximum(without, rule(*with_training_sets(base, df, design.k, tau))),
    }


def table(draws: int) -> str:
    """What looking after every cell does, by design, as Markdown."""
    lines = [
        "| design | true effect | better: once | any | perhaps: once | any | L1: once | any | "
        "L2: once | any | L3: once | any | wider: L1 | L2 | L3 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for design in DESIGNS:
        if design.too_small:
            continue
        for share in (0.0, 1.0):
            found = seen(design, share * design.tau, draws)
            numbers = [part[rule] for part in (found.better, found.perhaps) for rule in RULES]
            numbers += [
                found.covered[rule, rung]
                if not np.isnan(found.wider[rung]) and (rung != "L2" or share == 0)
                else np.nan
                for rung in RUNGS
                for rule in RULES
            ]
            numbers += [found.wider[rung] for rung in RUNGS]
            cells = ["–" if np.isnan(value) else f"{value:.3f}" for value in numbers]
            cells = ["∞" if cell == "inf" else cell for cell in cells]
            lines.append(f"| {design.name} | {share * design.tau:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Stopped:
    """Of many sweeps with one loss that differs from the reference, and others that do not."""

    found_once: float
    """Share that Student's t finds on the whole grid."""
    found_at_end: float
    """Share that the report finds on the whole grid."""
    found: float
    """Share that it has found where the sweep stops by its rule."""
    cells: float
    """Mean number of cells until then."""


def stopping(
    design: Design,
    true_tau: float,
    difference: float,
    draws: int,
    *,
    losses: int = 7,
    rope: float = 0.01,
    seed: int = 5,
    at_once: int = 250,
) -> Stopped:
    """Sweeps that run until each loss is decided against loss 0; loss 1 truly differs."""
    rng = np.random.default_rng(seed)
    pairs = [(other, 0) for other in range(1, losses)]
    pairs += list(combinations(range(1, losses), 2))
    shares = error_shares(pairs, 0)
    shift = np.zeros(losses)
    shift[1] = difference
    patient_df = float(sum(design.sizes) - len(design.sizes))
    totals = np.zeros(4)
    for begin in range(0, draws, at_once):
        some = min(at_once, draws - begin)
        sweep = Sweep.drawn(rng, design, true_tau, some, losses)
        stopped = np.zeros(some, bool)
        for cells in range(1, sweep.cells + 1):
            last = cells == sweep.cells
            refuted: dict[str, np.ndarray] = {}
            every = [sweep.pair(a, b, cells) for a, b in pairs]
            away = [
                found.estimate + shift[a] - shift[b]
                for (found, _), (a, b) in zip(every, pairs, strict=True)
            ]
            p = [
                p_values(found, own, design, design.tau, seeds)
                for (found, seeds), own in zip(every, away, strict=True)
            ]
            factors = np.full((len(pairs), some), np.nan)
            for rule in RULES:
                own = np.array([each[rule]["L3"] for each in p])
                factors = np.stack([holm_factors(own[:, i], shares) for i in range(some)], 1)
                refuted[rule] = own * factors < 0.05
            decided = np.ones(some, bool)
            for index in range(losses - 1):
                found, seeds = every[index]
                chance = decision.chances(
                    away[index],
                    base=found.variance["base"],
                    seed_variance=found.seed_variance,
                    seed_df=np.where(found.df["L1"] > 0, found.df["L1"], np.nan),
                    patient_df=patient_df,
                    overlap=design.k,
                    tau=design.tau,
                    level=1 - 0.05 / factors[index],
                    rope=rope,
                    seeds=seeds,
                    seeds_at_cap=design.seeds,
                )
                decided &= refuted["any"][index] | (chance < decision.HOPELESS)
            new = (decided | last) & ~stopped
            stopped |= new
            totals[2] += refuted["any"][0][new].sum()
            totals[3] += cells * new.sum()
            if last:
                totals[:2] += refuted["once"][0].sum(), refuted["any"][0].sum()
    return Stopped(*(totals / draws))


def stopping_table(draws: int) -> str:
    """A true difference of 0.03 on the paper's grid, as Markdown."""
    lines = [
        "| losses | true effect | found by Student's t on all 25 cells | by the report | where it "
        "stops by its rule | after cells, mean |",
        "|---|---|---|---|---|---|",
    ]
    for losses in (2, 7):
        for true in (0.0, 0.005, 0.010):
            found = stopping(DESIGNS[0], true, 0.03, draws, losses=losses)
            cells = f"{found.found_once:.2f} | {found.found_at_end:.2f} | {found.found:.2f}"
            lines.append(f"| {losses} | {true:.3f} | {cells} | {found.cells:.1f} |")
    return "\n".join(lines)
