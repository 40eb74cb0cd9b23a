"""How far does a mean difference generalise: to new seeds, new patients, new training sets?

One estimate, three standard errors.  d[s, p] is a difference between two losses for seed s and
case p; case p is tested in one fold; a cell is (seed, fold).  Cases of one subject are averaged
first, since sessions of a patient are no new patients; then there are S seeds, P subjects, F folds,
n_f subjects in fold f, w_f = n_f / P.

The third cannot be estimated from a cross-validation.  Training sets of five folds share 75 % of
their patients: of an effect of the training patients on the difference, with standard deviation
tau, k tau^2 is in the mean's variance (`overlap`), and a sixteenth of that shows between folds.
So tau is given, and `pairs` says up to which tau a verdict stands.  Intervals and p hold whenever
one looks (`looks`).  docs/statistics.md has the simulations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from analysis.statistics import confidence, looks
from analysis.statistics.subjects import by_subject, number_of, part_of

RUNGS = ("L1", "L2", "L3")
RUNG_NAMES = {"L1": "new seeds", "L2": "+ new patients", "L3": "+ new training sets"}
"""L1: same patients, same splits, other seeds.  L2: other patients too.  L3: networks trained on
other patients too, if those move the difference by a given standard deviation."""

DIFFERENCE = (-1.0, 1.0)
"""Where a difference of two rates can lie."""
RATE = (0.0, 1.0)
ANYWHERE = (-np.inf, np.inf)

FEWEST_RUN_DF = 2
"""Degrees of freedom between seeds below which nothing is said of new patients: from two trainings
of one fold, equal losses were called different by one of seven in 12 % of simulated sweeps.  With
fewer, too, all of an error may be the seeds' (`looks`): what a single pair of trainings says of
their part is half the time far too little."""


@dataclass(frozen=True)
class Components:
    """Variances behind a difference; a negative estimate is 0."""

    patient: float
    run: float
    residual: float


@dataclass(frozen=True)
class Ladder:
    """An estimate and its standard error and degrees of freedom on every rung."""

    estimate: float
    se: dict[str, float]
    """NaN where the design cannot tell: L1 needs two seeds, L2 two folds or three seeds, L3 what
    L2 needs and a training-set effect."""
    df: dict[str, float]
    base_se: float
    """The larger error of L2 and of the fold means: what L3 adds the training sets to."""
    base_df: float
    overlap: float
    """k: the variance of the mean has k tau^2 from a training-set effect of SD tau."""
    tau: float
    """The given training-set effect; NaN if none is."""
    bounds: tuple[float, float]
    """Where the estimate can lie; intervals end there."""
    num_cases: int
    """Cases that enter: defined in every cell that is there."""
    num_subjects: int
    """Subjects that those cases are of."""
    num_cells: int
    """(seed, fold) cells that enter."""
    num_folds: int
    components: Components
    patient_share: float
    """sum of w_f^2 / n_f, which is 1 / P: the patient variance's weight."""
    run_share: float
    """sum of w_f^2: divided by the number of seeds, the run variance's weight."""

    def with_tau(self, tau: float) -> Ladder:
        """The same difference under another training-set effect."""
        if not self.base_df > 0 or np.isnan(tau):
            return replace(self, tau=tau, se=self.se | {"L3": np.nan}, df=self.df | {"L3": 0.0})
        variance, df = with_training_sets(self.base_se**2, self.base_df, self.overlap, tau)
        se = float(np.sqrt(variance))
        return replace(self, tau=tau, se=self.se | {"L3": se}, df=self.df | {"L3": float(df)})

    def interval(self, rung: str, level: float | None = None) -> tuple[float, float]:
        """The interval of a rung that holds at any look, inside `bounds`, at CONFIDENCE if no level
        is given; NaN where the rung is undefined.

        One rung's is never wider than that of the next: what holds for new patients holds for
        these, too.
        """
        level = confidence.CONFIDENCE if level is None else level
        half = min(
            (max(errors.critical(level) for errors in found) for found in self._from(rung)),
            default=float("nan"),
        )
        low, high = self.bounds
        if np.isnan(half):
            return half, half
        return max(self.estimate - half, low), min(self.estimate + half, high)

    def half_width(self, rung: str, level: float | None = None) -> float:
        """Half the width of the interval on a rung."""
        low, high = self.interval(rung, level)
        return (high - low) / 2

    def p_value(self, rung: str) -> float:
        """Two-sided p of "no difference", at any look; NaN where the rung is undefined."""
        distance = abs(self.estimate)
        return min(
            (max(errors.p_value(distance) for errors in found) for found in self._from(rung)),
            default=float("nan"),
        )

    def p_equal(self, rope: float, rung: str = "L3") -> float:
        """p of "the difference is rope or more" against "it is smaller", at any look: two one-sided
        tests."""
        inside = rope - abs(self.estimate)
        return max(
            (errors.p_value(inside) / 2 if inside > 0 else 1.0 for errors in self._errors(rung)),
            default=float("nan"),
        )

    def beyond(self, rope: float, rung: str = "L3") -> tuple[float, float, float]:
        """P(difference < -rope), P(within), P(> rope) under the t posterior (flat prior).

        Corani & Benavoli's reading of a correlated t-test, on our own mean, error and df.
        """
        found = self._errors(rung)
        if not found:
            return float("nan"), float("nan"), float("nan")
        widest = max(found, key=lambda one: confidence.t_factor(one.df) * one.se)
        left, right = (
            _beyond(rope + sign * self.estimate, widest.se, widest.df) for sign in (1, -1)
        )
        return left, 1 - left - right, right

    @property
    def seeds(self) -> float:
        """Trainings per fold, as a mean over folds."""
        return self.num_cells / self.num_folds if self.num_folds else 0.0

    @property
    def seed_se(self) -> float:
        """Error of the part that seeds bring; NaN where too few of them tell."""
        return self.se["L1"] if self.df["L1"] >= FEWEST_RUN_DF else float("nan")

    def _errors(self, rung: str) -> list[_Error]:
        """The errors that the rung has to bear.

        L3 has two, with and without the training-set effect: with few folds a known variance that
        is added brings so many degrees of freedom that the interval would shrink; an effect "up
        to tau" may also be none.
        """
        if not self.df[rung] > 0 or np.isnan(self.se[rung]):
            return []
        own = [(self.se[rung], self.df[rung])]
        if rung == "L3":
            own.append((self.base_se, self.base_df))
        return [_Error(se, df, self.seed_se, self.seeds) for se, df in own]

    def _from(self, rung: str) -> list[list[_Error]]:
        """Errors of a rung and of those beyond, if it is defined itself."""
        if not self._errors(rung):
            return []
        beyond = [self._errors(each) for each in RUNGS[RUNGS.index(rung) :]]
        return [errors for errors in beyond if errors]


