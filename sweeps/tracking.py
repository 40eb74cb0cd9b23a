"""``python sweeps/tracking.py`` is ``python -m sweeps.tracking``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

    from lesion_core import stopping

    stopping.hold()
    from sweeps import command
    from sweeps.tracking.__main__ import main

    command.process(main)
