"""W&B is a window on trials: decided before any of them, and never the reason that one fails."""

import threading
from pathlib import Path

import pytest

from sweeps import tracking
from sweeps.tracking import Run, Tracking

TRIAL = {
    "name": "toy-xent-s1-f0-12345678",
    "hash": "12345678",
    "cohort": "toy",
    "loss": "xent",
    "loss_params": "{}",
    "seed": 1,
    "fold": 0,
    "config": {"settings": {"epochs": 3}},
}


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Run, "unreachable", False)


def login(tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")


def test_auto_is_offline_without_a_key_and_says_how_to_upload(tmp_path):
    decided = Tracking.decide("auto", Path("results/grid"))
    assert (decided.mode, decided.group, decided.key) == ("offline", "grid", None)
    hint = decided.hint(Path("results/grid"))
    assert "wandb sync results/grid/wandb/offline-run-*" in hint


@pytest.mark.parametrize("how", ["environment", "netrc"])
def test_auto_is_online_with_a_key(tmp_path, monkeypatch, how):
    if how == "netrc":
        login(tmp_path)
    else:
        monkeypatch.setenv("WANDB_API_KEY", "secret")
    decided = Tracking.decide("auto", Path("results/grid"))
    assert (decided.mode, decided.key) == ("online", "secret")
    assert decided.hint(Path("results/grid")) is None


def test_the_key_must_be_for_the_server_that_is_used(tmp_path, monkeypatch):
    login(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert Tracking.decide("auto", Path("r")).mode == "offline"


def test_auto_follows_the_environment(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Tracking.decide("auto", Path("r")).mode == "disabled"
    assert Tracking.decide("offline", Path("r")).mode == "offline"


def test_online_without_a_key_is_refused_before_any_trial():
    with pytest.raises(ValueError, match=r"--wandb online needs a key: set WANDB_API_KEY or run"):
        Tracking.decide("online", Path("r"))


def test_disabled_never_imports_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)  # importing it would raise
    run = Run(Tracking(mode="disabled", group="g"), TRIAL)
    run.log(0, {"x": 1.0})
    assert run.finish(failed=False) == {}


def test_trouble_is_a_line_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    run = Run(Tracking(mode="offline", group="g"), TRIAL)
    run.log(0, {"x": 1.0})
    assert run.finish(failed=False) == {}
    said = capsys.readouterr().err
    assert said.startswith("W&B: ") and said.endswith("the trial goes on without it\n")
    assert said.count("\n") == 1


def test_a_server_that_did_not_answer_is_not_waited_for_again(monkeypatch, capsys):
    monkeypatch.setattr(Run, "unreachable", True)
    Run(Tracking(mode="online", group="g", key="secret"), TRIAL)
    assert "did not answer earlier" in capsys.readouterr().err


def test_an_upload_that_never_ends_does_not_hold_the_trial(monkeypatch, capsys):
    never = threading.Event()

    class Stuck:
        def finish(self, exit_code):
            never.wait(10)

    monkeypatch.setattr(tracking, "SECONDS_TO_UPLOAD", 0.05)
    run = Run(Tracking(mode="disabled", group="g"), TRIAL)
    run._run = Stuck()
    assert run.finish(failed=False) == {}
    assert "upload not finished" in capsys.readouterr().err
    never.set()


def test_an_offline_run_is_complete_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """Read back in test_launch.py, after a kill."""
    monkeypatch.setattr(tracking.tempfile, "tempdir", str(tmp_path))
    run = Run(Tracking(mode="offline", group="g"), TRIAL, earlier=[(0, {"x": 1.0})])
    run.log(1, {"x": 2.0})
    files = run.finish(failed=False)
    (content,) = [c for name, c in files.items() if name.endswith("/run-12345678.wandb")]
    assert content.startswith(b":W&B") and b"toy-xent-s1-f0-12345678" in content
    assert all(name.startswith("wandb/offline-run-") for name in files)
    assert not list(tmp_path.glob("lesion-wandb-*"))
