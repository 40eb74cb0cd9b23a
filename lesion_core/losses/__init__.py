"""What a network is trained to minimise: ``LOSSES``, and what names, stores and labels a loss.

formulas   the built-in losses, one frozen dataclass each
fields     what their hyper-parameters may be, and where a search looks for them
user       losses of the user's own, by import path
named      ``LOSSES``, and losses from and to names, JSON and labels
gradients  how hard a loss pulls on a voxel, by its probability

To add a loss, write its class in `formulas` and its line in ``named.LOSSES``.
"""

from lesion_core.losses.fields import Alpha, BuiltIn, Range, Reduction
from lesion_core.losses.formulas import (
    CrossEntropy,
    Dice,
    Focal,
    GeneralisedDice,
    Mixed,
    TopK,
    Tversky,
    WeightedCrossEntropy,
    WeightedGradient,
)
from lesion_core.losses.named import (
    LOSSES,
    Loss,
    loss_from_dict,
    loss_label,
    loss_named,
    loss_to_dict,
    search_space,
    with_values,
)
from lesion_core.losses.user import Imported
from lesion_core.settings import PAPER_LOSSES

__all__ = [
    "LOSSES",
    "PAPER_LOSSES",
    "Alpha",
    "BuiltIn",
    "CrossEntropy",
    "Dice",
    "Focal",
    "GeneralisedDice",
    "Imported",
    "Loss",
    "Mixed",
    "Range",
    "Reduction",
    "TopK",
    "Tversky",
    "WeightedCrossEntropy",
    "WeightedGradient",
    "loss_from_dict",
    "loss_label",
    "loss_named",
    "loss_to_dict",
    "search_space",
    "with_values",
]
