"""Freed memory is used again instead of asked for again, in the main thread and in workers'."""

import os
import platform
import subprocess
import sys

import pytest

from lesion_core.memory import ENVIRONMENT

PAGES = 40 * 1024 * 1024 // 4096

COUNT = """
import resource, sys, threading
{before}
def count():
    import torch
    torch.set_num_threads(1)
    for _ in range(20):  # until its holes are large enough
        torch.ones(10 * 1024 * 1024)  # 40 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10 * 1024 * 1024)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
{run}
"""
KEEP = "from lesion_core.memory import keep_freed_memory; assert keep_freed_memory()"
IN_MAIN_THREAD = "count()"
IN_ANOTHER_THREAD = "thread = threading.Thread(target=count); thread.start(); thread.join()"


def faults(before: str, run: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(before=before, run=run)],
        env={k: v for k, v in os.environ.items() if k not in ENVIRONMENT} | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_a_tensor_takes_the_memory_of_those_before_it():
    assert faults("", IN_MAIN_THREAD) > 9 * PAGES
    assert faults(KEEP, IN_MAIN_THREAD) < PAGES
    assert faults("", IN_ANOTHER_THREAD, **ENVIRONMENT) < PAGES
