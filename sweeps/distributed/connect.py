"""How this process gets into a Ray: one of this machine, or a cluster that is there.

Our code travels to a cluster's machines by Ray's ``runtime_env``, with the user's own modules and
the environment variables that matter there; what is installed (PyTorch and so on) must be on every
machine.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lesion_core import stopping
from lesion_core.training.memory import ENVIRONMENT as MEMORY
from sweeps import scratch
from sweeps.distributed import discovery
from sweeps.distributed.temporary import session_folder
from sweeps.provenance import INSTALLED, ROOT
from sweeps.tracking.credentials import ignored_variables

FORWARDED = (
    "WANDB_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "CUBLAS_", "CUDNN_", "NVIDIA_TF32", "TORCH_", "PYTORCH_", "NCCL_", "MALLOC_",
)  # fmt: skip
"""Beginnings of the driver's environment variables that a cluster's workers get; by itself Ray
passes none.  Keys to W&B are not among them: Ray lists these variables to every user."""

SECONDS_TO_START = 300
"""For a Ray of this machine, which may be busy."""


def import_ray(address: str | None) -> Any:
    """Import Ray, with the settings that it reads then or when it starts its processes."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours stops at once; the ledger has it all
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"  # nothing is ever restored from it
    os.environ["TUNE_STATE_REFRESH_PERIOD"] = "86400"  # its question freezes us if the head is gone
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the old output can be silenced
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # workers find the user's modules in their folder
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call after the end would start another Ray
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # under `ray job submit`: ours joins the job's
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Seconds to wait for a head that refuses.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    if address is not None and "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray 2.60 uses it unasked for "auto" alone
    import ray

    # Tune prints the traceback of every lost worker; ours are in the ledger.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    return ray


