"""A results folder that somebody sends is read, and never obeyed."""

import json
import os
import random
import shutil
import socket
import threading
from pathlib import Path

import pytest

from analysis import report
from analysis.reading.imports import read_results
from analysis.sections import coverage
from lesion_core import paths, predict, received, results
from lesion_core.cohorts import cohort_from_dict
from sweeps import command, status, verify
from sweeps.bench.fake_sweep import FakeSweep, description
from sweeps.ledger.ledger import Ledger, LedgerError
from sweeps.ledger.lock import Lock
from sweeps.tracking import policy, sweep_run, upload
from sweeps.tracking.policy import FILE, Logging, Tracking
from sweeps.tracking.run_content import content_of
from sweeps.tracking.sweep_run import content_of_sweep
from tests.support.recorded import record_anew

KEY = "k" * 40
OFFLINE = Tracking(mode="offline", group="grid")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small finished sweep, never touched."""
    sweep = FakeSweep(num_cases=4, epochs=1, losses=("xent",), seeds=(1, 2), num_folds=2)
    return sweep.write(tmp_path_factory.mktemp("made") / "grid")


@pytest.fixture
def sent(made, tmp_path, monkeypatch):
    """A copy of it, in a home of its own, beside a folder that must stay as it is."""
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY", "CONFIG_DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sweep_run, "_report", lambda *arguments: "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.txt").write_text("mine")
    shutil.copy(made / "sweep.json", tmp_path / "asked")
    return Path(shutil.copytree(made, tmp_path / "grid"))


def untouched(sent: Path) -> bool:
    victim = sent.parent / "victim"
    return [(file.name, file.read_text()) for file in victim.iterdir()] == [("thesis.txt", "mine")]


def first(sent: Path) -> Path:
    """The folder of the first trial that sweep.json lists."""
    return sent / "trials" / results.read_meta(sent)["trials"][0]["name"]


def rewrite(file: Path, change) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def read_for_a_report(sent: Path) -> None:
    given = report.report_input(read_results(sent), None, 0.01, False)
    coverage.section(given)
    report.checks.findings(given.sweep, given.all_cohorts)


def some_trial(sent: Path) -> str:
    """The name of a trial that is there, or of one that should be."""
    folder = sent / "trials"
    there = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    return (there or [json.loads((sent.parent / "asked").read_text())["trials"][0]["name"]])[0]


def every_command(sent: Path, capsys) -> str:
    """What status, report, masks and resume say of a folder; none may raise anything else."""
    said = []
    for run in (
        lambda: status.main([str(sent)]),
        lambda: read_for_a_report(sent),
        lambda: predict.main([str(sent), "--data", str(sent.parent / "data")]),
        lambda: content_of(sent, some_trial(sent), OFFLINE),
        lambda: content_of_sweep(sent, OFFLINE),
        lambda: Ledger(sent).refuse_other_sweep(json.loads((sent.parent / "asked").read_text())),
    ):
        try:
            run()
        except (ValueError, LedgerError) as error:
            command.report_error(error)
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        said.append(found.out + found.err)
    return "".join(said)


# ------------------------------------------------------------------------------ names become paths
@pytest.mark.parametrize(
    "key", ["hash", "name", "cohort", "loss", "loss_params", "seed", "fold", "epochs", "split"]
)
def test_what_a_trial_says_of_itself_must_follow_from_its_configuration(sent, key, capsys):
    evil = {"seed": 99, "fold": 77, "epochs": 50, "split": "validation"}
    rewrite(first(sent) / "trial.json", lambda t: t | {key: evil.get(key, "x/../../../victim")})
    assert results.trial_status(first(sent))["status"] == "corrupt"
    assert "trial.json is damaged" in every_command(sent, capsys)
    assert untouched(sent)


@pytest.mark.parametrize("where", ["name", "cohort", "hash"])
def test_a_name_in_sweep_json_never_leads_out_of_the_folder(sent, where, capsys):
    rewrite(
        sent / "sweep.json",
        lambda meta: meta["trials"][0].update({where: "../../victim"}),
    )
    said = every_command(sent, capsys)
    assert untouched(sent) and "thesis" not in said
    if where != "hash":
        assert said.count(f"a trial's {where} is '../../victim'") >= 4


def test_a_row_of_sweep_json_that_names_another_loss_is_noticed(sent):
    rewrite(sent / "sweep.json", lambda meta: meta["trials"][0].update(loss="new"))
    runs = results.read_sweep(sent).runs
    assert runs["status"][0] == "corrupt" and "another loss" in runs["error"][0]


def test_done_json_names_no_file_that_is_not_the_trials_own(sent):
    folder = first(sent)
    files = {name: results.file_state(folder / name) for name in results.TABLES}
    for more in ({"../../../victim/thesis.txt": {}}, {"/etc/passwd": {}}):
        rewrite(folder / "done.json", lambda done, more=more: done | {"files": files | more})
        assert results.trial_status(folder)["status"] == "corrupt"
    rewrite(folder / "done.json", lambda done: done | {"files": {}})
    assert "records not 'cases.parquet'" in (results.trial_status(folder)["error"] or "")


def test_a_failed_trials_log_lies_in_the_folder(sent):
    folder = first(sent)
    (folder / "done.json").unlink()
    for log in ("/etc/passwd", "../../x", "trials/../../x"):
        results.write_json(folder / "failed.json", {"kind": "error", "error": "x", "log": log})
        assert results.trial_status(folder)["status"] == "corrupt"


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "a/b", ".hidden", "a\nb", 7, None])
@pytest.mark.parametrize("kind", ["Folder", "NnUnet", "Bids", "Simulated"])
def test_a_stored_cohort_has_the_name_of_a_folder_in_the_data_folder(kind, name):
    fields = {"name": name} | ({} if kind == "Simulated" else {"channels": ["t1"]})
    with pytest.raises(ValueError, match=r"^cohort"):
        cohort_from_dict({"type": kind, "fields": fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": ["../../x"]},
        {"channels": [".+"]},
        {"channels": [7]},
        {"derivatives": "../.."},
        {"brain": {}},
        {"unknown": 1},
    ],
)
def test_what_else_a_stored_cohort_says_leads_nowhere_either(fields):
    with pytest.raises(ValueError, match=r"^cohort"):
        stored = {"name": "study", "channels": ["T1w"]} | fields
        cohort_from_dict({"type": "Bids", "fields": stored})


def test_a_simulated_cohort_that_fills_the_disk_is_refused():
    for fields in ({"num_cases": 10**9}, {"voxel_scale": 1e-6}, {"num_cases": "many"}):
        with pytest.raises(ValueError, match=r"simulated cases|voxel_scale|cohort"):
            cohort_from_dict({"type": "Simulated", "fields": fields})


# --------------------------------------------------------------------------- deletions and links
@pytest.mark.parametrize(
    "pattern", ["wandb/*-x/../../../victim", "wandb/*", "*", "../victim", "wandb/*-*", "trials/*-a"]
)
def test_only_a_runs_own_folders_are_ever_replaced(sent, pattern):
    with pytest.raises(ValueError, match="no pattern of a run"):
        Ledger(sent).write_files({}, pattern)
    assert untouched(sent)


@pytest.mark.parametrize("link", ["wandb", "wandb/unsent-abc", "trials", "cohorts"])
def test_nothing_is_written_or_deleted_through_a_link(sent, link):
    victim = sent.parent / "victim"
    (sent / "wandb").mkdir()
    if (sent / link).is_dir():
        shutil.rmtree(sent / link)
    (sent / link).symlink_to(victim, target_is_directory=True)
    (victim / "unsent-abc").mkdir() if link == "wandb" else None
    ledger = Ledger(sent)
    for write in (
        lambda: ledger.write_files({"wandb/new/x": b"x"}, "wandb/unsent-abc"),
        lambda: ledger.begin(description("c", "xent", 9, 0, 1)),
        lambda: ledger.log("c-xent", "text"),
        lambda: ledger.write_cohort("c", [], []),
    ):
        try:
            write()
        except (ValueError, LedgerError) as error:
            assert "is a link to" in str(error)
    if link == "wandb":
        assert (victim / "unsent-abc").is_dir()
        (victim / "unsent-abc").rmdir()
    assert untouched(sent)


def test_a_file_that_is_a_link_is_replaced_and_not_followed(sent):
    thesis, folder = sent.parent / "victim" / "thesis.txt", first(sent)
    for place in (sent / "sweep.json", folder / "log.txt", folder / "failed.json"):
        place.unlink(missing_ok=True)
        place.symlink_to(thesis)
    with pytest.raises(LedgerError, match=r"log\.txt: cannot be written"):
        Ledger(sent).log(folder.name, "text")
    results.write_json(sent / "sweep.json", {})
    assert untouched(sent) and not (sent / "sweep.json").is_symlink()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(sent, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for read in (paths.read_json, received.read_table, results.file_state, received.sha256_of):
        with pytest.raises(paths.Damaged, match="expected a file"):
            read(tmp_path / "pipe.json")


# ------------------------------------------------------------------------------------ code is run
def test_no_command_that_only_reads_imports_a_loss_that_the_ledger_names(sent, tmp_path, capsys):
    (tmp_path / "my_losses.py").write_text("open('ran', 'w').close()\ndef evil(a, b): pass\n")
    trial = description("wmh2017", "evil", 1, 0, 1)
    assert trial["config"]["loss"]["import"] == "my_losses:evil"
    folder = sent / "trials" / trial["name"]
    first(sent).rename(folder)
    for file in folder.glob("*.parquet"):
        schema = results.TABLES[file.name]
        identity = {key: trial[key] for key in ("cohort", "loss", "seed", "fold")}
        identity["trial"] = trial["name"]
        rows = [row | identity for row in received.read_table(file, schema).to_pylist()]
        results.write_table(file, rows, schema)
    results.write_json(folder / "trial.json", trial)
    record_anew(folder)
    rewrite(
        sent / "sweep.json",
        lambda meta: meta | {"trials": [{k: v for k, v in trial.items() if k != "config"}]},
    )
    assert results.read_sweep(sent).runs["status"][0] == "done"
    said = every_command(sent, capsys)
    assert "Traceback" not in said
    assert report.main([str(sent), "--formats"]) == 0
    assert not (tmp_path / "ran").exists()


# --------------------------------------------------------------------------------- what is too much
NO_JSON = ("[]", "null", "7", '"x"', "{", "", "[" * 100_000, '{"a":' * 90 + "1" + "}" * 90, "NaN")


@pytest.mark.parametrize("content", [*NO_JSON, "\xff", '{"a": Infinity}'])
def test_json_that_is_none_of_ours_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.json: cannot be read") as error:
        paths.read_json(tmp_path / "x.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{}", "[" * 100_000])
@pytest.mark.parametrize("file", ["sweep.json", "search.json", "trial.json", "done.json"])
def test_no_command_trips_over_it(sent, file, content, capsys):
    place = (first(sent) if file in ("trial.json", "done.json") else sent) / file
    place.write_text(content)
    said = every_command(sent, capsys)
    assert file in said or "marker file" in said


@pytest.mark.parametrize(
    "field", ["trials", "losses", "settings", "folds", "cohorts", "num_folds", "validation"]
)
def test_fields_of_sweep_json_of_another_type_are_one_line(sent, field, capsys):
    meta = json.loads((sent / "sweep.json").read_text())
    for kind in ([], "x", 7, {"a": []}, [7], [[]], None):
        (sent / "sweep.json").write_text(json.dumps(meta | {field: kind}))
        try:
            results.read_meta(sent)
        except ValueError as error:
            assert "sweep.json" in str(error) and "\n" not in str(error)
        else:
            every_command(sent, capsys)


ODD_VALUES = (10**30, -1, 1e308, "x", [], {}, None, True)


def places_in(content, at=()):
    """Where a value of a JSON file could be another one; of a list's elements, the first's."""
    inner = content.items() if isinstance(content, dict) else enumerate(content[:1])
    for key, value in inner:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from places_in(value, (*at, key))


def every_command_copes_with(sent: Path, file: str, capsys, sample: int | None = None) -> None:
    """Whatever value is another one in a file that is JSON, no command breaks."""
    place = (sent if file == "sweep.json" else first(sent)) / file
    before = place.read_text()
    cases = [(at, odd) for at in places_in(json.loads(before)) for odd in ODD_VALUES]
    for at, odd in random.Random(file).sample(cases, sample or len(cases)):
        content = changed = json.loads(before)
        for key in at[:-1]:
            changed = changed[key]
        changed[at[-1]] = odd
        place.write_text(json.dumps(content))
        try:
            every_command(sent, capsys)
        except Exception as error:
            raise AssertionError(f"{file}: {at} is {odd!r}") from error


JSON_FILES = ("sweep.json", "trial.json", "done.json")


@pytest.mark.parametrize("file", JSON_FILES)
def test_whatever_a_value_is_no_command_breaks(sent, file, capsys):
    every_command_copes_with(sent, file, capsys, sample=6)


@pytest.mark.slow
@pytest.mark.parametrize("file", JSON_FILES)
def test_whatever_any_value_is_no_command_breaks(sent, file, capsys):
    every_command_copes_with(sent, file, capsys)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("sweep.json", lambda meta: meta["cohorts"]["wmh2017"].clear()),
        ("sweep.json", lambda meta: meta["trials"][0].update(seed=10**30)),
        ("done.json", lambda done: done.update(versions=None)),
        ("done.json", lambda done: done.update(seconds=1e309)),
    ],
)
def test_values_that_once_broke_a_command(sent, file, change, capsys):
    rewrite((sent if file == "sweep.json" else first(sent)) / file, change)
    every_command(sent, capsys)


def test_a_trial_that_says_more_epochs_than_its_tables_hold_is_not_believed(sent, capsys):
    trial = first(sent)
    for file in ("cases.parquet", "epochs.parquet"):
        rows = results.read_table(trial / file).to_pylist()
        kept = [row for row in rows if row["epoch"] < 1]
        results.write_table(trial / file, kept, results.TABLES[file])
        record_anew(trial)
        said = results.read_sweep(sent).runs.set_index("trial").loc[trial.name]
        assert said["status"] == "corrupt" and said["error"] == f"{file} does not hold every epoch"
        assert trial.name in verify.verify(sent).to_train
        results.write_table(trial / file, rows, results.TABLES[file])
        record_anew(trial)
    assert results.read_sweep(sent).runs["status"].eq("done").all()


def test_a_table_that_unpacks_to_far_too_much_is_refused_by_its_metadata(tmp_path, monkeypatch):
    rows = [{"loss": "x"} | dict.fromkeys(results.GRADIENTS.names[1:])] * 1000
    results.write_table(tmp_path / results.GRADIENTS_FILE, rows, results.GRADIENTS)
    assert len(results.read_gradients(tmp_path)) == 1000
    for limit in ("MOST_TABLE_ROWS", "MOST_TABLE_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(received, limit, 999)
            with pytest.raises(ValueError, match=r"gradients\.parquet: 1000 rows, .* at most"):
                results.read_gradients(tmp_path)


def test_a_table_of_other_columns_is_one_line(sent, capsys):
    results.write_table(sent / "cohorts/wmh2017/cases.parquet", [], results.EPOCHS)
    results.write_table(sent / results.GRADIENTS_FILE, [], results.EPOCHS)
    every_command(sent, capsys)


SPOILT = {
    "flipped": lambda f: f.write_bytes(f.read_bytes()[:-9] + b"\xff" + f.read_bytes()[-8:]),
    "cut": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
    "empty": lambda f: f.write_bytes(b""),
    "an object": lambda f: f.write_bytes(b"{}"),
    "a list": lambda f: f.write_bytes(b"[]"),
    "deep": lambda f: f.write_bytes(b"[" * 100_000),
    "a link": lambda f: (f.unlink(), f.symlink_to("/etc/passwd")),
    "a link to nothing": lambda f: (f.unlink(), f.symlink_to("/nothing/there")),
    "a folder": lambda f: (f.unlink(), f.mkdir()),
    "huge": lambda f: (f.write_bytes(b""), os.truncate(f, 2**40)),
}


SHARED = (
    "sweep.json", "gradients.parquet", "cohorts/wmh2017/cases.parquet",
    "cohorts/wmh2017/slices.parquet", "report/made.json", "search.json", "search-journal.log",
    "checksums.log", "wandb/tracking.json", ".live.json", ".lock", "training-effect.json",
)  # fmt: skip
OWN = (
    *results.TABLES, results.MODEL, "trial.json", "done.json", "failed.json", "progress.json",
    "checkpoint.pt", "log.txt",
)  # fmt: skip
FOLDERS = ("trials", "trials/FIRST", "cohorts", "cohorts/wmh2017", "wandb", "report")
EVERY_FILE = [*SHARED, *(f"trials/FIRST/{name}" for name in OWN)]
SAMPLE = random.Random(6).sample([(name, how) for name in EVERY_FILE for how in SPOILT], 4)


def everything_copes_with(sent: Path, name: str, spoil, capsys) -> None:
    """No command breaks over one spoilt place, hangs or fills the memory; `verify` goes through
    the whole folder; and what was there before is whole again when it is back."""
    place = sent / name.replace("FIRST", first(sent).name)
    aside = sent.parent / "aside"
    if place.exists():
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, aside)
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"{ }" * 9)
    spoil(place)
    every_command(sent, capsys)
    try:
        verify.main([str(sent)])
    except ValueError as error:
        assert "\n" not in str(error)
    try:
        Lock(sent, "test").__enter__().__exit__(None, None, None)
    except ValueError as error:
        assert "\n" not in str(error)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if aside.exists():
        aside.rename(place)
    assert results.read_sweep(sent).runs["status"].eq("done").all()


@pytest.mark.parametrize(("name", "how"), SAMPLE)
def test_whatever_becomes_of_a_file_no_command_breaks(sent, name, how, capsys):
    everything_copes_with(sent, name, SPOILT[how], capsys)


@pytest.mark.parametrize("name", [results.MODEL, "checkpoint.pt", "log.txt"])
def test_nobody_reads_a_file_of_2_to_the_40_bytes(sent, name, capsys):
    """It would take an hour, and be nothing but zeros."""
    everything_copes_with(sent, f"trials/FIRST/{name}", SPOILT["huge"], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("how", SPOILT)
def test_whatever_becomes_of_any_file_no_command_breaks(sent, how, capsys):
    for name in EVERY_FILE:
        everything_copes_with(sent, name, SPOILT[how], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_whatever_becomes_of_any_folder_no_command_breaks(sent, name, capsys):
    for how in ("empty", "a list", "a link", "a link to nothing"):

        def instead(place: Path, how: str = how) -> None:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            place.write_bytes(b"")
            SPOILT[how](place)

        everything_copes_with(sent, name, instead, capsys)


def test_a_folder_in_the_place_of_the_lock_is_one_line_and_stays(sent):
    (sent / ".lock").mkdir()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"\.lock: a folder is there") as error:
            Lock(sent, "test").__enter__()
        assert "\n" not in str(error.value)
    assert [file.name for file in sent.glob(".lock*")] == [".lock"]


# ------------------------------------------------------------------------------ where the key goes
def remember(sent: Path, **changes) -> None:
    (sent / "wandb").mkdir(exist_ok=True)
    decided = Tracking(mode="offline", group="g").to_remember()[FILE]
    (sent / FILE).write_text(json.dumps(json.loads(decided) | changes))


class Listener(threading.Thread):
    """A port of somebody's; hears whatever is sent there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.calls = 0

    def run(self) -> None:
        while True:
            self.socket.accept()
            self.calls += 1


