"""``python -m lesion_core.prepare`` makes cohorts from downloads (`lesion_core.preparation`)."""

import sys

from lesion_core.preparation.prepare import main

if __name__ == "__main__":
    sys.exit(main(program="python -m lesion_core.prepare"))
