"""Positive activity: what brightens is kept, what fades is not, and nothing of it is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from analysis.sections import imbalance, methods
from lesion_core import table1
from lesion_core.cohort_rows import describe
from lesion_core.cohorts import Lit, activity_in
from lesion_core.cohorts.__main__ import main as cohorts_command
from lesion_core.images import load_cohort
from lesion_core.preparation import prepare
from lesion_core.preparation.activity import positive
from lesion_core.settings import TrainSettings
from sweeps.data import Data, request
from tests.support.tiny import ball, save, write_lit_cohort

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHAPE = (9, 9, 9)
BRIGHTER, FAINTER, HARDLY, OUTSIDE = (2, 2, 2), (6, 6, 6), (2, 6, 2), (8, 0, 8)


def studies(**at: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Change at four corners of a brain: two images, brain, mask; ``at`` in units of z-scores."""
    brain = ball(SHAPE)
    first = np.where(brain, np.random.default_rng(0).normal(100, 10, SHAPE), 0)
    second, change = first.copy(), np.zeros(SHAPE, dtype=bool)
    for name, place in (("brighter", BRIGHTER), ("fainter", FAINTER), ("hardly", HARDLY)):
        if name in at:
            second[place] += 10 * at[name]
            change[place] = True
    if "outside" in at:
        change[OUTSIDE] = True
    return change, first, 3 * second + 7 * brain, brain


def write_lit(data: Path, **patients: dict[str, float]) -> Path:
    for name, at in patients.items():
        change, first, second, brain = studies(**at)
        folder = data / "lit" / name
        for stem, image in (
            ("baseline_flair", first.astype(np.float32)),
            ("followup_flair", second.astype(np.float32)),
            ("brain", brain),
            ("lesion", change),
        ):
            save(folder / f"{stem}.nii.gz", image)
    return data


BOTH, FADED = {"brighter": 3.0, "fainter": -3.0}, {"fainter": -2.0}


@pytest.fixture
def data(tmp_path):
    return write_lit(tmp_path / "data", patient01=BOTH, patient02=FADED, patient10=BOTH)


def sort_out(data: Path, *flags: str, source: Path | None = None) -> int:
    return prepare.main(["lit", str(source or data), str(data), *flags])


