"""What can be asked of the report's command; loads nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

ROPE = 0.01
"""Region of practical equivalence, DSC: differences below this count as none; about the median
improvement that MICCAI papers claim."""

TRAINING_EFFECT = 0.010
"""Standard deviation over training sets of a difference in DSC, where nobody has measured it.

As large as the differences that papers report, and half of what one training's luck moves a
comparison in sweeps like the paper's on WMH.  A cross-validation cannot tell it (`ladder`)."""

FORMATS = ("svg", "pdf", "png")
"""Files that are written of each figure."""

PROFILES = {
    "methods": (),
    "challenge": ("coverage", "ranks", "lesions", "policies"),
}
"""Which sections come first: for a paper about losses, or for somebody who ranks entries."""


def parser(program: str | None) -> argparse.ArgumentParser:
    """The command's flags; ``program`` is its name in the usage."""
    whole = argparse.ArgumentParser(
        prog=program, description="A results folder as one honest page."
    )
    whole.add_argument(
        "results",
        type=Path,
        help="results folder (holds sweep.json), a tidy CSV, or a folder of the authors' CSVs",
    )
    whole.add_argument("--out", type=Path, help="where to write (default: RESULTS/report)")
    whole.add_argument(
        "--reference", metavar="LOSS", help="loss that the others are compared with (default: xent)"
    )
    whole.add_argument(
        "--rope",
        type=float,
        default=ROPE,
        help="differences in DSC up to this size count as none (default: 0.01)",
    )
    whole.add_argument(
        "--training-effect",
        metavar="NUMBER|FILE",
        help="standard deviation of a difference in DSC over training sets, or what `lesion-sweep "
        "training-effect` measured (default: training-effect.json in RESULTS, else "
        f"{TRAINING_EFFECT:g})",
    )
    whole.add_argument(
        "--profile",
        choices=list(PROFILES),
        default="methods",
        help="order of the sections (challenge: ranking and lesions first)",
    )
    whole.add_argument(
        "--paper-colours", action="store_true", help="overlays in the paper's green, red and blue"
    )
    whole.add_argument(
        "--formats",
        nargs="*",
        choices=FORMATS,
        default=FORMATS,
        help="files of each figure (default: all)",
    )
    return whole
