"""Windows without lesion are drawn from those that may be, equally often, by the cell alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lesion_core.images import Image
from lesion_core.patches import Volumes
from lesion_core.settings import TrainSettings
from lesion_core.training.background import Background
from lesion_core.training.randomness import generator
from tests.support.toy import toy_image


def image(number: int, **changes: np.ndarray) -> Image:
    """A lesion in one corner; half of the box is brain."""
    made = toy_image(str(number), number)
    labels = np.zeros(made.box_shape, np.uint16)
    labels[1, 1, 1] = 1
    brain = np.zeros(made.box_shape, bool)
    brain[:12] = True
    return replace(made, **({"labels": labels, "num_lesions": 1, "brain": brain} | changes))


def background(share: float, *images: Image, flip: bool = True):
    volumes = Volumes.of(images, patch_size=8, stride=4)
    training = list(range(len(images)))
    settings = TrainSettings(patch_size=8, filters=(8, 16), background_windows=share, flip=flip)
    patches = volumes.training_patches(training, flip)
    return Background.of(volumes, images, training, settings), patches, volumes


def test_only_windows_with_brain_and_without_lesion_may_be_drawn() -> None:
    made = image(0)
    ignore = np.zeros(made.box_shape, bool)
    ignore[:8, 8:] = True
    found, _, volumes = background(0.5, replace(made, ignore=ignore))
    windows = volumes.windows(0).start.tolist()
    drawn = found.windows.start.tolist()
    for window in windows:
        part = tuple(slice(a, a + 8) for a in window)
        may = (made.brain[part] & ~ignore[part]).any() and not made.lesion[part].any()
        assert (window in drawn) == may
    assert 0 < len(drawn) < len(windows)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_an_epoch_keeps_its_windows_with_lesion_and_has_the_share(share: float, flip: bool) -> None:
    found, patches, volumes = background(share, image(0), image(1), flip=flip)
    seen = found.joined(patches, generator(1, 0, 1, "background"))
    assert all(
        a.equal(b) for a, b in zip(seen[: len(patches)].tensors, patches.tensors, strict=True)
    )
    _, target = volumes.gather(seen)
    with_lesion = target.flatten(1).any(1)
    assert int(with_lesion.sum()) == len(patches)
    assert (len(seen) - len(patches)) / len(seen) == pytest.approx(share, abs=1 / len(seen))
    extra = seen[len(patches) :]
    half = len(extra) // 2
    if flip:
        assert extra[:half].mirrored.start.equal(extra[half:].start)
        assert not extra.flip[:half].any() and extra.flip[half:].all()
    times = Counter(map(tuple, torch.column_stack([extra.image, extra.start]).tolist()))
    each = (half if flip else len(extra)) / len(found.windows)
    assert set(times.values()) <= {n * (1 + flip) for n in (int(each), int(each) + 1)}


def test_draws_are_a_cells_and_an_epochs() -> None:
    found, patches, _ = background(0.5, image(0), image(1))

    def drawn(*key: int) -> torch.Tensor:
        return found.joined(patches, generator(*key, "background")).start

    assert drawn(1, 0, 1).equal(drawn(1, 0, 1))
    assert not drawn(1, 0, 1).equal(drawn(1, 0, 2))


def test_none_is_the_papers_and_too_few_is_one_line() -> None:
    found, patches, _ = background(0.0, image(0))
    assert found.joined(patches, torch.Generator()) is patches
    everywhere = np.ones(image(0).box_shape, np.uint16)
    with pytest.raises(ValueError, match="every window with brain has a lesion in the 1 training"):
        background(0.5, image(0, labels=everywhere))
