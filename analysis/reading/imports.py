"""Results that no ledger holds: the authors' CSV per training, or one tidy CSV of any origin.

Both become a `results.Sweep` whose cases carry what the files know; everything else is undefined,
and sections that need it are left out of the report.

The authors' files (the public code of 2021) are `unet-LOSS.nrR.sSEED.nFOLD.OPTIM-lrLR.csv`: a row
per epoch, the first one untrained; columns `{train,val,test}_{dsc,fn,...}` hold 1 - DSC and
1 - TPf of training patches, training images and test images, as means.  There are no patients in
them, so a fold's mean stands for its patients: nothing can be said about new patients.

A tidy CSV has a row per (loss, seed, fold, epoch, case) with the columns REQUIRED and either the
voxel counts `tp fp fn` or rates among `dice sensitivity precision`; OPTIONAL columns help: with
`subject`, cases of one patient are averaged before patients are counted.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.reading.names import as_shown, frame_as_shown
from analysis.reading.scores import METRICS
from lesion_core import results
from lesion_core.paths import is_file, is_folder, is_text, is_there, read_text
from lesion_core.results import Sweep
from lesion_core.settings import PAPER_LOSSES

REQUIRED = ("loss", "seed", "fold", "epoch", "case")
OPTIONAL = {
    "cohort": "imported",
    "split": "test",
    "scope": "image",
    "site": "",
    "subject": "",
    "tn": np.nan,
    "voxel_mm3": np.nan,
}
"""Column -> what is assumed where it is absent."""

AUTHORS = re.compile(
    r"unet-(?P<loss>.+?)\.nr(?P<ratio>\d+)\.s(?P<seed>\d+)\.n(?P<fold>\d+)\."
    r"(?P<optimiser>[a-z]+)-lr(?P<rate>[\d.e+-]+)\.csv$"
)
AUTHORS_NAMES = {"focal_w1": "focal1", "focal_w2": "focal2"}


def read_results(path: Path) -> Sweep:
    """A ledger, a folder of the authors' CSV files (or of such folders), or a tidy CSV; with arms
    in place of losses where settings differ, and names as they are shown.

    Raises:
        ValueError: none of these, or a CSV that lacks a column or does not hold numbers.
    """
    return as_shown(_read(path).by_arm())


def _read(path: Path) -> Sweep:
    if is_file(path) and path.suffix == ".csv":
        return read_tidy(path)
    if is_folder(path) and not is_there(path / "sweep.json"):
        files = sorted(
            file
            for file in (*path.glob("*.csv"), *path.glob("*/*.csv"))
            if AUTHORS.fullmatch(file.name)
        )
        if files:
            return read_authors(path, files)
    return results.read_sweep(path)


def read_tidy(path: Path) -> Sweep:
    """One CSV with a row per (cohort, loss, seed, fold, epoch, split, scope, case)."""
    rows = _read_csv(path)
    absent = [name for name in REQUIRED if name not in rows]
    if absent:
        raise ValueError(
            f"{path}: lacks the column {absent[0]!r}; a tidy CSV needs "
            f"{', '.join(REQUIRED)} and tp, fp, fn or some of "
            f"{', '.join(METRICS)}"
        )
    counts = all(name in rows for name in ("tp", "fp", "fn"))
    rates = [name for name in METRICS if name in rows]
    if not counts and not rates:
        raise ValueError(f"{path}: has neither tp, fp, fn nor any of {', '.join(METRICS)}")
    for name, value in OPTIONAL.items():
        if name not in rows:
            rows[name] = value
    for name in ("loss", "cohort", "case", "split", "scope", "site", "subject"):
        rows[name] = rows[name].fillna("").astype(str)
    rows = frame_as_shown(rows, ("cohort",))  # a ledger's cohorts are plain names by themselves
    for name in ("seed", "fold", "epoch", "tp", "fp", "fn", *rates):
        if name in rows:
            _check_numbers(path, rows, name, whole=name in ("seed", "fold", "epoch"))
    key = ["cohort", "loss", "seed", "fold", "epoch", "split", "scope", "case"]
    twice = rows.duplicated(key)
    if twice.any():
        first = rows.loc[twice, key].iloc[0]
        raise ValueError(f"{path}: two rows for {', '.join(f'{k} {v}' for k, v in first.items())}")
    whose = rows.groupby(["cohort", "case"], sort=False)["subject"].nunique()
    if (whose > 1).any():
        cohort, case = whose.index[int(np.argmax(whose > 1))]
        raise ValueError(
            f"{path}: case {case} of cohort {cohort} has {whose.max()} subjects; expected one"
        )
    if not counts:
        rows[["tp", "fp", "fn"]] = np.nan
        for name in METRICS:
            rows[name] = rows[name] if name in rates else np.nan
    else:
        rows = rows.drop(columns=rates)
    patch = rows["scope"] == "patch"
    known = rows if not counts else rows.join(results.rates(rows))
    for name in METRICS:
        rows[f"patch_{name}_sum"] = known[name].where(patch).fillna(0.0)
        rows[f"patch_{name}_n"] = known[name].where(patch).notna().astype(float)
    rows["n_patch"] = patch.astype(float)
    return _sweep(path, rows, f"imported from {path.name}")


def read_authors(path: Path, files: list[Path]) -> Sweep:
    """The authors' files: epoch means per training; one "case" per fold and view."""
    variants: dict[tuple[str, ...], int] = {}
    for file in files:
        found = AUTHORS.fullmatch(file.name)
        assert found is not None
        variant = (found["ratio"], found["optimiser"], found["rate"])
        variants[variant] = variants.get(variant, 0) + 1
    several = len(variants) > 1
    frames = []
    for file in files:
        found = AUTHORS.fullmatch(file.name)
        assert found is not None
        loss = AUTHORS_NAMES.get(found["loss"], found["loss"])
        if several:  # other settings are other losses, not more seeds
            loss += f" nr{found['ratio']} {found['optimiser']} lr{found['rate']}"
        cohort = file.parent.name if file.parent != path else path.name
        frames.append(_authors_rows(file, cohort, loss, int(found["seed"]), int(found["fold"])))
    rows = pd.concat(frames, ignore_index=True)
    return _sweep(path, rows, f"imported from {len(files)} CSV files of the authors' code")


