"""A results folder that looks like a finished (or broken) sweep, written in seconds from a seed.

Learning curves with loss, patient, training-set, seed and residual effects on the logit scale;
whole counts, so that every identity that holds for a real ledger holds here (tp + fn is the same
for every loss, seed and epoch).  Everything goes through `lesion_core.results`.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core import results, scores
from lesion_core.arms import complete, differing
from lesion_core.descriptions import configuration_hash, trial_name
from lesion_core.settings import PAPER_LOSSES, PAPER_SEEDS, TrainSettings
from lesion_core.training.schedules import rate_at

# loss: (final sensitivity, final precision, epochs to learn, sharpness of the probabilities)
CHARACTER = {
    "xent": (0.55, 0.80, 7.0, 1.0),
    "gdsc": (0.65, 0.74, 4.0, 4.0),
    "dsc": (0.68, 0.66, 3.5, 6.0),
    "mixed": (0.66, 0.70, 4.0, 4.0),
    "focal1": (0.59, 0.79, 6.0, 0.5),
    "focal2": (0.69, 0.74, 5.0, 0.5),
    "new": (0.83, 0.61, 2.5, 0.7),
}
PARAMETERS = {
    "xent": {"type": "CrossEntropy", "fields": {}},
    "gdsc": {
        "type": "GeneralisedDice",
        "fields": {"weights": "inverse_square", "reduction": "patch"},
    },
    "dsc": {"type": "Dice", "fields": {"eps": 1e-6, "reduction": "patch"}},
    "mixed": {"type": "Mixed", "fields": {"eps": 1e-6, "reduction": "patch"}},
    "focal1": {"type": "Focal", "fields": {"alpha": 0.25, "gamma": 2.0}},
    "focal2": {"type": "Focal", "fields": {"alpha": 0.75, "gamma": 2.0}},
    "new": {"type": "WeightedGradient", "fields": {"alpha": None, "gamma": 2.0}},
}
ROW = ("cohort", "loss", "seed", "fold", "epochs")
"""What decides a trial here."""
BATCHES = 20
"""Of an epoch."""
CHANNELS = {"lit": ("baseline_flair", "followup_flair")}


@dataclass(frozen=True, kw_only=True)
class FakeSweep:
    """What the synthetic ledger should look like."""

    cohorts: Sequence[str] = ("wmh2017",)
    losses: Sequence[str] = PAPER_LOSSES
    seeds: Sequence[int] = PAPER_SEEDS
    num_folds: int = 5
    num_cases: int = 20
    sessions: int = 1
    """Cases of one subject; the last subject has fewer if the cases do not divide."""
    epochs: int = 8
    rng_seed: int = 0
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Field of the settings (not epochs) -> its values: every loss has each with every other."""
    effects: Mapping[tuple[str, Any], float] = field(default_factory=dict)
    """(field, value) -> what it adds to the logits of sensitivity and precision."""
    status: Mapping[tuple[str, str, int, int], str] = field(default_factory=dict)
    """(cohort, loss, seed, fold) -> missing | partial | failed | diverged | corrupt."""
    empty_cases: int = 0
    """The first cases have no lesion."""
    collapsed: Sequence[str] = ()
    """Losses that predict nothing at all, from the first epoch on."""
    collapsed_trials: Collection[tuple[str, str, int, int]] = ()
    """(cohort, loss, seed, fold) of single trainings that predict nothing."""
    character: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    """Losses that are unlike their entry in CHARACTER, or have none."""
    same_as: Mapping[str, str] = field(default_factory=dict)
    """Loss -> the one whose every number it repeats, to the bit."""
    shifted: Mapping[str, int] = field(default_factory=dict)
    """Loss -> by how many hundredths its probabilities are too low: at a threshold that much lower
    its test images score what they would score without the shift at 0.5."""
    patient_sd: float = 0.5
    session_sd: float = 0.15
    patient_loss_sd: float = 0.15
    fold_loss_sd: float = 0.06
    run_sd: float = 0.12
    residual_sd: float = 0.15
    pictures: bool = True
    scores: bool = False
    """Whether seeds were scored together (`lesion_core.scores`)."""
    ensemble_gain: float = 0.25
    """Share of a single network's wrong voxels that all seeds of a fold together get right."""
    disagreement_finds: float = 8.0
    """How sharply wrong voxels gather where networks disagree; 0: as all others."""
    gradients: bool = True
    """Whether the gradient curves are recorded; older ledgers lack them."""

    def write(self, path: Path) -> Path:
        """Write the whole results folder; returns its path."""
        trials = []
        for number, cohort in enumerate(self.cohorts):
            rng = np.random.default_rng([self.rng_seed, number])
            cases = self._draw_cases(cohort, rng)
            self._write_cohort(path, cohort, cases)
            folds = self._folds()
            first = [self._first_session(index) for index in range(len(cases))]
            # The difficulty of a patient is the same for every loss, seed and fold.
            combinations = [
                dict(zip(self.vary, values, strict=True)) for values in product(*self.vary.values())
            ]
            ended: dict[tuple[str, int, int], dict[str, list[dict]]] = {}
            for loss, (place, own) in product(self.losses, enumerate(combinations)):
                drawn_as = self.same_as.get(loss, loss)
                loss_number = list(self.losses).index(drawn_as) * len(combinations) + place
                added = sum(self.effects.get(each, 0.0) for each in own.items())
                effect = np.random.default_rng([self.rng_seed, number, loss_number])
                by_case = effect.normal(0, self.patient_loss_sd, (2, len(cases)))[:, first]
                by_case = by_case + added
                by_fold = effect.normal(0, self.fold_loss_sd, (2, self.num_folds))
                for seed in self.seeds:
                    for fold in range(self.num_folds):
                        status = self.status.get((cohort, loss, seed, fold), "done")
                        row = trial_row(cohort, loss, seed, fold, self.epochs, own)
                        trials.append(row)
                        if status == "missing":
                            continue
                        rng = np.random.default_rng(
                            [self.rng_seed, number, loss_number, seed, fold]
                        )
                        final = self._write_trial(
                            path,
                            row,
                            cases,
                            folds[fold],
                            by_case,
                            by_fold[:, fold],
                            status,
                            rng,
                            drawn_as,
                        )
                        if final:
                            ended.setdefault((loss, place, fold), {})[row["name"]] = final
            for (loss, _, fold), rows in ended.items() if self.scores else ():
                if len(rows) > 1:
                    self._write_scores(path, cohort, loss, fold, rows, cases)
        names = [self._name(index) for index in range(self.num_cases)]
        results.write_json(
            path / "sweep.json",
            {
                "schema_version": results.SCHEMA_VERSION,
                "created": "2026-01-02T03:04:05+00:00",
                "updated": "2026-01-03T03:04:05+00:00",
                "command": "sweeps/paper_grid.py --results " + path.name,
                "git_commit": "0" * 40,
                "versions": {"python": "3.11.7", "torch": "2.13.0"},
                "losses": list(self.losses),
                "settings": settings(self.epochs),
                "num_folds": self.num_folds,
                "folds": {
                    cohort: [[names[index] for index in fold] for fold in self._folds()]
                    for cohort in self.cohorts
                },
                "cohorts": {
                    cohort: {
                        "fingerprint": hashlib.sha256(cohort.encode()).hexdigest(),
                        "channels": list(channels_of(cohort)),
                        "num_cases": self.num_cases,
                    }
                    for cohort in self.cohorts
                },
                "trials": trials,
            },
        )
        if self.gradients:
            rows = [row for loss in self.losses for row in gradient_curve_of(loss)]
            results.write_table(path / results.GRADIENTS_FILE, rows, results.GRADIENTS)
        return path

    # ------------------------------------------------------------------------------ the cohort
    def _first_session(self, index: int) -> int:
        """The first case of a case's subject."""
        return index - index % self.sessions

    def _subject(self, index: int) -> str:
        if self.sessions == 1:
            return self._name(index)
        return f"sub-{index // self.sessions + 1:02d}"

    def _name(self, index: int) -> str:
        if self.sessions == 1:
            return f"case{index + 1:02d}"
        return f"{self._subject(index)}_ses-{index % self.sessions + 1}"

    def _folds(self) -> list[list[int]]:
        """Test cases of every fold: every so many-th subject."""
        cases = range(self.num_cases)
        return [
            [index for index in cases if index // self.sessions % self.num_folds == fold]
            for fold in range(self.num_folds)
        ]

    def _draw_cases(self, cohort: str, rng: np.random.Generator) -> list[dict]:
        cases = []
        for index in range(self.num_cases):
            n_lesions = 0 if index < self.empty_cases else int(rng.integers(4, 16))
            sizes = np.maximum(1, rng.lognormal(3.0, 1.2, n_lesions)).astype(int)
            lesion = int(sizes.sum())
            cases.append(
                {
                    "case": self._name(index),
                    "subject": self._subject(index),
                    "site": ("Utrecht", "Singapore", "Amsterdam")[
                        3 * self._first_session(index) // self.num_cases
                    ]
                    if cohort.startswith("wmh")
                    else "",
                    "sizes": sizes,
                    "lesion": lesion,
                    "brain": int(rng.integers(60_000, 90_000)),
                    "voxel_mm3": 3.0 if cohort.startswith("wmh") else 1.5,
                    "easy": rng.normal(0, self.patient_sd, 2)
                    if index == self._first_session(index)
                    else cases[self._first_session(index)]["easy"]
                    + rng.normal(0, self.session_sd, 2),
                    "picture": draw_slice(rng, lesion) if self.pictures else None,
                }
            )
        return cases

    def _write_cohort(self, path: Path, cohort: str, cases: list[dict]) -> None:
        folder = path / "cohorts" / cohort
        results.write_table(
            folder / "cases.parquet",
            [
                {
                    "cohort": cohort,
                    "case": case["case"],
                    "site": case["site"],
                    "shape": [60, 72, 40],
                    "box_shape": [48, 60, 36],
                    "spacing_mm": [1.0, 1.0, 3.0],
                    "brain_voxels": case["brain"],
                    "lesion_voxels": case["lesion"],
                    "other_voxels": 0,
                    "n_lesions": len(case["sizes"]),
                    "lesion_outside_brain_voxels": 0,
                    "warnings": [],
                    "brain_method": "shipped",
                    "n_lesions_with_other": len(case["sizes"]),
                    "patch_voxels": 32**3,
                    "patch_lesion_voxels": [case["lesion"]],
                    "subject": case["subject"],
                    "ignore_voxels": 0,
                    "ignore_brain_voxels": 0,
                    "patch_ignore_voxels": None,
                    "source_shape": None,
                    "source_spacing_mm": None,
                    "voxel_mm3": None,
                    "activity": None,
                    "lesion_voxels_all_change": None,
                    "n_lesions_all_change": None,
                    "orientation": "RAS",
                }
                for case in cases
            ],
            results.COHORT_CASES,
        )
        results.write_table(
            folder / "slices.parquet",
            [
                {
                    "cohort": cohort,
                    "case": case["case"],
                    "axis": 2,
                    "index": 20,
                    "height": case["picture"]["reference"].shape[0],
                    "width": case["picture"]["reference"].shape[1],
                    "row_mm": 1.0,
                    "column_mm": 1.0,
                    "channels": list(channels_of(cohort)),
                    "images": [image.tobytes() for image in case["picture"]["images"]],
                    "reference": np.packbits(case["picture"]["reference"]).tobytes(),
                    "other": np.packbits(np.zeros_like(case["picture"]["reference"])).tobytes(),
                    "ignore": None,
                }
                for case in cases
                if case["picture"]
            ],
            results.COHORT_SLICES,
        )

    # ------------------------------------------------------------------------------- one trial
    def _write_trial(
        self,
        path: Path,
        row: dict,
        cases: list[dict],
        test: list[int],
        by_case: np.ndarray,
        by_fold: np.ndarray,
        status: str,
        rng: np.random.Generator,
        drawn_as: str,
    ) -> list[dict]:
        """Write a trial's folder; returns the last rows of its test cases, if it is complete."""
        folder = path / "trials" / row["name"]
        identity = {
            "trial": row["name"],
            "cohort": row["cohort"],
            "loss": row["loss"],
            "seed": row["seed"],
            "fold": row["fold"],
        }
        results.write_json(
            folder / "trial.json",
            {
                **description(*[row[key] for key in ROW], own=row.get("settings")),
                "schema_version": results.SCHEMA_VERSION,
            },
        )
        trained = TrainSettings.from_dict(settings(self.epochs, row.get("settings")))
        place = (row["cohort"], row["loss"], row["seed"], row["fold"])
        last = self.epochs if status in ("done", "corrupt") else max(1, self.epochs // 2)
        run = by_fold + rng.normal(0, self.run_sd, 2)
        case_noise = rng.normal(0, self.residual_sd, (2, len(cases)))
        rows, final, final_row = [], {}, {}
        for epoch in range(last + 1):
            wobble = rng.normal(0, 0.06 / math.sqrt(1 + epoch), 2)
            for index, case in enumerate(cases):
                logit = case["easy"] + by_case[:, index] + run + case_noise[:, index] + wobble
                tested = index in test
                for scope in ("image",) if tested else ("image", "patch"):
                    nothing = row["loss"] in self.collapsed or place in self.collapsed_trials
                    counts = self._counts(drawn_as, case, epoch, logit, tested, scope, nothing)
                    if tested:
                        counts = self._shifted(drawn_as, case, counts)
                    rows.append(
                        row_of := case_row(
                            identity,
                            epoch,
                            case,
                            counts,
                            tested,
                            scope,
                            tested and epoch == last and status == "done",
                            rng,
                        )
                    )
                    if tested and epoch == last:
                        final[index], final_row[index] = counts, row_of
        whole = status in ("done", "corrupt")
        lesions, histograms, slices = [], [], []
        for index in test if whole else ():
            found = lesion_rows(identity, last, cases[index], final[index], rng)
            lesions += found
            final_row[index].update(lesion_counts(found))
            sides = final[index].get("histogram") or self._histogram(
                drawn_as, cases[index], final[index]
            )
            histograms.append(
                {**identity, "epoch": last, "case": cases[index]["case"]}
                | dict(zip(("lesion", "background"), sides, strict=True))
            )
            if cases[index]["picture"]:
                slices.append(slice_row(identity, last, cases[index], final[index], rng))
        results.write_table(folder / "cases.parquet", rows, results.CASES)
        results.write_table(
            folder / "epochs.parquet",
            [
                {
                    **identity,
                    "epoch": epoch,
                    "train_loss": None if epoch == 0 else 0.7 * math.exp(-epoch / 5) + 0.1,
                    "grad_norm": None if epoch == 0 else 0.3,
                    "n_batches": BATCHES,
                    "n_patches": 320,
                    "seconds_train": 0.0 if epoch == 0 else 10.0,
                    "seconds_evaluate": 4.0,
                    "learning_rate": None if epoch == 0 else mean_rate(epoch, trained),
                }
                for epoch in range(last + 1)
            ],
            results.EPOCHS,
        )
        if status in ("failed", "diverged"):
            results.write_json(
                folder / "failed.json",
                {
                    "schema_version": results.SCHEMA_VERSION,
                    "kind": "diverged" if status == "diverged" else "error",
                    "error": "loss is inf at epoch 4, batch 17"
                    if status == "diverged"
                    else "RuntimeError: out of memory",
                    "traceback": "",
                    "log": f"trials/{row['name']}",
                    "attempts": 3,
                    "epoch": 4,
                    "batch": 17,
                    "host": "node2",
                },
            )
        if not whole:
            return []
        results.write_table(folder / "lesions.parquet", lesions, results.LESIONS)
        results.write_table(folder / "histograms.parquet", histograms, results.HISTOGRAMS)
        results.write_table(folder / "slices.parquet", slices, results.SLICES)
        results.write_json(
            folder / "done.json",
            {
                "schema_version": results.SCHEMA_VERSION,
                "trial": row["name"],
                "epochs_done": last,
                "seconds": 14.0 * last,
                "host": f"node{row['fold'] % 2 + 1}",
                "device": "cpu",
                "precision": "fp32",
                "threads": 1,
                "versions": {"torch": "2.13.0"},
                "fingerprint": hashlib.sha256(row["cohort"].encode()).hexdigest(),
                "attempts": 1,
                "files": {name: results.file_state(folder / name) for name in results.TABLES},
            },
        )
        if status == "corrupt":
            (folder / "cases.parquet").write_bytes(b"PAR1 cut short")
            return []
        return list(final_row.values())

    def _write_scores(
        self,
        path: Path,
        cohort: str,
        loss: str,
        fold: int,
        networks: Mapping[str, list[dict]],
        cases: list[dict],
    ) -> None:
        """What the networks of a fold do together: so much less wrong, the more there are."""
        seeds = [rows[0]["seed"] for rows in networks.values()]
        ensemble = scores.EnsembleIdentity(
            cohort=cohort, loss=loss, fold=fold, trials=tuple(networks), seeds=tuple(seeds),
            weights=("",) * len(seeds),
        )  # fmt: skip
        by_name = {case["case"]: case for case in cases}
        said = {"ensemble": ensemble.name, "cohort": cohort, "loss": loss, "fold": fold}
        rows = []
        for singles in zip(*networks.values(), strict=True):
            for part in scores.parts_of(len(seeds)):
                own = [singles[place] for place in part]
                better = self.ensemble_gain * (1 - 1 / len(own)) / (1 - 1 / len(seeds))
                row = dict.fromkeys(results.ENSEMBLES.names) | said | {"precision": "fp32"}
                row |= {"seeds": [seeds[place] for place in part]}
                row |= counts_together(own, better)
                if len(part) in (1, len(seeds) - 1, len(seeds)):
                    row |= self._histograms_together(loss, by_name[row["case"]], row)
                rows.append(row)
        scores.write_rows(path, ensemble.name, rows)
        names = list(dict.fromkeys(row["case"] for row in rows))
        scores.write_record(
            path, ensemble, names, precision="fp32", device="cpu", versions={"torch": "2.13.0"}
        )

    def _histograms_together(self, loss: str, case: dict, row: dict) -> dict:
        """Histograms of a row of ENSEMBLES: of probabilities, and of how unsure networks are."""
        lesion, background = self._histogram(loss, case, row)
        wrong = row["fp"] + row["fn"]
        rise = np.linspace(0, 1, results.UNCERTAINTY_BINS)
        sure = np.exp(-8 * rise)
        voxels = {}
        for name, sharp in (
            ("disagreement", self.disagreement_finds),
            ("entropy", 0.8 * self.disagreement_finds),
        ):
            errors = spread_out(wrong, sure * np.exp((8 + sharp) * rise) if sharp else sure)
            right = spread_out(case["brain"] - wrong, sure)
            voxels[name] = np.add(errors, right).tolist(), errors
        alone = len(row["seeds"]) == 1
        return {
            "lesion": lesion,
            "background": background,
            "entropy_voxels": voxels["entropy"][0],
            "entropy_errors": voxels["entropy"][1],
            "ensemble_errors": voxels["entropy"][1] if alone else None,
            "disagreement_voxels": None if alone else voxels["disagreement"][0],
            "disagreement_errors": None if alone else voxels["disagreement"][1],
        }

    def _character(self, loss: str) -> tuple[float, float, float, float]:
        return self.character.get(loss) or CHARACTER.get(loss, (0.62, 0.7, 5.0, 1.0))

    def _counts(
        self,
        loss: str,
        case: dict,
        epoch: int,
        logit: np.ndarray,
        tested: bool,
        scope: str,
        nothing: bool,
    ) -> dict:
        sensitivity, precision, slow, sharp = self._character(loss)
        learnt = 1 - math.exp(-epoch / slow)
        bonus = 0.0 if tested else 0.35 * learnt
        bonus += 0.9 * learnt if scope == "patch" else 0.0
        at_start = 0.55 + 0.3 * (sensitivity - 0.5)
        sensitivity = expit(
            logit_of(at_start) * (1 - learnt)
            + logit_of(sensitivity) * learnt
            + logit[0] * learnt
            + bonus
        )
        precision = expit(
            logit_of(0.02) * (1 - learnt) + logit_of(precision) * learnt + logit[1] * learnt + bonus
        )
        repeats = 6 if scope == "patch" else 1
        reference = case["lesion"] * repeats
        if nothing:
            tp = fp = 0
        else:
            tp = round(sensitivity * reference)
            fp = round((max(tp, 3 if reference == 0 else 1)) * (1 - precision) / precision)
            fp = min(fp, case["brain"] * repeats // 2)
        fn = reference - tp
        total = (60 * 72 * 40) if scope == "image" else 32**3 * 40
        return {
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "tn": total - tp - fp - fn,
            "fp_sure": int(fp * sharp / (2 + sharp)),
            "fn_sure": int(fn * sharp / (3 + sharp)),
        }

    def _histogram(self, loss: str, case: dict, counts: dict) -> tuple[list[int], list[int]]:
        """Lesion and background voxels by probability; above one half lies what is predicted."""
        return histogram_of(self._character(loss)[3], case, counts)

    def _shifted(self, loss: str, case: dict, counts: dict) -> dict:
        """The counts at 0.5 where all probabilities are too low, and the histogram of those."""
        shift = self.shifted.get(loss, 0)
        if not shift:
            return counts
        sides = []
        for side in self._histogram(loss, case, counts):
            sides.append([sum(side[: shift + 1]), *side[shift + 1 :], *[0] * shift])
        tp, fp = (sum(side[results.NUM_BINS // 2 :]) for side in sides)
        lost, spared = counts["tp"] - tp, counts["fp"] - fp
        return counts | {
            "tp": tp,
            "fp": fp,
            "fn": counts["fn"] + lost,
            "tn": counts["tn"] + spared,
            "fp_sure": min(counts["fp_sure"], fp),
            "histogram": sides,
        }


def trial_row(
    cohort: str,
    loss: str,
    seed: int,
    fold: int,
    epochs: int,
    own: Mapping[str, Any] | None = None,
) -> dict:
    """One trial as sweep.json lists it, whose settings are the usual ones but for its ``own``."""
    config = configuration(cohort, loss, seed, fold, epochs, own)
    key = configuration_hash(config)
    base = complete(settings(epochs))
    differ = differing(complete(settings(epochs, own)), base)
    return {
        "name": trial_name(cohort, loss, seed, fold, key),
        "cohort": cohort,
        "loss": loss,
        "loss_params": json.dumps(config["loss"], sort_keys=True),
        "seed": seed,
        "fold": fold,
        "epochs": epochs,
        "hash": key,
    } | ({"settings": differ} if differ else {})


def description(
    cohort: str,
    loss: str,
    seed: int,
    fold: int,
    epochs: int,
    own: Mapping[str, Any] | None = None,
) -> dict:
    """What trial.json says of one trial."""
    row = trial_row(cohort, loss, seed, fold, epochs, own)
    row.pop("settings", None)
    return row | {"config": configuration(cohort, loss, seed, fold, epochs, own)}


def configuration(
    cohort: str,
    loss: str,
    seed: int,
    fold: int,
    epochs: int,
    own: Mapping[str, Any] | None = None,
) -> dict:
    """The configuration of one trial, as `lesion_core.trial.Trial.to_dict` says it."""
    return {
        "cohort": cohort,
        "fingerprint": hashlib.sha256(cohort.encode()).hexdigest(),
        "loss": PARAMETERS.get(
            loss, {"import": f"my_losses:{loss}", "fields": {}, "source_sha256": None}
        ),
        "seed": seed,
        "fold": fold,
        "num_folds": max(5, fold + 1),
        "settings": settings(epochs, own),
    }


def settings(epochs: int, own: Mapping[str, Any] | None = None) -> dict:
    """The paper's, but for the epochs and what is a trial's ``own``."""
    values: dict[str, Any] = {"epochs": epochs} | dict(own or {})
    return TrainSettings(**values).to_dict()


def mean_rate(epoch: int, trained: TrainSettings) -> float:
    """The learning rate of an epoch's batches, as a training of these settings records it."""
    if trained.schedule == "constant" and not trained.warmup_epochs:
        return trained.learning_rate
    steps = range((epoch - 1) * BATCHES, epoch * BATCHES)
    return statistics.fmean(rate_at(step, BATCHES, trained) for step in steps)


@cache
def gradient_curve_of(loss: str) -> list[dict]:
    """Rows of results.GRADIENTS for one of the paper's losses; none for another one."""
    from lesion_core.losses import loss_from_dict
    from lesion_core.losses.gradients import TypicalPatch, gradient_curve

    if loss not in PARAMETERS:
        return []
    rows = gradient_curve(loss_from_dict(PARAMETERS[loss]), TypicalPatch(32, 500))
    # Autograd's last digits are not the same on every machine; a made-up ledger's bytes are.
    return [row | {"gradient": float(f"{row['gradient']:.4g}")} for row in rows]


def case_row(
    identity: dict,
    epoch: int,
    case: dict,
    counts: dict,
    tested: bool,
    scope: str,
    final: bool,
    rng: np.random.Generator,
) -> dict:
    """One row of CASES."""
    image = scope == "image"
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    n_ref = len(case["sizes"])
    hit = 0 if tp == 0 else round(n_ref * min(1.0, 0.2 + tp / max(1, tp + fn)))
    n_pred = 0 if tp + fp == 0 else max(1, hit + round(math.sqrt(fp) / 2))
    patches = 40
    row = {
        **identity,
        "epoch": epoch,
        "split": "test" if tested else "train",
        "scope": scope,
        "case": case["case"],
        "site": case["site"],
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": counts["tn"],
        "voxel_mm3": case["voxel_mm3"],
        "fp_masked": int(0.95 * fp),
        "fp_sure": counts["fp_sure"],
        "fn_sure": counts["fn_sure"],
        "n_ref": n_ref if image else None,
        "n_pred": n_pred if image else None,
        "n_ref_hit": hit if image else None,
        "n_pred_hit": min(hit, n_pred) if image else None,
        "n_pred_masked": n_pred if image else None,
        "n_pred_hit_masked": min(hit, n_pred) if image else None,
        "hd95_mm": None,
        "nsd": None,
        "wmh_h95_mm": None,
        "n_patch": None,
        "patch_dice_sum": None,
        "patch_dice_n": None,
        "patch_sensitivity_sum": None,
        "patch_sensitivity_n": None,
        "patch_precision_sum": None,
        "patch_precision_n": None,
        "loss_value": None if image else 0.6 * math.exp(-epoch / 6) + 0.1,
    }
    dice = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan
    if final:
        undefined = tp + fp == 0 or tp + fn == 0
        distance = math.nan if undefined else float(3 + 30 * (1 - dice) * rng.uniform(0.7, 1.3))
        row |= {
            "hd95_mm": distance,
            "wmh_h95_mm": distance * 1.1,
            "nsd": math.nan if undefined else min(1.0, dice + 0.1),
        }
    if not image:
        sensitivity = tp / (tp + fn) if tp + fn else math.nan
        precision = tp / (tp + fp) if tp + fp else (0.0 if fn else math.nan)
        row["n_patch"] = patches
        for name, value in (("dice", dice), ("sensitivity", sensitivity), ("precision", precision)):
            n = 0 if math.isnan(value) else patches
            row |= {f"patch_{name}_sum": 0.0 if n == 0 else value * n, f"patch_{name}_n": n}
    return row


def lesion_rows(
    identity: dict, epoch: int, case: dict, counts: dict, rng: np.random.Generator
) -> list[dict]:
    """Rows of LESIONS for one case: larger lesions are found more often."""
    rows = []
    share = counts["tp"] / max(1, counts["tp"] + counts["fn"])

    def row(side: str, number: int, voxels: int, hit: bool) -> dict:
        return {
            **identity,
            "epoch": epoch,
            "case": case["case"],
            "side": side,
            "lesion": number,
            "voxels": voxels,
            "mm3": voxels * case["voxel_mm3"],
            "hit": hit,
            "overlap_voxels": int(voxels * share) if hit else 0,
            "x": 20.0,
            "y": 20.0,
            "z": 20.0,
        }

    found = 0
    for number, voxels in enumerate(case["sizes"], 1):
        hit = bool(share > 0 and rng.random() < share ** (12 / (4 + voxels)))
        found += hit
        rows.append(row("ref", number, int(voxels), hit))
    wrong = round(math.sqrt(counts["fp"]) / 2)
    for number in range(1, found + wrong + 1):
        rows.append(row("pred", number, int(rng.integers(1, 60)), number <= found))
    return rows


def counts_together(rows: Sequence[Mapping[str, Any]], better: float) -> dict:
    """The counts of networks together: means, with so much less wrong (a share)."""

    def mean(name: str) -> float:
        return sum(row[name] for row in rows) / len(rows)

    def left(name: str) -> int:
        return round((1 - better) * mean(name))

    first = rows[0]
    reference = first["tp"] + first["fn"]
    fp, fn = left("fp"), left("fn")
    hit = round(mean("n_pred_hit"))
    false = round((1 - better) * (mean("n_pred") - mean("n_pred_hit")))
    wrong = fp + fn
    return {
        **{name: first[name] for name in ("case", "site", "voxel_mm3", "n_ref")},
        "tp": reference - fn,
        "fp": fp,
        "fn": fn,
        "tn": first["tn"] + first["fp"] - fp,
        "fp_masked": min(fp, left("fp_masked")),
        "fp_sure": min(fp, left("fp_sure")),
        "fn_sure": min(fn, left("fn_sure")),
        "n_pred": hit + false,
        "n_ref_hit": round(mean("n_ref_hit")),
        "n_pred_hit": hit,
        "n_pred_masked": hit + false,
        "n_pred_hit_masked": hit,
        "brier_sum": 0.4 * wrong + 0.1 * (reference - fn),
        "brier_voxels": 48 * 60 * 36,
    }


def lesion_counts(rows: list[dict]) -> dict:
    """The lesion columns of CASES, from a case's rows of LESIONS."""
    number = {
        (side, hit): sum(row["side"] == side and row["hit"] == hit for row in rows)
        for side in ("ref", "pred")
        for hit in (True, False)
    }
    predicted, hit = number["pred", True] + number["pred", False], number["pred", True]
    return {
        "n_ref_hit": number["ref", True],
        "n_pred": predicted,
        "n_pred_hit": hit,
        "n_pred_masked": predicted,
        "n_pred_hit_masked": hit,
    }


def histogram_of(sharp: float, case: dict, counts: dict) -> tuple[list[int], list[int]]:
    """Lesion and background voxels of a case in every band of probability: the mass above one half
    is the predicted count."""
    half = results.NUM_BINS // 2
    rise = (np.arange(1, half + 1) / half) ** sharp
    background = case["brain"] - case["lesion"] - counts["fp"]
    return (
        spread(counts["fn"], rise[::-1]) + spread(counts["tp"], rise),
        spread(background, rise[::-1] ** 12) + spread(counts["fp"], rise),
    )


def slice_row(
    identity: dict, epoch: int, case: dict, counts: dict, rng: np.random.Generator
) -> dict:
    """One row of SLICES: the reference with some voxels lost and some added."""
    reference, brain = case["picture"]["reference"], case["picture"]["brain"]
    share = counts["tp"] / max(1, counts["tp"] + counts["fn"])
    grown = reference.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            grown |= np.roll(reference, step, axis)
    noise = rng.random(reference.shape)
    predicted = (reference & (noise < share)) | (grown & ~reference & brain & (noise > share))
    if counts["tp"] + counts["fp"] == 0:
        predicted = np.zeros_like(reference)
    return {
        **identity,
        "epoch": epoch,
        "case": case["case"],
        "prediction": np.packbits(predicted).tobytes(),
    }


def draw_slice(
    rng: np.random.Generator, lesion_voxels: int, height: int = 72, width: int = 60
) -> dict:
    """A picture: an ellipse with two ventricles, bright blobs where the lesions are."""
    y, x = np.mgrid[:height, :width]
    y, x = (y - height / 2) / (height / 2), (x - width / 2) / (width / 2)
    brain = x**2 + y**2 < 0.9
    ventricles = ((abs(x) - 0.18) / 0.1) ** 2 + (y / 0.35) ** 2 < 1
    reference = np.zeros((height, width), bool)
    for _ in range(0 if lesion_voxels == 0 else 5):
        cy, cx, radius = rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.6), rng.uniform(0.05, 0.12)
        reference |= (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    reference &= brain & ~ventricles
    base = 110 * brain + rng.normal(0, 6, brain.shape)
    flair = np.where(ventricles, 40, base + 90 * reference)
    t1 = np.where(ventricles, 50, base + 40 * brain - 30 * reference)
    return {
        "images": [np.clip(image, 0, 255).astype(np.uint8) for image in (t1, flair)],
        "reference": reference,
        "brain": brain,
    }


def channels_of(cohort: str) -> tuple[str, ...]:
    """Channel names of the cohort's layout."""
    return CHANNELS.get(cohort, ("t1", "flair"))


def spread(total: int, weights: np.ndarray) -> list[int]:
    """Whole numbers in proportion to the weights, with exactly that total."""
    share = np.floor(total * weights / weights.sum()).astype(int)
    share[int(np.argmax(weights))] += total - share.sum()
    return share.tolist()


def spread_out(total: int, weights: np.ndarray) -> list[int]:
    """The same, with what rounding leaves in the neighbours: no bin gets more than one too many."""
    ends = np.rint(total * weights.cumsum() / weights.sum()).astype(int)
    return np.diff(ends, prepend=0).tolist()


def expit(value: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-value))


def logit_of(value: float) -> float:
    """Inverse of the logistic function."""
    return math.log(value / (1 - value))
