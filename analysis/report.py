"""A results folder as one honest page: python analysis/report.py RESULTS [--out DIR].

Works on a sweep that is still running, too, and says what is missing.  Writes report.html (one
file, no network) with every figure (SVG, PDF, PNG, CSV) and table (CSV, Markdown, LaTeX) beside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jinja2
from markupsafe import Markup

from analysis.page import style
from analysis.page.items import FORMATS, Section, many, prose, render
from analysis.reading import checks
from analysis.reading.imports import read_results
from analysis.reading.scores import CohortScores, cohort_scores
from analysis.sections import (
    bands,
    coverage,
    gradients,
    imbalance,
    lesions,
    methods,
    overlays,
    pairs,
    policies,
    profiles,
    ranks,
    search_outcome,
    seeds,
    table2,
    thresholds,
    tradeoff,
    variance,
    verdict,
    violins,
)
from analysis.statistics.pairs import ROPE
from analysis.statistics.search_outcome import SearchOutcome, set_aside
from analysis.statistics.search_outcome import search_outcome as outcome_of
from lesion_core.results import Sweep, read_search, write_bytes


def build(
    results: Path | str,
    out: Path | str | None = None,
    *,
    reference: str | None = None,
    rope: float = ROPE,
    profile: str = "methods",
    paper_colours: bool = False,
    formats: Sequence[str] = FORMATS,
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

    Raises:
        ValueError: not a results folder, nothing was asked for in it, or the reference has no
            complete trial.
    """
    results = Path(results)
    beside = results if results.is_dir() else results.parent
    folder = Path(out) if out is not None else beside / "report"
    everything = read_results(results)
    searched = read_search(everything.path) if everything.path.is_dir() else None
    found = outcome_of(searched, everything)
    sweep = everything.judged_on("test")
    tested = [] if found is None else cohort_scores(sweep)
    if found is not None:
        sweep = sweep.without(set_aside(found))
    cohorts = cohort_scores(sweep)
    if not cohorts and found is None:
        raise ValueError(f"{results}: lists no trial; nothing to report on")
    # A cohort without a single complete trial has a coverage map and nothing else.
    ready = [cohort for cohort in cohorts if cohort.shown]
    boxes: list[verdict.Verdict] = []
    sections = [coverage.section(sweep, cohorts)] if cohorts else []
    if found is not None:
        sections.append(search_outcome.section(found, tested))
    if ready:
        base = reference_loss(ready, reference)
        sections += _sections(sweep, ready, base, rope, paper_colours)
        boxes = [verdict.verdict(cohort, base, rope) for cohort in ready]
        sections = in_order(sections, profile)
    page = _page(sweep, cohorts, sections, boxes, folder, formats, found)
    target = folder / "report.html"
    write_bytes(target, page.encode())
    return target


def _sections(
    sweep: Sweep, ready: list[CohortScores], base: str, rope: float, paper_colours: bool
) -> list[Section]:
    """Everything that can be said about cohorts with complete trials."""
    # Imported results may lack the counts, and always lack a ledger's other tables.
    counted = [cohort for cohort in ready if cohort.has_counts]
    ledger = (sweep.path / "sweep.json").exists()
    found = [imbalance.section(sweep, ready)] if ledger else []
    found += [
        bands.section(ready),
        bands.section_by_fold(ready),
        table2.section(ready),
        pairs.section(ready, base, rope),
        violins.section(ready),
        profiles.section(ready),
        seeds.section(ready, rope),
        variance.section(ready),
        ranks.section(ready),
        tradeoff.section(ready),
    ]
    if ledger:
        found += [thresholds.section(sweep, ready), lesions.section(sweep, ready)]
    found.append(tradeoff.gap_section(ready))
    if ledger:
        found += [
            gradients.section(sweep, ready),
            overlays.section(sweep, ready, paper_colours=paper_colours),
        ]
    if counted:
        found.append(policies.section(counted))
    return [*found, methods.section(sweep, ready, base, rope)]


def reference_loss(cohorts: list[CohortScores], reference: str | None) -> str:
    """The loss that the others are compared with: the named one, else xent, else the first.

    Raises:
        ValueError: the named loss has no complete trial.
    """
    shown = list(dict.fromkeys(cohort.losses[loss] for cohort in cohorts for loss in cohort.shown))
    if reference is None:
        return "xent" if "xent" in shown else shown[0]
    if reference not in shown:
        raise ValueError(
            f"reference loss {reference!r} has no complete trial; expected one of "
            f"{', '.join(shown)}"
        )
    return reference


