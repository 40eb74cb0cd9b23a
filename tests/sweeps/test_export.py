"""Exported networks compute what predict computes, say what they are, and name nobody."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from analysis.model_scores import model_scores
from lesion_core import predict, results
from lesion_core.cohorts import Folder
from lesion_core.exporting import formats, in_bundle
from lesion_core.exporting.bundle import overlap
from lesion_core.exporting.together import Together, example_windows
from lesion_core.metrics import without_small
from lesion_core.segmentation.ensemble import load_ensemble
from lesion_core.segmentation.geometry import Brought, TrainingGrid
from sweeps import cli, export
from tests.support import tiny
from tests.support.networks import SETTINGS, write_networks

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is:DeprecationWarning")

SHAPE = (13, 12, 9)
LAS = np.diag([-1.0, 1, 1.5, 1])
PERMUTED = np.array([[0, 0, 1.5, 3], [1.0, 0, 0, -4], [0, -1, 0, 9], [0, 0, 0, 1]])
COARSER = np.diag([-1.3, 0.8, 1.5, 1])
CHANNELS = ("t1", "flair")

REQUIRED = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version",
    "required_packages_version", "task", "description", "authors", "copyright",
    "network_data_format",
)  # fmt: skip
"""Of MONAI's meta_schema_20240725.json, which lies behind the network."""
REQUIRED_OF_A_TENSOR = (
    "type", "format", "num_channels", "spatial_shape", "dtype", "value_range",
)  # fmt: skip


