"""What several networks predict on one image: windows cut once, results a few planes at a time.

Nothing here grows with windows times networks: of every network there is a slab of one window's
depth, which moves through the image.  One network's values are those of stitching all windows at
once (`windows.WindowGrid.stitch`), to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lesion_core.training.precision import autocast, convolutions
from lesion_core.windows import WindowGrid


@torch.no_grad()
def planes(
    networks: Sequence[nn.Module],
    image: np.ndarray,
    *,
    patch_size: int,
    stride: int,
    batch_size: int,
    precision: str,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Lesion probabilities of an image ``[C, X, Y, Z]`` from x = 0 on: which planes, and
    ``[networks, planes, Y, Z]`` float32 on the networks' device.

    Images smaller than a window are padded with 0, the mean of the brain.  ``on_batch(done, of)``
    hears of windows.
    """
    device = next(networks[0].parameters()).device
    grid = WindowGrid.of(image.shape[1:], patch_size, stride)
    values = torch.from_numpy(np.ascontiguousarray(image))
    padded = values if grid.padded == image.shape[1:] else torch.zeros((len(image), *grid.padded))
    if padded is not values:
        padded[(slice(None), *grid.inside)] = values
    padded = padded.to(device)
    starts = grid.windows()
    columns = len(grid.starts[2])
    slabs = [_Slab(grid, device) for _ in networks]
    waiting: list[list[Tensor]] = [[] for _ in networks]
    have = line = 0
    for at in range(0, len(starts), batch_size):
        batch = starts[at : at + batch_size]
        inputs = torch.stack([padded[_window(start, patch_size)] for start in batch])
        for network, parts in zip(networks, waiting, strict=True):
            with convolutions(precision), autocast(device, precision):
                logits = network(inputs)
            parts.append(torch.sigmoid(logits[:, 0].float()))
        have += len(batch)
        while have >= columns:  # all windows of one x and y
            here = [torch.cat(parts) for parts in waiting]
            for slab, windows in zip(slabs, here, strict=True):
                slab.add_line(windows[:columns], line)
            waiting = [[windows[columns:]] for windows in here]
            have, line = have - columns, line + 1
            if line % len(grid.starts[1]) == 0:
                yield from _finished(grid, slabs, line // len(grid.starts[1]))
        if on_batch is not None:
            on_batch(min(at + batch_size, len(starts)), len(starts))


class _Slab:
    """Sums of one network's windows, over the planes of one row of windows."""

    def __init__(self, grid: WindowGrid, device: torch.device) -> None:
        self.grid = grid
        _, y, z = grid.padded
        self.total = torch.zeros((grid.patch_size, y, z), device=device)
        self.row = torch.zeros_like(self.total)

    def add_line(self, windows: Tensor, line: int) -> None:
        """Add the windows of one x and y, ``[n, p, p, p]``; in the order of `WindowGrid.stitch`."""
        p = self.grid.patch_size
        merged = windows.new_zeros((p, p, self.grid.padded[2]))
        for window, start in zip(windows, self.grid.starts[2], strict=True):
            merged.narrow(2, start, p).add_(window)
        at = line % len(self.grid.starts[1])
        if at == 0:
            self.row.zero_()
        self.row.narrow(1, self.grid.starts[1][at], p).add_(merged)
        if at == len(self.grid.starts[1]) - 1:
            self.total += self.row

    def move(self, planes: int) -> None:
        """Go on by so many planes."""
        kept = self.total[planes:].clone()
        self.total.zero_()
        self.total[: len(kept)] = kept


def _finished(
    grid: WindowGrid, slabs: Sequence[_Slab], rows: int
) -> Iterator[tuple[slice, Tensor]]:
    """The planes that no later row of windows reaches, cropped to the image."""
    p, starts = grid.patch_size, grid.starts[0]
    begin = starts[rows - 1]
    end = starts[rows] if rows < len(starts) else begin + p
    counts = [torch.zeros(size, device=slabs[0].total.device) for size in grid.padded]
    for count, axis in zip(counts, grid.starts, strict=True):
        for start in axis:
            count[start : start + p] += 1
    cover = counts[0][begin:end, None, None] * counts[1][:, None] * counts[2]
    inside, *across = grid.inside
    first, last = max(begin, inside.start), min(end, inside.stop)
    if first < last:
        part = slice(first - begin, last - begin)
        found = torch.stack([slab.total[part] for slab in slabs]).div_(cover[part])
        yield (
            slice(first - inside.start, last - inside.start),
            found[(slice(None), slice(None), *across)],
        )
    for slab in slabs:
        slab.move(end - begin)


def _window(start: np.ndarray, patch_size: int) -> tuple[slice, ...]:
    return (slice(None), *(slice(int(s), int(s) + patch_size) for s in start))
