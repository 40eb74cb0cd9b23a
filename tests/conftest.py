"""What every test can rely on: a cache of this run's own, one thread per process, a fair order, and
a disk that nobody waits for."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # arrays are tiny; read when torch is first loaded

import pytest

from lesion_core import cache

for number in (signal.SIGINT, signal.SIGHUP):
    if (
        signal.getsignal(number) is signal.SIG_IGN
    ):  # as in a shell's background job: tests send them
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

LONGEST = (
    "tests/sweeps/test_launch.py",
    "tests/sweeps/test_alpha_gamma.py",
    "tests/sweeps/test_paper_grid.py",
    "tests/sweeps/test_upload.py",
    "tests/sweeps/test_tracking_online.py",
    "tests/test_docs.py",
    "tests/analysis/test_report_odd.py",
    "tests/sweeps/test_bench.py",
    "tests/analysis/test_report.py",
    "tests/test_golden.py",
    "tests/lesion_core/test_simulate.py",
)
"""Begun first by `make test`, whose processes take file after file: none is left alone at the end
with a long one."""


def pytest_collection_modifyitems(items):
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = {file: number for number, file in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


@pytest.fixture(autouse=True, scope="session")
def cache_of_this_run(tmp_path_factory):
    before = os.environ.get(cache.VARIABLE)
    os.environ[cache.VARIABLE] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ[cache.VARIABLE]
    else:
        os.environ[cache.VARIABLE] = before


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """No power is lost here, and thousands of files take minutes to sync.

    That code syncs what it must is what tests/sweeps/test_disk_faults.py looks at, call by call.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
