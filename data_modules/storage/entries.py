"""List the entries of the cache, and remove what nothing uses any more."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.code_key import code_digest
from cmrvlm.study.codec import META_FILE
from data_modules.storage.cache import ENTRY_FILE, FORMAT
from data_modules.storage.failures import FAILURES_FILE
from data_modules.storage.in_use import LOCK_FILE, WRITING, abandoned, unused

_SECONDS_A_DAY = 86_400.0
# Names as `StudyCache` gives them.
_ENTRY_NAME = re.compile(r"[0-9a-f]{16}")
_STUDY_NAME = re.compile(r"[A-Za-z0-9_-]{0,60}-[0-9a-f]{12}")
_FILES = (ENTRY_FILE, FAILURES_FILE, LOCK_FILE)
_TEMPORARY_FILE = re.compile(rf"\.({re.escape(ENTRY_FILE)}|{re.escape(FAILURES_FILE)})\.\d+\.part")


@dataclass(frozen=True)
class CachedStudy:
    """A folder with one preprocessed study.

    Attributes:
        folder: The folder.
        size_bytes: Size of its files.
        used_at: Time of its last use in seconds since 1970.
    """

    folder: Path
    size_bytes: int
    used_at: float


@dataclass(frozen=True)
class CacheEntry:
    """The studies of one source after one preprocessing.

    Attributes:
        folder: Folder of the entry.
        source: Class of the source and where it reads, or that it is unknown.
        steps: Names of the steps of the preprocessing.
        studies: Studies that are kept.
        unused: Studies that nothing has used for long, or all of them if the code has changed.
        leftovers: Half-written studies of jobs that were killed.
        is_current: Whether the code that made the entry is today's.
        is_in_use: Whether a job that runs now uses it; nothing of it is removed then.
    """

    folder: Path
    source: str
    steps: tuple[str, ...]
    is_current: bool
    studies: tuple[CachedStudy, ...] = ()
    unused: tuple[CachedStudy, ...] = ()
    leftovers: tuple[Path, ...] = ()
    is_in_use: bool = False

    @property
    def size_bytes(self) -> int:
        """Return the size of all studies of the entry."""
        return sum(study.size_bytes for study in (*self.studies, *self.unused))

    @property
    def unused_bytes(self) -> int:
        """Return the size of what pruning removes."""
        return sum(study.size_bytes for study in self.unused)

    @property
    def used_at(self) -> float | None:
        """Return the time of the last use of any study, or None where there is none."""
        return max((study.used_at for study in (*self.studies, *self.unused)), default=None)

    @property
    def is_removed_whole(self) -> bool:
        """Return whether pruning leaves nothing of the entry."""
        return (
            not self.studies and not self.is_in_use and (bool(self.unused) or not self.is_current)
        )


@dataclass(frozen=True)
class CacheFolder:
    """The folder of all cache entries.

    Only what looks in all parts like an entry is ever listed or removed: a folder, and no link,
    named as the cache names it, with nothing in it but what the cache writes.

    Args:
        root: The folder.
        unused_days: Studies that were not used for so many days are pruned.

    Raises:
        CmrvlmError: `unused_days` is no number or negative.
    """

    root: str
    unused_days: float = 30.0

    def __post_init__(self) -> None:
        is_number = isinstance(self.unused_days, (int, float))
        if not is_number or not self.unused_days >= 0:
            raise CmrvlmError(
                f"{self.unused_days} is no number of days",
                field="cache.unused_days",
                remedy="Use 0 or more.",
            )

    def entries(self) -> list[CacheEntry]:
        """Return the entries, those that were used last first."""
        root = Path(self.root)
        if not root.is_dir():
            return []
        entries = [self._entry(folder) for folder in sorted(root.iterdir()) if _is_entry(folder)]
        return sorted(entries, key=lambda entry: entry.used_at or 0.0, reverse=True)

    def _entry(self, folder: Path) -> CacheEntry:
        """Read what an entry holds, and decide what of it is unused."""
        record = _read_record(folder)
        is_current = _is_current(record)
        with unused(folder) as is_free:
            is_in_use = not is_free
        oldest = time.time() - self.unused_days * _SECONDS_A_DAY
        studies, old = [], []
        for study in _studies_of(folder):
            if is_in_use or (is_current and study.used_at >= oldest):
                studies.append(study)
            else:
                old.append(study)
        return CacheEntry(
            folder=folder,
            source=_describe_source(record),
            steps=tuple(record.get("preprocessing", {})),
            is_current=is_current,
            studies=tuple(studies),
            unused=tuple(old),
            leftovers=tuple(abandoned(folder)),
            is_in_use=is_in_use,
        )

    def prune(self) -> list[CacheEntry]:
        """Remove what is unused, and return the entries as they were.

        Raises:
            CmrvlmError: A folder cannot be removed.
        """
        entries = self.entries()
        for entry in entries:
            try:
                _prune_entry(entry)
            except OSError as error:
                raise CmrvlmError(
                    f"it cannot be removed ({error.strerror})",
                    file=entry.folder,
                    field="prune",
                    remedy="Check who owns it.",
                ) from error
        return entries


def _prune_entry(entry: CacheEntry) -> None:
    """Remove the unused studies of an entry, and the entry itself when nothing is left."""
    with unused(entry.folder) as is_free:
        # A job may have begun since the entries were listed.
        if not is_free:
            return
        for study in entry.unused:
            _remove_study(study)
        for path in entry.leftovers:
            shutil.rmtree(path)
        if entry.is_removed_whole and not any(_studies_of(entry.folder)):
            for path in list(entry.folder.iterdir()):
                if path.is_file():
                    path.unlink()
            # A folder that another job writes into just now stays.
            if not any(entry.folder.iterdir()):
                entry.folder.rmdir()


def _remove_study(study: CachedStudy) -> None:
    """Remove a study's folder, so that a half-removed one is never taken for a study."""
    holder = Path(tempfile.mkdtemp(dir=study.folder.parent, prefix=WRITING))
    os.replace(study.folder, holder / study.folder.name)
    shutil.rmtree(holder)


