"""Figure 1 shows the case that its rule names, with the outline on the edge of its lesions."""

import numpy as np
import pytest

from analysis.examples import main as figure1_command
from analysis.reading.pictures import striped
from analysis.sections import examples
from lesion_core.cohorts.__main__ import main as cohorts_command
from tests.support.tiny import save, write_case, write_lit_cohort


def place(count: int) -> np.ndarray:
    mask = np.zeros((7, 8, 6), dtype=bool)
    mask[2, 1 : 1 + count, 3] = True
    return mask


@pytest.fixture
def checked(tmp_path):
    """Lesions of 5, 0, 1, 3 pixels on the slice."""
    for number, count in enumerate((5, 0, 1, 3)):
        channels = ("baseline_flair", "followup_flair")
        write_case(tmp_path / "lit" / f"p{number}", channels, lesion=place(count), seed=number)
    assert cohorts_command(["check", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_median_case_with_lesion_is_chosen(checked):
    example = examples.choose(checked, "lit")
    assert example is not None
    assert example.case == "p3"
    assert example.lesion.sum() == 3
    assert example.channels == ["baseline_flair", "followup_flair"]


def test_outline_runs_between_lesion_and_background():
    lesion = np.zeros((5, 6), dtype=bool)
    lesion[1:3, 2:5] = True
    segments = examples.outline(lesion)
    assert len(segments) == 2 * (2 + 3)  # the perimeter of 2 x 3 pixels
    xs = {x for segment, _ in segments for x in segment}
    ys = {y for _, segment in segments for y in segment}
    assert (min(xs), max(xs), min(ys), max(ys)) == (1.5, 4.5, 0.5, 2.5)


def test_lesion_at_the_border_is_outlined_all_around():
    assert len(examples.outline(np.ones((2, 2), dtype=bool))) == 8


def test_ignored_voxels_are_striped_and_the_caption_says_so(tmp_path):
    channels = ("baseline_flair", "followup_flair")
    folder = write_case(tmp_path / "lit" / "p0", channels, lesion=place(3))
    ignore = np.zeros((7, 8, 6), dtype=bool)
    ignore[4:] = True
    save(folder / "ignore.nii.gz", ignore)
    assert cohorts_command(["check", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    example = examples.choose(tmp_path / "out", "lit")
    figure = examples.figure(tmp_path / "out", ["lit"])
    assert example is not None
    assert figure is not None
    assert example.ignored.any()
    assert not (example.ignored & example.lesion).any()
    shown = striped(example.images[-1], example.ignored)
    np.testing.assert_array_equal(shown != example.images[-1], example.ignored)
    assert "Grey stripes" in figure.caption
    figure.draw()


def test_figure_is_drawn_with_every_channel(checked):
    figure = examples.figure(checked, ["lit", "absent"])
    assert figure is not None
    assert "1 of 2 cohorts" in figure.caption
    drawn = figure.draw()
    assert [axis.get_title() for axis in drawn.axes] == [
        "baseline flair",
        "followup flair",
        "followup flair, lesions",
    ]
    assert len(drawn.axes[-1].lines) == len(
        examples.outline(examples.choose(checked, "lit").lesion)
    )


def test_command_writes_a_picture_or_says_why_not(checked, tmp_path, capsys):
    assert figure1_command([str(checked), str(tmp_path / "f.png")]) == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert figure1_command([str(tmp_path / "nowhere"), str(tmp_path / "g.png")]) == 2
    assert "no cohorts" in capsys.readouterr().err


def test_cohort_without_lesions_has_no_example(tmp_path):
    root = write_lit_cohort(tmp_path, [1])
    save(root / "patient01" / "lesion.nii.gz", place(0))
    assert cohorts_command(["check", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert examples.figure(tmp_path / "out", ["lit"]) is None
