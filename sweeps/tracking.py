"""What Weights & Biases hears of a trial.  The ledger stays the only truth; this is a window on it.

A run is opened in the trial's own process, under the trial's hash, so every attempt lands in the
same run.  Offline runs are written to a folder of the worker and, once the trial ends, travel to
``RESULTS/wandb`` like everything else, so a cluster needs no shared disk; a trial that was
interrupted writes its earlier epochs again, so there is one complete folder per trial.
Whatever W&B does, the trial goes on: trouble is one line in its log.
"""

from __future__ import annotations

import netrc
import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

Mode = Literal["auto", "online", "offline", "disabled"]
PROJECT = "lesion-seed-sweep"
SECONDS_TO_CONNECT = 30
SECONDS_TO_UPLOAD = 60


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How trials are tracked; decided once, by the driver."""

    mode: Literal["online", "offline", "disabled"]
    group: str
    """Name of the sweep."""
    tags: tuple[str, ...] = ()
    key: str | None = None
    """The driver's key, for workers that have none."""

    @staticmethod
    def decide(mode: Mode, results: Path) -> Tracking:
        """Raises ValueError when W&B is asked for online but there is no key."""
        found = os.environ.get("WANDB_MODE", "") if mode == "auto" else ""
        asked = found if found in ("online", "offline", "disabled") else mode
        key = configured_key()
        if asked == "online" and key is None:
            raise ValueError(
                "--wandb online needs a key: set WANDB_API_KEY or run `wandb login`; "
                "or use --wandb offline and `wandb sync` later"
            )
        if asked == "auto":
            asked = "offline" if key is None else "online"
        return Tracking(mode=asked, group=results.name, key=key if asked == "online" else None)

    def hint(self, results: Path) -> str | None:
        """How to upload what was written offline."""
        if self.mode != "offline":
            return None
        return f"W&B is offline; to upload: wandb sync {results / 'wandb'}/offline-run-*"


def configured_key() -> str | None:
    """From WANDB_API_KEY, or the netrc file that ``wandb login`` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with suppress(OSError, netrc.NetrcParseError, RuntimeError):
            entry = netrc.netrc(str(Path(file).expanduser())) if file else None
            login = entry.authenticators(urlsplit(server).hostname or "") if entry else None
            if login and login[2]:
                return login[2]
    return None


class Run:
    """One trial's run.  Nothing in here raises.

    ``earlier``: what to log again for the epochs before this attempt.
    """

    unreachable: ClassVar[bool] = False
    """The server did not answer this process: the trials that follow do not wait for it again."""

    def __init__(
        self,
        tracking: Tracking,
        trial: Mapping[str, Any],
        earlier: Sequence[tuple[int, Mapping[str, float]]] = (),
    ) -> None:
        self._hash = trial["hash"]
        self._run: Any = None
        self._folder: Path | None = None
        if tracking.mode == "disabled":
            return
        if tracking.mode == "online" and Run.unreachable:
            print("W&B: did not answer earlier; this trial goes without it", file=sys.stderr)
            return
        try:
            self._open(tracking, trial)
            if tracking.mode == "offline":  # online, the server has them
                for epoch, scalars in earlier:
                    self._run.log(dict(scalars), step=epoch)
        except Exception as error:  # tracking must never cost a trial
            self._give_up(error)

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        if self._run is None:
            return
        try:
            self._run.log(dict(scalars), step=epoch)
        except Exception as error:  # tracking must never cost a trial
            self._give_up(error)

    def finish(self, *, failed: bool) -> dict[str, bytes]:
        """Close the run; an offline run's files, by their path in the results folder."""
        files = {}
        try:
            if self._run is not None:
                self._close(int(failed))
                for file in (self._folder or Path()).glob("wandb/offline-run-*/**/*"):
                    if self._folder and file.is_file() and file.suffix != ".log":
                        files[file.relative_to(self._folder).as_posix()] = file.read_bytes()
        except Exception as error:  # tracking must never cost a trial
            self._give_up(error)
        self._run = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return files

    @property
    def replaces(self) -> str:
        """Pattern of the folders in RESULTS that the files of an earlier attempt are in."""
        return f"wandb/offline-run-*-{self._hash}"

    def _open(self, tracking: Tracking, trial: Mapping[str, Any]) -> None:
        import wandb

        self._folder = Path(tempfile.mkdtemp(prefix="lesion-wandb-"))
        if tracking.key is not None:
            os.environ.setdefault("WANDB_API_KEY", tracking.key)
        parameters = {key: trial[key] for key in ("cohort", "loss", "seed", "fold", "hash", "name")}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=trial["hash"],
            name=trial["name"],
            resume="allow",
            mode=tracking.mode,
            dir=str(self._folder),
            group=tracking.group,
            job_type="train",
            tags=[trial["cohort"], trial["loss"], *tracking.tags],
            config=parameters | trial["config"]["settings"] | {"loss_fields": trial["loss_params"]},
            # Quiet and light: no console capture, no threads that watch the machine or the code.
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                reinit="create_new",  # never wait for the run of an earlier trial
                init_timeout=SECONDS_TO_CONNECT,
            ),
        )

    def _close(self, exit_code: int) -> None:
        """``finish`` waits for the upload, however long that takes; a trial does not."""

        def close() -> None:
            import wandb

            self._run.finish(exit_code=exit_code)
            # It returns before an offline run's file is written out; only the end of the process
            # that writes it is waited for (0.31: 1 of 30 files stayed empty on a busy machine).
            wandb.teardown()

        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(SECONDS_TO_UPLOAD)
        if closing.is_alive():
            raise TimeoutError(f"upload not finished after {SECONDS_TO_UPLOAD} s")

    def _give_up(self, error: Exception) -> None:
        reason = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        print(f"W&B: {reason}; the trial goes on without it", file=sys.stderr)
        self._run = None
        Run.unreachable = True
