"""The paper's Figure 1 of your data: ``python analysis/examples.py FOLDER OUT.png``.

FOLDER is what ``python -m lesion_core.cohorts check DATA --out FOLDER`` wrote, or a results folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

USAGE = "usage: python analysis/examples.py FOLDER OUT.png"


def main(arguments: Sequence[str]) -> int:
    """Write Figure 1 as a PNG; exit status 0, or 2 and a line."""
    if {"-h", "--help"} & set(arguments):
        print(f"{USAGE}\n\n{__doc__}")
        return 0
    if len(arguments) != 2 or not arguments[1].endswith(".png"):
        print(USAGE, file=sys.stderr)
        return 2
    from analysis.page import style  # seconds to load
    from analysis.sections.examples import figure
    from lesion_core.results import write_bytes

    folder = Path(arguments[0])
    cohorts = sorted(path.name for path in folder.glob("cohorts/*"))
    found = figure(folder, cohorts)
    if found is None:
        print(f"error: {folder}: no cohorts/*/slices.parquet with a lesion", file=sys.stderr)
        return 2
    write_bytes(Path(arguments[1]), style.png_bytes(found.draw()))
    print(f"written: {arguments[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
