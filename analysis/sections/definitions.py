"""What is each loss, and what is "the paper"?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.page.items import LOSS, Column, Fold, Note, Table, prose
from analysis.sections.report_input import ReportInput
from lesion_core.settings import PAPER_LOSSES

PAPER = (
    "“The paper” is M. Cabezas and Y. Diez, An Analysis of Loss Functions for Heavily Imbalanced "
    "Lesion Segmentation, Sensors 2024, 24, 1981, doi 10.3390/s24061981: the same 3D U-Net trained "
    "with seven losses (xent, gdsc, dsc, mixed, focal1, focal2, new), five seeds and five folds."
)

FORMULAS = {
    "CrossEntropy": "cross-entropy (eq. 1): minus the logarithm of the probability of the true "
    "class, mean over voxels",
    "WeightedCrossEntropy": "cross-entropy, lesion voxels times alpha, others times 1 − alpha; not "
    "in the paper",
    "Focal": "focal loss (eq. 2, Lin et al. 2017): weighted cross-entropy times the error's "
    "probability to the power gamma, so that easy voxels count little",
    "WeightedGradient": "the paper's proposal (eq. 5): the gradient itself is the error's "
    "probability to the power gamma, weighted by alpha on lesion and 1 − alpha elsewhere",
    "Dice": "soft Dice (eq. 4, Milletari et al. 2016): 1 minus the DSC of probabilities",
    "GeneralisedDice": "generalised Dice (eq. 3, Sudre et al. 2017): soft overlap of lesion and "
    "background, the rarer class weighted up",
    "Mixed": "soft Dice plus cross-entropy, their plain sum (section 2.3.3)",
    "Tversky": "soft Dice with its own costs of false positives and false negatives (Salehi et al. "
    "2017); not in the paper",
    "TopK": "cross-entropy of the worst voxels alone; not in the paper",
}
"""Class of a built-in loss -> its formula in words; equations are those of the paper."""

WEIGHTS = {
    None: "share of background in the batch",
    "patch": "share of background in the patch",
}


def definitions(given: ReportInput) -> Fold:
    """The losses with their formulas and numbers, and the citation."""
    runs = given.sweep.runs.drop_duplicates("loss").set_index("loss")
    rows = []
    for loss in given.sweep.losses:
        name = given.arms.losses.get(loss, loss)
        if loss not in runs.index or any(row[LOSS] == name for row in rows):
            continue
        said = runs.loc[loss, "loss_params"]
        formula, alpha, gamma, others = describe(json.loads(said)) if isinstance(said, str) else (
            "not said: imported results name a loss and no more", "–", "–", "–"
        )  # fmt: skip
        rows.append({LOSS: name, "formula": formula, "alpha": alpha, "gamma": gamma,
                     "others": others})  # fmt: skip
    frame = pd.DataFrame(rows, columns=[LOSS, "formula", "alpha", "gamma", "others"])
    own = [loss for loss in frame[LOSS] if loss not in PAPER_LOSSES]
    paper = len(frame) - len(own)
    return Fold(
        question="What is each loss, and what is “the paper”?",
        items=[
            Note(body=prose(PAPER)),
            Table(
                key="losses",
                title="The losses",
                frame=frame,
                losses=given.sweep.losses,
                columns=[
                    Column(key=LOSS, header="Loss"),
                    Column(key="formula", header="Formula in words", wrap=True),
                    Column(key="alpha", header="alpha, weight of lesion"),
                    Column(key="gamma", header="gamma, focus on errors"),
                    Column(key="others", header="Other numbers"),
                ],
                caption=f"As the trials recorded them; {paper} of {len(frame)} have the name of "
                "one of the paper's seven.",
            ),
        ],
    )


def describe(loss: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Formula, alpha, gamma and other fields of a loss as a trial stores it.

    >>> describe({"type": "Focal", "fields": {"alpha": 0.25, "gamma": 2.0}})[1:]
    ('0.25', '2', '–')
    """
    fields = dict(loss.get("fields") or {})
    if "import" in loss:
        formula = f"your own: {loss['import']}; its file is its definition"
        alpha = _number(fields.pop("alpha")) if "alpha" in fields else "–"
    else:
        kind = str(loss.get("type"))
        formula = FORMULAS.get(kind, f"{kind}: unknown to this report")
        alpha = "–"
        if "alpha" in fields:
            value = fields.pop("alpha")
            alpha = WEIGHTS[value] if value in WEIGHTS else _number(value)
    gamma = _number(fields.pop("gamma")) if "gamma" in fields else "–"
    return formula, alpha, gamma, ", ".join(f"{k} {_number(v)}" for k, v in fields.items()) or "–"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
