"""Gradient curves of a sweep's losses, stored when their trials are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lesion_core.losses import Loss
    from lesion_core.losses.gradients import TypicalPatch
    from sweeps.ledger.ledger import Ledger


def add_gradients(
    ledger: Ledger, losses: Iterable[Loss], patch: Callable[[], TypicalPatch] | None = None
) -> None:
    """Store the curves of those losses that have none in the folder, and say which cannot.

    All are taken on the patch of the first ones; without any, ``patch`` makes it, or none is taken.
    """
    from lesion_core import results
    from lesion_core.losses import loss_label
    from lesion_core.losses.gradients import TypicalPatch, gradient_rows

    stored = []
    with suppress(ValueError):  # a damaged file is written anew
        stored = results.read_gradients(ledger.path).to_dict("records")
    known = {row["loss"] for row in stored}
    by_label = {loss_label(loss): loss for loss in losses}
    new = [loss for label, loss in by_label.items() if label not in known]
    if not new or not (stored or patch):
        return
    if stored:
        size = round(stored[0]["patch_voxels"] ** (1 / 3))
        shared = TypicalPatch(size, stored[0]["lesion_voxels"])
    else:
        assert patch is not None
        shared = patch()

    def warn(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr)

    ledger.write_gradients(gradient_rows(new, shared, warn))
