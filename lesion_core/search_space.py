"""Where a search looks for a value: a range of numbers, or a choice of words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

Value = float | int | str | bool | None
"""What a search can try for one field."""


@dataclass(frozen=True)
class Condition:
    """A field is searched only where another one, a choice, has one of these values."""

    field: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        """
        >>> print(Condition("optimiser", ("sgd",)))
        where optimiser is sgd
        """
        return f"where {self.field} is {' or '.join(map(written, self.values))}"


@dataclass(frozen=True)
class Range:
    """Numbers between two ends; an open end is left out itself."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    log: bool = False
    """Look as closely between 0.001 and 0.01 as between 0.01 and 0.1."""
    whole: bool = False
    """Whole numbers only."""
    only: Condition | None = None

    def __str__(self) -> str:
        """
        >>> print(Range(0, 10, open_low=True))
        (0, 10]
        >>> print(Range(1e-5, 1e-2, log=True))
        [1e-05, 0.01] log
        """
        ends = "[("[self.open_low], "])"[self.open_high]
        marks = [word for word in ("log", "whole") if getattr(self, word)]
        words = [f"{ends[0]}{self.low:g}, {self.high:g}{ends[1]}", *marks]
        return " ".join([*words, *([] if self.only is None else [str(self.only)])])


@dataclass(frozen=True)
class Choices:
    """Values without an order, at least two."""

    values: tuple[Value, ...]
    only: Condition | None = None

    def __str__(self) -> str:
        """
        >>> print(Choices(("constant", "cosine")))
        {constant, cosine}
        """
        words = "{" + ", ".join(map(written, self.values)) + "}"
        return words if self.only is None else f"{words} {self.only}"


Domain = Range | Choices
Space = Mapping[str, Domain]
"""By field, in an order in which a condition's field stands before what depends on it."""

Point = dict[str, Value]
"""Values of the fields that are searched there: a field whose condition fails has none."""


def written(value: Value) -> str:
    """A value as a flag has it.

    >>> [written(value) for value in (0.5, 16, True, None, "poly")]
    ['0.5', '16', 'true', 'none', 'poly']
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_searched(domain: Domain, point: Mapping[str, Value]) -> bool:
    """Whether a field of this domain is searched beside these values."""
    return domain.only is None or point.get(domain.only.field) in domain.only.values


def ordered(space: Space) -> dict[str, Domain]:
    """The same space, each condition's field before what depends on it.

    Raises:
        ValueError: a condition on a field that is not searched, is no choice, or cannot have that
            value; or fields that depend on each other in a circle.
    """
    found: dict[str, Domain] = {}
    left = dict(space)
    for name, domain in left.items():
        if (only := domain.only) is None:
            continue
        parent = space.get(only.field)
        if parent is None or only.field == name:
            raise ValueError(
                f"{name} depends on {only.field}, which is not searched; expected another field "
                f"of --space: {', '.join(each for each in space if each != name) or 'none'}"
            )
        if not isinstance(parent, Choices):
            raise ValueError(
                f"{name} depends on {only.field}, a range; expected a field with choices, such as "
                "schedule=constant,cosine"
            )
        for value in only.values:
            if value not in parent.values:
                raise ValueError(
                    f"{name} depends on {only.field} being {written(value)}; expected one of "
                    f"{', '.join(map(written, parent.values))}"
                )
    while left:
        ready = [n for n, d in left.items() if d.only is None or d.only.field in found]
        if not ready:
            raise ValueError(f"{' and '.join(left)} depend on each other; expected no circle")
        for name in ready:
            found[name] = left.pop(name)
    return found


def corners(space: Space, whole_at_most: int = 200) -> Iterator[Point]:
    """Points at which settings are tried before a search: all ends of all ranges with all choices,
    and every whole number of a range that has few, beside the other fields' first values."""
    firsts = {name: _tried(domain)[0] for name, domain in space.items()}
    for values in itertools.product(*map(_tried, space.values())):
        yield active(space, dict(zip(space, values, strict=True)))
    for name, domain in space.items():
        if isinstance(domain, Range) and domain.whole and domain.high - domain.low <= whole_at_most:
            for value in range(int(domain.low), int(domain.high) + 1):
                yield active(space, firsts | {name: value})


def active(space: Space, values: Mapping[str, Value]) -> Point:
    """The values of those fields that are searched beside them."""
    point: Point = {}
    for name, domain in space.items():
        if name in values and is_searched(domain, point):
            point[name] = values[name]
    return point


