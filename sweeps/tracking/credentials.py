"""What W&B hears of the user's surroundings: server and key as ``wandb login`` leaves them, and
which of its environment variables count."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")
"""Names of the public server, the newer one first."""

HEEDED = (
    "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_APP_URL", "WANDB_PROJECT", "WANDB_ENTITY",
    "WANDB_MODE", "WANDB_CONFIG_DIR", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR",
    "WANDB_ARTIFACT_DIR", "WANDB_ERROR_REPORTING", "WANDB_SILENT", "WANDB_QUIET", "WANDB_DEBUG",
    "WANDB_CORE_DEBUG", "WANDB_INSECURE_DISABLE_SSL", "WANDB_CREDENTIALS_FILE",
    "WANDB_IDENTITY_TOKEN_FILE", "WANDB_HTTP_PROXY", "WANDB_HTTPS_PROXY",
    "WANDB__EXTRA_HTTP_HEADERS", "WANDB_X_EXTRA_HTTP_HEADERS",
)  # fmt: skip
"""The variables that may reach W&B: where it is, how it is reached, and how much it says.  What a
run is, is the ledger's alone; a sweep's or a launch's left in a shell would make all runs one."""


def ignored_variables() -> list[str]:
    """W&B's variables in this process's environment that are kept from it.

    WANDB_SERVICE names the process that writes runs, and who began it: ours, or somebody else's.
    """
    ours = {"WANDB_SERVICE"} if f"-{os.getpid()}-" in os.environ.get("WANDB_SERVICE", "") else set()
    return sorted(
        name
        for name in os.environ
        if name.startswith(("WANDB_", "_WANDB_")) and name not in {*HEEDED, *ours}
    )


_said: set[str] = set()


def ignored_line(names: Iterable[str]) -> str | None:
    """The line that says what is ignored; None if this process has said it all."""
    new = sorted(set(names) - _said)
    _said.update(new)
    return f"W&B: {', '.join(new)} ignored: a sweep names its runs itself" if new else None


def configured_key(url: str | None = None) -> str | None:
    """The user's key for the server at ``url``, or that of `server_url`.

    From WANDB_API_KEY, or the netrc file that ``wandb login`` writes.
    """
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    host = urlsplit(url or server_url() or "").netloc
    return _netrc_key(HOSTS if not host or host in HOSTS else (host,))


def is_trusted(url: str) -> bool:
    """Whether the user has named this server: here alone a key may go.

    By WANDB_BASE_URL or the settings file; or, over TLS, by an entry of the netrc file, or as the
    public server.  A results folder names servers too, but anybody can have written that.
    """
    if (mine := server_url()) is not None and place_of(mine) == place_of(url):
        return True
    if place_of(url) in [place_of(f"https://{host}") for host in HOSTS]:
        return True
    return place_of(url)[0] == "https" and _netrc_key((urlsplit(url).netloc,)) is not None


def place_of(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path of a server's address, alike for equal ones.

    Raises:
        ValueError: it is no address of a server.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        parts, port = urlsplit(""), None
    if port is None or not parts.hostname or "@" in parts.netloc or not url.isprintable():
        raise ValueError(f"{url!a:.80}: expected the address of a W&B server, http(s)://HOST")
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def _netrc_key(hosts: Sequence[str]) -> str | None:
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with suppress(OSError, netrc.NetrcParseError, RuntimeError):
            entries = netrc.netrc(str(Path(file).expanduser())) if file else None
            for name in hosts if entries else ():
                login = entries.hosts.get(name) if entries else None
                if login and login[2]:
                    return login[2]
    return None


def server_url() -> str | None:
    """The user's W&B server; None: wandb's default.

    From WANDB_BASE_URL, or the settings file that ``wandb login --host`` writes.
    """
    if os.environ.get("WANDB_BASE_URL"):
        return os.environ["WANDB_BASE_URL"].rstrip("/")
    folder = os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")
    settings = configparser.ConfigParser()
    with suppress(OSError, configparser.Error, RuntimeError, UnicodeError):
        settings.read(Path(folder).expanduser() / "settings")
        return settings.get("default", "base_url").rstrip("/")
    return None
