"""Locks by which jobs that run keep their entries of the cache from being removed.

They are advisory locks of the operating system, which end with their process, however it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

LOCK_FILE = "in-use.lock"


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
            self._release()
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _locked(path)

    def _release(self) -> None:
        """Give the folder free."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self._release()

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
