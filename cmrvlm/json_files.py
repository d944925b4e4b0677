"""JSON as every reader takes it: no NaN, which is not JSON, and never half a file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json_text(content, indent=1), encoding="utf-8")
    os.replace(temporary, path)