@dataclass(frozen=True)
class _Error:
    """A standard error, and what decides how many of them an interval has (`looks`)."""

    se: float
    df: float
    seed_se: float
    """Of the part that seeds bring; NaN where they cannot tell."""
    seeds: float

    def critical(self, level: float) -> float:
        """Half of the interval at a level, which holds at any look."""
        once = float(looks.drawn_once(self.se**2, self.seed_se**2))
        return looks.one_critical_t(level, self.df, once, self.seeds) * self.se if self.se else 0.0

    def p_value(self, distance: float) -> float:
        """Two-sided p of a distance, at any look; 1 where distance and error are 0."""
        p = looks.p_value(distance, self.se**2, self.df, self.seed_se**2, self.seeds)
        return float(p)


def ladder(
    difference: np.ndarray,
    fold_of: np.ndarray,
    subject_of: np.ndarray | None = None,
    *,
    tau: float = float("nan"),
    num_subjects: int | None = None,
    bounds: tuple[float, float] = ANYWHERE,
) -> Ladder:
    """The ladder of d[s, p], NaN where a trial is absent or a case undefined.

    Args:
        difference: d[s, p].
        fold_of: [P] fold that tests the case.
        subject_of: [P] a number per subject; None: every case is a subject of its own.
        tau: standard deviation of the difference over training sets of this size; NaN: unknown.
        num_subjects: subjects of the whole cohort, if folds without any trial are not in `fold_of`.
        bounds: where the mean of d can lie.

    A cell without any value is left out.  A case that is undefined in one of the cells that are
    there is left out of all of them, so that every cell of a fold is over the same cases; the
    counts in the result say what is left.  What is left of a subject is averaged.  The estimate
    weighs subjects and cells of a fold equally, and folds by their subjects.

    >>> d = np.array([[0.1, 0.3], [0.3, 0.1]])       # two seeds, two folds of one case
    >>> fit = ladder(d, np.array([0, 1]))
    >>> round(fit.estimate, 3), round(fit.se["L1"], 3), fit.df["L1"], round(fit.base_se, 3)
    (0.2, 0.071, 2.0, 0.0)
    """
    blocks, folds, num_cases = _blocks(difference, fold_of, subject_of)
    nan = float("nan")
    if not blocks:
        return Ladder(
            nan, dict.fromkeys(RUNGS, nan), dict.fromkeys(RUNGS, 0.0), nan, 0.0, nan, tau, bounds,
            0, 0, 0, 0, Components(nan, nan, nan), nan, nan,
        )  # fmt: skip
    found = errors(blocks)
    sizes = np.array([number_of(subject_of, fold_of == fold) for fold in folds], float)
    everyone = number_of(subject_of, np.ones(len(fold_of), bool))
    subjects = np.array([block.shape[-1] for block in blocks], float)
    weight = subjects / subjects.sum()
    fit = Ladder(
        estimate=float(found.estimate),
        se={rung: float(np.sqrt(found.variance[rung])) for rung in ("L1", "L2")} | {"L3": nan},
        df={rung: float(found.df[rung]) for rung in ("L1", "L2")} | {"L3": 0.0},
        base_se=float(np.sqrt(found.variance["base"])),
        base_df=float(found.df["base"]),
        overlap=overlap(weight, sizes, max(everyone, num_subjects or 0)),
        tau=nan,
        bounds=bounds,
        num_cases=num_cases,
        num_subjects=int(subjects.sum()),
        num_cells=sum(block.shape[0] for block in blocks),
        num_folds=len(blocks),
        components=Components(*(float(found.components[name]) for name in found.components)),
        patient_share=float((weight**2 / subjects).sum()),
        run_share=float((weight**2).sum()),
    )
    return fit.with_tau(tau)


