"""What did each trial score: rates per case and per epoch, with how many cases define them.

`CohortScores` is one cohort of a sweep as arrays with fixed axes, so that every statistic is a pure
function of an array: losses L, seeds S, folds F, cases P, epochs E + 1 (0 = untrained).  A
missing trial is NaN everywhere; a rate that a case does not define is NaN too, and `defined`
tells the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.reading.names import shown, subjects_of
from lesion_core import results

METRICS = ("dice", "sensitivity", "precision")
METRIC_NAMES = {"dice": "DSC", "sensitivity": "Sensitivity", "precision": "Precision"}
VIEWS = ("patch", "train", "test")
"""The paper's three views: training patches, training images, test images."""
VIEW_NAMES = {"patch": "training patches", "train": "training images", "test": "test images"}

COHORT_TITLES = {
    "wmh2017": "WMH challenge 2017",
    "lit": "LIT longitudinal",
    "simulated": "simulated WMH",
    "simulated_lit": "simulated LIT",
}

COUNTS = (
    "tp",
    "fp",
    "fn",
    "tn",
    "fp_masked",
    "fp_sure",
    "fn_sure",
    "n_ref",
    "n_pred",
    "n_ref_hit",
    "n_pred_hit",
)


@dataclass(frozen=True, eq=False)
class CohortScores:
    """One cohort of a sweep, complete trials only."""

    name: str
    losses: list[str]
    seeds: list[int]
    folds: list[int]
    cases: list[str]
    fold_of: np.ndarray
    """[P] index into `folds` of the fold that tests the case."""
    subjects: list[str]
    """Whose the cases are; one who is tested in two folds is there twice."""
    subject_of: np.ndarray
    """[P] index into `subjects`."""
    sites: np.ndarray
    """[P] scanner group, "" if the cohort has none."""
    status: np.ndarray
    """[L, S, F] one of results.STATUSES, "" where no trial was asked for."""
    last_epoch: np.ndarray
    """[L, S, F] index of the last epoch of a complete trial, -1 elsewhere."""
    curves: np.ndarray
    """[L, S, F, E + 1, views, metrics] epoch means: over subjects for images, patches for patches;
    a subject's own mean is over its cases."""
    defined: np.ndarray
    """Same shape: how many cases (patches) the mean is over."""
    asked: np.ndarray
    """[L, S, F, E + 1, views] how many cases (patches) there were."""
    test: np.ndarray
    """[L, S, P, E + 1, metrics] rates of the test images."""
    counts: np.ndarray
    """[L, S, P, E + 1, COUNTS] voxel and lesion counts of the test images; NaN if missing."""
    pooled: np.ndarray
    """[L, S, F, E + 1, views, tp fp fn tn fp_sure fn_sure] counts summed over the subjects, of each
    the mean over its images; of patches, over the cases."""
    final: pd.DataFrame
    """Test rows of the last epoch: every column of results.CASES, and the three rates."""
    voxel_mm3: np.ndarray
    """[P]"""
    num_cases: int
    """Cases of the cohort; more than `cases` while a fold has no complete trial."""
    num_subjects: int
    """Subjects of the cohort."""

    @property
    def title(self) -> str:
        """The cohort's name as the paper writes it."""
        return COHORT_TITLES.get(self.name) or shown(self.name)

    @property
    def has_sessions(self) -> bool:
        """Whether some subject has several cases."""
        return self.num_subjects < self.num_cases

    @property
    def units(self) -> str:
        """What a mean over the cohort is over, in words."""
        return "patients" if self.has_sessions else "cases"

    @property
    def size(self) -> str:
        """How many cases, and how many subjects if fewer, in words."""
        return self.counted(self.num_cases, self.num_subjects)

    def counted(self, cases: int, subjects: int) -> str:
        """So many cases, of so many subjects if any of the cohort has several, in words."""
        if not self.has_sessions:
            return f"{cases} cases"
        sessions = "session" if cases == 1 else "sessions"
        patients = "patient" if subjects == 1 else "patients"
        return f"{cases} {sessions} of {subjects} {patients}"

    def part(self, cases: int, subjects: int) -> str:
        """How many of the cohort's cases, and of its subjects if fewer, in words."""
        if not self.has_sessions:
            return f"{cases} of {self.num_cases} cases"
        return f"{cases} of {self.num_cases} sessions ({subjects} of {self.num_subjects} patients)"

    def columns(self, cases: int, subjects: int) -> dict[str, int]:
        """The same as columns of a table: cases, and patients if they are fewer."""
        return {"cases": cases} | ({"patients": subjects} if self.has_sessions else {})

    @property
    def averaged(self) -> str:
        """A sentence about sessions, with a space before it; "" if no subject has several."""
        return " Sessions of a patient are averaged first." if self.has_sessions else ""

    def counted_with(self, chosen: np.ndarray) -> str:
        """`counted` of the chosen cases, bool [P]."""
        return self.counted(int(chosen.sum()), len(np.unique(self.subject_of[chosen])))

    def part_with(self, chosen: np.ndarray) -> str:
        """`part` of the chosen cases, bool [P]."""
        return self.part(int(chosen.sum()), len(np.unique(self.subject_of[chosen])))

    @property
    def num_epochs(self) -> int:
        """Number of epochs, the untrained network not counted."""
        return self.curves.shape[3] - 1

    @property
    def has_counts(self) -> bool:
        """Whether voxel counts are known; imported results may hold rates only."""
        return bool((~np.isnan(self.counts[..., :3])).any())

    @property
    def has_training(self) -> bool:
        """Whether training images or patches were evaluated."""
        return bool((self.asked[..., : VIEWS.index("test")] > 0).any())

    @property
    def has_course(self) -> bool:
        """Whether trained networks were evaluated at other epochs than a trial's last."""
        epochs = np.arange(self.asked.shape[3])
        before = (epochs > 0) & (epochs < self.last_epoch[..., None])
        return bool((self.asked[before] > 0).any()) or self.num_epochs < 2

    @property
    def evaluated_views(self) -> tuple[str, ...]:
        """The views that were evaluated, of `VIEWS`; all of them while nothing was."""
        seen = np.atleast_1d((self.asked > 0).any((0, 1, 2, 3)))
        return tuple(view for view, there in zip(VIEWS, seen, strict=True) if there) or VIEWS

    @property
    def shown(self) -> list[int]:
        """Losses with at least one complete trial."""
        return [index for index in range(len(self.losses)) if self.done[index].any()]

    @property
    def done(self) -> np.ndarray:
        """[L, S, F] whether the trial is complete."""
        return self.status == "done"

    @property
    def is_even(self) -> bool:
        """Whether all losses that are shown have the same complete trials, so that means of one
        may stand beside means of another."""
        return len({self.done[loss].tobytes() for loss in self.shown}) <= 1

    @property
    def expected(self) -> int:
        """Number of trials asked for."""
        return int((self.status != "").sum())

    @property
    def presence(self) -> str:
        """How much of what was asked for is there, in words: n of N, and who is absent."""
        absent = np.argwhere((self.status != "") & ~self.done)
        text = f"{int(self.done.sum())} of {self.expected} trials"
        if len(absent) == 0:
            return text
        names = [
            f"{self.losses[loss]} seed {self.seeds[seed]} fold {self.folds[fold]} "
            f"({self.status[loss, seed, fold]})"
            for loss, seed, fold in absent[:4]
        ]
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        return f"{text}; without {', '.join(names)}{more}"

    def last_by_fold(self, values: np.ndarray) -> np.ndarray:
        """[L, S, F, ...]: each trial's last epoch of [L, S, F, E + 1, ...]; NaN if incomplete."""
        return at_epoch(values, self.last_epoch)

    def last_by_case(self, values: np.ndarray) -> np.ndarray:
        """[L, S, P, ...]: each trial's last epoch of [L, S, P, E + 1, ...]; NaN if incomplete."""
        return at_epoch(values, self.last_epoch[:, :, self.fold_of])


