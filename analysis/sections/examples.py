"""What the images look like: one case of every cohort with the outline of its lesions (Figure 1).

python analysis/examples.py FOLDER OUT.png     of a ledger, or of what
                                               `python -m lesion_core.cohorts check --out` wrote
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import Figure
from analysis.reading.names import frame_as_shown, shown
from analysis.reading.pictures import ignored, mask, striped
from lesion_core.results import read_table

OUTLINE = "#ff5a36"


@dataclass(frozen=True, eq=False)
class Example:
    """A case's slice: its channels and its lesions."""

    cohort: str
    case: str
    channels: list[str]
    images: list[np.ndarray]
    """uint8 [height, width] each."""
    lesion: np.ndarray
    ignored: np.ndarray
    mm: tuple[float, float]
    """Height and width of a pixel."""


def figure(folder: Path, cohorts: Sequence[str]) -> Figure | None:
    """Figure 1 of these cohorts of a ledger; None if it has no pictures of any."""
    found = [example for name in cohorts if (example := choose(folder, name)) is not None]
    if not found:
        return None
    stripes = any(example.ignored.any() for example in found)
    also = " Grey stripes: ignored voxels, which count for nothing." if stripes else ""
    names = ", ".join(f"{example.case} of {example.cohort}" for example in found)
    return Figure(
        key="examples",
        title="Example slices, with the outline of all lesions (the paper's Fig. 1)",
        draw=partial(draw, found),
        data=pd.DataFrame(
            [
                {
                    "cohort": example.cohort,
                    "case": example.case,
                    "channels": " ".join(example.channels),
                    "lesion_pixels": int(example.lesion.sum()),
                }
                for example in found
            ]
        ),
        caption="The case whose largest lesion area on a slice is the median of its cohort's, on "
        "that slice; anterior is up, the subject's left on the right. Grey levels: 1st to 99th "
        f"percentile inside the brain. {len(found)} of {len(cohorts)} cohorts.{also}",
        alt=f"Slices of {names}; the last picture of each row has its lesions outlined.",
    )


def choose(folder: Path, cohort: str) -> Example | None:
    """The (lower) median of a cohort's cases by lesion area on the slice; by name if equal."""
    file = folder / "cohorts" / cohort / "slices.parquet"
    if not file.exists():
        return None
    table = frame_as_shown(read_table(file).to_pandas())
    areas = [int(mask(bytes(row["reference"]), row).sum()) for _, row in table.iterrows()]
    order = sorted((area, case) for area, case in zip(areas, table["case"], strict=True) if area)
    if not order:
        return None
    _, case = order[(len(order) - 1) // 2]
    row = table[table["case"] == case].iloc[0]
    shape = int(row["height"]), int(row["width"])
    return Example(
        cohort=shown(cohort),
        case=case,
        channels=[shown(channel) for channel in row["channels"]],
        images=[np.frombuffer(image, np.uint8).reshape(shape) for image in row["images"]],
        lesion=mask(row["reference"], row),
        ignored=ignored(row),
        mm=(float(row["row_mm"]), float(row["column_mm"])),
    )


def draw(found: Sequence[Example]) -> Drawing:
    """A row per cohort: its channels, then the last of them with the lesions outlined."""
    columns = max(len(example.images) for example in found) + 1
    tallest = max(
        example.lesion.shape[0] * example.mm[0] / (example.lesion.shape[1] * example.mm[1])
        for example in found
    )
    panel = (style.WIDTH_IN - 0.4 - 0.04 * (columns - 1)) / columns
    drawing, axes = style.panels(
        len(found),
        columns,
        height=0.4 + len(found) * (panel * tallest + 0.24),
        top=0.24,
        bottom=0.16,
        left=0.3,
        right=0.1,
        gap_x=0.04,
        gap_y=0.24,
    )
    for row, example in enumerate(found):
        titles = [*example.channels, f"{example.channels[-1]}, lesions"]
        outlined = striped(example.images[-1], example.ignored)
        for column, axis in enumerate(axes[row]):
            axis.grid(False)
            axis.set_axis_off()
            if column >= len(titles):
                continue
            axis.imshow(
                [*example.images, outlined][column],
                cmap="gray",
                vmin=0,
                vmax=255,
                aspect=example.mm[0] / example.mm[1],
                interpolation="nearest",
            )
            axis.set_title(titles[column].replace("_", " "))
            if column == len(titles) - 1:
                for x, y in outline(example.lesion):
                    axis.plot(x, y, color=OUTLINE, linewidth=0.7, solid_capstyle="projecting")
        axes[row, 0].text(
            -0.03, 0.5, f"{example.cohort}: {example.case}", rotation=90, va="center", ha="right",
            transform=axes[row, 0].transAxes,
        )  # fmt: skip
    return drawing


def outline(lesion: np.ndarray) -> list[tuple[list[float], list[float]]]:
    """The pixel edges between lesion and anything else, as (x, y) segments.

    >>> len(outline(np.ones((1, 2), dtype=bool)))
    6
    """
    padded = np.pad(lesion, 1)
    segments = []
    for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1]):  # between columns x and x + 1
        segments.append(([x - 0.5, x - 0.5], [y - 1.5, y - 0.5]))
    for y, x in np.argwhere(padded[1:] != padded[:-1]):
        segments.append(([x - 1.5, x - 0.5], [y - 0.5, y - 0.5]))
    return [([float(a) for a in xs], [float(b) for b in ys]) for xs, ys in segments]
