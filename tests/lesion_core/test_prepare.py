"""Preparing gives the checked layout from every form of download, whole or not at all."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from lesion_core.cohorts import Lit, Wmh2017, brain_methods
from lesion_core.images import load_cohort
from lesion_core.preparation import brain, prepare, registration
from tests.lesion_core.test_nifti import by_itk
from tests.support.tiny import place_oddly, save, write_case, write_wmh_case

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHAPE = (36, 40, 20)
AFFINE = np.diag([-4.0, -4.0, 5.0, 1.0])
AFFINE[:3, 3] = 70, 75, -45
CORRECT_BIAS = prepare.correct_bias
SHIFT_MM = (8.0, -4.0, 5.0)


def head(shift_mm=(0, 0, 0), seed=0) -> np.ndarray:
    """A smooth ellipsoid with structure, moved by whole or part voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    centre = np.array(SHAPE) / 2 + np.linalg.inv(AFFINE[:3, :3]) @ np.array(shift_mm)
    away = (grid - centre) / np.array([12, 14, 7])
    radius = np.linalg.norm(away, axis=-1)
    texture = np.cos(3 * away[..., 0] + 1) * np.sin(4 * away[..., 1]) * np.cos(2 * away[..., 2])
    image = 100 / (1 + np.exp(12 * (radius - 1))) * (1 + 0.4 * texture)
    return (image + np.random.default_rng(seed).normal(0, 0.3, SHAPE)).astype(np.float32).clip(0)


def brain_mask() -> np.ndarray:
    return head() > 50


def lesion_mask(number=1) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    for index in range(number):
        mask[14 + 3 * index : 16 + 3 * index, 18:20, 9:11] = True
    return mask


def write_transform(path: Path, shift_mm) -> Path:
    """From the common space to the raw one, as the archive writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    world = np.array(shift_mm) * [-1, -1, 1]  # ITK's axes run left and posterior
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: MatrixOffsetTransformBase_double_3_3\n"
        f"Parameters: 1 0 0 0 1 0 0 0 1 {world[0]} {world[1]} {world[2]}\n"
        "FixedParameters: 1 2 3\n"
    )
    return path


def write_study(place: Path, name: str, *, shift_mm=(0, 0, 0), seed=0) -> Path:
    return save(place / name, head(shift_mm, seed), AFFINE)


def write_masks(place: Path, prefix="", lesions=1, brain=None) -> None:
    save(place / f"{prefix}brainmask.nii.gz", brain_mask() if brain is None else brain, AFFINE)
    save(place / f"{prefix}gt.nii.gz", lesion_mask(lesions), AFFINE)


def mirror(root: Path, lesions=1) -> Path:
    """open_ms_data: 1 co-registered, 2 with transforms, 3 with one transform only."""
    common, raw = root / "longitudinal" / "coregistered", root / "longitudinal" / "raw"
    for number in (1, 2, 3):
        write_masks(common / f"patient{number:02d}", lesions=lesions if number == 2 else 1)
    for study in (1, 2):
        write_study(common / "patient01", f"study{study}_FLAIR.nii.gz", seed=study)
        for number in (2, 3):
            place = raw / f"patient{number:02d}"
            write_study(place, f"study{study}_FLAIR.nii.gz", shift_mm=SHIFT_MM, seed=study)
            if (number, study) != (3, 1):
                write_transform(place / f"study{study}_FLAIR_to_common_space.txt", SHIFT_MM)
    return root


def laboratory(root: Path) -> Path:
    """patientX/patientX_*: 1 co-registered and raw, 12 raw with transforms."""
    for number in (1, 12):
        name = f"patient{number}"
        write_masks(root / name, f"{name}_")
        for study in (1, 2):
            stem = f"{name}_study{study}_FLAIR"
            write_study(root / name / "raw", f"{stem}.nii.gz", shift_mm=SHIFT_MM, seed=study)
            if number == 1:
                write_study(root / name, f"{stem}reg.nii.gz", seed=study)
            else:
                write_transform(root / name / f"{stem}_to_common_space.txt", SHIFT_MM)
    return root


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def alike(path: Path, image: np.ndarray) -> float:
    inside = ndimage.binary_erosion(brain_mask(), iterations=2)
    return float(np.corrcoef(voxels(path)[inside], image[inside])[0, 1])


@pytest.fixture(autouse=True, scope="module")
def no_bias():
    """N4 takes seconds per image and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "correct_bias", lambda image, mask: image)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, no_bias):
    """Both layouts prepared, and what was said."""
    root, said = tmp_path_factory.mktemp("prepared"), {"mirror": [], "laboratory": []}
    prepare.prepare_lit(mirror(root / "m"), root / "mirror", say=said["mirror"].append)
    prepare.prepare_lit(laboratory(root / "l"), root / "laboratory", say=said["laboratory"].append)
    return root, said


