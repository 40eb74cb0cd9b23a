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
    import numpy as np
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
    found = {int(row["epoch"]): _of_training(row) for row in epochs}
    columns = _columns(cases)
    if not columns or not len(columns["scope"]):
        return found
    scored = _scored(columns)
    labels = {name: list(columns[name]) for name in ("epoch", "split", "scope", "site")}
    several = len(set(labels["site"])) > 1
    for scope in sorted(set(labels["scope"])):
        rows = [row for row, each in enumerate(labels["scope"]) if each == scope]
        part = {name: values[rows] for name, values in scored.items()}
        for names in (["epoch", "split"], ["epoch", "split", "site"])[: 1 + several]:
            keys = [tuple(labels[name][row] for name in names) for row in rows]
            for key, numbers in _means(part, keys, scope == "patch", last_epoch).items():
                epoch, split, *site = key
                place = f"{split}/{scope}/" + "".join(
                    f"site/{part_of_a_key(site_name(name))}/" for name in site
                )
                found.setdefault(int(epoch), {}).update(
                    {f"{place}{name}": value for name, value in numbers.items()}
                )
    if "fold" in columns:
        fold = f"fold/{next(iter(columns['fold']))}"
        held_out = [split for split in dict.fromkeys(labels["split"]) if split != "train"]
        for numbers, split, metric in product(list(found.values()), held_out, VOXEL_METRICS):
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
    frame = frame.assign(**_scored(_columns(frame))).reindex(columns=list(TABLE_COLUMNS))
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


def _columns(cases: Any) -> Mapping[str, Any]:
    """Columns by name, of a data frame or of rows: without pandas, which takes ten times as long
    for an epoch's rows as all the rest."""
    if hasattr(cases, "columns"):
        return {name: cases[name] for name in cases.columns}
    names = dict.fromkeys(name for row in cases for name in row)
    return {name: [row.get(name) for row in cases] for name in names}


def _floats(column: Any) -> np.ndarray:
    """A column's numbers; NaN where it has none."""
    import numpy as np

    if hasattr(column, "to_numpy"):
        return column.to_numpy(float, na_value=np.nan)
    return np.array([np.nan if value is None else value for value in column], float)


def _scored(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What is counted or measured, and the metrics that follow from it; what the table lacks is
    absent."""
    import numpy as np

    from lesion_core.results import rates_of

    found = {name: _floats(columns[name]) for name in _COUNTED if name in columns}
    found |= rates_of(found["tp"], found["fp"], found["fn"])
    if "n_ref" in found:
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = found["n_ref_hit"] / found["n_ref"]
            precision = found["n_pred_hit"] / found["n_pred"]
            both = recall + precision
            f1 = np.where(both == 0, 0.0, 2 * recall * precision / both)
        found |= {"lesion_recall": recall, "lesion_precision": precision, "lesion_f1": f1}
    return found


_LESION_COLUMNS = ("n_ref", "n_ref_hit", "n_pred", "n_pred_hit")
_COUNT_COLUMNS = ("tp", "fp", "fn", "tn", *_LESION_COLUMNS)
_COUNTED = (
    *_COUNT_COLUMNS, *SURFACE_METRICS, "loss_value",
    *(f"patch_{metric}_{of}" for metric in VOXEL_METRICS for of in ("sum", "n")),
)  # fmt: skip


def _means(
    rows: Mapping[str, np.ndarray],
    keys: Sequence[tuple[Any, ...]],
    patches: bool,
    last_epoch: int,
) -> dict[tuple[Any, ...], dict[str, float]]:
    """Numbers of every group of one scope's rows, given each row's; it begins with epoch and
    split."""
    import numpy as np

    groups = list(dict.fromkeys(keys))
    number_of = {key: number for number, key in enumerate(groups)}
    group_of = np.array([number_of[key] for key in keys])
    found: dict[tuple[Any, ...], dict[str, float]] = {key: {} for key in groups}

    def total(column: str) -> Any:
        """Sum of a column in each group; one group after the other would take ten times as long."""
        return np.bincount(group_of, rows[column], len(groups))

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
                number = np.nan_to_num(rows[f"patch_{metric}_n"])
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
            values = rows[column]
            defined = ~np.isnan(values)
            sums = np.bincount(group_of[defined], values[defined], len(groups))
            mean(metric, sums, np.bincount(group_of[defined], minlength=len(groups)), "cases")
    return found
