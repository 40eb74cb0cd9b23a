"""Which loss gains sensitivity and pays with precision, and for whom does that hold?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import confidence
from analysis.statistics.ladder import RUNGS
from analysis.statistics.pairs import Family, Pair

HARDLY = 0.1
"""Mean sensitivity below which a loss finds so little that its precision is of a few voxels."""


PATIENTS = ("L2", "L3")
"""Rungs that say something of new patients."""


@dataclass(frozen=True)
class Exchange:
    """Loss a is more sensitive than b, and less precise."""

    sensitivity: Pair
    precision: Pair
    holds: str
    """L2 or L3: the highest rung that refutes "no difference" for both."""

    @property
    def a(self) -> int:
        """The loss that is more sensitive."""
        return self.sensitivity.a

    @property
    def b(self) -> int:
        """The loss that is more precise."""
        return self.sensitivity.b


def exchanges(
    sensitivity: Family, precision: Family, pairs: Sequence[tuple[int, int]]
) -> list[Exchange]:
    """The trade-offs among some pairs.

    Both differences have to be refuted to be none, for new patients at least, adjusted inside the
    family of their metric and for there being two metrics.
    """
    found = []
    for a, b in pairs:
        (more, said), (less, also) = sensitivity.of(a, b), precision.of(a, b)
        if not more.fit.estimate * less.fit.estimate < 0:
            continue
        highest = ""
        for rung in RUNGS:
            worst = 2 * max(said.p[rung], also.p[rung])
            if worst >= confidence.error():
                break
            if worst == worst:
                highest = rung
        if highest in PATIENTS:
            if more.fit.estimate < 0:
                more, less = more.reversed(), less.reversed()
            found.append(Exchange(more, less, highest))
    return found


def can_test(*families: Family) -> bool:
    """Whether the design has any interval for new patients, of these metrics."""
    return all(any(said.p["L2"] == said.p["L2"] for said in one.judgements) for one in families)


def hardly_anything(sensitivity: dict[int, float]) -> list[int]:
    """Losses that find next to nothing, by their mean sensitivity; an undefined one is not."""
    return [loss for loss, mean in sensitivity.items() if np.nan_to_num(mean, nan=1.0) < HARDLY]