PROFILES = {
    "methods": (),
    "challenge": ("coverage", "ranks", "lesions", "policies"),
}
"""Which sections come first: for a paper about losses, or for somebody who ranks entries."""


def in_order(sections: list[Section], profile: str) -> list[Section]:
    """The sections with those that a profile names in front; nothing is left out."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; expected one of {', '.join(PROFILES)}")
    first = PROFILES[profile]
    return sorted(
        sections,
        key=lambda section: first.index(section.key) if section.key in first else len(first),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="analysis/report.py", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "results",
        type=Path,
        help="results folder (holds sweep.json), a tidy CSV, or a folder of the authors' CSVs",
    )
    parser.add_argument("--out", type=Path, help="where to write (default: RESULTS/report)")
    parser.add_argument(
        "--reference", metavar="LOSS", help="loss that the others are compared with (default: xent)"
    )
    parser.add_argument(
        "--rope",
        type=float,
        default=ROPE,
        help="differences in DSC up to this size count as none (default: 0.01)",
    )
    parser.add_argument(
        "--profile",
        choices=list(PROFILES),
        default="methods",
        help="order of the sections (challenge: ranking and lesions first)",
    )
    parser.add_argument(
        "--paper-colours", action="store_true", help="overlays in the paper's green, red and blue"
    )
    parser.add_argument(
        "--formats",
        nargs="*",
        choices=FORMATS,
        default=FORMATS,
        help="files of each figure (default: all)",
    )
    options = parser.parse_args(arguments)
    try:
        page = build(
            options.results,
            options.out,
            reference=options.reference,
            rope=options.rope,
            profile=options.profile,
            paper_colours=options.paper_colours,
            formats=options.formats,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"report: {page}")
    print(f"figures and tables: {page.parent / 'figures'}, {page.parent / 'tables'}")
    return 0


def _page(
    sweep: Sweep,
    cohorts: list[CohortScores],
    sections: list[Section],
    boxes: list[verdict.Verdict],
    folder: Path,
    formats: Sequence[str],
    found: SearchOutcome | None,
) -> str:
    here = Path(__file__).parent / "page"
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((here / "page.html").read_text())
    rendered = [
        {
            "key": section.key,
            "title": section.title,
            "lead": prose(section.lead),
            "body": [render(item, folder, formats) for item in section.items],
        }
        for section in sections
    ]
    losses = [
        {"index": index, "name": name}
        for index, name in enumerate(sweep.losses)
        if any(index in cohort.shown for cohort in cohorts)
    ]
    return template.render(
        title=_title(cohorts) if cohorts or found is None else search_outcome.title(found),
        facts=_facts(sweep, cohorts, found),
        losses=losses,
        sections=rendered,
        findings=checks.findings(sweep, cohorts),
        verdict=_boxes(boxes),
        css=Markup(_css(losses, here)),
        js=Markup((here / "page.js").read_text()),
    )


def _boxes(boxes: list[verdict.Verdict]) -> Markup:
    inside = Markup("").join(box.html() for box in boxes)
    return Markup(f'<div class="verdicts">{inside}</div>') if boxes else inside


def _title(cohorts: list[CohortScores]) -> str:
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
    return f"{shown} {'loss' if shown == 1 else 'losses'} on {where}"


def _facts(sweep: Sweep, cohorts: list[CohortScores], found: SearchOutcome | None) -> Markup:
    done = sum(int(cohort.done.sum()) for cohort in cohorts)
    asked = sum(cohort.expected for cohort in cohorts)
    parts = [f"**{done} of {asked}** trials complete"] if cohorts else []
    if found is not None:
        parts.append(search_outcome.facts(found))
    for cohort in cohorts:
        parts.append(
            f"{cohort.title}: {many(len(cohort.seeds), 'seed')} × "
            f"{many(len(cohort.folds), 'fold')}, {many(cohort.num_cases, 'case')}, "
            f"{many(cohort.num_epochs, 'epoch')}"
        )
    if sweep.meta.get("updated"):
        parts.append(f"ledger of {str(sweep.meta['updated'])[:10]}")
    return prose(" · ".join(parts))


def _css(losses: list[dict], here: Path) -> str:
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
    switches = [
        f"body:has(#t{loss['index']}:not(:checked)) main .L{loss['index']}{{display:none}}"
        for loss in losses
    ]
    return css + "\n".join(switches)


if __name__ == "__main__":
    sys.exit(main())
