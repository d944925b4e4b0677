"""Preprocessed studies on disk, read by memory map.

The key covers everything that changes the content: the settings of the source and of the
preprocessing, all code of the project that they import, the files that a study is read from, what
its row of a table states, and the format. A study is written into a temporary folder and renamed,
so that a run which is killed while writing leaves no half study behind.

Each entry, a folder for one source and one preprocessing, says in `entry.json` what it was made
from. The time of a study's folder is that of its last use. `data_modules.storage.entries` lists and
prunes entries by both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.code_key import code_digest, modules_of
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.codec import (
    check_arrays,
    labels_from_json,
    load_arrays,
    read_meta,
    save_files,
    study_files,
)
from cmrvlm.study.study import Study, StudyLabels, check_images
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.parallel import default_workers, map_in_order, thread_pool
from data_modules.sources.base import Source
from data_modules.storage.failures import not_writable, too_many
from data_modules.storage.in_use import Hold, abandoned, writing_folder
from data_modules.storage.store import StudyStore

log = logging.getLogger(__name__)

# Part of the key: a cache of another format is made anew.
FORMAT = "2"
# What an entry was made from.
ENTRY_FILE = "entry.json"
# Studies whose files a thread looks for at once.
_BATCH = 64
# A study that is read often is marked as used once in this time.
_SECONDS_BETWEEN_MARKS = 3600.0


class StudyCache(StudyStore):
    """A folder with the studies of one source after one preprocessing.

    Args:
        root: Folder of all caches.
        source: Source of the studies.
        preprocessing: Steps that are applied to each study.
        workers: Studies that are preprocessed at once; None takes one a core, eight at most.
    """

    def __init__(
        self,
        root: Path,
        source: Source,
        preprocessing: Preprocessing,
        workers: int | None = None,
    ) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self.workers = workers or default_workers()

        digest = hashlib.sha256(FORMAT.encode())
        digest.update(source.fingerprint().encode())
        digest.update(json.dumps(preprocessing.spec(), sort_keys=True, default=str).encode())
        digest.update(code_digest([*modules_of(preprocessing), __name__]).encode())
        self.folder = root / digest.hexdigest()[:16]
        # Folder and time of the last mark of each study that was asked for.
        self._paths: dict[str, Path] = {}
        self._marked: dict[str, float] = {}
        self._checked: set[str] = set()
        self._hold = Hold()
        # Size of the study that was written last.
        self._study_bytes = 0

    def path(self, study_id: str) -> Path:
        """Return the folder of a study.

        Its name holds a hash of the files that the study is read from and of its row of a table,
        so that a change leads to another folder. It is decided once: a job that runs while somebody
        saves a file keeps what it began with.

        Raises:
            CmrvlmError: One of these files is missing.
        """
        if study_id not in self._paths:
            self._paths[study_id] = self._find_path(study_id)
        return self._paths[study_id]

    def _find_path(self, study_id: str) -> Path:
        """Return the folder of a study as its files are now."""
        suffix = self.source.study_fingerprint(study_id)[:12]
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", study_id)[:60]
        return self.folder / f"{readable}-{suffix}"

    def _record(self) -> dict[str, object]:
        """Return what the entry is made from, as `entry.json` keeps it."""
        modules = sorted({*modules_of(self.source), *modules_of(self.preprocessing), __name__})
        return {
            "format": FORMAT,
            "source": type(self.source).__name__,
            "settings": self.source.settings(),
            "preprocessing": self.preprocessing.spec(),
            "modules": modules,
            "code": code_digest(modules),
        }

    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """Preprocess the studies that the cache lacks; see `StudyStore.fill`.

        All studies are tried, whatever fails, so that the list of failures is complete. What a job
        that was killed left behind is removed.
        """
        self._hold = self._hold_entry()
        study_ids = list(study_ids)
        # A new job reads the files as they are now.
        self._paths.clear()
        with thread_pool(self.workers) as pool:
            missing, failures = self._find_missing(study_ids, pool)
        if missing:
            failures |= self._write_missing(missing)
        if len(failures) > allowed_failures:
            raise too_many(self.folder, failures, len(study_ids), allowed_failures)
        return failures

    def _hold_entry(self) -> Hold:
        """Keep others from removing the entry, as far as its folder can be written."""
        try:
            return Hold(self.folder)
        except OSError:
            # What is there can be read all the same; what is missing will be an error.
            return Hold()

    def _find_missing(
        self, study_ids: Sequence[str], pool: Executor
    ) -> tuple[list[str], dict[str, str]]:
        """Return the studies to preprocess, and reason by study for those whose files are gone.

        Studies that are there are marked as used.
        """
        batches = (study_ids[start : start + _BATCH] for start in range(0, len(study_ids), _BATCH))
        missing: list[str] = []
        failures: dict[str, str] = {}
        # Threads pay where files lie on another machine.
        for absent, gone in map_in_order(pool, self._find_missing_in, batches, self.workers):
            missing += absent
            failures |= gone
        return missing, failures

    def _find_missing_in(self, study_ids: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return what `_find_missing` returns for a few studies."""
        missing: list[str] = []
        failures: dict[str, str] = {}
        for study_id in study_ids:
            try:
                if self._is_there(study_id):
                    self._mark_used(study_id)
                else:
                    missing.append(study_id)
            except CmrvlmError as error:
                failures[study_id] = error.without_folders()
            except OSError as error:
                # Files of the source are named by the error above.
                raise CmrvlmError(
                    f"the cache cannot be read ({error.strerror})",
                    file=self.folder,
                    field="paths.cache",
                    remedy="Check who may read it, or give another folder.",
                ) from error
        return missing, failures

    def _is_there(self, study_id: str) -> bool:
        """Return whether a study is in the cache; a damaged `study.json` is moved aside."""
        folder = self.path(study_id)
        if not folder.is_dir():
            return False
        try:
            names = set(read_meta(folder)["sha256"])
        except (CmrvlmError, KeyError):
            self._discard(study_id)
            return False
        if all((folder / name).is_file() for name in names):
            return True
        self._discard(study_id)
        return False

    def _discard(self, study_id: str) -> None:
        """Remove a damaged study, by a rename, so that nobody reads half of it."""
        log.warning("study %s is damaged in the cache and is made anew", study_id)
        # Another process may have done so just now.
        with (
            writing_folder(self.folder) as removed,
            suppress(FileNotFoundError),
        ):
            os.replace(self.path(study_id), removed / "damaged")

    def _check_once(self, study_id: str) -> None:
        """Compare a study with its hashes before its first use, and make a damaged one anew.

        Raises:
            CmrvlmError: It is damaged and cannot be made anew.
        """
        if study_id in self._checked:
            return
        try:
            check_arrays(self.path(study_id))
        except CmrvlmError:
            self._discard(study_id)
            with writing_folder(self.folder) as drafts:
                reason = self._try_to_write(study_id, drafts)
            if reason:
                raise CmrvlmError(reason, file=self.folder) from None
        self._checked.add(study_id)

    def _write_missing(self, missing: Sequence[str]) -> dict[str, str]:
        """Preprocess studies and return the reason by study for those that fail.

        Raises:
            CmrvlmError: The cache cannot be written.
        """
        failures: dict[str, str] = {}
        remaining = len(missing)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in abandoned(self.folder):
                shutil.rmtree(folder, ignore_errors=True)
            if not (self.folder / ENTRY_FILE).is_file():
                write_json(self.folder / ENTRY_FILE, self._record())
            # Threads suffice: reading, numpy and torch release the interpreter for nearly all of
            # the work. They end before the folder that they write into is removed.
            with writing_folder(self.folder) as drafts, thread_pool(self.workers) as pool:
                write = partial(self._try_to_write, drafts=drafts)
                reasons = map_in_order(pool, write, missing, self.workers)
                reasons = iter(track(reasons, "Preprocessing studies", len(missing)))
                for study_id, reason in zip(missing, reasons, strict=True):
                    remaining -= 1
                    if reason:
                        failures[study_id] = reason
        except OSError as error:
            raise not_writable(self.folder, error, remaining, self._study_bytes) from error
        return failures

    def _try_to_write(self, study_id: str, drafts: Path) -> str | None:
        """Preprocess a study and write it into the cache; return why it cannot be made, or None.

        Args:
            study_id: The study.
            drafts: Folder that it is written into before it is renamed.

        Raises:
            OSError: It cannot be written.
        """
        try:
            study = self.source.load(study_id)
            check_images(study)
            files = study_files(self.preprocessing(study))
        except CmrvlmError as error:
            return error.without_folders()
        # One study of an archive must not end the others, whatever its files hold.
        except Exception as error:
            log.debug("study %s", study_id, exc_info=True)
            return f"{study_id} cannot be read ({type(error).__name__})"

        self._study_bytes = sum(len(content) for content in files.values())
        final = self.path(study_id)
        draft = drafts / final.name
        draft.mkdir()
        save_files(files, draft)
        try:
            os.replace(draft, final)
        except OSError:
            # Another process may have written the same study first.
            if not final.is_dir():
                raise
        return None

    def sequences(self, study_id: str) -> list[str]:
        """Return the sequences of a cached study without loading its images."""
        return list(read_meta(self.path(study_id))["series"])

    def labels(self, study_id: str) -> StudyLabels:
        """Load the labels of a cached study without its images."""
        return labels_from_json(self.labels_as_json(study_id))

    def labels_as_json(self, study_id: str) -> dict[str, Any]:
        """Return the labels of a cached study as plain data."""
        return dict(read_meta(self.path(study_id))["labels"])

    def load_complete(self, study_id: str) -> Study:
        """Load a cached study with all its series, their arrays memory-mapped."""
        self._check_once(study_id)
        self._mark_used(study_id)
        return load_arrays(self.path(study_id))

    def _mark_used(self, study_id: str) -> None:
        """Set the time of a study's folder to now, unless this was done lately."""
        now = time.time()
        if now - self._marked.get(study_id, 0.0) < _SECONDS_BETWEEN_MARKS:
            return
        self._marked[study_id] = now
        # A cache that may only be read is used all the same.
        with suppress(OSError):
            os.utime(self.path(study_id), (now, now))

    def contents(self, study_id: str) -> dict[str, bytes]:
        """Return the content of each file of a cached study."""
        return {file.name: file.read_bytes() for file in self.path(study_id).iterdir()}
