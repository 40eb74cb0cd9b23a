"""Which package may load which: analysis -> lesion_core.results <- lesion_core <- sweeps."""

import subprocess
import sys

import pytest

LOAD_ALL = """
import importlib, pkgutil, sys, {0} as package
for module in pkgutil.walk_packages(package.__path__, "{0}."):
    if module.name != "sweeps.bench.plain":  # the peers, which are networks
        importlib.import_module(module.name)
print(*sys.modules)
"""


def loaded_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        (
            "lesion_core",
            {"ray", "wandb", "optuna", "tyro", "matplotlib", "monai", "sweeps", "analysis"},
        ),
        ("analysis", {"ray", "wandb", "optuna", "torch", "monai", "sweeps"}),
        ("sweeps", {"ray", "wandb", "optuna", "torch", "pandas", "matplotlib", "analysis"}),
    ],
)
def test_package_never_loads(package, forbidden):
    """Importing sweeps loads nothing heavy either, so that --help answers at once."""
    loaded = loaded_by(LOAD_ALL.format(package))
    assert not forbidden & loaded


def test_results_load_without_torch():
    loaded = loaded_by("import lesion_core.results, sys; print(*sys.modules)")
    assert not {"torch", "scipy", "nibabel"} & loaded


def test_training_loads_neither_monai_nor_matplotlib():
    """Up to the last epoch, whose surface distances are MONAI's; it takes seconds to import."""
    loaded = loaded_by("""
import sys
from lesion_core.losses import LOSSES
from lesion_core.settings import TrainSettings
from lesion_core.trial import Trial, run
from tests.support.toy import toy_cohort

class Enough(Exception): pass

def on_epoch(report):
    if report.epoch == 1:
        raise Enough

settings = TrainSettings(epochs=2, patch_size=16, filters=(8, 16))
trial = Trial(cohort="toy", fingerprint="f" * 64, loss=LOSSES["new"], seed=1, fold=0, num_folds=2,
              settings=settings)
try:
    run(trial, toy_cohort(2), on_epoch=on_epoch)
except Enough:
    print(*sys.modules)
""")
    assert "torch" in loaded
    assert not {"monai", "matplotlib", "ray"} & loaded


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("ray", "sweeps/distributed/"),
        ("wandb", "sweeps/tracking/"),
        ("optuna", "sweeps/searching/"),
    ],
)
def test_one_room_knows_the_library(library, home, pytestconfig):
    root = pytestconfig.rootpath
    users = {
        path.relative_to(root).as_posix()
        for package in ("lesion_core", "sweeps", "analysis")
        for path in (root / package).rglob("*.py")
        if any(
            line.split()[:2] in (["import", library], ["from", library])
            or line.lstrip().startswith((f"import {library}.", f"from {library}."))
            for line in path.read_text().splitlines()
        )
    }
    assert users and all(user.startswith(home) for user in users)
