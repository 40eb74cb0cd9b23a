"""Weights & Biases: whether and how trials are tracked, and what may leave the site.

The ledger stays the only truth; W&B is a window on it.  What is said there is decided here, once,
by the driver; `sweeps.tracking.live_run` says it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict, cast

from lesion_core.paths import is_there, read_json
from sweeps.provenance import command_to_show
from sweeps.tracking.credentials import (
    configured_key,
    ignored_line,
    ignored_variables,
    is_trusted,
    place_of,
    server_url,
)

Mode = Literal["auto", "online", "offline", "disabled"]
PROJECT = "lesion-seed-sweep"
FILE = "wandb/tracking.json"
"""File in a results folder: what was decided for it.  Holds the salt, so it stays on the site."""


class Place(TypedDict):
    """Where a sweep's runs go; None: wandb's own default."""

    project: str
    entity: str | None
    url: str | None


class Decided(Place):
    """What was decided for a results folder that is tracked."""

    media: bool
    artifacts: bool
    salt: str | None


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What Weights & Biases gets."""

    wandb: Mode = "auto"
    """Weights & Biases; auto: online if a key is configured, else offline."""
    wandb_media: bool = False
    """Send pictures too: a slice of every test image with its segmentation, and the report's."""
    wandb_artifacts: bool = False
    """Send every trial's trained network too."""
    pseudonymise: bool = False
    """In what W&B hears, replace the names of cases and sites by hashes salted for this sweep."""
    wandb_base_url: str | None = None
    """Address of the W&B server, if neither WANDB_BASE_URL nor `wandb login --host` names it: a key
    goes to no server that a results folder alone names."""

    def tracking(self, results: Path) -> Tracking:
        """Decide how a sweep is tracked.

        Raises:
            ValueError: a flag has no effect, or what `Tracking.decide` raises.
        """
        flags = {
            "--wandb-media": self.wandb_media,
            "--wandb-artifacts": self.wandb_artifacts,
            "--pseudonymise": self.pseudonymise,
            "--wandb-base-url": self.wandb_base_url is not None,
        }
        idle = [flag for flag, given in flags.items() if given]
        if self.wandb == "disabled" and idle:
            raise ValueError(
                f"{idle[0]} has no effect with --wandb disabled; leave it out, or use "
                "--wandb offline"
            )
        return Tracking.decide(
            self.wandb,
            results,
            media=self.wandb_media,
            artifacts=self.wandb_artifacts,
            pseudonymise=self.pseudonymise,
            base_url=self.wandb_base_url,
        )


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How a sweep is tracked; decided once, by the driver."""

    mode: Literal["online", "offline", "disabled"]
    group: str
    """Name of the sweep."""
    tags: tuple[str, ...] = ()
    """Tags of every run, beside its own."""
    project: str = PROJECT
    entity: str | None = None
    """W&B's user or team; None: the key's own."""
    url: str | None = None
    """The server's; None: wandb's own default."""
    key: str | None = field(default=None, repr=False)
    """The driver's key, for workers that have none."""
    media: bool = False
    """Pictures of patients' images may leave the site."""
    artifacts: bool = False
    """Trained networks may leave the site."""
    salt: str | None = field(default=None, repr=False)
    """Salt of the pseudonyms; None: cases and sites go by their names."""

    @staticmethod
    def decide(
        mode: Mode,
        results: Path,
        *,
        media: bool = False,
        artifacts: bool = False,
        pseudonymise: bool = False,
        base_url: str | None = None,
        wanted: str | None = None,
    ) -> Tracking:
        """What these flags mean here, for a folder that may have been tracked before.

        ``base_url``: the server, where the user names it here.  ``wanted``: what needs the server,
        for people, where no flag asks for it.

        Raises:
            ValueError: W&B is asked for online but there is no key, or only the folder names its
                server; or the folder's cases went by their names so far and shall not now, or the
                other way round.
        """
        found = os.environ.get("WANDB_MODE", "") if mode == "auto" else ""
        asked = found if found in ("online", "offline", "disabled") else mode
        before = None if asked == "disabled" else remembered(results)
        place = _place(before, results, base_url)
        key = configured_key(place["url"])
        if asked == "online" and key is None:
            later = command_to_show("python sweeps/tracking.py", "wandb")
            source = wanted or ("WANDB_MODE=online" if found else "--wandb online")
            instead = "" if wanted else f"; or use --wandb offline and `{later} sync` later"
            raise ValueError(
                f"{source} needs a key: set WANDB_API_KEY or run `wandb login`{instead}"
            )
        if asked == "auto":
            asked = "offline" if key is None else "online"
        if asked == "online":
            _refuse_others_server(place["url"], base_url, results)
        if asked == "disabled":
            return Tracking(mode="disabled", group=results.name)
        if before is not None and pseudonymise != (before["salt"] is not None):
            raise ValueError(
                f"{results} was tracked {'with' if before['salt'] else 'without'} --pseudonymise "
                f"so far; do the same, or, if nothing was sent yet, delete {results / 'wandb'} and "
                "backfill"
            )
        salt = (before["salt"] if before else secrets.token_hex(16)) if pseudonymise else None
        return Tracking(
            mode=asked,
            group=results.resolve().name,
            **place,
            key=key if asked == "online" else None,
            media=media,
            artifacts=artifacts,
            salt=salt,
        )

    def case_name(self, case: str) -> str:
        """The name of a case at W&B."""
        return case if self.salt is None else f"case-{self._hash('case', case)}"

    def site_name(self, site: str) -> str:
        """The name of a site at W&B; hospitals are few, and would say who a case is."""
        return site if self.salt is None or not site else f"site-{self._hash('site', site)}"

    def _hash(self, kind: str, name: str) -> str:
        salt = bytes.fromhex(self.salt or "")
        return hmac.new(salt, f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()[:10]

    def to_remember(self) -> dict[str, bytes]:
        """The file that `remembered` reads, for `Ledger.write_files`.  Never holds the key."""
        content: Decided = {
            "project": self.project,
            "entity": self.entity,
            "url": self.url,
            "media": self.media,
            "artifacts": self.artifacts,
            "salt": self.salt,
        }
        text = json.dumps(content, indent=1)
        return {} if self.mode == "disabled" else {FILE: f"{text}\n".encode()}

    def notice(self) -> str | None:
        """A line before anything is sent, and, once, one of what is ignored; None: neither."""
        lines = []
        if self.mode == "online":
            names = "their names" if self.salt is None else "pseudonyms"
            where = self.url or "its own server"
            project = f"{self.entity}/{self.project}" if self.entity else self.project
            lines.append(
                f"W&B: online, project {project} on {where}; cases and sites under {names}"
            )
        if self.mode != "disabled" and (ignored := ignored_line(ignored_variables())):
            lines.append(ignored)
        return "\n".join(lines) or None

    def hint(self, results: Path) -> str | None:
        """How to upload what was written offline, or what W&B missed; None if there is nothing."""
        send = f"{command_to_show('python sweeps/tracking.py', 'wandb')} sync {results}"
        if self.mode == "offline":
            return f"W&B is offline; to upload: {send}"
        unsent = len(list(results.glob("wandb/unsent-*"))) if self.mode == "online" else 0
        return f"W&B did not get all of {unsent} trials; to send them: {send}" if unsent else None


def remembered(results: Path) -> Decided | None:
    """What was decided for a results folder before; None: it was never tracked.

    Raises:
        ValueError: the file is damaged: nobody knows how its cases may be called.
    """
    file = results / FILE
    if not is_there(file):
        return None
    try:
        content = read_json(file)
        for key, kind in _KINDS.items():
            if not isinstance(content[key], kind):
                raise TypeError(f"{key} is a {type(content[key]).__name__}")
        bytes.fromhex(content["salt"] or "")
        if content["url"] is not None:
            place_of(content["url"])
        return cast(Decided, {key: content[key] for key in _KINDS})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: cannot be read ({type(error).__name__}: {error}); restore it, or delete "
            f"{results / 'wandb'} if nothing was sent yet"
        ) from None


