"""What came out, in a few sentences per cohort: computed words, no stars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from analysis.page.items import decimals_for, prose, written
from analysis.reading.scores import CohortScores
from analysis.reading.training_effect import TrainingEffect
from analysis.sections.report_input import ReportInput, family
from analysis.sections.seeds import counted
from analysis.statistics import confidence
from analysis.statistics.absence import (
    compared,
    complete_grid,
    failures,
    failures_as_zero,
    given_up,
)
from analysis.statistics.ladder import RUNG_NAMES, RUNGS, Ladder
from analysis.statistics.lottery import complete_cells, fresh_flip, full_lottery, winner_shares
from analysis.statistics.order import best_first, shared_means
from analysis.statistics.pairs import Family, Judgement, Pair, compare, equality_limit
from analysis.statistics.power import POWER, detectable_for_new_training_sets

HEADLINES = {
    "separated": "separated",
    "suggestive": "suggestive",
    "practically equal": "equal",
    "not separated": "open",
    "cannot tell": "open",
}
"""Verdict -> CSS class of its dot."""

HOLDS = {
    "": "not even for new seeds on the same patients",
    "L1": "for new seeds on the same patients",
    "L2": "for new seeds and new patients",
    "L3": "for new seeds, new patients and new training sets",
}
NEXT = {"L1": ("L2", "new patients"), "L2": ("L3", "new training sets")}
"""Highest rung reached -> the one that was not, and its name."""


@dataclass(frozen=True)
class Verdict:
    """The headline word and the sentences of one cohort."""

    cohort: str
    word: str
    headline: str
    sentences: list[str]

    def html(self) -> Markup:
        """The verdict as a box of the page."""
        lines = Markup("").join(
            Markup("<p>{}</p>").format(prose(sentence)) for sentence in self.sentences
        )
        return Markup('<div class="verdict"><h3>{}</h3><p class="word {}">{}</p>{}</div>').format(
            self.cohort, HEADLINES[self.word], self.headline, lines
        )


def verdict(given: ReportInput, cohort: CohortScores) -> Verdict:
    """Primary question, declared beforehand: test DSC at the last epoch, every loss against the
    reference, Holm-adjusted.  Then what one seed would say, and what training that failed does."""
    scores = cohort.last_by_case(cohort.test)[..., 0]
    note = [text] if (text := given.reference_note(cohort)) else []
    losses = compared(cohort)
    if len(losses) < 2:
        name = cohort.losses[losses[0]]
        sentences = [*note, f"Only {name} has complete trials. {cohort.presence}."]
        return Verdict(
            cohort.title,
            "cannot tell",
            "One loss, nothing to compare",
            sentences + _failure_sentences(given, cohort, scores, None),
        )
    judged = given.family(cohort)
    order = best_first(scores, cohort)
    pair, judgement = _headline_pair(judged, order)
    effect = given.training.of(cohort.name)
    sentences = [*note, _best_sentence(cohort, scores, order[0], order[1])]
    sentences.append(_difference_sentence(cohort, pair, judgement, judged, effect, given.rope))
    first_two = compare(scores, cohort.fold_of, order[0], order[1], cohort.subject_of)
    sentences.append(_seed_sentence(cohort, scores, first_two))
    others = [
        f"{cohort.losses[other.a]} {said.in_words}"
        for other, said in judged.against_reference
        if {other.a, other.b} != {pair.a, pair.b}
    ]
    if others:
        reference = cohort.losses[judged.reference]
        sentences.append(f"Against {reference}, the others: {', '.join(others)}.")
    sentences += _failure_sentences(given, cohort, scores, judged)
    return Verdict(cohort.title, judgement.word, _headline(cohort, pair, judgement), sentences)


def _headline_pair(judged: Family, order: list[int]) -> tuple[Pair, Judgement]:
    """The best against the reference, or against the next one if it is the reference; the higher
    mean first."""
    challenger = order[0] if order[0] != judged.reference else order[1]
    pair, judgement = judged.of(challenger, judged.reference)
    if judgement.sign < 0 and pair.fit.num_cells:
        return judged.of(judged.reference, challenger)
    return pair, judgement


def _headline(cohort: CohortScores, pair: Pair, judgement: Judgement) -> str:
    a, b = cohort.losses[pair.a], cohort.losses[pair.b]
    better = "better" if judgement.sign > 0 else "worse"
    return {
        "separated": f"{a} is {better} than {b}",
        "suggestive": f"{a} may be {better} than {b}",
        "practically equal": f"{a} and {b} are practically equal",
        "not separated": f"{a} and {b} are not separated",
        "cannot tell": "This design cannot tell",
    }[judgement.word]


def _best_sentence(cohort: CohortScores, scores: np.ndarray, best: int, second: int) -> str:
    fits = shared_means(scores, cohort)
    if np.isnan(fits[best].estimate):
        return "DSC is undefined for every test image: nothing was predicted, nothing was there."
    losses = list(fits)
    done = cohort.done[losses]
    present = ~np.isnan(scores[losses])
    present = present[present.any((1, 2))]
    warning = ""
    if not (present == present[0]).all() or not present[0].all():
        sizes = [fit for fit in fits.values() if fit.num_cells]
        lacking = "trials" if not done.all() else "a defined DSC in some cases"
        warning = (
            f" Some losses lack {lacking}; these means are over what all have, "
            f"{_cells(cohort, sizes[0])}."
            if present.all(0).any()
            else " These means are not over the same patients: the losses have no trial in common."
        )
    return (
        f"**{cohort.losses[best]}** has the highest mean test DSC at the last epoch, "
        f"{written(fits[best].estimate, '.3f')}; {cohort.losses[second]} is next with "
        f"{written(fits[second].estimate, '.3f')}.{warning}{given_up(cohort)}"
    )


def _difference_sentence(
    cohort: CohortScores,
    pair: Pair,
    judgement: Judgement,
    judged: Family,
    effect: TrainingEffect,
    rope: float,
) -> str:
    fit = pair.fit
    a, b = cohort.losses[pair.a], cohort.losses[pair.b]
    if not fit.num_cells:
        return f"{a} and {b} have no trial in common, so they cannot be compared."
    form = f"+.{decimals_for([fit.base_se])}f"
    text = f"{a} minus {b}: **{written(fit.estimate, form)}**"
    low, high = fit.interval("L3", judgement.level)
    if low == low:
        adjusted = (
            f", adjusted for {len(judged.pairs)} comparisons" if len(judged.pairs) > 1 else ""
        )
        text += (
            f" ({confidence.in_percent()} for new training sets{adjusted}: "
            f"{written(low, form)} to {written(high, form)})"
        )
    known = [rung for rung in RUNGS if fit.df[rung] > 0]
    if not known:
        return f"{text}. {_no_chance(fit)} {_cells(cohort, fit)}."
    reached = judgement.holds
    if judgement.word == "practically equal":
        text += f". Whatever the difference is, it is smaller than {rope:g}"
    elif reached or "L1" in known:
        text += f". It holds {HOLDS[reached]}" + (
            ", after adjusting for the other comparisons" if len(judged.pairs) > 1 else ""
        )
        beyond, name = NEXT.get(reached, ("", ""))
        if beyond in known:
            text += f", but not for {name}"
    else:
        text += ". It does not hold for new seeds and patients"
    if "L1" not in known:
        text += "; no fold has a second seed in common, so seeds and patients count together"
    unknown = [RUNG_NAMES[rung].lstrip("+ ") for rung in ("L2", "L3") if rung not in known]
    if unknown:
        text += f"; about {' and '.join(unknown)} this design can say nothing"
    return f"{text}.{_robustness(fit, judgement, effect, rope)} {_cells(cohort, fit)}."


def _no_chance(fit: Ladder) -> str:
    if fit.num_cells == 1:
        return "One seed and one fold give no measure of chance at all."
    return "So few seeds and folds give no measure of chance."


def _robustness(fit: Ladder, judgement: Judgement, effect: TrainingEffect, rope: float) -> str:
    """Up to which training-set effect the verdict stands, beside what it may be compared with."""
    if not fit.df["L3"] > 0:
        return ""
    yard = [f"assumed here: {effect.in_words}"]
    if effect.measured:
        found = effect.measured["dice"]
        yard[0] += f", best estimate {found['estimate']:.3f}"
    if fit.components.run == fit.components.run:
        yard.append(f"the luck of one training here: {math.sqrt(fit.components.run):.3f}")
    beside = f" ({'; '.join(yard)})."
    if judgement.word == "practically equal":
        return f" This assumes a training-set effect with SD up to {effect.in_words}."
    if judgement.survives == judgement.survives:
        return (
            f" The difference survives training-set effects up to SD "
            f"**{judgement.survives_rounded:.3f}**{beside}"
        )
    found = detectable_for_new_training_sets(fit, judgement.level)
    least = (
        f"a true difference of {found:.3f} would be found by {confidence.in_percent(POWER)} of "
        "such sweeps"
        if math.isfinite(found)
        else f"no difference that DSC can have would be found by {confidence.in_percent(POWER)} "
        "of such sweeps"
    )
    limit = equality_limit(fit, rope)
    equal = (
        f" That the losses are equal within ±{rope:g} could not be shown by any number of seeds "
        f"here: for that the training-set effect has to be below {limit:.3f}."
        if effect.tau_of("dice") >= limit
        else ""
    )
    return f" Of this design, {least}, at a training-set effect{beside}{equal}"


def _cells(cohort: CohortScores, fit: Ladder) -> str:
    return (
        f"{fit.num_cells} of {len(cohort.seeds) * len(cohort.folds)} (seed, fold) cells, "
        f"{cohort.part(fit.num_cases, fit.num_subjects)}"
    )


def _failure_sentences(
    given: ReportInput, cohort: CohortScores, scores: np.ndarray, judged: Family | None
) -> list[str]:
    """How often training diverged, what the verdict is if that counts, and trainings that ended
    far from their siblings."""
    found = failures(cohort, scores)
    sentences = []
    bad = {loss: one for loss, one in found.items() if one.diverged}
    if bad:
        rates = []
        for loss, one in bad.items():
            low, high = one.diverged_interval
            rates.append(
                f"{cohort.losses[loss]} in {one.diverged} of {one.ended} "
                f"({confidence.in_percent()} {low:.0%} to {high:.0%})"
            )
        text = f"Training diverged: {', '.join(rates)}."
        sentences.append(f"{text} {_counting_failures(given, cohort, scores, judged)}")
    odd = {loss: one for loss, one in found.items() if one.odd}
    if odd:
        rates = []
        for loss, one in odd.items():
            low, high = one.odd_interval
            rates.append(
                f"{one.odd} of {one.judged} of {cohort.losses[loss]} "
                f"({confidence.in_percent()} of its rate {low:.0%} to {high:.0%})"
            )
        sentences.append(
            f"**Some trainings ended far from others of their fold**: {', '.join(rates)}. "
            "Intervals that rest on Student's t cover less than they say where training "
            "sometimes collapses: read the rate beside the mean."
        )
    return sentences


def _counting_failures(
    given: ReportInput, cohort: CohortScores, scores: np.ndarray, judged: Family | None
) -> str:
    """The verdict if a training that diverged counts as DSC 0."""
    ended = (cohort.status == "done") | (cohort.status == "diverged")
    asked = [loss for loss in range(len(cohort.losses)) if ended[loss].any()]
    losses, _ = complete_grid(ended, asked)
    counted_in = failures_as_zero(scores, cohort)
    names = [cohort.losses[loss] for loss in losses]
    reference = losses[names.index(given.reference) if given.reference in names else 0]
    if len(losses) < 2:
        return "There is nothing to compare it with."
    again = family(counted_in, cohort, losses, reference, tau=given.tau(cohort), rope=given.rope)
    said = [
        f"{cohort.losses[pair.a]} {judgement.in_words}"
        for pair, judgement in again.against_reference
    ]
    same = (
        judged is not None
        and reference == judged.reference
        and losses == judged.losses
        and [one.in_words for _, one in again.against_reference]
        == [one.in_words for _, one in judged.against_reference]
    )
    return (
        "Counted as DSC 0 in every test case, it changes no verdict."
        if same
        else f"Counted as DSC 0 in every test case, against {cohort.losses[reference]}: "
        f"{', '.join(said)}."
    )


def _seed_sentence(cohort: CohortScores, scores: np.ndarray, pair: Pair) -> str:
    fit = pair.fit
    a, b = (pair.b, pair.a) if fit.estimate < 0 else (pair.a, pair.b)
    best, second = cohort.losses[a], cohort.losses[b]
    if len(cohort.seeds) < 2:
        return "With one seed per fold, nobody can tell how much of this is luck."
    complete = complete_cells(scores, cohort.fold_of, compared(cohort), cohort.subject_of)
    flip = fresh_flip(fit, fit.num_cells / max(fit.num_folds, 1), 1)
    if flip != flip or len(complete.losses) < 2 or len(complete.seeds) < 2:
        return (
            "Too few losses have two complete seeds in common to tell how much of this is luck: "
            f"{counted(cohort, complete)}"
        )
    worlds = full_lottery(complete.values, complete.weights, 1, np.random.default_rng([1]))
    shares = winner_shares(worlds)
    share = float(shares[complete.losses.index(a)]) if a in complete.losses else float("nan")
    text = (
        f"A sweep with a single fresh seed would put {second} above {best} in about "
        f"**{flip:.0%}** of repeats"
    )
    if share == share:
        text += (
            f"; with one of our seeds per fold, {best} wins among all losses in {share:.0%} "
            f"of {len(worlds)} draws"
        )
    return f"{text}. {counted(cohort, complete)}"
