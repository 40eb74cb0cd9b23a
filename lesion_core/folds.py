"""Which cases are tested together."""

from __future__ import annotations

from collections.abc import Sequence


def test_folds(cases: Sequence[str], num_folds: int) -> list[list[str]]:
    """Test cases of every fold: fold i takes every ``num_folds``-th case, beginning with case i.

    The authors' split; it depends on the order of the cases alone, never on a seed.  On naturally
    ordered WMH cases it spreads every site over all folds.

    >>> test_folds(["a", "b", "c", "d", "e"], 2)
    [['a', 'c', 'e'], ['b', 'd']]

    Raises:
        ValueError: fewer than two folds, or fewer cases than folds.
    """
    if num_folds < 2:
        raise ValueError(f"{num_folds} folds: expected at least 2, so that some cases are trained")
    if len(cases) < num_folds:
        fix = f"ask for {len(cases)} folds or fewer, or add cases" if cases[1:] else "add cases"
        raise ValueError(
            f"{len(cases)} cases for {num_folds} folds: every fold needs a test case; {fix}"
        )
    return [list(cases[fold::num_folds]) for fold in range(num_folds)]


# Named for what it gives; pytest would collect it wherever a test imports it.
test_folds.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]
