"""A value that says how pixels are stored, and cannot be read, costs its image and not the study."""

import nibabel as nib
import pydicom
import pytest
from pydicom.dataelem import RawDataElement

from data_modules.dicom.ingest import Ingest
from tests.data_modules.dicom.archive import Archive

FIELDS = (
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PhotometricInterpretation",
)


def damage(path, field, content):
    """Write bytes in place of a value, which pydicom would refuse to."""
    image = pydicom.dcmread(path)
    element = image[field]
    image._dict[element.tag] = RawDataElement(
        element.tag, element.VR, len(content), content, 0, False, True
    )
    image.save_as(path)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "content", [b"x", b"", b"1\\2\\3\\4\\5\\6\\7"], ids=["short", "none", "long"]
)
def test_one_image_is_left_out_and_the_cine_stays(tmp_path, field, content):
    Archive(tmp_path / "in").cine(3, 8)
    damage(min((tmp_path / "in").iterdir()), field, content)
    out = tmp_path / "out"
    ingestion = Ingest(str(tmp_path / "in"), str(out), str(tmp_path / "key"), workers=1)
    files = ingestion.find_files()
    (found,) = ingestion.run(files)
    assert found.problem == ""
    assert nib.load(next(out.rglob("sax.nii.gz"))).shape[2:] == (3, 8)
    told = [left_out.reason for left_out in files.left_out]
    notes = [note for decision in found.decisions for note in decision["notes"]]
    # Either the image is left out with a reason and its frame filled, or it can be read all the same.
    assert len(told) <= 1
    assert not told or any("interpolated" in note for note in notes)
