"""Whether freed memory stays with the process: big tensors are else paid for page by page, again.

glibc gives every block above 32 MB back to the system when it is freed, and a network on a CPU
frees and asks for dozens of them per batch: page faults then take a third to half of the time.
"""

from __future__ import annotations

import ctypes
import sys

LARGEST_KEPT = 1 << 30
"""Blocks up to this size, in bytes, are kept."""

ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",  # a thread's own arena holds no block above 64 MB
    "MALLOC_MMAP_THRESHOLD_": str(LARGEST_KEPT),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
"""The same for a process that is yet to start, whichever of its threads computes."""


def keep_freed_memory() -> bool:
    """From now on in this process, for its main thread; False where the C library is not glibc.

    Its memory then stays at the highest it ever was.  Results do not depend on it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(mallopt(mmap_threshold, LARGEST_KEPT) and mallopt(trim_threshold, 2**31 - 1))
