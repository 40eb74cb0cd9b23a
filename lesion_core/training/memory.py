"""Whether freed memory stays with the process: big tensors are else paid for page by page, again.

glibc maps every block above 32 MB on its own, and unmaps it when it is freed; a network on a CPU
frees and asks for dozens of them per batch: page faults then take a third to half of the time.
"""

from __future__ import annotations

import ctypes
import sys

ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",  # a thread's own arena holds no block above 64 MB
    "MALLOC_MMAP_MAX_": "0",  # blocks mapped on their own; a threshold could not exceed 32 MB
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
"""The same for a process that is yet to start, whichever of its threads computes."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that its main thread frees from now on.

    Returns False where the C library cannot.

    Its memory then stays at the highest it ever was.  Results do not depend on it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))  # never trim
