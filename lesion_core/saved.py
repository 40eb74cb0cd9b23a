"""What `torch.save` wrote, read without running any of it and without unpacking more than there is.

A file of weights may come from anybody: it can be damaged, or made to do harm.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def read_saved(content: bytes, what: str) -> dict[str, Any]:
    """The dictionary of plain values and tensors in a file's bytes; ``what`` names it.

    Raises:
        ValueError: it is damaged, holds anything else, or unpacks to more than its own size
            (PyTorch never compresses), or a tensor has more elements than are stored of it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
        if unpacked > len(content):
            raise ValueError(f"it unpacks to {unpacked} bytes")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for tensor in _tensors(state):
            plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
            stored = tensor.untyped_storage().nbytes() if plain else 0
            if tensor.nbytes > stored:  # by strides of 0, or of another kind
                raise ValueError(f"{list(tensor.shape)} is a view of {stored} bytes")
    except Exception as error:  # PyTorch and pickle raise all sorts of things
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise ValueError(f"{what}: is damaged, or holds no weights ({reason})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{what}: is damaged, or holds no weights (but {type(state).__name__})")
    return state


def _tensors(content: object) -> Iterator[torch.Tensor]:
    """Every tensor in it; what is there several times, as lists may be by the thousand, once."""
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value


def check_shapes(
    weights: object, expected: Mapping[str, torch.Tensor], what: str
) -> dict[str, torch.Tensor]:
    """The same weights, if they are those of the expected names and shapes.

    Raises:
        ValueError: they are not; with the first that differs.
    """
    if not isinstance(weights, dict) or weights.keys() != expected.keys():
        raise ValueError(f"{what}: the weights are not those of the network that it says it is")
    for name, tensor in expected.items():
        found = weights[name]
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape:
            raise ValueError(
                f"{what}: {name} is {list(getattr(found, 'shape', []))}; expected "
                f"{list(tensor.shape)}"
            )
    return weights
