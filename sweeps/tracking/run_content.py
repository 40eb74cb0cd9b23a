"""What W&B gets of one trial, as plain values: the run's identity, its steps, its ending.

The same whether the trial is followed live or rebuilt from the ledger.  Names of cases and sites
pass through `Tracking.case_name` and `Tracking.site_name` here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lesion_core.arms import complete, differing
from lesion_core.paths import read_json
from lesion_core.received import read_table
from lesion_core.terminal import one_line
from sweeps.ledger.contents import Failure, Summary, TrialDescription
from sweeps.tracking import scalars
from sweeps.tracking.overlay import Overlay, overlays
from sweeps.tracking.policy import Tracking

if TYPE_CHECKING:
    from lesion_core.images import LoadedCohort

CASE_LISTS = {"test_cases", "validation_cases", "training_cases"}
"""Fields of a trial's configuration that name cases."""
NOT_CONFIG = ("config", "loss_params", "schema_version")
"""What trial.json says of a trial beside its configuration, or twice."""
FACTS = ("device", "precision", "threads")
"""Fields of done.json that W&B gets."""
MOST_TAG_CHARACTERS = 64
"""W&B refuses longer tags."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What a run is; W&B gets it first."""

    id: str
    name: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunEnding:
    """What a run gets once, at its last step."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(
        default_factory=dict
    )
    """Columns and rows by name."""
    pictures: Sequence[Overlay] = ()
    pages: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    """HTML by name, made when it is needed."""
    model: bytes | None = None
    """Content of the trial's model.pt."""


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """All of a run."""

    identity: RunIdentity
    steps: Mapping[int, Mapping[str, float]]
    ending: RunEnding
    failed: bool = False


# ------------------------------------------------------------------------------------- of a trial
def identity(trial: TrialDescription, tracking: Tracking) -> RunIdentity:
    """The identity of a trial's run, given what trial.json says."""
    whole = dict(trial["config"])
    config: dict[str, Any] = {k: value for k, value in trial.items() if k not in NOT_CONFIG}
    config |= differing(complete(whole.pop("settings", {})), {})  # defaults too: to filter by
    config["loss_fields"] = whole.pop("loss", None)
    config |= {key: value for key, value in whole.items() if key not in config}
    config |= {
        key: [tracking.case_name(c) for c in config[key]] for key in CASE_LISTS & config.keys()
    }
    tags = (trial["cohort"], trial["loss"], f"seed-{trial['seed']}", f"fold-{trial['fold']}")
    tags += tracking.tags
    return RunIdentity(
        id=trial["hash"],
        name=trial["name"],
        job_type="train",
        tags=tuple(one_line(tag)[:MOST_TAG_CHARACTERS] for tag in tags if tag),
        config=config,
    )


def done_ending(
    trial: TrialDescription,
    tracking: Tracking,
    *,
    cases: Sequence[Mapping[str, Any]],
    epochs: Sequence[Mapping[str, Any]],
    predicted: Sequence[Mapping[str, Any]],
    cohort_slices: Callable[[], Sequence[Mapping[str, Any]]],
    model: Callable[[], bytes],
    summary: Summary,
) -> RunEnding:
    """The ending of a trial that is complete.

    Args:
        cases: rows of the last epoch.
        epochs: rows of all epochs.
        predicted: slices of the segmentations.
        cohort_slices: reads the slices of the images, to draw those on.
        model: reads the weights.
        summary: what done.json says.

    Pictures and the model only where `Tracking` lets them leave.
    """
    pictures = overlays(predicted, cohort_slices()) if tracking.media else []
    return RunEnding(
        summary={
            "status": "done",
            "epochs_done": len(epochs) - 1,
            "seconds": _seconds(epochs),
            **{key: value for key, value in summary.items() if key in FACTS},
            **{
                f"versions/{name}": value for name, value in (summary.get("versions") or {}).items()
            },
        },
        tables={
            "cases": (
                scalars.TABLE_COLUMNS,
                scalars.case_table(cases, tracking.case_name, tracking.site_name),
            )
        },
        pictures=[
            Overlay(one_line(tracking.case_name(each.case)), each.pixels) for each in pictures
        ],
        # Offline it would be a copy that nobody sends: `sync` takes it from the ledger.
        model=model() if tracking.artifacts and tracking.mode == "online" else None,
    )


def failed_ending(
    tracking: Tracking, failure: Failure, epochs: Sequence[Mapping[str, Any]]
) -> RunEnding:
    """The ending of a trial that failed, given what failed.json says.

    The reason may name a case or a path, so under pseudonyms W&B gets only its kind.
    """
    kind = failure.get("kind", "error")
    summary = {
        "status": "diverged" if kind == "diverged" else "failed",
        "epochs_done": max(0, len(epochs) - 1),
        "seconds": _seconds(epochs),
        "error": failure.get("error", "") if tracking.salt is None else kind,
    }
    return RunEnding(summary=summary)


def slices_of(cohort: LoadedCohort, cases: Sequence[str]) -> list[dict]:
    """`results.COHORT_SLICES` rows of some cases of a loaded cohort."""
    import dataclasses

    from lesion_core.cohort_rows import describe

    some = [image for image in cohort.images if image.case in set(cases)]
    return describe(dataclasses.replace(cohort, images=some))[1]


def _seconds(epochs: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["seconds_train"] + row["seconds_evaluate"] for row in epochs))


# ------------------------------------------------------------------------------------- the ledger
def content_of(results: Path, name: str, tracking: Tracking) -> RunContent | None:
    """The run of a trial by its files; None if it is neither done nor failed.

    Raises:
        ValueError: a file is damaged, so nothing is said of the trial.
    """
    from lesion_core import results as tables

    folder = results / "trials" / name
    state = tables.trial_status(folder)
    if state["status"] in ("partial", "missing"):
        return None
    if state["status"] == "corrupt":
        raise ValueError(f"{name}: {state['error']}")

    def rows(file: str) -> list[dict]:
        place = folder / file
        return read_table(place).to_pylist() if place.exists() else []

    try:
        trial = cast(TrialDescription, read_json(folder / "trial.json"))
        cases, epochs = rows("cases.parquet"), rows("epochs.parquet")
        steps = scalars.by_epoch(cases, epochs, trial["epochs"], tracking.site_name)
        if state["status"] == "done":
            ending = done_ending(
                trial,
                tracking,
                cases=cases,
                epochs=epochs,
                predicted=rows("slices.parquet"),
                cohort_slices=lambda: read_table(
                    results / "cohorts" / trial["cohort"] / "slices.parquet", tables.COHORT_SLICES
                ).to_pylist(),
                model=lambda: tables.read_model(folder),
                summary=cast(Summary, read_json(folder / "done.json")),
            )
        else:
            failure = cast(Failure, read_json(folder / "failed.json"))
            ending = failed_ending(tracking, failure, epochs)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: its files cannot be read ({error})") from None
    return RunContent(
        identity=identity(trial, tracking),
        steps=steps,
        ending=ending,
        failed=state["status"] != "done",
    )
