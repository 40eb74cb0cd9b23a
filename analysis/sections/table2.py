"""The paper's Table 2, what it would say without looking at the test set, and the difference."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.page.items import LOSS, Column, Heading, Note, Section, Table, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, VIEW_NAMES, VIEWS, CohortScores
from analysis.sections.bands import unevaluated
from analysis.sections.report_input import ROUNDED, ReportInput
from analysis.statistics import selection
from analysis.statistics.collapse import collapsed
from analysis.statistics.optimism import SLACK, coherence_excess, mean_over_folds, numbers_behind


def section(given: ReportInput) -> Section | None:
    """Best per fold as the paper, last epoch, both side by side, for every cohort."""
    if not given.cohorts:
        return None
    items: list[Table | Note | Heading] = []
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        if cohort.has_course:
            items += [optimism_table(cohort), nine_columns(cohort, "oracle")]
        else:
            items.append(
                Note(
                    body=prose(
                        f"{cohort.title}: the networks were evaluated after their last epoch "
                        "alone, so there is no best epoch, and the paper's rule cannot be followed."
                    )
                )
            )
        items.append(nine_columns(cohort, "last"))
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


# ---------------------------------------------------------------------------------------- frames
def optimism_frame(cohort: CohortScores) -> pd.DataFrame:
    """Test metrics per loss under the paper's rule, at the last epoch, and at the epoch that the
    other folds choose; optimism = paper's rule - last epoch."""
    rows = []
    values = {name: mean_over_folds(cohort, name)[0] for name in ("oracle", "last", "lofo")}
    for loss in cohort.shown:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
        optimism = (values["oracle"] - values["last"])[loss, selection.TEST]
        for i, metric in enumerate(METRICS):
            for name, value in values.items():
                row[f"{metric}_{name}"] = float(value[loss, selection.TEST, i])
            row[f"{metric}_optimism"] = float(optimism[i])
        row["folds"] = int(mean_over_folds(cohort, "last")[1][loss])
        row["trials"] = int(cohort.done[loss].sum())
        rows.append(row)
    return pd.DataFrame(rows)


def nine_frame(cohort: CohortScores, selector: str) -> pd.DataFrame:
    """Nine columns as in Table 2, and whether they can belong to one network."""
    values, folds = mean_over_folds(cohort, selector)
    rows = []
    for loss in cohort.shown:
        row: dict[str, object] = {"cohort": cohort.name, LOSS: cohort.losses[loss]}
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


# ----------------------------------------------------------------------------------------- tables
def optimism_table(cohort: CohortScores) -> Table:
    """The paper's rule beside the honest ones, test images only."""
    frame = optimism_frame(cohort)
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
        key=f"table2-optimism-{cohort.name}",
        frame=frame,
        columns=columns,
        losses=cohort.losses,
        collapsed=collapsed(cohort),
        comparable=cohort.is_even,
        title=f"Test images: the paper's rule beside honest ones, {cohort.title}",
        caption="Paper's rule: best of all seeds and epochs of each fold, per metric. Last epoch: "
        "mean over seeds. Other folds: mean over seeds at the epoch that the other folds "
        "choose by DSC. All are then averaged over folds, each counting alike as in the paper, and "
        "over all complete trainings of a loss: elsewhere patients count alike, over trainings "
        "that all losses have, which may differ in the third decimal. Optimism: paper's rule minus "
        f"last epoch. {ROUNDED}{cohort.averaged}{words} {cohort.presence}.{_uneven_folds(cohort)}"
        + _undefined_under_each(cohort),
    )


def nine_columns(cohort: CohortScores, selector: str) -> Table:
    """Table 2's own columns under a selector."""
    frame = nine_frame(cohort, selector)
    columns = [Column(key=LOSS, header="Loss")]
    for metric in METRICS:
        columns += [
            Column(
                key=f"{metric}_{view}",
                header=view.capitalize(),
                group=METRIC_NAMES[metric],
                decimals=3,
                best="max",
            )
            for view in cohort.evaluated_views
        ]
    columns += [Column(key="coherent", header="Coherent")]
    if selector == "oracle":
        title = f"Table 2 as the paper computes it, {cohort.title}"
        rule = (
            "Average over folds, each counting alike, of the best value over seeds and epochs, "
            "independently for every metric and column."
        )
    else:
        title = f"Table 2 at the last epoch, {cohort.title}"
        rule = "Average over folds, each counting alike, of the mean over seeds at the last epoch."
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
    if selector == "oracle":
        words += (
            " That is no sign of one network: maxima that are taken independently cannot fail it, "
            "unless some cases are undefined, since the bound rises with P and R."
        )
    return Table(
        key=f"table2-{selector}-{cohort.name}",
        title=title,
        frame=frame,
        columns=columns,
        losses=cohort.losses,
        collapsed=collapsed(cohort),
        comparable=cohort.is_even,
        caption=f"{rule} Coherent: mean DSC does not exceed 2PR/(P+R) of the mean sensitivity R "
        "and precision P, as it must for one network on one set of cases."
        f"{cohort.averaged}{words} "
        f"{cohort.presence}.{_uneven_folds(cohort)}"
        f"{undefined_words(cohort, selector, cohort.evaluated_views)}{unevaluated(cohort)}",
    )


def undefined_words(
    cohort: CohortScores, selector: str, views: tuple[str, ...] = VIEWS, where: str = ""
) -> str:
    """How many cases (patches) the numbers of a selector leave out as undefined, in words."""
    parts = []
    for view in views:
        for metric in METRICS:
            i, j = VIEWS.index(view), METRICS.index(metric)
            asked, defined = numbers_behind(cohort, selector, i, j)
            if asked > defined:
                parts.append(
                    f"{METRIC_NAMES[metric]} {asked - defined} of {asked} {VIEW_NAMES[view]}"
                )
    if not parts:
        things = "image and patch" if "patch" in views else "image"
        return f" Every {things} defines every rate{where}."
    return f" Undefined and left out{where}: {', '.join(parts)}."


def _undefined_under_each(cohort: CohortScores) -> str:
    rules = {"oracle": "paper's rule", "last": "last epoch", "lofo": "other folds"}
    words = {rule: undefined_words(cohort, rule, ("test",)) for rule in rules}
    if len(set(words.values())) == 1:
        return words["last"]
    return "".join(
        undefined_words(cohort, rule, ("test",), f" ({name})") for rule, name in rules.items()
    )


def _uneven_folds(cohort: CohortScores) -> str:
    folds = cohort.done.any(1).sum(1)
    short = [
        f"{cohort.losses[loss]} {folds[loss]}"
        for loss in cohort.shown
        if folds[loss] < len(cohort.folds)
    ]
    return (
        f" Folds with a complete trial, of {len(cohort.folds)}: {', '.join(short)}."
        if short
        else ""
    )
