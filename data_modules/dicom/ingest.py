"""Turn an archive of DICOM files into de-identified studies in NIfTI, with a manifest."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from data_modules.dicom.deidentify import Pseudonyms, read_key
from data_modules.dicom.ingest_study import Ingested, StudyFiles, ingest_study
from data_modules.dicom.scan import LeftOut, files_of, scan
from data_modules.dicom.stacks import Keep

MANIFEST = "manifest.csv"
# Reasons that mean a file is broken; all others mean that it is something else.
_BROKEN = ("empty file", "truncated file", "header cannot", "no decoder", "pixels cannot")


@dataclass(frozen=True)
class ArchiveFiles:
    """Files of an archive.

    Attributes:
        studies: Files of each study.
        left_out: Files that are no part of any study.
    """

    studies: list[StudyFiles]
    left_out: list[LeftOut]


@dataclass(frozen=True)
class Ingest:
    """The ingestion of an archive.

    Args:
        source: Folder tree with DICOM files; it is only read.
        out: Folder of the result.
        key_file: File of the secret for new ids.
        keep: Acquisition of a slice that is kept where there are several.
        spacing_mm: Distance of slices, rows and columns for files without positions; None refuses
            those.
        mapping_file: File, outside of `out`, for old and new ids; None writes none.
        workers: Studies that are read at once.
    """

    source: str
    out: str
    key_file: str
    keep: Keep = "later"
    spacing_mm: Sequence[float] | None = None
    mapping_file: str | None = None
    workers: int = 2

    def find_files(self) -> ArchiveFiles:
        """Read the headers of all files and group the files by study.

        Raises:
            CmrvlmError: The folder is not there, or the result would lie in it.
        """
        source = Path(self.source).resolve()
        out = Path(self.out).resolve()
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
        studies: dict[tuple[str, str], StudyFiles] = {}
        left_out = []
        for file_number, images in enumerate(scan(paths)):
            if isinstance(images, LeftOut):
                left_out.append(images)
            elif images:
                # All images of a file share its header, and so patient and study.
                patient = images[0].patient
                study = images[0].study
                files = studies.setdefault((patient, study), StudyFiles(patient, study))
                files.file_numbers.append(file_number)
                files.paths.append(paths[file_number])
        return ArchiveFiles(list(studies.values()), left_out)

    def run(self, archive: ArchiveFiles) -> Iterator[Ingested]:
        """Read all studies and yield what became of each; one that is there is not read again.

        Raises:
            CmrvlmError: The key is no key, or the mapping would lie beside the result.
        """
        pseudonyms = Pseudonyms(read_key(Path(self.key_file)))
        Path(self.out).mkdir(parents=True, exist_ok=True)
        if self.mapping_file:
            self._write_mapping(Path(self.mapping_file), pseudonyms, archive.studies)
        read = partial(
            ingest_study,
            out=Path(self.out),
            pseudonyms=pseudonyms,
            keep=self.keep,
            spacing_mm=self.spacing_mm,
        )
        if self.workers < 2:
            yield from map(read, archive.studies)
            return
        with ProcessPoolExecutor(self.workers) as pool:
            yield from pool.map(read, archive.studies)

    def summary(
        self, ingested: Sequence[Ingested], left_out: Sequence[LeftOut], out: Path
    ) -> dict[str, Any]:
        """Write the manifest and return what became of all studies and files.

        Files are told by their numbers, never by their names.

        Args:
            ingested: Results of all studies.
            left_out: Files that are no part of any study.
            out: Folder of the manifest.

        Returns:
            Content of `ingest.json`.
        """
        _write_manifest(out / MANIFEST, ingested)
        file_numbers: dict[str, list[int]] = defaultdict(list)
        for file in left_out:
            file_numbers[file.reason].append(file.file_number)
        studies = {}
        for study in ingested:
            problem = study.problem or None
            studies[study.study_id] = {"decisions": study.decisions, "problem": problem}
        unreadable = any(study.problem for study in ingested)
        broken = any(reason.startswith(_BROKEN) for reason in file_numbers)
        return {
            "partial": unreadable or broken,
            "studies": studies,
            "files_left_out": {reason: len(own) for reason, own in file_numbers.items()},
            "numbers_of_files_left_out": dict(file_numbers),
        }

    def _write_mapping(
        self, path: Path, pseudonyms: Pseudonyms, studies: Sequence[StudyFiles]
    ) -> None:
        """Write old and new ids to a file that only its owner can read.

        Raises:
            CmrvlmError: The file would lie beside the result.
        """
        if Path(self.out).resolve() in path.resolve().parents:
            raise CmrvlmError(
                "the mapping would lie beside the de-identified data",
                file=path,
                field="mapping_file",
                remedy="Give a path elsewhere.",
            )
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("patient", "study", "patient_id", "study_id"))
            for files in studies:
                patient_id = pseudonyms.patient(files.patient)
                study_id = pseudonyms.study(files.study)
                writer.writerow((files.patient, files.study, patient_id, study_id))


def _write_manifest(path: Path, ingested: Sequence[Ingested]) -> None:
    """Write a row for each study that has a sequence."""
    rows = [study.row for study in ingested if study.row is not None]
    # Columns in the order in which they come; a header may lack some of them.
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns) or ["study_id"])
        writer.writeheader()
        writer.writerows(rows)
