"""Ingest one study: from its images to a folder of NIfTI series."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.code_key import code_digest
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import SEQUENCES
from data_modules.dicom.batches import (
    Batch,
    is_made_from,
    read_record,
    write_batch,
)
from data_modules.dicom.deidentify import Pseudonyms
from data_modules.dicom.doubts import doubts_about
from data_modules.dicom.image import Image
from data_modules.dicom.recognise import Decision, recognise
from data_modules.dicom.stacks import Unstacked, stacks_of
from data_modules.dicom.stated import stated_of
from data_modules.dicom.studies import StudyFiles
from data_modules.dicom.timing import Keep, UnevenFrames
from data_modules.dicom.volumes import series_of
from data_modules.dicom.words import Vocabulary

_HASH_CHARACTERS = 16


@dataclass(frozen=True)
class Reading:
    """Settings by which studies are read.

    Attributes:
        keep: Acquisition of a slice that is kept where there are several.
        uneven_frames: Treatment of slices with other frames than most.
        spacing_mm: Distance of slices, rows and columns for files without positions; None refuses
            those.
        words: More words by what they name.
        rules: Regular expression to sequence.
    """

    keep: Keep = "later"
    uneven_frames: UnevenFrames = "resample"
    spacing_mm: Sequence[float] | None = None
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Compute a hash of the settings and of the code that reads."""
        settings = json.dumps(vars(self), sort_keys=True, default=str)
        return hashlib.sha256((settings + code_digest([__name__])).encode()).hexdigest()


@dataclass(frozen=True)
class Ingested:
    """Result of the ingestion of one study.

    Attributes:
        study_id: New id.
        row: Row of the manifest, None when none of its stacks is a sequence.
        decisions: Decision about each of its stacks, as plain data.
        problem: Reason why it could not be read, empty otherwise.
        doubts: What somebody should look at, in words.
        reused: An earlier run read it, from the same files in the same way.
    """

    study_id: str
    row: dict[str, Any] | None
    decisions: list[dict[str, Any]]
    problem: str = ""
    doubts: tuple[str, ...] = ()
    reused: bool = False


def ingest_study(
    files: StudyFiles, out: Path, pseudonyms: Pseudonyms, reading: Reading, reading_digest: str
) -> Ingested:
    """Read one study and write its folder, or return what an earlier run wrote.

    A study is made anew when its files, the settings or the code changed.

    Args:
        files: Files of the study.
        out: Folder of all studies.
        pseudonyms: New ids and dates.
        reading: Settings by which studies are read.
        reading_digest: Its `digest`, which takes a moment to compute.
    """
    study_id = pseudonyms.study(files.study)
    fingerprint = pseudonyms.fingerprint(_state_of(files.paths), reading_digest)
    earlier = _earlier(out / study_id, fingerprint)
    if earlier is not None:
        return earlier
    try:
        return _read_and_write(files, out / study_id, pseudonyms, reading, fingerprint)
    except CmrvlmError as error:
        return Ingested(study_id, None, [], str(error), files.notes)
    # One study of an archive must not end the others, whatever a scanner wrote into it.
    except Exception as error:  # noqa: BLE001
        first, last = min(files.file_numbers), max(files.file_numbers)
        problem = f"files {first} to {last} cannot be read ({type(error).__name__})"
        return Ingested(study_id, None, [], problem, files.notes)