def _has_token() -> bool:
    """Whether there is a token where Ray looks for one."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return True
    try:
        return (Path.home() / ".ray" / "auth_token").exists()
    except (OSError, RuntimeError):  # no home
        return False


def keep_token_private(*, make: bool = False) -> None:
    """Let nobody else read ``~/.ray/auth_token``, which lets in whoever has it.

    Ray 2.60 writes it for all to read; ``make``: so write it first, if it is not there.
    """
    with suppress(OSError, RuntimeError):  # no home, or it is somebody else's: Ray says so
        file = Path.home() / ".ray" / "auth_token"
        if make and not _has_token():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as written:
                written.write(secrets.token_hex(32))
        if file.stat().st_uid == os.getuid() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def start_local(ray: Any) -> None:
    """Start a Ray of this machine alone.  Its workers inherit this process's environment.

    It listens on the loopback address only: nobody else's machine has to reach it.

    Raises:
        ValueError: there is no place for its session, or it cannot start.
    """
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private import ray_constants

    folder = session_folder()
    keep_token_private(make=os.environ.get("RAY_AUTH_MODE", "token") == "token")
    ours = {name: os.environ.get(name, value) for name, value in MEMORY.items()}
    # Ray 2.60 has no other way: it turns _node_ip_address="127.0.0.1" into the machine's address.
    ours[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    many = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    if not INSTALLED:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ours["PYTHONPATH"] = os.pathsep.join(paths)
    before = {name: os.environ[name] for name in ours if name in os.environ}
    os.environ.update(ours)
    try:
        _until_started(
            lambda: ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                labels=discovery.PRIVATE,
                _temp_dir=None if folder is None else str(folder),
            )
        )
    except OSError as error:  # for instance no place for Ray's token
        raise ValueError(
            f"Ray cannot start on this machine: {error.filename or ''} {error.strerror or error}; "
            "check that the home folder can be written"
        ) from None
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        raise ValueError(
            f"Ray has not started within {SECONDS_TO_START} s: this machine is too busy, or see "
            f"{folder or get_default_ray_temp_dir()}/session_latest/logs"
        ) from None
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = many
        for name in ours.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _until_started(start: Callable[[], object]) -> None:
    """Start a Ray, on a busy machine again and again.

    Ray 2.60 waits 30 s for its raylet, which itself ends if its agent takes 15 s to load; neither
    can be told otherwise.

    Raises:
        Exception: with "timed out during startup", as Ray's own, if it has not started in time.
    """
    from ray._private.node import Node

    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            start()
            return
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if isinstance(node := frame.f_locals.get("self"), Node):
                    node.kill_all_processes(check_alive=False)
            if stopping.is_asked():
                raise KeyboardInterrupt from None
            if time.monotonic() > deadline:
                raise


def find_cluster(address: str) -> str:
    """The host:port of the Ray cluster that an address means; something answers there.

    Raises:
        ValueError: ``auto`` means none here or may mean several; nothing answers; it is private.
    """
    if address == "auto":
        address = discovery.resolve_auto(free_cpus)
    check_address(address)
    discovery.refuse_private(address)
    return address


def free_cpus(address: str) -> str:
    """How much of a cluster is free, in words, without joining it."""
    from ray import _raylet
    from ray._private.state import GlobalState

    compiled: Any = _raylet
    cluster = GlobalState()
    options = compiled.GcsClientOptions.create(
        address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    try:
        with _silent_descriptor(2):  # Ray's compiled code warns of a wrong token
            cluster._initialize_global_state(options)
            total = cluster.cluster_resources()
            free = cluster.available_resources()
    except Exception:  # a wrong token, another version: Ray raises all sorts of things
        return "unknown (another token?)"
    finally:
        cluster.disconnect()
    return ", ".join(
        f"{free.get(name, 0):g} of {total[name]:g} {name}s"
        for name in ("CPU", "GPU")
        if total.get(name)
    )


def join_cluster(ray: Any, address: str, staged: Path) -> None:
    """Connect to the Ray cluster at host:port, with the code of ``staged`` for its workers.

    Raises:
        ValueError: it has other versions, or it lets nobody in.
    """
    keep_token_private()
    forwarded = _forwarded()
    try:
        with _silent_descriptor(2):  # Ray's compiled code warns of every attempt
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"working_dir": str(staged), "env_vars": MEMORY | forwarded},
            )
    except (ConnectionError, RuntimeError) as error:  # AuthenticationError is a RuntimeError
        if "Version mismatch" in str(error):
            reason = " ".join(str(error).split())
            raise ValueError(
                f"--address {address}: {reason}; use the cluster's versions here, or ours there"
            ) from None
        if "Auth" in "".join(traceback.format_exception(error)):  # Ray buries the reason
            raise ValueError(
                f"--address {address}: this Ray cluster lets nobody in without its token: set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a copy of the head's "
                "~/.ray/auth_token (`ray get-auth-token` prints it there); on a machine of the "
                "cluster, --address auto finds both by itself"
            ) from None
        raise ValueError(
            f"--address {address}: no Ray cluster answers ({str(error).splitlines()[0]}); start "
            "one with `ray start --head`, or leave --address out to use this machine alone"
        ) from None


def _forwarded() -> dict[str, str]:
    """The driver's variables for the workers, less those that hold a secret."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
    for name in ("WANDB_API_KEY", "WANDB_SERVICE", *ignored_variables()):
        chosen.pop(name, None)
    secret = [name for name, value in chosen.items() if re.search(r"://[^/]*:[^/]*@", value)]
    for name in secret:
        print(
            f"warning: {name} holds a password, and Ray shows what workers are sent; they go "
            "without it, so set it where you start Ray",
            file=sys.stderr,
        )
    return {name: value for name, value in chosen.items() if name not in secret}


@contextmanager
def _silent_descriptor(descriptor: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def check_address(address: str) -> None:
    """Raise ValueError unless something answers at host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--address {address}: expected auto or host:port, such as 10.0.0.1:6379")
    try:
        discovery.check_reachable(address)
    except OSError as error:
        raise ValueError(
            f"--address {address}: nothing answers there ({error.strerror or error}); is that the "
            "address that `ray start --head` printed?"
        ) from None


def stage(modules: Sequence[str]) -> Path:
    """Make a folder with our packages and the user's modules, which Ray copies to every machine."""
    import importlib.util

    staged = scratch.hold(Path(tempfile.mkdtemp(prefix="lesion-code-")))
    # Ray names a package by its content, and deletes it with the job that brought it: also under
    # the workers of the next one, if that brought the same.
    (staged / ".driver").write_text(secrets.token_hex(8))
    for package in ("lesion_core", "sweeps"):
        shutil.copytree(ROOT / package, staged / package, ignore=_NO_CACHES)
    for top in dict.fromkeys(module.partition(".")[0] for module in modules):
        spec = importlib.util.find_spec(top)
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if origin is None or {"site-packages", "dist-packages"} & set(origin.parts):
            continue  # installed: every machine must have it, as it has torch
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, staged / top, ignore=_only_python, dirs_exist_ok=True)
        else:  # with its neighbours, which it may import
            for file in origin.parent.glob("*.py"):
                shutil.copy(file, staged / file.name)
    return staged


_NO_CACHES = shutil.ignore_patterns("__pycache__")


def _only_python(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name == "__pycache__" or not (name.endswith(".py") or Path(folder, name).is_dir())
    ]
