"""What came out, in a few sentences per cohort: computed words, no stars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from analysis.page.items import many, prose
from analysis.reading.scores import CohortScores
from analysis.reading.training_effect import TrainingEffect
from analysis.sections import looks
from analysis.sections.outcome import (
    FEW,
    Outcome,
    adjusted,
    failures_counted,
    listed,
    rate,
    signed,
    trade_offs,
)
from analysis.sections.seeds import counted
from analysis.statistics import confidence
from analysis.statistics.absence import compared, given_up
from analysis.statistics.ladder import RUNG_NAMES, RUNGS, Ladder
from analysis.statistics.lottery import complete_cells, fresh_flip, full_lottery, winner_shares
from analysis.statistics.pairs import Family, Judgement, Pair, compare, equality_limit
from analysis.statistics.power import POWER, detectable_for_new_training_sets

HEADLINES = {
    "separated": "separated",
    "suggestive": "suggestive",
    "practically equal": "equal",
    "identical": "equal",
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
    lead: list[str]
    """What is always read."""
    more: list[str] = field(default_factory=list)
    """What stands behind it, folded away on the screen."""

    @property
    def sentences(self) -> list[str]:
        """All of them."""
        return [*self.lead, *self.more]

    def html(self) -> Markup:
        """The verdict as a box of the page."""
        return Markup('<div class="verdict"><h3>{}</h3><p class="word {}">{}</p>{}{}</div>').format(
            self.cohort,
            HEADLINES[self.word],
            self.headline,
            _paragraphs(self.lead),
            Markup(
                '<details class="fold"><summary>How sure, and what else</summary>{}</details>'
            ).format(_paragraphs(self.more))
            if self.more
            else "",
        )


def _paragraphs(sentences: list[str]) -> Markup:
    return Markup("").join(Markup("<p>{}</p>").format(prose(one)) for one in sentences)


def verdict(found: Outcome) -> Verdict:
    """The primary question, the best two outright, and what else a reader has to know: trade-offs,
    differences of threshold alone, identical losses, failures.  Folded: what one seed would say."""
    given, cohort, scores = found.given, found.cohort, found.scores
    note = [text] if (text := given.reference_note(cohort)) else []
    failed, more = _failure_sentences(found)
    if found.judged is None:
        name = found.name(found.losses[0])
        return Verdict(
            cohort.title,
            "cannot tell",
            f"One {found.one}, nothing to compare",
            [*note, f"Only {name} has complete trials. {cohort.presence}.", *failed],
            more,
        )
    headline = found.headline
    if headline is None or found.second is None:  # all are one and the same
        return Verdict(
            cohort.title,
            "identical",
            f"{found.names(found.losses)} are identical",
            [*note, *_identical_sentences(found), *_hardly_sentences(found), *failed],
            more,
        )
    pair, said = headline
    lead = [_best_sentence(found), _outright_sentence(found)]
    if len(found.not_beaten) == len(found.order) - len(found.group(found.best)):
        lead.reverse()  # a tie of all names nobody first
    lead = [*note, *lead]
    effect, rope = found.effect, given.rope
    if not _same_pair(headline, found.outright):
        lead.append(_primary_sentence(found, pair, said))
    lead += [
        *_identical_sentences(found),
        *_trade_sentences(found),
        *_hardly_sentences(found),
        *_threshold_sentences(found),
        *failed,
    ]
    first_two = compare(scores, cohort.fold_of, found.best, found.second, cohort.subject_of)
    more = [
        _difference_sentence(cohort, pair, said, found.judged, effect, rope, found.several),
        _seed_sentence(cohort, scores, first_two, found.group(found.best), found.several),
        *(
            [
                f"**Trade-off:** no {found.one} was found to buy sensitivity with precision, in "
                f"{many(len(found.asked), 'pair')} (each with the reference, the best with those "
                "that it does not beat)."
            ]
            if found.trade_tested and not found.traded
            else []
        ),
        *more,
        *looks.in_the_box(given),
    ]
    return Verdict(cohort.title, said.word, _headline(found, pair, said), lead, more)


def _same_pair(one: tuple[Pair, Judgement] | None, other: tuple[Pair, Judgement] | None) -> bool:
    return (
        one is not None and other is not None and {one[0].a, one[0].b} == {other[0].a, other[0].b}
    )


def _headline(found: Outcome, pair: Pair, judgement: Judgement) -> str:
    judged = found.judged
    words = {said.word for said in judged.judgements} if judged else set()
    if len(found.losses) > 2 and words == {"not separated"}:
        return f"No difference was found between {len(found.losses)} {found.several}"
    first, second = found.group(pair.a), found.group(pair.b)
    a, b, both = (found.names(losses) for losses in (first, second, [*first, *second]))
    verb = "is" if len(first) == 1 else "are"
    better = "better" if judgement.sign > 0 else "worse"
    some = any(found.failed[loss].diverged for loss in (pair.a, pair.b))
    where = ", where training did not diverge" if some else ""
    return {
        "separated": f"{a} {verb} {better} than {b}{where}",
        "suggestive": f"{a} may be {better} than {b}{where}",
        "practically equal": f"{both} are practically equal",
        "not separated": f"{both} are not separated",
        "cannot tell": "This design cannot tell",
    }[judgement.word]


def _best_sentence(found: Outcome) -> str:
    cohort, fits = found.cohort, found.means["dice"]
    best = found.best
    if np.isnan(fits[best].estimate):
        return "DSC is undefined for every test image: nothing was predicted, nothing was there."
    losses = found.losses
    done = cohort.done[losses]
    present = ~np.isnan(found.scores[losses])
    present = present[present.any((1, 2))]
    warning = ""
    if not (present == present[0]).all() or not present[0].all():
        sizes = [fits[loss] for loss in losses if fits[loss].num_cells]
        short = [loss for loss, own in zip(losses, done, strict=True) if not own.all()]
        lacking = (
            f"Of {found.names(short)} some trainings are missing"
            if short
            else f"Some {found.several} lack a defined DSC in some cases"
        )
        warning = (
            f" {lacking}; these means are over what all have, {_cells(cohort, sizes[0])}."
            if present.all(0).any()
            else f" These means are not over the same patients: the {found.several} have no trial "
            "in common."
        )
    group = found.group(best)
    has = "has" if len(group) == 1 else "have"
    next_one = (
        ""
        if found.second is None
        else f"; {found.names(found.group(found.second))} "
        f"{'is' if len(found.group(found.second)) == 1 else 'are'} next with "
        f"{rate(fits[found.second].estimate)}"
    )
    names = listed([f"**{found.name(loss)}**" for loss in group])
    return (
        f"{names} {has} the highest mean test DSC at the last epoch, "
        f"{rate(fits[best].estimate)}{next_one}.{warning}{given_up(cohort)}"
    )


def _outright_sentence(found: Outcome) -> str:
    """Is the best one the best: against the second, and against all others."""
    assert found.outright and found.judged and found.second is not None
    pair, said = found.outright
    best, second = found.names(found.group(found.best)), found.names(found.group(found.second))
    if not pair.fit.num_cells:
        return f"**Best?** {best} and {second} have no trial in common: one cannot say."
    size = f"{best} minus {second}: {_size(found, pair, said)}"
    group = found.group(found.best)
    verb = "is" if len(group) == 1 else "are"
    if not found.not_beaten:
        more = len(found.order) > len(group) + len(found.group(found.second))
        others = f" and every other {found.one}" if more else ""
        yes = "Yes"
        if any(found.failed[loss].diverged for loss in group):
            yes = "Yes, among trainings that did not diverge"
        return (
            f"**Best?** {yes}: {best} {verb} better than {second}{others}. {size}.{_bears(found)}"
        )
    words: dict[str, list[str]] = {}
    for loss in found.not_beaten:
        words.setdefault(found.judged.of(found.best, loss)[1].in_words, []).append(found.name(loss))
    parts = [
        {
            "perhaps better": "perhaps better than {}",
            "not separated": "not separated from {}",
            "practically equal": "practically equal to {}",
            "cannot tell": "not to be told from {} in this design",
        }.get(word, word + " than {}").format(listed(names))
        for word, names in words.items()
    ]
    answer = "None that matters" if set(words) == {"practically equal"} else "One cannot say"
    survives = (
        f" That holds for new patients, but only if other training patients move a difference by "
        f"an SD of at most **{said.survives_rounded:.3f}**; assumed: {found.effect.in_words}."
        if said.word == "suggestive"
        else ""
    )
    return f"**Best?** {answer}: {best} {verb} {listed(parts)}. {size}.{survives}"


def _size(found: Outcome, pair: Pair, said: Judgement) -> str:
    """A difference, and its interval with its level."""
    low, high = found.interval(pair, said)
    if low != low:
        return f"**{signed(pair.fit.estimate)}** (no interval for new training sets)"
    return (
        f"**{signed(pair.fit.estimate)}** ({signed(low)} to {signed(high)}; "
        f"{confidence.in_percent()} for new training sets{adjusted(found)})"
    )


def _bears(found: Outcome) -> str:
    """How much of what training sets may do the best one's lead over all others bears."""
    borne = found.lead_survives
    if borne != borne:
        return ""
    return (
        " Other training patients may move a difference by an SD of up to "
        f"**{borne:.3f}** before any of that falls; assumed: {found.effect.in_words}."
    )


