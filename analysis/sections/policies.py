"""Does the answer hang on how it was computed: the winner under every defensible set of choices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from analysis.page.items import Column, Heading, Note, Section, Table, prose
from analysis.reading.scores import COUNTS, Study
from analysis.sections.ranks import order_agreement
from analysis.statistics import selection

AGGREGATIONS = {"mean": "mean over cases", "pooled": "all voxels together"}
UNDEFINED = {"drop": "left out", "0": "counted as 0", "1": "counted as 1"}
LABEL_2 = {"counted": "background", "masked": "masked out"}
EPOCHS = {
    "last": "last",
    "lofo": "chosen on other folds",
    "best_train": "best training DSC",
    "oracle": "best on test (the paper)",
}


# ---------------------------------------------------------------------------------------- numbers
def fold_values(
    tp: np.ndarray,
    fp: np.ndarray,
    fn: np.ndarray,
    fold_of: np.ndarray,
    num_folds: int,
    aggregation: str,
    undefined: str,
) -> np.ndarray:
    """[L, S, F, E + 1] DSC of each fold from counts [L, S, P, E + 1]; NaN where absent.

    aggregation "mean": mean over cases; "pooled": one DSC from the fold's summed counts.
    undefined: what a case with two empty masks counts as ("drop", "0", "1"); pooling has none.
    """
    found = np.full((*tp.shape[:2], num_folds, tp.shape[3]), np.nan)
    for fold in range(num_folds):
        a, b, c = (part[:, :, fold_of == fold] for part in (tp, fp, fn))
        absent = np.isnan(a).all(2)
        if aggregation == "pooled":
            a, b, c = (np.nansum(part, 2) for part in (a, b, c))
            value = np.divide(
                2 * a, 2 * a + b + c, out=np.full(a.shape, np.nan), where=2 * a + b + c > 0
            )
        else:
            total = 2 * a + b + c
            dice = np.divide(2 * a, total, out=np.full(a.shape, np.nan), where=total > 0)
            if undefined != "drop":
                dice = np.where(total == 0, float(undefined), dice)
            number = (~np.isnan(dice)).sum(2)
            value = np.divide(
                np.nansum(dice, 2), number, out=np.full(number.shape, np.nan), where=number > 0
            )
        value[absent] = np.nan
        found[:, :, fold] = value
    return found


def world_means(
    values: np.ndarray, last_epoch: np.ndarray, best_train: np.ndarray, selector: str
) -> np.ndarray:
    """[L] mean over folds of a selector's DSC from [L, S, F, E + 1]."""
    curves = np.full((*values.shape, len(selection.VIEWS), len(selection.METRICS)), np.nan)
    curves[..., selection.TEST, selection.DICE] = values
    if selector == "best_train":
        chosen = selection.at_epoch(curves, best_train)
        by_fold = selection.mean_over(chosen, 1)
    else:
        by_fold = selection.by_fold(curves, last_epoch, selector)
    return selection.mean_over(by_fold[..., selection.TEST, selection.DICE], 1)


def worlds(study: Study) -> pd.DataFrame:
    """One row per world: the choices, the two best losses, and agreement with the headline."""
    tp, fp, fn = (study.counts[..., COUNTS.index(name)] for name in ("tp", "fp", "fn"))
    masked = study.counts[..., COUNTS.index("fp_masked")]
    empty = bool(((tp + fp + fn) == 0).any())
    differs = bool((masked != fp)[~np.isnan(fp)].any())
    best_train = selection.epochs(study.curves, study.last_epoch, "best_train")
    rows = []
    reference = None
    choices = product(
        EPOCHS,
        AGGREGATIONS,
        UNDEFINED if empty else ("drop",),
        LABEL_2 if differs else ("counted",),
    )
    for selector, aggregation, undefined, label in choices:
        if aggregation == "pooled" and undefined != "drop":
            continue  # pooled counts have no undefined case
        values = fold_values(
            tp,
            masked if label == "masked" else fp,
            fn,
            study.fold_of,
            len(study.folds),
            aggregation,
            undefined,
        )
        means = world_means(values, study.last_epoch, best_train, selector)[study.shown]
        if np.isnan(means).all():
            continue
        if reference is None:
            reference = means  # the first world: last epoch, mean over cases, left out, counted
        order = np.argsort(np.where(np.isnan(means), np.inf, -means), kind="stable")
        second = float(means[order[1]]) if len(order) > 1 else float("nan")
        rows.append(
            {
                "cohort": study.cohort,
                "epoch": EPOCHS[selector],
                "aggregation": AGGREGATIONS[aggregation],
                "undefined": UNDEFINED[undefined],
                "label_2": LABEL_2[label],
                "winner": study.losses[study.shown[order[0]]],
                "dice": float(means[order[0]]),
                "second": study.losses[study.shown[order[1]]] if len(order) > 1 else "–",
                "margin": float(means[order[0]]) - second,
                "tau": float(order_agreement(reference, means[None])[0])
                if len(means) > 1 and not np.isnan(means).any()
                else float("nan"),
            }
        )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------- sections
def section(studies: list[Study]) -> Section:
    """One table of worlds per cohort."""
    items: list[Table | Note | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        frame = worlds(study)
        if frame.empty:
            items.append(
                Note(kind="warning", body=prose(f"{study.title}: DSC is undefined in every world."))
            )
            continue
        items.append(_table(study, frame))
    return Section(
        key="policies",
        title="Does the answer hang on how it was computed?",
        items=items,
        lead="Every row is one defensible way to turn the same predictions into a winner. If the "
        "winner changes from row to row, the ranking is a choice of the analyst.",
    )


def _table(study: Study, frame: pd.DataFrame) -> Table:
    count = frame["winner"].value_counts(sort=False)
    order = sorted(count.index, key=lambda name: (-count[name], study.losses.index(name)))
    words = ", ".join(f"{name} {count[name]}" for name in order)
    constant = []
    if frame["undefined"].nunique() == 1:
        constant.append("no case leaves DSC undefined")
    if frame["label_2"].nunique() == 1:
        constant.append("masking other pathology changes nothing")
    columns = [
        Column(key="epoch", header="Epoch"),
        Column(key="aggregation", header="DSC of a fold"),
    ]
    if frame["undefined"].nunique() > 1:
        columns.append(Column(key="undefined", header="Undefined case"))
    if frame["label_2"].nunique() > 1:
        columns.append(Column(key="label_2", header="Other pathology"))
    columns += [
        Column(key="winner", header="Winner"),
        Column(key="dice", header="DSC", decimals=3),
        Column(key="second", header="Second"),
        Column(key="margin", header="Margin", decimals=3, signed=True),
        Column(key="tau", header="τ with the first row", decimals=2),
    ]
    because = f" Choices that do not matter here: {'; '.join(constant)}." if constant else ""
    return Table(
        key=f"policies-{study.cohort}",
        title=f"The winner in {len(frame)} worlds, {study.title}",
        frame=frame,
        columns=columns,
        caption=f"Wins, of {len(frame)} worlds: {words}. DSC: mean over folds on test images. "
        f"τ: Kendall's agreement of the order of losses with the headline (first row)."
        f"{because} {study.presence}.",
    )
