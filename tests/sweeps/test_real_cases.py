"""One bit flips in the ledger of a real trial: two patients with lesions, at 3 mm.

Each damaged file of a finished trial is named, and masks are refused or right; a trial that was
stopped goes on, or starts afresh, to the same bits whichever of its files is damaged.
"""

import random
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import lesion_core.trial
from lesion_core import results
from lesion_core.predict import main as predict
from lesion_core.training.epoch import train_epoch
from sweeps import train_one
from sweeps.verify import verify
from tests.sweeps.test_verify import trial_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
ONE = [
    "--cohort", "ms", "--channels", "t1", "flair", "--data", str(SHARED),
    "--spacing", "3", "3", "3", "--loss", "xent", "--seed", "1", "--fold", "0", "--folds", "2",
    "--epochs", "2", "--batch-size", "4", "--patch-size", "16", "--filters", "8", "16",
    "--wandb", "disabled",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "ms").is_dir(), reason="no real cases in ../shared/data/ms"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The ledger of a finished trial, and of the same one stopped after its first epoch."""
    place = tmp_path_factory.mktemp("real")
    assert train_one.main([*ONE, "--results", str(place / "done")]) == 0
    begun = []

    def stopped_in_the_second(*arguments, **more):
        begun.append(1)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesion_core.trial, "train_epoch", stopped_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train_one.main([*ONE, "--results", str(place / "stopped")])
    assert (trial_of(place / "stopped") / "checkpoint.pt").exists()
    return place


def flip_a_bit(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(content))


def masks(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.rglob("*.nii.gz"))
    return {file.name: np.asarray(nib.load(file).dataobj) for file in files}


def test_a_flipped_bit_is_named_and_masks_are_refused_or_right(made, tmp_path):
    ledger = Path(shutil.copytree(made / "done", tmp_path / "ledger"))
    assert verify(ledger).whole
    assert predict([str(ledger), "--data", str(SHARED), "--out", str(tmp_path / "right")]) == 0
    right = masks(tmp_path / "right")
    assert right
    refused = 0
    for number, file in enumerate(sorted(each for each in ledger.rglob("*") if each.is_file())):
        name = file.relative_to(ledger).as_posix()
        content, rng = file.read_bytes(), random.Random(number)
        for _ in range(3):
            file.write_bytes(content)
            flip_a_bit(file, rng)
            found = verify(ledger)
            named = [*found.damaged, *(f"trials/{trial}/" for trial in found.to_train)]
            assert any(each.startswith((name, f"{name}, line")) for each in named), name
        out = tmp_path / f"masks{number}"
        if predict([str(ledger), "--data", str(SHARED), "--out", str(out)]) == 0:
            again = masks(out)
            assert all(np.array_equal(again[each], right[each]) for each in right), name
        else:
            assert not masks(out), name
            refused += 1
        file.write_bytes(content)
    assert verify(ledger).whole and refused >= 2  # of sweep.json and of the weights, at least


def test_a_stopped_trial_comes_to_the_same_bits_whichever_file_is_damaged(made, tmp_path):
    whole = trial_of(made / "done")
    files = [file.name for file in trial_of(made / "stopped").iterdir()]
    assert {"trial.json", "progress.json", "checkpoint.pt", "cases.parquet", "epochs.parquet",
            "log.txt"} <= set(files)  # fmt: skip
    for number, name in enumerate(sorted(files)):
        ledger = Path(shutil.copytree(made / "stopped", tmp_path / str(number)))
        flip_a_bit(trial_of(ledger) / name, random.Random(number))
        assert train_one.main([*ONE, "--results", str(ledger)]) == 0, name
        for table in results.TABLES:
            one, other = (
                results.pq.read_table(folder / table).to_pandas()
                for folder in (trial_of(ledger), whole)
            )
            clocks = [column for column in one.columns if column.startswith("seconds")]
            # As frames, since a distance to nothing is NaN, which equals itself there alone.
            pd.testing.assert_frame_equal(
                one.drop(columns=clocks), other.drop(columns=clocks), check_exact=True
            )
        assert (trial_of(ledger) / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
