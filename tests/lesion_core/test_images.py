"""Loading checks every file, cuts exactly, normalises exactly and looks at the right slice."""

import gzip
import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy import ndimage

from lesion_core import results
from lesion_core.cohort_rows import describe
from lesion_core.cohorts import Folder, Lit, Wmh2017
from lesion_core.fingerprint import fingerprint
from lesion_core.images import Image, bounding_box, load_case, load_cohort
from lesion_core.metrics import surface_distances
from lesion_core.pictures import shown_slice, slice_view
from tests.support.tiny import (
    SHAPE,
    ball,
    noise,
    one_lesion,
    place_oddly,
    save,
    write_case,
    write_lit_cohort,
    write_wmh_case,
    write_wmh_cohort,
)

MINE = Folder(name="mine", channels=("t1", "flair"))
SHARED = Path(__file__).parents[3] / "shared" / "data"


def load(data: Path, cohort=MINE) -> Image:
    """The only case of a cohort."""
    (case,) = cohort.cases(data)
    return load_case(case, cohort.brain_place(data, case))


def fails(data: Path, *parts: str, cohort=MINE) -> str:
    """The one-line complaint about the only case; holds all these parts."""
    with pytest.raises(ValueError) as caught:
        load(data, cohort)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound case, ``tmp_path/mine/case1``."""
    return write_case(tmp_path / "mine" / "case1")


def place(shape=SHAPE, *voxels) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


# ---------------------------------------------------------------------------- what is loaded
def test_box_holds_the_brain_with_its_last_planes(tmp_path):
    brain = place(SHAPE, (1, 2, 0), (6, 5, 5), (3, 7, 2))
    write_case(tmp_path / "mine" / "c", brain=brain, lesion=place(SHAPE, (6, 5, 5)))
    image = load(tmp_path)
    assert image.origin == (1, 2, 0)
    assert image.box_shape == (6, 6, 6)
    assert image.shape == SHAPE
    assert image.brain.sum() == 3
    assert image.brain[5, 3, 5]
    assert image.labels[5, 3, 5] == 1


def test_voxels_have_mean_0_and_deviation_1_inside_the_brain_and_the_same_scale_outside(tmp_path):
    t1, flair = 1000 + 50 * noise(1), noise(2)
    brain = ball() & (noise(5) > 95)
    write_case(tmp_path / "mine" / "c", channels={"t1": t1, "flair": flair}, brain=brain)
    image = load(tmp_path)
    box = bounding_box(brain)
    for channel, raw in zip(image.voxels, (t1, flair), strict=True):
        assert channel[image.brain].mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
        assert channel[image.brain].std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
        inside = raw[brain].astype(np.float64)
        expected = (raw[box] - inside.mean()) / inside.std()
        np.testing.assert_allclose(channel, expected, atol=1e-4)


def test_arrays_have_the_stated_types_and_are_contiguous(folder, tmp_path):
    image = load(tmp_path)
    assert image.channels == ("t1", "flair")
    assert image.voxels.dtype == np.float32
    assert image.labels.dtype == np.uint16
    assert image.brain.dtype == bool
    assert image.lesion.dtype == bool
    assert image.lesion_outside_box.dtype == np.int32
    assert image.lesion_outside_box.shape == (0, 4)
    assert image.other is None
    assert image.voxels.shape == (2, *image.box_shape) == (2, 5, 6, 4)
    for array in (image.voxels, image.labels, image.brain):
        assert array.flags.c_contiguous
    assert image.warnings == ()


def test_channels_follow_the_cohort_not_the_folder(folder, tmp_path):
    turned = load(tmp_path, Folder(name="mine", channels=("flair", "t1")))
    np.testing.assert_array_equal(turned.voxels[::-1], load(tmp_path).voxels)


def test_voxels_that_share_a_corner_are_one_lesion(tmp_path):
    chain = place(SHAPE, (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 2, 4))
    apart = place(SHAPE, (1, 6, 1), (5, 6, 1), (5, 6, 3))
    write_case(tmp_path / "mine" / "c", lesion=chain | apart)
    image = load(tmp_path)
    assert image.num_lesions == 4
    assert np.bincount(image.labels.ravel())[1:].tolist() == [4, 1, 1, 1]
    assert image.lesion_voxels == 7


def test_lesion_outside_the_box_keeps_its_number_and_is_listed(tmp_path):
    lesion = place(SHAPE, (0, 0, 0), (1, 1, 1), (3, 4, 3), (6, 7, 5), (6, 6, 5))
    write_case(tmp_path / "mine" / "c", lesion=lesion)
    image = load(tmp_path)
    assert image.num_lesions == 3
    assert image.labels.max() == 2  # the third lies outside the box altogether
    assert image.lesion_outside_box.tolist() == [[0, 0, 0, 1], [6, 6, 5, 3], [6, 7, 5, 3]]
    assert image.lesion_voxels == 5
    assert image.warnings == ("c/lesion.nii.gz: 3 of 5 lesion voxels lie outside the brain mask",)


@pytest.mark.parametrize("seed", range(8))
def test_lesions_of_the_whole_image_are_those_in_the_box_and_those_outside(tmp_path, seed):
    rng = np.random.default_rng(seed)
    lesion, brain = rng.random(SHAPE) < 0.1, rng.random(SHAPE) < 0.02
    brain[2:4, 3, 3] = True
    write_case(tmp_path / "mine" / "c", lesion=lesion, brain=brain)
    image = load(tmp_path)
    labels, number = ndimage.label(lesion, np.ones((3, 3, 3)))
    rebuilt = np.zeros(SHAPE, dtype=int)
    rebuilt[bounding_box(brain)] = image.labels
    for *voxel, label in image.lesion_outside_box:
        assert rebuilt[tuple(voxel)] == 0
        rebuilt[tuple(voxel)] = label
    np.testing.assert_array_equal(rebuilt, labels)
    assert image.num_lesions == number
    assert image.lesion_voxels == lesion.sum()
    (row,), _ = describe(load_cohort(MINE, tmp_path))
    assert row["lesion_voxels"] == lesion.sum()
    assert row["n_lesions"] == number
    assert row["lesion_outside_brain_voxels"] == (lesion & ~brain).sum()


def test_lesion_in_the_box_but_outside_the_brain_is_kept_and_reported(tmp_path):
    brain = ball() & ~place(SHAPE, (2, 3, 2))
    write_case(tmp_path / "mine" / "c", brain=brain, lesion=one_lesion())
    image = load(tmp_path)
    assert image.labels[1, 2, 1] == 1
    assert len(image.lesion_outside_box) == 0
    assert image.warnings == ("c/lesion.nii.gz: 1 of 8 lesion voxels lie outside the brain mask",)


def test_case_without_lesion_is_kept_and_reported(tmp_path):
    write_case(tmp_path / "mine" / "c", lesion=place())
    image = load(tmp_path)
    assert (image.num_lesions, image.lesion_voxels) == (0, 0)
    assert image.warnings == ("c/lesion.nii.gz: no lesion voxel; tested on, but never trained on",)


def test_other_pathology_is_background_and_kept_apart(tmp_path):
    marked = one_lesion().astype(np.uint8)
    marked[4, 3:5, 2] = 2  # touches the lesion: still not part of it
    marked[0, 0, 0] = 2
    write_wmh_case(tmp_path / "wmh2017" / "Utrecht" / "4", lesion=marked)
    image = load(tmp_path, Wmh2017())
    assert image.site == "Utrecht"
    assert image.lesion_voxels == 8
    assert image.num_lesions == 1
    assert np.argwhere(image.other).tolist() == [[3, 2, 1], [3, 3, 1]]
    assert image.other_outside_box == 1
    (row,), _ = describe(load_cohort(Wmh2017(), tmp_path))
    assert row["other_voxels"] == 3


def test_cohort_that_may_have_other_pathology_has_a_mask_even_when_empty(tmp_path):
    write_wmh_cohort(tmp_path, {"Utrecht": [0]})
    assert not load(tmp_path, Wmh2017()).other.any()


@pytest.mark.parametrize(
    ("axes", "left_right"), [("LPS", 0), ("RAS", 0), ("PIR", 2), ("ALS", 1), ("SRA", 1)]
)
def test_left_right_axis_follows_the_affine(tmp_path, axes, left_right):
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, letter in enumerate(axes):
        world = "LRPAIS".index(letter) // 2
        affine[world, axis] = (axis + 1) * (1 if letter in "RAS" else -1)
    write_case(tmp_path / "mine" / "c", affine=affine)
    image = load(tmp_path)
    assert image.left_right_axis == left_right
    assert image.spacing_mm == pytest.approx((1, 2, 3))
    assert image.voxel_mm3 == pytest.approx(6)
    np.testing.assert_allclose(image.affine, affine)


def test_left_right_axis_of_an_oblique_image_is_the_closest(tmp_path):
    angle = np.deg2rad(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    write_case(tmp_path / "mine" / "c", affine=affine[:, [1, 0, 2, 3]])
    assert load(tmp_path).left_right_axis == 1


# --------------------------------------------------------------------- ways to store the same
def same(one: Image, other: Image, atol=0.0):
    np.testing.assert_allclose(one.voxels, other.voxels, atol=atol, rtol=0)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.brain, other.brain)
    assert (one.origin, one.spacing_mm) == (other.origin, other.spacing_mm)


def test_scaled_integers_are_read_with_their_scale_and_offset(folder, tmp_path):
    expected = load(tmp_path)
    values = nib.load(folder / "t1.nii.gz").get_fdata()
    header = nib.Nifti1Header()
    stored = np.rint((values - 100) / 0.01).astype(np.int16)
    image = nib.Nifti1Image(stored, np.eye(4), header)
    image.header.set_slope_inter(0.01, 100)
    nib.save(image, folder / "t1.nii.gz")
    proxy = nib.load(folder / "t1.nii.gz").dataobj
    # Set as scale of integers that are already there: nibabel must not rescale on writing.
    if proxy.slope != 0.01:
        content = bytearray(gzip.decompress((folder / "t1.nii.gz").read_bytes()))
        content[112:120] = np.array([0.01, 100], dtype="<f4").tobytes()
        (folder / "t1.nii.gz").write_bytes(gzip.compress(bytes(content)))
    np.testing.assert_allclose(nib.load(folder / "t1.nii.gz").get_fdata(), values, atol=0.006)
    same(load(tmp_path), expected, atol=2e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_masks_of_any_number_type_are_the_same_masks(folder, tmp_path, dtype):
    expected = load(tmp_path)
    save(folder / "lesion.nii.gz", one_lesion().astype(dtype))
    save(folder / "brain.nii.gz", ball().astype(dtype))
    same(load(tmp_path), expected)


def test_masks_saved_as_scaled_integers_may_miss_1_by_rounding(folder, tmp_path):
    expected = load(tmp_path)
    save(folder / "lesion.nii.gz", one_lesion() * np.float32(0.9999999))
    same(load(tmp_path), expected)


def test_uncompressed_nifti_2_and_big_endian_files_are_read_alike(folder, tmp_path):
    expected = load(tmp_path)
    for name, write in {
        "t1": lambda image, path: nib.save(image, path.with_suffix("")),
        "flair": lambda image, path: nib.save(nib.Nifti2Image.from_image(image), path),
        "brain": lambda image, path: nib.save(
            nib.Nifti1Image(
                image.get_fdata().astype(np.uint8),
                image.affine,
                image.header.as_byteswapped(">"),
            ),
            path,
        ),
    }.items():
        image = nib.load(folder / f"{name}.nii.gz")
        image = nib.Nifti1Image(image.get_fdata().astype(np.float32), image.affine)
        (folder / f"{name}.nii.gz").unlink()
        write(image, folder / f"{name}.nii.gz")
    assert (folder / "t1.nii").exists()
    same(load(tmp_path), expected)


@pytest.mark.parametrize(("units", "per_mm"), [("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
def test_a_case_in_other_units_is_the_same_case(tmp_path, units, per_mm):
    affine = np.diag([1.0, 2, 3, 1])
    write_case(tmp_path / "mine" / "c", affine=affine)
    expected = load(tmp_path)
    write_case(tmp_path / "mine" / "c", affine=np.diag([per_mm] * 3 + [1]) @ affine)
    for path in (tmp_path / "mine" / "c").iterdir():
        image = nib.load(path)
        image.header.set_xyzt_units(units)
        nib.save(image, path)
    found = load(tmp_path)
    assert (found.num_lesions, found.warnings) == (expected.num_lesions, ())
    assert found.spacing_mm == pytest.approx(expected.spacing_mm)
    assert found.voxel_mm3 == pytest.approx(6)
    np.testing.assert_allclose(found.affine, expected.affine, rtol=1e-6)
    one, other = np.zeros((2, 20, 20, 20), dtype=bool)
    one[2, 2, 2] = other[7, 2, 2] = True  # five voxels of 1 mm
    assert surface_distances(one, other, found.spacing_mm)["hd95_mm"] == pytest.approx(5)


def test_a_sheared_voxel_has_the_volume_of_its_determinant(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.75  # the second axis is 1.25 long
    write_case(tmp_path / "mine" / "c", affine=sheared)
    image = load(tmp_path)
    assert image.spacing_mm == pytest.approx((1, 1.25, 1))
    assert image.voxel_mm3 == pytest.approx(1)
    (line,) = image.warnings
    assert line.startswith("c/t1.nii.gz: the affine is sheared")


def test_channels_that_say_different_things_to_different_readers_are_each_named(tmp_path):
    folder = write_case(tmp_path / "mine" / "c")
    place_oddly(folder / "flair.nii.gz")
    (line,) = load(tmp_path).warnings
    assert line.startswith("c/flair.nii.gz: sform and qform disagree by 7.07 mm; sform is used")


@pytest.mark.parametrize(
    ("side_mm", "voxels", "ml"), [(1, 1, "0.001"), (20, 40**3, "5.12e+05"), (0.06, 120, "2.59e-05")]
)
def test_brains_of_no_animal_are_refused(tmp_path, side_mm, voxels, ml):
    shape = (40, 40, 40)
    brain = (np.arange(40**3) < voxels).reshape(shape)
    write_case(
        tmp_path / "mine" / "c",
        {name: noise(place, shape) for place, name in enumerate(MINE.channels)},
        brain=brain,
        affine=np.diag([side_mm] * 3 + [1.0]),
    )
    fails(tmp_path, f"brain.nii.gz: {ml} ml of brain; expected 0.002 to 10000 ml; correct")


def test_affines_that_differ_by_rounding_are_the_same_grid(folder, tmp_path):
    affine = np.eye(4)
    affine[0, 0] += 1e-6
    affine[:3, 3] += 0.01
    save(folder / "lesion.nii.gz", one_lesion(), affine)
    assert load(tmp_path).lesion_voxels == 8


# ------------------------------------------------------------------------------ refused files
FILES = ["t1.nii.gz", "flair.nii.gz", "brain.nii.gz", "lesion.nii.gz"]


@pytest.mark.parametrize("name", FILES)
def test_empty_file_is_named(folder, tmp_path, name):
    (folder / name).write_bytes(b"")
    fails(tmp_path, f"{folder / name}: the file is empty")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [10, 0.5, -1, -8])
def test_truncated_compressed_file_is_named(folder, tmp_path, name, keep):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content)) if keep == 0.5 else keep])
    fails(tmp_path, f"{folder / name}: cannot be read")


def test_one_wrong_bit_in_a_compressed_file_is_found(folder, tmp_path):
    plain = gzip.decompress((folder / "t1.nii.gz").read_bytes())
    content = bytearray(gzip.compress(plain, compresslevel=0))
    content[500] ^= 1
    (folder / "t1.nii.gz").write_bytes(content)
    fails(tmp_path, f"{folder / 't1.nii.gz'}: cannot be read (CRC check failed")


def test_truncated_uncompressed_file_is_named(folder, tmp_path):
    content = gzip.decompress((folder / "t1.nii.gz").read_bytes())
    (folder / "t1.nii.gz").unlink()
    (folder / "t1.nii").write_bytes(content[:-1])
    fails(tmp_path, f"{folder / 't1.nii'}: truncated: {len(content) - 1} of {len(content)} bytes")
    (folder / "t1.nii").write_bytes(content[:100])
    fails(tmp_path, f"{folder / 't1.nii'}: not a NIfTI file")


def test_file_that_is_no_nifti_is_named(folder, tmp_path):
    (folder / "t1.nii.gz").write_bytes(b"PK\x03\x04 something else")
    fails(tmp_path, f"{folder / 't1.nii.gz'}: cannot be read (Not a gzipped file")
    (folder / "t1.nii.gz").write_bytes(gzip.compress(b"x" * 1000))
    fails(tmp_path, f"{folder / 't1.nii.gz'}: not a NIfTI file")


def test_file_without_permission_is_named(folder, tmp_path, monkeypatch):
    open_it = Path.open

    def refuse(self, *arguments, **more):
        if self.name == "flair.nii.gz":
            raise PermissionError(13, "Permission denied", str(self))
        return open_it(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    fails(tmp_path, f"{folder / 'flair.nii.gz'}: cannot be read (Permission denied)")


def test_folder_in_place_of_a_file_is_named(folder, tmp_path):
    (folder / "t1.nii.gz").unlink()
    (folder / "t1.nii.gz").mkdir()
    fails(tmp_path, f"{folder / 't1.nii.gz'}: a folder is there; expected a file")


@pytest.mark.parametrize("seed", range(5))
def test_damaged_headers_never_end_in_anything_but_one_line(folder, tmp_path, seed):
    rng = np.random.default_rng(seed)
    plain = gzip.decompress((folder / "t1.nii.gz").read_bytes())
    refused = 0
    for _ in range(40):
        content = bytearray(plain)
        for position in rng.integers(0, 352, size=3):
            content[position] = rng.integers(256)
        (folder / "t1.nii.gz").write_bytes(gzip.compress(bytes(content), 1))
        try:
            load(tmp_path)
        except ValueError as error:
            assert str(folder) in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("name", FILES[1:])
def test_other_shape_inside_a_case_is_named(folder, tmp_path, name):
    save(folder / name, np.ones((7, 8, 5)))
    fails(tmp_path, f"{folder / name}: shape 7 x 8 x 5 differs from t1.nii.gz's 7 x 8 x 6")


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize(
    "affine",
    [np.diag([1, 1, 1.05, 1]), np.diag([-1, 1, 1, 1]), np.eye(4) + 0.2 * np.eye(4, k=3)],
    ids=["spacing", "flipped", "shifted"],
)
def test_other_affine_inside_a_case_is_named(folder, tmp_path, name, affine):
    array = nib.load(folder / name).get_fdata().astype(np.float32)
    save(folder / name, array, affine)
    fails(tmp_path, f"{folder / name}: affine differs from t1.nii.gz's")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shape", [(7, 8, 6, 1), (7, 8, 6, 2), (7, 8)])
def test_images_that_are_not_three_dimensional_are_named(folder, tmp_path, name, shape):
    save(folder / name, np.ones(shape))
    fails(tmp_path, f"{folder / name}: {len(shape)}D image of shape 7 x 8")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted_and_named(folder, tmp_path, name, value):
    array = nib.load(folder / name).get_fdata().astype(np.float32)
    array[0, 0, 1] = array[0, 0, 2] = value
    save(folder / name, array)
    fails(tmp_path, f"{folder / name}: 2 voxels are NaN or infinite, the first at (0, 0, 1)")


def test_voxels_too_large_for_single_precision_are_named(folder, tmp_path):
    array = noise(0).astype(np.float64)
    array[1, 2, 3] = 1e300
    save(folder / "t1.nii.gz", array)
    fails(tmp_path, str(folder / "t1.nii.gz"), "1 voxels are NaN or infinite")


def test_complex_and_colour_images_are_named(folder, tmp_path):
    save(folder / "t1.nii.gz", noise(0).astype(np.complex64))
    fails(tmp_path, str(folder / "t1.nii.gz"), "complex64", "one number per voxel")
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(folder / "t1.nii.gz", colour)
    fails(tmp_path, str(folder / "t1.nii.gz"), "one number per voxel")


def rewrite_header(path: Path, **fields) -> None:
    """Overwrite header fields behind nibabel's back."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for key, value in fields.items():
        header[key] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, -1, np.nan])
