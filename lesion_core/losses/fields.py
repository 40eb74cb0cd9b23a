"""The fields of losses: what they may be, how they are checked, where a search looks for them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from lesion_core.own_code import did_you_mean
from lesion_core.search_space import Range

Alpha = float | Literal["patch"] | None
"""Weight of lesion voxels in [0, 1]; background voxels weigh 1 - alpha.  None: N_bg / N of the
batch, so that both classes weigh the same in total; "patch": N_bg / N of each patch."""

Reduction = Literal["patch", "batch"]
"""Where an overlap is measured: in each patch, then averaged; or once over the batch's voxels."""


@dataclass(frozen=True, kw_only=True)
class BuiltIn(ABC):
    """What every loss of `formulas` is: its fields, a name, and a function of a batch."""

    name: ClassVar[str]
    """Understood by `loss_named`, alone or with fields behind it."""

    @abstractmethod
    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch ``[B,1,X,Y,Z]``, a scalar."""


def searched(
    low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> dict[str, Range]:
    """Metadata of a field that a search varies, between these unless told otherwise."""
    return {"search": Range(low, high, open_low, open_high)}


def check_number(
    loss: BuiltIn,
    name: str,
    *,
    low: float = -math.inf,
    above: float = -math.inf,
    high: float = math.inf,
) -> None:
    """Store the field as a float, so that 2 and 2.0 are one loss; refuse what is out of range."""
    value = getattr(loss, name)
    number = isinstance(value, (int, float, np.integer, np.floating)) and type(value) is not bool
    if not (number and math.isfinite(value) and above < value and low <= value <= high):
        wanted = f"more than {above}" if above > -math.inf else f"{low} or more"
        if high < math.inf:
            wanted += f" and at most {high}"
        raise ValueError(f"loss {loss.name!r}: {name} is {value!r}; expected a number, {wanted}")
    object.__setattr__(loss, name, float(value))


def check_alpha(loss: BuiltIn, alpha: Alpha) -> None:
    """Refuse an ``alpha`` that is no `Alpha`; store a number as a float."""
    if isinstance(alpha, str) and alpha != "patch":
        raise ValueError(
            f"loss {loss.name!r}: alpha is {alpha!r}; expected a number from 0 to 1, None "
            "(N_bg / N of the batch) or 'patch' (of each patch)"
        )
    if alpha is not None and alpha != "patch":
        check_number(loss, "alpha", low=0, high=1)


def check_choice(loss: BuiltIn, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a field that is none of the choices."""
    value = getattr(loss, name)
    if value not in choices:
        raise ValueError(
            f"loss {loss.name!r}: {name} is {value!r}; expected one of {', '.join(choices)}"
            f"{did_you_mean(str(value), choices)}"
        )