def _primary_sentence(found: Outcome, pair: Pair, said: Judgement) -> str:
    """The declared comparison, where it is not that of the best two."""
    if not pair.fit.num_cells:
        names = found.names([pair.a, pair.b])
        return f"**Against the reference:** {names} have no trial in common."
    return (
        f"**Against the reference:** {found.name(pair.a)} minus {found.name(pair.b)}: "
        f"{_size(found, pair, said)}, {_to_the_point(said)}."
    )


def _to_the_point(said: Judgement) -> str:
    """What one judgement means, in half a sentence."""
    if said.word == "suggestive":
        return (
            "which holds for new patients, but not for new training sets: it survives effects up "
            f"to SD {said.survives_rounded:.3f}"
        )
    return {
        "separated": f"which holds {HOLDS['L3']}",
        "practically equal": "practically equal",
        "not separated": "not separated: nothing was found, which is not the same as equal",
        "cannot tell": "of which this design can say nothing for new training sets",
    }[said.word]


def _identical_sentences(found: Outcome) -> list[str]:
    return [
        f"**Identical:** {found.names(group)} have the same scores to the bit in every training "
        "that they share. They are one result, and not ranked among themselves."
        for group in found.same
    ]


def _trade_sentences(found: Outcome) -> list[str]:
    """Sensitivity bought with precision."""
    sentences = []
    if found.traded:
        further = all(one.holds == "L3" for one in found.traded)
        sentences.append(
            f"**Trade-off:** {trade_offs(found, ('is', 'are'))}. Adjusted, for new "
            + ("training sets." if further else "patients; of new training sets nothing is known.")
        )
    elif not found.trade_tested:
        sentences.append(
            "**Trade-off:** sensitivity against precision could not be tested for new patients."
        )
    return sentences


