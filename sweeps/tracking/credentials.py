"""The user's W&B server and key, read where ``wandb login`` leaves them."""

from __future__ import annotations

import configparser
import netrc
import os
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
    hosts = HOSTS if not host or host in HOSTS else (host,)
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
