"""How a choice with fields is spelled: ``name(field=value, ...)``, read and written; no torch."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

MOST_CHARACTERS = 2000


def read_call(text: str, what: str, example: str) -> tuple[str, dict[str, Any]]:
    """Name and fields of a text; values are Python literals, and a bare word is a string.

    >>> read_call("focal(alpha=0.3, gamma=1)", "loss", "xent")
    ('focal', {'alpha': 0.3, 'gamma': 1})

    Raises:
        ValueError: it is no such text; names ``what`` it should be, and shows the ``example``.
    """
    match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    try:
        if match is None or len(text) > MOST_CHARACTERS:
            raise SyntaxError
        call = ast.parse(f"_({match[2] or ''})", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
            raise SyntaxError
        if not all(item.arg for item in call.keywords):  # **something
            raise SyntaxError
        return match[1], {str(item.arg): _literal(item.value) for item in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        shown = text if len(text) <= MOST_CHARACTERS else f"{text[:60]}..."
        raise ValueError(f"cannot read {what} {shown!r}; expected {example}") from None


def write_call(name: str, values: Mapping[str, Any]) -> str:
    """The one spelling of a name with fields: fields by name, no blanks, lists as tuples.

    >>> write_call("monai:UNet", {"strides": [2, 2], "norm": "batch", "bias": False})
    "monai:UNet(bias=False,norm='batch',strides=(2,2))"

    Raises:
        ValueError: a value is none that `read_call` reads back.
    """
    inner = ",".join(f"{key}={_written(values[key])}" for key in sorted(values))
    return f"{name}({inner})" if inner else name


def in_list(text: str) -> list[str]:
    """The parts of a text between commas, but for commas within brackets or quotes.

    >>> in_list("unet3d, monai:UNet(strides=(2,2),norm='a,b')")
    ['unet3d', "monai:UNet(strides=(2,2),norm='a,b')"]
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not (quote or depth > 0):
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def shown(value: Any) -> str:
    """A value in as few characters as `read_call` reads back."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return str(value)


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        inner = ",".join(map(_written, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_written(k)}:{_written(v)}' for k, v in value.items())}}}"
    finite = not isinstance(value, float) or math.isfinite(value)
    if (value is None or isinstance(value, bool | int | float | str)) and finite:
        return repr(value)
    raise ValueError(f"{value!r} is no plain value; expected numbers, texts, and tuples of them")
