"""Reports without their drawings: every number, table and word, in a third of the time.

For tests of what a report says.  That figures can be drawn, wide and narrow, of odd ledgers too, is
held by tests/analysis/test_report.py, test_report_odd.py and test_page_in_browser.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from markupsafe import Markup

from analysis import report
from analysis.page import items
from lesion_core.durable import write_bytes

NOTHING = '<svg width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'


@contextmanager
def undrawn() -> Iterator[None]:
    """Until the end of the block, figures are their numbers (figures/*.csv) alone."""

    def write_numbers(item: items.Figure, folder: Path, formats: Sequence[str]) -> str:
        name = items.slug(item.key)
        write_bytes(folder / "figures" / f"{name}.csv", items.csv_bytes(item.data))
        return NOTHING

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "_write_figure", write_numbers)
        patch.setattr(items, "_phone_svg", lambda item: Markup(""))
        yield


def build(*arguments, **more) -> Path:
    """`report.build` of no figure; returns the page."""
    with undrawn():
        return report.build(*arguments, formats=(), **more)


def numbers_of_the_report(folder: Path, training_effect: str = "") -> bool:
    """In place of `sweep.build_report`, whose process draws every figure three times
    (tests/sweeps/test_verify.py runs that)."""
    build(folder, training_effect=training_effect or None)
    return True
