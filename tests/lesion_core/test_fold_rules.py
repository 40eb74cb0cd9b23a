"""Folds by site, from a file and in nnU-Net's form; what they do to a trial."""

import json
from dataclasses import replace

import pytest

from lesion_core import folds
from lesion_core.cohorts import Case, Wmh2017
from lesion_core.cohorts.__main__ import main as cohorts_command
from lesion_core.folds import fold_table, folds_by, read_folds, test_folds, write_splits
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial, run
from sweeps import train_one
from sweeps.data import Data, request
from tests.support.tiny import write_wmh_cohort
from tests.support.toy import toy_cohort


def case(name: str, site: str = "", subject: str = "") -> Case:
    return Case(id=name, site=site, channels={}, lesion=None, brain=None, subject=subject)


def cases(**sites: int) -> list[Case]:
    """So many cases of each site, the sites one after the other."""
    return [case(f"{site}{number}", site) for site, n in sites.items() for number in range(n)]


def counts(split, members, site):
    wanted = {member.id for member in members if member.site == site}
    return [len(wanted & set(fold)) for fold in split]


@pytest.mark.parametrize("rule", folds.RULES)
@pytest.mark.parametrize("num_folds", [2, 3, 5])
def test_every_case_is_tested_once_and_folds_differ_by_one_case(rule, num_folds):
    members = cases(u=7, s=11, a=4)
    split = folds_by(rule, members, num_folds)
    assert sorted(name for fold in split for name in fold) == sorted(
        member.id for member in members
    )
    sizes = [len(fold) for fold in split]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num_folds", [2, 3, 4])
def test_site_rule_spreads_every_site_evenly(num_folds):
    """Also where sites alternate, so that the strided rule would part them."""
    members = [case(str(n), "ab"[n % 2] if n < 16 else "c") for n in range(24)]
    split = folds_by("site", members, num_folds)
    for site in "abc":
        share = counts(split, members, site)
        assert max(share) - min(share) <= 1
    if num_folds == 2:
        assert counts(folds_by("strided", members, 2), members, "a") == [8, 0]


def test_strided_rule_is_the_plain_one():
    members = cases(u=5, s=6)
    names = [member.id for member in members]
    assert folds_by("strided", members, 3) == test_folds(names, 3)


def test_site_rule_equals_the_plain_one_where_sites_follow_each_other():
    """So naturally ordered WMH cases keep the authors' folds under either rule."""
    members = cases(u=20, s=20, a=20)
    assert folds_by("site", members, 5) == folds_by("strided", members, 5)


@pytest.mark.parametrize("rule", folds.RULES)
def test_one_subject_is_never_on_both_sides(rule):
    members = [case(f"s{n}_ses-{k}", "x", f"s{n}") for n in range(7) for k in range(n % 3 + 1)]
    for fold in folds_by(rule, members, 3):
        subjects = {name.split("_")[0] for name in fold}
        others = {member.subject for member in members if member.id not in fold}
        assert not subjects & others


def test_a_file_that_parts_a_subject_is_refused(tmp_path):
    members = [case(f"{subject}{visit}", subject=subject) for subject in "abc" for visit in "12"]
    file = tmp_path / "f.json"
    file.write_text('[["a1", "b1", "b2"], ["a2", "c1", "c2"]]')
    with pytest.raises(ValueError, match=r"f\.json: a1 and a2 are of one subject, a, .* 0 and 1"):
        read_folds(file, members, 2)
    file.write_text('[["b1", "b2"], ["a1", "a2", "c1", "c2"]]')
    assert read_folds(file, members, 2) == [["b1", "b2"], ["a1", "a2", "c1", "c2"]]
    table = fold_table(read_folds(file, members, 2), members).splitlines()
    assert [line.split()[:3] for line in table] == [
        ["fold", "cases", "subjects"],
        ["0", "2", "1"],
        ["1", "4", "2"],
    ]


def test_every_fold_needs_a_subject_not_only_a_case():
    members = [case(f"{subject}{visit}", subject=subject) for subject in "ab" for visit in "12"]
    with pytest.raises(ValueError, match="4 cases of 2 subjects for 3 folds"):
        folds_by("strided", members, 3)


def test_written_splits_are_read_back(tmp_path):
    members = cases(u=5, s=6)
    split = folds_by("site", members, 3)
    write_splits(tmp_path / "splits_final.json", split)
    assert folds_by(str(tmp_path / "splits_final.json"), members, 3) == split
    content = json.loads((tmp_path / "splits_final.json").read_text())
    assert [set(fold) for fold in content] == [{"train", "val"}] * 3
    assert all(len(fold["train"]) + len(fold["val"]) == 11 for fold in content)


