"""The model card: what the networks were trained on, how they did on cases they never saw, limits.

Scores are the report's own, handed in (`analysis/model_scores.py`); nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from lesion_core.arms import complete, worded

METRICS = {"dice": "DSC", "sensitivity": "sensitivity", "precision": "precision"}

UNSTATED = "**NOT STATED.** Ask whoever exported this before you use or share it."


class MeanScore(TypedDict):
    """A mean over patients, None where it is undefined or the design cannot tell."""

    mean: float | None
    low: float | None
    high: float | None
    holds_for: str
    """What the interval is for; empty: there is none."""
    cells: int
    patients: int


class Scores(TypedDict):
    """What `analysis/model_scores.py` says of a loss."""

    formula: str
    level: float
    metrics: dict[str, MeanScore]
    trainings: list[dict[str, Any]]
    """``seed``, ``fold``, and of each metric its mean over the fold's patients."""


@dataclass(frozen=True, kw_only=True)
class CardInput:
    """Everything that a model card says."""

    about: Mapping[str, Any]
    """`described.description`."""
    scores: Scores
    patients: int
    cases: int
    sites: int
    fingerprint: str
    """Of the cohort's files."""
    data_licence: str
    """Empty: not stated."""
    authors: str
    command: str
    """By which the networks were trained; empty: not recorded."""
    git_commit: str
    export_command: str
    how_to_run: str
    """Markdown, of the format."""
    checked: str
    """How the file was compared with the networks, in a sentence."""
    names: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Test cases by fold; empty: nobody is named."""


def model_card(given: CardInput) -> str:
    """The card as Markdown."""
    about = given.about
    networks = about["networks"]
    number = len(networks)
    what = f"{number} networks, averaged" if number > 1 else "one network"
    parts = [
        f"# Model card: brain lesions, {_text(about['cohort'])}, loss {_text(about['loss'])}",
        f"Segments lesions in brain MRI ({', '.join(map(_text, about['channels']))}): {what}. "
        f"Chosen: {_text(about['chosen'])}.",
        "## Use and limits",
        _use(given),
        "## How to run",
        given.how_to_run,
        "What has to happen to the images, in this order:",
        "\n".join(f"{place}. {step}" for place, step in enumerate(about["steps"], 1)),
        _input_table(about),
        "## Data",
        _data(given),
        "## Training",
        _training(given),
        "## Scores",
        _scores(given),
        "## Where it comes from",
        _origin(given),
    ]
    return "\n\n".join(parts) + "\n"


def _use(given: CardInput) -> str:
    about = given.about
    return "\n".join(
        [
            "- For research. Not a medical device: no mask may decide about a patient.",
            f"- Trained on cohort {_text(about['cohort'])} alone. Other scanners, sequences, "
            "diseases and ages were not tried; scores there may be far lower.",
            "- Needs a brain mask, and images of one case on one grid. An error in the brain mask "
            "moves all intensities, and so all predictions.",
            "- Small lesions are missed more often than large ones: DSC says little of them.",
            "- The probability is not calibrated by itself; the sweep's report says how far off it "
            "is.",
            *(
                [f"- Networks that were asked for and are not in here: {len(about['absent'])}."]
                if about["absent"]
                else []
            ),
        ]
    )


def _input_table(about: Mapping[str, Any]) -> str:
    smallest, largest = about["spacing_mm"]["smallest"], about["spacing_mm"]["largest"]
    if smallest is None:
        spacing = "not recorded"
    elif smallest == largest:
        spacing = " x ".join(f"{side:g}" for side in smallest)
    else:
        spacing = " x ".join(
            f"{a:g}" if a == b else f"{a:g}-{b:g}" for a, b in zip(smallest, largest, strict=True)
        )
    rows = {
        "channels, in order": ", ".join(map(_text, about["channels"])),
        "window": " x ".join(map(str, about["input"][2:])) + f" voxels, every {about['stride']}",
        "orientation of the axes": about["orientation"] or "not recorded",
        "voxel size, mm": spacing,
        "normalisation": about["normalisation"],
        "output": about["output"],
        "threshold": f"{about['threshold']:g}",
        "smallest lesion": f"{about['min_lesion_mm3']:g} mm3" if about["min_lesion_mm3"] else "any",
        "precision": about["precision"],
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _data(given: CardInput) -> str:
    rows = [
        f"- cohort {_text(given.about['cohort'])}: {_number(given.cases, 'case')} of "
        f"{_number(given.patients, 'patient')}, {_number(given.sites, 'site')}",
        f"- fingerprint of its files (SHA-256): `{given.fingerprint}`",
        f"- licence of the data: {_text(given.data_licence) or UNSTATED}",
    ]
    for fold, cases in given.names.items():
        rows.append(f"- test cases of fold {fold}: {', '.join(map(_text, cases))}")
    return "\n".join(rows)


def _training(given: CardInput) -> str:
    about = given.about
    seeds = list(dict.fromkeys(network["seed"] for network in about["networks"]))
    folds = sorted({network["fold"] for network in about["networks"]})
    all_settings = complete(about["settings"])
    settings = ", ".join(f"{name} {worded(value)}" for name, value in all_settings.items())
    fields = (about["loss_params"].get("fields") or {}).items()
    numbers = ", ".join(f"{name} {value}" for name, value in fields)
    return "\n".join(
        [
            f"- loss {_text(about['loss'])}: {_text(given.scores['formula'])}"
            + (f" ({_text(numbers)})" if numbers else ""),
            f"- seeds {' '.join(map(str, seeds))}; folds {' '.join(map(str, folds))}; each network "
            "was trained on all folds but its own; weights of the last epoch",
            f"- settings: {_text(settings)}",
        ]
    )


def _scores(given: CardInput) -> str:
    scores, networks = given.scores, given.about["networks"]
    rows = ["| test images, last epoch | mean | interval | holds for |", "|---|---|---|---|"]
    for metric, name in METRICS.items():
        own = scores["metrics"][metric]
        interval = "–" if own["low"] is None else f"{_rate(own['low'])} to {_rate(own['high'])}"
        rows.append(
            f"| {name} | {_rate(own['mean'])} | {interval} | "
            f"{own['holds_for'] or 'nothing: the design cannot tell'} |"
        )
    dice = scores["metrics"]["dice"]
    members = [
        "| seed | fold | patients | DSC | sensitivity | precision |",
        "|---|---|---|---|---|---|",
    ]
    known = {(row["seed"], row["fold"]): row for row in scores["trainings"]}
    for network in networks:
        row = known.get((network["seed"], network["fold"]))
        if row is None:
            continue
        values = " | ".join(_rate(row[metric]) for metric in METRICS)
        members.append(f"| {row['seed']} | {row['fold']} | {row['dice_patients']} | {values} |")
    if len(networks) > 1:
        honest = (
            f"**Of the {len(networks)} networks together there is no test score here.** Each "
            "was tested on the patients of its own fold, which the networks of other folds were "
            "trained on; so "
            + (
                "the sweep has no patient that all of them had never seen. "
                if len({network["fold"] for network in networks}) > 1
                else "only their common fold's patients could give one, which is not in here. "
            )
            + "The scores above are of single networks; how well their average does is not known "
            "from here. Test it on patients of your own."
        )
    else:
        honest = "The network was tested on the patients of its own fold, which it had never seen."
    return "\n\n".join(
        [
            f"All trainings with this loss, each on the patients that it never saw: means over "
            f"{_number(dice['cells'], 'training')} and {_number(dice['patients'], 'patient')}, "
            f"with {scores['level']:.0%} intervals, as the sweep's report computes them. A voxel "
            "counts there as lesion from a probability of 0.5 on, and no lesion as too small.",
            "\n".join(rows),
            "The networks in here, each on the patients of its own fold:",
            "\n".join(members),
            honest,
            "If this loss or network was chosen because it scored best here, its scores are "
            "somewhat too good for what it will do.",
        ]
    )


def _origin(given: CardInput) -> str:
    about = given.about
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    files = ["| trial | SHA-256 of its weights |", "|---|---|"]
    files += [f"| {_text(one['trial'])} | `{one['sha256']}` |" for one in about["networks"]]
    rows = [
        f"- authors: {_text(given.authors) or 'not stated'}",
        f"- trained by: `{given.command or 'not recorded'}`",
        f"- commit of the code: `{given.git_commit or 'not recorded'}`",
        f"- exported by: `{given.export_command}`",
        f"- versions: {_text(versions)}",
        f"- {given.checked}",
    ]
    return "\n".join(rows) + "\n\n" + "\n".join(files)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _text(text: str) -> str:
    """A text of somebody else's as Markdown that is nothing but text, in one line."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in plain)
