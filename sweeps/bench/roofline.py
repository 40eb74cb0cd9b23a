"""What a computation must calculate and move, kernel by kernel, and the least time that takes.

The roofline of Williams, Waterman and Patterson (Communications of the ACM 52(4), 2009), for each
kernel by itself: the longer of its operations at the machine's matrix rate and its bytes at the
rate of a copy.  Fused kernels move less, and what stays in a cache moves faster: a share above 1
says that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

MAKES_ROOM = ("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty")
"""Operations that write nothing into what they return."""


def kernels(run: Callable[[], object]) -> list[tuple[int, int]]:
    """``(operations, bytes)`` of every operation of PyTorch's that ``run`` calls, and of every
    kernel of Triton's that it launches (operations there count as none: they only move).

    Bytes are those of the tensors that it reads and writes, each once; a view moves none.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    found = []

    def moved(values: Any) -> int:
        tensors = {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)}
        # An expanded tensor has fewer values than it shows.
        return sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors.values())

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
        ) -> Any:
            kwargs = kwargs or {}
            out = function(*args, **kwargs)
            aliases = [result.alias_info for result in function._schema.returns]
            is_view = any(alias is not None and not alias.is_write for alias in aliases)
            if not is_view and function._schema.name not in MAKES_ROOM:
                count = flop_registry.get(function.overloadpacket)
                operations = int(count(*args, **kwargs, out_val=out)) if count else 0
                # What is changed in place is among both, as it should: it is read and written.
                found.append((operations, moved((args, kwargs)) + moved(out)))
            return out

    with Counter(), _launches(lambda arguments: found.append((0, moved(arguments)))):
        run()
    return found


@contextmanager
def _launches(note: Callable[[Any], object]) -> Iterator[None]:
    """Tell ``note`` what the kernels of Triton's that are launched in this block are given."""
    from lesion_core.kernels.language import class_of_kernels

    kernel_class = class_of_kernels()
    if kernel_class is None:
        yield
        return
    before = kernel_class.__getitem__

    def launcher(self: Any, grid: Any) -> Any:
        launch = before(self, grid)

        def noted(*args: Any, **kwargs: Any) -> Any:
            note((args, kwargs))
            return launch(*args, **kwargs)

        return noted

    kernel_class.__getitem__ = launcher
    try:
        yield
    finally:
        kernel_class.__getitem__ = before


def least_seconds(
    counts: Iterable[tuple[int, int]], operations_per_s: float, bytes_per_s: float
) -> float:
    """The least seconds of kernels one after the other, given (operations, bytes) of each.

    >>> least_seconds([(100, 10), (0, 30)], operations_per_s=50, bytes_per_s=10)
    5.0
    """
    return sum(max(ops / operations_per_s, moved / bytes_per_s) for ops, moved in counts)
