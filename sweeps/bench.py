"""``python sweeps/bench.py`` is ``python -m sweeps.bench``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

    from lesion_core import stopping

    stopping.hold()
    from sweeps import command
    from sweeps.bench.__main__ import main

    command.process(main)
