"""How imbalanced are the data: lesion share, size and number of every cohort (Table 1)."""

from __future__ import annotations

import pandas as pd

from analysis.page.items import Column, Figure, Note, Section, Table, prose
from analysis.sections import examples
from analysis.sections.report_input import ReportInput
from lesion_core import table1

PAPER = {
    "wmh2017": {
        "brain": "1.54 ± 1.48 [1.57]",
        "patch": "1.53 ± 2.40 [1.73]",
        "size": 111.175,
        "number": 3679,
    },
    "lit": {
        "brain": "0.14 ± 0.18 [0.15]",
        "patch": "0.48 ± 0.84 [0.51]",
        "size": 116.13,
        "number": 156,
    },
}
"""Table 1 of Cabezas & Diez 2024 (CC BY).  Its patches are batches, its LIT masks are not public,
and its lesions include WMH label 2."""


def ignored_voxels(cases: pd.DataFrame) -> int:
    """Voxels that are left out of training and of every score; ledgers of earlier releases, whose
    table has no such number, left none out."""
    return int(pd.to_numeric(cases["ignore_voxels"]).fillna(0).sum())


SOURCES = {
    "1": "this sweep",
    "1+2": "this sweep, label 2 counted too",
    table1.POSITIVE: "this sweep, positive activity",
    table1.ALL_CHANGE: "the same cases, all change",
}
"""What a row of `table1.rows` is called, by its labels."""


def section(given: ReportInput) -> Section | None:
    """One row per cohort, and the paper's own row below where it has one."""
    if not (given.cohorts and given.is_ledger):
        return None
    rows, missing, described = [], [], 0
    several = [cohort.size for cohort in given.cohorts if cohort.has_sessions]
    for cohort in given.cohorts:
        cases = given.sweep.cohort_table(cohort.name, "cases.parquet").drop_duplicates("case")
        if cases.empty:
            missing.append(cohort.title)
            continue
        for row in table1.rows(cases):
            other = row.labels in ("1+2", table1.ALL_CHANGE)
            rows.append(
                {
                    "cohort": cohort.title,
                    "source": SOURCES[row.labels],
                    "cases": row.cases,
                    "brain": str(row.brain),
                    "patch": "–" if row.patches is None else str(row.patches),
                    "size_voxels": row.mean_size_voxels,
                    "size_mm3": row.mean_size_mm3,
                    "lesions": row.lesions,
                    "outside": None if other else int(cases["lesion_outside_brain_voxels"].sum()),
                    "other": None if other else int(cases["other_voxels"].sum()),
                    "ignored": None if other else ignored_voxels(cases),
                }
            )
        described += len(cases)
        if cohort.name in PAPER:
            paper = PAPER[cohort.name]
            rows.append(
                {
                    "cohort": cohort.title,
                    "source": "the paper",
                    "cases": None,
                    "brain": paper["brain"],
                    "patch": paper["patch"],
                    "size_voxels": paper["size"],
                    "size_mm3": float("nan"),
                    "lesions": paper["number"],
                    "outside": None,
                    "other": None,
                    "ignored": None,
                }
            )
    items: list[Table | Figure | Note] = []
    if rows:
        frame = pd.DataFrame(rows)
        for name in ("cases", "lesions", "outside", "other", "ignored"):
            frame[name] = pd.to_numeric(frame[name]).astype(float)
        ignoring = bool(frame["ignored"].sum())
        items.append(
            Table(
                key="table1",
                title="Lesion share, size and number (the paper's Table 1)",
                frame=frame if ignoring else frame.drop(columns="ignored"),
                columns=[
                    Column(key="cohort", header="Cohort"),
                    Column(key="source", header="Source"),
                    Column(key="cases", header="Cases"),
                    Column(key="brain", header="% of brain"),
                    Column(key="patch", header="% of training patches"),
                    Column(
                        key="size_voxels", header="voxels", group="Mean lesion size", decimals=1
                    ),
                    Column(key="size_mm3", header="mm³", group="Mean lesion size", decimals=1),
                    Column(key="lesions", header="Lesions"),
                    Column(key="outside", header="outside brain, voxels"),
                    Column(key="other", header="other label, voxels"),
                    *([Column(key="ignored", header="ignored, voxels")] if ignoring else []),
                ],
                caption="Per cent: mean ± standard deviation [all voxels together], over cases and "
                "over the training patches, which hold lesion and overlap by half; mirror images "
                "do not count. Lesions are 26-connected components of label 1, and of labels 1 "
                "and 2 where it says so. "
                + ("Ignored voxels are in no other number. " if ignoring else "")
                + f"{described} of {described} cases with a cohort table."
                + (f" Every session counts as a case: {', '.join(several)}." if several else ""),
            )
        )
    picture = examples.figure(given.sweep.path, [cohort.name for cohort in given.cohorts])
    if picture is not None:
        items.append(picture)
    if missing:
        items.append(
            Note(
                kind="warning",
                body=prose(
                    f"No cohort table (`cohorts/<name>/cases.parquet`) for {', '.join(missing)}."
                ),
            )
        )
    return Section(
        key="imbalance",
        title="How imbalanced are the data?",
        items=items,
        lead="The rarer the lesion, the more a loss must do to keep background from deciding "
        "everything.",
    )
