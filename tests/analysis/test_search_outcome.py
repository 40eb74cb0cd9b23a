"""What the report says of a search: unbiased by which cells were met, and by having chosen."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from analysis.page import items
from analysis.sections import search_outcome as section
from analysis.sections import search_surface as drawn
from analysis.statistics.ladder import errors, overlap, with_training_sets
from analysis.statistics.search_axes import Axes
from analysis.statistics.search_outcome import (
    SearchOutcome,
    additive,
    by_cell,
    corrected,
    gain_over_start,
    rivals,
    saved,
    start,
)
from analysis.statistics.search_surface import (
    grid_frame,
    pairs_frame,
    surface,
    whole_fields,
    whole_space,
)
from lesion_core.folds import folds_by, validation_cases
from lesion_core.search_space import Range


def found(
    fields=("alpha", "gamma"), objectives=("dice",), configurations=14, seed=0, chosen=True
) -> SearchOutcome:
    """A hill with its top at 0.6 of every range; every third configuration pruned after 4 cells."""
    rng = np.random.default_rng(seed)
    ranges = {"alpha": [0.0, 1.0], "gamma": [0.0, 5.0], "eps": [0.0, 2.0]}
    cells = [[s, f] for s in (1, 2, 3) for f in (0, 1, 2)]
    points = np.array([[rng.uniform(*ranges[f]) for f in fields] for _ in range(configurations)])
    highs = np.array([ranges[f][1] for f in fields])
    truth = 0.7 - ((points / highs - 0.6) ** 2).sum(1)
    cell = rng.normal(0, 0.1, len(cells))
    scores = truth[:, None] + cell + rng.normal(0, 0.01, (configurations, len(cells)))
    stored = []
    for place, values in enumerate(points):
        pruned = place % 3 == 2
        if pruned:
            scores[place, 4:] = np.nan
        stored.append(
            {
                "number": place,
                "values": dict(zip(fields, values.tolist(), strict=True)),
                "loss": f"focal({place})",
                "state": "pruned" if pruned else "complete",
                "trials": {str(c): "t" for c in range(4 if pruned else len(cells))},
                "score": None,
                "reason": None,
                "sampler": "tpe",
                "prune_p": 0.1,
            }
        )
    by_metric = {
        "dice": scores,
        "sensitivity": scores + points[:, :1] / 10,
        "precision": 1 - scores,
    }
    usable = np.ones(configurations, bool)
    fits = {metric: additive(values, usable) for metric, values in by_metric.items()}
    best = int(np.nanargmax(np.where(np.isnan(scores).any(1), -1, fits["dice"][0])))
    return SearchOutcome(
        search={
            "cohort": "toy", "loss": "focal", "objectives": list(objectives), "cells": cells,
            "space": {f: str(Range(*ranges[f])) for f in fields}, "sampler": "tpe",
            "ranges": {f: ranges[f] for f in fields}, "prune_p": 0.1, "planned": configurations,
            "configurations": stored, "chosen": best if chosen else None, "comparators": ["xent"],
            "in_fold": {"0": best, "1": 0, "2": best}, "tested": [best, 1],
            "importance": {"dice": dict.fromkeys(fields, 1 / len(fields))}, "confirm_seeds": [7, 8],
        },
        fields=list(fields),
        points=points,
        scores=by_metric,
        estimate={metric: fit[0] for metric, fit in fits.items()},
        error={metric: fit[1] for metric, fit in fits.items()},
        fresh={
            metric: {
                f"focal({best})": scores[best, :6].reshape(2, 3) - 0.02,
                "xent": np.full((2, 3), 0.4),
            }
            for metric in by_metric
        },
    )  # fmt: skip


def test_estimates_do_not_depend_on_which_cells_were_met():
    rng = np.random.default_rng(0)
    truth, cell = rng.normal(0.5, 0.1, 12), rng.normal(0, 0.3, 20)
    scores = truth[:, None] + cell + rng.normal(0, 0.01, (12, 20))
    for row in range(4, 12):
        scores[row, np.argsort(cell)[:14]] = np.nan  # met the easiest cells only
    estimate, error = additive(scores, np.ones(12, bool))
    shift = estimate.mean() - truth.mean()
    np.testing.assert_allclose(estimate - shift, truth, atol=0.02)
    assert np.nanmean(scores[5]) - estimate[5] > 0.2  # what a plain mean would have made of it
    assert error[0] == pytest.approx(0.01 / np.sqrt(20), rel=0.2)
    assert error[5] == pytest.approx(0.01 / np.sqrt(6), rel=0.2)


def test_a_failed_configuration_has_no_estimate_and_moves_no_other():
    scores = np.array([[0.5, 0.6, 0.7], [0.4, 0.5, 0.6], [0.9, np.nan, np.nan]])
    usable = np.array([True, True, False])
    estimate, _ = additive(scores, usable)
    assert np.isnan(estimate[2])
    np.testing.assert_allclose(estimate[:2], additive(scores[:2], usable[:2])[0])


def test_the_best_of_many_equals_is_not_praised_for_its_luck():
    """All configurations are equally good: the winner's mean is too high, the corrected is not."""
    naive, honest, covered = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = 0.5 + rng.normal(0, 0.05, (25, 15))
        naive.append(scores.mean(1).max() - 0.5)
        mean, low, high = corrected(scores, np.random.default_rng(1))
        honest.append(mean - 0.5)
        covered.append(low <= 0.5 <= high)
    assert np.mean(naive) > 0.02
    assert abs(np.mean(honest)) < np.mean(naive) / 3
    assert np.mean(covered) >= 0.9


