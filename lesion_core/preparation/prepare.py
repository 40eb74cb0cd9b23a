"""From a public download to a prepared cohort: ``python -m lesion_core.prepare lit SRC DATA``.

    lit SRC DATA        the Ljubljana longitudinal archive -> DATA/lit
    wmh2017 SRC DATA    the WMH challenge's training folders -> DATA/wmh2017
    brains COHORT DATA  brain masks for a cohort of your own in DATA, beside its images

All sources are checked before anything is computed, and a cohort appears whole or not at all.
``prepared.json`` beside the cases says what was done to each.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lesion_core.cohorts import (
    PREPARED,
    Case,
    Lit,
    Reading,
    ReadingInSpace,
    Wmh2017,
    dataset_spellings,
    natural_key,
    wmh_brain_place,
    wmh_cases,
)
from lesion_core.flags import add_flags, taken_from
from lesion_core.images import LARGEST_BRAIN_ML
from lesion_core.nifti import File, finite_values, mask_labels, read, read_on_grid
from lesion_core.preparation import brain
from lesion_core.preparation.registration import one_thread, read_transform, resample, rigid
from lesion_core.results import write_json

N4_MM = 3.0
"""N4 estimates the bias field on voxels of about this size; the field is far smoother than that."""

Say = Callable[[str], None]


# ------------------------------------------------------------------------------- longitudinal MS
@dataclass(frozen=True, kw_only=True)
class TimePoint:
    """One of the two FLAIR images of a patient, in the forms that the archive has it in."""

    common: Path | None
    """In the space of the masks, as the archive has it."""
    raw: Path | None
    """On the grid that it was acquired on."""
    transform: Path | None
    """From the common space to the raw one."""

    @property
    def unplaced(self) -> bool:
        """Whether the archive says nothing of how it lies in the common space."""
        return self.common is None and self.transform is None


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What the archive has of one patient."""

    id: str
    lesion: Path
    brain: Path
    studies: tuple[TimePoint, TimePoint]


def prepare_lit(
    source: Path,
    data: Path,
    *,
    exclude: Sequence[str] = (),
    derive_brain: bool = False,
    say: Say = print,
) -> Path:
    """Write ``data/lit``: FLAIR pairs in their common space, N4-corrected and skull-stripped.

    A co-registered FLAIR is used where there is one; else the raw one is resampled by its
    transform (cubic B-spline, clamped at 0); else it is aligned rigidly with the other study.
    Where neither is known to lie in the masks' space, one whose grid is theirs is taken to, the
    follow-up first.

    Args:
        source: the archive in the laboratory's layout (``patientX/patientX_*.nii.gz``) or the
            mirror's (``longitudinal/{raw,coregistered}/patientNN/``).
        data: folder that gets the folder ``lit``.
        exclude: patients to leave out, as numbers or names.  The paper leaves out the three
            without new or enlarging lesions, by labels that are not public.
        derive_brain: make a brain mask (`brain.derive`) where the archive's is larger than any
            brain.
        say: hears one line per event.

    Raises:
        ValueError: a source is missing or cannot be used.
    """
    patients = lit_patients(source)
    names = [patient.id for patient in patients]
    excluded = {_patient_id(name) for name in exclude}
    if unknown := sorted(excluded - set(names)):
        raise ValueError(
            f"--exclude {unknown[0]}: no such patient in {source}; there are {', '.join(names)}"
        )
    chosen = [patient for patient in patients if patient.id not in excluded]
    if not chosen:
        raise ValueError(f"--exclude leaves no patient of {source}")
    with new_cohort(data, Lit.name) as folder:
        for patient in chosen:
            _check_patient(patient)
        said = f", without {', '.join(sorted(excluded, key=natural_key))}" if excluded else ""
        say(f"{source}: {len(chosen)} patients{said}")
        report = {
            patient.id: _prepare_patient(patient, folder / patient.id, derive_brain, say)
            for patient in chosen
        }
        write_json(
            folder / PREPARED,
            {
                "source": str(source.resolve()),
                "excluded": sorted(excluded, key=natural_key),
                "brain": {name: entry.pop("brain") for name, entry in report.items()},
                "cases": report,
                "simpleitk": sitk.Version().VersionString(),
            },
        )
    return data / Lit.name


