"""Seeds together on a sweep's own test cases: `scores` of a results folder, ensemble by ensemble.

The networks of one cohort, loss and fold never saw the cases of that fold, so their mean
probability is scored there, for every number of seeds.  Networks of several folds are never scored
together: each case of the cohort was trained on by some of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core import durable, scores
from lesion_core.paths import Damaged, is_there, read_json
from lesion_core.progress import progress_line
from lesion_core.segmentation.networks import Choice, by_fold
from lesion_core.segmentation.tested import OTHER_FILES, cohort_of, held_out_cases
from lesion_core.settings import Precision

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used: --help needs none
    from lesion_core.images import Image, LoadedCohort

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ScoreOutcome:
    """What became of an ensemble."""

    name: str
    record: Path | None = None
    """Its scores.json; None: it could not be scored."""
    failure: str = ""
    """Why, in one line."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """An ensemble, and what is left of it."""

    choice: Choice
    identity: scores.EnsembleIdentity
    images: list[Image]
    """Test cases, in the cohort's order."""
    known: list[dict[str, Any]]
    """Rows of the cases that are scored already."""
    complete: bool

    @property
    def left(self) -> list[Image]:
        """Test cases that are not scored yet."""
        done = {row["case"] for row in self.known}
        return [image for image in self.images if image.case not in done]


def score_ensembles(
    results: Path,
    data: Path,
    *,
    cohort: str = "",
    loss: str = "",
    device: str | None = None,
    precision: Precision | None = None,
    overwrite: bool = False,
    own_network: str = "",
    say: Say,
) -> Iterator[ScoreOutcome]:
    """Score the seeds of every cohort, loss and fold together; one outcome per ensemble.

    What is complete is left alone, what was interrupted goes on with the next case.

    Args:
        results: the results folder of a sweep, finished or not.
        data: folder that holds its cohorts.
        cohort: only this one.
        loss: only this label.
        device: cpu, cuda, cuda:1; default: cuda if there is a GPU.
        precision: of the arithmetic; default: what the networks were trained in.
        overwrite: score again what is complete.
        own_network: module:name of a network of the user's own, whose code may be imported.
        say: hears lines for people.

    Raises:
        ValueError: no such sweep, no fold with two complete seeds, data that have changed, or a
            device or precision that is not there; nothing is computed then.
    """
    from lesion_core.results import read_meta
    from lesion_core.segmentation.ensemble import usable_device
    from lesion_core.training.precision import check_precision

    where = usable_device(device)
    meta = read_meta(results)
    choices = by_fold(results, cohort=cohort, loss=loss)
    several = [choice for choice in choices if len(choice.members) > 1]
    if not several:
        raise ValueError(
            f"{results}: no loss has two complete seeds of a fold, so there are none to average; "
            "run more --seeds"
        )
    if few := len(choices) - len(several):
        say(f"{few} of {len(choices)} (cohort, loss, fold) have one complete seed: left out")
    for choice in several:
        check_precision(precision or choice.members[0].settings.precision, where)
    tasks = _tasks(results, meta, data, several, precision, overwrite)
    total = sum(len(task.images) for task in tasks)
    left = [task for task in tasks if not task.complete]
    done = total - sum(len(task.left) for task in left)
    say(
        f"{len(tasks)} ensembles of {_numbers(several)} networks on their {total} test cases; "
        f"{done} are scored already"
    )
    begun, before = time.monotonic(), done
    for task in tasks:
        if task.complete:
            yield ScoreOutcome(name=task.identity.name, record=_record_of(results, task))
            continue

        def on_case(case: str, name: str = task.identity.name) -> None:
            nonlocal done
            done += 1
            line = progress_line(done - before, total - before, time.monotonic() - begun)
            say(f"{name}: {case}; {line}")

        try:
            record = _score(results, task, where, precision, own_network, on_case)
        # PyTorch says out of memory, for one, by a RuntimeError.
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            say(f"{task.identity.name}: failed: {reason}")
            yield ScoreOutcome(name=task.identity.name, failure=reason)
        else:
            _drop_superseded(results, task.identity)
            yield ScoreOutcome(name=task.identity.name, record=record)


def unseen_cases(choice: Choice, held_out: Mapping[str, Collection[str]]) -> set[str]:
    """The cases on which some networks may be scored together.

    ``held_out``: by trial, the cases that its network never saw.

    Raises:
        ValueError: a case that one of them is tested on was trained on by another.
    """
    for member in choice.members:
        for other in choice.members:
            if seen := sorted(set(held_out[member.trial]) - set(held_out[other.trial])):
                raise ValueError(
                    f"{other.trial} was trained on {seen[0]}, which {member.trial} is tested on; "
                    "networks are scored together only on cases that none of them saw: those of "
                    "one fold"
                )
    return set(held_out[choice.members[0].trial])