def smooth(seed):
    return (100 + 40 * ndimage.gaussian_filter(tiny.noise(seed, SHAPE), 1.5)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A sweep over cases that are called secretly, and new cases that lie in three ways."""
    root = tmp_path_factory.mktemp("export")
    for number in range(4):
        images = {name: smooth(10 * number + i) for i, name in enumerate(CHANNELS)}
        tiny.write_case(root / "data/mine" / f"secret{number}", images, affine=LAS)
    cohort = Folder(name="mine", channels=CHANNELS)
    write_networks(root / "results", cohort, root / "data", tp={"dsc": 3, "xent": 5})
    for name, affine in (("p07", LAS), ("p08", PERMUTED), ("p09", COARSER)):
        for i, channel in enumerate(CHANNELS):
            tiny.save(root / "new" / name / f"{channel}.nii.gz", smooth(70 + i), affine)
        tiny.save(root / "new" / name / "brain.nii.gz", tiny.ball(SHAPE), affine)
    return root


@pytest.fixture(autouse=True)
def scores_of_this_process(monkeypatch, request):
    """The scores without another process, which one test is about."""
    if "as_a_process" not in request.node.name:
        monkeypatch.setattr(export, "model_scores", model_scores)


def write(root, out, *flags):
    assert export.main([str(root / "results"), "--out", str(out), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def bundle(root):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "model_scores", model_scores)
        return write(root, root / "bundle", "--loss", "xent")


@pytest.fixture(scope="module")
def expected(root):
    """Mean probability of the networks on windows, by their own code."""
    ensemble = load_ensemble(root / "results", loss="xent", device="cpu")
    windows = example_windows(len(CHANNELS), 8, 3)
    with torch.no_grad():
        found = [torch.sigmoid(ensemble.network(one)(windows)) for one in ensemble.choice.members]
    return windows, torch.stack(found).mean(0)


# ------------------------------------------------------------------------------------- the numbers
def test_torchscript_computes_what_the_networks_do_and_says_how_to_use_it(root, expected, tmp_path):
    out = write(root, tmp_path / "ts", "--format", "torchscript", "--loss", "xent")
    assert sorted(p.name for p in out.iterdir()) == ["MODEL_CARD.md", "export.json", "model.ts"]
    extra = {formats.DESCRIPTION: ""}
    network = torch.jit.load(str(out / "model.ts"), _extra_files=extra)
    windows, wanted = expected
    with torch.no_grad():
        assert torch.allclose(network(windows), wanted, rtol=0, atol=1e-6)
        assert torch.allclose(network(windows[:1]), wanted[:1], rtol=0, atol=1e-6)
    with zipfile.ZipFile(out / "model.ts") as parts:  # what is moved to a GPU computes there
        code = "".join(parts.read(n).decode() for n in parts.namelist() if n.endswith(".py"))
    assert "forward" in code and "torch.device" not in code
    about = json.loads(extra[formats.DESCRIPTION])
    assert about["channels"] == list(CHANNELS) and about["orientation"] == "LAS"
    assert about["spacing_mm"] == {"smallest": [1, 1, 1.5], "largest": [1, 1, 1.5]}
    assert len(about["networks"]) == 4 and about["threshold"] == 0.5


def test_onnx_computes_what_the_networks_do(root, expected, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    out = write(root, tmp_path / "onnx", "--format", "onnx", "--loss", "xent")
    session = runtime.InferenceSession(str(out / "model.onnx"))
    windows, wanted = expected
    (found,) = session.run(None, {"image": windows.numpy()})
    assert np.abs(found - wanted.numpy()).max() < 1e-4
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["channels"]) == list(CHANNELS)
    assert properties["threshold"] == "0.5" and properties["opset"] == str(formats.OPSET)
    assert session.get_inputs()[0].shape == ["batch", 2, 8, 8, 8]
    check_names_nobody(root, out)


def test_bundle_run_by_monai_alone_gives_what_predict_gives(root, bundle, tmp_path):
    """As they lie, with permuted axes, and with voxels that are resampled both ways."""
    hidden = tmp_path / "hidden"
    tiny_module = "raise ImportError('hidden')\n"
    for package in ("lesion_core", "sweeps", "analysis"):
        hidden.mkdir(exist_ok=True)
        (hidden / f"{package}.py").write_text(tiny_module)
    run = (
        "from monai.bundle import run; run(config_file='configs/inference.json', "
        f"dataset_dir={str(root / 'new')!r}, output_dir={str(tmp_path / 'masks')!r}, "
        "min_lesion_mm3=6.0)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(hidden), str(bundle)])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", run],
        cwd=bundle, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    flags = ["--out", str(tmp_path / "ours"), "--probability", "--loss", "xent", "--device", "cpu"]
    results_and_images = [str(root / "results"), "--images", str(root / "new")]
    assert predict.main([*results_and_images, *flags]) == 0
    for case in ("p07", "p08", "p09"):
        ours = nib.load(tmp_path / "ours" / f"{case}_probability.nii.gz")
        theirs = nib.load(tmp_path / "masks" / f"{case}_probability.nii.gz")
        assert np.abs(ours.get_fdata() - theirs.get_fdata()).max() < 1e-4, case
        assert np.array_equal(ours.affine, theirs.affine)
        mask = nib.load(tmp_path / "masks" / f"{case}_lesion.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        voxel_mm3 = abs(np.linalg.det(ours.affine[:3, :3]))
        large = without_small(theirs.get_fdata() >= 0.5, 6.0, voxel_mm3)
        assert np.array_equal(mask.get_fdata(), large)


@pytest.mark.parametrize("side_mm", [3.84, float(np.float32(3.84)), 2.5, 0.7, 1.0])
def test_bundle_takes_brain_masks_to_the_very_voxels_that_predict_does(side_mm):
    """A voxel of 3.84 mm lies half-way between two of 1 mm: which is nearest is the last bit's."""
    from monai.data.meta_tensor import MetaTensor

    brain = np.random.default_rng(5).integers(0, 2, (182, 23, 19)).astype(np.uint8)
    affine, sides = np.diag([-1.0, 1, 1, 1]), 3 * (side_mm,)
    training = TrainingGrid(orientation=None, smallest_mm=sides, largest_mm=sides)
    ours = Brought.of(brain.shape, affine, training).mask(brain)
    given = {
        name: MetaTensor(torch.from_numpy(brain)[None].float(), affine=torch.from_numpy(affine))
        for name in ("image", "brain")
    }
    found = in_bundle.training_grid(given, sides, sides)["brain"][0].numpy()
    assert np.array_equal(found, ours)


@pytest.mark.parametrize("min_mm3", [0.0, 2.7, 12.0])
def test_bundle_leaves_out_the_lesions_that_predict_leaves_out(min_mm3, tmp_path):
    mask = tiny.noise(3, (14, 12, 10)) > 114
    tiny.save(tmp_path / "t1.nii.gz", np.zeros(mask.shape), np.diag([1.0, 1.5, 0.9, 1]))
    found = in_bundle.without_small(mask, min_mm3, str(tmp_path / "t1.nii.gz"))
    assert np.array_equal(found, without_small(mask, min_mm3, 1.35))
    assert (min_mm3 == 0) == np.array_equal(found, mask) and found.any()


def test_threshold_and_smallest_lesion_are_those_of_the_trials_unless_said(root, tmp_path):
    settings = replace(SETTINGS, threshold=0.3, min_lesion_mm3=4.0)
    write_networks(
        tmp_path / "results", Folder(name="mine", channels=CHANNELS), root / "data",
        tp={"dsc": 3}, seeds=(1,), settings=settings,
    )  # fmt: skip
    own = write(tmp_path, tmp_path / "own", "--trials", *_first_trial(tmp_path / "results"))
    said = write(
        tmp_path, tmp_path / "said", "--threshold", "0.4", "--min-lesion-mm3", "0", "--folds", "0"
    )
    for out, threshold, smallest in ((own, 0.3, 4.0), (said, 0.4, 0.0)):
        config = json.loads((out / "configs/inference.json").read_text())
        assert (config["threshold"], config["min_lesion_mm3"]) == (threshold, smallest)
        about = json.loads((out / "export.json").read_text())
        assert (about["threshold"], about["min_lesion_mm3"]) == (threshold, smallest)
    card = (own / "docs/README.md").read_text()
    assert "| threshold | 0.3 |" in card and "| smallest lesion | 4 mm3 |" in card


def _first_trial(path):
    return [min(folder.name for folder in (path / "trials").iterdir())]


def test_any_network_of_windows_is_exported():
    other = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.InstanceNorm3d(4), torch.nn.Conv3d(4, 1, 1)
    )
    content = formats.torchscript(Together([other]), channels=1, patch_size=8, about={})
    windows = example_windows(1, 8, 2)
    with torch.no_grad():
        found = torch.jit.load(io.BytesIO(content))(windows)
        assert torch.allclose(found, torch.sigmoid(other.eval()(windows)), rtol=0, atol=1e-6)


