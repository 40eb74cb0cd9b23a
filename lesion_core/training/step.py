"""One step of training; on a GPU recorded once, and then replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lesion_core.augment.batch import Augmented
from lesion_core.losses import Imported
from lesion_core.losses.ignoring import loss_of
from lesion_core.patches import Patches, Volumes
from lesion_core.training.precision import autocast, convolutions

LossFunction = Callable[[Tensor, Tensor], Tensor]
Batch = Patches | Augmented
"""What a step trains on: patches as they lie, or with what is done to them."""

WARM_UP = 3
"""Full batches before one is recorded: by then what is set up on first use, such as the choice of
algorithms, has been."""


class Step:
    """Cuts a batch of patches, updates the network by it, and says what loss and gradient it had.

    A step is some hundred kernels, which a large GPU runs faster than Python launches them.  So
    there the step of a full batch is recorded as a CUDA graph and replayed for the batches after
    it: the same kernels on the same memory, in one launch.  That asks of ``loss`` to be a
    function of its arguments alone, and never to wait for the device (``.item()``, ``if`` on a
    tensor).  The losses of `losses` are so, and the networks of `networks`; what is the user's own
    is recorded if it has an attribute ``recordable`` that is true.  Where a step cannot be
    recorded, a warning says why, and steps are launched kernel by kernel.

    To be called inside `apart`, and with one optimiser and one set of volumes for its whole life.
    """

    can_record = True
    """Not after it failed in this process: memory of the attempt may stay taken."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        loss: LossFunction,
        volumes: Volumes,
        *,
        batch_size: int,
        precision: str,
        clip_norm: float | None = None,
    ) -> None:
        """``optimiser`` must keep all its state on the device: `optimisers.optimiser_of` makes one.

        A gradient longer than ``clip_norm`` is shortened to it before the update.
        """
        self.network = network
        self.batch_size = batch_size
        self.device = volumes.device
        self._optimiser = optimiser
        self._loss = loss
        self._volumes = volumes
        self._precision = precision
        self._clip_norm = clip_norm
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._stream = torch.cuda.Stream(self.device) if self._on_gpu else None
        self._num_full = 0
        self._records = self._on_gpu and Step.can_record and is_recordable(loss, network)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, patches: Batch) -> Tensor:
        """Loss and gradient norm ``[2]``, on the device, of the network before its update."""
        is_full = len(patches) == self.batch_size
        if not (self._records and is_full and patches.recordable):
            return self._once(patches)
        self._num_full += 1
        if self._num_full < WARM_UP:
            return self._once(patches)
        if self._num_full == WARM_UP:
            return self._without_waiting(patches)
        if self._graph is None:
            self._record(patches)
        if self._graph is None:
            return self._once(patches)
        for fixed, new in zip(self._fixed.tensors, patches.tensors, strict=True):
            fixed.copy_(new)
        self._graph.replay()
        return self._found.clone()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Steps in this block run on a stream of their own, as they must to be recorded.

        Backward runs on the stream that forward ran on.
        """
        if self._stream is None:
            yield
            return
        around = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(around)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            around.wait_stream(self._stream)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _once(self, patches: Batch, search: bool = True) -> Tensor:
        inputs, target, ignored = patches.cut(self._volumes)
        self._optimiser.zero_grad(set_to_none=True)
        with convolutions(self._precision, search=search):
            with autocast(self.device, self._precision):
                logits = self.network(inputs)
            value = loss_of(self._loss, logits.float(), target.float(), ignored)
            value.backward()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        self._optimiser.step()
        return torch.stack([value.detach().float(), norm])

    def _without_waiting(self, patches: Batch) -> Tensor:
        """Do a step, and find out whether it can be recorded."""
        before = torch.cuda.get_sync_debug_mode()
        buffers = [buffer.clone() for buffer in self.network.buffers()]  # batch norms' means
        try:
            _raise_on_waiting("error")
            return self._once(patches)
        except RuntimeError as error:
            if "synchronizing CUDA operation" not in str(error):
                raise
            self._stay_unrecorded(f"the network or {self._loss} waits for the GPU ({error})")
        finally:
            _raise_on_waiting(before)
        for buffer, value in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(value)
        return self._once(patches)  # no weight was updated yet: the loss comes before

    def _record(self, patches: Batch) -> None:
        """Record a step without running it.

        What the step allocates, gradients too, is the graph's own.
        """
        self._fixed = patches.with_tensors([tensor.clone() for tensor in patches.tensors])
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._found = self._once(self._fixed, search=False)  # a search would wait
        except RuntimeError as error:  # too little memory, too
            Step.can_record = False
            self._stay_unrecorded(str(error.__context__ or error))
        else:
            self._graph = graph

    def _stay_unrecorded(self, why: str) -> None:
        self._records = False
        warnings.warn(
            f"steps cannot be recorded, and take longer, kernel by kernel: {why}", stacklevel=2
        )


def is_recordable(loss: LossFunction, network: nn.Module) -> bool:
    """Whether loss and network compute the same kernels on whatever they are given.

    What is the user's own does so by its own word, an attribute ``recordable``.
    """
    if isinstance(loss, Imported) and not getattr(loss.function, "recordable", False):
        return False
    return getattr(network, "recordable", False)


def _raise_on_waiting(mode: str | int) -> None:
    with warnings.catch_warnings():  # it is called a prototype
        warnings.filterwarnings("ignore", "Synchronization debug mode")
        torch.cuda.set_sync_debug_mode(mode)
