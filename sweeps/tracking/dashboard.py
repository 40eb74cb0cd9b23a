"""A W&B workspace for a sweep: bands by loss, or by what arms differ by, per fold, sensitivity
against precision, the best.

One per cohort, as JSON in ``RESULTS/wandb``: panels with the arguments of the public library
wandb-workspaces (``pip install wandb-workspaces``), by whose classes they are called.  Where it is
installed, the JSON also holds what it makes of them, W&B's own view, and it can save that.

A trial's run logs its numbers under its fold's name too (`scalars.by_epoch`), so a panel per fold
needs no filter: only that fold's runs have them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lesion_core.arms import arms_of
from sweeps.ledger.contents import SweepContent
from sweeps.ledger.ledger import Ledger
from sweeps.provenance import command_to_show
from sweeps.tracking import scalars
from sweeps.tracking.credentials import configured_key
from sweeps.tracking.policy import PROJECT, remembered

NAMES = {"dice": "DSC", "sensitivity": "Sensitivity", "precision": "Precision"}
TRAINING = {"train/patch": "training patches", "train/image": "training images"}


def describe(meta: SweepContent, cohort: str, group: str, media: bool = False) -> dict:
    """Panels for one cohort of a sweep, given its sweep.json.

    A band is the mean between the lowest and the highest trial, as in the report: a range, not a
    confidence interval.  A search's trials are judged on validation images, its last ones on test
    images: each kind has panels of its own.  Where arms differ by several factors, each panel is
    there once per factor, over all levels of the others; the configurations of a search are too
    many for that.
    """
    trials = [trial for trial in meta["trials"] if trial["cohort"] == cohort]
    judged_on = list(dict.fromkeys(trial.get("split", "test") for trial in trials)) or ["test"]
    views = TRAINING | {f"{split}/image": f"{split} images" for split in judged_on}
    folds = sorted({trial["fold"] for trial in trials})
    arms = arms_of(meta)
    factors = arms.factors or ("loss",)
    if len(factors) > 1 and "validation" in judged_on:
        factors = ("loss",)

    def by(factor: str) -> str:
        return f", by {factor}" if len(factors) > 1 else ""

    def bands(title: str, key: str) -> list[dict]:
        return [
            {
                "panel": "LinePlot",
                "title": f"{title}{by(factor)}",
                "x": "Step",
                "y": [key],
                "title_x": "Epoch",
                "groupby": {"config": factor},
                "groupby_aggfunc": "mean",
                "groupby_rangefunc": "minmax",
                "max_runs_to_show": max(10, len(trials)),
            }
            for factor in factors
        ]

    by_loss = [
        band
        for view in views
        for metric in scalars.VOXEL_METRICS
        for band in bands(f"{NAMES[metric]}, {views[view]}", f"{view}/{metric}")
    ]
    by_fold = [
        band
        for metric in scalars.VOXEL_METRICS
        for fold in folds
        for band in bands(
            f"{NAMES[metric]} of the held-out images, fold {fold}", f"fold/{fold}/{metric}"
        )
    ]
    trade_off = [
        {
            "panel": "ScatterPlot",
            "title": f"Sensitivity against precision, {split} images, last epoch",
            "x": {"summary": f"{split}/image/precision"},
            "y": {"summary": f"{split}/image/sensitivity"},
        }
        for split in judged_on
    ]
    best = [
        {
            "panel": "BarPlot",
            "title": f"{NAMES[metric]} of the {split} images, last epoch{by(factor)}",
            "metrics": [{"summary": f"{split}/image/{metric}"}],
            "groupby": {"config": factor},
            "groupby_aggfunc": "mean",
            "groupby_rangefunc": "minmax",
            "max_runs_to_show": max(10, len(trials)),
            "max_bars_to_show": max(10, len(arms.labels)),
        }
        for split in judged_on
        for metric in scalars.VOXEL_METRICS
        for factor in factors
    ]
    training = [
        *bands("Loss of the batches (another scale for every loss)", "train_loss"),
        *bands("Norm of the gradient", "grad_norm"),
        *bands("Seconds of training per epoch", "seconds/train"),
        *bands("Seconds of evaluation per epoch", "seconds/evaluate"),
    ]
    lesions = [
        band
        for split in judged_on
        for title, key in (
            ("Lesions found, share", "lesion_recall"),
            ("True among predicted lesions", "lesion_precision"),
            ("Lesions predicted", "lesions_predicted"),
        )
        for band in bands(f"{title}, {split} images", f"{split}/image/{key}")
    ]
    sections = {
        "The best (the report says what the evidence supports)": [
            {"panel": "WeavePanelSummaryTable", "table_name": "losses"},
            *best,
        ],
        "Bands over seeds and folds": by_loss,
        "Bands over seeds, per fold": by_fold,
        "Sensitivity against precision": trade_off,
        "Lesions": lesions,
        "Training": training,
    }
    if media:
        pictures = {"panel": "MediaBrowser", "media_keys": ["overlays"]}
        sections["Segmentations"] = [pictures]
    return {
        "name": f"{group}, {cohort}",
        "filters": f"Metric('Group') == {group!r} and (Config('cohort') == {cohort!r} or "
        "Metric('JobType') == 'sweep')",
        "order": {"summary": f"{judged_on[0]}/image/dice", "ascending": False},
        "groupby": [{"config": factor} for factor in factors],
        "max_runs": min(1000, max(10, len(trials))),
        "sections": [{"name": name, "panels": panels} for name, panels in sections.items()],
    }


def write(results: Path, entity: str | None) -> int:
    """Write every cohort's workspace, save them at W&B if an ``entity`` is given, say where.

    Raises:
        ValueError: not a results folder; or saving needs the library, or a key.
    """
    from lesion_core.results import read_meta

    meta = cast(SweepContent, read_meta(results))
    before = remembered(results)
    media = before is not None and before["media"]
    project = os.environ.get("WANDB_PROJECT") or (before["project"] if before else PROJECT)
    library = _library()
    if entity is not None and library is None:
        raise ValueError("--entity needs the library: pip install wandb-workspaces")
    if entity is not None and configured_key() is None:
        raise ValueError("--entity needs a key: set WANDB_API_KEY or run `wandb login`")
    files, urls = {}, []
    for cohort in dict.fromkeys(trial["cohort"] for trial in meta["trials"]):
        content = describe(meta, cohort, results.resolve().name, media)
        content |= {"entity": entity, "project": project}
        if library is not None:
            workspace = built(content)
            content["view"] = workspace._to_model().model_dump(
                mode="json", by_alias=True, exclude_none=True
            )["spec"]
            if entity is not None:
                urls.append(_saved(workspace))
        files[f"wandb/workspace-{cohort}.json"] = _bytes(content)
    Ledger(results).write_files(files)
    for name in files:
        print(f"workspace: {results / name}")
    for url in urls:
        print(f"saved: {url}")
    if library is None:
        print(
            "wandb-workspaces is not installed: the file describes the panels; with it, "
            "--entity NAME puts them there"
        )
    elif entity is None:
        again = command_to_show("python sweeps/tracking.py", "wandb")
        print(f"to put it there: {again} dashboard {results} --entity NAME")
    return 0


def built(content: Mapping[str, Any]) -> Any:
    """The `wandb_workspaces.workspaces.Workspace` that a description asks for."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def value(given: Any) -> Any:
        if isinstance(given, Mapping) and "config" in given:
            return panels.Config(given["config"])
        if isinstance(given, Mapping) and "summary" in given:
            return panels.SummaryMetric(given["summary"])
        if isinstance(given, list):
            return [value(each) for each in given]
        return given

    def panel(given: Mapping[str, Any]) -> Any:
        fields = {key: value(each) for key, each in given.items() if key != "panel"}
        return getattr(panels, given["panel"])(**fields)

    order = content["order"]
    return workspaces.Workspace(
        entity=content["entity"] or "",
        project=content["project"],
        name=content["name"],
        sections=[
            workspaces.Section(
                name=section["name"],
                panels=[panel(each) for each in section["panels"]],
                is_open=True,
            )
            for section in content["sections"]
        ],
        settings=workspaces.WorkspaceSettings(max_runs=content["max_runs"]),
        runset_settings=workspaces.RunsetSettings(
            filters=content["filters"],
            groupby=[workspaces.Config(each["config"]) for each in content["groupby"]],
            order=[
                workspaces.Ordering(
                    workspaces.Summary(order["summary"]), ascending=order["ascending"]
                )
            ],
        ),
    )


def _saved(workspace: Any) -> str:
    """Save it as a new view; returns its address."""
    try:
        return workspace.save().url
    except Exception as error:  # wandb raises all sorts of things
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"W&B did not take the workspace: {reason}") from None


def _library() -> Any:
    try:
        import wandb_workspaces
    except ImportError:
        return None
    return wandb_workspaces


def _bytes(content: Mapping[str, Any]) -> bytes:
    import json

    return (json.dumps(content, indent=1) + "\n").encode()
