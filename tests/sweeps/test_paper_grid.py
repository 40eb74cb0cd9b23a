"""The doors end to end on tiny images: the grid, one trial, the status; mistakes in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lesion_core import results
from lesion_core.looks import read_looks
from lesion_core.losses import PAPER_LOSSES
from sweeps import command, paper_grid, seed_ladder, status, sweep, train_one
from sweeps.bench.fake_sweep import description
from sweeps.data import Data
from sweeps.distributed import cluster
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock
from sweeps.options import Machines
from sweeps.provenance import ROOT
from sweeps.verify import verify
from tests.support.tiny import write_lit_cohort
from tests.support.undrawn import numbers_of_the_report

SETTINGS = ["--folds", "2", "--epochs", "2", "--patch-size", "8", "--filters", "8", "16"]
SETTINGS += ["--batch-size", "4"]
GRID = ["--losses", "xent", "my_losses:Breaks", "--seeds", "1", *SETTINGS, "--wandb", "disabled"]

MY_LOSSES = '''
import time
from pathlib import Path
from lesion_core.losses import CrossEntropy

class Breaks:
    """Fails in training, not when it is first tried, as long as a file is there."""
    def __call__(self, logits, target):
        if logits.shape[-1] == 8 and Path(__file__).with_name("broken").exists():
            raise RuntimeError("I break")
        return CrossEntropy()(logits, target)

def slow(logits, target):
    time.sleep(0.2 * (logits.shape[-1] == 8))
    return CrossEntropy()(logits, target)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in: data, a loss of one's own, and a Ray that was started there."""
    path = tmp_path_factory.mktemp("place")
    write_lit_cohort(path / "data", [1, 2, 3, 4])
    (path / "my_losses.py").write_text(MY_LOSSES)
    (path / "broken").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("RAY_worker_niceness", "0")  # tests wait for them
        with cluster.connected(Machines()):
            yield path


@pytest.fixture(autouse=True)
def here(request, monkeypatch):
    if "place" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("place"))


