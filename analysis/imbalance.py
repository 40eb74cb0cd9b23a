"""How imbalanced are the data: lesion share, size and number of every cohort (Table 1)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import examples
from analysis.output import Column, Figure, Note, Section, Table, prose
from analysis.scores import Study
from lesion_core.results import Sweep

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


def share_words(part: np.ndarray, whole: np.ndarray) -> str:
    """Per cent as mean +- standard deviation [pooled], as the paper writes it.

    >>> share_words(np.array([1.0, 3.0]), np.array([100.0, 100.0]))
    '2.00 ± 1.41 [2.00]'
    """
    known = whole > 0
    if not known.any():
        return "–"
    share = 100 * part[known] / whole[known]
    spread = f"{share.std(ddof=1):.2f}" if len(share) > 1 else "–"
    return f"{share.mean():.2f} ± {spread} [{100 * part[known].sum() / whole[known].sum():.2f}]"


def section(sweep: Sweep, studies: list[Study]) -> Section:
    """One row per cohort, and the paper's own row below where it has one."""
    rows, missing = [], []
    for study in studies:
        cases = sweep.cohort_table(study.cohort, "cases.parquet").drop_duplicates("case")
        if cases.empty:
            missing.append(study.title)
            continue
        lesion = cases["lesion_voxels"].to_numpy(float)
        number = cases["n_lesions"].to_numpy(float)
        voxel = np.array([np.prod(spacing) for spacing in cases["spacing_mm"]])
        patch = patch_rows(sweep, study)
        rows.append(
            {
                "cohort": study.title,
                "source": "this sweep",
                "cases": len(cases),
                "brain": share_words(lesion, cases["brain_voxels"].to_numpy(float)),
                "patch": share_words(patch["lesion"].to_numpy(), patch["voxels"].to_numpy()),
                "size_voxels": lesion.sum() / number.sum() if number.sum() else float("nan"),
                "size_mm3": (lesion * voxel).sum() / number.sum() if number.sum() else float("nan"),
                "lesions": int(number.sum()),
                "outside": int(cases["lesion_outside_brain_voxels"].sum()),
                "other": int(cases["other_voxels"].sum()),
            }
        )
        if study.cohort in PAPER:
            paper = PAPER[study.cohort]
            rows.append(
                {
                    "cohort": study.title,
                    "source": "the paper",
                    "cases": None,
                    "brain": paper["brain"],
                    "patch": paper["patch"],
                    "size_voxels": paper["size"],
                    "size_mm3": float("nan"),
                    "lesions": paper["number"],
                    "outside": None,
                    "other": None,
                }
            )
    items: list[Table | Figure | Note] = []
    if rows:
        frame = pd.DataFrame(rows)
        for name in ("cases", "lesions", "outside", "other"):
            frame[name] = pd.to_numeric(frame[name]).astype(float)
        count = int(frame["cases"].sum())
        items.append(
            Table(
                key="table1",
                title="Lesion share, size and number (the paper's Table 1)",
                frame=frame,
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
                ],
                caption="Per cent: mean ± standard deviation over cases [all voxels together]. "
                "Training patches: all patches that hold lesion, overlapping voxels counted "
                "as often as they are shown. Lesions are 26-connected components of label 1. "
                f"{count} of {count} cases with a cohort table.",
            )
        )
    picture = examples.figure(sweep.path, [study.cohort for study in studies])
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


def patch_rows(sweep: Sweep, study: Study) -> pd.DataFrame:
    """Lesion voxels and voxels of each case's training patches, from one trial that trains on it
    (they are the same in all)."""
    rows = sweep.cases
    if rows.empty:
        return pd.DataFrame({"lesion": [], "voxels": []}, dtype=float)
    trials = study.final.drop_duplicates("fold_index")["trial"]
    own = rows[
        (
            rows["scope"].eq("patch") & rows["trial"].isin(set(trials)) & rows["epoch"].eq(0)
        ).to_numpy()
    ].drop_duplicates("case")
    counts = own[["tp", "fp", "fn", "tn"]].to_numpy(float)
    return pd.DataFrame({"lesion": counts[:, 0] + counts[:, 2], "voxels": counts.sum(1)})
