"""The flags of training are the settings of training: none is forgotten."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from lesion_core.settings import TrainSettings
from sweeps.command import read_flags
from sweeps.options import Training
from sweeps.provenance import ROOT

WITH_ANOTHER_FIELD = """
import importlib.util, sys

spec = importlib.util.spec_from_file_location("lesion_core.settings", sys.argv[1])
settings = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = settings  # before anybody imports the real one
spec.loader.exec_module(settings)

from lesion_core.losses import LOSSES
from lesion_core.trial import Trial
from sweeps import command
from sweeps.paper_grid import PaperGrid
from sweeps.train_one import TrainOne

for kind, needed in ((PaperGrid, []), (TrainOne, ["--cohort", "lit"])):
    asked = command.read_flags(kind, [*needed, "--damping", "0.5"]).settings()
    trial = Trial(cohort="lit", fingerprint="f" * 64, loss=LOSSES["xent"], seed=1, fold=0,
                  num_folds=2, settings=asked)
    again = Trial.from_dict(trial.to_dict())
    print(trial.to_dict()["settings"]["damping"], again.settings.damping, again == trial)
"""


def test_a_new_setting_is_a_flag_and_reaches_the_trial(tmp_path):
    source = Path(importlib.util.find_spec("lesion_core.settings").origin).read_text()
    field = '    damping: float = 0.9\n    """Of the optimiser."""\n'
    file = tmp_path / "settings.py"
    file.write_text(source.replace("    def __post_init__", f"{field}\n    def __post_init__", 1))
    done = subprocess.run(
        [sys.executable, "-c", WITH_ANOTHER_FIELD, str(file)], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["0.5 0.5 True"] * 2, done.stderr


def test_every_flag_of_training_arrives():
    flags = ["--epochs", "3", "--batch-size", "2", "--patch-size", "8", "--stride", "2"]
    flags += ["--learning-rate", "0.5", "--filters", "8", "16", "--no-flip", "--precision", "bf16"]
    assert read_flags(Training, flags).settings() == TrainSettings(
        epochs=3, batch_size=2, patch_size=8, stride=2, learning_rate=0.5, filters=(8, 16),
        flip=False, precision="bf16",
    )  # fmt: skip


def test_the_stride_follows_the_patch_size_unless_it_is_given():
    assert read_flags(Training, ["--patch-size", "8"], Training()).settings().stride == 4


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="stride 9 exceeds patch_size 8"):
        read_flags(Training, ["--patch-size", "8", "--stride", "9"]).settings()
