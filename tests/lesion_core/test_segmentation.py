"""New patients: the same mask in whichever form they come, and no case stops the others."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

import lesion_core
from lesion_core import predict, results
from lesion_core.cohorts import Folder
from lesion_core.evaluate import predict_volume
from lesion_core.segmentation import bids_layout, new_patients
from lesion_core.segmentation import ensemble as ensembles
from lesion_core.segmentation.cases import NewCase, find_cases
from lesion_core.segmentation.ensemble import load_ensemble
from lesion_core.segmentation.geometry import Brought, TrainingGrid
from lesion_core.segmentation.networks import choose
from lesion_core.segmentation.windowed import planes
from lesion_core.training.randomness import generator
from lesion_core.unet import UNet3d
from tests.support import tiny
from tests.support.networks import SETTINGS, write_networks, write_weights

SHAPE = (17, 14, 11)
LAS = np.diag([-1.0, 1, 1, 1])
CHANNELS = ("t1", "flair")


def smooth(seed, shape=SHAPE):
    return (100 + 40 * ndimage.gaussian_filter(tiny.noise(seed, shape), 1.5)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """``data/mine``, the sweep ``results`` of two losses on it, and ``new/p07`` without labels."""
    root = tmp_path_factory.mktemp("segmentation")
    for number, case in enumerate("abcd"):
        images = {name: smooth(10 * number + i) for i, name in enumerate(CHANNELS)}
        tiny.write_case(root / "data" / "mine" / case, images, affine=LAS)
    cohort = Folder(name="mine", channels=CHANNELS)
    write_networks(root / "results", cohort, root / "data", tp={"dsc": 3, "xent": 5})
    new_case(root / "new" / "p07")
    return root


def new_case(folder, seed=77, brain=True):
    images = {name: smooth(seed + i) for i, name in enumerate(CHANNELS)}
    for name, image in images.items():
        tiny.save(folder / f"{name}.nii.gz", image, LAS)
    if brain:
        tiny.save(folder / "brain.nii.gz", tiny.ball(SHAPE), LAS)
    return folder


def run(root, out, *images, flags=(), status=0, capsys=None):
    arguments = [str(root / "results"), "--images", *map(str, images), "--out", str(out)]
    found = predict.main([*arguments, "--device", "cpu", *flags])
    assert found == status, "" if capsys is None else capsys.readouterr().err
    return out


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def folder_form(root):
    """What comes out for the case as a folder of folders."""
    return run(root, root / "as_folder", root / "new", flags=["--probability"])


def test_a_picture_shows_disagreement_inside_the_brain_alone(root, tmp_path, monkeypatch):
    """Outside, networks of few epochs disagree most, and the slice would be one without brain."""
    drawn = []
    monkeypatch.setattr(
        new_patients, "overlay_png", lambda *given: drawn.append(given) or b"picture"
    )
    brain = tiny.ball(SHAPE)
    brain[9:, 7:] = False
    tiny.save(new_case(tmp_path / "new/p07") / "brain.nii.gz", brain, LAS)
    out = run(root, tmp_path / "out", tmp_path / "new", flags=["--overlay", "--layout", "bids"])
    _, _, shown, _ = drawn[0]
    (file,) = out.rglob("*disagreement_probseg.nii.gz")
    found = voxels(file)
    assert found[~brain].any()
    assert np.array_equal(shown, np.where(brain, found, 0))
    assert (out / ".bidsignore").read_text() == "figures\n"  # BIDS has no place for pictures


# ---------------------------------------------------------------------------------------- the forms
def as_flat(root, place):
    for name in (*CHANNELS, "brain"):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "new/p07" / f"{name}.nii.gz", place / f"p07_{name.upper()}.nii.gz")
    return [place], []


def as_files(root, place):
    (folder,), _ = as_flat(root, place)
    return sorted(folder.iterdir()), []


def as_one_case(root, place):
    return [shutil.copytree(root / "new/p07", place / "p07")], []


def named(root, place):
    for name in (*CHANNELS, "brain"):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "new/p07" / f"{name}.nii.gz", place / f"p07_t1.{name}.nii.gz")
    names = {"t1": "p07_t1.t1", "flair": "p07_t1.flair", "brain": "p07_t1.brain"}
    shutil.copy(place / "p07_t1.t1.nii.gz", place / "p07_t1.nii.gz")
    names["t1"] = "p07_t1"
    return [f"{name}={place / file}.nii.gz" for name, file in names.items()], []


def as_challenge(root, place):
    inner = place / "p07" / "pre"
    shutil.copytree(root / "new/p07", inner)
    for name in CHANNELS:
        (inner / f"{name}.nii.gz").rename(inner / f"{name.upper()}.nii.gz")
    return [place], []


def as_nnunet(root, place, listed=True):
    for number, name in ((1, "t1"), (0, "flair")):
        target = place / "imagesTs" / f"p07_{number:04d}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "new/p07" / f"{name}.nii.gz", target)
    (place / "brainsTs").mkdir()
    shutil.copy(root / "new/p07" / "brain.nii.gz", place / "brainsTs" / "p07.nii.gz")
    if listed:
        results.write_json(place / "dataset.json", {"channel_names": {"0": "FLAIR", "1": "T1w"}})
        return [place], []
    return [place / "imagesTs"], ["--channels", "t1=0001", "flair=0000"]


def as_numbers(root, place):
    return as_nnunet(root, place, listed=False)


def as_bids(root, place):
    anat = Path("sub-p07", "anat")
    for name, suffix in (("t1", "T1w"), ("flair", "FLAIR")):
        (place / anat).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"new/p07/{name}.nii.gz", place / anat / f"sub-p07_{suffix}.nii.gz")
    masks = place / "derivatives" / "bet" / anat
    masks.mkdir(parents=True)
    shutil.copy(root / "new/p07/brain.nii.gz", masks / "sub-p07_desc-brain_mask.nii.gz")
    results.write_json(place / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.9.0"})
    return [place], []


FORMS = [as_flat, as_files, as_one_case, named, as_challenge, as_nnunet, as_numbers, as_bids]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_case_gives_the_same_bytes_in_every_form(form, root, folder_form, tmp_path):
    images, flags = form(root, tmp_path / "given")
    out = run(root, tmp_path / "out", *images, flags=["--probability", *flags])
    name = "sub-p07" if form is as_bids else "p07"
    for end in (".nii.gz", "_probability.nii.gz", "_disagreement.nii.gz"):
        assert (out / f"{name}{end}").read_bytes() == (folder_form / f"p07{end}").read_bytes()
    records = [
        json.loads(path.read_text()) for path in (out / f"{name}.json", folder_form / "p07.json")
    ]
    for key in ("lesion_voxels", "networks", "loss", "brain", "spacing_mm", "orientation"):
        assert records[0][key] == records[1][key]


@pytest.mark.parametrize("code", ["RAS", "PSR", "ILP"])
def test_turned_axes_give_the_same_mask_to_the_voxel(code, root, folder_form, tmp_path, capsys):
    for path in (root / "new/p07").iterdir():
        image = nib.load(path)
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(code))
        (tmp_path / "p07").mkdir(exist_ok=True)
        nib.save(image.as_reoriented(turn), tmp_path / "p07" / path.name)
    out = run(root, tmp_path / "out", tmp_path / "p07", flags=["--probability"])
    for end in (".nii.gz", "_probability.nii.gz", "_disagreement.nii.gz"):
        found, expected = nib.load(out / f"p07{end}"), nib.load(folder_form / f"p07{end}")
        assert "".join(aff2axcodes(found.affine)) == code
        back = nib.as_closest_canonical(found)
        np.testing.assert_array_equal(back.dataobj, nib.as_closest_canonical(expected).dataobj)
    assert f"p07: axes turned from {code} to LAS, as in training" in capsys.readouterr().err


def test_other_voxels_are_resampled_said_and_taken_back(root, folder_form, tmp_path, capsys):
    """The same head in voxels of 0.8 mm: the probability is the same but for interpolation."""
    for path in (root / "new/p07").iterdir():
        image = nib.load(path)
        fine = [round(n / 0.8) for n in SHAPE]
        affine = image.affine @ np.diag([0.8, 0.8, 0.8, 1])
        moved = ndimage.affine_transform(
            np.asanyarray(image.dataobj), [0.8] * 3, output_shape=fine, mode="nearest",
            order=0 if path.name.startswith("brain") else 1,
        )  # fmt: skip
        tiny.save(tmp_path / "p07" / path.name, moved, affine)
    run(root, tmp_path / "out", tmp_path / "p07", flags=["--as-is"], status=1)
    assert "would be resampled to 1 x 1 x 1 mm; leave out --as-is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    out = run(root, tmp_path / "out", tmp_path / "p07", flags=["--probability"])
    assert "p07: voxels of 0.8 x 0.8 x 0.8 mm" in capsys.readouterr().err
    record = json.loads((out / "p07.json").read_text())
    assert record["resampled"] and record["spacing_mm"]["image"] == [0.8] * 3
    assert record["spacing_mm"]["used"] == [1.0] * 3
    found = nib.load(out / "p07_probability.nii.gz")
    assert found.shape == tuple(fine)
    before = voxels(folder_form / "p07_probability.nii.gz")
    again = ndimage.affine_transform(
        np.asanyarray(found.dataobj), [1 / 0.8] * 3, output_shape=SHAPE, mode="nearest", order=1
    )
    inside = (slice(3, -3),) * 3
    assert np.corrcoef(again[inside].ravel(), before[inside].ravel())[0, 1] > 0.95


def test_spacing_is_left_alone_between_the_smallest_and_largest_of_the_training():
    grid = TrainingGrid(orientation="RAS", smallest_mm=(0.9, 1, 1.2), largest_mm=(1, 1, 3))
    assert grid.spacing_for((0.95, 1.0009, 5)) == (0.95, 1.0009, 3)
    assert grid.spacing_for((0.5, 1.5, 1)) == (0.9, 1, 1.2)


def test_every_orientation_comes_back_to_the_bit():
    image = np.random.default_rng(0).random((3, 4, 5))
    grid = TrainingGrid(orientation="LPS", smallest_mm=(1, 1, 1), largest_mm=(1, 1, 1))
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[list(axes)] * signs
            brought = Brought.of(image.shape, affine, grid)
            assert "".join(aff2axcodes(brought.grid.affine)) == "LPS"
            np.testing.assert_array_equal(brought.back(brought.image(image)), image)
    unstated = Brought.of(image.shape, LAS, grid, oriented=False)
    assert not unstated.turned


# -------------------------------------------------------------------------------------- the values
@pytest.mark.parametrize("shape", [(17, 14, 11), (5, 9, 8), (8, 8, 8)])
def test_several_networks_give_what_each_gives_alone_to_the_bit(shape, monkeypatch):
    image = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    networks = []
    for seed in range(3):
        networks.append(UNet3d(2, (8, 16)).eval())
        networks[-1].initialise(generator(seed, 0, 0, "weights"))
    how = {"patch_size": 8, "stride": 4, "batch_size": 5, "precision": "fp32"}
    alone = np.stack([predict_volume(network, image, **how) for network in networks])
    parts = list(planes(networks, image, **how))
    assert [part.start for part, _ in parts] + [shape[0]] == [0] + [part.stop for part, _ in parts]
    np.testing.assert_array_equal(np.concatenate([p.numpy() for _, p in parts], axis=1), alone)
    mean, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    ensembles._merge(mean, squares, 0, parts_of(alone[:2]))
    ensembles._merge(mean, squares, 2, parts_of(alone[2:]))
    np.testing.assert_allclose(mean, alone.mean(0), atol=1e-7)
    np.testing.assert_allclose(np.sqrt(squares / 3), alone.std(0), atol=1e-7)


def parts_of(values):
    import torch

    return torch.from_numpy(values)


def test_the_maps_are_mean_and_deviation_over_the_networks_however_many_fit(
    root, folder_form, tmp_path, monkeypatch
):
    seen = []
    for trial in (root / "results" / "trials").glob("mine-xent*"):
        flags = ["--probability", "--trials", trial.name]
        out = run(root, tmp_path / trial.name, root / "new", flags=flags)
        seen.append(voxels(out / "p07_probability.nii.gz"))
    assert len(seen) == 4
    np.testing.assert_allclose(
        voxels(folder_form / "p07_probability.nii.gz"), np.mean(seen, 0), atol=1e-6
    )
    disagreement = voxels(folder_form / "p07_disagreement.nii.gz")
    np.testing.assert_allclose(disagreement, np.std(seen, 0), atol=1e-6)
    assert 0 < disagreement.max() <= 0.5
    monkeypatch.setattr(ensembles, "SLAB_BYTES", 1)
    monkeypatch.setattr(ensembles, "KEPT_BYTES", 1)
    out = run(root, tmp_path / "one_by_one", root / "new", flags=["--probability"])
    np.testing.assert_allclose(voxels(out / "p07_disagreement.nii.gz"), disagreement, atol=1e-6)


def test_a_case_of_the_training_gets_the_mask_that_its_own_trial_gives_it(root, tmp_path):
    (trial,) = (root / "results" / "trials").glob("mine-xent-s1-f0-*")
    arguments = [str(root / "results"), "--data", str(root / "data"), "--trials", trial.name]
    assert predict.main([*arguments, "--out", str(tmp_path / "old"), "--device", "cpu"]) == 0
    (old, *_) = sorted((tmp_path / "old" / trial.name).iterdir())
    case = old.name.removesuffix(".nii.gz")
    flags = ["--trials", trial.name]
    new = run(root, tmp_path / "new", root / "data/mine" / case, flags=flags)
    assert (new / old.name).read_bytes() == old.read_bytes()
    assert not (new / f"{case}_disagreement.nii.gz").exists()  # one network


def test_the_mask_lies_where_the_image_does_for_every_reader(root, tmp_path):
    folder = new_case(tmp_path / "odd")
    tiny.place_oddly(*folder.iterdir())
    out = run(root, tmp_path / "out", folder, flags=["--threshold", "0.45", "--probability"])
    source = nib.load(folder / "t1.nii.gz").header
    for path in out.glob("*.nii.gz"):
        for name in ("qform_code", "sform_code", "srow_x", "qoffset_x", "xyzt_units"):
            np.testing.assert_array_equal(nib.load(path).header[name], source[name])
    np.testing.assert_array_equal(
        voxels(out / "odd.nii.gz"), voxels(out / "odd_probability.nii.gz") >= np.float32(0.45)
    )


def test_the_python_call_gives_the_probability_of_the_command(root, folder_form):
    ensemble = lesion_core.load_ensemble(root / "results", device="cpu")
    image = np.stack([voxels(root / f"new/p07/{name}.nii.gz") for name in ensemble.channels])
    brain = voxels(root / "new/p07/brain.nii.gz")
    found = ensemble(image, brain, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(found, voxels(folder_form / "p07_probability.nii.gz"))
    turned = ensemble(image[:, ::-1], brain[::-1], (1.0, 1.0, 1.0), orientation="RAS")
    np.testing.assert_array_equal(turned[::-1], found)
    assert ensemble(image, brain, (1, 1, 2.0)).shape == SHAPE
    for wrong, said in (
        ((image[:1], brain, (1, 1, 1)), "expected 2 \\(t1 flair\\)"),
        ((image, brain[:4], (1, 1, 1)), "expected 2"),
        ((image, 0 * brain, (1, 1, 1)), "mask is empty"),
        ((image, 2 * brain, (1, 1, 1)), "other values than 0 and 1"),
        ((image * np.nan, brain, (1, 1, 1)), "NaN"),
        ((image, brain, (1, 1)), "three voxel sides"),
        ((image, brain, (1, 1, 0)), "three voxel sides"),
    ):
        with pytest.raises(ValueError, match=said):
            ensemble(*wrong)


# ----------------------------------------------------------------------------------- which networks
def test_the_loss_that_the_report_puts_first_is_named_with_why(root):
    chosen = choose(root / "results")
    assert (chosen.loss, chosen.seeds, chosen.folds) == ("xent", [1, 2], [0, 1])
    assert chosen.in_words == (
        "4 networks of loss xent on mine (seeds 1 2; folds 0 1; last epoch): the loss that the "
        "report puts first, mean test DSC 0.627 at the last epoch over 4 (seed, fold) cells and 4 "
        "patients; next dsc 0.450"
    )
    part = choose(root / "results", loss="dsc", seeds=[2], folds=[0])
    assert [(m.seed, m.fold) for m in part.members] == [(2, 0)]
    best = choose(root / "results", best=True)
    assert [(m.seed, m.fold) for m in best.members] == [(2, 0)]
    assert "of 4 the one whose test DSC, 0.667, is farthest above" in best.why


def test_networks_that_are_not_complete_are_left_out_and_named(root, tmp_path):
    copy = shutil.copytree(root / "results", tmp_path / "results")
    (gone,) = copy.glob("trials/mine-xent-s2-f1-*")
    (gone / "done.json").unlink()
    chosen = choose(copy)
    assert len(chosen.members) == 3
    assert f"; not complete and left out: {gone.name} (partial)" in chosen.in_words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "xnet"}, "--loss xnet: .*; there: dsc, xent; did you mean xent?"),
        ({"seeds": [3]}, "--seeds 3: no such seed in .*; there: 1 2"),
        ({"folds": [2]}, "--folds 2: no such fold in .*; there: 0 1"),
        ({"cohort": "yours"}, "--cohort yours: .*; there: mine"),
        ({"trials": ["mine"]}, "trial mine is not in"),
        ({"trials": ["mine"], "loss": "dsc"}, "--trials names the networks; leave out"),
    ],
)
def test_networks_that_are_not_there_are_one_line(root, options, said):
    with pytest.raises(ValueError, match=said):
        choose(root / "results", **options)


def damage(folder, how):
    model = folder / results.MODEL
    if how == "cut":
        model.write_bytes(model.read_bytes()[:1000])
    elif how == "text":
        model.write_text("no weights")
    elif how == "foreign":
        write_weights(folder, UNet3d(3, SETTINGS.filters))
    elif how == "nan":
        network = UNet3d(2, SETTINGS.filters)
        network.head.bias.data[:] = np.nan
        write_weights(folder, network)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "is damaged, or holds no weights"),
        ("text", "is damaged, or holds no weights"),
        ("foreign", "is of a network for 3 images, not for 2 (t1 flair)"),
        ("nan", "head.bias holds values that are no numbers"),
    ],
)
def test_a_file_that_is_no_network_of_these_is_one_line_and_nothing_is_written(
    root, tmp_path, how, said, capsys
):
    copy = shutil.copytree(root / "results", tmp_path / "results")
    (folder,) = copy.glob("trials/mine-xent-s2-f1-*")
    damage(folder, how)
    run(tmp_path, tmp_path / "out", root / "new", status=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder.name}: model.pt: ") and said in line
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------- what can go wrong
def test_one_case_that_cannot_be_used_never_stops_the_others(root, tmp_path, capsys):
    place = tmp_path / "new"
    for name in ("cut", "good", "lacks", "nan", "nobrain"):
        new_case(place / name, brain=name != "nobrain")
    (place / "lacks/flair.nii.gz").unlink()
    cut = place / "cut/t1.nii.gz"
    cut.write_bytes(cut.read_bytes()[:500])
    tiny.save(place / "nan/t1.nii.gz", np.full(SHAPE, np.nan, np.float32), LAS)
    out = run(root, tmp_path / "out", place, status=1)
    assert sorted(path.name for path in out.iterdir()) == [
        "good.json", "good.nii.gz", "good_disagreement.nii.gz",
    ]  # fmt: skip
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(out / "good.nii.gz")]
    lines = said.err.splitlines()
    assert lines[-5] == "error: 4 cases could not be segmented:"
    for line, (case, reason) in zip(
        lines[-4:],
        {
            "cut": "cut/t1.nii.gz: cannot be read",
            "lacks": "no image flair; there: t1.nii.gz",
            "nan": "voxels are NaN or infinite",
            "nobrain": "no brain mask beside it",
        }.items(),
        strict=True,
    ):
        assert line.startswith(f"  {case}: ") and reason in line
    assert any(line.startswith("2/5 done, 3 left, ") for line in lines)


def test_nothing_is_written_over_what_is_there_and_that_is_known_before_computing(
    root, folder_form, tmp_path, capsys, monkeypatch
):
    copy = shutil.copytree(root / "new", tmp_path / "new")
    new_case(copy / "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "p07.json").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(ensembles, "load_ensemble", None)  # not even networks are read
    run(root, tmp_path / "out", copy, status=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "p07.json: is there already; have it replaced by --overwrite" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p07.json"]
    monkeypatch.undo()
    out = run(root, tmp_path / "out", copy, flags=["--overwrite"])
    assert not (tmp_path / "precious").exists()
    assert voxels(out / "p07.nii.gz").tobytes() == voxels(folder_form / "p07.nii.gz").tobytes()


def test_no_image_is_ever_written_over(root, tmp_path, capsys):
    place = new_case(tmp_path)
    (place / "t1.nii.gz").rename(place / "scan.nii.gz")
    given = [f"t1={place / 'scan.nii.gz'}", f"flair={place / 'flair.nii.gz'}"]
    before = (place / "scan.nii.gz").read_bytes()
    run(root, place, *given, flags=["--overwrite", "--brain", "nonzero"], status=2)
    assert "scan.nii.gz: is an image to be read; choose another --out" in capsys.readouterr().err
    assert (place / "scan.nii.gz").read_bytes() == before
    new_case(tmp_path / "x" / "p")
    new_case(tmp_path / "x" / "p_disagreement")
    run(root, tmp_path / "out", tmp_path / "x", flags=["--overwrite"], status=2)
    assert "is of case p and of p_disagreement; rename one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "x"], "--data: it is of test cases"),
        (["--probabilities"], "--probabilities: it is of test cases"),
        (["--threshold", "0"], "--threshold 0: expected more than 0, and 1 at most"),
        (["--threshold", "nan"], "--threshold nan"),
        (["--device", "cuda:77"], "--device cuda:77: no such GPU"),
        (["--device", "tpu"], "--device tpu: expected"),
        (["--precision", "tf32"], "precision tf32 without a GPU"),
        (["--space", "MNI"], "--space: is for BIDS datasets"),
        (["--channels", "t2=x"], "--channels t2=x: expected t1=NAME"),
        (["--channels", "t1=T9"], "no image T9 (the networks were trained on t1 flair)"),
    ],
)
def test_flags_that_mean_nothing_here_are_one_line(root, tmp_path, flags, said, capsys):
    run(root, tmp_path / "out", root / "new", flags=flags, status=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_flags_of_new_patients_need_images(root, tmp_path, capsys):
    for flags in (["--loss", "xent"], ["--no-disagreement"], ["--seeds", "1"]):
        assert predict.main([str(root / "results"), *flags]) == 2
        assert (
            f"error: {flags[0].replace('no-', '')}: say whom with --images"
            in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("dwi.nii.gz", "no image t1 (the networks were trained on t1 flair); name it with"),
        ("case/dwi.nii.gz", "no image t1 (the networks were trained on t1 flair); name it with"),
        ("case/t1.nii.gz", "no image flair (the networks were trained on t1 flair); name it with"),
        ("a_0000.nii.gz", "say it with --channels, such as t1=0000 flair=0001"),
        ("readme.txt", "no image found; expected a folder for each case"),
    ],
)
def test_images_that_are_not_there_are_one_line(tmp_path, file, said):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    shutil.copy(tiny.save(tmp_path / "x.nii", tiny.noise(0)), tmp_path / file)
    (tmp_path / "x.nii").unlink()
    with pytest.raises(ValueError, match=re.escape(said)):
        find_cases([str(tmp_path)], CHANNELS)
    with pytest.raises(ValueError, match="there is no such file or folder"):
        find_cases([str(tmp_path / "nowhere")], CHANNELS)


def test_two_files_that_could_be_one_channel_are_a_problem_of_that_case_alone(tmp_path):
    for case in "ab":
        new_case(tmp_path / case)
    tiny.save(tmp_path / "a" / "T1w.nii.gz", tiny.noise(0))
    a, b = find_cases([str(tmp_path)], CHANNELS)
    assert "could be it as well; keep one of the two" in a.problem
    assert not b.problem and list(b.channels) == list(CHANNELS)
    assert b.brain == tmp_path / "b" / "brain.nii.gz"


# --------------------------------------------------------------------------------------- the brain
def test_a_brain_mask_is_given_derived_or_where_images_are_not_zero(root, tmp_path, monkeypatch):
    from lesion_core.itk import as_array, as_itk
    from lesion_core.nifti import read
    from lesion_core.preparation import brain

    stripped = new_case(tmp_path / "p07", brain=False)
    for name in CHANNELS:
        path = stripped / f"{name}.nii.gz"
        tiny.save(path, voxels(path) * tiny.ball(SHAPE), LAS)
    first = read(stripped / "t1.nii.gz")

    def derive(head):
        assert as_array(head).shape == SHAPE
        return as_itk(tiny.ball(SHAPE).astype(np.uint8), first)

    monkeypatch.setattr(brain, "derive", derive)
    found = {}
    for source in ("given", "nonzero", brain.METHOD):
        images = [stripped] if source != "nonzero" else [f"{stripped}:nonzero"]
        flags = ["--brain", "derive"] if source == brain.METHOD else []
        if source == "given":
            mask = tiny.save(tmp_path / "m.nii.gz", tiny.ball(SHAPE), LAS)
            images = [f"{n}={stripped / n}.nii.gz" for n in CHANNELS] + [f"brain={mask}"]
        out = run(root, tmp_path / source, *images, flags=flags)
        (record,) = out.glob("*.json")
        assert json.loads(record.read_text())["brain"] == source
        found[source] = voxels(record.with_suffix(".nii.gz")).tobytes()
        assert (out / "p07_brain.nii.gz").exists() == (source == brain.METHOD)
    assert len(set(found.values())) == 1


def test_the_record_says_what_was_done_and_no_more_of_the_patient_than_file_names(
    root, folder_form
):
    text = (folder_form / "p07.json").read_text()
    record = json.loads(text)
    assert str(root) not in text
    assert record["images"] == {"t1": "t1.nii.gz", "flair": "flair.nii.gz"}
    assert record["files"]["mask"] == "p07.nii.gz"
    assert (record["loss"], record["seeds"], record["folds"]) == ("xent", [1, 2], [0, 1])
    assert record["selector"] == "last" and "puts first" in record["chosen"]
    for network in record["networks"]:
        model = root / "results/trials" / network["trial"] / results.MODEL
        assert network["sha256"] == results.file_state(model)["sha256"]
    assert record["lesion_voxels"] == int(voxels(folder_form / "p07.nii.gz").sum())
    assert record["lesion_ml"] == record["lesion_voxels"] / 1000
    assert {"lesion_core", "python", "torch"} <= record["versions"].keys()


def test_a_ledger_that_does_not_say_how_its_images_lay_is_used_as_it_is(root, tmp_path, capsys):
    copy = shutil.copytree(root / "results", tmp_path / "results")
    shutil.rmtree(copy / "cohorts")
    out = run(tmp_path, tmp_path / "out", root / "new")
    assert "used as it lies: the results folder does not say" in capsys.readouterr().err
    assert not json.loads((out / "p07.json").read_text())["resampled"]
    assert load_ensemble(copy, device="cpu").training.orientation is None


# ------------------------------------------------------------------------------- BIDS derivatives
def test_bids_layout_names_maps_and_says_what_they_are(root, tmp_path, folder_form):
    out = run(
        root, tmp_path / "bids", root / "new", flags=["--probability", "--layout", "bids"]
    )  # fmt: skip
    begin = "sub-p07/anat/sub-p07_space-orig_label-lesion_desc-seedsweep"
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    maps = ["_mask", "_probseg", "disagreement_probseg"]
    assert found == sorted(
        ["dataset_description.json", *(begin + m + e for m in maps for e in (".json", ".nii.gz"))]
    )
    assert np.array_equal(voxels(out / f"{begin}_mask.nii.gz"), voxels(folder_form / "p07.nii.gz"))
    said = json.loads((out / "dataset_description.json").read_text())
    assert said["DatasetType"] == "derivative"
    assert said["GeneratedBy"][0]["Name"] == "lesion-seed-sweep"
    beside = json.loads((out / f"{begin}_mask.json").read_text())
    assert beside["SpatialReference"] == "orig" and beside["Type"] == "Lesion"
    assert beside["Prediction"]["case"] == "p07"
    check_with_the_bids_validator(out)


def check_with_the_bids_validator(dataset):
    """With the public one, where it is installed."""
    program = shutil.which("bids-validator-deno")
    if program is None:
        return
    done = subprocess.run(
        [program, "--json", str(dataset)], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert not [one for one in issues if one.get("severity") == "error"]


def case_of(name, path=None):
    return NewCase(id=name, channels={} if path is None else {"flair": Path(path)})


def test_bids_labels_are_the_datasets_own_or_letters_and_digits():
    theirs = case_of("sub-01_ses-02", "sub-01/ses-02/anat/sub-01_ses-02_acq-3D_FLAIR.nii.gz")
    assert bids_layout.session_of(theirs) == ("01", "02")
    assert bids_layout.names(theirs, "x")["brain"] == (
        "sub-01/ses-02/anat/sub-01_ses-02_space-orig_label-brain_desc-x_mask.nii.gz"
    )
    assert bids_layout.session_of(case_of("p_07-b")) == ("p07b", "")


def test_bids_refuses_labels_that_collide_and_datasets_of_others(tmp_path):
    with pytest.raises(ValueError, match=r"cases p_1 and p-1 would both be sub-p1 in BIDS"):
        bids_layout.check([case_of("p_1"), case_of("p-1")], tmp_path)
    with pytest.raises(ValueError, match="no letter or digit"):
        bids_layout.check([case_of("__")], tmp_path)
    (tmp_path / "dataset_description.json").write_text('{"Name": "raw data"}')
    with pytest.raises(ValueError, match="is of another BIDS dataset"):
        bids_layout.check([case_of("a")], tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--layout", "bids", "--desc", "my_name"],
            "--desc 'my_name': expected letters and digits",
        ),
        (["--desc", "mine"], "--desc: is for --layout bids"),
    ],
)
def test_wrong_bids_flags_are_one_line(root, tmp_path, capsys, flags, said):
    run(root, tmp_path / "x", root / "new", flags=flags, status=2)
    assert said in capsys.readouterr().err and not (tmp_path / "x").exists()