def test_voxel_size_that_is_not_positive_is_named(folder, tmp_path, name, size):
    rewrite_header(folder / name, pixdim=[1, 1, size, 1, 0, 0, 0, 0])
    fails(tmp_path, f"{folder / name}: voxel size 1 x {size:g} x 1 mm", "expected positive")


def test_singular_affine_is_named(folder, tmp_path):
    rewrite_header(folder / "t1.nii.gz", srow_y=[1, 0, 0, 0], sform_code=1)
    fails(tmp_path, f"{folder / 't1.nii.gz'}: the affine is singular")


def test_header_that_contradicts_its_affine_is_reported_and_the_affine_used(folder, tmp_path):
    for name in FILES:
        rewrite_header(folder / name, pixdim=[1, 1, 1, 3, 0, 0, 0, 0])
    image = load(tmp_path)
    assert image.spacing_mm == (1, 1, 1)
    assert image.warnings == (
        "case1/t1.nii.gz: voxel size 1 x 1 x 3 mm in the header, 1 x 1 x 1 mm by the affine, "
        "which is used",
    )


def test_header_without_orientation_is_reported(folder, tmp_path):
    for name in FILES:
        rewrite_header(folder / name, sform_code=0, qform_code=0)
    image = load(tmp_path)
    assert image.left_right_axis == 0
    assert image.warnings == (
        "case1/t1.nii.gz: the header states no orientation; the first axis is taken as left-right",
    )