@pytest.mark.parametrize("how", ["sync", "backfill", "sweep"])
def test_a_key_never_goes_where_only_the_folder_says(sent, monkeypatch, how):
    thief = Listener()
    thief.start()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    remember(sent, url=thief.url)
    run = {
        "sync": lambda: upload.sync(sent),
        "backfill": lambda: upload.backfill(sent, Logging()),
        "sweep": lambda: Logging(wandb="auto").tracking(sent),
    }[how]
    with pytest.raises(ValueError, match=f"if it is yours: --wandb-base-url {thief.url}$") as error:
        run()
    assert "\n" not in str(error.value) and KEY not in str(error.value)
    assert thief.calls == 0


@pytest.mark.parametrize(
    "how", ["WANDB_BASE_URL", "settings", "netrc", "flag", "the public server"]
)
def test_a_server_that_the_user_names_gets_the_key(sent, monkeypatch, tmp_path, how):
    url, flag = "https://wandb.example.org:8443", None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if how == "WANDB_BASE_URL":
        monkeypatch.setenv(how, f"{url}/")
    elif how == "settings":
        (tmp_path / ".config/wandb").mkdir(parents=True)
        (tmp_path / ".config/wandb/settings").write_text(f"[default]\nbase_url = {url}\n")
    elif how == "netrc":
        (tmp_path / ".netrc").write_text(f"machine wandb.example.org:8443 login u password {KEY}\n")
    elif how == "flag":
        flag = url
    else:
        url = "https://api.wandb.ai"
    remember(sent, url=url)
    decided = Logging(wandb_base_url=flag).tracking(sent)
    assert (decided.mode, decided.key, decided.url) == ("online", KEY, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.wandb.ai",  # in the clear
        "https://api.wandb.ai:444",
        "https://api.wandb.ai.evil.org",
        "https://API.evil.org",
        "http://wandb.example.org:8443",
    ],
)
def test_an_address_that_only_looks_like_a_known_one_is_another(sent, monkeypatch, tmp_path, url):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / ".netrc").write_text(f"machine wandb.example.org:8443 login u password {KEY}\n")
    remember(sent, url=url)
    with pytest.raises(ValueError, match="--wandb-base-url"):
        Tracking.decide("auto", sent)
    assert Tracking.decide("offline", sent).key is None


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "file:///etc/passwd"},
        {"url": "https://user@evil.org"},
        {"url": "https://evil.org\nx"},
        {"url": ["x"]},
        {"salt": "no hash"},
        {"project": 7},
        {"media": "yes"},
    ],
)
def test_a_tracking_json_that_cannot_be_ours_is_one_line(sent, changes):
    remember(sent, **changes)
    with pytest.raises(ValueError, match=r"tracking\.json: cannot be read") as error:
        policy.remembered(sent)
    assert "\n" not in str(error.value)


def test_settings_for_wandb_in_a_results_folder_are_refused(sent, monkeypatch):
    """wandb reads them where it is started, proxies and headers included."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    remember(sent)
    (sent / "wandb/settings").write_text("[default]\nhttps_proxy = http://evil.org\n")
    with pytest.raises(ValueError, match="delete it"):
        Tracking.decide("online", sent)
