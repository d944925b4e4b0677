"""A real study read by SimpleITK, in another layout, is the study that the intake writes."""

import shutil
from collections import defaultdict

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from cmrvlm.study.series_files import read_image
from data_modules.dicom.ingest import Ingest

# Folders of the short-axis slices, as others drew contours on them.
FOLDERS = ("Se11", "Se1", "Se2", "Se3", "Se4", "Se5")


@pytest.fixture(scope="module")
def siemens(tmp_path_factory, real_data):
    folder = tmp_path_factory.mktemp("siemens")
    shutil.unpack_archive(real_data / "dicom" / "bivme_siemens" / "patient1.tar.gz", folder / "in")
    return folder


@pytest.fixture(scope="module")
def ingested(siemens):
    """Short axis as the intake writes it."""
    ingestion = Ingest(str(siemens / "in"), str(siemens / "out"), str(siemens / "key"), workers=1)
    (result,) = ingestion.run(ingestion.find_files())
    assert not result.doubts
    return read_image(siemens / "out" / result.study_id / "sax.nii.gz", "sax")


def files_by_time(folder):
    """Files of one slice in the order of their trigger times."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: float(pydicom.dcmread(path).TriggerTime))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["apex", "base"])
def test_simpleitk_reads_what_the_intake_writes(siemens, ingested, tmp_path, order):
    by_time = defaultdict(list)
    for name in FOLDERS[order]:
        (folder,) = (path for path in (siemens / "in").rglob(name) if path.is_dir())
        for time, path in enumerate(files_by_time(folder)):
            by_time[time].append(str(path))
    frames = []
    for time, names in sorted(by_time.items()):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        # Rows and columns exchanged, as another converter may store them.
        volume = sitk.PermuteAxes(reader.Execute(), [1, 0, 2])
        sitk.WriteImage(volume, str(tmp_path / f"{time}.nii.gz"))
        frames.append(nib.load(tmp_path / f"{time}.nii.gz"))
    cine = np.stack([np.asarray(frame.dataobj) for frame in frames], axis=3)
    nib.save(nib.Nifti1Image(cine, frames[0].affine), tmp_path / "sax.nii.gz")
    image, affine = read_image(tmp_path / "sax.nii.gz", "sax")
    expected, expected_affine = ingested
    assert np.array_equal(image, expected)
    assert np.allclose(affine, expected_affine, atol=1e-2)