def lit_patients(source: Path) -> list[Patient]:
    """The patients of the archive, in natural order, in whichever layout it has.

    Raises:
        ValueError: it is none of the two, or a patient lacks a file.
    """
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder; expected the unpacked archive")
    for root in (source, source / "longitudinal"):
        common, raw = root / "coregistered", root / "raw"
        if common.is_dir() or raw.is_dir():
            names = sorted({*_patient_folders(common), *_patient_folders(raw)}, key=natural_key)
            found = [_patient(name, "", common / name, raw / name) for name in names]
            break
    else:
        found = [
            _patient(name, f"{name}_", source / name, source / name / "raw")
            for name in _patient_folders(source)
        ]
    if not found:
        raise ValueError(
            f"{source}: no patient found; expected patientX/patientX_*.nii.gz, or "
            "longitudinal/coregistered/patientNN/ and longitudinal/raw/patientNN/"
        )
    ids = [patient.id for patient in found]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise ValueError(f"{source}: {twice[0]} is there twice; keep one of the two folders")
    return sorted(found, key=lambda patient: natural_key(patient.id))


def _patient(name: str, prefix: str, common: Path, raw: Path) -> Patient:
    """``prefix`` opens every file name in the laboratory's layout."""
    places = [place for place in (common, raw) if place.is_dir()]

    def find(stem: str, where: Sequence[Path]) -> Path | None:
        names = [prefix + stem, stem]
        return next((p / n for p in where for n in names if (p / n).is_file()), None)

    def require(stem: str) -> Path:
        path = find(stem, places)
        if path is None:
            raise ValueError(f"{common / (prefix + stem)}: missing")
        return path

    studies = []
    for number in (1, 2):
        study = TimePoint(
            common=find(f"study{number}_FLAIRreg.nii.gz", places)
            or find(f"study{number}_FLAIR.nii.gz", [common]),
            raw=find(f"study{number}_FLAIR.nii.gz", [raw]),
            transform=find(f"study{number}_FLAIR_to_common_space.txt", places),
        )
        if study.common is None and study.raw is None:
            raise ValueError(f"{raw / (prefix + f'study{number}_FLAIR.nii.gz')}: missing")
        studies.append(study)
    return Patient(
        id=_patient_id(name),
        lesion=require("gt.nii.gz"),
        brain=require("brainmask.nii.gz"),
        studies=(studies[0], studies[1]),
    )


