"""What can be asked of ``python -m lesion_core.prepare``; loads nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, get_args

from lesion_core.cohorts import ReadingInSpace, dataset_spellings
from lesion_core.cohorts.files import ORIGINAL_LESION
from lesion_core.flags import add_flags

DESCRIPTION = """From a public download to a prepared cohort.

    lit SRC DATA        the Ljubljana longitudinal archive -> DATA/lit
    wmh2017 SRC DATA    the WMH challenge's training folders -> DATA/wmh2017
    brains COHORT DATA  brain masks for a cohort of your own in DATA, beside its images

All sources are checked before anything is computed, and a cohort appears whole or not at all.
prepared.json beside the cases says what was done to each.
"""

Activity = Literal["all", "positive"]
"""Which changes the masks of a longitudinal cohort mark."""

Uncertain = Literal["sign", "keep", "drop"]
"""What becomes of lesions that hardly change."""

UNCERTAIN_SD = 0.25
"""A lesion whose mean difference is closer to 0 than this, in z-scores, is uncertain."""


def parser(program: str | None) -> argparse.ArgumentParser:
    """The command's flags; ``program`` is its name in the usage."""
    whole = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="command", required=True)
    lit = commands.add_parser("lit", help="the Ljubljana longitudinal MS archive -> DATA/lit")
    lit.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="the unpacked archive; or DATA itself, to sort out a prepared DATA/lit again",
    )
    wmh = commands.add_parser(
        "wmh2017", help="the WMH challenge's training folders -> DATA/wmh2017"
    )
    wmh.add_argument("source", type=Path, metavar="SRC", help="holds Utrecht, ..., or training")
    brains = commands.add_parser("brains", help="brain masks for a cohort of your own")
    brains.add_argument(
        "cohort", metavar="COHORT", help=f"{dataset_spellings()}, or a folder (--channels)"
    )
    for command in (lit, wmh, brains):
        command.add_argument("data", type=Path, metavar="DATA", help="holds the cohorts' folders")
        command.add_argument(
            "--overwrite", action="store_true", help="replace what this command made earlier"
        )
    for command in (lit, wmh):
        command.add_argument(
            "--derive-brain",
            action="store_true",
            help="replace brain masks that are larger than any brain",
        )
    lit.add_argument(
        "--exclude",
        nargs="+",
        default=(),
        metavar="PATIENT",
        help="leave out; the paper does so with three that have no new or enlarging lesion, which "
        "--activity positive finds by itself",
    )
    lit.add_argument(
        "--activity",
        choices=get_args(Activity),
        help="which changes the masks mark: all (default), as the archive has them; positive: new "
        "and enlarging lesions, which compare with the paper, patients without any left out. The "
        f"original mask stays beside it ({ORIGINAL_LESION}.nii.gz); the other choice goes back to "
        "it",
    )
    lit.add_argument(
        "--uncertain",
        choices=get_args(Uncertain),
        help=f"what becomes of lesions within {UNCERTAIN_SD} SD of no change: they follow their "
        "sign like all others (default), are kept, or are dropped; all are listed",
    )
    add_flags(brains, ReadingInSpace)
    return whole
