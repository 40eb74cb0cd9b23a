"""A changed byte anywhere in a ledger is named, and what can be made again is."""

import shutil
from pathlib import Path

import pytest

from analysis import report
from lesion_core import durable, results
from lesion_core.predict import main as predict
from sweeps import status, sweep, train_one, verify
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.ledger import checksums
from sweeps.ledger.ledger import Ledger
from tests.support.recorded import forget
from tests.support.tiny import write_lit_cohort

ONE = [
    "--cohort", "lit", "--loss", "xent", "--seed", "1", "--fold", "0", "--folds", "2",
    "--epochs", "1", "--batch-size", "4", "--patch-size", "8", "--filters", "8", "16",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data and results with one finished trial and its report; never touched."""
    path = tmp_path_factory.mktemp("trained")
    write_lit_cohort(path / "data", [1, 2, 3, 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert train_one.main([*ONE, "--wandb", "offline"]) == 0
    report.build(path / "results/train_one", formats=("svg",))
    return path


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(trained, tmp_path / "place"))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def ledger(place):
    return place / "results/train_one"


def flip(file: Path, where: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * where)] ^= 1
    file.write_bytes(bytes(content))


def trial_of(ledger: Path) -> Path:
    (folder,) = ledger.glob("trials/*")
    return folder


def test_a_ledger_as_it_was_written_is_whole(ledger, capsys):
    assert verify.main([str(ledger)]) == 0
    said = capsys.readouterr().out
    assert "not checked" not in said and "damaged" not in said


def test_one_flipped_byte_in_any_file_is_named_and_nothing_crashes(ledger, capsys):
    files = sorted(file for file in ledger.rglob("*") if file.is_file())
    assert {file.name for file in files} >= {
        "sweep.json", checksums.FILE, "gradients.parquet", "trial.json", "done.json", "log.txt",
        "model.pt", "report.html", "tracking.json", *results.TABLES,
    }  # fmt: skip
    for number, file in enumerate(files):
        name = file.relative_to(ledger).as_posix()
        content = file.read_bytes()
        flip(file, (number % 7) / 7)
        found = verify.verify(ledger)
        assert any(line.startswith((name, f"{name}, line")) for line in found.damaged), name
        status_of(ledger)
        file.write_bytes(content)
    assert verify.verify(ledger).whole


def status_of(ledger: Path) -> int:
    try:
        return status.main([str(ledger)])
    except ValueError as error:
        assert "\n" not in str(error)
        return 2


def test_damaged_weights_make_no_masks_and_are_trained_again(ledger, capsys):
    assert predict([str(ledger), "--out", "masks"]) == 0
    before = (trial_of(ledger) / "model.pt").read_bytes()
    flip(trial_of(ledger) / "model.pt")
    capsys.readouterr()
    assert predict([str(ledger), "--out", "other"]) == 2
    assert "model.pt: is damaged" in capsys.readouterr().err and not Path("other").exists()
    assert verify.main([str(ledger)]) == 1
    assert f"must be trained again: {trial_of(ledger).name}" in capsys.readouterr().out
    assert verify.main([str(ledger), "--repair"]) == 0
    assert train_one.main(ONE) == 0
    assert (trial_of(ledger) / "model.pt").read_bytes() == before
    assert predict([str(ledger), "--out", "other"]) == 0


def test_a_file_that_was_not_fetched_is_named_and_its_trial_is_kept(ledger, capsys):
    file = next(ledger.glob("trials/*/done.json"))
    file.unlink()
    file.symlink_to("../.git/annex/objects/x")
    assert verify.main([str(ledger), "--repair"]) == 1
    said = capsys.readouterr().out
    assert file.relative_to(ledger).as_posix() in said and "trained again:" not in said
    assert file.is_symlink()


def test_what_can_be_made_again_is(ledger, capsys):
    before = {file: file.read_bytes() for file in ledger.glob("cohorts/*/*")}
    for file in before:
        flip(file)
    (ledger / "report/report.html").write_bytes(b"")
    assert verify.main([str(ledger), "--repair"]) == 0
    assert {file: file.read_bytes() for file in before} == before
    assert (ledger / "report/report.html").stat().st_size > 1000


def test_gradient_curves_are_taken_anew_from_the_images(ledger, place, capsys):
    file = ledger / results.GRADIENTS_FILE
    before = file.read_bytes()
    flip(file)
    assert verify.main([str(ledger), "--repair", "--data", "elsewhere"]) == 1
    assert "gradients.parquet: cannot be made again" in capsys.readouterr().out and file.exists()
    assert verify.main([str(ledger), "--repair"]) == 0
    assert file.read_bytes() == before


def test_what_cannot_be_read_here_is_not_called_damaged(ledger, capsys, monkeypatch):
    import os

    denied, open_it = ("gradients.parquet", "done.json"), os.open

    def refuse(path, *arguments, **more):
        if str(path).endswith(denied):
            raise PermissionError(13, "Permission denied")
        return open_it(path, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert verify.main([str(ledger), "--repair"]) == 1
    said = capsys.readouterr().out
    assert "cannot be read  gradients.parquet: cannot be read (Permission denied)" in said
    assert "damaged  " not in said and "trained again:" not in said
    assert verify.verify(ledger).whole


@pytest.mark.parametrize(
    "file", ["checkpoint.pt", "progress.json", "cases.parquet", "epochs.parquet"]
)
def test_a_flipped_byte_of_a_trial_that_is_not_done_is_found_before_it_goes_on(
    ledger, file, monkeypatch, capsys
):
    """Its rows have the checksums of their pages, its checkpoint one in progress.json, and that has
    one of itself."""
    before = {table: (trial_of(ledger) / table).read_bytes() for table in results.TABLES}
    for name in ("done.json", *results.TABLES, results.MODEL):
        (trial_of(ledger) / name).unlink()

    def killed(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # after epoch 0, whose checkpoint is there
        patch.setattr("lesion_core.trial.train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train_one.main(ONE)
    assert verify.verify(ledger).whole
    place = trial_of(ledger) / file
    name = place.relative_to(ledger).as_posix()
    if file == "progress.json":
        place.write_text(place.read_text().replace(": 0\n", ": 1\n"))  # the checkpoint's epoch
        assert "the trial will start afresh" in verify.verify(ledger).damaged[name]
    elif file == "checkpoint.pt":
        flip(place)
        assert "the trial will start afresh" in verify.verify(ledger).damaged[name]
    else:
        content = bytearray(place.read_bytes())
        content[content.rindex(b"\x28\xb5\x2f\xfd") + 9] ^= 1  # in what zstd packed of a page
        place.write_bytes(bytes(content))
        assert "cannot be read" in verify.verify(ledger).damaged[name]
    capsys.readouterr()
    assert train_one.main(ONE) == 0
    assert f"thrown away, since it cannot be trusted: {file} is damaged" in capsys.readouterr().out
    same = (table for table in results.TABLES if table != "epochs.parquet")  # which holds clocks
    assert all((trial_of(ledger) / table).read_bytes() == before[table] for table in same)


def test_a_cohorts_tables_are_not_made_from_other_images(ledger, place, capsys):
    shutil.rmtree(place / "data")
    write_lit_cohort(place / "data", [5, 6, 7, 8])
    flip(next(ledger.glob("cohorts/*/cases.parquet")))
    assert verify.main([str(ledger), "--repair"]) == 1
    assert "not the files that the sweep was trained on" in capsys.readouterr().out


def test_lost_checksums_are_made_again(ledger, capsys):
    (ledger / checksums.FILE).unlink()
    assert verify.main([str(ledger)]) == 0  # as a ledger from before
    assert "only what done.json records" in capsys.readouterr().out
    assert "sweep.json" in verify.verify(ledger).unchecked
    (ledger / checksums.FILE).write_text("nonsense\n")
    assert verify.main([str(ledger), "--repair"]) == 0
    flip(ledger / "sweep.json")
    assert not verify.verify(ledger).whole


def test_an_older_ledger_is_valid_and_what_cannot_be_checked_is_said(tmp_path, capsys):
    path = FakeSweep(num_cases=4, epochs=1, losses=("xent",), seeds=(1,), num_folds=2).write(
        tmp_path / "old"
    )
    for trial in path.glob("trials/*"):
        forget(trial)
    assert verify.main([str(path)]) == 0
    assert "not checked, since nothing is recorded" in capsys.readouterr().out


def test_a_folder_that_is_no_ledger_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no sweep\.json there"):
        verify.verify(tmp_path)


def test_a_lost_sweep_json_is_written_anew_and_nothing_is_trained(ledger, capsys):
    before = results.read_meta(ledger)
    (ledger / "sweep.json").write_text("{")
    assert verify.main([str(ledger)]) == 1
    assert "delete it and give the sweep's command again" in capsys.readouterr().out
    assert verify.main([str(ledger), "--repair"]) == 0
    said = capsys.readouterr().out
    assert "sweep.json: written again, from 1 trials; not recovered: the command" in said
    after = results.read_meta(ledger)
    known = ("losses", "settings", "num_folds", "folds", "trials")
    assert {key: after[key] for key in known} == {key: before[key] for key in known}
    assert after["versions"].items() <= before["versions"].items()
    assert after["cohorts"]["lit"].items() <= before["cohorts"]["lit"].items()
    assert status.main([str(ledger)]) == 0
    assert train_one.main(ONE) == 0
    assert results.read_meta(ledger)["cohorts"] == before["cohorts"]
    (ledger / "sweep.json").unlink()
    assert train_one.main(ONE) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert verify.verify(ledger).whole


# ---------------------------------------------------------------------------------- is it current?
@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: (r / "report/report.html").write_bytes(b""),
        lambda r: (r / "report/made.json").unlink(),
        lambda r: next(r.glob("report/figures/*.svg")).unlink(),
        lambda r: (r / "search.json").write_text("{}"),
        lambda r: flip(trial_of(r) / "cases.parquet"),
        lambda r: (trial_of(r) / "done.json").unlink(),
    ],
)
def test_a_report_of_another_ledger_or_a_damaged_one_is_not_current(ledger, spoil):
    assert sweep._is_current(ledger)
    future = 2**33
    import os

    os.utime(ledger / "report/report.html", (future, future))
    assert sweep._is_current(ledger)
    spoil(ledger)
    assert not sweep._is_current(ledger)


# --------------------------------------------------------------------------- the ledger's own part
def test_whenever_a_writer_is_killed_a_file_is_as_one_of_its_lines_says(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    ledger.write_files({"wandb/x": b"one"})

    def killed(files, staging):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_together", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.write_files({"wandb/x": b"two"})
    with (tmp_path / checksums.FILE).open("ab") as file:
        file.write(b'{"file": "wandb/x", "by')  # and in the middle of a line
    ledger.write_files({"wandb/y": b"three"})
    recorded = checksums.read(tmp_path)
    assert [recorded.is_whole(tmp_path, name) for name in ("wandb/x", "wandb/y")] == [True, True]
    assert not recorded.damaged_lines  # the next writer cuts off what was cut short


def test_what_was_added_to_a_log_later_is_no_damage(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.log("a", "first\n")
    ledger.note_logs()
    ledger.log("a", "second\n")
    assert checksums.read(tmp_path).is_whole(tmp_path, "trials/a/log.txt")
    flip(tmp_path / "trials/a/log.txt", 0)
    assert checksums.read(tmp_path).is_whole(tmp_path, "trials/a/log.txt") is False
