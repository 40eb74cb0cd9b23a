"""Names from a folder that somebody sent, at W&B and on the terminal: shown, never obeyed."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from lesion_core.cohorts.case import Case
from lesion_core.terminal import print_anything, steerable
from sweeps import status
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import content_of
from sweeps.tracking.sweep_run import content_of_sweep
from tests.support import hostile

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
TRACKING = Tracking(mode="offline", group="hostile")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.write(tmp_path_factory.mktemp("hostile") / "sweep", pictures=False)


def test_wandb_gets_bounded_names_without_control_characters(ledger: Path) -> None:
    whole = content_of_sweep(ledger, TRACKING)
    assert whole is not None
    runs = [content_of(ledger, file.name, TRACKING) for file in sorted(ledger.glob("trials/*"))]
    assert len(runs) == 24 and None not in runs
    for run in [whole, *filter(None, runs)]:
        assert all(0 < len(tag) <= 64 for tag in run.identity.tags)
        keys = {key for numbers in run.steps.values() for key in numbers}
        cells = [
            cell
            for _, rows in run.ending.tables.values()
            for row in rows
            for cell in row
            if isinstance(cell, str)
        ]
        for text in (*keys, *cells, *run.identity.tags, run.identity.name):
            assert not CONTROLS.search(text), text
        assert max(map(len, keys)) < 300
    bands = {key.split("/")[2] for numbers in whole.steps.values() for key in numbers if "/" in key}
    assert len(bands) == len(hostile.LOSSES)  # none is written over another
    sites = {
        key.split("/")[3]
        for numbers in runs[0].steps.values()  # type: ignore[union-attr]
        for key in numbers
        if "/site/" in key
    }
    assert len(sites) == len(hostile.SITES)


def test_status_steers_no_terminal(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(ledger)]) == 1
    shown = capsys.readouterr().out
    assert not CONTROLS.search(shown)
    assert "[a](javas" in shown and "\\x1b[2J" in shown  # no style of rich, no escape


def test_printed_text_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", below)
    print_anything()
    print_anything()  # twice is once
    print("a \x1b[2J ± \u202e\n\tb", end="\r")
    sys.stdout.flush()
    assert below.buffer.getvalue() == b"a \\x1b[2J ? \\u202e\n\tb\\r"  # type: ignore[attr-defined]
    assert steerable(sys.stdout) is below


def test_case_whose_name_ends_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match=r"id of a case, 'a\\nb': holds a control character"):
        Case(id="a\nb", site="", channels={}, lesion=Path(), brain=None)
