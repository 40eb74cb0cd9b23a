"""What seeds do together, as a ledger keeps it: ``scores/ENSEMBLE/``, counts without any image.

An ensemble is the networks of one cohort, loss and fold, one per seed.  Its folder is named by them
and by their weights, so more seeds, or a network that was trained again, are another ensemble:

    ensembles.parquet   rows so far (`results.ENSEMBLES`), rewritten after every case
    scores.json         last: of which networks, on which cases, in which arithmetic, with the
                        checksum of the rows and one of itself

Written by ``predict --score`` (`segmentation.scored`) alone, which writes nothing else of a ledger,
so it needs no lock; two of them at a time write the same rows.  Without torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lesion_core.paths import Damaged, existing, is_there, read_json
from lesion_core.received import is_plain, read_table
from lesion_core.results import (
    ENSEMBLES,
    MODEL,
    NUM_BINS,
    SCHEMA_VERSION,
    UNCERTAINTY_BINS,
    file_state,
    json_bytes,
    table_bytes,
    write_bytes,
)

FOLDER = "scores"
TABLE = "ensembles.parquet"
RECORD = "scores.json"

LENGTHS = {
    "lesion": NUM_BINS,
    "background": NUM_BINS,
    **dict.fromkeys(
        (
            "disagreement_voxels", "disagreement_errors", "entropy_voxels", "entropy_errors",
            "ensemble_errors",
        ),
        UNCERTAINTY_BINS,
    ),
}  # fmt: skip
"""Columns that hold a histogram or nothing, and its bins."""


MOST_STARTS = 10
EVERY_SIZE = 5
"""Up to so many networks every number of them is looked at, then each doubling."""


def parts_of(networks: int) -> list[tuple[int, ...]]:
    """Which networks (from 0) are averaged: each alone, balanced parts, all.

    A part of k networks is k neighbours on a circle of all, from every start, or from `MOST_STARTS`
    of them evenly apart: so each network counts alike, or nearly, at every k.

    >>> parts_of(3)
    [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]
    """
    doubled = {2**power for power in range(3, max(networks, 1).bit_length())}
    sizes = {*range(1, EVERY_SIZE + 1), networks - 1, *doubled} & {*range(1, networks)}
    parts = []
    for size in sorted(sizes):
        whole = size in (1, networks - 1)
        starts = networks if whole else min(networks, MOST_STARTS)
        for number in range(starts):
            begin = number * networks // starts
            parts.append(tuple(sorted((begin + i) % networks for i in range(size))))
    return [*parts, tuple(range(networks))]


@dataclass(frozen=True, kw_only=True)
class EnsembleIdentity:
    """Whose probabilities are averaged, and on which cases none of them was trained."""

    cohort: str
    loss: str
    fold: int
    trials: tuple[str, ...]
    """In the sweep's order."""
    seeds: tuple[int, ...]
    """Of the trials."""
    weights: tuple[str, ...]
    """SHA-256 of the trials' weights, as done.json recorded them; "" where it did not."""

    @property
    def name(self) -> str:
        """Of the folder."""
        label = re.sub(r"[^A-Za-z0-9.-]+", "_", self.loss).strip("_")
        told = json.dumps(
            [self.cohort, self.loss, self.fold, *zip(self.trials, self.weights, strict=True)]
        )
        return f"{self.cohort}-{label}-f{self.fold}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    @property
    def networks(self) -> tuple[str, int, tuple[str, ...], tuple[str, ...]]:
        """All but what its arm was called when it was scored, which more arms may change."""
        return self.cohort, self.fold, self.trials, self.weights

    @property
    def group(self) -> tuple[str, str, int]:
        """Cohort, loss and fold: of all ensembles of a group one is the largest."""
        return self.cohort, self.loss, self.fold


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """An ensemble whose scores are complete."""

    ensemble: EnsembleIdentity
    cases: tuple[str, ...]
    precision: str
    device: str
    rows: pa.Table
    """`results.ENSEMBLES`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """All that a results folder holds of ensembles."""

    whole: list[Scored] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    """Names of ensembles with some cases."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Why, by file (its path in the results folder)."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why, of files that cannot be read here."""


# ----------------------------------------------------------------------------------------- writing
def write_rows(results: Path, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the rows so far of an ensemble, whole or not at all; it is not complete any more."""
    folder = _folder(results, name)
    (folder / RECORD).unlink(missing_ok=True)
    write_bytes(folder / TABLE, table_bytes(rows, ENSEMBLES))


def write_record(
    results: Path,
    ensemble: EnsembleIdentity,
    cases: Sequence[str],
    *,
    precision: str,
    device: str,
    versions: Mapping[str, str],
) -> Path:
    """Say that the rows of an ensemble are complete; returns the file."""
    folder = _folder(results, ensemble.name)
    content = {
        "schema_version": SCHEMA_VERSION,
        "cohort": ensemble.cohort,
        "loss": ensemble.loss,
        "fold": ensemble.fold,
        "networks": [
            {"trial": trial, "seed": seed, "sha256": digest}
            for trial, seed, digest in zip(
                ensemble.trials, ensemble.seeds, ensemble.weights, strict=True
            )
        ],
        "cases": list(cases),
        "precision": precision,
        "device": device,
        "versions": dict(versions),
        "files": {TABLE: file_state(folder / TABLE)},
    }
    write_bytes(folder / RECORD, json_bytes(content | {"record": _digest(content)}))
    return folder / RECORD


