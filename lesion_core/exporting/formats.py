"""One network as the bytes of a TorchScript or ONNX file, compared with what it was made from.

Neither file says where it was made: source lines, paths and times are taken out.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lesion_core.exporting.together import Together, example_windows

DESCRIPTION = "description.json"
"""Name of the description in a TorchScript file's ``_extra_files``."""

OPSET = 18
"""ONNX operators' version; that with group norm as PyTorch has it decomposed."""

MOST_ONNX_BYTES = 1_900_000_000
"""Protocol buffers end at 2^31 - 1 bytes."""

TOLERANCE = {"torchscript": 1e-6, "onnx": 1e-4}
"""Largest difference of a probability between a file and the networks that it was made from."""


def torchscript(network: Together, *, channels: int, patch_size: int, about: Mapping) -> bytes:
    """The network as TorchScript, with ``about`` as its extra file `DESCRIPTION`.

    Any number of windows at a time; other sizes of windows only if they suit the network.

    Raises:
        ValueError: the file does not compute what the network does.
    """
    windows = example_windows(channels, patch_size)
    with torch.no_grad(), _quiet():
        traced = torch.jit.trace(network, windows[:1], check_trace=False)
        buffer = io.BytesIO()
        extra: dict[str, Any] = {DESCRIPTION: _json(about)}
        torch.jit.save(traced, buffer, _extra_files=extra)
        content = _without_places(buffer.getvalue())
        loaded = torch.jit.load(io.BytesIO(content))
    _compare(network, windows, lambda found: loaded(found), TOLERANCE["torchscript"])
    return content


def onnx(network: Together, *, channels: int, patch_size: int, about: Mapping) -> bytes:
    """The network as ONNX: input ``image [batch, C, p, p, p]``, output ``probability``; ``about``
    is in its metadata, under "description".

    Compared with the network where onnxruntime is installed (`compares_onnx`).

    Raises:
        ValueError: onnx or onnxscript is not installed, the network is too large for one file, or
            the file does not compute what the network does.
    """
    if lacking := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ValueError(
            f"--format onnx needs {' and '.join(lacking)}, not installed here: "
            "pip install 'lesion-seed-sweep[export]'"
        )
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    if size > MOST_ONNX_BYTES:
        raise ValueError(
            f"{len(network.members)} networks are {size / 1e9:.1f} GB, and an ONNX file holds 2; "
            "take fewer --seeds or --folds, or --format torchscript"
        )
    windows = example_windows(channels, patch_size)
    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            network,
            (windows,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probability"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        model = program.model_proto
    _forget_places(model)
    for name, value in _properties(about).items():
        model.metadata_props.add(key=name, value=value)
    content = model.SerializeToString()
    if compares_onnx():
        runtime: Any = import_module("onnxruntime")  # an extra, which need not be installed
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        _compare(
            network,
            windows,
            lambda found: torch.from_numpy(session.run(None, {"image": found.numpy()})[0]),
            TOLERANCE["onnx"],
        )
    return content


def compares_onnx() -> bool:
    """Whether what was written can be run here."""
    return find_spec("onnxruntime") is not None


def _compare(
    network: Together, windows: Tensor, other: Callable[[Tensor], Tensor], most: float
) -> None:
    """Raise ValueError if two ways of computing differ, for one window or several."""
    with torch.no_grad():
        for number in range(1, len(windows) + 1):
            difference = float((network(windows[:number]) - other(windows[:number])).abs().max())
            if not difference <= most:
                raise ValueError(
                    f"the exported network differs by {difference:.2g} from the trained ones, "
                    f"expected {most:g} at most; nothing was written"
                )


def _properties(about: Mapping[str, Any]) -> dict[str, str]:
    """Each part of the description under its own name, and all of it."""
    parts = {name: _text(value) for name, value in about.items()}
    return parts | {"description": _json(about)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=1, ensure_ascii=False)


# ------------------------------------------------------------------------------------------- places
def _without_places(content: bytes) -> bytes:
    """A TorchScript archive without its debug records, which hold paths of source files."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new,
    ):
        for part in old.infolist():
            if not part.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(part.filename), old.read(part))
    return buffer.getvalue()


def _forget_places(model: Any) -> None:
    """Take out of an ONNX model what says where each operation comes from."""
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for values in (getattr(graph, "value_info", ()), getattr(graph, "initializer", ())):
            for value in values:
                del value.metadata_props[:]
                value.doc_string = ""
        del graph.metadata_props[:]
        graph.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch says of its own exporters; what they compute is compared instead."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
