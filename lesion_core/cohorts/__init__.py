"""Where a cohort's images lie on disk: one frozen dataclass per folder layout.

A cohort is read from ``data/<name>/``.  Nothing is opened here but folders and small text files:
`images` reads and checks the voxels.  To add a layout, write a file with its class (`case.Layout`
says what it must have) and put the class in ``named.Cohort``; a cohort with a name of its own also
goes into ``named.COHORTS``.

    python -m lesion_core.cohorts check DATA     every case checked, and Table 1
    python -m lesion_core.cohorts folds DATA     who is tested with whom
"""

from lesion_core.cohorts.bids import Bids
from lesion_core.cohorts.case import BrainRule, Case, Dataset, Layout
from lesion_core.cohorts.files import natural_key
from lesion_core.cohorts.folder import Folder
from lesion_core.cohorts.lit import Lit
from lesion_core.cohorts.named import (
    COHORTS,
    LAYOUTS,
    PREPARED,
    PUBLIC,
    Cohort,
    brain_methods,
    cohort_from_dict,
    cohort_named,
    cohort_to_dict,
    cohorts_found,
    dataset_spellings,
)
from lesion_core.cohorts.nnunet import NnUnet
from lesion_core.cohorts.reading import Reading, ReadingInSpace
from lesion_core.cohorts.simulated import Simulated
from lesion_core.cohorts.wmh2017 import Wmh2017, wmh_brain_place, wmh_cases

__all__ = [
    "COHORTS",
    "LAYOUTS",
    "PREPARED",
    "PUBLIC",
    "Bids",
    "BrainRule",
    "Case",
    "Cohort",
    "Dataset",
    "Folder",
    "Layout",
    "Lit",
    "NnUnet",
    "Reading",
    "ReadingInSpace",
    "Simulated",
    "Wmh2017",
    "brain_methods",
    "cohort_from_dict",
    "cohort_named",
    "cohort_to_dict",
    "cohorts_found",
    "dataset_spellings",
    "natural_key",
    "wmh_brain_place",
    "wmh_cases",
]
