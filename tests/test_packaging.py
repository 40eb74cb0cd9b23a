"""The package as others get it: its face, and a wheel that is used outside the repository."""

import ast
import json
import os
import shutil
import site
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import lesion_core
from sweeps.provenance import ROOT
from tests.support.tiny import write_lit_cohort

FACE = {
    "Arm",
    "LOSSES",
    "Trial",
    "UNet3d",
    "__version__",
    "load_ensemble",
    "load_network",
    "predict_volume",
    "read_sweep",
    "run",
}

TINY = "--cohorts lit --losses xent my_losses:Twice --seeds 1 --folds 2 --epochs 1 --patch-size 8 "
TINY += "--filters 8 16 --batch-size 4 --wandb disabled"

MY_LOSSES = """
from lesion_core.losses import CrossEntropy

class Twice:
    def __call__(self, logits, target):
        return 2 * CrossEntropy()(logits, target)
"""

TYPED = """
from pathlib import Path
from typing import assert_type

import numpy as np

import lesion_core
from lesion_core import UNet3d, predict_volume, read_sweep
from lesion_core.results import Sweep

assert_type(lesion_core.__version__, str)
assert_type(read_sweep(Path("results")), Sweep)
assert_type(predict_volume(UNet3d(1), np.zeros((1, 8, 8, 8))), np.ndarray)
UNet3d("one")  # wrong
lesion_core.nothing  # wrong
"""


# ---------------------------------------------------------------------------------------- the face
def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, lesion_core; lesion_core.__version__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "lesion_core" in loaded
    assert not {"torch", "numpy", "pandas", "lesion_core.results"} & loaded


def test_the_face_is_what_the_modules_have():
    assert set(lesion_core.__all__) == FACE <= set(dir(lesion_core))
    from lesion_core import (
        LOSSES,
        Trial,
        UNet3d,
        evaluate,
        load_network,
        losses,
        predict,
        predict_volume,
        read_sweep,
        results,
        run,
        trial,
        unet,
    )

    assert LOSSES is losses.LOSSES
    assert UNet3d is unet.UNet3d
    assert load_network is predict.load_network
    assert predict_volume is evaluate.predict_volume
    assert read_sweep is results.read_sweep
    assert (Trial, run) == (trial.Trial, trial.run)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lesion_core' has no attribute 'nothing'"):
        lesion_core.nothing  # noqa: B018


def test_type_checkers_see_what_is_loaded():
    """Each name of the face is imported for them from where it is loaded from."""
    tree = ast.parse(Path(lesion_core.__file__).read_text())
    guards = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: node.module
        for guard in guards
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported.keys() == FACE - {"__version__"}
    for name, module in imported.items():
        assert getattr(import_module(module), name) is getattr(lesion_core, name)


def test_all_places_tell_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert lesion_core.__version__ == project["version"]