def test_empty_brain_mask_is_named(folder, tmp_path):
    save(folder / "brain.nii.gz", place())
    fails(tmp_path, f"{folder / 'brain.nii.gz'}: the brain mask is empty")


def test_missing_brain_mask_names_the_way_to_make_one(folder, tmp_path):
    (folder / "brain.nii.gz").unlink()
    place = str(folder / "brain.nii.gz")
    fails(tmp_path, place, "python -m lesion_core.prepare brains")


@pytest.mark.parametrize("name", ["brain.nii.gz", "lesion.nii.gz"])
@pytest.mark.parametrize(
    ("values", "listed"), [((0, 255), "0, 255"), ((0, 0.5), "0, 0.5"), ((-1, 1), "-1, 1")]
)
def test_mask_with_other_labels_is_named_with_what_it_holds(folder, tmp_path, name, values, listed):
    low, high = values
    save(folder / name, np.where(ball(), high, low).astype(np.float32))
    fails(tmp_path, f"{folder / name}: the mask holds {listed}; expected 0 and 1 only")


def test_label_2_is_refused_where_the_layout_has_none(folder, tmp_path):
    save(folder / "lesion.nii.gz", one_lesion() * np.uint8(2))
    fails(tmp_path, f"{folder / 'lesion.nii.gz'}: the mask holds 0, 2; expected 0 and 1 only")


