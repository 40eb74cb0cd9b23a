"""A cohort in memory that a narrow network learns in seconds: bright blobs in noise."""

import numpy as np
from scipy import ndimage

from lesion_core.images import Image, LoadedCohort
from lesion_core.metrics import components


def toy_image(case: str, seed: int, shape=(24, 20, 22), origin=(3, 2, 1), other=False) -> Image:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    lesion = field > np.quantile(field, 0.97)
    voxels = rng.normal(size=(2, *shape)).astype(np.float32)
    voxels[1] += 4 * lesion
    labels, number = components(lesion)
    return Image(
        case=case,
        site=f"site{seed % 2}",
        channels=("t1", "flair"),
        voxels=voxels,
        labels=labels.astype(np.uint16),
        num_lesions=number,
        lesion_outside_box=np.zeros((0, 4), dtype=np.int32),
        other=np.zeros(shape, dtype=bool) if other else None,
        brain=np.ones(shape, dtype=bool),
        shape=tuple(n + 6 for n in shape),
        origin=origin,
        spacing_mm=(1.0, 1.0, 3.0),
        affine=np.diag([1.0, 1, 3, 1]),
        left_right_axis=0,
        warnings=(),
    )


def toy_cohort(num_cases: int = 4) -> LoadedCohort:
    return LoadedCohort(
        name="toy",
        channels=("t1", "flair"),
        images=[toy_image(str(case), case) for case in range(num_cases)],
        fingerprint="f" * 64,
    )
