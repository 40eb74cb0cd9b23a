"""Masks of a sweep's own test cases, each by networks that never saw it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.paths import is_folder, read_json, readable, refuse_existing
from lesion_core.received import inside, is_plain
from lesion_core.segmentation.networks import load_network, trained_settings
from lesion_core.settings import Precision, TrainSettings

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used: --help needs none
    import numpy as np
    from torch import nn

    from lesion_core.cohorts import Case, Cohort
    from lesion_core.images import Image, LoadedCohort

PREDICTIONS = "predictions"
"""Folder of the masks in a results folder."""

OTHER_FILES = (
    "{}: these are not the files that {} was trained on; point --data at the ones that were"
)

CURE = "have it replaced by --overwrite, or choose another folder with --out"


def predict_image(network: nn.Module, image: Image, settings: TrainSettings) -> np.ndarray:
    """Lesion probability on the whole image's grid, 0 outside the brain box.  ``[X, Y, Z]``

    The grid is that of the resampled image, if it is one; `resampling.Grid.back` undoes that.
    """
    import numpy as np

    from lesion_core.evaluate import predict_volume

    box = tuple(slice(a, a + n) for a, n in zip(image.origin, image.box_shape, strict=True))
    whole = np.zeros(image.shape, dtype=np.float32)
    whole[box] = predict_volume(
        network,
        image.voxels,
        patch_size=settings.patch_size,
        stride=settings.window_stride,
        batch_size=settings.batch_size,
        precision=settings.precision,
    )
    return whole


def predict_tested(
    results: Path,
    data: Path,
    *,
    out: Path | None = None,
    trials: Sequence[str] = (),
    threshold: float | None = None,
    min_lesion_mm3: float | None = None,
    probabilities: bool = False,
    overlay: bool = False,
    device: str | None = None,
    precision: Precision | None = None,
    overwrite: bool = False,
    own_network: str = "",
) -> Iterator[Path]:
    """Write ``OUT/<trial>/<case>.nii.gz``; yields every file as it is written.

    `predict.Predict` says what the arguments are; without ``threshold`` and ``min_lesion_mm3`` they
    are each trial's own.  Volumes are those of the files' voxels.

    Raises:
        ValueError: no such sweep or trial, an incomplete trial, data that have changed, a
            precision that the device does not have, or a mask that is there already.
    """
    import numpy as np

    from lesion_core.cohorts import cases_as_read
    from lesion_core.images import load_cohort
    from lesion_core.metrics import without_small
    from lesion_core.nifti import read_header, write_like
    from lesion_core.resampling import Grid
    from lesion_core.results import read_meta, read_model
    from lesion_core.segmentation.ensemble import usable_device
    from lesion_core.training.precision import check_precision

    device = usable_device(device)
    meta = read_meta(results)
    names = _complete(results, meta, trials)
    loaded: dict[str, LoadedCohort] = {}
    if not overwrite:
        _refuse_existing(out or results / PREDICTIONS, names)
    for name in names:
        folder = results / "trials" / name
        config = read_json(folder / "trial.json")["config"]
        cohort = config["cohort"]
        definition = cohort_of(results, meta, cohort)
        if cohort not in loaded:
            loaded[cohort] = load_cohort(definition, data)
        if loaded[cohort].fingerprint != config["fingerprint"]:
            raise ValueError(OTHER_FILES.format(data / cohort, name))
        settings = trained_settings(folder, config["settings"])
        if precision is not None:
            settings = replace(settings, precision=precision)
        members = {case.id: case for case in cases_as_read(definition, data)}
        check_precision(settings.precision, device)
        try:
            network = load_network(read_model(folder), device, own_network=own_network)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        held_out = held_out_cases(name, config, [image.case for image in loaded[cohort].images])
        for image in loaded[cohort].images:
            if image.case in held_out:
                probability = predict_image(network, image, settings)
                case = members[image.case]
                source = read_header(next(iter(case.channels.values())))
                voxels = Grid.of(source, case.spacing_mm).back(probability)
                cut = settings.threshold if threshold is None else threshold
                smallest = settings.min_lesion_mm3 if min_lesion_mm3 is None else min_lesion_mm3
                voxel_mm3 = abs(float(np.linalg.det(source.affine[:3, :3])))
                mask = without_small(voxels >= cut, smallest, voxel_mm3)
                path = _place(results, out, name, image.case)
                write_like(path, voxels if probabilities else mask.astype(np.uint8), source)
                yield path
                if overlay:
                    yield _write_overlay(path, case, mask)


def _write_overlay(path: Path, case: Case, mask: np.ndarray) -> Path:
    """The picture beside a mask or a probability; a single network disagrees with nobody."""
    import numpy as np

    from lesion_core.nifti import finite_values, read
    from lesion_core.results import write_bytes
    from lesion_core.segmentation.overlay import overlay_png, shown_channel

    image = read(case.channels[shown_channel(tuple(case.channels))])
    place = path.with_name(path.name.removesuffix(".nii.gz") + "_overlay.png")
    nobody = np.zeros(mask.shape, np.float32)
    write_bytes(place, overlay_png(finite_values(image), mask, nobody, image.affine))
    return place


def held_out_cases(name: str, config: Mapping[str, Any], cases: Sequence[str]) -> set[str]:
    """The cases that a trial is judged on, which its network never saw.

    Args:
        name: of the trial, for people.
        config: of its trial.json.
        cases: of the cohort, in its order.

    Raises:
        ValueError: there is no such fold.
    """
    from lesion_core.folds import test_folds

    if not 0 <= config["fold"] < config["num_folds"] <= len(cases):
        raise ValueError(
            f"{name}: fold {config['fold']} of {config['num_folds']} for {len(cases)} cases"
        )
    usual = test_folds(cases, config["num_folds"])[config["fold"]]
    # A search's trial was judged on validation cases, and leaves the test cases alone.
    return set(config.get("validation_cases") or config.get("test_cases", usual))


def _refuse_existing(out: Path, names: Sequence[str]) -> None:
    """Raise ValueError if the folder of a trial's masks holds any, before anything is written."""
    for name in names:
        if not is_folder(out / name):
            refuse_existing(out / name, CURE)
            continue
        with readable(out / name):
            found = sorted(path for path in (out / name).iterdir() if path.name[0] != ".")
        for path in found:
            refuse_existing(path, CURE)