def test_label_3_is_refused_in_wmh(tmp_path):
    folder = write_wmh_case(tmp_path / "wmh2017" / "U" / "1", lesion=one_lesion() * np.uint8(3))
    fails(tmp_path, f"{folder / 'wmh.nii.gz'}: the mask holds 0, 3", cohort=Wmh2017())


def test_soft_mask_is_refused_with_a_few_of_its_values(folder, tmp_path):
    soft = np.linspace(0, 1, 7 * 8 * 6, dtype=np.float32).reshape(SHAPE)
    save(folder / "lesion.nii.gz", soft)
    fails(tmp_path, str(folder / "lesion.nii.gz"), "and 331 other values", "binarise it first")


@pytest.mark.parametrize("value", [0, 0.1, 1e6])
def test_image_that_is_constant_inside_the_brain_is_named(folder, tmp_path, value):
    flair = np.where(ball(), np.float32(value), noise(3))
    save(folder / "flair.nii.gz", flair)
    fails(tmp_path, f"{folder / 'flair.nii.gz'}: every voxel inside the brain mask is {value:g}")


def test_more_lesions_than_16_bits_can_number_are_refused(tmp_path):
    shape = (82, 82, 82)
    speckle = np.zeros(shape, dtype=bool)
    speckle[::2, ::2, ::2] = True
    write_case(tmp_path / "mine" / "c", {"t1": noise(0, shape)}, lesion=speckle)
    cohort = Folder(name="mine", channels=("t1",))
    fails(tmp_path, "lesion.nii.gz: 68921 separate lesions; expected 65535", cohort=cohort)


