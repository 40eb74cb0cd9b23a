"""With which commands are the trainings and the page made again?"""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath

from analysis.flags import ROPE
from analysis.sections.report_input import ReportInput
from lesion_core.results import TRAINING_EFFECT_FILE

SCRIPTS = {"grid": "paper_grid", "search": "alpha_gamma", "ladder": "seed_ladder"}
"""What follows `lesion-sweep` -> the script, which names the folder that is written by default."""


def again(given: ReportInput) -> tuple[str, str]:
    """The recorded command that asked for the trainings, with the folder that it wrote, and the
    one of this page; "" where no trainings were asked for here.

    Where the recorded folder is not this one, which was moved or renamed, its name stands instead,
    as seen from the folder that holds it.
    """
    name = given.sweep.path.resolve().name
    recorded = str(given.sweep.meta.get("command") or "")
    if not given.is_ledger or not recorded:
        return "", shlex.join(["python", "analysis/report.py", name, *_flags(given)])
    try:
        words = shlex.split(recorded)
    except ValueError:
        return recorded, shlex.join(["python", "analysis/report.py", name, *_flags(given)])
    installed = PurePosixPath(words[0]).name == "lesion-sweep"
    if installed:
        program, rest = ["lesion-sweep", *words[1:2]], words[2:]
        script = SCRIPTS.get(program[-1], program[-1])
    else:
        script = PurePosixPath(words[0]).stem
        program, rest = ["python", f"sweeps/{script}.py"], words[1:]
    folder, rest = _without_results(rest)
    default = f"results/{'demo' if '--demo' in rest else script}"
    if PurePosixPath(folder or default).name != name:
        folder = name
    flags = ["--results", folder] if folder else []
    report = ["lesion-sweep", "report"] if installed else ["python", "analysis/report.py"]
    return (
        shlex.join([*program, *rest, *flags]),
        shlex.join([*report, folder or default, *_flags(given)]),
    )


def _without_results(words: list[str]) -> tuple[str, list[str]]:
    """The folder that a command names, "" if none, and its other words."""
    folder, rest, skip = "", [], False
    for place, word in enumerate(words):
        if skip:
            skip = False
        elif word == "--results" and place + 1 < len(words):
            folder, skip = words[place + 1], True
        elif word.startswith("--results="):
            folder = word.removeprefix("--results=")
        else:
            rest.append(word)
    return folder, rest


def _flags(given: ReportInput) -> list[str]:
    """What this page was asked for that is not the default."""
    flags: list[str] = []
    asked = [
        cohort.losses[loss]
        for cohort in given.all_cohorts
        for loss in range(len(cohort.losses))
        if (cohort.status[loss] != "").any()
    ]
    usual = [label for label in asked if given.arms.losses.get(label, label) == "xent"] or asked
    if usual and given.reference != usual[0]:
        flags += ["--reference", given.reference]
    if given.rope != ROPE:
        flags += ["--rope", f"{given.rope:g}"]
    if given.training.given:
        flags += ["--training-effect", f"{given.training.tau_of('dice'):g}"]
    elif given.training.measured and not Path(given.sweep.path / TRAINING_EFFECT_FILE).exists():
        flags += ["--training-effect", TRAINING_EFFECT_FILE]
    if given.paper_colours:
        flags += ["--paper-colours"]
    return flags
