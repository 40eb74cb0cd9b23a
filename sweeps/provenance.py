"""Where results come from: this code, its commit, the command, the versions of the libraries."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from lesion_core.versions import installed_versions

ROOT = Path(__file__).resolve().parents[1]
"""The folder of our packages: the repository, or site-packages."""

INSTALLED = bool({"site-packages", "dist-packages"} & set(ROOT.parts))
"""Whether this is what pip made of the repository, and not the repository itself."""

LIBRARIES = ("torch", "ray", "numpy", "scipy", "monai", "nibabel", "pandas")
"""What computes and what schedules."""


def command_line() -> str:
    """This process's command as it was typed, for messages and sweep.json."""
    return " ".join([Path(sys.argv[0]).name, shlex.join(sys.argv[1:])]).rstrip()


def command_to_show(script: str, subcommand: str) -> str:
    """How people reach a command of ours: a clone has scripts, an installation `sweeps.cli`."""
    return f"lesion-sweep {subcommand}" if INSTALLED else script


def git_commit() -> str | None:
    """Commit of this code, marked if files differ from it; None outside a checkout."""
    if INSTALLED:
        return None  # and what git says there is about the project that the environment lies in
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
