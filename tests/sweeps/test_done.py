"""Done means one thing: status, dry run, resume, upload and report judge a trial alike."""

import shutil

import pytest

import lesion_core.trial
from lesion_core import results
from sweeps import paper_grid, status, train_one
from sweeps.tracking.policy import Tracking
from sweeps.tracking.run_content import content_of
from sweeps.tracking.sweep_run import content_of_sweep
from sweeps.verify import verify
from tests.support.tiny import write_lit_cohort

SETTINGS = ["--folds", "2", "--epochs", "1", "--patch-size", "8", "--filters", "8", "16"]
SETTINGS += ["--batch-size", "4", "--wandb", "disabled", "--results", "results"]
ONE = ["--cohort", "lit", "--loss", "xent", "--seed", "1", "--fold", "0", *SETTINGS]
GRID = ["--losses", "xent", "--seeds", "1", *SETTINGS, "--dry-run"]
OFFLINE = Tracking(mode="offline", group="g")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a tiny cohort and one trial that is done."""
    path = tmp_path_factory.mktemp("trained")
    write_lit_cohort(path / "data", [1, 2, 3, 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert train_one.main(ONE) == 0
    return path


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    copy = shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def trial(place):
    (folder,) = place.glob("results/trials/*")
    return folder


def verdicts(place, trial, capsys):
    """What each reader makes of the trial."""
    capsys.readouterr()
    exit_status = status.main(["results"])
    word = "corrupt" if f"corrupt: {trial.name}" in capsys.readouterr().out else "done"
    assert exit_status == int(word != "done")
    assert paper_grid.main(GRID) == 0
    to_run = f"would run  {trial.name}" in capsys.readouterr().out
    try:
        sent = "nothing" if content_of(place / "results", trial.name, OFFLINE) is None else "done"
    except ValueError:
        sent = "corrupt"
    return {
        "status": word,
        "dry run": "corrupt" if to_run else "done",
        "upload": sent,
        "sweep's run": "done" if content_of_sweep(place / "results", OFFLINE) else "corrupt",
        "report": results.read_sweep(place / "results").runs.set_index("trial").status[trial.name],
    }


def test_a_done_trial_is_done_for_all(place, trial, capsys):
    assert set(verdicts(place, trial, capsys).values()) == {"done"}
    train_one.main(ONE)
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("file", [*results.TABLES, results.MODEL])
def test_a_done_trial_with_a_file_that_is_cut_is_corrupt_for_all(place, trial, file, capsys):
    assert status.main(["results"]) == 0  # what this process has read before is read again
    content = (trial / file).read_bytes()
    (trial / file).write_bytes(content[:-1])
    assert set(verdicts(place, trial, capsys).values()) == {"corrupt"}
    assert train_one.main(ONE) == 0
    assert f"thrown away, since it cannot be trusted: {file} is damaged" in capsys.readouterr().out
    assert set(verdicts(place, trial, capsys).values()) == {"done"}


def test_a_file_that_has_not_changed_is_read_once(place, trial, monkeypatch):
    read = []
    with_stat = results.read_with_stat
    monkeypatch.setattr(results, "read_with_stat", lambda *a: read.append(a) or with_stat(*a))
    for _ in range(3):
        assert results.trial_status(trial)["status"] == "done"
    assert len(read) == len(results.TABLES)


def test_a_trial_that_is_scored_at_another_threshold_too_is_resumed_and_done(place, monkeypatch):
    chosen = [*ONE[: ONE.index("--results")], "--results", "chosen", "--threshold", "0.3"]
    chosen += ["--min-lesion-mm3", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(lesion_core.trial, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_one.main(chosen)
    assert train_one.main(chosen) == 0
    sweep = results.read_sweep("chosen")
    assert list(sweep.runs["status"]) == ["done"]
    images = sweep.cases.query("scope == 'image'")
    assert images[results.CHOSEN.names].notna().all(axis=None)
    (trial,) = place.glob("chosen/trials/*")
    log = (trial / "log.txt").read_text()
    assert "attempt 2, after epoch 0" in log and "thrown away" not in log
    assert verify(place / "chosen").whole
    assert content_of(place / "chosen", trial.name, OFFLINE) is not None


def interrupted(*arguments, **more):
    raise KeyboardInterrupt
