"""Layouts find the right files in the right order, and say which file is missing."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from lesion_core import cohorts
from lesion_core.cohorts import (
    COHORTS,
    Folder,
    Lit,
    Simulated,
    Wmh2017,
    cohort_from_dict,
    cohort_named,
    cohort_to_dict,
    cohorts_found,
    natural_key,
)
from tests.support.tiny import save, write_case, write_lit_cohort, write_wmh_case, write_wmh_cohort


def fails(cohort, data: Path, *parts: str) -> str:
    """The one-line complaint about a cohort; holds all these parts."""
    with pytest.raises(ValueError) as caught:
        cohort.cases(data)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


# ------------------------------------------------------------------------------------- layouts
def test_wmh_cases_carry_site_channels_and_both_masks(tmp_path):
    root = write_wmh_cohort(tmp_path)
    cases = Wmh2017().cases(tmp_path)
    assert [(case.id, case.site) for case in cases] == [
        ("0", "Utrecht"),
        ("2", "Utrecht"),
        ("11", "Utrecht"),
        ("50", "Singapore"),
        ("51", "Singapore"),
        ("100", "Amsterdam/GE3T"),
    ]
    last = cases[-1]
    folder = root / "Amsterdam" / "GE3T" / "100"
    assert last.channels == {
        "t1": folder / "pre" / "T1.nii.gz",
        "flair": folder / "pre" / "FLAIR.nii.gz",
    }
    assert list(last.channels) == ["t1", "flair"]
    assert last.lesion == folder / "wmh.nii.gz"
    assert last.brain == folder / "pre" / "brain.nii.gz"
    assert last.labels.other == (2,)
    assert set(last.files) == {*last.channels.values(), last.lesion, last.brain}


def test_wmh_other_files_and_folders_are_left_alone(tmp_path):
    root = write_wmh_cohort(tmp_path, {"Utrecht": [0]})
    save(root / "Utrecht" / "0" / "orig" / "FLAIR.nii.gz", np.zeros((2, 2, 2)))
    save(
        root / "additional_annotations" / "observer_o3" / "0" / "result.nii.gz", np.zeros((2,) * 3)
    )
    save(root / ".hidden" / "1" / "wmh.nii.gz", np.zeros((2, 2, 2)))
    (root / "readme.txt").write_text("hello")
    assert [case.id for case in Wmh2017().cases(tmp_path)] == ["0"]


def test_wmh_brain_mask_may_lie_beside_the_lesion_mask(tmp_path):
    folder = write_wmh_cohort(tmp_path, {"Utrecht": [0]}) / "Utrecht" / "0"
    (folder / "pre" / "brain.nii.gz").rename(folder / "brain.nii.gz")
    assert Wmh2017().cases(tmp_path)[0].brain == folder / "brain.nii.gz"
    shutil.copy(folder / "brain.nii.gz", folder / "pre" / "brain.nii.gz")
    fails(Wmh2017(), tmp_path, str(folder / "brain.nii.gz"), "keep one of the two")


def test_wmh_without_brain_mask_is_listed_without_one(tmp_path):
    folder = write_wmh_cohort(tmp_path, {"Utrecht": [0]}) / "Utrecht" / "0"
    (folder / "pre" / "brain.nii.gz").unlink()
    (case,) = Wmh2017().cases(tmp_path)
    assert case.brain is None
    assert None not in case.files


def test_wmh_cases_without_a_site_folder_have_no_site(tmp_path):
    write_wmh_case(tmp_path / "wmh2017" / "7")
    assert [(case.id, case.site) for case in Wmh2017().cases(tmp_path)] == [("7", "")]


def test_wmh_same_id_at_two_sites_is_refused_naming_both_folders(tmp_path):
    root = write_wmh_cohort(tmp_path, {"Singapore": [50], "Utrecht": [50]})
    fails(
        Wmh2017(), tmp_path, str(root / "Singapore" / "50"), str(root / "Utrecht" / "50"), "case 50"
    )


@pytest.mark.parametrize("file", ["pre/T1.nii.gz", "pre/FLAIR.nii.gz", "wmh.nii.gz"])
def test_wmh_missing_file_is_named(tmp_path, file):
    folder = write_wmh_cohort(tmp_path, {"Utrecht": [0, 2]}) / "Utrecht" / "2"
    (folder / file).unlink()
    fails(Wmh2017(), tmp_path, str(folder / file), "missing")


def test_lit_cases_are_ordered_naturally_with_channels_in_their_stated_order(tmp_path):
    root = write_lit_cohort(tmp_path, (10, 2, 1))
    (root / "patient10").rename(root / "patient9b")
    (root / "patient02").rename(root / "patient10")
    (root / "LICENSE.txt").write_text("CC BY")
    cases = Lit().cases(tmp_path)
    assert [case.id for case in cases] == ["patient01", "patient9b", "patient10"]
    for case in cases:
        assert list(case.channels) == ["baseline_flair", "followup_flair"]
        assert case.channels["followup_flair"].name == "followup_flair.nii.gz"
        assert (case.site, case.labels.other) == ("", ())


@pytest.mark.parametrize("file", ["baseline_flair", "followup_flair", "lesion"])
def test_lit_missing_file_is_named(tmp_path, file):
    path = write_lit_cohort(tmp_path) / "patient02" / f"{file}.nii.gz"
    path.unlink()
    fails(Lit(), tmp_path, str(path), "missing")


def test_lit_without_brain_mask_is_listed_without_one(tmp_path):
    (write_lit_cohort(tmp_path, (1,)) / "patient01" / "brain.nii.gz").unlink()
    assert Lit().cases(tmp_path)[0].brain is None


def test_channel_order_is_the_order_of_the_names_never_the_directorys(tmp_path):
    write_case(tmp_path / "mine" / "case1", channels=("a", "b", "c"))
    for order in (("a", "b", "c"), ("c", "a", "b"), ("b",)):
        (case,) = Folder(name="mine", channels=order).cases(tmp_path)
        assert tuple(case.channels) == order
        assert [path.name for path in case.channels.values()] == [f"{n}.nii.gz" for n in order]


def test_uncompressed_files_are_found_but_two_of_a_kind_are_refused(tmp_path):
    folder = write_case(tmp_path / "mine" / "case1", channels=("t1",))
    image = nib.load(folder / "t1.nii.gz")
    nib.save(image, folder / "t1.nii")
    cohort = Folder(name="mine", channels=("t1",))
    fails(cohort, tmp_path, str(folder / "t1.nii.gz"), "t1.nii is there as well")
    (folder / "t1.nii.gz").unlink()
    assert cohort.cases(tmp_path)[0].channels["t1"].name == "t1.nii"


@pytest.mark.parametrize("cohort", [Wmh2017(), Lit(), Folder(name="mine", channels=("t1",))])
def test_absent_and_empty_cohort_folders_are_refused_with_the_expected_layout(tmp_path, cohort):
    fails(cohort, tmp_path, str(tmp_path / cohort.name), "no such folder", ".nii.gz")
    (tmp_path / cohort.name).mkdir()
    fails(cohort, tmp_path, str(tmp_path / cohort.name), "no case found", ".nii.gz")


def test_wmh_folder_with_folders_but_no_case_is_refused(tmp_path):
    (tmp_path / "wmh2017" / "Utrecht" / "0").mkdir(parents=True)
    fails(Wmh2017(), tmp_path, "no case found", "SITE/ID/wmh.nii.gz")


def test_unreadable_folder_is_named(tmp_path, monkeypatch):
    root = write_lit_cohort(tmp_path, (1,))

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    fails(Lit(), tmp_path, f"{root}: cannot be read (Permission denied)")


def test_natural_order_compares_numbers_by_value():
    names = ["patient10", "patient2", "Patient3", "2", "10", "02", "a", "a1b10", "a1b9", ""]
    assert sorted(names, key=natural_key) == [
        "", "02", "2", "10", "a", "a1b9", "a1b10", "patient2", "Patient3", "patient10",
    ]  # fmt: skip


# --------------------------------------------------------------------------- names and channels
@pytest.mark.parametrize("name", ["../lit", "a/b", "", ".hidden", "/data", "two words", "a:b"])
def test_names_that_are_no_folder_names_are_refused(name):
    with pytest.raises(ValueError, match="cohort name"):
        Folder(name=name, channels=("t1",))
    with pytest.raises(ValueError, match="cohort name"):
        Simulated(name=name)


@pytest.mark.parametrize(
    ("channels", "complaint"),
    [
        ((), "at least one channel"),
        (("t1", "t1"), "each one once"),
        (("t1", "brain"), "'brain' cannot be used"),
        (("lesion",), "'lesion' cannot be used"),
        (("../t1",), "cannot be used"),
        (("",), "cannot be used"),
    ],
)
def test_channels_that_cannot_be_files_are_refused(channels, complaint):
    with pytest.raises(ValueError, match=complaint):
        Folder(name="mine", channels=channels)


def test_cohorts_are_found_by_name():
    assert all(cohort_named(name) is cohort for name, cohort in COHORTS.items())
    assert cohort_named("lit", ["baseline_flair", "followup_flair"]) == Lit()
    assert cohort_named("mine", ["t1", "t2"]) == Folder(name="mine", channels=("t1", "t2"))


def test_unknown_cohort_is_answered_with_the_choices_and_the_nearest():
    with pytest.raises(ValueError, match=r"wmh2017, lit, .*did you mean wmh2017") as caught:
        cohort_named("wmh2071")
    assert "\n" not in str(caught.value)


def test_channels_that_a_built_in_cohort_lacks_are_refused_rather_than_ignored():
    with pytest.raises(ValueError, match="'lit' has the channels baseline_flair followup_flair"):
        cohort_named("lit", ["t1"])


def test_only_the_real_cohorts_that_are_there_are_found(tmp_path):
    assert cohorts_found(tmp_path / "nowhere") == []
    write_lit_cohort(tmp_path, (1,))
    (tmp_path / "wmh2017").mkdir()
    write_case(tmp_path / "mine" / "case")
    assert cohorts_found(tmp_path) == ["lit"]
    write_wmh_cohort(tmp_path, {"Utrecht": [0]})
    assert cohorts_found(tmp_path) == ["wmh2017", "lit"]


@pytest.mark.parametrize(
    "cohort",
    [*COHORTS.values(), Folder(name="mine", channels=("t1", "t2")), Simulated(seed=3, num_cases=4)],
)
def test_cohort_survives_json(cohort):
    assert cohort_from_dict(json.loads(json.dumps(cohort_to_dict(cohort)))) == cohort


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"type": "Brats", "fields": {}}, "unknown cohort type 'Brats'; expected one of Wmh2017"),
        ({}, "unknown cohort type None"),
        ({"type": "Lit", "fields": {"sites": 3}}, "sites"),
        ({"type": "Folder", "fields": {"name": "x"}}, "channels"),
    ],
)
def test_unknown_cohort_content_is_refused(content, complaint):
    with pytest.raises(ValueError, match=complaint):
        cohort_from_dict(content)


# ----------------------------------------------------------------------------------- simulated
@pytest.fixture
def simulator(monkeypatch):
    """A stand-in that writes tiny noise and notes how often it was asked."""
    calls = []

    def write_cohort(folder, *, kind, num_cases, seed, voxel_scale=1.0):
        assert list(folder.iterdir()) == []
        calls.append((kind, num_cases, seed, voxel_scale))
        for number in range(num_cases):
            if kind == "wmh":
                write_wmh_case(folder / f"site{number % 3}" / str(number), seed=seed + number)
            else:
                write_case(folder / f"patient{number}", channels=Lit.channels, seed=seed + number)

    module = SimpleNamespace(write_cohort=write_cohort)
    monkeypatch.setitem(sys.modules, "lesion_core.cohorts.simulate", module)
    return SimpleNamespace(calls=calls, module=module)


def test_simulated_cohort_is_made_once_and_read_in_the_real_layout(tmp_path, simulator):
    data = tmp_path / "not" / "yet"
    cohort = Simulated(num_cases=4, seed=3)
    cases = cohort.cases(data)
    assert [case.id for case in cases] == ["0", "1", "2", "3"]
    assert [case.site for case in cases] == ["site0", "site1", "site2", "site0"]
    assert all(
        tuple(case.channels) == cohort.channels and case.labels.other == (2,) for case in cases
    )
    assert cohort.cases(data) == cases
    assert simulator.calls == [("wmh", 4, 3, 1.0)]
    assert [path.name for path in data.iterdir()] == ["simulated"]
    assert (data / "simulated").stat().st_mode & 0o777 == 0o755
    assert json.loads((data / "simulated" / "simulated.json").read_text()) == {
        "kind": "wmh",
        "num_cases": 4,
        "seed": 3,
        "voxel_scale": 1.0,
    }


def test_simulated_longitudinal_cohort_has_the_longitudinal_channels(tmp_path, simulator):
    cohort = replace(COHORTS["simulated_lit"], name="demo", num_cases=2, voxel_scale=2.5)
    cases = cohort.cases(tmp_path)
    assert (tmp_path / "demo" / "patient1").is_dir()
    assert [tuple(case.channels) for case in cases] == [Lit.channels] * 2
    assert simulator.calls == [("lit", 2, 0, 2.5)]


def test_simulated_cohort_made_otherwise_is_refused_naming_the_difference(tmp_path, simulator):
    Simulated(num_cases=2, seed=3).cases(tmp_path)
    message = fails(
        Simulated(num_cases=5, seed=3), tmp_path, "simulated.json", "num_cases=2", "num_cases=5"
    )
    assert "seed" not in message
    assert len(simulator.calls) == 1


def test_folder_that_was_not_simulated_is_never_taken_for_it(tmp_path, simulator):
    write_wmh_cohort(tmp_path, name="simulated")
    fails(Simulated(), tmp_path, "simulated.json: missing")
    for broken in ("{", "[1]"):
        (tmp_path / "simulated" / "simulated.json").write_text(broken)
        fails(Simulated(), tmp_path, "simulated.json: ")


def test_interrupted_simulation_leaves_nothing_behind(tmp_path, simulator):
    complete = simulator.module.write_cohort

    def interrupted(folder, **parameters):
        complete(folder, **parameters)
        raise KeyboardInterrupt

    simulator.module.write_cohort = interrupted
    with pytest.raises(KeyboardInterrupt):
        Simulated(num_cases=2).cases(tmp_path)
    assert list(tmp_path.iterdir()) == []
    simulator.module.write_cohort = complete
    assert len(Simulated(num_cases=2).cases(tmp_path)) == 2


def test_simulation_that_another_process_finished_first_is_taken(tmp_path, simulator):
    complete = simulator.module.write_cohort
    cohort = Simulated(num_cases=2)

    def overtaken(folder, **parameters):
        complete(folder, **parameters)
        simulator.module.write_cohort = complete
        cohort.cases(tmp_path)  # the other process

    simulator.module.write_cohort = overtaken
    assert len(cohort.cases(tmp_path)) == 2
    assert len(simulator.calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["simulated"]


def test_simulation_into_an_unwritable_folder_is_refused(tmp_path, simulator):
    (tmp_path / "file").write_text("")
    fails(Simulated(), tmp_path / "file", str(tmp_path / "file"), "cannot be written")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"kind": "brats"}, "expected wmh or lit"),
        ({"num_cases": 0}, "at least 1"),
        ({"voxel_scale": 0.0}, "positive"),
        ({"voxel_scale": float("nan")}, "positive"),
    ],
)
def test_senseless_simulations_are_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        Simulated(**fields)


def test_every_layout_is_in_the_union_and_names_its_channels():
    for cohort in COHORTS.values():
        assert isinstance(cohort, cohorts.Cohort)
        assert cohort.channels
    assert [name for name, cohort in COHORTS.items() if name != cohort.name] == []
