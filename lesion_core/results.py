"""Everything a sweep leaves on disk: file names, columns, units, how it is written and read back.

A results folder (a *ledger*) holds

    sweep.json                                   what was asked: settings, trials, folds, versions
    search.json  search-journal.log              of a search only: its configurations and what
                                                 became of them; the same for optuna-dashboard
    gradients.parquet                            how hard each loss pulls on a voxel
    checksums.log                                what every one of these files held when written
    cohorts/<cohort>/cases.parquet slices.parquet    what the data looks like
    trials/<trial>/trial.json                    first: the whole configuration
    trials/<trial>/cases.parquet epochs.parquet  rows so far, rewritten after every epoch
    trials/<trial>/checkpoint.pt log.txt         newest epoch; what the trial printed
    trials/<trial>/lesions.parquet histograms.parquet slices.parquet model.pt    at the end
    trials/<trial>/done.json | failed.json       last: the trial is complete | why it is not
    trials/<trial>/progress.json                 until then: attempts, and which epoch is saved
    scores/<ensemble>/ensembles.parquet scores.json   on request: what seeds do together
    .lock  ray.log                               who writes; what Ray said
    wandb/offline-run-*  unsent-*  tracking.json    runs to upload; what W&B missed; may hear

``done.json`` exists only when everything before it is complete, so whatever lacks it never enters
an average.  All rows are counts; every rate is derived from them on reading (`rates`).
Reading results never loads torch, and pandas only where a frame is made: status makes none, and
starts twice as fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lesion_core.arms import arms_of, asked_rows
from lesion_core.believed import (
    wrong_with_failure,
    wrong_with_record,
    wrong_with_row,
    wrong_with_search,
    wrong_with_settings,
    wrong_with_summary,
    wrong_with_sweep,
    wrong_with_trial,
)
from lesion_core.descriptions import TrialRow
from lesion_core.durable import write_bytes
from lesion_core.paths import (
    Damaged,
    existing,
    existing_folder,
    is_there,
    read_bytes,
    read_json,
    read_with_stat,
)
from lesion_core.received import num_rows, read_table, table_of

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

SCHEMA_VERSION = 1

IDENTITY = (
    pa.field("trial", pa.string()),
    pa.field("cohort", pa.string()),
    pa.field("loss", pa.string()),
    pa.field("seed", pa.int64()),
    pa.field("fold", pa.int16()),
)
"""The columns that open every table of a trial."""

IDENTITY_COLUMNS = tuple(field.name for field in IDENTITY)

CASES = pa.schema(
    [
        *IDENTITY,
        pa.field("epoch", pa.int16()),  # 0 is the untrained network
        pa.field("split", pa.string()),  # train | test; train | validation in a search's trials
        pa.field("scope", pa.string()),  # image | patch (training patches, train split only)
        pa.field("case", pa.string()),
        pa.field("site", pa.string()),
        # Voxel counts: over the whole image (outside the brain box the prediction is background),
        # or summed over the case's training patches, where overlapping patches count twice.
        pa.field("tp", pa.int64()),
        pa.field("fp", pa.int64()),
        pa.field("fn", pa.int64()),
        pa.field("tn", pa.int64()),
        pa.field("voxel_mm3", pa.float64()),
        # False positives that are left when "other pathology" (WMH label 2) is masked out.
        pa.field("fp_masked", pa.int64()),
        # Confidently wrong voxels: background at p >= 0.9, lesion at p <= 0.1.
        pa.field("fp_sure", pa.int64()),
        pa.field("fn_sure", pa.int64()),
        # 26-connected lesions, any overlap counts as a hit; null for patches.
        pa.field("n_ref", pa.int32()),
        pa.field("n_pred", pa.int32()),
        pa.field("n_ref_hit", pa.int32()),
        pa.field("n_pred_hit", pa.int32()),
        pa.field("n_pred_masked", pa.int32()),
        pa.field("n_pred_hit_masked", pa.int32()),
        # Boundary metrics: held-out images at the last epoch, null elsewhere, NaN if undefined.
        pa.field("hd95_mm", pa.float64()),
        pa.field("nsd", pa.float64()),
        pa.field("wmh_h95_mm", pa.float64()),
        # Mean-of-patches statistics: sum over the patches where it is defined, and their number.
        pa.field("n_patch", pa.int32()),
        pa.field("patch_dice_sum", pa.float64()),
        pa.field("patch_dice_n", pa.int32()),
        pa.field("patch_sensitivity_sum", pa.float64()),
        pa.field("patch_sensitivity_n", pa.int32()),
        pa.field("patch_precision_sum", pa.float64()),
        pa.field("patch_precision_n", pa.int32()),
        # The trial's own loss over the case's training patches taken as one batch.
        pa.field("loss_value", pa.float64()),
    ]
)
"""One row per (epoch, split, scope, case)."""

CHOSEN = pa.schema(
    [
        # As tp to tn, n_pred, n_ref_hit and n_pred_hit, at the trial's own threshold and without
        # predicted lesions of less than its minimum (`settings`); null for patches.
        pa.field("tp_chosen", pa.int64()),
        pa.field("fp_chosen", pa.int64()),
        pa.field("fn_chosen", pa.int64()),
        pa.field("tn_chosen", pa.int64()),
        pa.field("n_pred_chosen", pa.int32()),
        pa.field("n_ref_hit_chosen", pa.int32()),
        pa.field("n_pred_hit_chosen", pa.int32()),
    ]
)
"""Columns of cases.parquet behind those of CASES, of a trial that chose a threshold other than 0.5
or a smallest lesion; of any other trial they are not there."""

CASES_CHOSEN = pa.schema([*CASES, *CHOSEN])

CASES_KEY = ["trial", "epoch", "split", "scope", "case"]

EPOCHS = pa.schema(
    [
        *IDENTITY,
        pa.field("epoch", pa.int16()),
        pa.field("train_loss", pa.float64()),  # mean over batches; null at epoch 0
        pa.field("grad_norm", pa.float64()),  # mean over batches of the L2 norm; null at epoch 0
        pa.field("n_batches", pa.int32()),
        pa.field("n_patches", pa.int32()),
        pa.field("seconds_train", pa.float64()),
        pa.field("seconds_evaluate", pa.float64()),
        # Mean over batches; null at epoch 0, and in folders from before it was kept.
        pa.field("learning_rate", pa.float64()),
    ]
)
"""One row per epoch of a trial."""

LESIONS = pa.schema(
    [
        *IDENTITY,
        pa.field("epoch", pa.int16()),
        pa.field("case", pa.string()),
        pa.field("side", pa.string()),  # ref | pred
        pa.field("lesion", pa.int32()),  # 1, 2, ... within (case, side)
        pa.field("voxels", pa.int64()),
        pa.field("mm3", pa.float64()),
        pa.field("hit", pa.bool_()),  # touched by at least one voxel of the other side
        pa.field("overlap_voxels", pa.int64()),
        pa.field("x", pa.float32()),  # centre of mass, voxel index in the whole image
        pa.field("y", pa.float32()),
        pa.field("z", pa.float32()),
    ]
)
"""One row per 26-connected lesion of the held-out images at the last epoch."""

NUM_BINS = 100
HISTOGRAMS = pa.schema(
    [
        *IDENTITY,
        pa.field("epoch", pa.int16()),
        pa.field("case", pa.string()),
        # NUM_BINS voxel counts each; bin k holds k / NUM_BINS <= p < (k + 1) / NUM_BINS, and the
        # last one p = 1 too.  Brain box only, so outside it nothing is ever predicted.
        pa.field("lesion", pa.list_(pa.int64())),
        pa.field("background", pa.list_(pa.int64())),
    ]
)
"""Predicted probabilities of the held-out images at the last epoch, per reference label."""

UNCERTAINTY_BINS = 200
UNCERTAINTY_STEPS = 10
"""Bins of an uncertainty between 0 and 1, so many to each halving: bin k > 0 holds
2^((k - UNCERTAINTY_BINS) / UNCERTAINTY_STEPS) <= u < 2^((k + 1 - UNCERTAINTY_BINS) /
UNCERTAINTY_STEPS), the last one u = 1 too, bin 0 all that is less (`uncertainty.binned`)."""

ENSEMBLES = pa.schema(
    [
        pa.field("ensemble", pa.string()),  # name of the folder; its scores.json says of whom
        pa.field("cohort", pa.string()),
        pa.field("loss", pa.string()),
        pa.field("fold", pa.int16()),
        pa.field("precision", pa.string()),  # of the arithmetic
        pa.field("case", pa.string()),
        pa.field("seeds", pa.list_(pa.int64())),  # whose probabilities are averaged; one: alone
        # As in CASES: voxels and lesions at a probability of 0.5 and more.
        *(
            CASES.field(name)
            for name in (
                "site", "tp", "fp", "fn", "tn", "voxel_mm3", "fp_masked", "fp_sure", "fn_sure",
                "n_ref", "n_pred", "n_ref_hit", "n_pred_hit", "n_pred_masked", "n_pred_hit_masked",
            )
        ),
        # Sum of (probability - outcome)^2 over the voxels of the brain box, and their number.
        pa.field("brier_sum", pa.float64()),
        pa.field("brier_voxels", pa.int64()),
        # What follows is null but for one network, for all, and for all but one.
        pa.field("lesion", pa.list_(pa.int64())),  # as in HISTOGRAMS
        pa.field("background", pa.list_(pa.int64())),
        # Voxels inside the brain, and those of them that are wrong at 0.5, in UNCERTAINTY_BINS of
        # twice the standard deviation over the networks (null for one)
        pa.field("disagreement_voxels", pa.list_(pa.int64())),
        pa.field("disagreement_errors", pa.list_(pa.int64())),
        # and of the probability's entropy, in bits.
        pa.field("entropy_voxels", pa.list_(pa.int64())),
        pa.field("entropy_errors", pa.list_(pa.int64())),
        # Of one network: voxels that all together get wrong, by this one's entropy.
        pa.field("ensemble_errors", pa.list_(pa.int64())),
    ]
)  # fmt: skip
"""One row per (case, part of the seeds) of one cohort, loss and fold (`scores`)."""

SLICES = pa.schema(
    [
        *IDENTITY,
        pa.field("epoch", pa.int16()),
        pa.field("case", pa.string()),
        # np.packbits of the predicted mask [height, width] on the slice that the cohort's
        # slices.parquet shows for this case.
        pa.field("prediction", pa.binary()),
    ]
)
"""What the overlays need of a trial: one predicted slice per held-out image at the last epoch."""

COHORT_CASES = pa.schema(
    [
        pa.field("cohort", pa.string()),
        pa.field("case", pa.string()),
        pa.field("site", pa.string()),
        pa.field("shape", pa.list_(pa.int32())),  # whole image, voxels
        pa.field("box_shape", pa.list_(pa.int32())),  # brain bounding box, voxels
        pa.field("spacing_mm", pa.list_(pa.float64())),
        pa.field("brain_voxels", pa.int64()),
        pa.field("lesion_voxels", pa.int64()),
        pa.field("other_voxels", pa.int64()),  # WMH label 2
        pa.field("n_lesions", pa.int32()),  # 26-connected
        pa.field("lesion_outside_brain_voxels", pa.int64()),
        pa.field("warnings", pa.list_(pa.string())),
        # Null in folders that were written before these columns were.
        pa.field("brain_method", pa.string()),  # shipped, nonzero, or how the mask was derived
        pa.field("n_lesions_with_other", pa.int32()),  # of labels 1 and 2 taken together
        # The paper's training patches (32^3, overlapping by half, with lesion): voxels of each,
        # and lesion voxels in each of them.  Their mirror images do not count.
        pa.field("patch_voxels", pa.int32()),
        pa.field("patch_lesion_voxels", pa.list_(pa.int32())),
        pa.field("subject", pa.string()),  # whose case it is; statistics count subjects
        # Left out of training and of every score, and in no other count of this table but those of
        # the brain and of the patches; null before these columns were: there was none.
        pa.field("ignore_voxels", pa.int64()),
        pa.field("ignore_brain_voxels", pa.int64()),  # of them in the brain mask
        pa.field("patch_ignore_voxels", pa.list_(pa.int32())),  # in each patch; null: none
        # Of the files, where the case was resampled (``--spacing``); all else is of what it became.
        pa.field("source_shape", pa.list_(pa.int32())),
        pa.field("source_spacing_mm", pa.list_(pa.float64())),
        pa.field("voxel_mm3", pa.float64()),  # the product of the spacing, unless it is sheared
        # Null unless the mask was sorted out of one of all change (longitudinal cohorts): what
        # was kept, and the counts of the mask of all change.
        pa.field("activity", pa.string()),  # positive
        pa.field("lesion_voxels_all_change", pa.int64()),
        pa.field("n_lesions_all_change", pa.int32()),
        # Where the array axes lead, as LPS: left, posterior, superior; null before it was kept.
        pa.field("orientation", pa.string()),
    ]
)
"""One row per case of a cohort, as found on loading."""

COHORT_SLICES = pa.schema(
    [
        pa.field("cohort", pa.string()),
        pa.field("case", pa.string()),
        # The slice across the axis closest to head-foot with the largest lesion area (ties: the
        # first), cropped to the brain box, shown with anterior up and the subject's left on the
        # right of the picture (radiological).
        pa.field("axis", pa.int8()),
        pa.field("index", pa.int32()),  # slice index in the whole image
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("row_mm", pa.float64()),
        pa.field("column_mm", pa.float64()),
        pa.field("channels", pa.list_(pa.string())),
        pa.field("images", pa.list_(pa.binary())),  # uint8 [height, width], one per channel
        pa.field("reference", pa.binary()),  # np.packbits of bool [height, width]
        pa.field("other", pa.binary()),  # same, WMH label 2
        pa.field("ignore", pa.binary()),  # same, ignored voxels; null: none in the case
    ]
)
"""One picture per case, for overlays and example figures."""

GRADIENTS = pa.schema(
    [
        pa.field("loss", pa.string()),
        # untrained: every voxel at 0.5; under way: as in the middle of a training.
        pa.field("state", pa.string()),
        pa.field("lesion", pa.bool_()),  # whether the voxel whose probability varies is lesion
        pa.field("probability", pa.float64()),  # of that voxel
        pa.field("gradient", pa.float64()),  # of the loss, by that voxel's logit
        pa.field("patch_voxels", pa.int64()),
        pa.field("lesion_voxels", pa.int64()),  # in the patch
        pa.field("p_lesion", pa.float64()),  # probability of all other lesion voxels
        pa.field("p_background", pa.float64()),  # and of all other background voxels
    ]
)
"""Gradient curves of the losses (`losses.gradients`): one row per (loss, state, lesion,
probability), ascending in the last.  At ``p_lesion`` and ``p_background`` themselves, where all
voxels of a kind are alike, the gradient is their mean."""

TRAINING_EFFECT_FILE = "training-effect.json"
"""What `sweeps.training_effect` measured, in the folder of its trials."""

GRADIENTS_FILE = "gradients.parquet"

STATUSES = ("done", "partial", "failed", "diverged", "missing", "corrupt")
"""done: complete.  partial: begun, neither complete nor failed (running, or interrupted).
failed, diverged: ended by an error, or by a loss that is not finite.  missing: asked for, never
begun.  corrupt: its files are not what they should be; it is trained again."""


def cases_schema(columns: Iterable[str]) -> pa.Schema:
    """Of a cases.parquet with these columns: CASES, or CASES_CHOSEN."""
    return CASES_CHOSEN if CHOSEN.names[0] in columns else CASES


# ---------------------------------------------------------------------------------- derived rates
def rates(counts: pd.DataFrame) -> pd.DataFrame:
    """Dice, sensitivity and precision of each row of voxel counts (columns tp, fp, fn).

    Dice = 2 TP / (2 TP + FP + FN), sensitivity = TP / (TP + FN), precision = TP / (TP + FP).
    Both masks empty: all three NaN.  No reference lesion: sensitivity NaN, the others 0.  Nothing
    predicted but a lesion there: precision 0 (MetricsReloaded).  NaN is never replaced.

    >>> import pandas as pd
    >>> rates(pd.DataFrame({"tp": [1, 0], "fp": [1, 0], "fn": [0, 0]})).iloc[0].tolist()
    [0.6666666666666666, 1.0, 0.5]
    """
    import pandas as pd

    return pd.DataFrame(
        rates_of(*(counts[name].to_numpy(np.float64) for name in ("tp", "fp", "fn"))),
        index=counts.index,
    )


def rates_of(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> dict[str, np.ndarray]:
    """`rates` of counts in float64, without pandas."""
    with np.errstate(invalid="ignore"):
        precision = np.where((tp + fp == 0) & (fn > 0), 0.0, tp / (tp + fp))
        return {
            "dice": 2 * tp / (2 * tp + fp + fn),
            "sensitivity": tp / (tp + fn),
            "precision": precision,
        }


def judged_scores(cases: pd.DataFrame, subjects: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Dice, sensitivity and precision of each trial (index), and the number of ``cases`` behind.

    Means over the subjects that the trial is judged on (test, or validation) at its last epoch, a
    subject's own being over its images.  Those without a reference lesion are left out: with one,
    all three rates are defined, so every configuration of a search is judged on the same cases.
    ``subjects`` by case (`subjects_of`); a case that is not in it is a subject of its own.
    """
    held_out = (cases["split"] != "train") & (cases["scope"] == "image")
    last = cases.groupby("trial")["epoch"].transform("max")
    rows = cases[held_out & (cases["epoch"] == last) & (cases["tp"] + cases["fn"] > 0)]
    known = subjects or {}
    subject = np.array([known.get(case, case) for case in rows["case"]], object)
    scored = rates(rows).assign(trial=rows["trial"], subject=subject)
    by_subject = scored.groupby(["trial", "subject"], sort=False).mean()
    means = by_subject.groupby("trial", sort=False).mean()
    return means.assign(cases=scored.groupby("trial", sort=False).size())