# ------------------------------------------------------------------------------------ cohorts
def test_cohort_is_loaded_in_natural_order_and_heard_of_in_that_order(tmp_path):
    write_lit_cohort(tmp_path, (10, 9, 2, 1, 3))
    heard = []
    loaded = load_cohort(Lit(), tmp_path, lambda *event: heard.append(event))
    names = ["patient01", "patient02", "patient03", "patient09", "patient10"]
    assert [image.case for image in loaded.images] == names
    assert heard == [(number, 5, name) for number, name in enumerate(names, start=1)]
    assert (loaded.name, loaded.channels) == ("lit", Lit.channels)
    for case, image in zip(Lit().cases(tmp_path), loaded.images, strict=True):
        same(load_case(case), image)


def test_first_unusable_case_is_named_whichever_is_read_first(tmp_path):
    root = write_lit_cohort(tmp_path, range(1, 9))
    for patient in ("patient03", "patient05"):
        (root / patient / "lesion.nii.gz").write_bytes(b"")
    for _ in range(3):
        with pytest.raises(ValueError, match="patient03"):
            load_cohort(Lit(), tmp_path)


def test_fingerprint_depends_on_contents_names_and_channels_alone(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for data in (first, second):
        write_lit_cohort(data, (1, 2))
    (second / "lit" / "notes.txt").write_text("not used")
    original = fingerprint(Lit(), first)
    assert len(original) == 64
    assert fingerprint(Lit(), second) == original == load_cohort(Lit(), first).fingerprint
    turned = Folder(name="lit", channels=Lit.channels[::-1])
    assert fingerprint(turned, first) != original

    (second / "lit" / "patient02").rename(second / "lit" / "patient03")
    assert fingerprint(Lit(), second) != original
    (second / "lit" / "patient03").rename(second / "lit" / "patient02")
    assert fingerprint(Lit(), second) == original
    save(second / "lit" / "patient02" / "lesion.nii.gz", one_lesion() ^ place(SHAPE, (2, 3, 2)))
    assert fingerprint(Lit(), second) != original


def test_fingerprint_changes_with_the_format_version(tmp_path, monkeypatch):
    write_lit_cohort(tmp_path, (1,))
    original = fingerprint(Lit(), tmp_path)
    monkeypatch.setattr("lesion_core.fingerprint.FORMAT_VERSION", -1)
    assert fingerprint(Lit(), tmp_path) != original


def test_fingerprint_of_an_unreadable_file_names_it(folder, tmp_path):
    (folder / "t1.nii.gz").unlink()
    (folder / "t1.nii.gz").mkdir()
    with pytest.raises(ValueError, match=r"t1\.nii\.gz: a folder is there"):
        fingerprint(MINE, tmp_path)


# ------------------------------------------------------------------------------------- slices
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product([1, -1], repeat=3)
]
"""All 48 ways to store the same volume: axes permuted and flipped."""


