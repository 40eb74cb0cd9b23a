"""The report as a whole: one page from any results folder, the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis import report
from analysis.page.items import Section, Table
from sweeps.bench.fake_sweep import FakeSweep
from tests.support import undrawn

ROOT = Path(__file__).parents[2]
SMALL = FakeSweep(num_cases=4, epochs=2, losses=("xent", "new"), seeds=(1, 2), num_folds=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return report.build(SMALL.write(folder / "sweep"))


def test_page_lies_beside_the_results_by_default(built: Path) -> None:
    assert built.parts[-3:] == ("sweep", "report", "report.html")


def test_every_figure_and_table_has_its_twins_on_disk(built: Path) -> None:
    keys = re.findall(r'<figure id="([^"]+)" class="(plot|table)', built.read_text())
    assert len(keys) > 8
    for key, kind in keys:
        folder = built.parent / ("figures" if kind == "plot" else "tables")
        for suffix in ("csv", "svg", "pdf", "png") if kind == "plot" else ("csv", "md", "tex"):
            assert (folder / f"{key}.{suffix}").stat().st_size > 0, key


def test_page_needs_nothing_from_elsewhere(built: Path) -> None:
    class Links(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value or "" for name, value in attrs if name in ("src", "href")]

    page = built.read_text()
    Links().feed(page)
    for link in Links.found:
        assert link.startswith(("#", "data:", "figures/", "tables/")), link
        if link.startswith(("figures/", "tables/")):
            assert (built.parent / link).exists(), link
    assert not re.search(r"https?://[^\s<]*\.(js|css|woff2?|png)", page)
    assert not re.search(r"@import|url\(\s*['\"]?http", page)


def test_methods_name_the_precision(built: Path) -> None:
    assert re.search(r"cross-validation for 2 epochs in fp32 \(", built.read_text())


def test_every_caption_says_how_many_of_how_many(built: Path) -> None:
    captions = re.findall(r"<figcaption>(.*?)<span", built.read_text(), re.DOTALL)
    assert len(captions) > 8
    for caption in captions:
        assert re.search(r"\d+ of \d+", caption), caption


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_same_input_gives_the_same_bytes(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of every sixth section in each format; tests/test_golden.py has all of them once more."""
    monkeypatch.setattr(report, "SECTIONS", report.SECTIONS[::step])
    first, again = (report.build(built.parents[1], tmp_path / name) for name in ("first", "again"))
    assert again.read_bytes() == first.read_bytes()
    files = sorted((first.parent / "figures").iterdir())
    assert len({file.suffix for file in files}) == 4
    for file in files:
        assert (again.parent / "figures" / file.name).read_bytes() == file.read_bytes(), file.name


def test_ids_are_unique_and_labels_refer_to_something(built: Path) -> None:
    page = built.read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'aria-labelledby="([^"]+)"', page) + re.findall(
        r'href="#([^"]+)"', page
    ):
        assert target in ids, target


@pytest.mark.usefixtures("quick")
def test_unfinished_sweep_names_what_is_missing(tmp_path: Path) -> None:
    status = {
        ("wmh2017", "xent", 1, 0): "missing",
        ("wmh2017", "xent", 1, 1): "partial",
        ("wmh2017", "new", 2, 0): "failed",
        ("wmh2017", "new", 2, 1): "diverged",
        ("wmh2017", "new", 1, 1): "corrupt",
    }
    FakeSweep(
        num_cases=4, epochs=2, losses=("xent", "new"), seeds=(1, 2), num_folds=2, status=status
    ).write(tmp_path)
    page = undrawn.build(tmp_path).read_text()
    assert "<b>3 of 8</b>" in page or "<strong>3 of 8</strong>" in page
    assert "loss is inf at epoch 4, batch 17" in page
    absent = pd.read_csv(tmp_path / "report" / "tables" / "absent-trials.csv")
    assert sorted(absent["status"]) == ["corrupt", "diverged", "failed", "missing", "partial"]


@pytest.mark.usefixtures("quick")
def test_sweep_without_a_single_complete_trial_still_gives_a_page(tmp_path: Path) -> None:
    sweep = FakeSweep(
        num_cases=4,
        epochs=2,
        losses=("xent",),
        seeds=(1,),
        num_folds=2,
        status={("wmh2017", "xent", 1, fold): "missing" for fold in range(2)},
    )
    assert "0 of 2" in report.build(sweep.write(tmp_path), formats=()).read_text()


def test_wrong_folder_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "analysis" / "report.py", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert "sweep.json" in done.stderr


@pytest.mark.usefixtures("quick")
def test_script_and_module_say_where_the_report_lies(
    tmp_path: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with undrawn.undrawn():
        assert report.main([str(built.parents[1]), "--out", str(tmp_path), "--formats"]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out


def test_two_figures_with_one_key_are_refused_by_name(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(section: str) -> Section:
        twin = Table(key="twin", title="", frame=pd.DataFrame({"a": [1]}), columns=[], caption="")
        return Section(key=section, title="", lead="", items=[twin])

    monkeypatch.setattr(report, "SECTIONS", (lambda _: answer("one"), lambda _: answer("two")))
    with pytest.raises(ValueError, match="have the key 'twin', in the sections 'one' and 'two'"):
        report.build(built.parents[1], tmp_path, formats=())
