"""Seeds together: stored is what their mean probability scores, where none of them was trained."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from lesion_core import predict, results, scores
from lesion_core.arms import arms_of
from lesion_core.cohorts import Folder
from lesion_core.evaluate import image_counts, predict_volume
from lesion_core.images import load_cohort
from lesion_core.segmentation import ensemble as ensembles
from lesion_core.segmentation.networks import by_fold, choose, load_network
from lesion_core.segmentation.scored import unseen_cases
from lesion_core.segmentation.together import case_rows
from lesion_core.uncertainty import binned, entropy_bits
from sweeps.verify import verify
from tests.support import tiny
from tests.support.networks import SETTINGS, write_networks
from tests.support.toy import toy_image

SHAPE = (17, 14, 11)
CHANNELS = ("t1", "flair")
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """``data/mine`` of four cases, and ``results``: two losses, three seeds, two folds, scored."""
    root = tmp_path_factory.mktemp("scores")
    for number, case in enumerate("abcd"):
        images = {
            name: (
                100 + 40 * ndimage.gaussian_filter(tiny.noise(10 * number + i, SHAPE), 1.5)
            ).astype(np.float32)
            for i, name in enumerate(CHANNELS)
        }
        tiny.write_case(root / "data" / "mine" / case, images)
    cohort = Folder(name="mine", channels=CHANNELS)
    tp = {"dsc": 3, "xent": 5}
    write_networks(root / "results", cohort, root / "data", tp=tp, seeds=SEEDS)
    assert run(root / "results", root) == 0
    return root


def run(path, root, *flags):
    return predict.main(
        [str(path), "--score", "--data", str(root / "data"), "--device", "cpu", *flags]
    )


def contents(path):
    return {file.name: file.read_bytes() for file in sorted((path / "scores").rglob("*.*"))}


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root / "results", tmp_path / "results")


def test_each_row_is_what_the_mean_probability_of_its_networks_scores(root):
    found = scores.read_scores(root / "results")
    assert len(found.whole) == 4 and not found.damaged and not found.unfinished
    images = {
        i.case: i for i in load_cohort(Folder(name="mine", channels=CHANNELS), root / "data").images
    }
    one = next(each for each in found.whole if each.ensemble.group == ("mine", "dsc", 1))
    assert set(one.cases) < set(images) and one.ensemble.seeds == SEEDS
    alone = {}
    for trial, seed in zip(one.ensemble.trials, SEEDS, strict=True):
        network = load_network((root / "results/trials" / trial / "model.pt").read_bytes())
        image = images[one.cases[0]]
        alone[seed] = predict_volume(network, image.voxels, patch_size=8, stride=4)
    rows = [row for row in one.rows.to_pylist() if row["case"] == one.cases[0]]
    assert [row["seeds"] for row in rows] == [[1], [2], [3], [1, 2], [2, 3], [1, 3], [1, 2, 3]]
    for row in rows:
        mean = np.mean([alone[seed] for seed in row["seeds"]], axis=0)
        counts = image_counts(image, mean)
        assert {name: row[name] for name in counts} == counts
        np.testing.assert_allclose(row["brier_sum"], ((mean - image.lesion) ** 2).sum(), rtol=1e-5)
        assert sum(row["lesion"]) + sum(row["background"]) == row["brier_voxels"] == mean.size
        wrong = ((mean >= 0.5) != image.lesion)[image.brain]
        assert sum(row["entropy_errors"]) == wrong.sum()
        assert (row["disagreement_voxels"] is None) == (len(row["seeds"]) == 1)


def test_networks_of_several_folds_are_never_scored_together(root):
    chosen = choose(root / "results", loss="dsc")
    held_out = {m.trial: {"ab"[m.fold]} for m in chosen.members}
    with pytest.raises(ValueError, match=r"was trained on a, which .* is tested on; .*one fold$"):
        unseen_cases(chosen, held_out)
    for choice in by_fold(root / "results", loss="dsc"):
        assert unseen_cases(choice, held_out) == {"ab"[choice.folds[0]]}


def test_an_interrupted_run_goes_on_with_the_next_case_to_the_same_bytes(root, copy, monkeypatch):
    before = contents(copy)
    folder = next(each for each in (copy / "scores").iterdir())
    rows = results.read_table(folder / scores.TABLE, results.ENSEMBLES).to_pylist()
    first = [row for row in rows if row["case"] == rows[0]["case"]]
    scores.write_rows(copy, folder.name, first)  # takes the record away, too
    assert scores.read_scores(copy).unfinished == [folder.name]
    asked = []
    each = ensembles.Ensemble.each
    monkeypatch.setattr(
        ensembles.Ensemble, "each", lambda self, *given: asked.append(1) or each(self, *given)
    )
    assert run(copy, root) == 0
    assert len(asked) == 1 and contents(copy) == before
    assert run(copy, root) == 0
    assert len(asked) == 1


def test_more_networks_are_another_ensemble_that_takes_the_place_of_the_first(root, copy):
    folder = (
        copy / "trials" / next(t.name for t in (copy / "trials").iterdir() if "-s3-f0" in t.name)
    )
    shutil.move(folder / "done.json", folder / "aside")
    shutil.rmtree(copy / "scores")
    assert run(copy, root) == 0
    sizes = sorted(len(one.ensemble.seeds) for one in scores.read_scores(copy).whole)
    assert sizes == [2, 3, 3, 3]
    shutil.move(folder / "aside", folder / "done.json")
    assert run(copy, root) == 0
    assert contents(copy).keys() == contents(root / "results").keys()
    assert {p.name for p in (copy / "scores").iterdir()} == {
        p.name for p in (root / "results" / "scores").iterdir()
    }


def test_arms_are_scored_apart_and_scores_stay_with_their_networks(root, tmp_path):
    """An arm is called as its loss until another joins it; what was scored before is its own."""
    path, cohort = tmp_path / "results", Folder(name="mine", channels=CHANNELS)
    both: list = []
    for rate in (1e-4, 5e-3):
        settings = replace(SETTINGS, learning_rate=rate)
        trials = write_networks(
            path, cohort, root / "data", tp={"dsc": 3}, seeds=(1, 2), settings=settings
        )
        both += [trial.row() | {"settings": {"learning_rate": rate}} for trial in trials]
        meta = results.read_meta(path) | {"settings": SETTINGS.to_dict(), "trials": both}
        results.write_json(path / "sweep.json", meta)
        before = {file: file.read_bytes() for file in (path / "scores").rglob("*.*")}
        assert run(path, root) == 0
        assert all(file.read_bytes() == content for file, content in before.items())
    label_of = arms_of(meta).label_of
    assert set(label_of.values()) == {"dsc, learning_rate 0.0001", "dsc, learning_rate 0.005"}
    for choice in by_fold(path):
        assert {label_of[member.trial] for member in choice.members} == {choice.loss}
        (rate,) = {member.settings.learning_rate for member in choice.members}
        assert choice.loss == f"dsc, learning_rate {rate:g}"
    with pytest.raises(ValueError, match=r"there: dsc, learning_rate 0\.0001; dsc, learning_rate"):
        by_fold(path, loss="dcs")
    assert by_fold(path, loss="dsc") == by_fold(path)
    complete = {
        row["name"]: (
            "mine", label_of[row["name"]], row["fold"], row["seed"],
            scores.recorded_weights(path / "trials" / row["name"]),
        )
        for row in both
    }  # fmt: skip
    found = scores.usable(scores.read_scores(path).whole, complete)
    assert len(found) == 4
    for (_, label, _), one in found.items():
        assert {label_of[trial] for trial in one.ensemble.trials} == {label}


def test_a_network_of_the_users_own_is_scored_where_it_is_named(root, copy, monkeypatch):
    shutil.rmtree(copy / "scores")
    named = []

    def load(*_, own_network, **__):
        named.append(own_network)
        raise ValueError("seen")

    monkeypatch.setattr(ensembles, "load_ensemble", load)
    assert run(copy, root, "--own-network", "my_nets:Net") == 1
    assert set(named) == {"my_nets:Net"}


@pytest.mark.parametrize("file", [scores.TABLE, scores.RECORD])
def test_a_damaged_file_is_named_by_verify_and_made_again(file, root, copy, capsys):
    place = next((copy / "scores").iterdir()) / file
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    assert list(verify(copy).damaged) == [place.relative_to(copy).as_posix()]
    assert run(copy, root) == 0
    assert not verify(copy).damaged and contents(copy) == contents(root / "results")


def test_networks_that_cannot_be_read_never_stop_the_others(root, copy, capsys):
    shutil.rmtree(copy / "scores")
    name = next(t.name for t in (copy / "trials").iterdir() if "dsc" in t.name and "-f0" in t.name)
    (copy / "trials" / name / "model.pt").write_bytes(b"none")
    assert run(copy, root) == 1
    assert "1 ensemble could not be scored:\n  mine-dsc-f0-" in capsys.readouterr().err
    assert len(scores.read_scores(copy).whole) == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--threshold", "0.4"], "--threshold: has no part in --score; leave it out"),
        (["--images", "x"], "--score: it is of test cases; leave it out, or leave out --images"),
        (["--loss", "dcs"], "did you mean dsc?"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(flags, said, root, copy, capsys):
    shutil.rmtree(copy / "scores")
    assert run(copy, root, *flags) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (copy / "scores").exists()


def test_parts_hold_each_network_as_often():
    for number in (2, 3, 5, 7, 10):
        parts = scores.parts_of(number)
        assert len(set(parts)) == len(parts) and parts[-1] == tuple(range(number))
        for size in {len(part) for part in parts}:
            members = [member for part in parts if len(part) == size for member in part]
            assert np.ptp(np.bincount(members, minlength=number)) == 0
    assert len(scores.parts_of(30)) < 130


def test_the_histograms_of_a_case_tell_errors_apart_as_exact_order_does():
    """Area from bins against the rank sum (Mann and Whitney) of the voxels themselves."""
    from analysis.statistics.retention import area

    image = toy_image("a", 1)
    rng = np.random.default_rng(0)
    logits = 3.0 * image.lesion - 2 + rng.normal(size=(4, *image.lesion.shape))
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    row = case_rows(image, p, (*SEEDS, 4))[-1]
    wrong = (p.mean(0) >= 0.5) != image.lesion
    for name, value in (
        ("disagreement", 2 * p.std(0)),
        ("entropy", entropy_bits(p.mean(0))),
    ):
        ranks = stats.rankdata(value)
        hits, rest = wrong.sum(), (~wrong).sum()
        auc = (ranks[wrong.ravel()].sum() - hits * (hits + 1) / 2) / (hits * rest)
        found, off = area(
            *(np.array(row[f"{name}_{what}"], float) for what in ("voxels", "errors"))
        )
        assert abs(found - (2 * auc - 1)) <= off < 0.03
    edges = 2.0 ** ((np.arange(1, 200) - 200) / 10)
    np.testing.assert_array_equal(binned(edges * 1.001), np.arange(1, 200))
