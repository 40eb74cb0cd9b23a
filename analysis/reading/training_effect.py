"""How much does a comparison move with the training set: declared, given, or measured?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.flags import TRAINING_EFFECT
from analysis.reading.scores import METRIC_NAMES
from lesion_core.paths import is_there, read_json
from lesion_core.results import TRAINING_EFFECT_FILE


@dataclass(frozen=True)
class TrainingEffect:
    """Standard deviation, over training sets of the cohort's size, of a difference between losses.

    In units of each metric.  One metric's says nothing of another's: they are not converted.
    """

    tau: dict[str, float] = field(default_factory=lambda: {"dice": TRAINING_EFFECT})
    """By metric; what is not there is unknown."""
    measured: dict[str, dict] = field(default_factory=dict)
    """By metric, the whole entry of the file; empty where nothing was measured."""
    losses: tuple[str, ...] = ()
    """The pair that it was measured on."""
    cohort: str | None = None
    """The cohort that it was measured on; None: of any."""
    given: bool = False
    """Whether the reader gave a number."""

    def of(self, cohort: str) -> TrainingEffect:
        """What is known for a cohort: what was measured on another one is not."""
        return self if self.cohort in (None, cohort) else TrainingEffect()

    def check_cohorts(self, names: Sequence[str]) -> None:
        """Raise ValueError where it was measured on none of these cohorts: data of one say nothing
        of another."""
        if self.cohort is not None and self.cohort not in names:
            raise ValueError(
                f"the training-set effect was measured on {self.cohort}, the report is on "
                f"{', '.join(names)}: give --training-effect a number, or a measurement on these"
            )

    def tau_of(self, metric: str) -> float:
        """The effect to assume for a metric; NaN where it is unknown."""
        return self.tau.get(metric, float("nan"))

    @property
    def source(self) -> str:
        """Where the number for DSC comes from, in words."""
        if self.measured:
            level = f"{self.measured['dice']['confidence']:.0%}".replace("%", " %")
            return f"measured on {' and '.join(self.losses)}, {level} upper bound"
        return "given" if self.given else "declared"

    @property
    def in_words(self) -> str:
        """The number for DSC, and where it comes from."""
        source = self.source if self.measured or self.given else f"{self.source}, not measured"
        return f"{self.tau_of('dice'):.3f} ({source})"


def training_effect(asked: str | None, results: Path) -> TrainingEffect:
    """A number, a file, the file in the results folder, or what is declared.

    Raises:
        ValueError: neither a number of 0 or more nor a readable file.
    """
    found = results / TRAINING_EFFECT_FILE
    if asked is None:
        return _read(found) if is_there(found) else TrainingEffect()
    try:
        tau = float(asked)
    except ValueError:
        return _read(Path(asked))
    if not 0 <= tau <= 1:
        raise ValueError(
            f"--training-effect {asked}: expected a standard deviation of differences in DSC, from "
            f"0 to 1, such as {TRAINING_EFFECT:g}, or a {TRAINING_EFFECT_FILE}"
        )
    return TrainingEffect(tau={"dice": tau}, given=True)


def _read(path: Path) -> TrainingEffect:
    try:
        content = read_json(path)
        effects = {name: dict(content["effects"][name]) for name in METRIC_NAMES}
        return TrainingEffect(
            tau={name: float(entry["upper"]) for name, entry in effects.items()},
            measured=effects,
            losses=tuple(content["losses"]),
            cohort=str(content["cohort"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--training-effect {path}: expected a number, or a {TRAINING_EFFECT_FILE} that "
            f"`lesion-sweep training-effect` wrote ({type(error).__name__}: {error})"
        ) from None
