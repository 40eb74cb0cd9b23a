"""A grid that ends in time: which cells are begun, and what is known of how long they take."""

from __future__ import annotations

import pytest

from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial
from sweeps.paper_grid import PaperGrid
from sweeps.trials.within_hours import WithinHours, makespan


def cells(number: int = 4) -> list[list[Trial]]:
    return [
        [
            Trial(
                cohort="toy", fingerprint="f" * 64, loss=LOSSES[loss], seed=seed, fold=0,
                num_folds=2, settings=TrainSettings(),
            )
            for loss in ("xent", "dsc")
        ]
        for seed in range(number)
    ]  # fmt: skip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def supply(
    seconds: float,
    *,
    expected: float = 10.0,
    slots: int | None = 1,
    left: list[str] | None = None,
) -> tuple[WithinHours, Clock, list[str]]:
    clock, asked, own = Clock(), [], cells()
    names = [trial.name for cell in own for trial in cell]
    made = WithinHours(
        own,
        left=names if left is None else left,
        expected=dict.fromkeys(names, expected),
        seconds=seconds,
        expect=lambda cell: asked.extend(trial.name for trial in cell),
        clock=clock,
    )
    if slots is not None:
        made.set_slots(slots)
    return made, clock, asked


def run(made: WithinHours, clock: Clock, each: float) -> list[str]:
    """Run trials one at a time that take so long."""
    given = []
    while not made.finished:
        trial = made.take()
        assert trial is not None
        given.append(trial["name"])
        clock.now += each
        made.ended(trial["name"])
    assert made.take() is None
    return given


@pytest.mark.parametrize(("each", "whole"), [(10.0, 2), (20.0, 1), (4.0, 4), (5.0, 4)])
def test_only_whole_cells_are_begun_and_none_that_cannot_end(each: float, whole: int) -> None:
    """50 s, two trials a cell, expected to take 10 s each: what they take is learned."""
    made, clock, asked = supply(50.0)
    given = run(made, clock, each)
    assert given == [trial.name for cell in cells()[:whole] for trial in cell] == asked
    assert clock.now <= 50.0


def test_no_cell_begins_that_is_too_long_for_all_the_time_there_is() -> None:
    made, _, asked = supply(19.0)
    assert made.finished and made.take() is None and asked == [] and made.names() == []
    assert made.in_words({}).endswith("the next cell should take longer")


def test_machines_that_nobody_has_looked_at_yet_are_enough() -> None:
    """A sweep asks whether anything is left before it starts or joins a cluster."""
    made, _, _ = supply(19.0, slots=None)
    assert not made.finished  # two at a time, 10 s
    made.set_slots(1)
    assert made.finished and made.take() is None


def test_a_cell_that_an_earlier_command_began_is_ended_first() -> None:
    names = [trial.name for cell in cells() for trial in cell]
    made, clock, _ = supply(25.0, left=names[1:])
    assert run(made, clock, 10.0) == names[1:2]  # 10 s; the next cell needs 20 of the 15 left


def test_slots_work_side_by_side_and_the_next_cell_waits_for_its_turn() -> None:
    made, clock, asked = supply(20.0, slots=2)
    first = [made.take(), made.take()]
    assert all(first) and made.take() is None and not made.finished and len(asked) == 2
    clock.now = 8.0
    for trial in first:
        assert trial is not None
        made.ended(trial["name"])
    assert not made.finished and made.take() is not None  # 8 s are needed, 12 are left
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("under_way", "work", "slots", "end"),
    [
        ([], [3.0, 3.0, 3.0], 2, 6.0),
        ([4.0], [1.0], 2, 4.0),
        ([4.0, 1.0], [2.0], 2, 4.0),
        ([], [], 1, 0.0),
    ],
)
def test_makespan(under_way: list[float], work: list[float], slots: int, end: float) -> None:
    assert makespan(under_way, work, slots) == end


def test_wrong_hours_are_refused() -> None:
    for hours in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected hours, more than 0"):
            PaperGrid(max_hours=hours)
    with pytest.raises(ValueError, match="choose one"):
        PaperGrid(max_hours=1.0, until_decided=True)
