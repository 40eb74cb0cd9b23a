"""What do the segmentations look like: true and false voxels of cases chosen by rule."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from PIL import Image

from analysis.page import style
from analysis.page.items import (
    LOSS,
    Figure,
    Heading,
    Note,
    Picture,
    Pictures,
    Section,
    prose,
    written,
)
from analysis.reading.pictures import ignored, mask, striped
from analysis.reading.scores import CohortScores, trial_rows
from analysis.sections.report_input import ReportInput
from analysis.statistics.typical_cases import typical_cases
from lesion_core.results import Sweep

PAPER_FIGURES = {"lit": "Fig. 6", "wmh2017": "Fig. 7"}
MOST_LOSSES = 10


@dataclass(frozen=True, eq=False)
class Example:
    """One case with its picture, its reference, and one prediction per loss."""

    rule: str
    case: str
    seed: int
    mean_dice: float
    channels: list[str]
    images: list[np.ndarray]
    reference: np.ndarray
    ignored: np.ndarray
    mm: tuple[float, float]
    """Height and width of a pixel."""
    predictions: dict[int, np.ndarray]
    """Loss index -> mask; a loss without a complete trial is absent."""
    dice: dict[int, float]
    """DSC of the whole image."""


def section(given: ReportInput) -> Section | None:
    """The best, the median and the worst case of every cohort."""
    if not (given.cohorts and given.is_ledger):
        return None
    colours = style.PAPER_OVERLAY if given.paper_colours else style.OVERLAY
    items: list[Pictures | Note | Heading] = []
    rows = trial_rows(given.sweep, "slices.parquet")
    for cohort in given.cohorts:
        if len(given.cohorts) > 1:
            items.append(Heading(text=cohort.title))
        found = examples(given.sweep, cohort, rows)
        if not found:
            items.append(
                Note(
                    body=prose(
                        f"No pictures for {cohort.title}: the results folder has no "
                        f"`cohorts/{cohort.name}/slices.parquet`, or no complete trial "
                        "with a lesion to "
                        "show."
                    ),
                    kind="warning",
                )
            )
            continue
        items.append(_pictures(cohort, found, colours))
    names = {"tp": "true positive", "fp": "false positive", "fn": "false negative"}
    words = {key: _colour_word(value) for key, value in colours.items()}
    legend = ", ".join(f"{names[key]} {words[key]}" for key in ("tp", "fp", "fn"))
    return Section(
        key="overlays",
        title="What do the segmentations look like?",
        items=items,
        lead=f"Colours: {legend}. Cases are chosen by rule, not by eye: the best, the median and "
        "the worst by DSC averaged over losses and seeds at the last epoch, each at its "
        "median seed.",
    )


# ---------------------------------------------------------------------------------------- choosing


def examples(sweep: Sweep, cohort: CohortScores, predicted: pd.DataFrame) -> list[Example]:
    """The chosen cases of a cohort with all that a picture of them needs."""
    shown = sweep.cohort_table(cohort.name, "slices.parquet").drop_duplicates("case")
    slices = {row["case"]: row for _, row in shown.iterrows()}
    references = {case: mask(row["reference"], row) for case, row in slices.items()}
    eligible = np.array(
        [case in references and bool(references[case].any()) for case in cohort.cases], bool
    )
    dice = cohort.last_by_case(cohort.test)[..., 0]
    own = predicted[(predicted["cohort"] == cohort.name).to_numpy()]
    found = []
    for rule, case, seed in typical_cases(dice, eligible):
        name = cohort.cases[case]
        row = slices[name]
        masks, scores = {}, {}
        here = own[
            (
                (own["case"] == name)
                & (own["seed"] == cohort.seeds[seed])
                & (own["fold"] == cohort.folds[cohort.fold_of[case]])
            ).to_numpy()
        ]
        for loss, packed in zip(here[LOSS], here["prediction"], strict=True):
            index = cohort.losses.index(loss)
            masks[index] = mask(packed, row)
            scores[index] = float(dice[index, seed, case])
        found.append(
            Example(
                rule=rule,
                case=name,
                seed=cohort.seeds[seed],
                channels=list(row["channels"]),
                mean_dice=float(np.nanmean(dice[:, :, case])),
                images=[
                    np.frombuffer(image, np.uint8).reshape(row["height"], row["width"])
                    for image in row["images"]
                ],
                reference=references[name],
                ignored=ignored(row),
                mm=(float(row["row_mm"]), float(row["column_mm"])),
                predictions=masks,
                dice=scores,
            )
        )
    return found


# ---------------------------------------------------------------------------------------- drawing
def overlay(
    image: np.ndarray, reference: np.ndarray, prediction: np.ndarray, colours: Mapping[str, str]
) -> np.ndarray:
    """RGB [height, width, 3]: the image in grey with true positives, false positives and false
    negatives painted over it."""
    picture = np.repeat(image[..., None], 3, -1)
    for key, voxels in (
        ("tp", reference & prediction),
        ("fp", ~reference & prediction),
        ("fn", reference & ~prediction),
    ):
        value = colours[key].lstrip("#")
        picture[voxels] = [int(value[i : i + 2], 16) for i in (0, 2, 4)]
    return picture


def png(picture: np.ndarray, *, at_least: int = 240) -> bytes:
    """An image as PNG, enlarged by a whole factor so that voxels stay crisp."""
    factor = max(1, -(-at_least // max(picture.shape[:2])))
    picture = picture.repeat(factor, 0).repeat(factor, 1)
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="PNG", optimize=True)
    return sink.getvalue()


def _pictures(cohort: CohortScores, found: list[Example], colours: Mapping[str, str]) -> Pictures:
    losses = cohort.shown[:MOST_LOSSES]
    paper = PAPER_FIGURES.get(cohort.name)
    rows = []
    for example in found:
        height, width = example.reference.shape
        size = {"width_mm": width * example.mm[1], "height_mm": height * example.mm[0]}
        pictures = [
            Picture(label=channel, png=png(image), alt=f"{example.case}, {channel}", **size)
            for channel, image in zip(example.channels, example.images, strict=True)
        ]
        base = _base(example)
        for loss in losses:
            name = cohort.losses[loss]
            if loss not in example.predictions:
                pictures.append(
                    Picture(
                        label=name,
                        png=png(base // 4),
                        alt=f"{name}: no trial",
                        under="no complete trial",
                        loss=loss,
                        **size,
                    )
                )
                continue
            prediction = example.predictions[loss]
            painted = overlay(base, example.reference, prediction, colours)
            counts = _counts(example.reference, prediction)
            pictures.append(
                Picture(
                    label=name,
                    png=png(painted),
                    loss=loss,
                    under=f"DSC {written(example.dice[loss])}",
                    alt=f"{example.case}, {name}: on this slice {counts['tp']} true positive, "
                    f"{counts['fp']} false positive, {counts['fn']} false negative voxels; DSC of "
                    f"the whole image {written(example.dice[loss])}",
                    **size,
                )
            )
        label = (
            f"**{example.rule.capitalize()} case: {example.case}**, mean DSC "
            f"{written(example.mean_dice)}, seed {example.seed}"
        )
        rows.append((label, pictures))
    shown = (
        f"{len(losses)} of {len(cohort.shown)} losses"
        if len(cohort.shown) > len(losses)
        else f"{len(losses)} losses"
    )
    stripes = any(example.ignored.any() for example in found)
    also = " Grey stripes: ignored voxels, which are in no score." if stripes else ""
    title = f"True and false voxels, {cohort.title}" + (f" (the paper's {paper})" if paper else "")
    return Pictures(
        rows=rows,
        figure=Figure(
            key=f"overlays-{cohort.name}",
            title=title,
            draw=partial(draw, cohort.losses, losses, found, dict(colours)),
            data=_frame(cohort, found),
            caption="The slice with the largest lesion area, at the last epoch, threshold "
            "0.5. DSC is "
            f"of the whole image. {len(found)} of {cohort.num_cases} cases, {shown}; "
            f"{cohort.presence}.{also}",
            alt=f"Overlays of {', '.join(example.case for example in found)}.",
        ),
    )


def draw(
    names: list[str], losses: list[int], found: list[Example], colours: dict[str, str]
) -> Drawing:
    """The same pictures as one figure: a row per case."""
    columns = max(len(example.images) for example in found) + len(losses)
    tallest = max(e.reference.shape[0] * e.mm[0] / (e.reference.shape[1] * e.mm[1]) for e in found)
    panel = (style.WIDTH_IN - 0.4 - 0.04 * (columns - 1)) / columns
    height = 0.4 + len(found) * (panel * tallest + 0.06)
    figure, axes = style.panels(
        len(found),
        columns,
        height=height,
        top=0.24,
        bottom=0.16,
        left=0.3,
        right=0.1,
        gap_x=0.04,
        gap_y=0.06,
    )
    for row, example in enumerate(found):
        shape = example.mm[0] / example.mm[1]
        base = _base(example)
        titles = [*example.channels, *(names[loss] for loss in losses)]
        pictures = [np.repeat(image[..., None], 3, -1) for image in example.images]
        pictures += [
            overlay(base, example.reference, example.predictions[loss], colours)
            if loss in example.predictions
            else None
            for loss in losses
        ]
        for column in range(columns):
            axis = axes[row, column]
            axis.grid(False)
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if row == 0 and column < len(titles):
                axis.set_title(titles[column], fontsize=6, fontweight="normal")
            picture = pictures[column] if column < len(pictures) else None
            if picture is None:
                axis.text(
                    0.5,
                    0.5,
                    "no trial",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=style.MUTED,
                    transform=axis.transAxes,
                )
            else:
                axis.imshow(picture, interpolation="nearest", aspect=shape)
        axes[row, 0].set_ylabel(f"{example.rule}\n{example.case}", fontsize=6)
    return figure


def _base(example: Example) -> np.ndarray:
    """The channel that shows the lesions, FLAIR or the follow-up, striped where it is ignored."""
    return striped(example.images[-1], example.ignored)


def _frame(cohort: CohortScores, found: list[Example]) -> pd.DataFrame:
    rows = []
    for example in found:
        for loss, prediction in sorted(example.predictions.items()):
            rows.append(
                {
                    "cohort": cohort.name,
                    "rule": example.rule,
                    "case": example.case,
                    "seed": example.seed,
                    LOSS: cohort.losses[loss],
                    "dice_image": example.dice[loss],
                    **{
                        f"slice_{key}": value
                        for key, value in _counts(example.reference, prediction).items()
                    },
                }
            )
    return pd.DataFrame(rows)


def _counts(reference: np.ndarray, prediction: np.ndarray) -> dict[str, int]:
    return {
        "tp": int((reference & prediction).sum()),
        "fp": int((~reference & prediction).sum()),
        "fn": int((reference & ~prediction).sum()),
    }


def _colour_word(value: str) -> str:
    return {
        "#56b4e9": "sky blue",
        "#d55e00": "vermilion",
        "#f0e442": "yellow",
        "#00c800": "green",
        "#ff0000": "red",
        "#0000ff": "blue",
    }[value]
