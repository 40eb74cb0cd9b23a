"""The random numbers of a training, which its seed, fold and epoch alone decide."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def generator(seed: int, fold: int, epoch: int, purpose: str) -> torch.Generator:
    """The random numbers of one purpose: the same for every loss, and at any restart."""
    return torch.Generator().manual_seed(_state(seed, fold, epoch, purpose))


@contextmanager
def globally_seeded(seed: int, fold: int, epoch: int, purpose: str) -> Iterator[None]:
    """In this block, global generators give the random numbers of one purpose; afterwards they go
    on as if nothing had been.

    For what takes no generator: constructors of others' networks, and their dropout.  Python's,
    NumPy's, and PyTorch's on the CPU and, where one is in use, on the current GPU.
    """
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002, others'
    before_gpu = torch.cuda.get_rng_state() if on_gpu else None
    seed_globally(seed, fold, epoch, purpose)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
        if before_gpu is not None:
            torch.cuda.set_rng_state(before_gpu)


def seed_globally(seed: int, fold: int, epoch: int, purpose: str) -> None:
    """Begin the random numbers of a purpose in all global generators; inside `globally_seeded`."""
    state = _state(seed, fold, epoch, purpose)
    random.seed(state)
    np.random.seed(state % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(state)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed(state)


def _state(seed: int, fold: int, epoch: int, purpose: str) -> int:
    key = [seed, fold, epoch, zlib.crc32(purpose.encode())]
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return int(state) & (2**63 - 1)
