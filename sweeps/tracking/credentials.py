"""The user's W&B server and key, read where ``wandb login`` leaves them."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")
"""Names of the public server, the newer one first."""


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
