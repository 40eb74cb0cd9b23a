"""Ray's session finds a place with a short path, or one line says what is wrong with the folder."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from sweeps.distributed import temporary
from sweeps.distributed.temporary import session_folder


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)


@pytest.fixture
def short():
    """A folder with a short path; pytest's own can be long."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as folder:
        yield folder


def test_a_short_folder_is_left_to_ray(monkeypatch, short):
    assert session_folder() is None
    monkeypatch.setenv("TMPDIR", short)
    assert session_folder() is None


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_path_gives_way_to_a_private_folder_and_says_so(monkeypatch, short, capsys, name):
    monkeypatch.setenv(name, f"/tmp/{100 * 'x'}")
    found = session_folder(tried=(f"{short}/not/there", short))
    assert found is not None
    assert str(found).startswith(f"{short}/")
    assert len(str(found.parent) + temporary.IN_SESSION) <= temporary.LONGEST_SOCKET
    private = found.parent.stat()
    assert (private.st_uid, private.st_mode & 0o777) == (os.getuid(), 0o700)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    assert str(found.parent) in said
    assert session_folder(tried=(short,)) == found


def test_ray_tmpdir_goes_before_tmpdir(monkeypatch, short):
    monkeypatch.setenv("TMPDIR", f"/tmp/{100 * 'x'}")
    monkeypatch.setenv("RAY_TMPDIR", short)
    assert session_folder() is None


@pytest.mark.parametrize("spoil", ["open", "link"])
def test_a_folder_that_others_can_reach_is_not_taken(monkeypatch, short, spoil):
    monkeypatch.setenv("TMPDIR", f"/tmp/{100 * 'x'}")
    place = Path(short) / f"lesion-{os.getuid()}"
    if spoil == "open":
        place.mkdir()
        place.chmod(0o777)
    else:
        other = Path(short) / "other"
        other.mkdir(mode=0o700)
        place.symlink_to(other)
    with pytest.raises(ValueError, match="set RAY_TMPDIR to a folder with a path of up"):
        session_folder(tried=(short,))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOENT, "no such folder; .*make it, or set TMPDIR"),
        (errno.ENOTDIR, "not a folder; .*set TMPDIR"),
        (errno.EACCES, "cannot be written .Permission denied.; .*allow it, or set TMPDIR"),
        (errno.EROFS, "cannot be written .Read-only file system.; .*set TMPDIR"),
        (errno.ENOSPC, "full; .*make room there, or set TMPDIR"),
        (errno.EDQUOT, "full, by this user's quota; .*make room"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_with_its_cure(monkeypatch, short, number, expected):
    def refuse(**_):
        raise OSError(number, os.strerror(number), short)

    monkeypatch.setenv("TMPDIR", short)
    monkeypatch.setattr(temporary.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(ValueError, match=rf"^TMPDIR={short}: {expected}"):
        session_folder()


def test_what_is_not_there_is_never_made(monkeypatch, short):
    monkeypatch.setenv("TMPDIR", f"{short}/gone")
    with pytest.raises(ValueError, match="no such folder"):
        session_folder()
    assert not Path(short, "gone").exists()
