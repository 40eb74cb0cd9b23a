"""New patients one after the other: images read, segmented, and maps written where they lie.

Per case ``CASE.nii.gz`` (the mask), on request ``CASE_probability.nii.gz``, of several networks
``CASE_disagreement.nii.gz``, of a derived brain ``CASE_brain.nii.gz``, on request
``CASE_overlay.png``, and, last, ``CASE.json``: what was done, with which networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import lesion_core
from lesion_core.images import nonzero_brain
from lesion_core.metrics import without_small
from lesion_core.nifti import File, binary_mask, by, finite_values, read, read_on_grid, write_like
from lesion_core.paths import existing, existing_folder, is_there, refuse_existing
from lesion_core.placement import oddities_of
from lesion_core.progress import duration, progress_line
from lesion_core.received import inside
from lesion_core.results import write_bytes, write_json
from lesion_core.segmentation import bids_layout
from lesion_core.segmentation.cases import NewCase
from lesion_core.segmentation.ensemble import Ensemble, Maps
from lesion_core.segmentation.geometry import Brought, orientation_of
from lesion_core.segmentation.networks import SELECTOR
from lesion_core.segmentation.overlay import overlay_png, shown_channel
from lesion_core.segmentation.tested import CURE
from lesion_core.versions import installed_versions

BrainSource = Literal["mask", "derive", "nonzero"]
"""Of a case without a brain mask: refuse it, derive one, or take where images are not 0."""

SECONDS_BETWEEN_LINES = 10.0
"""Within a case, of how far it is."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be written, and how."""

    out: Path
    threshold: float = 0.5
    """Of the probability, from which on a voxel is lesion."""
    min_lesion_mm3: float = 0.0
    """Volume below which predicted lesions are left out."""
    probability: bool = False
    disagreement: bool = True
    overlay: bool = False
    """A picture of the slice with most lesion and disagreement."""
    brain: BrainSource = "mask"
    as_is: bool = False
    """Refuse a case that would have to be resampled."""
    bids: str = ""
    """Lay files out as BIDS derivatives with this desc label; empty: a file per map, flat."""
    sources: tuple[str, ...] = ()
    """Where the images come from, for BIDS."""

    def files(self, case: NewCase, networks: int) -> dict[str, Path]:
        """Where everything of a case goes, by what it is."""
        parts = {
            "mask": ".nii.gz",
            "probability": "_probability.nii.gz" if self.probability else "",
            "disagreement": "_disagreement.nii.gz" if self.disagreement and networks > 1 else "",
            "brain": "_brain.nii.gz" if self.brain == "derive" and case.brain is None else "",
            "overlay": "_overlay.png" if self.overlay else "",
            "record": ".json",
        }
        flat = {what: f"{case.id}{end}" for what, end in parts.items() if end}
        names = bids_layout.names(case, self.bids) if self.bids else flat
        return {what: inside(self.out, names[what]) for what in flat}

    def check(self, cases: Sequence[NewCase], networks: int, *, overwrite: bool) -> None:
        """Make sure that nothing is lost by writing.

        Raises:
            ValueError: two cases would write one file, an image that is to be read would be
                written over, or, unless that is wanted, anything else that is there.
        """
        if is_there(self.out):
            existing_folder(self.out, "a folder for the masks")
        if self.bids:
            bids_layout.check(cases, self.out)
        read_from = {
            path.resolve()
            for case in cases
            for path in (*case.channels.values(), case.brain)
            if path is not None
        }
        owners: dict[Path, str] = {}
        for case in cases:
            for path in self.files(case, networks).values():
                if not overwrite:
                    refuse_existing(path, CURE)
                if path.resolve() in read_from:
                    raise ValueError(f"{path}: is an image to be read; choose another --out")
                if owners.setdefault(path, case.id) != case.id:
                    raise ValueError(
                        f"{path}: is of case {owners[path]} and of {case.id}; rename one of them"
                    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case."""

    case: NewCase
    files: dict[str, Path] = field(default_factory=dict)
    """What was written, by what it is; empty: nothing."""
    failure: str = ""
    """Why it could not be segmented, in one line; empty: it was."""


def segment_cases(
    cases: Sequence[NewCase], ensemble: Ensemble, wanted: Wanted, say: Say
) -> Iterator[Outcome]:
    """Segment every case; one that cannot be used is an outcome like another.

    ``say`` hears lines for people: what was done to each case, how far it is, and time to go.
    """
    begun, total = time.monotonic(), len(cases)
    last_line = begun
    for number, case in enumerate(cases):
        if number:
            say(progress_line(number, total, time.monotonic() - begun))

        def on_progress(part: float, number: int = number, case: NewCase = case) -> None:
            nonlocal last_line
            now = time.monotonic()
            if now - last_line >= SECONDS_BETWEEN_LINES and part < 1:
                last_line, done = now, (number + part) / total
                left = duration((now - begun) * (1 - done) / done)
                say(f"{case.id}: {part:.0%} of {number + 1}/{total}, {left} to go")

        try:
            yield _segment_case(case, ensemble, wanted, say, on_progress)
        # PyTorch and ITK say out of memory, for one, by a RuntimeError.
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            say(f"{case.id}: failed: {reason}")
            yield Outcome(case=case, failure=reason)
    if total > 1:
        say(progress_line(total, total, time.monotonic() - begun))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """A case's images as they lie, opened one at a time."""

    case: NewCase
    first: File
    brought: Brought
    brain: np.ndarray
    """bool, on the grid that is used."""
    brain_source: str
    derived: np.ndarray | None
    """uint8, on the image's grid; None: not derived."""
    remarks: tuple[str, ...]

    def channel(self, path: Path) -> np.ndarray:
        """Intensities on the grid that is used."""
        file = self.first if path == self.first.path else read_on_grid(existing(path), self.first)
        return self.brought.image(finite_values(file))


def _segment_case(
    case: NewCase,
    ensemble: Ensemble,
    wanted: Wanted,
    say: Say,
    on_progress: Callable[[float], None],
) -> Outcome:
    if case.problem:
        raise ValueError(case.problem)
    found = _read(case, ensemble, wanted)
    for remark in found.remarks:
        say(f"{case.id}: {remark}")
    maps = ensemble.segment(
        [(str(path), lambda path=path: found.channel(path)) for path in case.channels.values()],
        found.brain,
        found.brought,
        str(case.brain or found.first.path),
        on_progress,
    )
    lesion = maps.probability >= wanted.threshold
    voxel_mm3 = abs(float(np.linalg.det(found.first.affine[:3, :3])))
    mask = without_small(lesion, wanted.min_lesion_mm3, voxel_mm3).astype(np.uint8)
    files = wanted.files(case, len(ensemble.choice.members))
    wanted.out.mkdir(parents=True, exist_ok=True)
    voxels: dict[str, np.ndarray | None] = {
        "probability": maps.probability,
        "disagreement": maps.disagreement,
        "brain": found.derived,
        "mask": mask,
    }
    files["record"].unlink(missing_ok=True)  # it speaks of what is about to be replaced
    for what, values in voxels.items():
        if what in files and values is not None:
            write_like(files[what], values, found.first)
    if "overlay" in files:
        shown = case.channels[shown_channel(tuple(case.channels))]
        image = found.first if shown == found.first.path else read_on_grid(shown, found.first)
        # Networks that saw little disagree most outside the brain, which no mask is about.
        in_brain = found.brought.back(found.brain.astype(np.float32)) >= 0.5
        shown_there = np.where(in_brain, maps.disagreement, np.float32(0))
        write_bytes(
            files["overlay"],
            overlay_png(finite_values(image), mask == 1, shown_there, found.first.affine),
        )
    record = _record(found, ensemble, wanted, maps, mask, files)
    if wanted.bids:
        _write_sidecars(wanted, ensemble, files, record)
    else:
        write_json(files["record"], record)
    return Outcome(case=case, files=files)


def _write_sidecars(
    wanted: Wanted, ensemble: Ensemble, files: dict[str, Path], record: dict[str, Any]
) -> None:
    """What BIDS wants beside maps, the mask's last."""
    place = wanted.out / bids_layout.DESCRIPTION
    if not is_there(place):
        write_json(place, bids_layout.description(wanted.sources, ensemble.choice.in_words))
    if "overlay" in files and not is_there(wanted.out / bids_layout.IGNORED):
        write_bytes(wanted.out / bids_layout.IGNORED, bids_layout.NO_PART_OF_BIDS)
    for what in files:
        if what not in ("mask", "record", "overlay"):
            beside = files[what].with_name(files[what].name.replace(".nii.gz", ".json"))
            write_json(beside, bids_layout.sidecar(what))
    write_json(files["record"], bids_layout.sidecar("mask") | {"Prediction": record})


def _read(case: NewCase, ensemble: Ensemble, wanted: Wanted) -> _Read:
    """Open a case's first image and its brain mask; what is done to it is said in words."""
    first = read(existing(next(iter(case.channels.values()))))
    training = ensemble.training
    brought = Brought.of(first.shape, first.affine, training, oriented=first.oriented)
    remarks = oddities_of([first])
    if training.orientation is None and training.smallest_mm is None:
        remarks.append("used as it lies: the results folder does not say how its images lay")
    elif brought.turned:
        remarks.append(
            f"axes turned from {orientation_of(first.affine)} to {training.orientation}, as in "
            "training, and back; exact"
        )
    if brought.grid.resampled:
        sides = by(np.linalg.norm(brought.grid.affine[:3, :3], axis=0).round(4))
        own = by(brought.before_mm)
        said = f"voxels of {own} mm, which the networks were not trained on"
        if wanted.as_is:
            raise ValueError(
                f"{first.path}: {said}; would be resampled to {sides} mm; leave out --as-is"
            )
        remarks.append(f"{said}: resampled to {sides} mm, and the maps taken back")
    derived = None
    if case.brain is not None:
        source = "given"
        labels = binary_mask(read_on_grid(existing(case.brain), first))
    elif wanted.brain == "nonzero":
        source = "nonzero"
        for path in case.channels.values():
            existing(path)
        cure = "leave out --brain nonzero, and give a mask or derive one with --brain derive"
        labels = nonzero_brain(case.channels.values(), first, cure).astype(np.uint8)
    elif wanted.brain == "derive":
        source, derived = _derived(first)
        labels = derived
        remarks.append("brain mask derived; look at CASE_brain.nii.gz: an error there moves all")
    else:
        raise ValueError(
            f"{first.path}: no brain mask beside it; give one (brain.nii.gz), have one derived "
            "with --brain derive, or say --brain nonzero if the images are skull-stripped"
        )
    return _Read(
        case=case,
        first=first,
        brought=brought,
        brain=brought.mask(labels) == 1,
        brain_source=source,
        derived=derived,
        remarks=tuple(remarks),
    )


def _derived(first: File) -> tuple[str, np.ndarray]:
    """How a brain mask is derived, and the mask."""
    from lesion_core.itk import as_array, as_itk
    from lesion_core.preparation import brain  # seconds to import, and only this needs it
    from lesion_core.preparation.registration import one_thread

    with one_thread():
        mask = as_array(brain.derive(as_itk(finite_values(first), first)))
    return brain.METHOD, np.ascontiguousarray(mask).astype(np.uint8)


def _record(
    found: _Read,
    ensemble: Ensemble,
    wanted: Wanted,
    maps: Maps,
    mask: np.ndarray,
    files: dict[str, Path],
) -> dict[str, Any]:
    """What CASE.json says.  Of the patient, no more than the names of the files that were given."""
    chosen, brought = ensemble.choice, found.brought
    voxel_ml = abs(float(np.linalg.det(found.first.affine[:3, :3]))) / 1000
    used_ml = abs(float(np.linalg.det(brought.grid.affine[:3, :3]))) / 1000
    lesion_voxels = int(np.count_nonzero(mask))
    return {
        "case": found.case.id,
        "images": {name: path.name for name, path in found.case.channels.items()},
        "files": {what: path.name for what, path in files.items() if what != "record"},
        "threshold": wanted.threshold,
        "min_lesion_mm3": wanted.min_lesion_mm3,
        "lesion_voxels": lesion_voxels,
        "lesion_ml": round(lesion_voxels * voxel_ml, 6),
        "highest_probability": round(float(maps.probability.max()), 6),
        "brain": found.brain_source,
        "brain_ml": round(int(np.count_nonzero(found.brain)) * used_ml, 3),
        "spacing_mm": {
            "image": [round(float(side), 6) for side in brought.before_mm],
            "used": [round(side, 6) for side in brought.spacing_mm],
        },
        "orientation": {
            "image": orientation_of(found.first.affine) if found.first.oriented else None,
            "used": orientation_of(brought.grid.affine) if found.first.oriented else None,
        },
        "resampled": brought.grid.resampled,
        "remarks": list(found.remarks),
        "disagreement": "standard deviation over the networks" if "disagreement" in files else None,
        "cohort": chosen.cohort,
        "loss": chosen.loss,
        "loss_params": chosen.loss_params,
        "seeds": chosen.seeds,
        "folds": chosen.folds,
        "selector": SELECTOR,
        "chosen": chosen.why,
        "networks": [
            {
                "trial": member.trial,
                "seed": member.seed,
                "fold": member.fold,
                "sha256": ensemble.sha256[member.trial],
            }
            for member in chosen.members
        ],
        "absent": list(chosen.absent),
        "precision": ensemble.precision,
        "device": ensemble.device,
        "versions": {"lesion_core": lesion_core.__version__}
        | installed_versions("torch", "numpy", "scipy", "nibabel", "SimpleITK"),
    }
