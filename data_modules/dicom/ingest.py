"""An archive of DICOM files to de-identified studies in NIfTI, with a manifest."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.files import write_study
from cmrvlm.study.study import Study, StudyLabels
from cmrvlm.study.vocabulary import SEQUENCES
from data_modules.dicom.deidentify import Pseudonyms, demographics, read_key, scanner
from data_modules.dicom.recognise import Decision, recognise
from data_modules.dicom.scan import Image, LeftOut, files_of, read_file, scan
from data_modules.dicom.stacks import Stack, stacks_of
from data_modules.dicom.volumes import series_of

MANIFEST = "manifest.csv"
# Reasons that mean a file is broken; all others mean that it is something else.
_BROKEN = ("empty file", "truncated file", "header cannot", "no decoder", "pixels cannot")


@dataclass(frozen=True)
class Ingested:
    """What became of one study.

    Attributes:
        study_id: New id.
        row: Its row of the manifest, None when nothing of it is a sequence.
        decisions: What was decided about each of its stacks.
        problem: Why it could not be read, or nothing.
    """

    study_id: str
    row: dict[str, Any] | None
    decisions: list[dict[str, Any]]
    problem: str = ""


@dataclass(frozen=True)
class Ingest:
    """Reads an archive.

    Args:
        source: Folder tree with DICOM files; it is only read.
        out: Folder of the result.
        key_file: Where the secret for new ids is kept.
        keep: Which of several acquisitions of a slice is kept.
        spacing_mm: Distance of slices, rows and columns for files without positions; None refuses those.
        mapping_file: Where old and new ids are written, outside `out`; None writes none.
        workers: Studies that are read at once.
    """

    source: str
    out: str
    key_file: str
    keep: Literal["later", "first"] = "later"
    spacing_mm: Sequence[float] | None = None
    mapping_file: str | None = None
    workers: int = 2

    def files(self) -> tuple[dict[tuple[str, str], list[int]], list[Path], list[LeftOut]]:
        """Numbers of the files of each patient and study, all files, and what is left out.

        Raises:
            CmrvlmError: The folder is not there, or the result would lie in it.
        """
        source, out = Path(self.source).resolve(), Path(self.out).resolve()
        if not source.is_dir():
            raise CmrvlmError(
                "there is no such folder",
                file=self.source,
                field="source",
                remedy="Give the archive.",
            )
        if out == source or source in out.parents:
            raise CmrvlmError(
                "the result would lie inside the archive, which is only read",
                file=self.out,
                field="out",
                remedy="Give a folder elsewhere.",
            )
        paths = files_of(source)
        studies: dict[tuple[str, str], list[int]] = defaultdict(list)
        left_out = []
        for number, found in enumerate(scan(paths)):
            if isinstance(found, LeftOut):
                left_out.append(found)
            elif found:
                studies[found[0].patient, found[0].study].append(number)
        return dict(studies), paths, left_out

    def run(
        self, studies: dict[tuple[str, str], list[int]], paths: Sequence[Path]
    ) -> Iterator[Ingested]:
        """Read studies one by one, several at once; those that are there already are not read again."""
        names = Pseudonyms(read_key(Path(self.key_file)))
        jobs = [
            ((patient, study), [paths[number] for number in numbers], numbers)
            for (patient, study), numbers in studies.items()
        ]
        Path(self.out).mkdir(parents=True, exist_ok=True)
        if self.mapping_file:
            self._write_mapping(names, studies)
        work = partial(ingest_study, settings=self, names=names)
        if self.workers < 2:
            yield from map(work, jobs)
            return
        with ProcessPoolExecutor(self.workers) as pool:
            yield from pool.map(work, jobs)

    def summary(
        self, found: Sequence[Ingested], left_out: Sequence[LeftOut], out: Path
    ) -> dict[str, Any]:
        """Write the manifest and tell what became of everything; numbers of files, never their names."""
        rows = [one.row for one in found if one.row is not None]
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["study_id"]
        with (out / MANIFEST).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        numbers: dict[str, list[int]] = defaultdict(list)
        for one in left_out:
            numbers[one.reason].append(one.number)
        broken = any(one.problem for one in found) or any(
            one.reason.startswith(_BROKEN) for one in left_out
        )
        return {
            "partial": broken,
            "studies": {
                one.study_id: {"decisions": one.decisions, "problem": one.problem or None}
                for one in found
            },
            "files_left_out": {reason: len(own) for reason, own in numbers.items()},
            "numbers_of_files_left_out": dict(numbers),
        }

    def _write_mapping(self, names: Pseudonyms, studies: Iterable[tuple[str, str]]) -> None:
        path = Path(self.mapping_file or "")
        if Path(self.out).resolve() in path.resolve().parents:
            raise CmrvlmError(
                "the mapping would lie beside the de-identified data",
                file=path,
                field="mapping_file",
                remedy="Give a path elsewhere.",
            )
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline=""
        ) as file:
            writer = csv.writer(file)
            writer.writerow(("patient", "study", "patient_id", "study_id"))
            writer.writerows((p, s, names.patient(p), names.study(s)) for p, s in studies)


def ingest_study(
    job: tuple[tuple[str, str], list[Path], list[int]], settings: Ingest, names: Pseudonyms
) -> Ingested:
    """Read one study and write its folder."""
    (patient, study), paths, numbers = job
    patient_id, study_id = names.patient(patient), names.study(study)
    final = Path(settings.out) / study_id
    if (final / "ingest.json").is_file():
        done = json.loads((final / "ingest.json").read_text())
        return Ingested(study_id, done["row"], done["decisions"])
    images = []
    for path, number in zip(paths, numbers, strict=True):
        found = read_file(path, number)
        images += found if isinstance(found, list) else []
    try:
        decisions = recognise(stacks_of(_placed(images, settings.spacing_mm), settings.keep))
        series = {
            one.sequence: series_of(one.stack, settings.spacing_mm)
            for one in decisions
            if one.sequence
        }
    except CmrvlmError as error:
        return Ingested(study_id, None, [], str(error))
    told = [_as_json(one) for one in decisions]
    if not series:
        return Ingested(study_id, None, told)
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    labels = StudyLabels(demographics=demographics(header))
    row = {
        "study_id": study_id,
        "patient_id": patient_id,
        "date": names.shifted(str(header.get("StudyDate", "")), patient),
        **{name: f"{study_id}/{name}.nii.gz" if name in series else None for name in SEQUENCES},
        **demographics(header),
        **scanner(header),
    }
    ordered = {name: series[name] for name in SEQUENCES if name in series}
    with tempfile.TemporaryDirectory(dir=settings.out, prefix=".writing-") as temporary:
        inner = Path(temporary) / study_id
        write_study(Study(study_id, patient_id, ordered, labels), inner)
        write_json(inner / "ingest.json", {"row": row, "decisions": told})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(inner, final)
    return Ingested(study_id, row, told)


def _placed(images: Sequence[Image], spacing_mm: Sequence[float] | None) -> list[Image]:
    """Images with positions; those without are placed by their slice location when a spacing is given.

    Raises:
        CmrvlmError: An image has no position and no spacing is given, or nothing tells where it lies.
    """
    placed = []
    for image in images:
        if image.position_mm is not None:
            placed.append(image)
            continue
        if spacing_mm is None:
            remedy = "Give ingest.spacing_mm=[slices,rows,columns]."
            raise CmrvlmError(
                "images do not say where they lie",
                file=f"file {image.number}",
                field="ImagePositionPatient",
                remedy=remedy,
            )
        place_mm = image.facts["slice_location_mm"]
        if place_mm is None:
            raise CmrvlmError(
                "nothing tells the order of the slices",
                file=f"file {image.number}",
                field="SliceLocation",
                remedy="Leave the series out.",
            )
        placed.append(replace(image, position_mm=np.asarray(image.normal * place_mm)))
    return placed


def _as_json(one: Decision) -> dict[str, Any]:
    stack: Stack = one.stack
    return {
        "sequence": one.sequence or None,
        "slices": stack.slices,
        "phases": stack.phases,
        "slice_places_mm": stack.heights_mm().round(3).tolist(),
        "files": [
            min(image.number for image in stack.images),
            max(image.number for image in stack.images),
        ],
        "reasons": list(one.reasons),
        "notes": list(stack.notes),
        "ambiguous": one.ambiguous,
        "irregular": stack.irregular,
    }
