"""Whatever is wrong with a file: one line with its name, exit status 2, nothing half-written."""

import gzip
import itertools
import os
import random
import shutil
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lesion_core import nifti
from lesion_core.cohorts import Folder
from lesion_core.cohorts.__main__ import main as cohorts_command
from lesion_core.images import load_cohort
from lesion_core.preparation import prepare
from tests.lesion_core.test_layouts import write_bids, write_nnunet
from tests.lesion_core.test_prepare import laboratory
from tests.support.tiny import noise, one_lesion, save, write_lit_cohort, write_wmh_cohort

WRITERS = {
    "wmh2017": write_wmh_cohort,
    "lit": write_lit_cohort,
    "nnunet:Dataset001_MS": write_nnunet,
    "bids:study": write_bids,
}


def image_of(path: Path):
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def rewrite(path: Path, change) -> None:
    array, affine = change(*image_of(path))
    save(path, array, affine)


def swap_axes(array, affine):
    swapped = affine.copy()
    swapped[:, :2] = affine[:, 1::-1]
    return array, swapped


def move(array, affine):
    moved = affine.copy()
    moved[0, 3] += 5
    return array, moved


def with_nan(array, affine):
    array = array.astype(np.float32)
    array[1, 2, 3] = np.nan
    return array, affine


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def short_inside(path: Path) -> None:
    """A sound gzip file of half an image."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-50]))


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere.nii.gz")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def singular(path: Path) -> None:
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj)
    flat = nib.Nifti1Image(voxels, None)
    flat.header.set_zooms((1, 1, 1))
    flat.header["sform_code"], flat.header["srow_x"], flat.header["srow_z"] = 1, [1, 0, 0, 0], 0
    flat.header["srow_y"] = [0, 1, 0, 0]
    path.write_bytes(gzip.compress(flat.to_bytes()))


SPOILERS = {
    "truncated gzip": truncate,
    "damaged gzip": damage,
    "half an image": short_inside,
    "zero bytes": lambda p: p.write_bytes(b""),
    "empty gzip": lambda p: p.write_bytes(gzip.compress(b"")),
    "text": lambda p: p.write_text("<html>404</html>"),
    "text in gzip": lambda p: p.write_bytes(gzip.compress(b"<html>404</html>" * 100)),
    "missing": lambda p: p.unlink(),
    "link to nowhere": dangling,
    "link to itself": loop,
    "a folder": folder_instead,
    "4D": lambda p: rewrite(p, lambda a, m: (np.stack([a, a], axis=-1), m)),
    "2D": lambda p: rewrite(p, lambda a, m: (a[:, :, 0], m)),
    "other shape": lambda p: rewrite(p, lambda a, m: (a[:-1], m)),
    "swapped axes": lambda p: rewrite(p, lambda a, m: (a.swapaxes(0, 1), m)),
    "swapped affine": lambda p: rewrite(p, swap_axes),
    "moved": lambda p: rewrite(p, move),
    "singular affine": singular,
    "complex": lambda p: rewrite(p, lambda a, m: (a.astype(np.complex64), m)),
}
IMAGE_ONLY = {
    "nan": lambda p: rewrite(p, with_nan),
    "constant": lambda p: rewrite(p, lambda a, m: (np.full_like(a, 7), m)),
}
MASK_ONLY = {
    "label 3": lambda p: rewrite(p, lambda a, m: (a * 3, m)),
    "probabilities": lambda p: rewrite(p, lambda a, m: (a * np.float32(0.4), m)),
    "negative": lambda p: rewrite(p, lambda a, m: (-a.astype(np.int16), m)),
}


def run(capsys, main, *arguments) -> tuple[int, str]:
    status = main([str(part) for part in arguments])
    return status, capsys.readouterr().err.strip()


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def refuses(capsys, victim: Path, main, *arguments) -> str:
    status, said = run(capsys, main, *arguments)
    assert status == 2, said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1, said
    stem = victim.name.split(".")[0]
    assert stem in said or stem.replace("_acq-3d", "") in said, said  # any entity would have done
    return said


def victims(root: Path) -> list[Path]:
    """A channel that is not the first, the lesion mask and the brain mask of the second case."""
    names = ("FLAIR", "followup_flair", "_0001", "wmh", "lesion", "brain", "labelsTr")
    found = [path for path in sorted(root.rglob("*.nii.gz")) if any(n in str(path) for n in names)]
    return found[len(found) // 2 :][:3]


ABSENT = ("missing", "link to nowhere", "link to itself", "a folder")
"""What a layout may notice before the file is read, which all do alike."""


@pytest.mark.parametrize(
    ("cohort", "spoiler"),
    [
        pair if pair[0] == "lit" or pair[1] in (*ABSENT, "text") else
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(WRITERS, SPOILERS)
    ],
)  # fmt: skip
def test_check_names_the_file(tmp_path, capsys, cohort, spoiler):
    root = WRITERS[cohort](tmp_path)
    for victim in victims(root):
        kept = tmp_path / "kept.nii.gz"
        shutil.copyfile(victim, kept)
        SPOILERS[spoiler](victim)
        arguments = ("check", tmp_path, "--cohorts", cohort, "--out", tmp_path / "out")
        refuses(capsys, victim, cohorts_command, *arguments)
        assert not (tmp_path / "out").exists()
        if victim.is_dir() and not victim.is_symlink():
            victim.rmdir()
        victim.unlink(missing_ok=True)
        shutil.move(kept, victim)


@pytest.mark.parametrize("spoiler", IMAGE_ONLY)
def test_check_names_the_image(tmp_path, capsys, spoiler):
    victim = write_lit_cohort(tmp_path) / "patient02" / "followup_flair.nii.gz"
    IMAGE_ONLY[spoiler](victim)
    refuses(capsys, victim, cohorts_command, "check", tmp_path)


@pytest.mark.parametrize("spoiler", MASK_ONLY)
@pytest.mark.parametrize("mask", ["lesion", "brain"])
def test_check_names_the_mask(tmp_path, capsys, spoiler, mask):
    victim = write_lit_cohort(tmp_path) / "patient02" / f"{mask}.nii.gz"
    MASK_ONLY[spoiler](victim)
    refuses(capsys, victim, cohorts_command, "check", tmp_path)


@pytest.mark.parametrize("spoiler", SPOILERS | MASK_ONLY)
@pytest.mark.parametrize("name", ["raw/patient12_study1_FLAIR", "patient12_gt"])
def test_prepare_lit_names_the_file_and_leaves_nothing(tmp_path, capsys, spoiler, name):
    source = laboratory(tmp_path / "l")
    if name.startswith("raw") and spoiler not in ROBUST_AGAINST:
        pytest.skip("a raw image may have any grid, and any values")
    victim = source / "patient12" / f"{name}.nii.gz"
    (SPOILERS | MASK_ONLY)[spoiler](victim)
    before = files(source)
    refuses(capsys, victim, prepare.main, "lit", source, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*"))
    assert files(source) == before


ROBUST_AGAINST = [
    name
    for name in SPOILERS
    if name not in ("other shape", "swapped axes", "swapped affine", "moved")
]


@pytest.mark.parametrize("spoiler", SPOILERS | MASK_ONLY)
def test_prepare_wmh_names_the_file_and_leaves_nothing(tmp_path, capsys, spoiler):
    source = write_wmh_cohort(tmp_path, name="download")
    victim = source / "Singapore" / "50" / "wmh.nii.gz"
    (SPOILERS | MASK_ONLY)[spoiler](victim)
    if spoiler == "missing":  # still a case, by its folder pre
        assert (victim.parent / "pre").is_dir()
    refuses(capsys, victim, prepare.main, "wmh2017", source, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*"))


def test_every_bad_case_is_named_at_once(tmp_path, capsys):
    root = write_lit_cohort(tmp_path)
    (root / "patient01" / "lesion.nii.gz").write_bytes(b"")
    truncate(root / "patient10" / "brain.nii.gz")
    status, said = run(capsys, cohorts_command, "check", tmp_path)
    lines = said.splitlines()
    assert status == 2
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert "patient01/lesion.nii.gz" in lines[0]
    assert "patient10/brain.nii.gz" in lines[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("cohort", WRITERS)
def test_unreadable_files_and_folders_are_named(tmp_path, capsys, cohort):
    root = WRITERS[cohort](tmp_path)
    for victim in (*victims(root), victims(root)[0].parent):
        mode = victim.stat().st_mode
        victim.chmod(0)
        refuses(capsys, victim, cohorts_command, "check", tmp_path, "--cohorts", cohort)
        victim.chmod(mode)


def test_case_that_is_there_twice_is_named(tmp_path, capsys):
    root = write_wmh_cohort(tmp_path)
    shutil.copytree(root / "Utrecht" / "11", root / "Singapore" / "11")
    refuses(capsys, Path("11"), cohorts_command, "check", tmp_path)


def test_patient_that_is_there_twice_is_named(tmp_path, capsys):
    source = laboratory(tmp_path / "l")
    shutil.copytree(source / "patient1", source / "patient01")
    refuses(capsys, Path("patient01"), prepare.main, "lit", source, tmp_path / "d")


def test_links_to_files_and_folders_are_followed(tmp_path):
    root = write_lit_cohort(tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lit").symlink_to(root, target_is_directory=True)
    assert cohorts_command(["check", str(tmp_path / "data")]) == 0


def test_scaled_integers_count_as_what_they_mean(tmp_path):
    """int16 with slope and intercept, as scanners write it, and a mask stored so as well."""
    folder = tmp_path / "mine" / "c"
    values = noise(0)
    image = nib.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    folder.mkdir(parents=True)
    nib.save(image, folder / "t1.nii.gz")
    mask = nib.Nifti1Image(one_lesion().astype(np.float32), np.eye(4))
    mask.set_data_dtype(np.int16)
    nib.save(mask, folder / "lesion.nii.gz")
    save(folder / "brain.nii.gz", np.ones_like(one_lesion()))
    assert nib.load(folder / "t1.nii.gz").dataobj.slope != 1
    (loaded,) = load_cohort(Folder(name="mine", channels=("t1",)), tmp_path).images
    wanted = (values - values.mean()) / values.std()
    np.testing.assert_allclose(loaded.voxels[0], wanted, atol=2e-3)
    assert loaded.lesion_voxels == 8


def test_random_damage_never_ends_in_a_traceback(tmp_path, capsys):
    """Bytes of a header or of the compressed stream changed at random: accepted or named."""
    root = write_lit_cohort(tmp_path, [1])
    rng = random.Random(0)
    paths = sorted((root / "patient01").iterdir())
    sound = {path: path.read_bytes() for path in paths}
    outcomes = {0: 0, 2: 0}
    for _ in range(80):
        victim = rng.choice(paths)
        content = bytearray(gzip.decompress(sound[victim]))
        for _ in range(rng.choice([1, 3])):
            content[rng.randrange(352)] = rng.randrange(256)
        victim.write_bytes(gzip.compress(bytes(content), 1))
        status, said = run(capsys, cohorts_command, "check", tmp_path)
        outcomes[status] += 1
        if status:
            assert said.startswith("error: ")
            assert len(said.splitlines()) == 1, said
            assert "patient01" in said
        victim.write_bytes(sound[victim])
    assert min(outcomes.values()) > 5, outcomes


# ------------------------------------------------------------------------------- far too large ones
def header_of(shape, dtype=np.uint8, offset=352) -> bytes:
    """A NIfTI-1 header that promises voxels, and the four bytes behind it."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header["dim"][:4] = [3, *shape]
    header["pixdim"][:4] = 1
    header["sform_code"] = 1
    for axis, row in enumerate(("srow_x", "srow_y", "srow_z")):
        header[row][axis] = 1
    header["magic"], header["vox_offset"] = b"n+1", offset
    return header.binaryblock + b"\0" * 4


BOMBS = {
    "an honest header of 8.6 GB": (header_of((1024, 1024, 1024), np.float64), "MOST"),
    "a header of one voxel before 64 MB": (header_of((1, 1, 1)), "more than the 353 bytes"),
    "voxels behind 1 GB": (header_of((1, 1, 1), offset=2**30), "MOST"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_a_small_gzip_unpacks_to_stays_within_its_header(tmp_path, bomb):
    start, said = BOMBS[bomb]
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(start + bytes(2**26), 1))
    tracemalloc.start()
    with pytest.raises(ValueError) as error:
        nifti.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert said.replace("MOST", f"{nifti.MOST_VOXELS} voxels at most") in str(error.value)
    assert peak < 2**24


def test_a_few_bytes_behind_the_voxels_are_no_harm(tmp_path):
    path = save(tmp_path / "image.nii.gz", one_lesion())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(100)))
    assert np.array_equal(nifti.binary_mask(nifti.read(path)), one_lesion())
