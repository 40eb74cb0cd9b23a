"""How good is a trial so far?  Its validation score after an epoch, as search rules compare it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

Curve = Mapping[int, float]
"""Score by epoch."""


def validation_dice(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Mean Dice of the validation images that have a lesion, from rows of `results.CASES` of one
    epoch; None where there is none.

    >>> row = {"split": "validation", "scope": "image", "tp": 1, "fp": 1, "fn": 1, "n_ref": 1}
    >>> validation_dice([row, row | {"tp": 2, "fp": 0, "fn": 0}, row | {"split": "train"}])
    0.75
    """
    scores = [
        2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"])
        for row in rows
        if row["split"] == "validation" and row["scope"] == "image" and row["n_ref"]
    ]
    return statistics.fmean(scores) if scores else None


def curve_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The curve of a trial, from its rows of all epochs."""
    by_epoch: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_epoch.setdefault(row["epoch"], []).append(row)
    found = {epoch: validation_dice(own) for epoch, own in sorted(by_epoch.items())}
    return {epoch: score for epoch, score in found.items() if score is not None}