# --------------------------------------------------------------------------------------- the wheel
@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip(["wheel", "--no-deps", "--wheel-dir", folder, ROOT])
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel, and a folder to work in that knows no repository.

    What the wheel depends on is that of the environment that runs the tests, but its own packages
    come first, and a .pth file's folder is searched without its own .pth files: so nothing of an
    editable installation of the repository can be reached.
    """
    root = tmp_path_factory.mktemp("installed")
    environment, place = root / "venv", root / "place"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip(["--python", python, "install", "--no-deps", "--no-index", wheel])
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    place.mkdir()
    write_lit_cohort(place / "data", [1, 2, 3, 4])
    (place / "my_losses.py").write_text(MY_LOSSES)
    return SimpleNamespace(python=python, bin=environment / "bin", packages=packages, place=place)


@pytest.fixture(scope="module")
def swept(installed):
    """What a tiny grid printed, from which a report was built as well."""
    return typed(installed, f"lesion-sweep grid {TINY}").stdout


def pip(arguments):
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *options, *map(str, arguments)], check=True)


def typed(installed, line, *more, status=0):
    """What ended with the exit status that it should; the line is split at its blanks."""
    program, *arguments = line.split()
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed.bin / program, *arguments, *more],
        cwd=installed.place,
        env=outside,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.package
def test_the_wheel_holds_the_three_packages_and_their_files(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "lesion_core", "sweeps", "analysis"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {name for name in tracked if not name.endswith(".png")} == {
        name for name in held if ".dist-info/" not in name
    }
    assert {f"{package}/py.typed" for package in ("lesion_core", "sweeps", "analysis")} <= held
    assert {f"analysis/page/page.{kind}" for kind in ("html", "css", "js")} <= held


@pytest.mark.package
def test_the_wheel_is_what_is_imported(installed):
    code = "import lesion_core, sweeps, analysis; print(lesion_core, sweeps, analysis)"
    modules = typed(installed, "python", "-c", code).stdout
    assert modules.count(f"{installed.packages}/") == 3


@pytest.mark.package
def test_the_command_explains_itself(installed):
    assert "  grid  " in typed(installed, "lesion-sweep --help").stdout
    version = f"lesion-sweep {lesion_core.__version__}\n"
    assert typed(installed, "lesion-sweep --version").stdout == version
    help_ = typed(installed, "lesion-sweep grid --help").stdout
    assert help_.startswith("usage: lesion-sweep grid [-h]")
    assert "did you mean grid?" in typed(installed, "lesion-sweep gird", status=2).stderr


@pytest.mark.package
def test_the_demo_would_run(installed):
    said = typed(installed, "lesion-sweep grid --demo --dry-run").stdout
    assert said.count("would run  ") == 28


@pytest.mark.package
def test_a_sweep_runs_and_is_reported(installed, swept):
    """Also with a loss of one's own, which lies beside the data and not in the environment."""
    results = installed.place / "results" / "paper_grid"
    assert "4 of 4 trials are done" in swept
    assert "report: results/paper_grid/report/report.html" in swept
    meta = json.loads((results / "sweep.json").read_text())
    assert meta["command"] == f"lesion-sweep grid {TINY}"
    assert meta["git_commit"] is None
    assert "<svg" in (results / "report" / "report.html").read_text()
    again = typed(installed, f"lesion-sweep grid {TINY}").stdout
    assert "nothing to do" in again


@pytest.mark.package
def test_what_is_there_can_be_looked_at(installed, swept):
    assert (
        "nothing works on it now"
        in typed(installed, "lesion-sweep status results/paper_grid").stdout
    )
    said = typed(
        installed, "lesion-sweep report results/paper_grid --out page --formats png"
    ).stdout
    assert "report: page/report.html" in said
    done = typed(installed, "lesion-sweep predict results/paper_grid --device cpu").stdout
    assert len(done.splitlines()) == 8  # 4 cases, two losses
    assert "lit: 4 cases" in typed(installed, "lesion-sweep data folds data --folds 2").stdout


@pytest.mark.package
def test_modules_are_doors_as_well(installed, swept):
    typed(installed, "python -m sweeps.status results/paper_grid")
    typed(installed, "python -m lesion_core.cohorts folds data --folds 2")


@pytest.mark.package
def test_code_for_a_cluster_comes_from_the_wheel(installed):
    code = "from sweeps.distributed.connect import stage; print(stage([]))"
    staged = Path(typed(installed, "python", "-c", code).stdout.strip())
    there = {path.relative_to(staged).as_posix() for path in staged.rglob("*.py")}
    shutil.rmtree(staged)
    assert {"lesion_core/trial.py", "sweeps/cli.py"} <= there


@pytest.mark.package
def test_a_type_checker_sees_the_types(installed):
    """pyright reads the types of an installed package only if there is a py.typed."""
    (installed.place / "typed.py").write_text(TYPED)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("pyright"), "--outputjson",
            "--pythonpath", installed.python, "typed.py",
        ],
        cwd=installed.place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = [number for number, line in enumerate(TYPED.splitlines()) if "# wrong" in line]
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [one["range"]["start"]["line"] for one in found if one["severity"] == "error"]
    assert errors == wrong, found
