"""Masks on disk are what the trial's network predicts, on the grid of the case's own images."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from lesion_core import results
from lesion_core.cohorts import Folder, cohort_to_dict
from lesion_core.evaluate import predict_volume
from lesion_core.images import load_cohort
from lesion_core.losses import LOSSES
from lesion_core.predict import Predict, load_network, main, predict
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial, run
from tests.lesion_core.test_nifti import by_itk
from tests.support import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data, a ledger with one complete trial, and that trial."""
    root = tmp_path_factory.mktemp("predict")
    layout = Folder(name="mine", channels=("t1", "flair"))
    for case in ("a", "b"):
        folder = tiny.write_case(root / "data" / "mine" / case, channels=layout.channels)
        tiny.place_oddly(*folder.iterdir())
    cohort = load_cohort(layout, root / "data")
    settings = TrainSettings(epochs=1, patch_size=8, filters=(8, 16))
    trial = Trial(
        cohort="mine", fingerprint=cohort.fingerprint, loss=LOSSES["dsc"], seed=1, fold=0,
        num_folds=2, settings=settings,
    )  # fmt: skip
    reports = []
    summary = run(trial, cohort, on_epoch=reports.append)
    folder = root / "ledger" / "trials" / trial.name
    results.write_json(folder / "trial.json", trial.row() | {"config": trial.to_dict()})
    results.write_bytes(folder / "model.pt", reports[-1].final.model)
    for file, schema in results.TABLES.items():
        results.write_table(folder / file, [], schema)
    results.write_json(folder / "done.json", summary)
    meta = {
        "schema_version": results.SCHEMA_VERSION,
        "trials": [trial.row()],
        "cohorts": {"mine": {"definition": cohort_to_dict(layout)}},
    }
    results.write_json(root / "ledger" / "sweep.json", meta)
    return root, cohort, trial


def test_masks_are_the_thresholded_prediction_of_the_test_cases(trained):
    root, cohort, trial = trained
    (path,) = predict(Predict(results=root / "ledger", data=root / "data"))
    assert path == root / "ledger" / "predictions" / trial.name / "a.nii.gz"
    image = next(image for image in cohort.images if image.case == "a")
    written = nib.load(path)
    assert written.shape == image.shape
    source = root / "data" / "mine" / "a" / "t1.nii.gz"
    assert written.affine.tobytes() == nib.load(source).affine.tobytes()
    np.testing.assert_allclose(written.affine[:3] * 1000, image.affine[:3])  # it is in metres
    for ours, theirs in zip(by_itk(path), by_itk(source), strict=True):
        assert ours == theirs  # and lies elsewhere for ITK
    assert "disagree by 7.07 mm; sform is used; ITK-based viewers use qform" in image.warnings[0]
    network = load_network((root / "ledger/trials" / trial.name / "model.pt").read_bytes())
    probability = predict_volume(network, image.voxels, patch_size=8, stride=4)
    box = tuple(slice(a, a + n) for a, n in zip(image.origin, image.box_shape, strict=True))
    mask = np.asarray(written.dataobj)
    np.testing.assert_array_equal(mask[box], probability >= 0.5)
    assert mask.sum() == mask[box].sum()


def test_other_data_are_refused(trained, tmp_path):
    root, _, _ = trained
    for case in ("a", "b"):
        tiny.write_case(tmp_path / "mine" / case, channels=("t1", "flair"), seed=9)
    with pytest.raises(ValueError, match="not the files"):
        list(predict(Predict(results=root / "ledger", data=tmp_path, out=tmp_path / "out")))


def test_it_computes_in_another_precision_when_asked_and_in_none_that_is_not_there(trained):
    root, _, trial = trained
    options = {"results": root / "ledger", "data": root / "data", "probabilities": True}
    found = {}
    for precision in (None, "fp32", "bf16"):
        out = root / f"in_{precision}"
        list(predict(Predict(**options, out=out, device="cpu", precision=precision)))
        found[precision] = nib.load(out / trial.name / "a.nii.gz").get_fdata()
    np.testing.assert_array_equal(found[None], found["fp32"])
    assert 0 < abs(found["bf16"] - found["fp32"]).max() < 0.05
    with pytest.raises(ValueError, match="precision tf32 without a GPU"):
        list(predict(Predict(**options, out=root / "in_tf32", device="cpu", precision="tf32")))


def test_masks_that_are_there_are_replaced_only_when_asked(trained, tmp_path):
    root, _, trial = trained
    options = {"results": root / "ledger", "data": root / "data", "out": tmp_path}
    place, elsewhere = tmp_path / trial.name / "a.nii.gz", tmp_path / "precious"
    elsewhere.write_text("precious")
    place.parent.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"is there already; .*--overwrite"):
        list(predict(Predict(**options)))
    assert list(predict(Predict(**options, overwrite=True))) == [place]
    assert elsewhere.read_text() == "precious"
    assert not place.is_symlink()


def test_mistakes_are_one_line_and_status_2(trained):
    root, _, _ = trained
    command = [sys.executable, "-m", "lesion_core.predict", str(root / "ledger")]
    finished = subprocess.run(
        [*command, "--trials", "nobody"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr.strip().splitlines() == [
        f"error: trial nobody is missing; expected a complete one of {root / 'ledger'}"
    ]


def test_a_flag_that_there_is_not_is_one_line_and_status_2(trained, capsys):
    root, _, _ = trained
    assert main([str(root / "ledger"), "--treshold", "0.5"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ") and "--treshold" in said and said.endswith("see --help")