_KINDS = {
    "project": str, "entity": str | None, "url": str | None, "media": bool, "artifacts": bool,
    "salt": str | None,
}  # fmt: skip


def _refuse_others_server(url: str | None, base_url: str | None, results: Path) -> None:
    """Raise ValueError unless the user has named the server that a key would go to."""
    if url is not None and base_url is None and not is_trusted(url):
        raise ValueError(
            f"{results / FILE} names the W&B server {url}, and your key goes to no server that "
            f"only a results folder names; if it is yours: --wandb-base-url {url}"
        )
    for name in ("wandb/settings", ".wandb/settings"):  # which wandb reads where it is started
        if (results / name).exists() or (results / name).is_symlink():
            raise ValueError(
                f"{results / name}: would tell wandb where to send your key; a results folder "
                "needs no such file: delete it"
            )


def _place(before: Decided | None, results: Path, base_url: str | None) -> Place:
    """Where a sweep's runs go: where they went before; else as the environment says.

    Raises:
        ValueError: the environment says another place than before.
    """
    now = {
        "project": os.environ.get("WANDB_PROJECT"),
        "entity": os.environ.get("WANDB_ENTITY"),
        "url": server_url() if base_url is None else base_url.rstrip("/"),
    }
    if base_url is not None:
        place_of(base_url)
    for key, value in now.items():
        known = before[key] if before is not None else None
        if known and value and known != value:
            raise ValueError(
                f"{results} was tracked with {key} {known} so far, now {value} is set; a sweep's "
                f"runs stay together: unset it, or delete {results / 'wandb'} and backfill"
            )
        now[key] = value or known or None
    return {"project": now["project"] or PROJECT, "entity": now["entity"], "url": now["url"]}