@pytest.fixture(autouse=True)
def signals():
    """Commands install handlers of their own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def first(place):
    """Exit status of the first run, in which one of two losses breaks."""
    return paper_grid.main(GRID)


@pytest.fixture(scope="module")
def repaired(first, place):
    """Exit status after the loss was mended: only what failed runs again."""
    (place / "broken").unlink()
    before = {file: file.stat().st_mtime_ns for file in place.glob("results/**/done.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "build_report", numbers_of_the_report)
        exit_status = paper_grid.main([*GRID, "--retry-failed"])
    assert {file: file.stat().st_mtime_ns for file in before} == before
    return exit_status


# ------------------------------------------------------------------------------------ the sequence
def test_a_failing_loss_fails_its_trials_and_no_others(place, first):
    assert first == 1
    runs = results.read_sweep(place / "results/paper_grid").runs.set_index(["loss", "fold"])
    assert runs.status.to_dict() == {
        ("xent", 0): "done", ("xent", 1): "done", ("Breaks", 0): "failed", ("Breaks", 1): "failed"
    }  # fmt: skip
    assert set(runs.loc["Breaks"].error) == {"RuntimeError: I break"}
    curves = results.read_gradients(place / "results/paper_grid")
    assert set(curves["loss"]) == {"xent"} and set(curves["patch_voxels"]) == {8**3}


def test_failures_are_named_with_reason_and_log(place, first, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "connected", None)  # nothing left to run: no Ray is needed
    assert paper_grid.main(GRID) == 1
    said = capsys.readouterr().out
    assert "2 failed before (--retry-failed runs them again)" in said
    assert "2 of 4 trials are done" in said
    lines = said.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("failed: lit-Breaks"))
    assert lines[at + 1].strip() == "why: RuntimeError: I break"
    log = Path(lines[at + 2].strip().removeprefix("log: "))
    assert "RuntimeError: I break" in log.read_text()


def test_status_shows_the_same(place, first, capsys):
    assert status.main(["results/paper_grid"]) == 1
    said = capsys.readouterr().out
    assert (
        "nothing works on it now; it goes on with the command" in said
        and "why: RuntimeError: I break" in said
    )


def test_one_trial_equals_the_sweeps_bit_for_bit(place, first):
    arguments = ["--cohort", "lit", "--seed", "1", "--fold", "1", *SETTINGS, "--results", "one"]
    assert train_one.main(arguments) == 0
    assert train_one.main(arguments) == 0  # nothing to do
    assert set(results.read_gradients(Path("one"))["loss"]) == {"xent"}
    (ours,) = Path("one/trials").iterdir()
    theirs = Path("results/paper_grid/trials") / ours.name
    for table in results.TABLES:
        one, other = (pd.read_parquet(folder / table) for folder in (ours, theirs))
        clocks = [column for column in one if column.startswith("seconds")]
        pd.testing.assert_frame_equal(
            one.drop(columns=clocks), other.drop(columns=clocks), check_exact=True
        )


def test_one_trial_that_fails_exits_1_with_its_traceback(place, first, capsys):
    arguments = ["--cohort", "lit", "--loss", "my_losses:Breaks", *SETTINGS, "--results", "broke"]
    assert train_one.main(arguments) == 1
    said = capsys.readouterr().out
    assert 'raise RuntimeError("I break")' in said and "failed: broke/trials/lit-Breaks" in said


def test_retrying_runs_what_failed_and_the_report_is_built(repaired, place):
    assert repaired == 0
    assert (place / "results/paper_grid/report/report.html").exists()
    curves = results.read_gradients(place / "results/paper_grid")
    assert set(curves["loss"]) == {"xent", "Breaks"}


def test_a_finished_sweep_has_nothing_to_do(repaired, place, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "connected", None)
    begun = time.process_time()  # not by the clock: a busy machine is slow
    assert paper_grid.main(GRID) == 0
    assert time.process_time() - begun < 5
    said = capsys.readouterr().out
    assert "nothing to do" in said and "4 of 4 trials are done" in said
    assert "ledger: results/paper_grid" in said
    assert "report: results/paper_grid/report/report.html" in said
    assert status.main(["results/paper_grid"]) == 0


def test_a_dry_run_counts_names_and_predicts_but_writes_nothing(repaired, place, capsys):
    before = {file: file.stat().st_mtime_ns for file in Path("results").rglob("*")}
    more = [*GRID, "--seeds", "1", "2", "--dry-run"]
    with Lock(Path("results/paper_grid"), "a running sweep"):
        assert paper_grid.main(more) == 0
    said = capsys.readouterr().out
    assert "8 trials, 4 done, 4 to run" in said and said.count("would run  lit-") == 4
    assert "predicted:" in said and "mean of 4 finished trials in this folder" in said
    after = {file: file.stat().st_mtime_ns for file in Path("results").rglob("*")}
    after.pop(Path("results/paper_grid"), None)
    before.pop(Path("results/paper_grid"), None)  # where the lock was
    assert after == before
    assert paper_grid.main([*GRID, "--results", "new", "--dry-run"]) == 0
    assert "from one training step" in capsys.readouterr().out
    assert not Path("new").exists()


def test_another_sweep_is_refused(repaired, place):
    with pytest.raises(ValueError, match="epochs is 2 there, 3 now; choose another folder"):
        paper_grid.main([*GRID, "--epochs", "3"])


def test_a_folder_in_use_is_refused(repaired, place):
    with (
        Lock(Path("results/paper_grid"), "the first"),
        pytest.raises(ValueError, match=r"is in use by process .*the first"),
    ):
        paper_grid.main(GRID)


def test_changed_data_are_refused(repaired, place, tmp_path):
    shutil.copytree("data", tmp_path / "data")
    file = tmp_path / "data/lit/patient01/lesion.nii.gz"
    shutil.copy(tmp_path / "data/lit/patient02/baseline_flair.nii.gz", file)
    with pytest.raises(ValueError, match="the data of cohort lit have changed"):
        paper_grid.main([*GRID, "--data", str(tmp_path / "data")])


def test_a_changed_loss_of_ones_own_is_refused(repaired, place):
    source = Path("my_losses.py")
    try:
        source.write_text(MY_LOSSES + "\n# another\n")
        sys.modules.pop("my_losses", None)
        with pytest.raises(ValueError, match=r"loss Breaks is .* there, .* now"):
            paper_grid.main(GRID)
    finally:
        source.write_text(MY_LOSSES)
        sys.modules.pop("my_losses", None)


# ------------------------------------------------------------------------------------ the trials
def test_an_unfinished_sweep_is_useful(place):
    grid = paper_grid.PaperGrid(folds=2, seeds=(1, 2), losses=("xent", "dsc"))
    trials = grid.trials([Data.of(cohort, grid.data) for cohort in grid.cohort_objects()])
    order = [(trial.seed, trial.fold, trial.loss_label) for trial in trials]
    assert order[:5] == [
        (1, 0, "xent"), (1, 0, "dsc"), (1, 1, "xent"), (1, 1, "dsc"), (2, 0, "xent")
    ]  # fmt: skip


def test_the_grid_is_the_papers():
    grid = paper_grid.PaperGrid()
    assert grid.losses == PAPER_LOSSES
    assert grid.seeds == (42, 80702, 74794, 62021, 48497)
    assert (grid.folds, grid.epochs, grid.batch_size, grid.patch_size) == (5, 25, 16, 32)
    assert grid.settings() == type(grid.settings())()


def test_the_demo_is_all_losses_on_its_own_cohort(place):
    (cohort,) = paper_grid.DEMO_GRID.cohort_objects()
    assert cohort.name == "demo"
    assert paper_grid.DEMO_GRID.losses == PAPER_LOSSES
    assert paper_grid.DEMO_GRID.results == Path("results/demo")


# ---------------------------------------------------------------------------------------- mistakes
def exit_status(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["paper_grid.py", *arguments])
    return command.run(main)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epoch", "3"], "Unrecognized options: --epoch"),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "0"], "epochs is 0; expected 1 or more"),
        (["--precision", "fp64"], "fp64"),
        (["--filters", "8", "12"], "multiples of 8"),
        (["--patch-size", "12"], "patch_size 12"),
        (["--seeds"], "--seeds is empty"),
        (["--losses", "focal3"], "unknown loss 'focal3'"),
        (["--losses", "my_losses:Absent"], "has no 'Absent'"),
        (["--cohorts", "wmh2018"], "unknown cohort 'wmh2018'"),
        (["--cohorts", "wmh2017"], "no such folder"),
        (["--data", "nowhere"], "--demo"),
        (["--folds", "9"], "4 cases for 9 folds"),
        (["--gpus-per-trial", "0.3"], "--gpus-per-trial"),
        (["--address", "ray://x:1"], "Ray's client protocol"),
        (["--folds", "2", "--results", "my_losses.py/x"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(place, monkeypatch, capsys, arguments, words):
    assert exit_status(monkeypatch, paper_grid.main, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert words in said


AUGMENTATIONS = """
import torch

