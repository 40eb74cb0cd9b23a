"""Augmentations of the user's own, found by import path and tried once before they train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lesion_core.augment.kinds import AFFINE, FLIP, Augmentation, Drawn
from lesion_core.own_code import import_own, instantiated, one_line, refuse_changed

WHAT = "augmentation"


@dataclass(frozen=True, kw_only=True)
class ImportedAugmentation(Augmentation):
    """An augmentation of the user's own: ``my_aug:Name``, a class, or an instance.

    It needs ``draw(number, channels, patch_size, generator)`` and ``__call__(images, drawn)`` as
    `Augmentation` has them, and need not inherit from it.  On a GPU its steps are launched kernel
    by kernel, unless it has a true attribute ``recordable``.
    """

    name: ClassVar[str] = "imported"
    path: str
    """module:attribute; the module is looked for in the current directory first."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """What a class is instantiated with; plain JSON values."""
    own: Any = field(init=False, repr=False, compare=False)
    source_sha256: str | None = field(init=False, repr=False)
    """Hash of the module's file: other code is another augmentation."""

    def __post_init__(self) -> None:
        found, source_sha256 = import_own(self.path, WHAT)
        own = instantiated(found, self.arguments, WHAT, self.path)
        if not (callable(own) and callable(getattr(own, "draw", None))):
            raise ValueError(
                f"{WHAT} {self.path} is a {type(own).__name__}; expected an object with "
                "draw(number, channels, patch_size, generator) that is called with (images, drawn)"
            )
        object.__setattr__(self, "own", own)
        object.__setattr__(self, "source_sha256", source_sha256)
        self.try_on(channels=2, patch_size=16)

    def try_on(self, channels: int, patch_size: int) -> None:
        """Raise ValueError unless two patches of this form come back as such, and equal generators
        give equal patches."""
        _try_once(self.path, self.own, channels, patch_size)

    @property
    def recordable(self) -> bool:
        """By the word of its author."""
        return bool(getattr(self.own, "recordable", False))

    def draw(
        self, number: int, channels: int, patch_size: int, generator: torch.Generator
    ) -> Drawn:
        return self.own.draw(number, channels, patch_size, generator)

    def __call__(self, images: Tensor, drawn: Drawn) -> Tensor:
        return self.own(images, drawn)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the hash of the source."""
        return {
            "import": self.path,
            "fields": dict(self.arguments),
            "source_sha256": self.source_sha256,
        }

    def check(self, stored: Mapping[str, Any]) -> None:
        """Raise ValueError if ``stored``, what `to_dict` gave, is of other code."""
        refuse_changed(WHAT, self.path, self.source_sha256, stored.get("source_sha256"))


def _try_once(path: str, own: Any, channels: int, size: int) -> None:
    number = 2
    images = torch.rand(number, channels, size, size, size, generator=torch.Generator())
    found = []
    for _ in range(2):
        try:
            drawn = own.draw(number, channels, size, torch.Generator().manual_seed(1))
            _check_drawn(path, drawn, number)
            found.append((drawn, own(images.clone(), drawn)))
        except ValueError:
            raise
        except Exception as error:  # a user's code can fail in any way
            raise ValueError(
                f"{WHAT} {path} failed on two patches of shape {[channels, *3 * [size]]}: "
                f"{one_line(error)}"
            ) from error
    (drawn, changed), (drawn_again, changed_again) = found
    if not (isinstance(changed, Tensor) and changed.shape == images.shape):
        got = list(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise ValueError(
            f"{WHAT} {path} made {got} of images {list(images.shape)}; expected the same shape"
        )
    if changed.dtype != images.dtype or not changed.isfinite().all():
        raise ValueError(f"{WHAT} {path}: expected finite float32 images, got {changed.dtype}")
    alike = all(drawn_again[key].equal(value) for key, value in drawn.items())
    if not (alike and changed.equal(changed_again)):
        raise ValueError(
            f"{WHAT} {path} gave two outcomes for one state of its generator; expected all random "
            "numbers to be drawn in draw(), from its generator alone"
        )


def _check_drawn(path: str, drawn: Any, number: int) -> None:
    is_fit = isinstance(drawn, dict) and all(
        isinstance(value, Tensor) and value.shape[:1] == (number,) for value in drawn.values()
    )
    if not is_fit:
        raise ValueError(
            f"{WHAT} {path}: draw() gave {type(drawn).__name__}; expected a dict of tensors "
            f"[{number}, ...]"
        )
    wanted = {FLIP: (torch.bool, (number,)), AFFINE: (torch.float32, (number, 3, 3))}
    for name, (dtype, shape) in wanted.items():
        if name in drawn and (drawn[name].dtype, tuple(drawn[name].shape)) != (dtype, shape):
            raise ValueError(
                f"{WHAT} {path}: draw() gave {name} as {drawn[name].dtype} "
                f"{list(drawn[name].shape)}; expected {dtype} {list(shape)}"
            )
