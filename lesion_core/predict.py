"""Trained trials -> NIfTI masks: ``python -m lesion_core.predict RESULTS --data DIR``.

Writes ``OUT/<trial>/<case>.nii.gz``, a uint8 mask on the grid of the case's own images, for the
test cases of each complete trial (each case is then predicted by networks that never saw it).
Where the sweep resampled its cases, probabilities are taken back to that grid before the threshold.
"""

from __future__ import annotations

from lesion_core import stopping

if __name__ == "__main__":
    stopping.hold()

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.flags import read_flags
from lesion_core.paths import is_folder, read_json, readable, refuse_existing
from lesion_core.received import inside, is_plain
from lesion_core.settings import Precision, TrainSettings
from lesion_core.terminal import print_anything

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used: --help needs none
    import numpy as np

    from lesion_core.cohorts import Cohort
    from lesion_core.images import Image, LoadedCohort
    from lesion_core.unet import UNet3d

PREDICTIONS = "predictions"
"""Folder of the masks in a results folder."""

MOST_WIDTH, MOST_LEVELS = 2**16, 16
MOST_WINDOW_VOXELS = 2**28
"""Limits of what a received file may ask for; the paper's 16 windows of 32^3 are 2^19 voxels."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Write the masks that trained trials predict, as NIfTI files."""

    results: Path
    """Results folder of a sweep."""
    data: Path = Path("data")
    """Folder that holds the sweep's cohorts."""
    out: Path | None = None
    """Where the masks go; default: predictions/ inside the results folder."""
    trials: tuple[str, ...] = ()
    """Names of trials; default: every complete one that is judged on its test cases."""
    probabilities: bool = False
    """Write the lesion probability (float32) instead of the mask."""
    device: str | None = None
    """Where to run the network: cpu, cuda, cuda:1; default: cuda if there is a GPU."""
    precision: Precision | None = None
    """Precision of the network's arithmetic; default: what it was trained in."""
    overwrite: bool = False
    """Replace masks that are there already."""


def load_network(model: bytes, device: str = "cpu") -> UNet3d:
    """The network in a trial's ``model.pt``.

    Raises:
        ValueError: the bytes are damaged, or are no network of ours.
    """
    import torch

    from lesion_core.saved import check_shapes, read_saved
    from lesion_core.unet import UNet3d, to_device

    what = "model.pt"
    state = read_saved(model, what)
    in_channels: Any = state.get("in_channels")
    filters: Any = state.get("filters")
    widths = [in_channels, *filters] if isinstance(filters, list | tuple) else [None]
    if not all(type(width) is int and 0 < width <= MOST_WIDTH for width in widths[:MOST_LEVELS]):
        raise ValueError(f"{what}: is damaged, or holds no network")
    with torch.device("meta"):  # takes no memory, whatever the file says
        expected = UNet3d(in_channels, filters[:MOST_LEVELS]).state_dict()
    weights = check_shapes(state.get("weights"), expected, what)
    network = UNet3d(in_channels, filters)
    network.load_state_dict(weights)
    return to_device(network, device).eval()


def predict_image(network: UNet3d, image: Image, settings: TrainSettings) -> np.ndarray:
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


