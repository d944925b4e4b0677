"""Files that are complete or absent, never half written, and JSON without NaN."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PART = ".part"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder to write into, and rename it to `path` at the end.

    Renaming within a folder is one step of the file system: whoever is killed or finds the disk
    full leaves the former file as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        yield temporary
        # The content must be on the disk before the name is, or a power cut leaves an empty file.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write files into, each of which is moved into `folder` at the end.

    For libraries that write several files: none of them is ever half written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}{_PART}")
    try:
        temporary.mkdir()
        yield temporary
        folder.mkdir(exist_ok=True)
        for path in temporary.iterdir():
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes; nobody may write into the folder meanwhile."""
    for path in folder.glob(f".*{_PART}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def finite(content: Any) -> Any:
    """Return plain data with null in place of every number that is not finite."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def json_text(content: Any, indent: int | None = None) -> str:
    """Encode plain data as JSON, with null for non-finite numbers and letters unescaped."""
    return json.dumps(finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON, by `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(json_text(content, indent=1), encoding="utf-8")
