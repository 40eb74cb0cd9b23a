"""Cases resampled to one voxel size: where things lie stays, and masks come back to their files."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, voxel_sizes

from lesion_core.cohort_rows import describe
from lesion_core.cohorts import (
    Folder,
    cases_as_read,
    cohort_from_dict,
    cohort_named,
    cohort_to_dict,
)
from lesion_core.fingerprint import fingerprint
from lesion_core.images import load_cohort
from lesion_core.nifti import read_header
from lesion_core.resampling import Grid
from tests.support.tiny import save, write_case

ORIENTED = np.array([[0, 0, 1.2, -20], [-0.9, 0, 0, 12], [0, 3.0, 0, -8], [0, 0, 0, 1]])
"""Array axes run to the back, up, and to the right."""


def smooth(shape, affine):
    """A plane in the body's mm, and a ball of 7 mm about its middle."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = apply_affine(affine, index)
    middle = apply_affine(affine, (np.array(shape) - 1) / 2)
    return 100 + mm @ [1.0, -2.0, 3.0], np.linalg.norm(mm - middle, axis=-1) < 7


def write_mixed(data, name="mixed"):
    """Three cases of 1 x 1 x 1, .9 x .9 x 3 and 1.2 mm, of which the second lies otherwise."""
    grids = {
        "a": ((30, 32, 31), np.diag([1.0, 1, 1, 1])),
        "b": ((34, 11, 26), ORIENTED @ np.diag([1, 1, 0.75, 1])),
        "c": ((27, 25, 26), np.diag([-1.2, -1.2, 1.2, 1])),
    }
    for case, (shape, affine) in grids.items():
        image, ball = smooth(shape, affine)
        rng = np.random.default_rng(len(case))
        noisy = (image + rng.normal(0, 1, shape)).astype(np.float32)
        brain = np.ones(shape, dtype=bool)
        brain[0] = brain[-1] = False
        write_case(data / name / case, {"t1": noisy}, lesion=ball, brain=brain, affine=affine)
    return data / name


def grid_of(tmp_path, shape, affine, spacing_mm) -> Grid:
    return Grid.of(read_header(save(tmp_path / "x.nii", np.zeros(shape), affine)), spacing_mm)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 3.0), (2.0, 0.9, 1.5), (1.2, 0.45, 3.0)])
def test_every_voxel_keeps_its_place_in_the_body_there_and_back(tmp_path, spacing_mm):
    shape = (20, 9, 14)
    grid = grid_of(tmp_path, shape, ORIENTED, spacing_mm)
    assert voxel_sizes(grid.affine) == pytest.approx([spacing_mm[1], spacing_mm[2], spacing_mm[0]])
    source, _ = smooth(shape, ORIENTED)
    there, _ = smooth(grid.shape, grid.affine)
    inside = (slice(2, -2),) * 3
    np.testing.assert_allclose(grid.image(source)[inside], there[inside], atol=1e-6)
    np.testing.assert_allclose(grid.back(there)[inside], source[inside], atol=1e-6)
    corners = [
        apply_affine(grid.affine, c) for c in (np.zeros(3) - 0.5, np.array(grid.shape) - 0.5)
    ]
    ends = [apply_affine(ORIENTED, c) for c in (np.zeros(3) - 0.5, np.array(shape) - 0.5)]
    assert np.allclose(sum(corners), sum(ends), atol=1e-4)  # the same centre
    assert (np.abs(corners[1] - corners[0]) > np.abs(ends[1] - ends[0]) - 0.01).all()  # no less


def test_a_case_that_has_the_spacing_is_left_alone_to_the_bit(tmp_path):
    grid = grid_of(tmp_path, (5, 4, 6), ORIENTED, (1.2, 0.9, 3.0))
    voxels = np.random.default_rng(0).normal(size=(5, 4, 6))
    assert not grid.resampled
    assert grid.image(voxels) is grid.mask(voxels) is grid.back(voxels) is voxels


def test_an_image_that_would_not_fit_into_memory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="64 x 64 x 64 voxels would become 1280 x 1280 x 1280"):
        grid_of(tmp_path, (64, 64, 64), np.eye(4), (0.05, 0.05, 0.05))


def test_the_median_is_of_each_direction_in_the_body_and_is_part_of_the_fingerprint(tmp_path):
    write_mixed(tmp_path)
    median = cohort_named("mixed", ["t1"], tmp_path, spacing=["median"])
    assert {case.spacing_mm for case in cases_as_read(median, tmp_path)} == {(1.0, 1.0, 1.2)}
    own = Folder(name="mixed", channels=("t1",))
    assert {case.spacing_mm for case in cases_as_read(own, tmp_path)} == {None}
    numbers = cohort_named("mixed", ["t1"], tmp_path, spacing=["1.0", "1", "1.20"])
    assert cohort_to_dict(numbers)["fields"]["spacing"] == ["1", "1", "1.2"]
    for cohort in (own, median, numbers):
        assert cohort_from_dict(cohort_to_dict(cohort)) == cohort
    marks = [fingerprint(cohort, tmp_path) for cohort in (own, median, numbers)]
    assert marks[0] != marks[1] == marks[2]