def voxels(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asanyarray(image.dataobj)


def content(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# ---------------------------------------------------------------------------------------- the rule
def test_only_what_brightens_is_kept_whatever_the_units_of_the_images():
    mask, changes = positive(*studies(**BOTH))
    assert np.argwhere(mask).tolist() == [list(BRIGHTER)]
    assert [(each.kept, each.centre_vox) for each in changes] == [
        (True, BRIGHTER),
        (False, FAINTER),
    ]
    assert changes[0].difference_sd == pytest.approx(3, rel=0.1)


def test_a_lesion_that_touches_by_a_corner_is_judged_as_one():
    change, first, second, brain = studies(brighter=3.0)
    change[3, 3, 3] = True
    second[3, 3, 3] -= 30  # a fall of 1: together they rise
    mask, (one,) = positive(change, first, second, brain)
    assert (one.voxels, mask.sum()) == (2, 2)


@pytest.mark.parametrize("at", [0.1, -0.1])
def test_uncertain_lesions_follow_their_sign_or_what_is_asked_for(at):
    given = studies(hardly=at, brighter=3.0, fainter=-3.0)
    kept = {rule: positive(*given, rule)[0] for rule in ("sign", "keep", "drop")}
    assert {rule: bool(mask[HARDLY]) for rule, mask in kept.items()} == {
        "sign": at > 0, "keep": True, "drop": False,
    }  # fmt: skip
    assert all(mask[BRIGHTER] and not mask[FAINTER] for mask in kept.values())
    uncertain = [each.centre_vox for each in positive(*given)[1] if each.uncertain]
    assert uncertain == [HARDLY]


def test_voxels_outside_the_brain_count_by_the_scores_of_the_brain():
    change, first, second, brain = studies(outside=0.0, brighter=3.0)
    _, changes = positive(change, first, second, brain)
    (outside,) = [each for each in changes if each.centre_vox == OUTSIDE]
    z = [(0 - image[brain].mean()) / image[brain].std() for image in (first, second)]
    assert outside.in_brain_voxels == 0
    assert outside.difference_sd == pytest.approx(z[1] - z[0])


# ------------------------------------------------------------------------------- a prepared cohort
def test_masks_are_sorted_out_and_the_original_stays_beside(data, capsys):
    before = content(data)
    assert sort_out(data, "--activity", "positive") == 0
    said = capsys.readouterr().out
    assert "patient01: positive activity: 1 of 2 lesions, 1 of 2 voxels" in said
    assert "patient02: no positive activity; left out" in said
    assert [case.id for case in Lit().cases(data)] == ["patient01", "patient10"]
    for name in ("patient01", "patient10"):
        folder = data / "lit" / name
        assert np.argwhere(voxels(folder / "lesion.nii.gz")).tolist() == [list(BRIGHTER)]
        assert (folder / "lesion_all.nii.gz").read_bytes() == before[f"lit/{name}/lesion.nii.gz"]
    found = activity_in(data / "lit")
    assert found is not None
    assert found.excluded == ("patient02",)
    assert found.cases["patient01"].all_voxels == 2


def test_going_back_gives_the_very_same_files(data):
    before = content(data)
    for uncertain in ("keep", "drop", "sign"):
        assert sort_out(data, "--activity", "positive", "--uncertain", uncertain) == 0
    assert sort_out(data, "--activity", "all") == 0
    assert content(data) == before


def test_each_choice_starts_from_the_original(tmp_path):
    at = {"hardly": 0.1, "brighter": 3.0, "fainter": -3.0}
    data = write_lit(tmp_path, patient01=at, patient02=at)
    first = {}
    for uncertain in ("drop", "keep", "drop"):
        assert sort_out(data, "--activity", "positive", "--uncertain", uncertain) == 0
        first.setdefault(uncertain, content(data))
    assert content(data) == first["drop"] != first["keep"]


def test_a_prepared_cohort_elsewhere_is_copied_and_left_alone(data, tmp_path):
    before = content(data)
    new = tmp_path / "new"
    for source in (data, data / "lit"):
        assert sort_out(new, "--activity", "positive", source=source) == 0
        assert activity_in(new / "lit") is not None
    assert sort_out(new, "--activity", "all", source=data) == 0
    assert content(data) == before
    assert {**before, "lit/prepared.json": b""} == {**content(new), "lit/prepared.json": b""}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "say --activity positive or all"),
        (["--uncertain", "keep"], "expected --activity positive"),
        (["--activity", "all", "--uncertain", "keep"], "expected --activity positive"),
        (["--activity", "positive", "--exclude", "1"], "prepare it anew"),
        (["--activity", "positive", "--derive-brain"], "prepare it anew"),
    ],
)
def test_what_cannot_be_asked_of_a_prepared_cohort_changes_nothing(data, capsys, flags, expected):
    before = content(data)
    assert sort_out(data, *flags) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert "\n" not in said
    assert content(data) == before


def test_a_damaged_patient_changes_nothing(data, capsys):
    save(data / "lit" / "patient10" / "brain.nii.gz", np.zeros(SHAPE, dtype=bool))
    before = content(data)
    assert sort_out(data, "--activity", "positive") == 2
    assert "patient10: the brain mask is empty" in capsys.readouterr().err
    assert content(data) == before


def test_no_positive_activity_at_all_is_an_error(tmp_path, capsys):
    data = write_lit(tmp_path, patient01=FADED)
    before = content(data)
    assert sort_out(data, "--activity", "positive") == 2
    assert "no patient has positive activity" in capsys.readouterr().err
    assert content(data) == before


def test_a_linked_cohort_is_changed_without_touching_what_it_links_to(data, tmp_path):
    linked = tmp_path / "links" / "lit"
    linked.mkdir(parents=True)
    before = content(data)
    (linked / "patient01").symlink_to(data / "lit" / "patient01")
    (linked / "patient10").mkdir()
    for path in (data / "lit" / "patient10").iterdir():
        (linked / "patient10" / path.name).symlink_to(path)
    assert sort_out(linked.parent, "--activity", "positive") == 0
    assert content(data) == before
    assert voxels(linked / "patient10" / "lesion.nii.gz").sum() == 1


# ------------------------------------------------------------------------------- where it is told
def test_table_1_shows_what_is_used_and_all_change_beside_it(data, capsys):
    assert sort_out(data, "--activity", "positive") == 0
    assert cohorts_command(["check", str(data), "--out", str(data / "out")]) == 0
    said = capsys.readouterr().out
    assert "positive activity (positive-zscore-1), 2 of 4 lesions" in said
    used, every = table1.rows(pd.read_parquet(data / "out" / "cohorts" / "lit" / "cases.parquet"))
    assert (used.labels, used.cases, used.lesions) == ("positive activity", 2, 2)
    assert (every.labels, every.cases, every.lesions) == ("all change", 2, 4)
    assert every.brain.pooled == pytest.approx(2 * used.brain.pooled)
    assert used.patches is not None
    assert every.patches is None
    assert all(row.labels in imbalance.SOURCES for row in (used, every))


