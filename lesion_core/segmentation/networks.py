"""Which networks of a results folder are used together, and why; and a network from its file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.arms import arms_of, asked_rows
from lesion_core.paths import close_to, read_json
from lesion_core.received import is_plain
from lesion_core.settings import TrainSettings

if TYPE_CHECKING:  # torch and pandas take seconds to load: --help needs neither
    from torch import nn

    from lesion_core.results import Sweep

MOST_WINDOW_VOXELS = 2**28
"""Limit of what a received file may ask for; the paper's 16 windows of 32^3 are 2^19 voxels."""

SELECTOR = "last"
"""Which epoch's networks these are: a ledger keeps no others."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One trained network."""

    trial: str
    seed: int
    fold: int
    folder: Path
    settings: TrainSettings


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Networks of one cohort and one loss that are used together."""

    cohort: str
    channels: tuple[str, ...]
    """In the order in which the networks see them."""
    loss: str
    loss_params: dict[str, Any]
    """`losses.loss_to_dict`."""
    why: str
    """Why this loss and these networks, in words."""
    members: tuple[Member, ...]
    absent: tuple[str, ...] = ()
    """Trials that would belong to them but are not complete: name and status."""

    @property
    def seeds(self) -> list[int]:
        """Seeds of the networks, in the sweep's order."""
        return list(dict.fromkeys(member.seed for member in self.members))

    @property
    def folds(self) -> list[int]:
        """Folds of the networks."""
        return sorted({member.fold for member in self.members})

    def cut(self, threshold: float | None, min_lesion_mm3: float | None) -> tuple[float, float]:
        """The threshold and the smallest lesion, mm3: what was asked for, else the trials' own."""
        own = self.members[0].settings
        return (
            own.threshold if threshold is None else threshold,
            own.min_lesion_mm3 if min_lesion_mm3 is None else min_lesion_mm3,
        )

    @property
    def in_words(self) -> str:
        """Which loss, how many networks, and why, in one line."""
        number = len(self.members)
        networks = "1 network" if number == 1 else f"{number} networks"
        absent = f"; not complete and left out: {', '.join(self.absent)}" if self.absent else ""
        return (
            f"{networks} of loss {self.loss} on {self.cohort} (seeds {_listed(self.seeds)}; folds "
            f"{_listed(self.folds)}; last epoch): {self.why}{absent}"
        )


def choose(
    results: Path,
    *,
    cohort: str = "",
    loss: str = "",
    seeds: Sequence[int] = (),
    folds: Sequence[int] = (),
    trials: Sequence[str] = (),
    best: bool = False,
) -> Choice:
    """The networks that a results folder has for new patients.

    Args:
        results: a ledger, finished or not.
        cohort: whose networks, where there are several; empty: the only one.
        loss: a label of a loss or of an arm (`arms.arms_of`); empty: the one that the report puts
            first (`standing.standings`).
        seeds: only these; empty: all.
        folds: only these; empty: all.
        trials: these trials by name, and nothing else.
        best: of the networks, only that whose test DSC is farthest above the mean of all networks
            that were tested on the same fold.  Its own score is then optimistic.

    Raises:
        ValueError: there are no such networks, or they cannot be used together.
    """
    from lesion_core.results import read_meta, read_sweep, trial_status

    meta = read_meta(results)
    rows, arms = asked_rows(meta), arms_of(meta)
    if trials and (loss or seeds or folds or best):
        raise ValueError("--trials names the networks; leave out --loss, --seeds, --folds, --best")
    for name in trials:
        if name not in rows or not is_plain(name):
            near = close_to(name, rows)
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(f"trial {name} is not in {results}{hint}")
    known = _of_comparison(rows.values()) if not trials else [rows[name] for name in trials]
    cohort = _one(cohort, [row["cohort"] for row in known], "cohort", results)
    known = [row for row in known if row["cohort"] == cohort]
    status = {
        row["name"]: trial_status(results / "trials" / row["name"], row)["status"] for row in known
    }
    sweep: Sweep | None = None
    if trials:
        loss, why = arms.label_of[known[0]["name"]], "named by --trials"
        if other := [row["name"] for row in known if arms.label_of[row["name"]] != loss]:
            raise ValueError(f"--trials {known[0]['name']} {other[0]}: expected those of one loss")
        if lacking := [name for name in trials if status.get(name) != "done"]:
            found = status.get(lacking[0], "of another cohort")
            raise ValueError(f"trial {lacking[0]} is {found}; expected a complete one of {results}")
    else:
        done = [arms.label_of[row["name"]] for row in known if status[row["name"]] == "done"]
        if not done:
            raise ValueError(f"{results}: no trial of {cohort} is complete yet")
        if loss:
            alike = [label for label in dict.fromkeys(done) if arms.losses[label] == loss]
            alike = alike or [
                each for each in dict.fromkeys(done) if arms.short_names[each] == loss
            ]
            loss = alike[0] if len(alike) == 1 else loss  # a loss that one arm has is enough
            loss, why = _one(loss, done, "loss", results), "named by --loss"
        elif len(set(done)) == 1:
            loss, why = done[0], "the only loss with complete trials"
        else:
            sweep = read_sweep(results)
            loss, why = _first(sweep, cohort)
        own = [row for row in known if arms.label_of[row["name"]] == loss]
        known = _in_cells(own, seeds, folds, results)
    members = [
        _member(results / "trials" / row["name"], row)
        for row in known
        if status[row["name"]] == "done"
    ]
    absent = [
        f"{row['name']} ({status[row['name']]})" for row in known if status[row["name"]] != "done"
    ]
    if not members:
        raise ValueError(f"{results}: none of these trials is complete: {', '.join(absent[:4])}")
    if best and len(members) > 1:
        sweep = sweep or read_sweep(results)
        members, more = _best(sweep, cohort, members)
        why, absent = f"{why}; {more}", []
    _check_alike(members)
    (params,) = {row["loss_params"] for row in known if row["name"] == members[0].trial}
    return Choice(
        cohort=cohort,
        channels=_channels(results, meta, cohort),
        loss=loss,
        loss_params=_object(params),
        why=why,
        members=tuple(members),
        absent=tuple(absent),
    )


