"""Where results come from: this code, its commit, the command, the versions of the libraries."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from lesion_core.versions import installed_versions

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds our packages: a clone of the repository, or site-packages."""

LIBRARIES = ("torch", "ray", "numpy", "scipy", "monai", "nibabel", "pandas")
"""What computes and what schedules."""


def command_line() -> str:
    """This process's command as it was typed, for messages and sweep.json."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def git_commit() -> str | None:
    """Commit of this code, marked if files differ from it; None outside a checkout."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-changed" if changes else commit


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, of what computes and schedules (`LIBRARIES`), and of ``more``."""
    return installed_versions(*LIBRARIES, *more)
