"""How are figures laid out that have a panel per loss?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Drawing

from analysis.page import style

ACROSS = 4
"""Panels in a row."""


def loss_panels(
    losses: Sequence[str], shown: Sequence[int]
) -> tuple[Drawing, list[tuple[int, Any, bool, bool]]]:
    """A drawing, and per loss its index, its axis, whether it is the first of its row and the last
    of its column; numbers stand at these alone."""
    across = max(1, min(ACROSS, len(shown)))
    down = max(1, -(-len(shown) // across))
    figure, axes = style.panels(
        down, across, height=0.5 + 1.75 * down, top=0.26, bottom=0.42, left=0.5, gap_x=0.12,
        gap_y=0.32,
    )  # fmt: skip
    panels = []
    for place, axis in enumerate(axes.ravel()):
        if place >= len(shown):
            axis.set_visible(False)
            continue
        first, last = place % across == 0, place + across >= len(shown)
        axis.set_title(losses[shown[place]])
        axis.tick_params(labelleft=first, labelbottom=last)
        panels.append((shown[place], axis, first, last))
    return figure, panels
