"""Which package may load which: analysis -> lesion_core.results <- lesion_core <- sweeps."""

import subprocess
import sys

import pytest

LOAD_ALL = """
import importlib, pkgutil, sys, {0} as package
for module in pkgutil.walk_packages(package.__path__, "{0}."):
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


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("ray", {f"sweeps/{name}.py" for name in ("launch", "join", "keeper", "probe")}),
        ("wandb", {"sweeps/tracking.py"}),
        ("optuna", {"sweeps/study.py"}),
    ],
)
def test_one_file_knows_the_library(library, home, pytestconfig):
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
    assert users <= home
