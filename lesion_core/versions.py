"""Which versions of Python and of libraries are installed: equal ones are needed for equal bits."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def installed_versions(*libraries: str) -> dict[str, str]:
    """Version by name, Python's first; "not installed" of a library that is not there."""
    found = {"python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
