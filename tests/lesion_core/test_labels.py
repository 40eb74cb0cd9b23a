"""What the numbers in a mask mean: by a dataset's names of them, or by what is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest

from lesion_core.cohorts import Case, Folder, cohort_named
from lesion_core.cohorts.labels import (
    LESION,
    Labels,
    dseg_labels,
    label_lines,
    named,
    nnunet_labels,
    numbered,
)
from lesion_core.fingerprint import fingerprint
from lesion_core.images import Image, load_case, load_cohort
from lesion_core.preparation import prepare
from tests.lesion_core.test_layouts import write_bids, write_nnunet
from tests.support.tiny import SHAPE, one_lesion, save, write_case, write_wmh_case

FILE = Path("dataset.json")


def classes(*numbers: int) -> np.ndarray:
    """The usual lesion as 1, and a voxel of each other number far from it."""
    mask = one_lesion().astype(np.uint8)
    for place, number in enumerate(numbers):
        mask[5, 1 + 2 * place, 4] = number
    return mask


def meanings(labels: Labels) -> tuple:
    return labels.lesion, labels.other, labels.ignore, labels.background


# ----------------------------------------------------------------------------------------- by name
@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"lesion": 1}, ((1,), (), (), ())),
        ({"anything": 1}, ((1,), (), (), ())),
        ({"lesion": 1, "other": 2}, ((1,), (2,), (), ())),
        ({"WMH": 1, "Other pathology": 2}, ((1,), (2,), (), ())),
        ({"other_pathology": 1, "wm_lesions": 2}, ((2,), (1,), (), ())),
        ({"brain_tissue": 1, "lesion": 2}, ((2,), (), (), (1,))),
        ({"lesion": 1, "ignore": 2}, ((1,), (), (2,), ())),
        ({"ventricles": 1, "MS-Plaques": 2, "other": 3, "ignore": 4}, ((2,), (3,), (4,), (1,))),
        ({"lesion": [1, 2, 3]}, ((1, 2, 3), (), (), ())),
        ({"brain": [1, 2], "tumour": 2, "ignore": 3}, ((2,), (), (3,), (1,))),
        ({"whole": [1, 2], "stroke_core": [2]}, ((2,), (), (), (1,))),
        ({"lesion": "1"}, ((1,), (), (), ())),
        ({"cortex": 1, "metastatic_region": 2}, ((2,), (), (), (1,))),
        ({"wm_no_lesion": 1, "lesion_filled": 2, "adeno tumour": 3}, ((3,), (), (), (1, 2))),
    ],
)  # fmt: skip
def test_the_label_named_a_lesion_or_the_only_one_is_the_lesion(declared, expected):
    assert meanings(nnunet_labels({"background": 0} | declared, (), FILE)) == expected


def test_labels_of_version_1_are_numbers_with_names():
    old = {"0": "background", "1": "gray matter", "2": "white matter", "3": "MS lesion"}
    assert meanings(nnunet_labels(old, (), FILE)) == ((3,), (), (), (1, 2))


@pytest.mark.parametrize(
    ("declared", "chosen", "lesion", "background"),
    [
        ({"a": 1, "b": 2, "c": 3}, ["b"], (2,), (1, 3)),
        ({"a": 1, "b": 2, "c": 3}, ["3", "a"], (1, 3), (2,)),
        ({"Grey_Matter": 1, "b": 2}, ["grey-matter"], (1,), (2,)),
        ({"lesion": 1, "brain": 2}, ["brain"], (2,), (1,)),
        ({"deep lesion": 1, "other lesion": 2}, ["deep lesion", "other lesion"], (1, 2), ()),
        ({"whole_tumor": [1, 2, 3], "core": [2, 3]}, ["whole_tumor"], (1, 2, 3), ()),
        ({"whole_tumor": [1, 2, 3], "core": [2, 3]}, ["core"], (2, 3), (1,)),
        ({"whole_tumor": [1, 2, 3], "core": [2, 3]}, ["3"], (3,), (1, 2)),
        ({"3": 1, "4": 3}, ["3"], (1,), (3,)),
    ],
)  # fmt: skip
def test_a_chosen_lesion_may_be_named_or_numbered(declared, chosen, lesion, background):
    labels = nnunet_labels({"background": 0} | declared, chosen, FILE)
    assert (labels.lesion, labels.background) == (lesion, background)


@pytest.mark.parametrize(
    ("declared", "chosen", "expected"),
    [
        ({"acute lesion": 1, "old lesion": 2}, (), "several are named as a lesion"),
        ({"acute lesion": 1, "old lesion": 2}, (), '--lesion-label "acute lesion"'),
        ({"wt_tumor": [1, 2], "et_tumor": [2]}, (), "wt_tumor (1, 2), et_tumor (2)"),
        ({"a": 1, "b": 2}, (), "labels a (1), b (2): none is named as the lesion"),
        ({"a": 1, "b": 2}, ["c"], "expected a name or number of a (1), b (2)"),
        ({"a": 1, "b": 2}, ["0"], "expected a name or number"),
        ({"a": 1, "b": 2}, ["background"], "expected a name or number"),
        ({"lesion": 1, "ignore": 2}, ["ignore", "lesion"], "expected a name or number of"),
        ({"lesion": 1, "ignore": 2}, ["2"], "cannot be both"),
        ({"ignore": 1, "lesion": 2}, (), "the highest"),
        ({"lesion": 1, "ignore": [2, 3]}, (), "the highest"),
        ({"lesion": [1, 2], "ignore": 2}, (), "the highest"),
        ({"ignore": 1}, (), "none is named"),
        ({}, (), "expected 0 (background)"),
        ({"lesion": 0, "background": 1}, (), "expected 0 (background)"),
        ({"lesion": [0, 1]}, (), "expected 0 (background)"),
        ({"lesion": 1.5}, (), "expected 0 (background)"),
        ({"lesion": True}, (), "expected 0 (background)"),
        ({"lesion": -1}, (), "expected 0 (background)"),
        ({"lesion": []}, (), "expected 0 (background)"),
        ({"lesion": {"1": 2}}, (), "expected 0 (background)"),
    ],
)  # fmt: skip
def test_what_could_mean_several_things_is_refused_in_one_line(declared, chosen, expected):
    with pytest.raises(ValueError) as caught:
        nnunet_labels({"background": 0} | declared, chosen, FILE)
    assert str(caught.value).startswith("dataset.json: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "lines"),
    [
        ({"lesion": (1,), "other": (2,)}, []),
        (
            {"lesion": (1,), "skull": (3,)},
            ["label lesion (1): the lesion", "label skull (3): taken as background"],
        ),
        ({"brain": (1,)}, ["label brain (1): the lesion"]),
        (
            {"brain_tissue": (1,), "lesion": (2,), "ignore": (3,)},
            [
                "label brain_tissue (1): taken as background",
                "label lesion (2): the lesion",
                "label ignore (3): left out of training and of every score",
            ],
        ),
    ],
)  # fmt: skip
def test_what_is_not_as_usual_is_said_in_a_line_per_label(declared, lines):
    assert label_lines([named(declared, (), FILE)] * 2) == lines


# --------------------------------------------------------------------------------------- by number
def test_numbers_choose_the_lesion_of_masks_without_names():
    usual = Labels(other=(2,))
    assert numbered(usual, (), FILE) is usual
    assert meanings(numbered(usual, ["3", "1"], FILE)) == ((1, 3), (2,), (), None)
    assert meanings(numbered(usual, ["2"], FILE)) == ((2,), (), (), None)


@pytest.mark.parametrize("chosen", ["lesion", "0", "-1", "1.5", ""])
def test_a_name_where_there_are_none_is_refused(chosen):
    with pytest.raises(ValueError, match=rf"--lesion-label {chosen}: .* no names .* 1 3$"):
        numbered(LESION, ["1", chosen], FILE)


def test_a_folder_of_three_classes_needs_to_be_told_which_are_lesions(tmp_path):
    write_case(tmp_path / "mine" / "a", lesion=classes(2, 3))
    with pytest.raises(ValueError, match=r"holds 0, 1, 2, 3; expected 0 and 1 .*--lesion-label"):
        load_cohort(Folder(name="mine", channels=("t1",)), tmp_path)
    cohort = cohort_named("mine", ["t1"], tmp_path, lesion_label=["1", "3"])
    (image,) = load_cohort(cohort, tmp_path).images
    assert (image.lesion_voxels, image.other, image.ignore) == (9, None, None)
    with pytest.raises(ValueError, match="expected 0 and 1"):  # not what is in the cache
        load_cohort(Folder(name="mine", channels=("t1",)), tmp_path)


def test_other_pathology_stays_what_it_is_unless_it_is_chosen(tmp_path):
    write_wmh_case(tmp_path / "wmh2017" / "Utrecht" / "0", lesion=classes(2))
    for chosen, lesion, other in ((["1"], 8, 1), (["2"], 1, None), (["1", "2"], 9, None)):
        cohort = cohort_named("wmh2017", data=tmp_path, lesion_label=chosen)
        (image,) = load_cohort(cohort, tmp_path).images
        found = None if image.other is None else image.other.sum()
        assert (image.lesion_voxels, found) == (lesion, other)


def test_another_meaning_is_other_data_and_the_usual_one_said_aloud_is_not(tmp_path):
    write_case(tmp_path / "mine" / "a")

    def told(*chosen: str) -> str:
        return fingerprint(cohort_named("mine", ["t1"], tmp_path, lesion_label=chosen), tmp_path)

    assert told() == told("1")
    assert len({told(), told("2"), told("1", "2")}) == 3
    assert Labels(other=(2,)).rule is None
    rules = {Labels(background=(2,)).rule, Labels(ignore=(2,)).rule, Labels(other=(3,)).rule}
    assert len(rules | {None}) == 4


# ---------------------------------------------------------------------------------------- datasets
def write_labelled(data: Path, labels: dict, *numbers: int) -> Path:
    root = write_nnunet(data, ids=("a_1",), labels={"background": 0} | labels)
    save(root / "labelsTr" / "a_1.nii.gz", classes(*numbers))
    return root


def loaded(data: Path, **choices) -> Image:
    return load_cohort(cohort_named("nnunet:Dataset001_MS", data=data, **choices), data).images[0]


def test_tissue_is_background_and_the_lesion_is_the_lesion(tmp_path):
    write_labelled(tmp_path, {"brain_tissue": 1, "lesion": 2}, 2, 2)
    image = loaded(tmp_path)
    assert (image.lesion_voxels, image.other, image.ignore) == (2, None, None)


def test_ignored_voxels_are_a_mask_of_their_own(tmp_path):
    write_labelled(tmp_path, {"lesion": 1, "other": 2, "ignore": 3}, 2, 3)
    image = loaded(tmp_path)
    assert image.other is not None
    assert image.ignore is not None
    assert (image.lesion_voxels, image.other.sum(), image.ignored_voxels) == (8, 1, 1)
    assert not (image.lesion & image.ignore).any()


def test_a_number_that_is_not_declared_is_refused_with_the_names_of_those_that_are(tmp_path):
    root = write_labelled(tmp_path, {"brain": [1, 2], "lesion": 2}, 2, 4)
    with pytest.raises(ValueError) as caught:
        loaded(tmp_path)
    assert str(caught.value).startswith(str(root / "labelsTr" / "a_1.nii.gz"))
    assert "holds 0, 1, 2, 4; expected 0 (background), 1 (brain) and 2 (brain, lesion) only" in str(
        caught.value
    )


def test_a_bids_segmentation_takes_its_names_from_the_nearest_lookup_table(tmp_path):
    root = write_bids(tmp_path, lesion="desc-lesions_dseg")
    derived = root / "derivatives" / "experts"
    dseg = derived / "sub-01" / "anat" / "sub-01_desc-lesions_dseg.nii.gz"
    assert meanings(dseg_labels(dseg, root, ())) == ((1,), (2,), (), ())
    (root / "dseg.tsv").write_text("index\tname\n1\tlesion\n")
    assert meanings(dseg_labels(dseg, root, ())) == ((1,), (), (), ())
    (derived / "desc-tissue_dseg.tsv").write_text("not this one")
    (derived / "desc-lesions_dseg.tsv").write_text(
        "index\tcolor\tname\n0\t#000\tBackground\n1\t#fff\tCSF\n5\t#f00\tWMH\n7\t#ff0\tignore\n"
    )
    assert meanings(dseg_labels(dseg, root, ())) == ((5,), (), (7,), (1,))
    assert meanings(dseg_labels(dseg, root, ["csf"])) == ((1,), (), (7,), (5,))
    beside = dseg.with_name("sub-01_desc-lesions_dseg.tsv")
    beside.write_text("index\tname\n1\tlesion\n2\tcsf\n")
    assert meanings(dseg_labels(dseg, root, ())) == ((1,), (), (), (2,))
    (case, *_) = cohort_named("bids:study", data=tmp_path).cases(tmp_path)
    assert case.labels.background == (2,)
    for content in ("", "number\tname\n1\tx\n", "index\tname\nx\ty\n", "index\tname\n1\n"):
        beside.write_text(content)
        with pytest.raises(ValueError, match=r"sub-01_desc-lesions_dseg.tsv: expected the columns"):
            dseg_labels(dseg, root, ())


# ---------------------------------------------------------------------------------- ignored voxels
def test_an_ignored_voxel_is_neither_lesion_nor_other_whatever_is_marked_there(tmp_path):
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[1:6, 3, 3] = 1
    lesion[2, 5, 2] = 2
    ignore = np.zeros(SHAPE, bool)
    ignore[3, :, :] = ignore[2, 5, 2] = ignore[0, 0, 0] = True
    folder = write_wmh_case(tmp_path / "wmh2017" / "Utrecht" / "0", lesion=lesion)
    save(folder / "ignore.nii.gz", ignore)
    (image,) = load_cohort(cohort_named("wmh2017", data=tmp_path), tmp_path).images
    assert image.other is not None
    assert (image.lesion_voxels, image.num_lesions, image.other.sum()) == (4, 2, 0)
    assert image.num_with_other == 2
    assert (image.ignored_voxels, image.ignore_outside_box) == (ignore.sum(), 49 - 24)
    assert image.warnings == (
        "0/ignore.nii.gz: 1 of 5 lesion voxels are to be ignored and count for nothing",
    )


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        (np.full(SHAPE, 2), "holds 2; expected 0 and 1 only"),
        (np.zeros((3, 3, 3)), "resample it onto the same grid"),
        (np.ones(SHAPE), "the whole brain is to be ignored"),
    ],
)
def test_an_ignore_mask_that_cannot_be_used_is_named(tmp_path, ignore, expected):
    folder = write_case(tmp_path / "mine" / "a")
    save(folder / "ignore.nii.gz", ignore.astype(np.uint8))
    with pytest.raises(ValueError, match=rf"ignore\.nii\.gz: .*{expected}"):
        load_cohort(Folder(name="mine", channels=("t1",)), tmp_path)


def test_the_ignore_mask_is_part_of_the_data(tmp_path):
    cohort = Folder(name="mine", channels=("t1",))
    folder = write_case(tmp_path / "mine" / "a")
    without = fingerprint(cohort, tmp_path)
    ignore = np.zeros(SHAPE, bool)
    save(folder / "ignore.nii.gz", ignore)
    empty = fingerprint(cohort, tmp_path)
    ignore[5, 5, 4] = True
    save(folder / "ignore.nii.gz", ignore)
    assert len({without, empty, fingerprint(cohort, tmp_path)}) == 3


def test_an_image_with_ignored_voxels_survives_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LESION_CACHE", str(tmp_path / "cache"))
    folder = write_case(tmp_path / "mine" / "a")
    save(folder / "ignore.nii.gz", np.indices(SHAPE)[0] > 4)
    cohort = Folder(name="mine", channels=("t1",))
    first, again = (load_cohort(cohort, tmp_path).images[0] for _ in range(2))
    assert again.ignore is not None
    np.testing.assert_array_equal(first.ignore, again.ignore)
    assert first.ignored_voxels == again.ignored_voxels == 2 * 8 * 6


def test_a_bids_mask_of_ignored_voxels_is_no_lesion_mask(tmp_path):
    root = write_bids(tmp_path)
    derived = root / "derivatives" / "experts" / "sub-01" / "anat"
    save(derived / "sub-01_label-ignore_mask.nii.gz", np.indices(SHAPE)[0] > 5)
    (case, other, _) = cohort_named("bids:study", data=tmp_path).cases(tmp_path)
    assert (case.ignore is not None, other.ignore) == (True, None)
    assert case.lesion.name == "sub-01_label-lesion_mask.nii.gz"
    assert load_case(case).ignored_voxels == 8 * 6


def test_preparing_understands_labels_and_keeps_ignore_masks(tmp_path):
    data = tmp_path / "data"
    root = write_nnunet(data, brains=False, labels={"background": 0, "tissue": 5, "lesion": 7})
    bad = classes(6)
    save(root / "labelsTr" / "a_1.nii.gz", bad)
    with pytest.raises(ValueError, match=r"expected 0 \(background\), 5 \(tissue\) and 7"):
        prepare.prepare_brains("nnunet:Dataset001_MS", data)
    source = tmp_path / "download"
    folder = write_wmh_case(source / "Utrecht" / "0")
    save(folder / "ignore.nii.gz", np.zeros(SHAPE, bool))
    prepare.prepare_wmh2017(source, data)
    assert (data / "wmh2017" / "Utrecht" / "0" / "ignore.nii.gz").exists()


def test_a_case_means_what_it_meant_unless_told_otherwise():
    case = Case(id="a", site="", channels={}, lesion=Path("lesion.nii.gz"), brain=None)
    assert (case.labels, case.rules, case.ignore) == (Labels(), (), None)
    assert json.dumps(case.rules) == "[]"
