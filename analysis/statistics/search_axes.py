"""The fields of a search as axes: values, choices and what is not searched, as numbers.

Points are rows of numbers [n, fields]: a range's value, the place of a choice among its choices,
and NaN where a field is not searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lesion_core.search_space import written


@dataclass(frozen=True, eq=False)
class Axes:
    """The fields of a search as the axes of its surface."""

    fields: list[str]
    ranges: Mapping[str, Sequence[float]]
    """Lowest and highest value, of those that are numbers."""
    domains: Mapping[str, Mapping[str, Any]]
    """`results.SEARCH` of those that are more than a range."""

    @staticmethod
    def of(search: Mapping[str, Any]) -> Axes:
        """Those of a search.json."""
        return Axes(list(search["space"]), search["ranges"], search.get("domains", {}))

    def choices(self, name: str) -> list[Any] | None:
        """The choices of a field; None of a range."""
        return self.domains.get(name, {}).get("choices")

    def is_log(self, name: str) -> bool:
        """Whether a field's range is logarithmic."""
        return bool(self.domains.get(name, {}).get("log"))

    @cached_property
    def numbers(self) -> list[str]:
        """The fields that are ranges."""
        return [name for name in self.fields if self.choices(name) is None]

    @property
    def depends(self) -> bool:
        """Whether some field is searched in a part of the space only."""
        return any("only" in domain for domain in self.domains.values())

    def points(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """[C, fields] of the configurations' values."""
        return np.array(
            [[self._number(n, c["values"]) for n in self.fields] for c in configurations]
        )

    def _number(self, name: str, values: Mapping[str, Any]) -> float:
        if name not in values:
            return float("nan")
        choices = self.choices(name)
        return float(values[name] if choices is None else choices.index(values[name]))

    def as_searched(self, points: np.ndarray) -> np.ndarray:
        """The points with NaN where a field is not searched beside the others."""
        points = np.array(points, float)
        for place, name in enumerate(self.fields):
            only = self.domains.get(name, {}).get("only")
            if only is not None:
                choices = self.choices(only["field"]) or []
                allowed = [choices.index(v) for v in only["values"] if v in choices]
                points[~np.isin(points[:, self.fields.index(only["field"])], allowed), place] = (
                    np.nan
                )
        return points

    def features(self, points: np.ndarray) -> np.ndarray:
        """[n, features] from 0 to 1: a column per range, and one per choice of a choice.

        A field that is not searched lies in the middle, and its condition's field sets it apart.
        """
        columns = []
        for place, name in enumerate(self.fields):
            values, choices = points[:, place], self.choices(name)
            if choices is not None:
                columns += [(values == number).astype(float) for number in range(len(choices))]
            else:
                scaled = self._scaled(name, values)
                columns.append(np.where(np.isnan(scaled), 0.5, scaled))
        return np.stack(columns, 1)

    def _scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        low, high = self.ranges[name]
        if self.is_log(name):
            return np.log(values / low) / np.log(high / low)
        return (values - low) / (high - low)

    def between(self, name: str, share: np.ndarray) -> np.ndarray:
        """Values of a range at shares of its way, 0 to 1."""
        low, high = self.ranges[name]
        return low * (high / low) ** share if self.is_log(name) else low + (high - low) * share

    def along(self, name: str, steps: int) -> np.ndarray:
        """Evenly spaced values of a range, or every choice."""
        choices = self.choices(name)
        if choices is not None:
            return np.arange(len(choices), dtype=float)
        return self.between(name, np.linspace(0, 1, steps))

    def middle(self, name: str) -> float:
        """The middle of a range, or the first choice."""
        return 0.0 if self.choices(name) is not None else float(self.between(name, np.array(0.5)))

    def through(self, centre: np.ndarray, changes: Mapping[str, np.ndarray]) -> np.ndarray:
        """[n, fields] points that are ``centre`` but for these fields, each of them searched there:
        the field that it depends on is moved to where it is."""
        number = len(next(iter(changes.values())))
        points = np.tile(centre, (number, 1))
        for name, values in changes.items():
            points[:, self.fields.index(name)] = values
        for name in changes:  # only a choice is depended on, which may depend on another one
            while (only := self.domains.get(name, {}).get("only")) is not None:
                place = self.fields.index(only["field"])
                choices = self.choices(only["field"]) or []
                allowed = [choices.index(value) for value in only["values"] if value in choices]
                if only["field"] not in changes and allowed:
                    points[~np.isin(points[:, place], allowed), place] = allowed[0]
                name = only["field"]
        for place, name in enumerate(self.fields):
            points[np.isnan(points[:, place]), place] = self.middle(name)
        return self.as_searched(points)

    def worded(self, name: str, value: float, whole: bool = False) -> str:
        """A value of a point for people."""
        if np.isnan(value):
            return "none"
        choices = self.choices(name)
        if choices is not None:
            return written(choices[int(value)])
        if whole or self.domains.get(name, {}).get("whole"):
            return f"{value:.0f}"
        return f"{value:.2g}" if self.is_log(name) else f"{value:.2f}"

    def frame(self, points: np.ndarray) -> pd.DataFrame:
        """Points as a table: choices in words, "" where a field is not searched."""
        frame = pd.DataFrame(points, columns=self.fields)
        for name in self.fields:
            if (choices := self.choices(name)) is not None:
                words = np.array([*map(written, choices), ""], object)
                values = frame[name].to_numpy()
                frame[name] = words[np.where(np.isnan(values), len(choices), values).astype(int)]
        return frame
