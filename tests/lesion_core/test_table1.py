"""Table 1 counts what it says, by hand and on the public patients."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesion_core import results, table1
from lesion_core.cohort_rows import describe
from lesion_core.cohorts import Folder, Lit, Wmh2017, check
from lesion_core.cohorts.__main__ import main as cohorts_command
from lesion_core.images import load_cohort
from lesion_core.patches import Volumes
from tests.support.tiny import SHAPE, noise, save, write_case, write_lit_cohort, write_wmh_cohort

MINE = Folder(name="mine", channels=("flair",))
SHARED = Path(__file__).parents[3] / "shared" / "data"


def write_cases(data: Path, lesions: list[np.ndarray], name: str = "mine") -> None:
    for number, lesion in enumerate(lesions):
        folder = data / name / f"c{number}"
        save(folder / "flair.nii.gz", noise(number, lesion.shape))
        save(folder / "lesion.nii.gz", lesion)
        save(folder / "brain.nii.gz", np.ones(lesion.shape, dtype=bool))


def rows(data: Path, cohort=MINE) -> list[table1.Row]:
    return table1.rows(pd.DataFrame(describe(load_cohort(cohort, data))[0]))


def test_numbers_by_hand(tmp_path):
    """10^3 brains: one lesion of 10 voxels; two of 20 and 30, the second touching by a corner."""
    one, two = np.zeros((2, 10, 10, 10), dtype=bool)
    one[0, 0, :] = True
    two[0:2, 0, :] = True
    two[5:8, 5, :] = True
    write_cases(tmp_path, [one, two])
    (row,) = rows(tmp_path)
    assert (row.cohort, row.labels, row.cases, row.lesions) == ("mine", "1", 2, 3)
    assert row.brain == table1.Share(mean=3, sd=pytest.approx(np.sqrt(8)), pooled=3)
    assert row.mean_size_voxels == row.mean_size_mm3 == 20
    patch = 100 / 32**3  # each brain is padded to a single patch
    assert row.patches is not None
    assert row.patches.mean == pytest.approx(30 * patch)
    assert row.patches.sd == pytest.approx(np.sqrt(800) * patch)
    assert row.num_patches == 2


def test_diagonal_neighbours_are_one_lesion(tmp_path):
    diagonal = np.zeros((10, 10, 10), dtype=bool)
    diagonal[range(5), range(5), range(5)] = True
    write_cases(tmp_path, [diagonal])
    (row,) = rows(tmp_path)
    assert (row.lesions, row.mean_size_voxels) == (1, 5)


def test_label_2_stands_beside_label_1(tmp_path):
    write_wmh_cohort(tmp_path, {"Utrecht": [0, 2]})
    marked = np.zeros((7, 8, 6), dtype=np.uint8)
    marked[2, 3, 2:4] = 1
    marked[3, 4, 4] = 2  # touches the lesion: one component of both labels
    marked[5, 6, 1] = 2
    save(tmp_path / "wmh2017" / "Utrecht" / "0" / "wmh.nii.gz", marked)
    one, both = rows(tmp_path, Wmh2017())
    assert (one.labels, one.lesions, one.mean_size_voxels) == ("1", 2, 5)
    assert (both.labels, both.lesions, both.mean_size_voxels) == ("1+2", 3, 4)
    assert both.brain.pooled == pytest.approx(100 * 12 / 240)
    assert both.patches is None


def test_training_patches_are_those_that_are_trained_on(tmp_path):
    """Against the windows that training itself cuts, on boxes larger and smaller than a patch."""
    rng = np.random.default_rng(0)
    lesions = [rng.random(shape) < 0.0005 for shape in ((40, 70, 33), (20, 64, 50))]
    write_cases(tmp_path, lesions)
    loaded = load_cohort(Folder(name="mine", channels=("flair",)), tmp_path)
    volumes = Volumes.of(loaded.images, patch_size=32, stride=16)
    for index, row in enumerate(describe(loaded)[0]):
        patches = volumes.training_patches([index], flip=False)
        _, target = volumes.gather(patches)
        assert row["patch_lesion_voxels"] == target.sum(dim=(1, 2, 3, 4)).tolist()
        assert row["patch_voxels"] == 32**3


def test_single_case_without_lesion_has_no_spread(tmp_path):
    write_cases(tmp_path, [np.zeros((10, 10, 10), dtype=bool)])
    (row,) = rows(tmp_path)
    assert str(row.brain) == "0.00 ± - [0.00]"
    assert np.isnan(row.mean_size_voxels)
    assert row.num_patches == 0
    assert "nan" not in table1.as_text([row]).replace("nan ± - [nan]", "")


def test_text_latex_and_frame_agree(tmp_path):
    write_lit_cohort(tmp_path)
    table = rows(tmp_path, Lit())
    assert "6.67 ± 0.00 [6.67]" in table1.as_text(table)
    latex = table1.as_latex(table)
    assert r"6.67 $\pm$ 0.00 [6.67]" in latex
    assert latex.count(r"\\") == 2
    assert table1.as_frame(table)["brain_percent_mean"].tolist() == [pytest.approx(100 / 15)]


def test_tables_of_older_results_lack_patches_but_nothing_else(tmp_path):
    write_lit_cohort(tmp_path)
    frame = pd.DataFrame(describe(load_cohort(Lit(), tmp_path))[0])
    later = [name for name in frame if name.startswith(("patch", "ignore"))]
    frame[[*later, "n_lesions_with_other"]] = None
    (row,) = table1.rows(frame)
    assert row.patches is None
    assert row.lesions == 3


def test_ignored_voxels_are_neither_part_nor_whole(tmp_path):
    folder = write_case(tmp_path / "lit" / "a", Lit.channels)  # brain 5 x 6 x 4, lesion 2 x 2 x 2
    ignore = np.zeros(SHAPE, dtype=bool)
    ignore[3:, :, :] = True  # half of the lesion, three of five planes of the brain
    save(folder / "ignore.nii.gz", ignore)
    frame = pd.DataFrame(describe(load_cohort(Lit(), tmp_path))[0])
    assert frame["ignore_voxels"].tolist() == [4 * 8 * 6]
    (row,) = table1.rows(frame)
    assert row.brain.pooled == pytest.approx(100 * 4 / (2 * 6 * 4))
    assert row.patches is not None
    inside_box = 3 * 6 * 4
    assert row.patches.pooled == pytest.approx(100 * 4 / (32**3 - inside_box))
    assert (row.lesions, row.mean_size_voxels) == (1, 4)


# ------------------------------------------------------------------------------------ the command
def test_check_writes_tables_that_the_report_reads(tmp_path, capsys):
    write_wmh_cohort(tmp_path / "data")
    write_lit_cohort(tmp_path / "data")
    assert cohorts_command(["check", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "patient10" in said
    assert "Amsterdam/GE3T" in said
    assert "memory, at most" in said
    for name in ("wmh2017", "lit"):
        for file, schema in (
            ("cases.parquet", results.COHORT_CASES),
            ("slices.parquet", results.COHORT_SLICES),
        ):
            table = pd.read_parquet(tmp_path / "out" / "cohorts" / name / file)
            assert list(table.columns) == schema.names
    assert len(pd.read_csv(tmp_path / "out" / "table1.csv")) == 2
    assert "lit" in (tmp_path / "out" / "table1.tex").read_text()


def test_warnings_are_shown_with_their_case(tmp_path, capsys):
    root = write_lit_cohort(tmp_path)
    save(root / "patient02" / "lesion.nii.gz", np.zeros((7, 8, 6), dtype=bool))
    assert cohorts_command(["check", str(tmp_path)]) == 0
    assert "warning: patient02: patient02/lesion.nii.gz: no lesion voxel" in capsys.readouterr().out


def test_nothing_there_is_an_error(tmp_path, capsys):
    for command, place, said in (
        ("check", tmp_path, "no cohort found"),
        ("folds", tmp_path / "nowhere", "no such folder"),
    ):
        assert cohorts_command([command, str(place)]) == 2
        assert said in capsys.readouterr().err


def test_stated_memory_covers_what_is_used(tmp_path):
    write_cases(tmp_path, [np.ones((20, 30, 40), dtype=bool)] * 3)
    cohort = Folder(name="mine", channels=("flair",))
    reading, whole, trial = check.memory_bytes(cohort.cases(tmp_path))
    images = load_cohort(cohort, tmp_path).images
    held = sum(image.voxels.nbytes + image.labels.nbytes + image.brain.nbytes for image in images)
    assert held == whole
    assert trial == sum(5 * image.brain.size for image in images)
    assert reading >= images[0].voxels.nbytes


@pytest.mark.parametrize(
    ("cohort", "percent", "sizes", "numbers"),
    [
        (Lit(), [0.27, 0.36], [174, 60], [13, 46]),
        (Folder(name="ms", channels=("t1", "flair")), [0.11, 0.73], [35, 433], [37, 19]),
    ],
    ids=["lit", "ms"],
)
def test_public_patients_have_their_published_statistics(cohort, percent, sizes, numbers):
    if not (SHARED / cohort.name).is_dir():
        pytest.skip(f"the public patients are not there ({SHARED / cohort.name})")
    frame = pd.DataFrame(describe(load_cohort(cohort, SHARED))[0])
    each = [table1.rows(frame.iloc[[place]])[0] for place in range(2)]
    assert [round(row.brain.mean, 2) for row in each] == percent
    assert [round(row.mean_size_voxels) for row in each] == sizes
    assert [row.lesions for row in each] == numbers
    (row,) = table1.rows(frame)
    assert row.lesions == sum(numbers)
    assert row.brain.mean == pytest.approx(np.mean([row.brain.mean for row in each]))
