"""What the README and docs say is so: commands, flags, links, paths, columns, examples."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
import yaml

import lesion_core
from lesion_core import results
from lesion_core.losses import loss_named, search_space
from sweeps import cli
from sweeps.bench.fake_sweep import FakeSweep
from tests.support.tiny import write_wmh_cohort

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "sweeps/cluster/README.md",
    ]
)
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in MARKDOWN}

ON_DATA = (
    "python -m lesion_core.cohorts check data --out checked",
    "python analysis/examples.py checked figure1.png",
    "python -m lesion_core.cohorts folds data --cohorts wmh2017 --fold-rule site",
    "python -m lesion_core.cohorts folds data --cohorts wmh2017 --write splits_final.json",
    "python sweeps/paper_grid.py --dry-run",
    "lesion-sweep --help",
)
"""Commands of these pages that run here, in this order, in a folder with a tiny ``data``."""

ON_RESULTS = (
    "python sweeps/status.py results/paper_grid --watch",
    "python analysis/report.py results/paper_grid --out page --reference xent --formats svg",
    "python sweeps/tracking.py dashboard results/paper_grid",
)
"""Those that run in a folder with a small ``results/paper_grid``.

Of every other command its file, its subcommand and its flags are looked up.
"""

ELSEWHERE = {
    "ray": "starts or asks a cluster",
    "sbatch": "needs SLURM",
    "kubectl": "needs Kubernetes",
    "rsync": "needs a cluster's head",
    "wandb": "a program of W&B",
    "optuna-dashboard": "another project's program, a server",
}
"""Programs that are not ours, and why they do not run here."""

NO_HELP = {
    "analysis/examples.py": "two arguments, no flags; runs here",
    "docs/example.py": "no flags; has its own test",
    "tests.test_golden": "rewrites golden files, no flags",
    "tests.support.simulations": "minutes; its parts are tests",
}


# ---------------------------------------------------------------------------- reading the pages
def fences(page: str, language: str) -> list[str]:
    """Bodies of the page's fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def code_words(page: str) -> list[str]:
    """What stands in backticks outside fences, lines joined."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose(page))]


def commands() -> Iterator[tuple[str, str]]:
    """(page, command line): each line of an sh block, and commands of ours in the text."""
    for name, page in PAGES.items():
        for block in fences(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield name, shlex.join(words)
        for word in code_words(page):
            if re.match(r"(python|lesion-sweep|make|pip install) [\w./-]", word):
                yield name, word


COMMANDS = sorted(set(commands()))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# ------------------------------------------------------------------------------------- commands
def entry(words: Sequence[str]) -> tuple[Callable[[Sequence[str]], int], list[str]]:
    """The function behind a command of ours, and the arguments that it is given."""
    if words[0] == "lesion-sweep":
        path, rest = cli.COMMANDS[words[1]].main, words[2:]
    elif words[1] == "-m":
        path, rest = module_main(words[2]), words[3:]
    else:
        script = ROOT / words[1]
        assert script.is_file(), f"there is no {words[1]}"
        path, rest = module_main(words[1].removesuffix(".py").replace("/", ".")), words[2:]
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(module), function), list(rest)


def module_main(name: str) -> str:
    is_package = (ROOT / name.replace(".", "/")).is_dir()
    return f"{name}.__main__:main" if is_package else f"{name}:main"


@functools.cache
def help_of(main: Callable[[Sequence[str]], int], *subcommand: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
        main([*subcommand, "--help"])
    assert end.value.code in (0, None)
    return said.getvalue()


def check_ours(words: Sequence[str]) -> None:
    """The file or subcommand is there, and --help knows every flag."""
    if any(word in NO_HELP for word in words[1:3]):
        return
    if words[0] == "lesion-sweep" and words[1].startswith("-"):
        assert words[1:] == ["--help"]
        return
    main, rest = entry(words)
    text = help_of(main)
    choices = {choice for group in re.findall(r"\{([\w,]+)\}", text) for choice in group.split(",")}
    if rest and rest[0] in choices:
        text = help_of(main, rest[0])
    for word in rest:
        if word.startswith("--"):
            flag = re.escape(word.partition("=")[0])
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"no flag {word}"


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text)
def test_command_is_known(page, line):
    words = shlex.split(line)
    for word in words:
        if re.match(r"(lesion_core|sweeps|analysis|tests|docs)/", word):
            assert (ROOT / word).exists(), f"there is no {word}"
    if words[0] in ELSEWHERE:
        start = words.index("python") if "python" in words else len(words)
        words = words[start:]
    if not words:
        return
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "optional-dependencies"
        ]
        for named in re.findall(r"\.\[(.+?)\]", line):
            assert set(named.split(",")) <= set(extras)
    else:
        assert words[0] in ("python", "lesion-sweep"), f"say in ELSEWHERE why {words[0]} cannot run"
        check_ours(words)


def test_what_runs_here_is_in_the_pages():
    assert {*ON_DATA, *ON_RESULTS} <= {line for _, line in COMMANDS}


def clone(folder: Path) -> Path:
    """The packages as a reader has them, in the folder where commands are given."""
    for name in ("lesion_core", "sweeps", "analysis", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def with_data(tmp_path_factory) -> Path:
    folder = clone(tmp_path_factory.mktemp("docs"))
    write_wmh_cohort(folder / "data")
    return folder


@pytest.fixture(scope="module")
def with_results(tmp_path_factory) -> Path:
    folder = clone(tmp_path_factory.mktemp("docs"))
    FakeSweep(
        losses=("xent", "dsc"), seeds=(42, 80702), num_folds=2, num_cases=6, epochs=2,
        pictures=False,
    ).write(folder / "results" / "paper_grid")  # fmt: skip
    return folder


def run_in(folder: Path, words: Sequence[str]) -> str:
    """What it prints; it must end well."""
    if words[0] == "lesion-sweep":
        start = [sys.executable, "-c", "import sys; from sweeps.cli import main; sys.exit(main())"]
    else:
        start = [sys.executable]
    done = subprocess.run(
        [*start, *words[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("line", ON_DATA)
def test_command_runs_on_data(line, with_data):
    run_in(with_data, shlex.split(line))


@pytest.mark.parametrize("line", ON_RESULTS)
def test_command_runs_on_results(line, with_results):
    run_in(with_results, shlex.split(line))


def test_example_script_trains_predicts_and_reads(with_results):
    said = run_in(with_results, ["python", "docs/example.py", "results/paper_grid"])
    assert "epoch 2" in said and "probabilities" in said and "xent" in said


def test_python_in_results_folder_page_runs(with_results, monkeypatch):
    monkeypatch.chdir(with_results)
    (block,) = fences(PAGES["docs/results-folder.md"], "python")
    exec(compile(block, "results-folder.md", "exec"), {})


def test_loss_in_contributing_can_be_trained_with(tmp_path, monkeypatch):
    block, _ = fences(PAGES["CONTRIBUTING.md"], "python")  # the other one is a network
    (tmp_path / "contributed_losses.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    loss = loss_named("contributed_losses:Mine")
    assert set(search_space(loss)) == {"beta"}
    logits = torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    loss(logits, torch.ones(1, 1, 4, 4, 4)).backward()
    assert (logits.grad < 0).all()  # more lesion where lesion is


# ----------------------------------------------------------------------------- links and paths
def links() -> Iterator[tuple[str, str]]:
    for name, page in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if not target.startswith(("http://", "https://")):
                yield name, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())), ids=lambda text: text)
def test_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    assert file.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", prose(file.read_text()), re.MULTILINE)
        assert anchor in map(slug, headings)


def paths() -> Iterator[tuple[str, str]]:
    for name, page in PAGES.items():
        if name != "CHANGELOG.md":  # speaks of what was
            for word in code_words(page):
                if re.fullmatch(r"(\.ci|lesion_core|sweeps|analysis|tests|docs)/[\w./*-]*", word):
                    yield name, word


@pytest.mark.parametrize(("page", "path"), sorted(set(paths())), ids=lambda text: text)
def test_path_exists(page, path):
    assert any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lesion_core/losses/fields.py", "BuiltIn"),
        ("lesion_core/losses/fields.py", "searched"),
        ("lesion_core/losses/named.py", "LOSSES"),
        ("lesion_core/cohorts/named.py", "Cohort"),
        ("lesion_core/cohorts/named.py", "COHORTS"),
        ("lesion_core/cohorts/folder.py", "brain_place"),
        ("lesion_core/settings.py", "TrainSettings"),
        ("lesion_core/settings.py", "ALWAYS_STORED"),
        ("analysis/report.py", "SECTIONS"),
        ("analysis/statistics/confidence.py", "CONFIDENCE"),
        ("sweeps/cli.py", "COMMANDS"),
        ("sweeps/distributed/tune.py", "SupplyFeedback"),
        ("tests/lesion_core/test_losses.py", "FORMULAS"),
    ],
)
def test_recipe_names_what_is_there(file, name):
    """What the tables and recipes tell a reader to look for in a file."""
    assert any(name in page for page in PAGES.values())
    assert re.search(rf"^(class |\s*def )?{name}\b", (ROOT / file).read_text(), re.MULTILINE)


def test_page_of_the_results_folder_names_every_file_and_column():
    told = set(code_words(PAGES["docs/results-folder.md"]))
    tables = [*results.TABLES.values(), results.COHORT_CASES, results.COHORT_SLICES]
    assert {name for table in tables for name in table.names} <= told
    assert set(results.TABLES) | {results.MODEL, results.SEARCH} <= told


# --------------------------------------------------------------------------------- as files go
def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def test_report_of_the_readme_is_light():
    assert (ROOT / "docs/report.png").stat().st_size < 300_000


def test_citation_is_complete():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license", "version"} <= cited.keys()
    assert cited["version"] == lesion_core.__version__
    (paper,) = cited["references"]
    assert paper["doi"] == "10.3390/s24061981"
    assert [author["family-names"] for author in paper["authors"]] == ["Cabezas", "Diez"]


def test_changelog_says_what_moves_numbers_in_every_release():
    releases = re.split(r"^## ", PAGES["CHANGELOG.md"], flags=re.MULTILINE)[1:]
    assert releases[0].startswith(lesion_core.__version__)
    assert all("### What moves numbers" in release for release in releases)
