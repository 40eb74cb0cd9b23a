"""A grid that ends when its question is decided: `--until-decided` of the grid and the ladder.

Cells (seed, fold), all losses of one together, are trained seed by seed, folds in turn.  Whenever
one has ended, `analysis/decide.py` says in the report's own words whether each loss is better or
worse than the reference, or practically equal, for new training sets, or can hardly become so by
the last of ``--seeds``.  Words hold whenever one looks, so stopping by them misleads nobody.  Every
decision is a line of looks.log.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lesion_core.arms import arms_of
from lesion_core.looks import RULE, Look, read_looks, record_look
from sweeps.data import request
from sweeps.ledger.contents import SweepRequest, UntilDecidedEntry
from sweeps.ledger.ledger import Ledger, LedgerError
from sweeps.options import Machines
from sweeps.provenance import ROOT
from sweeps.trials.until_decided import Decision, UntilDecided

if TYPE_CHECKING:
    from lesion_core.trial import Trial
    from sweeps.sweep import SweepPlan

ORDER = "seed by seed, all folds of a seed, all losses of a fold"


@dataclass(frozen=True, eq=False)
class Rule:
    """What is trained in which order, and who decides."""

    plan: SweepPlan
    """Of every trial up to the cap."""
    training_effect: str = ""

    def __post_init__(self) -> None:
        if len({(trial.loss_label, trial.settings) for trial in self.plan.trials}) < 2:
            raise ValueError(
                "--until-decided: expected two --losses or more, or a setting to --vary, or there "
                "is no question to decide"
            )

    @property
    def cells(self) -> list[list[Trial]]:
        """Trials of every (seed, fold), in order."""
        return [
            list(cell)
            for _, cell in groupby(self.plan.trials, lambda trial: (trial.seed, trial.fold))
        ]

    @property
    def seeds(self) -> list[int]:
        """Seeds in order; after the last one the sweep ends in any case."""
        return list(dict.fromkeys(trial.seed for trial in self.plan.trials))

    @property
    def entry(self) -> UntilDecidedEntry:
        """What sweep.json says of it."""
        return {"seeds": self.seeds, "cells": len(self.cells), "order": ORDER}

    def request(self, trials: Sequence[Trial]) -> SweepRequest:
        """What sweep.json shall say once these trials are asked for."""
        plan = self.plan
        asked = request(trials, plan.data, plan.settings, plan.num_folds, plan.labels)
        return {**asked, "until_decided": self.entry}

    def as_plan(self) -> SweepPlan:
        """The plan whose trials come one by one."""
        return replace(
            self.plan,
            trials=(),
            may_run=self.plan.trials,
            supply=self.supply,
            until_decided=self.entry,
        )

    def supply(self, ledger: Ledger, retry_failed: bool) -> UntilDecided:
        """Begin, or go on where the ledger says it is (`SweepPlan.supply`)."""
        ledger.refuse_other_sweep(self.request(self.plan.trials))
        names = [trial.name for trial in self.plan.trials]
        return UntilDecided(
            self.cells,
            left=ledger.left_to_run(names, retry_failed=retry_failed),
            asked=ledger.asked(),
            judge=lambda complete: self.judge(complete),
            expect=lambda trial: self._expect(ledger, trial),
        )

    def judge(self, complete: int) -> Decision | None:
        """Have the ledger judged, and record what was decided; None while it cannot be told.

        Raises:
            LedgerError: the decision cannot be recorded.
        """
        from lesion_core.results import read_meta

        script = ROOT / "analysis" / "decide.py"
        command = [sys.executable, str(script), str(self.plan.results)]
        command += ["--seeds-at-cap", str(len(self.seeds))]
        command += ["--training-effect", self.training_effect] if self.training_effect else []
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"cannot tell whether the question is decided: {reason}", file=sys.stderr)
            return None
        found = json.loads(finished.stdout)
        label_of = arms_of(read_meta(self.plan.results)).label_of
        decision = self.decision(found["comparisons"], found["reference"], label_of)
        content = {
            "decided": decision.decided,
            "why": decision.why,
            "complete": complete,
            "cells": len(self.cells),
            "reference": found["reference"],
            "training_effect": found["training_effect"],
            "comparisons": found["comparisons"],
        }
        look = replace(Look(**found["look"]), by=RULE, decision=content)
        try:
            record_look(self.plan.results, look)
        except (OSError, ValueError) as error:
            raise LedgerError(f"the decision cannot be recorded ({error})") from None
        return decision

    def decision(
        self,
        found: dict[str, dict[str, dict[str, Any]]],
        reference: dict[str, str],
        label_of: Mapping[str, str] | None = None,
    ) -> Decision:
        """What the comparisons of this sweep's arms come to; ``label_of`` those of its trials that
        have begun, all arms of a cell together; None: an arm is a loss."""
        label_of = (
            {t.name: t.loss_label for t in self.plan.trials} if label_of is None else label_of
        )
        said, undecided = [], []
        for cohort in dict.fromkeys(trial.cohort for trial in self.plan.trials):
            names = [trial.name for trial in self.plan.trials if trial.cohort == cohort]
            own = [label_of[name] for name in names if name in label_of]
            known = found.get(cohort, {})
            against = reference.get(cohort, "the reference")
            words: dict[str, list[str]] = {}
            for loss in dict.fromkeys(own):
                if loss == against:
                    continue
                one = known.get(loss, {"word": "cannot tell", "chance": 1.0, "decided": False})
                word = one["word"]
                if one["decided"] and word in ("not separated", "perhaps better", "perhaps worse"):
                    word += ", and seeds up to the cap would hardly change that"
                words.setdefault(word, []).append(loss)
                undecided += [] if one["decided"] else [loss]
            texts = [f"{' '.join(losses)} {word}" for word, losses in words.items()]
            where = f" on {cohort}" if len(self.plan.data) > 1 else ""
            said.append(f"against {against}{where}: {'; '.join(texts)}")
        why = ". ".join(said)
        if not undecided:
            return Decision(True, f"decided, {why}")
        return Decision(False, f"open: {' '.join(dict.fromkeys(undecided))} ({why})")

    def _expect(self, ledger: Ledger, trial: Trial) -> None:
        ledger.write_request(self.request([trial]))

    def dry_run(self, machines: Machines, *, retry_failed: bool = False) -> int:
        """Print the order, the cap and what would run at most; writes nothing."""
        print(
            f"until the question is decided, at most {len(self.cells)} cells: {ORDER}; seeds "
            f"{' '.join(map(str, self.seeds))}. What follows is the most there can be:"
        )
        return self.plan.dry_run(machines, retry_failed=retry_failed)

    def summary(self) -> str:
        """Why the sweep stopped where it is, in a line."""
        decisions = read_looks(self.plan.results).decisions
        if not decisions:
            return "the question is not decided: no cell is complete"
        last = decisions[-1].decision
        where = f"after {last.get('complete')} of at most {last.get('cells')} cells"
        if last.get("decided"):
            return f"stopped {where}: {last.get('why')}"
        if last.get("complete") == last.get("cells"):
            return f"stopped at the cap, {where}; {last.get('why')}; more --seeds raise it"
        return f"not finished, {where}: {last.get('why')}; the same command goes on"