@pytest.mark.parametrize("ornt", ORIENTATIONS, ids=lambda o: "".join(f"{a}{f:+d}" for a, f in o))
def test_the_same_picture_comes_out_of_every_storage_orientation(tmp_path, ornt):
    # In right-anterior-superior order, so that the picture can be written down by hand.
    t1, brain, lesion = noise(0), ball(), place(SHAPE, (1, 2, 3), (5, 2, 3), (4, 6, 3), (4, 6, 1))
    canonical = np.diag([0.5, 2.0, 3.0, 1.0])
    affine = canonical @ inv_ornt_aff(ornt, SHAPE)
    write_case(
        tmp_path / "mine" / "c",
        {"t1": apply_orientation(t1, ornt)},
        lesion=apply_orientation(lesion, ornt),
        brain=apply_orientation(brain, ornt),
        affine=affine,
    )
    loaded = load_cohort(Folder(name="mine", channels=("t1",)), tmp_path)
    (image,), (_, (row,)) = loaded.images, describe(loaded)

    # x runs right and y anterior: the first row is the largest y, the first column the largest x.
    expected = lesion[1:-1, 1:-1, 3].T[::-1, ::-1]
    np.testing.assert_array_equal(slice_view(image.lesion, image), expected)
    assert (row["height"], row["width"]) == expected.shape == (6, 5)
    assert (row["row_mm"], row["column_mm"]) == pytest.approx((2, 0.5))
    assert row["axis"] == ornt[2, 0]
    assert row["index"] == (3 if ornt[2, 1] == 1 else SHAPE[2] - 1 - 3)
    assert shown_slice(image) == (row["axis"], row["index"])
    bits = np.unpackbits(np.frombuffer(row["reference"], np.uint8), count=30).reshape(6, 5)
    np.testing.assert_array_equal(bits, expected)
    black, white = np.percentile(t1[brain], [1, 99])
    grey = 255 * np.clip((t1[1:-1, 1:-1, 3].T[::-1, ::-1] - black) / (white - black), 0, 1)
    picture = np.frombuffer(row["images"][0], np.uint8).reshape(6, 5)
    np.testing.assert_allclose(picture, grey, atol=0.51)