def by_fold(results: Path, *, cohort: str = "", loss: str = "") -> list[Choice]:
    """The complete networks of every cohort, loss (or arm) and fold, the seeds of each together.

    Args:
        results: a ledger, finished or not.
        cohort: only this one.
        loss: only this label, or the arms of this loss.

    Raises:
        ValueError: there is no such cohort or loss, or networks cannot be used together.
    """
    from lesion_core.results import read_meta, trial_statuses

    meta = read_meta(results)
    asked, arms = asked_rows(meta), arms_of(meta)
    label_of = arms.label_of
    rows = _of_comparison(list(asked.values()))
    if cohort:
        _one(cohort, [row["cohort"] for row in rows], "cohort", results)
    short = arms.short_names
    wanted = {label for label in arms.labels if loss in (arms.losses[label], short[label])}
    if loss and (loss in arms.losses or not wanted):
        wanted = {_one(loss, [label_of[row["name"]] for row in rows], "loss", results)}
    rows = [
        row
        for row in rows
        if cohort in ("", row["cohort"]) and (not loss or label_of[row["name"]] in wanted)
    ]
    status = trial_statuses(results, {row["name"]: row for row in rows})
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["cohort"], label_of[row["name"]], row["fold"]), []).append(row)
    found = []
    for (own, label, fold), group in sorted(
        groups.items(), key=lambda each: (each[0][0], each[0][2])
    ):
        done = [row for row in group if status[row["name"]]["status"] == "done"]
        members = tuple(_member(results / "trials" / row["name"], row) for row in done)
        if not members:
            continue
        _check_alike(members)
        found.append(
            Choice(
                cohort=own,
                channels=_channels(results, meta, own),
                loss=label,
                loss_params=_object(done[0]["loss_params"]),
                why=f"all complete seeds of fold {fold}",
                members=members,
                absent=tuple(
                    f"{row['name']} ({status[row['name']]['status']})"
                    for row in group
                    if status[row["name"]]["status"] != "done"
                ),
            )
        )
    return found


def load_network(
    model: bytes, device: str = "cpu", *, own_network: str = "", channels: Sequence[str] = ()
) -> nn.Module:
    """The network in a trial's ``model.pt``, to be evaluated; `networks.saved` says how.

    Raises:
        ValueError: the bytes are damaged, are no network of ours, or of code that ``own_network``
            does not name; or the network is for another number of images than ``channels``.
    """
    from lesion_core.networks.saved import load_network

    return load_network(model, device, own_network=own_network, channels=channels)


def check_cut(threshold: float | None, min_lesion_mm3: float | None) -> None:
    """Raise ValueError if ``--threshold`` or ``--min-lesion-mm3`` cannot be; None is not said."""
    if threshold is not None and not (math.isfinite(threshold) and 0 < threshold <= 1):
        raise ValueError(f"--threshold {threshold:g}: expected more than 0, and 1 at most")
    if min_lesion_mm3 is not None and not 0 <= min_lesion_mm3 < math.inf:
        raise ValueError(f"--min-lesion-mm3 {min_lesion_mm3:g}: expected 0 or more mm3")


def trained_settings(folder: Path, stored: Mapping[str, Any]) -> TrainSettings:
    """A trial's settings; ValueError if they cannot be, or need more memory than any of ours."""
    try:
        settings = TrainSettings.from_dict(stored)
        window_voxels = settings.batch_size * settings.patch_size**3
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'trial.json'}: settings cannot be used ({error})") from None
    except ValueError as error:
        raise ValueError(f"{folder / 'trial.json'}: {error}") from None
    if not (type(window_voxels) is int and window_voxels <= MOST_WINDOW_VOXELS):
        raise ValueError(
            f"{folder / 'trial.json'}: batch_size x patch_size^3 is {window_voxels}; expected "
            f"{MOST_WINDOW_VOXELS} at most"
        )
    return settings


