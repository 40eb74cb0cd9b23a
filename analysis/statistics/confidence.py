"""How sure is sure: the one confidence level behind every interval, decision and caption.

Everything is derived when it is asked for, so that another CONFIDENCE moves all numbers and all
words of a report together.
"""

from __future__ import annotations

from scipy import stats

CONFIDENCE = 0.95
"""Share of repetitions in which an interval holds what it estimates."""


def error() -> float:
    """Two-sided error rate of a decision: a difference is refuted below it."""
    return round(1 - CONFIDENCE, 12)


def equivalence() -> float:
    """Level of the interval that must lie inside the rope: two one-sided tests at `error`."""
    return round(1 - 2 * error(), 12)


def quantiles() -> tuple[float, float]:
    """Lower and upper end of the middle CONFIDENCE of a distribution.

    >>> quantiles()
    (0.025, 0.975)
    """
    return round((1 - CONFIDENCE) / 2, 12), upper()


def upper(level: float | None = None) -> float:
    """Upper quantile of a two-sided interval; ``None`` is CONFIDENCE."""
    return 0.5 + (CONFIDENCE if level is None else level) / 2


def t_factor(df: float, level: float | None = None) -> float:
    """Standard errors in half of Student's t interval with that many degrees of freedom."""
    return float(stats.t.ppf(upper(level), df))


def normal_factor() -> float:
    """Standard deviations in half of a normal interval: about 2."""
    return float(stats.norm.ppf(upper()))


def exact_share(hits: float, total: float, level: float | None = None) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of independent trials, also at 0 and at all; NaN of
    none.  A tie may count as half a hit.

    >>> low, high = exact_share(0, 25)
    >>> low, round(high, 3)
    (0.0, 0.137)
    """
    if not total > 0:
        return float("nan"), float("nan")
    beyond = 1 - upper(level)
    low = 0.0 if hits <= 0 else float(stats.beta.ppf(beyond, hits, total - hits + 1))
    high = 1.0 if hits >= total else float(stats.beta.ppf(1 - beyond, hits + 1, total - hits))
    return low, high


def in_percent(level: float | None = None) -> str:
    """A level in words.

    >>> in_percent(), in_percent(0.9)
    ('95 %', '90 %')
    """
    return f"{100 * (CONFIDENCE if level is None else level):g} %"
