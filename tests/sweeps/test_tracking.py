"""W&B is a window on trials: decided before any of them, and never the reason that one fails."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from sweeps.tracking import credentials, live_run
from sweeps.tracking.live_run import TrackedRun
from sweeps.tracking.policy import FILE, Logging, Tracking
from sweeps.tracking.run_content import RunEnding
from tests.support import offline_runs

TRIAL = {
    "name": "toy-xent-s1-f0-12345678",
    "hash": "12345678",
    "cohort": "toy",
    "loss": "xent",
    "loss_params": "{}",
    "seed": 1,
    "fold": 0,
    "epochs": 3,
    "config": {
        "settings": {"epochs": 3},
        "test_cases": ["anna", "bert"],
        "validation_cases": ["clara"],
    },
}
OFFLINE = Tracking(mode="offline", group="g")
ENDING = RunEnding(summary={"status": "done"})


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY", "CONFIG_DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(TrackedRun, "paused_until", 0.0)


def login(tmp_path, machine="api.forge.coreweave.com"):
    (tmp_path / ".netrc").write_text(f"machine {machine}\n  login user\n  password secret\n")


# ---------------------------------------------------------------------------------------- the mode
def test_auto_is_offline_without_a_key_and_says_how_to_upload():
    decided = Tracking.decide("auto", Path("results/grid"))
    assert (decided.mode, decided.group, decided.key) == ("offline", "grid", None)
    assert decided.hint(Path("results/grid")) == (
        "W&B is offline; to upload: python sweeps/tracking.py sync results/grid"
    )


@pytest.mark.parametrize("how", ["environment", "netrc", "netrc of before 2026"])
def test_auto_is_online_with_a_key(tmp_path, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "secret")
    else:
        login(tmp_path, *(["api.wandb.ai"] if "before" in how else []))
    decided = Tracking.decide("auto", Path("results/grid"))
    assert (decided.mode, decided.key) == ("online", "secret")
    assert decided.hint(Path("results/grid")) is None
    assert "secret" not in repr(decided)


def test_where_wandb_login_writes_the_key_is_where_it_is_looked_for(tmp_path):
    """The library's own default server and reader, for the day that they change."""
    from urllib.parse import urlsplit

    from wandb.sdk.lib.wbauth import wbnetrc

    default = live_run.default_url()
    assert urlsplit(default).netloc in credentials.HOSTS
    login(tmp_path, urlsplit(default).netloc)
    key = credentials.configured_key()
    assert key == "secret"
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {'k' * 40}\n")
    assert wbnetrc.read_netrc_auth(host=default) == credentials.configured_key() == "k" * 40


@pytest.mark.parametrize("how", ["environment", "settings file"])
def test_the_key_must_be_for_the_server_that_is_used(tmp_path, monkeypatch, how):
    login(tmp_path)
    if how == "environment":
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8443/")
    else:
        (tmp_path / ".config/wandb").mkdir(parents=True)
        text = "[default]\nbase_url = https://wandb.example.org:8443\n"
        (tmp_path / ".config/wandb/settings").write_text(text)
    assert Tracking.decide("auto", Path("r")).mode == "offline"
    login(tmp_path, "wandb.example.org:8443")
    decided = Tracking.decide("auto", Path("r"))
    assert (decided.mode, decided.url) == ("online", "https://wandb.example.org:8443")


