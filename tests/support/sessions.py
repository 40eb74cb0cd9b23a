"""A ledger in which every case is there twice: as two sessions of one subject."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from lesion_core import results


def doubled(ledger: Path, target: Path) -> Path:
    """Copy a ledger to ``target``, each case as the sessions ``CASE-a`` and ``CASE-b``, alike."""
    shutil.copytree(ledger, target)
    for file in [*target.glob("trials/*/*.parquet"), *target.glob("cohorts/*/*.parquet")]:
        schema = pq.read_schema(file)
        if "case" not in schema.names:
            continue
        rows = pq.read_table(file).to_pylist()
        twice = [
            row | {"case": f"{row['case']}-{session}"} for row in rows for session in ("a", "b")
        ]
        results.write_table(file, twice, schema.remove_metadata())
    return target


def without_subjects(ledger: Path) -> None:
    """Make a ledger as one that was written before whose cases they are was kept."""
    for file in ledger.glob("cohorts/*/cases.parquet"):
        pd.read_parquet(file).drop(columns="subject").to_parquet(file)