def subjects_of(path: Path, cohort: str) -> dict[str, str]:
    """Subject by case of a cohort in a results folder; empty where the folder does not say, as one
    that was written before the column was: every case is a subject of its own then."""
    file = Path(path) / "cohorts" / cohort / "cases.parquet"
    if not is_there(file):
        return {}
    rows = read_table(file, COHORT_CASES).select(["case", "subject"]).to_pylist()
    return {row["case"]: row["subject"] for row in rows if row["subject"]}


# ---------------------------------------------------------------------------------------- writing
def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all.  NaN is refused: JSON has no word for it."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Mapping[str, object]) -> bytes:
    """A JSON file's bytes.  NaN is refused: JSON has no word for it."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def write_table(path: Path, rows: Iterable[Mapping[str, object]], schema: pa.Schema) -> None:
    """Write rows (dictionaries with exactly the schema's columns; None is null) as Parquet."""
    write_bytes(path, table_bytes(rows, schema))


def table_bytes(rows: Iterable[Mapping[str, object]], schema: pa.Schema) -> bytes:
    """Rows as a Parquet file's bytes; ValueError as `table_of_rows`."""
    return parquet_bytes(table_of_rows(rows, schema))


def table_of_rows(rows: Iterable[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    """Rows (dictionaries with exactly the schema's columns; None is null) as a table.

    Raises:
        ValueError: a row has a column that the schema lacks, or lacks one that it has.
    """
    rows = list(rows)
    expected = set(schema.names)
    for row in rows:
        if row.keys() != expected:
            raise ValueError(
                f"row does not fit the schema: unknown {sorted(row.keys() - expected)}, "
                f"missing {sorted(expected - row.keys())}"
            )
    return pa.Table.from_pylist(rows, schema=schema)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file's bytes."""
    table = table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
    sink = pa.BufferOutputStream()
    for_columns: dict[str, Any] = {  # lists of names, which pyarrow's types do not know of
        # Numbers are stored as they are: with dictionaries files are larger, and slower to read.
        "use_dictionary": [each.name for each in table.schema if each.type == pa.string()],
        "write_statistics": ["trial"],  # `_is_of` needs no others, nor does anybody else
    }
    # Pages have checksums, for rows of a trial that is not done are recorded nowhere else.
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, **for_columns)
    return sink.getvalue().to_pybytes()


# ---------------------------------------------------------------------------------------- reading
@dataclass(frozen=True)
class Sweep:
    """A results folder in memory.  Frames hold complete trials only; `runs` names all of them."""

    path: Path
    meta: dict
    """sweep.json."""
    runs: pd.DataFrame
    """One row per trial expected or present: trial, cohort, loss, loss_params (JSON), seed, fold,
    split (which part of the fold it is judged on: test, or validation in a search; "part" of a
    trial that trains on part of its training part), expected,
    status (one of STATUSES), epochs, epochs_done, seconds, host, device, precision, error, log;
    network, parameters, flops_per_patch (of complete trials; null before they were kept)."""
    cases: pd.DataFrame
    """CASES rows of the complete trials; columns that are null for some rows are float64.  Where a
    trial has them, the columns CHOSEN too, NaN for the others."""
    lesions: pd.DataFrame
    epochs: pd.DataFrame
    partial: pd.DataFrame = field(default_factory=lambda: _concatenate([], CASES))
    """CASES rows of the trials that are not complete; never part of an average."""

    @property
    def losses(self) -> list[str]:
        """Labels of the losses, in the order in which the sweep named them."""
        named = [label for label in self.meta.get("losses", [])]
        return named + sorted(set(self.runs["loss"]) - set(named))

    @property
    def cohorts(self) -> list[str]:
        """Names of the cohorts, in the order in which the sweep named them."""
        return list(dict.fromkeys(self.runs["cohort"]))

    def by_arm(self) -> Sweep:
        """The sweep with the label of its arm in every ``loss`` (`arms.arms_of`), so that arms are
        compared as losses are; itself where they are losses."""
        arms = arms_of(self.meta) if self.meta.get("trials") else None
        if arms is None or all(arms.losses[label] == label for label in arms.labels):
            return self

        def renamed(frame: pd.DataFrame) -> pd.DataFrame:
            own = frame["trial"].map(arms.label_of)
            return frame.assign(loss=own.where(own.notna(), frame["loss"]))

        return replace(
            self,
            meta=self.meta | {"losses": arms.labels},
            runs=renamed(self.runs),
            cases=renamed(self.cases),
            lesions=renamed(self.lesions),
            epochs=renamed(self.epochs),
            partial=renamed(self.partial),
        )

    def judged_on(self, split: str) -> Sweep:
        """Only the trials that are judged on this part of their fold: test, or validation; "part":
        those that train on part of their training part."""
        return self._where(self.runs["split"] == split)

    def without(self, losses: Iterable[str]) -> Sweep:
        """Only the trials of other losses."""
        return self._where(~self.runs["loss"].isin(list(losses)))

    def _where(self, chosen: pd.Series) -> Sweep:
        runs = self.runs[chosen.to_numpy()]
        names = set(runs["trial"])

        def part(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["trial"].isin(names).to_numpy()] if len(frame) else frame

        labels = set(runs["loss"])
        return replace(
            self,
            meta=self.meta | {"losses": [x for x in self.meta.get("losses", []) if x in labels]},
            runs=runs,
            cases=part(self.cases),
            lesions=part(self.lesions),
            epochs=part(self.epochs),
            partial=part(self.partial),
        )

    def grid(self) -> pd.DataFrame:
        """Status by (cohort, loss) and (seed, fold): the expected against the present."""
        return self.runs.pivot_table(
            index=["cohort", "loss"], columns=["seed", "fold"], values="status", aggfunc="first"
        )

    def trial_table(self, file: str) -> pd.DataFrame:
        """One kind of table (``histograms.parquet``, ``slices.parquet``) of all complete trials."""
        done = self.runs.loc[self.runs["status"] == "done", "trial"]
        paths = [self.path / "trials" / trial / file for trial in done]
        return _concatenate(_side_by_side(read_table, paths), TABLES[file])

    def cohort_table(self, cohort: str, file: str) -> pd.DataFrame:
        """``cases.parquet`` or ``slices.parquet`` of a cohort; empty if it was never written."""
        path = self.path / "cohorts" / cohort / file
        schema = {"cases.parquet": COHORT_CASES, "slices.parquet": COHORT_SLICES}[file]
        return _concatenate([read_table(path, schema)] if path.exists() else [], schema)


TABLES = {
    "cases.parquet": CASES,
    "epochs.parquet": EPOCHS,
    "lesions.parquet": LESIONS,
    "histograms.parquet": HISTOGRAMS,
    "slices.parquet": SLICES,
}
"""The tables of a complete trial."""

MODEL = "model.pt"
"""The trained weights of a complete trial."""


def read_sweep(path: Path | str) -> Sweep:
    """Read a results folder, finished or not.

    Raises:
        ValueError: the folder is absent or holds no sweep.json, or its schema is another version.
    """
    import pandas as pd

    path = Path(path)
    meta = read_meta(path)

    folder = path / "trials"

    def read(name: str, identity: dict[str, Any]) -> tuple[dict[str, Any], dict[str, pa.Table]]:
        return _read_trial(folder / name, identity)

    trials = _trials(path, meta)
    found = _without_incomplete(_without_strangers(_side_by_side(read, trials, trials.values())))
    runs = [run for run, _ in found]
    tables = {
        file: [read[file] for _, read in found if file in read] for file in (*_READ, "partial")
    }
    columns = [
        "trial",
        "cohort",
        "loss",
        "loss_params",
        "seed",
        "fold",
        "split",
        "expected",
        "status",
        "epochs",
        "epochs_done",
        "seconds",
        "host",
        "device",
        "precision",
        "error",
        "log",
        "network",
        "parameters",
        "flops_per_patch",
    ]
    return Sweep(
        path=path,
        meta=meta,
        runs=pd.DataFrame(runs, columns=columns),
        cases=_concatenate_cases(tables["cases.parquet"]),
        lesions=_concatenate(tables["lesions.parquet"], LESIONS),
        epochs=_concatenate(tables["epochs.parquet"], EPOCHS),
        partial=_concatenate_cases(tables["partial"]),
    )


_READ = ("cases.parquet", "lesions.parquet", "epochs.parquet")
"""Tables of a complete trial that are always read."""


def _read_trial(
    folder: Path, identity: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """A trial's row of `Sweep.runs`, and its tables by file, or its rows so far as "partial".

    Whose the rows are is for `_without_strangers` to judge.
    """
    contents: dict[str, bytes] = {}
    # "part" is a word of this frame's alone: no file of a trial says it.
    asked = identity | {"split": None} if identity["split"] == "part" else identity
    run = {**identity, **trial_status(folder, asked, contents), "trial": folder.name}
    if run["status"] == "done":
        try:
            return run, {
                file: _table_in(folder / file, contents.get(file), TABLES[file]) for file in _READ
            }
        except ValueError as error:
            return run | {"status": "corrupt", "error": str(error)}, {}
    if run["status"] != "missing" and (folder / "cases.parquet").exists():
        with contextlib.suppress(ValueError):
            return run, {"partial": _table_in(folder / "cases.parquet", None, CASES)}
    return run, {}


def _without_strangers(
    found: list[tuple[dict[str, Any], dict[str, pa.Table]]],
) -> list[tuple[dict[str, Any], dict[str, pa.Table]]]:
    """The same trials, without the tables of those that hold a row of another trial: a done one is
    corrupt then.  All tables are looked at together, for there may be thousands of small ones."""
    wrong: dict[int, str] = {}
    for file in ("partial", *reversed(_READ)):
        read = [(number, each[file]) for number, (_, each) in enumerate(found) if file in each]
        if not read:
            continue
        whose = np.repeat([number for number, _ in read], [len(table) for _, table in read])
        together = pa.concat_tables([table.select(IDENTITY_COLUMNS) for _, table in read])
        for name in IDENTITY_COLUMNS:
            # An identity that nobody knows is not compared; no row has what was stored nowhere.
            stored, values = _codes(together[name])
            expected = np.array([values.get(run[name], -2) for run, _ in found])[whose]
            known = np.array([run[name] is not None for run, _ in found])[whose]
            wrong |= dict.fromkeys(whose[known & (stored != expected)].tolist(), file)
    return [
        (run, tables)
        if (file := wrong.get(number)) is None
        else (run, {})
        if file == "partial"
        else (run | {"status": "corrupt", "error": f"{file} holds rows of another trial"}, {})
        for number, (run, tables) in enumerate(found)
    ]


def _without_incomplete(
    found: list[tuple[dict[str, Any], dict[str, pa.Table]]],
) -> list[tuple[dict[str, Any], dict[str, pa.Table]]]:
    """The same trials; a done one whose tables do not reach its last epoch is corrupt."""
    return [
        (run, tables)
        if run["status"] != "done" or (file := lacks_epochs(tables, run["epochs_done"])) is None
        else (run | {"status": "corrupt", "error": f"{file} does not hold every epoch"}, {})
        for run, tables in found
    ]


def lacks_epochs(tables: Mapping[str, pa.Table], last: int) -> str | None:
    """Which of a trial's tables has no rows of its last epoch, or of one before."""
    trained = tables["epochs.parquet"]["epoch"].to_numpy()
    if len(trained) != last + 1 or not np.array_equal(trained, np.arange(last + 1)):
        return "epochs.parquet"
    cases = tables["cases.parquet"]["epoch"].to_numpy()
    return None if len(cases) and cases.max() == last else "cases.parquet"


def _side_by_side(work: Callable[..., T], *items: Iterable[Any]) -> list[T]:
    """`map`, on all cores: pyarrow and hashing leave Python free meanwhile."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(work, *items))


def read_meta(path: Path) -> dict:
    """sweep.json of a results folder.

    Raises:
        ValueError: absent, unreadable, or of another schema version.
    """
    file = Path(path) / "sweep.json"
    if not is_there(file):
        place = existing_folder(Path(path), "a results folder such as results/paper_grid")
        near = sorted(inner.parent.name for inner in place.glob("*/sweep.json"))
        hint = f"; did you mean {place / near[0]}?" if near else ""
        raise ValueError(
            f"{path}: no sweep.json there; expected a results folder such as "
            f"results/paper_grid{hint}"
        )
    meta = read_json(file)
    _check_version(file, meta)
    if (wrong := wrong_with_sweep(meta)) is not None:
        raise ValueError(
            f"{file}: cannot be used: {wrong}; `lesion-sweep verify {path}` says what else is wrong"
        )
    return meta


SEARCH = "search.json"
"""What a search asked for and decided, rewritten as it goes:

    cohort, loss (without the numbers that vary), objectives
    sampler, prune_p, planned (how many configurations), exhausted (the space has no more):
                    as last asked for; configurations say under which ones they ran
    space           {field: interval or choices in words}
    ranges          {field: [lowest, highest value tried]} of the fields that are numbers
    domains         only where a field is more than a range: {field: {choices: [...], or log and
                    whole: true, of a range; only: {field, values}: searched where that field has
                    one of these, and else without a value}}
    cells           [[seed, fold], ...] in the order in which every configuration meets them
    configurations  in the order asked: number, values, loss, loss_params, state (running,
                    complete, pruned, failed), trials ({cell index: name}), score ({metric: mean}),
                    reason (of a failure), blameless (its machines failed), against (number that
                    a pruned one was worse than), sampler ("": given), prune_p; only where trials
                    were given up by their validation curves, stopped ({cell index: epoch})
    stop_trials     only then: by which rule, as last asked for
    importance      {objective: {field: share}}, PED-ANOVA
    chosen          number, or null until every configuration has ended
    in_fold         {fold: number} best in the cells of that fold alone, tested there
    tested          every number that was ever chosen: the test folds were opened so often
    comparators     labels; the chosen one and they are run on the test folds of the same cells
    confirm_seeds   fresh seeds on which the chosen one and the comparators are judged again
    evaluation      what the search's own trials are evaluated on, and when (fields of
                    TrainSettings); absent in older folders, where they are as the tested ones
"""


def read_search(path: Path) -> dict | None:
    """search.json of a results folder; None if it holds no search.

    Raises:
        ValueError: it cannot be read, or is of another schema version.
    """
    file = Path(path) / SEARCH
    if not is_there(file):
        return None
    search = read_json(file)
    _check_version(file, search)
    if (wrong := wrong_with_search(search)) is not None:
        raise ValueError(f"{file}: cannot be used: {wrong}")
    return search


def given_up(search: Mapping[str, Any] | None) -> set[str]:
    """Names of the trials that a search ended in the middle by their curves, given search.json:
    they are not complete, and nothing is left to run of them."""
    return {
        configuration["trials"][cell]
        for configuration in (search or {}).get("configurations", ())
        for cell in configuration.get("stopped", ())
    }


def _check_version(file: Path, content: Mapping[str, Any]) -> None:
    version = content.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(
            f"{file}: schema version {version!s:.20}, expected {SCHEMA_VERSION}; "
            "read it with the release that wrote it"
        )


def read_gradients(path: Path) -> pd.DataFrame:
    """The gradient curves of a results folder (`GRADIENTS`); no rows if it has none.

    Raises:
        ValueError: the file cannot be read.
    """
    file = Path(path) / GRADIENTS_FILE
    if not is_there(file):
        return _concatenate([], GRADIENTS)
    return _concatenate([read_table(file, GRADIENTS)], GRADIENTS)


class TrialStatus(TypedDict):
    """How far one trial is; what its marker file does not say is None."""

    status: str
    """One of STATUSES."""
    epochs_done: int | None
    seconds: float | None
    host: str | None
    device: str | None
    precision: str | None
    error: str | None
    """Why it failed, or what is damaged."""
    log: str | None
    """Path in the results folder."""
    kind: str | None
    """Of a failure: error, diverged, or infrastructure (its machines failed)."""
    network: str | None
    """Its name (`networks.names`)."""
    parameters: int | None
    """Trainable weights."""
    flops_per_patch: int | None
    """Of one patch's forward pass."""


def trial_status(
    folder: Path,
    asked: Mapping[str, Any] | None = None,
    contents: dict[str, bytes] | None = None,
) -> TrialStatus:
    """How far one trial is.  Done is only what is complete and as it was written.

    This is the one judgement: status, resume, upload, masks and report all go by it.  trial.json
    must be of this very trial: its hash and its name are computed anew from the configuration
    (`believed.wrong_with_trial`), and it agrees with ``asked``, sweep.json's row of it
    (`arms.asked_rows`), if that is given.  Every file of a done trial is compared with what
    done.json recorded of it: tables by their hash, weights by their size; who uses those compares
    the hash (`read_model`).  A done.json without such a record (not written by
    `sweeps.ledger.ledger`) needs tables that can be read.  A
    file that has not changed since this process last looked is not read again; ``contents`` gets
    what the tables hold that were, by file.

    Raises:
        ValueError: a file cannot be read here, as a link to nothing: no trial to run again.
    """
    content: dict[str, Any] = {}

    def judged(status: str, **more: Any) -> TrialStatus:
        known = {key: content.get(key) for key in TrialStatus.__annotations__}
        return cast(TrialStatus, known | more | {"status": status})

    try:
        here = set(os.listdir(folder))  # noqa: PTH208, only names
    except OSError:
        is_there(folder)  # says which link leads to nothing, or why it cannot be told
        here = set()
    if "trial.json" not in here:
        return judged("missing", epochs_done=0)
    place = f"{folder}{os.sep}"  # of thousands of trials, paths as text are faster made
    markers = ("done.json", "failed.json")
    markers = [name for name in markers if name in here and _stamp_of(place + name) is not None]
    try:
        trial = read_json(place + "trial.json")
    except Damaged as error:
        return judged("corrupt", error=f"trial.json is damaged: {_within(folder, error)}")
    wrong = wrong_with_trial(trial, folder.name)
    if wrong is None:
        said = {"split": "test"} | trial
        differ = [
            k for k, v in (asked or {}).items() if k in _ROW and v is not None and v != said.get(k)
        ]
        wrong = f"sweep.json says another {differ[0]} of it" if differ else None
        own = (asked or {}).get("settings")
        if wrong is None and own is not None:
            wrong = wrong_with_settings(trial["config"], own)
    if wrong is not None:
        return judged("corrupt", error=f"trial.json is damaged: {wrong}")
    if not markers:
        return judged("partial", epochs_done=_epochs_written(folder))
    done = markers[0] == "done.json"
    try:
        found = read_json(place + markers[0])
    except Damaged as error:
        return judged("corrupt", error=f"marker file unreadable: {_within(folder, error)}")
    wrong = wrong_with_summary(found, trial) if done else wrong_with_failure(found)
    if wrong is not None:
        return judged("corrupt", error=f"{markers[0]} is damaged: {wrong}")
    content |= found
    if not done:
        kind = content.get("kind") or "error"
        return judged("diverged" if kind == "diverged" else "failed", kind=kind)
    damage = _damage(folder, content, {} if contents is None else contents)
    return judged("done") if damage is None else judged("corrupt", error=damage)


def trial_statuses(
    path: Path, asked: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, TrialStatus]:
    """`trial_status` of the trials of a results folder: sweep.json's row of each, by name.

    Files of many trials are asked for at a time if that is what takes longest, as on a file server;
    on a disk of this machine threads would only be in each other's way.
    """

    trials = path / "trials"

    def status(name: str) -> TrialStatus:
        return trial_status(trials / name, asked[name])

    names = list(asked)
    begun, worked = time.monotonic(), time.thread_time()
    found = {name: status(name) for name in names[:TRIALS_TIMED]}
    waits = time.monotonic() - begun > 3 * (time.thread_time() - worked)
    left = names[TRIALS_TIMED:]
    if not waits:
        return found | {name: status(name) for name in left}
    with ThreadPoolExecutor(FILES_AT_A_TIME) as threads:
        return found | dict(zip(left, threads.map(status, left), strict=True))


TRIALS_TIMED = 32
FILES_AT_A_TIME = 8

_ROW = frozenset(TrialRow.__annotations__) - {"settings", "label"}
"""Fields of a row that trial.json says too."""


def file_state(path: Path) -> dict[str, object]:
    """Size and SHA-256 of a file, as done.json records them."""
    content = read_bytes(path)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read_model(folder: Path) -> bytes:
    """The weights of a done trial, as they were written.

    Raises:
        ValueError: they are not there, or not as done.json recorded them.
    """
    content = read_bytes(folder / MODEL)
    recorded = read_json(folder / "done.json").get("files")
    digest = hashlib.sha256(content).hexdigest()
    if recorded is not None and recorded.get(MODEL, {}).get("sha256") != digest:
        raise ValueError(
            f"{folder / MODEL}: is damaged: it is not what done.json recorded; "
            f"`lesion-sweep verify {folder.parent.parent} --repair` has the trial trained again"
        )
    return content


def _damage(folder: Path, done: Mapping[str, Any], contents: dict[str, bytes]) -> str | None:
    """What of a trial is not as its done.json says; None if nothing is."""
    recorded = done.get("files")
    if recorded is not None and (wrong := wrong_with_record(recorded, TABLES, MODEL)) is not None:
        return f"done.json is damaged: {wrong}"
    names = list(TABLES if recorded is None else recorded)
    place = f"{folder}{os.sep}"
    known_as = os.path.join(os.getcwd(), folder)  # noqa: PTH109, PTH118, thousands of them
    before = _INTACT.get(known_as)
    try:
        stamps = {name: _stamp_of(place + name) for name in ("done.json", *names)}
        absent = [name for name, stamp in stamps.items() if stamp is None]
        if absent:
            return f"done.json is there, but not {', '.join(absent)}"
        if before == stamps:
            return None
        for name in names:
            if recorded is None:
                intact = _is_readable(folder / name, TABLES[name])
            elif name == MODEL:
                intact = existing(folder / name).stat().st_size == recorded[name]["bytes"]
            else:
                content, found = read_with_stat(place + name)
                digest = hashlib.sha256(content).hexdigest()
                intact = (len(content), digest) == tuple(map(recorded[name].get, _STATE))
                stamps[name] = _stamp(found)
                contents[name] = content
            if not intact:
                return f"{name} is damaged"
    except Damaged as error:
        return _within(folder, error)
    if "trial" not in done and not _is_of(folder / "cases.parquet", folder.name):
        return "cases.parquet holds rows of another trial"
    _INTACT[known_as] = stamps
    return None


_STATE = ("bytes", "sha256")
_Stamp = tuple[int, int, int]


def _stamp(found: os.stat_result) -> _Stamp:
    """Size and times of change of a file."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _stamp_of(path: str) -> _Stamp | None:
    """The same of what lies at a path; None where nothing is.

    Raises:
        ValueError: a link to nothing is, or it cannot be told.
    """
    try:
        return _stamp(os.stat(path))  # noqa: PTH116, thousands of them
    except OSError:
        is_there(Path(path))
        return None


def _is_of(path: Path, name: str) -> bool:
    """Whether a table can be a trial's, by its lowest and highest name."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    column = metadata.schema.names.index("trial") if "trial" in metadata.schema.names else None
    for number in range(metadata.num_row_groups if column is not None else 0):
        found = metadata.row_group(number).column(column).statistics
        if found is not None and found.has_min_max and {found.min, found.max} != {name}:
            return False
    return True


def _table_in(path: Path, content: bytes | None, schema: pa.Schema) -> pa.Table:
    """A trial's table, whose bytes may have been read; with the columns CHOSEN if it has them."""
    content = read_bytes(path) if content is None else content
    return table_of(path, content, schema, CASES_CHOSEN if schema is CASES else schema)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, dict[Any, int]]:
    """A number for each row, equal where values are (null: -1); and the number of each value."""
    encoded = column.dictionary_encode().unify_dictionaries()
    if not encoded.num_chunks:
        return np.zeros(0, int), {}
    together = cast(pa.DictionaryArray, encoded.combine_chunks())
    values = enumerate(together.dictionary.to_pylist())
    return together.indices.fill_null(-1).to_numpy(), {value: code for code, value in values}


def _within(folder: Path, error: Exception) -> str:
    """An error without the folder's path, which its reader knows."""
    return str(error).removeprefix(f"{folder}{os.sep}")


_INTACT: dict[str, dict[str, _Stamp | None]] = {}
"""Size and times of change of the files of trials that this process has found to be as recorded."""


def _is_readable(path: Path, schema: pa.Schema) -> bool:
    try:
        found = read_table(path).schema
    except Damaged:
        return False
    schema = cases_schema(found.names) if schema is CASES else schema
    return list(found) == [f for f in schema if f.name in found.names or f.name not in _LATER]


_LATER = {"learning_rate"}
"""Columns that tables of earlier releases lack."""


def _epochs_written(folder: Path) -> int:
    """Trained epochs in the table so far; epoch 0 is a row but no training."""
    try:
        return max(0, num_rows(folder / "epochs.parquet") - 1)
    except ValueError:
        return 0


def _trials(path: Path, meta: dict) -> dict[str, dict]:
    """Identity of every trial by name: those asked for in order, then what else is there."""

    def identity(source: Mapping, expected: bool) -> dict:
        columns = ("cohort", "loss", "loss_params", "seed", "fold", "epochs")
        known = {key: source.get(key) for key in columns}
        # Folders that were written before trials said it hold test scores only.
        # Trained on part of its training part, a trial is none of a comparison's.
        split = "part" if source.get("trained_on") else source.get("split", "test")
        return {"expected": expected, "split": split} | known

    trials = {
        name: identity(row, True) | {"settings": row.get("settings")}
        for name, row in asked_rows(meta).items()
    }
    folder = path / "trials"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name not in trials:
            try:
                source = read_json(entry / "trial.json")
            except ValueError:
                source = {}
            if wrong_with_row({"name": entry.name, "cohort": "unknown"} | source) is not None:
                source = {}
            trials[entry.name] = identity(source, False)
    return trials


def _concatenate_cases(tables: list[pa.Table]) -> pd.DataFrame:
    """Rows of `cases_schema`, which may be of either."""
    if len({table.num_columns for table in tables}) > 1:
        return pa.concat_tables(tables, promote_options="default").to_pandas()
    return _concatenate(tables, CASES)


def _concatenate(tables: list[pa.Table], schema: pa.Schema) -> pd.DataFrame:
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    return table.to_pandas()