def test_all_change_is_counted_in_the_voxels_that_are_used(data):
    """Resampled, or partly ignored: the record speaks of the files' voxels."""
    assert sort_out(data, "--activity", "positive") == 0
    plain = pd.DataFrame(describe(load_cohort(Lit(), data))[0])
    halved = load_cohort(Lit(spacing=("0.5", "1", "1")), data)
    assert not any("sort out" in str(image.warnings) for image in halved.images)
    frame = pd.DataFrame(describe(halved)[0])
    for name in ("lesion_voxels", "lesion_voxels_all_change", "brain_voxels"):
        assert frame[name].tolist() == (2 * plain[name]).tolist()
    assert frame["n_lesions_all_change"].tolist() == plain["n_lesions_all_change"].tolist()
    folder = data / "lit" / "patient01"
    place = voxels(folder / "lesion_all.nii.gz") & ~voxels(folder / "lesion.nii.gz")
    save(folder / "ignore.nii.gz", place)
    ignoring = load_cohort(Lit(), data)
    assert not any("sort out" in str(image.warnings) for image in ignoring.images)
    (row, _) = describe(ignoring)[0]
    assert row["lesion_voxels_all_change"] == row["lesion_voxels"] == plain["lesion_voxels"][0]


def test_tables_of_older_results_have_no_second_row(tmp_path):
    write_lit_cohort(tmp_path)
    frame = pd.DataFrame(describe(load_cohort(Lit(), tmp_path))[0])
    assert [row.labels for row in table1.rows(frame)] == ["1"]
    older = frame.drop(columns=["activity", "lesion_voxels_all_change", "n_lesions_all_change"])
    assert [row.labels for row in table1.rows(older)] == ["1"]


def test_the_sweep_and_the_report_say_how_the_masks_came_about(data):
    usual = request([], [Data.of(Lit(), data)], TrainSettings(), 2)
    assert "activity" not in usual["cohorts"]["lit"]
    assert sort_out(data, "--activity", "positive", "--uncertain", "drop") == 0
    asked = request([], [Data.of(Lit(), data)], TrainSettings(), 2)
    assert asked["cohorts"]["lit"]["fingerprint"] != usual["cohorts"]["lit"]["fingerprint"]
    words = methods.activity_text(asked, "lit")
    assert "2 of 4 lesions" in words
    assert "excluded (patient02)" in words
    assert "were left out" in words
    assert methods.activity_text(usual, "lit") == ""


def test_a_mask_that_is_not_the_recorded_one_is_pointed_out(data):
    assert sort_out(data, "--activity", "positive") == 0
    folder = data / "lit" / "patient01"
    shutil.copyfile(folder / "lesion_all.nii.gz", folder / "lesion.nii.gz")
    warnings = {image.case: image.warnings for image in load_cohort(Lit(), data).images}
    assert "prepared.json records one of 1 voxels" in " ".join(warnings["patient01"])
    assert not warnings["patient10"]


def test_a_record_that_cannot_be_read_is_named(data):
    (data / "lit" / "prepared.json").write_text(json.dumps({"activity": {"method": 3}}))
    with pytest.raises(ValueError, match=r"prepared\.json: activity cannot be read"):
        load_cohort(Lit(), data)


def test_public_patients_keep_the_lesions_that_brighten(tmp_path):
    if not (SHARED / "lit").is_dir():
        pytest.skip(f"the public patients are not there ({SHARED / 'lit'})")
    prepare.prepare_lit(SHARED, tmp_path, activity="positive", say=lambda line: None)
    found = activity_in(tmp_path / "lit")
    assert found is not None
    counts = {
        case: (each.lesions, each.all_lesions, each.voxels, each.all_voxels)
        for case, each in found.cases.items()
    }
    assert counts == {"patient01": (8, 13, 1913, 2264), "patient03": (33, 46, 2316, 2768)}
    images = load_cohort(Lit(), tmp_path).images
    assert [(image.num_lesions, image.lesion_voxels) for image in images] == [(8, 1913), (33, 2316)]
