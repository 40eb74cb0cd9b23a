"""How was this computed, from what, and how should it be read: methods, provenance, glossary."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.page.escaping import as_glossary, as_list, prose
from analysis.page.items import Column, Heading, Note, Section, Table
from analysis.reading.names import shown
from analysis.reading.scores import CohortScores
from analysis.sections.again import again
from analysis.sections.report_input import ReportInput
from analysis.statistics import lottery, ranks
from analysis.statistics.ladder import RUNG_NAMES, RUNGS
from analysis.statistics.pairs import DECLARED
from lesion_core.results import SCHEMA_VERSION, Sweep
from lesion_core.settings import EVALUATION
from lesion_core.table1 import judged_brain_voxels

TRAPS = (
    "**A band is a range.** It widens with every seed and fold added; whether two bands overlap "
    "says nothing about a difference, because all losses share seeds, folds and patients.",
    "**Folds share most of their training data**, so no unbiased estimate of the variance of "
    "cross-validation exists (Bengio & Grandvalet 2004). Of what other training sets would do to a "
    "mean over five folds, a sixteenth shows between the folds. The interval for new training sets "
    "takes its size as given: declared, or measured on disjoint halves (`lesion-sweep "
    "training-effect`). Every verdict says up to which size it stands.",
    "**Patients of one fold share their networks.** A test that treats patients (or patients "
    "times seeds) as independent, at the 5 % level, calls equal losses different in 10 to 50 % of "
    "sweeps instead of 5 %; resampling seeds alone does so in 20 to 45 %, because it knows "
    "nothing about patients.",
    "**The best epoch on test is not a result.** Among equal losses, the one that scatters most "
    "wins under that rule. The column “optimism” of Table 2 shows how much it adds.",
    "**Comparing trained networks is not comparing losses.** Permuting predictions compares two "
    "trained instances; only new trainings compare training methods.",
    "**Many comparisons.** The primary question is declared: test DSC at the last epoch against "
    "one reference, Holm-adjusted; all other pairs share a fifth of the error. Other metrics get "
    "intervals, not verdicts.",
    "**Few patients.** “Not separated” is often a fact about the design, not about the losses: "
    "beside it stands the difference that would have been found. (In simulated sweeps of "
    "17 patients in five folds, like the paper's on LIT, a true difference of 0.05 DSC is found in "
    "one of five by itself, and in one of twenty beside five other losses.)",
    "**What is undefined stays undefined.** Two empty masks have no DSC, an empty reference no "
    "sensitivity. Such cases are left out of that mean and counted; nothing is interpolated.",
)

CELL_OF_ARMS = (
    "one (seed, fold), the unit that arms are paired in; networks of one form start from the same "
    "weights in it, and patches that are cut and stacked alike come in the same batches"
)
GLOSSARY = {
    "DSC": "Dice similarity coefficient, 2 TP / (2 TP + FP + FN)",
    "sensitivity (TPf)": "TP / (TP + FN)",
    "precision (P)": "TP / (TP + FP); 0 if nothing is predicted although there is a lesion",
    "seed": "initialisation and order of training; the same seed starts all losses of a fold "
    "alike, and is another one in every fold",
    "trial, training": "one network, trained with one loss, seed and fold",
    "cell": "one (seed, fold), in which all losses start from the same weights and see the same "
    "patches: the unit that losses are paired in",
    "mean of a loss": "over the seeds of each fold, then over patients, who count alike, on the "
    "cells that all losses which are compared have; Table 2 averages as the paper does, over folds "
    "that count alike and all trainings of a loss",
    "difference of two losses": "the mean of paired differences, on the cells that both have, so "
    "it need not be that of two means where trainings are missing",
    "last epoch": "the network after the last epoch, as a user who has no test labels would get it",
    "other folds (lofo)": "leave one fold out: the epoch that the other folds would choose",
    "rung (L1, L2, L3)": "what an interval holds for: new seeds, new patients as well, new "
    "training sets as well",
    "new seeds (L1)": "same patients, same splits, other seeds",
    "new patients (L2)": "other patients from the same population as well",
    "new training sets (L3)": "networks trained on other patients as well, if those move the "
    "difference by the given training-set effect",
    "training-set effect": "standard deviation, over training sets of this size, of the true "
    "difference between two losses",
    "Holm's adjustment": "p-values of several comparisons raised so that, if the losses of all of "
    "them were equal, one of them would be called different in at most 5 % of sweeps",
    "survives": "the largest training-set effect under which “there is no difference” is still "
    "refuted, after Holm's adjustment",
    "rope": "region of practical equivalence: differences too small for anybody to act on",
    "at any look": "seeds may be added after every look at the results; intervals, p and verdicts "
    "are wide enough to hold at all looks together",
    "HD95, NSD": "95th percentile of surface distances; share of surface within a tolerance",
}


PATIENT = (
    "the subject of one or more sessions (cases); a patient's score is the mean of the sessions, "
    "and patients are what is counted, compared and resampled"
)


def section(given: ReportInput) -> Section | None:
    """Text to paste, what to beware of, where the numbers come from, and what words mean."""
    if not given.cohorts:
        return None
    glossary = GLOSSARY
    if not given.arms.share_all:
        glossary = GLOSSARY | {"cell": CELL_OF_ARMS}
    if any(cohort.has_sessions for cohort in given.cohorts):
        glossary = {"patient": PATIENT, **glossary}
    return Section(
        key="methods",
        title="How was this computed?",
        lead="Methods text with this sweep's own numbers, what to beware of when reading, and "
        "where every number comes from.",
        items=[
            Heading(text="Methods"),
            *(
                Note(
                    body=prose(
                        methods_text(
                            given,
                            cohort,
                            precision(given.sweep, cohort),
                            activity_text(given.sweep.meta, cohort.name),
                        )
                        + networks_text(given.sweep, cohort)
                        + ignored_text(given.sweep, cohort)
                        + resampling(given.sweep, cohort)
                    )
                )
                for cohort in given.cohorts
            ),
            Heading(text="How to read this report"),
            Note(body=as_list(TRAPS)),
            Heading(text="Provenance"),
            provenance_table(given),
            Heading(text="Glossary"),
            Note(body=as_glossary(glossary)),
        ],
    )


def precision(sweep: Sweep, cohort: CohortScores) -> str:
    """What the networks of complete trials computed in, as their workers recorded it."""
    runs = sweep.runs
    done = runs[((runs["status"] == "done") & (runs["cohort"] == cohort.name)).to_numpy()]
    return " and ".join(sorted(set(done["precision"].dropna()))) or "an unknown precision"


def networks_text(sweep: Sweep, cohort: CohortScores) -> str:
    """Which networks were trained and how large they are, where complete trials say so."""
    runs = sweep.runs
    done = runs[((runs["status"] == "done") & (runs["cohort"] == cohort.name)).to_numpy()]
    columns = ["network", "parameters", "flops_per_patch"]  # which imported tables lack
    known = done.reindex(columns=columns).dropna().drop_duplicates()
    if known.empty:
        return ""
    listed = [
        f"{shown(row['network'])} ({int(row['parameters']):,} parameters, "
        f"{row['flops_per_patch'] / 1e9:.3g} GFLOP per patch forward)"
        for row in known.sort_values("network").to_dict("records")
    ]
    return f" Network{'s' if len(listed) > 1 else ''}: {'; '.join(listed)}."


def ignored_text(sweep: Sweep, cohort: CohortScores) -> str:
    """What is left out of training and of every score, if anything is."""
    cases = sweep.cohort_table(cohort.name, "cases.parquet").drop_duplicates("case")
    ignored = pd.to_numeric(cases["ignore_voxels"]).fillna(0)  # null in ledgers that knew of none
    if not ignored.any():
        return ""
    share = 1 - judged_brain_voxels(cases).sum() / cases["brain_voxels"].sum()
    return (
        f" {int((ignored > 0).sum())} of {len(cases)} cases have voxels that are to be ignored "
        f"({share:.1%} of all brain voxels): they are left out of training, of Table 1 and of "
        "every score, and where they end, so do the lesions of both masks."
    )


def resampling(sweep: Sweep, cohort: CohortScores) -> str:
    """What voxels are, if every case was resampled to one size."""
    entry = (sweep.meta.get("cohorts") or {}).get(cohort.name) or {}
    if "spacing_mm" not in entry:
        return ""
    size = " × ".join(f"{side:g}" for side in entry["spacing_mm"])
    return (
        f" Every case was resampled to voxels of {size} mm (left-right, back-front, foot-head), "
        "images linearly and masks by the nearest voxel; all scores and volumes are of these "
        "voxels."
    )


def activity_text(meta: Mapping[str, Any], cohort: str) -> str:
    """How lesion masks were sorted out of masks of all change, by sweep.json; else empty."""
    activity = ((meta.get("cohorts") or {}).get(cohort) or {}).get("activity")
    if not activity:
        return ""
    rule = {"sign": "followed that sign too", "keep": "were kept", "drop": "were left out"}
    excluded = activity["excluded"]
    return (
        "Lesions are positive activity (new and enlarging): of the masks of all change, the "
        "26-connected components whose mean z-score (by mean and standard deviation inside the "
        f"brain) rose from baseline to follow-up: {activity['lesions']} of "
        f"{activity['all_lesions']} lesions, {activity['voxels']} of {activity['all_voxels']} "
        f"voxels ({activity['method']}). The {activity['uncertain']} whose mean changed by less "
        f"than {activity['uncertain_sd']:g} standard deviations "
        f"{rule[activity['uncertain_rule']]}. "
        + (
            f"{len(excluded)} without positive activity were excluded ({', '.join(excluded)}). "
            if excluded
            else ""
        )
    )


def methods_text(
    given: ReportInput, cohort: CohortScores, precision: str, activity: str = ""
) -> str:
    """One paragraph with the n, df and repetitions that were used."""
    judged, rope = given.family(cohort), given.rope
    effect = given.training.of(cohort.name)
    text = (
        f"{cohort.title}: {len(cohort.shown)} losses were trained with {len(cohort.seeds)} seeds "
        f"in {len(cohort.folds)}-fold cross-validation for {cohort.num_epochs} epochs in "
        f"{precision} ({cohort.presence}). {activity}"
    )
    if cohort.has_sessions:
        text += (
            f"The cohort has {cohort.size}: sessions of a patient stay in one fold, and their "
            "scores were averaged before anything was counted, compared or resampled. "
        )
    if judged.pairs:
        pair, _ = judged.against_reference[-1]
        fit, reference = pair.fit, cohort.losses[judged.reference]
        dfs = ", ".join(
            f"{RUNG_NAMES[rung].lstrip('+ ')} {fit.df[rung]:.1f}"
            for rung in RUNGS
            if fit.df[rung] > 0
        )
        others = len(judged.pairs) - len(judged.against_reference)
        cells = sorted({other.fit.num_cells for other, _ in judged.against_reference})
        paired = f"{cells[0]}" if len(cells) == 1 else f"{cells[0]} to {cells[-1]}"
        text += (
            f"Test DSC at the last epoch was compared with {reference} on "
            f"{paired} paired (seed, fold) cells and "
            f"{cohort.counted(fit.num_cases, fit.num_subjects)} by "
            f"intervals for three targets of inference (degrees of freedom of "
            f"{cohort.losses[pair.a]} − {reference}: {dfs or 'none'}), which hold at any number of "
            "looks: an anytime-valid t-test (Lindon et al. 2022) for the part of the variance that "
            "seeds bring, Student's t with a surcharge for the part that they do not change. "
            + (
                "For new training sets, the larger of two variances (of patients and seeds within "
                f"folds, and of the fold means) was increased by {fit.overlap:.2f} τ², with a "
                f"training-set effect τ of {effect.in_words} in DSC. "
                if fit.df["L3"] > 0
                else ""
            )
            + f"p-values were Holm-adjusted over {len(judged.pairs)} pairs"
            + (
                f", {DECLARED:.0%} of the error for the {len(judged.against_reference)} with the "
                "reference"
                if others
                else ""
            )
            + f"; differences within ±{rope:g}, refuted to be larger by two one-sided tests, "
            "count as practically none. "
        )
    return text + (
        f"Ranks were resampled {ranks.DRAWS} times over patients and seeds within folds. Seed "
        f"lotteries with up to {lottery.EXACT_UP_TO} outcomes were enumerated, larger ones drawn "
        f"{lottery.DRAWS} times. Means are over {cohort.units}; a rate that a case does not define "
        "is left out and counted."
    )


def provenance_table(given: ReportInput) -> Table:
    """Commands, commits, versions, hosts, fingerprints."""
    sweep, cohorts = given.sweep, given.cohorts
    meta = sweep.meta
    trainings, page = again(given)
    rows: list[tuple[str, object]] = [
        ("results folder", sweep.path.resolve().name),
        ("asked with", meta.get("command", "–")),
        ("git commit", meta.get("git_commit", "–")),
        ("created", meta.get("created", "–")),
        ("last change", meta.get("updated", "–")),
        ("ledger schema", SCHEMA_VERSION),
    ]
    settings = dict(meta.get("settings") or {})
    for name in dict.fromkeys(name for own in given.arms.settings.values() for name in own):
        if name not in EVALUATION and len(given.arms.values(name)) > 1:
            settings[name] = f"{', '.join(given.arms.values(name))} (varied)"
    rows += [(f"training: {name}", value) for name, value in settings.items()]
    rows += [
        (f"trained with {name}", value) for name, value in (meta.get("versions") or {}).items()
    ]
    done = sweep.runs[(sweep.runs["status"] == "done").to_numpy()]
    for column in ("device", "precision", "host"):
        values = sorted({str(value) for value in done[column] if isinstance(value, str)})
        if values:
            rows.append((column, ", ".join(values[:8]) + (" …" if len(values) > 8 else "")))
    spent = pd.to_numeric(done["seconds"], errors="coerce").dropna()
    if len(spent):
        rows.append(("training time, all complete trials", f"{spent.sum() / 3600:.1f} h"))
    for name, cohort in (meta.get("cohorts") or {}).items():
        rows.append((f"data fingerprint of {name}", str(cohort.get("fingerprint", "–"))))
    rows += [
        (
            "report made with",
            f"Python {platform.python_version()}, "
            + ", ".join(
                f"{name} {importlib.metadata.version(name)}"
                for name in ("numpy", "scipy", "pandas", "matplotlib", "jinja2")
            ),
        ),
        *([("train it again", trainings)] if trainings else []),
        ("make it again", page),
    ]
    frame = pd.DataFrame(rows, columns=["what", "value"]).astype(str)
    done_count = sum(int(cohort.done.sum()) for cohort in cohorts)
    return Table(
        key="provenance",
        title="Where the numbers come from",
        frame=frame,
        columns=[Column(key="what", header="What"), Column(key="value", header="Value", wrap=True)],
        caption=f"From sweep.json and the done.json of {done_count} of "
        f"{sum(cohort.expected for cohort in cohorts)} trials.",
    )
