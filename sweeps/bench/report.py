"""How long the report takes on the paper's full grid, and how time grows with rows."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sweeps.bench.timing import Row
from sweeps.provenance import ROOT


def report(device: str) -> Iterator[Row]:
    """Ledgers of 2 cohorts x 7 losses x 5 seeds x 5 folds x 26 evaluated epochs, reported on.

    Of 6 cases per cohort and then of 60.  Nothing here runs on a GPU, whatever the device.
    """
    from tests.support.fake_sweep import FakeSweep

    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        for num_cases in (6, 60):
            ledger = Path(scratch) / str(num_cases)
            FakeSweep(cohorts=("wmh2017", "lit"), num_cases=num_cases, epochs=25).write(ledger)
            begun = time.monotonic()
            subprocess.run(
                [sys.executable, str(ROOT / "analysis" / "report.py"), str(ledger)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds[num_cases] = time.monotonic() - begun
            what = f"report of 350 trials, {num_cases} cases each"
            yield Row(what=what, value=seconds[num_cases])
        peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        yield Row(what="its memory, at most", value=peak_gb, unit="GB")
        yield Row(
            what="report of ten times the rows", value=seconds[60] / seconds[6], unit="times longer"
        )
