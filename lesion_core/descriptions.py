"""What a trial says of itself in tables and files, as plain values; without torch."""

from __future__ import annotations

from typing import NotRequired, TypedDict


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
