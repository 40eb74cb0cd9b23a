"""What the JSON files of a results folder hold, and what a trial's worker gets and reports.

On disk each has a ``schema_version`` besides, which the ledger adds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

from lesion_core.descriptions import TrialRow, TrialSummary

if TYPE_CHECKING:
    from lesion_core.trial import Trial

Row = dict[str, Any]
"""A row of one of the tables of `lesion_core.results`."""


# --------------------------------------------------------------------------------- the whole sweep
class TrialState(TrialRow):
    """A trial that was asked for, and how far it is (`lesion_core.results.TrialStatus`)."""

    status: str
    """One of `results.STATUSES`; where it is shown, also running, or given up by a search."""
    epochs_done: int | None
    seconds: float | None
    error: str | None
    log: str | None


class ActivityEntry(TypedDict):
    """Which changes the masks of a longitudinal cohort mark, and sums over its cases."""

    kept: Literal["positive"]
    method: str
    uncertain_rule: str
    uncertain_sd: float
    excluded: list[str]
    """Patients without such a lesion."""
    lesions: int
    voxels: int
    all_lesions: int
    all_voxels: int
    uncertain: int


class CohortEntry(TypedDict):
    """A cohort in sweep.json."""

    fingerprint: str
    channels: list[str]
    num_cases: int
    definition: dict[str, Any]
    """`lesion_core.cohorts.cohort_to_dict`."""
    fold_rule: str
    brain: dict[str, int]
    """How many cases have their brain mask from where."""
    spacing_mm: NotRequired[list[float]]
    """Voxel size that every case was resampled to, left-right, back-front and foot-head."""
    masks: NotRequired[list[str]]
    """Which files were taken for masks, where there was a choice (`Layout.remarks`)."""
    activity: NotRequired[ActivityEntry]
    """Where the lesion masks were sorted out of masks of all change."""


class UntilDecidedEntry(TypedDict):
    """Where a sweep ends at the latest that ends when its question is decided."""

    seeds: list[int]
    """In the order in which they are trained."""
    cells: int
    """(seed, fold), each with all losses."""
    order: str
    """In words."""


class MaxHoursEntry(TypedDict):
    """When a sweep ends at the latest that ends within some hours."""

    hours: float
    """Of the newest command."""
    cells: int
    """(seed, fold) that there can be at most, each with all arms."""


class SweepRequest(TypedDict):
    """What is asked of a results folder: sweep.json without the times."""

    command: str
    git_commit: str | None
    versions: dict[str, str]
    losses: list[str]
    settings: dict[str, Any]
    """`TrainSettings.to_dict`."""
    num_folds: int
    folds: dict[str, list[list[str]]]
    """Test cases of every fold, by cohort."""
    validation: NotRequired[dict[str, dict[str, list[str]]]]
    """Validation cases by cohort and fold, of a search."""
    cohorts: dict[str, CohortEntry]
    trials: list[TrialRow]
    until_decided: NotRequired[UntilDecidedEntry]
    """Of a sweep with `--until-decided`, whose trials are listed as they begin."""
    max_hours: NotRequired[MaxHoursEntry]
    """Of a sweep with `--max-hours`, whose trials are listed as their cells begin."""


class SweepContent(SweepRequest):
    """sweep.json: the union of all that was asked of this folder."""

    schema_version: int
    created: str
    updated: str


class ConfigurationContent(TypedDict):
    """A configuration in search.json; `lesion_core.results.SEARCH` says what the fields mean."""

    number: int
    values: dict[str, float | int | str | bool | None]
    loss: str
    loss_params: str
    state: Literal["running", "complete", "pruned", "failed"]
    trials: dict[str, str]
    score: dict[str, float] | None
    reason: str | None
    blameless: bool
    against: int | None
    sampler: str
    prune_p: float
    stopped: NotRequired[dict[str, int]]


class SearchTerms(TypedDict):
    """What decides what a score means; a search goes on only under the same terms."""

    cohort: str
    loss: str
    space: dict[str, str]
    objectives: list[str]
    cells: list[list[int]]


class Evaluation(TypedDict):
    """What a search's own trials are evaluated on, and when (`TrainSettings`)."""

    evaluate_on: Literal["all", "held_out"]
    evaluate_at: Literal["every", "last"]


class SearchContent(SearchTerms):
    """search.json; `lesion_core.results.SEARCH` says what the fields mean."""

    ranges: dict[str, list[float]]
    domains: NotRequired[dict[str, dict[str, Any]]]
    sampler: str
    prune_p: float
    planned: int
    exhausted: bool
    configurations: list[ConfigurationContent]
    importance: dict[str, dict[str, float]]
    chosen: int | None
    in_fold: dict[int, int]
    tested: list[int]
    comparators: list[str]
    confirm_seeds: list[int]
    stop_trials: NotRequired[str]
    evaluation: NotRequired[Evaluation]
    """Absent in older searches, whose trials are evaluated as those are that are tested."""


# --------------------------------------------------------------------------------------- one trial
class TrialDescription(TrialRow):
    """trial.json: all that a worker needs to know of a trial."""

    config: dict[str, Any]
    """`Trial.to_dict`, from which `Trial.from_dict` makes the trial again."""


def described(trial: Trial) -> TrialDescription:
    """What trial.json says of a trial."""
    config = json.loads(json.dumps(trial.to_dict()))
    return cast(TrialDescription, trial.row() | {"config": config})


class AttemptProgress(TypedDict, total=False):
    """progress.json of a trial that is not done."""

    attempts: int
    driver: str | None
    """Token of the lock under which it was begun."""
    worker: str
    checkpoints: dict[str, int]
    """Epoch by SHA-256: the newest checkpoint, and the one before while it is replaced."""
    checksum: str
    """SHA-256 of all else in it; older ones lack it."""


Summary = TrialSummary
"""What the function that runs a trial returns, and done.json keeps."""


class Failure(TypedDict):
    """Why a trial failed, as failed.json keeps it."""

    kind: Literal["error", "diverged", "infrastructure"]
    """infrastructure: its machines failed, so it is run again without being asked to."""
    error: str
    traceback: NotRequired[str]
    epoch: NotRequired[int]
    batch: NotRequired[int | None]
    host: NotRequired[str]


# --------------------------------------------------------------- between a worker and the ledger
class NothingToDo(TypedDict):
    """The answer to a worker that would begin a trial which has ended, or while a sweep stops."""

    state: Literal["done", "failed", "stopping"]


class Go(TypedDict):
    """The answer to a worker that begins a trial: where to go on."""

    state: Literal["go"]
    attempt: int
    """From 1."""
    checkpoint: bytes | None
    """None: start afresh."""
    epoch: int | None
    """The checkpoint's."""
    cases: list[Row]
    """Up to that epoch."""
    epochs: list[Row]
    notes: list[str]
    """What was found damaged and thrown away."""


class FinalContent(TypedDict):
    """A `lesion_core.trial.Final` as a dictionary."""

    lesions: list[Row]
    histograms: list[Row]
    slices: list[Row]
    model: bytes


class EpochContent(TypedDict):
    """A `lesion_core.trial.EpochReport` as a dictionary."""

    epoch: int
    cases: list[Row]
    epochs: Row
    checkpoint: bytes | memoryview | None
    """None: the one before stays the place to go on from."""
    final: FinalContent | None
