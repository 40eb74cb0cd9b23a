"""How much memory does reading a case take, and how much is there?

A container or a job of a batch system may use less than its machine has: its control group says
so (https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1 of it).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lesion_core.cohorts import Case
from lesion_core.nifti import read_header
from lesion_core.resampling import Grid

ROOT = Path("/")
MOST_AT_A_TIME = 8
"""Cases that are read side by side."""


def cases_at_a_time(cases: Sequence[Case], cpus: int, root: Path = ROOT) -> int:
    """How many cases may be read side by side: one at least, and no more than there is memory for.

    Raises:
        ValueError: the arrays of a single file are more than all of this machine's memory, or of
            what this process may use of it.
    """
    free, most = memory_bytes(root)
    needed = 0
    for case in cases:
        stored, voxels = voxels_of(case)
        if stored * (8 + 4) > most:
            raise ValueError(
                f"{next(iter(case.channels.values()))}: {stored} voxels take "
                f"{stored * 12 / 1e9:.1f} GB to read; this process may use {most / 1e9:.1f} GB; "
                "use a machine with more memory, or store the case with larger voxels"
            )
        needed = max(needed, reading_bytes(case, stored, voxels))
    return max(1, min(MOST_AT_A_TIME, cpus, len(cases), free // max(1, needed)))


def memory_bytes(root: Path = ROOT) -> tuple[int, int]:
    """Bytes that this process may still take, and that it could take if it were alone.

    Without a bound where the system says nothing of it (other systems than Linux).
    """
    free = most = sys.maxsize
    with suppress(OSError, ValueError, KeyError):
        said = _numbers(root / "proc/meminfo", ":")
        free, most = said["MemAvailable"] * 1024, said["MemTotal"] * 1024
    for folder in _groups(root):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError):  # "max": no limit
                bound = int((folder / limit).read_text())
                held = int((folder / used).read_text())
                with suppress(OSError, ValueError):
                    held -= _numbers(folder / "memory.stat").get(cached, 0)
                free, most = min(free, max(0, bound - held)), min(most, bound)
    return free, most


def voxels_of(case: Case) -> tuple[int, int]:
    """Voxels of an image as stored and as used, by its header alone; 0 where it cannot be read."""
    try:
        header = read_header(next(iter(case.channels.values())))
        return math.prod(header.shape), math.prod(Grid.of(header, case.spacing_mm).shape)
    except ValueError:
        return 0, 0


def reading_bytes(case: Case, stored: int, voxels: int) -> int:
    """Bytes that reading a case takes at most, as if its brain filled the image (`voxels_of`)."""
    # The file, one channel, the box's channels, masks, int32 labels and a boolean or two.
    return stored * (8 + 4) + voxels * (4 * len(case.channels) + 12)


def _groups(root: Path) -> list[Path]:
    """Folders of the control groups that this process is in, from its own to the outermost."""
    found: list[Path] = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                top = root / "sys/fs/cgroup" / controllers
                own = top / path.lstrip("/")
                found += [own, *(each for each in own.parents if each.is_relative_to(top))]
    return found


def _numbers(file: Path, end: str = "") -> dict[str, int]:
    """The first number of each line, by the word before it."""
    words = (line.split() for line in file.read_text().splitlines())
    return {each[0].removesuffix(end): int(each[1]) for each in words if len(each) > 1}
