"""From a public download to a prepared cohort: ``python -m lesion_core.prepare lit SRC DATA``.

    lit SRC DATA        the Ljubljana longitudinal archive -> DATA/lit
    wmh2017 SRC DATA    the WMH challenge's training folders -> DATA/wmh2017
    brains COHORT DATA  brain masks for a cohort of your own in DATA, beside its images

All sources are checked before anything is computed, and a cohort appears whole or not at all.
``prepared.json`` beside the cases says what was done to each.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lesion_core import durable
from lesion_core.cohorts import (
    PREPARED,
    Case,
    Lit,
    Reading,
    ReadingInSpace,
    Wmh2017,
    brain_methods,
    natural_key,
    prepared,
    wmh_brain_place,
    wmh_cases,
)
from lesion_core.cohorts.files import subfolders
from lesion_core.flags import taken_from
from lesion_core.images import LARGEST_BRAIN_ML
from lesion_core.itk import as_array, as_itk
from lesion_core.marks import read_marks
from lesion_core.nifti import File, binary_mask, finite_values, read, read_on_grid, write_like
from lesion_core.paths import (
    existing,
    existing_folder,
    is_file,
    is_folder,
    is_there,
    refuse_existing,
)
from lesion_core.placement import oddities_of
from lesion_core.preparation import brain
from lesion_core.preparation.activity import (
    keep_all,
    keep_positive,
)
from lesion_core.preparation.flags import Activity, Uncertain, parser
from lesion_core.preparation.registration import one_thread, read_transform, resample, rigid
from lesion_core.progress import counted
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
    overwrite: bool = False,
    activity: Activity | None = None,
    uncertain: Uncertain | None = None,
    say: Say = print,
) -> Path:
    """Write ``data/lit``: FLAIR pairs in their common space, N4-corrected and skull-stripped.

    A co-registered FLAIR is used where there is one; else the raw one is resampled by its
    transform (cubic B-spline, clamped at 0); else it is aligned rigidly with the other study.
    Where neither is known to lie in the masks' space, one whose grid is theirs is taken to, the
    follow-up first.

    Where ``data/lit`` was prepared from the same source, or is the source, ``activity`` sorts out
    its masks again, from the originals; nothing else is computed.

    Args:
        source: the archive in the laboratory's layout (``patientX/patientX_*.nii.gz``) or the
            mirror's (``longitudinal/{raw,coregistered}/patientNN/``); or a folder that is, or
            holds, a ``lit`` that was prepared before.
        data: folder that gets the folder ``lit``.
        exclude: patients to leave out, as numbers or names.
        derive_brain: make a brain mask (`brain.derive`) where the archive's is larger than any
            brain.
        overwrite: replace an earlier ``data/lit`` of this kind.
        activity: ``all``, the default, keeps the archive's masks, which mark every change;
            ``positive`` keeps new and enlarging lesions and leaves out patients without any, as
            in the paper (`activity.positive`).
        uncertain: of positive activity; what becomes of lesions that hardly change.
        say: hears one line per event.

    Raises:
        ValueError: a source is missing or cannot be used.
    """
    if uncertain is not None and activity != "positive":
        raise ValueError(f"--uncertain {uncertain}: expected --activity positive with it")
    if done := _sorted_out(
        source, data, exclude, derive_brain, overwrite, activity, uncertain, say
    ):
        return done
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
    with new_cohort(data, Lit.name, source, overwrite=overwrite) as folder:
        said = f", without {', '.join(sorted(excluded, key=natural_key))}" if excluded else ""
        say(f"{source}: {len(chosen)} patients{said}; checking their files")
        for patient in chosen:
            _check_patient(patient)
        report = {
            patient.id: _prepare_patient(patient, folder / patient.id, derive_brain, say)
            for patient in counted(chosen, say)
        }
        record = {
            "source": str(source.resolve()),
            "excluded": sorted(excluded, key=natural_key),
            "brain": {name: entry.pop("brain") for name, entry in report.items()},
            "cases": report,
            "simpleitk": sitk.Version().VersionString(),
        }
        if activity == "positive":
            record["activity"] = keep_positive(folder, Lit.channels, uncertain or "sign", say)
        write_json(folder / PREPARED, record)
    return data / Lit.name


def _sorted_out(
    source: Path,
    data: Path,
    exclude: Sequence[str],
    derive_brain: bool,
    overwrite: bool,
    activity: Activity | None,
    uncertain: Uncertain | None,
    say: Say,
) -> Path | None:
    """Sort out the masks of a cohort that is prepared already; None if there is none to be."""
    target = data / Lit.name
    root = next((place for place in (source, source / Lit.name) if _is_prepared(place)), None)
    there = target.exists()
    record = prepared(target) if there else {}
    same = there and (
        (root is not None and root.resolve() == target.resolve())
        or record.get("source") in {str(place.resolve()) for place in (source, root or source)}
    )
    if root is None and overwrite:
        return None  # all of it is made anew from the archive
    if root is None and not same:
        if there and activity is not None:
            raise ValueError(
                f"{target}: is there already, and not from {source}; move it away, or sort out its "
                f"masks with `lit {data} {data} --activity {activity}`"
            )
        return None
    if activity is None:
        if same and root is None:
            return None  # `new_cohort` says that it is there already
        raise ValueError(f"{root}: is prepared already; say --activity positive or all")
    asked = {_patient_id(name) for name in exclude}
    if (asked and asked != set(record.get("excluded", ()))) or (
        derive_brain and brain.METHOD not in record.get("brain", {}).values()
    ):
        raise ValueError(
            f"{target if same else root}: is prepared already, otherwise than --exclude or "
            "--derive-brain asks now; leave them out, or move it away and prepare it anew"
        )
    place = target if same else root
    assert place is not None
    with (
        changed_cohort(target)
        if same
        else new_cohort(data, Lit.name, place, overwrite=overwrite) as folder
    ):
        if not same:
            _copy_tree(place, folder, shutil.copyfile)
            record = prepared(folder) | {"source": str(place.resolve())}
        say(f"{place}: prepared already, {activity} activity from its original masks")
        keep_all(folder)
        record.pop("activity", None)
        if activity == "positive":
            record["activity"] = keep_positive(folder, Lit.channels, uncertain or "sign", say)
        if record:
            write_json(folder / PREPARED, record)
        else:  # as it came: without one
            (folder / PREPARED).unlink(missing_ok=True)
    return target


def _is_prepared(root: Path) -> bool:
    """Whether a folder holds a case in the layout that `prepare_lit` writes."""
    return root.is_dir() and any(root.glob(f"*/{Lit.channels[0]}.nii*"))


def lit_patients(source: Path) -> list[Patient]:
    """The patients of the archive, in natural order, in whichever layout it has.

    Raises:
        ValueError: it is none of the two, or a patient lacks a file.
    """
    existing_folder(source, "the unpacked archive")
    for root in (source, source / "longitudinal"):
        common, raw = root / "coregistered", root / "raw"
        if is_folder(common) or is_folder(raw):
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
    places = [place for place in (common, raw) if is_folder(place)]

    def find(stem: str, where: Sequence[Path]) -> Path | None:
        names = [prefix + stem, stem]
        found = next((p / n for p in where for n in names if is_there(p / n)), None)
        return existing(found) if found else None

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
    if not is_folder(place):
        return []
    return [p.name for p in subfolders(place, "patient") if re.fullmatch(r"patient\d+", p.name)]


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
    if not binary_mask(grid).any():
        raise ValueError(f"{patient.brain}: the brain mask is empty; expected 1 inside the brain")
    binary_mask(read_on_grid(patient.lesion, grid))
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
    grid = read(patient.brain)
    for line in oddities_of([grid]):
        say(f"{patient.id}: warning: {line}")
    mask = as_itk(binary_mask(grid), grid)
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
    lesion = binary_mask(read(patient.lesion))
    folder.mkdir(parents=True)
    arrays = [as_array(image).astype(np.float32) for image in images]
    arrays += [as_array(mask).astype(np.uint8), lesion]
    for name, array in zip((*Lit.channels, "brain", "lesion"), arrays, strict=True):
        write_like(folder / f"{name}.nii.gz", array, grid)
    inside = sitk.GetArrayViewFromImage(mask) > 0
    first, second = (sitk.GetArrayViewFromImage(image)[inside] for image in images)
    alike = np.corrcoef(first, second)[0, 1]
    voxels = np.count_nonzero(lesion)
    say(
        f"{patient.id}: baseline {sources[0]}, follow-up {sources[1]}, correlation "
        f"{alike:.2f}, {voxels} lesion voxels, brain {brain.volume_ml(mask):.0f} ml ({method})"
    )
    if alike < 0.5:
        say(f"{patient.id}: warning: the studies hardly agree; look whether they are aligned")
    if not voxels:
        say(
            f"{patient.id}: warning: no lesion voxel; --exclude {patient.id} or --activity "
            "positive leaves it out"
        )
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
    source: Path,
    data: Path,
    *,
    derive_brain: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Write ``data/wmh2017``: T1, FLAIR and mask as they are, and a brain mask for each case.

    The challenge ships no brain masks.  One that lies beside the images (``pre/brain.nii.gz``) is
    taken; else one is derived from the T1 image.  Label 2 of ``wmh.nii.gz``, other pathology,
    stays as it is.

    Args:
        source: the folder that holds Utrecht, Singapore and Amsterdam/GE3T, or ``training``.
        data: folder that gets the folder ``wmh2017``.
        derive_brain: replace masks larger than any brain.
        overwrite: replace an earlier ``data/wmh2017`` of this kind.
        say: hears one line per event.

    Raises:
        ValueError: a source is missing or cannot be used.
    """
    root = source / "training" if is_folder(source / "training") else source
    cases = wmh_cases(root)
    with new_cohort(data, Wmh2017.name, source, overwrite=overwrite) as folder:
        say(f"{root}: {len(cases)} cases; checking their files")
        for case in cases:
            _check_case(case)
        methods = {}
        for case in counted(cases, say):
            target = folder / case.site / case.id
            (target / "pre").mkdir(parents=True)
            for path in case.channels.values():
                shutil.copyfile(path, target / "pre" / path.name)
            for path in (case.lesion, case.ignore):
                if path is not None:
                    shutil.copyfile(path, target / path.name)
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
        file = read(case.brain)
        shipped = binary_mask(file)
        volume = brain.volume_ml(as_itk(shipped, file))
        if volume <= LARGEST_BRAIN_ML or not derive_brain:
            if volume > LARGEST_BRAIN_ML:
                say(
                    f"{case.id}: warning: {case.brain} holds {volume:.0f} ml, more than any brain "
                    "(a whole head?); --derive-brain makes another mask"
                )
            write_like(target, shipped, file)
            say(f"{case.id}: brain {volume:.0f} ml (shipped)")
            return "shipped"
    head = _best_for_brain(case)
    file = read(head)
    for line in oddities_of([file]):
        say(f"{case.id}: warning: {line}")
    mask = derived_brain(as_itk(finite_values(file), file), of=head, place=place)
    write_like(target, as_array(mask), file)
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
    read_marks(case, grid)
    if case.brain is not None and not binary_mask(read_on_grid(case.brain, grid)).any():
        raise ValueError(f"{case.brain}: the brain mask is empty; expected 1 inside the brain")