def test_choosing_is_done_again_over_folds_not_cells():
    """Configurations differ by patient: the seeds of a fold share them, so a cell left out knows
    what chose; folds left out do not."""
    naive, over_cells, over_folds = [], [], []
    fold_of = np.tile(np.arange(5), 3)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        patients = rng.normal(0, 0.05, (30, 5))
        scores = 0.5 + patients[:, fold_of] + rng.normal(0, 0.02, (30, 15))
        naive.append(scores.mean(1).max() - 0.5)
        over_cells.append(corrected(scores, np.random.default_rng(1))[0] - 0.5)
        over_folds.append(corrected(scores, np.random.default_rng(1), fold_of)[0] - 0.5)
    assert np.mean(naive) > 0.035 and np.mean(over_cells) > 0.015
    assert abs(np.mean(over_folds)) < 0.01


def test_two_folds_are_not_resampled():
    scores = np.random.default_rng(0).random((8, 6))
    assert np.isnan(corrected(scores, np.random.default_rng(0), np.tile([0, 1], 3))[0])


def test_the_surface_peaks_where_the_hill_does_and_knows_its_noise():
    some = found(configurations=30)
    fitted = surface(some, "dice")
    frame = grid_frame(some, fitted, "dice")
    top = frame.loc[frame["score"].idxmax()]
    assert abs(top["alpha"] - 0.6) < 0.15 and abs(top["gamma"] / 5 - 0.6) < 0.15
    sd = fitted.at(some.points)[1]
    beyond, further = fitted.at(np.array([[0.6, 3.0], [0.0, 0.0]]))
    assert sd.max() < 0.02 and further[1] > further[0]
    assert beyond[0] > beyond[1]
    place, close = fitted.like_the_best(frame[["alpha", "gamma"]].to_numpy())
    assert frame.index[place] == top.name and 0 < close < 0.1
    few = found(configurations=4)
    assert surface(few, "dice") is None


MIXED = {
    "space": {"rate": "", "schedule": "", "warm": "", "alpha": ""},
    "ranges": {"rate": [1e-5, 1e-1], "warm": [0, 8], "alpha": [0.0, 1.0]},
    "domains": {
        "rate": {"log": True},
        "schedule": {"choices": ["constant", "cosine", None]},
        "warm": {"whole": True, "only": {"field": "schedule", "values": ["cosine"]}},
    },
}  # fmt: skip


def mixed(configurations=60):
    """A hill at a rate of 1e-3 and alpha 0.6, on a cosine with a warm-up of 6."""
    rng = np.random.default_rng(3)
    axes = Axes.of(MIXED)
    points = axes.as_searched(
        np.stack(
            [
                10 ** rng.uniform(-5, -1, configurations), rng.integers(3, size=configurations),
                rng.integers(9, size=configurations), rng.uniform(0, 1, configurations),
            ],
            1,
        )
    )  # fmt: skip
    rate, schedule, warm, alpha = points.T
    truth = 0.7 - 0.05 * (np.log10(rate) + 3) ** 2 - 0.4 * (alpha - 0.6) ** 2
    truth -= np.where(schedule == 1, 0.004 * np.abs(np.nan_to_num(warm) - 6), 0.06)
    one = found(("alpha",), configurations=configurations)
    scores = truth[:, None] + np.random.default_rng(4).normal(
        0, 0.004, (configurations, len(one.cells))
    )
    by_metric = dict.fromkeys(one.scores, scores)
    fit = additive(scores, np.ones(configurations, bool))
    best = int(np.argmax(fit[0]))
    stored = [
        c | {"state": "complete", "values": {}, "loss": f"setting {place}"}
        for place, c in enumerate(one.configurations)
    ]
    search = one.search | MIXED | {"configurations": stored, "chosen": best}
    return replace(
        one, search=search, fields=list(MIXED["space"]), points=points, scores=by_metric,
        estimate=dict.fromkeys(one.scores, fit[0]), error=dict.fromkeys(one.scores, fit[1]),
    )  # fmt: skip


