"""The paper's Table 2, what it would say without looking at the test set, and the difference."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.page.items import LOSS, Column, Heading, Note, Section, Table, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEW_NAMES, VIEWS, Study, at_epoch
from analysis.statistics import selection

# Reported in Table 2 of Cabezas & Diez 2024 (CC BY): DSC, sensitivity, precision, each for
# patch, train, test.  WMH is coherent; LIT is not (17 of 21 cells exceed 2PR / (P + R)).
SLACK = 0.005
"""Rounding slack of a table with two decimals."""


def section(studies: list[Study]) -> Section:
    """Best per fold as the paper, last epoch, both side by side, for every cohort."""
    items: list[Table | Note | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        items += [optimism_table(study), nine_columns(study, "oracle"), nine_columns(study, "last")]
    return Section(
        key="table2",
        title="What would Table 2 say?",
        items=items,
        lead="The paper reports, for each fold, the best value over all seeds and epochs on the "
        "test images themselves, each metric on its own, and then averages over folds. No "
        "user can reach that number, because nobody can choose an epoch on their own test "
        "set. Optimism is how much of it is that choice; the rule also favours the loss "
        "whose results scatter most.",
    )


# ---------------------------------------------------------------------------------------- numbers
def optimism_frame(study: Study) -> pd.DataFrame:
    """Test metrics per loss under the paper's rule, at the last epoch, and at the epoch that the
    other folds choose; optimism = paper's rule - last epoch."""
    rows = []
    values = {name: _mean_over_folds(study, name)[0] for name in ("oracle", "last", "lofo")}
    for loss in study.shown:
        row: dict[str, object] = {"cohort": study.cohort, LOSS: study.losses[loss]}
        optimism = (values["oracle"] - values["last"])[loss, selection.TEST]
        for i, metric in enumerate(METRICS):
            for name, value in values.items():
                row[f"{metric}_{name}"] = float(value[loss, selection.TEST, i])
            row[f"{metric}_optimism"] = float(optimism[i])
        row["folds"] = int(_mean_over_folds(study, "last")[1][loss])
        row["trials"] = int(study.done[loss].sum())
        rows.append(row)
    return pd.DataFrame(rows)


def nine_frame(study: Study, selector: str) -> pd.DataFrame:
    """Nine columns as in Table 2, and whether they can belong to one network."""
    values, folds = _mean_over_folds(study, selector)
    rows = []
    for loss in study.shown:
        row: dict[str, object] = {"cohort": study.cohort, LOSS: study.losses[loss]}
        for i, metric in enumerate(METRICS):
            for j, view in enumerate(VIEWS):
                row[f"{metric}_{view}"] = float(values[loss, j, i])
        excess = [coherence_excess(*values[loss, j]) for j in range(len(VIEWS))]
        known = [value for value in excess if not np.isnan(value)]
        row["excess"] = max(known) if known else float("nan")
        row["coherent"] = "–" if not known else "yes" if max(known) <= SLACK else "no"
        row["folds"] = int(folds[loss])
        rows.append(row)
    return pd.DataFrame(rows)


def coherence_excess(dice: float, sensitivity: float, precision: float) -> float:
    """By how much a mean DSC exceeds the most that its mean sensitivity and precision allow.

    DSC is the harmonic mean of sensitivity R and precision P, which is jointly concave, so for
    one set of cases mean DSC <= 2 PR / (P + R) of the mean P and R (Jensen).  Positive: the three
    columns are not the same networks on the same cases.

    >>> round(coherence_excess(0.6, 0.5, 0.5), 3)
    0.1
    """
    if np.isnan([dice, sensitivity, precision]).any():
        return float("nan")
    total = sensitivity + precision
    return float(dice - (2 * sensitivity * precision / total if total > 0 else 0.0))


def _mean_over_folds(study: Study, selector: str) -> tuple[np.ndarray, np.ndarray]:
    """[L, views, metrics] mean over the folds that have a value, and [L] how many have one."""
    values = selection.by_fold(study.curves, study.last_epoch, selector)
    number = (~np.isnan(values)).sum(1)
    mean = np.divide(
        np.nansum(values, 1), number, out=np.full(number.shape, np.nan), where=number > 0
    )
    return mean, study.done.any(1).sum(1)


# ----------------------------------------------------------------------------------------- tables
def optimism_table(study: Study) -> Table:
    """The paper's rule beside the honest ones, test images only."""
    frame = optimism_frame(study)
    columns = [Column(key=LOSS, header="Loss")]
    for metric in METRICS:
        group = METRIC_NAMES[metric]
        columns += [
            Column(
                key=f"{metric}_oracle", header="paper's rule", group=group, decimals=3, best="max"
            ),
            Column(key=f"{metric}_last", header="last epoch", group=group, decimals=3, best="max"),
            Column(key=f"{metric}_lofo", header="other folds", group=group, decimals=3, best="max"),
            Column(
                key=f"{metric}_optimism", header="optimism", group=group, decimals=3, signed=True
            ),
        ]
    mean = frame["dice_optimism"].mean() if len(frame) else float("nan")
    words = "" if np.isnan(mean) else f" Mean optimism of DSC: {mean:.3f}."
    return Table(
        key=f"table2-optimism-{study.cohort}",
        frame=frame,
        columns=columns,
        losses=study.losses,
        title=f"Test images: the paper's rule beside honest ones, {study.title}",
        caption="Paper's rule: best of all seeds and epochs of each fold, per metric. Last epoch: "
        "mean over seeds. Other folds: mean over seeds at the epoch that the other folds "
        "choose by DSC. All are then averaged over folds. Optimism: paper's rule minus "
        f"last epoch.{words} {study.presence}.{_uneven_folds(study)}"
        + _undefined_under_each(study),
    )


