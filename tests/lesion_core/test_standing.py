"""The loss that is put first is the report's, whatever is missing; its mean is the ladder's."""

import numpy as np
import pytest

from analysis import report
from analysis.reading.scores import METRICS
from analysis.statistics.ladder import ladder
from analysis.statistics.order import best_first
from lesion_core.results import read_sweep
from lesion_core.standing import standings, weighed_mean
from sweeps.bench.fake_sweep import FakeSweep


def test_the_mean_is_that_of_the_ladder():
    rng = np.random.default_rng(0)
    for _ in range(50):
        fold_of = np.sort(rng.integers(0, 3, 9))
        subject_of = np.unique([fold_of, rng.integers(0, 5, 9)], axis=1, return_inverse=True)[1]
        scores = np.where(rng.random((4, 9)) < 0.1, np.nan, rng.random((4, 9)))
        for fold in range(3):
            scores[np.ix_(rng.random(4) < 0.2, fold_of == fold)] = np.nan
        fit, mean = ladder(scores, fold_of, subject_of), weighed_mean(scores, fold_of, subject_of)
        assert mean.value == pytest.approx(fit.estimate, abs=1e-12, nan_ok=True)
        assert (mean.cells, mean.subjects) == (fit.num_cells, fit.num_subjects)


HOLES = {
    ("wmh2017", "new", 1, 0): "missing",
    ("wmh2017", "dsc", 2, 1): "diverged",
    **{("wmh2017", "xent", seed, fold): "failed" for seed in (1, 2) for fold in (0, 1)},
}


@pytest.mark.parametrize(
    "options",
    [{}, {"status": HOLES}, {"sessions": 2, "empty_cases": 2}, {"collapsed": ("new", "dsc")}],
    ids=["whole", "holes", "sessions", "collapsed"],
)
def test_it_is_the_loss_that_the_report_puts_first(tmp_path, options):
    FakeSweep(
        num_cases=8, num_folds=2, seeds=(1, 2), epochs=2, pictures=False, **options
    ).write(tmp_path)  # fmt: skip
    sweep = read_sweep(tmp_path)
    (cohort,) = report.report_input(sweep, None, 0.01, False).cohorts
    scores = cohort.last_by_case(cohort.test)[..., METRICS.index("dice")]
    found = standings(sweep, "wmh2017")
    assert [one.loss for one in found] == [cohort.losses[i] for i in best_first(scores, cohort)]
    first = cohort.losses.index(found[0].loss)
    if not options:
        assert found[0].mean_dice == pytest.approx(np.nanmean(scores[first]))
        assert (found[0].cells, found[0].subjects) == (4, 8)
    assert standings(sweep, "lit") == []
