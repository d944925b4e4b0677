"""Locks by which jobs that run keep their folders from being removed or written by others.

They are advisory locks of the operating system, which end with their process, however it ends.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from cmrvlm.errors import CmrvlmError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = "in-use.lock"
# Begins the name of a folder that a job writes into before it renames the result.
WRITING = ".writing-"
_SECONDS_A_DAY = 86_400.0
# Workers of a job that was killed hold its lock for a moment longer.
_SECONDS_TO_WAIT = 3.0


class Hold:
    """A folder that is in use for as long as this object lives.

    Copies in other processes hold nothing: the process that handed them out does.

    Args:
        folder: The folder, which is made where there is none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file: BinaryIO | None = None
        if folder is None:
            return
        path = folder / LOCK_FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _locked(path)
        # The folder may be removed while this waits for the lock, and made anew by another job.
        while self._file is not None and not _is_at(path, self._file):
            self.release()
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _locked(path)

    def release(self) -> None:
        """Give the folder free."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.release()

    def __reduce__(self) -> tuple[type[Hold], tuple[()]]:
        return Hold, ()


def _locked(path: Path) -> BinaryIO | None:
    """Open a file and share its lock; return None where the file system takes no lock."""
    try:
        file = path.open("ab")
    except OSError:
        # A cache that may only be read is not pruned by whoever reads it.
        return None
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except OSError:
            file.close()
            return None
    return file


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Return whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Yield whether no job uses a folder, and keep new ones waiting until the block ends."""
    path = folder / LOCK_FILE
    if sys.platform == "win32" or not path.is_file():
        yield True
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside another to write into, which is removed at the end.

    Args:
        folder: The other folder.
    """
    path = Path(tempfile.mkdtemp(dir=folder, prefix=WRITING))
    hold = Hold(path)
    try:
        yield path
    finally:
        hold.release()
        shutil.rmtree(path, ignore_errors=True)


def abandoned(folder: Path) -> list[Path]:
    """Return the folders of `writing_folder` that jobs left behind which were killed."""
    return [path for path in sorted(folder.glob(f"{WRITING}*")) if _is_abandoned(path)]


def _is_abandoned(path: Path) -> bool:
    """Return whether no job writes into a folder any more."""
    if (path / LOCK_FILE).is_file():
        with unused(path) as is_free:
            return is_free
    try:
        written_at = path.stat().st_mtime
    except FileNotFoundError:
        return False
    # A job makes the folder first and its lock next, and some file systems take no lock.
    return written_at < time.time() - _SECONDS_A_DAY


@contextmanager
def exclusive(folder: Path, field: str) -> Iterator[None]:
    """Keep other jobs from writing into a folder, which is made where there is none.

    Args:
        folder: The folder.
        field: Setting of the folder, for the error.

    Raises:
        CmrvlmError: Another job writes into it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=_SECONDS_TO_WAIT)
    except Timeout:
        raise CmrvlmError(
            "another job writes into this folder",
            file=folder,
            field=field,
            remedy="Wait for it, or give another folder.",
        ) from None
    except OSError as error:
        raise CmrvlmError(
            f"the folder cannot be written ({error.strerror})",
            file=folder,
            field=field,
            remedy="Give another folder.",
        ) from error
    try:
        yield
    finally:
        lock.release()
