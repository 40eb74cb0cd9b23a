"""What came out of one cohort: computed once for the box, the text to paste, the table, the forest.

The primary question is declared beforehand: test DSC at the last epoch, every loss against the
reference, Holm-adjusted over all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.page.items import written
from analysis.reading.scores import METRICS, CohortScores, trial_rows
from analysis.reading.training_effect import TrainingEffect
from analysis.sections.report_input import ReportInput, family
from analysis.statistics.absence import Failures, complete_grid, failures, failures_as_zero
from analysis.statistics.exchange import PATIENTS, Exchange, can_test, exchanges, hardly_anything
from analysis.statistics.identical import identical
from analysis.statistics.ladder import Ladder
from analysis.statistics.order import best_first, every_mean
from analysis.statistics.pairs import Family, Judgement, Pair
from analysis.statistics.thresholds import (
    histograms,
    own_threshold_scores,
    rates_at_thresholds,
)

DIGITS = 3
"""Decimals of every rate and difference on the first screen; differences are rounded last."""
FEW = 3
"""Pairs of which one sentence gives the numbers."""
LEFT = 0.25
"""Share of a difference at 0.5 that may be left at own thresholds if it is one of threshold."""
FOUND = ("separated", "suggestive")
"""Words that say that there is a difference, if perhaps only for these training sets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Everything that the first screen says of one cohort, as numbers."""

    given: ReportInput
    cohort: CohortScores
    scores: np.ndarray
    """[L, S, P] test DSC at the last epoch."""
    losses: list[int]
    """Those complete enough to be compared."""
    left: list[int]
    """Those with a complete trial that are not."""
    order: list[int]
    """The compared ones by mean DSC over what all of them have."""
    means: dict[str, dict[int, Ladder]]
    """Metric -> loss -> mean over what all compared losses have; of one that is not compared, over
    what it has."""
    judged: Family | None
    """All comparisons; None where there are fewer than two losses to compare."""
    at_own: Family | None
    """The same at each loss's own threshold; None where no threshold can be chosen."""
    by_threshold: Family | None
    """Of what own thresholds change: DSC at 0.5 minus that at the own threshold."""
    own_missing: str
    """Why there is none, in words; "" where there is one."""
    same: list[list[int]]
    """Groups of losses with identical scores."""
    traded: list[Exchange]
    """Trade-offs against the reference, and between the best two."""
    trade_tested: bool
    failed: dict[int, Failures]

    @property
    def reference(self) -> int:
        """The loss that the others are compared with."""
        return self.given.reference_in(self.cohort)

    @property
    def one(self) -> str:
        """What is compared: a loss, or an arm where settings differ too."""
        return self.given.one

    @property
    def several(self) -> str:
        """More of them."""
        return self.given.several

    @property
    def effect(self) -> TrainingEffect:
        """What is known of training sets' part."""
        return self.given.training.of(self.cohort.name)

    def name(self, loss: int) -> str:
        """A loss by its name."""
        return self.cohort.losses[loss]

    def group(self, loss: int) -> list[int]:
        """A loss and those that are identical to it."""
        return next((group for group in self.same if loss in group), [loss])

    def names(self, losses: Sequence[int]) -> str:
        """Some losses in words."""
        return listed([self.name(loss) for loss in losses])

    @property
    def best(self) -> int:
        """A loss with the highest mean."""
        return self.order[0]

    @property
    def second(self) -> int | None:
        """The next one that is not identical to it; None where all are."""
        rest = [loss for loss in self.order if loss not in self.group(self.best)]
        return rest[0] if rest else None

    @property
    def headline(self) -> tuple[Pair, Judgement] | None:
        """The best against the reference, or against the next one if it is the reference; the
        higher mean first.  None where nothing is compared, or all are identical."""
        if self.judged is None or self.second is None:
            return None
        own = self.reference in self.group(self.best)
        challenger = self.second if own else self.best
        pair, said = self.judged.of(challenger, self.reference)
        if pair.fit.estimate < 0:
            return self.judged.of(self.reference, challenger)
        return pair, said

    @property
    def outright(self) -> tuple[Pair, Judgement] | None:
        """The best against the second best, the higher mean first."""
        if self.judged is None or self.second is None:
            return None
        return self.judged.of(self.best, self.second)

    @property
    def against_reference(self) -> list[tuple[Pair, Judgement]]:
        """Every other loss against the reference, the highest mean first; without those that are
        identical to it."""
        if self.judged is None:
            return []
        return [
            self.judged.of(loss, self.reference)
            for loss in self.order
            if loss not in self.group(self.reference)
        ]

    @property
    def not_beaten(self) -> list[int]:
        """Losses that the best one is not better than for new training sets, without its like."""
        if self.judged is None:
            return []
        return [
            loss
            for loss in self.order
            if loss not in self.group(self.best)
            and self.judged.of(self.best, loss)[1].in_words != "better"
        ]

    @property
    def lead_survives(self) -> float:
        """Up to which training-set effect the best one is better than every other; NaN where it is
        not even without any."""
        if self.judged is None or self.second is None:
            return float("nan")
        others = [loss for loss in self.order if loss not in self.group(self.best)]
        return min(
            (said.survives_rounded if said.sign > 0 else float("nan"))
            for said in (self.judged.of(self.best, loss)[1] for loss in others)
        )

    @property
    def hardly(self) -> list[int]:
        """Compared losses that find next to nothing."""
        means = self.means["sensitivity"]
        return hardly_anything({loss: means[loss].estimate for loss in self.losses})

    @property
    def threshold_only(self) -> list[tuple[Pair, Pair]]:
        """Pairs with a difference at 0.5 of which at own thresholds nothing is found, less than a
        quarter is left, and that own thresholds change, for new patients: as they are at 0.5, and
        at own thresholds."""
        found = []
        for pair, said, own, also in self.at_both:
            assert self.by_threshold is not None
            small = abs(own.fit.estimate) <= LEFT * abs(pair.fit.estimate)
            changed = self.by_threshold.of(pair.a, pair.b)[1].holds in PATIENTS
            if said.word in FOUND and also.word not in FOUND and small and changed:
                found.append((pair, own))
        return found

    @property
    def at_both(self) -> list[tuple[Pair, Judgement, Pair, Judgement]]:
        """Pairs with the reference, and the best two, at 0.5 and at own thresholds."""
        if self.judged is None or self.at_own is None:
            return []
        known = set(self.at_own.losses)
        return [
            (*self.judged.of(a, b), *self.at_own.of(a, b))
            for a, b in self.asked
            if {a, b} <= known and self.at_own.of(a, b)[0].fit.num_cells
        ]

    @property
    def asked(self) -> list[tuple[int, int]]:
        """Pairs that the first screen speaks of: each loss with the reference, the best two, and
        the best with every loss that it does not beat; identical losses left out."""
        pairs = [(pair.a, pair.b) for pair, _ in self.against_reference]
        for other in ([] if self.second is None else [self.second]) + self.not_beaten:
            if (other, self.best) not in pairs and (self.best, other) not in pairs:
                pairs.append((self.best, other))
        return pairs

    def interval(self, pair: Pair, said: Judgement) -> tuple[float, float]:
        """For new training sets, at the level that the adjustment leaves."""
        return pair.fit.interval("L3", said.level)

    def difference(self, pair: Pair, said: Judgement) -> str:
        """A difference and its interval, in words."""
        low, high = self.interval(pair, said)
        text = signed(pair.fit.estimate)
        return f"{text}, {signed(low)} to {signed(high)}" if low == low else f"{text}, no interval"