def test_network_that_cannot_be_recorded_is_refused():
    class Moody(torch.nn.Module):
        def forward(self, image):
            return image * (1 if len(image) == 1 else 2)

    with pytest.raises(ValueError, match=r"differs by .* nothing was written"):
        formats.torchscript(Together([Moody()]), channels=1, patch_size=4, about={})


@pytest.mark.parametrize("patch_size", [8, 10, 32, 48])
def test_monai_steps_by_our_stride(patch_size):
    for stride in range(1, patch_size):
        assert int(patch_size * (1 - overlap(patch_size, stride))) == stride


# ---------------------------------------------------------------------------------------- the words
def test_bundle_has_what_monai_asks_for(bundle):
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    assert set(REQUIRED) <= metadata.keys()
    tensors = metadata["network_data_format"]
    for tensor in (tensors["inputs"]["image"], tensors["outputs"]["pred"]):
        assert set(REQUIRED_OF_A_TENSOR) <= tensor.keys()
    scripts = (bundle / "scripts/steps.py").read_text()
    assert scripts == Path(in_bundle.__file__).read_text()
    assert "lesion_core" not in scripts


def test_card_has_the_reports_numbers_and_says_what_is_not_known(root, bundle):
    card = (bundle / "docs/README.md").read_text()
    scores = model_scores(root / "results", "mine", "xent")
    # 5 or 6 of 10 lesion voxels found, and 2 false ones: (10/17 + 12/18) / 2
    assert scores["metrics"]["dice"]["mean"] == pytest.approx((10 / 17 + 12 / 18) / 2)
    assert "| DSC | 0.627 |" in card and "| 1 | 0 | 2 | 0.588 | 0.500 | 0.714 |" in card
    assert "licence of the data: **NOT STATED.**" in card
    assert "network unet3d, optimiser adam" in card  # defaults too: a stranger does not know them
    assert "Of the 4 networks together there is no test score here" in card


