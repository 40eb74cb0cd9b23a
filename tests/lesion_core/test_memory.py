"""Freed memory is used again instead of asked for again, in the main thread and in workers'."""

import os
import platform
import subprocess
import sys

import pytest

from lesion_core.training.memory import ENVIRONMENT

PAGES = 40 * 1024 * 1024 // 4096

COUNT = """
import resource, sys, threading
import torch
torch.set_num_threads(1)
def count():
    for _ in range(20):  # until its holes are large enough
        torch.ones(10 * 1024 * 1024)  # 40 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10 * 1024 * 1024)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
{run}
"""
IN_MAIN_THREAD = """
count()
from lesion_core.training.memory import keep_freed_memory
keep_freed_memory() or sys.exit('cannot')
count()
"""
IN_ANOTHER_THREAD = "thread = threading.Thread(target=count); thread.start(); thread.join()"


def faults(run: str, **environment: str) -> list[int]:
    """In ten tensors of PAGES, after twenty; a number for every count that is run."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(run=run)],
        env={k: v for k, v in os.environ.items() if k not in ENVIRONMENT} | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.stderr == "cannot\n":
        pytest.skip("this C library does not let itself be told")
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


GROWTH = """
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial, run
from tests.support.toy import toy_cohort
cohort = toy_cohort()
settings = TrainSettings(epochs=1, patch_size=16, batch_size=4, filters=(8, 16))
for seed in range(10):
    trial = Trial(
        cohort="toy", fingerprint=cohort.fingerprint, loss=LOSSES["new"], seed=seed, fold=0,
        num_folds=2, settings=settings,
    )
    run(trial, cohort, on_epoch=lambda report: None)
    with open("/proc/self/status") as status:
        print([line.split()[1] for line in status if line.startswith("VmRSS")][0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_trials_in_one_process_need_hardly_more_memory_than_two(pytestconfig):
    done = subprocess.run(
        [sys.executable, "-c", GROWTH],
        cwd=pytestconfig.rootpath,
        check=True,
        capture_output=True,
        text=True,
    )
    held_mb = [int(line) / 1024 for line in done.stdout.split()]
    assert len(held_mb) == 10
    assert held_mb[-1] < held_mb[1] + 20, held_mb


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_a_tensor_takes_the_memory_of_those_before_it():
    as_it_is, kept = faults(IN_MAIN_THREAD)
    assert as_it_is > 9 * PAGES and kept < PAGES
    assert faults(IN_ANOTHER_THREAD, **ENVIRONMENT)[0] < PAGES