@dataclass(frozen=True, eq=False)
class Errors:
    """Estimates and variances of their errors, for one set of differences or many at once."""

    estimate: np.ndarray
    variance: dict[str, np.ndarray]
    """Of L1, L2, the fold means ("folds"), and the larger of the last two ("base")."""
    df: dict[str, np.ndarray]
    """0 where the design cannot tell; the variance is NaN there."""
    components: dict[str, np.ndarray]
    """patient, run, rest."""

    @property
    def seed_variance(self) -> np.ndarray:
        """Of the part that seeds bring; NaN where too few of them tell."""
        known = self.df["L1"] >= FEWEST_RUN_DF
        return np.where(known, self.variance["L1"], np.nan)


def errors(blocks: list[np.ndarray]) -> Errors:
    """Errors of d without NaN, one block [..., seeds, subjects] per fold.

    L1: SE^2 = sum_f w_f^2 Var_s(cell means) / S_f, df F (S - 1).
    L2: adds patients.  With mean squares of patients within folds (MS_P), seeds within folds
        (MS_R) and the rest (MS_E), SE^2 = (MS_P + MS_R - MS_E) / (P S) in a balanced design,
        floored at the larger of its positive terms; Satterthwaite df, at most twice those between
        seeds, since few seeds may look alike by chance.  Where there is one seed, the fold means:
        they hold patients and seeds alike.
    folds: SE^2 = F / (F - 1) sum_f w_f^2 (m_f - D)^2, df F - 1: only the fold means speak.
    base: the larger of L2 and folds.  Where folds differ by their patients, seeds and training sets
        alone, both estimate the same, so if the larger one is of the folds, it has the df of both;
        those of the folds alone would cover 98 % instead of 95 % in small designs.
    """
    seeds = np.array([block.shape[-2] for block in blocks], float)
    subjects = np.array([block.shape[-1] for block in blocks], float)
    weight = subjects / subjects.sum()
    means = np.stack([block.mean((-2, -1)) for block in blocks], -1)
    estimate = means @ weight
    cells, own = [block.mean(-1) for block in blocks], [block.mean(-2) for block in blocks]
    unknown, none = np.full(estimate.shape, np.nan), np.zeros(estimate.shape)
    rungs = ("L1", "L2", "folds")
    variance: dict[str, np.ndarray] = {rung: unknown for rung in rungs}
    df: dict[str, np.ndarray] = {rung: none for rung in rungs}

    def squares(parts: list[np.ndarray], times: np.ndarray) -> np.ndarray:
        """Sum over folds of times * squared deviations from the fold's mean."""
        return sum(
            (n * ((part - part.mean(-1, keepdims=True)) ** 2).sum(-1)
             for n, part in zip(times, parts, strict=True)),
            start=none,
        )  # fmt: skip

    df_run, df_subject = (seeds - 1).sum(), (subjects - 1).sum()
    df_rest = ((seeds - 1) * (subjects - 1)).sum()
    share = weight**2 / seeds
    if df_run > 0:
        if (seeds > 1).all():
            between = np.stack([cell.var(-1, ddof=1) for cell in cells], -1)
            variance["L1"] = between @ share
            df["L1"] = none + share.sum() ** 2 / (share**2 / (seeds - 1)).sum()
        else:  # a fold with one seed borrows the variance of the others
            pooled = squares(cells, np.ones(len(cells))) / df_run
            variance["L1"], df["L1"] = pooled * share.sum(), none + df_run

    patient = run = rest = unknown
    a, b, c = (weight**2 / subjects).sum(), share.sum(), (share / subjects).sum()
    if df_run > 0 and df_subject > 0 and df_rest > 0:
        left = [
            block
            - patients[..., None, :]
            - cell[..., :, None]
            + block.mean((-2, -1), keepdims=True)
            for block, patients, cell in zip(blocks, own, cells, strict=True)
        ]
        # How many seeds are behind a subject's mean square, and how many subjects behind a run's.
        per_subject = (seeds * (subjects - 1)).sum() / df_subject
        per_run = (subjects * (seeds - 1)).sum() / df_run
        ms_subject = squares(own, seeds) / df_subject
        ms_run = squares(cells, subjects) / df_run
        rest = sum(((part**2).sum((-2, -1)) for part in left), start=none) / df_rest
        patient = np.maximum(0.0, (ms_subject - rest) / per_subject)
        run = np.maximum(0.0, (ms_run - rest) / per_run)
        terms = np.stack(
            [
                ms_subject * a / per_subject,
                ms_run * b / per_run,
                rest * (c - a / per_subject - b / per_run),
            ],
            -1,
        )
        total, floor = terms.sum(-1), terms[..., :2].max(-1)
        if df_run >= FEWEST_RUN_DF:
            squared = (terms**2 / np.array([df_subject, df_run, df_rest])).sum(-1)
            several = np.divide(
                total**2, squared, out=np.full(total.shape, df_run), where=squared > 0
            )
            single = np.where(terms[..., 1] > terms[..., 0], df_run, df_subject)
            variance["L2"] = np.maximum(total, floor)
            df["L2"] = np.where((total >= floor) & (floor > 0), several, single)
            df["L2"] = np.minimum(df["L2"], 2 * df_run)

    folds, same = len(blocks), False
    if folds > 1:
        variance["folds"] = folds / (folds - 1) * ((means - estimate[..., None]) ** 2 @ weight**2)
        df["folds"] = none + folds - 1
        same = bool(np.isnan(variance["L2"]).all())
        if same:
            variance["L2"], df["L2"] = variance["folds"], df["folds"]
    wider = variance["folds"] > variance["L2"]
    variance["base"] = np.where(wider, variance["folds"], variance["L2"])
    df["base"] = np.where(wider & ~same, df["folds"] + df["L2"], df["L2"])
    return Errors(estimate, variance, df, {"patient": patient, "run": run, "rest": rest})


