"""Cells come in an order fixed beforehand, and end when the question is decided, killed or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from analysis import decide
from lesion_core.looks import FILE, RULE, Look, read_looks, record_look
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps import paper_grid, seed_ladder
from sweeps import verify as verifying
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.trials.until_decided import Decision, UntilDecided
from sweeps.until_decided import Rule
from sweeps.verify import Verify, verify

OPEN, DONE = Decision(False, "open: b"), Decision(True, "decided, b better")


def cells(seeds: Sequence[int] = (1, 2, 3), folds: int = 2) -> list[list[Trial]]:
    return [
        [
            Trial(
                cohort="toy",
                fingerprint="f" * 64,
                loss=LOSSES[loss],
                seed=seed,
                fold=fold,
                num_folds=folds,
                settings=TrainSettings(),
            )
            for loss in ("xent", "dsc")
        ]
        for seed in seeds
        for fold in range(folds)
    ]


class Driven:
    """A supply, and what became of it: trials that were asked for, and when it was judged."""

    def __init__(self, decided_at: int, done: Sequence[str] = (), asked: Sequence[str] = ()):
        self.cells = cells()
        self.order = [trial.name for cell in self.cells for trial in cell]
        self.expected: list[str] = []
        self.judged: list[int] = []
        self.decided_at = decided_at
        self.supply = UntilDecided(
            self.cells,
            left=[name for name in self.order if name not in done],
            asked=asked,
            judge=self.judge,
            expect=lambda trial: self.expected.append(trial.name),
        )

    def judge(self, complete: int) -> Decision | None:
        self.judged.append(complete)
        return DONE if complete >= self.decided_at else OPEN

    def run(self, slots: int = 1, most: int = 100) -> list[str]:
        """Names of trials in the order in which they ended; the last taken ends first."""
        self.supply.set_slots(slots)
        running: list[str] = []
        ended: list[str] = []
        while len(ended) < most:
            while (trial := self.supply.take()) is not None:
                running.append(trial["name"])
            if not running:
                assert self.supply.finished
                break
            ended.append(running.pop())
            self.supply.ended(ended[-1])
        return ended


def test_it_stops_after_the_cell_that_decides() -> None:
    driven = Driven(decided_at=2)
    assert driven.run() == driven.order[:4] == driven.expected == driven.supply.names()
    assert driven.judged == [1, 2] and driven.supply.complete == 2
    assert "2 of at most 6 cells, decided" in driven.supply.progress_note()


def test_at_the_cap_it_ends_undecided_and_was_judged_after_every_cell() -> None:
    driven = Driven(decided_at=100)
    assert driven.run() == driven.order and driven.judged == [1, 2, 3, 4, 5, 6]
    assert driven.supply.finished and driven.supply.decision == OPEN


def test_trials_under_way_end_and_none_begins_after_the_decision() -> None:
    driven = Driven(decided_at=1)
    ended = driven.run(slots=3)
    assert sorted(ended) == sorted(driven.expected)
    assert len(ended) <= 5 and driven.supply.finished


@pytest.mark.parametrize("killed_after", range(6))
def test_killed_anywhere_it_goes_on_in_the_same_order(killed_after: int) -> None:
    whole = Driven(decided_at=3)
    whole.run()
    first = Driven(decided_at=3)
    done = first.run(most=killed_after)
    second = Driven(decided_at=3, done=done, asked=first.expected)
    assert done + second.run() == whole.expected
    third = Driven(decided_at=3, done=whole.expected, asked=whole.expected)
    assert third.run() == [] and third.supply.finished and third.judged == [3]


def test_what_was_asked_for_runs_though_all_is_decided() -> None:
    first = Driven(decided_at=1)
    done = first.run(slots=2, most=2)
    under_way = [name for name in first.expected if name not in done]
    second = Driven(decided_at=1, done=done, asked=first.expected)
    assert second.run() == under_way


# ------------------------------------------------------------------------------------- the question
@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made-up") / "ledger"
    sweep = FakeSweep(
        num_cases=20, epochs=1, losses=("xent", "new", "dsc"), seeds=(1, 2), num_folds=2,
        pictures=False,
    )  # fmt: skip
    return sweep.write(place)


def test_question_has_the_words_of_the_report(ledger: Path) -> None:
    found = decide.question(ledger, 5)
    look = found["look"]
    assert isinstance(look, dict)
    assert look["cells"] == {"wmh2017": {"xent": 4, "new": 4, "dsc": 4}} and look["asked"] == 12
    assert found["reference"] == {"wmh2017": "xent"}
    comparisons = found["comparisons"]
    assert isinstance(comparisons, dict) and set(comparisons["wmh2017"]) == {"new", "dsc"}
    assert not (ledger / FILE).exists()


def test_decision_needs_every_loss_that_was_asked_for() -> None:
    from sweeps.sweep import SweepPlan

    trials = [trial for cell in cells() for trial in cell]
    rule = Rule(SweepPlan(trials, [], TrainSettings(), 2, Path("nowhere")))
    clear = {"word": "better", "chance": 1.0, "decided": True}
    hopeless = {"word": "not separated", "chance": 0.01, "decided": True}
    against = {"toy": "xent"}
    assert rule.decision({"toy": {"dsc": clear}}, against) == Decision(
        True, "decided, against xent: dsc better"
    )
    assert "would hardly change that" in rule.decision({"toy": {"dsc": hopeless}}, against).why
    assert not rule.decision({"toy": {}}, against).decided
    assert not rule.decision({}, {}).decided
    assert rule.entry["cells"] == 6 and rule.seeds == [1, 2, 3]


def test_one_loss_leaves_no_question() -> None:
    from sweeps.sweep import SweepPlan

    trials = [cell[0] for cell in cells()]
    with pytest.raises(ValueError, match="--until-decided: expected two --losses"):
        Rule(SweepPlan(trials, [], TrainSettings(), 2, Path("nowhere")))
    assert paper_grid.PaperGrid().until_decided is seed_ladder.SeedLadder().until_decided is False


# --------------------------------------------------------------------------------------- the record
def a_look(ledger: str, **more: object) -> Look:
    return Look(ledger=ledger, cells={"toy": {"xent": 2}}, asked=4, **more)  # type: ignore[arg-type]


def test_looks_are_added_and_counted_by_state(tmp_path: Path) -> None:
    for state in ("a", "a", "b", "a"):
        record_look(tmp_path, a_look(state))
    record_look(tmp_path, a_look("c", by=RULE, decision={"decided": True}))
    found = read_looks(tmp_path)
    assert [look.ledger for look in found.all] == ["a", "b", "a", "c"]
    assert [look.ledger for look in found.before("c")] == ["a", "b"]
    assert found.decisions[0].decision == {"decided": True} and found.all[0].done == 2
    assert all(look.when for look in found.all) and not read_looks(tmp_path / "none").all


def test_every_changed_byte_of_a_look_is_named_and_taken_out(ledger: Path, tmp_path: Path) -> None:
    import shutil

    place = tmp_path / "ledger"
    shutil.copytree(ledger, place)
    record_look(place, a_look("a"))
    record_look(place, a_look("b"))
    assert verify(place).whole
    content = (place / FILE).read_bytes()
    for at in (3, content.index(b"\n"), len(content) - 5):
        changed = bytearray(content)
        changed[at] ^= 1
        (place / FILE).write_bytes(bytes(changed))
        assert any(name.startswith(FILE) for name in verify(place).damaged)
    with (place / FILE).open("ab") as file:  # a line that was cut short spoils no other
        file.truncate(len(content) - 20)
    (place / FILE).write_bytes(content[:-20])
    record_look(place, a_look("c"))
    assert [look.ledger for look in read_looks(place).all] == ["a", "c"]
    verifying._repair(Verify(results=place), verifying.Ledger(place), verify(place))
    assert [look.ledger for look in read_looks(place).all] == ["a", "c"]
    assert not any(name.startswith(FILE) for name in verify(place).damaged)


def test_look_goes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        record_look(tmp_path, a_look("a"))
    assert (tmp_path / "elsewhere").read_bytes() == b""