def test_card_states_what_was_given(root, tmp_path):
    (tmp_path / "LICENCE.txt").write_text("Do as you like.")
    out = write(
        root, tmp_path / "one", "--format", "torchscript", "--best",
        "--data-licence", "CC [BY] 4.0", "--authors", "Ann",
        "--licence", str(tmp_path / "LICENCE.txt"),
    )  # fmt: skip
    card = (out / "MODEL_CARD.md").read_text()
    assert "licence of the data: CC \\[BY\\] 4.0" in card and "- authors: Ann" in card
    assert "one network" in card and "NOT STATED" not in card
    assert (out / "LICENSE").read_text() == "Do as you like."


def test_scores_come_as_a_process(root):
    found = export.model_scores(root / "results", "mine", "xent")
    assert found == model_scores(root / "results", "mine", "xent")
    with pytest.raises(ValueError, match="the report has no loss focal1 on mine"):
        export.model_scores(root / "results", "mine", "focal1")


def check_names_nobody(root, out):
    for path in out.rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__":  # of whoever ran it
            content = path.read_bytes()
            for name in ("secret", socket.gethostname(), str(Path.home()), str(root), "/tmp/"):
                if len(name) > 5:
                    assert name.encode() not in content, (path, name)


def test_export_names_no_case_machine_or_path(root, bundle):
    check_names_nobody(root, bundle)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("paper_grid.py --data=/home/ann/mri --seeds 1", "paper_grid.py --data=mri --seeds 1"),
        ("grid --address h:1 --results x/y/", "grid --address auto --results y"),
        ("grid --address=h:1 --learning-rate 1e-3", "grid --address=auto --learning-rate 1e-3"),
    ],
)  # fmt: skip
def test_recorded_command_loses_its_machine(recorded, shown):
    assert export.without_places(recorded) == shown


# --------------------------------------------------------------------------------------- mistakes
def refused(root, out, *flags, results="results"):
    with pytest.raises(ValueError) as error:
        cli.dispatch(["export", str(root / results), "--out", str(out), *flags])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nothing_is_replaced_unasked_and_nothing_else_ever(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [""])
    out = write(root, tmp_path / "ts", "--format", "torchscript", "--best")
    before = json.loads((out / "export.json").read_text())["networks"]
    assert "is there already; say --overwrite" in refused(root, out)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years")
    assert "is no export" in refused(root, tmp_path / "thesis", "--overwrite")
    assert "expected a folder" in refused(root, tmp_path / "model.onnx")
    write(root, out, "--format", "torchscript", "--best", "--overwrite")
    assert json.loads((out / "export.json").read_text())["networks"] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis", "ts"]


@pytest.mark.parametrize("damage", ["cut", "foreign", "newer"])
def test_damaged_networks_are_one_line_and_no_file(root, tmp_path, damage, monkeypatch):
    monkeypatch.setattr(sys, "argv", [""])
    shutil.copytree(root / "results", tmp_path / "results")
    model = next((tmp_path / "results/trials").glob("mine-xent-*")) / results.MODEL
    if damage == "newer":
        meta = json.loads((tmp_path / "results/sweep.json").read_text())
        results.write_json(tmp_path / "results/sweep.json", meta | {"schema_version": 999})
    else:
        model.write_bytes(model.read_bytes()[:500] if damage == "cut" else b"PK not weights")
    said = refused(tmp_path, tmp_path / "out", "--loss", "xent")
    assert ("999" if damage == "newer" else "damaged") in said
    assert not (tmp_path / "out").exists()


def test_wrong_flags_are_one_line(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [""])
    assert "did you mean xent" in refused(root, tmp_path / "x", "--loss", "xnt")
    assert "--threshold 2" in refused(root, tmp_path / "x", "--threshold", "2")
    assert "LICENCE" in refused(root, tmp_path / "x", "--licence", str(tmp_path / "LICENCE"))
    assert list(tmp_path.iterdir()) == []
