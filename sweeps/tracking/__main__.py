"""Commands that bring a ledger to Weights & Biases.

python -m sweeps.tracking sync RESULTS          send what W&B does not have yet
python -m sweeps.tracking backfill RESULTS      the same from the ledger alone
python -m sweeps.tracking dashboard RESULTS     a workspace: bands, folds, trade-off, best
"""

from __future__ import annotations

if __name__ == "__main__":
    from lesion_core import stopping

    stopping.hold()

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sweeps import command
from sweeps.tracking.policy import Logging


@dataclass(frozen=True, kw_only=True)
class Sync:
    """Send every finished trial that W&B does not have yet, and say which.

    Exit status: 0 W&B has them all; 1 it does not answer, or refuses; 2 wrong input.
    """

    results: tyro.conf.Positional[Path]
    """Folder that holds sweep.json."""
    wandb_base_url: str | None = None
    """Address of the W&B server, if neither WANDB_BASE_URL nor `wandb login --host` names it: a key
    goes to no server that a results folder alone names."""


@dataclass(frozen=True, kw_only=True)
class Backfill(Logging):
    """Make the runs of all finished trials from the ledger alone, also of a sweep that was never
    tracked.  What is there already is left alone.

    Exit status: 0 every run is there; 1 W&B does not answer, or refuses; 2 wrong input.
    """

    results: tyro.conf.Positional[Path]
    """Folder that holds sweep.json."""


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """Write a W&B workspace for a sweep, and with --entity put it there.

    Exit status: 0 done; 2 wrong input.
    """

    results: tyro.conf.Positional[Path]
    """Folder that holds sweep.json."""
    entity: str | None = None
    """W&B user or team to save the workspace for; needs wandb-workspaces and a key."""


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; returns the exit status."""
    commands: Any = (
        Annotated[Sync, tyro.conf.subcommand("sync")]
        | Annotated[Backfill, tyro.conf.subcommand("backfill")]
        | Annotated[Dashboard, tyro.conf.subcommand("dashboard")]
    )
    asked = command.read_flags(commands, arguments)
    if isinstance(asked, Dashboard):
        from sweeps.tracking import dashboard

        return dashboard.write(asked.results, asked.entity)
    from sweeps.tracking import upload

    if isinstance(asked, Sync):
        return upload.sync(asked.results, asked.wandb_base_url)
    return upload.backfill(asked.results, asked)


if __name__ == "__main__":
    command.process(main)