def _patient_folders(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return [p.name for p in place.iterdir() if re.fullmatch(r"patient\d+", p.name) and p.is_dir()]


def _patient_id(name: str) -> str:
    """
    >>> _patient_id("7"), _patient_id("patient07"), _patient_id("patient7")
    ('patient07', 'patient07', 'patient07')
    """
    digits = name.removeprefix("patient")
    return f"patient{int(digits):02d}" if digits.isdecimal() else name


def _check_patient(patient: Patient) -> None:
    """Every file can be used; the masks and the co-registered images share a grid."""
    grid = read(patient.brain)
    if not mask_labels(grid, highest=1).any():
        raise ValueError(f"{patient.brain}: the brain mask is empty; expected 1 inside the brain")
    mask_labels(read_on_grid(patient.lesion, grid), highest=1)
    for study in patient.studies:
        if study.common is not None:
            finite_values(read_on_grid(study.common, grid))
            continue
        assert study.raw is not None
        finite_values(read(study.raw))
        if study.transform is not None:
            read_transform(study.transform)
    if all(study.unplaced and not _on_grid(study.raw, grid) for study in patient.studies):
        raise ValueError(
            f"{patient.studies[0].raw}: nothing says how it lies in the space of "
            f"{patient.brain.name}; expected a co-registered FLAIR or a "
            "study1_FLAIR_to_common_space.txt for at least one of the two studies"
        )


def _on_grid(path: Path | None, grid: File) -> bool:
    try:
        return path is not None and bool(read_on_grid(path, grid))
    except ValueError:
        return False


def _prepare_patient(patient: Patient, folder: Path, derive_brain: bool, say: Say) -> dict:
    """Write one patient's four files; returns what was done."""
    mask = sitk.Cast(_image(patient.brain), sitk.sitkUInt8)
    images, sources = _in_common_space(patient, mask)
    volume, method = brain.volume_ml(mask), "shipped"
    if volume > LARGEST_BRAIN_ML:
        if derive_brain:
            followup = patient.studies[1].common or patient.studies[1].raw
            mask = derived_brain(images[1], of=followup, place=patient.brain)
            method = brain.METHOD
            say(
                f"{patient.id}: the brain mask of {volume:.0f} ml, larger than any brain, is "
                f"replaced by one of {brain.volume_ml(mask):.0f} ml ({method})"
            )
        else:
            say(
                f"{patient.id}: warning: {patient.brain} holds {volume:.0f} ml, more than any "
                "brain (a whole head?); --derive-brain makes another mask"
            )
    images = [sitk.Mask(correct_bias(image, mask), mask) for image in images]
    lesion = _array_on(mask, np.rint(finite_values(read(patient.lesion))).astype(np.uint8))
    folder.mkdir(parents=True)
    for name, image in zip(
        (*Lit.channels, "brain", "lesion"), (*images, mask, lesion), strict=True
    ):
        kind = sitk.sitkFloat32 if name in Lit.channels else sitk.sitkUInt8
        sitk.WriteImage(sitk.Cast(image, kind), str(folder / f"{name}.nii.gz"))
    inside = sitk.GetArrayViewFromImage(mask) > 0
    first, second = (sitk.GetArrayViewFromImage(image)[inside] for image in images)
    alike = np.corrcoef(first, second)[0, 1]
    voxels = int(sitk.GetArrayViewFromImage(lesion).sum(dtype=int))
    say(
        f"{patient.id}: baseline {sources[0]}, follow-up {sources[1]}, correlation "
        f"{alike:.2f}, {voxels} lesion voxels, brain {brain.volume_ml(mask):.0f} ml ({method})"
    )
    if alike < 0.5:
        say(f"{patient.id}: warning: the studies hardly agree; look whether they are aligned")
    if not voxels:
        say(f"{patient.id}: warning: no lesion voxel; --exclude {patient.id} leaves it out")
    return {
        "brain": method,
        "baseline": sources[0],
        "followup": sources[1],
        "correlation": round(float(alike), 4),
    }


def _in_common_space(patient: Patient, mask: sitk.Image) -> tuple[list[sitk.Image], list[str]]:
    """Both studies on the mask's grid, and how each came there."""
    grid = read(patient.brain)
    images: list[sitk.Image | None] = [None, None]
    sources = ["registered", "registered"]
    for place, study in enumerate(patient.studies):
        if study.common is not None:
            images[place], sources[place] = _image(study.common, like=mask), "co-registered"
        elif study.transform is not None and study.raw is not None:
            moved = resample(_image(study.raw), mask, read_transform(study.transform))
            images[place], sources[place] = sitk.Maximum(moved, 0.0), "resampled"
    for place in (1, 0):  # an equal grid alone proves little: only where nothing else is known
        study = patient.studies[place]
        if images == [None, None] and study.raw is not None and _on_grid(study.raw, grid):
            images[place], sources[place] = _image(study.raw, like=mask), "as acquired"
    for place, study in enumerate(patient.studies):
        if images[place] is None:
            fixed = images[1 - place]
            assert fixed is not None and study.raw is not None  # by _check_patient
            raw = _image(study.raw)
            images[place] = sitk.Maximum(resample(raw, mask, rigid(fixed, raw, mask)), 0.0)
    return [image for image in images if image is not None], sources


def correct_bias(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """Correct an image by N4 inside the mask; the field is estimated on voxels of about N4_MM and
    applied at full resolution."""
    shrink = [max(1, round(N4_MM / step)) for step in image.GetSpacing()]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    with one_thread():
        n4.Execute(sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink))
        return image / sitk.Exp(n4.GetLogBiasFieldAsImage(image))


# ---------------------------------------------------------------------------------- WMH challenge
def prepare_wmh2017(
    source: Path, data: Path, *, derive_brain: bool = False, say: Say = print
) -> Path:
    """Write ``data/wmh2017``: T1, FLAIR and mask as they are, and a brain mask for each case.

    The challenge ships no brain masks.  One that lies beside the images (``pre/brain.nii.gz``) is
    taken; else one is derived from the T1 image.  Label 2 of ``wmh.nii.gz``, other pathology,
    stays as it is.

    Args:
        source: the folder that holds Utrecht, Singapore and Amsterdam/GE3T, or ``training``.
        data: folder that gets the folder ``wmh2017``.
        derive_brain: replace masks larger than any brain.
        say: hears one line per event.

    Raises:
        ValueError: a source is missing or cannot be used.
    """
    root = source / "training" if (source / "training").is_dir() else source
    cases = wmh_cases(root)
    with new_cohort(data, Wmh2017.name) as folder:
        for case in cases:
            _check_case(case)
        say(f"{root}: {len(cases)} cases")
        methods = {}
        for case in cases:
            target = folder / case.site / case.id
            (target / "pre").mkdir(parents=True)
            for path in case.channels.values():
                shutil.copyfile(path, target / "pre" / path.name)
            shutil.copyfile(case.lesion, target / case.lesion.name)
            mask = target / "pre" / "brain.nii.gz"
            place = case.brain or wmh_brain_place(case)
            methods[case.id] = _brain_of(case, mask, place, derive_brain, say)
        write_json(
            folder / PREPARED,
            {
                "source": str(root.resolve()),
                "brain": methods,
                "simpleitk": sitk.Version().VersionString(),
            },
        )
    return data / Wmh2017.name


def _brain_of(case: Case, target: Path, place: Path, derive_brain: bool, say: Say) -> str:
    """Write the case's brain mask to ``target``; returns how it was made.

    ``place`` is where a mask of the user's own would be found.
    """
    if case.brain is not None:
        shipped = sitk.Cast(_image(case.brain), sitk.sitkUInt8)
        volume = brain.volume_ml(shipped)
        if volume <= LARGEST_BRAIN_ML or not derive_brain:
            if volume > LARGEST_BRAIN_ML:
                say(
                    f"{case.id}: warning: {case.brain} holds {volume:.0f} ml, more than any brain "
                    "(a whole head?); --derive-brain makes another mask"
                )
            sitk.WriteImage(shipped, str(target))
            say(f"{case.id}: brain {volume:.0f} ml (shipped)")
            return "shipped"
    head = _best_for_brain(case)
    mask = derived_brain(_image(head), of=head, place=place)
    sitk.WriteImage(mask, str(target))
    say(f"{case.id}: brain {brain.volume_ml(mask):.0f} ml ({brain.METHOD}, from {head.name})")
    return brain.METHOD


def derived_brain(head: sitk.Image, *, of: Path | None, place: Path) -> sitk.Image:
    """`brain.derive`; a head that cannot be aligned is named, and where to put a mask for it.

    Raises:
        ValueError: no brain can be found in the image.
    """
    try:
        return brain.derive(head)
    except RuntimeError as error:
        raise ValueError(
            f"{of}: no brain mask can be derived ({_reason(error)}); put one at {place}"
        ) from None


def _best_for_brain(case: Case) -> Path:
    """The T1 image, which the template is one of; else FLAIR; else the first."""
    for word in ("t1", "flair"):
        for name, path in case.channels.items():
            if word in name.lower():
                return path
    return next(iter(case.channels.values()))


def _check_case(case: Case) -> None:
    """Every file of the case can be used, and they share a grid; the brain may be missing."""
    paths = list(case.channels.values())
    grid = read(paths[0])
    for path in paths:
        finite_values(read_on_grid(path, grid))
    mask_labels(read_on_grid(case.lesion, grid), highest=2 if case.has_other else 1)
    if case.brain is not None and not mask_labels(read_on_grid(case.brain, grid), highest=1).any():
        raise ValueError(f"{case.brain}: the brain mask is empty; expected 1 inside the brain")


# ------------------------------------------------------------------------------- cohorts of yours
def prepare_brains(
    name: str, data: Path, *, reading: Reading | None = None, say: Say = print
) -> Path:
    """Derive a brain mask for every case that has none, where the cohort's layout looks for it.

    The images stay where they are.  Either all masks appear or none.

    Args:
        name: the cohort, as in a sweep: ``nnunet:Dataset001_X``, ``bids:study``, or a folder.
        data: folder that holds the cohort's folder.
        reading: its channels, where it is just a folder, and how else its files are read.
        say: hears one line per event.

    Raises:
        ValueError: an image cannot be used, or every case has a mask already.
    """
    cohort = (reading or Reading()).cohort_in(data, name)
    root = data / cohort.name
    cases = [case for case in cohort.cases(data) if case.brain is None]
    if not cases:
        raise ValueError(f"{root}: every case has a brain mask already")
    if any(case.nonzero_brain for case in cases):
        raise ValueError(f"{name}: asks for no masks; leave out ':nonzero' to have them made")
    places = {case.id: cohort.brain_place(data, case) for case in cases}
    if len(set(places.values())) < len(cases):
        raise ValueError(f"{root}: the layout puts the masks of several cases in one file")
    for case in cases:
        _check_case(case)
    say(f"{root}: {len(cases)} cases without a brain mask")
    file = root / PREPARED
    record = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory(dir=root, prefix=".brains.") as temporary:
        made = []
        for number, case in enumerate(cases):
            path = Path(temporary) / f"{number}.nii.gz"
            method = _brain_of(case, path, places[case.id], False, say)
            record.setdefault("brain", {})[case.id] = method
            made.append((path, places[case.id]))
        for path, target in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        write_json(file, record)
    return root


# ---------------------------------------------------------------------------------------- helpers
@contextmanager
def new_cohort(data: Path, name: str) -> Iterator[Path]:
    """A folder that becomes ``data/name`` if all goes well, and else was never there.

    Raises:
        ValueError: there is such a folder already, or it cannot be written.
    """
    target = data / name
    if target.exists():
        raise ValueError(f"{target}: is there already; move it away or choose another data folder")
    try:
        data.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=data, prefix=f".{name}."))
    except OSError as error:
        raise ValueError(f"{data}: cannot be written ({error.strerror or error})") from None
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _image(path: Path, like: sitk.Image | None = None) -> sitk.Image:
    """A checked file as a float image, on exactly the grid of another if told so."""
    if like is not None:
        return _array_on(like, finite_values(read(path)))
    try:
        return sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError as error:  # a sheared grid, for one
        raise ValueError(f"{path}: SimpleITK cannot read it ({_reason(error)})") from None