def test_a_surface_over_ranges_choices_and_conditional_fields_has_its_top_where_it_was_planted():
    some = mixed()
    fitted = surface(some, "dice")
    space = whole_space(some.axes)
    assert (np.isnan(space[:, 2]) == (space[:, 1] != 1)).all() and not np.isnan(space[:, 3]).any()
    assert np.quantile(np.log10(space[:, 0]), [0.25, 0.5, 0.75]) == pytest.approx(
        [-4, -3, -2], abs=0.2
    )
    top = space[fitted.like_the_best(space)[0]]
    assert abs(np.log10(top[0]) + 3) < 0.5 and top[1] == 1 and abs(top[3] - 0.6) < 0.2
    frame = grid_frame(some, fitted, "dice")
    by_schedule = frame[frame["varied"] == "schedule"].set_index("schedule")["score"]
    assert by_schedule.idxmax() == "cosine" and list(by_schedule.index) == [
        "constant",
        "cosine",
        "none",
    ]
    along = frame[frame["varied"] == "warm"]
    assert (along["schedule"] == "cosine").all() and along["warm"].notna().all()
    pairs = pairs_frame(some, fitted, "dice")
    assert set(zip(pairs["x"], pairs["y"], strict=True)) == {
        ("rate", "warm"), ("rate", "alpha"), ("warm", "alpha"),
    }  # fmt: skip
    best = pairs.loc[pairs["score"].idxmax()]
    assert abs(np.log10(best["x_value"]) + 3) < 0.5
    made = section.search_section(some, [])
    keys = [getattr(item, "key", "") for item in made.items]
    assert {"search-surface-dice", "search-pairs-dice"} <= set(keys)
    for item in made.items:
        if isinstance(item, items.Figure):
            item.draw()
    words = next(item for item in made.items if getattr(item, "key", "") == "search-surface-dice")
    assert "schedule cosine" in words.caption and "Highest at rate 0.00" in words.caption


def test_cells_find_their_place_whatever_their_order():
    grid = by_cell([(9, 1), (2, 0), (9, 0), (2, 1)], np.array([4.0, 1.0, 3.0, 2.0]))
    assert grid.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("fields", "objectives"),
    [
        (("alpha", "gamma"), ("dice",)),
        (("alpha", "gamma"), ("sensitivity", "precision")),
        (("gamma",), ("dice",)),
        (("alpha", "gamma", "eps"), ("dice",)),
    ],
)
@pytest.mark.parametrize("chosen", [True, False])
def test_every_kind_of_search_has_a_section(tmp_path, fields, objectives, chosen):
    some = found(fields, objectives, chosen=chosen)
    made = section.search_section(some, [])
    page = " ".join(items.render(item, tmp_path, ("svg",)) for item in made.items)
    assert made.title.startswith("Which ") and "search-configurations" in page
    assert ("search-verdict" in page) == chosen
    assert ("Nothing is chosen:" in page) == (not chosen)
    assert ("search-front" in page) == (len(objectives) > 1)
    if chosen:
        table = (tmp_path / "tables" / "search-verdict.csv").read_text()
        assert "fresh seeds, same patients" in table and "as searched (optimistic)" in table
        assert ("bootstrap" in table) == (len(objectives) == 1)
        assert "opened 2 times" in page


def test_incomplete_fresh_seeds_give_no_number():
    some = found()
    best = some.configurations[some.chosen]["loss"]
    assert "On fresh seeds it scored" in section._headline(some, best)
    some.fresh["dice"][best][1, 2] = np.nan
    assert "On fresh seeds 5 of 6 cells are there: not comparable" in section._headline(some, best)
    rows, versus = section._confirmed(some, "dice", best)
    assert np.isnan(rows[0]["score"]) and rows[0]["trials"] == "5 of 6" and not versus


def test_what_cannot_be_told_from_the_chosen_one_is_counted_and_named():
    """A twin has the same score, a near one is alike, a far one is told apart."""
    some = found(configurations=9, seed=3)
    place, noise = some.chosen, np.random.default_rng(5).normal(0, 0.01, 9)
    others = [p for p in np.flatnonzero(some.states == "complete") if p != place]
    rows = {others[0]: 0.0, others[1]: -0.001 + noise, others[2]: -0.2 + noise}
    for other, shift in rows.items():
        some.scores["dice"][other] = some.scores["dice"][place] + shift
    near = rivals(some, "dice")
    assert others[0] in near.alike and others[1] in near.alike and others[2] not in near.alike
    assert near.same == [others[0]]
    loss = [one["loss"] for one in some.configurations]
    words = section._headline(some, loss[place])
    assert f"At least {len(near.alike)} of the {len(near.others)} other complete" in words
    assert f"({loss[others[0]]} has the same score)" in words
    may, may_not = section.conclusions(some)
    assert any("cannot be told from it" in line for line in may_not)
    assert any(f"better than {len(near.others) - len(near.alike)} of" in line for line in may)


