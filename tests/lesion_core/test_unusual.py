"""What is unusual in a cohort is said of the case that has it, and of no other."""

from dataclasses import replace

import numpy as np
import pytest

from lesion_core.images import Image, LoadedCohort
from lesion_core.unusual import noted

SIZE = (50, 60, 48)


def usual(case: str, **changes) -> Image:
    """A brain of 1150 ml in 2 mm voxels with a little lesion; intensities scatter by a tenth."""
    rng = np.random.default_rng(sum(map(ord, case)))
    labels = np.zeros(SIZE, dtype=np.uint16)
    labels[5:9, 5:9, 5:9] = 1
    image = Image(
        case=case,
        site="",
        channels=("t1",),
        voxels=np.zeros((1, *SIZE), dtype=np.float32),
        labels=labels,
        num_lesions=1,
        lesion_outside_box=np.zeros((0, 4), dtype=np.int32),
        other=None,
        brain=np.ones(SIZE, dtype=bool),
        shape=(60, 70, 60),
        origin=(5, 5, 5),
        spacing_mm=(2.0, 2.0, 2.0),
        affine=np.diag([2.0, 2, 2, 1]),
        left_right_axis=0,
        raw=((300 * rng.uniform(0.9, 1.1), 60 * rng.uniform(0.9, 1.1), 0.0),),
    )
    return replace(image, **changes)


def spaced(*sides_mm: float, **changes):
    """The same brain, to a voxel, in voxels of these sides."""
    size = tuple(np.round(np.array(SIZE) * 2 / sides_mm).astype(int))
    labels = np.zeros(size, dtype=np.uint16)
    labels[5:7, 5:7, 2:4] = 1
    return {
        "spacing_mm": sides_mm,
        "affine": np.diag([*sides_mm, 1]),
        "labels": labels,
        "brain": np.ones(size, dtype=bool),
        "voxels": np.zeros((1, *size), dtype=np.float32),
    } | changes


def lines_of(*odd: Image, patch_size: int | None = 32) -> dict[str, list[str]]:
    """What is said of each case of a cohort of four usual ones and these, if anything."""
    images = [*(usual(case) for case in "abcd"), *odd]
    cohort = LoadedCohort(name="c", channels=("t1",), images=images, fingerprint="f")
    return {
        image.case: list(image.warnings)
        for image in noted(cohort, patch_size).images
        if image.warnings
    }


TURNED = np.zeros((4, 4))
TURNED[[1, 2, 0], [0, 1, 2]] = -2, 2, 2
TURNED[3, 3] = 1
LOADED = np.ones(SIZE, dtype=np.uint16)
LOADED[:32] = 0

ODD = {
    "voxels of 2 x 2 x 2.3 mm (left-right, back-front, foot-head), the cohort's median is 2 x 2 x "
    "2; --spacing median": spaced(2, 2, 2.3),
    "the brain is 19 voxels foot-head, a patch 32": spaced(2, 2, 5),
    "the brain is 25 voxels left-right, 19 voxels foot-head, a patch 32": spaced(4, 2, 5),
    "axes run PSR, in most cases RAS": {"affine": TURNED},
    "lesions fill 36% of the brain": {"labels": LOADED},
    "t1: intensity 35 ± 8 in the brain, the": {"raw": ((35.0, 8.0, 0.0),)},
    "t1: intensity 0 ± 1 in the brain, 45% of it negative": {"raw": ((0.0, 1.0, 0.45),)},
    "t1: intensity 1060 ± 40 in the brain": {"raw": ((1060.0, 40.0, 0.0),)},
    "t1: intensity 310 ± 66 in the brain, 2% of it negative": {"raw": ((310.0, 66.0, 0.02),)},
    "1.15 ml of brain, less than a newborn's": {
        "spacing_mm": (0.2, 0.2, 0.2), "affine": np.diag([0.2, 0.2, 0.2, 1]),
    },
    "the brain is 40 mm foot-head, the cohort's median is 96; is it whole?": {
        "brain": np.ones((50, 60, 20), dtype=bool), "labels": np.zeros((50, 60, 20), np.uint16),
    },
    "480 ml of brain, the cohort's median is 1152": {
        "brain": np.ones((50, 60, 20), dtype=bool), "labels": np.zeros((50, 60, 20), np.uint16),
    },
}  # fmt: skip


@pytest.mark.parametrize("line", ODD)
def test_the_unusual_case_is_named_with_what_it_has_and_what_the_others_have(line):
    said = lines_of(usual("odd", **ODD[line]))
    assert list(said) == ["odd"]
    assert any(found.startswith(line) for found in said["odd"]), said


def test_nothing_is_said_of_a_usual_cohort_nor_of_a_single_case():
    assert lines_of(usual("e"), usual("f")) == {}
    lone = LoadedCohort(name="c", channels=("t1",), images=[usual("a")], fingerprint="f")
    assert noted(lone, 32).images[0].warnings == ()


def test_without_a_patch_size_nothing_is_said_of_patches():
    assert "patch" not in str(lines_of(usual("odd", **spaced(2, 2, 5)), patch_size=None))
    assert "patch" in str(lines_of(usual("odd", **spaced(2, 2, 5)), patch_size=32))


def test_spacings_that_all_differ_are_all_named():
    sizes = {"a": (1.0, 1.0, 1.0), "b": (0.9, 0.9, 3.0), "c": (1.2, 1.2, 1.2)}
    images = [usual(case, **spaced(*sides)) for case, sides in sizes.items()]
    cohort = LoadedCohort(name="c", channels=("t1",), images=images, fingerprint="f")
    for image in noted(cohort).images:
        (line,) = [found for found in image.warnings if "voxels of" in found]
        assert "the cohort's median is 1 x 1 x 1.2" in line
    pair = replace(cohort, images=images[:2])
    assert all("voxels of" in str(image.warnings) for image in noted(pair).images)


def test_what_was_warned_of_before_stays_in_front():
    (lines,) = lines_of(usual("odd", affine=TURNED, warnings=("first",))).values()
    assert lines[0] == "first" and len(lines) == 2


def test_an_image_of_another_scale_is_named_whatever_its_noise():
    spread = zip("abcd", (10.0, 8.0, 6.0, 20.0), strict=True)
    images = [usual(case, raw=((100.0, sd, 0.0),)) for case, sd in spread]
    images.append(usual("e", raw=((3000.0, 300.0, 0.0),)))
    cohort = LoadedCohort(name="c", channels=("t1",), images=images, fingerprint="f")
    said = [image.case for image in noted(cohort, 32).images if image.warnings]
    assert said == ["e"]


def test_sites_that_scatter_in_intensity_are_not_named():
    levels = [10.0, 35, 100, 320, 1000]
    images = [usual(f"{v:g}", raw=((v, v / 5, 0.0),)) for v in levels]
    cohort = LoadedCohort(name="c", channels=("t1",), images=images, fingerprint="f")
    assert [image.warnings for image in noted(cohort, 32).images] == [()] * 5
