"""What a training does to its patches before the network sees them: ``AUGMENTATIONS``, by name.

kinds      the built-in augmentations, one frozen dataclass each
spatial    how patches are turned and zoomed, as matrices
intensity  what is done to intensities, on whole batches
user       augmentations of the user's own, by import path
named      ``AUGMENTATIONS``, and augmentations from and to names
batch      a batch of patches with its random numbers

All random numbers of a batch come from (seed, fold, epoch, place of the batch in it) alone: every
loss of a cell sees the same images, and a training that goes on draws what it would have drawn.
"""

from lesion_core.augment.batch import Augmented, Augmenter
from lesion_core.augment.kinds import Augmentation, Flip, Standard
from lesion_core.augment.named import AUGMENTATIONS, augmentation_label, augmentation_named

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Augmented",
    "Augmenter",
    "Flip",
    "Standard",
    "augmentation_label",
    "augmentation_named",
]
