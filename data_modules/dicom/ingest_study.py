"""Ingest one study: from its DICOM files to a folder of NIfTI series."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.files import write_study
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import SEQUENCES
from data_modules.dicom.deidentify import Pseudonyms, demographics, scanner
from data_modules.dicom.image import Image
from data_modules.dicom.recognise import Decision, recognise
from data_modules.dicom.scan import read_file
from data_modules.dicom.stacks import Keep, stacks_of
from data_modules.dicom.volumes import series_of


@dataclass(frozen=True)
class StudyFiles:
    """Files of one study.

    Attributes:
        patient: Value that the headers state for the patient.
        study: Value that the headers state for the study.
        file_numbers: Numbers of its files among the sorted files of the archive.
        paths: Its files, in the same order.
    """

    patient: str
    study: str
    file_numbers: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Ingested:
    """Result of the ingestion of one study.

    Attributes:
        study_id: New id.
        row: Row of the manifest, None when none of its stacks is a sequence.
        decisions: Decision about each of its stacks, as plain data.
        problem: Reason why it could not be read, empty otherwise.
    """

    study_id: str
    row: dict[str, Any] | None
    decisions: list[dict[str, Any]]
    problem: str = ""


def ingest_study(
    files: StudyFiles,
    out: Path,
    pseudonyms: Pseudonyms,
    keep: Keep,
    spacing_mm: Sequence[float] | None,
) -> Ingested:
    """Read one study and write its folder, or return what an earlier run wrote.

    Args:
        files: Files of the study.
        out: Folder of all studies.
        pseudonyms: New ids and dates.
        keep: Acquisition of a slice that is kept where there are several.
        spacing_mm: Distance of slices, rows and columns for files without positions; None refuses
            those.
    """
    study_id = pseudonyms.study(files.study)
    folder = out / study_id
    record = folder / "ingest.json"
    # A folder is renamed into place as a whole, so a record means that all of it is there.
    if record.is_file():
        earlier = json.loads(record.read_text())
        return Ingested(study_id, earlier["row"], earlier["decisions"])

    series: dict[str, Series] = {}
    try:
        images = _with_positions(_images_of(files), spacing_mm)
        decisions = recognise(stacks_of(images, keep))
        for decision in decisions:
            if decision.sequence:
                series[decision.sequence] = series_of(decision.stack, spacing_mm)
    except CmrvlmError as error:
        return Ingested(study_id, None, [], str(error))

    plain_decisions = [_as_json(decision) for decision in decisions]
    if not series:
        return Ingested(study_id, None, plain_decisions)
    header = pydicom.dcmread(files.paths[0], stop_before_pixels=True)
    row = _manifest_row(files, header, pseudonyms, series)
    study = Study(
        study_id,
        pseudonyms.patient(files.patient),
        {name: series[name] for name in SEQUENCES if name in series},
        StudyLabels(demographics=demographics(header)),
    )
    _write_folder(folder, study, {"row": row, "decisions": plain_decisions})
    return Ingested(study_id, row, plain_decisions)


def _images_of(files: StudyFiles) -> list[Image]:
    """Read the headers of a study's files."""
    images: list[Image] = []
    for path, file_number in zip(files.paths, files.file_numbers, strict=True):
        images_of_file = read_file(path, file_number)
        # A file may have become unreadable since the archive was scanned.
        if not isinstance(images_of_file, str):
            images += images_of_file
    return images


def _with_positions(images: Sequence[Image], spacing_mm: Sequence[float] | None) -> list[Image]:
    """Place images without a position by their slice location.

    Args:
        images: Images of a study.
        spacing_mm: Distance of slices, rows and columns; None refuses images without a position.

    Raises:
        CmrvlmError: An image has no position and no spacing is given, or no slice location either.
    """
    placed = []
    for image in images:
        if image.position_mm is not None:
            placed.append(image)
            continue
        if spacing_mm is None:
            raise CmrvlmError(
                "images do not say where they lie",
                file=f"file {image.file_number}",
                field="ImagePositionPatient",
                remedy="Give ingest.spacing_mm=[slices,rows,columns].",
            )
        location_mm = image.facts["slice_location_mm"]
        if location_mm is None:
            raise CmrvlmError(
                "nothing tells the order of the slices",
                file=f"file {image.file_number}",
                field="SliceLocation",
                remedy="Leave the series out.",
            )
        position_mm = np.asarray(image.normal * location_mm)
        placed.append(replace(image, position_mm=position_mm))
    return placed


def _manifest_row(
    files: StudyFiles, header: Dataset, pseudonyms: Pseudonyms, series: Mapping[str, Series]
) -> dict[str, Any]:
    """Return the row of a study in the manifest."""
    study_id = pseudonyms.study(files.study)
    row: dict[str, Any] = {
        "study_id": study_id,
        "patient_id": pseudonyms.patient(files.patient),
        "date": pseudonyms.shifted_date(str(header.get("StudyDate", "")), files.patient),
    }
    for name in SEQUENCES:
        row[name] = f"{study_id}/{name}.nii.gz" if name in series else None
    return row | demographics(header) | dict(scanner(header))


def _write_folder(folder: Path, study: Study, record: Mapping[str, Any]) -> None:
    """Write the folder of a study as a whole, so that none is ever there in part."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
        unfinished = Path(temporary) / folder.name
        write_study(study, unfinished)
        write_json(unfinished / "ingest.json", record)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)


def _as_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as plain data."""
    stack = decision.stack
    file_numbers = [image.file_number for image in stack.images]
    return {
        "sequence": decision.sequence or None,
        "slices": stack.slices,
        "phases": stack.phases,
        "slice_places_mm": stack.slice_positions_mm().round(3).tolist(),
        "files": [min(file_numbers), max(file_numbers)],
        "reasons": list(decision.reasons),
        "notes": list(stack.notes),
        "ambiguous": decision.ambiguous,
        "irregular": stack.irregular,
    }
