"""What came out, in three sentences per cohort: computed words, no stars."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from analysis.flags import ROPE
from analysis.page.items import decimals_for, prose, written
from analysis.reading.scores import CohortScores
from analysis.sections.seeds import counted
from analysis.statistics import confidence
from analysis.statistics.ladder import RUNG_NAMES, Ladder
from analysis.statistics.lottery import complete_cells, fresh_flip, full_lottery, winner_shares
from analysis.statistics.order import best_first, shared_means
from analysis.statistics.pairs import (
    Pair,
    adjusted,
    against,
    compare,
    judge,
)

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
    "L3c": "for new seeds, new patients and new training sets, even by the cautious count",
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
        lines = "".join(f"<p>{prose(sentence)}</p>" for sentence in self.sentences)
        return Markup(
            f'<div class="verdict"><h3>{html.escape(self.cohort)}</h3>'
            f'<p class="word {HEADLINES[self.word]}">{html.escape(self.headline)}</p>{lines}</div>'
        )


def verdict(cohort: CohortScores, reference: int, rope: float = ROPE) -> Verdict:
    """Primary question, declared beforehand: test DSC at the last epoch, every loss against the
    reference, Holm-adjusted.  Then the best against the second, and what one seed would say."""
    scores = cohort.last_by_case(cohort.test)[..., 0]
    if len(cohort.shown) < 2:
        name = cohort.losses[cohort.shown[0]]
        return Verdict(
            cohort.title,
            "cannot tell",
            "One loss, nothing to compare",
            [f"Only {name} has complete trials. {cohort.presence}."],
        )
    pairs = against(scores, cohort.fold_of, cohort.shown, reference, cohort.subject_of)
    words = dict(zip((pair.a for pair in pairs), judge(pairs, rope), strict=True))
    order = best_first(scores, cohort)
    best, second = order[0], order[1]
    runner_up = compare(scores, cohort.fold_of, best, second, cohort.subject_of)
    challenger = best if best != reference else second
    pair = next(pair for pair in pairs if pair.a == challenger)
    word = words[challenger]
    name, against_name = cohort.losses[challenger], cohort.losses[reference]
    sentences = [_best_sentence(cohort, scores, best, second)]
    sentences.append(_difference_sentence(cohort, pair, word, rope, pairs))
    sentences.append(_seed_sentence(cohort, scores, runner_up))
    others = [
        f"{cohort.losses[other.a]} {words[other.a]}" for other in pairs if other.a != challenger
    ]
    if others:
        sentences.append(f"Against {against_name}, the others: {', '.join(others)}.")
    headline = {
        "separated": f"{name} and {against_name} are separated",
        "suggestive": f"{name} against {against_name}: suggestive",
        "practically equal": f"{name} and {against_name} are practically equal",
        "not separated": f"{name} and {against_name} are not separated",
        "cannot tell": "This design cannot tell",
    }[word]
    return Verdict(cohort.title, word, headline, sentences)


def _best_sentence(cohort: CohortScores, scores: np.ndarray, best: int, second: int) -> str:
    fits = shared_means(scores, cohort)
    if np.isnan(fits[best].estimate):
        return "DSC is undefined for every test image: nothing was predicted, nothing was there."
    present = ~np.isnan(scores[cohort.shown])
    present = present[present.any((1, 2))]
    warning = ""
    if not (present == present[0]).all():
        sizes = [fit for fit in fits.values() if fit.num_cells]
        warning = (
            " Some losses lack trials or cases; these means are over what all have, "
            f"{_cells(cohort, sizes[0])}."
            if present.all(0).any()
            else " These means are not over the same patients: the losses have no trial in common."
        )
    return (
        f"**{cohort.losses[best]}** has the highest mean test DSC at the last epoch, "
        f"{written(fits[best].estimate, '.3f')}; {cohort.losses[second]} is next with "
        f"{written(fits[second].estimate, '.3f')}.{warning}"
    )


def _difference_sentence(
    cohort: CohortScores, pair: Pair, word: str, rope: float, family: list[Pair]
) -> str:
    fit = pair.fit
    if not fit.num_cells:
        return (
            f"{cohort.losses[pair.a]} and {cohort.losses[pair.b]} have no trial in common, so "
            "they cannot be compared."
        )
    form = f"+.{decimals_for([fit.se['L3'], fit.se['L2']])}f"
    low, high = fit.interval("L3")
    between = f"{cohort.losses[pair.a]} minus {cohort.losses[pair.b]}"
    text = f"{between}: **{written(fit.estimate, form)}**"
    if low == low:
        text += (
            f" ({confidence.in_percent()} for new training sets {written(low, form)} to "
            f"{written(high, form)})"
        )
    known = [rung for rung in ("L1", "L2", "L3") if fit.df[rung] > 0]
    if not known:
        return (
            f"{text}. One seed and one fold give no measure of chance at all. "
            f"{_cells(cohort, fit)}."
        )
    reached = fit.reached()
    if "L1" in known:
        text += f". It holds {HOLDS[reached]}"
        beyond, name = NEXT.get(reached, ("", ""))
        if beyond in known:
            text += f", but not for {name}"
    else:
        text += ". No fold has a second seed in common"
    if reached in ("L3", "L3c") and len(family) > 1:
        if max(adjusted(family)[family.index(pair)]) < confidence.error():
            text += ", also after adjusting for the other comparisons"
        else:
            text += f", before adjusting for {len(family)} comparisons (Holm), but not after"
    if word == "practically equal":
        text += f"; whatever the difference is, it is smaller than {rope:g}"
    unknown = [RUNG_NAMES[rung].lstrip("+ ") for rung in ("L1", "L2", "L3") if rung not in known]
    if unknown:
        text += f"; about {' and '.join(unknown)} this design can say nothing"
    return f"{text}. {_cells(cohort, fit)}."


def _cells(cohort: CohortScores, fit: Ladder) -> str:
    return (
        f"{fit.num_cells} of {len(cohort.seeds) * len(cohort.folds)} (seed, fold) cells, "
        f"{cohort.part(fit.num_cases, fit.num_subjects)}"
    )


def _seed_sentence(cohort: CohortScores, scores: np.ndarray, pair: Pair) -> str:
    fit = pair.fit
    a, b = (pair.b, pair.a) if fit.estimate < 0 else (pair.a, pair.b)
    best, second = cohort.losses[a], cohort.losses[b]
    if len(cohort.seeds) < 2:
        return "With one seed per fold, nobody can tell how much of this is luck."
    complete = complete_cells(scores, cohort.fold_of, cohort.shown, cohort.subject_of)
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
