"""Names from a folder that somebody sent: no file of a report obeys them, and no browser does."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis import report
from analysis.page.items import Figure, Section, Table, with_own_names
from analysis.sections import profiles, ranks
from lesion_core.received import is_plain
from tests.support import browser, hostile

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the hostile ledger."""
    made = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "DRAWS", 50)
        patch.setattr(profiles, "DRAWS", 50)
        report.build(hostile.write(made / "sweep"), made / "report", formats=("svg",))
    return made / "report"


# ------------------------------------------------------------------------------------------ files
def test_all_files_lie_where_they_should_under_plain_names(folder: Path) -> None:
    places = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    assert len(places) > 50
    for place in places:
        assert len(place.parts) <= 2 and all(map(is_plain, place.parts))
        assert re.fullmatch(r"[\w.-]+", place.name), place


@pytest.mark.parametrize("kind", ["html", "svg", "csv", "md", "tex"])
def test_no_file_holds_a_control_character(folder: Path, kind: str) -> None:
    files = list(folder.rglob(f"*.{kind}"))
    assert files
    for file in files:
        assert not CONTROLS.search(file.read_text()), file.name


def test_page_holds_names_as_text_alone(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not [mark for mark in hostile.MARKS if mark in page]
    assert "{{7*7}}" in page and "$x^2$" in page
    assert not re.search(r"\son\w+=[\"']?", re.sub(r">[^<]*<|\"[^\"]*\"", "", page))
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert targets
    assert all(re.match(r"#|figures/|tables/|data:image/png;base64,", each) for each in targets)


def test_svg_is_xml_without_a_script(folder: Path) -> None:
    for file in folder.glob("figures/*.svg"):
        for element in ElementTree.parse(file).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "foreignObject", "a")
            assert not any(name.lower().startswith("on") for name in element.attrib)
    forest = (folder / "figures" / f"forest-{slugged()}.svg").read_text()
    assert "$x^2$\\input{/etc/passwd}%" in forest  # not mathematics


def test_csv_holds_no_formula_and_every_number(folder: Path) -> None:
    numbers = 0
    for file in folder.rglob("*.csv"):
        with file.open(newline="") as text:
            for cell in (cell for row in csv.reader(text) for cell in row):
                try:
                    float(cell)
                    numbers += 1
                except ValueError:
                    assert not re.match(r"\s*[=+@-]", cell), f"{file.name}: {cell}"
    assert numbers > 1000


def test_latex_runs_no_command_of_a_name(folder: Path) -> None:
    for file in folder.glob("tables/*.tex"):
        text = file.read_text().partition("\n")[2]
        assert not re.search(r"\\(input|write|include|catcode|def)\b|(?<!\\)%", text), file.name
        bare = re.sub(r"\\[{}&%$#_]", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        rows = [line for line in bare.splitlines() if line.endswith(r"\\") and "multi" not in line]
        assert len({row.count("&") for row in rows}) == 1, file.name
        assert not [row for row in rows if row.startswith(("[", "*"))]


def test_markdown_is_one_table_without_links(folder: Path) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt().enable("table")
    for file in folder.glob("tables/*.md"):
        shown = markdown.render(file.read_text())
        assert not re.search(r"<(a|img|script|h\d|code|em|ul|ol|blockquote|b|i|svg)\b", shown), file
        assert shown.count("<table>") == 1
        assert len({row.count("<t") for row in re.findall(r"<tr>.*?</tr>", shown, re.S)}) == 1


def slugged() -> str:
    return "x-img-src-q-onerror-window.pwned-cohort-b"


def test_keys_that_are_spelt_alike_stay_apart() -> None:
    def of(key: str) -> Table:
        return Table(key=key, title="", frame=None, columns=[], caption="")  # type: ignore[arg-type]

    keys = ("bands-a b", "bands-a/b", "BANDS-A-B", "main", "../../x", "coverage")
    [section] = with_own_names(
        [Section(key="coverage", title="", lead="", items=[of(key) for key in keys])], ["main"]
    )
    assert [item.key for item in section.unfolded if isinstance(item, Figure | Table)] == [
        "bands-a-b", "bands-a-b-2", "BANDS-A-B-3", "main-2", "x", "coverage-2",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- browser
@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    if browser.EXECUTABLE is None:
        pytest.skip(browser.ABSENT)
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    try:
        opened.view(1280)
        opened.open(folder / "report.html")
        opened.evaluate(OPEN_ALL)
        yield opened
    finally:
        opened.close()


OPEN_ALL = "document.querySelectorAll('details').forEach((fold) => (fold.open = true))"
CUT_OFF = """
(() => {
  const cut = [];
  if (document.documentElement.scrollWidth > innerWidth) cut.push("the page");
  for (const text of document.querySelectorAll("svg text")) {
    const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
    if (all.width === 0 || own.width === 0) continue;  // drawn for another width
    const over = Math.max(all.left - own.left, own.right - all.right,
                          all.top - own.top, own.bottom - all.bottom);
    if (over > 2) cut.push(`${text.closest("figure").id}: ${text.textContent} by ${over}`);
  }
  for (const box of document.querySelectorAll("body *:not(svg *, .scroll, .chip span)")) {
    const hides = !["visible", "auto"].includes(getComputedStyle(box).overflowX);
    if (hides && box.scrollWidth > box.clientWidth + 1) cut.push(`${box.tagName} ${box.className}`);
  }
  return cut;
})()
"""


def test_no_name_runs_as_a_script_and_the_console_is_silent(page: browser.Browser) -> None:
    assert page.evaluate("window.pwned === undefined")
    assert page.evaluate("document.scripts.length") == page.evaluate(
        "document.querySelectorAll('script.csv').length + 1"
    )
    assert page.complaints == []


def test_policy_stops_what_would_slip_through(page: browser.Browser, folder: Path) -> None:
    """As if something had not been escaped."""
    page.evaluate("""
        document.body.insertAdjacentHTML("beforeend",
          "<img src=x onerror='window.pwned=1'><img src='http://127.0.0.1:9/x.png'>");
        document.body.append(Object.assign(document.createElement("script"),
          {textContent: "window.pwned = 2"}));
        new Promise((resolve) => setTimeout(resolve, 200))
    """)
    assert page.evaluate("window.pwned === undefined")
    assert any("Content Security Policy" in line for line in page.complaints)
    page.complaints.clear()
    page.open(folder / "report.html")
    page.evaluate(OPEN_ALL)


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_nothing_is_cut_off_beside_long_names(page: browser.Browser, width: int) -> None:
    page.view(width)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate(CUT_OFF) == []


def test_letters_can_be_read_on_a_phone(page: browser.Browser) -> None:
    page.view(390)
    sizes = page.evaluate("""
        [...document.querySelectorAll(".phone svg")].map((svg) => {
          const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
          return scale * parseFloat(getComputedStyle(svg.querySelector("text")).fontSize);
        })
    """)
    assert len(sizes) > 10 and min(sizes) >= 7, sizes  # CSS pixels
