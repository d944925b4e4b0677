"""Files that claim what they do not hold, or hold what no scanner writes."""

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_study
from cmrvlm.study.series_files import read_image, read_nifti

SHAPE = (32, 30, 4)
AFFINE = np.diag([4.0, 5.0, 10.0, 1.0])
# Offsets in bytes of the fields of a NIfTI-1 header, as the standard lists them.
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, INTER, UNITS = 40, 70, 72, 76, 108, 112, 116, 123
SROW_X = 280


@pytest.fixture(scope="module")
def content() -> bytes:
    """Return a sound file, uncompressed."""
    values = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
    return nib.Nifti1Image(values, AFFINE).to_bytes()


def changed(content: bytes, *changes: tuple[int, str, float]) -> bytes:
    raw = bytearray(content)
    for offset, kind, value in changes:
        struct.pack_into(f"<{kind}", raw, offset, value)
    return bytes(raw)


FAULTS = {
    "unknown type": ("datatype", [(DATATYPE, "h", 77)]),
    "binary": ("datatype", [(DATATYPE, "h", 1), (BITPIX, "h", 1)]),
    "complex": ("datatype", [(DATATYPE, "h", 32), (BITPIX, "h", 64)]),
    "colour": ("datatype", [(DATATYPE, "h", 128), (BITPIX, "h", 24)]),
    "colour with alpha": ("datatype", [(DATATYPE, "h", 2304), (BITPIX, "h", 32)]),
    "bits": ("bitpix", [(BITPIX, "h", 8)]),
    "no bits": ("bitpix", [(BITPIX, "h", 0)]),
    "offset in header": ("vox_offset", [(VOX_OFFSET, "f", 100)]),
    "offset 0": ("vox_offset", [(VOX_OFFSET, "f", 0)]),
    "offset beyond": ("dim", [(VOX_OFFSET, "f", 1e6)]),
    "offset nan": ("vox_offset", [(VOX_OFFSET, "f", np.nan)]),
    "slope nan": ("scl_slope", [(SLOPE, "f", np.nan)]),
    "slope inf": ("scl_slope", [(SLOPE, "f", np.inf)]),
    "slope absurd": ("scl_slope", [(SLOPE, "f", 1e38)]),
    "slope tiny": ("scl_slope", [(SLOPE, "f", 1e-38)]),
    "inter nan": ("scl_inter", [(INTER, "f", np.nan)]),
    "inter absurd": ("scl_inter", [(INTER, "f", -1e38)]),
    "huge": ("dim", [(DIM + 2 * axis, "h", 32767) for axis in (1, 2, 3)]),
    "twice as long": ("dim", [(DIM + 6, "h", 8)]),
    "one frame too many": ("dim", [(DIM, "h", 4), (DIM + 8, "h", 2)]),
    "negative": ("dim", [(DIM + 2, "h", -32)]),
    "no axes": ("dim", [(DIM, "h", 0)]),
    "nine axes": ("dim", [(DIM, "h", 9)]),
    "half as long": ("dim", [(DIM + 6, "h", 1)]),
    "one voxel": ("dim", [(DIM + 2 * axis, "h", 1) for axis in (1, 2, 3)]),
    "affine nan": ("srow_x", [(SROW_X, "f", np.nan)]),
    "spacing inf": ("pixdim", [(PIXDIM + 4, "f", np.inf)]),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_header_is_refused_by_file_and_field(tmp_path, content, fault, ending):
    field, changes = FAULTS[fault]
    raw = changed(content, *changes)
    path = tmp_path / f"sax{ending}"
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    with pytest.raises(CmrvlmError, match=rf"sax{ending}, field '{field}'"):
        read_nifti(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_sound_file_is_read_as_nibabel_reads_it(tmp_path, content, ending):
    path = tmp_path / f"sax{ending}"
    raw = changed(content, (SLOPE, "f", 0.5), (INTER, "f", -3))
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    image, affine = read_nifti(path)
    np.testing.assert_allclose(image[:, 0].transpose(2, 1, 0), nib.load(path).get_fdata())
    np.testing.assert_allclose(affine, nib.load(path).affine)


def test_types_that_scanners_and_tools_write_are_read(tmp_path):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 120
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype in ("u1", "i1", "<i2", ">i2", "u2", "i4", "f4", ">f4", "f8"):
            path = tmp_path / "a.nii.gz"
            nib.save(kind(values.astype(dtype), AFFINE, dtype=np.dtype(dtype)), path)
            assert (read_nifti(path)[0][:, 0].transpose(2, 1, 0) == values).all()


def test_flipped_bytes_and_a_cut_stream_are_refused(tmp_path, content):
    packed = gzip.compress(content)
    path = tmp_path / "sax.nii.gz"
    for place in (len(packed) // 2, len(packed) - 6, len(packed) - 200):
        damaged = bytearray(packed)
        damaged[place] ^= 0x10
        path.write_bytes(bytes(damaged))
        with pytest.raises(CmrvlmError, match=r"sax\.nii\.gz.*cannot be read"):
            read_nifti(path)
    for length in (0, 3, 200, len(packed) // 2, len(packed) - 4):
        path.write_bytes(packed[:length])
        with pytest.raises(CmrvlmError, match=r"sax\.nii\.gz"):
            read_nifti(path)
    plain = tmp_path / "sax.nii"
    for raw in (content[:-1], content[:300], b"", packed):
        plain.write_bytes(raw)
        with pytest.raises(CmrvlmError, match=r"sax\.nii"):
            read_nifti(plain)


def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path):
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    # Opening a pipe that nobody writes into would never return.
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "text.txt").write_text("x")
    problems = {
        "link.nii.gz": "leads nowhere",
        "loop.nii.gz": "leads nowhere",
        "folder.nii.gz": "folder",
        "pipe.nii.gz": "pipe",
        "missing.nii.gz": "no such file",
        "text.txt": "NIfTI",
    }
    for name, problem in problems.items():
        with pytest.raises(CmrvlmError, match=rf"{name}.*{problem}"):
            read_nifti(tmp_path / name)


@pytest.mark.parametrize("name", ["link", "pipe", "twice", "damaged"])
def test_a_series_that_is_named_and_cannot_be_read_is_an_error(tmp_path, content, name):
    """Beside a sound late enhancement, which alone would make a report without the cine."""
    (tmp_path / "lge.nii").write_bytes(content)
    cine = tmp_path / "sax.nii.gz"
    if name == "link":
        cine.symlink_to(tmp_path / "elsewhere.nii.gz")
    elif name == "pipe":
        os.mkfifo(cine)
    else:
        cine.write_bytes(gzip.compress(content)[: None if name == "twice" else -9])
    if name == "twice":
        (tmp_path / "sax.nii").write_bytes(content)
    with pytest.raises(CmrvlmError, match="sax"):
        read_study(tmp_path)
    cine.unlink()
    (tmp_path / "sax.nii").unlink(missing_ok=True)
    assert set(read_study(tmp_path).series) == {"lge"}


UNITS_OF = {"metres": (1, 0.001), "mm": (2, 1.0), "microns": (3, 1000.0), "none": (0, 1.0)}


@pytest.mark.parametrize("unit", UNITS_OF)
def test_lengths_are_read_in_their_unit(tmp_path, unit):
    code, factor = UNITS_OF[unit]
    image = nib.Nifti1Image(np.random.default_rng(0).random(SHAPE), np.diag([*[factor] * 3, 1]))
    image.set_sform(np.diag([4 * factor, 5 * factor, 10 * factor, 1]), code=1)
    image.set_qform(image.affine, code=1)
    image.header["xyzt_units"] = code
    nib.save(image, tmp_path / "lge.nii.gz")
    _, affine = read_image(tmp_path / "lge.nii.gz", "lge")
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [4, 5, 10], rtol=1e-5)


GEOMETRIES = {
    "no pixel": ((0, 0, 10), "0 x 0 mm"),
    "tiny": ((1e-10, 1e-10, 10), "field of view"),
    "huge": ((1e10, 1e10, 10), "field of view"),
    "1 mm": ((1 / 32, 1 / 30, 10), "1 x 1 mm"),
    "10 m": ((312.5, 333.4, 10), "field of view"),
    "a line": ((4, 0.01, 10), "0.3 mm"),
    "far slices": ((4, 5, 100), "100 mm apart"),
    "near slices": ((4, 5, 0.1), "0.1 mm apart"),
    "no heart": ((4, 5, 1.25), "make 5 mm"),
    "unit": ((1, 1, 1), "field of view"),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_what_is_no_chest_is_refused_with_the_number(tmp_path, name):
    spacing, problem = GEOMETRIES[name]
    image = nib.Nifti1Image(np.random.default_rng(0).random(SHAPE), None)
    image.header["pixdim"][1:4] = spacing
    image.set_sform(np.diag([*spacing, 1]), code=1, update_affine=False)
    nib.save(image, tmp_path / "lge.nii.gz")
    with pytest.raises(CmrvlmError, match=rf"lge\.nii\.gz.*{problem}"):
        read_image(tmp_path / "lge.nii.gz", "lge")
    with pytest.raises(CmrvlmError, match=rf"lge\.nii\.gz.*{problem}"):
        read_study(tmp_path)


def test_axes_that_coincide_are_refused(tmp_path):
    affine = np.diag([4.0, 5.0, 10.0, 1.0])
    affine[:3, 1] = affine[:3, 0] * 1.25
    image = nib.Nifti1Image(np.random.default_rng(0).random(SHAPE), None)
    image.set_sform(affine, code=1)
    image.header["pixdim"][1:4] = (4, 5, 10)
    nib.save(image, tmp_path / "lge.nii.gz")
    with pytest.raises(CmrvlmError, match="singular"):
        read_image(tmp_path / "lge.nii.gz", "lge")


def test_public_sets_pass(real_data):
    images = [*Path(real_data, "acdc").rglob("*frame01.nii.gz"), *Path(real_data).rglob("Images/*")]
    for path in images[::6]:
        values = nib.load(path).get_fdata()
        image, _ = read_image(path, "sax")
        assert image.size == values.size
