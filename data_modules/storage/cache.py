"""Preprocessed studies on disk, read by memory map.

The key covers everything that changes the content: the settings of the source and of the preprocessing, all code of
ours that they reach by imports, the files that a study is read from, and the format. A study is written into a
temporary folder and renamed, so a run that is killed while writing leaves no half study behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import labels_from_json, load_arrays, read_meta, save_arrays
from cmrvlm.study.study import Study, StudyLabels, check_images
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.code_key import code_digest, modules_of
from data_modules.sources.base import Source
from data_modules.storage.store import StudyStore

_FORMAT = "2"


class StudyCache(StudyStore):
    """Studies of one source after one preprocessing.

    Args:
        root: Folder of all caches.
        source: Where studies come from.
        preprocessing: What is done to them.
    """

    def __init__(self, root: Path, source: Source, preprocessing: Preprocessing) -> None:
        self.source, self.preprocessing = source, preprocessing
        digest = hashlib.sha256(_FORMAT.encode())
        digest.update(source.fingerprint().encode())
        digest.update(json.dumps(preprocessing.spec(), sort_keys=True, default=str).encode())
        digest.update(code_digest([*modules_of(preprocessing), __name__]).encode())
        self.folder = root / digest.hexdigest()[:16]

    def path(self, study_id: str) -> Path:
        """Folder of one study; the files it was read from are part of the name."""
        stats = [
            (file.name, file.stat().st_size, file.stat().st_mtime_ns)
            for file in self.source.files(study_id)
        ]
        tail = hashlib.sha256(json.dumps([study_id, stats]).encode()).hexdigest()[:12]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_-]', '_', study_id)[:60]}-{tail}"

    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """Preprocess what is not there yet; see `StudyStore.fill`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        failures: dict[str, str] = {}
        ids = list(study_ids)
        missing = [study for study in ids if not self._there(study, failures)]
        # Threads suffice: reading, numpy and torch release the interpreter for nearly all of the work.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            reasons = pool.map(self._try_write, missing)
            if missing:
                reasons = iter(track(reasons, "Preprocessing studies", len(missing)))
            for study, reason in zip(missing, reasons, strict=True):
                if reason:
                    failures[study] = reason
        if len(failures) > allowed_failures:
            first = next(iter(failures.values()))
            raise CmrvlmError(
                f"{len(failures)} of {len(ids)} studies cannot be read; the first: {first}",
                field="data.allowed_failures",
                remedy=f"Mend the files, or allow more than {allowed_failures} failures.",
            )
        return failures

    def _there(self, study_id: str, failures: dict[str, str]) -> bool:
        try:
            return self.path(study_id).is_dir()
        except FileNotFoundError as error:
            failures[study_id] = f"{Path(error.filename).name}: there is no such file"
            return True

    def _try_write(self, study_id: str) -> str | None:
        try:
            self._write(study_id)
        except CmrvlmError as error:
            return error.without_folders()
        return None

    def _write(self, study_id: str) -> None:
        final = self.path(study_id)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as temporary:
            inner = Path(temporary) / "study"
            inner.mkdir()
            study = self.source.load(study_id)
            check_images(study)
            save_arrays(self.preprocessing(study), inner)
            try:
                os.replace(inner, final)
            except OSError:
                if not final.is_dir():  # else another process wrote the same study first
                    raise

    def sequences(self, study_id: str) -> list[str]:
        """Sequences that a cached study has."""
        return list(read_meta(self.path(study_id))["series"])

    def labels(self, study_id: str) -> StudyLabels:
        """What is known of a cached study, without its images."""
        return labels_from_json(read_meta(self.path(study_id))["labels"])

    def whole(self, study_id: str) -> Study:
        """A study from the cache, memory-mapped."""
        return load_arrays(self.path(study_id))

    def contents(self, study_id: str) -> dict[str, bytes]:
        """The files of a cached study."""
        return {file.name: file.read_bytes() for file in self.path(study_id).iterdir()}

    def clear(self) -> None:
        """Remove this cache from disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
