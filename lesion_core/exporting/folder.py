"""A folder of exported files, put in its place whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lesion_core import durable
from lesion_core.paths import existing_folder, is_folder, is_there, read_json, refuse_existing

Format = Literal["bundle", "onnx", "torchscript"]

RECORD = "export.json"
"""What an exported folder says of itself: the description, and the SHA-256 of every other file."""

CURE = "say --overwrite, or choose another --out"


def check_place(out: Path, *, overwrite: bool) -> None:
    """Make sure that an export can go there.

    Raises:
        ValueError: something is there, and is not to be, or may not be, replaced.
    """
    if out.suffix in (".onnx", ".ts", ".pt", ".pth", ".zip"):
        raise ValueError(f"--out {out}: expected a folder, such as {out.with_suffix('')}")
    if is_there(out.parent):
        existing_folder(out.parent, "a folder for the export")
    if not overwrite:
        refuse_existing(out, CURE)
    elif out.is_symlink() or (is_there(out) and not is_export(out)):
        raise ValueError(f"{out}: is no export, so it is not replaced; choose another --out")


def is_export(folder: Path) -> bool:
    """Whether a folder is what `write_folder` leaves."""
    if not is_folder(folder) or not is_there(folder / RECORD):
        return False
    return str(read_json(folder / RECORD).get("format", "")).startswith("lesion-seed-sweep export")


def write_folder(out: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    """Write files by their place below ``out``, and the record; an export that is there is replaced
    once all of the new one is on the disk.

    Raises:
        OSError: the disk refuses; what was there is there still.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = json.dumps({**about, "files": digests}, indent=1, ensure_ascii=False) + "\n"
    durable.make_folder(out.parent)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        staged = staging / "new"
        for name, content in {**files, RECORD: record.encode()}.items():
            path = staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        durable.sync_tree(staged)
        if is_there(out):
            durable.rename(out, staging / "old")
        durable.rename(staged, out)
    finally:
        if is_there(staging / "old") and not is_there(out):
            durable.rename(staging / "old", out)
        shutil.rmtree(staging, ignore_errors=True)
