"""A CUDA graph for CPUs: records operations with the memory they use, and replays them there.

What holds for the real one holds here: recording runs nothing that lasts, a replay reads and writes
the memory of the recording, numbers that Python knew then are frozen, and what would wait for the
device is refused.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lesion_core.training.step import Step

WAIT = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")
"""Operations whose outcome the host must know before it goes on."""


def waits(function, args) -> bool:
    """On a GPU; copies to the host by ``.cpu()`` or ``.numpy()`` are none on a CPU: unseen."""
    name = function.overloadpacket.__name__
    return name.startswith(WAIT) or (name == "index" and _by_mask(args[1]))


def _by_mask(indices) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


class Refuse(TorchDispatchMode):
    """Raises, as `torch.cuda.set_sync_debug_mode("error")` makes a GPU's waits do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if waits(function, args):
            raise RuntimeError("called a synchronizing CUDA operation")
        return function(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`."""

    num_replays = 0

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple] = []
        self._own: set[int] = set()  # memory that came into being in the recording
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if waits(function, args):
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in _written(function, args, kwargs):
            at = tensor.untyped_storage().data_ptr()
            if at not in self._own | self._before.keys():
                self._before[at] = tensor, tensor.clone()
        found = function(*args, **kwargs)
        is_new = not any(result.alias_info for result in function._schema.returns)
        if is_new:
            self._own |= {tensor.untyped_storage().data_ptr() for tensor in _tensors(found)}
        self._calls.append((function, args, kwargs, found if is_new else None))
        return found

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, value in self._before.values():
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        Tape.num_replays += 1
        for function, args, kwargs, found in self._calls:
            again = function(*args, **kwargs)
            for tensor, value in zip(_tensors(found), _tensors(again), strict=False):
                tensor.copy_(value)


def _tensors(values) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _written(function, args, kwargs) -> list[torch.Tensor]:
    found = []
    for index, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(args[index] if index < len(args) else kwargs.get(argument.name))
    return found


class Stream:
    """Remembers who waited for whom: ``waited`` holds (who, for whom)."""

    waited: ClassVar[list[tuple]] = []

    def __init__(self, device=None) -> None:
        pass

    def wait_stream(self, other) -> None:
        Stream.waited.append((self, other))


def install(monkeypatch) -> None:
    """In the place of `torch.cuda`'s, and lets Adam count its steps in tensors of a CPU."""
    refuse = []

    @contextmanager
    def record(tape, stream):
        with tape:
            yield
        tape.undo()

    def set_mode(mode) -> None:
        if mode == "error":
            refuse.append(Refuse())
            refuse[-1].__enter__()
        elif refuse:
            refuse.pop().__exit__(None, None, None)

    monkeypatch.setattr(Tape, "num_replays", 0)
    monkeypatch.setattr(Step, "can_record", True)
    monkeypatch.setattr(Stream, "waited", [])
    default = Stream()
    for name, fake in {
        "CUDAGraph": Tape,
        "graph": record,
        "Stream": Stream,
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device: default,
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": set_mode,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(
        sys.modules[torch.optim.Adam.__module__],
        "_get_capturable_supported_devices",
        lambda *args, **kwargs: ["cpu", "meta"],
    )
