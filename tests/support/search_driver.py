"""Drives a search over a real ledger, with trials that take a moment instead of training.

    python tests/search_driver.py RESULTS CONFIGURATIONS

To be killed: `test_search_killed` starts it again and again.  What each trial did is appended to
RESULTS/ran.txt by the trial itself.
"""

import json
import random
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from lesion_core import results
from lesion_core.trial import EpochReport, Final
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock
from sweeps.searching.optuna_study import OptunaStudy
from sweeps.searching.plan import shuffled_cells
from sweeps.searching.search import Search
from sweeps.searching.store import LedgerStore
from sweeps.tracking.policy import Tracking
from sweeps.trials import attempt
from tests.sweeps.test_search import SETTINGS, a_plan, a_trial, true_score

REQUEST = {
    "command": "search_driver.py",
    "git_commit": None,
    "versions": {},
    "losses": [],
    "settings": {},
    "num_folds": 5,
    "folds": {"toy": []},
    "cohorts": {"toy": {"fingerprint": "f" * 64}},
    "trials": [],
}


def run(trial, cohort, *, on_epoch, **arguments):
    """Scores as the surface has it; the counts of one image with a hundred lesion voxels."""
    rng = random.Random(trial.hash)
    share = max(0.0, min(1.0, true_score(trial.loss) + rng.gauss(0, 0.02)))
    found = round(100 * share)
    for epoch in (0, 1):
        row = dict.fromkeys(results.CASES.names) | trial.identity
        row |= {"epoch": epoch, "split": trial.split, "scope": "image", "case": "3"}
        row |= {"tp": found, "fp": 100 - found, "fn": 100 - found, "tn": 1000}
        clock = dict.fromkeys(results.EPOCHS.names) | trial.identity
        clock |= {"epoch": epoch, "seconds_train": 0.0, "seconds_evaluate": 0.0}
        final = Final(lesions=[], histograms=[], slices=[], model=b"m") if epoch else None
        on_epoch(EpochReport(epoch=epoch, cases=[row], epochs=clock, checkpoint=b"c", final=final))
    with Path(sys.argv[1], "ran.txt").open("a") as file:
        file.write(f"{trial.name}\n")
    return {"epochs_done": 1, "seconds": 0.0}


def main() -> None:
    folder = Path(sys.argv[1])
    plan = a_plan(
        configurations=int(sys.argv[2]),
        cells=tuple(shuffled_cells([1, 2], 4, 1)),
        comparators=("focal2",),
    )
    with Lock(folder, "search_driver.py") as lock:
        ledger = Ledger(folder, lock.token)
        ledger.write_request(REQUEST)
        study = OptunaStudy(folder / "journal.log", "test", plan.space)
        search = Search(plan, study, LedgerStore(ledger, REQUEST, SETTINGS), a_trial, slots=2)
        search.resume(results.read_search(folder))
        running = []
        while True:
            while (trial := search.take()) is not None:
                running.append(trial)
            if not running:
                break
            trial = running.pop(random.randrange(len(running)))
            attempt.attempt(
                trial, lambda: None, ledger, device="cpu", threads=1, run="search_driver:run",
                tracking=Tracking(mode="disabled", group="test"),
            )  # fmt: skip
            search.ended(trial["name"])
    assert search.finished
    print(json.dumps(search.chosen))


if __name__ == "__main__":
    sys.modules["search_driver"] = sys.modules["__main__"]
    main()