def at_epoch(values: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """values[l, s, x, epochs[l, s, x], ...]; NaN where the epoch is negative."""
    grid = np.ogrid[tuple(slice(size) for size in epochs.shape)]
    taken = values[(*grid, np.maximum(epochs, 0))].astype(float)
    taken[epochs < 0] = np.nan
    return taken


def cohort_scores(sweep: results.Sweep) -> list[CohortScores]:
    """The scores of every cohort that a trial was asked for, in the sweep's order."""
    runs = asked_for(sweep)
    return [
        _scores_of(sweep, runs[runs["cohort"] == cohort], cohort, sweep.losses)
        for cohort in dict.fromkeys(runs["cohort"])
    ]


def asked_for(sweep: results.Sweep) -> pd.DataFrame:
    """The runs that sweep.json lists.  A folder that it does not list never enters an average,
    since its settings may differ; `checks` names such folders."""
    runs = sweep.runs
    known = runs["expected"].astype(bool) & runs[["cohort", "loss", "seed", "fold"]].notna().all(
        axis=1
    )
    runs = runs[known].astype({"seed": np.int64, "fold": np.int64})
    return runs.drop_duplicates(["cohort", "loss", "seed", "fold"])


def trial_rows(sweep: results.Sweep, file: str) -> pd.DataFrame:
    """One kind of table of all complete trials that were asked for."""
    return replace(sweep, runs=asked_for(sweep)).trial_table(file)


def _scores_of(
    sweep: results.Sweep, runs: pd.DataFrame, cohort: str, losses: Sequence[str]
) -> CohortScores:
    losses, seeds = list(losses), list(dict.fromkeys(runs["seed"]))
    folds = sorted(set(runs["fold"]))
    index = {
        "loss": {name: i for i, name in enumerate(losses)},
        "seed": {seed: i for i, seed in enumerate(seeds)},
        "fold": {fold: i for i, fold in enumerate(folds)},
    }
    status = np.full((len(losses), len(seeds), len(folds)), "", object)
    place = tuple(runs[axis].map(index[axis]).to_numpy(int) for axis in ("loss", "seed", "fold"))
    status[place] = runs["status"].to_numpy()

    done = runs.loc[runs["status"] == "done", "trial"]
    rows = sweep.cases
    if len(rows):
        rows = rows[rows["trial"].isin(set(done)).to_numpy()]
    trial_place = {trial: tuple(at) for trial, *at in zip(runs["trial"], *place, strict=True)}
    codes, names = pd.factorize(rows["trial"])
    positions = np.array([trial_place[name] for name in names], int).reshape(-1, 3)[codes]
    epoch = rows["epoch"].to_numpy(int)
    view = np.where(rows["scope"] == "patch", 0, np.where(rows["split"] == "train", 1, 2))
    num_epochs = int(epoch.max()) if len(rows) else 0

    shape = (len(losses), len(seeds), len(folds))
    last = np.full(shape, -1)
    np.maximum.at(last, tuple(positions.T), epoch)

    # Imported rows may know the rates without the counts behind them.
    known = rows if set(METRICS) <= set(rows.columns) else results.rates(rows)
    rates = known[list(METRICS)].to_numpy(float)
    table = subjects_of(sweep.path, cohort)
    # Imported rows may say it themselves.
    own = zip(rows["case"], rows["subject"], strict=True) if "subject" in rows else ()
    said = table | {case: subject for case, subject in own if subject}
    case_of, seen = pd.factorize(rows["case"], use_na_sentinel=False)
    subject_of_seen, seen_subjects = pd.factorize(
        pd.Index([said.get(c, c) for c in seen], dtype=object)
    )
    subject = subject_of_seen[case_of]  # of each row, as a number
    flat = (
        np.ravel_multi_index((*positions.T, epoch, view), (*shape, num_epochs + 1, 3))
        if len(rows)
        else np.empty(0, int)
    )
    size = int(np.prod(shape)) * (num_epochs + 1) * 3
    patch = view == 0
    alone = len(seen_subjects) == len(seen)  # no subject has several cases
    curves, defined = [], []
    for column, metric in enumerate(METRICS):
        ok = ~np.isnan(rates[:, column])
        number = np.where(patch, _numbers(rows, f"patch_{metric}_n"), ok)
        sums = np.where(patch, rows[f"patch_{metric}_sum"].to_numpy(float), rates[:, column])
        weight = number
        if not alone:
            # An image counts as one of those of its subject that define the rate.
            share = ok / _counts_like(flat, subject, ok)
            weight, sums = np.where(patch, number, share), np.where(patch, sums, sums * share)
        total = np.where(number > 0, sums, 0.0)
        total, number, weight = (
            np.bincount(flat, part, size).astype(float) for part in (total, number, weight)
        )
        number[np.isnan(total)] = 0.0  # a sum that is no number defines nothing
        curves.append(np.divide(total, weight, out=np.full(size, np.nan), where=number > 0))
        defined.append(number)
    asked = np.bincount(flat, np.where(patch, _numbers(rows, "n_patch"), 1.0), size)
    names = ("tp", "fp", "fn", "tn", "fp_sure", "fn_sure")
    images = 1 if alone else np.where(patch, 1, _counts_like(flat, subject, np.full(len(rows), 1)))
    pooled = np.stack(
        [np.bincount(flat, rows[name].to_numpy(float) / images, size) for name in names], -1
    ).astype(float)
    pooled[np.bincount(flat, minlength=size) == 0] = np.nan

    tested = view == 2
    fold_case = pd.MultiIndex.from_arrays([positions[tested, 2], rows["case"].to_numpy()[tested]])
    case_codes, uniques = pd.factorize(fold_case)
    order = _natural_order([case for _, case in uniques])
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    case_index = rank[case_codes] if len(uniques) else np.empty(0, int)
    cases = [uniques[i][1] for i in order]
    fold_of = np.array([uniques[i][0] for i in order], int)
    subject_of, tested_subjects = pd.factorize(
        pd.MultiIndex.from_arrays([fold_of, [said.get(case, case) for case in cases]])
    )
    at = (positions[tested, 0], positions[tested, 1], case_index, epoch[tested])
    test = np.full((*shape[:2], len(cases), num_epochs + 1, len(METRICS)), np.nan)
    test[at] = rates[tested]
    counts = np.full((*test.shape[:4], len(COUNTS)), np.nan)
    counts[at] = rows.loc[tested, list(COUNTS)].to_numpy(float)
    sites, voxel_mm3 = np.full(len(cases), "", object), np.full(len(cases), np.nan)
    sites[case_index] = rows["site"].to_numpy()[tested]
    voxel_mm3[case_index] = rows["voxel_mm3"].to_numpy()[tested]

    rows = rows.drop(columns=[name for name in METRICS if name in rows])
    is_last = tested & (epoch == last[tuple(positions.T)]) if len(rows) else tested
    final = rows[is_last].assign(**dict(zip(METRICS, rates[is_last].T, strict=True)))
    final = final.assign(
        loss_index=positions[is_last, 0],
        seed_index=positions[is_last, 1],
        fold_index=positions[is_last, 2],
        case_index=pd.Series(case_index, index=rows.index[tested]).reindex(final.index),
    )
    by = (*shape, num_epochs + 1, 3)
    num_cases = max(len(cases), _cases_asked(sweep, cohort))
    known_cases = {*cases, *table}
    return CohortScores(
        name=cohort,
        losses=losses,
        seeds=[int(seed) for seed in seeds],
        folds=folds,
        cases=cases,
        fold_of=fold_of,
        subjects=[name for _, name in tested_subjects],
        subject_of=subject_of,
        sites=sites,
        status=status,
        last_epoch=last,
        curves=np.stack(curves, -1).reshape(*by, 3),
        defined=np.stack(defined, -1).reshape(*by, 3),
        asked=asked.reshape(by),
        test=test,
        counts=counts,
        pooled=pooled.reshape(*by, len(names)),
        final=final,
        voxel_mm3=voxel_mm3,
        num_cases=num_cases,
        # A case of which nothing is known yet is taken for a subject of its own.
        num_subjects=num_cases
        - len(known_cases)
        + len({said.get(case, case) for case in known_cases}),
    )


def _counts_like(place: np.ndarray, subject: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """How many of the chosen rows have a row's place and subject, itself included; 1 if none."""
    frame = pd.DataFrame({"place": place, "subject": subject, "chosen": chosen})
    together = frame.groupby(["place", "subject"], sort=False)["chosen"].transform("sum")
    return np.maximum(together.to_numpy(int), 1)


def _cases_asked(sweep: results.Sweep, cohort: str) -> int:
    """How many cases sweep.json gives the cohort; 0 if it does not say."""
    known = (sweep.meta.get("cohorts") or {}).get(cohort) or {}
    return int(known.get("num_cases") or 0)


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    return np.nan_to_num(rows[column].to_numpy(float))


def _natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names with numbers by value: case2 before case10."""

    def key(position: int) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", names[position])
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]

    return sorted(range(len(names)), key=key)
