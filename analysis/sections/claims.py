"""What may be written of a cohort's outcome, ready to paste, and what may not."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from analysis.page.items import many, prose
from analysis.sections import looks
from analysis.sections.outcome import (
    FOUND,
    Outcome,
    adjusted,
    failures_counted,
    listed,
    rate,
    signed,
    trade_offs,
)
from analysis.statistics import confidence
from analysis.statistics.pairs import Judgement, Pair
from analysis.statistics.power import POWER, detectable_for_new_training_sets


@dataclass(frozen=True)
class Claims:
    """Sentences that the evidence carries, and claims that it does not, each with its reason."""

    may: list[str]
    may_not: list[tuple[str, str]]

    def html(self) -> Markup:
        """Both as boxes beside the verdict."""
        lines = Markup("").join(
            Markup("<li><q>{}</q> {}</li>").format(claim, prose(why)) for claim, why in self.may_not
        )
        return Markup(
            '<div class="claims"><h3>What you may write</h3><p class="paste">{}</p></div>'
            '<div class="claims not"><h3>What you may not write</h3><ul>{}</ul></div>'
        ).format(prose(" ".join(self.may)), lines)


def claims(found: Outcome) -> Claims:
    """In plain words, with the number of comparisons, patients, seeds and folds, and with what an
    interval assumes."""
    return Claims(may_write(found), may_not_write(found))


# ------------------------------------------------------------------------------------ what you may
def may_write(found: Outcome) -> list[str]:
    """Sentences for a paper."""
    if found.judged is None:
        return [*_design(found), *_alone(found), *_failures(found)]
    return [
        *_design(found),
        *_against_reference(found),
        *_best(found),
        *_assumption(found),
        *_threshold(found),
        *_trade(found),
        *_identical(found),
        *_failures(found),
    ]


def _design(found: Outcome) -> list[str]:
    cohort = found.cohort
    names = found.names(found.losses)
    what = f"the {found.one if len(found.losses) == 1 else found.several} {names}"
    if key := found.given.key_to_names:
        what += f" ({key})"
    done = int(cohort.done[found.losses].sum())
    asked = int((cohort.status[found.losses] != "").sum())
    complete = f"{done} of {asked} trainings completed"
    patients = many(cohort.num_subjects, "patient")
    if cohort.has_sessions:
        patients += f" ({many(cohort.num_cases, 'session')})"
    folds = (
        f"in {len(cohort.folds)}-fold cross-validation"
        if len(cohort.folds) > 1
        else "on one split into training and test images"
    )
    paired = ", paired by seed, fold and patient" if found.judged else ""
    verb = "compared" if found.judged else "judged"
    return [
        f"With {what}, networks were trained from {many(len(cohort.seeds), 'seed')} {folds} "
        f"({complete}) and {verb} by the DSC of the test images of {patients} ({cohort.title}) "
        f"after the last epoch ({cohort.num_epochs}){paired}.",
        *([rule] if (rule := looks.stop_to_write(found.given)) else []),
    ] + [
        f"{found.name(loss)} was not compared: {int(cohort.done[loss].sum())} of "
        f"{int((cohort.status[loss] != '').sum())} trainings completed."
        for loss in found.left
    ]


def _alone(found: Outcome) -> list[str]:
    (loss,) = found.losses[:1]
    mean = found.means["dice"][loss].estimate
    if mean != mean:
        return []
    return [f"{found.name(loss)} reached a mean DSC of {rate(mean)}. Nothing was compared."]


def _against_reference(found: Outcome) -> list[str]:
    groups: dict[str, list[str]] = {}
    for pair, said in found.against_reference:
        if pair.fit.num_cells:
            text = f"{found.name(pair.a)} ({found.difference(pair, said)})"
            groups.setdefault(said.in_words, []).append(text)
    apart = [
        f"{found.name(pair.a)} shares no training's seed and fold with "
        f"{found.name(found.reference)}: they were not compared."
        for pair, _ in found.against_reference
        if not pair.fit.num_cells
    ]
    if not groups:
        return apart
    order = ("better", "perhaps better", "practically equal", "not separated", "cannot tell",
             "perhaps worse", "worse")  # fmt: skip
    meaning = {
        "not separated": "not separated from it",
        "practically equal": "practically equal to it",
        "cannot tell": "not to be told from it in this design",
    }
    parts = []
    for word in [word for word in order if word in groups]:
        verb = "was" if len(groups[word]) == 1 else "were"
        parts.append(f"{listed(groups[word])} {verb} {meaning.get(word, word)}")
    return [f"In DSC, compared with {found.name(found.reference)}, {'; '.join(parts)}.", *apart]


def _best(found: Outcome) -> list[str]:
    """Whether there is a best loss."""
    if found.outright is None or found.second is None:
        return []
    assert found.judged is not None
    group = found.group(found.best)
    best, several = found.names(group), len(group) > 1
    if not found.not_beaten:
        others = len(found.order) - len(group)
        if any(found.failed[loss].diverged for loss in group):
            best += ", where training did not diverge,"
        verb = "were" if several else "was"
        return [f"{best} {verb} better than every other {found.one}."] if others > 1 else []
    tied = [loss for loss in found.not_beaten if loss not in found.group(found.reference)]
    if not tied or found.reference in group:
        return []
    pair, said = found.judged.of(found.best, tied[0])
    if not pair.fit.num_cells:
        return []
    verb = "were" if several else "was"
    return [
        f"{best} had the highest mean, but {verb} not shown to be better than "
        f"{found.names(tied)} (over {found.name(tied[0])}: {found.difference(pair, said)}), so no "
        f"{found.one} can be called the best."
    ]


def _assumption(found: Outcome) -> list[str]:
    """What the intervals are, and for whom they hold."""
    shown = [
        (pair, said)
        for pair, said in found.against_reference
        if found.interval(pair, said)[0] == found.interval(pair, said)[0]
    ]
    if not any(pair.fit.num_cells for pair, _ in found.against_reference):
        return []
    if not shown:
        return ["No interval for new training sets can be given for this design."]
    source = {
        "declared": "an assumption, not measured",
        "given": "an assumption, not measured",
    }.get(found.effect.source, found.effect.source)
    by_holm = " (Holm)" if adjusted(found) else ""
    text = (
        f"Intervals are {confidence.in_percent()}{adjusted(found)}{by_holm}; they hold "
        f"{looks.to_write(found.given)}, for new seeds, new patients and new training sets, if "
        "other training sets move a difference by a standard deviation of up to "
        f"{found.effect.tau_of('dice'):.3f} in DSC ({source})."
    )
    sentences = [text]
    perhaps = [(pair, said) for pair, said in shown if said.word == "suggestive"]
    if perhaps:
        parts = [
            f"{found.name(pair.a)} up to {said.survives_rounded:.3f}" for pair, said in perhaps
        ]
        sentences.append(
            "“Perhaps” means: it holds for new patients with these training sets, and survives a "
            f"smaller effect of other ones only ({listed(parts)})."
        )
    if any(said.word == "practically equal" for _, said in shown):
        sentences.append(
            f"Practically equal means that a difference of {found.given.rope:g} or more is refuted."
        )
    missed = [
        detectable_for_new_training_sets(pair.fit, said.level)
        for pair, said in shown
        if said.word == "not separated"
    ]
    if missed:
        least, most = f"{min(missed):.3f}", f"{max(missed):.3f}"
        size = most if least == most else f"{least} to {most} (by pair)"
        sentences.append(
            f"A true difference of {size} would have been found with a probability of "
            f"{confidence.in_percent(POWER)}; smaller ones may have been missed."
            if max(missed) < 1
            else "Even large differences may have been missed."
        )
    return sentences


def _threshold(found: Outcome) -> list[str]:
    """Differences that are of threshold alone, and those that are not found without it."""
    alone = {(pair.a, pair.b) for pair, _ in found.threshold_only}
    lost = [
        f"{found.name(pair.a)} ({signed(own.fit.estimate)})"
        for pair, said, own, also in found.at_both
        if pair.b == found.reference
        and (pair.a, pair.b) not in alone
        and said.word in FOUND
        and also.word not in FOUND
    ]
    open_at_own = (
        [
            f"With the threshold that the other folds choose for each {found.one}, {listed(lost)} "
            f"{'was' if len(lost) == 1 else 'were'} not shown to differ from "
            f"{found.name(found.reference)}."
        ]
        if lost
        else []
    )
    return open_at_own + [
        f"The difference between {found.name(pair.a)} and {found.name(pair.b)} is mostly one of "
        f"threshold: {signed(pair.fit.estimate)} at 0.5, {signed(own.fit.estimate)} when each "
        f"{found.one} has the threshold that the other folds choose, where none is found."
        for pair, own in found.threshold_only
    ]


def _trade(found: Outcome) -> list[str]:
    """Sensitivity that is paid for with precision; differences of both in brackets."""
    if not found.traded:
        return []
    further = all(one.holds == "L3" for one in found.traded)
    whom = "new training sets" if further else "new patients"
    words = trade_offs(found, ("was", "were"))
    return [f"{words[0].upper()}{words[1:]}, which holds for {whom}."]


def _identical(found: Outcome) -> list[str]:
    return [
        f"{found.names(group)} gave identical results and count as one." for group in found.same
    ]


def _failures(found: Outcome) -> list[str]:
    parts = []
    for loss, one in found.failed.items():
        if one.diverged:
            low, high = one.diverged_interval
            parts.append(
                f"{one.diverged} of {one.ended} trainings with {found.name(loss)} diverged "
                f"({confidence.in_percent()} interval of the rate {low:.0%} to {high:.0%})"
            )
        if one.odd:
            parts.append(
                f"{one.odd} of {one.judged} trainings with {found.name(loss)} ended far from "
                "the others of their fold"
            )
    sentences = [f"{'; '.join(parts)}."] if parts else []
    if any(one.diverged for one in found.failed.values()):
        changed, text = failures_counted(found)
        sentences += [text] if changed else []
    return sentences


# -------------------------------------------------------------------------------- what you may not
def may_not_write(found: Outcome) -> list[tuple[str, str]]:
    """Claims that a reader is tempted to make, and why the evidence does not carry them."""
    return [
        *_not_of_absence(found),
        *_not_of_rank(found),
        *_not_of_difference(found),
        *_not_of_failures(found),
        *_not_of_metrics(found),
        *_not_in_general(found),
    ]


def _not_of_rank(found: Outcome) -> list[tuple[str, str]]:
    refused = []
    if found.judged is None:
        name = found.name(found.losses[0])
        return [(f"{name} is a good {found.one}.", "There is nothing that it was compared with.")]
    best = found.names(found.group(found.best))
    if found.not_beaten and found.second is not None:
        verb = "is" if len(found.group(found.best)) == 1 else "are"
        refused.append(
            (
                f"{best} {verb} the best.",
                f"It was not shown to be better than {found.names(found.not_beaten)}. Nor may the "
                f"{found.several} be ranked by their means.",
            )
        )
    refused += [
        (
            f"{found.name(group[0])} ranks above {found.name(group[1])}.",
            "Their scores are identical to the bit.",
        )
        for group in found.same
    ]
    return refused


def _not_of_difference(found: Outcome) -> list[tuple[str, str]]:
    """Of single differences: what is open, what depends on training sets, what is threshold."""
    refused: list[tuple[str, str]] = []
    words: dict[str, list[tuple[Pair, Judgement]]] = {}
    for pair, said in found.against_reference:
        words.setdefault(said.word, []).append((pair, said))
    reference = found.name(found.reference)
    if open_ones := words.get("not separated"):
        names = found.names([pair.a for pair, _ in open_ones])
        verb = "performs" if len(open_ones) == 1 else "perform"
        refused.append(
            (
                f"{names} {verb} as well as {reference}.",
                "Nothing was found; that is not evidence of being equal.",
            )
        )
    if perhaps := words.get("suggestive"):
        pair, said = perhaps[0]
        better = said.in_words.removeprefix("perhaps ")
        refused.append(
            (
                f"{found.name(pair.a)} is {better} than {reference}.",
                "Other training patients could undo it: say “perhaps”, and up to which effect.",
            )
        )
    untold = [pair for pair, _ in words.get("cannot tell", []) if pair.fit.num_cells]
    if untold:
        pair = untold[0]
        seeds, folds = len(found.cohort.seeds), len(found.cohort.folds)
        refused.append(
            (
                f"{found.name(pair.a)} is significantly different from {reference}.",
                f"{many(seeds, 'seed').capitalize()} in {many(folds, 'fold')} cannot tell a "
                "difference from chance, whatever the p-value of a test over patients.",
            )
        )
    for pair, _own in found.threshold_only:
        better = "better" if pair.fit.estimate > 0 else "worse"
        refused.append(
            (
                f"{found.name(pair.a)} segments {better} than {found.name(pair.b)}.",
                "At its own threshold nothing of that was found: it is a matter of threshold.",
            )
        )
    return refused


def _not_of_failures(found: Outcome) -> list[tuple[str, str]]:
    bad = [loss for loss, one in found.failed.items() if one.diverged and loss in found.losses]
    refused = []
    for loss in bad:
        one = found.failed[loss]
        refused.append(
            (
                f"The mean DSC of {found.name(loss)} is {rate(_mean(found, loss))}.",
                f"Not without saying that {one.diverged} of {one.ended} trainings diverged and are "
                "not in it.",
            )
        )
    for loss, one in found.failed.items():
        if one.odd and loss in found.losses and loss not in bad:
            refused.append(
                (
                    f"The mean DSC of {found.name(loss)} is {rate(_mean(found, loss))}.",
                    f"Not without saying that {one.odd} of {one.judged} trainings ended far from "
                    "the others: the mean is of both.",
                )
            )
    return refused


def _mean(found: Outcome, loss: int) -> float:
    return found.means["dice"][loss].estimate


def _not_of_metrics(found: Outcome) -> list[tuple[str, str]]:
    refused = []
    for loss in found.hardly:
        precision = found.means["precision"][loss].estimate
        if not precision > found.means["sensitivity"][loss].estimate:
            continue
        refused.append(
            (
                f"{found.name(loss)} has a high precision ({rate(precision)}).",
                f"It finds {rate(found.means['sensitivity'][loss].estimate)} of lesion voxels: it "
                "predicts hardly anything.",
            )
        )
    if found.judged is None:
        return refused
    traded = [one for one in found.traded if found.judged.of(one.a, one.b)[1].word not in FOUND]
    if traded:
        refused.append(
            (
                f"{found.name(traded[0].a)} is better than {found.name(traded[0].b)}, since it is "
                "more sensitive.",
                "It pays with precision; in DSC nothing was found.",
            )
        )
    best = found.best
    other = next((loss for loss in found.order if loss not in found.group(best)), None)
    if other is not None:
        refused.append(
            (
                f"{found.name(best)} finds more lesions than {found.name(other)}.",
                "Lesions found and false lesions are counted, not tested: the verdicts are of DSC.",
            )
        )
    return refused


def _not_of_absence(found: Outcome) -> list[tuple[str, str]]:
    refused = []
    cohort = found.cohort
    if found.left:
        refused.append(
            (
                f"{found.names(found.left)} is better or worse than another {found.one}.",
                "Too few of its trainings are complete to compare it.",
            )
        )
    waiting = int(
        ((cohort.status != "") & (cohort.status != "done") & (cohort.status != "diverged")).sum()
    )
    if waiting:
        refused.append(
            ("This is the final result.", f"{many(waiting, 'training')} of the plan are missing.")
        )
    if found.judged is not None and found.given.reference_note(cohort):
        refused.append(
            (
                f"… compared with {found.given.reference}.",
                f"It cannot be compared: the reference here is {found.name(found.reference)}.",
            )
        )
    return refused


def _not_in_general(found: Outcome) -> list[tuple[str, str]]:
    """Beyond this cohort and this network."""
    given = found.given
    refused = []
    if given.search is not None:
        refused.append(
            (
                "The search's score is what new patients will get.",
                "It was chosen for being high; the test score of each fold's own choice is not.",
            )
        )
    if len(given.cohorts) > 1:
        names = listed([cohort.title for cohort in given.cohorts])
        refused.append(
            ("It holds on all cohorts.", f"{names} are judged each for itself; read each box.")
        )
    networks = "these networks" if "network" in found.given.arms.varied else "one network"
    if found.judged is not None:
        refused.append(
            (
                "… for lesion segmentation in general.",
                f"It is about {networks}, these settings, and patients like those of "
                f"{found.cohort.title}.",
            )
        )
    return refused
