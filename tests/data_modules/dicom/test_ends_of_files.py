"""Bytes lost or added in pixels are found by what follows them; what may follow them is let be."""

from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from data_modules.dicom.scan import LeftOut, scan
from tests.data_modules.dicom.archive import base_dataset, set_pixels


@pytest.fixture
def sound(tmp_path):
    """A file of one image whose last byte is no zero, and where its pixels begin."""
    image = base_dataset(SeriesInstanceUID="1.2", ImagePositionPatient=[0.0, 0.0, 0.0])
    set_pixels(image, 0x1234)
    path = tmp_path / "sound.dcm"
    image.save_as(path, enforce_file_format=True)
    return path, path.read_bytes().index(image.PixelData)


def reason(path):
    (found,) = scan([path])
    return found.reason if isinstance(found, LeftOut) else ""


@pytest.mark.parametrize("place", [0, 10, 700])
@pytest.mark.parametrize("added", [b"\x00", b"\x07", b"ab", b"abcdefghij", bytes(range(200))])
def test_bytes_added_in_pixels_leave_the_file_out(sound, place, added):
    path, begin = sound
    content = path.read_bytes()
    path.write_bytes(content[: begin + place] + added + content[begin + place :])
    assert reason(path) == "damaged in its pixels or after them"


@pytest.mark.parametrize("lost", [1, 2, 100])
def test_bytes_lost_in_pixels_leave_the_file_out(sound, lost):
    path, begin = sound
    content = path.read_bytes()
    path.write_bytes(content[:begin] + content[begin + lost :])
    assert reason(path) in ("truncated file", "damaged in its pixels or after them")


@pytest.mark.parametrize("length", [2, 7, 2**31, 2**32 - 2])
def test_a_length_that_does_not_fit_leaves_the_file_out(sound, length):
    """Nothing is reserved for what a file only claims to hold."""
    path, begin = sound
    content = path.read_bytes()
    path.write_bytes(content[: begin - 4] + length.to_bytes(4, "little") + content[begin:])
    assert reason(path) == "damaged in its pixels or after them"


@pytest.mark.parametrize(
    "tail",
    [
        bytes(512),
        b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0abcd",
        b"\xe1\x7f\x10\x00LO\x08\x00SIEMENS ",
        b"\xe1\x7f\x10\x00LO\x08\x00SIEMENS \xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0",
    ],
    ids=["zeros", "padding", "private", "both"],
)
def test_what_may_follow_pixels_is_let_be(sound, tail):
    path, _ = sound
    with path.open("ab") as file:
        file.write(tail)
    assert reason(path) == ""
    assert pydicom.dcmread(path).pixel_array.max() == 0x1234


@pytest.mark.parametrize(
    "name",
    ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_padded.dcm", "MR_small_RLE.dcm",
     "MR_small_implicit.dcm", "MR_small_expb.dcm"],
)  # fmt: skip
def test_files_of_others_are_let_be(name):
    assert reason(Path(get_testdata_file(name))) == ""
