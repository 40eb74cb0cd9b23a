"""A results folder as one honest page: python analysis/report.py RESULTS [--out DIR].

Works on a sweep that is still running, too, and says what is missing.  Writes report.html (one
file, no network) with every figure (SVG, PDF, PNG, CSV) and table (CSV, Markdown, LaTeX) beside.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion_core import stopping

if __name__ == "__main__":
    stopping.hold()

from analysis import flags

if __name__ == "__main__":  # --help and wrong flags end here: what follows takes seconds to load
    flags.parser("analysis/report.py").parse_args()

import numpy as np
from markupsafe import Markup

from analysis.flags import FORMATS, PROFILES, ROPE
from analysis.page import style
from analysis.page.escaping import prose, without_marks
from analysis.page.items import (
    Figure,
    Pictures,
    Section,
    Table,
    many,
    render,
    templates,
    with_own_names,
)
from analysis.reading import checks
from analysis.reading.arms import short_names, shown_arms
from analysis.reading.imports import read_results
from analysis.reading.looks import Seen, look
from analysis.reading.names import search_as_shown, shown
from analysis.reading.scores import CohortScores, cohort_scores
from analysis.reading.training_effect import TrainingEffect
from analysis.reading.training_effect import training_effect as read_training_effect
from analysis.sections import (
    bands,
    bands_by_fold,
    calibration,
    chosen,
    claims,
    coverage,
    ensembles,
    factors,
    front,
    gap,
    gradients,
    imbalance,
    lesions,
    methods,
    overlays,
    pairs,
    policies,
    profiles,
    ranks,
    seeds,
    self_check,
    table2,
    thresholds,
    tradeoff,
    uncertainty,
    variance,
    verdict,
    violins,
    volumes,
)
from analysis.sections import search_outcome as search_section
from analysis.sections.outcome import Outcome, outcomes
from analysis.sections.report_input import ReportInput
from analysis.statistics.search_outcome import search_outcome, set_aside
from lesion_core.report_record import ledger_digest, write_record
from lesion_core.results import Sweep, read_search, write_bytes
from lesion_core.terminal import print_anything

SECTIONS: tuple[Callable[[ReportInput], Section | None], ...] = (
    search_section.section,
    coverage.section,
    imbalance.section,
    bands.section,
    bands_by_fold.section,
    table2.section,
    pairs.section,
    factors.section,
    violins.section,
    profiles.section,
    seeds.section,
    variance.section,
    self_check.section,
    ranks.section,
    tradeoff.section,
    thresholds.section,
    chosen.section,
    calibration.section,
    ensembles.section,
    uncertainty.section,
    lesions.section,
    volumes.section,
    gap.section,
    gradients.section,
    overlays.section,
    policies.section,
    methods.section,
)
"""Every question that a report answers, in its order; None is a section with nothing to say."""


PAGE_IDS = ("main", "all", "none", "theme", "unfold", "front")
"""Ids of the page's own parts, which no figure or table may have."""


def build(
    results: Path | str,
    out: Path | str | None = None,
    *,
    reference: str | None = None,
    rope: float = ROPE,
    profile: str = "methods",
    paper_colours: bool = False,
    formats: Sequence[str] = FORMATS,
    training_effect: str | None = None,
) -> Path:
    """Write the report of a results folder; returns the page's path.

    Args:
        results: the folder that holds sweep.json, or what `imports` reads: a folder of the
            authors' CSV files, or a tidy CSV.
        out: where to write; default: the folder `report` inside the results.
        reference: the loss that the others are compared with (default: xent, else the first).
        rope: differences in DSC up to this size count as none.
        profile: order of the sections: methods, or challenge (ranking and lesions first).
        paper_colours: overlays in green, red and blue as in the paper's Fig. 6 and 7, instead of
            colours that everybody can tell apart.
        formats: which files to write of each figure, of svg, pdf and png.
        training_effect: standard deviation of a difference in DSC over training sets, or the file
            of a measurement (default: the file in the results folder, else what is declared).

    Raises:
        ValueError: not a results folder, nothing was asked for in it, the reference has no
            complete trial, a training-set effect that cannot be read, or two figures or tables
            have the same key.
    """
    results = Path(results)
    beside = results if results.is_dir() else results.parent
    folder = Path(out) if out is not None else beside / "report"
    is_ledger = results.is_dir() and (results / "sweep.json").exists()
    if out is None and folder.is_symlink():
        raise ValueError(
            f"{folder}: is a link to {folder.readlink()}; say --out to write elsewhere"
        )
    digest = ledger_digest(results) if is_ledger else ""
    effect = read_training_effect(training_effect, beside)
    everything = read_results(results)
    seen = look(results, everything, digest) if is_ledger else Seen()
    given = report_input(everything, reference, rope, paper_colours, effect, seen)
    answers = [section(given) for section in SECTIONS]
    found = outcomes(given)
    first = front.front(given, found)
    sections = in_order([section for section in answers if section is not None], profile)
    if given.wording is not None:
        first, *sections = given.wording.sections([first, *sections])
    check_keys([first, *sections])
    first, *sections = with_own_names([first, *sections], PAGE_IDS)
    target = folder / "report.html"
    write_bytes(target, _page(given, first, sections, found, folder, formats).encode())
    if is_ledger:
        write_record(folder, digest)
    return target


