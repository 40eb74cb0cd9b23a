"""Results folders of networks that nobody trained: random weights, made-up scores, in no time."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lesion_core import results
from lesion_core.cohort_rows import describe
from lesion_core.cohorts import Cohort, cohort_to_dict
from lesion_core.images import load_cohort
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.training.randomness import generator
from lesion_core.trial import Trial
from lesion_core.unet import UNet3d

SETTINGS = TrainSettings(epochs=1, patch_size=8, filters=(8, 16))


def write_networks(
    path: Path,
    cohort: Cohort,
    data: Path,
    *,
    tp: Mapping[str, int],
    seeds: Sequence[int] = (1, 2),
    num_folds: int = 2,
    settings: TrainSettings = SETTINGS,
) -> list[Trial]:
    """A sweep over the losses in ``tp``: true positives, of 10 lesion voxels, in each test image;
    a later seed has one more.  Returns its trials."""
    loaded = load_cohort(cohort, data)
    trials = [
        Trial(
            cohort=cohort.name, fingerprint=loaded.fingerprint, loss=LOSSES[loss], seed=seed,
            fold=fold, num_folds=num_folds, settings=settings,
        )
        for loss in tp for seed in seeds for fold in range(num_folds)
    ]  # fmt: skip
    names = [image.case for image in loaded.images]
    for trial in trials:
        folder = path / "trials" / trial.name
        results.write_json(folder / "trial.json", trial.row() | {"config": trial.to_dict()})
        network = UNet3d(len(cohort.channels), settings.filters)
        network.initialise(generator(trial.seed, trial.fold, len(trial.loss_label), "weights"))
        write_weights(folder, network, settings)
        found = tp[trial.loss_label] + list(seeds).index(trial.seed)
        row = dict.fromkeys(results.CASES.names) | trial.identity
        row |= {"epoch": 1, "split": "test", "scope": "image", "site": "", "voxel_mm3": 1.0}
        row |= {"tp": found, "fp": 2, "fn": 10 - found, "tn": 100}
        rows = [row | {"case": case} for case in trial.tested(names)]
        clock = dict.fromkeys(results.EPOCHS.names) | trial.identity
        tables = {
            "cases.parquet": rows,
            "epochs.parquet": [clock | {"epoch": epoch} for epoch in range(2)],
        }
        for file, schema in results.TABLES.items():
            results.write_table(folder / file, tables.get(file, []), schema)
        results.write_json(folder / "done.json", {"epochs_done": 1, "trial": trial.name})
    cases, slices = describe(loaded)
    table = path / "cohorts" / cohort.name
    results.write_table(table / "cases.parquet", cases, results.COHORT_CASES)
    results.write_table(table / "slices.parquet", slices, results.COHORT_SLICES)
    meta = {
        "schema_version": results.SCHEMA_VERSION,
        "losses": list(tp),
        "trials": [trial.row() for trial in trials],
        "cohorts": {
            cohort.name: {
                "definition": cohort_to_dict(cohort),
                "channels": list(cohort.channels),
                "fingerprint": loaded.fingerprint,
            }
        },
    }
    results.write_json(path / "sweep.json", meta)
    return trials


def write_weights(folder: Path, network: UNet3d, settings: TrainSettings = SETTINGS) -> None:
    """A trial's model.pt."""
    buffer = io.BytesIO()
    in_channels = next(network.parameters()).shape[1]
    weights = {"filters": list(settings.filters), "weights": network.state_dict()}
    torch.save({"in_channels": in_channels} | weights, buffer)
    results.write_bytes(folder / results.MODEL, buffer.getvalue())
