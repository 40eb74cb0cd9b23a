"""What do seeds do together: the rows of ``predict --score`` along the axes of the single scores.

Axes are those of `scores.CohortScores`: losses L, seeds S, folds F, cases P.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.reading.names import frame_as_shown, shown
from analysis.reading.scores import CohortScores, asked_for
from lesion_core import results, scores


@dataclass(frozen=True, eq=False)
class Together:
    """Ensembles of one cohort, one for each loss and fold that was scored."""

    networks: np.ndarray
    """[L, F] networks of the ensemble; 0: none was scored."""
    member: np.ndarray
    """[L, S, P] whether a seed's network is in the ensemble that is scored on a case."""
    rows: pd.DataFrame
    """`results.ENSEMBLES`, and ``loss_index``, ``case_index``, ``size`` (networks averaged),
    ``only`` (index of the seed, of one network alone, else -1), ``left_out`` (index of the only
    seed that is not in it, else -1) and ``whole`` (all are)."""
    outdated: int
    """Ensembles with fewer networks than there are by now."""
    unscored: int
    """(loss, fold) with two complete seeds that were never scored together."""
    precisions: tuple[str, ...]

    @property
    def losses(self) -> list[int]:
        """Losses with an ensemble."""
        return [int(loss) for loss in np.flatnonzero(self.networks.any(1))]

    @property
    def counted(self) -> str:
        """How many networks are averaged, in words."""
        sizes = self.networks[self.networks > 0]
        low, high = int(sizes.min()), int(sizes.max())
        text = f"{low}" if low == high else f"{low} to {high}"
        more = f"{text} networks a fold"
        if self.outdated:
            more += f"; {self.outdated} ensembles lack networks that were trained since"
        if self.unscored:
            more += f"; {self.unscored} (loss, fold) not scored"
        if self.outdated or self.unscored:
            more += " (`predict --score` again adds them)"
        return more

    def alone(self, values: np.ndarray) -> np.ndarray:
        """[L, S, P, ...] of each network alone, of values along `rows`."""
        return self._by_seed(values, "only")

    def without(self, values: np.ndarray) -> np.ndarray:
        """[L, S, P, ...] of all networks but one, of values along `rows`."""
        return self._by_seed(values, "left_out")

    def all(self, values: np.ndarray) -> np.ndarray:
        """[L, P, ...] of all networks together, of values along `rows`."""
        losses, _, cases = self.member.shape
        found = np.full((losses, cases, *values.shape[1:]), np.nan)
        here = self.rows["whole"].to_numpy(bool)
        found[self._at("loss_index", here), self._at("case_index", here)] = values[here]
        return found

    def by_size(self, values: np.ndarray, size: int) -> np.ndarray:
        """[L, P] mean over the parts of so many networks, of values along `rows`; NaN where one of
        them is."""
        here = (self.rows["size"] == size).to_numpy()
        shape = (self.member.shape[0], self.member.shape[2])
        at = (self._at("loss_index", here), self._at("case_index", here))
        total, number = np.zeros(shape), np.zeros(shape)
        np.add.at(total, at, values[here])
        np.add.at(number, at, 1)
        return np.divide(total, number, out=np.full(shape, np.nan), where=number > 0)

    def column(self, name: str) -> np.ndarray:
        """A column along `rows`; a histogram is [rows, bins], NaN where there is none."""
        if name not in scores.LENGTHS:
            return self.rows[name].to_numpy(float)
        found = np.full((len(self.rows), scores.LENGTHS[name]), np.nan)
        known = self.rows[name].notna().to_numpy()
        if known.any():
            found[known] = np.stack(self.rows[name].to_numpy()[known])
        return found

    def _by_seed(self, values: np.ndarray, column: str) -> np.ndarray:
        found = np.full((*self.member.shape, *values.shape[1:]), np.nan)
        here = (self.rows[column] >= 0).to_numpy()
        at = tuple(self._at(name, here) for name in ("loss_index", column, "case_index"))
        found[at] = values[here]
        return found

    def _at(self, column: str, here: np.ndarray) -> np.ndarray:
        return self.rows[column].to_numpy(int)[here]


def together(sweep: results.Sweep, cohort: CohortScores) -> Together | None:
    """What a results folder holds of a cohort's seeds together; None if nothing."""
    if not (sweep.path / scores.FOLDER).is_dir():
        return None
    runs = asked_for(sweep)
    runs = runs[(runs["cohort"] == cohort.name) & (runs["status"] == "done")]
    complete = {
        row["trial"]: (
            cohort.name, str(row["loss"]), int(row["fold"]), int(row["seed"]),
            scores.recorded_weights(sweep.path / "trials" / row["trial"]),
        )
        for row in runs.to_dict("records")
    }  # fmt: skip
    found = scores.usable(scores.read_scores(sweep.path).whole, complete)
    place = {
        "loss": {loss: index for index, loss in enumerate(cohort.losses)},
        "fold": {fold: index for index, fold in enumerate(cohort.folds)},
        "seed": {seed: index for index, seed in enumerate(cohort.seeds)},
    }
    own = {
        (place["loss"][shown(loss)], place["fold"][fold]): one
        for (name, loss, fold), one in found.items()
        if name == cohort.name and shown(loss) in place["loss"] and fold in place["fold"]
    }
    if not own:
        return None
    networks = np.zeros((len(cohort.losses), len(cohort.folds)), int)
    member = np.zeros(cohort.test.shape[:3], bool)
    frames = []
    for (loss, fold), one in own.items():
        networks[loss, fold] = len(one.ensemble.seeds)
        for seed in one.ensemble.seeds:
            member[loss, place["seed"][seed]] |= cohort.fold_of == fold
        frames.append(_frame(one, cohort, loss, fold, place["seed"]))
    done = cohort.done.sum(1)
    return Together(
        networks=networks,
        member=member,
        rows=pd.concat(frames, ignore_index=True),
        outdated=int(((networks > 0) & (networks < done)).sum()),
        unscored=int(((networks == 0) & (done > 1)).sum()),
        precisions=tuple(sorted({one.precision for one in own.values()})),
    )


def _frame(
    one: scores.Scored, cohort: CohortScores, loss: int, fold: int, seeds: Mapping[int, int]
) -> pd.DataFrame:
    """Rows of an ensemble with their places; of cases that its fold does not test, none."""
    rows = frame_as_shown(one.rows.to_pandas())
    cases = {
        case: index
        for index, (case, own) in enumerate(zip(cohort.cases, cohort.fold_of, strict=True))
        if own == fold
    }
    rows = rows[rows["case"].isin(list(cases))]
    members = one.ensemble.seeds
    parts = [tuple(int(seed) for seed in part) for part in rows["seeds"]]
    others = [tuple(set(members) - set(part)) for part in parts]
    return rows.assign(
        loss_index=loss,
        case_index=rows["case"].map(cases).to_numpy(int),
        size=[len(part) for part in parts],
        only=[seeds[part[0]] if len(part) == 1 else -1 for part in parts],
        left_out=[seeds[other[0]] if len(other) == 1 else -1 for other in others],
        whole=[not other for other in others],
    )
