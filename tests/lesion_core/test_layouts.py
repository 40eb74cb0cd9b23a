"""nnU-Net and BIDS datasets are read where they lie."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesion_core.cohort_rows import describe
from lesion_core.cohorts import (
    Bids,
    Folder,
    NnUnet,
    brain_methods,
    cohort_from_dict,
    cohort_named,
    cohort_to_dict,
)
from lesion_core.fingerprint import fingerprint
from lesion_core.folds import folds_by
from lesion_core.images import load_cohort
from lesion_core.preparation import brain, prepare
from tests.support.tiny import SHAPE, ball, noise, one_lesion, save, write_case

DATASET = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def write_nnunet(data: Path, ids=("b_2", "b_10", "a_1"), brains=True, **changes) -> Path:
    root = data / "Dataset001_MS"
    root.mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(DATASET | changes))
    for number, case in enumerate(ids):
        for channel in range(2):
            save(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", noise(10 * number + channel))
        save(root / "labelsTr" / f"{case}.nii.gz", one_lesion())
        if brains:
            save(root / "brainsTr" / f"{case}.nii.gz", ball())
    return root


def write_bids(data: Path, sessions=("",), brains=True, lesion="label-lesion_mask") -> Path:
    root = data / "study"
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "study", "BIDSVersion": "1.8.0"}')
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsite\nsub-01\t30\tGhent\nsub-02\t40\tGraz\nsub-10\t50\tGhent\n"
    )
    for number in (1, 2, 10):
        for session in sessions:
            inside = Path(f"sub-{number:02d}", session, "anat")
            stem = "_".join(part for part in (f"sub-{number:02d}", session) if part)
            save(root / inside / f"{stem}_T1w.nii.gz", noise(number))
            save(root / inside / f"{stem}_acq-3d_FLAIR.nii.gz", noise(number + 100))
            derived = root / "derivatives" / "experts" / inside
            save(derived / f"{stem}_{lesion}.nii.gz", one_lesion())
            if brains:
                tool = root / "derivatives" / "bet" / inside
                save(tool / f"{stem}_desc-brain_mask.nii.gz", ball())
    return root


# ----------------------------------------------------------------------------------------- nnU-Net
def test_nnunet_dataset_is_read_in_natural_order(tmp_path):
    root = write_nnunet(tmp_path)
    cohort = cohort_named("nnunet:Dataset001_MS", data=tmp_path)
    assert cohort == NnUnet(name="Dataset001_MS", channels=("T1", "FLAIR"))
    cases = cohort.cases(tmp_path)
    assert [case.id for case in cases] == ["a_1", "b_2", "b_10"]
    assert cases[1].channels == {
        "T1": root / "imagesTr" / "b_2_0000.nii.gz",
        "FLAIR": root / "imagesTr" / "b_2_0001.nii.gz",
    }
    image = load_cohort(cohort, tmp_path).images[1]
    assert image.lesion_voxels == 8
    assert image.brain.all()
    assert image.other is None


def test_layout_is_recognised_by_content(tmp_path):
    write_nnunet(tmp_path)
    write_bids(tmp_path)
    assert isinstance(cohort_named("Dataset001_MS", data=tmp_path), NnUnet)
    assert isinstance(cohort_named("study", data=tmp_path), Bids)


def test_cohorts_survive_their_dictionaries(tmp_path):
    write_nnunet(tmp_path)
    write_bids(tmp_path)
    for name in ("nnunet:Dataset001_MS", "nnunet:Dataset001_MS:nonzero", "bids:study:nonzero"):
        cohort = cohort_named(name, data=tmp_path)
        assert cohort_from_dict(json.loads(json.dumps(cohort_to_dict(cohort)))) == cohort


def test_nnunet_gives_the_same_arrays_as_a_folder(tmp_path):
    write_nnunet(tmp_path)
    for case in ("a_1", "b_2", "b_10"):
        for channel, name in enumerate(("T1", "FLAIR")):
            source = tmp_path / "Dataset001_MS" / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
            target = tmp_path / "mine" / case / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        save(tmp_path / "mine" / case / "lesion.nii.gz", one_lesion())
        save(tmp_path / "mine" / case / "brain.nii.gz", ball())
    mine = load_cohort(Folder(name="mine", channels=("T1", "FLAIR")), tmp_path).images
    theirs = load_cohort(cohort_named("nnunet:Dataset001_MS", data=tmp_path), tmp_path).images
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one.voxels, other.voxels)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_nnunet_label_2_is_other_pathology(tmp_path):
    root = write_nnunet(tmp_path, labels={"background": 0, "WMH": 1, "other": 2})
    marked = one_lesion().astype(np.uint8)
    marked[5, 5, 3] = 2
    save(root / "labelsTr" / "a_1.nii.gz", marked)
    image = load_cohort(cohort_named("nnunet:Dataset001_MS", data=tmp_path), tmp_path).images[0]
    assert image.other is not None
    assert (image.lesion_voxels, image.other.sum()) == (8, 1)


def test_version_1_of_dataset_json_is_understood(tmp_path):
    root = write_nnunet(tmp_path)
    old = {"modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "1": "lesion"}}
    (root / "dataset.json").write_text(json.dumps(old))
    assert len(cohort_named("nnunet:Dataset001_MS", data=tmp_path).cases(tmp_path)) == 3


def test_a_case_with_another_ending_is_not_passed_over(tmp_path):
    root = write_nnunet(tmp_path)
    save(root / "labelsTr" / "c_3.nii", one_lesion())
    with pytest.raises(ValueError, match=r"c_3\.nii: dataset\.json says that files end with \.nii"):
        cohort_named("nnunet:Dataset001_MS", data=tmp_path).cases(tmp_path)


def test_equal_channel_names_are_numbered(tmp_path):
    write_nnunet(tmp_path, channel_names={"0": "MR scan", "1": "MR scan"})
    cohort = cohort_named("nnunet:Dataset001_MS", data=tmp_path)
    assert cohort.channels == ("MR_scan_0", "MR_scan_1")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}, "none is named as the lesion"),
        ({"labels": {"background": 0, "region": [0, 2]}}, "expected 0 (background)"),
        ({"labels": None}, "expected 0 (background)"),
        ({"file_ending": ".png"}, "file_ending"),
        ({"channel_names": None}, "channel_names"),
        ({"channel_names": {"1": "T1"}}, "channel_names"),
        ({"channel_names": {"0": "T1"}}, "names only 1 channels"),
        ({"channel_names": {"0": "a", "1": "b", "2": "c"}}, "_0002.nii.gz: missing"),
        ({"dataset": {}}, "lists its files itself"),
    ],
)
def test_unusable_dataset_json_is_one_line(tmp_path, changes, expected):
    write_nnunet(tmp_path, **changes)
    with pytest.raises(ValueError) as caught:
        cohort_named("nnunet:Dataset001_MS", data=tmp_path).cases(tmp_path)
    assert expected in str(caught.value)
    assert "Dataset001_MS" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[1]", "{", "\x80"])
def test_broken_dataset_json_is_one_line(tmp_path, content):
    root = write_nnunet(tmp_path)
    (root / "dataset.json").unlink()
    if content is not None:
        (root / "dataset.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"dataset\.json: "):
        cohort_named("nnunet:Dataset001_MS", data=tmp_path)


def test_image_without_label_and_label_without_image_are_named(tmp_path):
    root = write_nnunet(tmp_path)
    cohort = cohort_named("nnunet:Dataset001_MS", data=tmp_path)
    (root / "labelsTr" / "b_2.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"labelsTr/b_2\.nii\.gz: missing"):
        cohort.cases(tmp_path)
    save(root / "labelsTr" / "b_2.nii.gz", one_lesion())
    (root / "imagesTr" / "a_1_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"imagesTr/a_1_0001\.nii\.gz: missing"):
        cohort.cases(tmp_path)


# ----------------------------------------------------------------------------------------- brains
def strip(path: Path, seed: int) -> None:
    save(path, noise(seed) * ball())


def test_without_masks_the_user_must_choose(tmp_path):
    write_nnunet(tmp_path, brains=False)
    cohort = cohort_named("nnunet:Dataset001_MS", data=tmp_path)
    place = cohort.brain_place(tmp_path, cohort.cases(tmp_path)[0])
    with pytest.raises(ValueError, match=r"lesion_core\.prepare.*:nonzero") as caught:
        load_cohort(cohort, tmp_path)
    assert str(caught.value).startswith(f"{place}: no brain mask for ")


def test_nonzero_brain_of_stripped_images(tmp_path):
    root = write_nnunet(tmp_path, brains=False)
    for number, path in enumerate(sorted((root / "imagesTr").iterdir())):
        strip(path, number)
    hollow = noise(9) * ball()
    hollow[3, 3, 3] = 0  # a dark voxel inside is brain all the same
    save(root / "imagesTr" / "a_1_0000.nii.gz", hollow)
    save(root / "imagesTr" / "a_1_0001.nii.gz", hollow)
    cohort = cohort_named("nnunet:Dataset001_MS:nonzero", data=tmp_path)
    image = load_cohort(cohort, tmp_path).images[0]
    assert image.box_shape == tuple(size - 2 for size in SHAPE)
    assert image.brain.all()
    assert image.brain_method == "nonzero"


def test_images_with_skull_are_not_taken_for_stripped(tmp_path):
    write_nnunet(tmp_path, brains=False)
    cohort = cohort_named("nnunet:Dataset001_MS:nonzero", data=tmp_path)
    with pytest.raises(ValueError, match="not skull-stripped"):
        load_cohort(cohort, tmp_path)


def test_where_the_brain_is_belongs_to_the_fingerprint(tmp_path):
    write_nnunet(tmp_path, brains=False)
    named = [
        cohort_named(f"nnunet:Dataset001_MS{rule}", data=tmp_path) for rule in ("", ":nonzero")
    ]
    assert len({fingerprint(cohort, tmp_path) for cohort in named}) == 2


@pytest.mark.parametrize("name", ["nnunet:Dataset001_MS", "bids:study", "mine"])
def test_derived_masks_are_found_where_they_are_put(tmp_path, monkeypatch, name, capsys):
    import SimpleITK as sitk

    monkeypatch.setattr(brain, "derive", lambda head: sitk.Cast(head * 0 + 1, sitk.sitkUInt8))
    write_nnunet(tmp_path, brains=False)
    write_bids(tmp_path, brains=False, sessions=("ses-1", "ses-2"))
    for case in ("c1", "c2"):
        save(tmp_path / "mine" / case / "flair.nii.gz", noise(1))
        save(tmp_path / "mine" / case / "lesion.nii.gz", one_lesion())
    channels = ["--channels", "flair"] if name == "mine" else []
    assert prepare.main(["brains", name, str(tmp_path), *channels]) == 0
    cohort = cohort_named(name, channels[1:], tmp_path)
    cases = cohort.cases(tmp_path)
    assert all(case.brain is not None for case in cases)
    assert set(brain_methods(cohort, tmp_path, cases).values()) == {brain.METHOD}
    assert {image.brain_method for image in load_cohort(cohort, tmp_path).images} == {brain.METHOD}
    assert prepare.main(["brains", name, str(tmp_path), *channels]) == 2
    assert "already" in capsys.readouterr().err


def test_failing_derivation_leaves_the_dataset_as_it_was(tmp_path, monkeypatch):
    def fail(head):
        raise ValueError("no brain")

    write_nnunet(tmp_path, brains=False)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(brain, "derive", fail)
    assert prepare.main(["brains", "nnunet:Dataset001_MS", str(tmp_path)]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_head_that_cannot_be_aligned_is_named_with_the_place_for_a_mask(
    tmp_path, monkeypatch, capsys
):
    def fail(head):
        raise RuntimeError("Exception thrown:\nITK ERROR: All samples map outside the image.")

    write_nnunet(tmp_path, brains=False)
    monkeypatch.setattr(brain, "derive", fail)
    cohort = cohort_named("nnunet:Dataset001_MS", data=tmp_path)
    case = cohort.cases(tmp_path)[0]
    assert prepare.main(["brains", "nnunet:Dataset001_MS", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    named, reason = said.split(": no brain mask can be derived ")
    assert Path(named.removeprefix("error: ")) in case.channels.values()
    assert reason == (
        "(ITK ERROR: All samples map outside the image.); "
        f"put one at {cohort.brain_place(tmp_path, case)}"
    )


# -------------------------------------------------------------------------------------------- BIDS
def test_bids_dataset_is_read_with_sites(tmp_path):
    write_bids(tmp_path)
    cohort = cohort_named("bids:study", data=tmp_path)
    assert cohort.channels == ("T1w", "FLAIR")
    cases = cohort.cases(tmp_path)
    assert [(case.id, case.site) for case in cases] == [
        ("sub-01", "Ghent"),
        ("sub-02", "Graz"),
        ("sub-10", "Ghent"),
    ]
    image = load_cohort(cohort, tmp_path).images[0]
    assert (image.channels, image.lesion_voxels) == (("T1w", "FLAIR"), 8)
    assert image.other is None


def test_bids_sessions_are_cases_of_one_subject(tmp_path):
    write_bids(tmp_path, sessions=("ses-1", "ses-2"))
    cases = cohort_named("bids:study", data=tmp_path).cases(tmp_path)
    assert [(case.id, case.subject) for case in cases[:2]] == [
        ("sub-01_ses-1", "sub-01"),
        ("sub-01_ses-2", "sub-01"),
    ]
    rows, _ = describe(load_cohort(cohort_named("bids:study", data=tmp_path), tmp_path))
    assert [row["subject"] for row in rows] == [case.subject for case in cases]


def test_a_case_without_a_subject_is_its_own(tmp_path):
    write_bids(tmp_path)
    case = cohort_named("bids:study", data=tmp_path).cases(tmp_path)[0]
    assert replace(case, id="other", subject="").subject == "other"


def test_bids_dseg_may_hold_label_2(tmp_path):
    root = write_bids(tmp_path, lesion="desc-lesions_dseg")
    marked = one_lesion().astype(np.uint8)
    marked[5, 5, 3] = 2
    inside = root / "derivatives" / "experts" / "sub-01" / "anat"
    save(inside / "sub-01_desc-lesions_dseg.nii.gz", marked)
    image = load_cohort(cohort_named("bids:study", data=tmp_path), tmp_path).images[0]
    assert image.other is not None
    assert image.other.sum() == 1


def test_bids_lesion_mask_may_be_the_only_one(tmp_path):
    write_bids(tmp_path, lesion="mask")
    assert len(cohort_named("bids:study", data=tmp_path).cases(tmp_path)) == 3


def test_other_segmentations_do_not_disturb_a_lesion_mask(tmp_path):
    root = write_bids(tmp_path)
    save(root / "derivatives/fmriprep/sub-01/anat/sub-01_dseg.nii.gz", ball())
    (case, *_) = cohort_named("bids:study", data=tmp_path).cases(tmp_path)
    assert case.lesion.name == "sub-01_label-lesion_mask.nii.gz"


def test_two_lesion_masks_are_an_error(tmp_path):
    root = write_bids(tmp_path)
    save(root / "derivatives/other/sub-02/anat/sub-02_desc-lesion_mask.nii.gz", one_lesion())
    with pytest.raises(ValueError, match=r"experts/.*other/.*--derivatives experts or other"):
        cohort_named("bids:study", data=tmp_path).cases(tmp_path)


def test_missing_bids_files_are_named(tmp_path):
    root = write_bids(tmp_path)
    cohort = cohort_named("bids:study", data=tmp_path)
    next((root / "derivatives/experts/sub-02/anat").iterdir()).unlink()
    with pytest.raises(ValueError, match=r"sub-02_label-lesion_mask\.nii\.gz: missing"):
        cohort.cases(tmp_path)
    (root / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"sub-01_T1w\.nii\.gz: missing"):
        cohort.cases(tmp_path)


def test_lesion_masks_among_the_images_are_to_be_moved(tmp_path):
    root = write_bids(tmp_path)
    shutil.rmtree(root / "derivatives/experts")
    save(root / "sub-01/anat/sub-01_label-lesion_mask.nii.gz", one_lesion())
    with pytest.raises(ValueError, match=r"move .*sub-01_label-lesion_mask.* and its like there"):
        cohort_named("bids:study", data=tmp_path).cases(tmp_path)


def test_images_beside_sessions_are_not_passed_over(tmp_path):
    root = write_bids(tmp_path, sessions=("ses-1",))
    save(root / "sub-01/anat/sub-01_T1w.nii.gz", noise(1))
    with pytest.raises(ValueError, match=r"sub-01/anat/sub-01_T1w\.nii\.gz: lies beside sessions"):
        cohort_named("bids:study", data=tmp_path).cases(tmp_path)


@pytest.mark.parametrize("wrong", ["sub-02_ses-1", "sub-01_ses-2"])
def test_a_file_in_the_folder_of_another_person_or_session_is_named(tmp_path, wrong):
    root = write_bids(tmp_path, sessions=("ses-1", "ses-2"))
    (file,) = (root / "derivatives/experts/sub-01/ses-1/anat").iterdir()
    file.rename(file.with_name(f"{wrong}_label-lesion_mask.nii.gz"))
    with pytest.raises(ValueError, match=r"is named (sub-02|ses-2) but lies in the folder of"):
        cohort_named("bids:study", data=tmp_path).cases(tmp_path)


def test_session_without_anatomy_is_no_case(tmp_path):
    root = write_bids(tmp_path, sessions=("ses-1",))
    (root / "sub-01" / "ses-2" / "func").mkdir(parents=True)
    assert len(cohort_named("bids:study", data=tmp_path).cases(tmp_path)) == 3


@pytest.mark.parametrize(
    "name", ["nnunet:nowhere", "bids:nowhere", "nnunet:x:stripped", "bids:", "nnunet:../x"]
)
def test_names_that_mean_nothing_are_errors(tmp_path, name):
    with pytest.raises(ValueError):
        cohort_named(name, data=tmp_path)


# ---------------------------------------------------------------- BIDS: which of several masks
def also(root: Path, pipeline: str, name: str, number: int | None = None) -> None:
    """The lesion mask of every subject, or of one, under another name."""
    for place in sorted(root.glob("sub-*")):
        if number is None or place.name == f"sub-{number:02d}":
            folder = root / "derivatives" / pipeline / place.name / "anat"
            save(folder / f"{place.name}_{name}.nii.gz", one_lesion())


def lesions(data: Path, **reading: str) -> set[str]:
    """The names of the lesion masks without their subjects, with their folders."""
    cases = cohort_named("bids:study", data=data, **reading).cases(data)
    return {f"{c.lesion.parts[-4]}/{c.lesion.name.partition('_')[2]}" for c in cases}


TISSUES = ["label-WM_mask", "label-GM_mask", "label-CSF_mask", "desc-aseg_dseg", "dseg",
           "desc-brainstem_mask", "label-WM_desc-lesionfilled_mask", "desc-ribbon_mask",
           "label-cortex_mask", "label-thalamus_roi", "label-perilesional_mask",
           "desc-unheardof_mask"]  # fmt: skip


@pytest.mark.parametrize("name", TISSUES)
def test_a_mask_of_tissue_is_never_one_of_lesions(tmp_path, name):
    root = write_bids(tmp_path)
    also(root, "fast", name)
    assert lesions(tmp_path) == {"experts/label-lesion_mask.nii.gz"}
    next((root / "derivatives/experts/sub-02/anat").iterdir()).unlink()
    with pytest.raises(ValueError, match=r"experts/sub-02/anat/sub-02_label-lesion_mask.*missing"):
        lesions(tmp_path)
    shutil.rmtree(root / "derivatives/experts")
    with pytest.raises(ValueError, match=r"no lesion mask .*there: derivatives/"):
        lesions(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["label-lesion_mask", "label-L_mask", "desc-WMH_mask", "label-L_desc-T1lesion_mask",
     "lesion_roi", "T2w_desc-lesion_mask", "desc-tumour_dseg", "desc-brainlesions_mask",
     "desc-manual_mask", "mask", "label-MS_mask", "label-lacune_mask", "desc-edema_mask"],
)  # fmt: skip
def test_masks_of_lesions_are_known_by_their_names(tmp_path, name):
    root = write_bids(tmp_path, lesion=name)
    also(root, "fast", "label-WM_mask")
    assert lesions(tmp_path) == {f"experts/{name}.nii.gz"}


def test_a_nameless_mask_is_taken_in_the_whole_dataset_or_nowhere(tmp_path):
    root = write_bids(tmp_path, lesion="mask")
    cohort = cohort_named("bids:study", data=tmp_path)
    (said, *_) = cohort.remarks(tmp_path, cohort.cases(tmp_path))
    assert said.startswith("lesion masks from: derivatives/experts, mask (3); their name does not")
    also(root, "experts", "label-lesion_mask", 1)
    with pytest.raises(ValueError, match=r"sub-02_label-lesion_mask\.nii\.gz: missing"):
        lesions(tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "name", "choice", "expected"),
    [
        ("other", "label-lesion_mask", "other", "experts or other"),
        ("other", "desc-lesion_mask", "other", "experts or other"),
        ("experts", "desc-r2_label-lesion_mask", "experts/desc-r2", "experts/desc-r2 or experts/"),
        ("experts", "run-2_label-lesion_mask", "experts/run-", "experts/run-2"),
        ("experts", "space-T1w_label-lesion_mask", "experts/space-", "experts/space-"),
    ],
)
def test_of_several_masks_the_user_chooses(tmp_path, pipeline, name, choice, expected):
    root = write_bids(tmp_path)
    also(root, pipeline, name)
    with pytest.raises(ValueError, match=f"choose with --derivatives .*{expected}") as caught:
        lesions(tmp_path)
    assert f"{pipeline}/sub-01/anat/sub-01_{name}" in str(caught.value)
    assert "experts/sub-01/anat/sub-01_label-lesion_mask" in str(caught.value)
    (taken,) = lesions(tmp_path, derivatives=choice)
    assert taken.startswith(choice.partition("/")[0])
    assert "r2" in taken if "r2" in choice else "2" not in taken
    with pytest.raises(ValueError, match=r"there: bet, experts.*did you mean experts"):
        lesions(tmp_path, derivatives="expert")


def test_brain_masks_of_two_folders_are_chosen_behind_a_comma(tmp_path):
    root = write_bids(tmp_path)
    also(root, "hdbet", "desc-brain_mask")
    with pytest.raises(ValueError, match=r"brain masks.*s experts,bet or experts,hdbet"):
        lesions(tmp_path)
    (case, *_) = cohort_named("bids:study", data=tmp_path, derivatives="experts,hdbet").cases(
        tmp_path
    )
    assert case.brain is not None
    assert "hdbet" in case.brain.parts


def test_a_space_is_read_from_derivatives(tmp_path):
    root = write_bids(tmp_path)
    for name in ("desc-preproc_T1w", "FLAIR", "desc-brain_mask", "label-lesion_mask"):
        also(root, "prep", f"space-MNI_{name}")
    assert lesions(tmp_path) == {"experts/label-lesion_mask.nii.gz"}
    cohort = cohort_named("bids:study", data=tmp_path, space="MNI")
    for case in cohort.cases(tmp_path):
        assert all("space-MNI" in path.name for path in case.files)
    assert "space-MNI_desc-brain" in cohort.brain_place(tmp_path, case).name
    with pytest.raises(ValueError, match="did you mean MNI"):
        lesions(tmp_path, space="MNI1")
    shutil.rmtree(root / "derivatives/experts")
    with pytest.raises(ValueError, match="--space MNI"):
        lesions(tmp_path)


def test_images_that_differ_in_an_entity_are_chosen_as_channels(tmp_path):
    root = write_bids(tmp_path)
    save(root / "sub-01/anat/sub-01_ce-gd_T1w.nii.gz", noise(5))
    with pytest.raises(ValueError, match=r"sub-01_T1w.*sub-01_ce-gd_T1w.*as ce-_T1w or ce-gd_T1w"):
        lesions(tmp_path)
    cohort = cohort_named("bids:study", ["ce-_T1w", "acq-3d_FLAIR"], tmp_path)
    assert cohort.cases(tmp_path)[0].channels["ce-_T1w"].name == "sub-01_T1w.nii.gz"
    with pytest.raises(ValueError, match=r"there: .*T1w \(3\).*did you mean FLAIR"):
        cohort_named("bids:study", ["flair"], tmp_path).cases(tmp_path)


# ------------------------------------------------------------------------- who, and at which site
IDS = "participant_id\tage\tsite\n{0}01\t30\tA\n{0}02\t40\tB\n{0}10\t50\tA\n"


@pytest.mark.parametrize(
    "content",
    [
        IDS.format("sub-").encode("utf-8-sig"),
        IDS.format("sub-").encode("utf-16"),
        IDS.format("").encode(),
        IDS.format("sub-").replace("\n", "\r\n").encode(),
        IDS.format("sub-").replace("site", '"Site"').replace("A", '"A"').encode(),
        IDS.format("sub-").replace("age", "n\u00e9").encode("latin-1"),
        (IDS.format("sub-") + "sub-99\t1\tC\n").encode(),
    ],
)
def test_participants_are_read_however_they_are_written(tmp_path, content):
    root = write_bids(tmp_path)
    (root / "participants.tsv").write_bytes(content)
    cohort = cohort_named("bids:study", data=tmp_path)
    cases = cohort.cases(tmp_path)
    assert [case.site for case in cases] == ["A", "B", "A"]
    warned = [line for line in cohort.remarks(tmp_path, cases) if line.startswith("warning")]
    assert len(warned) == (b"sub-99" in content)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace("site", "center"), "no column site.*if center is it, name it"),
        (lambda text: text.replace("\tA", "\tn/a", 1), "sub-01 has no site: .* says n/a of sub-01"),
        (lambda text: text.replace("sub-02\t40\tB\n", ""), "no row for sub-02"),
        (lambda text: text.replace("sub-", "S"), "none of its 3 rows, such as 'S01'.*sub-01 or 01"),
        (lambda text: text.replace("\t", ","), "no column participant_id.*by tabs"),
        (lambda text: text.replace("\t", "   "), "no column participant_id.*by tabs"),
        (lambda text: text.replace("\tB", ""), "line 3 has 2 columns"),
        (lambda text: "", "no column participant_id, only an empty file"),
        (lambda text: text + "01\t1\tB\n", "two rows for sub-01"),
        (None, r"participants\.tsv is missing"),
    ],
)
def test_the_site_rule_asks_for_every_site(tmp_path, change, expected):
    root = write_bids(tmp_path)
    file = root / "participants.tsv"
    file.write_text(change(IDS.format("sub-"))) if change else file.unlink()
    with pytest.raises(ValueError, match=expected):
        folds_by("site", cohort_named("bids:study", data=tmp_path).cases(tmp_path), 2)


@pytest.mark.parametrize("name", ["nnunet:Dataset001_MS", "mine"])
def test_cases_tsv_gives_other_layouts_subjects_and_sites(tmp_path, name):
    root, mine = write_nnunet(tmp_path), tmp_path / "mine"
    for case in ("a_1", "b_2", "b_10"):
        write_case(mine / case)
    root = mine if name == "mine" else root
    cohort = cohort_named(name, ["t1"] if name == "mine" else [], tmp_path)
    before = fingerprint(cohort, tmp_path)
    with pytest.raises(ValueError, match=r"no site: .*cases\.tsv can say it"):
        folds_by("site", cohort.cases(tmp_path), 2)
    rows = "Case\tsubject\tsite\na_1\tann\tX\nb_2\tbob\tY\nb_10\tann\tX\n"
    (root / "cases.tsv").write_text(rows, encoding="utf-8-sig")
    cases = cohort.cases(tmp_path)
    assert [(case.subject, case.site) for case in cases] == [
        ("ann", "X"),
        ("bob", "Y"),
        ("ann", "X"),
    ]
    assert folds_by("strided", cases, 2) == [["a_1", "b_10"], ["b_2"]]
    assert fingerprint(cohort, tmp_path) == before
    for wrong, expected in (
        (rows.replace("b_2", "b_3"), r"'b_3' is no case of the cohort; did you mean b_2\?"),
        (rows.replace("b_2\tbob\tY\n", ""), "no row for b_2"),
        ("case\tage\na_1\t3\n", "expected case, and subject or site"),
    ):
        (root / "cases.tsv").write_text(wrong)
        with pytest.raises(ValueError, match=expected):
            cohort.cases(tmp_path)


def test_the_command_for_brain_masks_can_be_copied(tmp_path):
    write_nnunet(tmp_path, brains=False)
    command = f"`python -m lesion_core.prepare brains nnunet:Dataset001_MS {tmp_path}`"
    for name, end in (
        ("nnunet:Dataset001_MS", ", or ask for nnunet:Dataset001_MS:nonzero"),
        ("nnunet:Dataset001_MS:nonzero", ""),  # they are not stripped
    ):
        cohort = cohort_named(name, data=tmp_path, spacing=["1", "1", "2"])
        with pytest.raises(ValueError) as caught:
            load_cohort(cohort, tmp_path)
        assert f"make one with {command}{end}" in str(caught.value)
