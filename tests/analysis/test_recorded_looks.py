"""A report leaves a record of the look, and says which came before; also where it cannot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from analysis.reading import looks as reading
from analysis.reading.imports import read_results
from analysis.sections import looks
from analysis.sections.report_input import ReportInput
from lesion_core.looks import FILE, RULE, Look, read_looks, record_look
from lesion_core.report_record import ledger_digest
from sweeps.bench.fake_sweep import FakeSweep

SMALL: dict[str, Any] = {"num_cases": 6, "epochs": 1, "num_folds": 2, "pictures": False}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    sweep = FakeSweep(losses=("xent", "new"), seeds=(1,), gradients=False, **SMALL)
    return sweep.write(tmp_path / "ledger")


def seen(ledger: Path) -> reading.Seen:
    return reading.look(ledger, read_results(ledger), ledger_digest(ledger))


def text(found: reading.Seen, **meta: object) -> str:
    return " ".join(str(note.body) for note in looks.notes(given(found, **meta)))


def given(found: reading.Seen, **meta: object) -> ReportInput:
    some = SimpleNamespace(seen=found, is_ledger=True, sweep=SimpleNamespace(meta=meta))
    return cast(ReportInput, some)


def test_the_same_state_seen_again_is_no_other_look(ledger: Path) -> None:
    for _ in range(2):
        assert "No earlier look" in text(seen(ledger))
    (one,) = read_looks(ledger).all
    assert one.cells == {"wmh2017": {"new": 2, "xent": 2}} and one.asked == 4


def test_looks_at_earlier_states_are_counted(ledger: Path) -> None:
    for state in ("a", "b", "b"):
        record_look(ledger, Look(ledger=state, cells={"wmh2017": {"xent": 1}}, asked=4))
    said = text(seen(ledger))
    assert "2 others are recorded, the first at 1 complete trial." in said
    assert "hold at all looks together" in said
    some = given(seen(ledger))
    assert "2 others are recorded" in looks.in_the_box(some)[0]
    assert "(2 earlier looks are recorded)" in looks.to_write(some)
    assert "(no earlier look is recorded)" in looks.to_write(given(reading.Seen()))


def test_somebody_elses_ledger_is_read_and_the_look_is_said_to_be_unrecorded(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(results: Path, look: Look) -> None:
        raise PermissionError(13, "Permission denied", str(results / FILE))

    monkeypatch.setattr(reading, "record_look", refused)
    assert "could not be recorded (Permission denied)" in text(seen(ledger))
    assert not (ledger / FILE).exists()


def test_a_sweep_that_stopped_by_its_rule_says_so(ledger: Path) -> None:
    rule = {"cells": 10, "seeds": [1, 2, 3, 4, 5], "order": "seed by seed"}
    assert "runs until its question is decided" in text(seen(ledger), until_decided=rule)
    decision = {"decided": True, "why": "decided, new better", "complete": 2, "cells": 10}
    look = Look(ledger="a", cells={}, asked=4, by=RULE, decision=decision)
    record_look(ledger, look)
    said = text(seen(ledger), until_decided=rule)
    assert "stopped by its rule" in said and "after 2 of at most 10 cells" in said
    assert "decided, new better" in said
    assert "rule" not in text(seen(ledger)) and not looks.stop_to_write(given(seen(ledger)))
    some = given(seen(ledger), until_decided=rule)
    assert "stopped by its rule" in looks.in_the_box(some)[1]
    assert "after 2 of at most 10 cells" in looks.stop_to_write(some)
