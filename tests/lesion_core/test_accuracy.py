"""What the fast paths cost in accuracy: nothing in fp32, less than another seed in bf16."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lesion_core.cohorts import Folder, Lit
from lesion_core.evaluate import predict_volume
from lesion_core.images import load_cohort
from lesion_core.losses import LOSSES
from lesion_core.results import rates
from lesion_core.trial import Trial, run
from lesion_core.unet import UNet3d
from sweeps.bench.plain import plain_twin, predict_with_monai
from sweeps.paper_grid import DEMO, DEMO_GRID

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.exists(), reason=f"no real cases in {SHARED}")
@pytest.mark.parametrize("cohort", [Folder(name="ms", channels=("t1", "flair")), Lit()])
def test_fp32_equals_the_float64_reference_on_real_images(cohort):
    """Each probability to 1e-4 of itself, down to 1e-5 and less, as trained networks give."""
    network = UNet3d().initialise(torch.Generator().manual_seed(0))
    network.head.weight.data *= 6
    reference = plain_twin(network).double()
    network.to(memory_format=torch.channels_last_3d)
    for image in load_cohort(cohort, SHARED).images:
        # Two windows around a lesion voxel.
        at = [
            min(max(0, centre - size // 2), whole - size)
            for centre, size, whole in zip(
                np.argwhere(image.lesion)[0], (48, 32, 32), image.lesion.shape, strict=True
            )
        ]
        window = tuple(slice(a, a + n) for a, n in zip(at, (48, 32, 32), strict=True))
        voxels = torch.from_numpy(image.voxels[:, *window].copy())
        expected = predict_with_monai(reference, voxels.double()).numpy()
        assert expected.min() < 1e-5
        np.testing.assert_allclose(predict_volume(network, voxels), expected, rtol=1e-4)


@pytest.mark.slow
def test_bf16_moves_dice_by_less_than_another_seed(tmp_path):
    """The demo's cohort and network; mean Dice of the test images after the last of eight epochs.

    Seen over six seeds, with bf16 and, for comparison, with fp32 on one thread instead of two,
    which changes nothing but the order of sums:

        loss   spread of seeds   bf16 - fp32: mean, rms   one thread - two: mean, rms
        dsc         0.031              +0.002  0.027            +0.005  0.022
        new         0.072              +0.047  0.104            +0.022  0.062

    A single training ends elsewhere, as after any other rounding; on average over seeds, six cannot
    tell the precisions apart.
    """
    (demo,) = DEMO_GRID.cohort_objects()
    cohort = load_cohort(demo, tmp_path)

    def dices(precision: str) -> np.ndarray:
        """After training with each seed."""
        settings = replace(DEMO_GRID.settings(), epochs=8, precision=precision)
        found = {}
        for seed in range(1, 7):
            trial = Trial(
                cohort=DEMO, fingerprint=cohort.fingerprint, loss=LOSSES["dsc"], seed=seed, fold=0,
                num_folds=2, settings=settings,
            )  # fmt: skip

            def keep(report, seed=seed):
                rows = pd.DataFrame([row for row in report.cases if row["split"] == "test"])
                found[seed] = rates(rows)["dice"].mean(skipna=False)

            run(trial, cohort, threads=2, on_epoch=keep)
        return np.array(list(found.values()))

    fp32, bf16 = dices("fp32"), dices("bf16")
    assert fp32.min() > 0.5  # they have learned
    assert not np.array_equal(fp32, bf16)
    assert abs((bf16 - fp32).mean()) < fp32.std(ddof=1)