def report_input(
    everything: Sweep,
    reference: str | None,
    rope: float,
    paper_colours: bool,
    training: TrainingEffect | None = None,
    seen: Seen | None = None,
) -> ReportInput:
    """A results folder as its sections are given it.

    Raises:
        ValueError: nothing was asked for in it, or the reference has no complete trial.
    """
    search = search_outcome(
        search_as_shown(read_search(everything.path)) if everything.path.is_dir() else None,
        everything,
    )
    sweep = everything.judged_on("test")
    tested = [] if search is None else cohort_scores(sweep)
    if search is not None:
        sweep = sweep.without(set_aside(search))
    cohorts = cohort_scores(sweep)
    if not cohorts and search is None:
        raise ValueError(f"{everything.path}: lists no trial; nothing to report on")
    if training is not None:
        training.check_cohorts([cohort.name for cohort in cohorts] or [training.cohort or ""])
    return ReportInput(
        sweep=sweep,
        all_cohorts=cohorts,
        reference=reference_loss(cohorts, _label(sweep, reference), shown_arms(sweep).losses),
        rope=rope,
        paper_colours=paper_colours,
        training=training or TrainingEffect(),
        search=search,
        seen=seen or Seen(),
        tested=tested,
    )


def _label(sweep: Sweep, name: str | None) -> str | None:
    """The label of what is called so, which may be an arm by its short name."""
    if name is None:
        return None
    by_name = {short: label for label, short in short_names(sweep).items()}
    return by_name.get(shown(name), shown(name))


def reference_loss(
    cohorts: Sequence[CohortScores],
    reference: str | None,
    loss_of: Mapping[str, str] | None = None,
) -> str:
    """The loss that the others are compared with: the named one, else xent, else the first that
    was asked for, whether it has complete trials or not.

    Where arms are compared, ``loss_of`` is their loss: the first of xent, or the only one of a
    named loss.

    Raises:
        ValueError: the named loss has no complete trial.
    """
    loss_of = loss_of or {}
    shown = list(dict.fromkeys(cohort.losses[loss] for cohort in cohorts for loss in cohort.shown))
    asked = [
        cohort.losses[loss]
        for cohort in cohorts
        for loss in np.flatnonzero((cohort.status != "").any((1, 2)))
    ]
    if reference is None:
        first = [label for label in asked if loss_of.get(label, label) == "xent"]
        return (first or asked or ["xent"])[0]
    if not shown:  # nothing can be compared yet
        return reference
    alike = [label for label in shown if loss_of.get(label) == reference]
    if reference not in shown and len(alike) == 1:
        return alike[0]
    if reference not in shown:
        raise ValueError(
            f"reference loss {reference!r} has no complete trial; expected one of "
            f"{', '.join(shown)}"
        )
    return reference