# ------------------------------------------------------------------------------- longitudinal MS
def test_both_layouts_become_the_lit_layout(prepared):
    root, _ = prepared
    assert [case.id for case in Lit().cases(root / "mirror")] == [
        "patient01", "patient02", "patient03",
    ]  # fmt: skip
    assert [case.id for case in Lit().cases(root / "laboratory")] == ["patient01", "patient12"]
    for layout in ("mirror", "laboratory"):
        assert all(image.num_lesions == 1 for image in load_cohort(Lit(), root / layout).images)


def test_how_each_study_came_to_the_common_space_is_recorded(prepared):
    root, _ = prepared
    record = json.loads((root / "mirror" / "lit" / "prepared.json").read_text())
    found = {case: (r["baseline"], r["followup"]) for case, r in record["cases"].items()}
    assert found == {
        "patient01": ("co-registered", "co-registered"),
        "patient02": ("resampled", "resampled"),
        "patient03": ("registered", "resampled"),
    }
    record = json.loads((root / "laboratory" / "lit" / "prepared.json").read_text())
    assert record["cases"]["patient01"]["baseline"] == "co-registered"
    assert record["cases"]["patient12"]["baseline"] == "resampled"


def test_images_lie_where_the_masks_say(prepared):
    root, _ = prepared
    for layout in ("mirror", "laboratory"):
        for path in (root / layout / "lit").glob("patient*/*_flair.nii.gz"):
            assert alike(path, head()) > 0.97, path
            np.testing.assert_allclose(nib.load(path).affine, AFFINE, atol=1e-5)


def test_raw_images_really_were_elsewhere():
    inside = ndimage.binary_erosion(brain_mask(), iterations=2)
    assert np.corrcoef(head()[inside], head(SHIFT_MM)[inside])[0, 1] < 0.7


def test_images_are_zero_outside_the_brain_and_nowhere_negative(prepared):
    root, _ = prepared
    for path in (root / "mirror" / "lit").glob("patient*/*_flair.nii.gz"):
        image = voxels(path)
        assert image.dtype == np.float32
        assert (image[~brain_mask()] == 0).all()
        assert image.min() >= 0


def test_masks_are_kept_to_the_voxel(prepared):
    root, _ = prepared
    for case in Lit().cases(root / "laboratory"):
        assert case.brain is not None
        np.testing.assert_array_equal(voxels(case.lesion), lesion_mask())
        np.testing.assert_array_equal(voxels(case.brain), brain_mask())


def test_preparing_twice_gives_the_same_bits(prepared, tmp_path):
    root, _ = prepared
    again = prepare.prepare_lit(
        root / "m", tmp_path, exclude=["1", "patient2"], say=lambda line: None
    )
    for name in ("baseline_flair", "followup_flair"):
        path = f"patient03/{name}.nii.gz"
        np.testing.assert_array_equal(voxels(again / path), voxels(root / "mirror/lit" / path))