def nine_columns(study: Study, selector: str) -> Table:
    """Table 2's own columns under a selector."""
    frame = nine_frame(study, selector)
    columns = [Column(key=LOSS, header="Loss")]
    for metric in METRICS:
        columns += [
            Column(
                key=f"{metric}_{view}",
                header=view.capitalize(),
                group=METRIC_NAMES[metric],
                decimals=2 if selector == "oracle" else 3,
                best="max",
            )
            for view in VIEWS
        ]
    columns += [Column(key="coherent", header="Coherent")]
    if selector == "oracle":
        title = f"Table 2 as the paper computes it, {study.title}"
        rule = (
            "Average over folds of the best value over seeds and epochs, independently for "
            "every metric and column."
        )
    else:
        title = f"Table 2 at the last epoch, {study.title}"
        rule = "Average over folds of the mean over seeds at the last epoch."
    failing = (
        [str(loss) for loss in frame.loc[frame["coherent"] == "no", LOSS]] if len(frame) else []
    )
    words = (
        f" Not coherent: {', '.join(failing)}."
        if failing
        else " Every row is coherent."
        if len(frame)
        else ""
    )
    return Table(
        key=f"table2-{selector}-{study.cohort}",
        title=title,
        frame=frame,
        columns=columns,
        losses=study.losses,
        caption=f"{rule} Coherent: mean DSC does not exceed 2PR/(P+R) of the mean sensitivity R "
        f"and precision P, as it must for one network on one set of cases.{words} "
        f"{study.presence}.{_uneven_folds(study)}{undefined_words(study, selector)}",
    )


def undefined_words(
    study: Study, selector: str, views: tuple[str, ...] = VIEWS, where: str = ""
) -> str:
    """How many cases (patches) the numbers of a selector leave out as undefined, in words."""
    parts = []
    for view in views:
        for metric in METRICS:
            i, j = VIEWS.index(view), METRICS.index(metric)
            asked, defined = _numbers_behind(study, selector, i, j)
            if asked > defined:
                parts.append(
                    f"{METRIC_NAMES[metric]} {asked - defined} of {asked} {VIEW_NAMES[view]}"
                )
    if not parts:
        things = "image and patch" if "patch" in views else "image"
        return f" Every {things} defines every rate{where}."
    return f" Undefined and left out{where}: {', '.join(parts)}."


def _undefined_under_each(study: Study) -> str:
    rules = {"oracle": "paper's rule", "last": "last epoch", "lofo": "other folds"}
    words = {rule: undefined_words(study, rule, ("test",)) for rule in rules}
    if len(set(words.values())) == 1:
        return words["last"]
    return "".join(
        undefined_words(study, rule, ("test",), f" ({name})") for rule, name in rules.items()
    )


def _numbers_behind(study: Study, selector: str, view: int, metric: int) -> tuple[int, int]:
    """Cases (patches) asked for and defined, summed over the networks behind a column."""
    asked, defined = study.asked[..., view], study.defined[..., view, metric]
    if selector == "oracle":
        flat = (len(study.losses), len(study.folds), -1)
        values, asked, defined = (
            np.moveaxis(part[:, :, :, 1:], 2, 1).reshape(flat)
            for part in (study.curves[..., view, metric], asked, defined)
        )
        chosen = np.argmax(np.nan_to_num(values, nan=-np.inf), -1) if values.size else None
        if chosen is None:
            return 0, 0
        # A fold without any defined value has no network behind it: count what it asked for.
        asked, defined = (at_epoch(part, chosen) for part in (asked, defined))
    else:
        epochs = selection.epochs(study.curves, study.last_epoch, selector)
        asked, defined = (at_epoch(part, epochs) for part in (asked, defined))
    return int(np.nansum(asked)), int(np.nansum(defined))


def _uneven_folds(study: Study) -> str:
    folds = study.done.any(1).sum(1)
    short = [
        f"{study.losses[loss]} {folds[loss]}"
        for loss in study.shown
        if folds[loss] < len(study.folds)
    ]
    return (
        f" Folds with a complete trial, of {len(study.folds)}: {', '.join(short)}." if short else ""
    )


def note_on_selection() -> Note:
    """What the selectors are, in one paragraph."""
    words = "; ".join(f"**{name}**: {meaning}" for name, meaning in selection.SELECTORS.items())
    return Note(body=prose(words + "."))
