"""How fast is it?  Measures on this machine, against peers, and prints a table.

python -m sweeps.bench [core|report|sweep|all] [--device cpu|cuda] [--only PART] [--json FILE]

Each part is a file, `core.py` and so on, whose function of the part's name yields rows.
Only a quiet machine gives numbers worth keeping: the load at the start is printed with the table.
"""

from __future__ import annotations

if __name__ == "__main__":
    from lesion_core import stopping

    stopping.hold()

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import tyro

from lesion_core import durable
from sweeps import command
from sweeps.bench.timing import Row, markdown
from sweeps.provenance import git_commit

PARTS = ("core", "sweep", "report")
"""What there is to measure: `NAME.NAME(device)` here yields a `Row` after each measurement."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure on this machine."""

    what: tyro.conf.Positional[Literal["core", "sweep", "report", "all"]] = "all"
    """What to measure."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network runs."""
    only: Literal["step", "image", "trial", "packing"] | None = None
    """Of core: only this part; each is meant to take four minutes at most on a large GPU."""
    json: Path | None = None
    """Also write the numbers to this file."""

    def __post_init__(self) -> None:
        if self.only is not None and self.what != "core":
            raise ValueError(f"--only {self.only}: is a part of core; expected: bench core --only")
        if self.json is not None and not self.json.parent.is_dir():
            raise ValueError(f"--json {self.json}: there is no folder {self.json.parent}")


def machine(device: str) -> dict[str, str]:
    """What the numbers depend on.

    Raises:
        ValueError: there is no such device here.
    """
    gpu = {}
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("--device cuda: no GPU is usable here; use --device cpu")
        gpu = {"gpu": torch.cuda.get_device_name()}
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {
        "date": time.strftime("%Y-%m-%d"),
        **gpu,
        "processor": f"{len(os.sched_getaffinity(0))} cores of {model}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "commit": git_commit() or "unknown",
    }


def main(arguments: Sequence[str]) -> int:
    """Measure and print; returns the exit status."""
    options = command.read_flags(Bench, arguments)
    here = machine(options.device)
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    rows: list[Row] = []
    try:
        for part in PARTS if options.what == "all" else (options.what,):
            measure = getattr(importlib.import_module(f"sweeps.bench.{part}"), part)
            only = {} if options.only is None else {"only": options.only}
            for row in measure(options.device, **only):
                print(f"{part}: {row.in_words}", flush=True)
                rows.append(row)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    finally:  # what was measured before a rival failed, or Ctrl-C
        print(f"\n{markdown(rows)}")
        if options.json is not None:
            numbers = [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows]
            text = json.dumps({"machine": here, "rows": numbers}, indent=1)
            durable.write_bytes(options.json, (text + "\n").encode())
            print(f"\nwritten to {options.json}")
    return 0


if __name__ == "__main__":
    command.process(main)
