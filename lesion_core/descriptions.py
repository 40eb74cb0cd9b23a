"""What a trial says of itself in tables and files, as plain values; without torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

SCORES_FOLDER = "scores"
"""Of a results folder: what is kept of networks together (`scores`)."""


class Identity(TypedDict):
    """The columns that open each row of a trial (`results.IDENTITY`)."""

    trial: str
    cohort: str
    loss: str
    seed: int
    fold: int


class TrialRow(TypedDict):
    """A trial as sweep.json lists it."""

    name: str
    hash: str
    cohort: str
    loss: str
    loss_params: str
    """`losses.loss_to_dict`, as JSON."""
    seed: int
    fold: int
    epochs: int
    split: NotRequired[str]
    """Only where it is not test."""
    trained_on: NotRequired[int]
    """How many cases, only where they are not the whole training part."""
    settings: NotRequired[dict[str, Any]]
    """Only in sweep.json, and only the fields of `TrainSettings` that are not as its ``settings``
    say: plain values, defaults too (`arms.differing`)."""
    label: NotRequired[str]
    """Only in sweep.json: what somebody calls the trial's arm (`arms.Arm`)."""


class TrialSummary(TypedDict):
    """What a complete trial says of itself, and done.json keeps: how far, how long, with what.

    `trial.run` says all of it.
    """

    epochs_done: int
    seconds: float
    host: NotRequired[str]
    device: NotRequired[str]
    """Name of the GPU, else of the processor."""
    precision: NotRequired[str]
    threads: NotRequired[int]
    versions: NotRequired[dict[str, str]]
    """Versions of Python and of the packages that compute."""
    fingerprint: NotRequired[str]
    """Hash of the cohort's files."""
    network: NotRequired[str]
    """Its name (`networks.names`)."""
    parameters: NotRequired[int]
    """Trainable weights."""
    flops_per_patch: NotRequired[int]
    """Floating-point operations of one patch's forward pass (`networks.fitting.NetworkSize`)."""


def configuration_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the SHA-256 of a whole configuration (`Trial.to_dict`)."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def evaluated_epochs(config: Mapping[str, Any] | None, until: int) -> list[int]:
    """The epochs up to this one after which a trial of this configuration is evaluated.

    All of them where the configuration does not say, as `settings.TrainSettings.evaluates`.
    """
    settings = (config or {}).get("settings") or {}
    if settings.get("evaluate_at", "every") == "every":
        return list(range(until + 1))
    return [epoch for epoch in range(until + 1) if epoch == settings["epochs"]]


def trial_name(cohort: str, loss: str, seed: int, fold: int, digits: str) -> str:
    """Name of a trial's folder in the ledger, given its loss's label and its hash."""
    label = re.sub(r"[^A-Za-z0-9.-]+", "_", loss).strip("_")
    return f"{cohort}-{label}-s{seed}-f{fold}-{digits}"
