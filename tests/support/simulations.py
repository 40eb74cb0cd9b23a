"""How often do intervals and words hold: sweeps with known truth, many at once.

    python -m tests.support.simulations             the tables of docs/statistics.md, an hour
    python -m tests.support.simulations --draws 500

Here every sweep is looked at once, and Student's t is what its errors are judged by; `looks` looks
after every cell, and judges as the report does.

A difference of two losses is patient + run + rest, plus the effect of the fold's training set: the
sum of the parts of its patients, scaled to the standard deviation tau, so that two folds of five
share 75 % of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import special

from analysis.statistics.absence import odd_cells
from analysis.statistics.ladder import Errors, errors, holm_factors, overlap, with_training_sets
from analysis.statistics.pairs import error_shares
from tests.support import ridge

# Standard deviations of a difference between two losses, as seen in WMH-like and LIT-like grids.
WMH = {"case": 0.03, "run": 0.02, "rest": 0.03}
LIT = {"case": 0.08, "run": 0.05, "rest": 0.06}


@dataclass(frozen=True)
class Design:
    """A cross-validation with seeds."""

    name: str
    sizes: tuple[int, ...]
    """Patients of every fold that was run."""
    seeds: int
    sd: dict[str, float]
    tau: float = 0.010
    """The training-set effect that is assumed."""
    total: int | None = None
    """Patients of the cohort, if some folds were not run."""
    collapse: float = 0.0
    """Share of trainings that end 0.6 lower."""
    sessions: int = 1
    """Of every patient; the rest is drawn per session, and sessions are averaged first."""
    too_small: bool = False
    """It gets no interval for new patients and training sets."""
    conservative: bool = False
    """The larger of two variances, each with few degrees of freedom, covers more than 97 %."""

    @property
    def k(self) -> float:
        """`ladder.overlap` of the design."""
        n = np.array(self.sizes, float)
        return overlap(n / n.sum(), n, self.total or sum(self.sizes))


DESIGNS = (
    Design("WMH-like, 5 folds of 12, 5 seeds", (12,) * 5, 5, WMH),
    Design("folds of 50 and 10", (50, 10), 5, WMH),
    Design("folds of 40, 10, 5, 3, 2", (40, 10, 5, 3, 2), 5, WMH),
    Design("2 folds, 2 seeds", (30, 30), 2, WMH, conservative=True),
    Design("1 fold of 5, 2 seeds", (12,), 2, WMH, total=60, too_small=True),
    Design("1 fold of 5, 3 seeds", (12,), 3, WMH, total=60),
    Design("3 folds, 1 seed", (20,) * 3, 1, WMH),
    Design("LIT-like, 4+4+3+3+3, 5 seeds", (4, 4, 3, 3, 3), 5, LIT, tau=0.030),
    Design("20 patients of 3 sessions, 5 folds, 5 seeds", (4,) * 5, 5, WMH, sessions=3),
    Design("LIT-like, small effect", (4, 4, 3, 3, 3), 5, LIT),
)


def differences(
    rng: np.random.Generator, design: Design, tau: float, draws: int, scale: float = 1.0
) -> list[np.ndarray]:
    """[draws, seeds, patients] per fold, with true mean 0; all standard deviations times scale."""
    total = design.total or sum(design.sizes)
    part = rng.normal(0, scale * tau, (draws, total))
    everyone, at, blocks = part.sum(1), 0, []
    for size in design.sizes:
        own = part[:, at : at + size].sum(1)
        effect = (everyone - own) / np.sqrt(total - size) if total > size else everyone * 0
        at += size
        sd = {name: scale * value for name, value in design.sd.items()}
        block = effect[:, None, None] + rng.normal(0, sd["case"], (draws, 1, size))
        block = block + rng.normal(0, sd["run"], (draws, design.seeds, 1))
        rest = sd["rest"] / np.sqrt(design.sessions)
        block = block + rng.normal(0, rest, (draws, design.seeds, size))
        if design.collapse:
            fell = rng.random((draws, design.seeds, 1)) < design.collapse
            block = block - 0.6 * (fell - design.collapse)
        blocks.append(block)
    return blocks


def simulate(
    rng: np.random.Generator, sizes: Sequence[int], sd: dict[str, float], seeds: int = 5
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """One d [S, P] without an effect of training sets, the fold of each case, what is fixed on L1,
    and the truth."""
    fold_of = np.repeat(np.arange(len(sizes)), sizes)
    case = rng.normal(0, sd["case"], len(fold_of))
    run = rng.normal(0, sd["run"], (seeds, len(sizes)))[:, fold_of]
    return case + run + rng.normal(0, sd["rest"], (seeds, len(fold_of))), fold_of, case.mean(), 0.0


def half_widths(found: Errors, design: Design, tau: float) -> dict[str, np.ndarray]:
    """[draws] half of the 95 % interval by rung, and (before) of the fold means alone, L3, and
    widened for their overlap, L3c; NaN where the design has none."""
    with_tau = with_training_sets(found.variance["base"], found.df["base"], design.k, tau)
    folds = max(len(design.sizes), 2)
    before = _half(found.variance["folds"], found.df["folds"])
    return {
        "L1": _half(found.variance["L1"], found.df["L1"]),
        "L2": _half(found.variance["L2"], found.df["L2"]),
        "L3": np.maximum(_half(found.variance["base"], found.df["base"]), _half(*with_tau)),
        "L3 before": before,
        "L3c before": before * np.sqrt(1 + folds / (folds - 1)),
    }


def coverage(
    design: Design, true_tau: float, tau: float, draws: int, seed: int = 1
) -> dict[str, float]:
    """Share of sweeps whose 95 % interval holds the truth, by rung; NaN where there is none."""
    found = errors(differences(np.random.default_rng(seed), design, true_tau, draws))
    halves = half_widths(found, design, tau)
    fixed = _fixed_part(design, true_tau, draws, seed)
    away = {name: found.estimate - (fixed if name == "L1" else 0.0) for name in halves}
    return {
        name: float((np.abs(away[name]) <= half).mean()) if not np.isnan(half).any() else np.nan
        for name, half in halves.items()
    }


def claims(
    design: Design,
    true_tau: float,
    tau: float,
    draws: int,
    *,
    losses: int = 7,
    shift: float = 0.0,
    rope: float = 0.0,
    seed: int = 2,
) -> dict[str, float]:
    """Of sweeps with equal losses (or all ``shift`` above the reference): the share in which some
    pair is called "separated", or that even without an effect of training sets; in which some loss
    is called practically equal to the reference, adjusted or not; and in which the interval of the
    best loss against the reference covers, adjusted or not."""
    rng = np.random.default_rng(seed)
    scores = [differences(rng, design, true_tau, draws, scale=np.sqrt(0.5)) for _ in range(losses)]
    pairs = [(other, 0) for other in range(1, losses)]
    pairs += list(combinations(range(1, losses), 2))
    against = np.array([0 in pair for pair in pairs])
    shares = error_shares(pairs, 0)
    rows = {name: [] for name in ("estimate", "p", "p without", "equal", "variance", "df")}
    for a, b in pairs:
        found = errors([one - two for one, two in zip(scores[a], scores[b], strict=True)])
        base, df = found.variance["base"], found.df["base"]
        total, more = with_training_sets(base, df, design.k, tau)
        estimate = found.estimate + (shift if b == 0 else 0.0)
        without = 2 * _above(np.abs(estimate), base, df)
        rows["estimate"].append(estimate)
        rows["p without"].append(without)
        rows["p"].append(np.maximum(without, 2 * _above(np.abs(estimate), total, more)))
        inside = rope - np.abs(estimate)
        rows["equal"].append(np.maximum(_above(inside, base, df), _above(inside, total, more)))
        rows["variance"].append([base, total])
        rows["df"].append([df, more])
    stacked = {name: np.array(values) for name, values in rows.items()}

    def any_below(p: np.ndarray) -> float:
        """Whether Holm's procedure refutes anything is whether its first step does."""
        least = np.where(np.isnan(p), np.inf, p / shares[:, None]).min(0)
        return float((least * shares.sum() < 0.05).mean())

    seen = {
        "separated": any_below(stacked["p"]),
        "suggestive or better": any_below(stacked["p without"]),
        "equal": any_below(np.where(against[:, None], stacked["equal"], 1.0)),
        "equal, unadjusted": float((stacked["equal"][against] < 0.05).any(0).mean()),
    }
    best = np.argmax(np.where(against[:, None], stacked["estimate"], -np.inf), 0)
    held = {"best covered": 0, "best covered, unadjusted": 0}
    for index in range(draws):
        place = best[index]
        factor = holm_factors(stacked["p"][:, index], shares)[place]
        for name, level in zip(held, (1 - 0.05 / factor, 0.95), strict=True):
            half = _half(
                stacked["variance"][place][:, index], stacked["df"][place][:, index], level
            )
            held[name] += abs(stacked["estimate"][place, index] - shift) <= half.max()
    return seen | {name: count / draws for name, count in held.items()}