def test_plain_lists_will_do(tmp_path):
    (tmp_path / "f.json").write_text('[["u1", "u0"], ["u2"]]')
    assert read_folds(tmp_path / "f.json", cases(u=3), 2) == [["u0", "u1"], ["u2"]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[["u0"], ["u1"], ["u2"]]', "3 folds, 2 asked for"),
        ('[["u0", "u1"], ["u2", "u9"]]', "u9 is no case of the cohort"),
        ('[["u0"], ["u2"]]', "u1 is in no test fold"),
        ('[["u0", "u1"], ["u1", "u2"]]', "u1 is tested twice"),
        ('[["u0", "u1", "u2"], []]', "fold 1 tests no case"),
        ('[{"train": ["u1"], "val": ["u0"]}, {"train": ["u0"], "val": ["u1", "u2"]}]', "fold 0"),
        ('[{"train": ["u1"]}, {"train": ["u0"]}]', "expected a list of folds"),
        ("3", "expected a list of folds"),
        ("[1, 2]", "expected a list of folds"),
        ("{", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, content, expected):
    file = tmp_path / "f.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_folds(file, cases(u=3), 2)
    assert expected in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_rule_names_the_choices():
    with pytest.raises(ValueError, match=r"expected strided, site, or a \.json file"):
        folds_by("random", cases(u=3), 2)


def test_table_counts_sites():
    members = cases(u=3, s=2)
    lines = fold_table(folds_by("site", members, 2), members).splitlines()
    assert lines[0].split() == ["fold", "cases", "u", "s", "tested"]
    assert lines[1].split() == ["0", "3", "2", "1", "u0", "u2", "s1"]
    assert lines[2].split() == ["1", "2", "1", "1", "u1", "s0"]


# ------------------------------------------------------------------------------- what a trial keeps
TRIAL = Trial(
    cohort="c",
    fingerprint="f",
    loss=LOSSES["xent"],
    seed=1,
    fold=0,
    num_folds=2,
    settings=TrainSettings(),
)


def test_usual_folds_leave_the_identity_as_it_was():
    assert "test_cases" not in TRIAL.to_dict()
    assert replace(TRIAL, test_cases=("a",)).hash != TRIAL.hash
    assert replace(TRIAL, test_cases=("b",)).hash != replace(TRIAL, test_cases=("a",)).hash


def test_test_cases_survive_the_dictionary():
    trial = replace(TRIAL, test_cases=("a", "c"))
    assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial
    assert trial.tested(["a", "b", "c"]) == ["a", "c"]
    assert TRIAL.tested(["a", "b", "c"]) == ["a", "c"]


@pytest.mark.parametrize("tested", [("x",), ("a", "x"), ("a", "b"), ()])
def test_test_cases_that_do_not_fit_are_refused(tested):
    with pytest.raises(ValueError, match="expected some, but not all"):
        replace(TRIAL, test_cases=tested).tested(["a", "b"])


def test_given_cases_are_tested_and_the_others_trained_on():
    cohort = toy_cohort()
    settings = TrainSettings(epochs=1, filters=(8, 16), patch_size=16)
    trial = replace(
        TRIAL,
        cohort="toy",
        fingerprint=cohort.fingerprint,
        settings=settings,
        test_cases=("0", "3"),
    )
    reports = []
    run(trial, cohort, on_epoch=reports.append)
    split = {(row["split"], row["case"]) for row in reports[0].cases}
    assert split == {("test", "0"), ("test", "3"), ("train", "1"), ("train", "2")}
    assert {row["case"] for row in reports[1].final.slices} == {"0", "3"}


def test_sweep_stores_the_folds_and_their_rule(tmp_path):
    write_wmh_cohort(tmp_path, {"Utrecht": [0, 1, 4], "Singapore": [2, 3, 5]})
    stored = {}
    for rule in folds.RULES:
        data = Data.of(Wmh2017(), tmp_path, rule)
        expected = None if rule == "strided" else ("0", "3", "4")
        assert data.test_cases(2)[0] == expected
        stored[rule] = request([TRIAL], [data], TRIAL.settings, 2)
        assert stored[rule]["cohorts"]["wmh2017"]["fold_rule"] == rule
        assert stored[rule]["cohorts"]["wmh2017"]["brain"] == {"shipped": 6}
    assert stored["strided"]["folds"]["wmh2017"] == [["0", "2", "4"], ["1", "3", "5"]]
    assert stored["site"]["folds"]["wmh2017"] == [["0", "3", "4"], ["1", "2", "5"]]


def test_file_of_folds_is_kept_by_name_and_content(tmp_path):
    write_wmh_cohort(tmp_path, {"Utrecht": [0, 1]})
    (tmp_path / "f.json").write_text('[["1"], ["0"]]')
    data = Data.of(Wmh2017(), tmp_path, str(tmp_path / "f.json"))
    stored = request([TRIAL], [data], TRIAL.settings, 2)["cohorts"]["wmh2017"]["fold_rule"]
    assert stored.startswith("f.json sha256:")
    (tmp_path / "f.json").write_text('[["1"],  ["0"]]')
    assert request([TRIAL], [data], TRIAL.settings, 2)["cohorts"]["wmh2017"]["fold_rule"] != stored


def test_folds_command_prints_and_writes(tmp_path, capsys):
    write_wmh_cohort(tmp_path)
    file = tmp_path / "splits_final.json"
    arguments = ["folds", str(tmp_path), "--folds", "2", "--write", str(file)]
    assert cohorts_command([*arguments, "--fold-rule", "site"]) == 0
    assert "Amsterdam/GE3T" in capsys.readouterr().out
    assert cohorts_command(["folds", str(tmp_path), "--folds", "2", "--fold-rule", str(file)]) == 0
    assert cohorts_command(["folds", str(tmp_path), "--folds", "9"]) == 2
    assert "6 cases for 9 folds" in capsys.readouterr().err


def test_images_that_cannot_be_used_leave_no_trace_in_the_results(tmp_path):
    """So that the same command works once they are mended, though the data are then others."""
    root = write_wmh_cohort(tmp_path / "data", {"Utrecht": [0, 1]})
    sound = (root / "Utrecht" / "1" / "wmh.nii.gz").read_bytes()
    (root / "Utrecht" / "1" / "wmh.nii.gz").write_bytes(sound[:-9])
    arguments = [
        *("--cohort", "wmh2017", "--data", str(tmp_path / "data"), "--folds", "2"),
        *("--results", str(tmp_path / "results"), "--epochs", "1", "--filters", "8", "16"),
    ]
    with pytest.raises(ValueError, match=r"wmh\.nii\.gz"):
        train_one.main(arguments)
    assert not (tmp_path / "results" / "sweep.json").exists()
    (root / "Utrecht" / "1" / "wmh.nii.gz").write_bytes(sound)
    assert train_one.main(arguments) == 0


# ---------------------------------------------------------------------------- validation parts
@pytest.mark.parametrize("rule", folds.RULES)
@pytest.mark.parametrize("num_folds", [2, 3, 5])
def test_a_validation_part_is_a_fifth_of_the_training_part(rule, num_folds):
    members = cases(u=20, s=20, a=20)
    for number, tested in enumerate(folds_by(rule, members, num_folds)):
        held_out = folds.validation_cases(rule, members, tested, number)
        assert not set(held_out) & set(tested)
        training = len(members) - len(tested)
        assert training // 5 <= len(held_out) <= training // 5 + 1
        if rule == "site":
            share = counts([held_out], members, "u") + counts([held_out], members, "a")
            assert max(share) - min(share) <= 1


def test_a_validation_part_parts_no_subject_and_leaves_one_to_train_on():
    members = [case(f"{subject}{visit}", subject=subject) for subject in "abcd" for visit in "12"]
    for number, tested in enumerate(folds_by("strided", members, 2)):
        held_out = folds.validation_cases("strided", members, tested, number)
        assert len({name[0] for name in held_out}) == 1 and len(held_out) == 2


def test_a_training_part_of_one_subject_cannot_be_parted():
    members = cases(u=2)
    with pytest.raises(ValueError, match="fold 0 trains on 1 subject; expected two or more"):
        folds.validation_cases("strided", members, ["u0"], 0)


def test_validation_parts_are_stored_with_the_folds(tmp_path):
    data = Data.of(Wmh2017(), write_wmh_cohort(tmp_path).parent)
    held_out = data.validation_cases(2)
    searched = [
        replace(
            TRIAL, cohort=data.name, fold=fold, test_cases=None, validation_cases=held_out[fold]
        )
        for fold in (0, 1)
    ]
    stored = request(searched, [data], TRIAL.settings, 2)
    assert stored["validation"] == {"wmh2017": {"0": list(held_out[0]), "1": list(held_out[1])}}
    assert "validation" not in request([TRIAL], [data], TRIAL.settings, 2)
    for fold in (0, 1):
        trained, judged = searched[fold].training_and_judged_cases(data.cases)
        assert sorted([*trained, *judged, *data.folds(2)[fold]]) == sorted(data.cases)