def in_order(sections: list[Section], profile: str) -> list[Section]:
    """The sections with those that a profile names in front; nothing is left out."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; expected one of {', '.join(PROFILES)}")
    first = PROFILES[profile]
    return sorted(
        sections,
        key=lambda section: first.index(section.key) if section.key in first else len(first),
    )


def check_keys(sections: Sequence[Section]) -> None:
    """See to it that no figure or table overwrites the files of another.

    Raises:
        ValueError: two of them have the same key.
    """
    owners: dict[str, str] = {}
    for section in sections:
        for item in section.unfolded:
            shown = item.figure if isinstance(item, Pictures) else item
            if not isinstance(shown, Figure | Table):
                continue
            if shown.key in owners:
                raise ValueError(
                    f"two figures or tables have the key {shown.key!r}, in the sections "
                    f"{owners[shown.key]!r} and {section.key!r}"
                )
            owners[shown.key] = section.key


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    options = flags.parser(program).parse_args(arguments)
    try:
        page = build(
            options.results,
            options.out,
            reference=options.reference,
            rope=options.rope,
            profile=options.profile,
            paper_colours=options.paper_colours,
            formats=options.formats,
            training_effect=options.training_effect,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {page}")
    print(f"figures and tables: {page.parent / 'figures'}, {page.parent / 'tables'}")
    return 0


def _page(
    given: ReportInput,
    first: Section,
    sections: Sequence[Section],
    found: Sequence[Outcome],
    folder: Path,
    formats: Sequence[str],
) -> str:
    here = Path(__file__).parent / "page"
    losses = [
        {"index": index, "name": name if given.wording is None else given.wording.named(name)}
        for index, name in enumerate(given.sweep.losses)
        if any(index in cohort.shown for cohort in given.all_cohorts)
    ]
    css, js = _css(losses, here), (here / "page.js").read_text()
    return (
        templates()
        .get_template("page.html")
        .render(
            title=without_marks(_title(given)),
            facts=_facts(given),
            losses=losses,
            front=[render(item, folder, formats) for item in first.items],
            sections=[
                {
                    "key": section.key,
                    "title": without_marks(section.title),
                    "lead": prose(section.lead),
                    "open": section.starts_open,
                    "body": [render(item, folder, formats) for item in section.items],
                }
                for section in sections
            ],
            findings=[
                _in_words(given, prose(finding))
                for finding in checks.findings(given.sweep, given.all_cohorts)
            ],
            verdict=Markup("\n").join(
                [
                    *(render(item, folder, formats) for item in search_section.first_screen(given)),
                    _in_words(given, _boxes(found)),
                ]
            ),
            css=css,
            js=js,
            policy=content_security_policy(css, js),
        )
    )


def _in_words(given: ReportInput, body: Markup) -> Markup:
    """HTML with words and names of arms, where arms are compared."""
    return body if given.wording is None else given.wording.html(body)


def content_security_policy(css: str, js: str) -> str:
    """What a browser may do for the page: nothing but apply this style sheet and run this script.

    Figures and swatches have style attributes, which can be allowed only all or none; they load
    nothing, for pictures may come from inside the page alone.
    """

    def digest(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {digest(js)}",
            f"style-src-elem {digest(css)}",
            "style-src-attr 'unsafe-inline'",
            "style-src 'unsafe-inline'",  # of browsers that do not know the two above
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _boxes(found: Sequence[Outcome]) -> Markup:
    """A row per cohort: the verdict, what may be written, and what may not."""
    return Markup("").join(
        Markup('<div class="verdicts">{}{}</div>').format(
            verdict.verdict(one).html(), claims.claims(one).html()
        )
        for one in found
    )


def _title(given: ReportInput) -> str:
    cohorts = given.all_cohorts
    if given.search is not None:
        return search_section.title(given.search)
    shown = len(
        {
            cohort.losses[loss]
            for cohort in cohorts
            for loss in range(len(cohort.losses))
            if (cohort.status[loss] != "").any()
        }
    )
    names = [cohort.title for cohort in cohorts]
    where = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return f"{shown} {given.one if shown == 1 else given.several} on {where}"


def _facts(given: ReportInput) -> Markup:
    cohorts = given.all_cohorts
    done = sum(int(cohort.done.sum()) for cohort in cohorts)
    asked = sum(cohort.expected for cohort in cohorts)
    parts = [f"**{done} of {asked}** trials complete"] if cohorts else []
    if given.search is not None:
        parts.append(search_section.facts(given.search))
    for cohort in cohorts:
        parts.append(
            f"{cohort.title}: {many(len(cohort.seeds), 'seed')} × "
            f"{many(len(cohort.folds), 'fold')}, "
            f"{cohort.size if cohort.has_sessions else many(cohort.num_cases, 'case')}, "
            f"{many(cohort.num_epochs, 'epoch')}"
        )
    if given.sweep.meta.get("updated"):
        parts.append(f"ledger of {str(given.sweep.meta['updated'])[:10]}")
    return prose(" · ".join(parts))


def _css(losses: list[dict], here: Path) -> str:
    """The page's style sheet, with a switch for every loss."""
    dark = {
        "surface": "#14171b",
        "raised": "#1a1e23",
        "ink": "#e7eaee",
        "muted": "#9aa5b1",
        "grid": "#2c333b",
        "shade": "#20262c",
        "line": "#2a3038",
        "accent": "#6db3f2",
        "mark": "#3b3215",
        "warn": "#ffb066",
    }
    dark |= {f"c{i}": value for i, value in enumerate(style.PALETTE_DARK)}
    css = (
        (here / "page.css")
        .read_text()
        .replace("DARK", "color-scheme: dark; " + " ".join(f"--{k}: {v};" for k, v in dark.items()))
    )
    # `body:has(...) .L0` would be matched anew for each of some ten thousand elements, which takes
    # Chromium minutes when a window is made narrow; a property of body is matched once.
    switches = [
        f"body:has(#t{loss['index']}:not(:checked)){{--L{loss['index']}:none}} "
        f".L{loss['index']}{{display:var(--L{loss['index']},revert-layer)}}"
        for loss in losses
    ]
    return f"@layer page {{\n{css}}}\n" + "\n".join(switches)


if __name__ == "__main__":
    stopping.leave(stopping.run(lambda: main(program="analysis/report.py")))