def _hardly_sentences(found: Outcome) -> list[str]:
    """Losses that find next to nothing."""
    if not found.hardly:
        return []
    verb = "finds" if len(found.hardly) == 1 else "find"
    return [
        f"**Hardly predicts:** {found.names(found.hardly)} {verb} less than a tenth of lesion "
        "voxels; precision is then of a few voxels and says little."
    ]


def _threshold_sentences(found: Outcome) -> list[str]:
    """What is left at each loss's own threshold."""
    if found.at_own is None:
        missing = found.own_missing
        return [f"**Threshold:** every {found.one} at 0.5; not tried at others: {missing}."]
    alone, parts = found.threshold_only, []
    for pair, own in alone:
        parts.append(
            f"{found.name(pair.a)} differs from {found.name(pair.b)} at 0.5 only: "
            f"{signed(pair.fit.estimate)} there, {signed(own.fit.estimate)} at own thresholds "
            "chosen on the other folds, where nothing is found"
        )
    lonely = {(pair.a, pair.b) for pair, _ in alone}
    for pair, said, own, also in found.at_both:
        if (pair.a, pair.b) in lonely or said.in_words == also.in_words:
            continue
        parts.append(
            f"{found.name(pair.a)} against {found.name(pair.b)} is {said.in_words} at 0.5 "
            f"({signed(pair.fit.estimate)}), {also.in_words} at own thresholds "
            f"({signed(own.fit.estimate)})"
        )
    if not found.at_both:
        return []
    if not parts:
        return [
            f"**Threshold:** at each {found.one}'s own threshold, chosen on the other folds, the "
            "verdicts "
            "are the same."
        ]
    if len(parts) > FEW:
        parts = [*parts[:FEW], f"and {len(parts) - FEW} more pairs"]
    return [f"**Threshold:** {'; '.join(parts)}."]


def _difference_sentence(
    cohort: CohortScores,
    pair: Pair,
    judgement: Judgement,
    judged: Family,
    effect: TrainingEffect,
    rope: float,
    several: str = "losses",
) -> str:
    fit = pair.fit
    a, b = cohort.losses[pair.a], cohort.losses[pair.b]
    if not fit.num_cells:
        return f"{a} and {b} have no trial in common, so they cannot be compared."
    text = f"{a} minus {b}: **{signed(fit.estimate)}**"
    low, high = fit.interval("L3", judgement.level)
    if low == low:
        among = f", adjusted for {len(judged.pairs)} comparisons" if len(judged.pairs) > 1 else ""
        text += (
            f" ({confidence.in_percent()} for new training sets{among}: "
            f"{signed(low)} to {signed(high)})"
        )
    known = [rung for rung in RUNGS if fit.df[rung] > 0]
    if not known:
        return f"{text}. {_no_chance(fit)} {_cells(cohort, fit)}."
    reached = judgement.holds
    if judgement.word == "practically equal":
        text += f". Whatever the difference is, it is smaller than {rope:g}"
    elif reached or "L1" in known:
        text += f". That there is a difference holds {HOLDS[reached]}" + (
            ", after adjusting for the other comparisons" if len(judged.pairs) > 1 else ""
        )
        beyond, name = NEXT.get(reached, ("", ""))
        if beyond in known:
            text += f", but not for {name}"
    else:
        text += ". That there is a difference does not hold for new seeds and patients"
    if "L1" not in known:
        text += "; no fold has a second seed in common, so seeds and patients count together"
    unknown = [RUNG_NAMES[rung].lstrip("+ ") for rung in ("L2", "L3") if rung not in known]
    if unknown:
        text += f"; about {' and '.join(unknown)} this design can say nothing"
    return f"{text}.{_robustness(fit, judgement, effect, rope, several)} {_cells(cohort, fit)}."


