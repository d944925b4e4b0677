"""Files that file systems leave beside those of data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def without_clutter(paths: Iterable[Path]) -> list[Path]:
    """Return sorted paths without what macOS leaves: `._name`, `.DS_Store` and `__MACOSX`."""
    return sorted(path for path in paths if not _is_clutter(path))


def _is_clutter(path: Path) -> bool:
    """Return whether a path is one that macOS leaves beside files, or in archives of them."""
    return path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts
