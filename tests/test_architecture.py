"""The house's rules: which room may know which.  docs/structure.md says them in words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lesion_core", "sweeps", "analysis")

SWEEPS = (
    {"provenance", "scratch"},
    {"ledger"},
    {"command"},
    {"options", "data", "arms"},
    {"tracking"},
    {"trials"},
    {"distributed", "searching"},
    {"estimate"},
    {"sweep"},
    {"until_decided", "within_hours"},
    {"paper_grid", "alpha_gamma", "seed_ladder", "training_effect", "train_one", "status"},
    {"verify", "export"},
    {"bench", "cli"},
)
"""Rooms of `sweeps`, from those that know nobody to those that nobody knows."""

MAY_KNOW = {
    "statistics": {"flags", "reading"},
    "reading": {"flags"},
    "page": {"flags"},
    "sections": {"flags", "statistics", "page", "reading"},
    "flags": set(),
    "report": {"flags", "sections", "statistics", "page", "reading"},
    "command": {"flags", "report"},
    "decide": {"flags", "report", "reading", "statistics"},
    "model_scores": {"flags", "report", "reading", "sections", "statistics"},
    "examples": {"sections", "page", "reading"},
}
"""Rooms of `analysis`: whom else of it each may import."""


def files() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> dict[str, set[str]]:
    """What each of our modules imports, ours and others': anywhere in it, also for types alone.

    A script that has the name of a package (`sweeps/bench.py`) is listed with ``.py`` behind it.
    """
    found: dict[str, set[str]] = {}
    for file in files():
        name = module_of(file)
        if file.name != "__init__.py" and file.with_suffix("").is_dir():
            name += ".py"
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: imports are absolute"
                source = str(node.module)
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    wanted.add(inner if is_module(inner) else source)
        found[name] = wanted
    return found


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def room(module: str) -> str:
    """The part below the package: ``sweeps.trials.attempt`` is in ``trials``."""
    return module.removesuffix(".py").split(".")[1] if "." in module else ""


def test_no_circle_of_imports() -> None:
    ours = {
        module: {name for name in wanted if name.split(".")[0] in PACKAGES}
        for module, wanted in imports().items()
    }
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_every_room_of_sweeps_is_in_one_layer() -> None:
    placed = [name for layer in SWEEPS for name in layer]
    twice = [name for name in sorted(set(placed)) if placed.count(name) > 1]
    assert not twice, f"{', '.join(twice)}: in two layers of SWEEPS"
    for name in sorted({room(module) for module in imports() if module.startswith("sweeps.")}):
        assert name in placed, f"sweeps.{name} is in no layer; add it to SWEEPS"


def test_sweeps_are_built_in_layers() -> None:
    height = {name: level for level, names in enumerate(SWEEPS) for name in names}
    for module, wanted in imports().items():
        for other in wanted:
            here, there = room(module), room(other)
            if not (module.startswith("sweeps.") and other.startswith("sweeps.")) or here == there:
                continue
            if not {here, there} <= height.keys():  # what the test above says better
                continue
            below, beside = height[there] < height[here], height[there] == height[here]
            apart = {here, there} == {"distributed", "searching"}
            assert below or (beside and not apart), f"{module} imports {other}"


def test_analysis_is_built_in_layers() -> None:
    for module, wanted in imports().items():
        for other in wanted:
            if module.startswith("analysis.") and other.startswith("analysis."):
                here, there = room(module), room(other)
                assert here == there or there in MAY_KNOW[here], f"{module} imports {other}"


def test_packages_point_one_way() -> None:
    """analysis -> lesion_core.results <- lesion_core <- sweeps"""
    known = (
        "results", "report_record", "looks", "standing", "stopping", "spreadsheets", "table1",
        "settings", "paths", "terminal", "arms", "scores", "search_space",
    )  # fmt: skip
    torch_free = {f"lesion_core.{name}" for name in known}
    for module, wanted in imports().items():
        package = module.split(".")[0]
        for other in wanted:
            target = other.split(".")[0]
            assert target != "tests", f"{module} imports {other}"
            if package == "lesion_core":
                assert target not in ("sweeps", "analysis"), f"{module} imports {other}"
            if package == "analysis" and target == "lesion_core":
                assert other in torch_free, f"{module} imports {other}"
            if package == "sweeps" and module != "sweeps.cli":
                assert target != "analysis", f"{module} imports {other}"


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("ray", "sweeps.distributed."),
        ("wandb", "sweeps.tracking."),
        ("wandb_workspaces", "sweeps.tracking."),
        ("optuna", "sweeps.searching."),
        ("triton", "lesion_core.kernels."),
    ],
)
def test_one_room_knows_the_library(library: str, home: str) -> None:
    users = {
        module
        for module, wanted in imports().items()
        if any(name.split(".")[0] == library for name in wanted)
    }
    assert users and all(module.startswith(home) for module in users)


def test_statistics_draw_nothing() -> None:
    loaded = loaded_by(LOAD_ALL.format("analysis.statistics"))
    assert not {"matplotlib", "markupsafe", "jinja2"} & loaded


LATE = ("sweeps.bench.fake_sweep", "sweeps.bench.plain", "sweeps.distributed.tune")
"""Imported when they are about to be used: their classes are made from others' heavy ones."""

LOAD_ALL = f"""
import importlib, pkgutil, sys, {{0}} as package
for module in pkgutil.walk_packages(package.__path__, "{{0}}."):
    if module.name not in {LATE}:
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
def test_package_never_loads(package: str, forbidden: set[str]) -> None:
    """Importing sweeps loads nothing heavy either, so that --help answers at once."""
    loaded = loaded_by(LOAD_ALL.format(package))
    assert not forbidden & loaded


@pytest.mark.parametrize(
    "module",
    [
        "lesion_core",
        "lesion_core.arms",
        "lesion_core.descriptions",
        "lesion_core.report_record",
        "lesion_core.results",
        "lesion_core.scores",
        "lesion_core.settings",
        "lesion_core.standing",
    ],
)
def test_loads_without_torch(module: str) -> None:
    loaded = loaded_by(f"import {module}, sys; print(*sys.modules)")
    assert not {"torch", "scipy", "nibabel"} & loaded


def test_training_loads_neither_monai_nor_matplotlib() -> None:
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


def test_html_is_made_by_templates_or_with_its_text_escaped() -> None:
    """`Markup` takes what was written in its source; everything else comes in by `format`, which
    escapes.  The one exception is a figure, which matplotlib escaped."""
    tag = re.compile(
        r"</?(p|div|span|[uod]l|li|d[td]|t[drh]|table|a|b|i|strong|em|code|small|h\d|img|svg|"
        r"script|style|figure|section|details|summary)\b"
    )
    for file in files():
        if file.is_relative_to(ROOT / "analysis" / "page" / "style.py"):
            continue
        tree = ast.parse(file.read_text())
        trusted = set()
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="Markup"), args=arguments):
                    assert all(isinstance(each, ast.Constant) for each in arguments), (
                        f"{file}:{node.lineno}: Markup of what may hold a name"
                    )
                    trusted |= set(map(id, arguments))
                case ast.Expr(value=ast.Constant(value=str())):  # a docstring
                    trusted.add(id(node.value))
        for node in ast.walk(tree) if file.is_relative_to(ROOT / "analysis") else ():
            text = node.value if isinstance(node, ast.Constant) and id(node) not in trusted else ""
            assert not (isinstance(text, str) and tag.search(text)), (
                f"{file}:{getattr(node, 'lineno', 0)}: HTML by hand"
            )
    for template in (ROOT / "analysis" / "page").glob("*.html"):
        assert re.findall(r"\|\s*safe", template.read_text()) == (
            ["| safe", "| safe"] if template.name == "page.html" else []
        ), f"{template}: only the page's own style sheet and script are safe as they are"
