"""Files that are there whole or not at all, and JSON as every reader takes it: NaN is no JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PART = ".part"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a file beside another one to write into, and rename it once it is whole.

    It lies in the same folder, so that renaming is one step of the file system: whoever is killed, or finds the disk
    full, leaves what was there before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what `atomic_write` left in a folder when its process was killed; nobody may write there meanwhile."""
    for path in folder.glob(f".*{_PART}"):
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
    """Return plain data as JSON, with null for what is not finite; letters of all languages stay readable."""
    return json.dumps(finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON: beside the file, and renamed once it is whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(json_text(content, indent=1), encoding="utf-8")
