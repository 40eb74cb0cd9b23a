"""What tests of several sections share."""

from __future__ import annotations

import pytest

from analysis.page import style
from analysis.sections import profiles, ranks


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is computed and drawn, but not turned into SVG, and resampled less often."""
    nothing = '<svg width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'
    monkeypatch.setattr(style, "svg_text", lambda drawing, salt: nothing)
    monkeypatch.setattr(ranks, "DRAWS", 50)
    monkeypatch.setattr(profiles, "DRAWS", 50)
