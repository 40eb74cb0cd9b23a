"""Trained trials -> NIfTI masks: ``python -m lesion_core.predict RESULTS --data DIR``.

Writes ``OUT/<trial>/<case>.nii.gz``, a uint8 mask on the grid of the case's own images, for the
test cases of each complete trial (each case is then predicted by networks that never saw it).
Where the sweep resampled its cases, probabilities are taken back to that grid before the threshold.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.flags import read_flags
from lesion_core.paths import is_folder, read_json, readable, refuse_existing
from lesion_core.settings import Precision, TrainSettings
from lesion_core.terminal import print_anything

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used: --help needs none
    import numpy as np

    from lesion_core.images import Image, LoadedCohort
    from lesion_core.unet import UNet3d


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
    """The network in a trial's ``model.pt``."""
    import torch

    from lesion_core.unet import UNet3d, to_device

    state = torch.load(io.BytesIO(model), map_location="cpu", weights_only=True)
    network = UNet3d(state["in_channels"], state["filters"])
    network.load_state_dict(state["weights"])
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

    from lesion_core.cohorts import cases_as_read, cohort_from_dict
    from lesion_core.evaluate import THRESHOLD
    from lesion_core.folds import test_folds
    from lesion_core.images import load_cohort
    from lesion_core.nifti import read_header, write_like
    from lesion_core.resampling import Grid
    from lesion_core.results import read_meta
    from lesion_core.training.precision import check_precision

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    meta = read_meta(options.results)
    names = _complete(options.results, meta, options.trials)
    out = options.out or options.results / "predictions"
    loaded: dict[str, LoadedCohort] = {}
    if not options.overwrite:
        _refuse_existing(out, names)
    for name in names:
        folder = options.results / "trials" / name
        config = read_json(folder / "trial.json")["config"]
        cohort = config["cohort"]
        definition = cohort_from_dict(meta["cohorts"][cohort]["definition"])
        if cohort not in loaded:
            loaded[cohort] = load_cohort(definition, options.data)
        if loaded[cohort].fingerprint != config["fingerprint"]:
            raise ValueError(
                f"{options.data / cohort}: these are not the files that {name} was trained on; "
                "point --data at the ones that were"
            )
        settings = TrainSettings.from_dict(config["settings"])
        if options.precision is not None:
            settings = replace(settings, precision=options.precision)
        members = {case.id: case for case in cases_as_read(definition, options.data)}
        check_precision(settings.precision, device)
        network = load_network((folder / "model.pt").read_bytes(), device)
        cases = [image.case for image in loaded[cohort].images]
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
                path = out / name / f"{image.case}.nii.gz"
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


def _complete(results: Path, meta: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    from lesion_core.results import trial_status

    asked = [t["name"] for t in meta["trials"] if t.get("split", "test") == "test"]
    for name in wanted:
        status = trial_status(results / "trials" / name)["status"]
        if status != "done":
            raise ValueError(f"trial {name} is {status}; expected a complete one of {results}")
    done = [n for n in asked if trial_status(results / "trials" / n)["status"] == "done"]
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
    sys.exit(main())