def _read_csv(path: Path) -> pd.DataFrame:
    text = read_text(path)
    try:
        if not is_text(text):
            raise ValueError("not UTF-8")
        return pd.read_csv(io.StringIO(text))
    except ValueError as error:
        raise ValueError(f"{path}: not a CSV that can be read ({error})") from None


def _authors_rows(file: Path, cohort: str, loss: str, seed: int, fold: int) -> pd.DataFrame:
    table = _read_csv(file)
    missing = [f"{view}_dsc" for view in ("train", "val", "test") if f"{view}_dsc" not in table]
    if missing:
        raise ValueError(
            f"{file}: lacks the column {missing[0]!r}; expected the authors' per-epoch table"
        )
    rows = []
    for view, split, scope, case in (
        ("train", "train", "patch", f"training patches of fold {fold}"),
        ("val", "train", "image", f"training images of fold {fold}"),
        ("test", "test", "image", f"test images of fold {fold}"),
    ):
        _check_numbers(file, table, f"{view}_dsc")
        dice = 1 - table[f"{view}_dsc"].astype(float)
        miss = f"{view}_fn"
        sensitivity = 1 - table[miss].astype(float) if miss in table else np.nan
        frame = pd.DataFrame(
            {
                "cohort": cohort,
                "loss": loss,
                "seed": seed,
                "fold": fold,
                "epoch": np.arange(len(table)),
                "split": split,
                "scope": scope,
                "case": case,
                "site": "",
                "dice": dice,
                "sensitivity": sensitivity,
                "precision": np.nan,
            }
        )
        patch = scope == "patch"
        for name in METRICS:
            value = frame[name] if patch else pd.Series(np.nan, index=frame.index)
            frame[f"patch_{name}_sum"] = value.fillna(0.0)
            frame[f"patch_{name}_n"] = value.notna().astype(float)
        frame["n_patch"] = float(patch)
        rows.append(frame)
    return pd.concat(rows, ignore_index=True)


def _check_numbers(path: Path, rows: pd.DataFrame, name: str, whole: bool = False) -> None:
    values = pd.to_numeric(rows[name], errors="coerce")
    bad = values.isna() & rows[name].notna()
    if whole:
        bad |= values.isna() | (values % 1 != 0)
    if bad.any():
        first = rows.loc[bad, name].iloc[0]
        expected = "a whole number" if whole else "a number"
        raise ValueError(
            f"{path}: column {name!r} holds {first!r} in line "
            f"{int(np.flatnonzero(bad)[0]) + 2}; expected {expected}"
        )
    rows[name] = values.astype(np.int64) if whole else values


def _sweep(path: Path, rows: pd.DataFrame, command: str) -> Sweep:
    rows = rows.copy()
    rows["trial"] = (
        rows["cohort"]
        + "-"
        + rows["loss"]
        + "-s"
        + rows["seed"].astype(str)
        + "-f"
        + rows["fold"].astype(str)
    )
    for name in results.CASES.names:
        if name not in rows:
            rows[name] = np.nan
    identity = ["trial", "cohort", "loss", "seed", "fold"]
    last = rows.groupby("trial", sort=False)["epoch"].max()
    runs = rows[identity].drop_duplicates().reset_index(drop=True)
    epochs = runs["trial"].map(last)
    runs = runs.assign(
        loss_params=None,
        split="test",
        expected=True,
        status="done",
        epochs=epochs,
        epochs_done=epochs,
        seconds=np.nan,
        host=None,
        device=None,
        precision=None,
        error=None,
        log=None,
    )

    def empty(schema) -> pd.DataFrame:
        return schema.empty_table().to_pandas()

    order = {name: place for place, name in enumerate(PAPER_LOSSES)}
    losses = sorted(dict.fromkeys(rows["loss"]), key=lambda name: order.get(name, len(order)))
    return Sweep(
        path=path,
        meta={"losses": losses, "command": command},
        runs=runs,
        cases=rows,
        lesions=empty(results.LESIONS),
        epochs=empty(results.EPOCHS),
        partial=empty(results.CASES),
    )
