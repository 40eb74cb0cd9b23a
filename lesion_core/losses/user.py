"""Losses of the user's own, found by import path and tried once before they train anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lesion_core.own_code import import_own, instantiated, one_line, refuse_changed


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A loss of the user's own, found by import path: ``my_losses:Tversky``.

    A class is instantiated (with ``arguments``, else its defaults); a function or an instance is
    used as it is.  It is tried once on a small batch, so that a mistake shows before training.

    On a GPU its steps are launched kernel by kernel, unless it has a true attribute ``recordable``,
    which says that it keeps nothing between calls and never reads a tensor's value
    (`training.step`).
    """

    path: str
    """module:attribute; the module is looked for in the current directory first."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """What a class is instantiated with; plain JSON values."""
    function: Callable[[Tensor, Tensor], Tensor] = field(init=False, repr=False, compare=False)
    source_sha256: str | None = field(init=False, repr=False)
    """Hash of the module's file: other code is another loss.  None if it has no source file."""

    def __post_init__(self) -> None:
        found, source_sha256 = import_own(self.path, "loss")
        function = instantiated(found, self.arguments, "loss", self.path)
        if not callable(function):
            raise ValueError(
                f"loss {self.path} is a {type(function).__name__}; expected a function (logits, "
                "target) -> scalar, or a class whose instances are such functions"
            )
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "source_sha256", source_sha256)
        _try_once(self.path, self.function)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)

    def __reduce__(self) -> tuple[Callable[..., Imported], tuple[dict[str, Any]]]:
        return Imported.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the hash of the source; `from_dict` undoes it."""
        return {
            "import": self.path,
            "fields": dict(self.arguments),
            "source_sha256": self.source_sha256,
        }

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Imported:
        """Import it again.

        Raises:
            ValueError: that fails, or the source has changed.
        """
        loss = Imported(path=stored["import"], arguments=dict(stored["fields"]))
        refuse_changed("loss", loss.path, loss.source_sha256, stored["source_sha256"])
        return loss


def _try_once(path: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Two patches of the paper's size must give a scalar that can be differentiated."""
    logits = torch.zeros(2, 1, 32, 32, 32, requires_grad=True)
    target = torch.zeros(2, 1, 32, 32, 32)
    target[:, :, :4, :4, :4] = 1
    try:
        with torch.enable_grad():
            value = function(logits, target)
    except Exception as error:  # a user's loss can fail in any way
        raise ValueError(
            f"loss {path} failed on logits and target of shape {list(logits.shape)}: "
            f"{one_line(error)}"
        ) from error
    if not isinstance(value, Tensor):
        raise ValueError(f"loss {path} returned a {type(value).__name__}; expected a scalar tensor")
    if value.ndim:
        raise ValueError(
            f"loss {path} returned a tensor of shape {list(value.shape)}; expected a scalar; did "
            "you mean its .mean()?"
        )
    if not value.requires_grad:
        raise ValueError(
            f"loss {path} returned a value without a gradient; expected one computed from the "
            "logits by torch operations, without .detach(), .item() or a threshold"
        )