def _no_chance(fit: Ladder) -> str:
    if fit.num_cells == 1:
        return "One seed and one fold give no measure of chance at all."
    return "So few seeds and folds give no measure of chance."


def _robustness(
    fit: Ladder, judgement: Judgement, effect: TrainingEffect, rope: float, several: str
) -> str:
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
        f" That the {several} are equal within ±{rope:g} could not be shown by any number of seeds "
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


def _failure_sentences(found: Outcome) -> tuple[list[str], list[str]]:
    """How often training diverged, and trainings that ended far from their siblings; then what
    that does to the verdict."""
    lead, more = [], []
    bad = {loss: one for loss, one in found.failed.items() if one.diverged}
    if bad:
        rates = []
        for loss, one in bad.items():
            low, high = one.diverged_interval
            rates.append(
                f"{found.name(loss)} in {one.diverged} of {one.ended} trainings ({low:.0%} to "
                f"{high:.0%}, {confidence.in_percent()} interval)"
            )
        lead.append(
            f"**Training diverged:** {', '.join(rates)}. Scores are of the other trainings."
        )
        changed, text = failures_counted(found)
        (lead if changed else more).append(text)
    odd = {loss: one for loss, one in found.failed.items() if one.odd}
    if odd:
        rates = []
        for loss, one in odd.items():
            low, high = one.odd_interval
            rates.append(
                f"{one.odd} of {one.judged} of {found.name(loss)} "
                f"({low:.0%} to {high:.0%}, {confidence.in_percent()} interval)"
            )
        lead.append(f"**Some trainings ended far from others of their fold:** {', '.join(rates)}.")
        more.append(
            "Intervals that rest on Student's t cover less than they say where training "
            "sometimes collapses: read the rate beside the mean."
        )
    asked = int((found.cohort.status != "").sum())
    if int(found.cohort.done.sum()) == asked and not odd:
        judged = all(one.judged for one in found.failed.values())
        alike = f", and none ended far from others of its {found.one} and fold" if judged else ""
        lead.append(f"**Trainings:** all {asked} completed{alike}.")
    return lead, more


def _seed_sentence(
    cohort: CohortScores,
    scores: np.ndarray,
    pair: Pair,
    group: Sequence[int] = (),
    several: str = "losses",
) -> str:
    """What one seed would have said; ``group``: the best ones, if they are identical;
    ``several``: what is compared, in words."""
    fit = pair.fit
    a, b = (pair.b, pair.a) if fit.estimate < 0 else (pair.a, pair.b)
    best, second = cohort.losses[a], cohort.losses[b]
    if len(cohort.seeds) < 2:
        return "With one seed per fold, nobody can tell how much of this is luck."
    complete = complete_cells(scores, cohort.fold_of, compared(cohort), cohort.subject_of)
    flip = fresh_flip(fit, fit.num_cells / max(fit.num_folds, 1), 1)
    if flip != flip or len(complete.losses) < 2 or len(complete.seeds) < 2:
        return (
            f"Too few {several} have two complete seeds in common to tell how much of this is "
            f"luck: {counted(cohort, complete, several)}"
        )
    worlds = full_lottery(complete.values, complete.weights, 1, np.random.default_rng([1]))
    shares = winner_shares(worlds)
    alike = [loss for loss in group if loss in complete.losses] if a in group else [a]
    alike = alike if a in complete.losses else []
    share = float(sum(shares[complete.losses.index(loss)] for loss in alike)) if alike else np.nan
    some = (cohort.status[[a, b]] == "diverged").any()
    where = "Where training does not diverge, a" if some else "A"
    text = (
        f"{where} sweep with a single fresh seed would put {second} above {best} in about "
        f"**{flip:.0%}** of repeats"
    )
    if share == share:
        text += (
            f"; with one of our seeds per fold, {listed([cohort.losses[loss] for loss in alike])} "
            f"{'wins' if len(alike) == 1 else 'win'} among all {several} in {share:.0%} "
            f"of {len(worlds)} draws"
        )
    return f"{text}. {counted(cohort, complete, several)}"