def trade_offs(found: Outcome, verbs: tuple[str, str]) -> str:
    """The trade-offs in words, losses that are more sensitive than the same others together; a few
    with both differences.  ``verbs``: of one loss, of several."""
    few = len(found.traded) <= FEW
    beaten: dict[int, list[int]] = {}
    numbers: dict[int, str] = {}
    for one in found.traded:
        beaten.setdefault(one.a, []).append(one.b)
        numbers[one.a] = f" ({signed(one.sensitivity.fit.estimate)}, " + (
            f"{signed(one.precision.fit.estimate)})"
        )
    groups: dict[tuple[int, ...], list[str]] = {}
    for sensitive, others in beaten.items():
        name = found.name(sensitive) + (numbers[sensitive] if few and len(others) == 1 else "")
        groups.setdefault(tuple(others), []).append(name)
    return "; ".join(
        f"more sensitive than {found.names(others)} and less precise "
        f"{verbs[len(names) > 1]} {listed(names)}"
        for others, names in groups.items()
    )


def signed(value: float) -> str:
    """A difference of rates as the first screen writes it; a zero has no sign.

    >>> signed(0.0123), signed(-0.2), signed(-0.0001)
    ('+0.012', '−0.200', '0.000')
    """
    text = written(value, f"+.{DIGITS}f")
    return text[1:] if text.strip("+\N{MINUS SIGN}0.") == "" and text != "–" else text


def rate(value: float) -> str:
    """A rate as the first screen writes it."""
    return written(value, f".{DIGITS}f")