def _state_of(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of files."""
    state = []
    for path in sorted(paths):
        status = path.stat()
        state.append((path.name, status.st_size, status.st_mtime_ns))
    return state


def _earlier(folder: Path, fingerprint: str) -> Ingested | None:
    """Return what an earlier run made of the same files in the same way, None where none did."""
    record = read_record(folder)
    if record is None or not is_made_from(record, fingerprint):
        return None
    return replace(_ingested(folder, record), reused=True)


def _ingested(folder: Path, record: Mapping[str, Any]) -> Ingested:
    """Return the result that the record of a study tells."""
    return Ingested(folder.name, record["row"], record["decisions"], doubts=tuple(record["doubts"]))


def _read_and_write(
    files: StudyFiles, folder: Path, pseudonyms: Pseudonyms, reading: Reading, fingerprint: str
) -> Ingested:
    """Read one study and write its folder."""
    images, lost = _with_positions(files.images, reading.spacing_mm)
    stacks = stacks_of(images, reading.keep, reading.uneven_frames)
    vocabulary = Vocabulary(reading.words, reading.rules)
    decisions = recognise(stacks.stacks, vocabulary, reading.keep)
    series: dict[str, Series] = {}
    for index, decision in enumerate(decisions):
        if not decision.sequence:
            continue
        try:
            series[decision.sequence], stack = series_of(decision.stack, reading.spacing_mm)
            decisions[index] = replace(decision, stack=stack)
        except CmrvlmError as error:
            reasons = (*decision.reasons, str(error))
            decisions[index] = replace(decision, sequence="", reasons=reasons, ambiguous=True)
    unstacked = [*lost, *stacks.unstacked]
    doubts = doubts_about(files, stacks, decisions, series)
    plain = [*map(_as_json, decisions), *map(_unstacked_as_json, unstacked)]
    if not series:
        return Ingested(folder.name, None, plain, doubts=doubts)
    stated = stated_of(files)
    doubts += tuple(stated.doubts)
    row = _manifest_row(files, stated.day, pseudonyms, series) | stated.person | stated.scanner
    study = Study(
        folder.name,
        pseudonyms.patient(files.patient),
        {name: series[name] for name in SEQUENCES if name in series},
        StudyLabels(demographics=stated.person),
    )
    hashes = _hashes(files.images, pseudonyms)
    images_of_series = {
        decision.sequence: {hashes[_place(image)] for image in decision.stack.images}
        for decision in decisions
        if decision.sequence
    }
    batch = Batch(
        fingerprint,
        frozenset(hashes.values()),
        images_of_series,
        study,
        files.patient != files.study,
        row,
        plain,
        doubts,
    )
    return _ingested(folder, write_batch(folder, batch))


def _place(image: Image) -> tuple[int, int | None]:
    """Return number of file and frame, by which an image is known whatever is corrected in it."""
    return image.file_number, image.frame


def _hashes(images: Sequence[Image], pseudonyms: Pseudonyms) -> dict[tuple[int, int | None], str]:
    """Return by place a keyed hash of each image, by which another batch is known to hold it."""
    hashes = {}
    for image in images:
        position = None if image.position_mm is None else image.position_mm.round(3).tolist()
        # Tools that remove identifiers may give one to all files.
        content = image.instance, image.series, position, sorted(image.times.items())
        hashes[_place(image)] = pseudonyms.fingerprint(content)[:_HASH_CHARACTERS]
    return hashes


def _with_positions(
    images: Sequence[Image], spacing_mm: Sequence[float] | None
) -> tuple[list[Image], list[Unstacked]]:
    """Place images without a position by their slice location, and take out those without any.

    Args:
        images: Images of a study.
        spacing_mm: Distance of slices, rows and columns; None takes images without a position out.

    Returns:
        Images with positions, and those without.

    Raises:
        CmrvlmError: No image has a position and no spacing is given.
    """
    placed = []
    lost: dict[str, list[int]] = {}
    for image in images:
        location_mm = image.facts.slice_location_mm
        if image.position_mm is not None:
            placed.append(image)
        elif spacing_mm is not None and location_mm is not None:
            placed.append(replace(image, position_mm=np.asarray(image.normal * location_mm)))
        else:
            field = "ImagePositionPatient" if spacing_mm is None else "SliceLocation"
            lost.setdefault(field, []).append(image.file_number)
    if not placed:
        raise _without_place(images[0], spacing_mm)
    reason = "images do not say where they lie"
    return placed, [
        Unstacked(tuple(sorted(set(numbers))), f"{field}: {reason}")
        for field, numbers in lost.items()
    ]


def _without_place(image: Image, spacing_mm: Sequence[float] | None) -> CmrvlmError:
    """Return the error of a study of which no image says where it lies."""
    if spacing_mm is None:
        return CmrvlmError(
            "images do not say where they lie",
            file=f"file {image.file_number}",
            field="ImagePositionPatient",
            remedy="Give ingest.spacing_mm=[slices,rows,columns].",
        )
    return CmrvlmError(
        "nothing tells the order of the slices",
        file=f"file {image.file_number}",
        field="SliceLocation",
        remedy="Leave the series out.",
    )


def _manifest_row(
    files: StudyFiles, day: str, pseudonyms: Pseudonyms, series: Mapping[str, Series]
) -> dict[str, Any]:
    """Return the row of a study in the manifest."""
    study_id = pseudonyms.study(files.study)
    row: dict[str, Any] = {
        "study_id": study_id,
        "patient_id": pseudonyms.patient(files.patient),
        "date": pseudonyms.shifted_date(day, files.patient),
    }
    for name in SEQUENCES:
        row[name] = f"{study_id}/{name}.nii.gz" if name in series else None
    return row


def _as_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as plain data."""
    stack = decision.stack
    file_numbers = [image.file_number for image in stack.images]
    return {
        "sequence": decision.sequence or None,
        "slices": stack.slices,
        "phases": stack.phases,
        "slice_places_mm": stack.slice_positions_mm().round(3).tolist(),
        "time_key": stack.time_key or None,
        # Frames of a slice that it lacks itself; all others are as they were acquired.
        "filled_frames": {str(index): frames for index, frames in stack.filled_frames().items()},
        "files": [min(file_numbers), max(file_numbers)],
        "reasons": list(decision.reasons),
        "notes": list(stack.notes),
        "ambiguous": decision.ambiguous,
        "irregular": stack.irregular,
    }


def _unstacked_as_json(unstacked: Unstacked) -> dict[str, Any]:
    """Return images that make no stack as plain data."""
    numbers = unstacked.file_numbers
    return {
        "sequence": None,
        "slices": 0,
        "phases": 0,
        "slice_places_mm": [],
        "time_key": None,
        "filled_frames": {},
        "files": [min(numbers), max(numbers)],
        "reasons": [unstacked.reason],
        "notes": [f"{len(numbers)} files"],
        "ambiguous": True,
        "irregular": False,
    }