def test_where_nothing_is_known_the_masks_grid_decides(tmp_path):
    source = laboratory(tmp_path / "l")
    for file in (source / "patient12").glob("*_to_common_space.txt"):
        file.unlink()
    write_study(source / "patient12" / "raw", "patient12_study2_FLAIR.nii.gz")
    done = prepare.prepare_lit(source, tmp_path / "d", exclude=["1"], say=lambda line: None)
    record = json.loads((done / "prepared.json").read_text())["cases"]["patient12"]
    assert (record["baseline"], record["followup"]) == ("registered", "as acquired")
    assert alike(done / "patient12" / "baseline_flair.nii.gz", head()) > 0.97


def test_bias_field_is_taken_away_inside_the_mask():
    mask = brain_mask()
    along = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    flat = np.random.default_rng(0).normal(100, 2, SHAPE) * mask
    image, inside = (
        sitk.GetImageFromArray(np.ascontiguousarray(array.T))
        for array in ((flat * np.exp(0.5 * along)).astype(np.float32), mask.astype(np.uint8))
    )
    corrected = sitk.GetArrayFromImage(CORRECT_BIAS(image, inside)).T[mask]
    biased = sitk.GetArrayFromImage(image).T[mask]
    assert biased.std() / biased.mean() > 0.15
    assert corrected.std() / corrected.mean() < 0.04


def test_excluded_patients_are_listed(tmp_path):
    said = []
    done = prepare.prepare_lit(
        laboratory(tmp_path / "l"), tmp_path / "d", exclude=["12"], say=said.append
    )
    assert "without patient12" in said[0]
    assert json.loads((done / "prepared.json").read_text())["excluded"] == ["patient12"]
    assert [case.id for case in Lit().cases(tmp_path / "d")] == ["patient01"]


def test_positive_activity_of_an_archive_can_be_undone(tmp_path):
    source = laboratory(tmp_path / "l")
    brighter = head(seed=2) + 20 * lesion_mask()
    save(source / "patient1" / "patient1_study2_FLAIRreg.nii.gz", brighter, AFFINE)
    fainter = head(SHIFT_MM, seed=2) * np.where(head(SHIFT_MM) > 130, 0.8, 1)
    save(source / "patient12" / "raw" / "patient12_study2_FLAIR.nii.gz", fainter, AFFINE)
    said = []
    done = prepare.prepare_lit(source, tmp_path / "d", activity="positive", say=said.append)
    record = json.loads((done / "prepared.json").read_text())["activity"]
    assert record["excluded"] == [
        name for name, counts in record["cases"].items() if not counts["lesions"]
    ]
    assert record["cases"]["patient01"]["lesions"] == 1
    counted = [line for line in said if " done, " in line]
    assert counted[0] == "0/2 done, 2 left"
    assert counted[1].startswith("1/2 done, 1 left, ")
    assert counted[2].startswith("2/2 done, 0 left, took ")
    prepare.prepare_lit(source, tmp_path / "d", activity="all", say=said.append)
    plain = prepare.prepare_lit(source, tmp_path / "plain", say=said.append)
    names = sorted(path.relative_to(plain) for path in plain.rglob("*"))
    assert sorted(path.relative_to(done) for path in done.rglob("*")) == names
    for name in names:
        assert (plain / name).is_dir() or (plain / name).read_bytes() == (done / name).read_bytes()


def test_another_archive_does_not_sort_out_what_is_there(tmp_path, capsys):
    write_case(tmp_path / "d" / "lit" / "patient01", channels=Lit.channels)
    source = laboratory(tmp_path / "l")
    said = complaint(capsys, "lit", source, tmp_path / "d", "--activity", "positive")
    assert "not from" in said
    assert "there already" in complaint(capsys, "lit", source, tmp_path / "d")


def test_patient_without_lesion_is_pointed_out(tmp_path):
    mirror(tmp_path / "m", lesions=0)
    said = []
    prepare.prepare_lit(tmp_path / "m", tmp_path / "d", exclude=["1", "3"], say=said.append)
    assert any("--exclude patient02" in line for line in said)


