"""A header is read one way, in mm; what is written lies where its source does, for all readers."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lesion_core.itk import as_itk
from lesion_core.nifti import finite_values, read, read_header, write_like
from lesion_core.placement import placement_oddities

SHAPE = (4, 5, 6)
MM = np.array([[0.8, 0.3, 0, 5], [-0.3, 0.8, 0.2, 6], [0, -0.1, 2.9, 7], [0, 0, 0, 1]])
MM[:3, :3] = np.linalg.qr(MM[:3, :3])[0] * np.array([-0.9, 1.1, 3.0])
"""Oblique: no axis lies along one of the body's."""
ELSEWHERE = MM.copy()
ELSEWHERE[:3, 3] += 4, 3, 5  # 7.07 mm
SHEARED = MM.copy()
SHEARED[:3, 1] += 0.2 * SHEARED[:3, 0]
LEFT_HANDED = MM @ np.diag([1, 1, -1, 1])


def write(path: Path, *, sform=None, qform=None, codes=(1, 1), units="mm", kind=nib.Nifti1Image):
    """A file of these transforms in mm, with the units in its header; None has code 0."""
    per_mm = {"meter": 1e-3, "mm": 1, "micron": 1e3, "unknown": 1}[units]
    scale = np.diag([per_mm] * 3 + [1])
    image = kind(np.arange(120, dtype=np.float32).reshape(SHAPE), None)
    header = image.header
    header.set_zooms(np.array([1.0, 1, 3]) * per_mm)
    if qform is not None:
        header.set_qform(scale @ qform, codes[1])
    if sform is not None:
        header.set_sform(scale @ sform, codes[0])
        if qform is None:
            header.set_zooms(nib.affines.voxel_sizes(scale @ sform))
    header.set_xyzt_units(units)
    path.write_bytes(gzip.compress(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())
    return path


def patched(path: Path, **fields) -> Path:
    """Header fields overwritten behind nibabel's back."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


def by_itk(path: Path):
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        return str(error).splitlines()[-1].replace(path.name, "")
    return image.GetOrigin(), image.GetSpacing(), image.GetDirection(), image.GetSize()


HEADERS = {
    "sform only": {"sform": MM},
    "qform only": {"qform": MM},
    "both": {"sform": MM, "qform": MM},
    "apart, scanner": {"sform": MM, "qform": ELSEWHERE},
    "apart, aligned": {"sform": MM, "qform": ELSEWHERE, "codes": (2, 1)},
    "apart, template": {"sform": MM, "qform": ELSEWHERE, "codes": (4, 2)},
    "neither": {},
    "sheared": {"sform": SHEARED},
    "sheared, with qform": {"sform": SHEARED, "qform": MM, "codes": (2, 1)},
    "left-handed": {"sform": LEFT_HANDED, "qform": LEFT_HANDED},
    "left-handed qform": {"qform": LEFT_HANDED},
    "metres": {"sform": MM, "qform": MM, "units": "meter"},
    "metres, apart": {"sform": MM, "qform": ELSEWHERE, "codes": (2, 1), "units": "meter"},
    "microns": {"qform": MM, "units": "micron"},
    "unknown units": {"sform": MM, "units": "unknown"},
    "NIfTI-2": {"sform": MM, "qform": ELSEWHERE, "kind": nib.Nifti2Image},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", HEADERS)
def test_what_is_written_lies_where_its_source_lies_for_nibabel_and_itk(tmp_path, name, dtype):
    source = write(tmp_path / "source.nii.gz", **HEADERS[name])
    voxels = np.random.default_rng(0).integers(0, 2, SHAPE).astype(dtype)
    write_like(tmp_path / "mask.nii.gz", voxels, read_header(source))
    there, here = nib.load(source), nib.load(tmp_path / "mask.nii.gz")
    assert type(here) is type(there)
    assert here.affine.tobytes() == there.affine.tobytes()
    for form in ("get_sform", "get_qform"):
        (ours, our_code), (theirs, their_code) = (
            getattr(header, form)(coded=True) for header in (here.header, there.header)
        )
        assert our_code == their_code
        assert ours is theirs is None or ours.tobytes() == theirs.tobytes()
    assert here.header.get_xyzt_units() == there.header.get_xyzt_units()
    assert by_itk(tmp_path / "mask.nii.gz") == by_itk(source)
    np.testing.assert_array_equal(np.asanyarray(here.dataobj), voxels)
    assert here.get_data_dtype() == dtype
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_masks_hold_nothing_else_of_their_source_and_have_its_shape(tmp_path):
    source = patched(write(tmp_path / "a.nii", sform=MM), descrip=b"Jane Doe", cal_max=9)
    write_like(tmp_path / "mask.nii", np.zeros(SHAPE, np.uint8), read_header(source))
    header = nib.load(tmp_path / "mask.nii").header
    assert (header["descrip"].item(), float(header["cal_max"])) == (b"", 0)
    with pytest.raises(ValueError, match=r"4 x 5 x 5 cannot lie where those of a\.nii do"):
        write_like(tmp_path / "b.nii", np.zeros((4, 5, 5), np.uint8), read_header(source))
    assert not (tmp_path / "b.nii").exists()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("which", [("sform",), ("qform",), ("sform", "qform")])
@pytest.mark.parametrize("units", ["meter", "mm", "micron", "unknown"])
def test_a_place_is_in_mm_whatever_the_unit_as_it_is_for_itk(tmp_path, units, which, kind):
    path = write(tmp_path / "a.nii", units=units, kind=kind, **dict.fromkeys(which, MM))
    header = read_header(path)
    np.testing.assert_allclose(header.affine, MM, atol=1e-5)
    np.testing.assert_allclose(header.spacing_mm, [0.9, 1.1, 3.0], rtol=1e-5)
    np.testing.assert_allclose(header.header_mm, header.spacing_mm, rtol=1e-5)
    assert placement_oddities(header) == []
    if kind is nib.Nifti1Image:
        ours = as_itk(finite_values(read(path)), header)
        for mine, theirs in zip(
            (ours.GetOrigin(), ours.GetSpacing(), ours.GetDirection()), by_itk(path), strict=False
        ):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("units", ["mm", "meter"])
@pytest.mark.parametrize(
    ("codes", "itk"), [((1, 1), "use sform as well"), ((2, 1), "use qform"), ((4, 2), "use qform")]
)
def test_the_sform_counts_and_what_itk_does_is_said(tmp_path, codes, itk, units):
    path = write(tmp_path / "a.nii", sform=MM, qform=ELSEWHERE, codes=codes, units=units)
    header = read_header(path)
    np.testing.assert_allclose(header.affine, MM, atol=1e-5)
    assert placement_oddities(header) == [
        f"sform and qform disagree by 7.07 mm; sform is used; ITK-based viewers {itk}"
    ]
    written = np.abs(np.array(by_itk(path)[0]) * [-1, -1, 1] - MM[:3, 3]).max() < 1e-4
    assert written == (itk == "use sform as well")


def test_shear_is_told_with_what_it_does_and_a_little_is_none(tmp_path):
    (line,) = placement_oddities(read_header(write(tmp_path / "a.nii", sform=SHEARED)))
    assert line.startswith("the affine is sheared, axes up to 9.3 degrees from right angles; ")
    assert "ITK-based viewers cannot open it" in line
    almost = MM.copy()
    almost[:3, 1] += 1e-5 * almost[:3, 0]
    assert placement_oddities(read_header(write(tmp_path / "b.nii", sform=almost))) == []
    skew = np.eye(4)
    skew[:3, 1] = 0.95, 0.05, 0
    with pytest.raises(ValueError, match=r"a\.nii: the affine is singular, sheared beyond use"):
        read_header(write(tmp_path / "a.nii", sform=skew))


REFUSED = {
    "voxel size 0.001 x 0.001 x 0.003 mm; expected 0.05 to 20 mm": {
        "srow_x": [1e-3, 0, 0, 0], "srow_y": [0, 1e-3, 0, 0], "srow_z": [0, 0, 3e-3, 0],
    },
    "voxel size 1000 x 1000 x 3000 mm; expected": {
        "srow_x": [1e3, 0, 0, 0], "srow_y": [0, 1e3, 0, 0], "srow_z": [0, 0, 3e3, 0],
    },
    "voxel size 1 x 1 x 21 mm; expected": {
        "srow_x": [1, 0, 0, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 21, 0],
    },
    "voxel size nan x 1 x 3 mm in the header": {"pixdim": [1, np.nan, 1, 3, 0, 0, 0, 0]},
    "spatial unit 5 in the header": {"xyzt_units": 5},
    "sform_code is 9": {"sform_code": 9},
    "qform_code is -1": {"qform_code": -1},
    "pixdim[0] is -0.5": {"pixdim": [-0.5, 1, 1, 3, 0, 0, 0, 0], "qform_code": 1},
    "quaternion (1 x 1 x 1) is no rotation": {
        "qform_code": 1, "quatern_b": 1, "quatern_c": 1, "quatern_d": 1,
    },
    "the affine is singular": {"srow_x": [0, 0, 0, 0]},
    "scl_slope nan and scl_inter 0": {"scl_slope": np.nan},
    "scl_slope 2 and scl_inter nan": {"scl_slope": 2, "scl_inter": np.nan},
    "scl_slope inf": {"scl_slope": np.inf},
    "scl_slope 0 and scl_inter 5": {"scl_slope": 0, "scl_inter": 5},
    "4D image of shape 4 x 5 x 6 x 1": {"dim": [4, 4, 5, 6, 1, 1, 1, 1]},
}  # fmt: skip


@pytest.mark.parametrize("complaint", REFUSED)
def test_headers_that_readers_take_differently_or_that_no_head_has_are_refused(tmp_path, complaint):
    path = patched(write(tmp_path / "a.nii", sform=np.diag([1, 1, 3, 1])), **REFUSED[complaint])
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and complaint in message and "\n" not in message


def plain(path: Path) -> bytes:
    return write(path.with_name("plain.nii"), sform=MM).read_bytes()


PACKED = {
    "x.nii.gz, plain": (lambda p: p, "rename it to x.nii, or compress it"),
    "x.nii.gz, a page": (lambda p: b"<html>404</html>", "copy or download it again"),
    "x.nii.gz, twice": (lambda p: gzip.compress(gzip.compress(p)), "gzipped twice"),
    "x.nii.gz, junk behind": (
        lambda p: gzip.compress(p) + b"\0\0junk",
        "(4 bytes that do not belong there follow the compressed image); compress it anew",
    ),
    "x.nii.gz, truncated": (lambda p: gzip.compress(p)[:-9], "copy or download it again"),
    "x.nii.gz, second half truncated": (
        lambda p: gzip.compress(p[:400]) + gzip.compress(p[400:])[:-9],
        "copy or download it again",
    ),
    "x.nii.gz, damaged": (
        lambda p: gzip.compress(p)[:-8] + b"abcdefgh",
        "CRC check failed",
    ),
    "x.nii.gz, bzip2": (lambda p: b"BZh91AY&SY", "compressed by bzip2"),
    "x.nii, gzipped": (gzip.compress, "gzipped, but not named so); rename it to x.nii.gz"),
}


@pytest.mark.parametrize("case", PACKED)
def test_files_that_are_not_packed_as_named_are_refused_each_with_its_own_cure(tmp_path, case):
    change, cure = PACKED[case]
    path = tmp_path / case.partition(",")[0]
    path.write_bytes(change(plain(path)))
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and cure in message and "\n" not in message
    assert ("download it again" in message) == ("download" in cure or "CRC" in cure)


def test_padding_with_zeros_and_streams_in_a_row_are_legal_gzip(tmp_path):
    content = plain(tmp_path / "x")
    for packed in (
        gzip.compress(content) + bytes(512),
        gzip.compress(content[:400]) + gzip.compress(content[400:]),
    ):
        path = tmp_path / "x.nii.gz"
        path.write_bytes(packed)
        assert finite_values(read(path)).ravel(order="F")[1] == 30
