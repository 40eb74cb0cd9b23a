"""The cache saves time and never changes what is loaded."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from lesion_core import cache, images
from lesion_core.cohorts import Folder, Lit, Wmh2017
from lesion_core.fingerprint import fingerprint
from lesion_core.images import load_cohort
from tests.support.tiny import (
    noise,
    one_lesion,
    save,
    write_case,
    write_lit_cohort,
    write_wmh_cohort,
)

MINE = Folder(name="mine", channels=("t1", "flair"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache, in which times count at once."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1e9)
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for number in range(3):
        write_case(folder / "mine" / f"c{number}", seed=number)
    return folder


@pytest.fixture
def loaded(monkeypatch):
    """The cases that were really read."""
    cases, original = [], images.load_case

    def record(case, *places):
        cases.append(case.id)
        return original(case, *places)

    monkeypatch.setattr(images, "load_case", record)
    return cases


@pytest.fixture
def hashed(monkeypatch):
    """The files whose bytes were read for their digest."""
    paths, original = [], cache.hashlib.file_digest

    def record(file, name):
        paths.append(Path(file.name).name)
        return original(file, name)

    monkeypatch.setattr(cache.hashlib, "file_digest", record)
    return paths


def equal(one, other) -> None:
    for name, value in vars(one).items():
        twin = getattr(other, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == twin.dtype, name
            assert value.shape == twin.shape, name
            np.testing.assert_array_equal(value, twin)
        else:
            assert value == twin, name
            assert type(value) is type(twin), name


@pytest.mark.parametrize(
    ("cohort", "write"), [(Wmh2017(), write_wmh_cohort), (Lit(), write_lit_cohort)]
)
def test_cached_cohort_equals_the_one_that_was_read(tmp_path, monkeypatch, cohort, write):
    folder = write(tmp_path / "data")
    lesion = one_lesion()
    lesion[0, 0, 0] = True  # outside the brain box
    case = next(path.parent for path in sorted(folder.rglob("*.nii.gz")) if path.stem[:3] != "pre")
    name = "wmh.nii.gz" if cohort.name == "wmh2017" else "lesion.nii.gz"
    save((case.parent if case.name == "pre" else case) / name, lesion)
    monkeypatch.setenv(cache.VARIABLE, "off")
    plain = load_cohort(cohort, tmp_path / "data")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    first = load_cohort(cohort, tmp_path / "data")
    second = load_cohort(cohort, tmp_path / "data")
    for other in (first, second):
        assert plain.fingerprint == other.fingerprint
        for one, another in zip(plain.images, other.images, strict=True):
            equal(one, another)


def test_second_loading_reads_no_image(data, loaded, hashed):
    load_cohort(MINE, data)
    assert sorted(loaded) == ["c0", "c1", "c2"]
    loaded.clear()
    hashed.clear()
    load_cohort(MINE, data)
    assert loaded == []
    assert hashed == []


def test_only_the_changed_case_is_read_again(data, loaded):
    before = load_cohort(MINE, data)
    loaded.clear()
    save(data / "mine" / "c1" / "t1.nii.gz", noise(77))
    after = load_cohort(MINE, data)
    assert loaded == ["c1"]
    assert after.fingerprint != before.fingerprint
    assert not np.array_equal(after.images[1].voxels, before.images[1].voxels)


def test_moved_cohort_is_recognised(data, loaded, tmp_path):
    load_cohort(MINE, data)
    loaded.clear()
    data.rename(tmp_path / "elsewhere")
    load_cohort(MINE, tmp_path / "elsewhere")
    assert loaded == []


def test_order_of_channels_is_part_of_the_key(data, loaded):
    load_cohort(MINE, data)
    loaded.clear()
    (swapped, *_) = load_cohort(Folder(name="mine", channels=("flair", "t1")), data).images
    assert len(loaded) == 3
    assert swapped.channels == ("flair", "t1")


def test_another_format_version_reads_everything_again(data, loaded, monkeypatch):
    load_cohort(MINE, data)
    loaded.clear()
    monkeypatch.setattr(images, "FORMAT_VERSION", images.FORMAT_VERSION + 1)
    load_cohort(MINE, data)
    assert len(loaded) == 3


def test_same_size_and_time_but_other_bytes_is_noticed(data):
    """cp -p of another file of equal length: the time of the last status change tells."""
    path = data / "mine" / "c1" / "t1.nii"
    (data / "mine" / "c1" / "t1.nii.gz").unlink()
    save(path, noise(1))
    before, times = fingerprint(MINE, data), path.stat()
    save(path, noise(2))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert fingerprint(MINE, data) != before


def test_file_changed_just_now_is_not_trusted(data, monkeypatch, hashed):
    monkeypatch.setattr(cache, "SETTLED_SECONDS", 3600)
    fingerprint(MINE, data)
    hashed.clear()
    fingerprint(MINE, data)
    assert len(hashed) == 12


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "arrays").iterdir())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: (e / "voxels.npy").unlink(),
        lambda e: (e / "voxels.npy").write_bytes(b""),
        lambda e: (e / "voxels.npy").write_bytes((e / "voxels.npy").read_bytes()[:-4]),
        lambda e: (e / "labels.npy").write_bytes((e / "labels.npy").read_bytes()[:-1] + b"\x01"),
        lambda e: (e / "entry.json").write_text("{"),
        lambda e: (e / "entry.json").write_text("{}"),
        lambda e: (e / "entry.json").write_text("[]"),
    ],
)
def test_damaged_entry_is_said_and_made_again(data, own_cache, loaded, caplog, spoil):
    before = load_cohort(MINE, data)
    originals = [
        {name: np.array(getattr(image, name)) for name in ("voxels", "labels", "brain")}
        for image in before.images
    ]
    del before  # its memory is mapped from the files that are spoilt now
    loaded.clear()
    spoil(entries(own_cache)[0])
    with caplog.at_level(logging.WARNING):
        after = load_cohort(MINE, data)
    assert len(loaded) == 1
    assert "damaged" in caplog.text
    for original, image in zip(originals, after.images, strict=True):
        for name, array in original.items():
            np.testing.assert_array_equal(array, getattr(image, name))
    loaded.clear()
    load_cohort(MINE, data)
    assert loaded == []


def test_any_changed_byte_of_an_entry_is_noticed(data, own_cache, loaded, caplog):
    """Its values too: one bit of the voxel size would give other images under one fingerprint."""
    load_cohort(MINE, data)
    entry = entries(own_cache)[0]
    files = {file: file.read_bytes() for file in entry.iterdir()}
    for file, content in files.items():
        step = max(1, len(content) // (60 if file.suffix == ".json" else 12))
        for place in range(0, len(content), step):
            spoilt = bytearray(content)
            spoilt[place] ^= 1
            entry.mkdir(exist_ok=True)
            for each, whole in files.items():
                each.write_bytes(bytes(spoilt) if each == file else whole)
            caplog.clear()
            found = cache.load(entry.name)
            if found is not None:  # padding of a .npy header: the same arrays
                assert file.suffix == ".npy" and place < 128
                continue
            assert "damaged" in caplog.text and not entry.exists()


def test_a_cache_that_is_read_only_is_used_and_a_damaged_entry_there_is_passed_over(
    data, own_cache, loaded, caplog, monkeypatch
):
    before = load_cohort(MINE, data)
    loaded.clear()

    def refuse(*arguments, **more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(cache.shutil, "rmtree", lambda *arguments, **more: None)
    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(cache, "write_bytes", refuse)
    load_cohort(MINE, data)
    assert loaded == [] and "damaged" not in caplog.text
    del before
    (entries(own_cache)[0] / "entry.json").write_text("{}")
    assert len(load_cohort(MINE, data).images) == 3
    assert len(loaded) == 1
    assert "cannot be deleted or replaced; the images are read without it" in caplog.text
    assert "it is made again" not in caplog.text


def test_a_changed_digest_of_a_file_is_not_believed(data, own_cache):
    before = fingerprint(MINE, data)
    index = own_cache / "digests.json"
    content = json.loads(index.read_text())
    name = next(iter(content))
    content[name][3] = "0" * 64
    index.write_text(json.dumps(content))
    assert fingerprint(MINE, data) == before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_damaged_index_of_digests_is_made_again(data, own_cache, content):
    before = fingerprint(MINE, data)
    (own_cache / "digests.json").write_text(content)
    assert fingerprint(MINE, data) == before
    assert len(json.loads((own_cache / "digests.json").read_text())) >= 12


def test_cache_that_cannot_be_written_is_no_obstacle(data, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert len(load_cohort(MINE, data).images) == 3
    assert "cannot be written" in caplog.text


def test_full_disk_leaves_no_half_written_entry(data, own_cache, monkeypatch, caplog):
    def full(path, array, allow_pickle):
        Path(path).write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    assert len(load_cohort(MINE, data).images) == 3
    assert entries(own_cache) == []
    assert "No space left" in caplog.text


def test_switched_off_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_cohort(MINE, data)
    assert not (tmp_path / "xdg").exists()
    assert not (tmp_path / "cache").exists()


def test_default_folder_follows_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "lesion-seed-sweep"


def test_entries_that_nobody_uses_go(data, own_cache):
    load_cohort(MINE, data)
    for entry in entries(own_cache):
        os.utime(entry / "entry.json", (0, 0))
    (own_cache / "arrays" / ".new.x").mkdir()
    os.utime(own_cache / "arrays" / ".new.x", (0, 0))
    save(data / "mine" / "c1" / "t1.nii.gz", noise(77))
    load_cohort(MINE, data)  # uses c0 and c2 first, or at the same time as c1 is written
    assert not (own_cache / "arrays" / ".new.x").exists()
    assert len(load_cohort(MINE, data).images) == 3


def test_unusable_case_is_not_kept(data, own_cache):
    save(data / "mine" / "c1" / "t1.nii.gz", noise(1, (3, 3, 3)))
    for _ in range(2):
        with pytest.raises(ValueError, match="c1"):
            load_cohort(MINE, data)
    assert len(entries(own_cache)) <= 2


def test_files_that_change_while_they_are_read_are_noticed(data, monkeypatch):
    original = images.load_case

    def change(case, *places):
        image = original(case, *places)
        if case.id == "c1":
            save(case.lesion, ~one_lesion())
        return image

    monkeypatch.setattr(images, "load_case", change)
    with pytest.raises(ValueError, match="change while they are read"):
        load_cohort(MINE, data)
