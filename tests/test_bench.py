"""Benchmarks compare in turn, judge by their targets, and say in one line what they cannot do."""

import subprocess
import sys

import pytest

from sweeps.timing import Row, paired


def test_rivals_run_in_turn_after_one_unmeasured_run_each():
    order = []
    seconds = paired({name: lambda name=name: order.append(name) for name in "ab"}, repeats=2)
    assert "".join(order) == "ab" * 3
    assert list(seconds) == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row(what="x", value=2, peer="y", peer_value=4, least_ratio=2), 2, True),
        (Row(what="x", value=2, peer="y", peer_value=3.9, least_ratio=2), 1.95, False),
        (Row(what="x", value=15, most=15), None, True),
        (Row(what="x", value=16, most=15), None, False),
        (Row(what="x", value=1, peer="y", peer_value=3), 3, None),
    ],
)
def test_a_row_is_judged_by_its_target_alone(row, ratio, met):
    assert row.ratio == ratio
    assert row.met is met


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["nonsense"], "nonsense"), (["report", "--json", "nowhere/x.json"], "no folder nowhere")],
)
def test_a_wrong_flag_is_one_line_and_status_2(flags, said, pytestconfig):
    bench = pytestconfig.rootpath / "sweeps" / "bench.py"
    done = subprocess.run([sys.executable, bench, *flags], capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