# ----------------------------------------------------------------------------------------- choosing
def _of_comparison(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials that are judged on test cases and trained on all others."""
    return [r for r in rows if r.get("split", "test") == "test" and not r.get("trained_on")]


def _one(asked: str, found: Sequence[str], what: str, results: Path) -> str:
    """What was asked for, if it is there; if nothing was, the only one that there is."""
    there = list(dict.fromkeys(found))
    listed = ("; " if any("," in each for each in there) else ", ").join(there)
    if asked and asked not in there:
        near = close_to(asked, there)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(
            f"--{what} {asked}: {results} has no complete trial of it; there: {listed}{hint}"
        )
    if not asked and len(there) != 1:
        if not there:
            raise ValueError(f"{results}: lists no trial that is judged on test cases")
        raise ValueError(f"{results}: has networks of several; say which with --{what}: {listed}")
    return asked or there[0]


def _first(sweep: Sweep, cohort: str) -> tuple[str, str]:
    """The loss that the report puts first, and how it says so."""
    import numpy as np

    from lesion_core.standing import standings

    ranked = standings(sweep, cohort)
    if not ranked or np.isnan(ranked[0].mean_dice):
        raise ValueError(
            f"{sweep.path}: no loss has a defined test DSC, so none comes first; choose one with "
            "--loss"
        )
    first, *others = ranked
    next_one = f"; next {others[0].loss} {others[0].mean_dice:.3f}" if others else ""
    return first.loss, (
        f"the loss that the report puts first, mean test DSC {first.mean_dice:.3f} at the last "
        f"epoch over {first.cells} (seed, fold) cells and {first.subjects} patients{next_one}"
    )


def _in_cells(
    rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], folds: Sequence[int], results: Path
) -> list[Mapping[str, Any]]:
    """The trials of these seeds and folds, where any are named."""
    for what, asked in (("seed", seeds), ("fold", folds)):
        there = list(dict.fromkeys(row[what] for row in rows))
        if lacking := [number for number in asked if number not in there]:
            raise ValueError(
                f"--{what}s {lacking[0]}: no such {what} in {results}; there: {_listed(there)}"
            )
    return [
        row
        for row in rows
        if (not seeds or row["seed"] in seeds) and (not folds or row["fold"] in folds)
    ]


def _best(sweep: Sweep, cohort: str, members: Sequence[Member]) -> tuple[list[Member], str]:
    """The member farthest above the mean of its fold, whose patients all of them were tested on."""
    from lesion_core.results import judged_scores, subjects_of

    runs = sweep.judged_on("test").runs
    runs = runs[(runs["cohort"] == cohort) & (runs["status"] == "done")].set_index("trial")
    scores = judged_scores(
        sweep.cases[sweep.cases["trial"].isin(set(runs.index))], subjects_of(sweep.path, cohort)
    )["dice"]
    above = scores - scores.groupby(runs["fold"].reindex(scores.index)).transform("mean")
    own = above.reindex([member.trial for member in members])
    if own.isna().all():
        raise ValueError(f"{sweep.path}: no test case with a lesion, so no network is the best")
    member = members[int(own.argmax())]
    return [member], (
        f"of {len(members)} the one whose test DSC, {scores[member.trial]:.3f}, is farthest above "
        f"the mean of all networks of its fold ({own.max():+.3f})"
    )


# ------------------------------------------------------------------------------------------ reading
def _member(folder: Path, row: Mapping[str, Any]) -> Member:
    config = read_json(folder / "trial.json")["config"]
    return Member(
        trial=row["name"],
        seed=row["seed"],
        fold=row["fold"],
        folder=folder,
        settings=trained_settings(folder, config["settings"]),
    )


def _check_alike(members: Sequence[Member]) -> None:
    """All networks look through the same windows, and say alike what is lesion."""
    first = members[0]
    for other in members[1:]:
        for name in ("patch_size", "window_stride", "precision", "threshold", "min_lesion_mm3"):
            a, b = getattr(first.settings, name), getattr(other.settings, name)
            if a != b:
                raise ValueError(
                    f"{first.trial} has {name} {a}, {other.trial} {b}; expected one for all "
                    "networks that are used together"
                )


def _channels(results: Path, meta: Mapping[str, Any], cohort: str) -> tuple[str, ...]:
    """The names of the images that the networks see."""
    entry = (meta.get("cohorts") or {}).get(cohort) or {}
    found: Any = entry.get("channels")
    if found is None and isinstance(entry.get("definition"), dict):
        fields = entry["definition"].get("fields")
        found = fields.get("channels") if isinstance(fields, dict) else None
    if not (
        isinstance(found, list)
        and found
        and all(map(is_plain, found))
        and len({*found}) == len(found)
    ):
        raise ValueError(f"{results / 'sweep.json'}: does not say which images {cohort} has")
    return tuple(found)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
