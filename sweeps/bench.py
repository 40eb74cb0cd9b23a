"""How fast it is.

python sweeps/bench.py report [--json FILE]

report   a ledger of 2 cohorts x 7 losses x 5 seeds x 5 folds x 26 evaluated epochs x 60 cases is
         generated and reported on; then one of a tenth of the rows.  Wall time, memory, and how
         time grows with rows.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from sweeps import command
from sweeps.options import ROOT


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure on this machine."""

    what: tyro.conf.Positional[Literal["report"]]
    """What to measure."""
    json: Path | None = None
    """Also write the numbers to this file."""


def report() -> dict[str, float]:
    """Seconds and peak memory of the report of a full grid, and of one with a tenth of its rows."""
    from tests.fake_sweep import FakeSweep

    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, num_cases in (("tenth", 6), ("full", 60)):
            ledger = Path(scratch) / name
            FakeSweep(cohorts=("wmh2017", "lit"), num_cases=num_cases, epochs=25).write(ledger)
            begun = time.monotonic()
            subprocess.run(
                [sys.executable, str(ROOT / "analysis" / "report.py"), str(ledger)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            numbers[f"{name}_seconds"] = time.monotonic() - begun
            numbers[f"{name}_peak_gb"] = (  # of the larger of the children so far
                resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
            )
    numbers["times_longer_for_ten_times_the_rows"] = (
        numbers["full_seconds"] / numbers["tenth_seconds"]
    )
    return numbers


BENCHES = {"report": report}


def main(arguments: Sequence[str]) -> int:
    options = command.read_flags(Bench, arguments)
    numbers = BENCHES[options.what]()
    for name, number in numbers.items():
        print(f"{name:40} {number:8.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
        print(f"written to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
