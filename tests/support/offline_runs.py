"""Reads what wandb wrote offline: records framed as LevelDB logs, inside protocol buffers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> list[Any]:
    """Every record of a ``.wandb`` file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    position, found, parts = HEADER, [], b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (WHOLE, LAST):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(path: Path) -> dict[int, dict[str, Any]]:
    """Numbers by step."""
    return {
        record.history.step.num: {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records(path)
        if record.HasField("history")
    }


def steps(path: Path) -> list[int]:
    return [record.history.step.num for record in records(path) if record.HasField("history")]


def exit_code(path: Path) -> int | None:
    """None: the file is not complete."""
    codes = [record.exit.exit_code for record in records(path) if record.HasField("exit")]
    return codes[-1] if codes else None
