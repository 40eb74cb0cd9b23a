"""On simulated brains every loss learns, and `new` finds more lesion, as in the paper.

The demo's cohort, network and steps; six epochs, since cross-entropy predicts no lesion at all
before the fourth.  Two minutes.
"""

import pandas as pd
import pytest

from lesion_core.images import load_cohort
from lesion_core.losses import LOSSES, PAPER_LOSSES
from lesion_core.results import rates
from lesion_core.trial import Trial, run
from sweeps.paper_grid import DEMO, DEMO_GRID


@pytest.fixture(scope="module")
def last_and_untrained(tmp_path_factory):
    """Mean test rates by loss: (last epoch, epoch 0)."""
    data = tmp_path_factory.mktemp("data")
    (demo,) = DEMO_GRID.cohort_objects()
    cohort = load_cohort(demo, data)
    settings = type(DEMO_GRID.settings()).from_dict(DEMO_GRID.settings().to_dict() | {"epochs": 6})
    found = {}
    for name in PAPER_LOSSES:
        trial = Trial(
            cohort=DEMO, fingerprint=cohort.fingerprint, loss=LOSSES[name], seed=42, fold=0,
            num_folds=2, settings=settings,
        )  # fmt: skip
        means = {}

        def keep(report, means=means):
            rows = pd.DataFrame([row for row in report.cases if row["split"] == "test"])
            means[report.epoch] = rates(rows).mean(skipna=False)

        run(trial, cohort, threads=2, on_epoch=keep)
        found[name] = (means[6], means[0])
    return found


@pytest.mark.slow
def test_every_loss_segments_better_than_untrained(last_and_untrained):
    for name, (last, untrained) in last_and_untrained.items():
        assert last["dice"] > untrained["dice"] + 0.05, name


@pytest.mark.slow
def test_new_is_more_sensitive_than_cross_entropy_and_focal1(last_and_untrained):
    sensitivity = {name: last["sensitivity"] for name, (last, _) in last_and_untrained.items()}
    assert sensitivity["new"] > sensitivity["xent"] + 0.1
    assert sensitivity["new"] > sensitivity["focal1"] + 0.1
