"""Preprocessed studies on disk, read by memory map.

The key covers everything that changes the content: the settings of the source and of the
preprocessing, all code of the project that they import, the files that a study is read from, and
the format. A study is written into a temporary folder and renamed, so that a run which is killed
while writing leaves no half study behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import labels_from_json, load_arrays, read_meta, save_arrays
from cmrvlm.study.study import Study, StudyLabels, check_images
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.code_key import code_digest, modules_of
from data_modules.sources.base import Source
from data_modules.storage.store import StudyStore

# Part of the key: a cache of another format is made anew.
_FORMAT = "2"


class StudyCache(StudyStore):
    """A folder with the studies of one source after one preprocessing.

    Args:
        root: Folder of all caches.
        source: Source of the studies.
        preprocessing: Steps that are applied to each study.
    """

    def __init__(self, root: Path, source: Source, preprocessing: Preprocessing) -> None:
        self.source = source
        self.preprocessing = preprocessing

        digest = hashlib.sha256(_FORMAT.encode())
        digest.update(source.fingerprint().encode())
        digest.update(json.dumps(preprocessing.spec(), sort_keys=True, default=str).encode())
        digest.update(code_digest([*modules_of(preprocessing), __name__]).encode())
        self.folder = root / digest.hexdigest()[:16]

    def path(self, study_id: str) -> Path:
        """Return the folder of a study.

        Its name holds a hash of the size and time of each file that the study is read from, so that
        a changed file leads to another folder.

        Raises:
            FileNotFoundError: One of these files is missing.
        """
        stats = []
        for file in self.source.files(study_id):
            stat = file.stat()
            stats.append((file.name, stat.st_size, stat.st_mtime_ns))
        suffix = hashlib.sha256(json.dumps([study_id, stats]).encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", study_id)[:60]
        return self.folder / f"{readable}-{suffix}"

    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """Preprocess the studies that the cache lacks; see `StudyStore.fill`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        study_ids = list(study_ids)
        missing, failures = self._find_missing(study_ids)

        # Threads suffice: reading, numpy and torch release the interpreter for nearly all of the
        # work.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            reasons = pool.map(self._try_to_write, missing)
            if missing:
                reasons = iter(track(reasons, "Preprocessing studies", len(missing)))
            for study_id, reason in zip(missing, reasons, strict=True):
                if reason:
                    failures[study_id] = reason

        if len(failures) > allowed_failures:
            first = next(iter(failures.values()))
            raise CmrvlmError(
                f"{len(failures)} of {len(study_ids)} studies cannot be read; the first: {first}",
                field="data.allowed_failures",
                remedy=f"Mend the files, or allow more than {allowed_failures} failures.",
            )
        return failures

    def _find_missing(self, study_ids: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Return the studies to preprocess, and reason by study for those whose files are gone."""
        missing: list[str] = []
        failures: dict[str, str] = {}
        for study_id in study_ids:
            try:
                if not self.path(study_id).is_dir():
                    missing.append(study_id)
            except FileNotFoundError as error:
                failures[study_id] = f"{Path(error.filename).name}: there is no such file"
        return missing, failures

    def _try_to_write(self, study_id: str) -> str | None:
        """Preprocess a study, and return why that failed or None."""
        try:
            self._write(study_id)
        except CmrvlmError as error:
            return error.without_folders()
        return None

    def _write(self, study_id: str) -> None:
        """Preprocess a study and write it into the cache in one step."""
        final = self.path(study_id)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as temporary:
            written = Path(temporary) / "study"
            written.mkdir()
            study = self.source.load(study_id)
            check_images(study)
            save_arrays(self.preprocessing(study), written)
            try:
                os.replace(written, final)
            except OSError:
                # Another process may have written the same study first.
                if not final.is_dir():
                    raise

    def sequences(self, study_id: str) -> list[str]:
        """Return the sequences of a cached study without loading its images."""
        return list(read_meta(self.path(study_id))["series"])

    def labels(self, study_id: str) -> StudyLabels:
        """Load the labels of a cached study without its images."""
        return labels_from_json(read_meta(self.path(study_id))["labels"])

    def load_complete(self, study_id: str) -> Study:
        """Load a cached study with all its series, their arrays memory-mapped."""
        return load_arrays(self.path(study_id))

    def contents(self, study_id: str) -> dict[str, bytes]:
        """Return the content of each file of a cached study."""
        return {file.name: file.read_bytes() for file in self.path(study_id).iterdir()}
