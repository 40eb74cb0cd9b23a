"""A trial's numbers are those of the straightforward implementation."""

import numpy as np
import pytest
import torch

from lesion_core.evaluate import predict_volume
from lesion_core.folds import test_folds
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.training.randomness import generator
from lesion_core.trial import Trial, run
from lesion_core.unet import UNet3d
from sweeps.bench import plain
from tests.support.toy import toy_cohort

FILTERS = (8, 16, 16, 32)


def test_an_epoch_has_the_numbers_of_a_straightforward_implementation():
    cohort = toy_cohort()
    trial = Trial(
        cohort="toy", fingerprint=cohort.fingerprint, loss=LOSSES["new"], seed=3, fold=1,
        num_folds=2, settings=TrainSettings(epochs=1, patch_size=16, filters=FILTERS),
    )  # fmt: skip
    reports = []
    run(trial, cohort, on_epoch=reports.append)
    cases = [image.case for image in cohort.images]
    tested = test_folds(cases, 2)[1]
    training = [image for image in cohort.images if image.case not in tested]
    test = [image for image in cohort.images if image.case in tested]
    network = UNet3d(2, FILTERS).initialise(generator(3, 1, 0, "weights"))
    order = torch.randperm(
        len(plain.PatchDataset(training, 16)), generator=generator(3, 1, 1, "order")
    )
    twin = plain.plain_twin(network, filters=FILTERS)
    expected = plain.epoch(
        twin, torch.optim.Adam(twin.parameters(), lr=1e-4), trial.loss, training, test,
        order=order.tolist(), patch_size=16,
    )  # fmt: skip
    found = plain.numbers_of(reports[-1])
    assert found == pytest.approx(expected, rel=1e-4)
    assert found["train/patch/dice"] > 0


@pytest.mark.parametrize("predict", [plain.predict_with_monai, plain.predict_with_torchio])
def test_image_wise_prediction_equals_the_peers(predict):
    network = UNet3d(2, FILTERS).initialise(torch.Generator().manual_seed(0))
    image = torch.randn(2, 40, 53, 37, generator=torch.Generator().manual_seed(1))
    expected = predict(plain.plain_twin(network, filters=FILTERS), image)
    np.testing.assert_allclose(predict_volume(network, image), expected, atol=2e-6)
