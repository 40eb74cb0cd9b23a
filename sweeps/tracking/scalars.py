"""What a trial's rows say in numbers and rows: for Weights & Biases, and one line of a log.

Needs the ledger's tables only, so a trial that is followed live and one that is rebuilt from the
ledger say the same.  Nothing undefined is counted as 0: a mean is over the cases where the metric
is defined, their number stands beside it, and a mean over none is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from lesion_core.terminal import one_line

if TYPE_CHECKING:
    import pandas as pd

VOXEL_METRICS = ("dice", "sensitivity", "precision")
LESION_METRICS = ("lesion_recall", "lesion_precision", "lesion_f1")
SURFACE_METRICS = ("hd95_mm", "nsd", "wmh_h95_mm")
"""Surface metrics: of the held-out images at the last epoch."""

LESION_COUNTS = {"n_ref": "lesions", "n_ref_hit": "lesions_found", "n_pred": "lesions_predicted"}
"""Column -> what their sum over cases is called."""

TABLE_COLUMNS = (
    "case", "site", "split", "dice", "sensitivity", "precision", "lesion_recall",
    "lesion_precision", "lesion_f1", "hd95_mm", "nsd", "wmh_h95_mm", "tp", "fp", "fn", "tn",
    "voxel_mm3", "n_ref", "n_ref_hit", "n_pred", "n_pred_hit",
)  # fmt: skip
"""Columns of `case_table`."""


def by_epoch(
    cases: Sequence[Mapping[str, Any]] | pd.DataFrame,
    epochs: Iterable[Mapping[str, Any]],
    last_epoch: int,
    site_name: Callable[[str], str] = str,
) -> dict[int, dict[str, float]]:
    """Numbers by epoch of one trial's `results.CASES` and `results.EPOCHS` rows.

    ``{split}/{scope}/{metric}``: mean over cases (scope image) or over patches (scope patch), as in
    the report; ``.../{metric}_cases`` or ``_patches``: over how many it is defined.  The same under
    ``{split}/{scope}/site/{site}/`` where there is more than one site.  ``fold/{fold}/{metric}`` is
    ``test/image/{metric}`` (or validation, in a search) once more, so that W&B can draw a panel per
    fold.

    >>> case = {"epoch": 1, "split": "test", "scope": "image", "site": ""}
    >>> case |= {"tp": 1, "fp": 1, "fn": 0}
    >>> found = by_epoch([case], [{"epoch": 1, "train_loss": 0.5}], last_epoch=2)[1]
    >>> found["test/image/sensitivity"], found["test/image/dice_cases"], found["train_loss"]
    (1.0, 1, 0.5)
    """
    import pandas as pd

    found = {int(row["epoch"]): _of_training(row) for row in epochs}
    frame: Any = pd.DataFrame(cases)  # pandas has no types that hold
    if frame.empty:
        return found
    scored = _scored(frame)
    fold = f"fold/{frame['fold'].iloc[0]}" if "fold" in frame else None
    several = scored["site"].nunique() > 1
    for scope, part in scored.groupby("scope"):
        for keys in (["epoch", "split"], ["epoch", "split", "site"])[: 1 + several]:
            for key, numbers in _means(part, keys, scope == "patch", last_epoch).items():
                epoch, split, *site = key
                place = f"{split}/{scope}/" + "".join(
                    f"site/{part_of_a_key(site_name(name))}/" for name in site
                )
                found.setdefault(int(epoch), {}).update(
                    {f"{place}{name}": value for name, value in numbers.items()}
                )
    held_out = [split for split in scored["split"].unique() if split != "train"]
    for numbers in found.values() if fold else ():
        for split, metric in product(held_out, VOXEL_METRICS):
            if (value := numbers.get(f"{split}/image/{metric}")) is not None:
                numbers[f"{fold}/{metric}"] = value
    return found


def case_table(
    cases: Sequence[Mapping[str, Any]] | pd.DataFrame,
    case_name: Callable[[str], str] = str,
    site_name: Callable[[str], str] = str,
) -> list[list[Any]]:
    """A row of `TABLE_COLUMNS` per image at the last epoch; None where a value is undefined."""
    import pandas as pd

    frame: Any = pd.DataFrame(cases)
    frame = frame[(frame["scope"] == "image") & (frame["epoch"] == frame["epoch"].max())]
    frame = _scored(frame).reindex(columns=list(TABLE_COLUMNS))
    frame = frame.astype(dict.fromkeys(_COUNT_COLUMNS, "Int64"))
    for column, name in (("case", case_name), ("site", site_name)):
        frame[column] = [one_line(name(each)) if each else each for each in frame[column]]
    plain = frame.astype(object).where(frame.notna(), None)
    return plain.to_numpy().tolist()


def part_of_a_key(name: str) -> str:
    """A site's name as part of a number's name: one level of it, and not endless.

    >>> part_of_a_key("Utrecht"), part_of_a_key("a/b")
    ('Utrecht', 'a_b~c14c')
    """
    part = one_line(name).replace("/", "_")[:MOST_KEY_CHARACTERS]
    if part == name:
        return name
    return f"{part}~{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:4]}"


MOST_KEY_CHARACTERS = 64


def _of_training(row: Mapping[str, Any]) -> dict[str, float]:
    """Loss, gradient, amounts and seconds; what an untrained network has none of is left out."""
    named = {
        "train_loss": "train_loss",
        "grad_norm": "grad_norm",
        "learning_rate": "learning_rate",
        "n_batches": "batches",
        "n_patches": "patches",
        "seconds_train": "seconds/train",
        "seconds_evaluate": "seconds/evaluate",
    }
    values = {name: row.get(column) for column, name in named.items()}
    return {"epoch": row["epoch"]} | {k: v for k, v in values.items() if v is not None}


def _scored(cases: Any) -> Any:
    """A data frame with a column per metric; one whose counts the table lacks is absent."""
    import numpy as np

    from lesion_core.results import rates

    scored = cases.assign(**rates(cases))
    if "n_ref" in cases:
        counts = {name: cases[name].to_numpy(float, na_value=np.nan) for name in _LESION_COLUMNS}
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = counts["n_ref_hit"] / counts["n_ref"]
            precision = counts["n_pred_hit"] / counts["n_pred"]
            both = recall + precision
            f1 = np.where(both == 0, 0.0, 2 * recall * precision / both)
        scored = scored.assign(lesion_recall=recall, lesion_precision=precision, lesion_f1=f1)
    return scored


_LESION_COLUMNS = ("n_ref", "n_ref_hit", "n_pred", "n_pred_hit")
_COUNT_COLUMNS = ("tp", "fp", "fn", "tn", *_LESION_COLUMNS)


def _means(
    rows: Any, keys: list[str], patches: bool, last_epoch: int
) -> dict[tuple[Any, ...], dict[str, float]]:
    """Numbers of every group of one scope's data frame; ``keys`` begins with epoch and split."""
    import numpy as np

    # Groups are numbered in the order of their first rows.
    group_of = rows.groupby(keys, sort=False).ngroup().to_numpy()
    groups = [tuple(key) for key in rows[keys].drop_duplicates().itertuples(index=False)]
    found: dict[tuple[Any, ...], dict[str, float]] = {key: {} for key in groups}

    def total(column: str) -> Any:
        """Sum of a column in each group; one group after the other would take ten times as long."""
        values = rows[column].to_numpy(float, na_value=np.nan)
        return np.bincount(group_of, values, len(groups))

    def mean(metric: str, sums: Any, numbers: Any, of: str) -> None:
        """The mean over what is defined; a sum that is no number gives none."""
        for key, value, number in zip(groups, sums.tolist(), numbers.tolist(), strict=True):
            if metric in SURFACE_METRICS and (key[0] != last_epoch or key[1] == "train"):
                continue  # never measured there
            found[key][f"{metric}_{of}"] = int(number)
            if number and value == value:
                found[key][metric] = value / number

    if patches:
        for metric in VOXEL_METRICS:
            if f"patch_{metric}_sum" in rows:
                number = np.nan_to_num(rows[f"patch_{metric}_n"].to_numpy(float, na_value=np.nan))
                numbers = np.bincount(group_of, number, len(groups))
                mean(metric, total(f"patch_{metric}_sum"), numbers, "patches")
    else:
        for column, name in LESION_COUNTS.items():
            if column in rows:
                for key, number in zip(groups, total(column).tolist(), strict=True):
                    if number == number:
                        found[key][name] = int(number)
    of_cases = ("loss",) if patches else (*VOXEL_METRICS, *LESION_METRICS, *SURFACE_METRICS)
    for metric in of_cases:
        column = "loss_value" if metric == "loss" else metric
        if column in rows:
            values = rows[column].to_numpy(float, na_value=np.nan)
            defined = ~np.isnan(values)
            sums = np.bincount(group_of[defined], values[defined], len(groups))
            mean(metric, sums, np.bincount(group_of[defined], minlength=len(groups)), "cases")
    return found