def _reason(error: RuntimeError) -> str:
    """The last line of what SimpleITK says: those before it are the place in its code."""
    return str(error).strip().splitlines()[-1]


def _array_on(grid: sitk.Image, voxels: np.ndarray) -> sitk.Image:
    """``[X, Y, Z]`` as an image; both libraries take the axes of a NIfTI file as they come."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.CopyInformation(grid)
    return image


# ------------------------------------------------------------------------------------ command line
def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run the command; exit status 0, or 2 and one line for what cannot be used."""
    flags = _parser(program).parse_args(arguments)
    try:
        if flags.command == "lit":
            done = prepare_lit(
                flags.source,
                flags.data,
                exclude=flags.exclude,
                derive_brain=flags.derive_brain,
                say=_say,
            )
        elif flags.command == "wmh2017":
            done = prepare_wmh2017(
                flags.source, flags.data, derive_brain=flags.derive_brain, say=_say
            )
        else:
            reading = taken_from(flags, ReadingInSpace)
            done = prepare_brains(flags.cohort, flags.data, reading=reading, say=_say)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, for one
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    _say(f"written: {done}")
    return 0


def _parser(program: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    lit = commands.add_parser("lit", help="the Ljubljana longitudinal MS archive -> DATA/lit")
    lit.add_argument("source", type=Path, metavar="SRC", help="the unpacked archive")
    wmh = commands.add_parser(
        "wmh2017", help="the WMH challenge's training folders -> DATA/wmh2017"
    )
    wmh.add_argument("source", type=Path, metavar="SRC", help="holds Utrecht, ..., or training")
    brains = commands.add_parser("brains", help="brain masks for a cohort of your own")
    brains.add_argument(
        "cohort", metavar="COHORT", help=f"{dataset_spellings()}, or a folder (--channels)"
    )
    for command in (lit, wmh, brains):
        command.add_argument("data", type=Path, metavar="DATA", help="holds the cohorts' folders")
    for command in (lit, wmh):
        command.add_argument(
            "--derive-brain",
            action="store_true",
            help="replace brain masks that are larger than any brain",
        )
    lit.add_argument(
        "--exclude",
        nargs="+",
        default=(),
        metavar="PATIENT",
        help="leave out; the paper does so with three that have no new or enlarging lesion",
    )
    add_flags(brains, ReadingInSpace)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)