def cohort_of(results: Path, meta: dict[str, Any], name: str) -> Cohort:
    """The cohort of this name as sweep.json defines it; ValueError if it defines another."""
    from lesion_core.cohorts import cohort_from_dict

    entry = (meta.get("cohorts") or {}).get(name) or {}
    if not isinstance(entry.get("definition"), dict):
        raise ValueError(f"{results / 'sweep.json'}: does not say what cohort {name} is")
    cohort = cohort_from_dict(entry["definition"])
    if cohort.name != name:
        raise ValueError(f"{results / 'sweep.json'}: cohort {name} is defined as {cohort.name}")
    return cohort


def _place(results: Path, out: Path | None, trial: str, case: str) -> Path:
    """Where a case's mask goes; a link inside the results folder is not followed."""
    if not is_plain(case):
        raise ValueError(f"case {case!r} cannot be the name of a file")
    place = Path(trial, f"{case}.nii.gz")
    if out is None:
        return inside(results, PREDICTIONS / place)
    return inside(out, place)


def _complete(results: Path, meta: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    from lesion_core.results import trial_status

    rows = {trial["name"]: trial for trial in meta["trials"]}

    def status(name: str) -> str:
        if not is_plain(name):
            return "missing"
        return trial_status(results / "trials" / name, rows.get(name))["status"]

    asked = [name for name, trial in rows.items() if trial.get("split", "test") == "test"]
    for name in wanted:
        if (found := status(name)) != "done":
            raise ValueError(f"trial {name} is {found}; expected a complete one of {results}")
    done = [name for name in asked if status(name) == "done"]
    if not done:
        raise ValueError(f"{results}: no trial is complete yet")
    return list(wanted) or done
