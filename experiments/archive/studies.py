"""Small synthetic studies in any number: NIfTI files with a table, and DICOM files."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from cmrvlm.study.files import write_nifti
from cmrvlm.study.study import Series, Study
from data_modules.sources.phantom.source import PhantomSource

MANIFEST = "studies.csv"
# A mask is linked by all studies of one phantom; images differ.
PHANTOMS = 16
SMALL: dict[str, Any] = {"size": 64, "slices": 6, "frames": 8, "spacing_mm": (3.2, 3.4)}
# Points along each side of the coarse grid of a study's own shading.
_SHADING_POINTS = 5
# As long as the reports of a hospital in two languages.
_REPORT = (
    "The left ventricle has a normal size and wall thickness. Function is preserved and there is "
    "no regional wall motion abnormality. The right ventricle is of normal size. Both atria are "
    "not enlarged. There is no late gadolinium enhancement and no pericardial effusion. "
) * 3
FILES_OF_A_DICOM_STUDY = 200
_FRAMES = 25
_SIDE = 64


def write_manifest(folder: Path, count: int) -> Path:
    """Write studies of a short-axis cine (6, 8, 64, 64) with masks, and a table of them.

    What is there already is kept, so that a run that was stopped goes on.

    Args:
        folder: Folder of the table and the files.
        count: Number of studies.

    Returns:
        The table.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    source = PhantomSource(count=PHANTOMS, **SMALL)
    phantoms = [source.load(study_id) for study_id in source.study_ids()]
    for number, phantom in enumerate(phantoms):
        mask = phantom.series["sax"].mask
        assert mask is not None
        path = images / f"mask-{number}.nii.gz"
        if not path.is_file():
            write_nifti(path, np.asarray(mask), phantom.series["sax"].affine)

    rows = []
    for number in range(count):
        phantom = phantoms[number % PHANTOMS]
        _write_image(images / f"{number:05d}.nii.gz", phantom.series["sax"], number)
        mask_path = images / f"{number:05d}_mask.nii.gz"
        if not mask_path.is_file():
            os.link(images / f"mask-{number % PHANTOMS}.nii.gz", mask_path)
        rows.append(_row(phantom, number))

    table = folder / MANIFEST
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def _write_image(path: Path, series: Series, number: int) -> None:
    """Write the image of a phantom with a shading that no other study has."""
    if path.is_file():
        return
    rng = np.random.default_rng([2, number])
    image = np.asarray(series.image, np.float32)  # (Z, T, H, W)
    shading = _shading(image.shape[2:], rng)  # (H, W)
    scaled = 1000 * (image - image.min()) / np.ptp(image) * shading + rng.normal(0, 5, image.shape)
    temporary = path.with_name(f"part-{path.name}")
    write_nifti(temporary, scaled.clip(0).astype(np.int16), series.affine)
    temporary.rename(path)


def _shading(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw factors (H, W) that change slowly over a plane."""
    coarse = rng.uniform(0.2, 1.8, (_SHADING_POINTS, _SHADING_POINTS))
    points = np.linspace(0, 1, _SHADING_POINTS)
    rows = np.linspace(0, 1, shape[0])
    columns = np.linspace(0, 1, shape[1])
    along_rows = np.array([np.interp(rows, points, line) for line in coarse.T])  # (points, H)
    return np.array([np.interp(columns, points, line) for line in along_rows.T])


def _row(phantom: Study, number: int) -> dict[str, object]:
    """Return the row of a study."""
    sax = phantom.series["sax"]
    return {
        "study_id": f"study-{number:05d}",
        "patient_id": f"patient-{number:05d}",
        "sax": f"images/{number:05d}.nii.gz",
        "sax_mask": f"images/{number:05d}_mask.nii.gz",
        "sax_ed_frame": sax.phases["ed"],
        "sax_es_frame": sax.phases["es"],
        "diseases": " ".join(sorted(phantom.labels.diseases or ())),
        "report_en": f"{_REPORT}Study {number}.",
    }


def write_dicom(folder: Path, count: int) -> None:
    """Write single-frame MR files (64, 64), 200 to a study of 8 slices and 25 frames.

    Args:
        folder: Folder of the studies.
        count: Number of files.
    """
    for study in range(-(-count // FILES_OF_A_DICOM_STUDY)):
        target = folder / f"{study:05d}"
        if target.is_dir():
            continue
        temporary = folder / f"part-{study:05d}"
        temporary.mkdir(parents=True, exist_ok=True)
        first = study * FILES_OF_A_DICOM_STUDY
        of_study = min(FILES_OF_A_DICOM_STUDY, count - first)
        for number, dataset in enumerate(_datasets(study, of_study)):
            dataset.save_as(temporary / f"{number:03d}.dcm", enforce_file_format=True)
        temporary.rename(target)


def _datasets(study: int, count: int) -> Iterator[Dataset]:
    """Yield the files of a short-axis cine."""
    rng = np.random.default_rng([3, study])
    plane = rng.integers(0, 1000, (_SIDE, _SIDE)).astype(np.uint16)
    for number in range(count):
        place, frame = divmod(number, _FRAMES)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{study + 1}.1.{number + 1}"
        dataset = Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.Modality = "MR"
        dataset.PatientID = f"patient-{study}"
        dataset.PatientName = f"Synthetic^{study}"
        dataset.StudyInstanceUID = f"1.2.826.0.1.{study + 1}"
        dataset.SeriesInstanceUID = f"1.2.826.0.1.{study + 1}.1"
        dataset.SeriesNumber = 1
        dataset.SeriesDescription = "cine_sax"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        dataset.ScanningSequence = "GR"
        dataset.InstanceNumber = number + 1
        dataset.NumberOfTemporalPositions = _FRAMES
        dataset.TriggerTime = frame * 32.0
        dataset.NominalInterval = 800
        dataset.CardiacNumberOfImages = _FRAMES
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, place * 10.0]
        dataset.SliceLocation = place * 10.0
        dataset.PixelSpacing = [3.2, 3.2]
        dataset.SliceThickness = 8.0
        dataset.Rows = _SIDE
        dataset.Columns = _SIDE
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = 16
        dataset.BitsStored = 12
        dataset.HighBit = 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = (plane + frame).tobytes()
        yield dataset
