"""A ledger whose cases are there several times, as sessions of one subject that are all alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from lesion_core import results
from tests.support.recorded import record_anew


def multiplied(ledger: Path, target: Path, most: int = 3) -> Path:
    """Copy a ledger to ``target``: its first case is there once, the second twice, up to ``most``,
    and so on from one; as ``CASE-a``, ``CASE-b``, ..."""
    shutil.copytree(ledger, target)
    for table in sorted(target.glob("cohorts/*/cases.parquet")):
        cohort = table.parent.name
        cases = pd.read_parquet(table)["case"]
        sessions = {case: "abcdefgh"[: 1 + place % most] for place, case in enumerate(cases)}
        for file in [*table.parent.glob("*.parquet"), *target.glob(f"trials/{cohort}-*/*.parquet")]:
            schema = pq.read_schema(file)
            if "case" in schema.names:
                rows = [
                    row | {"case": f"{row['case']}-{session}"}
                    for row in pq.read_table(file).to_pylist()
                    for session in sessions[row["case"]]
                ]
                results.write_table(file, rows, schema.remove_metadata())
    for trial in target.glob("trials/*"):
        record_anew(trial)
    return target


def without_subjects(ledger: Path) -> None:
    """Make a ledger one that was written before it was kept whose case each case is."""
    for file in ledger.glob("cohorts/*/cases.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns("subject"), file)
