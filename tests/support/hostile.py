"""A made-up ledger whose names of losses, cases, subjects, sites and channels attack their reader.

None of them can come from this project's own commands; a folder that somebody sent may hold them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep
from tests.support.recorded import record_anew

COHORT = "x\"><img src=q onerror=window.pwned='cohort'>`b`"
"""A cohort's name is a part of a path, so it is printable and has none of the letters of one."""
LOSSES = (
    "xent",
    "</script><script>window.pwned='loss'</script>",
    "=cmd|' -C calc'!A1{{7*7}}",
    "$x^2$\\input{/etc/passwd}%",
    "**bold** | [a](javascript:window.pwned=1) `c`\n# h",
    "\x1b[2J\x1b]0;title\x07\u202egnol\u202c" + "x" * 120,
)
CASES = (
    "-1+1|<b>",
    "@SUM(1)\t2",
    "' onfocus='window.pwned=1' autofocus='",
    "<svg onload=window.pwned=1>",
    "+3\r\n4",
    "[5cm] \\\\ & # _ ~ ^ ${alert(1)}",
    "\ufeff\u2028case",
    "y" * 400,
)
SITES = ("<i>site</i>", "=1+2", "a/../b\x1b[31m")
CHANNELS = ("<u>t1</u>", "$\\frac{1}{2}$")
MARKS = ("<img src=q", "<script>window", "<svg onload", "<b>", "<i>site", "<u>t1")
"""What no page may hold: names that have become elements."""


def write(folder: Path, **changes: object) -> Path:
    """Write the ledger; returns its folder."""
    made = FakeSweep(
        cohorts=(COHORT,),
        losses=LOSSES,
        seeds=(1, 2),
        num_folds=2,
        num_cases=len(CASES),
        epochs=1,
        status={(COHORT, LOSSES[4], 1, 0): "diverged"},
        **changes,  # type: ignore[arg-type]
    )
    made.write(folder)
    renamed = {f"case{number + 1:02d}": case for number, case in enumerate(CASES)}
    sites = {case: SITES[number % len(SITES)] for number, case in enumerate(CASES)}
    for file in folder.glob("*/*/*.parquet"):
        schema = pq.read_schema(file).remove_metadata()
        rows = pq.read_table(file).to_pylist()
        for row in rows:
            for column in {"case", "subject"} & row.keys():
                row[column] = renamed[row[column]]
            if "site" in row:
                row["site"] = sites[row["case"]]
            if "channels" in row:
                row["channels"] = list(CHANNELS)
        results.write_table(file, rows, schema)
    for trial in folder.glob("trials/*"):
        record_anew(trial)
    meta = json.loads((folder / "sweep.json").read_text())
    for cohort, folds in meta["folds"].items():
        meta["folds"][cohort] = [[renamed[case] for case in fold] for fold in folds]
        meta["cohorts"][cohort]["channels"] = list(CHANNELS)
    meta["command"] = "paper_grid.py --x '<script>window.pwned=2</script>' \x1b[31m"
    results.write_json(folder / "sweep.json", meta)
    return folder