def _is_entry(folder: Path) -> bool:
    """Return whether a path is an entry of the cache and nothing else."""
    if not _ENTRY_NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    children = list(folder.iterdir())
    return bool(children) and all(_is_part_of_entry(path) for path in children)


def _is_part_of_entry(path: Path) -> bool:
    """Return whether the cache writes such a file or folder into an entry."""
    if path.is_symlink():
        return False
    if path.is_file():
        return path.name in _FILES or bool(_TEMPORARY_FILE.fullmatch(path.name))
    return path.name.startswith(WRITING) or _is_study(path)


def _is_study(path: Path) -> bool:
    """Return whether a folder holds a preprocessed study."""
    return bool(_STUDY_NAME.fullmatch(path.name)) and (path / META_FILE).is_file()


def _studies_of(folder: Path) -> Iterator[CachedStudy]:
    """Yield the studies of an entry in the order of their names."""
    for path in sorted(folder.iterdir()):
        if _is_study(path):
            size = sum(file.stat().st_size for file in path.iterdir())
            yield CachedStudy(path, size, path.stat().st_mtime)


def _read_record(folder: Path) -> dict[str, Any]:
    """Return what an entry was made from, empty where it does not say so."""
    try:
        record = json.loads((folder / ENTRY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Entries of earlier versions have none.
        return {}
    if not isinstance(record, dict) or not isinstance(record.get("preprocessing"), dict):
        return {}
    return record


def _is_current(record: dict[str, Any]) -> bool:
    """Return whether an entry is of today's format and was made by today's code."""
    modules = record.get("modules")
    if record.get("format") != FORMAT or not isinstance(modules, list):
        return False
    return bool(record.get("code") == code_digest([str(module) for module in modules]))


def _describe_source(record: dict[str, Any]) -> str:
    """Return the class of an entry's source and the folder that it reads."""
    if not record:
        return "unknown"
    settings = record.get("settings")
    if not isinstance(settings, dict):
        settings = {}
    place = settings.get("root") or settings.get("folder") or ""
    return f"{record.get('source')} {place}".strip()
