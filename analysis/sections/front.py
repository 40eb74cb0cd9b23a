"""What stands on the first screen, under the verdict: the one table and the one figure."""

from __future__ import annotations

from analysis.page.items import Section
from analysis.sections.report_input import ReportInput


def front(given: ReportInput) -> Section:
    """The first screen's items; its title and lead are the page's own."""
    return Section(key="front", title="", lead="", items=[])