def without_condition(domain: Domain) -> Domain:
    """The same values, wherever."""
    return replace(domain, only=None)


def _tried(domain: Domain) -> tuple[Value, ...]:
    return domain.values if isinstance(domain, Choices) else tried_ends(domain)


# ------------------------------------------------------------------------------ steps of a range
DIGITS = 3
"""Of a value on a logarithmic range; elsewhere steps are a thousandth of the range's power of ten.
Labels stay short, and a search among noise cannot tell 0.3745 from 0.3746."""


def steps_of(where: Range) -> tuple[float, float, float]:
    """Step, lowest and highest value of a range that is not logarithmic; an open end is left out
    by one step."""
    from decimal import ROUND_FLOOR, Decimal

    low, high = Decimal(repr(float(where.low))), Decimal(repr(float(where.high)))
    step = Decimal(1) if where.whole else Decimal(1).scaleb((high - low).adjusted() - 3)
    if where.open_low:
        low += step
    steps = ((high - low) / step).to_integral_value(ROUND_FLOOR)
    highest = low + steps * step
    if where.open_high and highest == high:
        highest -= step
    return float(step), float(low), float(highest)


def nearest(where: Range, value: float) -> float | int:
    """The value of a range that is tried nearest to a number between its ends.

    >>> nearest(Range(1e-5, 1e-2, log=True), 0.00012345)
    0.000123
    >>> nearest(Range(0, 5), 1.23456), nearest(Range(4, 32, whole=True), 7.6)
    (1.235, 8)
    """
    low, high = tried_ends(where)
    if where.whole:
        return min(max(round(value), int(low)), int(high))
    if where.log:
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)
    step, low, high = steps_of(where)
    return min(max(float(f"{low + round((value - low) / step) * step:.12g}"), low), high)


def tried_ends(where: Range) -> tuple[float, float]:
    """The lowest and the highest value of a range that is tried."""
    if where.whole:
        return int(where.low), int(where.high)
    return (where.low, where.high) if where.log else steps_of(where)[1:]


def can_be_tried(value: object, where: Domain) -> bool:
    """Whether a value is one of those that a search can try."""
    if isinstance(where, Choices):
        return any(value == each and type(value) is type(each) for each in where.values)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    low, high = tried_ends(where)
    return low <= value <= high and math.isclose(nearest(where, value), value, rel_tol=1e-9)


def grid_points(space: Space, at_most: int) -> list[Point]:
    """All choices with evenly spaced numbers, equally many per range, ends included.

    Open ends as near as can be; a logarithmic range in equal ratios; a range of whole numbers has
    at most all of them.  Points that differ only in fields that are not searched there are one.

    >>> [point["x"] for point in grid_points({"x": Range(0, 2)}, 3)]
    [0.0, 1.0, 2.0]
    >>> [point["x"] for point in grid_points({"x": Range(1e-4, 1e-2, log=True)}, 3)]
    [0.0001, 0.001, 0.01]
    >>> grid_points({"x": Choices(("a", "b"))}, 9)
    [{'x': 'a'}, {'x': 'b'}]
    """
    found = _grid(space, 1)
    per_range = 1
    while any(isinstance(domain, Range) for domain in space.values()):
        per_range += 1
        more = _grid(space, per_range)
        if len(more) > at_most or (len(more) == len(found) and _is_whole_grid(space, per_range)):
            break
        found = more
    return found


def _is_whole_grid(space: Space, per_range: int) -> bool:
    """Whether no range has more values than it would get."""
    ranges = [domain for domain in space.values() if isinstance(domain, Range)]
    return all(each.whole and per_range > each.high - each.low for each in ranges)


def _grid(space: Space, per_range: int) -> list[Point]:
    axes = [
        domain.values if isinstance(domain, Choices) else _axis(domain, per_range)
        for domain in space.values()
    ]
    points = []
    for values in itertools.product(*axes):
        point = active(space, dict(zip(space, values, strict=True)))
        if point not in points:
            points.append(point)
    return points


def _axis(where: Range, number: int) -> tuple[Value, ...]:
    low, high = tried_ends(where)
    shares = [i / max(number - 1, 1) for i in range(number)]
    if where.log:
        places = [math.exp(math.log(low) + s * (math.log(high) - math.log(low))) for s in shares]
    else:
        places = [low + s * (high - low) for s in shares]
    return tuple(dict.fromkeys(nearest(where, place) for place in places))
