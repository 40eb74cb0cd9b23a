"""What `lesion_core.prepare` recorded beside a cohort's cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lesion_core.paths import is_there, read_json

PREPARED = "prepared.json"
"""Beside the cases: what `lesion_core.prepare` did to each."""


@dataclass(frozen=True, kw_only=True)
class CaseActivity:
    """How much of one mask of all change is positive activity, and so in use."""

    lesions: int
    voxels: int
    all_lesions: int
    all_voxels: int
    uncertain: int
    """Lesions, kept or not, whose sign may be chance."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Which changes a cohort's masks mark (`lesion_core.preparation.activity`)."""

    method: str
    uncertain: str
    """What became of uncertain lesions: sign, keep or drop."""
    uncertain_sd: float
    excluded: tuple[str, ...]
    """Patients left out because they have no positive activity."""
    cases: dict[str, CaseActivity]

    def summary(self, cases: Sequence[str]) -> dict[str, Any]:
        """What sweep.json says of it: the rule, and sums over these cases."""
        known = [asdict(self.cases[case]) for case in cases if case in self.cases]
        sums = {key: sum(each[key] for each in known) for key in CaseActivity.__annotations__}
        return {
            "kept": "positive",
            "method": self.method,
            "uncertain_rule": self.uncertain,
            "uncertain_sd": self.uncertain_sd,
            "excluded": list(self.excluded),
            **sums,
        }


def prepared(root: Path) -> dict[str, Any]:
    """The record in a cohort's folder; empty if there is none.

    Raises:
        ValueError: it cannot be read.
    """
    file = root / PREPARED
    return read_json(file) if is_there(file) else {}


def activity_in(root: Path) -> Activity | None:
    """Which changes the masks in a cohort's folder mark; None: nothing was sorted out.

    Raises:
        ValueError: the record cannot be read.
    """
    record = prepared(root).get("activity")
    if record is None:
        return None
    try:
        return Activity(
            method=record["method"],
            uncertain=record["uncertain"],
            uncertain_sd=record["uncertain_sd"],
            excluded=tuple(record["excluded"]),
            cases={
                case: CaseActivity(**(counts | {"uncertain": len(counts["uncertain"])}))
                for case, counts in record["cases"].items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{root / PREPARED}: activity cannot be read ({error!r})") from None
