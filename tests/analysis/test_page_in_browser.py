"""The page as a reader meets it: in a browser, wide and narrow, dark and light, and on paper."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from analysis.sections import profiles, ranks
from sweeps.bench.fake_sweep import FakeSweep
from tests.analysis.test_search_outcome import found
from tests.support import browser

pytestmark = pytest.mark.skipif(browser.EXECUTABLE is None, reason=browser.ABSENT)

SWEEP = FakeSweep(
    losses=("xent", "dsc", "new"),
    seeds=(1, 2),
    num_folds=2,
    num_cases=6,
    epochs=2,
    status={("wmh2017", "dsc", 1, 0): "diverged"},
)
A4_AT_96_DPI = 717
"""CSS pixels between the margins that Chromium leaves on A4 by default."""

WIDER_THAN_IT_MAY_BE = """
(() => {
  const right = (element) => element.getBoundingClientRect().right;
  const wide = [];
  if (document.documentElement.scrollWidth > innerWidth) wide.push("the page");
  const column = right(document.querySelector("main")) + 1;
  for (const element of document.querySelectorAll("main *:not(svg *)")) {
    const box = element.closest(".scroll");
    if (box !== null && box !== element && getComputedStyle(box).overflowX === "auto") continue;
    if (right(element) > column) {
      wide.push(`${element.closest("[id]").id}: ${element.tagName} ${element.className}`);
    }
  }
  return [...new Set(wide)];
})()
"""
HIDDEN_IN_A_BOX = """
[...document.querySelectorAll("figure.table .scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.closest("figure").id)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A report of a sweep and of a search, in a browser."""
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "DRAWS", 50)
        patch.setattr(profiles, "DRAWS", 50)
        patch.setattr(report, "search_outcome", lambda search, sweep: found())
        file = report.build(SWEEP.write(folder / "sweep"), formats=())
    opened = browser.Browser(folder / "profile")
    try:
        opened.view(1280)
        opened.file = file  # type: ignore[attr-defined]
        yield opened
    finally:
        opened.close()


@pytest.fixture(autouse=True)
def on_a_screen(page: browser.Browser) -> None:
    """Every test has the page anew, wide, with every question open."""
    page.view(1280)
    opened(page)
    page.evaluate(OPEN_ALL)


def opened(page: browser.Browser, fragment: str = "", *, scripts: bool = True) -> None:
    page.open(page.file, fragment, scripts=scripts)  # type: ignore[attr-defined]


OPEN_ALL = "document.querySelectorAll('details').forEach((fold) => (fold.open = true))"


def test_console_is_silent(page: browser.Browser) -> None:
    assert page.evaluate("document.querySelectorAll('main section').length") > 15
    assert page.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_its_column(page: browser.Browser, width: int) -> None:
    page.view(width)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate(WIDER_THAN_IT_MAY_BE) == []
    if width == 1280:
        assert page.evaluate(HIDDEN_IN_A_BOX) == []


def questions(page: browser.Browser, which: str) -> list[str]:
    """Sections whose question is open or closed."""
    return page.evaluate(
        f"[...document.querySelectorAll('details.question{which} > section')].map((one) => one.id)"
    )


CLOSED, OPEN = ":not([open])", "[open]"


def test_questions_are_closed_but_for_what_failed(page: browser.Browser) -> None:
    opened(page)
    assert "coverage" in questions(page, OPEN)  # a trial diverged
    assert len(questions(page, CLOSED)) > 15
    assert page.evaluate("document.documentElement.scrollHeight") < 4000
    page.evaluate("document.getElementById('unfold').click()")
    assert questions(page, CLOSED) == []
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")
    assert page.evaluate("document.getElementById('unfold').textContent") == "close all"
    page.evaluate("document.getElementById('unfold').click()")
    assert questions(page, OPEN) == []


def is_in_view(page: browser.Browser, target: str) -> bool:
    """Whether an element can be seen, at the latest after three seconds."""
    for _ in range(30):
        top, height, bottom = page.evaluate(f"""
            (() => {{
              const box = document.getElementById("{target}").getBoundingClientRect();
              return [box.top, box.height, innerHeight];
            }})()
        """)
        if height > 0 and 0 <= top < bottom:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("target", ["bands", "bands-wmh2017", "pair-table-wmh2017"])
def test_link_opens_what_it_points_to(page: browser.Browser, target: str, scripts: bool) -> None:
    opened(page, f"#{target}", scripts=scripts)
    assert is_in_view(page, target)
    opened(page, scripts=scripts)
    if target == "bands":
        page.evaluate("document.querySelector('nav.toc a[href=\"#bands\"]').click()")
        assert is_in_view(page, target)


def test_questions_can_be_opened_by_keyboard(page: browser.Browser) -> None:
    opened(page)
    page.evaluate("document.querySelector('#bands-title').closest('summary').focus()")
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r")
    assert "bands" in questions(page, OPEN)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_paper_has_everything_open(page: browser.Browser, scripts: bool) -> None:
    def pages() -> int:
        return len(re.findall(rb"/Type\s*/Page\b", page.pdf()))

    whole = pages()  # opened by hand
    opened(page, scripts=scripts)
    assert pages() == whole > 10
    page.view(A4_AT_96_DPI, media="print")
    heights = page.evaluate("""
        [...document.querySelectorAll("figure")].map((figure) => figure.offsetHeight)
    """)
    assert len(heights) > 30 and min(heights) > 30


def test_csv_comes_out_of_the_page_itself(page: browser.Browser, tmp_path: Path) -> None:
    page.download_to(tmp_path)
    page.evaluate("document.querySelector('#bands-wmh2017 .files a').click()")
    saved = tmp_path / "bands-wmh2017.csv"
    for _ in range(100):
        if saved.exists():
            break
        time.sleep(0.1)
    beside = page.file.parent / "figures" / saved.name  # type: ignore[attr-defined]
    assert saved.read_bytes() == beside.read_bytes()
    assert page.complaints == []


def test_no_mark_of_ours_is_left(page: browser.Browser) -> None:
    texts = page.evaluate("""
        [document.title, document.body.innerText,
         ...[...document.querySelectorAll("[aria-label], [alt], [title]")].flatMap((element) =>
           ["aria-label", "alt", "title"].map((name) => element.getAttribute(name) ?? ""))]
    """)
    found = [re.findall(r".{0,30}(?:\*|`).{0,30}", text) for text in texts]
    assert [each for each in found if each] == []


def test_switch_hides_a_loss_in_figures_and_tables(page: browser.Browser) -> None:
    def seen() -> dict[str, Any]:
        return page.evaluate("""
            Object.fromEntries([["bar", "figure.plot svg .L2"], ["row", "tr.L2"],
                                ["picture", ".picture.L2"], ["other", "tr.L1"]]
              .map(([name, css]) => [name, [...document.querySelectorAll(css)]
                .map((element) => getComputedStyle(element).display)]))
        """)

    before = seen()
    assert all(before.values()) and not any("none" in shown for shown in before.values())
    assert set(before["picture"]) == {"flex"} and set(before["row"]) == {"table-row"}
    page.evaluate("document.querySelector('label.chip:has(#t2)').click()")
    after = seen()
    assert {display for name in ("bar", "row", "picture") for display in after[name]} == {"none"}
    assert after["other"] == before["other"]
    page.evaluate("document.getElementById('none').click()")
    assert set(seen()["other"]) == {"none"}
    page.evaluate("document.getElementById('all').click()")
    assert seen() == before


def test_heading_sorts_its_table(page: browser.Browser) -> None:
    def column() -> list[float]:
        return page.evaluate("""
            [...document.querySelectorAll('#pair-table-wmh2017 tbody tr')]
              .map((row) => Number(row.cells[2].dataset.v))
        """)

    click = """
        (() => {
          const head = document.querySelector('#pair-table-wmh2017 thead tr:last-child').cells[2];
          head.querySelector('button').click();
          return head.getAttribute('aria-sort');
        })()
    """
    before = column()
    assert page.evaluate(click) == "descending" and column() == sorted(before, reverse=True)
    assert page.evaluate(click) == "ascending" and column() == sorted(before)
    assert page.evaluate(click) is None and column() == before


def test_theme_is_chosen(page: browser.Browser) -> None:
    def colours() -> list[str]:
        return page.evaluate("""
            [document.getElementById('theme').click(), document.documentElement.dataset.theme,
             getComputedStyle(document.body).backgroundColor,
             getComputedStyle(document.querySelector('#bands-wmh2017 svg text')).fill].slice(1)
        """)

    light, dark = colours(), colours()
    assert light == ["light", "rgb(254, 254, 254)", "rgb(91, 101, 112)"]
    assert dark == ["dark", "rgb(20, 23, 27)", "rgb(154, 165, 177)"]
    assert colours()[0] is None


def test_paper_holds_every_table_whole(page: browser.Browser) -> None:
    page.view(A4_AT_96_DPI, media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav.toc')).display") == "none"
    assert page.evaluate(WIDER_THAN_IT_MAY_BE) == []
    printed = page.pdf()
    assert printed.startswith(b"%PDF") and len(printed) > 100_000