class Large:
    def draw(self, number, channels, patch_size, generator):
        return {"by": torch.rand(number, channels, 16, 16, 16, generator=generator)}
    def __call__(self, images, drawn):
        return images + drawn["by"]
"""
ARMS = """
from lesion_core import Arm
ARMS = [Arm(loss="xent"), Arm(loss="xent", settings={"background_windows": 0.5})]
"""
NO_WINDOW = "every window with brain has a lesion in the 2 training cases"


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (paper_grid.main, ["--background-windows", "0.5"], NO_WINDOW),
        (paper_grid.main, ["--vary", "background_windows=0,0.5", "--dry-run"], NO_WINDOW),
        (paper_grid.main, ["--background-windows", "0.5", "--max-hours", "1"], NO_WINDOW),
        (paper_grid.main, ["--background-windows", "0.5", "--until-decided"], NO_WINDOW),
        (paper_grid.main, ["--arms", "arms_here.py:ARMS", "--dry-run"], NO_WINDOW),
        (seed_ladder.main, ["--seeds", "1", "2", "--background-windows", "0.5"], NO_WINDOW),
        (train_one.main, ["--cohort", "lit", "--background-windows", "0.5"], NO_WINDOW),
        (paper_grid.main, ["--augment", "augments_here:Large"], "patches of shape [2, 8, 8"),
        (paper_grid.main, ["--min-lesion-mm3", "9"], "the largest lesion of cohort lit has 8 mm3"),
        (paper_grid.main, ["--vary", "precision=fp32,tf32", "--dry-run"], "tf32 without a GPU"),
    ],
)
def test_what_cannot_be_trained_is_refused_once_and_leaves_nothing(
    place, monkeypatch, capsys, main, arguments, words
):
    """Known from settings and images before a trial starts, as far as it can be."""
    (place / "augments_here.py").write_text(AUGMENTATIONS)
    (place / "arms_here.py").write_text(ARMS)
    asked = [*SETTINGS, *arguments, "--results", "refused"]
    assert exit_status(monkeypatch, main, *asked) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ")] == said[-1:]
    assert words in said[-1] and not Path("refused").exists()


def test_no_cohort_names_the_three_ways_on(place, monkeypatch, capsys):
    assert exit_status(monkeypatch, paper_grid.main, "--data", "nowhere") == 2
    said = capsys.readouterr().err
    assert all(way in said for way in ("--demo", "--cohorts simulated", "lesion_core.prepare"))


def test_a_status_of_nothing_is_one_line(tmp_path, monkeypatch, capsys):
    assert exit_status(monkeypatch, status.main, str(tmp_path)) == 2
    assert "no sweep.json there" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["paper_grid", "train_one", "status"])
def test_help_loads_nothing_heavy(script):
    code = (
        f"import sys; from sweeps import {script}, command\n"
        f"sys.argv = ['x', '--help']\n"
        f"try: command.run({script}.main)\n"
        "except SystemExit: print('\\n', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "--help" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not {"torch", "ray", "wandb", "numpy", "pandas", "pyarrow", "scipy"} & loaded
    assert not {"monai", "matplotlib"} & loaded


# -------------------------------------------------------------------------------------- the status
def test_status_tells_running_from_interrupted(tmp_path, monkeypatch):
    trials = [description("c", "xent", seed, fold=0, epochs=3) for seed in range(3)]
    rows = [{key: value for key, value in trial.items() if key != "config"} for trial in trials]
    a, b, c = (trial["name"] for trial in trials)
    asked = {"losses": ["l"], "settings": {}, "num_folds": 2, "folds": {}, "cohorts": {}}
    asked |= {"command": "", "git_commit": None, "versions": {}, "trials": rows}
    with Lock(tmp_path, "earlier") as lock:
        ledger = Ledger(tmp_path, lock.token)
        ledger.write_request(asked)
        ledger.begin(trials[0])
    with Lock(tmp_path, "now") as lock:
        Ledger(tmp_path, lock.token).begin(trials[1], worker="host:1")
        found = status.states(tmp_path, asked, status.holder(tmp_path))
        assert {name: state["status"] for name, state in found.items()} == {
            a: "partial", b: "running", c: "missing"
        }  # fmt: skip
    assert status.states(tmp_path, asked, None)[b]["status"] == "partial"
    search = {"configurations": [{"trials": {"0": a, "1": b}, "stopped": {"1": 2}}]}
    monkeypatch.setattr(results, "read_search", lambda path: search)
    assert [state["status"] for state in status.states(tmp_path, asked, None).values()] == [
        "partial", "given up", "missing",
    ]  # fmt: skip


def test_a_report_that_fails_is_reported(tmp_path, capsys, monkeypatch):
    (tmp_path / "sweep.json").write_text("{}")
    assert not sweep.build_report(tmp_path)
    assert "the report could not be built" in capsys.readouterr().out


# ------------------------------------------------------------------------------------ interruption
@pytest.mark.parametrize(
    ("number", "exit_status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_sweep_ends_within_seconds_and_goes_on(tmp_path, number, exit_status):
    """A process of its own with a Ray of its own, as users have it."""
    write_lit_cohort(tmp_path / "data", [1, 2])
    (tmp_path / "my_losses.py").write_text(MY_LOSSES)
    arguments = ["--losses", "my_losses:slow", "--seeds", "1", *SETTINGS, "--wandb", "disabled"]
    arguments += ["--no-report", "--epochs", "20"]  # far from its end when the signal comes
    line = [sys.executable, str(ROOT / "sweeps" / "paper_grid.py"), *arguments]
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    started = time.monotonic()
    process = subprocess.Popen(
        line, cwd=tmp_path, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ledger = Ledger(tmp_path / "results/paper_grid")
    deadline = started + 300
    while not list(ledger.path.glob("trials/*/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    begun = time.monotonic()
    within = max(20, begun - started)  # where starting takes minutes, stopping may take as long
    process.send_signal(number)
    out, err = process.communicate(timeout=within + 60)
    assert time.monotonic() - begun < within
    assert process.returncode == exit_status, err
    if number != signal.SIGKILL:
        assert err.strip() == "stopped; the same command goes on from here"
        assert not (ledger.path / ".lock").exists()
    assert "Traceback" not in out + err
    deadline = time.monotonic() + within
    while alive := _session(process.pid):
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.2)
    asked = results.read_meta(ledger.path)["trials"]
    assert ledger.left_to_run([trial["name"] for trial in asked])
    (begun_trial, *_) = ledger.path.glob("trials/*/progress.json")
    assert json.loads(begun_trial.read_text())["attempts"] == 1
    if number != signal.SIGKILL:  # asked to stop, it has left a checkpoint of where it was
        assert "running trials leave a checkpoint" in out
        logs = [log.read_text() for log in ledger.path.glob("trials/*/log.txt")]
        assert any("stopped after epoch" in log for log in logs)
    if exit_status != 130:
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _session(leader: int) -> list[str]:
    """Processes of the session that a process led: Ray's are its children.

    After a SIGKILL, two small agents of Ray's take half a minute to notice; they do not count.
    """
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--sid", str(leader)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in found.stdout.splitlines() if "Agent" not in line]


# ------------------------------------------------------------------------------------ until decided
def test_until_decided_trains_cells_in_order_and_says_why_it_stopped(place, capsys):
    asked = ["--losses", "xent", "dsc", *SETTINGS, "--wandb", "disabled", "--until-decided"]
    asked += ["--results", "results/decided", "--no-report", "--seeds"]
    assert paper_grid.main([*asked, "1"]) == 0
    said = capsys.readouterr().out
    assert "2 cells (seed, fold) at most, of 4 trials, until the question is decided" in said
    assert "4 of 4 trials are done" in said
    assert "stopped at the cap, after 2 of at most 2 cells; open: dsc (against xent: dsc" in said
    folder = place / "results/decided"
    meta = results.read_meta(folder)
    assert meta["until_decided"]["cells"] == 2 and meta["until_decided"]["seeds"] == [1]
    decisions = [look.decision for look in read_looks(folder).decisions]
    assert [one["complete"] for one in decisions][-1] == 2
    assert not any(one["decided"] for one in decisions)

    assert paper_grid.main([*asked, "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert [look.decision for look in read_looks(folder).decisions] == decisions
    assert paper_grid.main([*asked, "1", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "at most 4 cells: seed by seed" in said and "4 done, 4 to run" in said
    assert verify(folder).whole
    with pytest.raises(ValueError, match="--until-decided: expected two --losses"):
        paper_grid.main(["--losses", "xent", *SETTINGS, "--until-decided", "--wandb", "disabled"])
