"""The library by example: a tiny trial on simulated brains, and a results folder as frames.

    python docs/example.py [RESULTS]

Half a minute on one core, without Ray, W&B or a ledger.  RESULTS is what a sweep has left, such as
results/demo after `make demo`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from lesion_core import LOSSES, Trial, predict_volume, read_sweep, run
from lesion_core.cohorts import Simulated
from lesion_core.images import LoadedCohort, load_cohort
from lesion_core.predict import load_network
from lesion_core.results import rates
from lesion_core.settings import TrainSettings


def train(cohort: LoadedCohort) -> bytes:
    """Train a narrow network for two epochs, and score it on the case that it never saw.

    Returns what a ledger keeps as the trial's model.pt.
    """
    trial = Trial(
        cohort=cohort.name,
        fingerprint=cohort.fingerprint,
        loss=LOSSES["dsc"],
        seed=42,
        fold=0,
        num_folds=3,
        settings=TrainSettings(
            epochs=2, batch_size=2, patch_size=16, filters=(8, 16), learning_rate=1e-2
        ),
    )
    reports = []
    run(trial, cohort, on_epoch=reports.append)
    for report in reports:
        for row in report.cases:
            if (row["split"], row["scope"]) == ("test", "image"):
                dice = 2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"])
                print(f"{trial.name}: epoch {report.epoch}, case {row['case']}, Dice {dice:.3f}")
    return reports[-1].final.model


def predict(cohort: LoadedCohort, model: bytes) -> None:
    """Predict a whole image; ``image.voxels`` are z-scores inside the brain, as in training."""
    image = cohort.images[0]
    network = load_network(model)
    lesion = predict_volume(network, image.voxels, patch_size=16, stride=8)
    print(f"case {image.case}: probabilities from {lesion.min():.2f} to {lesion.max():.2f}")


def read(results: Path) -> None:
    """Mean Dice of each loss over the test images of all complete trials, at the last epoch."""
    sweep = read_sweep(results)
    print(sweep.runs["status"].value_counts().to_string())
    tested = sweep.cases[(sweep.cases["split"] == "test") & (sweep.cases["scope"] == "image")]
    last = tested[tested["epoch"] == tested["epoch"].max()]
    print(rates(last)["dice"].groupby(last["loss"]).mean().round(3).to_string())


def main() -> None:
    with tempfile.TemporaryDirectory() as data:
        cohort = load_cohort(
            Simulated(name="tiny", num_cases=3, seed=1, voxel_scale=6.0), Path(data)
        )
    predict(cohort, train(cohort))
    for results in sys.argv[1:]:
        read(Path(results))


if __name__ == "__main__":
    main()