def test_whole_head_as_brain_mask_is_reported_and_kept(tmp_path):
    source = laboratory(tmp_path / "l")
    write_masks(source / "patient1", "patient1_", brain=np.ones(SHAPE, dtype=bool))
    said = []
    done = prepare.prepare_lit(source, tmp_path / "d", exclude=["12"], say=said.append)
    assert any("2304 ml" in line and "--derive-brain" in line for line in said)
    assert voxels(done / "patient01" / "brain.nii.gz").all()
    (image,) = load_cohort(Lit(), tmp_path / "d").images
    assert any("2304 ml" in warning for warning in image.warnings)


def test_whole_head_is_replaced_when_asked_for(tmp_path, monkeypatch):
    def derive(image: sitk.Image) -> sitk.Image:
        mask = sitk.GetImageFromArray(np.ascontiguousarray(brain_mask().T).astype(np.uint8))
        mask.CopyInformation(image)
        return mask

    monkeypatch.setattr(brain, "derive", derive)
    source = laboratory(tmp_path / "l")
    write_masks(source / "patient1", "patient1_", brain=np.ones(SHAPE, dtype=bool))
    done = prepare.prepare_lit(source, tmp_path / "d", derive_brain=True, say=lambda line: None)
    np.testing.assert_array_equal(voxels(done / "patient01" / "brain.nii.gz"), brain_mask())
    assert brain_methods(Lit(), tmp_path / "d", Lit().cases(tmp_path / "d")) == {
        "patient01": brain.METHOD,
        "patient12": "shipped",
    }


# ---------------------------------------------------------------------------------- complaints
def complaint(capsys, *arguments) -> str:
    assert prepare.main([str(part) for part in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: (p / "patient12_gt.nii.gz").unlink(), "patient12_gt.nii.gz: missing"),
        (lambda p: (p / "patient12_brainmask.nii.gz").write_bytes(b""), "is empty"),
        (lambda p: (p / "raw/patient12_study2_FLAIR.nii.gz").unlink(), "missing"),
        (
            lambda p: (p / "patient12_study1_FLAIR_to_common_space.txt").write_text(
                "Parameters: 1"
            ),
            "no usable transform (1 Parameters)",
        ),
        (lambda p: save(p / "patient12_gt.nii.gz", lesion_mask()), "affine differs"),
        (
            lambda p: (
                [file.unlink() for file in p.glob("*_to_common_space.txt")]
                + [
                    save(
                        p / f"raw/patient12_study{n}_FLAIR.nii.gz", head(), AFFINE + 0.3 * np.eye(4)
                    )
                    for n in (1, 2)
                ]
            ),
            "nothing says how it lies",
        ),
    ],
)
def test_a_bad_source_is_named_and_leaves_nothing(tmp_path, capsys, spoil, expected):
    source = laboratory(tmp_path / "l")
    spoil(source / "patient12")
    assert expected in complaint(capsys, "lit", source, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*"))


def test_unknown_patient_to_exclude_is_an_error(tmp_path, capsys):
    said = complaint(capsys, "lit", laboratory(tmp_path / "l"), tmp_path / "d", "--exclude", 7)
    assert "patient07" in said
    assert "patient01, patient12" in said


def test_existing_cohort_is_never_written_over(tmp_path, capsys):
    write_case(tmp_path / "d" / "lit" / "mine")
    before = sorted((tmp_path / "d").rglob("*"))
    assert "there already" in complaint(capsys, "lit", laboratory(tmp_path / "l"), tmp_path / "d")
    assert sorted((tmp_path / "d").rglob("*")) == before


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.touch()])
def test_a_folder_without_patients_is_an_error(tmp_path, capsys, make):
    make(tmp_path / "l")
    complaint(capsys, "lit", tmp_path / "l", tmp_path / "d")


def test_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "correct_bias", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare_lit(laboratory(tmp_path / "l"), tmp_path / "d", say=lambda line: None)
    assert not list((tmp_path / "d").glob("*"))