def overlap(weight: np.ndarray, sizes: np.ndarray, everyone: int) -> float:
    """k, the variance of a weighted mean over folds of effects of the training sets, each of
    variance 1.

    Fold i trains on all but its n_i of P subjects.  If a subject's part in the effect is the same
    wherever it is trained on, Cov(T_i, T_j) = (P - n_i - n_j) / sqrt((P - n_i)(P - n_j)).

    >>> five = np.full(5, 12.0)
    >>> round(overlap(five / 60, five, 60), 6)
    0.8
    """
    trained = np.maximum(everyone - sizes, 1.0)
    both = np.maximum(everyone - sizes[:, None] - sizes, 0.0)
    shared = both / np.sqrt(trained[:, None] * trained)
    np.fill_diagonal(shared, 1.0)
    return float(weight @ shared @ weight)


def with_training_sets(
    variance: np.ndarray | float, df: np.ndarray | float, k: np.ndarray | float, tau: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variance and Satterthwaite's degrees of freedom with k tau^2 added, which is known."""
    variance = np.asarray(variance, float)
    total = variance + k * tau**2
    grown = np.divide(total, variance, out=np.full(total.shape, np.inf), where=variance > 0)
    more = np.minimum(np.maximum(df, 1e-300) * grown**2, 1e9)
    return total, np.where((total > variance) & (np.asarray(df) > 0), more, df)


def holm(p_values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Holm's step-down adjusted p; NaN stays NaN and does not count.

    ``weight``: how the error is shared out, where not evenly (Holm 1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    return np.minimum(p_values * holm_factors(p_values, weight), 1.0)


def holm_factors(p_values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """By how much Holm's procedure multiplies each p before it is compared with the error.

    An interval at 1 - error / factor excludes 0 where the procedure refutes it.
    """
    weight = np.ones(len(p_values)) if weight is None else weight
    factors = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known] / weight[known], kind="stable")]
    highest, left = 0.0, weight[known].sum()
    for index in order:
        factor = left / weight[index]
        highest = max(highest, p_values[index] * factor)
        factors[index] = highest / p_values[index] if p_values[index] > 0 else factor
        left -= weight[index]
    return factors


def _beyond(distance: float, se: float, df: float) -> float:
    """P(T > distance / se); a half where both are 0, so that two of them make 1."""
    if se == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(special.stdtr(df, -distance / se))


def _blocks(
    difference: np.ndarray, fold_of: np.ndarray, subject_of: np.ndarray | None
) -> tuple[list[np.ndarray], list[int], int]:
    """[cells, subjects] without NaN, one per fold that has any, those folds, and the cases in all
    of them."""
    blocks, folds, num_cases = [], [], 0
    for fold in np.unique(fold_of):
        here = np.flatnonzero(fold_of == fold)
        block = difference[:, here]
        block = block[~np.isnan(block).all(1)]
        usable = ~np.isnan(block).any(0)
        block = block[:, usable]
        if block.size:
            blocks.append(by_subject(block, part_of(subject_of, here[usable])))
            folds.append(int(fold))
            num_cases += block.shape[1]
    return blocks, folds, num_cases
