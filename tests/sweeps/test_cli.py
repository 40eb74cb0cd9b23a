"""`lesion-sweep`: every door behind one name, each with its own flags, help and exit status."""

import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lesion_core import stopping
from sweeps import cli, provenance

ROOT = Path(__file__).parents[2]

ENTRY = "import sys; sys.argv[0] = '/somewhere/bin/lesion-sweep'; from sweeps import cli; "
"""What pip's script does."""

WAITS = """
import time
def main(arguments):
    print("begun", flush=True)
    time.sleep(60)
"""

SHOWS = """
from sweeps import provenance
def main(arguments):
    print(provenance.command_line(), arguments)
    return 3
"""


@pytest.fixture
def typed(monkeypatch):
    """Runs a command line in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lesion-sweep", *arguments])
        return cli.main()

    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_help_lists_every_command_in_one_line_and_loads_nothing_heavy():
    code = ENTRY + "sys.argv[1:] = ['--help']; cli.main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, modules = done.stdout.splitlines()
    for name, found in cli.COMMANDS.items():
        assert sum(line.split() == [name, *found.summary.split()] for line in shown) == 1
    assert all(len(line) <= 80 for line in shown)
    assert not {"torch", "ray", "pandas", "numpy", "tyro", "wandb", "optuna"} & set(modules.split())


HEAVY = {
    "torch", "scipy", "nibabel", "SimpleITK", "pandas", "pyarrow", "matplotlib", "ray", "wandb",
    "optuna", "monai", "nilearn",
}  # fmt: skip
"""What takes seconds to load, or a large part of one."""

SCRIPTS = ["analysis/report.py", "analysis/examples.py", "sweeps/train_one.py"]
MODULES = ["lesion_core.prepare", "lesion_core.cohorts", "lesion_core.predict", "sweeps.tracking"]


def loaded_by_help(code):
    """What is loaded once a command has shown its help, after which it exits."""
    show = "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); "
    done = subprocess.run(
        [sys.executable, "-c", show + code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    shown, _, modules = done.stdout.rpartition("LOADED")
    assert "usage: " in shown
    return set(modules.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(name):
    loaded = loaded_by_help(ENTRY + f"sys.argv[1:] = [{name!r}, '--help']; cli.process()")
    assert not HEAVY & loaded


@pytest.mark.parametrize("file", SCRIPTS)
def test_help_of_a_script_loads_nothing_heavy(file):
    run = f"import runpy; runpy.run_path({file!r}, run_name='__main__')"
    loaded = loaded_by_help(f"sys.argv = [{file!r}, '--help']; {run}")
    assert not HEAVY & loaded


@pytest.mark.parametrize("name", MODULES)
def test_help_of_a_module_loads_nothing_heavy(name):
    run = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    loaded = loaded_by_help(f"sys.argv = [{name!r}, '--help']; {run}")
    assert not HEAVY & loaded


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there(name):
    module, function = cli.COMMANDS[name].main.split(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(
    "name", [["grid"], ["status"], ["wandb", "sync"], ["report"], ["data"], ["prepare", "lit"]]
)
def test_a_commands_help_names_it_as_it_was_typed(name, typed, capsys):
    with pytest.raises(SystemExit) as end:
        typed(*name, "--help")
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"usage: lesion-sweep {' '.join(name)} [-h]")


@pytest.mark.parametrize(
    ("door", "program"),
    [
        (["analysis/report.py"], "analysis/report.py"),
        (["-m", "lesion_core.cohorts"], "python -m lesion_core.cohorts"),
        (["-m", "lesion_core.prepare"], "python -m lesion_core.prepare"),
    ],
)
def test_other_doors_keep_their_names(door, program):
    done = subprocess.run(
        [sys.executable, *door, "--help"],
        cwd=provenance.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.startswith(f"usage: {program} [-h]")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gird"], r"error: unknown command 'gird'; expected one of grid, .*; did you mean grid\?"),
        (["paper_grid"], r"error: unknown command 'paper_grid'; .*; did you mean grid\?"),
        (["quux"], r"error: unknown command 'quux'; .*, bench; see lesion-sweep --help"),
        ([], r"error: no command; expected one of grid, .*, bench; see lesion-sweep --help"),
        (["grid", "--epochs", "x"], r"error: .*epochs.*"),
        (["status", "nowhere"], r"error: .*nowhere.*"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments, said, typed, capsys):
    assert typed(*arguments) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(said, err.strip())
    assert not out


def test_version(typed, capsys):
    import lesion_core

    assert typed("--version") == 0
    assert capsys.readouterr().out == f"lesion-sweep {lesion_core.__version__}\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_command(number, status, tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    code = ENTRY + (
        f"sys.path.append({str(tmp_path)!r}); "
        "cli.COMMANDS['wait'] = cli.Command('waits:main', 'for a signal'); cli.process()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "wait"],
        cwd=provenance.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.wait(300) == status
        assert process.stderr.read() == "stopped; the same command goes on from here\n"


def test_a_line_adds_a_command_that_a_sweep_remembers_as_typed(
    typed, tmp_path, monkeypatch, capsys
):
    (tmp_path / "shows.py").write_text(SHOWS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "show", cli.Command("shows:main", "what was typed"))
    assert typed("show", "--losses", "focal(alpha=0.3)") == 3
    shown = "lesion-sweep show --losses 'focal(alpha=0.3)' ['--losses', 'focal(alpha=0.3)']\n"
    assert capsys.readouterr().out == shown


def test_an_installation_shows_the_command_that_it_has(monkeypatch):
    assert (
        provenance.command_to_show("python sweeps/status.py", "status") == "python sweeps/status.py"
    )
    monkeypatch.setattr(provenance, "INSTALLED", True)
    assert provenance.command_to_show("python sweeps/status.py", "status") == "lesion-sweep status"


def test_an_installation_has_no_commit(monkeypatch):
    """Git would answer for the project that the environment lies in."""
    monkeypatch.setattr(provenance, "INSTALLED", True)
    assert provenance.git_commit() is None