# ---------------------------------------------------------------------------------- WMH challenge
def test_wmh_folders_are_copied_and_their_masks_kept(tmp_path):
    source = tmp_path / "s" / "training"
    for place, seed in (("Utrecht/0", 0), ("Amsterdam/GE3T/100", 1)):
        lesion = np.zeros((7, 8, 6), dtype=np.uint8)
        lesion[2, 3, 2], lesion[4, 3, 2] = 1, 2
        write_wmh_case(source / place, lesion=lesion, seed=seed)
    done = prepare.prepare_wmh2017(tmp_path / "s", tmp_path / "d", say=lambda line: None)
    cases = Wmh2017().cases(tmp_path / "d")
    assert [(case.id, case.site) for case in cases] == [("0", "Utrecht"), ("100", "Amsterdam/GE3T")]
    for path in source.rglob("*.nii.gz"):
        np.testing.assert_array_equal(voxels(done / path.relative_to(source)), voxels(path))
    images = load_cohort(Wmh2017(), tmp_path / "d").images
    assert [(image.lesion_voxels, image.other.sum()) for image in images] == [(1, 1), (1, 1)]
    assert [image.brain_method for image in images] == ["shipped", "shipped"]


def test_wmh_case_without_brain_gets_one_and_the_method_is_recorded(tmp_path, monkeypatch):
    heads = []

    def derive(image: sitk.Image) -> sitk.Image:
        heads.append(sitk.GetArrayFromImage(image).T)
        mask = sitk.Cast(image > 0, sitk.sitkUInt8)
        return mask

    monkeypatch.setattr(brain, "derive", derive)
    folder = write_wmh_case(tmp_path / "s" / "Utrecht" / "0")
    (folder / "pre" / "brain.nii.gz").unlink()
    prepare.prepare_wmh2017(tmp_path / "s", tmp_path / "d", say=lambda line: None)
    np.testing.assert_allclose(heads[0], voxels(folder / "pre" / "T1.nii.gz"))
    (image,) = load_cohort(Wmh2017(), tmp_path / "d").images
    assert image.brain_method == brain.METHOD


@pytest.mark.parametrize("shipped", [True, False])
def test_masks_lie_where_their_image_does_for_every_reader(tmp_path, monkeypatch, shipped):
    monkeypatch.setattr(brain, "derive", lambda image: sitk.Cast(image > 0, sitk.sitkUInt8))
    folder, said = write_wmh_case(tmp_path / "s" / "Utrecht" / "0"), []
    place_oddly(folder / "wmh.nii.gz", *(folder / "pre").iterdir())
    if not shipped:
        (folder / "pre" / "brain.nii.gz").unlink()
    prepare.prepare_wmh2017(tmp_path / "s", tmp_path / "d", say=said.append)
    mask = tmp_path / "d" / "wmh2017" / "Utrecht" / "0" / "pre" / "brain.nii.gz"
    image = folder / "pre" / "T1.nii.gz"
    assert by_itk(mask) == by_itk(image)
    assert nib.load(mask).affine.tobytes() == nib.load(image).affine.tobytes()
    assert load_cohort(Wmh2017(), tmp_path / "d").images[0].spacing_mm == pytest.approx((1, 1, 1))
    assert shipped or "T1.nii.gz: sform and qform disagree by 7.07 mm" in "".join(said)


def test_a_patient_lies_where_the_masks_do_for_every_reader(tmp_path):
    source = laboratory(tmp_path / "s")
    place_oddly(*source.rglob("*.nii.gz"))
    prepare.prepare_lit(source, tmp_path / "d", say=lambda line: None)
    for case in Lit().cases(tmp_path / "d"):
        grid = next(source.glob(f"*{int(case.id[-2:])}/*brainmask.nii.gz"))
        for path in case.files:
            assert by_itk(path) == by_itk(grid)
            assert nib.load(path).affine.tobytes() == nib.load(grid).affine.tobytes()
        flair = voxels(case.channels["followup_flair"])
        assert np.corrcoef(flair[brain_mask()], head(seed=2)[brain_mask()])[0, 1] > 0.9


# ------------------------------------------------------------------------------------ registration
def test_transform_text_is_read_whatever_its_class(tmp_path):
    found = registration.read_transform(write_transform(tmp_path / "t.txt", SHIFT_MM))
    np.testing.assert_allclose(found.TransformPoint((0, 0, 0)), (-8, 4, 5))