def predict(options: Predict) -> Iterator[Path]:
    """Write the masks; yields every file as it is written.

    Raises:
        ValueError: no such sweep or trial, an incomplete trial, data that have changed, a
            precision that the device does not have, or a mask that is there already.
    """
    import numpy as np
    import torch

    from lesion_core.cohorts import cases_as_read
    from lesion_core.evaluate import THRESHOLD
    from lesion_core.folds import test_folds
    from lesion_core.images import load_cohort
    from lesion_core.nifti import read_header, write_like
    from lesion_core.resampling import Grid
    from lesion_core.results import read_meta, read_model
    from lesion_core.training.precision import check_precision

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    meta = read_meta(options.results)
    names = _complete(options.results, meta, options.trials)
    loaded: dict[str, LoadedCohort] = {}
    if not options.overwrite:
        _refuse_existing(options.out or options.results / PREDICTIONS, names)
    for name in names:
        folder = options.results / "trials" / name
        config = read_json(folder / "trial.json")["config"]
        cohort = config["cohort"]
        definition = _definition(options.results, meta, cohort)
        if cohort not in loaded:
            loaded[cohort] = load_cohort(definition, options.data)
        if loaded[cohort].fingerprint != config["fingerprint"]:
            raise ValueError(
                f"{options.data / cohort}: these are not the files that {name} was trained on; "
                "point --data at the ones that were"
            )
        settings = _settings(folder, config["settings"])
        if options.precision is not None:
            settings = replace(settings, precision=options.precision)
        members = {case.id: case for case in cases_as_read(definition, options.data)}
        check_precision(settings.precision, device)
        try:
            network = load_network(read_model(folder), device)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        cases = [image.case for image in loaded[cohort].images]
        if not 0 <= config["fold"] < config["num_folds"] <= len(cases):
            raise ValueError(
                f"{name}: fold {config['fold']} of {config['num_folds']} for {len(cases)} cases"
            )
        usual = test_folds(cases, config["num_folds"])[config["fold"]]
        # A search's trial was judged on validation cases, and leaves the test cases alone.
        held_out = set(config.get("validation_cases") or config.get("test_cases", usual))
        for image in loaded[cohort].images:
            if image.case in held_out:
                probability = predict_image(network, image, settings)
                case = members[image.case]
                source = read_header(next(iter(case.channels.values())))
                voxels = Grid.of(source, case.spacing_mm).back(probability)
                if not options.probabilities:
                    voxels = (voxels >= THRESHOLD).astype(np.uint8)
                path = _place(options, name, image.case)
                write_like(path, voxels, source)
                yield path


def _refuse_existing(out: Path, names: Sequence[str]) -> None:
    """Raise ValueError if the folder of a trial's masks holds any, before anything is written."""
    cure = "have it replaced by --overwrite, or choose another folder with --out"
    for name in names:
        if not is_folder(out / name):
            refuse_existing(out / name, cure)
            continue
        with readable(out / name):
            found = sorted(path for path in (out / name).iterdir() if path.name[0] != ".")
        for path in found:
            refuse_existing(path, cure)


def _definition(results: Path, meta: dict[str, Any], name: str) -> Cohort:
    """The cohort of this name as sweep.json defines it; ValueError if it defines another."""
    from lesion_core.cohorts import cohort_from_dict

    entry = (meta.get("cohorts") or {}).get(name) or {}
    if not isinstance(entry.get("definition"), dict):
        raise ValueError(f"{results / 'sweep.json'}: does not say what cohort {name} is")
    cohort = cohort_from_dict(entry["definition"])
    if cohort.name != name:
        raise ValueError(f"{results / 'sweep.json'}: cohort {name} is defined as {cohort.name}")
    return cohort


def _settings(folder: Path, stored: dict[str, Any]) -> TrainSettings:
    """A trial's settings; ValueError if they cannot be, or need more memory than any of ours."""
    try:
        settings = TrainSettings.from_dict(stored)
        window_voxels = settings.batch_size * settings.patch_size**3
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'trial.json'}: settings cannot be used ({error})") from None
    if not (type(window_voxels) is int and window_voxels <= MOST_WINDOW_VOXELS):
        raise ValueError(
            f"{folder / 'trial.json'}: batch_size x patch_size^3 is {window_voxels}; expected "
            f"{MOST_WINDOW_VOXELS} at most"
        )
    return settings


def _place(options: Predict, trial: str, case: str) -> Path:
    """Where a case's mask goes; a link inside the results folder is not followed."""
    if not is_plain(case):
        raise ValueError(f"case {case!r} cannot be the name of a file")
    place = Path(trial, f"{case}.nii.gz")
    if options.out is None:
        return inside(options.results, PREDICTIONS / place)
    return inside(options.out, place)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0, or 2 and one line for what cannot be used."""
    import tyro

    print_anything()
    try:
        options = read_flags(Predict, arguments, config=(tyro.conf.PositionalRequiredArgs,))
        from lesion_core.training.memory import keep_freed_memory

        keep_freed_memory()
        for path in predict(options):
            print(path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    stopping.leave(stopping.run(main))
