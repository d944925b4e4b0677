"""The studies of the archive experiment: whole, each with an image of its own, and its memory."""

import os
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from data_modules.sources.manifest import ManifestSource
from experiments.archive.run import memory_bytes, table_of
from experiments.archive.studies import write_dicom, write_manifest


def test_studies_differ_and_are_kept(tmp_path):
    table = write_manifest(tmp_path, 3)
    image = tmp_path / "images" / "00001.nii.gz"
    os.utime(image, (1, 1))
    source = ManifestSource(str(write_manifest(tmp_path, 18)))
    assert image.stat().st_mtime == 1
    assert source.path == table
    assert len(source.study_ids()) == 18
    first, other = (source.load(source.study_ids()[number]).series["sax"] for number in (0, 16))
    assert first.image.shape == (6, 8, 64, 64)
    assert set(first.phases) == {"ed", "es"}
    assert np.array_equal(first.mask, other.mask)
    assert np.corrcoef(first.image.ravel(), other.image.ravel())[0, 1] < 0.99


@pytest.mark.parametrize("count", [1, 30, 201])
def test_dicom_files_are_as_many_as_said(tmp_path, count):
    write_dicom(tmp_path, count)
    files = sorted(tmp_path.rglob("*.dcm"))
    assert len(files) == count
    ids = {pydicom.dcmread(file).SOPInstanceUID for file in files}
    assert len(ids) == count


def test_memory_counts_children(tmp_path):
    program = (
        "import subprocess, sys; x = bytearray(30_000_000);"
        "subprocess.run([sys.executable, '-c', 'y = bytearray(60_000_000); print(1, flush=True);"
        "input()'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert memory_bytes(process.pid) > 90_000_000
        process.communicate(b"\n")
    assert memory_bytes(process.pid) == 0


def test_table_has_a_row_for_each_measurement():
    measured = {"seconds": 20.0, "peak_mb": 300, "status": 0}
    table = table_of({"cores": 2, "check": {"1000": {"first": measured, "again": measured}}})
    assert table.splitlines()[2:] == ["| check | 1,000 | 20 | 20.0 | 300 | 20 | 300 |"]
