"""No test reads or fills the user's own cache."""

import os

import pytest

from lesion_core import cache


@pytest.fixture(autouse=True, scope="session")
def cache_of_this_run(tmp_path_factory):
    before = os.environ.get(cache.VARIABLE)
    os.environ[cache.VARIABLE] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ[cache.VARIABLE]
    else:
        os.environ[cache.VARIABLE] = before