def test_the_gain_over_the_beginning_pays_for_choosing():
    """Twenty-five equal configurations: the best is above the first by luck alone."""
    naive, honest = [], []
    some = found(configurations=25)
    search = some.search | {
        "cells": [[s, f] for s in (1, 2, 3) for f in range(5)],
        "configurations": [
            one | {"state": "complete", "sampler": "" if place == 0 else "tpe"}
            for place, one in enumerate(some.configurations)
        ],
    }
    for seed in range(40):
        scores = 0.5 + np.random.default_rng(seed).normal(0, 0.05, (25, 15))
        best = int(scores[1:].mean(1).argmax()) + 1
        one = replace(some, search=search | {"chosen": best}, scores={"dice": scores})
        assert start(one) == 0
        naive.append(scores[best].mean() - scores[0].mean())
        honest.append(gain_over_start(one, "dice")[0])
    assert np.mean(naive) > 0.02 and abs(np.mean(honest)) < 0.008
    assert start(some) is None  # a sampler proposed the first one


def test_a_single_field_has_no_importance_and_whole_numbers_have_whole_ticks(tmp_path):
    single = found(("gamma",))
    assert all(getattr(one, "key", "") != "search-importance"
               for one in section.search_section(single, []).items)  # fmt: skip
    points = np.array([[1.0], [2.0], [3.0]] * 5)[:14]
    whole = replace(single, points=points)
    assert whole_fields(whole) == ["gamma"] and whole_fields(single) == []
    fitted = surface(whole, "dice")
    drawing = drawn.draw_slices(whole, fitted, grid_frame(whole, fitted, "dice"), "dice")
    for axis in (drawing.axes[0].xaxis, section.draw_cost(whole).axes[0].xaxis):
        ticks = axis.get_major_locator()()
        assert (ticks == np.round(ticks)).all() and len(ticks) > 1


def test_intervals_on_validation_parts_cover_at_the_declared_effect():
    """Their training sets are a fifth smaller than those of a fold and share less (k 0.65 instead
    of 0.80), and effects grow as 1 / sqrt(n): together, what the report takes them for."""
    rng, draws, patients = np.random.default_rng(0), 3000, 60
    members = [SimpleNamespace(id=f"{i:02d}", subject=f"{i:02d}", site="") for i in range(patients)]
    folds = folds_by("strided", members, 5)
    number = {member.id: place for place, member in enumerate(members)}
    effect_of, own = rng.normal(size=(draws, patients)), rng.normal(0, 0.03, (draws, patients))
    for tau in (0.0, 0.01, 0.02):
        blocks = []
        for fold, tested in enumerate(folds):
            held = [number[c] for c in validation_cases("strided", members, tested, fold)]
            out = {*held, *(number[case] for case in tested)}
            trained = [place for place in range(patients) if place not in out]
            effect = tau * np.sqrt((patients - len(tested)) / len(trained)) / np.sqrt(len(trained))
            cells = rng.normal(0, 0.02, (draws, 3)) + rng.normal(
                0, 0.03 / np.sqrt(len(held)), (draws, 3)
            )
            mean = own[:, held].mean(1) + effect * effect_of[:, trained].sum(1)
            blocks.append((cells + mean[:, None])[..., None])
        fits = errors(blocks)
        k = overlap(np.full(5, 0.2), np.ones(5), 5)
        half = 0.0
        for added in (0.0, tau):  # an effect "up to tau" may also be none
            variance, df = with_training_sets(fits.variance["base"], fits.df["base"], k, added)
            half = np.maximum(half, stats.t.ppf(0.975, df) * np.sqrt(variance))
        assert 0.93 <= (abs(fits.estimate) <= half).mean() <= 0.97, tau


def test_a_few_complete_configurations_are_not_resampled():
    assert np.isnan(corrected(np.random.default_rng(0).normal(size=(4, 9)), None)[0])


def test_saved_cells_are_those_of_pruned_configurations():
    some = found(configurations=9)
    assert saved(some) == (3 * 5, 81)
    running = [one | {"state": "running"} for one in some.configurations]
    assert saved(replace(some, search=some.search | {"configurations": running})) == (0, 0)
