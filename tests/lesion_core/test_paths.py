"""What is not readable here is never taken for absent, and nothing that is there is replaced."""

import json
import shutil

import pytest

from lesion_core import paths, results
from lesion_core.cohorts import Folder, cohort_named
from lesion_core.cohorts.__main__ import main as cohorts_command
from lesion_core.preparation import prepare
from tests.support.tiny import write_case

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ANNEX = "/annex/objects/SHA256E-s12345--4d7a.nii.gz\n"


def annexed(path):
    """A link as git-annex leaves it for what was not fetched."""
    path.unlink(missing_ok=True)
    path.symlink_to("../.git/annex/objects/aa/bb/KEY/KEY")


def linked(path):
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


def changed(path):
    """What tells whether a file was written again; when it was read does not."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


def folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("name", ["t1", "lesion", "brain"])
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (annexed, "git annex get"),
        (linked, "a link to nowhere, which is not there"),
        (folder, "a folder is there; expected a file"),
        (lambda path: path.write_text(LFS), "git lfs pull"),
        (lambda path: path.write_text(ANNEX), "git annex get"),
    ],
)
def test_what_was_not_fetched_is_not_absent(tmp_path, capsys, name, spoil, expected):
    write_case(tmp_path / "mine" / "a", ("t1",))
    file = tmp_path / "mine" / "a" / f"{name}.nii.gz"
    spoil(file)
    before = changed(file)
    with pytest.raises(ValueError) as caught:
        Folder(name="mine", channels=("t1",)).cases(tmp_path)
    assert str(caught.value).startswith(f"{file}: ") and expected in str(caught.value)
    command = ["brains", "mine", str(tmp_path), "--channels", "t1", "--overwrite"]
    assert prepare.main(command) == 2
    assert expected in capsys.readouterr().err
    assert changed(file) == before


def test_a_case_that_is_a_link_to_nothing_is_named(tmp_path):
    write_case(tmp_path / "mine" / "a", ("t1",))
    (tmp_path / "mine" / "b").symlink_to(tmp_path / "unmounted" / "b")
    (tmp_path / "mine" / "notes.txt").symlink_to(".git/annex/objects/KEY")  # a file, fetched or not
    with pytest.raises(ValueError, match=r"mine/b: a link to .*unmounted/b, which is not there"):
        Folder(name="mine", channels=("t1",)).cases(tmp_path)


def test_nothing_is_said_only_where_nothing_is(tmp_path, monkeypatch):
    assert not paths.is_there(tmp_path / "a" / "b")
    (tmp_path / "way").symlink_to("nowhere")
    with pytest.raises(ValueError, match="way: a link to nowhere"):
        paths.is_there(tmp_path / "way" / "b")

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "stat", refuse)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\)"):
        paths.is_there(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_content(tmp_path, encoding):
    file = tmp_path / "x"
    file.write_bytes(json.dumps({"a": "\u00e9"}, ensure_ascii=False).encode(encoding))
    assert paths.read_json(file) == {"a": "\u00e9"}
    assert json.loads(paths.read_text(file)) == {"a": "\u00e9"}


def test_a_trial_that_was_not_fetched_is_not_run_again(tmp_path):
    (tmp_path / "trial.json").write_text("{}")
    annexed(tmp_path / "done.json")
    with pytest.raises(ValueError, match="git annex get"):
        results.trial_status(tmp_path)
    annexed(tmp_path / "sweep.json")
    with pytest.raises(ValueError, match="git annex get"):
        results.read_meta(tmp_path)


def test_a_wrong_folder_is_named_with_the_nearest_one(tmp_path):
    write_case(tmp_path / "data" / "mine" / "a", ("t1", "flair"))
    data = tmp_path / "data"
    for mask in ("ignore", "lesion_all"):  # no images
        shutil.copy(data / "mine/a/lesion.nii.gz", data / "mine/a" / f"{mask}.nii.gz")
    (data / "bids").mkdir()
    (data / "bids" / "dataset_description.json").write_text("{}")
    for name, channels, place, expected in (
        ("mine", ("t1",), tmp_path / "dta", f"dta: no such folder; .*did you mean {data}"),
        ("mine", (), data, r"--channels flair t1 \(.*/a has flair t1\)"),
        ("mine", ("flar",), data, r"there: brain, flair, .*, t1\); did you mean flair\?"),
        ("mine", ("lesion_all",), data, "cannot be used; expected a file name .* none of brain"),
        ("mine", ("t1",), data / "mine", f"did you mean {data / 'mine'}"),
        ("main", (), data, "did you mean mine"),
        ("LIT", (), data, "did you mean lit"),
        ("Bids:x", (), data, "did you mean bids:x"),
        ("nnunet:", (), data, "name of a folder in .* behind the colon"),
        ("nnunet:bids", (), data, "did you mean bids:bids"),
    ):
        with pytest.raises(ValueError, match=expected):
            cohort_named(name, channels, place).cases(place)
    assert cohort_named("mine/", ("t1",), data).name == "mine"


@pytest.mark.parametrize("link", [False, True])
def test_commands_replace_only_when_asked(tmp_path, capsys, link):
    for case in "ab":
        write_case(tmp_path / "mine" / case, ("t1",))
    file = tmp_path / "splits_final.json"
    file.symlink_to("nowhere") if link else file.write_text("mine")
    named = ["--cohorts", "mine", "--channels", "t1"]
    command = ["folds", str(tmp_path), *named, "--folds", "2", "--write", str(file)]
    assert cohorts_command(command) == 2
    assert "is there already; have it replaced by --overwrite" in capsys.readouterr().err
    assert file.is_symlink() == link
    assert cohorts_command([*command, "--overwrite"]) == 0
    assert len(json.loads(file.read_text())) == 2
    lit = tmp_path / "lit"
    lit.symlink_to("nowhere") if link else lit.mkdir()
    with (
        pytest.raises(ValueError, match=r"lit: is there already; .*--overwrite"),
        prepare.new_cohort(tmp_path, "lit", tmp_path / "source", overwrite=link),
    ):
        pass
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    assert cohorts_command(["check", str(tmp_path), *named, "--out", str(tmp_path / "sweep")]) == 2
    assert "holds a sweep" in capsys.readouterr().err


def test_only_what_was_prepared_is_replaced(tmp_path):
    (tmp_path / "lit" / "old").mkdir(parents=True)

    def again(source):
        with prepare.new_cohort(tmp_path, "lit", source, overwrite=True) as folder:
            (folder / "new").mkdir()

    with pytest.raises(ValueError, match="was not made by this command"):
        again(tmp_path / "source")
    (tmp_path / "lit" / "prepared.json").write_text("{}")
    with pytest.raises(ValueError, match="would delete the source"):
        again(tmp_path / "lit" / "old")
    again(tmp_path / "source")
    assert [path.name for path in (tmp_path / "lit").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["lit"]
