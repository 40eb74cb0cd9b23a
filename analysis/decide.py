"""Is a sweep's primary question decided, or could more seeds decide it?  Prints JSON.

    python analysis/decide.py RESULTS --seeds-at-cap 5

What a sweep asks after every cell that runs until its question is decided (`--until-decided`).
Writes nothing.  The words are the report's own, of the same comparisons: test DSC at the last
epoch, each loss against the reference, for new training sets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.flags import ROPE
from analysis.reading.imports import read_results
from analysis.reading.looks import this_look
from analysis.reading.training_effect import training_effect
from analysis.report import report_input
from analysis.statistics.absence import compared
from analysis.statistics.decision import comparisons
from lesion_core.report_record import ledger_digest
from lesion_core.terminal import print_anything


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("results", type=Path, help="results folder (holds sweep.json)")
    parser.add_argument(
        "--seeds-at-cap", type=float, required=True, help="seeds per fold that there may be at most"
    )
    parser.add_argument("--training-effect", help="as of the report")
    options = parser.parse_args(arguments)
    try:
        found = question(options.results, options.seeds_at_cap, options.training_effect)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


def question(results: Path, seeds_at_cap: float, effect: str | None = None) -> dict[str, object]:
    """A look at a ledger (`lesion_core.looks.Look`), and every loss against the reference.

    Returns:
        ``look``, ``reference`` (by cohort), ``training_effect``, and ``comparisons``: by cohort and
        loss, its word, the chance of one by the cap, and whether it is decided.

    Raises:
        ValueError: not a results folder, or a training-set effect that cannot be read.
    """
    digest = ledger_digest(results)
    everything = read_results(results)
    training = training_effect(effect, results)
    given = report_input(everything, None, ROPE, False, training)
    reference, found = {}, {}
    for cohort in given.cohorts:
        names = cohort.losses
        reference[cohort.name] = names[given.reference_in(cohort)]
        if given.reference_note(cohort) or len(compared(cohort)) < 2:
            found[cohort.name] = {}  # what was asked cannot be judged yet
            continue
        found[cohort.name] = {
            names[one.loss]: {"word": one.word, "chance": one.chance, "decided": one.decided}
            for one in comparisons(given.family(cohort), ROPE, seeds_at_cap)
        }
    return {
        "look": asdict(this_look(everything, digest)),
        "reference": reference,
        "training_effect": {c.name: given.training.of(c.name).in_words for c in given.cohorts},
        "comparisons": found,
    }


if __name__ == "__main__":
    sys.exit(main())