def test_auto_follows_the_environment(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Tracking.decide("auto", Path("r")).mode == "disabled"
    assert Tracking.decide("offline", Path("r")).mode == "offline"


def test_online_without_a_key_is_refused_before_any_trial():
    with pytest.raises(ValueError, match=r"--wandb online needs a key: set WANDB_API_KEY or run"):
        Tracking.decide("online", Path("r"))


@pytest.mark.parametrize("flag", ["wandb_media", "wandb_artifacts", "pseudonymise"])
def test_a_flag_without_effect_is_refused(flag):
    named = f"--{flag.replace('_', '-')} has no effect with --wandb disabled"
    with pytest.raises(ValueError, match=named):
        Logging(wandb="disabled", **{flag: True}).tracking(Path("r"))


# -------------------------------------------------------------------------------------- pseudonyms
def remember(results, decided):
    (results / FILE).parent.mkdir(parents=True)
    (results / FILE).write_bytes(decided.to_remember()[FILE])


def test_pseudonyms_stay_in_a_sweep_and_differ_between_sweeps(tmp_path):
    one = Tracking.decide("offline", tmp_path / "one", pseudonymise=True)
    remember(tmp_path / "one", one)
    again = Tracking.decide("offline", tmp_path / "one", pseudonymise=True)
    other = Tracking.decide("offline", tmp_path / "other", pseudonymise=True)
    assert again.case_name("anna") == one.case_name("anna") != other.case_name("anna")
    assert one.case_name("anna") != one.case_name("bert")
    assert one.case_name("a").removeprefix("case") != one.site_name("a").removeprefix("site")
    assert "anna" not in one.case_name("anna") and one.salt not in repr(one)
    assert Tracking.decide("offline", tmp_path / "new").case_name("anna") == "anna"


@pytest.mark.parametrize("first", [True, False])
def test_a_sweep_keeps_to_names_or_pseudonyms(tmp_path, first):
    remember(tmp_path, Tracking.decide("offline", tmp_path, pseudonymise=first))
    with pytest.raises(ValueError, match="so far; do the same"):
        Tracking.decide("offline", tmp_path, pseudonymise=not first)
    assert Tracking.decide("disabled", tmp_path).mode == "disabled"


def test_what_cannot_be_remembered_is_one_line(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Tracking.decide("offline", tmp_path)


def test_the_key_is_not_remembered(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    decided = Tracking.decide("online", tmp_path)
    assert decided.key == "secret" and b"secret" not in decided.to_remember()[FILE]


def test_the_config_names_nobody_under_pseudonyms():
    whole = live_run.identity(TRIAL, OFFLINE)
    assert whole.config["test_cases"] == ["anna", "bert"]
    assert whole.tags == ("toy", "xent", "seed-1", "fold-0")
    hidden = live_run.identity(TRIAL, Tracking(mode="offline", group="g", salt="00" * 16))
    sent = json.dumps(hidden.config)
    assert "anna" not in sent and "clara" not in sent and len(hidden.config["test_cases"]) == 2


# ----------------------------------------------------------------------------------------- trouble
def finished(run, failed=False):
    return run.finish(lambda: ENDING, failed=failed)


def why(files):
    ((name, text),) = files.items()
    assert name == "wandb/unsent-12345678/why.txt"
    return text.decode()


def test_disabled_never_imports_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    run = TrackedRun(Tracking(mode="disabled", group="g"), TRIAL)
    run.log(0, {"x": 1.0})
    assert finished(run) == {} and run.replaces is None


def test_trouble_is_a_line_a_note_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = TrackedRun(OFFLINE, TRIAL)
    run.log(0, {"x": 1.0})
    assert "wandb" in why(finished(run))
    said = capsys.readouterr().err
    assert said.startswith("W&B: ") and said.endswith("the trial goes on without it\n")
    assert said.count("\n") == 1


def test_after_trouble_the_next_trials_do_not_wait_for_a_while(monkeypatch, capsys):
    opened = []

    def refuse(*arguments):
        opened.append(arguments)
        raise ConnectionError("down")

    monkeypatch.setattr(live_run, "open_run", refuse)
    assert why(finished(TrackedRun(OFFLINE, TRIAL))) == "ConnectionError: down\n"
    assert "earlier trial" in why(finished(TrackedRun(OFFLINE, TRIAL)))
    assert len(opened) == 1
    monkeypatch.setattr(TrackedRun, "paused_until", time.monotonic())
    finished(TrackedRun(OFFLINE, TRIAL))
    assert len(opened) == 2


def test_an_ending_that_cannot_be_made_costs_the_run_not_the_trial(monkeypatch):
    class Fine:
        starting_step = 0

    monkeypatch.setattr(live_run, "open_run", lambda *arguments: Fine())
    run = TrackedRun(OFFLINE, TRIAL)
    assert why(run.finish(lambda: {}["nothing"], failed=False)) == "KeyError: 'nothing'\n"


def test_an_upload_that_never_ends_holds_the_trial_for_a_moment(monkeypatch, tmp_path):
    never = threading.Event()

    class Stuck:
        starting_step = 0
        summary: dict = {}  # noqa: RUF012

        def finish(self, exit_code):
            never.wait(30)

    monkeypatch.setattr(live_run, "open_run", lambda *arguments: Stuck())
    monkeypatch.setattr(live_run, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(live_run.tempfile, "tempdir", str(tmp_path))
    run = TrackedRun(OFFLINE, TRIAL)
    assert "not finished after" in why(finished(run))
    assert run._thread.is_alive()
    never.set()
    run._thread.join(30)
    assert not list(tmp_path.glob("lesion-wandb-*"))


def test_a_server_that_hangs_is_never_waited_for_while_training(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(live_run, "open_run", lambda *arguments: never.wait(30))
    monkeypatch.setattr(live_run, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(live_run, "MOST_STEPS_WAITING", 4)
    run = TrackedRun(OFFLINE, TRIAL)
    for epoch in range(100):  # far more than fit
        run.log(epoch, {"x": 1.0})
    assert run._waiting.qsize() == 4
    assert why(finished(run)) == "4 steps behind\n"
    never.set()


@pytest.mark.parametrize(("trial_seconds", "seconds"), [(1, 20), (600, 30), (1e6, 60)])
def test_a_trial_waits_for_a_twentieth_of_its_duration_within_limits(trial_seconds, seconds):
    run = TrackedRun(Tracking(mode="disabled", group="g"), TRIAL)
    run._begun = time.monotonic() - trial_seconds
    assert run._patience == pytest.approx(seconds, rel=0.01)


def test_the_hint_counts_what_was_missed(tmp_path):
    decided = Tracking(mode="online", group="g", key="secret")
    assert decided.hint(tmp_path) is None
    (tmp_path / "wandb/unsent-12345678").mkdir(parents=True)
    assert "did not get all of 1 trials" in decided.hint(tmp_path)


# ------------------------------------------------------------------------------------ offline runs
def test_an_offline_run_is_complete_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(live_run.tempfile, "tempdir", str(tmp_path))
    run = TrackedRun(OFFLINE, TRIAL, earlier={0: {"x": 1.0}})
    run.log(1, {"x": 2.0, "test/image/dice": 0.25})
    ending = RunEnding(
        summary={"status": "done"}, tables={"cases": (("case", "dice"), [["a", 0.5]])}
    )
    files = run.finish(lambda: ending, failed=False)
    assert not list(tmp_path.glob("lesion-wandb-*"))
    assert all(name.startswith("wandb/offline-run-") for name in files)
    (content,) = [c for name, c in files.items() if name.endswith("/run-12345678.wandb")]
    (table,) = [json.loads(c) for name, c in files.items() if name.endswith(".table.json")]
    assert table["data"] == [["a", 0.5]]
    file = tmp_path / "run-12345678.wandb"
    file.write_bytes(content)
    numbers = offline_runs.history(file)
    assert sorted(numbers) == [0, 1]
    assert (numbers[0]["x"], numbers[1]["test/image/dice"]) == (1.0, 0.25)
    assert offline_runs.exit_code(file) == 0
    (whole,) = [r.run for r in offline_runs.records(file) if r.HasField("run")]
    assert (whole.run_id, whole.run_group, whole.job_type) == ("12345678", "g", "train")
    assert whole.host == "not-told"
    config = {item.key: json.loads(item.value_json) for item in whole.config.update}
    assert config["loss"] == "xent" and config["epochs"] == 3 and config["fold"] == 0


def test_a_run_of_a_failed_trial_says_so(tmp_path):
    files = finished(TrackedRun(OFFLINE, TRIAL), failed=True)
    (content,) = [c for name, c in files.items() if name.endswith(".wandb")]
    (tmp_path / "a.wandb").write_bytes(content)
    assert offline_runs.exit_code(tmp_path / "a.wandb") == 1


@pytest.mark.parametrize(
    ("left", "ended", "reason"),
    [
        (None, 0, "wandb left no run-12345678.wandb"),
        (b"", 0, "wandb left no run-12345678.wandb"),
        (b"steps", -9, "the process that writes ended with status -9"),
    ],
)
def test_an_offline_run_that_may_lack_steps_is_a_note_not_a_folder(
    monkeypatch, left, ended, reason
):
    """Whatever the trial waited for: the sweep writes it again from the ledger."""
    import wandb

    class Fine:
        starting_step = 0
        summary: dict = {}  # noqa: RUF012

        def __init__(self, folder):
            self.place = folder / "wandb/offline-run-1-12345678/run-12345678.wandb"

        def finish(self, exit_code):
            self.place.parent.mkdir(parents=True)
            (self.place.parent / "table.json").write_text("{}")
            if left is not None:
                self.place.write_bytes(left)

    monkeypatch.setattr(live_run, "open_run", lambda tracking, identity, folder: Fine(folder))
    monkeypatch.setattr(wandb, "teardown", lambda: sys.exit(ended) if ended else None)
    assert reason in why(finished(TrackedRun(OFFLINE, TRIAL)))


def test_a_run_is_written_by_a_process_that_can_be_waited_for(tmp_path, monkeypatch):
    """Not by one that another process has started, and left in the environment."""
    monkeypatch.setenv("WANDB_SERVICE", f"3-1-unix-{tmp_path}/nobody-listens")
    files = finished(TrackedRun(OFFLINE, TRIAL))
    assert [name for name in files if name.endswith("/run-12345678.wandb")]


def test_a_full_disk_costs_the_run_not_the_trial(monkeypatch):
    def full(**arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_run.tempfile, "mkdtemp", full)
    run = TrackedRun(OFFLINE, TRIAL)
    run.log(0, {"x": 1.0})
    assert "No space left" in why(finished(run))


def test_what_is_online_is_said_beforehand(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    said = Tracking.decide("online", tmp_path, pseudonymise=True).notice()
    assert said is not None and "https://wandb.example.org" in said and "pseudonyms" in said
    assert "secret" not in said and OFFLINE.notice() is None