def test_shown_slice_has_the_largest_lesion_area_and_is_the_first_of_equals(tmp_path):
    lesion = place(SHAPE, (2, 2, 1), (2, 2, 3), (2, 4, 3), (2, 2, 4), (4, 4, 4))
    write_case(tmp_path / "mine" / "c", lesion=lesion)
    assert shown_slice(load(tmp_path)) == (2, 3)


def test_shown_slice_counts_lesion_beside_the_box_but_never_leaves_it(tmp_path):
    beside = place(SHAPE, (2, 2, 1), (2, 3, 1), (0, 0, 3), (0, 1, 3), (0, 2, 3))
    beside[:, :, 5] = True  # a slice below which the box ends
    write_case(tmp_path / "mine" / "c", lesion=beside)
    image = load(tmp_path)
    assert shown_slice(image) == (2, 3)
    assert not slice_view(image.lesion, image).any()


@pytest.mark.parametrize("lesion", [place(), place(SHAPE, (3, 3, 5))])
def test_shown_slice_without_lesion_is_the_middle_of_the_box(tmp_path, lesion):
    write_case(tmp_path / "mine" / "c", lesion=lesion)
    assert shown_slice(load(tmp_path)) == (2, 3)  # the box is 1 to 4


def test_rows_fit_the_schema_and_can_be_read_back(tmp_path):
    write_wmh_cohort(tmp_path, {"Utrecht": [0, 2], "Amsterdam/GE3T": [100]})
    cases, slices = describe(load_cohort(Wmh2017(), tmp_path))
    results.write_table(tmp_path / "cases.parquet", cases, results.COHORT_CASES)
    results.write_table(tmp_path / "slices.parquet", slices, results.COHORT_SLICES)
    assert [row["site"] for row in cases] == ["Utrecht", "Utrecht", "Amsterdam/GE3T"]
    assert cases[0] == {
        "cohort": "wmh2017",
        "case": "0",
        "site": "Utrecht",
        "shape": [7, 8, 6],
        "box_shape": [5, 6, 4],
        "spacing_mm": [1, 1, 1],
        "brain_voxels": 120,
        "lesion_voxels": 8,
        "other_voxels": 0,
        "n_lesions": 1,
        "lesion_outside_brain_voxels": 0,
        "warnings": [],
        "brain_method": "shipped",
        "n_lesions_with_other": 1,
        "patch_voxels": 32**3,
        "patch_lesion_voxels": [8],
        "subject": "0",
        "ignore_voxels": 0,
        "ignore_brain_voxels": 0,
        "patch_ignore_voxels": None,
        "source_shape": None,
        "source_spacing_mm": None,
        "voxel_mm3": pytest.approx(1),
        "activity": None,
        "lesion_voxels_all_change": None,
        "n_lesions_all_change": None,
        "orientation": "RAS",
    }
    assert slices[0]["ignore"] is None
    assert slices[0]["other"] == np.packbits(np.zeros((6, 5), dtype=bool)).tobytes()
    assert slices[0]["channels"] == ["t1", "flair"]


