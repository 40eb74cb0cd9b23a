"""The steps of training that a user could have without us, and how each is made.

A step is forward, loss, backward and Adam on a batch that is on the device already; ours cuts its
batch out of the images on top.  What a peer is not told it has as PyTorch comes: convolutions in
tf32 on a GPU, no search for the fastest algorithm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to train without us."""

    network: Literal["plain", "BasicUNet"] = "plain"
    bf16: bool = False
    """By autocast; else fp32, on a GPU with convolutions in tf32, as PyTorch comes."""
    channels_last: bool = False
    searches: bool = False
    """Whether cuDNN looks for the fastest algorithms."""
    keeps_memory: bool = False
    """Whether freed memory stays with the process (`training.memory`), on a CPU."""
    how: Literal["launched", "recorded", "compiled"] = "launched"
    """Kernel by kernel, as a CUDA graph, or by ``torch.compile``."""


UNASKED = "plain, as PyTorch runs it unasked"

PEERS: dict[str, dict[str, Peer]] = {
    "cuda": {
        UNASKED: Peer(),
        "plain bf16": Peer(bf16=True, searches=True),
        "plain bf16, CUDA graph": Peer(bf16=True, searches=True, how="recorded"),
        "plain bf16, compiled, channels last": Peer(
            bf16=True, searches=True, channels_last=True, how="compiled"
        ),
        "MONAI BasicUNet bf16": Peer(network="BasicUNet", bf16=True, searches=True),
    },
    "cpu": {
        UNASKED: Peer(),
        "plain fp32, channels last, memory kept": Peer(channels_last=True, keeps_memory=True),
        "plain bf16, channels last, memory kept": Peer(
            bf16=True, channels_last=True, keeps_memory=True
        ),
        "MONAI BasicUNet bf16, memory kept": Peer(
            network="BasicUNet", bf16=True, keeps_memory=True
        ),
    },
}
"""By device, in the order of the table."""


def steps(
    peer: Peer,
    network: nn.Module,
    inputs: torch.Tensor,
    target: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    learning_rate: float,
    backend: str = "inductor",
) -> Callable[[], torch.Tensor]:
    """A function that trains a network on a batch once, and returns the loss, on the device.

    Args:
        peer: how.
        network: on the device of the batch.
        inputs: ``[B, C, X, Y, Z]``.
        target: ``[B, 1, X, Y, Z]``, 0 or 1.
        loss: of logits and target.
        learning_rate: of Adam.
        backend: of ``torch.compile``.
    """
    import torch

    if peer.channels_last:
        network = network.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue] # not in stubs
        inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
    recorded = peer.how == "recorded"
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, capturable=recorded)
    compiled: Any = torch.compile(network, backend=backend) if peer.how == "compiled" else network
    torch.backends.cudnn.benchmark = peer.searches

    def once() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        with (
            torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=not recorded)
            if peer.bf16
            else contextlib.nullcontext()
        ):
            logits = compiled(inputs)
        value = loss(logits.float(), target)
        value.backward()
        optimiser.step()
        return value.detach()

    return _recorded(once) if recorded else once


def _recorded(once: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The same as a CUDA graph, recorded as PyTorch's documentation says."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = once()

    def replay() -> torch.Tensor:
        graph.replay()
        return value

    return replay