# ----------------------------------------------------------------------------------------- reading
def read_scores(results: Path) -> Scores:
    """Every ensemble of a results folder; what is damaged is named, and believed in no part."""
    found = Scores()
    place = results / FOLDER
    if place.is_symlink():
        found.damaged[FOLDER] = "is a link"
        return found
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        name = f"{FOLDER}/{folder.name}"
        if not is_plain(folder.name):
            continue
        try:
            if folder.is_symlink():
                raise Damaged(f"{folder}: is a link")
            if not is_there(folder / RECORD):
                rows_so_far(results, folder.name)
                found.unfinished.append(folder.name)
                continue
            found.whole.append(_scored(folder))
        except ValueError as error:
            file = next((f for f in (TABLE, RECORD) if f"{folder / f}:" in str(error)), "")
            why = str(error).rpartition(f"{folder / file}: ")[2]
            kept = found.damaged if isinstance(error, Damaged) else found.unreadable
            kept[f"{name}/{file}".rstrip("/")] = why
    return found


def rows_so_far(results: Path, name: str) -> pa.Table:
    """Rows of an ensemble, complete or not; none where there are none.

    Raises:
        Damaged: the file is damaged, or of another ensemble.
        ValueError: it cannot be read.
    """
    file = _folder(results, name) / TABLE
    if not is_there(file):
        return ENSEMBLES.empty_table()
    rows = read_table(file, ENSEMBLES)
    if wrong := _wrong_with_rows(rows, name):
        raise Damaged(f"{file}: {wrong}")
    return rows


def recorded_weights(folder: Path) -> str:
    """SHA-256 of a done trial's weights, as its done.json recorded it; "" where it did not."""
    files: Any = read_json(folder / "done.json").get("files")
    state = files.get(MODEL) if isinstance(files, dict) else None
    digest = state.get("sha256") if isinstance(state, dict) else None
    return digest if isinstance(digest, str) else ""


def usable(
    scored: Sequence[Scored], complete: Mapping[str, tuple[str, str, int, int, str]]
) -> dict[tuple[str, str, int], Scored]:
    """By cohort, loss and fold the largest ensemble all of whose networks are complete trials.

    ``complete``: cohort, label of the loss or arm, fold, seed and `recorded_weights` of each
    complete trial, by name.  The label is that of the trials, whatever it was on scoring.
    """
    best: dict[tuple[str, str, int], Scored] = {}
    for one in scored:
        own = one.ensemble
        labels = {complete[trial][1] for trial in own.trials if trial in complete}
        label = labels.pop() if len(labels) == 1 else own.loss
        networks = zip(own.trials, own.seeds, own.weights, strict=True)
        if any(complete.get(t) != (own.cohort, label, own.fold, s, w) for t, s, w in networks):
            continue
        group = own.cohort, label, own.fold
        if group not in best or len(best[group].ensemble.seeds) < len(own.seeds):
            best[group] = one
    return best


def _scored(folder: Path) -> Scored:
    file = folder / RECORD
    content = read_json(file)
    digest = content.pop("record", None)
    ensemble = None if digest != _digest(content) else _identity(content)
    if ensemble is None or ensemble.name != folder.name:
        raise Damaged(f"{file}: is not what was written")
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"{file}: is of another release")
    existing(folder / TABLE)
    if file_state(folder / TABLE) != content["files"].get(TABLE):
        raise Damaged(f"{folder / TABLE}: is not what was written")
    rows = rows_so_far(folder.parents[1], folder.name)
    cases = tuple(content["cases"])
    listed: Any = rows.select(_PART).to_pylist()
    parts: list[tuple[str, tuple[int, ...]]] = [
        (row["case"], tuple(row["seeds"] or ())) for row in listed
    ]
    if {case for case, _ in parts} != set(cases) or len(parts) != len(set(parts)):
        raise Damaged(f"{folder / TABLE}: is of other cases than {RECORD}")
    if not all(part and {*part} <= {*ensemble.seeds} for _, part in parts):
        raise Damaged(f"{folder / TABLE}: is of other seeds than {RECORD}")
    return Scored(
        ensemble=ensemble,
        cases=cases,
        precision=content["precision"],
        device=content["device"],
        rows=rows,
    )


_PART = ["case", "seeds"]


def _identity(content: Mapping[str, Any]) -> EnsembleIdentity | None:
    """The ensemble that a record speaks of; None where it cannot be one."""
    try:
        networks = [(n["trial"], n["seed"], n["sha256"]) for n in content["networks"]]
        trials, seeds, weights = zip(*networks, strict=True)
        fits = (
            all(map(is_plain, (content["cohort"], *trials, *content["cases"])))
            and all(type(number) is int for number in (content["fold"], *seeds))
            and all(isinstance(text, str) for text in weights)
            and all(isinstance(content[key], str) for key in ("loss", "precision", "device"))
            and isinstance(content["files"], dict)
        )
    except (KeyError, TypeError, ValueError):
        return None
    if not fits:
        return None
    return EnsembleIdentity(
        cohort=content["cohort"], loss=content["loss"], fold=content["fold"],
        trials=trials, seeds=seeds, weights=weights,
    )  # fmt: skip


def _wrong_with_rows(rows: pa.Table, name: str) -> str:
    """Why these cannot be the rows of an ensemble; "" if they can."""
    if any(value != name for value in rows["ensemble"].unique().to_pylist()):
        return "holds rows of another ensemble"
    for column, bins in LENGTHS.items():
        values = rows[column].combine_chunks().drop_null()
        if (np.asarray(values.value_lengths()) != bins).any() or values.flatten().null_count:
            return f"{column} is no histogram of {bins} bins"
        if (np.asarray(values.flatten()) < 0).any():
            return f"{column} counts less than nothing"
    return ""


def _folder(results: Path, name: str) -> Path:
    from lesion_core.received import inside

    return inside(results, Path(FOLDER, name, TABLE)).parent


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
