"""Which windows without lesion an epoch sees beside those with lesion.

The paper trains on windows with lesion alone, and so do our defaults; its section 4.3 sees in that
why scores on patches say little of scores on images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lesion_core.images import Image
from lesion_core.patches import Patches, Volumes
from lesion_core.settings import TrainSettings
from lesion_core.windows import WindowGrid


@dataclass(frozen=True)
class Background:
    """The windows that may be drawn, and how many of an epoch are.

    A window is one of the grid of windows that patches are cut by.  It may be drawn if it holds a
    brain voxel that is not ignored, and no lesion voxel.
    """

    windows: Patches
    number: int
    """Windows that are drawn for an epoch; mirrored as well, they are twice as many patches."""
    flip: bool

    @staticmethod
    def of(
        volumes: Volumes, images: Sequence[Image], training: Sequence[int], settings: TrainSettings
    ) -> Background:
        """Of the training images, for the share that the settings ask for.

        An epoch keeps its n windows with lesion, and gets share / (1 - share) n (rounded) without:
        1 / (1 - share) times as many in all.

        Raises:
            ValueError: some are asked for, and there is none.
        """
        share = settings.background_windows
        empty = volumes.windows(training[0])[:0]
        if not share:
            return Background(empty, 0, settings.flip)
        found, with_lesion = [empty], 0
        for index in training:
            may = torch.from_numpy(drawable(images[index], volumes.grids[index])).to(volumes.device)
            with_lesion += len(volumes.with_lesion(index))
            found.append(volumes.windows(index)[torch.nonzero(may)[:, 0]])
        windows = Patches.join(found)
        if not len(windows):
            raise ValueError(none_to_draw(share, len(training)))
        return Background(windows, round(share / (1 - share) * with_lesion), settings.flip)

    @property
    def num_patches(self) -> int:
        """How many patches they are in an epoch."""
        return self.number * (2 if self.flip else 1)

    def joined(self, patches: Patches, generator: torch.Generator) -> Patches:
        """An epoch's patches with lesion, and behind them those that the generator draws.

        None is drawn again before all have been: where more are asked for than there are, all are
        there equally often, but for once.  With ``flip`` each is there mirrored as well, as those
        with lesion are.
        """
        if not self.number:
            return patches
        total = len(self.windows)
        rounds = -(-self.number // total)
        order = torch.cat([torch.randperm(total, generator=generator) for _ in range(rounds)])
        drawn = self.windows[order[: self.number].to(patches.image.device)]
        return Patches.join([patches, drawn, *([drawn.mirrored] if self.flip else [])])


def drawable(image: Image, grid: WindowGrid) -> np.ndarray:
    """Which windows of an image hold a brain voxel that is not ignored, and no lesion voxel.

    bool ``[n]``, in the windows' order.
    """
    brain = image.brain if image.ignore is None else image.brain & ~image.ignore
    return (grid.counts(brain) > 0) & (grid.counts(image.lesion) == 0)


def none_to_draw(share: float, number: int) -> str:
    """What is wrong where so many training cases have no window without lesion."""
    return (
        f"background_windows {share:g}: every window with brain has a lesion in the {number} "
        "training cases; expected 0, or a smaller patch_size"
    )