def test_slices_of_cohorts_without_other_pathology_have_none(folder, tmp_path):
    _, slices = describe(load_cohort(MINE, tmp_path))
    results.write_table(tmp_path / "slices.parquet", slices, results.COHORT_SLICES)
    assert slices[0]["other"] is None


def test_picture_of_a_brain_that_is_almost_constant_is_black_and_white(tmp_path):
    shape = (12, 12, 12)
    t1 = np.zeros(shape, dtype=np.float32)
    t1[5, 5, 5] = 1
    write_case(tmp_path / "mine" / "c", {"t1": t1}, lesion=place(shape, (5, 5, 5)))
    loaded = load_cohort(Folder(name="mine", channels=("t1",)), tmp_path)
    _, (row,) = describe(loaded)
    assert set(row["images"][0]) == {0, 255}


def test_image_can_be_changed_field_by_field(folder, tmp_path):
    image = load(tmp_path)
    assert replace(image, case="other").voxels is image.voxels


# ---------------------------------------------------------------------------------- real data
REAL = [
    ("lit", "patient01", (325, 334, 53), 2264, 844248, 13, 0),
    ("lit", "patient03", (333, 361, 66), 2768, 765418, 46, 72),
    ("ms", "patient07", (182, 218, 182), 1300, 1132397, 37, 0),
    ("ms", "patient26", (182, 218, 182), 8227, 1119912, 19, 0),
]


@pytest.mark.parametrize(("cohort", "case", "shape", "lesion", "brain", "number", "outside"), REAL)
def test_real_cases_have_the_published_counts(cohort, case, shape, lesion, brain, number, outside):
    if not (SHARED / cohort / case).is_dir():
        pytest.skip(f"real case {cohort}/{case} is not there ({SHARED})")
    layout = Lit() if cohort == "lit" else Folder(name="ms", channels=("t1", "flair"))
    (found,) = (found for found in layout.cases(SHARED) if found.id == case)
    image = load_case(found)
    assert image.shape == shape
    assert image.lesion_voxels == lesion
    assert image.brain.sum() == brain
    assert image.num_lesions == image.labels.max() == number
    assert (image.lesion & ~image.brain).sum() + len(image.lesion_outside_box) == outside
    expected = (
        f"{case}/lesion.nii.gz: {outside} of {lesion} lesion voxels lie outside the brain mask"
    )
    assert image.warnings == ((expected,) if outside else ())
    assert image.left_right_axis == 0
    assert shown_slice(image)[0] == 2
    np.testing.assert_allclose(image.voxels[:, image.brain].mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(image.voxels[:, image.brain].std(axis=1), 1, atol=1e-3)