def test_a_mixed_cohort_becomes_one_of_one_spacing_with_its_volumes_kept(tmp_path):
    write_mixed(tmp_path)
    own = load_cohort(Folder(name="mixed", channels=("t1",)), tmp_path)
    cohort = load_cohort(cohort_named("mixed", ["t1"], tmp_path, spacing=["median"]), tmp_path)
    again = load_cohort(cohort_named("mixed", ["t1"], tmp_path, spacing=["median"]), tmp_path)
    for image, cached, before in zip(cohort.images, again.images, own.images, strict=True):
        assert sorted(image.spacing_mm) == pytest.approx([1, 1, 1.2])
        assert image.voxel_mm3 == pytest.approx(1.2)
        assert image.source_shape == cached.source_shape == before.shape
        assert image.source_spacing_mm == cached.source_spacing_mm == before.spacing_mm
        assert (before.source_shape, before.source_spacing_mm) == (None, None)
        volumes = [i.lesion_voxels * i.voxel_mm3 for i in (image, before)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.05)
        brains = [np.count_nonzero(i.brain) * i.voxel_mm3 for i in (image, before)]
        assert brains[0] == pytest.approx(brains[1], rel=0.08)
        assert image.voxels[0, image.brain].mean() == pytest.approx(0, abs=1e-3)
        assert image.warnings == ()
    row = describe(cohort)[0][1]
    assert (row["source_shape"], row["shape"]) == ([34, 11, 26], list(cohort.images[1].shape))


def test_ignored_lesion_is_counted_in_the_voxels_that_are_used(tmp_path):
    lesion, ignore = np.zeros((2, 12, 12, 12), dtype=np.uint8)
    lesion[2:6, 2:6, 2:6], ignore[2:4] = 1, 1
    affine = np.diag([1.0, 1, 2, 1])
    image = np.random.default_rng(0).normal(size=lesion.shape).astype(np.float32)
    folder = write_case(tmp_path / "half" / "c", {"t1": image}, lesion=lesion, affine=affine)
    save(folder / "ignore.nii.gz", ignore, affine)
    cohort = cohort_named("half", ["t1"], tmp_path, spacing=["1", "1", "1"])
    (found,) = load_cohort(cohort, tmp_path).images
    assert found.lesion_voxels == 2 * 4 * 8
    assert "c/ignore.nii.gz: 64 of 128 lesion voxels are to be ignored" in found.warnings[0]


def test_lesions_that_resampling_loses_are_counted(tmp_path):
    shape = (12, 12, 12)
    dots = np.zeros(shape, dtype=bool)
    dots[2, 2, 2::3] = True
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_case(tmp_path / "dots" / "c", {"t1": image}, lesion=dots)
    cohort = cohort_named("dots", ["t1"], tmp_path, spacing=["1", "1", "3"])
    (found,) = load_cohort(cohort, tmp_path).images
    assert "c/lesion.nii.gz: no lesion voxel; tested on, but never trained on" in found.warnings
    assert found.warnings[-1] == (
        "c/lesion.nii.gz: resampling changed the lesions' volume by -100.0% and their number from "
        "4 to 0"
    )


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("1", "1 numbers; expected three, mm, left-right, back-front and foot-head; did you mean"),
        ("1 1", "2 numbers; expected three"),
        ("1 1 1 1", "4 numbers; expected three"),
        ("one 1 1", "expected three numbers, mm, or median"),
        ("median 1 1", "expected three numbers, mm, or median"),
        ("1 1 -3", "a voxel side of -3 mm; expected 0.05 to 20 mm"),
        ("1 1 nan", "a voxel side of nan mm"),
        ("1 1 0.001", "a voxel side of 0.001 mm"),
    ],
)  # fmt: skip
def test_a_spacing_that_no_brain_has_is_one_line(tmp_path, given, complaint):
    with pytest.raises(ValueError) as caught:
        cohort_named("mixed", ["t1"], tmp_path, spacing=given.split())
    assert str(caught.value).startswith(f"--spacing {given}: ")
    assert complaint in str(caught.value)


def test_predicted_masks_lie_on_the_grid_of_the_files(tmp_path):
    """A probability of 1 in a ball of the resampled grid is the ball in the file's voxels."""
    write_mixed(tmp_path)
    cohort = cohort_named("mixed", ["t1"], tmp_path, spacing=["1", "1", "1"])
    for case in cases_as_read(cohort, tmp_path):
        source = read_header(case.channels["t1"])
        grid = Grid.of(source, case.spacing_mm)
        truth = np.asanyarray(nib.load(case.lesion).dataobj) > 0
        _, ball = smooth(grid.shape, grid.affine)
        back = grid.back(ball.astype(np.float32)) >= 0.5
        assert back.shape == source.shape
        assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.94
