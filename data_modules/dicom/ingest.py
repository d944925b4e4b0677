"""Turn an archive of DICOM files into de-identified studies in NIfTI, with a manifest."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from data_modules.dicom.deidentify import Pseudonyms, read_key
from data_modules.dicom.image import Image
from data_modules.dicom.ingest_study import Ingested, Reading, ingest_study
from data_modules.dicom.manifest import read_manifest
from data_modules.dicom.scan import LeftOut, files_of, scan, without_copies
from data_modules.dicom.studies import StudyFiles, studies_of
from data_modules.dicom.timing import Keep, UnevenFrames
from data_modules.dicom.words import Vocabulary
from data_modules.parallel import map_in_processes
from data_modules.tables.cells import write_rows

MANIFEST = "manifest.csv"
SUMMARY = "ingest.json"
# Reasons that mean that a file is something else, and not that it is broken.
_SOMETHING_ELSE = (
    "AppleDouble",
    "no DICOM file",
    "DICOMDIR",
    "no MR image",
    "burnt-in annotation",
    "secondary capture",
    "colour image",
    "copy of another file",
)
_UNEVEN_FRAMES = ("resample", "drop", "error")


@dataclass(frozen=True)
class ArchiveFiles:
    """Files of an archive.

    Attributes:
        studies: Files of each study.
        left_out: Files that are no part of any study.
    """

    studies: list[StudyFiles]
    left_out: list[LeftOut]

    def empty_studies(self) -> dict[str, str]:
        """Return studies with MR images of which none can be used, each with the reasons."""
        known = {study.study for study in self.studies}
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for file in self.left_out:
            if file.study and file.study not in known:
                reasons[file.study][file.reason] += 1
        return {
            study: ", ".join(f"{reason} ({count} files)" for reason, count in counts.items())
            for study, counts in reasons.items()
        }


@dataclass(frozen=True)
class Ingest:
    """The ingestion of an archive.

    Args:
        source: Folder tree with DICOM files; it is only read.
        out: Folder of the result.
        key_file: File of the secret for new ids.
        keep: Acquisition of a slice that is kept where there are several.
        uneven_frames: Treatment of slices with other frames than most of their stack: `resample`
            in time, `drop` the slice, or `error` leaves the stack out.
        spacing_mm: Distance of slices, rows and columns for files without positions; None refuses
            those.
        words: More words for views, by what they name, beside those that are known.
        rules: Regular expression to `sax`, `lax_4ch`, `lge` or `none`: series whose description
            it is found in are that, whatever else speaks against it.
        mapping_file: File, outside of `out`, for old and new ids; None writes none.
        paths_file: File, outside of `out`, for the path behind each number of a file; None writes
            none.
        workers: Files and studies that are read at once.
    """

    source: str
    out: str
    key_file: str
    keep: Keep = "later"
    uneven_frames: UnevenFrames = "resample"
    spacing_mm: Sequence[float] | None = None
    words: Mapping[str, Sequence[str]] | None = None
    rules: Mapping[str, str] | None = None
    mapping_file: str | None = None
    paths_file: str | None = None
    workers: int = 2

    def find_files(
        self, track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda items, count: items
    ) -> ArchiveFiles:
        """Read the headers of all files and group the files by study.

        Args:
            track: Function that shows the progress of an iterator with a number of items.

        Raises:
            CmrvlmError: A setting is wrong, the folder is not there or empty, or the result would
                lie in it.
        """
        # Wrong rules are found before the archive is read.
        Vocabulary(self.words, self.rules)
        if self.uneven_frames not in _UNEVEN_FRAMES:
            raise CmrvlmError(
                f"'{self.uneven_frames}' is unknown",
                field="ingest.uneven_frames",
                remedy=f"Use {', '.join(_UNEVEN_FRAMES)}.",
            )
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
        # A table that cannot be kept is found before the archive is read.
        read_manifest(out / MANIFEST)
        paths = files_of(source)
        if not paths:
            raise CmrvlmError(
                "the archive holds no file", file=self.source, field="source", remedy="Give it."
            )
        if self.paths_file:
            rows = enumerate(str(path) for path in paths)
            self._write_private(self.paths_file, "paths_file", ("number", "path"), rows)
        left_out = []
        by_file: list[list[Image]] = []
        for images in track(without_copies(scan(paths, self.workers)), len(paths)):
            if isinstance(images, LeftOut):
                left_out.append(images)
            else:
                by_file.append(images)
        return ArchiveFiles(studies_of(by_file), left_out)

    def run(self, archive: ArchiveFiles) -> Iterator[Ingested]:
        """Read all studies and yield what became of each; one that is there is not read again.

        A study of which no file can be used is among them, with the reasons.

        Raises:
            CmrvlmError: The key is no key, or the mapping would lie beside the result.
        """
        pseudonyms = Pseudonyms(read_key(Path(self.key_file)))
        Path(self.out).mkdir(parents=True, exist_ok=True)
        if self.mapping_file:
            self._write_mapping(pseudonyms, archive.studies)
        reading = Reading(
            self.keep, self.uneven_frames, self.spacing_mm, self.words or {}, self.rules or {}
        )
        read = partial(
            ingest_study,
            out=Path(self.out),
            pseudonyms=pseudonyms,
            reading=reading,
            reading_digest=reading.digest(),
        )
        for study, reasons in archive.empty_studies().items():
            problem = f"none of its images can be used: {reasons}"
            yield Ingested(pseudonyms.study(study), None, [], problem)
        yield from map_in_processes(_read, archive.studies, read, self.workers, "workers")

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
            Content of `ingest.json`; studies of earlier runs into this folder are kept in it.
        """
        manifest = read_manifest(out / MANIFEST)
        file_numbers: dict[str, list[int]] = defaultdict(list)
        for file in left_out:
            file_numbers[file.reason].append(file.file_number)
        studies = _earlier_studies(out / SUMMARY)
        for study in ingested:
            before = studies.get(study.study_id, {}).get("row")
            if study.row is not None:
                manifest.update(study.study_id, study.row, before or {})
            studies[study.study_id] = {
                # What is written into the manifest tells later what somebody changed in it.
                "row": study.row or before,
                "decisions": study.decisions,
                "problem": study.problem or None,
                "doubts": list(study.doubts),
            }
        manifest.write(out / MANIFEST)
        unreadable = any(study.problem or study.doubts for study in ingested)
        broken = any(not reason.startswith(_SOMETHING_ELSE) for reason in file_numbers)
        return {
            "partial": unreadable or broken or not any(study.row for study in ingested),
            "studies": studies,
            "files_left_out": {reason: len(own) for reason, own in file_numbers.items()},
            "numbers_of_files_left_out": dict(file_numbers),
        }

    def _write_mapping(self, pseudonyms: Pseudonyms, studies: Sequence[StudyFiles]) -> None:
        """Write old and new ids to a file that only its owner can read."""
        assert self.mapping_file is not None
        rows = [
            (
                files.patient,
                files.study,
                pseudonyms.patient(files.patient),
                pseudonyms.study(files.study),
            )
            for files in studies
        ]
        head = ("patient", "study", "patient_id", "study_id")
        self._write_private(self.mapping_file, "mapping_file", head, rows)

    def _write_private(
        self, name: str, field: str, head: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Write a table that only its owner can read.

        Raises:
            CmrvlmError: The file would lie beside the result.
        """
        path = Path(name)
        if Path(self.out).resolve() in path.resolve().parents:
            raise CmrvlmError(
                "the file would lie beside the de-identified data",
                file=path,
                field=field,
                remedy="Give a path elsewhere.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # Links and earlier files keep their rights when they are opened.
        os.fchmod(handle, 0o600)
        with os.fdopen(handle, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            write_rows(file, chain([head], rows))


def _read(study: StudyFiles, read: Callable[[StudyFiles], Ingested]) -> Ingested:
    """Read a study, in a worker that keeps the function for all studies."""
    return read(study)


def _earlier_studies(path: Path) -> dict[str, Any]:
    """Return what an earlier run says of its studies, empty where there was none."""
    if not path.is_file():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")).get("studies", {}))
