"""Intake by several processes gives what one process gives, in the same order."""

import json
from pathlib import Path

import pytest

from data_modules.dicom.ingest import Ingest
from data_modules.dicom.scan import files_of, scan
from tests.data_modules.dicom.archive import Archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three studies of two patients, and files of other kinds between them; more than a batch."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(3):
        study = folder / f"study{number}"
        study.mkdir()

        def change(image, *_, number=number):
            image.PatientID = f"P{number // 2}"
            image.StudyInstanceUID = f"1.2.{number}"

        Archive(study).cine(slices=4, frames=6, change=change)
        for note in range(4):
            (study / f"note{note}.txt").write_text("no image")
    return folder


def told(found):
    """What is said of each file: the reason, or where its images lie."""
    return [
        getattr(one, "reason", None) or [str(image.position_mm) for image in one] for one in found
    ]


def test_headers_come_in_the_order_of_the_files(archive):
    paths = files_of(archive)
    assert len(paths) > 64
    assert told(scan(paths, 2)) == told(scan(paths, 1))


def test_studies_are_those_of_one_process(archive, tmp_path):
    results = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        ingestion = Ingest(str(archive), str(out), str(tmp_path / "keys" / "key"), workers=workers)
        files = ingestion.find_files()
        found = list(ingestion.run(files))
        summary = ingestion.summary(found, files.left_out, out)
        written = {
            path.relative_to(out): path.read_bytes() for path in sorted(Path(out).rglob("*.nii.gz"))
        }
        results.append((json.dumps(summary), written))
    assert len(results[0][1]) == 3
    assert results[0] == results[1]