def _half(variance: np.ndarray, df: np.ndarray, level: float = 0.95) -> np.ndarray:
    known = np.where(df > 0, df, np.nan)
    return special.stdtrit(known, 0.5 + level / 2) * np.sqrt(variance)


def _above(distance: np.ndarray, variance: np.ndarray, df: np.ndarray) -> np.ndarray:
    return special.stdtr(np.where(df > 0, df, np.nan), -distance / np.sqrt(variance))


def _fixed_part(design: Design, tau: float, draws: int, seed: int) -> np.ndarray:
    """What stays when seeds alone are drawn again: the same numbers without runs and rest."""
    still = replace(design, sd=design.sd | {"run": 0.0, "rest": 0.0}, collapse=0.0)
    blocks = differences(np.random.default_rng(seed), still, tau, draws)
    n = np.array(design.sizes, float)
    return np.stack([block.mean((1, 2)) for block in blocks], 1) @ (n / n.sum())


def table(draws: int) -> str:
    """Coverage and claims of every design, as Markdown."""
    lines = [
        "| design | true effect | assumed | L1 | L2 | L3 before | L3c before | L3 now | "
        "any separated | best covered, before | now |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for design in DESIGNS:
        for share in (0.0, 0.5, 1.0):
            true = share * design.tau
            held = coverage(design, true, design.tau, draws)
            said = claims(design, true, design.tau, max(draws // 4, 100))
            numbers = [
                *(held[name] for name in ("L1", "L2", "L3 before", "L3c before", "L3")),
                said["separated"],
                said["best covered, unadjusted"],
                said["best covered"],
            ]
            if design.too_small:
                numbers[-2:] = [np.nan, np.nan]
            cells = ["–" if np.isnan(value) else f"{value:.3f}" for value in numbers]
            lines.append(f"| {design.name} | {true:.3f} | {design.tau:.3f} | {' | '.join(cells)} |")
    lines.append(_ridge_row(max(draws // 4, 100)))
    return "\n".join(lines)


def _ridge_row(draws: int) -> str:
    found = ridge.seen(draws)
    blank = ["–"] * 3
    cells = [f"{found.covered['L2']:.3f}", f"{found.covered['L3 before']:.3f}"]
    cells += [f"{found.covered['L3c before']:.3f}", f"{found.covered['L3']:.3f}"]
    row = ["two ridge learners, 5 folds of 120, 1 seed", f"{found.tau:.3f}", f"{found.tau:.3f}"]
    return f"| {' | '.join([*row, '–', *cells, *blank])} |"


COLLAPSES = replace(DESIGNS[0], name="4 % of trainings end 0.6 lower", collapse=0.04)


def warned(design: Design, draws: int) -> dict[str, float]:
    """Where trainings collapse: the share of sweeps with a warning, and how often L1 covers."""
    found = differences(np.random.default_rng(1), design, 0.0, draws)
    cells = np.stack([block.mean(-1) for block in found], -1)
    seen = odd_cells(cells)[0].any((1, 2))
    held = coverage(design, 0.0, design.tau, draws)
    return {"warned": float(seen.mean()), "L1": held["L1"], "L3": held["L3"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--draws", type=int, default=4000, help="sweeps per row")
    draws = parser.parse_args(arguments).draws
    print(table(draws))
    from tests.support import looks

    print(looks.table(draws))
    print(looks.stopping_table(max(draws // 4, 100)))
    print(warned(COLLAPSES, draws), warned(DESIGNS[0], draws))
    return 0


if __name__ == "__main__":
    main()
