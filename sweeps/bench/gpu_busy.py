"""How much of the time a GPU is busy, as its driver counts it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_MS = 200


@contextmanager
def watched(gpu: str) -> Iterator[list[int]]:
    """Percent of the time in which a kernel ran on this GPU, five values a second.

    ``gpu`` is what nvidia-smi calls it: its number or ``GPU-`` and its UUID.  The list is filled at
    the end of the block, and stays empty where the driver does not say, as on a part of a GPU.

    Raises:
        RuntimeError: nvidia-smi cannot be run.
    """
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(
            ["nvidia-smi", f"--id={gpu}", *query, f"--loop-ms={EVERY_MS}"],
            stdout=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise RuntimeError(f"nvidia-smi, which says how busy the GPU is: {error}") from None
    found: list[int] = []
    try:
        yield found
    finally:
        process.terminate()
        lines = process.communicate()[0].split("\n")
        found += [int(line) for line in lines if line.strip().isdecimal()]