def test_rigid_registration_finds_a_known_rotation():
    rotation = sitk.Euler3DTransform((0, 0, 0), 0.05, -0.08, 0.1, (5, -3, 4))
    fixed = sitk.GetImageFromArray(head().T)
    fixed.SetSpacing((4, 4, 5))
    fixed.SetOrigin((-70, -75, -45))
    moving = registration.resample(fixed, fixed, rotation.GetInverse(), sitk.sitkLinear)
    found = registration.rigid(fixed, moving)
    for point in ((30, 20, 10), (-30, -20, 20), (0, 40, -20)):
        error = np.subtract(found.TransformPoint(point), rotation.TransformPoint(point))
        assert np.linalg.norm(error) < 4  # a voxel


@pytest.mark.slow
def test_derived_brain_matches_the_archive_mask():
    """On a raw FLAIR with skull, resampled to 3 mm."""
    root = SHARED / "open_ms_data" / "longitudinal"
    if not root.is_dir():
        pytest.skip(f"the public archive's patients are not there ({root})")
    mask = sitk.ReadImage(str(root / "coregistered/patient01/brainmask.nii.gz"), sitk.sitkUInt8)
    raw = sitk.ReadImage(str(root / "raw/patient01/study2_FLAIR.nii.gz"), sitk.sitkFloat32)
    transform = registration.read_transform(root / "raw/patient01/study2_FLAIR_to_common_space.txt")
    derived = brain.derive(registration.resample(raw, mask, transform))
    ours, theirs = (sitk.GetArrayFromImage(image) > 0 for image in (derived, mask))
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.93


@pytest.mark.slow
def test_public_patients_become_the_prepared_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "correct_bias", CORRECT_BIAS)
    source = SHARED / "open_ms_data"
    if not source.is_dir():
        pytest.skip(f"the public archive's patients are not there ({source})")
    done = prepare.prepare_lit(source, tmp_path, exclude=["3"], say=lambda line: None)
    reference = SHARED / "lit" / "patient01"
    inside = voxels(reference / "brain.nii.gz") > 0
    for name in Lit.channels:
        ours, theirs = (
            voxels(folder / f"{name}.nii.gz")[inside] for folder in (done / "patient01", reference)
        )
        assert np.corrcoef(ours, theirs)[0, 1] > 0.98
    np.testing.assert_array_equal(
        voxels(done / "patient01" / "lesion.nii.gz"), voxels(reference / "lesion.nii.gz")
    )


def test_every_eighth_voxel_of_a_public_patient_is_prepared_alike(tmp_path, monkeypatch):
    """The same in seconds, raw images resampled onto a coarse grid."""
    monkeypatch.setattr(prepare, "correct_bias", CORRECT_BIAS)
    source = SHARED / "open_ms_data" / "longitudinal"
    if not source.is_dir():
        pytest.skip(f"the public archive's patients are not there ({source})")
    small = tmp_path / "s" / "longitudinal"
    for path in source.rglob("patient01/*"):
        target = small / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".nii.gz"):
            image, step = nib.load(path), 1 if "raw" in path.parts and "gt" not in path.name else 8
            cut = voxels(path)[::step, ::step, :: 1 if step == 1 else 2]
            save(target, cut, image.affine @ np.diag([step, step, 1 if step == 1 else 2, 1]))
        else:
            target.write_bytes(path.read_bytes())
    done = prepare.prepare_lit(tmp_path / "s", tmp_path / "d", say=lambda line: None)
    reference = SHARED / "lit" / "patient01"
    inside = voxels(reference / "brain.nii.gz")[::8, ::8, ::2] > 0
    for name in Lit.channels:
        theirs = voxels(reference / f"{name}.nii.gz")[::8, ::8, ::2][inside]
        ours = voxels(done / "patient01" / f"{name}.nii.gz")[inside]
        assert np.corrcoef(ours, theirs)[0, 1] > 0.9
