"""The page as a reader meets it: in a browser, wide and narrow, dark and light, and on paper."""

from __future__ import annotations

from collections.abc import Iterator
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
        opened.open(file)
        yield opened
    finally:
        opened.close()


@pytest.fixture(autouse=True)
def on_a_screen(page: browser.Browser) -> None:
    page.view(1280)


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
