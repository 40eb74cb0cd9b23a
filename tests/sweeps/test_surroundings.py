"""What a shell, a settings file or a folder holds by chance changes neither runs nor results."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from lesion_core.training.precision import check_precision
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.provenance import ROOT
from sweeps.tracking import credentials, live_run, sweep_run, upload
from sweeps.tracking.policy import Logging, Tracking
from sweeps.tracking.run_content import RunIdentity
from tests.support.tiny import write_lit_cohort
from tests.support.wandb_server import Server

KEY = "k" * 40

HOSTILE = {
    "WANDB_SWEEP_ID": "lab/other/abc123",
    "WANDB_SWEEP_PARAM_PATH": "/nowhere/params.yaml",
    "WANDB_LAUNCH": "true",
    "WANDB_LAUNCH_CONFIG_PATH": "/nowhere/launch.json",
    "WANDB_CONFIG": '{"loss": "theirs"}',
    "WANDB_RUN_ID": "theirs",
    "WANDB_RUN_GROUP": "theirs",
    "WANDB_RUN_NAME": "theirs",
    "WANDB_NAME": "theirs",
    "WANDB_NOTES": "theirs",
    "WANDB_TAGS": "theirs",
    "WANDB_JOB_TYPE": "theirs",
    "WANDB_RESUME": "must",
    "WANDB_RESUME_FROM": "theirs?_step=1",
    "WANDB_DISABLED": "true",
    "WANDB_SERVICE": "3-1-unix-/nowhere/socket",
    "WANDB_START_METHOD": "thread",
}
"""Left in a shell by an agent, a launch or another run."""

SETTINGS = "[default]\nsweep_id = lab/other/abc123\nrun_id = theirs\nrun_group = theirs\n"


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A sweep of two trials, sent from a hostile shell and folder, twice; and what was said."""
    folder, said = tmp_path_factory.mktemp("hostile"), io.StringIO()
    for place in (folder / "wandb", folder / ".config" / "wandb"):
        place.mkdir(parents=True)
        (place / "settings").write_text(SETTINGS)
    ledger = folder / "grid"
    FakeSweep(num_cases=6, epochs=1, losses=("xent",), seeds=(1, 2), num_folds=1).write(ledger)
    with pytest.MonkeyPatch.context() as patch, Server() as server:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        own = {"HOME": str(folder), "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        for name, value in (HOSTILE | own).items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(credentials, "_said", set())
        patch.setattr(sweep_run, "_report", lambda *arguments: "<p>the report</p>")
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            assert [upload.backfill(ledger, Logging()) for _ in range(2)] == [0, 0]
        left_alone = {n: v for n, v in HOSTILE.items() if n != "WANDB_SERVICE"}
        assert left_alone.items() <= os.environ.items()  # the user's shell
        yield server, said.getvalue().splitlines()


def test_runs_are_the_ledgers_whatever_the_shell_says(sent):
    server, _ = sent
    trials = {name: run for name, run in server.runs.items() if not name.startswith("sweep-")}
    assert len(trials) == 2
    assert len(server.runs) == 3
    for name, run in trials.items():
        assert run.fields["displayName"].endswith(name)
        assert (run.fields["groupName"], run.fields["jobType"]) == ("grid", "train")
        assert run.fields["project"] == "lesion-seed-sweep"
        assert run.config["loss"] == "xent"
        assert "theirs" not in run.fields["tags"]
        assert not run.fields.get("sweep")
        assert not run.fields.get("notes")


def test_nothing_is_sent_twice(sent):
    _, said = sent
    counted = [line for line in said if " sent" in line and "grid: " in line]
    assert "3 sent" in counted[0]
    assert "3 there already, 0 sent" in counted[1]


def test_what_is_ignored_is_named_once(sent):
    _, said = sent
    (line, file) = [line for line in said if " ignored: " in line]
    assert all(name in line for name in HOSTILE)
    assert "WANDB_API_KEY" not in line
    assert "sweep_id of a wandb settings file" in file


def test_another_run_than_the_one_asked_for_is_an_error(tmp_path, monkeypatch):
    """Whatever else makes W&B open another one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with Server() as server:
        upsert = server._upsert

        def theirs(variables: dict) -> dict:
            found = upsert(variables)
            found["upsertBucket"]["bucket"]["project"]["name"] = "theirs"
            return found

        monkeypatch.setattr(server, "_upsert", theirs)
        tracking = Tracking(mode="online", group="grid", url=server.url, key=KEY)
        identity = RunIdentity(id="mine", name="mine", job_type="train", tags=(), config={})
        with pytest.raises(RuntimeError, match="project 'theirs' instead of 'lesion-seed-sweep'"):
            live_run.open_run(tracking, identity, tmp_path)


def test_our_own_writing_process_is_not_ignored(monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", f"3-{os.getpid()}-unix-/tmp/socket")
    assert "WANDB_SERVICE" not in credentials.ignored_variables()
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/tmp/socket")
    assert "WANDB_SERVICE" in credentials.ignored_variables()


# ------------------------------------------------------------------------------- numbers, output
@pytest.mark.parametrize(
    ("name", "value", "precision", "device"),
    [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", "fp32", "cpu"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "any", "bf16", "cpu"),
        ("DNNL_DEFAULT_FPMATH_MODE", "TF32", "fp32", "cpu"),
        ("NVIDIA_TF32_OVERRIDE", "1", "fp32", "cuda"),
        ("NVIDIA_TF32_OVERRIDE", "0", "tf32", "cuda"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1", "fp32", "cuda:1"),
    ],
)
def test_a_variable_that_changes_the_precision_is_refused(
    monkeypatch, name, value, precision, device
):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name}={value} lets a library compute otherwise"):
        check_precision(precision, device)


@pytest.mark.parametrize(
    ("name", "value", "device"),
    [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "strict", "cpu"),
        ("NVIDIA_TF32_OVERRIDE", "1", "cpu"),
        ("NVIDIA_TF32_OVERRIDE", "0", "cuda"),
        ("OMP_NUM_THREADS", "7", "cpu"),
    ],
)
def test_a_variable_that_changes_nothing_is_not(monkeypatch, name, value, device):
    monkeypatch.setenv(name, value)
    check_precision("fp32", device)


def test_a_terminal_without_plus_minus_still_gets_table_1(tmp_path):
    write_lit_cohort(tmp_path)
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "LESION_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "lesion_core.cohorts", "check", str(tmp_path)],
        env=os.environ | plain, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "6.67 ? 0.00 [6.67]" in done.stdout