def _tasks(
    results: Path,
    meta: dict[str, Any],
    data: Path,
    choices: Sequence[Choice],
    precision: Precision | None,
    overwrite: bool,
) -> list[_Task]:
    from lesion_core.images import load_cohort

    whole = {one.ensemble.networks: one.ensemble for one in scores.read_scores(results).whole}
    loaded: dict[str, LoadedCohort] = {}
    tasks = []
    for choice in choices:
        own = choice.cohort
        if own not in loaded:
            loaded[own] = load_cohort(cohort_of(results, meta, own), data)
        cases = [image.case for image in loaded[own].images]
        held_out = {}
        for member in choice.members:
            config = read_json(member.folder / "trial.json")["config"]
            if loaded[own].fingerprint != config["fingerprint"]:
                raise ValueError(OTHER_FILES.format(data / own, member.trial))
            held_out[member.trial] = held_out_cases(member.trial, config, cases)
        unseen = unseen_cases(choice, held_out)
        identity = scores.EnsembleIdentity(
            cohort=own,
            loss=choice.loss,
            fold=choice.members[0].fold,
            trials=tuple(member.trial for member in choice.members),
            seeds=tuple(member.seed for member in choice.members),
            weights=tuple(scores.recorded_weights(member.folder) for member in choice.members),
        )
        used = precision or choice.members[0].settings.precision
        is_whole = identity.networks in whole
        identity = whole.get(identity.networks, identity)  # scored when the arm had another name
        # Rows beside a record that they do not fit are believed no more than the record.
        spoiled = is_there(results / scores.FOLDER / identity.name / scores.RECORD) and not is_whole
        again = overwrite or spoiled
        known = [] if again else _rows_so_far(results, identity.name, used)
        tasks.append(
            _Task(
                choice=choice,
                identity=identity,
                images=[image for image in loaded[own].images if image.case in unseen],
                known=known,
                complete=is_whole and {row["case"] for row in known} >= unseen,
            )
        )
    return tasks


def _rows_so_far(results: Path, name: str, precision: str) -> list[dict[str, Any]]:
    """Rows of another run in the same arithmetic; what is damaged is computed again."""
    try:
        rows = scores.rows_so_far(results, name).to_pylist()
    except Damaged:
        return []
    return [row for row in rows if row["precision"] == precision]


def _score(
    results: Path,
    task: _Task,
    device: str,
    precision: Precision | None,
    own_network: str,
    on_case: Callable[[str], None],
) -> Path:
    """Score what is left of an ensemble; returns its scores.json."""
    from lesion_core.segmentation.ensemble import load_ensemble
    from lesion_core.segmentation.together import case_rows
    from lesion_core.versions import installed_versions

    name = task.identity.name
    rows, ensemble = list(task.known), None
    for image in task.left:
        ensemble = ensemble or load_ensemble(
            results,
            chosen=task.choice,
            device=device,
            precision=precision,
            own_network=own_network,
        )
        found = case_rows(image, ensemble.each(image.voxels), task.identity.seeds)
        said = {
            "ensemble": name,
            "cohort": task.identity.cohort,
            "loss": task.identity.loss,
            "fold": task.identity.fold,
            "precision": ensemble.precision,
        }
        rows += [said | row for row in found]
        scores.write_rows(results, name, rows)
        on_case(image.case)
    return scores.write_record(
        results,
        task.identity,
        [image.case for image in task.images],
        precision=precision or task.choice.members[0].settings.precision,
        device=device,
        versions=installed_versions("torch", "numpy", "scipy"),
    )


def _record_of(results: Path, task: _Task) -> Path:
    return results / scores.FOLDER / task.identity.name / scores.RECORD


def _drop_superseded(results: Path, identity: scores.EnsembleIdentity) -> None:
    """Remove what other networks of the same cohort, loss and fold left."""
    place = results / scores.FOLDER
    found = scores.read_scores(results)
    others = [
        one.ensemble.name
        for one in found.whole
        if one.ensemble.group == identity.group
        or (one.ensemble.cohort == identity.cohort and {*one.ensemble.trials} <= {*identity.trials})
    ]
    for name in found.unfinished:
        first = scores.rows_so_far(results, name).slice(0, 1).to_pylist()
        own = [(row["cohort"], row["loss"], row["fold"]) == identity.group for row in first]
        others += [name] * all(own)
    for name in others:
        if name != identity.name:
            durable.remove(place / name)


def _numbers(choices: Sequence[Choice]) -> str:
    sizes = [len(choice.members) for choice in choices]
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