def listed(names: Sequence[str]) -> str:
    """Names in words.

    >>> listed(["A"]), listed(["A", "B"]), listed(["A", "B", "C"]), listed(["A, 1", "A, 2"])
    ('A', 'A and B', 'A, B and C', 'A, 1; and A, 2')
    """
    comma = "; " if any(", " in name for name in names) else ", "
    last = "; and " if comma == "; " else " and "
    return last.join([comma.join(names[:-1]), names[-1]] if len(names) > 1 else names)


def outcomes(given: ReportInput) -> list[Outcome]:
    """What came out, of every cohort with a complete trial."""
    rows = (
        trial_rows(given.sweep, "histograms.parquet")
        if given.cohorts and given.is_ledger
        else pd.DataFrame()
    )
    return [outcome(given, cohort, rows) for cohort in given.cohorts]


def outcome(given: ReportInput, cohort: CohortScores, rows: pd.DataFrame | None = None) -> Outcome:
    """What came out of one cohort; ``rows`` of `results.HISTOGRAMS`, where there are any."""
    last = cohort.last_by_case(cohort.test)
    scores = last[..., 0]
    losses, left = complete_grid(cohort.done, cohort.shown)
    order = best_first(scores, cohort)
    several = len(losses) > 1
    judged = given.family(cohort) if several else None
    same = identical(last, losses)
    at_own, by_threshold, why = (
        _at_own(given, cohort, scores, rows) if several else (None, None, "")
    )
    families = [given.family(cohort, metric) for metric in METRICS[1:]] if several else []
    found = Outcome(
        given=given,
        cohort=cohort,
        scores=scores,
        losses=losses,
        left=left,
        order=order,
        means={
            metric: every_mean(last[..., place], cohort) for place, metric in enumerate(METRICS)
        },
        judged=judged,
        at_own=at_own,
        by_threshold=by_threshold,
        own_missing=why,
        same=same,
        traded=[],
        trade_tested=bool(families) and can_test(*families),
        failed=failures(cohort, scores),
    )
    if families:
        some = [pair for pair in found.asked if not set(pair) & set(found.hardly)]
        found.traded.extend(exchanges(families[0], families[1], some))
    return found


def _at_own(
    given: ReportInput, cohort: CohortScores, scores: np.ndarray, rows: pd.DataFrame | None
) -> tuple[Family | None, Family | None, str]:
    """The comparisons at own thresholds and of what they change, or why there are none."""
    if rows is None or rows.empty:
        return None, None, "probabilities are not stored"
    own = own_threshold_scores(rates_at_thresholds(cohort, *histograms(cohort, rows)), cohort)
    if own is None:
        few = len(np.unique(cohort.fold_of)) < 2
        why = "one fold leaves no others to choose one" if few else "no probabilities known"
        return None, None, why
    return given.family(cohort, scores=own), given.family(cohort, scores=scores - own), ""


def failures_counted(found: Outcome) -> tuple[bool, str]:
    """The verdicts against the reference if a training that diverged counts as DSC 0: whether they
    are others, and a sentence."""
    given, cohort = found.given, found.cohort
    ended = (cohort.status == "done") | (cohort.status == "diverged")
    asked = [loss for loss in range(len(cohort.losses)) if ended[loss].any()]
    losses, _ = complete_grid(ended, asked)
    names = [found.name(loss) for loss in losses]
    reference = losses[names.index(given.reference) if given.reference in names else 0]
    if len(losses) < 2:
        return False, "There is nothing to compare the diverged trainings with."
    again = family(
        failures_as_zero(found.scores, cohort),
        cohort,
        losses,
        reference,
        tau=given.tau(cohort),
        rope=given.rope,
    )
    said = [
        f"{found.name(pair.a)} {judgement.in_words} ({signed(pair.fit.estimate)})"
        for pair, judgement in again.against_reference
    ]
    judged = found.judged
    same = (
        judged is not None
        and reference == judged.reference
        and losses == judged.losses
        and [one.in_words for _, one in again.against_reference]
        == [one.in_words for _, one in judged.against_reference]
    )
    if same:
        return (
            False,
            "With diverged trainings counted as DSC 0 in every test case, no verdict changes.",
        )
    return (
        True,
        "With diverged trainings counted as DSC 0 in every test case, against "
        f"{found.name(reference)}: {', '.join(said)}.",
    )


def adjusted(found: Outcome) -> str:
    """Behind a level: for how many comparisons it is adjusted, if for several."""
    count = len(found.judged.pairs) if found.judged else 0
    return f", adjusted for {count} comparisons" if count > 1 else ""