# ------------------------------------------------------------------------------- cohorts of yours
def prepare_brains(
    name: str,
    data: Path,
    *,
    reading: Reading | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Derive a brain mask for every case that has none, where the cohort's layout looks for it.

    The images stay where they are.  Either all masks appear or none.  Nothing that lies where a
    mask goes is replaced, unless told so.

    Args:
        name: the cohort, as in a sweep: ``nnunet:Dataset001_X``, ``bids:study``, or a folder.
        data: folder that holds the cohort's folder.
        reading: its channels, where it is just a folder, and how else its files are read.
        overwrite: make masks anew that were derived earlier.
        say: hears one line per event.

    Raises:
        ValueError: an image cannot be used, or every case has a mask already.
    """
    if not is_there(data) and is_folder(data.parent / name / data.name):
        raise ValueError(
            f"{data}: no such folder; did you mean `brains {data} {name}`? The cohort comes first"
        )
    cohort = (reading or Reading()).cohort_in(data, name)
    if cohort.spacing:
        raise ValueError("--spacing: brain masks are made for the images as they are; leave it out")
    root = data / cohort.name
    found = cohort.cases(data)
    methods = brain_methods(cohort, data, found)
    again = ("shipped", "nonzero") if overwrite else methods.values()
    cases = [
        replace(case, brain=None)
        for case in found
        if case.brain is None or methods[case.id] not in again
    ]
    if not cases:
        derived = not {*methods.values()} <= {"shipped", "nonzero"}
        fix = "; --overwrite makes derived ones anew" if derived and not overwrite else ""
        raise ValueError(f"{root}: every case has a brain mask already{fix}")
    if any(case.nonzero_brain for case in cases):
        raise ValueError(f"{name}: asks for no masks; leave out ':nonzero' to have them made")
    places = {case.id: cohort.brain_place(data, case) for case in cases}
    if len(set(places.values())) < len(cases):
        raise ValueError(f"{root}: the layout puts the masks of several cases in one file")
    for case in found:
        if case.brain is None:
            refuse_existing(places[case.id], "it is no mask of this case; move it away")
    say(f"{root}: {len(cases)} cases without a brain mask; checking their files")
    for case in cases:
        _check_case(case)
    record = prepared(root)
    with tempfile.TemporaryDirectory(dir=root, prefix=".brains.") as temporary:
        made = []
        for number, case in enumerate(counted(cases, say)):
            path = Path(temporary) / f"{number}.nii.gz"
            method = _brain_of(case, path, places[case.id], False, say)
            record.setdefault("brain", {})[case.id] = method
            made.append((path, places[case.id]))
        for path, target in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            durable.rename(path, target)
        write_json(root / PREPARED, record)
    return root


# ---------------------------------------------------------------------------------------- helpers
@contextmanager
def new_cohort(data: Path, name: str, source: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder that becomes ``data/name`` if all goes well, and else was never there.

    ``overwrite``: then it takes the place of one that was made so earlier.

    Raises:
        ValueError: there is something already, or it cannot be written.
    """
    target = data / name
    if overwrite and not target.is_symlink() and is_there(target):
        if not is_file(target / PREPARED):
            raise ValueError(
                f"{target}: was not made by this command (no {PREPARED} in it), so --overwrite "
                "leaves it; move it away or choose another data folder"
            )
        if source.resolve().is_relative_to(target.resolve()):
            raise ValueError(f"{target}: --overwrite would delete the source {source}")
    else:
        refuse_existing(
            target, "move it away, choose another data folder, or have it replaced by --overwrite"
        )
    try:
        data.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=data, prefix=f".{name}."))
    except OSError as error:
        raise ValueError(f"{data}: cannot be written ({error.strerror or error})") from None
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        earlier = temporary.with_name(f"{temporary.name}.earlier")
        durable.sync_tree(temporary)
        if overwrite and is_there(target):
            target.rename(earlier)
        durable.rename(temporary, target)
        shutil.rmtree(earlier, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def changed_cohort(target: Path) -> Iterator[Path]:
    """A copy of a cohort's folder that takes its place if all goes well, and else was never there.

    Its files are links to the same bytes: replace them, never write into them.

    Raises:
        ValueError: it cannot be written.
    """
    place = target.resolve()
    try:
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    except OSError as error:
        raise ValueError(f"{place.parent}: cannot be written ({error.strerror})") from None
    try:
        _copy_tree(place, temporary, _link)
        yield temporary
        temporary.chmod(place.stat().st_mode & 0o7777)
        durable.sync_tree(temporary)
        before = place.with_name(f"{temporary.name}.before")
        place.rename(before)
        try:
            durable.rename(temporary, place)
        except BaseException:
            before.rename(place)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object]) -> None:
    """Every file of one folder at its place in another; links to folders become folders."""
    for folder, _, files in os.walk(source, followlinks=True):
        inner = target / Path(folder).relative_to(source)
        inner.mkdir(exist_ok=True)
        for name in files:
            copy(Path(folder, name), inner / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without such links
        shutil.copyfile(source, target)


def _image(path: Path, like: sitk.Image | None = None) -> sitk.Image:
    """A checked file as a float image, on exactly the grid of another if told so."""
    file = read(path)
    image = as_itk(finite_values(file), file)
    if like is not None:
        image.CopyInformation(like)
    return image


def _reason(error: RuntimeError) -> str:
    """The last line of what SimpleITK says: those before it are the place in its code."""
    return str(error).strip().splitlines()[-1]


# ------------------------------------------------------------------------------------ command line
def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run the command; exit status 0, or 2 and one line for what cannot be used."""
    flags = parser(program).parse_args(arguments)
    try:
        if flags.command == "lit":
            done = prepare_lit(
                flags.source,
                flags.data,
                exclude=flags.exclude,
                derive_brain=flags.derive_brain,
                overwrite=flags.overwrite,
                activity=flags.activity,
                uncertain=flags.uncertain,
                say=_say,
            )
        elif flags.command == "wmh2017":
            done = prepare_wmh2017(
                flags.source,
                flags.data,
                derive_brain=flags.derive_brain,
                overwrite=flags.overwrite,
                say=_say,
            )
        else:
            reading = taken_from(flags, ReadingInSpace)
            done = prepare_brains(
                flags.cohort, flags.data, reading=reading, overwrite=flags.overwrite, say=_say
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, for one
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    _say(f"written: {done}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
